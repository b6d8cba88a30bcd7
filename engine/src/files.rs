//! Files: sending them, receiving them, and giving them names.
//!
//! A [`Directory`] is opened once, before the engine starts. A connection opens files beneath it,
//! and no path leads out of it. The engine does all of this on its ring or with calls that do not
//! wait for a disk.
//!
//! | step | method of [`Connection`](crate::Connection) | result in [`Handler`](crate::Handler) |
//! |---|---|---|
//! | open a file | `open_file`, or `cached_file` at once | `file_opened`: [`OpenFile`] |
//! | send it or a range of it | `send_file`, `send_file_padded`, `send_cached` | `file_sent` |
//! | create a file without a name | `create_file` | `file_created`: [`NewFile`] |
//! | receive bytes into it | `receive_file` | `file_received` |
//! | give it a name | `publish_file` | `file_published` |
//!
//! A connection opens or creates one file at a time, receives one, and publishes one. Files that
//! are sent are queued like other output.

use crate::Reason;
use crate::ring::{Descriptor, Outside};
use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use crate::ring::{FileKind, FileStatus};

/// The files that a shard has opened and that others hold.
///
/// A dropped file returns to its shard and is closed on the ring. The last close of a file without
/// a name frees its blocks and can take long.
#[derive(Debug)]
pub(crate) struct FilesOpen {
    outside: Outside,
    /// The number of files held by others, or dropped and not taken back yet.
    open: AtomicU64,
    /// Set while `dropped` may hold files.
    any_dropped: AtomicBool,
    dropped: Mutex<Dropped>,
}

/// A file to close.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub descriptor: Descriptor,
    /// The close may take long and belongs on an io-wq thread.
    pub waits: bool,
}

/// The size from which the last close of a file without a name can take long.
const LARGE_BYTES: u64 = 1 << 20;

#[derive(Debug, Default)]
struct Dropped {
    files: Vec<Closing>,
    /// The shard has ended and takes no files back.
    over: bool,
}

impl FilesOpen {
    pub fn new(outside: Outside) -> Self {
        Self {
            outside,
            open: AtomicU64::new(0),
            any_dropped: AtomicBool::new(false),
            dropped: Mutex::default(),
        }
    }

    pub fn count(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn has_dropped(&self) -> bool {
        self.any_dropped.load(Ordering::Relaxed)
    }

    /// Moves the dropped files to the end of `closing`.
    #[inline]
    pub fn take_dropped(&self, closing: &mut Vec<Closing>) {
        // The relaxed load sees drops of this thread. A drop on another thread may wait for the
        // next turn.
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

    /// Marks the shard as ended: from now on, dropping a file closes it directly.
    pub fn end(&self) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).over = true;
    }

    fn drop_file(&self, file: Closing) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if dropped.over {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return (self.outside.close)(file.descriptor);
        }
        dropped.files.push(file);
        self.any_dropped.store(true, Ordering::Relaxed);
    }
}

/// An open descriptor, closed when the last reference goes.
#[derive(Debug)]
struct Owned {
    descriptor: Descriptor,
    /// The close may take long.
    waits: bool,
    /// The shard that opened the file and counts it.
    opener: Option<Arc<FilesOpen>>,
}

impl Owned {
    /// A file opened by a shard, which counts it.
    fn counted(descriptor: Descriptor, waits: bool, opener: &Arc<FilesOpen>) -> Self {
        opener.open.fetch_add(1, Ordering::Relaxed);
        Self { descriptor, waits, opener: Some(opener.clone()) }
    }

    /// The calls on the descriptor.
    fn outside(&self) -> Outside {
        self.opener.as_ref().map_or(Outside::KERNEL, |opener| opener.outside)
    }

