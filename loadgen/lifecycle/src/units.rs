//! Parsing and formatting of durations, counts, rates, sizes and untrusted text.

use serde::{Serialize, Serializer};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Nanoseconds per unit of time.
const TIMES: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Multipliers of a count.
const COUNTS: [(&str, u64); 5] =
    [("", 1), ("k", 1_000), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

/// Bytes per unit of size.
const SIZES: [(&str, u64); 5] =
    [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Nanoseconds of the units after the slash of a rate.
const RATES: [(&str, u64); 3] = [("s", SECOND_NS), ("m", 60 * SECOND_NS), ("h", 3_600 * SECOND_NS)];
/// Maximum number of digits behind the point of a number. Nine resolve a nanosecond of a second,
/// and 10^9 fits in a u64.
const FRACTION_DIGITS_MAX: usize = 9;
const SECOND_NS: u64 = 1_000_000_000;

/// A number of events per time, exact also below one per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u64,
    per_ns: u64,
}

impl Rate {
    fn reduced(count: u64, per_ns: u64) -> Self {
        let (mut a, mut b) = (count, per_ns);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        Self { count: count / a, per_ns: per_ns / a }
    }

    /// Returns the time of event number `place`, counted from 0, in nanoseconds since the first.
    #[inline]
    #[must_use]
    pub fn due_ns(self, place: u64) -> u64 {
        let due_ns = u128::from(place) * u128::from(self.per_ns) / u128::from(self.count);
        u64::try_from(due_ns).unwrap_or(u64::MAX)
    }

    /// Returns the mean time between two events.
    #[must_use]
    pub fn mean_ns(self) -> f64 {
        self.per_ns as f64 / self.count as f64
    }

    /// Returns the number of events per second.
    #[must_use]
    pub fn per_s(self) -> f64 {
        self.count as f64 / (self.per_ns as f64 / SECOND_NS as f64)
    }

    /// Returns the number of events per second if it is whole.
    fn whole_per_s(self) -> Option<u64> {
        let count = u128::from(self.count) * u128::from(SECOND_NS);
        let per_ns = u128::from(self.per_ns);
        count.is_multiple_of(per_ns).then(|| u64::try_from(count / per_ns).ok())?
    }
}

impl From<u64> for Rate {
    /// Creates a rate per second.
    ///
    /// # Panics
    /// Panics if the rate is zero.
    fn from(per_s: u64) -> Self {
        assert!(per_s > 0, "a rate is not zero");
        Self::reduced(per_s, SECOND_NS)
    }
}

impl FromStr for Rate {
    type Err = String;

    /// Parses `500`, `10k`, `0.2`, `30/m`, `1.5k/h`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || String::from("expected a rate such as 500, 10k, 0.2 or 30/m");
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let unit_ns = RATES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        let digits = number.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, suffix) = number.split_at(digits.unwrap_or(number.len()));
        let scale = COUNTS.iter().find(|(name, _)| *name == suffix).ok_or_else(wrong)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
            return Err(wrong());
        }
        let one = 10_u64.pow(fraction.len() as u32);
        let count = whole.parse::<u64>().ok().and_then(|whole| {
            let parts = whole.checked_mul(one)?.checked_add(fraction.parse().ok()?)?;
            parts.checked_mul(scale)
        });
        match count.zip(unit_ns.checked_mul(one)) {
            Some((0, _)) => Err(format!("must not be zero; {}", wrong())),
            Some((count, per_ns)) => Ok(Self::reduced(count, per_ns)),
            None => Err(format!("too large; {}", wrong())),
        }
    }
}

impl fmt::Display for Rate {
    /// Events per second.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.whole_per_s() {
            Some(count) => out.write_str(&show_count(count)),
            None => write!(out, "{}", self.per_s()),
        }
    }
}

impl Serialize for Rate {
    /// A number of events per second: an integer if it is whole.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.whole_per_s() {
            Some(count) => serializer.serialize_u64(count),
            None => serializer.serialize_f64(self.per_s()),
        }
    }
}

/// Parses `100ms`, `5s`, `1.5s`, `2m`.
///
/// # Errors
/// Names the mistake, with an example.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    scaled(text, &TIMES, "a duration such as 100ms, 5s or 2m").map(Duration::from_nanos)
}

/// Parses `500`, `10k`, `1.5M`.
///
/// # Errors
/// Names the mistake, with an example.
pub fn parse_count(text: &str) -> Result<u64, String> {
    scaled(text, &COUNTS, "a count such as 500, 10k or 1M")
}

/// Parses `64`, `64B`, `64KiB`, `1MiB`.
///
/// # Errors
/// Names the mistake, with an example.
pub fn parse_size(text: &str) -> Result<u64, String> {
    scaled(text, &SIZES, "a size such as 64, 64KiB or 1MiB")
}

