//! When whose turn it is.

use std::time::Duration;

/// Probes per second of the last round, at most: all at once would be a flood.
const LAST_ROUND_RATE: u64 = 10_000;

/// Turns spread evenly: each member has one in every period.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    start_ns: u64,
    period_ns: u64,
    members: u64,
    next: u64,
}

impl Turns {
    /// Rounds without end from `start_ns` on.
    #[must_use]
    pub fn new(start_ns: u64, period: Duration, members: u64) -> Self {
        assert!(members > 0, "--connections is not zero");
        Self { start_ns, period_ns: to_ns(period), members, next: 0 }
    }

    /// One round: of the period, or as fast as is good for the server.
    #[must_use]
    pub fn last_round(start_ns: u64, period: Duration, members: u64) -> Self {
        let fast = Duration::from_secs(1) * u32::try_from(members).unwrap_or(u32::MAX)
            / u32::try_from(LAST_ROUND_RATE).unwrap_or(u32::MAX);
        Self::new(start_ns, period.min(fast), members)
    }

    /// When the next turn is.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        let (round, place) = (self.next / self.members, self.next % self.members);
        let within = u128::from(self.period_ns) * u128::from(place) / u128::from(self.members);
        self.start_ns + round * self.period_ns + within as u64
    }

    /// Whose turn it is, and when, if that is not after `now_ns`.
    pub fn take(&mut self, now_ns: u64) -> Option<(usize, u64)> {
        let due_ns = self.due_ns();
        if due_ns > now_ns {
            return None;
        }
        let member = (self.next % self.members) as usize;
        self.next += 1;
        Some((member, due_ns))
    }

    /// Whether every member has had a turn.
    #[must_use]
    pub const fn is_round_over(&self) -> bool {
        self.next >= self.members
    }
}

/// Nanoseconds; five centuries stand for more.
pub(super) fn to_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_evenly_over_every_period() {
        let mut turns = Turns::new(100, Duration::from_nanos(30), 3);
        let mut taken = Vec::new();
        while let Some(turn) = turns.take(150) {
            taken.push(turn);
        }
        assert_eq!(taken, [(0, 100), (1, 110), (2, 120), (0, 130), (1, 140), (2, 150)]);
        assert_eq!(turns.due_ns(), 160);
    }

    #[test]
    fn a_period_that_does_not_divide_never_drifts() {
        let mut turns = Turns::new(0, Duration::from_nanos(1_000), 7);
        let last = std::iter::from_fn(|| turns.take(70_000)).last();
        assert_eq!(last, Some((0, 70_000)), "the first of the 71st round");
    }

    #[test]
    fn the_last_round_is_no_flood_and_no_slower_than_the_others() {
        for (members, period, length) in [
            (40_000, Duration::from_secs(10), Duration::from_secs(4)),
            (40_000, Duration::from_secs(1), Duration::from_secs(1)),
        ] {
            let mut turns = Turns::last_round(0, period, members);
            let before_end = to_ns(length) - 1;
            let taken = std::iter::from_fn(|| turns.take(before_end)).count();
            assert_eq!(taken as u64, members);
            assert!(turns.is_round_over() && turns.due_ns() == to_ns(length));
        }
    }
}
