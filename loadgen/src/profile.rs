//! Rates that change over time: stages, each with a rate that rises or falls evenly.

use ringload_lifecycle::units::{Rate, parse_duration};
use serde::{Serialize, Serializer};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::str::FromStr;
use std::time::Duration;

/// Maximum number of stages that the first line of a run names.
const STAGES_SHOWN_MAX: usize = 4;
/// Maximum number of stages.
const STAGES_MAX: usize = 1_000;
/// Maximum size of a file of stages, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Maximum length of all stages.
const LENGTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A rate, or two between which it changes: `20k`, `1k:20k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// The rate at the beginning.
    pub from: Rate,
    /// The rate at the end.
    pub to: Rate,
}

impl Ramp {
    /// Returns true if the rate does not change.
    #[must_use]
    pub fn is_constant(self) -> bool {
        self.from == self.to
    }
}

impl From<Rate> for Ramp {
    fn from(rate: Rate) -> Self {
        Self { from: rate, to: rate }
    }
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => text.parse::<Rate>().map(Self::from),
            Some((from, to)) => Ok(Self { from: from.parse()?, to: to.parse()? }),
        }
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_constant() {
            true => write!(out, "{}", self.from),
            false => write!(out, "{} to {}", self.from, self.to),
        }
    }
}

/// Rates in turn, each for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stages(Vec<(Duration, Ramp)>);

impl Stages {
    /// Creates one stage.
    #[must_use]
    pub fn one(length: Duration, ramp: Ramp) -> Self {
        Self(vec![(length, ramp)])
    }

    /// Returns the length of all stages.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.0.iter().map(|(length, _)| *length).sum()
    }

    /// Returns the highest rate, per second.
    #[must_use]
    pub fn rate_max(&self) -> f64 {
        let rates = self.0.iter().flat_map(|(_, ramp)| [ramp.from, ramp.to]);
        rates.map(Rate::per_s).fold(0.0, f64::max)
    }

    /// Reads a file with one `TIME RATE` or `TIME FROM:TO` per line. Empty lines and lines that
    /// begin with `#` are skipped.
    ///
    /// # Errors
    /// Names the line and the mistake.
    pub fn read(path: &str) -> Result<Self, String> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| format!("cannot read {path}: {error}"))?;
        let lines = (1..).zip(text.lines().map(str::trim));
        let stages = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| stage(line).map_err(|wrong| format!("line {number}: {wrong}")))
            .collect::<Result<Vec<_>, _>>()?;
        let stages = Self(stages);
        match stages.0.len() {
            0 => Err("the file has no stages".into()),
            1..=STAGES_MAX if stages.length() <= LENGTH_MAX => Ok(stages),
            _ => Err(format!("the file must have at most {STAGES_MAX} stages, of 24h in all")),
        }
    }
}

fn stage(line: &str) -> Result<(Duration, Ramp), String> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(length), Some(ramp), None) => Ok((parse_duration(length)?, ramp.parse()?)),
        _ => Err("expected TIME RATE or TIME FROM:TO, such as 30s 1k:20k".into()),
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (length, ramp)) in self.0.iter().enumerate() {
            let then = if place == 0 { "" } else { ", then " };
            match place {
                STAGES_SHOWN_MAX => return write!(out, ", …"),
                _ => write!(out, "{then}{ramp} for {length:?}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Stages {
    /// A list of `length_s`, `from` and `to`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Stage {
            length_s: f64,
            from: Rate,
            to: Rate,
        }
        serializer.collect_seq(self.0.iter().map(|(length, ramp)| Stage {
            length_s: length.as_secs_f64(),
            from: ramp.from,
            to: ramp.to,
        }))
    }
}

/// The number of events up to each time, and its inverse. Numbers of events are not whole: between
/// two events lies a part of the next one.
#[derive(Clone, Debug)]
pub struct Profile(Vec<Segment>);

#[derive(Clone, Copy, Debug)]
struct Segment {
    begin_ns: f64,
    length_ns: f64,
    /// Events before it.
    before: f64,
    /// Events per nanosecond at its beginning, and what they grow by per nanosecond.
    from: f64,
    slope: f64,
}

impl Profile {
    /// Creates the profile of `stages`.
    #[must_use]
    pub fn new(stages: &Stages) -> Self {
        let (mut begin_ns, mut before) = (0.0, 0.0);
        let segment = |(length, ramp): &(Duration, Ramp)| {
            let length_ns = length.as_nanos() as f64;
            let (from, to) = (1.0 / ramp.from.mean_ns(), 1.0 / ramp.to.mean_ns());
            let slope = (to - from) / length_ns;
            let segment = Segment { begin_ns, length_ns, before, from, slope };
            begin_ns += length_ns;
            before += segment.count(length_ns);
            segment
        };
        Self(stages.0.iter().map(segment).collect())
    }

