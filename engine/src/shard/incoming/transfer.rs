//! The progress of a range of the stream on its way into a file.

use crate::files::NewFile;
use crate::memory::{Kept, PooledPipe};
use std::io;

/// A range of the stream on its way into a file.
pub struct Incoming {
    pub(super) file: NewFile,
    /// The place in the file of the next byte to be written.
    pub(super) offset: u64,
    /// Bytes of the range that are still to be taken off the stream.
    pub(super) missing: u64,
    /// The bytes that came in receive buffers, and the number of them that are in the file.
    pub(super) kept: Kept,
    pub(super) written: usize,
    pub pipe: Option<PooledPipe>,
    /// It waits in the queue for a pipe.
    pub waits_for_pipe: bool,
    /// It goes through a pipe, and nothing is received meanwhile.
    pub(super) splices: bool,
    /// The poll has reported bytes, and none were taken since.
    pub(super) polled: bool,
    /// A splice does not pass the next bytes: only receive buffers do from here on.
    pub(super) refuses_splice: bool,
    /// The error after which nothing more goes into the file.
    pub(super) failed: Option<io::Error>,
    /// The time of the last progress, in milliseconds.
    pub progress_ms: u64,
}

impl Incoming {
    pub fn new(file: NewFile, offset: u64, missing: u64, now_ms: u64) -> Self {
        Self {
            file,
            offset,
            missing,
            kept: Kept::default(),
            written: 0,
            pipe: None,
            waits_for_pipe: false,
            splices: false,
            polled: false,
            refuses_splice: false,
            failed: None,
            progress_ms: now_ms,
        }
    }

    pub(super) fn held_bytes(&self) -> u32 {
        self.pipe.as_ref().map_or(0, |pipe| pipe.held_bytes)
    }

    /// The memory of the bytes that are not written yet.
    #[cfg(any(test, feature = "testing"))]
    pub fn kept_capacity(&self) -> usize {
        self.kept.capacity()
    }

    /// Returns whether the bytes go through the pipe, past the receive buffers.
    pub fn splices(&self) -> bool {
        self.splices
    }

    /// Returns whether all bytes that were taken off the stream are in the file.
    pub(super) fn is_written(&self) -> bool {
        self.written == self.kept.len() && self.held_bytes() == 0
    }

    /// Returns whether nothing but the peer keeps the file from going on.
    pub fn waits_for_peer(&self) -> bool {
        self.missing > 0 && self.is_written() && !self.waits_for_pipe && self.failed.is_none()
    }

    /// Returns whether only the callback is pending.
    pub(super) fn is_over(&self) -> bool {
        self.failed.is_some() || (self.missing == 0 && self.is_written())
    }

    /// Nothing more goes into the file, unless everything is there.
    pub fn cancel(&mut self) {
        if !self.is_over() {
            self.failed = Some(io::Error::from_raw_os_error(libc::ECANCELED));
        }
    }

    pub(super) fn on_written(&mut self, bytes: u32, now_ms: u64) {
        self.offset += u64::from(bytes);
        self.file.note_written(self.offset);
        self.progress_ms = now_ms;
    }
}
