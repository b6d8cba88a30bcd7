//! The end of a connection, in this order: shutdown(2) or abort, the terminal completions of what
//! is in flight, what it holds, CLOSE, `closed`, the slot and its generation, the permit.
//!
//! At the end of lingering, a peer that still sends gets a reset, another one an ordinary close.
//! With `count_traffic`, the shard asks `TCP_INFO` for the bytes of a connection right before the
//! cut. Hazard: an abort resets the counters of the kernel. They also count a FIN of the peer as a
//! byte.

use super::Shard;
use super::bounds::Full;
use super::family::{After, Family, Outcome, Vetoes};
use super::rare::Rare;
use super::slots::{NONE, Slot};
use super::state::{Event, State};
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::admission::Holder;
use crate::handler::{Deadline, Handler};
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Kind, Op, Ring, Shutdown};

/// The time that a drain waits, after our FIN, for a peer that sends nothing.
const DRAIN_LINGER_MS: u64 = 500;

/// A peer has stopped sending when nothing has come for so long.
const STILL_SENDS_MS: u64 = 1_000;

/// Silence after which a message that was begun does not keep a connection from finishing.
const REST_MS: u64 = 1_000;

/// The deadlines of a connection that has nothing else to do.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// It is idle.
    Idle,
    /// To ask what the peer has acknowledged.
    Look,
    /// It was to end when quiet.
    Finish,
    /// The peer has sent nothing for long enough, or sends for ever.
    Linger,
}

/// The family of the end: idle time, `finish`, lingering, and the close.
pub(super) struct Closing;

impl Family for Closing {
    type Due = Ending;

    const ALWAYS: bool = true;

    #[inline]
    fn is_quiet(connection: &Slot) -> bool {
        connection.state() == State::Open
    }

    #[inline]
    fn is_record_quiet(rare: &Rare) -> bool {
        rare.finish_ms() == NONE
    }

