//! The state of the budget, and the water marks that follow from it.

use crate::config::Config;
use std::collections::VecDeque;

/// The high-water mark falls to one send buffer, and no further than to this.
const MARK_BYTES_MIN: usize = 4 << 10;
/// The next step down follows when the use has grown by this part of the share since the last one.
const GROWTH_PART: usize = 32;
/// The state of the budget.
#[derive(Debug)]
pub struct Budget {
    pub(super) share_bytes: usize,
    /// The next step down follows above this.
    pub(super) step_above_bytes: usize,
    /// More than half of the share is in use: no multishot receive brings more than is wanted.
    pub(super) wary: bool,
    /// Halvings of the marks.
    pub(super) steps: u32,
    /// As many as the highest mark that was in use needs.
    pub(super) steps_max: u32,
    /// No mark is halved below this.
    lowest_bytes: usize,
    /// As the configuration gives it.
    pub(super) streaming_connections_max: usize,
    /// Connections whose incomplete message is above the mark, with their generation: they have
    /// their turns in this order, one at a time.
    pub(super) queue: VecDeque<(u32, u64)>,
    pub(super) turn: Option<Turn>,
    /// The raised marks make room: resume connections from this slot on.
    pub(super) resuming: Option<u32>,
}

/// The connection that may complete its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) slot: u32,
    pub(super) generation: u64,
    pub(super) since_ms: u64,
}

impl Budget {
    pub fn new(config: &Config) -> Self {
        let share_bytes = config.budget_share_bytes();
        let mut budget = Self {
            share_bytes,
            step_above_bytes: share_bytes,
            wary: false,
            steps: 0,
            steps_max: 0,
            lowest_bytes: MARK_BYTES_MIN.min(config.send_buffer_bytes as usize),
            streaming_connections_max: config.streaming_connections_max,
            queue: VecDeque::new(),
            turn: None,
            resuming: None,
        };
        budget.know_mark(config.output_high_bytes);
        budget
    }

    /// Connections have this high mark from now on.
    pub fn know_mark(&mut self, high_bytes: usize) {
        self.steps_max = self.steps_max.max(self.halvings(high_bytes));
    }

    /// The steps that lower a mark. One at least: it also ends the multishot receives.
    fn halvings(&self, high_bytes: usize) -> u32 {
        let lowest_bytes = self.lowest_bytes.min(high_bytes);
        (high_bytes / lowest_bytes).next_power_of_two().trailing_zeros().max(1)
    }

    pub fn share_bytes(&self) -> usize {
        self.share_bytes
    }

    /// Returns whether the marks are lowered.
    #[inline]
    pub fn is_tight(&self) -> bool {
        self.steps > 0
    }

    /// Returns whether connections receive once at a time, so that a pause stops them at once. A
    /// multishot receive brings a whole batch before its cancel takes effect.
    #[inline]
    pub fn is_wary(&self) -> bool {
        self.wary
    }

    /// Returns whether there is nothing to do.
    pub(super) fn is_calm(&self, used_bytes: usize) -> bool {
        used_bytes <= self.share_bytes / 2
            && self.steps == 0
            && !self.wary
            && self.resuming.is_none()
            && self.queue.is_empty()
    }

    /// Returns whether multishot receives are to end from now on.
    pub(super) fn be_wary(&mut self, used_bytes: usize) -> bool {
        let before = self.wary;
        let part = if before { self.share_bytes / 4 } else { self.share_bytes / 2 };
        self.wary = self.steps > 0 || used_bytes > part;
        self.wary && !before
    }

    /// Takes the next step if the use demands or allows it. Returns whether the marks have changed.
    pub(super) fn step(&mut self, used: usize) -> bool {
        let soon = used.saturating_add(self.share_bytes / GROWTH_PART).max(self.share_bytes);
        self.step_above_bytes = self.step_above_bytes.min(soon);
        if used > self.step_above_bytes && self.steps < self.steps_max {
            self.steps += 1;
            self.step_above_bytes = soon;
        } else if self.may_rise(used) && self.resuming.is_none() {
            self.steps -= 1;
            self.step_above_bytes = self.share_bytes;
        } else {
            return false;
        }
        true
    }

