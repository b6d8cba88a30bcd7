//! One file there or back: `packets ADDR put` and `get`.

use crate::packets::wire::check_name;
use clap::Subcommand;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A file to a packet server, or from one.
#[derive(Clone, Debug, Subcommand)]
pub enum Transfer {
    /// Send a file, and compare its SHA-256 with what the server computes of it
    Put {
        /// A regular file
        file: PathBuf,
        /// Its name on the server; the last component of FILE by default
        #[arg(long = "as", value_name = "NAME")]
        name: Option<OsString>,
        /// Replace a file of that name (the server must allow that)
        #[arg(long)]
        replace: bool,
        /// Do not ask the server for its SHA-256
        #[arg(long)]
        no_verify: bool,
    },
    /// Fetch a file, and compare its SHA-256 with what the server computes of it
    #[command(
        long_about = "Fetch a file, and compare its SHA-256 with what the server computes of \
        it.\n\nA regular file, or one that is not there yet, is written beside its place and \
        renamed when it is complete and right, in place of what was there; if anything goes wrong \
        nothing stays."
    )]
    Get {
        /// Its name on the server
        name: OsString,
        /// Where it goes; '-' is standard output, the default is NAME in the current folder
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Do not ask the server for its SHA-256
        #[arg(long)]
        no_verify: bool,
    },
}

impl Transfer {
    /// Options of the load that have no meaning for a file.
    const NOT_FOR_FILES: [&str; 14] = [
        "connections",
        "threads",
        "duration",
        "requests",
        "rate",
        "conn_rate",
        "arrivals",
        "drain_ok",
        "pipeline",
        "requests_per_connection",
        "seed",
        "pin_from",
        "size",
        "digest_every",
    ];

    pub(super) fn check(&self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        if let Some(option) = Self::NOT_FOR_FILES.into_iter().find(|name| from_line(name)) {
            let option = option.replace('_', "-");
            return Err(format!("--{option} is for load; put and get move one file"));
        }
        check_name(&self.name())
    }

    /// The file's name on the server.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        let name = match self {
            Self::Put { file, name, .. } => name.as_deref().or(file.file_name()),
            Self::Get { name, .. } => Some(name.as_os_str()),
        };
        name.unwrap_or_default().as_bytes().to_vec()
    }
}
