//! Files and directories as handlers see them.

use crate::ring::{Descriptor, FileStatus};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;
use std::sync::Arc;

/// Closes its descriptor when the last reference goes.
#[derive(Debug)]
struct Owned(Descriptor);

impl Drop for Owned {
    fn drop(&mut self) {
        if self.0 != Descriptor::NONE {
            crate::ring::calls::close(self.0);
        }
    }
}

/// A directory beneath which [`Connection::open_file`](crate::Connection::open_file) opens paths.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Owned>);

impl Directory {
    /// Opens a directory (`O_PATH | O_DIRECTORY`).
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(path)?;
        Ok(Self(Arc::new(Owned(Descriptor(file.into_raw_fd())))))
    }

    #[cfg(test)]
    pub(crate) fn simulated(descriptor: Descriptor) -> Self {
        let directory = Self(Arc::new(Owned(descriptor)));
        // Never closed: the number is the simulated kernel's.
        std::mem::forget(directory.0.clone());
        directory
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        self.0.0
    }
}

/// An open file: send it, or drop it. A clone is the same open file, for sending it to many
/// connections; it is closed with the last one.
#[derive(Clone, Debug)]
pub struct OpenFile {
    owned: Arc<Owned>,
    status: FileStatus,
}

impl OpenFile {
    pub(crate) fn new(descriptor: Descriptor, status: FileStatus) -> Self {
        Self { owned: Arc::new(Owned(descriptor)), status }
    }

    /// Takes over a file opened elsewhere.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn from_file(file: std::fs::File) -> io::Result<Self> {
        let status = crate::ring::calls::file_status(Descriptor(file.as_raw_fd()))?;
        Ok(Self::new(Descriptor(file.into_raw_fd()), status))
    }

    /// What fstat(2) said when it was opened.
    #[must_use]
    pub fn status(&self) -> FileStatus {
        self.status
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        self.owned.0
    }

    /// The descriptor, if nobody else has this file; it is the caller's to close.
    pub(crate) fn into_last_descriptor(self) -> Option<Descriptor> {
        let mut owned = Arc::into_inner(self.owned)?;
        Some(std::mem::replace(&mut owned.0, Descriptor::NONE))
    }
}
