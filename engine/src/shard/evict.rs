//! Room for a waiting client: the connection that has been idle for longest ends. If there is none,
//! the slowest one of those below `min_rate` ends (`slow.rs`).
//!
//! Every shard answers a round with the age of its oldest idle connection. The last one to answer
//! chooses the shard with the oldest of all. Nothing is done per request: a shard looks over its
//! slots only when it is asked, and remembers the 64 oldest. A paused connection is not idle: its
//! answer may come from another thread. Before a connection ends, the socket is asked for unread
//! and unacknowledged bytes. A connect without a permit does not ask for room: it fails at once,
//! and the permit would go to a waiting client.

use super::Shard;
use super::core::Core;
use super::family::Vetoes;
use super::slots::Slot;
use super::slow::SlowPeers;
use super::state::State;
use crate::Reason;
use crate::admission::{Candidate, Verdict};
use crate::handler::Handler;
use crate::ring::{Delivery, Ring};

/// Idle connections that one look over all slots remembers.
const REMEMBERED: usize = 64;
/// A connection is idle when nothing has happened on it for so long.
const IDLE_MS: u64 = 100;
/// The next round follows after this time at first. The time doubles with each round that makes no
/// room.
const AGAIN_FIRST_MS: u64 = 20;
const AGAIN_MAX_MS: u64 = 500;

/// State of a shard's requests for room and of its answers to those of others.
pub(super) struct Eviction {
    on: bool,
    pub(super) slow: SlowPeers,
    /// The oldest idle connections, with generation and the time since which they are idle; the
    /// oldest comes last. A connection that becomes idle later is younger than all of them, unless
    /// it was paused: then the list misses it until the next look over all slots.
    oldest: Vec<(u32, u64, u64)>,
    /// The last round that this shard has answered.
    answered: u64,
    /// The round that this shard waits for, and since when, ms.
    asked: Option<(u64, u64)>,
    /// No round is started before, ms.
    again_at_ms: u64,
    /// The time between the last two rounds, ms.
    pause_ms: u64,
}

