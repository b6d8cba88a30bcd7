//! A report as one HTML page that needs nothing beside itself: no script, no font, no address. It
//! is dark where the reader's screen is.

mod about;
mod curves;
mod markup;
mod matrix;
mod parts;
mod plot;

use markup::{escape, words};
use serde_json::Value;

const STYLE: &str = include_str!("style.css");

/// The page of a report of any kind.
#[must_use]
pub fn page(report: &Value) -> String {
    let plan = &report["plan"];
    let title = [&report["kind"], &plan["target"], &plan["file"], &report["outcome"]];
    let title: Vec<&str> = title.into_iter().filter_map(Value::as_str).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>ringload: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}\
         <footer>Made by ringload {}. Times are shown with three digits; the JSON report has all of \
         them.</footer>\n</main>\n</body>\n</html>\n",
        escape(&title.join(" ")),
        body(report),
        escape(report["version"].as_str().unwrap_or_default())
    )
}

/// What is told of a report, and below it what is told of each part of a plan.
fn body(report: &Value) -> String {
    let mut body = about::heading(report);
    body += &about::verdicts(report);
    body += &parts::timeline(report);
    body += &matrix::matrix(report);
    body += &matrix::findings(report);
    body += &matrix::bystanders(report);
    body += &curves::percentiles(report);
    body += &curves::over_time(report);
    body += &about::figures(report);
    body += &about::plan(report);
    for part in report["parts"].as_array().into_iter().flatten() {
        body += &part_of(part);
    }
    body
}

/// A part with its report; that is none of a plan again, so a report from elsewhere does not nest
/// us to death.
fn part_of(part: &Value) -> String {
    let name = part["name"].as_str().map(words).unwrap_or_default();
    let report = &part["report"];
    let mut inner = String::new();
    if let Some(command) = part["command"].as_str() {
        inner += &format!("<pre><code>{}</code></pre>\n", escape(command));
    }
    if let Some(error) = part["error"].as_str() {
        inner += &format!("<p class=\"failed\">{}</p>\n", escape(error));
    }
    if report.is_object() && !report["parts"].is_array() {
        inner += &body(report);
    }
    format!("<section>\n<h2>Part: {name}</h2>\n{inner}</section>\n")
}

#[cfg(test)]
mod tests;