    /// Hands the descriptor to the caller, who closes it.
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

/// An open directory beneath which handlers open and create files. Cheap to clone.
///
/// [`Connection::open_file`](crate::Connection::open_file) opens files beneath it.
/// [`Connection::create_file`](crate::Connection::create_file) creates files in it. The descriptor
/// is closed with the last clone.
#[derive(Clone, Debug)]
pub struct Directory {
    owned: Arc<Owned>,
    /// fsync(2) works on the descriptor.
    can_sync: bool,
    /// An open beneath the directory may wait for more than a disk, as on NFS or FUSE.
    waits: bool,
    /// Opens follow symbolic links beneath it.
    follows_links: bool,
}

impl Directory {
    /// Opens a directory for opening files beneath it. The process needs no permission to list the
    /// directory (`O_PATH`, open(2)).
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, libc::O_PATH)
    }

    /// Opens a directory as [`open`](Self::open) does. Opens beneath it also follow symbolic links,
    /// as long as these stay beneath it: a link with an absolute target fails with EXDEV, and one
    /// of procfs (a magic link) with ELOOP.
    ///
    /// # A link leads around a check of names
    /// The path of a request says nothing about the file that a link leads to.
    /// [`OpenFile::crossed_link`] tells the files that were found in this way, and
    /// [`OpenFile::path_beneath`] their names.
    ///
    /// # Errors
    /// As open(2).
    #[doc(alias = "RESOLVE_BENEATH")]
    pub fn open_following_links(path: &Path) -> io::Result<Self> {
        Ok(Self { follows_links: true, ..Self::open(path)? })
    }

    /// Opens a directory for creating files in it as well. [`PublishOptions::sync`] needs this,
    /// because fsync(2) does not work on an `O_PATH` descriptor. The process needs permission to
    /// list the directory.
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
        Ok(Self { owned, can_sync: flags & libc::O_PATH == 0, waits, follows_links: false })
    }

    /// The present status of the directory. Device and inode tell whether a path still leads to it:
    /// no other directory gets the same inode number while this one is open.
    ///
    /// # Errors
    /// As statx(2).
    pub fn status(&self) -> io::Result<FileStatus> {
        Ok(crate::ring::calls::file_status(self.descriptor())?)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn simulated(descriptor: Descriptor) -> Self {
        let owned = Arc::new(Owned { descriptor, waits: false, opener: None });
        // Never closed, because the number belongs to the simulated kernel.
        std::mem::forget(owned.clone());
        Self { owned, can_sync: true, waits: false, follows_links: true }
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

    pub(crate) fn follows_links(&self) -> bool {
        self.follows_links
    }
}

impl AsFd for Directory {
    /// The descriptor, for system calls that the engine has not. It must not be a shard that calls
    /// one that waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        crate::ring::calls::borrow(&self.owned.descriptor)
    }
}

/// An open file with the application's note about it.
#[derive(Debug)]
struct Noted {
    file: Owned,
    note: OnceLock<Box<dyn Any + Send + Sync>>,
    /// The reason why a range was padded.
    failure: OnceLock<Reason>,
    /// The place among the files that a shard keeps open.
    place: OnceLock<CachedPlace>,
}

impl Noted {
    fn new(file: Owned) -> Arc<Self> {
        let (note, failure, place) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Arc::new(Self { file, note, failure, place })
    }
}

/// The place of a file among those that a shard keeps open, see
/// [`Connection::cached_file_at`](crate::Connection::cached_file_at).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedPlace {
    pub(crate) entry: u32,
    /// Unique in the process.
    number: u64,
}

impl AsFd for OpenFile {
    /// The descriptor, for system calls that the engine has not. It must not be a shard that calls
    /// one that waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        crate::ring::calls::borrow(&self.owned.file.descriptor)
    }
}

/// An open file, ready to be sent.
///
/// [`Handler::file_opened`](crate::Handler::file_opened) brings it.
/// [`Connection::send_file`](crate::Connection::send_file) sends ranges of it. Clones share the
/// same open file, so that many connections can send it. The file is closed with the last clone.
#[derive(Clone, Debug)]
pub struct OpenFile {
    owned: Arc<Noted>,
    status: FileStatus,
    /// A read may wait for more than a disk, even if the range is cached.
    waits: bool,
    crossed_link: bool,
}

/// The way in which a shard has found a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// A read may wait for more than a disk.
    pub waits: bool,
    /// The path led across a symbolic link.
    pub crossed_link: bool,
}

