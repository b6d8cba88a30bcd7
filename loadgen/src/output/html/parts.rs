//! The timeline of a plan's parts, its events and its server.

use super::markup::{escape, field, list, section, text};
use ringload_lifecycle::units::show_text;
use serde_json::Value;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 30.0;
const ROW: f64 = 26.0;
const TOP: f64 = 24.0;

/// Returns the timeline of the parts.
#[must_use]
pub fn timeline(report: &Value) -> String {
    let parts: Vec<Bar<'_>> =
        report["parts"].as_array().into_iter().flatten().filter_map(Bar::of).collect();
    let end = parts.iter().map(|bar| bar.start_s + bar.length_s).fold(0.0, f64::max);
    if parts.is_empty() || end <= 0.0 {
        return section("Parts", &events(report));
    }
    let height = TOP + ROW * parts.len() as f64 + 8.0;
    let x = |seconds: f64| LEFT + seconds / end * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<figure><div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Timeline of the parts</title>\n"
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
        let class = if bar.verdict == "passed" { "phase" } else { "phase failed" };
        put(format_args!(
            "<text class=\"name\" x=\"0\" y=\"{:.1}\">{}</text>\
             <rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             rx=\"3\">\
             <title>{}</title></rect>\n",
            y + 18.0,
            escape(&short(bar.name)),
            x(bar.start_s),
            y + 4.0,
            (x(bar.start_s + bar.length_s) - x(bar.start_s)).max(2.0),
            ROW - 6.0,
            bar.text()
        ));
    }
    svg += "</svg></div></figure>\n";
    section("Parts", &(svg + &events(report)))
}

/// Returns the events, and the facts about the server.
fn events(report: &Value) -> String {
    let events = report["events"].as_array().into_iter().flatten();
    let items: String = events
        .map(|event| {
            let at = event["done_s"].as_f64().or(event["time_s"].as_f64()).unwrap_or_default();
            let (class, why) = match event["error"].as_str() {
                Some(why) => (" class=\"failed\"", format!(": {}", escape(why))),
                None => ("", String::new()),
            };
            format!("<li{class}>at {at:.1} s: {}{why}</li>\n", text(&event["what"]))
        })
        .collect();
    let server = report["server"].as_object().into_iter().flatten();
    let rows: Vec<(String, String)> = server
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (field(name), text(value)))
        .collect();
    let mut html = String::new();
    if !items.is_empty() {
        html += &format!("<h3>Events</h3>\n<ul class=\"verdicts\">\n{items}</ul>\n");
    }
    if !rows.is_empty() {
        html += &format!("<h3>Server</h3>\n{}", list(&rows));
    }
    html
}

struct Bar<'a> {
    name: &'a str,
    phase: Option<&'a str>,
    verdict: &'a str,
    start_s: f64,
    length_s: f64,
}

impl<'a> Bar<'a> {
    /// Makes the bar of a part that was started.
    fn of(part: &'a Value) -> Option<Self> {
        let start_s = part["started_s"].as_f64()?;
        let end_s = part["ended_s"].as_f64().unwrap_or(start_s);
        Some(Self {
            name: part["name"].as_str()?,
            phase: part["phase"].as_str(),
            verdict: part["verdict"].as_str().unwrap_or_default(),
            start_s,
            length_s: (end_s - start_s).max(0.0),
        })
    }

    fn text(&self) -> String {
        let Self { name, verdict, start_s, length_s, .. } = self;
        let phase = self.phase.map(|phase| format!(" in phase {phase}")).unwrap_or_default();
        escape(&format!(
            "{name}{phase}: {verdict}; started at {start_s:.1} s, ran for {length_s:.1} s"
        ))
    }
}

fn short(name: &str) -> String {
    let shown = show_text(name);
    match shown.chars().count() > 20 {
        true => shown.chars().take(19).chain(['…']).collect(),
        false => shown,
    }
}
