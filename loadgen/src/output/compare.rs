//! Compares two runs, or several on each side: ratios, and a test against noise.

mod noise;

use crate::report::reading;
use noise::Interval;
use ringload_lifecycle::units::{show_count, show_text, show_us};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Minimum number of seconds in each run for an estimate of the noise.
const SECONDS_MIN: usize = 5;
/// Minimum number of runs on each side, for figures that have no value per second.
const RUNS_MIN: usize = 3;
/// Maximum number of differences listed.
const DIFFERENCES_MAX: usize = 20;
/// Fields that differ between any two runs and explain nothing.
const UNTOLD: [&str; 3] = ["started_at_s", "argv", "seed"];

/// One side of the comparison.
pub struct Side<'a> {
    /// The files as given on the command line.
    pub name: &'a str,
    /// The reports, at least one.
    pub runs: Vec<Value>,
}

/// A figure to compare: name, value in a run, field in an interval if it has one, and format.
struct Figure {
    name: &'static str,
    of_run: fn(&Value) -> Option<f64>,
    of_second: Option<&'static str>,
    show: fn(f64) -> String,
}

const FIGURES: [Figure; 7] = [
    Figure {
        name: "replies_per_s",
        of_run: |run| run["replies_per_s"].as_f64(),
        of_second: Some("replies_per_s"),
        show: |value| show_count(value as u64),
    },
    Figure {
        name: "p50",
        of_run: |run| time(run, "p50"),
        of_second: Some("p50_us"),
        show: show_us,
    },
    Figure { name: "p90", of_run: |run| time(run, "p90"), of_second: None, show: show_us },
    Figure {
        name: "p99",
        of_run: |run| time(run, "p99"),
        of_second: Some("p99_us"),
        show: show_us,
    },
    Figure { name: "p99.9", of_run: |run| time(run, "p99.9"), of_second: None, show: show_us },
    Figure { name: "cpu_per_reply", of_run: cpu_per_reply_us, of_second: None, show: show_us },
    Figure {
        name: "errors_per_request",
        of_run: |run| per(run["errors_total"].as_f64()?, run["requests"].as_f64()?),
        of_second: None,
        show: |value| format!("{value:.6}"),
    },
];

/// The comparison of one figure.
struct Row {
    figure: &'static Figure,
    a: f64,
    b: f64,
    ratio: Option<f64>,
    noise: Option<Interval>,
}

/// Compares B with A and returns the report and the text.
///
/// # Errors
/// The reports have different kinds, or a kind without times.
pub fn compare(a: &Side<'_>, b: &Side<'_>) -> Result<(Value, String), String> {
    check(a, b)?;
    let rows: Vec<Row> = FIGURES.iter().filter_map(|figure| row(figure, a, b)).collect();
    let differences = differences(&a.runs[0], &b.runs[0]);
    let (mut ratios, mut noise) = (Map::new(), Map::new());
    for row in &rows {
        ratios.insert(row.figure.name.into(), json!(row.ratio));
        noise.insert(row.figure.name.into(), json!(row.noise));
    }
    let values = |value: fn(&Row) -> f64| -> Map<String, Value> {
        rows.iter().map(|row| (row.figure.name.into(), json!(value(row)))).collect()
    };
    let report = json!({
        "schema": ringload_lifecycle::report::SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "kind": "comparison",
        "outcome": "passed",
        "exit_status": 0,
        "names": [a.name, b.name],
        "runs": [a.runs.len(), b.runs.len()],
        "a": values(|row| row.a),
        "b": values(|row| row.b),
        "ratio": ratios,
        "noise": noise,
        "differences": differences,
    });
    let text = text(a, b, &rows, &differences);
    Ok((report, text))
}

fn check(a: &Side<'_>, b: &Side<'_>) -> Result<(), String> {
    let first = &a.runs[0];
    for run in a.runs.iter().chain(&b.runs) {
        if run["kind"] != first["kind"] {
            return Err(format!(
                "reports of kind {} and {} cannot be compared; both sides need the same kind",
                first["kind"], run["kind"]
            ));
        }
        if reading::latency_field(run).is_none() {
            return Err(format!("reports of kind {} have no times to compare", run["kind"]));
        }
    }
    Ok(())
}

