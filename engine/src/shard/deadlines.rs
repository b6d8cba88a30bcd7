//! Deadlines: which one a connection has next, and what happens when it passes.
//!
//! The wheel holds at most one entry per connection. It is only moved forward in time when it
//! fires: activity just notes the time, and an entry that fires early is set again.
//!
//! # Bytes that are unread
//! Before a connection is idle, a message late or an upload stalled, the shard asks for unread
//! bytes (`FIONREAD`), unless the application has paused the connection. In the second after a
//! pause of the shard of 50 ms or more, it also does so before timers and the end of lingering.

use super::Shard;
use super::bounds::SERVE_UNTIL;
use super::slots::{NONE, Pause, Slot};
use super::state::State;
use super::turn::Calling;
use crate::Reason;
use crate::handler::Handler;
use crate::ring::Ring;
use std::time::Duration;

/// The longest wait when nothing is due.
const WAIT_MAX_MS: u64 = 1000;
const WAIT_MAX: Duration = Duration::from_millis(WAIT_MAX_MS);
/// For so long after a pause, deadlines take into account what lies unread in a socket.
const AFTER_PAUSE_MS: u64 = 1_000;
/// The time until something that failed for want of memory or descriptors is tried again.
pub(super) const RETRY_MS: u64 = 20;
/// How long aborted connections have for their ends after a drain's deadline. An operation that
/// does not end (a read from hung storage) must not keep `join` waiting for ever.
const DRAIN_GRACE_MS: u64 = 3_000;

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
        let from_now = connection.state() == State::Open
            && connection.active_ms() == now_ms
            && (connection.output_head() == NONE || connection.stalled_since_ms() == now_ms)
            && self.counts_from_activity(connection);
        let by_ms =
            now_ms + self.core.settings.soonest_ms(connection.settings()) + super::timers::TICK_MS;
        from_now && self.core.timers.at_ms(slot).is_some_and(|armed| armed <= by_ms)
    }

    /// Everything whose time has come.
    pub(super) fn expire(&mut self, call: Calling) {
        let now_ms = self.core.now_ms;
        if self.core.timers.is_behind(now_ms) {
            self.expire_connections(call);
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
            self.application.tick(call, &mut self.core);
        }
        if self.drain_deadline_ms.is_some_and(|at| at <= now_ms) {
            mark!("drain reached its deadline");
            self.end_drain(Reason::Stopped);
        }
    }

    /// The deadlines of connections. Most turns are shorter than a tick.
    #[inline(never)]
    fn expire_connections(&mut self, call: Calling) {
        self.core.timers.expire(self.core.now_ms, &mut self.due);
        self.serve_due(call);
    }

    /// The connections whose deadlines are due, until the turn has lasted long.
    pub(super) fn serve_due(&mut self, call: Calling) {
        let mut served = 0;
        while let Some(slot) = self.due.get(served).copied() {
            self.expire_connection(call, slot);
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
        report!(drain_cut_short(self.core.shard, self.core.slots.len()));
        if self.drain_ends_at_ms.is_none() {
            self.drain_ends_at_ms = Some(self.core.now_ms + DRAIN_GRACE_MS);
        }
        self.end_last_calls();
        self.end_waiting();
        self.core.jobs.end();
        self.core.end_all(reason);
    }

    fn expire_connection(&mut self, call: Calling, slot: u32) {
        if self.core.slots.get(slot).is_none() {
            return;
        }
        // Touched in any case: it is armed again, and what could not be done is tried again.
        self.core.touch(slot);
        self.core.slots[slot].end_rest();
        match self.next_deadline(slot) {
            Some((at_ms, due)) if at_ms <= self.core.now_ms => self.on_due(slot, due, call),
            _ => {}
        }
    }

    /// Returns whether the shard has just run again after a pause. Then one look into the ring may
    /// not have brought everything.
    pub(super) fn is_after_pause(&self) -> bool {
        self.core.now_ms < self.paused_until_ms + AFTER_PAUSE_MS
    }

    /// Returns whether the socket holds bytes that the connection will receive.
    pub(super) fn has_unread(&mut self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        let receives = connection.state().receives()
            && connection.pause() == Pause::No
            && !connection.is_full_and_paused()
            && !bug!("deadline-before-input");
        receives && self.unread_bytes(slot) > 0
    }

    /// Returns how many unread bytes the socket holds; 0 if it cannot be asked.
    pub(super) fn unread_bytes(&mut self, slot: u32) -> u32 {
        self.ring.unread_bytes(self.core.slots[slot].descriptor()).unwrap_or(0)
    }

    /// How long until something is due.
    pub(super) fn until_due(&self) -> Duration {
        // Written out: once a turn, and chains of iterators cost three times as much.
        let or_never = |at_ms: Option<u64>| at_ms.unwrap_or(u64::MAX);
        let next_ms = or_never(self.core.timers.next_ms())
            .min(self.accepting.next_ms)
            .min(self.core.connects.next_ms())
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
