//! The charts of a report: percentiles, and figures over time.

use super::markup::section;
use super::plot::{COLOURS, Curve, Plot, Scale};
use crate::report::reading;
use ringload_lifecycle::units::{show_count, show_us};
use serde_json::Value;

/// Number of points of a percentile curve.
const STEPS: usize = 160;
/// Maximum number of points of a curve over time; longer runs are drawn in coarser steps.
const SECONDS_MAX: usize = 600;
/// Ratio of largest to smallest value from which an axis is logarithmic.
const SPREAD_MAX: f64 = 40.0;

/// Returns the percentile chart of the latencies.
#[must_use]
pub fn percentiles(report: &Value) -> String {
    let mut curves: Vec<Curve> = Vec::new();
    let mut samples_max = 0;
    for (of, times) in reading::distributions(report) {
        // The lag is not a latency; it has its own chart over time.
        if of.field == "schedule_lag_us" || curves.len() == COLOURS.len() {
            continue;
        }
        samples_max = samples_max.max(times["samples"].as_u64().unwrap_or_default());
        curves.push(Curve {
            name: of.title.into(),
            points: percentile_points(report, of.field, times),
        });
    }
    let values = || curves.iter().flat_map(|curve| &curve.points).map(|(_, y)| *y);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let y_scale =
        if high > low.max(1e-3) * SPREAD_MAX { Scale::Logarithmic } else { Scale::Linear };
    let ticks = ["0%", "90%", "99%", "99.9%", "99.99%", "99.999%", "99.9999%", "99.99999%"];
    let mut x_ticks: Vec<(f64, String)> =
        ticks.iter().enumerate().map(|(at, label)| (at as f64, (*label).into())).collect();
    x_ticks.push((2_f64.log10(), "50%".into()));
    let plot = Plot {
        title: "Percentiles of the times (logarithmic scale)",
        x_name: "percentile",
        y_name: if y_scale == Scale::Linear { "time" } else { "time (logarithmic)" },
        x_ticks,
        y_scale,
        show_y: show_us,
        show_x: |x| format!("{:.4}%", 100.0 * (1.0 - 10_f64.powf(-x))),
        curves,
        strip: None,
    };
    section("Percentiles", &plot.svg())
}

/// Returns the points of a percentile curve, from the histogram or, without one, from the
/// percentiles in the report. The x value of quantile q is log10(1 / (1 - q)), as in HdrHistogram
/// plots.
fn percentile_points(report: &Value, field: &str, times: &Value) -> Vec<(f64, f64)> {
    if let Some(histogram) = reading::histogram(report, field).filter(|all| !all.is_empty()) {
        let last = (histogram.len() as f64).log10();
        return (0..=STEPS)
            .map(|step| {
                let x = last * step as f64 / STEPS as f64;
                let value = histogram.value_at_quantile(1.0 - 10_f64.powf(-x));
                (x, value.min(histogram.max()) as f64 / 1e3)
            })
            .collect();
    }
    [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)]
        .into_iter()
        .filter_map(|(name, share)| Some((-f64::log10(1.0 - share), times[name].as_f64()?)))
        .collect()
}

/// Returns the charts of rate, errors, times and lag over time.
#[must_use]
pub fn over_time(report: &Value) -> String {
    let intervals = coarse(report["intervals"].as_array().map_or(&[], Vec::as_slice));
    if intervals.len() < 2 {
        return String::new();
    }
    let rate = ["replies_per_s", "connections_per_s", "answers"];
    let rate = rate.into_iter().find(|name| intervals[0][*name].is_number());
    let rate_name = rate.map_or(String::new(), |name| name.replace("_per_s", " per second"));
    let open = curve(&intervals, "open", "open connections");
    let errors = ["errors", "lost", "findings"];
    let mut errors = errors.into_iter().filter(|name| intervals[0][*name].is_number());
    let happened = |name: &&str| intervals.iter().any(|of| of[*name].as_u64() > Some(0));
    let errors = errors.clone().find(happened).or_else(|| errors.next());
    let strip = errors.map(|name| {
        let count = |of: &Value| Some((of["elapsed_s"].as_f64()?, of[name].as_u64()?));
        (name, intervals.iter().filter_map(count).collect())
    });
    let rates = Plot {
        title: "Rate and errors over time",
        y_name: &rate_name,
        show_y: |value| show_count(value.round() as u64),
        curves: rate.and_then(|name| curve(&intervals, name, &rate_name)).into_iter().collect(),
        strip,
        ..over_seconds()
    };
    let open = Plot {
        title: "Open connections over time",
        y_name: "connections",
        show_y: |value| show_count(value.round() as u64),
        curves: open.into_iter().collect(),
        ..over_seconds()
    };
    let times = [("p50_us", "p50"), ("p99_us", "p99"), ("max_us", "max")];
    let times = times.into_iter().filter_map(|(field, name)| curve(&intervals, field, name));
    let times: Vec<Curve> = times.collect();
    let values =
        || times.iter().flat_map(|curve| &curve.points).map(|(_, y)| *y).filter(|y| *y > 0.0);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let is_wide = high > low * SPREAD_MAX;
    let latency = Plot {
        title: "Latency over time",
        y_name: if is_wide { "time (logarithmic)" } else { "time" },
        y_scale: if is_wide { Scale::Logarithmic } else { Scale::Linear },
        show_y: show_us,
        curves: times,
        ..over_seconds()
    };
    let lag = Plot {
        title: "Schedule lag over time",
        y_name: "lag",
        show_y: show_us,
        curves: curve(&intervals, "lag_p99_us", "p99 of the schedule lag").into_iter().collect(),
        ..over_seconds()
    };
    section("Over time", &[rates, open, latency, lag].map(|plot| plot.svg()).concat())
}

