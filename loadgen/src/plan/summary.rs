//! Text output of a plan: a table of its parts, and the errors.

use super::report::{PartReport, PlanReport, ServerReport};
use ringload_lifecycle::report::Outcome;
use ringload_lifecycle::units::{show_count, show_text, show_us};
use serde_json::Value;
use std::fmt::Write;

/// Returns the summary of a plan.
#[must_use]
pub fn summary(report: &PlanReport) -> String {
    let mut text = String::new();
    let mut line = |what: String| {
        writeln!(text, "{}", what.trim_end()).expect("writing to a string does not fail");
    };
    let widest = |of: fn(&PartReport) -> &str, least: usize| {
        report.parts.iter().map(|part| of(part).len()).max().unwrap_or_default().max(least)
    };
    let phase_of = |part: &PartReport| part.phase.clone().unwrap_or_else(|| "-".into());
    let (names, phases) =
        (widest(|part| &part.name, 4), widest(|part| part.phase.as_deref().unwrap_or_default(), 5));
    line(format!("{:<names$}  {:<phases$}  exit  {:<11}  figures", "part", "phase", "verdict"));
    for part in &report.parts {
        let exit = part.exit_status.map_or_else(|| "-".into(), |status| status.to_string());
        line(format!(
            "{:<names$}  {:<phases$}  {exit:>4}  {:<11}  {}",
            part.name,
            phase_of(part),
            part.verdict,
            figures(&part.report)
        ));
    }
    for event in &report.events {
        let done = event
            .done_s
            .map_or_else(|| "not reached".into(), |done_s| format!("done at {done_s:.2} s"));
        let error = event.error.as_ref().map(|error| format!(": FAILED: {}", words(error)));
        line(format!("{} {done}{}", show_text(&event.what), error.unwrap_or_default()));
    }
    if let Some(server) = &report.server {
        line(server_line(server));
    }
    for part in report.parts.iter().filter(|part| !matches!(part.verdict, "passed" | "interrupted"))
    {
        line(format!("\n{}: {}", part.name, show_text(&part.command)));
        if let Some(error) = &part.error {
            line(format!("  {}", words(error)));
        }
        part.last_words.iter().for_each(|said| line(format!("  {}", show_text(said))));
    }
    line(verdict(report));
    text
}

fn verdict(report: &PlanReport) -> String {
    let wrong = report.parts.iter().filter(|part| part.verdict != "passed").count();
    let parts = report.parts.len();
    match report.outcome {
        Outcome::Passed => format!("All {parts} parts passed in {:.1} s.", report.elapsed_s),
        Outcome::Failed if wrong == 0 => {
            "FAILED: all parts passed, but the server or an event failed.".into()
        }
        Outcome::Failed => format!("FAILED: {wrong} of {parts} parts did not pass."),
        Outcome::Unreachable => "FAILED: no connection could be established.".into(),
        Outcome::Saturated => "INVALID: ringload was the bottleneck.".into(),
        Outcome::Interrupted => "INTERRUPTED: the figures cover the run up to then.".into(),
    }
}

fn server_line(server: &ServerReport) -> String {
    let mut text = format!("server: {} (process {})", show_text(&server.server), server.pid);
    if let (Some(signal), Some(drain_s)) = (server.told, server.drain_s) {
        text += &format!(" ended {drain_s:.2} s after {signal}");
    }
    if let Some(status) = server.exit_status {
        text += &format!(", status {status}");
    }
    if let Some(error) = &server.error {
        text += &format!(": FAILED: {}", words(error));
    }
    text
}

/// Makes a text of several lines safe for a terminal.
fn words(text: &str) -> String {
    text.lines().map(show_text).collect::<Vec<_>>().join("\n")
}

/// Returns the most important figures of a report of any kind.
fn figures(report: &Value) -> String {
    let count = |name: &str| show_count(report[name].as_u64().unwrap_or_default());
    let p99 = |times: &Value| show_us(times["p99"].as_f64().unwrap_or_default());
    match report["kind"].as_str() {
        Some("load") => {
            let times =
                if report["latency_us"].is_object() { "latency_us" } else { "service_time_us" };
            let mut text = format!(
                "{} replies, {} per second, p99 {}, {} errors",
                count("replies"),
                show_count(report["replies_per_s"].as_f64().unwrap_or_default() as u64),
                p99(&report[times]),
                count("errors_total")
            );
            for (name, what) in [
                ("unanswered_at_close", "unanswered at a clean close"),
                ("refused", "connects refused"),
                ("repeated", "requests repeated"),
                ("disconnects", "expected disconnects"),
                ("deviating_bodies", "replies with another body"),
            ] {
                if report[name].as_u64() > Some(0) {
                    text += &format!(", {} {what}", count(name));
                }
            }
            text
        }
        Some("idle") => {
            let mut text = format!(
                "{} connected, {} answered at the end, {} lost, p99 {}",
                count("connected"),
                count("answered_last"),
                count("lost_total"),
                p99(&report["probe_time_us"])
            );
            if report["drained"].as_u64() > Some(0) {
                text += &format!(", {} closed cleanly by the server", count("drained"));
            }
            text
        }
        Some("transfer" | "transfers") => format!("{} bytes", count("transferred_bytes")),
        Some("churn") => format!(
            "{} scripts on {} connections, {} findings",
            count("scripts"),
            count("connections"),
            count("findings_total")
        ),
        Some(other) => show_text(other),
        None => "no report".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn parts_stand_in_a_table() {
        let text = summary(&report([0, 0]));
        for part in [
            "part   phase  exit  verdict      figures\n",
            "one    storm     0  passed       1,000,000 replies, 100,000 per second, p99 412 µs",
            "signal TERM done at 5.00 s\n",
            "server: ringwrightd http (process 42) ended 0.50 s after TERM, status 0\n",
            "All 2 parts passed in 10.2 s.\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn a_part_that_failed_is_told_with_its_command_and_its_words() {
        let text = summary(&report([0, 1]));
        assert!(text.contains("\nother: ringload http http://127.0.0.1:8080/ # other\n"), "{text}");
        assert!(text.contains("\n  FAILED: errors were seen.\n"), "{text}");
        assert!(text.ends_with("FAILED: 1 of 2 parts did not pass.\n"), "{text}");
        assert!(!text.contains("\none: "), "{text}");
    }
}
