//! The options of the commands that read JSON reports: `report`, `merge` and `compare`.

use super::{CommonArgs, examples};
use clap::{Arg, Subcommand};
use std::path::PathBuf;

/// The commands that read JSON reports.
#[derive(Clone, Debug, Subcommand)]
pub enum Reports {
    /// Print the summary of JSON reports, or turn one into an HTML page
    #[command(after_help = examples::REPORT, max_term_width = 100, mut_args = hide_for_reports)]
    Report {
        /// Reports written by --json
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The options that every command takes.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Merge load reports of several machines into one, with exact percentiles of all requests
    #[command(after_help = examples::MERGE, max_term_width = 100, mut_args = hide_for_reports)]
    Merge {
        /// Reports written by --json
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The options that every command takes.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Compare run B with run A, or several runs on each side, and tell differences from noise
    #[command(after_help = examples::COMPARE, max_term_width = 100, mut_args = hide_for_reports)]
    Compare {
        /// Reports of side A, written by --json, separated by commas: A1,A2,A3
        #[arg(required = true, value_delimiter = ',', num_args = 1)]
        a: Vec<PathBuf>,
        /// Reports of side B
        #[arg(required = true, value_delimiter = ',', num_args = 1)]
        b: Vec<PathBuf>,
        /// The options that every command takes.
        #[command(flatten)]
        common: CommonArgs,
    },
}

/// Options that apply to runs only.
const NOT_FOR_REPORTS: [&str; 5] = ["hlog", "ledger", "pid", "settle", "seed"];

/// Hides an option from the help of a command that would refuse it.
fn hide_for_reports(option: Arg) -> Arg {
    let refused = NOT_FOR_REPORTS.contains(&option.get_id().as_str());
    option.hide(refused)
}

impl Reports {
    /// Returns the options that every command takes.
    #[must_use]
    pub const fn common(&self) -> &CommonArgs {
        match self {
            Self::Report { common, .. }
            | Self::Merge { common, .. }
            | Self::Compare { common, .. } => common,
        }
    }

    pub(super) fn check(&self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        match NOT_FOR_REPORTS.into_iter().find(|name| from_line(name)) {
            Some(option) => {
                Err(format!("--{option} applies to a run; this command only reads reports"))
            }
            None => match self {
                Self::Report { files, common } if files.len() > 1 && common.needs_one_report() => {
                    Err("--json, --html and --fail-if apply to one report; give one FILE".into())
                }
                Self::Compare { common, .. } if common.html.is_some() => {
                    Err("--html applies to one report: ringload report FILE --html PAGE".into())
                }
                _ => Ok(()),
            },
        }
    }
}
