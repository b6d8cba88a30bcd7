//! The timer of the application, one for each connection.

use super::Shard;
use super::deadlines::RETRY_MS;
use super::family::Family;
use super::rare::Rare;
use super::slots::Slot;
use super::turn::Calling;
use crate::handler::Handler;
use crate::ring::Ring;

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
        if shard.is_after_pause() && shard.has_unread(slot) {
            let at_ms = shard.core.now_ms + RETRY_MS;
            shard.core.slots.rare_mut(slot).set_timer(at_ms);
        } else {
            shard.core.slots.rare_mut(slot).set_timer(0);
            shard.application.timer(call, &mut shard.core, slot);
        }
    }
}