/// Parses a decimal number with one of `units` into a positive integer of the smallest unit.
fn scaled(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, String> {
    let wrong = || format!("expected {what}");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_long = fraction.len() > FRACTION_DIGITS_MAX;
    if whole.is_empty() || fraction.is_empty() || is_long || fraction.contains('.') {
        return Err(wrong());
    }
    let too_large = || format!("too large; expected {what}");
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let parts = u128::from(fraction.parse::<u64>().map_err(|_| wrong())?) * u128::from(scale);
    let one = 10_u128.pow(fraction.len() as u32);
    if parts % one != 0 {
        return Err(format!("too precise; expected {what}"));
    }
    let value = whole
        .checked_mul(scale)
        .and_then(|value| value.checked_add((parts / one) as u64))
        .ok_or_else(too_large)?;
    if value == 0 {
        return Err(format!("must not be zero; expected {what}"));
    }
    Ok(value)
}

/// Formats a time with three significant digits: `850 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
#[must_use]
pub fn show_time(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    // The bounds are where three digits round up to the next unit.
    let (value, unit) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..999_500 => (value / 1e3, "µs"),
        999_500..999_500_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    format!("{} {unit}", three_figures(value))
}

/// Formats a size in decimal units, as is usual for network rates: `512 B`, `12.3 kB`, `4.56 MB`.
#[must_use]
pub fn show_bytes(bytes: f64) -> String {
    let (value, unit) = match bytes {
        ..1e3 => return format!("{bytes:.0} B"),
        ..999.5e3 => (bytes / 1e3, "kB"),
        ..999.5e6 => (bytes / 1e6, "MB"),
        ..999.5e9 => (bytes / 1e9, "GB"),
        _ => (bytes / 1e12, "TB"),
    };
    format!("{} {unit}", three_figures(value))
}

/// Formats a digest like sha256sum(1): `00ff41`.
#[must_use]
pub fn show_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes untrusted text safe for a terminal: control characters are shown as `\n`, `\u{1b}`.
#[must_use]
pub fn show_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => shown.extend(letter.escape_default()),
            false => shown.push(letter),
        }
    }
    shown
}

/// As [`show_text`], for a path; bytes that are not UTF-8 are replaced.
#[must_use]
pub fn show_path(path: &Path) -> String {
    show_text(&path.to_string_lossy())
}

/// Formats a count with separators: `1,234,567`.
#[must_use]
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn three_figures(value: f64) -> String {
    match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Formats a time in microseconds.
#[must_use]
pub fn show_us(us: f64) -> String {
    show_time((us * 1e3).round().max(0.0) as u64)
}

/// Returns `1 thread` or `2 threads`.
#[must_use]
pub fn plural(count: u64, what: &str) -> String {
    format!("{} {what}{}", show_count(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_counts_and_sizes_are_read() {
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_count("500"), Ok(500));
        assert_eq!(parse_count("10k"), Ok(10_000));
        assert_eq!(parse_count("1.5M"), Ok(1_500_000));
        assert_eq!(parse_size("64"), Ok(64));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
    }

    #[test]
    fn what_is_no_number_of_a_unit_is_refused_with_an_example() {
        for text in ["", "s", "5", "5 s", "-5s", "1.s", ".5s", "1.2.3s", "5parsecs", "0s", "0.0s"] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains("100ms"), "{text}: {error}");
        }
        for text in ["", "k", "1kk", "1.0001k", "0", "99999999999999999999", "99999999999G"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
        for text in ["64KB", "64kib", "1.5B", "0KiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_exact_and_may_be_below_one_per_second() {
        for (text, tenth_ns, shown, json) in [
            ("500", 20_000_000, "500", "500"),
            ("10k", 1_000_000, "10,000", "10000"),
            ("1.5k", 6_666_666, "1,500", "1500"),
            ("0.2", 50_000_000_000, "0.2", "0.2"),
            ("0.000000001", 10_000_000_000_000_000_000, "0.000000001", "1e-9"),
            ("30/m", 20_000_000_000, "0.5", "0.5"),
            ("120/m", 5_000_000_000, "2", "2"),
            ("7200/h", 5_000_000_000, "2", "2"),
            ("1/s", 10_000_000_000, "1", "1"),
        ] {
            let rate: Rate = text.parse().expect(text);
            assert_eq!(rate.due_ns(10), tenth_ns, "{text}");
            assert_eq!(rate.to_string(), shown, "{text}");
            assert_eq!(serde_json::to_string(&rate).expect("a number"), json, "{text}");
        }
        assert_eq!("2".parse::<Rate>(), Ok(2.into()));
        for text in
            ["", "0", "0.0", "k", "-1", "1.", ".5", "1/", "1/d", "1/ms", "/m", "1.2.3", "5x"]
        {
            let error = text.parse::<Rate>().expect_err(text);
            assert!(error.contains("30/m"), "{text}: {error}");
        }
        for text in ["99999999999999999999", "99999999999G", "0.0000000001"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn figures_are_shown_with_three_digits() {
        assert_eq!(show_time(850), "850 ns");
        assert_eq!(show_time(12_345), "12.3 µs");
        assert_eq!(show_time(999_499), "999 µs");
        assert_eq!(show_time(999_500), "1.00 ms");
        assert_eq!(show_time(1_200_000_000), "1.20 s");
        assert_eq!(show_bytes(512.0), "512 B");
        assert_eq!(show_bytes(12_345.0), "12.3 kB");
        assert_eq!(show_bytes(4.56e9), "4.56 GB");
        assert_eq!(show_hex(&[0, 255, 0x41]), "00ff41");
        assert_eq!(show_text("nl\nx \u{1b}[2J\u{9b} \\é"), r"nl\nx \u{1b}[2J\u{9b} \é");
        assert_eq!(show_count(7), "7");
        assert_eq!(show_count(123), "123");
        assert_eq!(show_count(1_234_567), "1,234,567");
    }
}