impl OpenFile {
    /// A file opened by a shard, which counts it.
    pub(crate) fn new(
        descriptor: Descriptor,
        status: FileStatus,
        Found { waits, crossed_link }: Found,
        opener: &Arc<FilesOpen>,
    ) -> Self {
        let closes_slowly = waits || status.bytes > LARGE_BYTES;
        let owned = Owned::counted(descriptor, closes_slowly, opener);
        Self { owned: Noted::new(owned), status, waits, crossed_link }
    }

    /// Takes over a file that was opened elsewhere. The ledger does not count its descriptor.
    ///
    /// # Errors
    /// As statx(2).
    pub fn from_file(file: std::fs::File) -> io::Result<Self> {
        let status = crate::ring::calls::file_status(Descriptor(file.as_raw_fd()))?;
        let descriptor = Descriptor(file.into_raw_fd());
        let waits = crate::ring::calls::may_wait(descriptor);
        let owned = Noted::new(Owned { descriptor, waits: true, opener: None });
        Ok(Self { owned, status, waits, crossed_link: false })
    }

    /// The result of statx(2) at the time of the open.
    #[must_use]
    pub fn status(&self) -> FileStatus {
        self.status
    }

    /// The present status: statx(2) without asking a file server.
    ///
    /// # Errors
    /// As statx(2).
    pub fn status_now(&self) -> io::Result<FileStatus> {
        Ok((self.owned.file.outside().file_status)(self.descriptor())?)
    }

    /// Returns whether reading the file may wait for more than a disk: it is on a file system that
    /// is not local, such as FUSE or NFS, or that the engine does not know.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        self.waits
    }

    /// Returns whether the path led across a symbolic link, beneath a directory of
    /// [`Directory::open_following_links`].
    #[must_use]
    pub fn crossed_link(&self) -> bool {
        self.crossed_link
    }

    /// The present path of the file beneath `directory`, without links: readlink(2) of
    /// `/proc/self/fd`. It waits for nothing. The path of `directory` itself is empty.
    ///
    /// # Errors
    /// `NotFound`: the file is not beneath the directory, or one of them was removed. A file whose
    /// name ends with ` (deleted)` counts as removed, because the kernel marks those so. Other
    /// errors are those of readlink(2), for example where /proc is not mounted.
    pub fn path_beneath(&self, directory: &Directory) -> io::Result<Vec<u8>> {
        let path_of =
            |descriptor: Descriptor| std::fs::read_link(format!("/proc/self/fd/{}", descriptor.0));
        let (above, path) = (path_of(directory.descriptor())?, path_of(self.descriptor())?);
        let (above, path) = (above.into_os_string(), path.into_os_string());
        beneath(path.as_bytes(), above.as_bytes())
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads bytes of the file from `offset` into `buffer` and returns their number, which is 0 at
    /// the end of the file (pread(2)). It waits for the disk: call it in a
    /// [`Job`](crate::workers::Job), not in a callback.
    ///
    /// # Errors
    /// As pread(2).
    #[doc(alias = "pread")]
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.owned.file.outside().read_at)(self.descriptor(), buffer, offset, 0)
    }

    /// Reads as [`read`](Self::read) does, but only from the page cache and without waiting
    /// (preadv2(2) with `RWF_NOWAIT`), so that a callback may call it. It can return fewer bytes
    /// than there are.
    ///
    /// # Errors
    /// As preadv2(2). `WouldBlock`: the bytes are not in the page cache, or the file
    /// [`may_wait`](Self::may_wait). `Unsupported`: the file system does not tell.
    #[doc(alias = "preadv2")]
    pub fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.waits {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read_at = self.owned.file.outside().read_at;
        read_at(self.descriptor(), buffer, offset, libc::RWF_NOWAIT)
    }

    /// A place for the application's own data about the file, such as a computed header. All clones
    /// share it, and it is dropped with the last clone.
    #[must_use]
    pub fn note(&self) -> &OnceLock<Box<dyn Any + Send + Sync>> {
        &self.owned.note
    }

    /// The place of the file among those that its shard keeps open. `None`: it was never kept. With
    /// its place, [`Connection::cached_file_at`] finds the file without its path.
    ///
    /// [`Connection::cached_file_at`]: crate::Connection::cached_file_at
    #[must_use]
    pub fn place(&self) -> Option<CachedPlace> {
        self.owned.place.get().copied()
    }

    /// Notes that a shard keeps the file open, which happens once.
    pub(crate) fn keep_at(&self, entry: u32) -> CachedPlace {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        *self.owned.place.get_or_init(|| CachedPlace { entry, number })
    }

    /// The reason why [`Connection::send_file_padded`] had to pad a range of this file:
    /// [`Reason::FileTruncated`] or [`Reason::FileFailed`], whichever came first. `None` while
    /// every range was read completely. All clones share it.
    ///
    /// [`Connection::send_file_padded`]: crate::Connection::send_file_padded
    #[must_use]
    pub fn failure(&self) -> Option<Reason> {
        self.owned.failure.get().copied()
    }

    pub(crate) fn fail(&self, reason: Reason) {
        // Only the first failure counts.
        let _ = self.owned.failure.set(reason);
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        self.owned.file.descriptor
    }

    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Returns the file for closing if nobody else holds it.
    pub(crate) fn into_last(self) -> Option<Closing> {
        Arc::into_inner(self.owned).map(|owned| owned.file.release())
    }
}

