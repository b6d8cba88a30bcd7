//! Files and directories as handlers see them.

use crate::ring::{Descriptor, FileStatus};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The files that a shard has opened and others hold. One that is dropped comes back to be closed
/// on the ring: the last close of a file without a name frees its blocks, which takes long.
#[derive(Debug, Default)]
pub(crate) struct FilesOpen {
    /// Held by others, or dropped and not taken back yet.
    open: AtomicU64,
    /// Some were dropped.
    any_dropped: AtomicBool,
    dropped: Mutex<Dropped>,
}

/// A file to be closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub descriptor: Descriptor,
    /// It may take long.
    pub waits: bool,
}

/// Freeing the blocks of a file that has lost its name takes long from so many bytes on.
const LARGE_BYTES: u64 = 1 << 20;

#[derive(Debug, Default)]
struct Dropped {
    files: Vec<Closing>,
    /// The shard has ended: nobody takes them back.
    over: bool,
}

impl FilesOpen {
    pub fn count(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn has_dropped(&self) -> bool {
        self.any_dropped.load(Ordering::Relaxed)
    }

    /// Moves those that were dropped to the end of `closing`.
    #[inline]
    pub fn take_dropped(&self, closing: &mut Vec<Closing>) {
        // A file dropped by this thread is seen; one dropped by another may wait for a turn.
        if self.has_dropped() {
            self.take(closing);
        }
    }

    #[inline(never)]
    fn take(&self, closing: &mut Vec<Closing>) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        self.any_dropped.store(false, Ordering::Relaxed);
        self.open.fetch_sub(dropped.files.len() as u64, Ordering::Relaxed);
        closing.append(&mut dropped.files);
    }

    /// The shard ends: from now on whoever drops a file closes it.
    pub fn end(&self) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).over = true;
    }

    fn drop_file(&self, file: Closing) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if dropped.over {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return crate::ring::calls::close(file.descriptor);
        }
        dropped.files.push(file);
        self.any_dropped.store(true, Ordering::Relaxed);
    }
}

/// Closes its descriptor when the last reference goes.
#[derive(Debug)]
struct Owned {
    descriptor: Descriptor,
    /// Closing it may take long.
    waits: bool,
    /// The shard that opened it.
    opener: Option<Arc<FilesOpen>>,
}

impl Owned {
    /// A file opened by a shard, which counts it.
    fn counted(descriptor: Descriptor, waits: bool, opener: &Arc<FilesOpen>) -> Self {
        opener.open.fetch_add(1, Ordering::Relaxed);
        Self { descriptor, waits, opener: Some(opener.clone()) }
    }

    /// Now the caller's to close.
    fn release(mut self) -> Closing {
        if let Some(opener) = self.opener.take() {
            opener.open.fetch_sub(1, Ordering::Relaxed);
        }
        let descriptor = std::mem::replace(&mut self.descriptor, Descriptor::NONE);
        Closing { descriptor, waits: self.waits }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        match &self.opener {
            _ if self.descriptor == Descriptor::NONE => {}
            Some(opener) => {
                opener.drop_file(Closing { descriptor: self.descriptor, waits: self.waits });
            }
            None => crate::ring::calls::close(self.descriptor),
        }
    }
}

/// A directory beneath which [`Connection::open_file`](crate::Connection::open_file) opens paths.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory {
    owned: Arc<Owned>,
    /// fsync(2) works on it.
    can_sync: bool,
    /// Opening something beneath it may wait for more than a disk.
    waits: bool,
}

impl Directory {
    /// Opens a directory to open files beneath, which takes no right to list it (`O_PATH`).
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, libc::O_PATH)
    }

    /// Opens a directory in which files are created, too: one that fsync(2) works on, for
    /// [`Publish::sync`]. It takes the right to list it.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_to_create(path: &Path) -> io::Result<Self> {
        Self::open_with(path, 0)
    }

    fn open_with(path: &Path, flags: i32) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags | libc::O_DIRECTORY)
            .open(path)?;
        let descriptor = Descriptor(file.into_raw_fd());
        let waits = crate::ring::calls::may_wait(descriptor);
        let owned = Arc::new(Owned { descriptor, waits, opener: None });
        Ok(Self { owned, can_sync: flags & libc::O_PATH == 0, waits })
    }

    #[cfg(test)]
    pub(crate) fn simulated(descriptor: Descriptor) -> Self {
        let owned = Arc::new(Owned { descriptor, waits: false, opener: None });
        // Never closed: the number is the simulated kernel's.
        std::mem::forget(owned.clone());
        Self { owned, can_sync: true, waits: false }
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        self.owned.descriptor
    }

    pub(crate) fn can_sync(&self) -> bool {
        self.can_sync
    }

    pub(crate) fn waits(&self) -> bool {
        self.waits
    }
}

