//! Text output of a load run: one line per second, and the summary at the end.

use crate::report::{Interval, Pacing, Plan, Report};
use ringload_lifecycle::fault::ErrorKind;
use ringload_lifecycle::report::Outcome;
use ringload_lifecycle::rows::{self, Rows, below, list};
use ringload_lifecycle::units::{plural, show_bytes, show_count, show_us};
use std::time::Duration;

/// Shorter runs show no CPU time, because the kernel counts it in ticks.
const CPU_SHOWN_MIN_S: f64 = 0.1;

/// Returns the line that describes the run before it starts.
#[must_use]
pub fn opening(plan: &Plan, seed: u64) -> String {
    let until = match (plan.requests, plan.duration_s) {
        (Some(requests), _) => format!("{} requests", show_count(requests)),
        (None, seconds) => {
            format!("{:?}", Duration::from_secs_f64(seconds.unwrap_or_default()))
        }
    };
    let mut text = format!(
        "ringload {} {}: {}, {}, {until}, seed {seed}",
        plan.protocol,
        plan.target,
        plural(plan.connections, "connection"),
        plural(plan.threads, "thread"),
    );
    if let Some(bytes) = plan.size_bytes {
        text += &format!(", messages of {bytes} bytes");
    }
    if let Some(every @ 1..) = plan.digest_every {
        text += &format!(", 1 request in {every} is a digest");
    }
    if plan.pipeline > 1 {
        text += &format!(", {} requests in flight each", plan.pipeline);
    }
    if let (Some(rate), Some(arrivals)) = (plan.rate.or(plan.conn_rate), plan.arrivals) {
        let what = if plan.rate.is_some() { "requests" } else { "connections" };
        text += &format!(", {rate} {what} per second ({arrivals})");
    }
    if let (Some(stages), Some(arrivals)) = (&plan.stages, plan.arrivals) {
        text += &format!(", requests per second: {stages} ({arrivals})");
    }
    if let Some(requests) = plan.requests_per_connection {
        text += &format!(", {} per connection", plural(requests, "request"));
    }
    text
}

/// Returns the heading of the lines of [`line()`].
#[must_use]
pub fn heading() -> String {
    format!(
        "{:>8}  {:>11}  {:>10}  {:>8}  {:>9}  {:>9}  {:>7}",
        "elapsed", "replies", "replies/s", "MB/s", "p50", "p99", "errors"
    )
}

/// Returns the line of one interval; `replies` counts from the start of the run.
#[must_use]
pub fn line(interval: &Interval, replies: u64) -> String {
    let time = |us| if interval.replies == 0 { "-".into() } else { show_us(us) };
    format!(
        "{:>7.1}s  {:>11}  {:>10}  {:>8.1}  {:>9}  {:>9}  {:>7}",
        interval.elapsed_s,
        show_count(replies),
        show_count(interval.replies_per_s as u64),
        interval.received_bytes_per_s / 1e6,
        time(interval.p50_us),
        time(interval.p99_us),
        show_count(interval.errors)
    )
}

/// Returns the summary of a run.
#[must_use]
pub fn summary(report: &Report) -> String {
    let mut rows = Rows::default();
    let (replies, per_s) = (show_count(report.replies), show_count(report.replies_per_s as u64));
    let elapsed_s = report.elapsed_s;
    rows.add("replies", format_args!("{replies} in {elapsed_s:.2} s: {per_s} per second"));
    rows.add("bytes", bytes(report));
    rows.add("connections", connections(report));
    rows.add_some("schedule", schedule(report));
    for (name, what) in [
        ("latency", report.latency_us.as_ref()),
        ("service time", Some(&report.service_time_us)),
        ("connect time", Some(&report.connect_time_us)),
        ("first byte", report.first_byte_us.as_ref()),
        ("session", report.session_us.as_ref()),
        ("schedule lag", report.schedule_lag_us.as_ref()),
    ] {
        rows.add_some(name, what.map(|times| rows::times(times, "none")));
    }
    let statuses = list(report.statuses.iter());
    rows.add_some("statuses", Some(statuses).filter(|text| !text.is_empty()));
    if report.deviating_bodies > 0 {
        let (deviating, replies) =
            (show_count(report.deviating_bodies), show_count(report.replies));
        let what = "replies had another body than others with their status";
        rows.add("bodies", format_args!("{deviating} of {replies} {what}"));
    }
    if report.elapsed_s >= CPU_SHOWN_MIN_S {
        rows.add("own CPU", own_cpu(report));
    }
    rows.add_some("ring", report.environment.ring.as_ref());
    rows.add_count("unfinished", report.unfinished, "requests had no reply at the end");
    rows.add_count("lost", report.lost, "requests had no reply when their connection ended");
    rows.add_count(
        "repeated",
        report.repeated,
        "requests, because the server ended a kept connection before any byte of the reply",
    );
    rows.add_some("by the server", ends(report));
    let network = list(report.network.iter());
    if !network.is_empty() {
        rows.add("network", format_args!("{network} (of the whole network namespace)"));
    }
    rows.add("errors", errors(report));
    rows.text() + &verdict(report)
}