    #[inline]
    fn counts_from_activity(rare: &Rare) -> bool {
        rare.finish_ms() == NONE
    }

    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        outcome: Outcome,
        call: Calling,
    ) -> After {
        debug_assert_eq!(outcome.kind, Kind::Close);
        shard.on_close(call, slot);
        After::Freed
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, _call: Calling) {
        shard.settle_finish(slot);
    }

    #[inline]
    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        shard.flush_close(may, slot)
    }

    #[inline]
    fn due<R: Ring, H: Handler>(
        shard: &Shard<R, H>,
        slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        match connection.state() {
            State::Lingering => shard.lingers_until(slot, connection, candidate),
            state if state.hears() => shard.rests_until(connection, candidate),
            _ => {}
        }
    }

    fn expired<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        due: Ending,
        call: Calling,
    ) {
        match due {
            Ending::Idle => shard.on_idle(call, slot),
            Ending::Look => {
                shard.look_at_delivery(slot);
            }
            // The walk ends it.
            Ending::Finish => {}
            Ending::Linger => shard.end_linger(slot),
        }
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        shard.core.timers.disarm(slot);
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        _shard: &Shard<SimulatedRing, H>,
        _slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        match connection.state() {
            State::Ending if connection.in_flight().is_empty() => fail("does not end"),
            State::Closing if !connection.in_flight().has(Kind::Close) => fail("does not close"),
            _ => {}
        }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// The deadlines of a connection that lingers.
    fn lingers_until(
        &self,
        slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Ending),
    ) {
        let rare = self.core.slots.rare_of(connection);
        if rare.delivering() {
            return;
        }
        let limits = &self.core.limits;
        // A drain need not wait long for keep-alive clients that have nothing more to say.
        let silent = !rare.discards() && self.core.drains(slot);
        let linger_ms =
            if silent { limits.linger_ms.min(DRAIN_LINGER_MS) } else { limits.linger_ms };
        let delivered_ms = connection.stalled_since_ms();
        candidate(delivered_ms.max(connection.active_ms()), Some(linger_ms), Ending::Linger);
        candidate(delivered_ms, Some(limits.linger_total_ms), Ending::Linger);
    }

    /// The deadlines of a connection without anything to do.
    fn rests_until(&self, connection: &Slot, candidate: &mut impl FnMut(u64, Option<u64>, Ending)) {
        let idle_ms = self.core.limits_of(connection).idle_ms;
        if !self.core.vetoes(connection).has(Vetoes::IDLE) {
            candidate(connection.active_ms(), idle_ms, Ending::Idle);
            if idle_ms.is_some() && connection.may_be_unacknowledged() {
                let soonest_ms = self.core.settings.soonest_ms(connection.settings());
                candidate(connection.active_ms(), Some(soonest_ms), Ending::Look);
            }
        }
        if !connection.is_plain()
            && let Some(at_ms) = self.finishes_at_ms(connection)
        {
            candidate(at_ms, Some(0), Ending::Finish);
        }
    }

    /// When a connection that is to finish may, if nothing happens before; `None` if it is not
    /// at rest, as far as is known here.
    fn finishes_at_ms(&self, connection: &Slot) -> Option<u64> {
        let finish_ms = self.core.slots.rare_of(connection).finish_ms();
        if finish_ms == NONE
            || !connection.state().hears()
            || self.core.vetoes(connection).has(Vetoes::FINISH)
        {
            return None;
        }
        // The rest of a message is waited for, but not as long as a client may take for it.
        let quiet_ms = u64::from(finish_ms);
        let quiet_ms = if connection.carry() == NONE { quiet_ms } else { quiet_ms.max(REST_MS) };
        Some(connection.active_ms() + quiet_ms)
    }

    /// The time for being idle has passed.
    fn on_idle(&mut self, call: Calling, slot: u32) {
        if self.has_unread(slot) {
            mark!("with unread bytes it is not idle");
            self.core.slots[slot].note_activity(self.core.now_ms);
            return;
        }
        if self.core.slots[slot].unasked() > 0
            && !bug!("reader-is-idle")
            && self.look_at_delivery(slot)
        {
            mark!("who reads is not idle");
            return;
        }
        self.application.expired(call, &mut self.core, slot, Deadline::Idle);
        self.end_idle(slot);
    }

    /// Ends an idle connection. With nothing queued, unread or unacknowledged there is nothing that
    /// a reset could destroy, and so nothing to linger for.
    fn end_idle(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        let at_rest = connection.state() == State::Open
            && connection.output_head() == NONE
            && connection.carry() == NONE
            && !self.core.drains(slot);
        if at_rest && self.ring.unread_bytes(connection.descriptor()) == Ok(0) {
            self.core.end(slot, Reason::IdleTimeout, false);
        } else {
            self.core.close(slot, Reason::IdleTimeout);
        }
    }

    /// The peer has sent neither its FIN nor anything else for long enough, or sends for ever.
    fn end_linger(&mut self, slot: u32) {
        // A short reply may have been taken for acknowledged.
        if self.core.slots[slot].unasked() > 0 && self.look_at_delivery(slot) {
            mark!("a short reply is not read yet");
            return;
        }
        let now_ms = self.core.now_ms;
        let unread = self.unread_bytes(slot) > 0;
        if unread && self.is_after_pause() {
            mark!("what came during a pause is discarded first");
            self.core.slots[slot].note_activity(now_ms);
            return;
        }
        mark!("lingered long enough");
        let sends = self.core.slots.rare(slot).discards()
            && now_ms < self.core.slots[slot].active_ms() + STILL_SENDS_MS;
        self.core.end(slot, Reason::LocalClose, unread || sends);
    }

    /// Closes a connection that was to finish, if it is at rest.
    fn settle_finish(&mut self, slot: u32) {
        if self.core.slots.get(slot).is_none()
            || self
                .finishes_at_ms(&self.core.slots[slot])
                .is_none_or(|at_ms| self.core.now_ms < at_ms)
        {
            return;
        }
        let connection = &self.core.slots[slot];
        let fin_seen = connection.fin_seen();
        // What came since the last completion lies in the socket, and will be received.
        if !fin_seen && self.unread_bytes(slot) > 0 {
            mark!("finish waits for unread bytes");
            return;
        }
        // A peer that reads is not quiet. One that need not be quiet reads on after our FIN.
        let quiet = self.core.slots.rare(slot).finish_ms() > 0;
        if quiet && self.core.slots[slot].may_be_unacknowledged() && self.look_at_delivery(slot) {
            mark!("finish waits for the peer to read");
            return;
        }
        mark!("finished");
        let reason = if self.core.drains(slot) { Reason::Drained } else { Reason::LocalClose };
        self.core.close(slot, reason);
        // The FIN follows at once, so that as good as nothing can come in between.
        if self.core.slots[slot].state() == State::Draining {
            self.output_is_empty(slot);
            if !fin_seen {
                self.core.counters.cut_off += u64::from(self.unread_bytes(slot));
            }
        }
    }

    /// Takes an ending connection as far as it can go now.
    fn flush_close(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        if connection.state() != State::Ending {
            return Ok(());
        }
        let descriptor = connection.descriptor();
        let connects = !connection.is_cut() && connection.in_flight().has(Kind::Connect);
        if connects && !bug!("cut-before-connect") && !self.ring.submit_all() {
            // A connect that the kernel takes after the cut would not end by it.
            self.core.touch(slot);
            return Ok(());
        }
        let connection = &mut self.core.slots[slot];
        if connection.cut() {
            let abortive = connection.abortive();
            self.note_traffic(slot);
            self.note_lost(slot);
            // Ends what is armed. ENOTCONN after a reset is normal: then everything has ended.
            let _ = if abortive {
                self.ring.abort(descriptor)
            } else if bug!("close-without-shutdown") {
                Ok(())
            } else {
                self.ring.shutdown(descriptor, Shutdown::Both)
            };
        }
        let in_flight = self.core.slots[slot].in_flight();
        let ignored = if bug!("close-without-shutdown") {
            in_flight.has(Kind::Receive)
        } else {
            bug!("slot-freed-in-flight") && !in_flight.has(Kind::Close)
        };
        if (!in_flight.is_empty() && !ignored) || self.core.slots.rare(slot).naming() != NONE {
            return Ok(());
        }
        self.submit(may, slot, Kind::Close, Op::Close { descriptor })?;
        self.core.slots[slot].on(Event::Quiet);
        if bug!("permit-before-slot") {
            self.core.admission.give_back(self.core.slots.holder(slot));
        }
        self.release_all(slot);
        Ok(())
    }

    /// Asks for the bytes of a connection before it is cut: an abort makes the kernel forget them.
    pub(super) fn note_traffic(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        if self.core.limits_of(connection).count_traffic
            && connection.opened()
            && let Ok(traffic) = self.ring.traffic(connection.descriptor(), connection.fin_seen())
        {
            self.core.traffic.insert(slot, traffic);
        }
    }

    /// The descriptor is closed. It is gone whatever CLOSE answered (close(2)).
    fn on_close(&mut self, call: Calling, slot: u32) {
        assert_eq!(self.core.slots[slot].state(), State::Closing);
        if bug!("closed-twice") && self.core.slots[slot].opened() {
            self.report_end(call, slot);
            self.core.slots[slot].note_opened();
        }
        self.report_end(call, slot);
        if self.core.slots[slot].untouch() {
            self.core.touched.retain(|touched| *touched != slot);
        }
        let cell = self.core.slots.identity(slot).cell;
        let holder = self.core.slots.holder(slot);
        let tries_on = holder == Holder::Outgoing && self.core.try_next_address(slot);
        self.core.forget_client(slot);
        self.core.slots.remove(slot);
        if !bug!("address-count-kept") {
            self.core.admission.forget_address(cell);
        }
        if !bug!("permit-before-slot") && !tries_on {
            self.core.admission.give_back(holder);
        }
    }

    /// Tells the application, once, of the end of a connection it was told of.
    pub(super) fn report_end(&mut self, call: Calling, slot: u32) {
        let connection = &mut self.core.slots[slot];
        let reason = connection.reason().unwrap_or(Reason::LocalClose);
        if connection.take_opened() {
            let opened_ms = self.core.slots.identity(slot).opened_ms.get();
            let lifetime_ms = self.core.now_ms.saturating_sub(opened_ms);
            self.core.counters.lifetime_ms.add(lifetime_ms);
            #[cfg(any(test, feature = "testing"))]
            crate::marks::ended(reason);
            self.core.counters.closed += 1;
            self.transit.note_closed(self.core.shard);
            self.core.counters.closed_by[reason as usize] += 1;
            self.core.connection_has_ended(slot, reason, lifetime_ms);
            let id = self.core.id(slot);
            self.core.reporting = slot;
            report!(closed(self.core.shard, id, reason, self.core.ended()));
            self.application.closed(call, &mut self.core, slot, id, reason);
            self.core.reporting = NONE;
            if self.core.markers.are_in_use() {
                self.core.end_markers(slot, reason);
            }
            self.core.traffic.remove(&slot);
            self.core.errnos.remove(&slot);
        }
    }
}
