//! The file that a download is written to: a temporary file beside the target until the data is
//! complete and verified.

use super::Sha;
use ringload_lifecycle::packets::Version;
use ringload_lifecycle::units::{show_hex, show_path};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Size of a block that is read to be hashed.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of the digest that a temporary name contains.
const KEY_BYTES: usize = 16;

/// A file that is not complete. Dropping it removes the temporary file, unless it is kept.
pub struct Part {
    file: File,
    /// Name in messages.
    shown: String,
    /// The temporary file and the target; `None` if the target is written directly.
    rename: Option<(PathBuf, PathBuf)>,
    hash: Sha256,
    bytes: u64,
    keeps: bool,
}

impl Part {
    /// Opens the target of a single download: a temporary file beside `out`, `out` itself if it is
    /// a device or a pipe, or standard output if `out` is `None`.
    ///
    /// # Errors
    /// errno of open(2), or `out` is a directory.
    pub fn beside(out: Option<&Path>) -> Result<Self, String> {
        let Some(out) = out else {
            let descriptor = io::stdout().as_fd().try_clone_to_owned();
            let file = descriptor.map_err(|error| format!("standard output: {error}"))?.into();
            return Ok(Self::new(file, "standard output".into(), None));
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
                return Ok(Self::new(file, shown, None));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => out.to_owned(),
            Err(error) => return Err(failed(error)),
        };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map(std::fs::metadata).transpose().map_err(failed)?;
        Self::create(target, 0)
    }

    /// Creates the temporary file of `target`.
    ///
    /// # Errors
    /// errno of open(2), or `target` is a directory.
    pub fn create(target: PathBuf, number: u32) -> Result<Self, String> {
        let temporary = format!(".ringload-{}-{number}.part", std::process::id());
        let part = Self::open(target, &temporary)?;
        // A killed process with the same process id may have left data.
        part.file.set_len(0).map_err(|error| part.failed(&error))?;
        Ok(part)
    }

    /// Opens the temporary file of this version, which may have data of an earlier run. Its name
    /// contains server, name, version and size, so that it fits nothing else.
    ///
    /// # Errors
    /// As [`Self::create`], or the data cannot be read.
    pub fn resume(
        server: &str,
        name: &[u8],
        version: &Version,
        size_bytes: u64,
    ) -> Result<Self, String> {
        let mut key = Sha256::new();
        for field in [server.as_bytes(), &[0], name, &[0], version, &size_bytes.to_be_bytes()] {
            key.update(field);
        }
        let key = show_hex(&key.finalize()[..KEY_BYTES]);
        let target = PathBuf::from(OsStr::from_bytes(name));
        let mut part = Self::open(target, &format!(".ringload-{key}.part"))?;
        part.keeps = true;
        part.hash_existing(size_bytes).map_err(|error| part.failed(&error))?;
        Ok(part)
    }

    fn new(file: File, shown: String, rename: Option<(PathBuf, PathBuf)>) -> Self {
        Self { file, shown, rename, hash: Sha256::new(), bytes: 0, keeps: false }
    }

    fn open(target: PathBuf, temporary: &str) -> Result<Self, String> {
        let temporary = target.with_file_name(temporary);
        let shown = show_path(&temporary);
        let fail = |what: &str, error: &io::Error| {
            format!("cannot {what} {shown}: {error}; is the folder writable?")
        };
        if target.is_dir() {
            return Err(format!("{} is a directory; remove it first", show_path(&target)));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temporary)
            .map_err(|error| fail("create", &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another ringload writes {shown}; wait for its end"));
            }
            Err(TryLockError::Error(error)) => return Err(fail("lock", &error)),
        }
        Ok(Self::new(file, shown, Some((temporary, target))))
    }

    /// Hashes the data of an earlier run. Data longer than the file is discarded.
    fn hash_existing(&mut self, size_bytes: u64) -> io::Result<()> {
        if self.file.metadata()?.len() > size_bytes {
            self.file.set_len(0)?;
        }
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let count = self.file.read(&mut block)?;
            if count == 0 {
                return self.file.seek(SeekFrom::End(0)).map(|_| ());
            }
            self.hash.update(&block[..count]);
            self.bytes += count as u64;
        }
    }

    /// Returns true if the target is written directly.
    #[must_use]
    pub const fn is_in_place(&self) -> bool {
        self.rename.is_none()
    }

    /// Returns the number of bytes written, with those of earlier runs.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes and hashes the next bytes.
    ///
    /// # Errors
    /// errno of write(2).
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.write_all(bytes).map_err(|error| self.failed(&error))
    }

    /// Unlike [`Write::write_all`], counts the bytes written before an error.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.hash.update(&bytes[..count]);
                    self.bytes += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> String {
        let remedy = match (error.kind(), self.keeps) {
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, true) => {
                "; free space and run it again with --resume"
            }
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, false) => "; free space",
            _ => "",
        };
        format!("cannot write to {}: {error}{remedy}", self.shown)
    }

    /// Returns the SHA-256 of the bytes written.
    #[must_use]
    pub fn digest(&self) -> Sha {
        self.hash.clone().finalize().into()
    }

    /// Removes the temporary file, whose data differs from the server's.
    pub fn discard(mut self) {
        self.keeps = false;
    }

    /// Returns a note on the data that a later run can resume.
    #[must_use]
    pub fn remains(&self) -> Option<String> {
        let (bytes, shown) = (self.bytes, &self.shown);
        (self.keeps && bytes > 0)
            .then(|| format!("{bytes} bytes are kept in {shown}; run it again with --resume"))
    }

    /// Renames the temporary file to the target.
    ///
    /// # Errors
    /// errno of rename(2).
    pub fn finish(mut self) -> Result<(), String> {
        let Some((temporary, target)) = &self.rename else { return Ok(()) };
        std::fs::rename(temporary, target).map_err(|error| {
            let (from, to) = (show_path(temporary), show_path(target));
            format!("cannot rename {from} to {to}: {error}; is there a directory of that name?")
        })?;
        self.rename = None;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.rename
            && (!self.keeps || self.bytes == 0)
            && let Err(error) = std::fs::remove_file(temporary)
        {
            let shown = &self.shown;
            ringload_lifecycle::note!(
                "ringload: cannot remove the temporary file {shown}: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_counts_no_bytes() {
        let mut part = Part::beside(Some(Path::new("/dev/full"))).expect("Linux has one");
        for _ in 0..3 {
            let error = part.write(b"hello").expect_err("it is full");
            assert!(error.starts_with("cannot write to /dev/full: No space left"), "{error}");
        }
        assert!(part.bytes() == 0 && part.is_in_place());
    }
}
