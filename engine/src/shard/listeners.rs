//! The listeners whose clients this shard has: how many these are, and until when they may stay.
//! Their sockets are in `accept.rs` and `listening.rs`.

use crate::admission::Listening;
use crate::config::SharedSettings;
use std::sync::Arc;

/// A listener that is open on this shard, or has clients here.
struct Known {
    listening: Arc<Listening>,
    /// Its clients here, waiting ones included, and one more while it is open.
    users: u32,
    leaving: Leaving,
    /// Connections that are accepted from now on have these.
    settings: SharedSettings,
}

/// How far the removal of a listener is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Its connections may stay until then, ms.
    Until(u64),
    /// Its connections were reset.
    Over,
}

/// All of them, by number.
#[derive(Default)]
pub struct Listeners {
    known: Vec<Option<Known>>,
    /// Removed ones among them.
    leaving: usize,
}

impl Listeners {
    /// A listener is open here from now on.
    pub fn open(&mut self, listening: Arc<Listening>, settings: SharedSettings) {
        let at = usize::from(listening.number());
        if at >= self.known.len() {
            self.known.resize_with(at + 1, || None);
        }
        match &mut self.known[at] {
            // Another shard was faster, and has handed clients over.
            Some(known) => {
                assert!(Arc::ptr_eq(&known.listening, &listening), "a number has one listener");
                known.users += 1;
                known.settings = settings;
            }
            none => {
                *none = Some(Known { listening, users: 1, leaving: Leaving::No, settings });
            }
        }
    }

    /// The socket of a listener is closed.
    pub fn close(&mut self, number: u16) {
        self.give_up_one(number);
    }

    /// Counts a client. False: the listener has as many as it may have, over all shards.
    pub fn enter(&mut self, number: u16) -> bool {
        let known = self.known[usize::from(number)].as_mut().expect("it is open");
        let entered = known.listening.enter(known.settings.values.connections_max);
        known.users += u32::from(entered);
        entered
    }

    /// A client that is counted goes to another shard, with its listener.
    pub fn hand_over(&mut self, number: u16) -> (Arc<Listening>, SharedSettings) {
        let known = self.known[usize::from(number)].as_ref().expect("it has this client");
        let of_client = (known.listening.clone(), known.settings.clone());
        self.give_up_one(number);
        of_client
    }

    /// A client that is counted comes from another shard. The listener may still be on its way to
    /// this one.
    pub fn take_over(&mut self, (listening, settings): (Arc<Listening>, SharedSettings)) {
        let number = usize::from(listening.number());
        match self.known.get_mut(number) {
            Some(Some(known)) => {
                assert!(Arc::ptr_eq(&known.listening, &listening), "a number has one listener");
                known.users += 1;
            }
            _ => self.open(listening, settings),
        }
    }

    /// Returns whether a listener is open here, or has clients here.
    pub fn knows(&self, number: u16) -> bool {
        matches!(self.known.get(usize::from(number)), Some(Some(_)))
    }

    /// Changes the settings of the connections that are accepted from now on.
    pub fn set(&mut self, number: u16, settings: SharedSettings) {
        if let Some(Some(known)) = self.known.get_mut(usize::from(number)) {
            known.settings = settings;
        }
    }

    /// The settings of a connection that is accepted now.
    pub fn settings_of(&self, number: u16) -> &SharedSettings {
        let known = self.known[usize::from(number)].as_ref();
        &known.expect("it has this client").settings
    }

    /// The number of the handler that serves the connections of a listener.
    pub fn handler_of(&self, number: u16) -> u8 {
        let known = self.known.get(usize::from(number)).and_then(Option::as_ref);
        known.map_or(0, |known| known.listening.handler())
    }

    /// Ends the count of a client.
    pub fn leave(&mut self, number: u16) {
        let known = self.known[usize::from(number)].as_ref().expect("it has this client");
        known.listening.leave();
        self.give_up_one(number);
    }

    fn give_up_one(&mut self, number: u16) {
        let at = usize::from(number);
        let known = self.known[at].as_mut().expect("it has users");
        known.users -= 1;
        if known.users == 0 {
            self.leaving -= usize::from(known.leaving != Leaving::No);
            self.known[at] = None;
            while matches!(self.known.last(), Some(None)) {
                self.known.pop();
            }
        }
    }

    /// A listener was removed: its connections may stay until then. Returns false if there is none
    /// here. A second call can only shorten the time.
    pub fn remove(&mut self, number: u16, until_ms: u64) -> bool {
        let Some(Some(known)) = self.known.get_mut(usize::from(number)) else { return false };
        known.leaving = match known.leaving {
            Leaving::No => {
                self.leaving += 1;
                Leaving::Until(until_ms)
            }
            Leaving::Until(before_ms) => Leaving::Until(until_ms.min(before_ms)),
            Leaving::Over => Leaving::Over,
        };
        true
    }

    /// Returns whether the connections of a listener are to end, because it was removed.
    #[inline]
    pub fn is_leaving(&self, number: u16) -> bool {
        self.leaving > 0 && self.leaving_of(number) != Leaving::No
    }

    /// Returns whether the time of a removed listener's connections is over.
    #[inline]
    pub fn is_over(&self, number: u16) -> bool {
        self.leaving > 0 && self.leaving_of(number) == Leaving::Over
    }

    fn leaving_of(&self, number: u16) -> Leaving {
        let known = self.known.get(usize::from(number)).and_then(Option::as_ref);
        known.map_or(Leaving::No, |known| known.leaving)
    }

    /// When the time of a removed listener's connections is over next, ms.
    pub fn next_ms(&self) -> Option<u64> {
        let until = |known: &Known| match known.leaving {
            Leaving::Until(at_ms) => Some(at_ms),
            Leaving::No | Leaving::Over => None,
        };
        self.known.iter().flatten().filter_map(until).min()
    }

    /// Takes a removed listener whose connections' time is over.
    pub fn take_due(&mut self, now_ms: u64) -> Option<u16> {
        let due = |known: &&mut Known| match known.leaving {
            Leaving::Until(at_ms) => at_ms <= now_ms,
            Leaving::No | Leaving::Over => false,
        };
        let known = self.known.iter_mut().flatten().find(due)?;
        known.leaving = Leaving::Over;
        Some(known.listening.number())
    }

    /// Numbers and users of all listeners here.
    #[cfg(any(test, feature = "testing"))]
    pub fn users(&self) -> Vec<(u16, u32)> {
        let known = self.known.iter().flatten();
        known.map(|known| (known.listening.number(), known.users)).collect()
    }
}