fn row(figure: &'static Figure, a: &Side<'_>, b: &Side<'_>) -> Option<Row> {
    let of = |side: &Side<'_>| -> Vec<f64> { side.runs.iter().filter_map(figure.of_run).collect() };
    let (of_a, of_b) = (of(a), of(b));
    let (in_a, in_b) = (noise::median(&of_a)?, noise::median(&of_b)?);
    let seconds = |side: &Side<'_>| -> Option<Vec<Vec<f64>>> {
        let field = figure.of_second?;
        let all: Vec<_> = side.runs.iter().map(|run| seconds(run, field)).collect();
        all.iter().all(|run| run.len() >= SECONDS_MIN).then_some(all)
    };
    let whole = |runs: &[f64]| -> Option<Vec<Vec<f64>>> {
        (runs.len() >= RUNS_MIN).then(|| runs.iter().map(|run| vec![*run]).collect())
    };
    let samples = seconds(a).zip(seconds(b)).or_else(|| whole(&of_a).zip(whole(&of_b)));
    let noise = samples.and_then(|(a, b)| noise::ratio(&a, &b));
    Some(Row { figure, a: in_a, b: in_b, ratio: per(in_b, in_a), noise })
}

/// Returns a figure for each second with replies. Leaves out the first second, which contains the
/// connects.
fn seconds(run: &Value, field: &str) -> Vec<f64> {
    let intervals = run["intervals"].as_array().into_iter().flatten().skip(1);
    // A second without replies has a rate but no times.
    let is_rate = field.ends_with("_per_s");
    let replied = intervals.filter(|second| is_rate || second["replies"].as_u64() != Some(0));
    replied.filter_map(|second| second[field].as_f64()).collect()
}

fn time(run: &Value, place: &str) -> Option<f64> {
    let times = &run[reading::latency_field(run)?];
    times[place].as_f64().filter(|_| times["samples"].as_u64() > Some(0))
}

fn cpu_per_reply_us(run: &Value) -> Option<f64> {
    let cpu_s = run["cpu_user_s"].as_f64()? + run["cpu_system_s"].as_f64()?;
    per(cpu_s * 1e6, run["replies"].as_f64()?)
}

fn per(value: f64, by: f64) -> Option<f64> {
    (by > 0.0).then(|| value / by)
}

/// Lists the differences in plan and environment of two runs.
fn differences(a: &Value, b: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    for part in ["plan", "environment"] {
        let fields = a[part].as_object().into_iter().flatten().map(|(name, _)| name);
        let more = b[part].as_object().into_iter().flatten().map(|(name, _)| name);
        let more = more.filter(|name| a[part].get(*name).is_none());
        for name in fields.chain(more).filter(|name| !UNTOLD.contains(&name.as_str())) {
            let (a, b) = (&a[part][name], &b[part][name]);
            if a != b && found.len() < DIFFERENCES_MAX {
                found.push(json!({ "name": format!("{part}.{name}"), "a": a, "b": b }));
            }
        }
    }
    found
}

/// Returns `3 runs, 1 of them saturated`, because figures of a run that did not pass may be
/// useless.
fn outcomes(side: &Side<'_>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in side.runs.iter().filter_map(|run| run["outcome"].as_str()) {
        *counts.entry(outcome).or_default() += 1;
    }
    let counts = counts.iter().filter(|(outcome, _)| **outcome != "passed");
    let odd: String = counts
        .map(|(outcome, count)| format!(", {count} of them {}", show_text(outcome)))
        .collect();
    let plural = if side.runs.len() == 1 { "" } else { "s" };
    format!("{} run{plural}{odd}", side.runs.len())
}