    /// Returns the number of events before a time.
    #[must_use]
    pub fn count(&self, at_ns: u64) -> f64 {
        let at_ns = at_ns as f64;
        let after = self.0.partition_point(|segment| segment.begin_ns <= at_ns);
        let segment = self.0[after.max(1) - 1];
        segment.before + segment.count((at_ns - segment.begin_ns).min(segment.length_ns))
    }

    /// Returns the time at which `count` events have been; `u64::MAX` if there are fewer.
    #[must_use]
    pub fn time_ns(&self, count: f64) -> u64 {
        let after = self.0.partition_point(|segment| segment.before <= count);
        let segment = self.0[after.max(1) - 1];
        let left = count - segment.before;
        if left >= segment.count(segment.length_ns) {
            return u64::MAX;
        }
        // Solves left = from * t + slope / 2 * t², in a form that is exact for a slope of 0, too.
        let root = (segment.from * segment.from + 2.0 * segment.slope * left).max(0.0).sqrt();
        (segment.begin_ns + 2.0 * left / (segment.from + root)) as u64
    }
}

impl Segment {
    /// Returns the number of events in the time since its beginning.
    fn count(&self, since_ns: f64) -> f64 {
        (self.from + self.slope / 2.0 * since_ns) * since_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn stages(of: &[(u64, &str)]) -> Stages {
        let stage = |(seconds, ramp): &(u64, &str)| {
            (Duration::from_secs(*seconds), ramp.parse().expect("a ramp"))
        };
        Stages(of.iter().map(stage).collect())
    }

    #[test]
    fn the_rate_rises_holds_and_falls() {
        let profile = Profile::new(&stages(&[(10, "100:300"), (5, "300"), (10, "300:100")]));
        for (seconds, count) in [
            (0, 0.0),
            (5, 750.0),
            (10, 2_000.0),
            (12, 2_600.0),
            (15, 3_500.0),
            (20, 4_750.0),
            (25, 5_500.0),
            (99, 5_500.0),
        ] {
            let seen = profile.count(seconds * SECOND_NS);
            assert!((seen - count).abs() < 1e-6, "{seconds}: {seen}");
            let at_ns = profile.time_ns(count);
            match seconds {
                25.. => assert_eq!(at_ns, u64::MAX),
                _ => assert!(at_ns.abs_diff(seconds * SECOND_NS) < 1_000, "{seconds}: {at_ns}"),
            }
        }
    }

    proptest! {
        #[test]
        fn times_are_the_inverse_of_counts(
            rates in prop::collection::vec((1_u64..20, 1_u64..100_000, 1_u64..100_000), 1..5),
            share in 0.0_f64..1.0,
        ) {
            let of = rates.iter().map(|(s, from, to)| (*s, format!("{from}:{to}")));
            let of: Vec<_> = of.collect();
            let stages = stages(&of.iter().map(|(s, ramp)| (*s, &**ramp)).collect::<Vec<_>>());
            let profile = Profile::new(&stages);
            let end_ns = stages.length().as_nanos() as u64;
            let count = profile.count(end_ns) * share;
            let at_ns = profile.time_ns(count);
            prop_assert!(at_ns < end_ns);
            prop_assert!((profile.count(at_ns) - count).abs() < 0.01, "{count} {at_ns}");
            prop_assert!(profile.time_ns(count + 0.5) >= at_ns);
        }
    }

    #[test]
    fn files_of_stages_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stages");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            Stages::read(path.to_str().expect("UTF-8"))
        };
        let seen = read("# warm up\n10s 100:300\n\n  5s\t300 \n10s 300:100\n").expect("stages");
        assert_eq!(seen, stages(&[(10, "100:300"), (5, "300"), (10, "300:100")]));
        assert_eq!((seen.length().as_secs(), seen.rate_max()), (25, 300.0));
        for (text, says) in [
            ("", "no stages"),
            ("10s", "line 1: expected TIME RATE"),
            ("1s 5\n10s 5 6", "line 2: expected TIME RATE"),
            ("10 5", "line 1: expected a duration"),
            ("10s 0", "must not be zero"),
            ("10s 5:", "expected a rate"),
            ("13h 5\n13h 5", "24h in all"),
            (&"1s 5\n".repeat(STAGES_MAX + 1), "at most 1000 stages"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(Stages::read("/missing").expect_err("none").contains("cannot read /missing"));
    }
}
