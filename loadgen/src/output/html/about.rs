//! The sections without charts: heading, verdicts, figures, plan and environment.

use super::markup::{escape, field, list, section, table, text, words};
use crate::condition::Expression;
use crate::report::reading;
use ringload_lifecycle::units::{show_count, show_us};
use serde_json::Value;

/// Figures of the heading: field, title, and true if a value other than 0 is an error.
const COUNTS: [(&str, &str, bool); 9] = [
    ("connections", "connections", false),
    ("scripts", "scripts", false),
    ("connected", "connected", false),
    ("answered_last", "answered at the end", false),
    ("probes", "probes", false),
    ("errors_total", "errors", true),
    ("lost_total", "lost", true),
    ("connects_failed_total", "not connected", true),
    ("findings_total", "findings", true),
];

/// Further figures, which are rare: field and title. A value of 0 is not shown.
const RARE: [(&str, &str); 3] = [
    ("repeated", "requests repeated"),
    ("disconnects", "expected disconnects"),
    ("deviating_bodies", "replies with another body"),
];

/// Returns the heading: target, outcome and the most important figures.
#[must_use]
pub fn heading(report: &Value) -> String {
    let plan = &report["plan"];
    let part = |value: &Value| value.as_str().map(escape).unwrap_or_default();
    let target = part(&plan["target"]);
    // A URL contains the protocol.
    let protocol = if target.contains("://") { String::new() } else { part(&plan["protocol"]) };
    let what = [protocol, target, part(&plan["file"])].join(" ");
    let what = if what.trim().is_empty() { part(&report["kind"]) } else { what };
    let outcome = part(&report["outcome"]);
    let class = match &outcome[..] {
        "passed" => "badge passed",
        "interrupted" => "badge",
        _ => "badge failed",
    };
    let seconds = report["elapsed_s"].as_f64().map(|seconds| format!(" · {seconds:.1} s"));
    format!(
        "<header>\n<div><h1>{}</h1>\n<p class=\"dim\">ringload {}{}{}</p></div>\n\
         <span class=\"{class}\">{}</span>\n</header>\n{}",
        what.trim(),
        part(&report["kind"]),
        report["environment"]["started_at_s"]
            .as_u64()
            .map(|seconds| format!(" · {}", date(seconds)))
            .unwrap_or_default(),
        seconds.unwrap_or_default(),
        outcome.to_uppercase(),
        cards(report)
    )
}

fn cards(report: &Value) -> String {
    let mut cards = Vec::new();
    let mut card = |value: String, name: &str, is_bad: bool| {
        let class = if is_bad { "card failed" } else { "card" };
        cards.push(format!(
            "<div class=\"{class}\"><b>{}</b><span>{}</span></div>\n",
            escape(&value),
            escape(name)
        ));
    };
    if let Some(rate) = report["replies_per_s"].as_f64() {
        card(show_count(rate.round() as u64), "replies per second", false);
    }
    if let Some((of, times)) = reading::distributions(report).next() {
        for place in ["p50", "p99", "p99.9", "max"] {
            if let Some(us) = times[place].as_f64() {
                card(show_us(us), &format!("{place} of {}", of.title), false);
            }
        }
    }
    for (name, title, is_wrong) in COUNTS {
        if let Some(count) = report[name].as_u64() {
            card(show_count(count), title, is_wrong && count > 0);
        }
    }
    for (name, title) in RARE {
        if let Some(count @ 1..) = report[name].as_u64() {
            card(show_count(count), title, false);
        }
    }
    if cards.is_empty() {
        return String::new();
    }
    format!("<div class=\"cards\">\n{}</div>\n", cards.concat())
}

/// Returns the verdicts: conditions, leaks, bottlenecks and hints.
#[must_use]
pub fn verdicts(report: &Value) -> String {
    let mut items = Vec::new();
    let mut item = |failed: bool, what: String| {
        let class = if failed { " class=\"failed\"" } else { "" };
        items.push(format!("<li{class}>{what}</li>\n"));
    };
    for verdict in report["verdicts"].as_array().into_iter().flatten() {
        let expression = verdict["expression"].as_str().unwrap_or_default();
        let value = match (verdict["value"].as_f64(), expression.parse::<Expression>()) {
            (None, _) => "not evaluated".into(),
            (Some(value), Ok(known)) => format!("value {}", escape(&known.show(value))),
            (Some(value), Err(_)) => format!("value {value}"),
        };
        let expression = escape(expression);
        item(verdict["failed"] == true, format!("fail if <code>{expression}</code>: {value}"));
    }
    for (name, list, title) in [("ledger", "leaks", "ledger"), ("process", "stays", "process")] {
        let seen = &report[name];
        if let Some(why) = seen["error"].as_str() {
            item(true, format!("{title}: {}", escape(why)));
        } else if let Some(stays) = seen[list].as_array() {
            if seen["held_for_vanished"].is_array() {
                let what = "not judged; it holds connections of clients that vanished";
                item(false, format!("{title}: {what}"));
            } else if stays.is_empty() {
                item(false, format!("{title}: the server has released everything"));
            }
            for one in stays {
                let (name, after, before) = (text(&one["name"]), &one["after"], &one["before"]);
                item(true, format!("{title}: {name}: {after}, before the run {before}"));
            }
        }
    }
    for name in ["bottleneck", "shortage"] {
        if let Some(why) = report[name].as_str() {
            item(true, format!("ringload was the bottleneck: {}", escape(why)));
        }
    }
    if let Some(hint) = report["hint"].as_str() {
        item(false, escape(hint));
    }
    if items.is_empty() {
        return String::new();
    }
    section("Verdicts", &format!("<ul class=\"verdicts\">\n{}</ul>", items.concat()))
}