    /// Returns whether the marks are to rise.
    pub(super) fn may_rise(&self, used_bytes: usize) -> bool {
        self.steps > 0 && used_bytes < self.share_bytes - self.share_bytes / 4
    }

    /// Returns whether connections for which there is room may not know of it yet.
    #[cfg(any(test, feature = "testing"))]
    pub fn is_resuming(&self) -> bool {
        self.resuming.is_some()
    }

    /// The present limits of multishot receives: `streaming_connections_max` and
    /// `kept_while_paused_bytes`. While the budget is short each receive is a single one, so that a
    /// pause takes effect at once: a multishot receive brings a whole batch before its cancel does.
    pub(super) fn batches(&self, receive_buffer_bytes: usize) -> (usize, usize) {
        match self.wary {
            true => (0, 0),
            false => (self.streaming_connections_max, receive_buffer_bytes),
        }
    }

    /// The present high and low mark of connections that have these without the budget.
    pub fn marks(&self, high_bytes: usize, low_bytes: usize) -> (usize, usize) {
        let steps = self.steps.min(self.halvings(high_bytes));
        let high = (high_bytes >> steps).max(self.lowest_bytes.min(high_bytes));
        (high, (low_bytes >> steps).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize) -> Budget {
        Budget::new(&Config { memory_budget_bytes: Some(bytes), ..Config::default() })
    }

    /// The marks of the default configuration.
    fn ordinary(budget: &Budget) -> (usize, usize) {
        budget.marks(256 << 10, 64 << 10)
    }

    #[test]
    fn marks_fall_while_the_use_grows_and_rise_below_three_quarters() {
        let mut budget = budget(1 << 20);
        let mut used = 1 << 20;
        assert!(budget.be_wary(used) && !budget.step(used) && budget.steps == 0);
        let mut high = vec![];
        for _ in 0..40 {
            used += (1 << 20) / 32 + 1;
            if budget.step(used) {
                assert!(!budget.step(used), "the next step waits for the effect of this one");
                high.push(ordinary(&budget).0 >> 10);
            }
        }
        assert_eq!(high, [128, 64, 32, 16, 8, 4]);
        assert_eq!(ordinary(&budget), (4 << 10, 1 << 10));
        assert!(!budget.step(3 << 18), "three quarters are not below three quarters");
        used = (3 << 18) - 1;
        budget.resuming = Some(0);
        assert!(!budget.step(used), "those that may go on do so first");
        budget.resuming = None;
        for _ in 0..6 {
            assert!(budget.step(used));
        }
        assert_eq!(ordinary(&budget), (256 << 10, 64 << 10));
        assert!(!budget.be_wary(used) && budget.wary && !budget.is_calm(used));
        assert!(!budget.be_wary(0) && budget.is_calm(0) && !budget.step(0));
    }

    #[test]
    fn each_mark_falls_to_the_lowest_and_no_further() {
        let mut budget = budget(1 << 20);
        budget.know_mark(1 << 20);
        budget.know_mark(100);
        assert_eq!(budget.steps_max, 8, "as many halvings as 1 MiB takes");
        budget.steps = 8;
        assert_eq!(budget.marks(1 << 20, 1 << 18), (4 << 10, 1 << 10));
        assert_eq!(ordinary(&budget), (4 << 10, 1 << 10));
        assert_eq!(budget.marks(100, 50), (100, 25));
        budget.steps = 1;
        assert_eq!(budget.marks(1 << 20, 1 << 18), (1 << 19, 1 << 17));
    }

    #[test]
    fn small_settings_have_their_marks() {
        let config = Config { output_high_bytes: 3, output_low_bytes: 2, ..Config::default() };
        let mut budget = Budget::new(&Config { memory_budget_bytes: Some(1), ..config });
        assert!(budget.step(2));
        assert_eq!(budget.marks(3, 2), (3, 1));
        assert!(budget.step(0) && !budget.be_wary(0) && budget.is_calm(0));
    }
}
