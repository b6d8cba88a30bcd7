//! The progress of a range of the stream on its way to another connection.

use crate::info::Forwarded;
use std::io;

/// The number of full receive buffers in a row after which a range goes through a pipe, and of
/// short splices after which it does no longer.
pub const STREAK: u8 = 4;

/// A range of the stream on its way to another connection.
pub struct Forward {
    /// The slot of the other connection, and its life.
    pub to: u32,
    pub generation: u64,
    /// The bytes of the range. [`u64::MAX`]: there is no end.
    length: u64,
    /// The bytes that have been taken off the stream.
    taken: u64,
    /// The range goes through a pipe, and nothing is received meanwhile.
    pub splices: bool,
    /// A splice does not pass the next bytes: only receive buffers do from here on.
    refuses_splice: bool,
    /// The poll has reported bytes, and none were taken since.
    polled: bool,
    /// Full receive buffers, or short splices, in a row.
    streak: u8,
    /// When bytes were last taken, or the wait for the other connection ended, ms.
    pub progress_ms: u64,
    /// The error after which nothing more is taken.
    pub failed: Option<io::Error>,
}

impl Forward {
    pub fn new(to: u32, generation: u64, length: u64, now_ms: u64) -> Self {
        Self {
            to,
            generation,
            length,
            taken: 0,
            splices: false,
            refuses_splice: false,
            polled: false,
            streak: 0,
            progress_ms: now_ms,
            failed: None,
        }
    }

    /// Bytes were copied, of a receive buffer that was full or not.
    pub fn on_copied(&mut self, bytes: usize, is_long: bool, now_ms: u64) {
        self.taken += bytes as u64;
        self.progress_ms = now_ms;
        self.streak = if is_long { self.streak.saturating_add(1) } else { 0 };
        if self.streak >= STREAK && !self.refuses_splice {
            mark!("a forwarded range goes through a pipe");
            (self.splices, self.streak) = (true, 0);
        }
    }

    /// Bytes have come into a pipe.
    pub fn on_spliced(&mut self, bytes: u32, long_bytes: usize, now_ms: u64) {
        self.taken += u64::from(bytes);
        self.progress_ms = now_ms;
        self.polled = false;
        self.streak = if bytes as usize >= long_bytes { 0 } else { self.streak + 1 };
        if self.streak >= STREAK {
            mark!("a forwarded range is short messages");
            self.copies();
        }
    }

    /// The range goes through receive buffers for now.
    pub fn copies(&mut self) {
        (self.splices, self.streak) = (false, 0);
    }

    /// The range goes through receive buffers to its end.
    pub fn copies_only(&mut self) {
        self.copies();
        self.refuses_splice = true;
    }

    /// The poll has reported something.
    pub fn note_poll(&mut self) {
        self.polled = self.splices;
    }

    /// Returns whether the poll had reported something since the last splice, and forgets it.
    pub fn take_polled(&mut self) -> bool {
        std::mem::replace(&mut self.polled, false)
    }

    /// Gives the range up, unless everything has been taken.
    pub fn cancel(&mut self) {
        if !self.is_over() {
            self.failed = Some(io::Error::from_raw_os_error(libc::ECANCELED));
        }
    }

    /// Returns whether only the callback is pending.
    pub fn is_over(&self) -> bool {
        self.failed.is_some() || self.missing() == 0
    }

    /// Returns whether the range has an end, so that the peer has announced its bytes.
    pub fn is_finite(&self) -> bool {
        self.length != u64::MAX
    }

    /// The bytes that are still to be taken off the stream.
    pub fn missing(&self) -> u64 {
        self.length - self.taken
    }

    pub fn result(self) -> Forwarded {
        Forwarded { bytes: self.taken, error: self.failed }
    }
}
