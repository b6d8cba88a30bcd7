//! Merges reports of load runs that ran at the same time. Counts and histograms are added, so the
//! percentiles are exact.

use crate::report::reading::{self, DISTRIBUTIONS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use ringload_lifecycle::report::{Outcome, Times};
use ringload_lifecycle::timeline::deflated;
use serde_json::{Map, Value, json};

/// Counts that are added.
const ADDED: [&str; 19] = [
    "intended",
    "unsent",
    "requests",
    "replies",
    "unfinished",
    "lost",
    "unanswered_at_close",
    "received_bytes",
    "sent_bytes",
    "connections_opened",
    "closed_idle",
    "refused",
    "repeated",
    "disconnects",
    "deviating_bodies",
    "sessions",
    "errors_total",
    "cpu_user_s",
    "cpu_system_s",
];
/// Maps of counts that are added.
const ADDED_MAPS: [&str; 3] = ["statuses", "errors", "network"];
/// Options in the plan that are added.
const ADDED_PLAN: [&str; 5] = ["connections", "threads", "requests", "rate", "conn_rate"];
/// Interval fields that are added.
const ADDED_INTERVAL: [&str; 5] =
    ["replies", "requests", "replies_per_s", "received_bytes_per_s", "errors"];
/// Interval fields of which the largest value is taken. An exact percentile would need the
/// histogram of the interval, which a report does not contain.
const WORST_INTERVAL: [&str; 5] = ["elapsed_s", "p50_us", "p99_us", "max_us", "lag_p99_us"];

/// Merges reports.
///
/// # Errors
/// The reports have different kinds, or a kind that cannot be merged.
pub fn merge(reports: &[Value]) -> Result<Value, String> {
    let [first, others @ ..] = reports else { return Err("no report to merge".into()) };
    check(reports)?;
    let mut all = first.clone();
    for other in others {
        for name in ADDED {
            add(&mut all[name], &other[name]);
        }
        for name in ADDED_MAPS {
            add_map(&mut all, name, &other[name]);
        }
        for name in ADDED_PLAN {
            add(&mut all["plan"][name], &other["plan"][name]);
        }
        keep_first(&mut all, "first_errors", &other["first_errors"]);
        if all["bottleneck"].is_null() && !other["bottleneck"].is_null() {
            all["bottleneck"] = other["bottleneck"].clone();
        }
        extend(&mut all["threads"], &other["threads"]);
        add_intervals(&mut all["intervals"], &other["intervals"]);
    }
    let longest = reports.iter().filter_map(|report| report["elapsed_s"].as_f64());
    let elapsed_s = longest.fold(0.0, f64::max);
    all["elapsed_s"] = json!(elapsed_s);
    let per = |count: &Value, by: f64| {
        count.as_f64().filter(|_| by > 0.0).unwrap_or(0.0) / by.max(f64::MIN_POSITIVE)
    };
    all["replies_per_s"] = json!(per(&all["replies"], elapsed_s));
    all["received_bytes_per_s"] = json!(per(&all["received_bytes"], elapsed_s));
    let opened = all["connections_opened"].as_f64().unwrap_or_default();
    all["requests_per_connection"] = json!(per(&all["requests"], opened));
    add_histograms(&mut all, reports)?;
    let outcome = reports.iter().max_by_key(|report| gravity(&report["outcome"]));
    let outcome = outcome.expect("there is a first");
    (all["outcome"], all["exit_status"]) =
        (outcome["outcome"].clone(), outcome["exit_status"].clone());
    // Results that belong to a single run are removed.
    for name in ["verdicts", "ledger", "process"] {
        all.as_object_mut().expect("reports are objects").remove(name);
    }
    all["merged"] = reports.iter().map(part).collect();
    Ok(all)
}

/// Returns the fields of a run that the merged report keeps.
fn part(report: &Value) -> Value {
    let mut part = Map::new();
    for name in ["outcome", "plan", "environment", "elapsed_s", "replies"] {
        part.insert(name.into(), report[name].clone());
    }
    part.into()
}

fn check(reports: &[Value]) -> Result<(), String> {
    let first = &reports[0];
    let different = |what: &str, a: &Value, b: &Value| {
        Err(format!("reports with {what} {a} and {what} {b} cannot be merged"))
    };
    for report in reports {
        if report["kind"] != first["kind"] {
            return different("kind", &first["kind"], &report["kind"]);
        }
        for name in ["protocol", "pacing", "size_bytes"] {
            let (a, b) = (&first["plan"][name], &report["plan"][name]);
            if a != b {
                return different(name, a, b);
            }
        }
        if report["kind"] != "load" {
            return Err(format!(
                "only load reports can be merged; these have kind {}",
                report["kind"]
            ));
        }
    }
    Ok(())
}

/// Returns the severity of an outcome; a merged report gets the most severe one.
fn gravity(outcome: &Value) -> usize {
    let order = [
        Outcome::Passed,
        Outcome::Saturated,
        Outcome::Failed,
        Outcome::Unreachable,
        Outcome::Interrupted,
    ];
    order.iter().position(|known| json!(known) == *outcome).unwrap_or(order.len())
}

fn add(to: &mut Value, from: &Value) {
    let sum = match (to.as_u64(), from.as_u64()) {
        (Some(a), Some(b)) => json!(a.saturating_add(b)),
        _ => match (to.as_f64(), from.as_f64()) {
            (Some(a), Some(b)) => json!(a + b),
            (None, Some(_)) => from.clone(),
            _ => return,
        },
    };
    *to = sum;
}

fn add_map(all: &mut Value, name: &str, from: &Value) {
    for (key, count) in from.as_object().into_iter().flatten() {
        add(&mut all[name][key], count);
    }
}

fn keep_first(all: &mut Value, name: &str, from: &Value) {
    for (key, words) in from.as_object().into_iter().flatten() {
        if all[name][key].is_null() {
            all[name][key] = words.clone();
        }
    }
}

fn extend(all: &mut Value, from: &Value) {
    if let (Some(all), Some(from)) = (all.as_array_mut(), from.as_array()) {
        all.extend(from.iter().cloned());
    }
}

/// Adds intervals second by second, as if all runs had started at the same time.
fn add_intervals(all: &mut Value, from: &Value) {
    let (Some(all), Some(from)) = (all.as_array_mut(), from.as_array()) else { return };
    for (at, interval) in from.iter().enumerate() {
        match all.get_mut(at) {
            None => all.push(interval.clone()),
            Some(sum) => {
                for name in ADDED_INTERVAL {
                    add(&mut sum[name], &interval[name]);
                }
                for name in WORST_INTERVAL {
                    if interval[name].as_f64() > sum[name].as_f64() {
                        sum[name] = interval[name].clone();
                    }
                }
            }
        }
    }
}

/// Recomputes every distribution from the sum of its histograms.
fn add_histograms(all: &mut Value, reports: &[Value]) -> Result<(), String> {
    for of in &DISTRIBUTIONS {
        let mut sum: Option<Histogram<u64>> = None;
        for (number, report) in reports.iter().enumerate() {
            if report[of.field]["samples"].as_u64().unwrap_or_default() == 0 {
                continue;
            }
            let part = reading::histogram(report, of.field).ok_or_else(|| {
                format!("report {} has no histogram of its {}", number + 1, of.title)
            })?;
            match &mut sum {
                None => sum = Some(part),
                Some(sum) => {
                    let why = |error| format!("cannot add the histograms of {}: {error}", of.title);
                    sum.add(&part).map_err(why)?;
                }
            }
        }
        if let Some(sum) = sum {
            all[of.field] = json!(Times::of(&sum));
            all["histograms"][of.histogram] = STANDARD.encode(deflated(&sum)).into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;
    use crate::stats::Stats;
    use ringload_lifecycle::schema::check_against_schema;

    fn report(times_ns: impl Iterator<Item = u64>) -> Value {
        let mut times = Stats::new().service_ns;
        times_ns.for_each(|time| times.saturating_record(time));
        let mut report = json!(sample());
        report["service_time_us"] = json!(Times::of(&times));
        report["connect_time_us"]["samples"] = 0.into();
        report["histograms"] = json!({ "service_ns": STANDARD.encode(deflated(&times)) });
        report
    }

    /// Spread over all scales, and different at every place.
    fn times() -> impl Iterator<Item = u64> + Clone {
        (1..20_000_u64).map(|n| 1_000 + n * n * 37 % 5_000_000 + (n % 97) * 1_000_000)
    }

    #[test]
    fn the_worst_outcome_is_that_of_all() {
        let of = |outcomes: [&str; 2]| {
            let reports = outcomes.map(|outcome| {
                let mut report = report(times().take(3));
                report["outcome"] = outcome.into();
                report
            });
            merge(&reports).expect("they fit")["outcome"].clone()
        };
        let order = ["passed", "saturated", "failed", "unreachable", "interrupted"];
        for pair in order.windows(2) {
            assert_eq!(of([pair[0], pair[1]]), pair[1]);
            assert_eq!(of([pair[1], pair[0]]), pair[1]);
        }
    }

    #[test]
    fn two_halves_have_the_very_percentiles_of_the_whole() {
        let whole = report(times());
        let halves = [0, 1].map(|half| report(times().skip(half).step_by(2)));
        let merged = merge(&halves).expect("they fit");
        assert_eq!(merged["service_time_us"], whole["service_time_us"]);
        assert_eq!(merged["histograms"], whole["histograms"]);
        assert_ne!(halves[0]["service_time_us"], whole["service_time_us"]);
    }

    #[test]
    fn counts_are_added_and_rates_are_those_of_all() {
        let (mut a, mut b) = (report(times()), report(times()));
        (a["elapsed_s"], b["elapsed_s"]) = (json!(10.0), json!(20.0));
        (b["errors"]["eof"], b["statuses"]["500"]) = (5.into(), 7.into());
        b["outcome"] = "unreachable".into();
        b["exit_status"] = 3.into();
        b["verdicts"] = json!([]);
        let merged = merge(&[a.clone(), b]).expect("they fit");
        assert_eq!((&merged["replies"], &merged["elapsed_s"]), (&json!(2_000_000), &json!(20.0)));
        assert_eq!(merged["replies_per_s"], 100_000.0);
        assert_eq!((&merged["errors"]["eof"], &merged["statuses"]["500"]), (&json!(6), &json!(7)));
        assert_eq!(merged["plan"]["connections"], 128);
        assert_eq!(
            (&merged["outcome"], &merged["exit_status"]),
            (&json!("unreachable"), &json!(3))
        );
        assert_eq!(merged["intervals"][0]["replies"], 2_000_000);
        assert_eq!(merged["intervals"][0]["p50_us"], a["intervals"][0]["p50_us"]);
        assert_eq!(merged["merged"].as_array().map(Vec::len), Some(2));
        assert!(merged.get("verdicts").is_none());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = report(times());
        let with = |field: &str, value: &str| {
            let mut report = good.clone();
            *report.pointer_mut(field).expect("a field") = value.into();
            report
        };
        for (other, says) in [
            (with("/kind", "churn"), "kind \"load\""),
            (with("/plan/protocol", "echo"), "protocol \"http\""),
            (with("/histograms/service_ns", "x"), "report 2 has no histogram of its service time"),
        ] {
            let error = merge(&[good.clone(), other]).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
        let churn = with("/kind", "churn");
        assert!(merge(&[churn.clone(), churn]).expect_err("no load").contains("only load reports"));
        assert!(merge(&[]).is_err());
    }

    #[test]
    fn a_merged_report_is_what_its_schema_says() {
        let halves = [report(times()), report(times())];
        check_against_schema("load", &merge(&halves).expect("they fit"));
    }
}
