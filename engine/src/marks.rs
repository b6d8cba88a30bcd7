//! Coverage marks: `mark!("name")` at a place that is rarely reached. Outside of tests it is
//! nothing. The seeds of the simulation must reach every mark, every transition of the state table
//! and every reason for an end; a test that finds a place again by its name needs no line numbers.

/// Notes that this place was reached.
macro_rules! mark {
    ($name:literal) => {
        #[cfg(any(test, feature = "testing"))]
        crate::marks::reach($name);
    };
}

/// A moment at which another thread may act. In a simulation, it then does.
macro_rules! interruption {
    () => {
        #[cfg(any(test, feature = "testing"))]
        crate::ring::simulated::interrupt();
    };
}

#[cfg(any(test, feature = "testing"))]
pub use recording::{Reached, ended, moved, reach, record, take};

#[cfg(any(test, feature = "testing"))]
mod recording {
    use crate::Reason;
    use crate::shard::state::{Event, State, TRANSITIONS};
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    thread_local! {
        static REACHED: RefCell<Option<Reached>> = const { RefCell::new(None) };
    }

    /// Counts of places in the engine's code that few runs reach: marks with names,
    /// transitions between the states of connections, and reasons for their ends.
    #[derive(Debug, Default)]
    pub struct Reached {
        named: BTreeMap<&'static str, u64>,
        transitions: BTreeMap<(u8, u8), u64>,
        reasons: BTreeMap<&'static str, u64>,
    }

    fn note(f: impl FnOnce(&mut Reached)) {
        REACHED.with_borrow_mut(|reached| reached.as_mut().map(f));
    }

    pub fn reach(name: &'static str) {
        note(|reached| *reached.named.entry(name).or_default() += 1);
    }

    /// A connection was in that state when that happened.
    pub fn moved(from: State, event: Event) {
        let key = (from as u8, event as u8);
        note(|reached| *reached.transitions.entry(key).or_default() += 1);
    }

    /// A connection ended for that reason.
    pub fn ended(reason: Reason) {
        note(|reached| *reached.reasons.entry(reason.name()).or_default() += 1);
    }

    /// From now on what this thread reaches is noted.
    pub fn record() {
        REACHED.set(Some(Reached::default()));
    }

    /// The marks noted on this thread.
    pub fn take() -> Reached {
        REACHED.take().unwrap_or_default()
    }

    impl Reached {
        /// Adds the counts of another thread.
        pub fn add(&mut self, other: &Self) {
            for (to, from) in [(&mut self.named, &other.named), (&mut self.reasons, &other.reasons)]
            {
                from.iter().for_each(|(key, count)| *to.entry(key).or_default() += count);
            }
            for (key, count) in &other.transitions {
                *self.transitions.entry(*key).or_default() += count;
            }
        }

        /// The count of a mark. The names are in the sources of the engine and may change.
        #[must_use]
        pub fn count(&self, name: &str) -> u64 {
            self.named.get(name).copied().unwrap_or(0)
        }

        /// Every place there is, with its count; the rarest first. Reads the sources.
        #[doc(hidden)]
        pub fn table(&self) -> Vec<(u64, String)> {
            let named = names().into_iter().map(|name| {
                let count = self.named.get(name.as_str()).copied().unwrap_or(0);
                (count, format!("mark!({name:?})"))
            });
            let transitions = TRANSITIONS.iter().map(|(from, event, to)| {
                let key = (*from as u8, *event as u8);
                let count = self.transitions.get(&key).copied().unwrap_or(0);
                (count, format!("{from} -{event:?}-> {to}"))
            });
            let reasons = Reason::EACH.into_iter().map(|reason| {
                let count = self.reasons.get(reason.name()).copied().unwrap_or(0);
                (count, format!("Reason::{reason:?}"))
            });
            let mut table: Vec<_> = named.chain(transitions).chain(reasons).collect();
            table.sort();
            table
        }
    }

    /// The names of all marks, from the sources.
    fn names() -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
        names
    }

    fn collect(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("the sources can be listed").path();
            if path.is_dir() {
                collect(&path, names);
            } else if !path.ends_with("src/marks.rs") {
                let text = std::fs::read_to_string(&path).expect("sources are text");
                let found =
                    text.split("mark!(\"").skip(1).filter_map(|rest| rest.split('"').next());
                for name in found {
                    assert!(names.insert(name.to_owned()), "two marks are called {name:?}");
                }
            }
        }
    }

    #[test]
    fn marks_are_found_in_the_sources_and_counted_on_the_thread_that_reaches_them() {
        assert!(names().contains("accept failed"), "{:?}", names());
        record();
        reach("accept failed");
        ended(Reason::Kicked);
        let mut reached = Reached::default();
        reached.add(&take());
        reach("accept failed");
        let table = reached.table();
        let count = |text: &str| table.iter().find(|(_, name)| name == text).map(|it| it.0);
        assert_eq!(count("mark!(\"accept failed\")"), Some(1));
        assert_eq!(count("Reason::Kicked"), Some(1));
        assert_eq!(count("Reason::Aborted"), Some(0));
        assert_eq!(count("Open -PeerFin-> HalfClosedByPeer"), Some(0));
    }
}
