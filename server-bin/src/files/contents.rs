//! The contents of small files, which are read before their reply begins.
//!
//! Length and entity tag are then those of the bytes that are sent, even if the file is being
//! changed, or if statx(2) does not tell its length (/sys, /proc, FUSE).

use ringwright::files::OpenFile;
use ringwright::{Connection, Payload, SendStatus};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use twox_hash::XxHash3_128;

/// Files up to this size are read into memory, in bytes. Larger files leave by sendfile(2), which
/// copies nothing. On loopback, a file of 16 KB that is kept open takes 5.7 µs of CPU time from
/// memory and 6.3 µs by sendfile(2); one of 32 KB takes 8.2 µs and 6.0 µs.
pub(super) const CONTENT_BYTES_MAX: usize = 16 << 10;
/// Memory for the contents of all open files, in bytes.
pub const KEPT_BYTES_MAX: u64 = 64 << 20;
/// The default of --workers for http: threads that read what is not in the page cache.
pub const READERS: usize = 4;
/// From this length on, contents that are kept are sent without a copy. It is more than a send
/// buffer takes.
const SHARED_BYTES_MIN: u64 = 8 << 10;

/// The XXH3 of contents, 128 bits. A SHA-256 would take 0.8 µs per KiB, which doubles the cost of a
/// file that is not kept open. Two contents that were made to have one digest would be taken for
/// the same version; only those who write the file can do that.
pub type Digest = [u8; 16];

/// The contents of a file, complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    bytes: &'a [u8],
    /// The same bytes, if they can be shared.
    shared: Option<&'a Arc<[u8]>>,
    digest: Digest,
}

/// Contents that do not lie in the buffer they were read into.
#[derive(Debug)]
pub(super) struct SharedContent {
    bytes: Arc<[u8]>,
    digest: Digest,
}

impl<'a> Content<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, shared: None, digest: XxHash3_128::oneshot(bytes).to_be_bytes() }
    }

    /// The number of bytes.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Queues a range.
    pub fn send(&self, connection: &mut Connection<'_>, offset: u64, length: u64) -> SendStatus {
        let range = offset as usize..(offset + length) as usize;
        match self.shared {
            Some(bytes) if length >= SHARED_BYTES_MIN => {
                let sent = connection.send_payload(Payload::range(bytes.clone(), range));
                sent.unwrap_or_else(|refused| refused.status)
            }
            _ => connection.send(&self.bytes[range]),
        }
    }

    /// Copies the bytes, unless they are shared.
    pub fn to_shared(self) -> SharedContent {
        let bytes = self.shared.map_or_else(|| self.bytes.into(), Arc::clone);
        SharedContent { bytes, digest: self.digest }
    }
}

impl SharedContent {
    pub fn content(&self) -> Content<'_> {
        Content { bytes: &self.bytes, shared: Some(&self.bytes), digest: self.digest }
    }
}

/// The memory that the contents of open files take, over all shards. The contents of a file that
/// finds no room are read anew for each request.
#[derive(Debug)]
pub struct Budget {
    used_bytes: AtomicU64,
    max_bytes: u64,
}

/// Contents that are kept. Dropping them returns their memory.
#[derive(Debug)]
pub(super) struct Kept {
    content: SharedContent,
    budget: Arc<Budget>,
}

impl Budget {
    /// At most `max_bytes` of contents.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self { used_bytes: AtomicU64::new(0), max_bytes }
    }

    /// Returns `None` if there is no room.
    pub(super) fn keep(self: &Arc<Self>, content: Content<'_>) -> Option<Kept> {
        let length = content.length();
        let used_bytes = self.used_bytes.fetch_add(length, Ordering::Relaxed) + length;
        if used_bytes > self.max_bytes {
            self.used_bytes.fetch_sub(length, Ordering::Relaxed);
            return None;
        }
        Some(Kept { content: content.to_shared(), budget: self.clone() })
    }
}

impl Kept {
    pub fn content(&self) -> Content<'_> {
        self.content.content()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.content().length(), Ordering::Relaxed);
    }
}

/// The reason why a file was not read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unread {
    /// It has more than [`CONTENT_BYTES_MAX`] bytes.
    TooLong,
    /// Reading it waits for a disk or a server.
    Waits,
    /// It cannot be read.
    Failed,
}

/// Memory for a file, with room for the byte that makes it too long.
pub(super) fn buffer() -> Box<[u8]> {
    vec![0; CONTENT_BYTES_MAX + 1].into()
}