fn bytes(report: &Report) -> String {
    format!(
        "{} received ({}/s), {} sent",
        show_bytes(report.received_bytes as f64),
        show_bytes(report.received_bytes_per_s),
        show_bytes(report.sent_bytes as f64)
    )
}

/// Describes how far the run kept to its schedule.
fn schedule(report: &Report) -> Option<String> {
    let (intended, unsent) = (report.intended?, report.unsent?);
    let mut text = match report.sessions {
        None => format!("{} requests were due", show_count(intended)),
        Some(sessions) => format!(
            "{} connections were due, {} had all their replies",
            show_count(intended),
            show_count(sessions)
        ),
    };
    if unsent > 0 {
        let why = match report.sessions {
            None => "no connection was free",
            Some(_) => "the limit --connections was reached",
        };
        text += &format!("; {} were dropped because {why}", show_count(unsent));
    }
    Some(text)
}

/// Lists how often the server closed a connection cleanly or refused one.
fn ends(report: &Report) -> Option<String> {
    let counts = [
        ("idle connections closed", report.closed_idle),
        ("connects refused", report.refused),
        ("requests unanswered at close", report.unanswered_at_close),
        ("disconnects", report.disconnects),
    ];
    let text = list(counts.iter().map(|(name, count)| (name, count)));
    Some(text).filter(|text| !text.is_empty())
}

fn connections(report: &Report) -> String {
    let mut text = format!(
        "{} opened, {:.1} requests each",
        show_count(report.connections_opened),
        report.requests_per_connection
    );
    // A run with fewer requests than connections needs fewer connections.
    let useful = report.plan.connections.min(report.plan.requests.unwrap_or(u64::MAX));
    let are_kept = report.plan.pacing != Pacing::Connections;
    if are_kept && report.connections_opened < useful {
        text += &format!("; --connections was {}", show_count(report.plan.connections));
    }
    text
}

fn verdict(report: &Report) -> String {
    let text = match report.outcome {
        Outcome::Passed => match report.plan.pacing {
            Pacing::Closed => {
                "Closed loop: times are service times; a slow server receives fewer requests."
            }
            Pacing::Requests => {
                "Open loop: latency is measured from the scheduled time of each request."
            }
            Pacing::Connections => {
                "Open loop: all times but the service time are measured from the scheduled time of \
                 each connection."
            }
        },
        Outcome::Failed if report.errors_total == 0 => "FAILED: no reply was received.",
        Outcome::Failed => "FAILED: errors were seen.",
        Outcome::Unreachable => "FAILED: no connection could be established.",
        Outcome::Saturated => "INVALID: ringload was the bottleneck.",
        Outcome::Interrupted => "INTERRUPTED: the figures cover the run up to then.",
    };
    match &report.bottleneck {
        None => format!("{text}\n"),
        Some(why) => format!("{text}\n  {why}\n"),
    }
}

fn own_cpu(report: &Report) -> String {
    let spent = report.cpu_user_s + report.cpu_system_s;
    let per_reply = |seconds: f64| match report.replies {
        0 => "-".into(),
        replies => show_us(seconds * 1e6 / replies as f64),
    };
    format!(
        "{:.0}% of a core; per reply {} in ringload, {} in the kernel",
        100.0 * spent / report.elapsed_s.max(f64::MIN_POSITIVE),
        per_reply(report.cpu_user_s),
        per_reply(report.cpu_system_s)
    )
}

