//! The fault matrix as a table of outcomes, what was found with the scripts that show it again, and
//! the bystanders.

use super::markup::{escape, section, table, text, words};
use crate::output::show::show_us;
use crate::units::show_count;
use serde_json::Value;
use std::fmt::Write;

/// Findings shown in full; the others are in the JSON.
const FINDINGS_MAX: usize = 100;

/// Rows are points, columns are kinds.
#[must_use]
pub fn matrix(report: &Value) -> String {
    let cells: Vec<&Value> = report["matrix"].as_array().into_iter().flatten().collect();
    if cells.is_empty() {
        return String::new();
    }
    let points = names(cells.iter().copied(), "point");
    // In the order of the fullest row: another one lacks some.
    let cells_in = |point: &&str| cells.iter().filter(|cell| cell["point"] == **point).count();
    let fullest = points.iter().copied().max_by_key(cells_in).unwrap_or_default();
    let row = cells.iter().copied().filter(|cell| cell["point"] == fullest);
    let mut kinds = names(row, "kind");
    for kind in names(cells.iter().copied(), "kind") {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut html =
        String::from("<div class=\"scroll\"><table class=\"matrix\">\n<thead><tr><th></th>");
    for kind in &kinds {
        write!(html, "<th>{}</th>", words(kind)).expect("a string takes everything");
    }
    html += "</tr></thead>\n<tbody>\n";
    for point in &points {
        write!(html, "<tr><th>{}</th>", words(point)).expect("a string takes everything");
        for kind in &kinds {
            let of = cells.iter().find(|cell| cell["point"] == **point && cell["kind"] == **kind);
            html += &of.map_or("<td class=\"none\">·</td>".into(), |cell| shown(cell));
        }
        html += "</tr>\n";
    }
    html += "</tbody></table></div>\n\
             <p class=\"dim\">Connections by the point of the fault and by its kind; open a cell to \
             see how they ended. Red: an oracle found something.</p>\n";
    section("The fault matrix", &html)
}

fn names<'a>(cells: impl Iterator<Item = &'a Value>, field: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in cells.filter_map(|cell| cell[field].as_str()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn shown(cell: &Value) -> String {
    let tried = ["connections", "tried", "count"].into_iter().find_map(|name| cell[name].as_u64());
    let found = match &cell["findings"] {
        Value::Array(all) => all.len() as u64,
        Value::Object(by_rule) => by_rule.values().filter_map(Value::as_u64).sum(),
        count => count.as_u64().unwrap_or_default(),
    };
    let class = match (tried.unwrap_or_default(), found) {
        (0, 0) => "none",
        (_, 0) => "good",
        _ => "bad",
    };
    let count = match found {
        0 => show_count(tried.unwrap_or_default()),
        _ => format!("{} / {}", show_count(found), show_count(tried.unwrap_or_default())),
    };
    let outcomes: Vec<String> = cell["outcomes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(outcome, count)| format!("{}: {}", escape(outcome), text(count)))
        .collect();
    if outcomes.is_empty() {
        return format!("<td class=\"{class}\">{count}</td>");
    }
    let hover = outcomes.join("; ");
    let lines: String = outcomes.iter().map(|line| format!("<div>{line}</div>")).collect();
    format!(
        "<td class=\"{class}\" title=\"{hover}\"><details><summary>{count}</summary>{lines}\
         </details></td>"
    )
}

/// What was found, each with the shortest script that shows it, and how to run that again.
#[must_use]
pub fn findings(report: &Value) -> String {
    let all = report["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let mut html = String::new();
    for finding in all.iter().take(FINDINGS_MAX) {
        let script = ["shrunk", "shortest", "script"].map(|name| &finding[name]);
        let script = script.into_iter().find_map(Value::as_str);
        let count = finding["count"].as_u64().filter(|count| *count > 1);
        write!(
            html,
            "<article>\n<p><b>{}</b>{} {}</p>\n",
            finding["rule"].as_str().map(words).unwrap_or_default(),
            count.map(|count| format!(" ×{}", show_count(count))).unwrap_or_default(),
            text(&finding["detail"])
        )
        .expect("a string takes everything");
        let replay = finding["replay"].as_str();
        for line in [script, replay].into_iter().flatten() {
            writeln!(html, "<pre><code>{}</code></pre>", escape(line))
                .expect("a string takes everything");
        }
        html += "</article>\n";
    }
    if all.len() > FINDINGS_MAX {
        let more = all.len() - FINDINGS_MAX;
        writeln!(html, "<p>and {more} more, in the JSON report</p>")
            .expect("a string takes everything");
    }
    section("Findings", &html)
}

/// Connections that behaved, without the others and beside them.
#[must_use]
pub fn bystanders(report: &Value) -> String {
    let of = &report["bystanders"];
    let row = |title: &str, times: &Value| -> Option<Vec<String>> {
        times.as_object()?;
        let at = ["p50", "p90", "p99", "p99.9", "max"];
        let at = at.map(|place| times[place].as_f64().map_or("–".into(), show_us));
        Some([vec![escape(title)], at.to_vec()].concat())
    };
    let find = |names: [&str; 3]| names.into_iter().map(|name| &of[name]).find(|of| of.is_object());
    let before = find(["before_us", "before", "alone"]).and_then(|of| row("alone", of));
    let during = find(["during_us", "during", "with"]).and_then(|of| row("beside the abuse", of));
    let mut rows: Vec<Vec<String>> = [before, during].into_iter().flatten().collect();
    if of["ratio"].is_object() {
        let at = ["p50", "p90", "p99", "p99.9", "max"];
        let ratio = |place: &str| of["ratio"][place].as_f64().map(|ratio| format!("{ratio:.2}"));
        let at = at.map(|place| ratio(place).unwrap_or("–".into()));
        rows.push([vec!["ratio".into()], at.to_vec()].concat());
    }
    if rows.is_empty() {
        return String::new();
    }
    section("Bystanders", &table(&["", "p50", "p90", "p99", "p99.9", "max"], &rows))
}
