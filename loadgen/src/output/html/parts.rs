//! The parts of a plan, on a line of time.

use super::markup::{escape, section, text};
use crate::units::show_text;
use serde_json::Value;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 30.0;
const ROW: f64 = 26.0;
const TOP: f64 = 24.0;

/// The report of a part, wherever it stands.
#[must_use]
pub fn report_of(part: &Value) -> &Value {
    if part["report"].is_object() { &part["report"] } else { part }
}

/// When which part ran, and how it ended.
#[must_use]
pub fn timeline(report: &Value) -> String {
    let parts: Vec<Bar<'_>> =
        report["parts"].as_array().into_iter().flatten().filter_map(Bar::of).collect();
    let end = parts.iter().map(|bar| bar.start_s + bar.length_s).fold(0.0, f64::max);
    if parts.is_empty() || end <= 0.0 {
        return String::new();
    }
    let height = TOP + ROW * parts.len() as f64 + 8.0;
    let x = |seconds: f64| LEFT + seconds / end * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<figure><div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>When which part ran</title>\n"
    );
    let mut put = |what: std::fmt::Arguments<'_>| {
        svg.write_fmt(what).expect("a string takes everything");
    };
    for quarter in 0..=4 {
        let seconds = end * f64::from(quarter) / 4.0;
        put(format_args!(
            "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{height}\"/>\
             <text x=\"{0:.1}\" y=\"14\" text-anchor=\"middle\">{seconds:.1} s</text>\n",
            x(seconds)
        ));
    }
    for (at, bar) in parts.iter().enumerate() {
        let y = TOP + ROW * at as f64;
        let class = if bar.outcome == "passed" { "phase" } else { "phase failed" };
        put(format_args!(
            "<text class=\"name\" x=\"0\" y=\"{:.1}\">{}</text>\
             <rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\">\
             <title>{}: {} from {:.1} s on, {:.1} s</title></rect>\n",
            y + 18.0,
            escape(&short(bar.name)),
            x(bar.start_s),
            y + 4.0,
            (x(bar.start_s + bar.length_s) - x(bar.start_s)).max(2.0),
            ROW - 6.0,
            escape(bar.name),
            escape(bar.outcome),
            bar.start_s,
            bar.length_s
        ));
    }
    svg += "</svg></div></figure>\n";
    section("Parts", &(svg + &deeds(report)))
}

/// Commands and signals of a plan, if it had any.
fn deeds(report: &Value) -> String {
    let deeds = report["actions"].as_array().into_iter().flatten();
    let items: String = deeds
        .map(|deed| {
            let at = deed["at_s"].as_f64().unwrap_or_default();
            let what = ["what", "command", "signal", "name"].map(|name| &deed[name]);
            let what = what.into_iter().find(|what| what.is_string()).unwrap_or(deed);
            format!("<li>{at:.1} s: {}</li>\n", text(what))
        })
        .collect();
    if items.is_empty() { items } else { format!("<ul>\n{items}</ul>\n") }
}

struct Bar<'a> {
    name: &'a str,
    outcome: &'a str,
    start_s: f64,
    length_s: f64,
}

impl<'a> Bar<'a> {
    fn of(part: &'a Value) -> Option<Self> {
        let report = report_of(part);
        let start = ["start_s", "started_s", "at_s", "from_s"];
        let start = start.into_iter().find_map(|name| part[name].as_f64());
        Some(Self {
            name: part["name"].as_str()?,
            outcome: report["outcome"].as_str().unwrap_or_default(),
            start_s: start.unwrap_or_default(),
            length_s: report["elapsed_s"].as_f64().unwrap_or_default(),
        })
    }
}

fn short(name: &str) -> String {
    let shown = show_text(name);
    match shown.chars().count() > 20 {
        true => shown.chars().take(19).chain(['…']).collect(),
        false => shown,
    }
}