/// Returns an empty plot over time.
fn over_seconds<'a>() -> Plot<'a> {
    Plot {
        title: "",
        x_name: "time since the start (s)",
        y_name: "",
        x_ticks: Vec::new(),
        y_scale: Scale::Linear,
        show_y: show_us,
        show_x: |x| format!("{x:.1} s"),
        curves: Vec::new(),
        strip: None,
    }
}

fn curve(intervals: &[Value], field: &str, name: &str) -> Option<Curve> {
    let point = |of: &Value| Some((of["elapsed_s"].as_f64()?, of[field].as_f64()?));
    let points: Vec<_> = intervals.iter().filter_map(point).collect();
    (!points.is_empty()).then(|| Curve { name: name.into(), points })
}

/// Combines intervals if there are too many: sums counts, averages rates, takes the largest time.
fn coarse(intervals: &[Value]) -> Vec<Value> {
    let together = intervals.len().div_ceil(SECONDS_MAX).max(1);
    intervals.chunks(together).map(taken_together).collect()
}

fn taken_together(intervals: &[Value]) -> Value {
    let mut all = intervals[0].clone();
    let Some(fields) = all.as_object_mut().filter(|_| intervals.len() > 1) else { return all };
    for (name, value) in fields {
        let values: Vec<f64> =
            intervals.iter().filter_map(|interval| interval[name].as_f64()).collect();
        let sum: f64 = values.iter().sum();
        *value = match (values.is_empty(), name) {
            (true, _) => Value::Null,
            (_, name)
                if name.ends_with("_us") || name.ends_with("_s") && !name.ends_with("per_s") =>
            {
                values.iter().copied().fold(0.0, f64::max).into()
            }
            (_, name) if name.ends_with("per_s") || name == "open" => {
                (sum / values.len() as f64).into()
            }
            _ => (sum as u64).into(),
        };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_run_is_drawn_in_coarser_steps() {
        let seconds: Vec<Value> = (1..=1_500)
            .map(|second| {
                let replies_per_s = 10 * second;
                json!({ "elapsed_s": second, "replies_per_s": replies_per_s, "p99_us": second,
                        "errors": 1 })
            })
            .collect();
        let coarse = coarse(&seconds);
        assert_eq!(coarse.len(), 500);
        assert_eq!(
            coarse[0],
            json!({ "elapsed_s": 3.0, "replies_per_s": 20.0, "p99_us": 3.0, "errors": 3 })
        );
        let html = over_time(&json!({ "intervals": seconds }));
        assert!(html.contains("Rate and errors over time") && html.contains("errors: 3"));
    }

    #[test]
    fn percentiles_are_drawn_without_a_histogram_too() {
        let report = json!({ "service_time_us": {
            "samples": 100, "min": 10.0, "p50": 20.0, "p90": 30.0, "p99": 40.0, "p99.9": 50.0,
        } });
        let html = percentiles(&report);
        assert!(
            html.contains("99.9%") && html.contains("service time, 90.0000%: 30.0 µs"),
            "{html}"
        );
        assert_eq!(percentiles(&json!({})), "");
        assert_eq!(over_time(&json!({ "intervals": [{ "elapsed_s": 1 }] })), "");
    }
}