impl Eviction {
    pub fn new(on: bool) -> Self {
        Self {
            on,
            slow: SlowPeers::new(),
            oldest: Vec::new(),
            answered: 0,
            asked: None,
            again_at_ms: 0,
            pause_ms: 0,
        }
    }

    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Forgets the last round, because its client no longer waits: the next may follow at once.
    pub fn begin_anew(&mut self) {
        (self.asked, self.again_at_ms, self.pause_ms) = (None, 0, 0);
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// A round that takes so long ends with the answers at hand: a shard hangs, or has ended in the
    /// middle of it. The clocks of simulated shards differ by up to a second.
    const STALE_MS: u64 = if R::SMALL_TURNS { 1_500 } else { 100 };

    /// Asks all shards for a connection that can end, because a client waits here.
    pub(super) fn ask_for_room(&mut self) {
        let now_ms = self.core.now_ms;
        let eviction = &mut self.eviction;
        if !eviction.on || self.core.draining || now_ms < eviction.again_at_ms {
            return;
        }
        if let Some((round, since_ms)) = eviction.asked
            && now_ms >= since_ms + Self::STALE_MS
            && let Some(verdict) = self.core.admission.evictions().conclude(round)
        {
            eviction.again_at_ms = now_ms + AGAIN_FIRST_MS;
            self.announce(verdict);
            return self.make_room();
        }
        let (round, started) = self.core.admission.evictions().ask();
        if started {
            mark!("asks for room");
            self.core.admission.wake_others(self.core.shard);
        }
        if eviction.asked.is_none_or(|(asked, _)| asked != round) {
            eviction.asked = Some((round, now_ms));
        }
        eviction.pause_ms = (2 * eviction.pause_ms).clamp(AGAIN_FIRST_MS, AGAIN_MAX_MS);
        eviction.again_at_ms = now_ms + eviction.pause_ms;
        self.make_room();
    }

    /// When a shard with waiting clients asks for room again.
    #[inline]
    pub(super) fn asks_again_at_ms(&self) -> Option<u64> {
        let asks = self.eviction.on && !self.accepting.room.is_empty();
        asks.then_some(self.eviction.again_at_ms)
    }

    /// Returns whether the round that this shard asked for found nobody.
    pub(super) fn asked_in_vain(&self) -> bool {
        let asked = self.eviction.asked;
        asked.is_some_and(|(round, _)| self.core.admission.evictions().was_in_vain(round))
    }

    /// Answers another shard's question, or the shard's own.
    #[inline]
    pub(super) fn make_room(&mut self) {
        if !self.eviction.on {
            return;
        }
        if self.core.now_ms >= self.eviction.slow.next_ms() {
            self.measure_peers();
        }
        if let Some(round) = self.core.admission.evictions().question(self.eviction.answered) {
            self.answer_round(round);
        }
        if self.core.admission.evictions().take_choice(self.core.shard) {
            self.evict();
        }
    }

    #[inline(never)]
    fn answer_round(&mut self, round: u64) {
        self.eviction.answered = round;
        let now_ms = self.core.now_ms;
        let candidate = match self.oldest_idle() {
            Some((_, idle_since_ms)) if !bug!("slow-before-idle") => {
                Some(Candidate::Idle(now_ms - idle_since_ms))
            }
            _ => self.slowest_peer().map(|(_, bytes)| Candidate::Slow(bytes)),
        };
        let answer = self.core.admission.evictions().answer(self.core.shard, round, candidate);
        if let Some(verdict) = answer {
            self.announce(verdict);
        }
    }

    /// Wakes the shards that a verdict concerns.
    fn announce(&self, verdict: Verdict) {
        let shard = self.core.shard;
        match verdict {
            Verdict::Ends(chosen) if chosen != shard => self.core.admission.wake(chosen),
            Verdict::Ends(_) => {}
            Verdict::Nobody => self.core.admission.wake_others(shard),
        }
    }

    fn evict(&mut self) {
        // It may have become busy since the answer: then the next one goes.
        if let Some((slot, _)) = self.oldest_idle() {
            mark!("makes room");
            self.eviction.oldest.pop();
            self.core.end(slot, Reason::Evicted, false);
        } else if let Some((slot, _)) = self.slowest_peer() {
            mark!("a slow peer makes room");
            self.end_slow(slot);
        } else {
            mark!("nobody is idle any more");
        }
    }

    /// The connection that has been idle for longest, and since when.
    fn oldest_idle(&mut self) -> Option<(u32, u64)> {
        if let Some(found) = self.oldest_remembered() {
            return Some(found);
        }
        self.eviction.oldest = self.core.longest_idle(REMEMBERED);
        self.oldest_remembered()
    }

    fn oldest_remembered(&mut self) -> Option<(u32, u64)> {
        while let Some((slot, generation, idle_since_ms)) = self.eviction.oldest.last().copied() {
            let found = self.core.slots.of_life(slot, generation);
            let idle = found.is_some_and(|connection| {
                connection.active_ms() == idle_since_ms && self.core.is_idle(connection)
            });
            if idle && self.has_nothing_under_way(slot) {
                return Some((slot, idle_since_ms));
            }
            self.eviction.oldest.pop();
        }
        None
    }

    /// Returns whether a socket holds nothing unread and nothing unacknowledged.
    fn has_nothing_under_way(&mut self, slot: u32) -> bool {
        let socket = self.core.slots[slot].descriptor();
        self.ring.unread_bytes(socket) == Ok(0)
            && self.ring.delivery(socket).is_ok_and(|Delivery { outstanding, .. }| outstanding == 0)
    }
}

impl Core {
    /// Returns whether an accepted connection has nothing to do, as far as the shard knows.
    fn is_idle(&self, connection: &Slot) -> bool {
        let rare = self.slots.rare_of(connection);
        connection.state() == State::Open
            && connection.opened()
            && rare.tag().is_none()
            && self.limits_of(connection).evicts
            && !self.vetoes(connection).has(Vetoes::EVICTION)
            && self.now_ms >= connection.active_ms() + IDLE_MS
    }

    /// The connections that have been idle for longest, so many at most, the oldest last: slot,
    /// generation and since when.
    fn longest_idle(&self, count: usize) -> Vec<(u32, u64, u64)> {
        let idle = self.slots.iter().filter(|(_, it)| self.is_idle(it));
        let mut all: Vec<(u32, u64, u64)> =
            idle.map(|(slot, it)| (slot, self.slots.generation(slot), it.active_ms())).collect();
        let youngest_first = |it: &(u32, u64, u64)| std::cmp::Reverse(it.2);
        if all.len() > count {
            let cut = all.len() - count;
            all.select_nth_unstable_by_key(cut, youngest_first);
            all.drain(..cut);
        }
        all.sort_unstable_by_key(youngest_first);
        all
    }
}
