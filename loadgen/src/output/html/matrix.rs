//! The sections of a churn report: fault matrix, findings with their scripts, and bystanders.

use super::markup::{escape, section, table, text, words};
use ringload_lifecycle::cell::{Kind, Point};
use ringload_lifecycle::units::{show_count, show_us};
use serde_json::Value;
use std::fmt::Write;

/// Returns the fault matrix; rows are points, columns are kinds.
#[must_use]
pub fn matrix(report: &Value) -> String {
    let cells: Vec<&Value> = report["cells"].as_array().into_iter().flatten().collect();
    if cells.is_empty() {
        return String::new();
    }
    // Points are in the order of a connection's life; bystanders, which are no point, come last.
    let points = names(&cells, "point", &Point::ALL.map(Point::name));
    let kinds = names(&cells, "kind", &Kind::ALL.map(Kind::name));
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
             <p class=\"dim\">Number of connections by point and kind of the fault. Open a cell to \
             see their outcomes. Red cells have findings.</p>\n";
    section("Fault matrix", &html)
}

/// Returns the distinct values of a field in the order of `known`.
fn names<'a>(cells: &[&'a Value], field: &str, known: &[&str]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in cells.iter().filter_map(|cell| cell[field].as_str()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let place = |name: &&str| known.iter().position(|known| known == name).unwrap_or(known.len());
    names.sort_by_key(place);
    names
}

fn shown(cell: &Value) -> String {
    let tried = cell["connections"].as_u64().unwrap_or_default();
    let by_rule = cell["findings"].as_object().into_iter().flatten();
    let found: u64 = by_rule.filter_map(|(_, count)| count.as_u64()).sum();
    let class = match (tried, found) {
        (0, 0) => "none",
        (_, 0) => "good",
        _ => "bad",
    };
    let count = match found {
        0 => show_count(tried),
        _ => format!("{} / {}", show_count(found), show_count(tried)),
    };
    let counts = |of: &Value| -> Vec<String> {
        let all = of.as_object().into_iter().flatten();
        all.map(|(name, count)| format!("{}: {}", escape(name), text(count))).collect()
    };
    let outcomes = [counts(&cell["findings"]), counts(&cell["outcomes"])].concat();
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

/// Returns the findings, each with its shrunk script and the command that replays it.
#[must_use]
pub fn findings(report: &Value) -> String {
    let all = report["examples"].as_array().map_or(&[][..], Vec::as_slice);
    let mut html = String::new();
    for example in all {
        let of = |name: &str| example[name].as_str().map(words).unwrap_or_default();
        let shrunk: Vec<&str> =
            example["shrunk"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let script = match &shrunk[..] {
            [] => example["script"].as_str().unwrap_or_default().into(),
            _ => shrunk.join("\n"),
        };
        let (rule, point, kind) = (of("rule"), of("point"), of("kind"));
        let detail = text(&example["detail"]);
        let again = example["seen_again"].as_str();
        let again = again.map(|again| format!(" Reproduced: {}.", words(again)));
        // Escaped line by line, so that line breaks in a script remain.
        let script: Vec<String> = script.lines().map(escape).collect();
        write!(
            html,
            "<article>\n<p><b>{rule}</b> <span class=\"dim\">{point}, {kind}</span></p>\n\
             <p>{detail}{}</p>\n<pre><code>{}</code></pre>\n",
            again.unwrap_or_default(),
            script.join("\n")
        )
        .expect("a string takes everything");
        if let Some(replay) = example["replay"].as_str() {
            writeln!(html, "<pre><code>{}</code></pre>", escape(replay))
                .expect("a string takes everything");
        }
        html += "</article>\n";
    }
    section("Findings", &html)
}

/// Returns the latency of the bystanders before and during the faults.
#[must_use]
pub fn bystanders(report: &Value) -> String {
    let of = &report["bystanders"];
    if !of.is_object() {
        return String::new();
    }
    let places = ["p50", "p99", "p99.9", "max"];
    let row = |title: &str, times: &Value| -> Vec<String> {
        let at = places.map(|place| times[place].as_f64().map_or("–".into(), show_us));
        [vec![escape(title)], at.to_vec()].concat()
    };
    let ratios = places.map(|place| {
        let ratio = of[format!("ratio_{place}")].as_f64();
        ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"))
    });
    let rows = [
        row("before the faults", &of["baseline_us"]),
        row("during the faults", &of["abuse_us"]),
        [vec!["ratio".into()], ratios.to_vec()].concat(),
    ];
    section("Bystanders", &table(&["", "p50", "p99", "p99.9", "max"], &rows))
}
