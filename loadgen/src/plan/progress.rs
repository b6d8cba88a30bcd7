//! The last line of a part in short form.

use ringload_lifecycle::units::show_text;

/// Columns that the short form leaves out.
const LEFT_OUT: [&str; 7] = ["elapsed", "phase", "MB/s", "p50", "replies", "connected", "answers"];

/// Returns `errors 0, p99 412 µs` for a heading and its line.
pub fn compact(heading: &str, line: &str) -> String {
    let (names, values) = (columns(heading), columns(line));
    if names.len() != values.len() {
        // A message between the lines of figures.
        return show_text(line.trim());
    }
    let shown = names.iter().zip(values).filter(|(name, _)| !LEFT_OUT.contains(name));
    let shown: Vec<_> = shown.map(|(name, value)| format!("{name} {}", show_text(value))).collect();
    shown.join(", ")
}

/// Splits a line at two or more spaces; a single space belongs to a figure and its unit.
fn columns(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;
    use crate::summary;

    #[test]
    fn a_line_of_load_is_told_in_a_few_words() {
        let line = summary::line(&sample().intervals[0], 2_000_000);
        let text = compact(&summary::heading(), &line);
        assert!(text.contains("replies/s") && text.contains("p99 4"), "{text}");
        assert!(!text.contains("elapsed") && !text.contains("2,000,000"), "{text}");
    }

    #[test]
    fn what_is_no_line_of_figures_is_shown_as_it_is() {
        assert_eq!(
            compact("elapsed  p99", "ringload: a \u{1b} message"),
            r"ringload: a \u{1b} message"
        );
    }
}
