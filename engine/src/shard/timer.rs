//! The timers of the application. Each connection has up to 256, by number.
//!
//! The earliest timer of a connection is in its record, where the walk over the deadlines sees it.
//! The others are in a list of their own, which most connections lack.

mod later;

pub use later::LaterTimers;

use super::Shard;
use super::core::Core;
use super::deadlines::RETRY_MS;
use super::family::Family;
use super::rare::{NONE, Rare};
use super::slots::Slot;
use super::turn::Calling;
use crate::handler::Handler;
use crate::ring::Ring;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;

/// The family of timers.
pub(super) struct Timer;

impl Family for Timer {
    type Due = ();

    #[inline]
    fn counts_from_activity(rare: &Rare) -> bool {
        rare.timer_ms() == 0
    }

    #[inline]
    fn due<R: Ring, H: Handler>(
        shard: &Shard<R, H>,
        _slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        if !connection.is_plain() && connection.state().hears() {
            let timer_ms = shard.core.slots.rare_of(connection).timer_ms();
            candidate(timer_ms, Some(0).filter(|_| timer_ms != 0), ());
        }
    }

    fn expired<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, (): (), call: Calling) {
        while let Some(number) = shard.core.due_timer(slot) {
            if shard.is_after_pause() && shard.has_unread(slot) {
                shard.core.set_timer(slot, number, Some(RETRY_MS));
            } else {
                shard.core.set_timer(slot, number, None);
                shard.application.timer(call, &mut shard.core, slot, number);
            }
        }
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        if let Some(rare) = shard.core.slots.rare_if_any(slot)
            && let Some(list) = rare.take_later_timers()
        {
            shard.core.later_timers.drop_list(list);
        }
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        _connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        let rare = shard.core.slots.rare(slot);
        if rare.later_timers() == NONE {
            return;
        }
        let later = shard.core.later_timers.entries(rare.later_timers());
        let mut numbers: Vec<u8> = later.iter().map(|(_, number)| *number).collect();
        numbers.push(rare.timer_number());
        numbers.sort_unstable();
        numbers.dedup();
        if later.is_empty() || rare.timer_ms() == 0 || numbers.len() != later.len() + 1 {
            fail("has a list of timers that is not one");
        }
        if later.iter().any(|(at_ms, _)| *at_ms < rare.timer_ms()) {
            fail("has an earlier timer than the one in its record");
        }
    }
}

impl Core {
    /// Sets a timer, or clears it. It is due in a millisecond or later: a handler that sets one of
    /// no length in each `timer` does not spin.
    pub fn set_timer(&mut self, slot: u32, number: u8, after_ms: Option<u64>) {
        if after_ms.is_none() && self.slots.rare(slot).timer_ms() == 0 {
            return;
        }
        let rare = self.slots.rare_mut(slot);
        let list = Some(rare.later_timers()).filter(|list| *list != NONE);
        if rare.timer_ms() != 0 && rare.timer_number() == number {
            let next = list.map(|list| self.later_timers.take_earliest(list));
            let ((at_ms, number), gone) = next.unwrap_or(((0, 0), false));
            rare.set_timer(at_ms, number);
            if gone {
                rare.take_later_timers();
            }
        } else if let Some(list) = list
            && self.later_timers.remove(list, number)
        {
            rare.take_later_timers();
        }
        let Some(after_ms) = after_ms else { return };
        let mut entry = (self.now_ms + after_ms.max(1), number);
        let earliest = (rare.timer_ms(), rare.timer_number());
        if earliest.0 == 0 || entry.0 < earliest.0 {
            rare.set_timer(entry.0, entry.1);
            entry = earliest;
        }
        if entry.0 != 0 {
            mark!("a second timer");
            let list = Some(rare.later_timers()).filter(|list| *list != NONE);
            rare.set_later_timers(self.later_timers.add(list, entry));
        }
    }

    /// The number of the timer that is due first, if it is due now.
    fn due_timer(&self, slot: u32) -> Option<u8> {
        let rare = self.slots.rare(slot);
        let due = (1..=self.now_ms).contains(&rare.timer_ms());
        (due && self.slots[slot].state().hears()).then(|| rare.timer_number())
    }
}
