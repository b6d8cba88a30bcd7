//! The content of the live view of a load run.

use crate::report::{Interval, Pacing};
use crate::stats::Stats;
use ringload_lifecycle::fault::ErrorKind;
use ringload_lifecycle::report::Times;
use ringload_lifecycle::screen::Picture;
use ringload_lifecycle::units::{show_bytes, show_count, show_us};
use std::time::Duration;

/// Returns the view of a load run; `done` is the completed fraction.
#[must_use]
pub fn load(
    title: &str,
    pacing: Pacing,
    stats: &Stats,
    seconds: &[Interval],
    elapsed: Duration,
    done: Option<f64>,
) -> Picture {
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
    if let Some(last) = seconds.last() {
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
        curve: seconds.iter().map(|second| second.replies_per_s as u64).collect(),
        wrong: ErrorKind::ALL.map(|kind| (kind.name().to_string(), stats.errors.of(kind))).to_vec(),
        matrix: None,
    }
}

fn rate(per_s: f64) -> String {
    format!("{} replies per second", show_count(per_s as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;
    use ringload_lifecycle::fault::Fault;

    #[test]
    fn the_picture_of_a_load_has_its_times_and_errors() {
        let mut stats = Stats::new();
        stats.service_ns.saturating_record(412_000);
        stats.errors.count(Fault::new(ErrorKind::Reset, "reset"));
        let picture = load("echo", Pacing::Closed, &stats, &[], Duration::ZERO, Some(0.5));
        assert!(picture.figures.contains(&("  p50".into(), "412 µs".into())), "{picture:?}");
        assert!(picture.wrong.contains(&("reset".into(), 1)), "{picture:?}");
        let picture = load("echo", Pacing::Requests, &stats, &[], Duration::ZERO, None);
        assert!(!picture.figures.iter().any(|(name, _)| name == "latency"), "there is none yet");
    }
}
