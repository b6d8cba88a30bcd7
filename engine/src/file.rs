//! Files and directories as handlers see them.

use crate::ring::{Descriptor, FileStatus};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Closes its descriptor when the last reference goes.
#[derive(Debug)]
struct Owned {
    descriptor: Descriptor,
    /// How many of an engine's files are open.
    count: Option<Arc<AtomicU64>>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.descriptor != Descriptor::NONE {
            crate::ring::calls::close(self.descriptor);
        }
        if let Some(count) = &self.count {
            count.fetch_sub(1, Ordering::Relaxed);
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
        let descriptor = Descriptor(file.into_raw_fd());
        Ok(Self(Arc::new(Owned { descriptor, count: None })))
    }

    #[cfg(test)]
    pub(crate) fn simulated(descriptor: Descriptor) -> Self {
        let directory = Self(Arc::new(Owned { descriptor, count: None }));
        // Never closed: the number is the simulated kernel's.
        std::mem::forget(directory.0.clone());
        directory
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        self.0.descriptor
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
    /// A file opened by a shard, which counts it.
    pub(crate) fn new(descriptor: Descriptor, status: FileStatus, count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self { owned: Arc::new(Owned { descriptor, count: Some(count.clone()) }), status }
    }

    /// Takes over a file opened elsewhere. It is not among the descriptors of a ledger.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn from_file(file: std::fs::File) -> io::Result<Self> {
        let status = crate::ring::calls::file_status(Descriptor(file.as_raw_fd()))?;
        let descriptor = Descriptor(file.into_raw_fd());
        Ok(Self { owned: Arc::new(Owned { descriptor, count: None }), status })
    }

    /// What fstat(2) said when it was opened.
    #[must_use]
    pub fn status(&self) -> FileStatus {
        self.status
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        self.owned.descriptor
    }

    /// The descriptor, if nobody else has this file; it is the caller's to close.
    pub(crate) fn into_last_descriptor(self) -> Option<Descriptor> {
        let mut owned = Arc::into_inner(self.owned)?;
        Some(std::mem::replace(&mut owned.descriptor, Descriptor::NONE))
    }
}
