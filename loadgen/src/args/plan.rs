//! Several runs at once, in phases: the options of `plan`.

use super::CommonArgs;
use clap::Args;
use std::path::PathBuf;

/// A plan: what runs when, and what happens to the server meanwhile.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// The plan, as TOML
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
    /// Only read it, and print what would run when
    #[arg(long)]
    pub check: bool,
    /// What every kind of run has.
    #[command(flatten)]
    pub common: CommonArgs,
}
