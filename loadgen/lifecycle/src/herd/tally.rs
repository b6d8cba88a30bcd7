//! The counters of a run.

use super::loss::{Failures, Losses};
use crate::report::{Times, histogram};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Maximum number of intervals kept: one per second for a day.
const INTERVALS_MAX: usize = 24 * 60 * 60;

crate::named! {
    /// The phase of a run.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Phase {
        /// Connections are being opened.
        Ramp = "ramp",
        /// All connections are held.
        Hold = "hold",
        /// Each connection is probed once more.
        LastRound = "last round",
    }
}

/// The counts of one second.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct HerdInterval {
    pub elapsed_s: f64,
    pub phase: Phase,
    pub open: u64,
    pub connected: u64,
    pub failed: u64,
    pub lost: u64,
    pub probes: u64,
    pub answers: u64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// The counters of a run.
pub struct Tally {
    /// Connections established.
    pub connected: u64,
    /// Connections open now.
    pub open: u64,
    /// Failed connects.
    pub failures: Failures,
    /// Refused connects that `--drain-ok` allows.
    pub refused: u64,
    /// Connections closed cleanly by the server, which `--drain-ok` allows.
    pub drained: u64,
    /// Probes in flight at those closes.
    pub unanswered_at_close: u64,
    /// Lost connections.
    pub losses: Losses,
    /// Probes sent.
    pub probes: u64,
    /// Probes answered.
    pub answers: u64,
    /// Connections that answered in the last round.
    pub answered_last: u64,
    /// From the scheduled time of a connect to its success.
    pub connect_ns: Histogram<u64>,
    /// From the scheduled time of a probe to its answer.
    pub probe_ns: Histogram<u64>,
    /// The same for the last round.
    pub last_ns: Histogram<u64>,
    /// From the scheduled time of a probe to its sending.
    pub lag_ns: Histogram<u64>,
    /// One entry per second.
    pub intervals: Vec<HerdInterval>,
    /// Probe times since the last interval.
    since: Histogram<u64>,
    before: Before,
}

/// Counts at the end of the last interval.
#[derive(Default)]
struct Before {
    probes: u64,
    answers: u64,
    failed: u64,
    lost: u64,
}

impl Tally {
    /// Creates empty counters.
    #[must_use]
    pub fn new() -> Self {
        Self {
            connected: 0,
            open: 0,
            failures: Failures::default(),
            refused: 0,
            drained: 0,
            unanswered_at_close: 0,
            losses: Losses::default(),
            probes: 0,
            answers: 0,
            answered_last: 0,
            connect_ns: histogram(),
            probe_ns: histogram(),
            last_ns: histogram(),
            lag_ns: histogram(),
            intervals: Vec::new(),
            since: histogram(),
            before: Before::default(),
        }
    }

    /// Counts an answer `time_ns` after the scheduled time of its probe. `is_last` marks the last
    /// round.
    pub fn answer(&mut self, time_ns: u64, is_last: bool) {
        self.answers += 1;
        self.since.saturating_record(time_ns);
        if is_last {
            self.answered_last += 1;
            self.last_ns.saturating_record(time_ns);
        } else {
            self.probe_ns.saturating_record(time_ns);
        }
    }

    /// Ends an interval.
    pub fn interval(&mut self, elapsed_ns: u64, phase: Phase) -> HerdInterval {
        let (failed, lost) = (self.failures.total(), self.losses.total());
        let times = Times::of(&self.since);
        let interval = HerdInterval {
            elapsed_s: super::loss::seconds(elapsed_ns),
            phase,
            open: self.open,
            connected: self.connected,
            failed: failed - self.before.failed,
            lost: lost - self.before.lost,
            probes: self.probes - self.before.probes,
            answers: self.answers - self.before.answers,
            p50_us: times.p50,
            p99_us: times.p99,
        };
        self.since.reset();
        self.before = Before { probes: self.probes, answers: self.answers, failed, lost };
        if self.intervals.len() < INTERVALS_MAX {
            self.intervals.push(interval);
        }
        interval
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_what_came_since_the_one_before() {
        let mut tally = Tally::new();
        (tally.connected, tally.open, tally.probes) = (5, 5, 3);
        tally.answer(1_000_000, false);
        let first = tally.interval(1_000_000_000, Phase::Hold);
        assert_eq!((first.elapsed_s, first.open, first.probes, first.answers), (1.0, 5, 3, 1));
        tally.probes = 4;
        tally.answer(5_000_000, true);
        let second = tally.interval(2_000_000_000, Phase::LastRound);
        assert_eq!((second.probes, second.answers, second.connected), (1, 1, 5));
        assert!(second.p50_us > 4_900.0 && first.p50_us < 1_100.0);
        assert_eq!((tally.probe_ns.len(), tally.last_ns.len()), (1, 1));
        assert_eq!((tally.answered_last, tally.intervals.len()), (1, 2));
    }
}
