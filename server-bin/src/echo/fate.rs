//! What is drawn for a connection: a function of the seed, the shard and the connection's ordinal
//! on it, whatever the others do.

use super::ending::Ending;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How likely something is, exact to 2^-64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probability(f64);

impl Probability {
    /// `None` for what is not between 0 and 1.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// Draws below this have hit.
    fn threshold(self) -> u128 {
        (self.0 * 2_f64.powi(64)) as u128
    }
}

/// The draws of one connection, by splitmix64.
#[derive(Clone, Debug)]
pub struct Fate {
    state: u64,
    threshold: u128,
}

impl Fate {
    /// Of the connection that is the `ordinal`th, from 0, of the shard `shard`.
    #[must_use]
    pub fn new(seed: u64, shard: usize, ordinal: u64, probability: Probability) -> Self {
        // Each is stirred in before the next one comes, so that neighbours have nothing in common.
        let mut fate = Self { state: seed, threshold: probability.threshold() };
        for word in [shard as u64, ordinal] {
            fate.state = fate.next() ^ word;
        }
        Self { state: fate.next(), ..fate }
    }

    /// Whether it ends with this event, and how.
    pub fn ends(&mut self, endings: &[Ending]) -> Option<Ending> {
        (u128::from(self.next()) < self.threshold)
            .then(|| endings[self.below(endings.len() as u64) as usize])
    }

    /// Length of a true part of `bytes` bytes, in bytes: neither nothing nor all of them; nothing
    /// where there is only one.
    pub fn part_of(&mut self, bytes: usize) -> usize {
        match bytes {
            0..=1 => 0,
            _ => 1 + self.below(bytes as u64 - 1) as usize,
        }
    }

    /// Any whole number of milliseconds of this range.
    pub fn milliseconds(&mut self, range: RangeInclusive<u64>) -> Duration {
        let span = range.end() - range.start() + 1;
        Duration::from_millis(range.start() + self.below(span))
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn probability(value: f64) -> Probability {
        Probability::new(value).unwrap()
    }

    /// Events until the end, how it ends, and what is drawn after that.
    fn story(seed: u64, shard: usize, ordinal: u64) -> (u64, Ending, usize) {
        let mut fate = Fate::new(seed, shard, ordinal, probability(0.1));
        for event in 0.. {
            if let Some(ending) = fate.ends(&Ending::LATER) {
                return (event, ending, fate.part_of(1000));
            }
        }
        unreachable!("it is certain to end")
    }

    #[test]
    fn the_same_seed_shard_and_ordinal_tell_the_same_story() {
        assert_eq!(story(7, 1, 5), story(7, 1, 5));
        let stories: HashSet<_> = (0..3)
            .flat_map(|seed| (0..3).flat_map(move |shard| (0..3).map(move |at| (seed, shard, at))))
            .map(|(seed, shard, at)| format!("{:?}", story(seed, shard, at)))
            .collect();
        assert_eq!(stories.len(), 27, "{stories:?}");
    }

    #[test]
    fn none_ends_at_0_and_all_at_1() {
        for ordinal in 0..1_000 {
            let mut never = Fate::new(1, 0, ordinal, probability(0.0));
            assert_eq!(never.ends(&Ending::LATER), None);
            let mut always = Fate::new(1, 0, ordinal, probability(1.0));
            assert!(always.ends(&Ending::AT_ONCE).is_some());
        }
        assert_eq!([-0.1, 1.1, f64::NAN].map(Probability::new), [None; 3]);
    }

    #[test]
    fn events_end_as_often_as_is_asked_for_and_all_endings_alike() {
        let mut counts = [0_u32; Ending::ALL.len()];
        for ordinal in 0..2_000 {
            let mut fate = Fate::new(42, 0, ordinal, probability(0.05));
            for ending in (0..60).filter_map(|_| fate.ends(&Ending::LATER)) {
                counts[ending as usize] += 1;
            }
        }
        // 6,000 of 120,000, 1,000 of each; five standard deviations are 380 and 158.
        let all: u32 = counts.iter().sum();
        assert!((5_620..=6_380).contains(&all), "{counts:?}");
        for ending in Ending::LATER {
            let count = counts[ending as usize];
            assert!((842..=1_158).contains(&count), "{ending:?} in {counts:?}");
        }
    }

    #[test]
    fn a_part_is_neither_nothing_nor_all() {
        let mut fate = Fate::new(1, 0, 0, probability(0.5));
        assert_eq!([0, 1].map(|bytes| fate.part_of(bytes)), [0, 0]);
        let parts: HashSet<usize> = (0..1_000).map(|_| fate.part_of(5)).collect();
        assert_eq!(parts, HashSet::from([1, 2, 3, 4]));
        let waits: HashSet<_> = (0..1_000).map(|_| fate.milliseconds(3..=5)).collect();
        assert_eq!(waits, HashSet::from([3, 4, 5].map(Duration::from_millis)));
    }
}
