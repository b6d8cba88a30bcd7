//! Repeated inspection of a server until it has released everything.

use ringload_lifecycle::system::Interrupts;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Interval between two inspections.
const LOOK: Duration = Duration::from_millis(100);

/// A resource of which the server holds more after the run than before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stays {
    /// The resource: `connections.open`, `descriptors: socket`, …
    pub name: String,
    /// Amount before the run.
    pub before: u64,
    /// Amount at the last inspection.
    pub after: u64,
}

impl Stays {
    /// Returns `None` if `after` is not larger than `before`.
    #[must_use]
    pub fn new(name: impl Into<String>, before: u64, after: u64) -> Option<Self> {
        (after > before).then(|| Self { name: name.into(), before, after })
    }

    /// Returns a text such as `connections.open: 3, before the run 0`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}: {}, before the run {}", self.name, self.after, self.before)
    }
}

/// Maximum amount of any one resource that a connection holds in a server: descriptors of its file
/// and pipe, buffers of its output.
const PER_CONNECTION_MAX: u64 = 16;

/// Returns true if connections of clients that vanished without a packet explain everything that
/// has grown: a server must keep them until its own timeouts have passed. `connections` names the
/// count of connections, and `never` the resources that no connection holds.
#[must_use]
pub fn is_explained(stays: &[Stays], vanished: u64, connections: &str, never: &[&str]) -> bool {
    let grown = |of: &Stays| of.after - of.before;
    let open = stays.iter().find(|of| of.name == connections).map_or(0, grown);
    (1..=vanished).contains(&open)
        && stays.iter().all(|of| {
            !never.contains(&&*of.name) && grown(of) <= PER_CONNECTION_MAX.saturating_mul(open)
        })
}

/// The last inspection and its result.
pub struct Settled<T> {
    /// The state of the server.
    pub last: T,
    /// The resources that have grown.
    pub stays: Vec<Stays>,
    /// Time since the first inspection.
    pub took: Duration,
}

/// Inspects the server until nothing has grown, at most for `settle`, or until a signal arrives.
///
/// # Errors
/// The error of the last inspection.
pub fn wait<T>(
    settle: Duration,
    interrupts: &Interrupts,
    mut look: impl FnMut() -> Result<(T, Vec<Stays>), String>,
) -> Result<Settled<T>, String> {
    let start = Instant::now();
    loop {
        let seen = look();
        let is_last = start.elapsed() >= settle;
        match seen {
            Ok((last, stays)) if stays.is_empty() || is_last => {
                return Ok(Settled { last, stays, took: start.elapsed() });
            }
            Err(why) if is_last => return Err(why),
            Ok(_) | Err(_) => {}
        }
        if interrupts.wait(LOOK.min(settle)) {
            let (last, stays) = look()?;
            return Ok(Settled { last, stays, took: start.elapsed() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vanished_clients_explain_their_connections_and_no_more() {
        let stays = |open: u64, buffers: u64, panics: u64| -> Vec<Stays> {
            [("open", open), ("buffers", buffers), ("panics", panics)]
                .into_iter()
                .filter_map(|(name, grown)| Stays::new(name, 7, 7 + grown))
                .collect()
        };
        for (open, buffers, panics, vanished, must) in [
            (3, 5, 0, 3, true),
            (3, 5, 0, 2, false),
            (3, 5, 1, 3, false),
            (0, 5, 0, 3, false),
            (1, 17, 0, 3, false),
            (3, 0, 0, 0, false),
        ] {
            let stays = stays(open, buffers, panics);
            assert_eq!(is_explained(&stays, vanished, "open", &["panics"]), must, "{stays:?}");
        }
    }

    #[test]
    fn what_comes_back_late_has_not_stayed() {
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let mut looks = 0;
        let settled = wait(Duration::from_secs(60), &interrupts, || {
            looks += 1;
            let stays = Stays::new("x", 1, if looks < 3 { 2 } else { 1 });
            Ok((looks, stays.into_iter().collect()))
        })
        .expect("it can be looked at");
        assert_eq!((settled.last, settled.stays), (3, vec![]));
    }

    #[test]
    fn what_never_comes_back_is_told_when_the_time_is_over() {
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let stays = Stays::new("x", 1, 2).expect("it is more");
        assert_eq!(stays.text(), "x: 2, before the run 1");
        let look = || Ok(((), vec![stays.clone()]));
        let settled = wait(Duration::from_millis(150), &interrupts, look).expect("a look");
        assert_eq!(settled.stays, [stays]);
        assert!(settled.took >= Duration::from_millis(150));
        let look = || Err::<((), _), _>("gone".to_string());
        assert_eq!(wait(Duration::ZERO, &interrupts, look).err().as_deref(), Some("gone"));
    }
}
