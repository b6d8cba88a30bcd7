//! Delivery: the bytes of the output that the peer has acknowledged.
//!
//! A socket takes some megabytes at once, and a slow reader needs minutes for them. A send counts
//! the bytes that may be unacknowledged. If they are more than a short reply or two, the shard asks
//! `TCP_INFO` and `SIOCOUTQ`. It asks again after a twentieth of the deadline. A deadline is
//! therefore never early, and at most 5 % late.
//!
//! While markers of the output wait for the peer (`markers/waiting.rs`), the shard asks for them,
//! too: 10 ms after one has left, and less often the longer it waits.
//!
//! While a connection lingers, `write_timeout` runs until its output is acknowledged, and
//! `linger_timeout` and `linger_total` from then on.

use super::Shard;
use super::bounds::Full;
use super::family::{Family, Vetoes};
use super::rare::Rare;
use super::settings::look_after_ms;
use super::slots::{NONE, Slot};
use super::state::{Event, State};
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::handler::{Deadline, Handler};
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{self, Ring};

/// How soon an unacknowledged reply is looked after where no deadline runs.
const LOOK_MS: u64 = 1_000;

/// The deadlines while output waits to be taken, or to be acknowledged.
#[derive(Clone, Copy)]
pub(super) enum Progress {
    /// To ask what the peer has acknowledged.
    Look,
    /// The peer has taken nothing for too long.
    Stalled(Deadline),
    /// To ask for the markers that wait for the peer.
    Markers,
}

/// How soon a connection is looked at again whose peer has until then to acknowledge something.
pub(super) fn look_ms(deadline_ms: Option<u64>) -> u64 {
    deadline_ms.map_or(LOOK_MS, look_after_ms)
}

/// The family of output that has left and is not acknowledged.
pub(super) struct Delivery;

impl Family for Delivery {
    type Due = Progress;

    #[inline]
    fn is_quiet(connection: &Slot) -> bool {
        connection.state() != State::Lingering
    }

    #[inline]
    fn record_vetoes(rare: &Rare) -> Vetoes {
        let idle = Vetoes::IDLE.when(!bug!("reader-is-idle"));
        // One that need not be quiet may end before its output is acknowledged.
        let finish = Vetoes::FINISH.when(rare.finish_ms() != 0);
        if rare.delivering() { idle | finish | Vetoes::EVICTION } else { Vetoes::NONE }
    }

    #[inline]
    fn counts_from_activity(rare: &Rare) -> bool {
        !rare.delivering() && !rare.markers_wait()
    }

