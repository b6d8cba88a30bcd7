//! Order statistics, because a noisy machine makes means useless.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How values spread.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// A quarter is below it.
    pub q1: f64,
    /// Half is below it.
    pub median: f64,
    /// A quarter is above it.
    pub q3: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Describes at least one value, none of them NaN. Between two values it interpolates linearly
    /// (Hyndman and Fan, 1996, type 7).
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        assert!(!values.is_empty());
        values.sort_by(|a, b| a.partial_cmp(b).expect("no value is NaN"));
        let at = |quantile: f64| {
            let position = quantile * (values.len() - 1) as f64;
            let (below, above) =
                (values[position.floor() as usize], values[position.ceil() as usize]);
            below + (above - below) * position.fract()
        };
        Self { min: at(0.0), q1: at(0.25), median: at(0.5), q3: at(0.75), max: at(1.0) }
    }

    /// Returns a confidence interval of the median, of at least 95 %, without an assumption about
    /// the distribution: from the k-th smallest to the k-th largest, where fewer than k of n tosses
    /// of a coin show heads with a probability of 2.5 % at most. Fewer than six values have an
    /// interval from the least to the largest, which is less than 95 %.
    pub fn median_interval(values: &[f64]) -> (f64, f64) {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let mut probability = 0.5_f64.powi(count as i32);
        let mut below = probability;
        let mut k = 0;
        while below <= 0.025 && k < count / 2 {
            k += 1;
            probability *= (count - k + 1) as f64 / k as f64;
            below += probability;
        }
        let edge = k.saturating_sub(1);
        (values[edge], values[count - 1 - edge])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_does_not_matter() {
        let expected = Spread { min: 1.0, q1: 2.0, median: 3.0, q3: 4.0, max: 5.0 };
        assert_eq!(Spread::of([4.0, 1.0, 5.0, 3.0, 2.0].into_iter()), expected);
    }

    /// Conover, Practical Nonparametric Statistics: the second to the eighth of nine, the sixth to
    /// the fifteenth of twenty.
    #[test]
    fn the_interval_of_the_median_is_the_tables() {
        let values = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(Spread::median_interval(&values(9)), (2.0, 8.0));
        assert_eq!(Spread::median_interval(&values(20)), (6.0, 15.0));
        assert_eq!(Spread::median_interval(&values(6)), (1.0, 6.0));
        assert_eq!(Spread::median_interval(&values(3)), (1.0, 3.0));
        assert_eq!(Spread::median_interval(&[7.0]), (7.0, 7.0));
    }

    #[test]
    fn between_two_values_it_is_a_straight_line() {
        let expected = Spread { min: 1.0, q1: 1.5, median: 2.0, q3: 2.5, max: 3.0 };
        assert_eq!(Spread::of([3.0, 1.0].into_iter()), expected);
        assert_eq!(Spread::of([7.0].into_iter()).q1, 7.0);
    }
}
