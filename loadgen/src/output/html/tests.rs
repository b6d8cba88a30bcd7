//! Tests that pages are well-formed and self-contained, and that untrusted text is escaped.

use super::page;
use crate::report::reading::tests::with_histograms;
use serde_json::{Value, json};

const HOSTILE: &str = "\"><script src='http://x/'>&\u{1b}";

/// Asserts that all tags are closed in order and all attributes are quoted: apart from its first
/// line, the page is XML.
fn check(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html>\n"), "{html}");
    let start = html.find("<style>").expect("a style") + "<style>".len();
    let end = html.find("</style>").expect("its end");
    let bare = format!("{}{}", &html["<!DOCTYPE html>".len()..start], &html[end..]);
    let mut open: Vec<&str> = Vec::new();
    let mut rest = &bare[..];
    while let Some(at) = rest.find('<') {
        let (text, tag) = (&rest[..at], &rest[at + 1..]);
        check_text(text);
        let end = tag.find('>').expect("a tag that does not end");
        let (tag, behind) = (&tag[..end], &tag[end + 1..]);
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed out of order before {:.80}", behind);
            continue;
        }
        let name = tag.split([' ', '\n', '/']).next().expect("a name");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{tag}");
        check_attributes(tag.strip_suffix('/').unwrap_or(tag).strip_prefix(name).expect("it"));
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    check_text(rest);
    assert_eq!(open, [""; 0], "not closed");
    for foreign in ["http:", "https:", "<script", "javascript:", "url(", "@import", "NaN", "inf"] {
        let is_shown =
            html.replace("http://127.0.0.1:8080/", "").replace("&#39;http://x/&#39;", "");
        assert!(!is_shown.contains(foreign), "{foreign} is in the page");
    }
}

fn check_text(text: &str) {
    assert!(!text.contains('>'), "{text:?}");
    for (at, _) in text.match_indices('&') {
        let entity = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
        assert!(entity.iter().any(|entity| text[at..].starts_with(entity)), "{text:?}");
    }
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}

fn check_attributes(text: &str) {
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").unwrap_or_else(|| panic!("{text:?}"));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{text:?}");
        let (value, behind) = value.split_once('"').unwrap_or_else(|| panic!("{text:?}"));
        check_text(value);
        assert!(!value.contains('<'), "{text:?}");
        rest = behind.trim();
    }
}

fn load() -> Value {
    with_histograms(crate::report::Pacing::Requests)
}

fn churn() -> Value {
    let cell = |point: &str, kind: &str, findings: u64| {
        json!({ "point": point, "kind": kind, "connections": 40,
                "findings": { "lost_reply": findings },
                "outcomes": { "replied, fin": 39, HOSTILE: 1 } })
    };
    json!({
        "schema": 1, "version": "0.1.0", "kind": "churn", "outcome": "failed",
        "plan": { "protocol": "echo", "target": HOSTILE, "seed": 7 },
        "environment": {
            "kernel": HOSTILE, "argv": ["ringload", HOSTILE], "started_at_s": 1_700_000_000,
        },
        "cells": [cell("idle", "fin", 0), cell("idle", HOSTILE, 1), cell(HOSTILE, "fin", 2)],
        "findings_total": 3, "findings": { "lost_reply": 3 },
        "examples": [{
            "rule": "lost_reply", "point": "idle", "kind": "fin", "detail": HOSTILE,
            "script": HOSTILE, "shrunk": [HOSTILE, "say 64"], "seen_again": "alone",
            "replay": "ringload replay 'say 64; fin'",
        }],
        "bystanders": {
            "baseline_us": { "p50": 100.0, "p99": 200.0 },
            "abuse_us": { "p50": 110.0, "p99": 900.0 },
            "ratio_p50": 1.1, "ratio_p99": 4.5,
        },
        "verdicts": [{ "expression": HOSTILE, "value": null, "failed": true }],
        "process": { "error": HOSTILE },
        "hint": HOSTILE,
    })
}

#[test]
fn the_page_of_a_load_is_well_formed_and_has_its_curves() {
    let html = page(&load());
    check(&html);
    for part in [
        "Percentiles of the times",
        "Rate and errors over time",
        "Schedule lag over time",
        "<b>100,000</b><span>replies per second</span>",
        "p99 of the schedule lag",
        "status 404",
    ] {
        assert!(html.contains(part), "{part:?} is not in the page");
    }
}

#[test]
fn the_page_of_a_churn_has_the_matrix_and_shows_what_others_chose_as_text() {
    let html = page(&churn());
    check(&html);
    assert!(html.contains("<summary>2 / 40</summary>") && html.contains("<td class=\"none\">"));
    assert!(html.contains("ringload replay &#39;say 64; fin&#39;"));
    assert!(html.contains("<b>lost reply</b>") && html.contains("during the faults"));
}

#[test]
fn the_page_of_a_plan_has_its_parts() {
    let part = |name: &str, started_s: f64, report: Value| {
        json!({
            "name": name, "phase": HOSTILE, "started_s": started_s, "ended_s": 20.0,
            "command": HOSTILE, "verdict": "failed", "error": HOSTILE, "report": report,
        })
    };
    let plan = json!({
        "schema": 1, "version": "0.1.0", "kind": "plan", "outcome": "failed",
        "parts": [part("the load", 0.0, load()), part(HOSTILE, 5.0, churn())],
        "plan": { "file": HOSTILE },
        "server": { "server": HOSTILE, "pid": 5, "error": null },
        "events": [{ "what": HOSTILE, "time_s": 3.0, "error": HOSTILE }],
    });
    let html = page(&plan);
    check(&html);
    assert!(html.contains("Timeline of the parts") && html.contains("Part: the load"));
    assert!(html.contains("in phase") && html.contains("<h3>Server</h3>"));
}

#[test]
fn a_report_of_nothing_is_a_page() {
    check(&page(&json!({})));
    check(&page(
        &json!({ "kind": 5, "plan": [], "intervals": [1, 2], "cells": [null], "examples": [5],
                 "bystanders": {}, "parts": [[]] }),
    ));
}
