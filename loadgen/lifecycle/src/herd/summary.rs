//! Text output of `ringload idle`.

use super::report::{HerdPlan, HerdReport};
use super::tally::HerdInterval;
use crate::report::{Outcome, Times};
use crate::rows::{self, Rows, below, list};
use crate::units::{show_count, show_text, show_us};
use std::time::Duration;

/// Maximum number of losses that the summary lists.
const LOSSES_SHOWN_MAX: usize = 5;
/// The summary mentions a schedule lag from this p99 on, microseconds.
const LAG_SHOWN_MIN_US: f64 = 10_000.0;

/// Returns the line that describes the run before it starts.
#[must_use]
pub fn opening(plan: &HerdPlan, seed: u64) -> String {
    let seconds = Duration::from_secs_f64;
    let mut text = format!(
        "ringload idle {} ({}): {} connections held for {:?}, each probed every {:?}, seed {seed}",
        plan.target,
        plan.protocol,
        show_count(plan.connections),
        seconds(plan.hold_s),
        seconds(plan.probe_every_s),
    );
    if plan.source_addresses > 1 {
        text += &format!(", from {} addresses", plan.source_addresses);
    }
    if let Some(rate) = plan.conn_rate {
        text += &format!(", {rate} connects per second");
    }
    text
}

/// Returns the heading of the lines of [`line()`].
#[must_use]
pub fn heading() -> String {
    format!(
        "{:>8}  {:>10}  {:>9}  {:>9}  {:>7}  {:>7}  {:>8}  {:>8}  {:>9}  {:>9}",
        "elapsed",
        "phase",
        "connected",
        "open",
        "failed",
        "lost",
        "probes",
        "answers",
        "p50",
        "p99"
    )
}

/// Returns the line of one interval.
#[must_use]
pub fn line(interval: &HerdInterval) -> String {
    let time = |us| if interval.answers == 0 { "-".into() } else { show_us(us) };
    format!(
        "{:>7.1}s  {:>10}  {:>9}  {:>9}  {:>7}  {:>7}  {:>8}  {:>8}  {:>9}  {:>9}",
        interval.elapsed_s,
        interval.phase.name(),
        show_count(interval.connected),
        show_count(interval.open),
        show_count(interval.failed),
        show_count(interval.lost),
        show_count(interval.probes),
        show_count(interval.answers),
        time(interval.p50_us),
        time(interval.p99_us),
    )
}

/// Returns the summary of a run.
#[must_use]
pub fn summary(report: &HerdReport) -> String {
    let mut rows = Rows::default();
    let of = |times: &Times| rows::times(times, "no samples");
    let (connected, wanted) = (show_count(report.connected), show_count(report.plan.connections));
    let per_s = show_count(report.connects_per_s as u64);
    let ramp_s = report.ramp_s;
    rows.add(
        "connections",
        format_args!("{connected} of {wanted} in {ramp_s:.2} s: {per_s} per second"),
    );
    rows.add("connect time", of(&report.connect_time_us));
    let (probes, answers) = (show_count(report.probes), show_count(report.answers));
    rows.add("probes", format_args!("{probes} sent, {answers} answered"));
    rows.add("probe time", of(&report.probe_time_us));
    let (answered, times) = (show_count(report.answered_last), of(&report.last_round_time_us));
    rows.add("last round", format_args!("{answered} answered; {times}"));
    if report.schedule_lag_us.p99 >= LAG_SHOWN_MIN_US {
        let lag = of(&report.schedule_lag_us);
        rows.add("schedule lag", format_args!("{lag}: ringload was late"));
    }
    if let Some(bytes) = report.memory_bytes_per_connection {
        rows.add("own memory", format_args!("{} bytes per connection", show_count(bytes)));
    }
    rows.add_count("unfinished", report.unfinished, "probes without an answer");
    if report.drained > 0 || report.refused > 0 {
        let counts = [report.drained, report.unanswered_at_close, report.refused].map(show_count);
        let [drained, unanswered, refused] = counts;
        rows.add(
            "drained",
            format_args!(
                "{drained} closed cleanly by the server, {unanswered} of them during a probe; \
                 {refused} connects refused"
            ),
        );
    }
    rows.add("not connected", failed(report));
    rows.add("lost", lost(report));
    rows.add_some("hint", report.hint.as_ref());
    rows.text() + &verdict(report)
}

