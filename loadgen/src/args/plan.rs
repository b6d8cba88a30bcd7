//! The options of `plan`.

use super::CommonArgs;
use clap::Args;
use std::path::PathBuf;

/// The options of `plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// The plan, a TOML file; the end of this help shows every key
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
    /// Check the plan and print its schedule without running it
    #[arg(long)]
    pub check: bool,
    /// The options that every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
}
