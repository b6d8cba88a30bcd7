//! The schedule of requests or connections. It is a function of time, so that overdue requests take
//! no memory.

use super::Profile;
use ringload_lifecycle::random::Random;
use ringload_lifecycle::units::Rate;
use std::sync::Arc;

/// Maximum number of unsent requests that are reported one by one; more are reported in this number
/// of equal parts.
const PARTS_MAX: u64 = 1 << 20;

/// The scheduled times from a begin to an end.
#[derive(Clone, Debug)]
pub struct Schedule {
    gaps: Gaps,
    /// Nothing is due before the begin.
    begins_ns: Option<u64>,
    ends_ns: u64,
    /// Remaining requests of a limited number.
    left: u64,
    /// The first time that was not taken yet.
    next_ns: u64,
}

#[derive(Clone, Debug)]
enum Gaps {
    /// Each time is computed from its place, so that errors do not add up.
    Uniform { place: u64, shards: u64, rate: Rate },
    /// Exponentially distributed gaps (a Poisson process). The sum of several such processes is
    /// one, too.
    Poisson { mean_ns: f64, at_ns: f64, random: Random },
    /// A rate that changes. Without `random`, each time is computed from its place.
    Staged { profile: Arc<Profile>, place: f64, shards: f64, random: Option<Random> },
}

impl Schedule {
    /// Creates the part of `shard` out of `shards` of a total `rate`, evenly spread. It ends at
    /// `ends_ns`, or after `count`.
    #[must_use]
    pub fn uniform(rate: Rate, shard: u64, shards: u64, ends_ns: u64, count: u64) -> Self {
        assert!(shard < shards, "a share of a rate");
        Self::of(Gaps::Uniform { place: shard, shards, rate }, ends_ns, count)
    }

    /// Creates the same part at random, by `seed`.
    #[must_use]
    pub fn poisson(
        rate: Rate,
        shard: u64,
        shards: u64,
        seed: u64,
        ends_ns: u64,
        count: u64,
    ) -> Self {
        assert!(shard < shards, "a share of a rate");
        let mean_ns = rate.mean_ns() * shards as f64;
        let random = Random::new(seed, shard);
        Self::of(Gaps::Poisson { mean_ns, at_ns: 0.0, random }, ends_ns, count)
    }

    /// Creates the same part for a rate that changes: evenly, or at random by a seed.
    #[must_use]
    pub fn staged(
        profile: Arc<Profile>,
        (shard, shards): (u64, u64),
        seed: Option<u64>,
        ends_ns: u64,
    ) -> Self {
        assert!(shard < shards, "a share of a rate");
        let random = seed.map(|seed| Random::new(seed, shard));
        let place = if random.is_some() { 0.0 } else { shard as f64 };
        let gaps = Gaps::Staged { profile, place, shards: shards as f64, random };
        Self::of(gaps, ends_ns, u64::MAX)
    }

    fn of(gaps: Gaps, ends_ns: u64, left: u64) -> Self {
        let mut schedule = Self { gaps, begins_ns: None, ends_ns, left, next_ns: 0 };
        // The first time of a Poisson process follows a gap, too.
        if let Gaps::Poisson { .. } | Gaps::Staged { random: Some(_), .. } = schedule.gaps {
            schedule.advance();
        }
        schedule
    }

    /// Starts the schedule. Only the first call counts.
    pub fn begin(&mut self, now_ns: u64) {
        if self.begins_ns.is_none() {
            self.begins_ns = Some(now_ns);
            self.place_next();
        }
    }

