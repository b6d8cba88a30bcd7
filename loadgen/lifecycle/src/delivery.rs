//! The result of a command.

use crate::timeline::Timeline;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};

/// The result of a command.
#[derive(Debug)]
pub struct Delivery {
    /// The JSON report, described in `report.schema.json`.
    pub report: Value,
    /// The summary as text.
    pub summary: String,
    /// The exit status of the process.
    pub exit_status: u8,
    /// The histograms of each second of a load run; empty for other commands.
    pub timeline: Timeline,
    /// Print the summary to standard error, because standard output carries a file or a report.
    pub aside: bool,
}

impl Delivery {
    /// Makes the result from a report of any kind.
    ///
    /// # Panics
    /// Panics if the report cannot be JSON because a map has keys that are not strings.
    #[must_use]
    pub fn new(report: &impl Serialize, summary: String, exit_status: u8) -> Self {
        let report = serde_json::to_value(report).expect("all keys of a report are strings");
        let timeline = Timeline::default();
        Self { report, summary, exit_status, timeline, aside: false }
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// errno of write(2), except EPIPE and EIO: a reader that has closed the pipe (`| head`), and a
    /// terminal that has hung up, do not change the exit status.
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
            _ if error.raw_os_error() == Some(libc::EIO) => Ok(()),
            _ => Err(error),
        })
    }
}
