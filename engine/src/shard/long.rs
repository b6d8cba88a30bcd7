//! Long messages.
//!
//! A message that fills many receive buffers costs a completion, a callback and a copy for each.
//! When one turn brings [`FULL_MIN`] full buffers of a connection in succession, the connection
//! leaves its multishot receive for a poll (`Mode::Long`). When the poll reports input, the flush
//! receives up to [`LONG_BYTES`] by one recv(2) into the long buffer of the shard, which all its
//! connections use in turn. The flush also sends what the handler answers, while the CPU caches
//! have it. Every [`SHORT_READS`]th short read of a shard returns its connection to multishot.
//!
//! A long read takes no provided buffer, so a shortage of those does not concern it. It is no
//! longer than a message may be, and no longer than the high-water mark. While the memory budget is
//! short, connections receive once at a time instead.
//!
//! # Lent bytes
//! The handler may queue bytes of the long buffer as output, its own connection's or another's. The
//! first such chunk is *lent*: it is queued without a copy, and sent past the ring right behind the
//! callback. Only what the socket does not take is copied.
//! * Invariant: nothing is lent when the callback has been followed up, so no operation of the ring
//!   uses the long buffer.

use super::Shard;
use super::output::Loan;
use super::slots::{Armed, Mode, NONE};
use super::turn::Calling;
use crate::handler::Handler;
use crate::memory::{LONG_BYTES, Received};
use crate::ring::{Errno, Ring};

/// Full receive buffers of one connection in one turn that show a long message.
const FULL_MIN: u32 = 2;

/// The short reads of a shard of which one returns its connection to multishot. A return costs as
/// much as several short reads if the next message is long again.
const SHORT_READS: u32 = 16;

/// Received bytes count as half of the work of a flush that others are, and bytes sent at once as a
/// quarter: few calls move many of them.
const RECEIVE_WORK: usize = 2;
const SEND_WORK: usize = 4;

/// The findings from which connections enter and leave the mode.
#[derive(Debug, Default)]
pub(super) struct Long {
    /// The connection of the last full receive buffer, and its turn.
    last_full: (u32, u64),
    /// Full buffers of that connection in that turn.
    full_count: u32,
    short_reads: u32,
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// A multishot receive has filled a buffer.
    #[cold]
    pub(super) fn note_full_buffer(&mut self, slot: u32) {
        let place = (slot, self.woke_us);
        let count = if self.long.last_full == place { self.long.full_count + 1 } else { 1 };
        (self.long.last_full, self.long.full_count) = (place, count);
        let streams = self.core.slots[slot].mode() == Mode::Streaming;
        if count >= FULL_MIN
            && streams
            && self.reading_mode() == Mode::Streaming
            && self.long_bytes(slot) > self.core.limits.receive_buffer_bytes
        {
            mark!("messages are long");
            self.core.slots.set_mode(slot, Mode::Long);
        }
    }

    /// The length of one long read of a connection.
    fn long_bytes(&self, slot: u32) -> usize {
        let connection = &self.core.slots[slot];
        let message_bytes = self.core.limits_of(connection).message_bytes_max;
        let high_bytes = self.core.marks_of(connection).high_bytes as usize;
        let most = message_bytes.min(high_bytes).max(self.core.limits.receive_buffer_bytes);
        most.min(LONG_BYTES)
    }

    /// Receives once into the long buffer, and shows the bytes to the handler.
    #[inline(never)]
    pub(super) fn read_long(&mut self, call: Calling, slot: u32) {
        let connection = &self.core.slots[slot];
        let reads = connection.armed() == Armed::Nothing
            && !connection.state().discards()
            && self.wanted(slot) == Armed::Probe;
        if !reads {
            return;
        }
        if self.reading_mode() != Mode::Streaming {
            mark!("a long message is received in short pieces");
            self.core.slots.set_mode(slot, self.reading_mode());
            return;
        }
        let (socket, most) = (connection.descriptor(), self.long_bytes(slot));
        match self.ring.receive_now(socket, &mut self.receive_buffers.long_mut()[..most]) {
            Ok(0) => self.on_fin(slot),
            Ok(bytes) => self.on_long_bytes(call, slot, bytes as usize),
            Err(Errno(libc::EAGAIN)) => {}
            Err(errno) => self.on_receive_error(slot, errno.0),
        }
    }

    fn on_long_bytes(&mut self, call: Calling, slot: u32, length: usize) {
        self.bounds.note_work(length / RECEIVE_WORK);
        if length < self.core.limits.receive_buffer_bytes {
            self.long.short_reads += 1;
            if self.long.short_reads.is_multiple_of(SHORT_READS) {
                mark!("messages are short again");
                self.core.slots.set_mode(slot, self.reading_mode());
            }
        }
        self.core.loan = Loan::offer(&self.receive_buffers.long()[..length]);
        self.on_bytes(call, slot, Received::Long, length);
        if let Some(to) = std::mem::take(&mut self.core.loan).slot() {
            self.follow_up_loan(slot, to);
        }
    }

    /// Sends what a callback has lent, and copies what does not leave at once.
    #[inline(never)]
    fn follow_up_loan(&mut self, slot: u32, to: u32) {
        let connection = &self.core.slots[to];
        let (head, before) = (connection.output_head(), connection.output_bytes());
        let alone = self.core.chunks[head as usize].next == NONE;
        if alone && connection.state().sends() && !connection.rests() && self.gather_left > 0 {
            mark!("lent bytes leave at once");
            self.send_now(to);
            let sent = (before - self.core.slots[to].output_bytes()) as usize;
            self.gather_left = self.gather_left.saturating_sub(sent);
            self.bounds.note_work(sent / SEND_WORK);
            self.bounds.leaves_something = true;
        }
        if !bug!("loan-not-copied") {
            self.core.copy_loan(to, self.receive_buffers.long());
        }
        if to != slot || self.core.is_room_to_report(to) {
            self.core.touch(to);
        }
    }
}
