//! The target of a download: a temporary file beside it until the data is complete and verified.

use super::Sha;
use ringload_lifecycle::units::show_path;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum number of names that are tried for the temporary file.
const NAMES_MAX: u32 = 16;

/// The written data and its SHA-256.
pub struct Sink {
    file: File,
    /// Name in messages.
    shown: String,
    hash: Sha256,
    written_bytes: u64,
    /// The first error; nothing more is written after it.
    failure: Option<String>,
}

impl Sink {
    /// Writes and hashes the next block.
    ///
    /// # Errors
    /// errno of write(2). Later blocks fail with the same error.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        assert_eq!(offset, self.written_bytes, "blocks are written in order");
        self.write_all(bytes).map_err(|error| {
            let failure = format!("cannot write to {}: {error}", self.shown);
            self.failure.insert(failure).clone()
        })
    }

    /// Unlike [`Write::write_all`], counts the bytes written before an error.
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

    /// Returns the number of bytes written.
    #[must_use]
    pub const fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Returns the SHA-256 of the bytes written.
    #[must_use]
    pub fn digest(&self) -> Sha {
        self.hash.clone().finalize().into()
    }
}

/// Locks the sink, also after a worker panicked while it held the lock.
pub fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The final name of the file. If dropped before [`Place::keep`], removes the temporary file.
pub struct Place {
    /// The temporary file and the target; `None` if the target is written directly.
    rename: Option<(PathBuf, PathBuf)>,
}

impl Place {
    /// Returns true if the target is written directly.
    #[must_use]
    pub fn is_written_in_place(&self) -> bool {
        self.rename.is_none()
    }

    /// Renames the temporary file to the target.
    ///
    /// # Errors
    /// errno of rename(2).
    pub fn keep(mut self) -> Result<(), String> {
        let Some((temporary, target)) = &self.rename else { return Ok(()) };
        std::fs::rename(temporary, target).map_err(|error| {
            format!("cannot rename {} to {}: {error}", show_path(temporary), show_path(target))
        })?;
        self.rename = None;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.rename
            && let Err(error) = std::fs::remove_file(temporary)
        {
            ringload_lifecycle::note!(
                "ringload: cannot remove the temporary file {}: {error}",
                show_path(temporary)
            );
        }
    }
}

/// Opens the target: a temporary file beside `out`, `out` itself if it is a device or a pipe, or
/// standard output if `out` is `None`.
///
/// # Errors
/// errno of open(2), or `out` is a directory.
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
        // Follows a symbolic link, to replace its target and not the link.
        Ok(found) if found.is_file() => out.canonicalize().map_err(failed)?,
        Ok(found) if found.is_dir() => {
            return Err(format!("--out {shown} is a directory; name a file in it"));
        }
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

/// Creates a temporary file in the directory of `target`.
fn beside(target: &Path) -> io::Result<(File, PathBuf)> {
    let mut number = 0;
    loop {
        let name = format!(".ringload-{}-{number}.part", std::process::id());
        let path = target.with_file_name(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            // Left by a killed process with the same process id.
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
            assert!(error.starts_with("cannot write to /dev/full: No space left"), "{error}");
        }
        assert!(sink.written_bytes() == 0 && place.is_written_in_place());
    }
}
