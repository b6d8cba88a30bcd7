//! The options of `packets ADDR put` and `packets ADDR get`.

use super::{CommonArgs, examples};
use crate::output::outputs::STDOUT;
use crate::packets::wire::check_name;
use clap::Subcommand;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The transfer of one file to a packet server, or from one.
#[derive(Clone, Debug, Subcommand)]
pub enum Transfer {
    /// Upload a file and compare its SHA-256 with the server's
    #[command(after_help = examples::PUT, max_term_width = 100)]
    Put {
        /// The file to upload; must be a regular file
        file: PathBuf,
        /// Name of the file on the server. Default: the last component of FILE
        #[arg(long = "as", value_name = "NAME")]
        name: Option<OsString>,
        /// Replace an existing file of that name; the server must allow it (ringwrightd: --replace)
        #[arg(long)]
        replace: bool,
        /// Do not ask the server for the SHA-256 of the file
        #[arg(long)]
        no_verify: bool,
    },
    /// Download a file and compare its SHA-256 with the server's
    #[command(
        after_help = examples::GET,
        max_term_width = 100,
        long_about = "Download a file and compare its SHA-256 with the server's.\n\nThe data goes \
        to a temporary file in the target folder, which is renamed to the target when it is \
        complete and verified. After a failure, the target is unchanged. A device, a pipe or \
        standard output is written directly."
    )]
    Get {
        /// Name of the file on the server
        name: OsString,
        /// Target file; - is standard output. Default: NAME in the current folder
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Do not ask the server for the SHA-256 of the file
        #[arg(long)]
        no_verify: bool,
    },
}

impl Transfer {
    /// Options that apply to load only.
    const NOT_FOR_FILES: [&str; 16] = [
        "connections",
        "threads",
        "duration",
        "count",
        "rate",
        "conn_rate",
        "arrivals",
        "drain_ok",
        "expect_disconnects",
        "pipeline",
        "requests_per_connection",
        "seed",
        "pin_from",
        "size",
        "digest_every",
        "hlog",
    ];

    pub(super) fn check(
        &self,
        common: &CommonArgs,
        from_line: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let to_stdout =
            matches!(self, Self::Get { out: Some(out), .. } if out.as_os_str() == STDOUT);
        if to_stdout && common.uses_stdout() {
            return Err("--out - and a report to -: standard output takes one of them".into());
        }
        if let Some(option) = Self::NOT_FOR_FILES.into_iter().find(|name| from_line(name)) {
            let option = option.replace('_', "-");
            return Err(format!("--{option} applies to load; put and get transfer one file"));
        }
        check_name(&self.name())
    }

    /// Returns the name of the file on the server.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        let name = match self {
            Self::Put { file, name, .. } => name.as_deref().or(file.file_name()),
            Self::Get { name, .. } => Some(name.as_os_str()),
        };
        name.unwrap_or_default().as_bytes().to_vec()
    }
}
