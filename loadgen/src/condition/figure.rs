//! The figures of a report, by short name or by path.

use super::names;
use crate::report::reading;
use ringload_lifecycle::fault::ErrorKind;
use ringload_lifecycle::finding::Rule;
use ringload_lifecycle::units::{show_bytes, show_time};
use serde_json::Value;

/// Short names of distributions and their fields. The empty name is the latency or, if the report
/// has none, the time that replaces it.
const DISTRIBUTIONS: [(&str, Option<&str>); 9] = [
    ("", None),
    ("latency", Some("latency_us")),
    ("service", Some("service_time_us")),
    ("connect", Some("connect_time_us")),
    ("lag", Some("schedule_lag_us")),
    ("first_byte", Some("first_byte_us")),
    ("session", Some("session_us")),
    ("probe", Some("probe_time_us")),
    ("reaction", Some("reaction_time_us")),
];
/// Statistics of a distribution that error messages list; any other percentile is valid too.
const PLACES: [&str; 8] = ["p50", "p90", "p99", "p99.9", "min", "mean", "max", "samples"];

/// Statistics of the bystanders' latency that a report compares.
const BYSTANDER_PLACES: [&str; 4] = ["p50", "p99", "p99.9", "max"];

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// A time, with the number of seconds in one unit.
    Seconds(f64),
    /// Bytes, or bytes per second.
    Bytes,
    /// A fraction of 1.
    Share,
    /// A plain number.
    Number,
}

/// A figure and its place in the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    name: String,
    source: Source,
    unit: Unit,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// A statistic of the distribution in this field; `None` for the latency.
    Distribution(Option<&'static str>, String),
    OwnCpu,
    CpuPerReply,
    Errors,
    Findings(Option<Rule>),
    Leaks,
    BystanderRatio(String),
    Path,
}

impl Figure {
    /// Parses a short name, or a path such as `bystanders.ratio_p99`: field names and list indexes
    /// separated by dots.
    ///
    /// # Errors
    /// No report has such a figure; the message suggests similar names.
    pub fn parse(name: &str) -> Result<Self, String> {
        let of = |source, unit| Ok(Self { name: name.into(), source, unit });
        match name {
            "own_cpu" => return of(Source::OwnCpu, Unit::Share),
            "cpu_per_reply" => return of(Source::CpuPerReply, Unit::Seconds(1e-6)),
            "errors" => return of(Source::Errors, Unit::Number),
            "findings" => return of(Source::Findings(None), Unit::Number),
            "leaks" => return of(Source::Leaks, Unit::Number),
            _ => {}
        }
        if let Some((field, place)) = distribution(name) {
            let unit = if place == "samples" { Unit::Number } else { Unit::Seconds(1e-6) };
            return of(Source::Distribution(field, place.into()), unit);
        }
        if let Some(rule) = name.strip_prefix("findings.") {
            let found = Rule::ALL.into_iter().find(|known| known.name() == rule);
            return of(Source::Findings(Some(found.ok_or_else(|| unknown(name))?)), Unit::Number);
        }
        if let Some(place) = name.strip_prefix("bystander_ratio.") {
            let known = BYSTANDER_PLACES.contains(&place);
            let source = Source::BystanderRatio(place.into());
            return if known { of(source, Unit::Number) } else { Err(unknown(name)) };
        }
        if !names::is_in_a_report(name) {
            return Err(unknown(name));
        }
        of(Source::Path, unit_of(name))
    }

    /// Returns the unit.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// Returns true for a count of errors.
    #[must_use]
    pub fn is_of_errors(&self) -> bool {
        let is_path = self.source == Source::Path && self.name.starts_with("errors");
        is_path || self.source == Source::Errors
    }