    #[inline]
    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        _may: Submitting,
    ) -> Result<(), Full> {
        shard.settle_linger(slot);
        Ok(())
    }

    #[inline]
    fn due<R: Ring, H: Handler>(
        shard: &Shard<R, H>,
        slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        if connection.is_plain() {
            return;
        }
        let rare = shard.core.slots.rare_of(connection);
        if rare.markers_wait()
            && !connection.state().is_over()
            && let Some((asked_ms, after_ms)) = shard.core.markers.waiting.next_question(slot)
        {
            candidate(asked_ms, Some(after_ms), Progress::Markers);
        }
        if !rare.delivering() {
            return;
        }
        let looked_ms = rare.looked_ms();
        let waits = match connection.state() {
            State::Lingering => true,
            State::Open | State::HalfClosedByPeer | State::HalfClosedByUs | State::Draining => {
                connection.output_head() == NONE && !bug!("reader-is-idle")
            }
            _ => false,
        };
        if waits {
            let write_ms = shard.core.limits_of(connection).write_ms;
            let since_ms = connection.stalled_since_ms();
            candidate(since_ms, write_ms, Progress::Stalled(Deadline::Write));
            candidate(looked_ms, Some(look_ms(write_ms)), Progress::Look);
        }
    }

    fn expired<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        due: Progress,
        call: Calling,
    ) {
        match due {
            Progress::Markers => _ = shard.ask_for_markers(slot),
            _ => shard.on_progress_due(call, slot, due),
        }
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        let delivering = shard.core.slots.rare(slot).delivering();
        if connection.state() == State::Lingering && connection.fin_seen() && !delivering {
            fail("waits for a FIN that it has seen");
        }
        let waits = !shard.core.markers.waiting.nothing_waits(slot);
        if waits != shard.core.slots.rare(slot).markers_wait() && connection.opened() {
            fail("does not know whether its markers wait");
        }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// The time for progress of the output has passed, or a look at it is due.
    pub(super) fn on_progress_due(&mut self, call: Calling, slot: u32, due: Progress) {
        let before_ms = self.core.slots[slot].stalled_since_ms();
        self.look_at_delivery(slot);
        let Progress::Stalled(deadline) = due else { return };
        if self.core.slots[slot].stalled_since_ms() != before_ms {
            mark!("a slow reader is not late");
            return;
        }
        let reason = match deadline {
            Deadline::Transfer => Reason::TransferTimeout,
            _ => Reason::WriteTimeout,
        };
        if self.core.slots[slot].state() == State::Lingering {
            mark!("a reply is not read to its end");
        } else {
            self.application.expired(call, &mut self.core, slot, deadline);
        }
        self.core.end(slot, reason, true);
    }

    /// Asks what the peer has not acknowledged, and reports the markers that were reached. Returns
    /// the bytes.
    fn ask_for_markers(&mut self, slot: u32) -> u64 {
        let socket = self.core.slots[slot].descriptor();
        let fin_bytes = u64::from(self.core.markers.waiting.fin_was_sent(slot));
        let unacknowledged = |it: ring::Delivery| {
            let lost_bytes = if bug!("reset-acknowledges") { 0 } else { it.lost.into() };
            u64::from(it.outstanding) + u64::saturating_sub(lost_bytes, fin_bytes)
        };
        let bytes = self.ring.delivery(socket).map_or(u64::MAX, unacknowledged);
        self.core.acknowledge_markers(slot, bytes);
        bytes
    }

    /// Asks for the last time, before the connection is cut: an abort makes the kernel forget.
    pub(super) fn note_lost(&mut self, slot: u32) {
        if self.core.markers.are_in_use() && self.core.asks_for_acknowledgement(slot) {
            let bytes = self.ask_for_markers(slot);
            self.core.markers.waiting.note_lost(slot, bytes, self.core.now_ms);
        }
    }

    /// Ends a connection that lingers when both FINs are there and everything is acknowledged.
    fn settle_linger(&mut self, slot: u32) {
        if self.core.slots[slot].state() != State::Lingering {
            return;
        }
        let known = self.core.slots.rare(slot).delivering();
        if !known && self.core.slots[slot].may_be_unacknowledged() && self.look_at_delivery(slot) {
            mark!("lingers until the peer has read");
        }
        let fin_seen = self.core.slots[slot].fin_seen() || bug!("unread-resets-reply");
        let delivering = self.core.slots.rare(slot).delivering() && !bug!("ends-undelivered");
        if fin_seen && !delivering {
            self.core.slots[slot].on(Event::Delivered);
        }
    }

    /// Asks what the peer has acknowledged, and notes progress. Returns whether some of what was
    /// sent is not acknowledged.
    pub(super) fn look_at_delivery(&mut self, slot: u32) -> bool {
        let socket = self.core.slots[slot].descriptor();
        let delivery = self.ring.delivery(socket).unwrap_or_default();
        let now_ms = self.core.now_ms;
        let acknowledged = delivery.acknowledged as u32;
        let delivering = delivery.outstanding > 0;
        let rare = self.core.slots.rare_mut(slot);
        let (looked_ms, before) = (rare.looked_ms(), rare.acknowledged());
        let was_delivering = rare.delivering();
        rare.note_look(now_ms, acknowledged, delivering);
        let connection = &mut self.core.slots[slot];
        // The first look after something has left has nothing to compare with.
        let first = looked_ms < connection.stalled_since_ms() || bug!("deadline-starts-again");
        let moved = first || acknowledged != before;
        if delivering || connection.output_head() != NONE {
            if moved {
                connection.note_progress(now_ms);
            }
        } else if was_delivering || connection.may_be_unacknowledged() {
            // It was acknowledged since the last look.
            connection.note_progress(now_ms);
            if connection.state() != State::Lingering {
                connection.note_activity(now_ms);
            }
        }
        if !delivering {
            connection.note_acknowledged();
        }
        delivering
    }
}
