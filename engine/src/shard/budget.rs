//! The shard's part of the memory for queued output and kept input of all connections.
//!
//! The budget (`Config::memory_budget_bytes`) counts spills, payloads and kept input. Each holder
//! of a shared payload counts its part of it. Each shard has an equal share, which it balances once
//! per turn and only while more than half of it is in use. A request pays nothing: the same marks
//! are compared as without a budget, and they change here.
//!
//! * Above half of the share, connections receive once at a time, and a pause cancels a multishot
//!   receive at once.
//! * Above the share, the water marks are halved. A further step follows when the use has grown by
//!   1/32 of the share. The connections that hold most are above the mark first. Below three
//!   quarters the marks rise step by step, and a bounded sweep resumes the connections that are
//!   below.
//! * Pausing an incomplete message frees nothing. A connection that keeps as much of one as the
//!   mark waits in a queue, and one at a time may complete its message. It gives its turn up after
//!   100 ms of silence. `receive_timeout` runs meanwhile, so that silent clients do not keep the
//!   memory.
//!
//! A connection with `receive_while_full` reads on whatever the marks are, because a relay would
//! stop otherwise.

mod marks;

pub use marks::Budget;

use super::core::Core;
use super::slots::{Mode, Pause};
use marks::Turn;

/// A connection that completes its message out of the budget gives its turn up after this silence,
/// and in any case after the longer time.
const SILENCE_MS: u64 = 100;
const TURN_MS: u64 = 1_000;

impl Core {
    /// Memory of the budget is taken.
    #[inline]
    pub fn charge(&mut self, bytes: usize) {
        self.counters.budget_used_bytes += bytes as u64;
        self.upkeep |= self.counters.budget_used_bytes > self.budget.share_bytes as u64 / 2;
    }

    /// Memory of the budget is given back.
    #[inline]
    pub fn discharge(&mut self, bytes: usize) {
        self.counters.budget_used_bytes -= bytes as u64;
    }

    /// Lets a connection read again that the budget has paused.
    #[inline]
    pub fn release_hold(&mut self, slot: u32) -> bool {
        let held = self.slots[slot].is_held();
        if held {
            self.slots[slot].end_pause();
        }
        held
    }

    /// Pauses a connection in the middle of a message if it keeps as much as the mark, unless it
    /// is its turn.
    #[cold]
    pub fn hold_if_long(&mut self, slot: u32) {
        let long = self.keeps_as_much_as_the_mark(slot);
        let generation = self.slots.generation(slot);
        let has_turn =
            self.budget.turn.is_some_and(|it| (it.slot, it.generation) == (slot, generation));
        let was_held = self.release_hold(slot);
        // Kept bytes go past the handler, and the hold would outlast them.
        let past_handler = self.slots.takes_a_range(&self.slots[slot]);
        if !long || has_turn || past_handler || self.slots[slot].is_paused() {
            return;
        }
        self.slots[slot].pause_for(Pause::Budget);
        if !was_held {
            mark!("a long message waits for the budget");
            self.counters.budget_pauses += 1;
        }
        if !self.slots.rare_mut(slot).set_in_budget_queue(true) {
            self.budget.queue.push_back((slot, generation));
        }
    }

    /// Looks at the connections of `count` slots, and returns the next slot. Those go on that are
    /// below the marks since these have risen. Multishot receives end when memory gets short.
    fn resume_some(&mut self, from: u32, count: u32) -> Option<u32> {
        let end = (self.slots.made() as u32).min(from.saturating_add(count));
        for slot in from..end {
            let Some(connection) = self.slots.get(slot) else { continue };
            let room = self.is_room_to_report(slot);
            let held = connection.is_held()
                && !self.keeps_as_much_as_the_mark(slot)
                && self.release_hold(slot);
            let streams = self.budget.is_wary() && self.slots[slot].mode() == Mode::Streaming;
            if streams {
                self.slots.set_mode(slot, Mode::Once);
                self.touch(slot);
            }
            if (room && !bug!("budget-forgets-readers")) || held {
                mark!("goes on since the marks have risen");
                self.touch(slot);
            }
        }
        (end < self.slots.made() as u32).then_some(end)
    }

    fn keeps_as_much_as_the_mark(&self, slot: u32) -> bool {
        self.kept_bytes(slot) >= self.marks_of(&self.slots[slot]).high_bytes as usize
    }

