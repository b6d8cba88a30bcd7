//! The options that every command takes.

use crate::http::Url;
use crate::output::outputs::STDOUT;
use crate::units::parse_duration;
use crate::verdict::expression::Expression;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// The options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Write the report to FILE as JSON; report.schema.json describes its fields. - is standard
    /// output; the summary then goes to standard error
    #[arg(long, global = true, value_name = "FILE", env = "RINGLOAD_JSON", hide_env = true)]
    pub json: Option<PathBuf>,
    /// Write the report to FILE as one self-contained HTML page with charts; - is standard output
    #[arg(long, global = true, value_name = "FILE", env = "RINGLOAD_HTML", hide_env = true)]
    pub html: Option<PathBuf>,
    /// Write the latencies of each second to FILE as an HdrHistogram log (format 1.3); - is
    /// standard output
    #[arg(long, value_name = "FILE", env = "RINGLOAD_HLOG", hide_env = true)]
    pub hlog: Option<PathBuf>,
    /// Fail (exit status 1) if this condition is true, for example 'p99>5ms', 'errors.reset>0' or
    /// 'replies_per_s<10k'; repeatable. The end of this help lists the figures
    #[arg(long, global = true, value_name = "EXPRESSION")]
    pub fail_if: Vec<Expression>,
    /// Fail if the ringwrightd with this admin address (its --admin) holds more connections,
    /// buffers or descriptors after the run than before it
    #[arg(
        long,
        global = true,
        value_name = "http://ADMIN",
        env = "RINGLOAD_LEDGER",
        hide_env = true
    )]
    pub ledger: Option<Url>,
    /// Fail if the server process with this id, with its child processes, has more open
    /// descriptors, threads or sockets in CLOSE_WAIT after the run than before it
    #[arg(long, global = true, value_name = "NUMBER", env = "RINGLOAD_PID", hide_env = true)]
    pub pid: Option<u32>,
    /// Longest wait after the run for the server to release everything (for --ledger and --pid)
    #[arg(long, global = true, value_name = "TIME", default_value = "5s",
          env = "RINGLOAD_SETTLE", hide_env = true, value_parser = parse_duration)]
    pub settle: Duration,
    /// Print only the summary: no line per second and no progress
    #[arg(long, global = true, env = "RINGLOAD_QUIET", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub quiet: bool,
    /// Seed for the bytes that are sent and for everything random. Default: from the clock; the
    /// report contains it, so that a run can be repeated
    #[arg(long, value_name = "NUMBER", env = "RINGLOAD_SEED", hide_env = true)]
    pub seed: Option<u64>,
}

impl CommonArgs {
    /// Returns true if a report goes to standard output.
    #[must_use]
    pub fn uses_stdout(&self) -> bool {
        let all = [&self.json, &self.html, &self.hlog];
        all.into_iter().flatten().any(|path| path.as_os_str() == STDOUT)
    }

    /// Returns true if an option is given that applies to exactly one report.
    #[must_use]
    pub fn needs_one_report(&self) -> bool {
        self.json.is_some() || self.html.is_some() || !self.fail_if.is_empty()
    }
}
