//! The beginning of a file that is downloaded, under a temporary name in the current folder.

use crate::transfer::Sha;
use ringload_lifecycle::packets::Version;
use ringload_lifecycle::units::{show_hex, show_path};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Size of a block that is read to be hashed.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of the digest that a temporary name contains.
const KEY_BYTES: usize = 16;

/// A file that is not complete. Dropping it removes the temporary file, unless it is kept.
pub struct Part {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    hash: Sha256,
    bytes: u64,
    keeps: bool,
    is_done: bool,
}

impl Part {
    /// Creates the temporary file of `name`, which is one component.
    pub fn create(name: &[u8], number: u32) -> Result<Self, String> {
        let temporary = format!(".ringload-{}-{number}.part", std::process::id());
        let part = Self::open(name, temporary)?;
        part.file.set_len(0).map_err(|error| part.failed(&error))?;
        Ok(part)
    }

    /// Opens the temporary file of this version, which may have data of an earlier run. Its name
    /// contains server, name, version and size, so that it fits nothing else.
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
        let mut part = Self::open(name, format!(".ringload-{key}.part"))?;
        part.keeps = true;
        part.hash_existing(size_bytes).map_err(|error| part.failed(&error))?;
        Ok(part)
    }

    fn open(name: &[u8], temporary: String) -> Result<Self, String> {
        let target = PathBuf::from(OsStr::from_bytes(name));
        let temporary = PathBuf::from(temporary);
        let fail = |what: &str, error: &io::Error| {
            format!("cannot {what} {}: {error}; is the folder writable?", show_path(&temporary))
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
                let temporary = show_path(&temporary);
                return Err(format!("another ringload writes {temporary}; wait for its end"));
            }
            Err(TryLockError::Error(error)) => return Err(fail("lock", &error)),
        }
        let hash = Sha256::new();
        Ok(Self { file, temporary, target, hash, bytes: 0, keeps: false, is_done: false })
    }

    /// Hashes the data of an earlier run. More than the file has is no beginning of it.
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

    /// Bytes of the beginning that are there.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> String {
        let remedy = match (error.kind(), self.keeps) {
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, true) => {
                "; free space and run it again with --resume"
            }
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, false) => "; free space",
            _ => "",
        };
        format!("cannot write {}: {error}{remedy}", show_path(&self.temporary))
    }

    pub fn digest(&self) -> Sha {
        self.hash.clone().finalize().into()
    }

    /// The data is not what the server has: it must not be resumed.
    pub fn discard(mut self) {
        self.keeps = false;
    }

    /// The note on what an interrupted download leaves.
    pub fn remains(&self) -> Option<String> {
        let (bytes, temporary) = (self.bytes, show_path(&self.temporary));
        (self.keeps && bytes > 0)
            .then(|| format!("{bytes} bytes are kept in {temporary}; run it again with --resume"))
    }

    /// Gives the complete file its name, in one step.
    pub fn finish(mut self) -> Result<(), String> {
        std::fs::rename(&self.temporary, &self.target).map_err(|error| {
            let (from, to) = (show_path(&self.temporary), show_path(&self.target));
            format!("cannot rename {from} to {to}: {error}; is there a directory of that name?")
        })?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_done
            && (!self.keeps || self.bytes == 0)
            && let Err(error) = std::fs::remove_file(&self.temporary)
        {
            let temporary = show_path(&self.temporary);
            ringload_lifecycle::note!(
                "ringload: cannot remove the temporary file {temporary}: {error}"
            );
        }
    }
}