    /// Returns true after the start.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.begins_ns.is_some()
    }

    /// Returns the next time, or `None` before the begin and after the end.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        let is_there = self.left > 0 && self.begins_ns.is_some() && self.next_ns < self.ends_ns;
        is_there.then_some(self.next_ns)
    }

    /// Takes the next time if it has come.
    #[inline]
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next().filter(|due_ns| *due_ns <= now_ns)?;
        self.left -= 1;
        self.advance();
        Some(due_ns)
    }

    /// Ends the schedule at `end_ns`. Calls `each` with the times before it that were not taken,
    /// and their number: beyond a million, a time stands for several.
    pub fn give_up(&mut self, end_ns: u64, mut each: impl FnMut(u64, u64)) {
        self.ends_ns = self.ends_ns.min(end_ns);
        let Some(first_ns) = self.next() else { return };
        let span_ns = self.ends_ns - first_ns;
        let many = (span_ns as f64 / self.mean_ns()).min(self.left as f64) as u64;
        if many <= PARTS_MAX {
            while let Some(due_ns) = self.take(u64::MAX) {
                each(due_ns, 1);
            }
            return;
        }
        let covered_ns = (many as f64 * self.mean_ns()) as u64;
        for part in 0..PARTS_MAX {
            let until =
                |part: u64| (u128::from(many) * u128::from(part) / u128::from(PARTS_MAX)) as u64;
            let at = u128::from(covered_ns) * u128::from(part) / u128::from(PARTS_MAX);
            each(first_ns + at as u64, until(part + 1) - until(part));
        }
        self.left = 0;
    }

    fn mean_ns(&self) -> f64 {
        match &self.gaps {
            Gaps::Uniform { shards, rate, .. } => rate.mean_ns() * *shards as f64,
            Gaps::Poisson { mean_ns, .. } => *mean_ns,
            // The gap between the remaining requests.
            Gaps::Staged { profile, place, shards, .. } => {
                let length_ns = self.ends_ns - self.begins_ns.unwrap_or_default();
                let left = (profile.count(length_ns) - place).max(1.0) / shards;
                self.ends_ns.saturating_sub(self.next_ns) as f64 / left
            }
        }
    }

    fn advance(&mut self) {
        match &mut self.gaps {
            Gaps::Uniform { place, shards, .. } => *place += *shards,
            Gaps::Poisson { mean_ns, at_ns, random } => {
                *at_ns += exponential(random) * *mean_ns;
            }
            Gaps::Staged { place, shards, random, .. } => {
                *place += *shards * random.as_mut().map_or(1.0, exponential);
            }
        }
        self.place_next();
    }

    fn place_next(&mut self) {
        let after_ns = match &self.gaps {
            Gaps::Uniform { place, rate, .. } => rate.due_ns(*place),
            Gaps::Poisson { at_ns, .. } => *at_ns as u64,
            Gaps::Staged { profile, place, .. } => profile.time_ns(*place),
        };
        self.next_ns = self.begins_ns.unwrap_or_default().saturating_add(after_ns);
    }
}

