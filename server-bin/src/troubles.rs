//! Counters that grow only when something goes wrong, as messages: once a second, what has been
//! added.

use crate::admin::Watched;
use crate::messages;
use ringwright::Ledger;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// The counters at one time.
#[derive(Clone, Copy, Debug, Default)]
struct Troubles {
    accept_backoffs: u64,
    handler_panics: u64,
    access_lines_lost: u64,
}

/// Starts the thread that looks at the counters. It ends with `watched`.
///
/// # Errors
/// As the start of a thread.
pub fn watch(watched: &Arc<Watched>) -> io::Result<()> {
    let watched = Arc::downgrade(watched);
    let watch = move || {
        let mut before = Troubles::default();
        while let Some(now) = look(&watched) {
            now.messages_since(&before).iter().for_each(messages::warn);
            before = now;
            thread::sleep(INTERVAL);
        }
    };
    thread::Builder::new().name("troubles".into()).spawn(watch).map(drop)
}

/// The counters now. `None`: the server has ended.
fn look(watched: &Weak<Watched>) -> Option<Troubles> {
    let watched = watched.upgrade()?;
    let ledger = watched.served().map(|served| served.handle.ledger());
    Some(Troubles::of(ledger.as_ref(), watched.lines_lost()))
}

impl Troubles {
    fn of(ledger: Option<&Ledger>, access_lines_lost: u64) -> Self {
        Self {
            accept_backoffs: ledger.map_or(0, |ledger| ledger.sum.accept_backoffs),
            handler_panics: ledger.map_or(0, |ledger| ledger.sum.handler_panics),
            access_lines_lost,
        }
    }

    /// A message for each counter that has grown since then.
    fn messages_since(&self, before: &Self) -> Vec<String> {
        let more =
            |now: u64, before: u64| Some(now.saturating_sub(before)).filter(|more| *more > 0);
        let backoffs = more(self.accept_backoffs, before.accept_backoffs).map(|more| {
            format!(
                "accepting paused {more} time(s): no descriptor or no memory is free; raise the \
                 limits as `ringwrightd doctor` says"
            )
        });
        let panics = more(self.handler_panics, before.handler_panics)
            .map(|more| format!("{more} connection(s) ended by a panic"));
        let lost = more(self.access_lines_lost, before.access_lines_lost)
            .map(|more| format!("the access log has lost {more} line(s)"));
        [backoffs, panics, lost].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_is_told() {
        let before = Troubles { accept_backoffs: 3, handler_panics: 1, access_lines_lost: 7 };
        assert_eq!(before.messages_since(&before), Vec::<String>::new());
        let now = Troubles { accept_backoffs: 5, handler_panics: 2, access_lines_lost: 17 };
        let told = now.messages_since(&before);
        assert!(told[0].starts_with("accepting paused 2 time(s): "), "{told:?}");
        assert_eq!(told[1], "1 connection(s) ended by a panic");
        assert_eq!(told[2], "the access log has lost 10 line(s)");
    }
}
