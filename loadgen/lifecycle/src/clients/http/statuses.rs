//! Sets of status codes.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

/// A list of status codes and classes: `200,304` or `2xx,404`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Arc<[RangeInclusive<u16>]>);

impl Statuses {
    /// Returns true if the list contains a status.
    #[must_use]
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|part| range(part.trim())).collect::<Option<_>>().map(Self).ok_or_else(
            || "expected statuses from 100 to 599 such as 200,304 or 2xx, with commas".into(),
        )
    }
}

/// The codes of `404` or `4xx`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, class) = match text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        Some(digit) => (digit.parse::<u16>().ok().filter(|_| digit.len() == 1)? * 100, true),
        None => (text.parse().ok().filter(|_| text.len() == 3)?, false),
    };
    (100..600).contains(&first).then(|| first..=if class { first + 99 } else { first })
}

impl fmt::Display for Statuses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, range) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match range.start() == range.end() {
                true => write!(out, "{comma}{}", range.start())?,
                false => write!(out, "{comma}{}xx", range.start() / 100)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_codes_and_classes() {
        let statuses: Statuses = "304, 2XX,404".parse().expect("a list");
        assert_eq!(statuses.to_string(), "304,2xx,404");
        let contained = (100..=599).filter(|status| statuses.contain(*status));
        assert!(contained.eq((200..=299).chain([304, 404])));
        for text in ["", "2", "2x", "2xxx", "20x", "0xx", "6xx", "99", "600", "200,", "ok", "+20"] {
            assert!(text.parse::<Statuses>().is_err(), "{text:?}");
        }
    }
}