    /// Returns the value in a report.
    ///
    /// # Errors
    /// The report does not have the figure.
    pub fn value(&self, report: &Value) -> Result<f64, String> {
        let none = || {
            let kind = report["kind"].as_str().unwrap_or("unknown");
            format!("this report of kind {kind} has no {}", self.name)
        };
        let number = |name: &str| report[name].as_f64();
        let value = match &self.source {
            Source::Distribution(field, place) => field
                .or_else(|| reading::latency_field(report))
                .and_then(|field| time(report, field, place)),
            Source::OwnCpu => cpu_s(report)
                .zip(number("elapsed_s").filter(|seconds| *seconds > 0.0))
                .map(|(cpu, seconds)| cpu / seconds),
            Source::CpuPerReply => cpu_s(report)
                .zip(number("replies").filter(|replies| *replies > 0.0))
                .map(|(cpu, replies)| cpu * 1e6 / replies),
            Source::Errors => number("errors_total"),
            Source::Findings(rule) => findings(report, *rule),
            Source::Leaks => leaks(report),
            Source::BystanderRatio(place) => {
                report["bystanders"][format!("ratio_{place}")].as_f64()
            }
            Source::Path => names::at(report, &self.name)
                .and_then(Value::as_f64)
                // The report lists only statuses that occurred; the count of any other is 0.
                .or_else(|| {
                    let is_status = self.name.starts_with("statuses.");
                    (is_status && report["statuses"].is_object()).then_some(0.0)
                }),
        };
        value.ok_or_else(none)
    }
}

impl Unit {
    /// Returns an example of a limit, to append to "expected a number".
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Seconds(_) => " and a unit of time, such as 5ms (ns us ms s)",
            Self::Bytes => ", or a size such as 64KiB",
            Self::Share => ", or a share such as 90%",
            Self::Number => ", such as 10 or 10k",
        }
    }

    /// Formats a value.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Seconds(one) => show_time((value * one * 1e9).round().max(0.0) as u64),
            Self::Bytes => show_bytes(value),
            Self::Share => format!("{:.1}%", value * 100.0),
            Self::Number if value.fract() == 0.0 => format!("{value:.0}"),
            Self::Number => format!("{value:.3}"),
        }
    }
}

/// Returns every short name, for error messages.
pub fn short_names() -> impl Iterator<Item = String> {
    let places = DISTRIBUTIONS.iter().flat_map(|(before, _)| {
        PLACES.iter().map(move |place| match *before {
            "" => (*place).to_string(),
            _ => format!("{before}.{place}"),
        })
    });
    let errors = ErrorKind::ALL.iter().map(|kind| format!("errors.{}", kind.name()));
    let findings = Rule::ALL.iter().map(|rule| format!("findings.{}", rule.name()));
    let ratios = BYSTANDER_PLACES.map(|place| format!("bystander_ratio.{place}"));
    let single = ["errors", "findings", "leaks", "replies_per_s", "own_cpu", "cpu_per_reply"];
    places.chain(single.map(String::from)).chain(errors).chain(findings).chain(ratios)
}

fn unknown(name: &str) -> String {
    names::unknown(name, short_names())
}

fn distribution(name: &str) -> Option<(Option<&'static str>, &str)> {
    DISTRIBUTIONS.iter().find_map(|(before, field)| {
        let place = match *before {
            "" => name,
            _ => name.strip_prefix(before)?.strip_prefix('.')?,
        };
        (PLACES.contains(&place) || quantile(place).is_some()).then_some((*field, place))
    })
}

/// Parses `p99.95` into 0.9995.
fn quantile(place: &str) -> Option<f64> {
    let digits = place.strip_prefix('p')?;
    // At least two digits: 'p9' is probably a typo for 'p90' or 'p99'.
    let percent: f64 = digits.parse().ok().filter(|_| digits.len() >= 2)?;
    (digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && percent <= 100.0)
        .then_some(percent / 100.0)
}

/// Returns a statistic of a distribution in microseconds. A percentile that the report does not
/// list is read from its histogram.
fn time(report: &Value, field: &str, place: &str) -> Option<f64> {
    let times = &report[field];
    // Without samples there is no time; 0 would look like a fast one.
    if place != "samples" && times["samples"].as_u64() == Some(0) {
        return None;
    }
    times[place].as_f64().or_else(|| {
        let histogram = reading::histogram(report, field)?;
        let value = histogram.value_at_quantile(quantile(place)?);
        Some(value.min(histogram.max()) as f64 / 1e3)
    })
}