/// Reads a file from the page cache.
pub(super) fn read_cached<'a>(
    file: &OpenFile,
    buffer: &'a mut [u8],
) -> Result<Content<'a>, Unread> {
    read(file.status().bytes, buffer, |buffer, offset| file.read_cached(buffer, offset))
}

/// Reads a file. May wait.
pub(super) fn read_slowly(file: &OpenFile) -> Result<SharedContent, Unread> {
    let mut buffer = buffer();
    let content =
        read(file.status().bytes, &mut buffer, |buffer, offset| file.read(buffer, offset))?;
    Ok(content.to_shared())
}

fn read(
    file_bytes: u64,
    buffer: &mut [u8],
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> Result<Content<'_>, Unread> {
    let mut length = 0;
    loop {
        match read(&mut buffer[length..], length as u64) {
            Ok(0) => return Ok(Content::new(&buffer[..length])),
            Ok(bytes) => length += bytes,
            Err(error) => {
                return Err(match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Unsupported => Unread::Waits,
                    _ => Unread::Failed,
                });
            }
        }
        if length > CONTENT_BYTES_MAX {
            return Err(Unread::TooLong);
        }
        // A file on a disk ends here. Files of the kernel tell another size, and end with a 0.
        if length as u64 == file_bytes {
            return Ok(Content::new(&buffer[..length]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file of `actual` bytes of which `told` are told, in pieces of `piece`.
    fn pieces(actual: usize, told: u64, piece: usize) -> (Result<SharedContent, Unread>, usize) {
        let bytes: Vec<u8> = (0..actual).map(|at| at as u8).collect();
        let (mut calls, mut buffer) = (0, buffer());
        let content = read(told, &mut buffer, |buffer, offset| {
            calls += 1;
            let rest = &bytes[offset as usize..];
            let length = rest.len().min(buffer.len()).min(piece);
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        });
        let content = content.map(Content::to_shared);
        if let Ok(content) = &content {
            assert!(content.bytes[..] == bytes[..]);
            assert_eq!(content.digest, XxHash3_128::oneshot(&bytes).to_be_bytes());
        }
        (content, calls)
    }

    #[test]
    fn a_file_is_read_to_its_end_whatever_its_size_is_said_to_be() {
        for (actual, told, piece, calls) in [
            (10, 10, 4096, 1),
            (10, 10, 3, 4),
            (0, 0, 4096, 1),
            (30, 4096, 4096, 2),
            (30, 0, 4096, 2),
            (30, 20, 4096, 2),
            (CONTENT_BYTES_MAX, CONTENT_BYTES_MAX as u64, usize::MAX, 1),
            (CONTENT_BYTES_MAX, 0, usize::MAX, 2),
        ] {
            let (content, called) = pieces(actual, told, piece);
            assert!(content.is_ok(), "{actual} bytes, {told} told");
            assert_eq!(called, calls, "{actual} bytes, {told} told");
        }
        for told in [0, 10] {
            let (content, _) = pieces(CONTENT_BYTES_MAX + 1, told, 4096);
            assert!(matches!(content, Err(Unread::TooLong)));
        }
    }

    #[test]
    fn the_memory_for_contents_is_limited_and_given_back() {
        let budget = Arc::new(Budget::new(100));
        let kept = budget.keep(Content::new(&[0; 60])).unwrap();
        assert!(budget.keep(Content::new(&[0; 41])).is_none());
        let second = budget.keep(Content::new(&[0; 40])).unwrap();
        assert!(budget.keep(Content::new(&[0; 1])).is_none());
        drop(kept);
        assert!(budget.keep(Content::new(&[0; 61])).is_none());
        assert!(budget.keep(Content::new(&[0; 60])).is_some());
        drop(second);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_error_says_whether_reading_would_wait() {
        for (errno, waits) in [
            (libc::EAGAIN, true),
            (libc::EOPNOTSUPP, true),
            (libc::EIO, false),
            (libc::EPERM, false),
        ] {
            let error = || io::Error::from_raw_os_error(errno);
            let unread = read(1, &mut buffer(), |_, _| Err(error())).unwrap_err();
            assert_eq!(matches!(unread, Unread::Waits), waits, "{errno}");
            assert_eq!(matches!(unread, Unread::Failed), !waits, "{errno}");
        }
    }
}
