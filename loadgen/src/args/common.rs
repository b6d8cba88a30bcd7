//! The options that every kind of run has.

use crate::http::Url;
use crate::units::parse_duration;
use crate::verdict::expression::Expression;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What every kind of run has.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Write the report as JSON too (described in report.schema.json)
    #[arg(long, global = true, value_name = "FILE", env = "RINGLOAD_JSON", hide_env = true)]
    pub json: Option<PathBuf>,
    /// Write the report as one HTML page too, with its curves; it needs nothing beside itself
    #[arg(long, global = true, value_name = "FILE", env = "RINGLOAD_HTML", hide_env = true)]
    pub html: Option<PathBuf>,
    /// Write the times of every second as an HdrHistogram log (1.3) too
    #[arg(long, global = true, value_name = "FILE", env = "RINGLOAD_HLOG", hide_env = true)]
    pub hlog: Option<PathBuf>,
    /// Fail if this is so, as 'p99>5ms', 'errors.reset>0', 'replies_per_s<10k' (repeatable); the
    /// figures are listed at the end of this help
    #[arg(long, global = true, value_name = "EXPRESSION")]
    pub fail_if: Vec<Expression>,
    /// Fail if this ringwrightd (its --admin) has not given everything back after the run
    #[arg(
        long,
        global = true,
        value_name = "http://ADMIN",
        env = "RINGLOAD_LEDGER",
        hide_env = true
    )]
    pub ledger: Option<Url>,
    /// Fail if this server holds more descriptors or threads after the run, or sockets its clients
    /// have closed; its child processes count with it
    #[arg(long, global = true, value_name = "NUMBER", env = "RINGLOAD_PID", hide_env = true)]
    pub pid: Option<u32>,
    /// Longest wait until a server has given everything back (--ledger, --pid)
    #[arg(long, global = true, value_name = "TIME", default_value = "5s",
          env = "RINGLOAD_SETTLE", hide_env = true, value_parser = parse_duration)]
    pub settle: Duration,
    /// Print no line per second and no progress, only the summary
    #[arg(long, global = true, env = "RINGLOAD_QUIET", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub quiet: bool,
    /// Seed of the bytes sent; taken from the clock by default, and reported
    #[arg(long, value_name = "NUMBER", env = "RINGLOAD_SEED", hide_env = true)]
    pub seed: Option<u64>,
}

impl CommonArgs {
    /// Something is asked for that is of one report.
    #[must_use]
    pub fn needs_one_report(&self) -> bool {
        self.json.is_some() || self.html.is_some() || !self.fail_if.is_empty()
    }
}
