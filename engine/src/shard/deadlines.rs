//! Deadlines: which one a connection has next, and what happens when it passes.
//!
//! The wheel holds at most one entry per connection. It is only moved forward in time when it
//! fires: activity just notes the time, and an entry that fires early is set again.
//!
//! # Bytes that are unread
//! Before a connection is idle, a message late or an upload stalled, the shard asks for unread
//! bytes (`FIONREAD`), unless the application has paused the connection. In the second after a
//! pause of the shard of 50 ms or more, it also does so before timers and the end of lingering.
//!
//! # Bytes that are not acknowledged
//! A socket takes some megabytes at once, and a slow reader needs minutes for them. A send counts
//! the bytes that may be unacknowledged. If they are more than a short reply or two, the shard asks
//! `TCP_INFO` and `SIOCOUTQ`. It asks again after a twentieth of the deadline. A deadline is
//! therefore never early, and at most 5 % late.
//!
//! While a connection lingers, `write_timeout` runs until its output is acknowledged, and
//! `linger_timeout` and `linger_total` from then on.

use super::Shard;
use super::bounds::SERVE_UNTIL;
use super::output::Body;
use super::settings::look_after_ms;
use super::slots::{Armed, Mode, NONE, Pause, Slot};
use super::state::State;
use crate::Reason;
use crate::handler::{Deadline, Handler};
use crate::ring::{Kind, Op, Ring, Token};
use std::time::Duration;

/// The longest wait when nothing is due.
const WAIT_MAX_MS: u64 = 1000;
const WAIT_MAX: Duration = Duration::from_millis(WAIT_MAX_MS);
/// For so long after a pause, deadlines take into account what lies unread in a socket.
const AFTER_PAUSE_MS: u64 = 1_000;
/// The time until something that failed for want of memory or descriptors is tried again.
pub(super) const RETRY_MS: u64 = 20;
/// How long a drain waits, after our FIN, for a peer that sends nothing.
const DRAIN_LINGER_MS: u64 = 500;

/// How long aborted connections have for their ends after a drain's deadline. An operation that
/// does not end (a read from hung storage) must not keep `join` waiting for ever.
const DRAIN_GRACE_MS: u64 = 3_000;

/// How soon an unacknowledged reply is looked after where no deadline runs.
const LOOK_MS: u64 = 1_000;

/// A peer has stopped sending when nothing has come for so long.
const STILL_SENDS_MS: u64 = 1_000;

/// What is due on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Timer,
    Park,
    /// To ask what the peer has acknowledged.
    Look,
    /// To watch for a reset behind a FIN.
    Watch,
    Connect,
    Linger,
    Finish,
    /// A file being received makes no progress.
    Incoming,
    Passed(Deadline),
}

