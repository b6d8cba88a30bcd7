//! Durations, counts, sizes and probabilities on the command line.

use crate::echo::fate::Probability;
use std::time::Duration;

/// Parses a duration above zero: `500us`, `100ms`, `5s`, `2m`, `1h`. Decimals are allowed (`1.5s`).
///
/// # Errors
/// The format that is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let expected = "expected a duration such as 100ms, 5s or 2m";
    let seconds = scaled(text, &units).ok_or(expected)?;
    if seconds <= 0.0 {
        return Err("expected a duration longer than zero".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| expected.into())
}

/// Parses a duration that may be zero.
///
/// # Errors
/// The format that is expected.
pub fn delay(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        _ => duration(text).map_err(|error| format!("{error}, or 0s")),
    }
}

/// Parses a duration, or `never`.
///
/// # Errors
/// The format that is expected.
pub fn timeout(text: &str) -> Result<Timeout, String> {
    match text {
        "never" => Ok(Timeout(None)),
        _ => duration(text)
            .map(|duration| Timeout(Some(duration)))
            .map_err(|error| format!("{error}, or never")),
    }
}

/// A time limit; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(pub Option<Duration>);

/// Parses a whole number of at least 1: `500`, `10k`, `1M`, `1G`.
///
/// # Errors
/// The format that is expected.
pub fn count(text: &str) -> Result<usize, String> {
    whole(text, &[("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)])
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| "expected a whole number from 1, such as 500, 10k or 1M".into())
}

/// Parses a size of at least 1 byte, and returns bytes: `4096`, `64KiB`, `1MiB`, `16GiB`, `64kB`.
///
/// # Errors
/// The format that is expected.
pub fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1.0),
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("KiB", 1024.0),
        ("MiB", 1024.0 * 1024.0),
        ("GiB", 1024.0 * 1024.0 * 1024.0),
        ("TiB", 1024.0 * 1024.0 * 1024.0 * 1024.0),
    ];
    whole(text, &units)
        .ok_or_else(|| "expected a size of at least 1 byte, such as 4096, 64KiB or 1MiB".into())
}

/// Parses a probability from 0 to 1: `0.01` or `1%`.
///
/// # Errors
/// The format that is expected.
pub fn probability(text: &str) -> Result<Probability, String> {
    scaled(text, &[("", 1.0), ("%", 0.01)])
        .and_then(Probability::new)
        .ok_or_else(|| "expected a probability from 0 to 1, such as 0.01 or 1%".into())
}

fn whole(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let value = scaled(text, units)?;
    // An f64 does not hold every whole number above 2^53, which is about 9e15.
    ((1.0..=9e15).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("100ms", 100), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("1.5s", 1_500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "s", "-5s", "0s", "5 s", "5S", "1.2.3s", "1e3s", "1e999s", "NaNs"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        let eternity = format!("{}h", "9".repeat(300));
        assert!(duration(&eternity).is_err());
        assert_eq!(timeout("never"), Ok(Timeout(None)));
        assert_eq!(timeout("5s"), Ok(Timeout(Some(Duration::from_secs(5)))));
        assert!(timeout("0s").unwrap_err().contains("never"));
    }

    #[test]
    fn probabilities() {
        for (text, value) in [("0", 0.0), ("0.01", 0.01), ("1", 1.0), ("1%", 0.01), ("100%", 1.0)] {
            assert_eq!(probability(text), Ok(Probability::new(value).unwrap()), "{text}");
        }
        for bad in ["", "%", "-1", "1.1", "101%", "5 %", "1e-3", "NaN", "inf"] {
            assert!(probability(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn counts() {
        for (text, value) in [("1", 1), ("10k", 10_000), ("1M", 1_000_000), ("1.5k", 1_500)] {
            assert_eq!(count(text), Ok(value), "{text}");
        }
        for bad in ["", "0", "-1", "k", "1K", "1.5", "10kB", "99999999999999999999"] {
            assert!(count(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, value) in [
            ("4096", 4096),
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("64kB", 64_000),
            ("1GiB", 1 << 30),
            ("16GiB", 1 << 34),
            ("1.5TiB", 3 << 39),
        ] {
            assert_eq!(size(text), Ok(value), "{text}");
        }
        for bad in ["", "0", "KiB", "1kib", "1k", "0.3KiB", "8192TiB"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }
}
