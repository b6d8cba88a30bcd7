//! How far a ratio may lie from 1 by chance: a bootstrap over runs, and over the seconds in them.

use serde::Serialize;

/// Times the samples are drawn again.
const DRAWS: usize = 2_000;
/// Samples of a run drawn from: an hour.
const SAMPLES_MAX: usize = 3_600;
/// The same comparison says the same every time.
const SEED: u64 = 0x5eed;

/// Where a ratio lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// 1 is not in it.
    pub beyond: bool,
}

impl Interval {
    /// The difference is more than noise.
    pub fn is_beyond(self) -> bool {
        self.beyond
    }
}

/// The interval of the ratio of B's median to A's, each side being runs with their samples.
///
/// First runs are drawn with replacement, then the samples within each: what differs from run to
/// run counts as noise where there are several. Seconds of one run resemble each other, so one run
/// per side makes the interval rather too narrow.
pub fn ratio(a: &[Vec<f64>], b: &[Vec<f64>]) -> Option<Interval> {
    let mut random = Random(SEED);
    let mut ratios: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let (a, b) = (draw(a, &mut random)?, draw(b, &mut random)?);
            (a > 0.0).then(|| b / a)
        })
        .collect();
    if ratios.len() < DRAWS / 2 {
        return None;
    }
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share).round() as usize];
    let (low, high) = (at(0.025), at(0.975));
    Some(Interval { low, high, beyond: low > 1.0 || high < 1.0 })
}

/// The median of a draw from the runs and from the samples of each.
fn draw(runs: &[Vec<f64>], random: &mut Random) -> Option<f64> {
    let mut drawn = Vec::new();
    for _ in runs {
        let run = &runs[random.below(runs.len())?];
        let run = &run[..run.len().min(SAMPLES_MAX)];
        for _ in run {
            drawn.push(run[random.below(run.len())?]);
        }
    }
    median(&drawn)
}

/// The middle one, or the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    let (count, middle) = (values.len(), values.len() / 2);
    if count == 0 {
        return None;
    }
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(match count % 2 {
        1 => *upper,
        _ => f64::midpoint(below.iter().copied().fold(f64::NEG_INFINITY, f64::max), *upper),
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> Option<usize> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (limit > 0).then(|| ((u128::from(bits) * limit as u128) >> 64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn one_run_that_is_off_widens_the_interval_of_several() {
        let run = |middle: f64| vec![middle * 0.99, middle, middle * 1.01];
        let calm = vec![run(10.0); 5];
        let shaken = vec![run(10.0), run(10.0), run(14.0), run(7.0), run(10.0)];
        let narrow = ratio(&calm, &calm).expect("there are samples");
        let wide = ratio(&calm, &shaken).expect("there are samples");
        assert!(!narrow.beyond && !wide.beyond);
        assert!(wide.high - wide.low > 3.0 * (narrow.high - narrow.low), "{narrow:?} {wide:?}");
    }

    #[test]
    fn zeros_have_no_ratio() {
        assert_eq!(ratio(&[vec![0.0; 9]], &[vec![1.0; 9]]), None);
        assert_eq!(ratio(&[], &[vec![1.0]]), None);
    }
}
