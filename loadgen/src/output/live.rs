//! The live view of a run of load.

use super::screen::Picture;
use super::show::show_us;
use crate::protocol::ErrorKind;
use crate::report::{Pacing, Run, Times};
use crate::units::{show_bytes, show_count};
use std::time::Duration;

/// What a run of load looks like, `done` of it being over.
#[must_use]
pub fn picture(
    title: &str,
    pacing: Pacing,
    run: &Run,
    elapsed: Duration,
    done: Option<f64>,
) -> Picture {
    let stats = &run.stats;
    let last = run.intervals.last();
    let (name, times) = match pacing {
        Pacing::Closed => ("service time", &stats.service_ns),
        Pacing::Requests => ("latency", &stats.latency_ns),
        Pacing::Connections => ("session", &stats.session_ns),
    };
    let times = Times::of(times);
    let mut figures: Vec<(String, String)> = vec![
        ("replies".into(), show_count(stats.replies)),
        ("received".into(), show_bytes(stats.bytes_received as f64)),
        ("connections".into(), format!("{} opened", show_count(stats.opened))),
    ];
    if let Some(last) = last {
        figures.push(("last second".into(), rate(last.replies_per_s)));
    }
    if times.samples > 0 {
        let places = [
            ("p50", times.p50),
            ("p90", times.p90),
            ("p99", times.p99),
            ("p99.9", times.p99_9),
            ("max", times.max),
        ];
        figures.push((name.into(), String::new()));
        figures.extend(places.map(|(place, us)| (format!("  {place}"), show_us(us))));
    }
    Picture {
        title: title.into(),
        elapsed,
        done,
        figures,
        curve_name: "replies per second".into(),
        curve: run.intervals.iter().map(|interval| interval.replies_per_s as u64).collect(),
        wrong: ErrorKind::ALL.map(|kind| (kind.name().to_string(), stats.errors.of(kind))).to_vec(),
        matrix: None,
    }
}

fn rate(per_s: f64) -> String {
    format!("{} replies per second", show_count(per_s as u64))
}