    /// Lets the next connection of the queue complete its message, or all some at a time.
    fn serve_budget_queue(&mut self, connections_max: usize) {
        if let Some(turn) = self.budget.turn {
            let ends_at_ms = self.turn_ends_at_ms(turn);
            if let Some(at_ms) = ends_at_ms.filter(|at_ms| *at_ms > self.now_ms) {
                return self.wake_at(turn.slot, at_ms);
            }
            self.budget.turn = None;
            if ends_at_ms.is_some() {
                mark!("a message takes longer than its turn");
                self.hold_if_long(turn.slot);
                self.touch(turn.slot);
            }
        }
        let mut quota = if self.budget.is_tight() { 1 } else { connections_max };
        while quota > 0 {
            let Some((slot, generation)) = self.budget.queue.pop_front() else { return };
            if self.slots.of_life(slot, generation).is_none() {
                continue;
            }
            self.slots.rare_mut(slot).set_in_budget_queue(false);
            let held = self.release_hold(slot);
            self.touch(slot);
            if held {
                quota -= 1;
                if self.budget.is_tight() {
                    self.budget.turn = Some(Turn { slot, generation, since_ms: self.now_ms });
                    self.wake_at(slot, self.now_ms + SILENCE_MS);
                }
            }
        }
    }

    /// Adapts the marks to the memory in use, and resumes at most so many connections.
    pub fn balance(&mut self, connections_max: usize) {
        let used_bytes = self.counters.budget_used_bytes as usize;
        if let Some(from) = self.budget.resuming {
            self.budget.resuming = self.resume_some(from, connections_max as u32);
        }
        if self.budget.be_wary(used_bytes) {
            mark!("the budget ends multishot receives");
            self.budget.resuming = Some(0);
        }
        let (budget, limits) = (&mut self.budget, &mut self.limits);
        (limits.streaming_connections_max, limits.kept_while_paused_bytes) =
            budget.batches(limits.receive_buffer_bytes);
        let before = budget.steps;
        if budget.step(used_bytes) {
            self.settings.adapt(budget);
            if budget.steps < before {
                budget.resuming = Some(0);
            } else {
                mark!("the budget lowers the marks");
            }
        }
        self.serve_budget_queue(connections_max);
    }

    pub fn is_budget_calm(&self) -> bool {
        self.budget.is_calm(self.counters.budget_used_bytes as usize)
    }

    /// Returns whether the next turn has something to sweep or to balance, without any completion.
    #[cold]
    pub fn is_upkeep_due(&self) -> bool {
        let budget = &self.budget;
        let serves = match budget.turn {
            Some(turn) => self.turn_ends_at_ms(turn).is_none(),
            None => !budget.queue.is_empty(),
        };
        !self.sweeps.is_empty()
            || serves
            || budget.resuming.is_some()
            || budget.may_rise(self.counters.budget_used_bytes as usize)
    }

    /// When a connection has to let the next one complete its message. `None`: it has completed
    /// its own, or has ended, or the budget is not short any more.
    fn turn_ends_at_ms(&self, turn: Turn) -> Option<u64> {
        let found = self.slots.of_life(turn.slot, turn.generation)?;
        let long = self.keeps_as_much_as_the_mark(turn.slot);
        let active_ms = found.active_ms().max(turn.since_ms);
        let ends_at_ms = (active_ms + SILENCE_MS).min(turn.since_ms + TURN_MS);
        (long && self.budget.is_tight()).then_some(ends_at_ms)
    }

    /// Makes sure that the shard looks at a connection then, as it does for a deadline.
    fn wake_at(&mut self, slot: u32, at_ms: u64) {
        if self.timers.at_ms(slot).is_none_or(|armed_ms| armed_ms > at_ms) {
            self.timers.arm(slot, at_ms);
        }
    }

    /// # Panics
    /// If a connection that is held does not wait for its turn.
    #[cfg(any(test, feature = "testing"))]
    pub fn check_budget(&self) {
        self.settings.check_marks(&self.budget);
        let batches = (self.limits.streaming_connections_max, self.limits.kept_while_paused_bytes);
        let expected = self.budget.batches(self.limits.receive_buffer_bytes);
        assert_eq!(batches, expected, "multishot receives follow the budget");
        let rests = self.sweeps.is_empty() && self.is_budget_calm();
        assert!(self.upkeep || rests, "nobody forgets the budget and the sweeps");
        for (slot, connection) in self.slots.iter() {
            let rare = self.slots.rare_of(connection);
            let held = connection.is_held();
            assert!(!held || rare.in_budget_queue(), "slot {slot} is held for ever");
            let place = (slot, self.slots.generation(slot));
            let queued = self.budget.queue.iter().filter(|it| **it == place).count();
            assert_eq!(queued, usize::from(rare.in_budget_queue()), "slot {slot} in the queue");
            assert!(
                !held || connection.carry() != super::slots::NONE,
                "slot {slot} is held for nothing"
            );
        }
    }
}