/// The part of a path behind that of a directory. Both come from the kernel, which marks removed
/// files.
fn beneath<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    const REMOVED: &[u8] = b" (deleted)";
    if path.ends_with(REMOVED) || directory.ends_with(REMOVED) {
        return None;
    }
    // Only the root of all ends with a slash.
    let rest = path.strip_prefix(directory.strip_suffix(b"/").unwrap_or(directory))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
}

/// A file without a name (`O_TMPFILE`, open(2)), invisible to everybody else.
///
/// [`Connection::create_file`](crate::Connection::create_file) makes it,
/// [`receive_file`](crate::Connection::receive_file) fills it, and
/// [`publish_file`](crate::Connection::publish_file) gives it a name. A file that is dropped, or
/// left by a process that dies, leaves no trace.
///
/// Clones share the same file, which lives as long as one of them. An application that keeps a
/// clone can continue a transfer whose connection has ended, on any connection of the engine. Do
/// not receive into two clones at the same time, and publish only one of them.
#[derive(Clone, Debug)]
pub struct NewFile {
    owned: Arc<Owned>,
    directory: Directory,
    inode: u64,
    bytes: u64,
}

/// The way in which [`Connection::publish_file`](crate::Connection::publish_file) names a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// Makes the file survive a crash of the machine: fsync(2) of the file before it gets its name,
    /// and of the directory afterwards. Default `false`. The directory must come from
    /// [`Directory::open_to_create`]; otherwise publishing fails with EBADF.
    pub sync: bool,
    /// Replaces an existing file of the same name atomically (renameat(2)). Default `false`:
    /// publishing then fails with EEXIST.
    pub replace: bool,
}

/// The reason why an operation on a file was not begun. No callback follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartFileError {
    /// The connection has such an operation in progress. [`Connection::open_file`] and
    /// [`Connection::create_file`] count as the same operation.
    ///
    /// [`Connection::open_file`]: crate::Connection::open_file
    /// [`Connection::create_file`]: crate::Connection::create_file
    InProgress,
    /// The range ends beyond 2^63.
    OutOfRange,
    /// The connection is ending and could not get the result.
    Ending,
}

impl fmt::Display for StartFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProgress => {
                "the connection has such an operation in progress; wait for its callback"
            }
            Self::OutOfRange => "the range ends beyond 2^63",
            Self::Ending => "the connection is ending and could not receive the result",
        })
    }
}

impl std::error::Error for StartFileError {}

/// The error of [`Connection::receive_file`](crate::Connection::receive_file) and
/// [`Connection::publish_file`](crate::Connection::publish_file): the operation was not begun.
#[derive(Debug)]
pub struct StartNewFileError {
    /// The file, unchanged.
    pub file: NewFile,
    /// The reason.
    pub error: StartFileError,
}

impl fmt::Display for StartNewFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for StartNewFileError {}

/// The error in [`Handler::file_received`](crate::Handler::file_received). The file is gone.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReceiveFileError {
    /// An error of write(2) such as ENOSPC, EDQUOT or EIO. `UnexpectedEof` means that the peer's
    /// FIN came before the end of the range.
    pub error: io::Error,
    /// The number of bytes of the range that are still to come on the stream. `received` gets them
    /// next and must skip them to stay in step.
    pub missing_bytes: u64,
}

