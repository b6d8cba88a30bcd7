//! The options that every kind of run has.

use clap::Args;
use std::path::PathBuf;

/// What every kind of run has.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Write the report as JSON too (described in report.schema.json)
    #[arg(long, global = true, value_name = "FILE", env = "RINGLOAD_JSON", hide_env = true)]
    pub json: Option<PathBuf>,
    /// Print no line per second and no progress, only the summary
    #[arg(long, global = true, env = "RINGLOAD_QUIET", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub quiet: bool,
    /// Seed of the bytes sent; taken from the clock by default, and reported
    #[arg(long, value_name = "NUMBER", env = "RINGLOAD_SEED", hide_env = true)]
    pub seed: Option<u64>,
}
