//! Parsing of command-line values.

use std::time::Duration;

/// Parses a duration: `100ms`, `5s`, `2m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => {
            return Err(format!(
                "`{text}`: expected a number with the unit ms, s or m, such as 100ms or 5s"
            ));
        }
    };
    let number: u64 = number.parse().map_err(|error| format!("`{text}`: {error}"))?;
    match number.checked_mul(unit_ms) {
        Some(ms @ 1..=DURATION_MS_MAX) => Ok(Duration::from_millis(ms)),
        _ => Err(format!("`{text}`: must be between 1ms and 60m")),
    }
}

const DURATION_MS_MAX: u64 = 60 * 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_bound() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("60m"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "5", "s", "0s", "61m", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
