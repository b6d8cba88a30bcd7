//! Where a received file goes: beside its place until it is complete and right.

use super::Sha;
use crate::units::show_path;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names that are tried for the temporary file.
const NAMES_MAX: u32 = 16;

/// What is written, and its SHA-256.
pub struct Sink {
    file: File,
    /// What messages call it.
    shown: String,
    hash: Sha256,
    written_bytes: u64,
    /// Why nothing more can be written.
    failure: Option<String>,
}

impl Sink {
    /// Writes and hashes what comes next.
    ///
    /// # Errors
    /// As write(2). Blocks handed over before that was known fail for the same reason.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        assert_eq!(offset, self.written_bytes, "blocks are written in order");
        self.write_all(bytes).map_err(|error| {
            let failure = format!("writing {}: {error}", self.shown);
            self.failure.insert(failure).clone()
        })
    }

    /// Unlike [`Write::write_all`] it knows how far it came.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.hash.update(&bytes[..count]);
                    self.written_bytes += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As many bytes went where the file was to go.
    #[must_use]
    pub const fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The SHA-256 of everything written.
    #[must_use]
    pub fn digest(&self) -> Sha {
        self.hash.clone().finalize().into()
    }
}

/// The sink, also after a worker panicked with it.
pub fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name that the file gets in the end. Dropped before, nothing of it stays.
pub struct Place {
    /// Where it is meanwhile, and where it belongs; `None`: it is written where it belongs.
    rename: Option<(PathBuf, PathBuf)>,
}

impl Place {
    /// There is no temporary file.
    #[must_use]
    pub fn is_written_in_place(&self) -> bool {
        self.rename.is_none()
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// As rename(2).
    pub fn keep(mut self) -> Result<(), String> {
        let Some((temporary, target)) = &self.rename else { return Ok(()) };
        std::fs::rename(temporary, target)
            .map_err(|error| format!("renaming it to {}: {error}", show_path(target)))?;
        self.rename = None;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.rename
            && let Err(error) = std::fs::remove_file(temporary)
        {
            crate::note!("ringload: {} stays: {error}", show_path(temporary));
        }
    }
}

/// Opens what is to be written: a temporary file beside `out`; `out` itself if it is a device or a
/// pipe; standard output if there is none.
///
/// # Errors
/// As open(2), and that a folder is no file.
pub fn open(out: Option<&Path>) -> Result<(Arc<Mutex<Sink>>, Place), String> {
    let sink = |file, shown| {
        let hash = Sha256::new();
        let sink = Sink { file, shown, hash, written_bytes: 0, failure: None };
        Arc::new(Mutex::new(sink))
    };
    let Some(out) = out else {
        let descriptor = io::stdout().as_fd().try_clone_to_owned();
        let file = descriptor.map_err(|error| format!("standard output: {error}"))?.into();
        return Ok((sink(file, "standard output".into()), Place { rename: None }));
    };
    let shown = show_path(out);
    let failed = |error: io::Error| format!("{shown}: {error}");
    let target = match std::fs::metadata(out) {
        // Through a link: what it leads to is replaced, not the link.
        Ok(found) if found.is_file() => out.canonicalize().map_err(failed)?,
        Ok(found) if found.is_dir() => return Err(format!("{shown} is a folder")),
        Ok(_) => {
            let file = OpenOptions::new().write(true).open(out).map_err(failed)?;
            return Ok((sink(file, shown), Place { rename: None }));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => out.to_owned(),
        Err(error) => return Err(failed(error)),
    };
    let (file, temporary) = beside(&target).map_err(failed)?;
    Ok((sink(file, shown), Place { rename: Some((temporary, target)) }))
}

/// A new file in the folder of `target`.
fn beside(target: &Path) -> io::Result<(File, PathBuf)> {
    let mut number = 0;
    loop {
        let name = format!(".ringload-{}-{number}.part", std::process::id());
        let path = target.with_file_name(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            // Left by a process that had our id and was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < NAMES_MAX => {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_nothing_is_written() {
        let (sink, place) = open(Some(Path::new("/dev/full"))).expect("Linux has one");
        let mut sink = lock(&sink);
        for offset in [0, 5, 10] {
            let error = sink.write(offset, b"hello").expect_err("it is full");
            assert!(error.starts_with("writing /dev/full: No space left"), "{error}");
        }
        assert!(sink.written_bytes() == 0 && place.is_written_in_place());
    }
}
