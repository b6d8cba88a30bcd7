//! The conditions of `--fail-if`: a figure of the report, a comparison and a limit.

mod figure;
mod names;

use figure::{Figure, Unit};
use ringload_lifecycle::report::Outcome;
use serde_json::{Value, json};
use std::fmt;
use std::str::FromStr;

/// A condition under which a run fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    text: String,
    figure: Figure,
    comparison: Comparison,
    /// The limit in the unit that the report uses for the figure.
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Equal,
    Different,
}

/// The longer signs come first, because `<` is a prefix of `<=`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::MoreOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::Different),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

/// Units of a limit: name, quantity, and factor to the base unit of that quantity.
const UNITS: [(&str, Measure, f64); 14] = [
    ("ns", Measure::Time, 1e-9),
    ("us", Measure::Time, 1e-6),
    ("µs", Measure::Time, 1e-6),
    ("ms", Measure::Time, 1e-3),
    ("s", Measure::Time, 1.0),
    ("k", Measure::Number, 1e3),
    ("M", Measure::Number, 1e6),
    ("G", Measure::Number, 1e9),
    ("B", Measure::Bytes, 1.0),
    ("KiB", Measure::Bytes, 1024.0),
    ("MiB", Measure::Bytes, 1_048_576.0),
    ("GiB", Measure::Bytes, 1_073_741_824.0),
    ("%", Measure::Share, 0.01),
    ("", Measure::Number, 1.0),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Time,
    Number,
    Bytes,
    Share,
}

/// The result of an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The figure, or `None` if the report does not have it.
    pub value: Option<f64>,
    /// The condition is true, or the figure is missing: the run fails.
    pub failed: bool,
    /// The figure as text, or the reason why it is missing.
    pub shown: String,
}

impl Expression {
    /// Evaluates the condition for a report. A missing figure fails the run too, because the
    /// condition cannot be checked. A run without any connection has no figures but errors.
    #[must_use]
    pub fn judge(&self, report: &Value) -> Judgement {
        if report["outcome"] == json!(Outcome::Unreachable) && !self.figure.is_of_errors() {
            let why = "no connection could be established".into();
            return Judgement { value: None, failed: true, shown: why };
        }
        match self.figure.value(report) {
            Err(why) => Judgement { value: None, failed: true, shown: why },
            Ok(value) => {
                let failed = self.comparison.holds(value, self.limit);
                Judgement { value: Some(value), failed, shown: self.show(value) }
            }
        }
    }

    /// Formats a value of the figure.
    #[must_use]
    pub fn show(&self, value: f64) -> String {
        self.figure.unit().show(value)
    }
}

impl Comparison {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Less => value < limit,
            Self::LessOrEqual => value <= limit,
            Self::More => value > limit,
            Self::MoreOrEqual => value >= limit,
            // Exact: counts are integers, and JSON preserves the value of a number.
            Self::Equal => value.total_cmp(&limit).is_eq(),
            Self::Different => value.total_cmp(&limit).is_ne(),
        }
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || {
            "expected FIGURE COMPARISON VALUE, such as 'p99>5ms', 'errors.reset>0' or \
                        'replies_per_s<10k'; the comparisons are < <= > >= == !="
        };
        let at = text.find(['<', '>', '=', '!']).ok_or_else(shape)?;
        let (name, rest) = text.split_at(at);
        let comparison = COMPARISONS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (sign, comparison) = comparison.ok_or_else(shape)?;
        let limit = rest[sign.len()..].trim();
        let figure = Figure::parse(name.trim())?;
        let limit = read_limit(limit, figure.unit()).map_err(|why| format!("'{limit}': {why}"))?;
        Ok(Self { text: text.trim().into(), figure, comparison: *comparison, limit })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// Parses a number with a unit and converts it to the unit of the figure.
fn read_limit(text: &str, of: Unit) -> Result<f64, String> {
    let wrong = || format!("expected a number{}", of.example());
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim();
    let (_, measure, scale) = UNITS.iter().find(|(name, ..)| *name == unit).ok_or_else(wrong)?;
    let fits = match of {
        Unit::Seconds(_) => *measure == Measure::Time,
        // A plain count of bytes is accepted too, such as 10k.
        Unit::Bytes => matches!(measure, Measure::Bytes | Measure::Number),
        Unit::Number | Unit::Share => matches!(measure, Measure::Number | Measure::Share),
    };
    if !fits {
        return Err(wrong());
    }
    Ok(match of {
        Unit::Seconds(one) => number * scale / one,
        _ => number * scale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(text: &str, report: &Value) -> Judgement {
        text.parse::<Expression>().unwrap_or_else(|why| panic!("{text}: {why}")).judge(report)
    }

    #[test]
    fn a_limit_is_compared_in_the_unit_of_its_figure() {
        let report = json!({
            "service_time_us": { "p50": 400.0, "p99": 5_000.0, "p99.9": 1.0 },
            "replies_per_s": 9_999.5, "elapsed_s": 10.0, "received_bytes": 2_048,
            "cpu_user_s": 4.0, "cpu_system_s": 5.5, "errors_total": 3,
            "errors": { "reset": 3, "eof": 0 },
        });
        for (text, failed) in [
            ("p99>5ms", false),
            ("p99>=5ms", true),
            ("p99 > 4.9ms", true),
            ("p50 < 400us", false),
            ("p50<=400µs", true),
            ("p99.9<1500ns", true),
            ("service.p50>0.1s", false),
            ("replies_per_s<10k", true),
            ("errors==3", true),
            ("errors!=3", false),
            ("errors.reset>0", true),
            ("errors.eof>0", false),
            ("own_cpu>90%", true),
            ("own_cpu>0.96", false),
            ("received_bytes>2KiB", false),
            ("received_bytes>=2KiB", true),
            ("elapsed_s<9s", false),
            ("elapsed_s<=10000ms", true),
        ] {
            assert_eq!(judge(text, &report).failed, failed, "{text}");
        }
        assert_eq!(judge("p99>5ms", &report).shown, "5.00 ms");
        assert_eq!(judge("own_cpu>1", &report).shown, "95.0%");
        assert_eq!(judge("errors>1k", &report).value, Some(3.0));
    }

    #[test]
    fn a_figure_that_is_not_there_has_failed() {
        let judgement = judge("findings>0", &json!({ "kind": "load" }));
        assert!(judgement.failed && judgement.value.is_none(), "{judgement:?}");
        assert!(judgement.shown.contains("findings"), "{judgement:?}");
    }

    #[test]
    fn a_mistake_is_named_with_what_would_be_right() {
        for (text, says) in [
            ("", "'p99>5ms'"),
            ("p99", "comparisons are"),
            ("p99=5ms", "comparisons are"),
            ("p99!5ms", "comparisons are"),
            ("p99>", "5ms"),
            ("p99>5", "5ms"),
            ("p99>5KiB", "5ms"),
            ("p99>-5ms", "5ms"),
            ("p99>5ms or so", "5ms"),
            ("errors>5ms", "a number"),
            ("p9>5ms", "did you mean 'p90'?"),
            ("errors.rest>0", "did you mean 'errors.reset'"),
            ("nonsense>0", "replies_per_s"),
            ("findings.lost_replies>0", "did you mean 'findings.lost_reply'"),
        ] {
            let error = text.parse::<Expression>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