/// Draws from the exponential distribution with mean 1.
fn exponential(random: &mut Random) -> f64 {
    // The argument is never zero, which has no logarithm.
    let uniform = ((random.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Stages;
    use proptest::prelude::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn times(mut schedule: Schedule) -> Vec<u64> {
        schedule.begin(0);
        std::iter::from_fn(|| schedule.take(u64::MAX)).collect()
    }

    proptest! {
        #[test]
        fn the_shards_share_an_even_schedule(rate in 1_u64..5_000, shards in 1_u64..9) {
            let end_ns = 2 * SECOND_NS;
            let of = |shard| Schedule::uniform(rate.into(), shard, shards, end_ns, u64::MAX);
            let mut all: Vec<u64> = (0..shards).flat_map(|shard| times(of(shard))).collect();
            all.sort_unstable();
            prop_assert_eq!(all.len() as u64, 2 * rate);
            for (place, time) in all.iter().enumerate() {
                prop_assert_eq!(*time, place as u64 * SECOND_NS / rate);
            }
        }

        #[test]
        fn random_times_have_their_rate_and_spread(seed: u64, shards in 1_u64..4) {
            let rate = 10_000.into();
            let of = |shard| Schedule::poisson(rate, shard, shards, seed, SECOND_NS, u64::MAX);
            let mut all: Vec<u64> = (0..shards).flat_map(|shard| times(of(shard))).collect();
            all.sort_unstable();
            // Standard deviation 100: beyond ten of them comes nobody.
            prop_assert!((9_000..11_000).contains(&all.len()), "{}", all.len());
            let gaps: Vec<f64> = all.windows(2).map(|two| (two[1] - two[0]) as f64).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
            // e^-1 of exponentially distributed gaps are longer than their mean.
            prop_assert!((longer - 0.368).abs() < 0.04, "{longer}");
            prop_assert_eq!(times(of(0)), times(of(0)), "the seed decides");
        }

        #[test]
        fn what_is_given_up_is_what_was_not_taken(
            rate in 1_u64..100_000, taken_ns in 0..SECOND_NS, end_ns in 0..2 * SECOND_NS,
            count in 1_u64..50_000, poisson: bool,
        ) {
            let mut schedule = match poisson {
                true => Schedule::poisson(rate.into(), 0, 1, 7, SECOND_NS, count),
                false => Schedule::uniform(rate.into(), 0, 1, SECOND_NS, count),
            };
            let whole = times(schedule.clone());
            schedule.begin(0);
            let mut seen: Vec<u64> = std::iter::from_fn(|| schedule.take(taken_ns)).collect();
            prop_assert!(seen.iter().all(|time| *time <= taken_ns));
            schedule.give_up(end_ns, |time, many| {
                seen.extend(std::iter::repeat_n(time, many as usize));
            });
            let must: Vec<u64> =
                whole.into_iter().filter(|time| *time < end_ns || *time <= taken_ns).collect();
            prop_assert_eq!(seen, must);
            prop_assert_eq!(schedule.next(), None);
        }
    }

    #[test]
    fn a_backlog_beyond_all_bounds_is_told_in_parts() {
        let hour_ns = 3_600 * SECOND_NS;
        let mut schedule = Schedule::uniform(1_000_000.into(), 0, 1, hour_ns, u64::MAX);
        schedule.begin(0);
        let (mut all, mut parts, mut sum_ns) = (0, 0_u64, 0.0);
        schedule.give_up(hour_ns, |time, many| {
            all += many;
            parts += 1;
            sum_ns += time as f64 * many as f64;
        });
        assert_eq!((all, parts), (3_600_000_000, PARTS_MAX));
        let mean_ns = sum_ns / all as f64;
        assert!((mean_ns / (hour_ns as f64 / 2.0) - 1.0).abs() < 1e-3, "{mean_ns}");
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_changing_rate_is_shared_and_kept_to() {
        let ramp = "1k:9k".parse().expect("a ramp");
        let length = std::time::Duration::from_secs(2);
        let profile = Arc::new(Profile::new(&Stages::one(length, ramp)));
        let of = |seed, shard| Schedule::staged(profile.clone(), (shard, 3), seed, 2 * SECOND_NS);
        let all = |seed| {
            let mut all: Vec<u64> = (0..3).flat_map(|shard| times(of(seed, shard))).collect();
            all.sort_unstable();
            all
        };
        let even = all(None);
        // 1,000 per second grow to 5,000 in the first half.
        assert_eq!(
            (even.len(), even.iter().filter(|time| **time < SECOND_NS).count()),
            (10_000, 3_000)
        );
        for (place, time) in even.iter().enumerate() {
            assert_eq!(*time, profile.time_ns(place as f64), "{place}");
        }
        let random = all(Some(7));
        // More than ten standard deviations.
        assert!((9_000..11_000).contains(&random.len()), "{}", random.len());
        let first_half = random.iter().filter(|time| **time < SECOND_NS).count();
        assert!((2_450..3_550).contains(&first_half), "{first_half}");
        assert_eq!(all(Some(7)), random);
        assert_ne!(all(Some(8)), random);
    }

    #[test]
    fn a_backlog_of_a_changing_rate_is_given_up() {
        for (ramp, count) in [("1k:9k", 10_000), ("1M:9M", 10_000_000)] {
            let ramp = ramp.parse().expect("a ramp");
            let length = std::time::Duration::from_secs(2);
            let profile = Arc::new(Profile::new(&Stages::one(length, ramp)));
            let mut schedule = Schedule::staged(profile, (0, 1), None, 2 * SECOND_NS);
            schedule.begin(0);
            let mut all = 0;
            schedule.give_up(2 * SECOND_NS, |time, many| {
                assert!(time < 2 * SECOND_NS);
                all += many;
            });
            assert!(count - all <= 1, "{all} of {count}");
            assert_eq!(schedule.next(), None);
        }
    }

    #[test]
    fn slow_rates_are_exact() {
        for (rate, gap_ns) in
            [("0.2", 5 * SECOND_NS), ("30/m", 2 * SECOND_NS), ("0.8", 1_250_000_000)]
        {
            let rate = rate.parse().expect("a rate");
            let times = times(Schedule::uniform(rate, 0, 1, u64::MAX, 5));
            let must: Vec<u64> = (0..5).map(|place| place * gap_ns).collect();
            assert_eq!(times, must, "{rate:?}");
        }
    }

    #[test]
    fn it_runs_from_its_beginning() {
        let mut schedule = Schedule::uniform(1_000.into(), 0, 1, SECOND_NS, 2);
        assert_eq!((schedule.next(), schedule.has_begun()), (None, false));
        schedule.begin(5);
        schedule.begin(7);
        assert_eq!(schedule.take(4), None);
        assert_eq!((schedule.take(5), schedule.next()), (Some(5), Some(1_000_005)));
        assert_eq!((schedule.take(2_000_000), schedule.take(u64::MAX)), (Some(1_000_005), None));
    }
}
