//! The rows of a summary: a name and a text each.

use crate::report::Times;
use crate::units::{show_count, show_us};
use std::fmt::{Display, Write};

/// The rows of a summary, with their names in the first column.
#[derive(Debug, Default)]
pub struct Rows(String);

impl Rows {
    /// Adds a row.
    ///
    /// # Panics
    /// Never: writing to a string does not fail.
    pub fn add(&mut self, name: &str, text: impl Display) {
        writeln!(self.0, "{name:<13} {text}").expect("writing to a string does not fail");
    }

    /// Adds a row if there is a text.
    pub fn add_some(&mut self, name: &str, text: Option<impl Display>) {
        if let Some(text) = text {
            self.add(name, text);
        }
    }

    /// Adds a row that begins with a count, unless the count is 0.
    pub fn add_count(&mut self, name: &str, count: u64, text: &str) {
        if count > 0 {
            self.add(name, format_args!("{} {text}", show_count(count)));
        }
    }

    /// Returns the rows as text.
    #[must_use]
    pub fn text(self) -> String {
        self.0
    }
}

/// Returns a line below a row.
#[must_use]
pub fn below(text: impl Display) -> String {
    format!("\n{:<13}   {text}", "")
}

/// Lists all counts that are not 0.
pub fn list<'a>(counts: impl IntoIterator<Item = (impl Display, &'a u64)>) -> String {
    let seen = counts.into_iter().filter(|(_, count)| **count > 0);
    let parts = seen.map(|(name, count)| format!("{name}: {}", show_count(*count)));
    parts.collect::<Vec<_>>().join(", ")
}

/// Shows the percentiles of a distribution, or `empty` if it has no samples.
#[must_use]
pub fn times(times: &Times, empty: &str) -> String {
    if times.samples == 0 {
        return empty.into();
    }
    let [p50, p90, p99, p99_9, max] =
        [times.p50, times.p90, times.p99, times.p99_9, times.max].map(show_us);
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, max {max}")
}
