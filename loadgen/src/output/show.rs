//! The summary of a report of any kind that was read from a file.

use crate::report::reading;
use ringload_lifecycle::rows::Rows;
use ringload_lifecycle::units::{show_bytes, show_count, show_text, show_us};
use serde_json::Value;

/// Maximum number of findings listed.
const EXAMPLES_MAX: usize = 20;

/// Returns the summary of a report.
#[must_use]
pub fn summary(report: &Value) -> String {
    let mut rows = Rows::default();
    rows.add("run", headline(report));
    if let (Some(replies), Some(rate)) =
        (report["replies"].as_u64(), report["replies_per_s"].as_f64())
    {
        let seconds = report["elapsed_s"].as_f64().unwrap_or_default();
        let (replies, rate) = (show_count(replies), show_count(rate as u64));
        rows.add("replies", format_args!("{replies} in {seconds:.2} s: {rate} per second"));
    }
    if let Some(received) = report["received_bytes"].as_f64() {
        let (received, sent) = (show_bytes(received), report["sent_bytes"].as_f64());
        let sent = show_bytes(sent.unwrap_or_default());
        rows.add("bytes", format_args!("{received} received, {sent} sent"));
    }
    for (of, times) in reading::distributions(report) {
        rows.add(of.title, show_times(times));
    }
    rows.add_some("ring", report["environment"]["ring"].as_str().map(show_text));
    for (name, title) in [
        ("statuses", "statuses"),
        ("errors", "errors"),
        ("connects_failed", "not connected"),
        ("lost", "lost"),
        ("findings", "findings"),
    ] {
        rows.add_some(title, counts(&report[name]));
    }
    for (name, title) in [
        ("repeated", "repeated"),
        ("disconnects", "disconnects"),
        ("deviating_bodies", "other bodies"),
        ("vanished", "vanished"),
        ("not_played", "not played"),
    ] {
        rows.add_some(title, report[name].as_u64().filter(|count| *count > 0).map(show_count));
    }
    for example in report["examples"].as_array().into_iter().flatten().take(EXAMPLES_MAX) {
        let of = |name: &str| show_text(example[name].as_str().unwrap_or_default());
        rows.add("finding", format_args!("{}: {}", of("rule"), of("detail")));
        rows.add("", of("replay"));
    }
    rows.add_some("bottleneck", report["bottleneck"].as_str().map(show_text));
    for name in ["ledger", "process"] {
        rows.add_some(name, server(&report[name]));
    }
    for verdict in report["verdicts"].as_array().into_iter().flatten() {
        let word = match (&verdict["value"], verdict["failed"] == true) {
            (Value::Null, _) => "not evaluated",
            (_, true) => "FAILED",
            (_, false) => "passed",
        };
        let expression = show_text(verdict["expression"].as_str().unwrap_or_default());
        rows.add("fail if", format_args!("{expression}: {word}"));
    }
    rows.text() + &parts(report)
}

/// Returns a line such as `http http://127.0.0.1:8080/ PASSED (load, ringload 0.1.0)`.
fn headline(report: &Value) -> String {
    let of = |value: &Value| show_text(value.as_str().unwrap_or_default());
    let plan = &report["plan"];
    let words = [&plan["protocol"], &plan["target"], &plan["file"]].map(of).join(" ");
    let (outcome, kind) = (of(&report["outcome"]).to_uppercase(), of(&report["kind"]));
    format!("{} {outcome} ({kind}, ringload {})", words.trim(), of(&report["version"]))
}

/// Returns the summaries of the parts of a plan.
fn parts(report: &Value) -> String {
    let parts = report["parts"].as_array().into_iter().flatten();
    let inner = |part: &Value| {
        let of = |name: &str| show_text(part[name].as_str().unwrap_or_default());
        let report = &part["report"];
        // A part is never a plan; a report that claims so must not cause recursion.
        let inner = match report.is_object() && !report["parts"].is_array() {
            true => summary(report),
            false => String::new(),
        };
        format!("\n{}: {} {}\n{inner}", of("name"), of("verdict"), of("error"))
    };
    parts.map(inner).collect()
}

/// Returns the percentiles in one line.
#[must_use]
pub fn show_times(times: &Value) -> String {
    let of = |name: &str| show_us(times[name].as_f64().unwrap_or_default());
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        of("p50"),
        of("p90"),
        of("p99"),
        of("p99.9"),
        of("max")
    )
}

fn counts(of: &Value) -> Option<String> {
    let all = of.as_object()?.iter().filter_map(|(name, count)| Some((name, count.as_u64()?)));
    let seen: Vec<String> = all
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{}: {}", show_text(name), show_count(count)))
        .collect();
    Some(if seen.is_empty() { "none".into() } else { seen.join(", ") })
}

/// Returns the leaks of a server.
fn server(seen: &Value) -> Option<String> {
    if let Some(why) = seen["error"].as_str() {
        return Some(format!("FAILED: {}", show_text(why)));
    }
    if seen["held_for_vanished"].is_array() {
        return Some("not judged; it holds connections of clients that vanished".into());
    }
    let stays = if seen["leaks"].is_array() { &seen["leaks"] } else { &seen["stays"] };
    let of = |stays: &Value| {
        let name = show_text(stays["name"].as_str().unwrap_or_default());
        format!("{name}: {}, before the run {}", stays["after"], stays["before"])
    };
    let stays: Vec<String> = stays.as_array()?.iter().map(of).collect();
    Some(match stays.is_empty() {
        true => "everything was released".into(),
        false => format!("FAILED: {}", stays.join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;
    use serde_json::json;

    #[test]
    fn a_report_is_told_from_its_fields() {
        let mut report = serde_json::to_value(sample()).expect("a report is JSON");
        report["ledger"] =
            json!({ "leaks": [{ "name": "connections.open", "before": 0, "after": 2 }] });
        report["process"] = json!({ "error": "gone" });
        report["verdicts"] = json!([{ "expression": "p99>5ms", "value": 1.0, "failed": true }]);
        report["findings"] = json!({ "lost_reply": 3 });
        report["examples"] =
            json!([{ "rule": "lost_reply", "detail": "\u{1b}x", "replay": "ringload replay x" }]);
        let text = summary(&report);
        for part in [
            "http http://127.0.0.1:8080/ FAILED (load, ringload",
            "1,000,000 in 10.00 s: 100,000 per second",
            "230 MB received, 40.0 MB sent",
            "service time  p50 412 µs",
            "bad_status: 10, eof: 1",
            "FAILED: connections.open: 2, before the run 0",
            "FAILED: gone",
            "p99>5ms: FAILED",
            "lost_reply: \\u{1b}x",
            "ringload replay x",
            "findings      lost_reply: 3",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    #[test]
    fn the_parts_of_a_plan_are_told_too() {
        let part = serde_json::to_value(sample()).expect("a report is JSON");
        let plan = json!({ "kind": "plan", "outcome": "failed", "parts": [
            { "name": "the load", "verdict": "passed", "report": part },
        ] });
        let text = summary(&plan);
        assert!(text.contains("\nthe load: passed") && text.contains("p50 412 µs"), "{text}");
    }

    #[test]
    fn a_report_of_nothing_is_no_mistake() {
        assert!(summary(&json!({})).contains("run"));
    }
}