/// Derives the unit from the suffix of the field name.
fn unit_of(path: &str) -> Unit {
    let one = |field: &str| match field {
        _ if field.ends_with("bytes") || field.contains("_bytes_per_") => Some(Unit::Bytes),
        _ if field.ends_with("_per_s") => None,
        _ if field.ends_with("_us") => Some(Unit::Seconds(1e-6)),
        _ if field.ends_with("_ms") => Some(Unit::Seconds(1e-3)),
        _ if field.ends_with("_s") => Some(Unit::Seconds(1.0)),
        _ => None,
    };
    if path.ends_with(".samples") {
        return Unit::Number;
    }
    path.split('.').find_map(one).unwrap_or(Unit::Number)
}

fn cpu_s(report: &Value) -> Option<f64> {
    Some(report["cpu_user_s"].as_f64()? + report["cpu_system_s"].as_f64()?)
}

/// Returns the number of findings, of all rules or of one.
fn findings(report: &Value, rule: Option<Rule>) -> Option<f64> {
    let Some(rule) = rule else { return report["findings_total"].as_f64() };
    let by_rule = report["findings"].as_object()?;
    Some(by_rule.get(rule.name()).and_then(Value::as_f64).unwrap_or_default())
}

/// Returns the number of leaks that `--ledger` and `--pid` found.
fn leaks(report: &Value) -> Option<f64> {
    let lists = [&report["ledger"]["leaks"], &report["process"]["stays"]];
    let counts: Vec<_> = lists.iter().filter_map(|list| list.as_array()).map(Vec::len).collect();
    (!counts.is_empty()).then(|| counts.iter().sum::<usize>() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(name: &str, report: &Value) -> Result<f64, String> {
        Figure::parse(name).unwrap_or_else(|why| panic!("{name}: {why}")).value(report)
    }

    #[test]
    fn every_short_name_is_understood() {
        for name in short_names() {
            assert!(Figure::parse(&name).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_latency_is_from_the_intended_start_where_there_is_one() {
        let open = json!({
            "latency_us": { "samples": 2, "p99": 7.0 },
            "service_time_us": { "samples": 2, "p99": 3.0 },
        });
        assert_eq!(value("p99", &open), Ok(7.0));
        assert_eq!(value("service.p99", &open), Ok(3.0));
        let closed = json!({ "kind": "load", "service_time_us": { "samples": 2, "p99": 3.0 } });
        assert_eq!(value("p99", &closed), Ok(3.0));
        let error = value("lag.p99", &closed).expect_err("a closed loop has no schedule");
        assert!(error.contains("kind load has no lag.p99"), "{error}");
    }

    #[test]
    fn a_distribution_of_nothing_has_no_percentiles() {
        let none = json!({ "service_time_us": { "samples": 0, "p99": 0.0 } });
        assert!(value("p99", &none).is_err());
        assert_eq!(value("service.samples", &none), Ok(0.0));
    }

    #[test]
    fn findings_are_counted_by_rule() {
        let report = json!({
            "findings_total": 4, "findings": { "lost_reply": 3, "foreign_bytes": 1 },
        });
        assert_eq!(value("findings", &report), Ok(4.0));
        assert_eq!(value("findings.lost_reply", &report), Ok(3.0));
        assert_eq!(value("findings.foreign_bytes", &report), Ok(1.0));
        assert_eq!(value("findings.refused", &report), Ok(0.0));
    }

    #[test]
    fn bystanders_are_compared_with_themselves() {
        let report = json!({ "bystanders": { "ratio_p99": 3.5 } });
        assert_eq!(value("bystander_ratio.p99", &report), Ok(3.5));
        assert!(value("bystander_ratio.max", &report).is_err());
        assert!(
            Figure::parse("bystander_ratio.p98")
                .expect_err("no such")
                .contains("'bystander_ratio.p99'")
        );
    }

    #[test]
    fn leaks_are_those_of_the_ledger_and_of_the_process() {
        assert!(value("leaks", &json!({})).is_err());
        let report = json!({ "ledger": { "leaks": [1] }, "process": { "stays": [1, 2] } });
        assert_eq!(value("leaks", &report), Ok(3.0));
    }
}
