//! What every kind of run leaves behind, and how it reaches people and scripts.

use crate::timeline::Timeline;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};

/// What a run leaves behind.
#[derive(Debug)]
pub struct Delivery {
    /// The report for scripts, described in `report.schema.json`.
    pub report: Value,
    /// The report for people.
    pub summary: String,
    /// The exit status of the process.
    pub exit_status: u8,
    /// The histograms of its stretches, of a run of load; else empty.
    pub timeline: Timeline,
    /// Standard output is taken by something else: the summary goes to standard error.
    pub aside: bool,
}

impl Delivery {
    /// Of a report of any kind.
    ///
    /// # Panics
    /// A report that is no JSON: its maps have keys that are no strings.
    #[must_use]
    pub fn new(report: &impl Serialize, summary: String, exit_status: u8) -> Self {
        let report = serde_json::to_value(report).expect("reports have no keys but strings");
        let timeline = Timeline::default();
        Self { report, summary, exit_status, timeline, aside: false }
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// errno of write(2), but for EPIPE: a reader that has gone (`| head`) does not change how the
    /// run ended.
    pub fn print(&self) -> io::Result<()> {
        let print = |mut to: Box<dyn Write>| {
            to.write_all(self.summary.as_bytes()).and_then(|()| to.flush())
        };
        let printed = match self.aside {
            false => print(Box::new(io::stdout())),
            true => print(Box::new(io::stderr())),
        };
        printed.or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })
    }
}