/// Returns the tables of times, statuses and errors.
#[must_use]
pub fn figures(report: &Value) -> String {
    let places = ["p50", "p90", "p99", "p99.9", "max"];
    let rows: Vec<Vec<String>> = reading::distributions(report)
        .map(|(of, times)| {
            let samples = show_count(times["samples"].as_u64().unwrap_or_default());
            let at = places.map(|place| show_us(times[place].as_f64().unwrap_or_default()));
            [vec![escape(of.title), samples], at.to_vec()].concat()
        })
        .collect();
    let mut inner = String::new();
    if !rows.is_empty() {
        inner += &table(&["times", "samples", "p50", "p90", "p99", "p99.9", "max"], &rows);
    }
    inner += "<div class=\"pair\">\n";
    let tables = [
        counted(report, "statuses", "replies by status", None),
        counted(report, "errors", "errors", Some("first_errors")),
        counted(report, "connects_failed", "not connected", Some("first_connects_failed")),
        counted(report, "lost", "lost", None),
        counted(report, "findings", "findings", None),
        counted(report, "network", "TCP counters of the kernel during the run", None),
    ];
    if rows.is_empty() && tables.iter().all(String::is_empty) {
        return String::new();
    }
    section("Figures", &(inner + &tables.concat() + "</div>\n"))
}

/// Returns a table of the counts that are not 0, with the first message of each.
fn counted(report: &Value, name: &str, title: &str, words_of: Option<&str>) -> String {
    let all = report[name].as_object().into_iter().flatten();
    let rows: Vec<Vec<String>> = all
        .filter(|(_, count)| count.as_u64() > Some(0))
        .map(|(kind, count)| {
            let first = words_of.and_then(|of| report[of][kind].as_str());
            let first = first.map(|first| format!("<p class=\"dim\">{}</p>", escape(first)));
            let count = show_count(count.as_u64().unwrap_or_default());
            vec![words(kind) + &first.unwrap_or_default(), count]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("<div><h3>{}</h3>\n{}</div>\n", escape(title), table(&["", "count"], &rows))
}

/// Returns plan, environment and command line, which suffice to repeat the run.
#[must_use]
pub fn plan(report: &Value) -> String {
    let rows = |of: &Value, skipped: &[&str]| -> Vec<(String, String)> {
        let all = of.as_object().into_iter().flatten();
        all.filter(|(name, value)| !value.is_null() && !skipped.contains(&name.as_str()))
            .map(|(name, value)| (field(name), text(value)))
            .collect()
    };
    let (plan, environment) =
        (rows(&report["plan"], &[]), rows(&report["environment"], &["argv", "started_at_s"]));
    if plan.is_empty() && environment.is_empty() {
        return String::new();
    }
    let words = report["environment"]["argv"].as_array().into_iter().flatten();
    let command: Vec<String> = words.filter_map(Value::as_str).map(quoted).collect();
    let command = match command.is_empty() {
        true => String::new(),
        false => format!("<pre><code>{}</code></pre>\n", escape(&command.join(" "))),
    };
    let inner = format!(
        "<div class=\"pair\">\n<div><h3>Plan</h3>\n{}</div>\n<div><h3>Environment</h3>\n{}</div>\n\
         </div>\n{command}",
        list(&plan),
        list(&environment)
    );
    section("Plan and environment", &inner)
}

/// Quotes a word of a command line for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Formats seconds since 1970 as `2026-11-27 09:14:01 UTC` (Howard Hinnant, civil_from_days).
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_795_770_841), "2026-11-27 09:14:01 UTC");
    }

    #[test]
    fn a_command_line_can_be_typed_again() {
        let words = ["ringload", "--fail-if", "p99>5ms", "it's", ""].map(quoted);
        assert_eq!(words.join(" "), r"ringload --fail-if 'p99>5ms' 'it'\''s' ''");
    }

    #[test]
    fn what_failed_is_marked() {
        let html = verdicts(&json!({
            "verdicts": [{ "expression": "p99>5ms", "value": 6000.0, "failed": true }],
            "ledger": { "leaks": [] },
            "process": { "stays": [{ "name": "threads", "before": 1, "after": 2 }] },
        }));
        assert_eq!(html.matches("<li class=\"failed\">").count(), 2, "{html}");
        assert!(html.contains("<code>p99&gt;5ms</code>: value 6.00 ms"), "{html}");
        assert!(html.contains("threads: 2, before the run 1"), "{html}");
        assert_eq!(verdicts(&json!({})), "");
    }
}
