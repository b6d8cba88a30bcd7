//! Attempts to connect that a callback may end, and those that try another address.

use crate::Reason;
use crate::shard::core::Core;
use crate::shard::state::State;

impl Core {
    /// Ends the attempts with a tag. False: there is none.
    pub fn cancel_connect(&mut self, tag: u64) -> bool {
        let mut found = self.connects.cancel(tag);
        for slot in self.connects.cancel_with_slot(tag) {
            found = true;
            if self.slots[slot].state() == State::Connecting {
                mark!("a connect in flight is cancelled");
                self.end(slot, Reason::LocalClose, true);
            } else {
                mark!("a connect is cancelled while its slot ends");
            }
        }
        found
    }

    /// The permits in use on this shard.
    pub fn permits(&self) -> usize {
        self.slots.len() + self.connects.permits()
    }

    /// The time in which the connect of a slot must succeed, ms.
    pub fn connect_ms(&self, slot: u32) -> u64 {
        let own_ms = self.connects.with_slot.get(&slot).and_then(|it| it.timeout_ms());
        own_ms.unwrap_or(self.limits.connect_ms)
    }

    /// The slot of a failed connect is about to be free: its attempt takes the permit over and
    /// tries the next address. False: there is no such attempt.
    pub fn try_next_address(&mut self, slot: u32) -> bool {
        let Some(mut attempt) = self.connects.with_slot.remove(&slot) else { return false };
        mark!("another address is tried");
        attempt.kept = self.link_asks_again(slot);
        attempt.permit = true;
        self.connects.put_first(attempt);
        true
    }
}

#[cfg(any(test, feature = "testing"))]
impl Core {
    /// An attempt has a slot as long as the slot connects, or ends before the next address.
    pub fn check_connects(&self) {
        self.connects.check(self.now_ms);
        for (slot, attempt) in &self.connects.with_slot {
            let connection = self.slots.get(*slot).expect("an attempt has its slot");
            assert!(!connection.opened(), "slot {slot}: attempt {} is over", attempt.tag);
        }
        for (slot, connection) in self.slots.iter() {
            let connects = connection.state() == State::Connecting;
            assert!(!connects || self.connects.with_slot.contains_key(&slot), "slot {slot}: lost");
        }
    }
}
