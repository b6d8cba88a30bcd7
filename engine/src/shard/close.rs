//! The end of a connection, in this order: shutdown(2) or abort, the terminal completions of what
//! is in flight, what it holds, CLOSE, `closed`, the slot and its generation, the permit.
//!
//! At the end of lingering, a peer that still sends gets a reset, another one an ordinary close.
//! With `count_traffic`, the shard asks `TCP_INFO` for the bytes of a connection right before the
//! cut. Hazard: an abort resets the counters of the kernel. They also count a FIN of the peer as a
//! byte.

use super::Shard;
use super::bounds::Full;
use super::output::Body;
use super::pipes::Side;
use super::slots::NONE;
use super::state::{Event, State};
use crate::Reason;
use crate::handler::Handler;
use crate::ring::{Kind, Op, Ring, Shutdown};

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Closes a connection that was to finish, if it is at rest.
    pub(super) fn settle_finish(&mut self, slot: u32) {
        if self.core.slots.get(slot).is_none()
            || self.core.finishes_at_ms(slot).is_none_or(|at_ms| self.core.now_ms < at_ms)
        {
            return;
        }
        let connection = &self.core.slots[slot];
        let fin_seen = connection.fin_seen;
        // What came since the last completion lies in the socket, and will be received.
        if !fin_seen && self.unread_bytes(slot) > 0 {
            mark!("finish waits for unread bytes");
            return;
        }
        // A peer that reads is not quiet. One that need not be quiet reads on after our FIN.
        let quiet = self.core.slots.rare(slot).finish_ms > 0;
        if quiet && self.core.slots[slot].may_be_unacknowledged() && self.look_at_delivery(slot) {
            mark!("finish waits for the peer to read");
            return;
        }
        mark!("finished");
        let reason = if self.core.drains(slot) { Reason::Drained } else { Reason::LocalClose };
        self.core.close(slot, reason);
        // The FIN follows at once, so that as good as nothing can come in between.
        if self.core.slots[slot].state == State::Draining {
            self.output_is_empty(slot);
            if !fin_seen {
                self.core.counters.cut_off += u64::from(self.unread_bytes(slot));
            }
        }
    }

    /// Ends a connection that lingers when both FINs are there and everything is acknowledged.
    pub(super) fn settle_linger(&mut self, slot: u32) {
        if self.core.slots[slot].state != State::Lingering {
            return;
        }
        let known = self.core.slots.rare(slot).delivering;
        if !known && self.core.slots[slot].may_be_unacknowledged() && self.look_at_delivery(slot) {
            mark!("lingers until the peer has read");
        }
        let fin_seen = self.core.slots[slot].fin_seen || bug!("unread-resets-reply");
        let delivering = self.core.slots.rare(slot).delivering && !bug!("ends-undelivered");
        if fin_seen && !delivering {
            self.core.slots[slot].on(Event::Delivered);
        }
    }

    /// Takes an ending connection as far as it can go now.
    pub(super) fn flush_close(&mut self, slot: u32) -> Result<(), Full> {
        let connection = &mut self.core.slots[slot];
        if connection.state != State::Ending {
            return Ok(());
        }
        let descriptor = connection.descriptor;
        let connects = !connection.cut && connection.in_flight.has(Kind::Connect);
        if connects && !bug!("cut-before-connect") && !self.ring.submit_all() {
            // A connect that the kernel takes after the cut would not end by it.
            self.core.touch(slot);
            return Ok(());
        }
        let connection = &mut self.core.slots[slot];
        if !std::mem::replace(&mut connection.cut, true) {
            let abortive = connection.abortive;
            self.note_traffic(slot);
            // Ends what is armed. ENOTCONN after a reset is normal: then everything has ended.
            let _ = if abortive {
                self.ring.abort(descriptor)
            } else if bug!("close-without-shutdown") {
                Ok(())
            } else {
                self.ring.shutdown(descriptor, Shutdown::Both)
            };
        }
        let in_flight = self.core.slots[slot].in_flight;
        let ignored = if bug!("close-without-shutdown") {
            in_flight.has(Kind::Receive)
        } else {
            bug!("slot-freed-in-flight") && !in_flight.has(Kind::Close)
        };
        if (!in_flight.is_empty() && !ignored) || self.core.slots.rare(slot).naming != NONE {
            return Ok(());
        }
        self.submit(slot, Kind::Close, Op::Close { descriptor })?;
        self.core.slots[slot].on(Event::Quiet);
        if bug!("permit-before-slot") {
            self.core.admission.give_back(self.core.slots.holder(slot));
        }
        self.release_holdings(slot);
        if bug!("closed-twice") && self.core.slots[slot].opened {
            self.report_end(slot);
            self.core.slots[slot].opened = true;
        }
        Ok(())
    }

    /// Asks for the bytes of a connection before it is cut: an abort makes the kernel forget them.
    pub(super) fn note_traffic(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        if self.core.limits_of(connection).count_traffic
            && connection.opened
            && let Ok(traffic) = self.ring.traffic(connection.descriptor, connection.fin_seen)
        {
            self.core.traffic.insert(slot, traffic);
        }
    }

    /// Gives everything back that the connection holds; no operation uses it any more.
    fn release_holdings(&mut self, slot: u32) {
        self.core.drop_carry(slot);
        self.core.forget_open(slot);
        self.drop_incoming(slot);
        self.core.forget_jobs(slot);
        self.core.timers.disarm(slot);
        if std::mem::replace(&mut self.core.slots[slot].waits_for_pipe, false) {
            self.pipe_queue.retain(|place| !place.is_of(slot, Side::Out));
        }
        // Much memory may be unmapped.
        self.bounds.note_work(self.core.slots[slot].output_bytes as usize);
        while self.core.slots[slot].output_head != NONE {
            let head = self.core.slots[slot].output_head;
            if matches!(self.core.chunks[head as usize].body, Body::File(_)) {
                self.return_pipe(slot);
            }
            self.core.drop_head(slot);
        }
    }

    /// The descriptor is closed. It is gone whatever CLOSE answered (close(2)).
    pub(super) fn on_close(&mut self, slot: u32) {
        assert_eq!(self.core.slots[slot].state, State::Closing);
        self.report_end(slot);
        if std::mem::replace(&mut self.core.slots[slot].touched, false) {
            self.core.touched.retain(|touched| *touched != slot);
        }
        let cell = self.core.slots.identity(slot).cell;
        let holder = self.core.slots.holder(slot);
        self.core.forget_client(slot);
        self.core.slots.remove(slot);
        if !bug!("address-count-kept") {
            self.core.admission.forget_address(cell);
        }
        if !bug!("permit-before-slot") {
            self.core.admission.give_back(holder);
        }
    }

    /// Tells the application, once, of the end of a connection it was told of.
    pub(super) fn report_end(&mut self, slot: u32) {
        let connection = &mut self.core.slots[slot];
        let reason = connection.reason.unwrap_or(Reason::LocalClose);
        if std::mem::replace(&mut connection.opened, false) {
            let opened_ms = self.core.slots.identity(slot).opened_ms.get();
            let lifetime_ms = self.core.now_ms.saturating_sub(opened_ms);
            self.core.counters.lifetime_ms.add(lifetime_ms);
            #[cfg(any(test, feature = "testing"))]
            crate::marks::ended(reason);
            self.core.counters.closed += 1;
            self.core.counters.closed_by[reason as usize] += 1;
            self.core.connection_has_ended(slot, reason, lifetime_ms);
            let id = self.core.id(slot);
            self.core.reporting = slot;
            self.application.closed(&mut self.core, slot, id, reason);
            self.core.reporting = NONE;
            self.core.traffic.remove(&slot);
        }
    }
}