/// Lists the error counts and the first message of each kind.
fn errors(report: &Report) -> String {
    if report.errors_total == 0 {
        return "none".into();
    }
    let kinds = ErrorKind::ALL.map(ErrorKind::name);
    let mut text = list(kinds.iter().map(|kind| (kind, &report.errors[kind])));
    for kind in kinds {
        if let Some(first) = report.first_errors.get(kind) {
            text += &below(format_args!("first {kind}: {first}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{sample, sample_of};

    #[test]
    fn the_summary_says_what_was_seen() {
        let text = summary(&sample());
        for part in [
            "1,000,000 in 10.00 s: 100,000 per second",
            "230 MB received (23.0 MB/s), 40.0 MB sent",
            "70 opened, 14300.0 requests each",
            "p50 412 µs, p90 412 µs, p99 412 µs, p99.9 412 µs, max 2.00 ms",
            "200: 999,990, 404: 10",
            "60% of a core; per reply 1.00 µs in ringload, 5.00 µs in the kernel",
            "3 requests had no reply",
            "eof: 1, bad_status: 10\n",
            "first eof: connection 3: closed\n",
            "first bad_status: status 404\n",
            "FAILED: errors were seen.\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn a_good_run_says_what_its_times_are() {
        let mut report = sample();
        (report.outcome, report.errors_total) = (Outcome::Passed, 0);
        let text = summary(&report);
        assert!(text.contains("errors        none\n") && text.contains("service times"), "{text}");
    }

    #[test]
    fn times_that_there_are_none_of_are_not_shown_as_zero() {
        let mut report = sample();
        report.connect_time_us.samples = 0;
        assert!(summary(&report).contains("connect time  none\n"));
    }

    #[test]
    fn cpu_time_of_a_moment_is_not_shown() {
        let mut report = sample();
        assert!(summary(&report).contains("own CPU"));
        report.elapsed_s = 0.09;
        assert!(!summary(&report).contains("own CPU"));
    }

    #[test]
    fn connections_that_did_not_come_about_are_missed() {
        let mut report = sample();
        assert!(!summary(&report).contains("--connections"));
        report.plan.connections = 9_000;
        assert!(
            summary(&report).contains("70 opened, 14300.0 requests each; --connections was 9,000")
        );
    }

    #[test]
    fn a_run_on_schedule_says_how_far_it_was_kept_to() {
        let text = summary(&sample_of(Pacing::Requests));
        for part in [
            "schedule      1,001,010 requests were due; 10 were dropped because no connection was \
             free\n",
            "latency       p50 512 µs",
            "service time  p50 412 µs",
            "schedule lag  p50 60.0 µs",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        let text = summary(&sample_of(Pacing::Connections));
        for part in
            ["connections were due, 69 had all", "first byte    p50 700", "session       p50"]
        {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(!summary(&sample()).contains("schedule"));
    }

    #[test]
    fn a_run_that_measured_ringload_says_so() {
        let mut report = sample_of(Pacing::Requests);
        (report.outcome, report.errors_total) = (Outcome::Saturated, 0);
        report.bottleneck = Some("it was late".into());
        assert!(
            summary(&report).ends_with("INVALID: ringload was the bottleneck.\n  it was late\n")
        );
    }

    #[test]
    fn what_is_no_error_and_what_the_network_did_is_shown_if_there_was_any() {
        let mut report = sample();
        let text = summary(&report);
        assert!(!text.contains("by the server") && !text.contains("network"), "{text}");
        (report.closed_idle, report.unanswered_at_close) = (3, 2);
        (report.repeated, report.disconnects) = (6, 5);
        report.network = [("listen_overflows", 4), ("resets_sent", 0)].into();
        let text = summary(&report);
        assert!(
            text.contains(
                "by the server idle connections closed: 3, requests unanswered at close: 2, \
                 disconnects: 5\n"
            ) && text.contains("repeated      6 requests, because")
                && text.contains("network       listen_overflows: 4 (of the whole"),
            "{text}"
        );
    }

    #[test]
    fn lines_stand_under_their_heading() {
        let report = sample();
        let text = line(&report.intervals[0], 2_000_000);
        assert_eq!(text.chars().count(), heading().chars().count());
        assert!(text.contains("2,000,000") && text.contains("412 µs"), "{text}");
        let nothing = line(&Interval { replies: 0, ..report.intervals[0] }, 2_000_000);
        assert_eq!(nothing.chars().count(), heading().chars().count());
        assert!(!nothing.contains("µs"), "{nothing}");
    }

    #[test]
    fn the_opening_names_the_plan() {
        let mut plan = sample().plan;
        assert_eq!(
            opening(&plan, 7),
            "ringload http http://127.0.0.1:8080/: 64 connections, 1 thread, 10s, seed 7"
        );
        (plan.requests, plan.duration_s, plan.pipeline) = (Some(5_000), None, 4);
        (plan.requests_per_connection, plan.size_bytes, plan.connections) = (Some(1), Some(64), 1);
        plan.digest_every = Some(4);
        assert!(opening(&plan, 7).ends_with(
            "1 connection, 1 thread, 5,000 requests, seed 7, messages of 64 bytes, \
             1 request in 4 is a digest, \
             4 requests in flight each, 1 request per connection"
        ));
    }
}