/// How soon a connection is looked at again whose peer has until then to acknowledge something.
fn look_ms(deadline_ms: Option<u64>) -> u64 {
    deadline_ms.map_or(LOOK_MS, look_after_ms)
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Makes sure that the wheel fires no later than the connection's next deadline.
    #[inline]
    pub(super) fn arm_deadline(&mut self, slot: u32) {
        let Some(connection) = self.core.slots.get(slot) else { return };
        let plain = connection.is_plain();
        let covered = self.is_covered(slot, connection);
        if !plain {
            self.core.slots.tidy(slot);
        }
        if covered {
            debug_assert!(
                self.next_deadline(slot).is_none_or(|(at_ms, _)| {
                    self.core.timers.at_ms(slot) <= Some(at_ms + super::timers::TICK_MS)
                }),
                "a look at each deadline says the same"
            );
            return;
        }
        if let Some((at_ms, _)) = self.next_deadline(slot)
            && self
                .core
                .timers
                .at_ms(slot)
                .is_none_or(|armed| armed > at_ms + super::timers::TICK_MS)
        {
            self.core.timers.arm(slot, at_ms);
        }
    }

    /// Returns whether the wheel fires early enough, seen without a look at each deadline: all that
    /// there is counts from now. So it is with almost every request.
    #[inline]
    fn is_covered(&self, slot: u32, connection: &Slot) -> bool {
        let now_ms = self.core.now_ms;
        let from_now = connection.state == State::Open
            && connection.active_ms == now_ms
            && (connection.output_head == NONE || connection.stalled_since_ms == now_ms)
            && (connection.is_plain() || {
                let rare = self.core.slots.rare_of(connection);
                rare.timer_ms == 0
                    && !rare.delivering
                    && rare.receiving_since_ms == 0
                    && rare.watch_ms == 0
                    && rare.finish_ms == NONE
                    && rare.incoming == NONE
            });
        let by_ms =
            now_ms + self.core.settings.soonest_ms(connection.settings) + super::timers::TICK_MS;
        from_now && self.core.timers.at_ms(slot).is_some_and(|armed| armed <= by_ms)
    }

    /// The earliest deadline of a connection, and which it is.
    pub(super) fn next_deadline(&self, slot: u32) -> Option<(u64, Due)> {
        let (connection, rare) = (&self.core.slots[slot], self.core.slots.rare(slot));
        let (limits, own) = (&self.core.limits, self.core.limits_of(connection));
        let mut next: Option<(u64, Due)> = None;
        let mut consider = |since_ms: u64, after_ms: Option<u64>, due: Due| {
            if let Some(after_ms) = after_ms
                && next.is_none_or(|(at_ms, _)| since_ms + after_ms < at_ms)
            {
                next = Some((since_ms + after_ms, due));
            }
        };
        match connection.state {
            State::Connecting => {
                consider(connection.stalled_since_ms, Some(limits.connect_ms), Due::Connect);
            }
            State::Lingering if rare.delivering => {
                let after_ms = own.write_ms;
                let due = Due::Passed(Deadline::Write);
                consider(connection.stalled_since_ms, after_ms, due);
                consider(rare.looked_ms, Some(look_ms(after_ms)), Due::Look);
            }
            State::Lingering => {
                // A drain need not wait long for keep-alive clients that have nothing more to say.
                let silent = !rare.discards && self.core.drains(slot);
                let linger_ms =
                    if silent { limits.linger_ms.min(DRAIN_LINGER_MS) } else { limits.linger_ms };
                let delivered_ms = connection.stalled_since_ms;
                consider(delivered_ms.max(connection.active_ms), Some(linger_ms), Due::Linger);
                consider(delivered_ms, Some(limits.linger_total_ms), Due::Linger);
            }
            State::Ending | State::Closing => {}
            State::Open | State::HalfClosedByPeer | State::HalfClosedByUs | State::Draining => {
                if connection.waits_for_pipe {
                    // Not the peer's doing: those that hold the pipes have their deadlines.
                } else if connection.output_head != NONE {
                    let (after, which) =
                        match self.core.chunks[connection.output_head as usize].body {
                            Body::File(_) => (own.transfer_ms, Deadline::Transfer),
                            _ => (own.write_ms, Deadline::Write),
                        };
                    let since_ms = connection.stalled_since_ms;
                    consider(since_ms, after, Due::Passed(which));
                    if after.is_some() {
                        consider(since_ms.max(rare.looked_ms), Some(look_ms(after)), Due::Look);
                    }
                } else if rare.delivering && !bug!("reader-is-idle") {
                    let due = Due::Passed(Deadline::Write);
                    consider(connection.stalled_since_ms, own.write_ms, due);
                    consider(rare.looked_ms, Some(look_ms(own.write_ms)), Due::Look);
                } else if !rare.is_at_work() && connection.state != State::Draining {
                    consider(connection.active_ms, own.idle_ms, Due::Passed(Deadline::Idle));
                    if own.idle_ms.is_some() && connection.may_be_unacknowledged() {
                        consider(
                            connection.active_ms,
                            Some(self.core.settings.soonest_ms(connection.settings)),
                            Due::Look,
                        );
                    }
                }
                if !connection.is_plain() {
                    if let Some(incoming) = self.core.incoming.get(rare.incoming as usize)
                        && !incoming.waits_for_pipe
                    {
                        consider(incoming.progress_ms, own.transfer_ms, Due::Incoming);
                    }
                    if let Some(at_ms) = self.core.finishes_at_ms(slot) {
                        consider(at_ms, Some(0), Due::Finish);
                    }
                    if rare.receiving_since_ms != 0 {
                        let which = Due::Passed(Deadline::Receive);
                        consider(rare.receiving_since_ms, own.receive_ms, which);
                    }
                    if rare.watch_ms != 0 {
                        consider(rare.watch_ms, Some(0), Due::Watch);
                    }
                    if rare.timer_ms != 0 && connection.state != State::Draining {
                        consider(rare.timer_ms, Some(0), Due::Timer);
                    }
                }
                if connection.mode() == Mode::Streaming && connection.armed == Armed::Multishot {
                    consider(connection.active_ms, Some(limits.park_after_ms), Due::Park);
                }
            }
        }
        next
    }

    /// Everything whose time has come.
    pub(super) fn expire(&mut self) {
        let now_ms = self.core.now_ms;
        if self.core.timers.is_behind(now_ms) {
            self.expire_connections();
        }
        if self.accepting.next_ms <= now_ms {
            self.expire_accepting();
        }
        self.count_drops();
        if self.pipe_retry_at_ms.is_some_and(|at| at <= now_ms) {
            self.pipe_retry_at_ms = None;
            self.serve_pipe_queue();
        }
        self.core.close_unused_files();
        self.core.reconnect_due();
        if self.core.tick_at_us.is_some_and(|at| at <= self.core.now_us) {
            self.core.tick_at_us = None;
            mark!("tick");
            self.application.tick(&mut self.core);
        }
        if self.drain_deadline_ms.is_some_and(|at| at <= now_ms) {
            mark!("drain reached its deadline");
            self.end_drain(Reason::Stopped);
        }
    }

    /// The deadlines of connections. Most turns are shorter than a tick.
    #[inline(never)]
    fn expire_connections(&mut self) {
        self.core.timers.expire(self.core.now_ms, &mut self.due);
        self.serve_due();
    }

    /// The connections whose deadlines are due, until the turn has lasted long.
    pub(super) fn serve_due(&mut self) {
        let mut served = 0;
        while let Some(slot) = self.due.get(served).copied() {
            self.expire_connection(slot);
            served += 1;
            if served.is_multiple_of(Self::SERVED) && self.lasts(SERVE_UNTIL) {
                mark!("deadlines wait for the next turn");
                self.core.upkeep = true;
                break;
            }
        }
        self.due.drain(..served);
    }

    /// The time for finishing is over: everybody is reset or turned away.
    pub(super) fn end_drain(&mut self, reason: Reason) {
        self.drain_deadline_ms = None;
        if self.drain_ends_at_ms.is_none() {
            self.drain_ends_at_ms = Some(self.core.now_ms + DRAIN_GRACE_MS);
        }
        self.end_last_calls();
        self.end_waiting();
        self.core.end_all(reason);
    }

    fn expire_connection(&mut self, slot: u32) {
        if self.core.slots.get(slot).is_none() {
            return;
        }
        // Touched in any case: it is armed again, and what could not be done is tried again.
        self.core.touch(slot);
        self.core.slots[slot].rests = false;
        match self.next_deadline(slot) {
            Some((at_ms, due)) if at_ms <= self.core.now_ms => self.on_due(slot, due),
            _ => {}
        }
    }

    fn on_due(&mut self, slot: u32, due: Due) {
        match due {
            Due::Timer if self.is_after_pause() && self.has_unread(slot) => {
                self.core.slots.rare_mut(slot).timer_ms = self.core.now_ms + RETRY_MS;
            }
            Due::Timer => {
                self.core.slots.rare_mut(slot).timer_ms = 0;
                self.application.timer(&mut self.core, slot);
            }
            Due::Park => {
                self.core.counters.parked += 1;
                self.core.slots.set_mode(slot, Mode::Parked);
            }
            // Settled with whatever else is owed.
            Due::Finish => {}
            Due::Look => {
                self.look_at_delivery(slot);
            }
            Due::Watch => self.core.slots.rare_mut(slot).watch_ms = 0,
            Due::Linger => self.end_linger(slot),
            Due::Connect => self.cancel_connect(slot),
            Due::Incoming if self.brings_more(slot) => {
                mark!("a file's bytes lie in the socket");
                let incoming = self.core.slots.incoming(slot) as usize;
                self.core.incoming[incoming].progress_ms = self.core.now_ms;
            }
            Due::Incoming => {
                mark!("a file comes no further");
                self.application.expired(&mut self.core, slot, Deadline::Transfer);
                self.core.end(slot, Reason::TransferTimeout, true);
            }
            Due::Passed(deadline) => self.on_deadline(slot, deadline),
        }
    }

    fn on_deadline(&mut self, slot: u32, deadline: Deadline) {
        let stalls = matches!(deadline, Deadline::Write | Deadline::Transfer);
        if stalls {
            let before_ms = self.core.slots[slot].stalled_since_ms;
            self.look_at_delivery(slot);
            if self.core.slots[slot].stalled_since_ms != before_ms {
                mark!("a slow reader is not late");
                return;
            }
            if self.core.slots[slot].state == State::Lingering {
                mark!("a reply is not read to its end");
                return self.core.end(slot, Reason::WriteTimeout, true);
            }
        } else if self.has_unread(slot) {
            mark!("whose bytes are there is not late");
            let now_ms = self.core.now_ms;
            if deadline == Deadline::Idle {
                self.core.slots[slot].active_ms = now_ms;
            } else {
                let own = self.core.limits_of(&self.core.slots[slot]);
                let receive_ms = own.receive_ms.unwrap_or(0);
                let since_ms = (now_ms + RETRY_MS).saturating_sub(receive_ms).max(1);
                self.core.slots.rare_mut(slot).receiving_since_ms = since_ms;
            }
            return;
        } else if deadline == Deadline::Idle
            && self.core.slots[slot].unasked > 0
            && !bug!("reader-is-idle")
            && self.look_at_delivery(slot)
        {
            mark!("who reads is not idle");
            return;
        }
        self.application.expired(&mut self.core, slot, deadline);
        match deadline {
            Deadline::Idle => self.end_idle(slot),
            Deadline::Receive => self.core.close(slot, Reason::ReceiveTimeout),
            Deadline::Write => self.core.end(slot, Reason::WriteTimeout, true),
            Deadline::Transfer => self.core.end(slot, Reason::TransferTimeout, true),
        }
    }

    /// Ends an idle connection. With nothing queued, unread or unacknowledged there is nothing that
    /// a reset could destroy, and so nothing to linger for.
    fn end_idle(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        let at_rest = connection.state == State::Open
            && connection.output_head == NONE
            && connection.carry == NONE
            && !self.core.drains(slot);
        if at_rest && self.ring.unread_bytes(connection.descriptor) == Ok(0) {
            self.core.end(slot, Reason::IdleTimeout, false);
        } else {
            self.core.close(slot, Reason::IdleTimeout);
        }
    }

    /// The peer has sent neither its FIN nor anything else for long enough, or sends for ever.
    fn end_linger(&mut self, slot: u32) {
        // A short reply may have been taken for acknowledged.
        if self.core.slots[slot].unasked > 0 && self.look_at_delivery(slot) {
            mark!("a short reply is not read yet");
            return;
        }
        let now_ms = self.core.now_ms;
        let unread = self.unread_bytes(slot) > 0;
        if unread && self.is_after_pause() {
            mark!("what came during a pause is discarded first");
            self.core.slots[slot].active_ms = now_ms;
            return;
        }
        mark!("lingered long enough");
        let sends = self.core.slots.rare(slot).discards
            && now_ms < self.core.slots[slot].active_ms + STILL_SENDS_MS;
        self.core.end(slot, Reason::LocalClose, unread || sends);
    }

    /// Returns whether the shard has just run again after a pause. Then one look into the ring may
    /// not have brought everything.
    fn is_after_pause(&self) -> bool {
        self.core.now_ms < self.paused_until_ms + AFTER_PAUSE_MS
    }

    /// Returns whether the socket holds bytes that the connection will receive.
    fn has_unread(&mut self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        let receives = connection.state.receives()
            && connection.pause == Pause::No
            && !connection.is_full_and_paused()
            && !bug!("deadline-before-input");
        receives && self.unread_bytes(slot) > 0
    }

    /// Returns how many unread bytes the socket holds; 0 if it cannot be asked.
    pub(super) fn unread_bytes(&mut self, slot: u32) -> u32 {
        self.ring.unread_bytes(self.core.slots[slot].descriptor).unwrap_or(0)
    }

    /// Returns whether the socket holds the next bytes of a file, and only a turn is missing.
    fn brings_more(&mut self, slot: u32) -> bool {
        let flight = self.core.slots[slot].in_flight;
        !flight.has(Kind::Write) && !flight.has(Kind::SpliceToFile) && self.has_unread(slot)
    }

    /// Asks what the peer has acknowledged, and notes progress. Returns whether some of what was
    /// sent is not acknowledged.
    pub(super) fn look_at_delivery(&mut self, slot: u32) -> bool {
        let socket = self.core.slots[slot].descriptor;
        let delivery = self.ring.delivery(socket).unwrap_or_default();
        let now_ms = self.core.now_ms;
        let acknowledged = delivery.acknowledged as u32;
        let delivering = delivery.outstanding > 0;
        let rare = self.core.slots.rare_mut(slot);
        let (looked_ms, before) = (rare.looked_ms, rare.acknowledged);
        let was_delivering = rare.delivering;
        (rare.looked_ms, rare.acknowledged) = (now_ms, acknowledged);
        rare.delivering = delivering;
        let connection = &mut self.core.slots[slot];
        // The first look after something has left has nothing to compare with.
        let first = looked_ms < connection.stalled_since_ms || bug!("deadline-starts-again");
        let moved = first || acknowledged != before;
        if delivering || connection.output_head != NONE {
            if moved {
                connection.stalled_since_ms = now_ms;
            }
        } else if was_delivering || connection.may_be_unacknowledged() {
            // It was acknowledged since the last look.
            connection.stalled_since_ms = now_ms;
            if connection.state != State::Lingering {
                connection.active_ms = now_ms;
            }
        }
        if !delivering {
            connection.unasked = 0;
        }
        delivering
    }

    fn cancel_connect(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        if connection.in_flight.has(Kind::CancelConnect) {
            mark!("connect is being cancelled already");
            return;
        }
        let target = Token::new(Kind::Connect, self.core.slots.generation(slot), slot);
        // A full queue: the deadline is set again and tries again.
        let _ = self.submit(slot, Kind::CancelConnect, Op::Cancel { target });
    }

    /// How long until something is due.
    pub(super) fn until_due(&self) -> Duration {
        // Written out: once a turn, and chains of iterators cost three times as much.
        let or_never = |at_ms: Option<u64>| at_ms.unwrap_or(u64::MAX);
        let next_ms = or_never(self.core.timers.next_ms())
            .min(self.accepting.next_ms)
            .min(or_never(self.core.connects.next_ms()))
            .min(or_never(self.core.links.next_ms()))
            .min(or_never(self.drops_at_ms))
            .min(or_never(self.pipe_retry_at_ms))
            .min(or_never(self.core.file_cache.next_ms()));
        let seldom_ms = if self.core.draining {
            or_never(self.drain_deadline_ms).min(or_never(self.drain_ends_at_ms))
        } else {
            or_never(self.asks_again_at_ms()).min(self.eviction.slow.next_ms())
        };
        let next_ms = next_ms.min(seldom_ms);
        let left_ms = next_ms.saturating_sub(self.core.now_ms).max(1);
        // So it is in almost every turn: without a division, and a comparison of durations.
        let wait = if left_ms >= WAIT_MAX_MS { WAIT_MAX } else { Duration::from_millis(left_ms) };
        let Some(at_us) = self.core.tick_at_us else { return wait };
        wait.min(Duration::from_micros(at_us.saturating_sub(self.core.now_us).max(1)))
    }
}
