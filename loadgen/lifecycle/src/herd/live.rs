//! The content of the live view.

use super::tally::HerdInterval;
use crate::screen::Picture;
use crate::units::{show_count, show_us};
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::herd::tally::Phase;

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
}