fn failed(report: &HerdReport) -> String {
    if report.connects_failed_total == 0 {
        return "none".into();
    }
    let mut text = list(&report.connects_failed);
    for (kind, first) in &report.first_connects_failed {
        text += &below(format_args!("first {kind}: {}", show_text(first)));
    }
    text
}

/// Lists the counts and the first losses.
fn lost(report: &HerdReport) -> String {
    if report.lost_total == 0 {
        return "none".into();
    }
    let mut text = list(&report.lost);
    for loss in report.losses.iter().take(LOSSES_SHOWN_MAX) {
        let answers = match loss.answers {
            0 => "never answered".into(),
            1 => "1 answer".into(),
            answers => format!("{} answers", show_count(answers)),
        };
        text += &below(format_args!(
            "at {:.1} s connection {} ({:.1} s old, {answers}, silent for {:.1} s): {}",
            loss.at_s,
            loss.connection,
            loss.age_s,
            loss.silent_s,
            show_text(&loss.detail),
        ));
    }
    let more = report.lost_total.saturating_sub(LOSSES_SHOWN_MAX as u64);
    if more > 0 {
        text += &below(format_args!("and {} more", show_count(more)));
    }
    text
}

fn verdict(report: &HerdReport) -> String {
    match report.outcome {
        Outcome::Passed => {
            let there = if report.drained == 0 { "All " } else { "" };
            format!(
                "{there}{} connections answered at the end.\n",
                show_count(report.answered_last)
            )
        }
        Outcome::Failed => {
            let missing = report.lost_total + report.connects_failed_total;
            format!(
                "FAILED: {} connections were lost or could not be established.\n",
                show_count(missing)
            )
        }
        Outcome::Unreachable => "FAILED: no connection could be established.\n".into(),
        Outcome::Saturated => "INVALID: ringload was the bottleneck.\n".into(),
        Outcome::Interrupted => "INTERRUPTED: the figures cover the run up to then.\n".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{kept, plan, report};
    use super::*;

    #[test]
    fn the_summary_says_what_was_seen() {
        let text = summary(&report(&kept()));
        for part in [
            "9,990 of 10,000 in 10.00 s: 999 per second",
            "60,000 sent, 59,998 answered",
            "p50 412 µs",
            "9,987 answered; p50 2.00 ms",
            "1 closed cleanly by the server, 0 of them during a probe; 4 connects refused",
            "200 bytes per connection",
            "refused: 10\n",
            "first refused: connection 5: refused",
            "reset: 2\n",
            "at 31.5 s connection 17 (30.2 s old, 3 answers, silent for 4.0 s): receive: reset",
            "FAILED: 12 connections were lost or could not be established.\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(!text.contains("schedule lag") && !text.contains("hint"), "{text}");
    }

    #[test]
    fn what_ringload_did_too_late_is_said() {
        let mut report = report(&kept());
        report.schedule_lag_us.p99 = 20_000.0;
        report.hint = Some("a timer".into());
        let text = summary(&report);
        assert!(text.contains("ringload was late") && text.contains("hint          a timer"));
    }

    #[test]
    fn lines_stand_under_their_heading() {
        let report = report(&kept());
        let text = line(&report.intervals[0]);
        assert_eq!(text.chars().count(), heading().chars().count());
        assert!(text.contains("ramp") && text.contains("9,987"), "{text}");
    }

    #[test]
    fn the_opening_names_the_plan() {
        assert_eq!(
            opening(&plan(), 7),
            "ringload idle http://localhost:8080/ (http): 10,000 connections held for 60s, each \
             probed every 10s, seed 7, from 2 addresses, 1,000 connects per second"
        );
    }
}