impl NewFile {
    pub(crate) fn new(
        descriptor: Descriptor,
        status: FileStatus,
        directory: Directory,
        opener: &Arc<FilesOpen>,
    ) -> Self {
        let owned = Arc::new(Owned::counted(descriptor, true, opener));
        Self { owned, directory, inode: status.inode, bytes: 0 }
    }

    /// The length of the file so far: the end of the last byte received into it. A clone knows
    /// only the bytes received before it was made.
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

    /// The directory in which the file gets its name.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The inode number, unique on its file system while the file is open.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FileKind;
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_directory_has_the_device_and_inode_of_its_path() {
        for open in [Directory::open, Directory::open_to_create] {
            let status = open(Path::new("src")).unwrap().status().unwrap();
            let expected = std::fs::metadata("src").unwrap();
            assert_eq!((status.device, status.inode), (expected.dev(), expected.ino()));
            assert_eq!(status.kind, FileKind::Directory);
        }
    }

    #[test]
    fn the_path_beneath_a_directory_is_told_unless_one_of_them_is_gone() {
        for (path, directory, expected) in [
            ("/srv/www/a/b", "/srv/www", Some("a/b")),
            ("/srv/www", "/srv/www", Some("")),
            ("/a", "/", Some("a")),
            ("/", "/", Some("")),
            ("/srv/www2/a", "/srv/www", None),
            ("/srv", "/srv/www", None),
            ("/srv/www/a (deleted)", "/srv/www", None),
            ("/srv/www (deleted)/a", "/srv/www (deleted)", None),
            ("(unreachable)/a", "/srv/www", None),
            ("/srv/www/a", "/srv/www/a/b", None),
        ] {
            let rest = beneath(path.as_bytes(), directory.as_bytes());
            assert_eq!(rest, expected.map(str::as_bytes), "{path} beneath {directory}");
        }
        let file =
            || OpenFile::from_file(std::fs::File::open("src/shard/mod.rs").unwrap()).unwrap();
        let at = |path| Directory::open(Path::new(path)).unwrap();
        assert_eq!(file().path_beneath(&at("src")).unwrap(), b"shard/mod.rs");
        let elsewhere = file().path_beneath(&at("tests")).unwrap_err();
        assert_eq!(elsewhere.kind(), ErrorKind::NotFound);
        assert!(!file().crossed_link());
    }

    #[test]
    fn a_file_is_read_to_its_end_and_tells_its_present_status() {
        let path = std::env::temp_dir().join(format!("ringwright-read-{}", std::process::id()));
        std::fs::write(&path, "0123456789").unwrap();
        let file = OpenFile::from_file(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!(file.status_now().unwrap(), file.status());
        let mut buffer = [0; 4];
        for (offset, expected) in [(0, "0123"), (8, "89"), (10, ""), (1 << 40, "")] {
            let bytes = file.read(&mut buffer, offset).unwrap();
            assert_eq!(&buffer[..bytes], expected.as_bytes(), "{offset}");
            match file.read_cached(&mut buffer, offset) {
                Ok(bytes) => assert_eq!(&buffer[..bytes], expected.as_bytes(), "{offset}"),
                // The directory lies in memory.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
            }
        }
        assert!(file.read(&mut buffer, u64::MAX).is_err());
        std::fs::write(&path, "0").unwrap();
        assert_eq!(file.status_now().unwrap().bytes, 1);
        std::fs::remove_file(&path).unwrap();
        assert_ne!(file.status_now().unwrap(), file.status());
    }

    #[test]
    fn a_file_that_may_wait_is_not_read_from_the_page_cache() {
        let of_kernel = std::fs::File::open("/proc/sys/kernel/ostype").unwrap();
        let file = OpenFile::from_file(of_kernel).unwrap();
        assert!(file.may_wait());
        let mut buffer = [0; 10];
        assert_eq!(file.read_cached(&mut buffer, 0).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(file.read(&mut buffer, 0).unwrap(), 6);
        assert_eq!(&buffer[..6], b"Linux\n");
    }
}
