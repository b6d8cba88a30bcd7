//! The order of the probes: they bracket the highest rate, halve the bracket, and confirm the
//! result. A rate is too high if two probes in a row miss it, so that a disturbance is not taken
//! for a limit.

/// Ratio of two rates at which the bracket is narrow enough.
const RATIO_MIN: f64 = 1.04;
/// Factor to the next rate while none has been missed.
const GROWTH: f64 = 1.5;
/// Factor to the next rate while none has been met.
const FALL: f64 = 0.5;
/// Lowest and highest rate of a probe, per second.
const RATES: [f64; 2] = [1.0, 10e6];

ringload_lifecycle::named! {
    /// The reason why a rate is too high.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Limit {
        /// The server misses an objective.
        Slo = "slo",
        /// ringload cannot make this load.
        Ringload = "ringload",
    }
}

/// A probe to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Requests per second.
    pub rate: f64,
    /// Repeats a rate that was met, for longer.
    pub confirms: bool,
}

/// Knowledge about the highest rate.
#[derive(Debug)]
pub struct Bounds {
    /// Rate of the first probe.
    first: f64,
    /// Rates that were met and are below `missed`, ascending.
    met: Vec<f64>,
    missed: Option<(f64, Limit)>,
    is_confirmed: bool,
    /// A probe that missed once.
    again: Option<(Probe, Limit)>,
}

impl Bounds {
    /// Creates the bounds of a search that begins at `first` requests per second.
    #[must_use]
    pub fn new(first: f64) -> Self {
        Self {
            first: round(first),
            met: Vec::new(),
            missed: None,
            is_confirmed: false,
            again: None,
        }
    }

    /// Returns the highest rate that was met.
    #[must_use]
    pub fn low(&self) -> Option<f64> {
        self.met.last().copied()
    }

    /// Returns the lowest rate that was missed, and the reason.
    #[must_use]
    pub const fn high(&self) -> Option<(f64, Limit)> {
        self.missed
    }

    /// Returns the next probe, or `None` if the search is over. With `is_late` there is time for
    /// the confirmation only.
    #[must_use]
    pub fn next(&self, is_late: bool) -> Option<Probe> {
        let probe = |rate: f64| Some(Probe { rate: round(rate), confirms: false });
        let confirm = |rate| (!self.is_confirmed).then_some(Probe { rate, confirms: true });
        if let Some((again, _)) = self.again.filter(|_| !is_late) {
            return Some(again);
        }
        match (self.low(), self.missed) {
            (Some(low), _) if is_late => confirm(low),
            _ if is_late => None,
            (None, None) => probe(self.first),
            (None, Some((high, _))) if high <= RATES[0] => None,
            (None, Some((high, _))) => probe(high * FALL),
            (Some(low), None) if low >= RATES[1] => confirm(low),
            (Some(low), None) => probe(low * GROWTH),
            (Some(low), Some((high, _))) => {
                let middle = round((low * high).sqrt());
                let is_between = low < middle && middle < high;
                if high / low > RATIO_MIN && is_between { probe(middle) } else { confirm(low) }
            }
        }
    }

    /// Ends the search early. A rate whose confirmation missed once is not met.
    pub fn finish(&mut self) {
        if let Some((probe, limit)) = self.again.take().filter(|(probe, _)| probe.confirms) {
            self.miss(probe.rate, limit);
        }
    }

    fn miss(&mut self, rate: f64, limit: Limit) {
        self.missed = Some((rate, limit));
        self.met.retain(|met| *met < rate);
        self.is_confirmed = false;
    }

    /// Takes the result of a probe: `None` if the rate was met.
    pub fn take(&mut self, probe: Probe, missed: Option<Limit>) {
        let is_first = self.again.take().is_none_or(|(again, _)| again != probe);
        match missed {
            Some(limit) if is_first => self.again = Some((probe, limit)),
            Some(limit) => self.miss(probe.rate, limit),
            None if probe.confirms => self.is_confirmed = true,
            None => {
                self.met.push(probe.rate);
                self.is_confirmed = false;
            }
        }
    }
}

