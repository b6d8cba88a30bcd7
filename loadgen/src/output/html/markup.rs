//! HTML output with escaping of untrusted text.

use ringload_lifecycle::units::show_text;
use serde_json::Value;
use std::fmt::Write;

/// Escapes text for an HTML element or attribute; control characters are shown as `\n`, `\u{1b}`.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in show_text(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Formats a value of a report as HTML: strings as text, anything else as JSON.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => escape(text),
        Value::Array(all) if all.iter().all(|one| one.is_number() || one.is_string()) => {
            all.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        other => escape(&other.to_string()),
    }
}

/// Formats a name as words: `lost_reply` as `lost reply`.
#[must_use]
pub fn words(name: &str) -> String {
    escape(&name.replace('_', " "))
}

/// Formats a field name with its unit: `timeout_s` as `timeout (s)`.
#[must_use]
pub fn field(name: &str) -> String {
    let units =
        [("_per_s", " per second"), ("_s", " (s)"), ("_us", " (µs)"), ("_bytes", " (bytes)")];
    let unit = units.iter().find_map(|(end, unit)| Some((name.strip_suffix(end)?, *unit)));
    let (name, unit) = unit.unwrap_or((name, ""));
    escape(&(name.replace('_', " ") + unit))
}

/// Returns a section with a heading, or nothing if `inner` is empty.
#[must_use]
pub fn section(heading: &str, inner: &str) -> String {
    if inner.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>{}</h2>\n{inner}\n</section>\n", escape(heading))
}

/// Returns a list of names and values, which must be HTML.
#[must_use]
pub fn list(rows: &[(String, String)]) -> String {
    let mut list = String::from("<dl>\n");
    for (name, value) in rows {
        writeln!(list, "<dt>{name}</dt><dd>{value}</dd>").expect("a string takes everything");
    }
    list + "</dl>\n"
}

/// Returns a table with right-aligned columns except the first. Cells must be HTML.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let class = |at: usize| if at == 0 { "" } else { " class=\"number\"" };
    let mut table = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
    for (at, name) in head.iter().enumerate() {
        write!(table, "<th{}>{}</th>", class(at), escape(name)).expect("a string takes everything");
    }
    table += "</tr></thead>\n<tbody>\n";
    for row in rows {
        table += "<tr>";
        for (at, cell) in row.iter().enumerate() {
            write!(table, "<td{}>{cell}</td>", class(at)).expect("a string takes everything");
        }
        table += "</tr>\n";
    }
    table + "</tbody></table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_chose_is_no_markup() {
        assert_eq!(
            escape("<b a='\"'>&\n\u{1b}[2J"),
            "&lt;b a=&#39;&quot;&#39;&gt;&amp;\\n\\u{1b}[2J"
        );
        assert_eq!(text(&json!("<")), "&lt;");
        assert_eq!(text(&json!({ "<": 1 })), "{&quot;&lt;&quot;:1}");
        assert_eq!((text(&json!([1, "<"])), text(&json!(null))), ("1, &lt;".into(), "–".into()));
        assert_eq!(words("a_<b"), "a &lt;b");
        assert_eq!(
            (field("timeout_s"), field("replies_per_s")),
            ("timeout (s)".into(), "replies per second".into())
        );
    }

    #[test]
    fn a_section_of_nothing_is_none() {
        assert_eq!(section("x", ""), "");
    }
}
