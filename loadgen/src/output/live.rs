//! The content of the live views.

use super::screen::Picture;
use super::show::show_us;
use crate::herd::tally::HerdInterval;
use crate::protocol::ErrorKind;
use crate::report::{Interval, Pacing, Times};
use crate::stats::Stats;
use crate::units::{show_bytes, show_count};
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

/// Returns the view of `ringload idle` after these intervals.
#[must_use]
pub fn herd(title: &str, seconds: &[HerdInterval]) -> Picture {
    let Some(last) = seconds.last() else { return Picture::default() };
    let sum = |of: fn(&HerdInterval) -> u64| seconds.iter().map(of).sum();
    let mut figures: Vec<(String, String)> = vec![
        ("phase".into(), last.phase.name().into()),
        ("open".into(), show_count(last.open)),
        ("connected".into(), show_count(last.connected)),
        ("probes".into(), format!("{} in the last second", show_count(last.probes))),
        ("answers".into(), format!("{} in the last second", show_count(last.answers))),
    ];
    if last.answers > 0 {
        let places = [("  p50", last.p50_us), ("  p99", last.p99_us)];
        figures.extend(places.map(|(place, us)| (place.into(), show_us(us))));
    }
    Picture {
        title: title.into(),
        elapsed: Duration::try_from_secs_f64(last.elapsed_s).unwrap_or_default(),
        done: None,
        figures,
        curve_name: "answers per second".into(),
        curve: seconds.iter().map(|second| second.answers).collect(),
        wrong: vec![
            ("not connected".into(), sum(|second| second.failed)),
            ("lost".into(), sum(|second| second.lost)),
        ],
        matrix: None,
    }
}

fn rate(per_s: f64) -> String {
    format!("{} replies per second", show_count(per_s as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::herd::tally::Phase;
    use crate::protocol::Fault;
    use crate::stats::Stats;

    #[test]
    fn the_picture_of_a_herd_has_all_that_were_lost() {
        let second = HerdInterval {
            elapsed_s: 1.0,
            phase: Phase::Hold,
            open: 90,
            connected: 100,
            failed: 2,
            lost: 3,
            probes: 10,
            answers: 9,
            p50_us: 100.0,
            p99_us: 200.0,
        };
        let picture =
            herd("idle", &[second, HerdInterval { elapsed_s: 2.0, answers: 7, ..second }]);
        assert_eq!((picture.elapsed, picture.curve), (Duration::from_secs(2), vec![9, 7]));
        assert_eq!(picture.wrong, [("not connected".into(), 4), ("lost".into(), 6)]);
    }

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