/// Rounds a rate to three digits, within the limits.
fn round(rate: f64) -> f64 {
    let rate = rate.clamp(RATES[0], RATES[1]);
    let unit = 10_f64.powf(rate.log10().floor() - 2.0);
    let rounded = (rate / unit).round() * unit;
    // Without the error of a unit such as 0.01.
    (rounded * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches with `judge` as the server. Returns the bounds and the number of probes.
    fn search(first: f64, mut judge: impl FnMut(Probe) -> Option<Limit>) -> (Bounds, usize) {
        let mut bounds = Bounds::new(first);
        let mut probes = 0;
        while let Some(probe) = bounds.next(false) {
            probes += 1;
            assert!(probes < 200, "{bounds:?}");
            bounds.take(probe, judge(probe));
        }
        (bounds, probes)
    }

    proptest! {
        #[test]
        fn the_limit_of_a_server_lies_between_the_bounds(
            limit in (0.3_f64..6.9).prop_map(|power| 10_f64.powf(power)),
            factor in 0.2_f64..4.0,
            is_ours: bool,
        ) {
            let reason = if is_ours { Limit::Ringload } else { Limit::Slo };
            let judge = |probe: Probe| (probe.rate > limit).then_some(reason);
            let (bounds, probes) = search(limit * factor, judge);
            let (low, (high, seen)) = (bounds.low().unwrap(), bounds.high().unwrap());
            prop_assert!(low <= limit && limit < high, "{bounds:?}");
            prop_assert!(high / low < 1.05, "{bounds:?}");
            prop_assert_eq!(seen, reason);
            prop_assert!(probes <= 20, "{} probes", probes);
        }

        /// A server whose answers are noise ends the search, too, with ordered bounds.
        #[test]
        fn noise_ends(answers in prop::collection::vec(any::<bool>(), 1..60)) {
            let mut bounds = Bounds::new(1_000.0);
            for is_met in answers {
                let Some(probe) = bounds.next(false) else { break };
                bounds.take(probe, (!is_met).then_some(Limit::Slo));
                let (low, high) = (bounds.low(), bounds.high().map(|(rate, _)| rate));
                prop_assert!(low.is_none() || high.is_none() || low < high, "{bounds:?}");
                prop_assert!(bounds.met.is_sorted());
            }
        }
    }

    #[test]
    fn a_rate_that_is_not_confirmed_is_given_up() {
        // The first confirmation fails; below 800 it does not.
        let judge = |probe: Probe| {
            let limit = if probe.confirms { 800.0 } else { 1_000.0 };
            (probe.rate > limit).then_some(Limit::Slo)
        };
        let (bounds, _) = search(900.0, judge);
        assert!(bounds.low().is_some_and(|low| low <= 800.0), "{bounds:?}");
    }

    #[test]
    fn one_disturbance_does_not_limit_a_rate() {
        for disturbed in 0..8 {
            let mut count = 0;
            let judge = |probe: Probe| {
                count += 1;
                (probe.rate > 1_000.0 || count == disturbed + 1).then_some(Limit::Slo)
            };
            let (bounds, _) = search(700.0, judge);
            assert!(bounds.low().is_some_and(|low| low > 950.0), "{disturbed}: {bounds:?}");
        }
    }

    #[test]
    fn nothing_is_found_where_no_rate_is_met_and_everything_where_each_is() {
        let (bounds, _) = search(1_000.0, |_| Some(Limit::Slo));
        assert_eq!((bounds.low(), bounds.high()), (None, Some((1.0, Limit::Slo))));
        let (bounds, _) = search(1_000.0, |_| None);
        assert_eq!((bounds.low(), bounds.high()), (Some(10e6), None));
    }

    #[test]
    fn late_there_is_only_a_confirmation() {
        let mut bounds = Bounds::new(1_234.0);
        assert_eq!(bounds.next(true), None);
        let probe = bounds.next(false).expect("a probe");
        assert_eq!(probe, Probe { rate: 1_230.0, confirms: false });
        bounds.take(probe, None);
        let confirmation = bounds.next(true).expect("a confirmation");
        assert_eq!(confirmation, Probe { rate: 1_230.0, confirms: true });
        bounds.take(confirmation, None);
        assert_eq!(bounds.next(true), None);
        bounds.finish();
        assert_eq!(bounds.low(), Some(1_230.0));
        // Without time for a second one, a confirmation that missed counts.
        bounds.take(Probe { rate: 1_500.0, confirms: false }, None);
        bounds.take(Probe { rate: 1_500.0, confirms: true }, Some(Limit::Ringload));
        bounds.finish();
        let high = Some((1_500.0, Limit::Ringload));
        assert_eq!((bounds.low(), bounds.high()), (Some(1_230.0), high));
    }
}