/// An open file with what is noted about it.
#[derive(Debug)]
struct Noted {
    file: Owned,
    note: OnceLock<Box<[u8]>>,
}

impl Noted {
    fn new(file: Owned) -> Arc<Self> {
        Arc::new(Self { file, note: OnceLock::new() })
    }
}

/// An open file: send it, or drop it. A clone is the same open file, for sending it to many
/// connections; it is closed with the last one.
#[derive(Clone, Debug)]
pub struct OpenFile {
    owned: Arc<Noted>,
    status: FileStatus,
    /// Reading it may wait for more than a disk, even what is cached.
    waits: bool,
}

impl OpenFile {
    /// A file opened by a shard, which counts it.
    pub(crate) fn new(
        descriptor: Descriptor,
        status: FileStatus,
        waits: bool,
        opener: &Arc<FilesOpen>,
    ) -> Self {
        let closes_slowly = waits || status.bytes > LARGE_BYTES;
        let owned = Owned::counted(descriptor, closes_slowly, opener);
        Self { owned: Noted::new(owned), status, waits }
    }

    /// Takes over a file opened elsewhere. It is not among the descriptors of a ledger.
    ///
    /// # Errors
    /// As statx(2).
    pub fn from_file(file: std::fs::File) -> io::Result<Self> {
        let status = crate::ring::calls::file_status(Descriptor(file.as_raw_fd()))?;
        let descriptor = Descriptor(file.into_raw_fd());
        let waits = crate::ring::calls::may_wait(descriptor);
        let owned = Noted::new(Owned { descriptor, waits: true, opener: None });
        Ok(Self { owned, status, waits })
    }

    /// What statx(2) said when it was opened.
    #[must_use]
    pub fn status(&self) -> FileStatus {
        self.status
    }

    /// A place for what whoever sends it has worked out about it: all clones have it in common, and
    /// it goes with the last one.
    #[must_use]
    pub fn note(&self) -> &OnceLock<Box<[u8]>> {
        &self.owned.note
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        self.owned.file.descriptor
    }

    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// What is the caller's to close, if nobody else has this file.
    pub(crate) fn into_last(self) -> Option<Closing> {
        Arc::into_inner(self.owned).map(|owned| owned.file.release())
    }
}

/// A file without a name (`O_TMPFILE`, see open(2)): made by
/// [`Connection::create_file`](crate::Connection::create_file), filled by
/// [`receive_file`](crate::Connection::receive_file), given its name by
/// [`publish_file`](crate::Connection::publish_file). Nobody sees it before that. Dropped, or left
/// by a process that dies, it is gone without a trace.
#[derive(Debug)]
pub struct NewFile {
    owned: Owned,
    directory: Directory,
    inode: u64,
    bytes: u64,
}

/// How [`Connection::publish_file`](crate::Connection::publish_file) gives a file its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// fsync(2) of the file before, and of the directory after: the file outlives a crash of the
    /// machine. Its directory must come from [`Directory::open_to_create`].
    pub sync: bool,
    /// Replace a file of that name, in one step. Otherwise EEXIST.
    pub replace: bool,
}

/// Why [`Connection::receive_file`](crate::Connection::receive_file) did not get all bytes into
/// its file. The file is gone.
#[derive(Debug)]
pub struct ReceiveFailed {
    /// ENOSPC, EDQUOT, EIO and their like, of write(2); `UnexpectedEof`: the peer's FIN came first.
    pub error: io::Error,
    /// Bytes of the range that are still to come on the stream: `received` is shown them, and has
    /// to skip them to stay in step.
    pub missing_bytes: u64,
}

impl NewFile {
    pub(crate) fn new(
        descriptor: Descriptor,
        status: FileStatus,
        directory: Directory,
        opener: &Arc<FilesOpen>,
    ) -> Self {
        let owned = Owned::counted(descriptor, true, opener);
        Self { owned, directory, inode: status.inode, bytes: 0 }
    }

    /// Bytes up to the end of the last one received into it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn note_written(&mut self, end: u64) {
        self.bytes = self.bytes.max(end);
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        self.owned.descriptor
    }

    /// Where it gets its name.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Its own as long as it is open.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }
}
