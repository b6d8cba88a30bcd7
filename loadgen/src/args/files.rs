//! Reports read again: `report`, `merge`, `compare`.

use super::CommonArgs;
use clap::Subcommand;
use std::path::PathBuf;

/// What is done with reports.
#[derive(Clone, Debug, Subcommand)]
pub enum Reports {
    /// Print the summary of reports again, or make a page of one (--html)
    Report {
        /// What --json has written
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// What every kind of run has.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Add up reports of load from several machines: percentiles are those of all times together
    Merge {
        /// What --json has written
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// What every kind of run has.
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Compare two runs, or several on each side (A1,A2,A3 B1,B2,B3), with their noise
    Compare {
        /// Reports of the one side, separated by commas
        #[arg(required = true, value_delimiter = ',', num_args = 1)]
        a: Vec<PathBuf>,
        /// Reports of the other side
        #[arg(required = true, value_delimiter = ',', num_args = 1)]
        b: Vec<PathBuf>,
        /// What every kind of run has.
        #[command(flatten)]
        common: CommonArgs,
    },
}

impl Reports {
    /// Options of runs that have no meaning for files.
    const NOT_FOR_REPORTS: [&str; 5] = ["hlog", "ledger", "pid", "settle", "seed"];

    /// What every kind of run has.
    #[must_use]
    pub const fn common(&self) -> &CommonArgs {
        match self {
            Self::Report { common, .. }
            | Self::Merge { common, .. }
            | Self::Compare { common, .. } => common,
        }
    }

    pub(super) fn check(&self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        match Self::NOT_FOR_REPORTS.into_iter().find(|name| from_line(name)) {
            Some(option) => Err(format!("--{option} is for a run; here reports are read again")),
            None => match self {
                Self::Report { files, common } if files.len() > 1 && common.needs_one_report() => {
                    Err("--json, --html and --fail-if are for one report; give one FILE".into())
                }
                Self::Compare { common, .. } if common.html.is_some() => {
                    Err("--html makes a page of one report: ringload report FILE --html PAGE"
                        .into())
                }
                _ => Ok(()),
            },
        }
    }
}
