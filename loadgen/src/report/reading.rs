//! Reads JSON reports of any kind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use ringload_lifecycle::units::show_path;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Maximum size of a report; the intervals of a day take about 20 MB.
const REPORT_BYTES_MAX: u64 = 256 << 20;

/// A distribution of times in a report.
pub struct Distribution {
    /// Name of its field.
    pub field: &'static str,
    /// Name of its histogram in `histograms`.
    pub histogram: &'static str,
    /// Its title.
    pub title: &'static str,
}

/// All distributions; those that a user experiences come first.
pub const DISTRIBUTIONS: [Distribution; 9] = [
    distribution("latency_us", "latency_ns", "latency"),
    distribution("session_us", "session_ns", "session"),
    distribution("service_time_us", "service_ns", "service time"),
    distribution("probe_time_us", "probe_ns", "probe"),
    distribution("reaction_time_us", "reaction_ns", "reaction"),
    distribution("first_byte_us", "first_byte_ns", "first byte"),
    distribution("connect_time_us", "connect_ns", "connect time"),
    distribution("last_round_time_us", "last_ns", "last round"),
    distribution("schedule_lag_us", "lag_ns", "schedule lag"),
];

const fn distribution(
    field: &'static str,
    histogram: &'static str,
    title: &'static str,
) -> Distribution {
    Distribution { field, histogram, title }
}

/// Returns the distributions of a report that have samples.
pub fn distributions(report: &Value) -> impl Iterator<Item = (&'static Distribution, &Value)> {
    DISTRIBUTIONS.iter().filter_map(|of| {
        let times = &report[of.field];
        (times["samples"].as_u64() > Some(0)).then_some((of, times))
    })
}

/// Returns the field of the latency that a user experiences, to which a plain `p99` refers.
#[must_use]
pub fn latency_field(report: &Value) -> Option<&'static str> {
    let is_there = |of: &&Distribution| report[of.field].is_object();
    DISTRIBUTIONS.iter().find(is_there).map(|of| of.field)
}

/// Returns the histogram of a distribution, in nanoseconds.
#[must_use]
pub fn histogram(report: &Value, field: &str) -> Option<Histogram<u64>> {
    let of = DISTRIBUTIONS.iter().find(|of| of.field == field)?;
    decode(report["histograms"][of.histogram].as_str()?)
}

/// Decodes a histogram: base64 of the V2 format, deflated or not.
#[must_use]
pub fn decode(text: &str) -> Option<Histogram<u64>> {
    let bytes = STANDARD.decode(text).ok()?;
    Deserializer::new().deserialize(&mut &bytes[..]).ok()
}

/// Reads a report.
///
/// # Errors
/// The file cannot be read, or it is not a report.
pub fn read(path: &Path) -> Result<Value, String> {
    let fail = |what: &dyn std::fmt::Display| format!("{}: {what}", show_path(path));
    let file = File::open(path).map_err(|error| fail(&error))?;
    let mut bytes = Vec::new();
    file.take(REPORT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() as u64 > REPORT_BYTES_MAX {
        return Err(fail(&"the file is larger than 256 MiB and cannot be a report"));
    }
    let report: Value = serde_json::from_slice(&bytes)
        .map_err(|error| fail(&format_args!("not a report of ringload --json: {error}")))?;
    if !report["kind"].is_string() || !report["schema"].is_u64() {
        return Err(fail(&"not a report of ringload --json: it has no kind or no schema"));
    }
    match report["schema"].as_u64() {
        Some(schema) if schema > u64::from(ringload_lifecycle::report::SCHEMA) => Err(fail(
            &format_args!("the report has schema {schema} and was written by a newer ringload"),
        )),
        _ => Ok(report),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::Pacing;
    use crate::report::tests::sample_of;
    use crate::stats::Stats;
    use ringload_lifecycle::timeline::deflated;
    use serde_json::json;

    /// A load report with histograms and intervals.
    pub(crate) fn with_histograms(pacing: Pacing) -> Value {
        let mut report = json!(sample_of(pacing));
        let mut times = Stats::new().service_ns;
        (1..5_000_u64).for_each(|n| times.saturating_record(100_000 + n * n));
        for of in &DISTRIBUTIONS {
            if report[of.field].is_object() {
                report[of.field]["samples"] = times.len().into();
                report["histograms"][of.histogram] = STANDARD.encode(deflated(&times)).into();
            }
        }
        let first = report["intervals"][0].clone();
        let seconds = (1..=20_u64).map(|second| {
            let mut interval = first.clone();
            interval["elapsed_s"] = json!(second as f64);
            interval["replies_per_s"] = json!(90_000.0 + (second * 7_919 % 10_000) as f64);
            interval["p99_us"] = json!(500.0 + (second * 31 % 70) as f64);
            interval
        });
        report["intervals"] = seconds.collect();
        report
    }

    #[test]
    fn what_is_no_report_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report");
        for (text, says) in [
            ("", "not a report"),
            ("[1]", "no kind"),
            (r#"{"kind":"load"}"#, "no schema"),
            (r#"{"kind":"load","schema":99}"#, "newer"),
        ] {
            std::fs::write(&path, text).expect("a file");
            let error = read(&path).expect_err(text);
            assert!(error.contains(says) && error.contains("report"), "{text}: {error}");
        }
        std::fs::write(&path, r#"{"kind":"load","schema":1}"#).expect("a file");
        assert!(read(&path).is_ok());
        assert!(read(&folder.path().join("none")).expect_err("no file").contains("none"));
    }

    #[test]
    fn a_distribution_without_samples_is_not_shown() {
        let report = json!({
            "service_time_us": { "samples": 1 }, "latency_us": null,
            "connect_time_us": { "samples": 0 },
        });
        let fields: Vec<_> = distributions(&report).map(|(of, _)| of.field).collect();
        assert_eq!(
            (fields, latency_field(&report)),
            (vec!["service_time_us"], Some("service_time_us"))
        );
    }

    #[test]
    fn garbage_is_no_histogram() {
        assert!(decode("AAAA").is_none() && decode("not base64!").is_none());
    }
}
