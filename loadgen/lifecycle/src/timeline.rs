//! Histograms of the stretches of a run, compressed and kept, for an HdrHistogram log.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use std::time::Duration;

/// Bytes of all histograms kept: some hours of a run with one line per second.
const BYTES_MAX: usize = 32 << 20;

/// The histogram of one stretch of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The measured time: `latency`, `service`, `connect`, `lag`.
    pub tag: &'static str,
    /// Begin, since the start of the run.
    pub start: Duration,
    /// Duration.
    pub length: Duration,
    /// The largest value in it, nanoseconds.
    pub max_ns: u64,
    /// The histogram of nanoseconds: V2, deflated.
    pub histogram: Vec<u8>,
}

/// The histograms of a run's stretches, in the order of their ends.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    stretches: Vec<Stretch>,
    bytes: usize,
    is_cut: bool,
}

impl Timeline {
    /// Keeps what `times`, a histogram of nanoseconds, counted under `tag` in a stretch of `length`
    /// from `start` on. An empty one is not kept, and nothing is any more when 32 MiB are.
    pub fn keep(
        &mut self,
        tag: &'static str,
        start: Duration,
        length: Duration,
        times: &Histogram<u64>,
    ) {
        if times.is_empty() || self.is_cut {
            return;
        }
        let histogram = deflated(times);
        if self.bytes + histogram.len() > BYTES_MAX {
            self.is_cut = true;
            return;
        }
        self.bytes += histogram.len();
        let max_ns = times.max();
        self.stretches.push(Stretch { tag, start, length, max_ns, histogram });
    }

    /// Returns the stretches in their order.
    #[must_use]
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// Not everything was kept: it would have been more than 32 MiB.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

/// The histogram in the form that HdrHistogram logs and other programs read: V2, deflated.
///
/// # Panics
/// Never: the bounds of our histograms are constants that the format has room for.
#[must_use]
pub fn deflated(times: &Histogram<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(times, &mut bytes)
        .expect("an hour in nanoseconds fits into the format, and a Vec takes everything");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::histogram;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn what_was_kept_is_read_back() {
        let mut timeline = Timeline::default();
        let second = Duration::from_secs(1);
        let mut times = histogram();
        timeline.keep("latency", Duration::ZERO, second, &times);
        assert!(timeline.stretches().is_empty(), "nothing was measured");
        (1..1_000).for_each(|time| times.saturating_record(time * 1_000));
        timeline.keep("latency", second, second, &times);
        let [stretch] = timeline.stretches() else { panic!("{timeline:?}") };
        assert_eq!((stretch.tag, stretch.start, stretch.length), ("latency", second, second));
        assert_eq!(stretch.max_ns, times.max());
        let read: Histogram<u64> =
            Deserializer::new().deserialize(&mut &stretch.histogram[..]).expect("a histogram");
        assert_eq!(read, times);
        assert!(!timeline.is_cut());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut times = histogram();
        // Nothing in common between neighbours: it does not compress.
        (0..60_u64).for_each(|at| times.saturating_record_n(100 << (at % 32), at * at + 1));
        let bytes = BYTES_MAX - deflated(&times).len();
        let mut timeline = Timeline { bytes, ..Timeline::default() };
        for _ in 0..3 {
            timeline.keep("lag", Duration::ZERO, Duration::ZERO, &times);
        }
        assert_eq!((timeline.stretches().len(), timeline.is_cut()), (1, true));
    }
}
