//! The completion queue, and the passing of time in a wait.

use super::super::{Completion, F_MORE, Token};
use super::SimulatedRing;
use super::peers::NEVER;

/// Work items of one enter that waits for less (`DEFER_TASKRUN`).
const WORK_ITEMS: usize = 20;
/// Steps of one wait after which the simulation itself is at fault.
const STEPS_MAX: u32 = 1_000_000;

impl SimulatedRing {
    pub(super) fn waiting_completions(&self) -> u64 {
        (self.completions.len() + self.overflowed.len()) as u64
    }

    pub(super) fn post(&mut self, token: Token, result: i32, flags: u32) {
        self.trace.completed(self.now_us, token, result, flags);
        let completion = Completion { token, result, flags };
        if self.completions.len() < self.completion_capacity && self.overflowed.is_empty() {
            self.completions.push_back(completion);
        } else {
            assert_eq!(flags & F_MORE, 0, "an overflow ends a multishot");
            self.overflowed.push_back(completion);
        }
    }

    /// What found no place in the completion queue goes there now.
    pub(super) fn flush_overflow(&mut self) {
        self.counters.overflows += u64::from(!self.overflowed.is_empty());
        while self.completions.len() < self.completion_capacity {
            let Some(completion) = self.overflowed.pop_front() else { return };
            self.completions.push_back(completion);
        }
    }

    /// When something happens by itself.
    pub fn next_event_us(&mut self) -> u64 {
        self.catch_up();
        let mut ready = self.pending.iter().flatten();
        if self.waiting_completions() > 0 || ready.any(|pending| self.is_ready(pending)) {
            return self.now_us;
        }
        let later = self.pending.iter().flatten().map(|pending| pending.ready_us);
        let later_us = later.filter(|at_us| *at_us > self.now_us).min().unwrap_or(NEVER);
        self.next_outside_us().min(later_us)
    }

    /// When somebody else acts next.
    pub(super) fn next_outside_us(&self) -> u64 {
        self.next_wake_us().unwrap_or(NEVER).min(self.next_peer_us())
    }

    /// Lets the world go on until so many completions are there or the time is over.
    pub(super) fn wait(&mut self, want: usize, deadline_us: u64) {
        for _ in 0..STEPS_MAX {
            self.run_peers();
            let stirred = self.run_operations(want.max(WORK_ITEMS));
            if self.completions.len() >= want || self.now_us >= deadline_us {
                return;
            }
            let next_us = if stirred {
                self.now_us + 1 + self.rng.below(100)
            } else {
                self.next_ready_us.min(self.next_outside_us()).max(self.now_us + 1)
            };
            self.now_us = next_us.min(deadline_us);
        }
        self.broken(format_args!("a wait for {want} until {deadline_us} us makes no progress"));
    }
}
