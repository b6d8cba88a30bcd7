//! The schedule of the probes.

use std::time::Duration;

/// Maximum number of probes per second in the last round, to spare the server a burst.
const LAST_ROUND_RATE: u64 = 10_000;

/// Turns spread evenly: each connection has one in every period.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    start_ns: u64,
    period_ns: u64,
    connections: u64,
}

impl Turns {
    /// Creates rounds without end from `start_ns` on.
    #[must_use]
    pub fn new(start_ns: u64, period: Duration, connections: u64) -> Self {
        assert!(connections > 0, "--connections is not zero");
        Self { start_ns, period_ns: to_ns(period), connections }
    }

    /// Creates one round, as long as the period or as `LAST_ROUND_RATE` demands.
    #[must_use]
    pub fn last_round(start_ns: u64, period: Duration, connections: u64) -> Self {
        let fast = Duration::from_secs(1) * u32::try_from(connections).unwrap_or(u32::MAX)
            / u32::try_from(LAST_ROUND_RATE).unwrap_or(u32::MAX);
        Self::new(start_ns, period.min(fast), connections)
    }

    /// Returns the time of the turn of connection `number` in `round`.
    #[must_use]
    pub fn due_ns(&self, number: u64, round: u64) -> u64 {
        let within = u128::from(self.period_ns) * u128::from(number) / u128::from(self.connections);
        self.start_ns + round * self.period_ns + within as u64
    }

    /// Returns the time of the first turn of connection `number` that is not before `now_ns`.
    #[must_use]
    pub fn next_ns(&self, number: u64, now_ns: u64) -> u64 {
        let since_first = now_ns.saturating_sub(self.due_ns(number, 0));
        self.due_ns(number, since_first.div_ceil(self.period_ns.max(1)))
    }
}

/// Converts to nanoseconds; a longer time than five centuries counts as that.
pub(super) fn to_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_evenly_over_every_period() {
        let turns = Turns::new(100, Duration::from_nanos(30), 3);
        let due = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]
            .map(|(number, round)| turns.due_ns(number, round));
        assert_eq!(due, [100, 110, 120, 130, 140, 150, 160]);
        let next = [0, 110, 111, 140, 141].map(|now_ns| turns.next_ns(1, now_ns));
        assert_eq!(next, [110, 110, 140, 140, 170]);
    }

    #[test]
    fn a_period_that_does_not_divide_never_drifts() {
        let turns = Turns::new(0, Duration::from_nanos(1_000), 7);
        assert_eq!(turns.next_ns(0, 69_999), 70_000, "the first of the 71st round");
    }

    #[test]
    fn the_last_round_is_no_burst_and_no_slower_than_the_others() {
        for (connections, period, length) in [
            (40_000, Duration::from_secs(10), Duration::from_secs(4)),
            (40_000, Duration::from_secs(1), Duration::from_secs(1)),
        ] {
            let turns = Turns::last_round(0, period, connections);
            assert!(turns.due_ns(connections - 1, 0) < to_ns(length));
            assert_eq!(turns.due_ns(0, 1), to_ns(length));
        }
    }
}
