//! The options of `packets ADDR put` and `packets ADDR get`.

use super::{CommonArgs, STDOUT, examples};
use clap::Subcommand;
use ringload_lifecycle::packets::check_name;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The transfer of files to a packet server, or from one.
#[derive(Clone, Debug, Subcommand)]
pub enum Transfer {
    /// Upload files and compare their SHA-256 with the server's
    #[command(after_help = examples::PUT, max_term_width = 100)]
    Put {
        /// The files to upload, one after the other on one connection; must be regular files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Name of the file on the server. Default: the last component of FILE
        #[arg(long = "as", value_name = "NAME")]
        name: Option<OsString>,
        /// Replace an existing file of that name; the server must allow it (ringwrightd: --replace)
        #[arg(long)]
        replace: bool,
        /// Continue an upload that was interrupted with this option before, if the server still has
        /// its beginning (ringwrightd: --resume-timeout)
        #[arg(long)]
        resume: bool,
        /// Do not ask the server for the SHA-256 of the file
        #[arg(long)]
        no_verify: bool,
    },
    /// Download files and compare their SHA-256 with the server's
    #[command(
        after_help = examples::GET,
        max_term_width = 100,
        long_about = "Download files and compare their SHA-256 with the server's.\n\nThe data goes \
        to a temporary file in the target folder, which is renamed to the target when it is \
        complete and verified. After a failure, the target is unchanged. A device, a pipe or \
        standard output is written directly.\n\nSeveral files come at once on one connection, into \
        the current folder."
    )]
    Get {
        /// Names of the files on the server
        #[arg(value_name = "NAME", required = true)]
        names: Vec<OsString>,
        /// Target file; - is standard output. Default: NAME in the current folder
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Keep the received data after a failure, as .ringload-*.part in the current folder, and
        /// continue a download that was interrupted with this option before, if the server's file
        /// is unchanged
        #[arg(long)]
        resume: bool,
        /// Do not ask the server for the SHA-256 of the file
        #[arg(long)]
        no_verify: bool,
    },
    /// List the files on the server, with their sizes
    #[command(max_term_width = 100)]
    List,
}

impl Transfer {
    /// Options that apply to load only.
    const NOT_FOR_FILES: [&str; 21] = [
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
        "ring",
        "size",
        "digest_every",
        "hlog",
        "proxy_protocol",
        "clients",
        "think",
        "stages",
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
            return Err(format!("--{option} applies to load; put, get and list make no load"));
        }
        let names = self.names();
        if let Self::Get { out: Some(_), names, resume, .. } = self
            && (names.len() > 1 || *resume)
        {
            return Err("--out takes one NAME, and not --resume".into());
        }
        if matches!(self, Self::Put { name: Some(_), files, .. } if files.len() > 1) {
            return Err("--as takes one FILE".into());
        }
        names.iter().try_for_each(|name| check_name(name))?;
        match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            Some((_, twice)) => Err(format!("{:?} is given twice", String::from_utf8_lossy(twice))),
            None => Ok(()),
        }
    }

    /// Returns true for one file without `--resume`, which has a report of its own kind.
    #[must_use]
    pub fn is_single(&self) -> bool {
        match self {
            Self::Put { files, resume, .. } => files.len() == 1 && !resume,
            Self::Get { names, resume, .. } => names.len() == 1 && !resume,
            Self::List => false,
        }
    }

    /// Returns the names of the files on the server.
    #[must_use]
    pub fn names(&self) -> Vec<Vec<u8>> {
        let bytes = |name: Option<&OsStr>| name.unwrap_or_default().as_bytes().to_vec();
        match self {
            Self::Put { files, name: None, .. } => {
                files.iter().map(|file| bytes(file.file_name())).collect()
            }
            Self::Put { name, .. } => vec![bytes(name.as_deref())],
            Self::Get { names, .. } => names.iter().map(|name| bytes(Some(name))).collect(),
            Self::List => Vec::new(),
        }
    }
}
