//! Bounds of one turn. A turn that has lasted long leaves work to the next one, so that no
//! connection waits long behind a crowd.
//!
//! Each part of a turn does some work in any case and then looks at the clock. The rest comes
//! first in the same part of the next turn. The bounds are for the engine's own work: one callback
//! may take any time.

use super::Shard;
use super::slots::{Armed, Mode};
use crate::handler::Handler;
use crate::ring::Ring;
use std::time::Duration;

/// The times since the last wait at which the parts of a turn end: completions, then commands,
/// results of jobs and deadlines, then the flush of connections.
pub(super) const DISPATCH_UNTIL: Duration = Duration::from_millis(3);
pub(super) const SERVE_UNTIL: Duration = Duration::from_micros(4_500);
const FLUSH_UNTIL: Duration = Duration::from_micros(6_500);

/// Completions between two looks at the clock, at most. Fewer if receive buffers are long: handlers
/// were measured to take 9 us for 1 KiB of tiny packets.
const COMPLETIONS: u32 = 16;
const RECEIVED_BYTES: u32 = 64 << 10;
/// This number of bytes that are moved counts as one connection more.
const BYTES_PER_CONNECTION: usize = 4 << 10;

/// The cached files sent in one turn, in pieces of `sendfile_bytes_max`. Everything else waits for
/// this number at most.
pub(super) const SENDFILES_MAX: u64 = 2;

/// Bytes of one connection that are thrown away in one turn.
pub(super) const DISCARDED_BYTES_MAX: u32 = 256 << 10;

/// The bytes sent past the ring in one turn, of connections that have several buffers full. The
/// submission, and with it the replies of others, waits for them.
pub(super) const GATHERED_BYTES_MAX: usize = 4 << 20;

/// This number of connections sends without the ring, if there are no more to flush.
pub(super) const SENT_AT_ONCE_MAX: usize = 2;

/// A submission queue, or a turn, that takes no more: come back after the next wait.
pub(super) struct Full;

/// How far the present turn is, and what the last one has left.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Completions are counted from the last wait on. The clock is read where these bits are 0.
    pub completions_mask: u64,
    /// Connections to flush until the next submission.
    pub flush_left: i32,
    /// Completions are left, or connections have sent files or several chunks at once.
    pub leaves_something: bool,
    /// Completions that the last wait has brought are not dispatched yet. The ring is not looked
    /// into before they are: its completion queue would overflow.
    completions_left: bool,
    /// The one-shot receives among them, at most.
    once_left: usize,
}

impl Bounds {
    pub fn new(receive_buffer_bytes: u32, flush_left: i32) -> Self {
        let completions = (RECEIVED_BYTES / receive_buffer_bytes).clamp(1, COMPLETIONS);
        // A power of two, rounded down.
        let completions = 1_u64 << completions.ilog2();
        Self {
            completions_mask: completions - 1,
            flush_left,
            leaves_something: false,
            completions_left: false,
            once_left: 0,
        }
    }

    /// Counts bytes that a connection has moved, or shown to its handler, as work.
    #[inline]
    pub fn note_work(&mut self, bytes: usize) {
        self.flush_left -= (bytes / BYTES_PER_CONNECTION) as i32;
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Commands, results or deadlines between two looks at the clock.
    pub(super) const SERVED: usize = if R::SMALL_TURNS { 3 } else { 16 };
    /// Connections that are flushed between two submissions. Each also looks at the clock.
    pub(super) const FLUSHED: i32 = if R::SMALL_TURNS { 11 } else { 32 };
    /// Closes of files that one turn submits. The kernel carries out a close at once.
    pub(super) const FILES_CLOSED_MAX: usize = if R::SMALL_TURNS { 3 } else { 256 };
    /// Connects that one turn submits.
    pub(super) const CONNECTS_MAX: usize = if R::SMALL_TURNS { 3 } else { 64 };
    /// Connections per turn that a sweep or the memory budget comes to.
    pub(super) const SWEPT: usize = if R::SMALL_TURNS { 3 } else { 256 };

    /// Returns whether the turn has lasted so long. With small turns it always has.
    pub(super) fn lasts(&mut self, time: Duration) -> bool {
        R::SMALL_TURNS || self.ring.now_us() >= self.woke_us + time.as_micros() as u64
    }

    /// Returns whether the remaining completions are left to the next turn.
    #[cold]
    pub(super) fn leaves_completions(&mut self) -> bool {
        let leaves = self.lasts(DISPATCH_UNTIL);
        if leaves {
            mark!("completions wait for the next turn");
            self.bounds.completions_left = true;
            self.bounds.leaves_something = true;
            self.bounds.once_left = self.once_armed;
            self.core.upkeep = true;
        }
        leaves
    }

    /// Puts the connections that have sent a piece of a file in this flush behind those that have
    /// not, and renews what a flush may send past the ring. Returns whether completions of the last
    /// turn are left.
    #[cold]
    pub(super) fn end_flush(&mut self) -> bool {
        self.bounds.leaves_something = false;
        self.sendfile_left = SENDFILES_MAX * u64::from(self.core.limits.sendfile_bytes_max);
        self.gather_left = GATHERED_BYTES_MAX;
        self.served.drain(..).for_each(|slot| self.core.touch(slot));
        std::mem::take(&mut self.bounds.completions_left)
    }

    /// Submits the operations without a look into the ring.
    #[cold]
    pub(super) fn submit_before_rest(&mut self) {
        self.once_armed += std::mem::take(&mut self.bounds.once_left);
        // Entries that the kernel does not take now are submitted with the next wait.
        let _ = self.ring.submit_all();
    }

    /// Returns whether the rest of the flush is left to the next turn. It submits the operations in
    /// the queue before: the kernel carries out most sends in this call, and takes longer for them
    /// than the engine.
    #[cold]
    pub(super) fn leaves_flush(&mut self) -> bool {
        self.bounds.flush_left = Self::FLUSHED;
        if self.core.touched.is_empty() {
            return false;
        }
        // Entries that the kernel does not take now are submitted with the next wait.
        let _ = self.ring.submit_all();
        let leaves = self.lasts(FLUSH_UNTIL);
        if leaves {
            mark!("a flush goes on in the next turn");
        }
        leaves
    }

    /// After a flush that was not completed: one-shot receives that it has not armed yet may take a
    /// buffer each, like those that it has armed.
    #[cold]
    pub(super) fn count_unarmed(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        let slots = &self.core.slots;
        let unarmed = |slot: &&u32| {
            let connection = &slots[**slot];
            connection.mode() == Mode::Once && connection.armed() == Armed::Nothing
        };
        self.once_armed += self.core.touched.iter().filter(unarmed).count();
    }

    /// Returns whether the turn after this one has work without any further completion.
    pub(super) fn has_rest(&self) -> bool {
        self.bounds.completions_left || self.commands.has_rest() || !self.due.is_empty()
    }
}
