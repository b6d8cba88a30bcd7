//! The report files: `--json`, `--hlog`, `--html`. One of them may be `-`, standard output.

use super::{hlog, html};
use crate::args::{CommonArgs, STDOUT};
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::units::show_path;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The report files of a run.
#[derive(Debug)]
pub struct Outputs {
    json: Option<Output>,
    hlog: Option<Output>,
    html: Option<Output>,
}

#[derive(Debug)]
struct Output {
    option: &'static str,
    path: PathBuf,
    file: File,
    is_stdout: bool,
}

impl Outputs {
    /// Opens the files that the options name.
    ///
    /// # Errors
    /// A file cannot be opened, or two options name the same file or standard output.
    pub fn create(common: &CommonArgs) -> Result<Self, String> {
        let all = Self {
            json: Output::create("--json", common.json.as_deref())?,
            hlog: Output::create("--hlog", common.hlog.as_deref())?,
            html: Output::create("--html", common.html.as_deref())?,
        };
        let given: Vec<&Output> = [&all.json, &all.hlog, &all.html].into_iter().flatten().collect();
        let mut to_stdout = given.iter().filter(|output| output.is_stdout);
        if let (Some(one), Some(other)) = (to_stdout.next(), to_stdout.next()) {
            return Err(format!(
                "{} - and {} -: standard output takes one report",
                one.option, other.option
            ));
        }
        for (at, output) in given.iter().enumerate() {
            if let Some(other) = given[..at].iter().find(|other| other.is(output)) {
                return Err(format!(
                    "{} and {} name the same file: {}",
                    other.option,
                    output.option,
                    show_path(&output.path)
                ));
            }
        }
        Ok(all)
    }

    /// Returns true if a report goes to standard output, which then has nothing else.
    #[must_use]
    pub fn use_stdout(&self) -> bool {
        [&self.json, &self.hlog, &self.html].into_iter().flatten().any(|output| output.is_stdout)
    }

    /// Writes all files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(self, delivery: &Delivery) -> Result<(), String> {
        let Self { json, hlog, html } = self;
        if let Some(output) = json {
            output.write(|file| {
                serde_json::to_writer_pretty(&mut *file, &delivery.report)?;
                file.write_all(b"\n")
            })?;
        }
        if let Some(output) = hlog {
            output.write(|file| hlog::write(file, delivery))?;
        }
        if let Some(output) = html {
            output.write(|file| file.write_all(html::page(&delivery.report).as_bytes()))?;
        }
        Ok(())
    }
}

impl Output {
    fn create(option: &'static str, path: Option<&Path>) -> Result<Option<Self>, String> {
        let Some(path) = path else { return Ok(None) };
        let is_stdout = path.as_os_str() == STDOUT;
        let opened = match is_stdout {
            true => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            // An existing file keeps its content until the report is ready.
            false => File::options().write(true).create(true).truncate(false).open(path),
        };
        match opened {
            Ok(file) => Ok(Some(Self { option, path: path.into(), file, is_stdout })),
            Err(error) => Err(format!("{option} {}: cannot open: {error}", show_path(path))),
        }
    }

    /// Returns true if both are the same regular file.
    fn is(&self, other: &Self) -> bool {
        let (Ok(a), Ok(b)) = (self.file.metadata(), other.file.metadata()) else { return false };
        a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino())
    }

    fn write(
        self,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> Result<(), String> {
        // A pipe or a device cannot be truncated. Standard output may be appended to a file.
        let is_regular = self.file.metadata().is_ok_and(|about| about.is_file());
        let emptied = if is_regular && !self.is_stdout { self.file.set_len(0) } else { Ok(()) };
        let mut file = BufWriter::new(&self.file);
        emptied.and_then(|()| write(&mut file)).and_then(|()| file.flush()).map_err(|error| {
            format!("{} {}: cannot write: {error}", self.option, show_path(&self.path))
        })
    }
}