fn text(a: &Side<'_>, b: &Side<'_>, rows: &[Row], differences: &[Value]) -> String {
    let mut text = String::new();
    let mut line = |what: String| {
        writeln!(text, "{}", what.trim_end()).expect("writing to a string does not fail");
    };
    for (letter, side) in [("A", a), ("B", b)] {
        line(format!("{letter}  {}: {}", show_text(side.name), outcomes(side)));
    }
    line(format!("{:<19} {:>12} {:>12} {:>7}  {:<16}", "", "A", "B", "B / A", "95% interval"));
    for Row { figure, a, b, ratio, noise } in rows {
        let ratio = ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
        let text = match noise {
            None => "unknown".into(),
            Some(noise) => {
                let word = if noise.is_beyond() { "beyond the noise" } else { "within the noise" };
                format!("{:.3} to {:.3}  {word}", noise.low, noise.high)
            }
        };
        let (a, b) = ((figure.show)(*a), (figure.show)(*b));
        line(format!("{:<19} {a:>12} {b:>12} {ratio:>7}  {text}", figure.name));
    }
    for difference in differences {
        let name = difference["name"].as_str().unwrap_or_default();
        let show = |value: &Value| show_text(&value.to_string());
        line(format!("differs: {name}: {} / {}", show(&difference["a"]), show(&difference["b"])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringload_lifecycle::schema::check_against_schema;

    /// A run whose intervals vary around `rate` and `p99_us`.
    fn run(rate: f64, p99_us: f64) -> Value {
        let seconds = (0..20).map(|second| {
            let wave = 1.0 + f64::from(second % 5 - 2) / 100.0;
            let (rate, p99_us) = (rate * wave, p99_us * wave);
            json!({ "replies": 1, "replies_per_s": rate, "p50_us": 100.0, "p99_us": p99_us })
        });
        json!({
            "kind": "load", "schema": 1, "replies_per_s": rate, "replies": 1000, "requests": 1000,
            "errors_total": 0, "cpu_user_s": 0.001, "cpu_system_s": 0.001,
            "service_time_us": {
                "samples": 9, "p50": 100.0, "p90": 150.0, "p99": p99_us, "p99.9": 900.0,
            },
            "intervals": seconds.collect::<Vec<_>>(),
            "plan": { "connections": 64 }, "environment": { "kernel": "6.1", "started_at_s": 1 },
        })
    }

    fn side(name: &str, runs: Vec<Value>) -> Side<'_> {
        Side { name, runs }
    }

    #[test]
    fn a_difference_beyond_the_noise_is_told_from_one_within() {
        let mut first = run(1000.0, 500.0);
        first["outcome"] = "saturated".into();
        let a = side("a", vec![first]);
        let (report, text) =
            compare(&a, &side("b", vec![run(1300.0, 501.0)])).expect("both are load");
        assert!(text.starts_with("A  a: 1 run, 1 of them saturated\nB  b: 1 run\n"), "{text}");
        assert!((report["ratio"]["replies_per_s"].as_f64().expect("a ratio") - 1.3).abs() < 1e-9);
        assert_eq!(report["noise"]["replies_per_s"]["beyond"], true);
        assert_eq!(report["noise"]["p99"]["beyond"], false);
        assert!(report["noise"]["p99.9"].is_null(), "one run has no noise of its whole");
        assert_eq!(report["ratio"]["cpu_per_reply"], 1.0);
        assert!(report["ratio"]["errors_per_request"].is_null(), "0 / 0");
        for part in ["1.300", "beyond the noise", "within the noise", "unknown"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn several_runs_tell_of_the_noise_of_their_wholes() {
        let runs = |p99s: [f64; 4]| {
            p99s.map(|p99| {
                let mut run = run(1000.0, 500.0);
                run["service_time_us"]["p99.9"] = p99.into();
                run
            })
        };
        let a = side("a", runs([900.0, 910.0, 890.0, 905.0]).into());
        let same = side("b", runs([895.0, 905.0, 900.0, 912.0]).into());
        let worse = side("b", runs([1900.0, 1910.0, 1890.0, 1905.0]).into());
        let noise = |b| compare(&a, b).expect("load").0["noise"]["p99.9"]["beyond"].clone();
        assert_eq!((noise(&same), noise(&worse)), (false.into(), true.into()));
    }

    #[test]
    fn what_differs_in_plan_and_environment_is_named() {
        let mut other = run(1000.0, 500.0);
        other["plan"]["connections"] = 128.into();
        other["environment"]["started_at_s"] = 2.into();
        other["environment"]["governor"] = "powersave".into();
        let a = side("a", vec![run(1000.0, 500.0)]);
        let (report, text) = compare(&a, &side("b", vec![other])).expect("both are load");
        assert_eq!(
            report["differences"],
            json!([
                { "name": "plan.connections", "a": 64, "b": 128 },
                { "name": "environment.governor", "a": null, "b": "powersave" },
            ])
        );
        assert!(text.contains("differs: plan.connections: 64 / 128"), "{text}");
    }

    #[test]
    fn different_kinds_are_refused() {
        let a = side("a", vec![run(1.0, 1.0)]);
        let error = compare(&a, &side("b", vec![json!({ "kind": "churn" })]));
        assert!(error.expect_err("churn is no load").contains("\"churn\""));
        let transfer = || side("t", vec![json!({ "kind": "transfer" })]);
        assert!(compare(&transfer(), &transfer()).expect_err("no times").contains("no times"));
    }

    #[test]
    fn the_report_is_what_its_schema_says() {
        let a = side("a", vec![run(1000.0, 500.0)]);
        let mut other = run(1300.0, 501.0);
        other["plan"]["connections"] = 128.into();
        let (mut report, _) = compare(&a, &side("b", vec![other])).expect("both are load");
        check_against_schema("comparison", &report);
        report["verdicts"] =
            json!([{ "expression": "ratio.p99>1.1", "value": 1.3, "failed": true }]);
        check_against_schema("comparison", &report);
    }
}
