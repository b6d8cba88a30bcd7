//! Parsing and formatting of durations, counts, sizes and untrusted text.

use std::path::Path;
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
    // Nine digits resolve a nanosecond of a second, and 10^9 fits in a u64.
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
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
