//! Sending: one send in flight per connection, everything written during a batch in as few as
//! possible, files in between.

use super::output::{Body, Chunk};
use super::slots::NONE;
use super::state::{Event, State};
use super::{Full, RETRY_MS, Shard};
use crate::Reason;
use crate::handler::Handler;
use crate::ring::{Kind, Op, Ring};

/// Bytes of one send at most: progress is seen, and a 32-bit result holds it.
const SEND_BYTES_MAX: usize = 1 << 20;

/// What precedes so much of a file is a segment of its own.
const LONG_BYTES: u64 = 256 << 10;

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Starts the next step of the output, unless one is under way.
    pub(super) fn flush_output(&mut self, slot: u32) -> Result<(), Full> {
        loop {
            let connection = &self.core.slots[slot];
            let flight = connection.in_flight;
            let busy = flight.has(Kind::Send)
                || flight.has(Kind::Read)
                || flight.has(Kind::Splice)
                || flight.has(Kind::PollOut);
            if !connection.state.sends() || busy || connection.waits_for_pipe || connection.rests {
                return Ok(());
            }
            let head = connection.output_head;
            if head == NONE {
                self.output_is_empty(slot);
                return Ok(());
            }
            if matches!(self.core.chunks[head as usize].body, Body::File(_)) {
                if self.flush_file(slot)? {
                    continue;
                }
                return Ok(());
            }
            if self.small_file_follows(slot) {
                if self.read_behind_head(slot)? {
                    continue;
                }
                return Ok(());
            }
            let file_follows = self.sendfile_follows(slot);
            if file_follows && self.sendfile_left == 0 {
                mark!("what precedes a file waits for it");
                self.core.touch(slot);
                return Ok(());
            }
            if (file_follows || self.sends_at_once) && self.send_head_now(slot) {
                if self.is_quiet_after_send(slot) {
                    return Ok(());
                }
                if self.core.slots[slot].output_head == NONE {
                    // What else follows is seen to as after a completion.
                    self.core.touch(slot);
                }
                continue;
            }
            return self.send_head(slot);
        }
    }

    fn send_head(&mut self, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        let chunk = &self.core.chunks[connection.output_head as usize];
        let more = self.something_follows(chunk.next);
        let (address, length) = self.head_bytes(slot);
        let op = Op::Send { socket: connection.descriptor, address, length, more };
        self.submit(slot, Kind::Send, op)
    }

    /// Sends without the ring. What precedes a file: so that the file follows in the same turn, and its
    /// reader is at work on the one while the other comes. What answers a small batch: a send of the
    /// ring completes at once, too, and the wait that submits it ends with nothing but that; it costs a turn
    /// more. False: there is no room at once.
    fn send_head_now(&mut self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        let socket = connection.descriptor;
        let next = self.core.chunks[connection.output_head as usize].next;
        let more = next != NONE && self.something_follows(next) && !self.is_long(next);
        let (address, length) = self.head_bytes(slot);
        let result = match self.ring.send_now(socket, address, length, more) {
            Ok(sent) => sent as i32,
            Err(errno) if errno.0 == libc::EAGAIN => {
                mark!("no room at once");
                return false;
            }
            Err(errno) => -errno.0,
        };
        self.on_send(slot, result);
        true
    }

    /// Whether a chunk is so much of a file that its reader had better be at work when it comes.
    fn is_long(&self, chunk: u32) -> bool {
        let chunk = self.core.chunks.get(chunk as usize).map(|chunk| &chunk.body);
        matches!(chunk, Some(Body::File(file)) if file.remaining >= LONG_BYTES)
    }

    /// What the next send is of.
    #[inline(always)]
    fn head_bytes(&self, slot: u32) -> (*const u8, u32) {
        let chunk = &self.core.chunks[self.core.slots[slot].output_head as usize];
        let (address, length) = match &chunk.body {
            Body::Pooled { buffer, start, end } => {
                let address = self.core.send_buffers.address(buffer);
                (address.cast_const().wrapping_add(*start as usize), end - start)
            }
            Body::Heap { bytes, start } => {
                let rest = &bytes[*start as usize..];
                (rest.as_ptr(), rest.len().min(SEND_BYTES_MAX) as u32)
            }
            Body::Shared { bytes, start } => {
                let rest = &bytes[*start as usize..];
                (rest.as_ptr(), rest.len().min(SEND_BYTES_MAX) as u32)
            }
            Body::File(_) => unreachable!("files have their own way"),
        };
        assert!(length > 0, "an empty chunk is not queued");
        (address, length)
    }

    /// Whether the queue from this chunk on holds a byte: after an empty file nothing may follow,
    /// and the kernel would hold the last segment back for it.
    fn something_follows(&self, mut chunk: u32) -> bool {
        while chunk != NONE {
            match &self.core.chunks[chunk as usize] {
                Chunk { body: Body::File(file), next } if file.remaining == 0 => chunk = *next,
                _ => return true,
            }
        }
        false
    }

    pub(super) fn on_send(&mut self, slot: u32, result: i32) {
        match result {
            1.. => {
                let sent = result as u32;
                self.note_sent(slot, sent);
                self.core.advance_output(slot, sent);
            }
            0 => {
                self.core.end(slot, Reason::NetworkError, true);
            }
            _ => match -result {
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                    mark!("send cut short");
                }
                libc::ENOBUFS | libc::ENOMEM => {
                    mark!("send without memory");
                    self.rest(slot);
                }
                errno => {
                    mark!("send failed");
                    self.core.end(slot, Reason::from_errno(errno), false);
                }
            },
        }
    }

    /// Whether nothing but deadlines follows from a send: most often everything has left, and there
    /// is nothing to look for until something comes. Every request has such a moment.
    pub(super) fn is_quiet_after_send(&self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        connection.state == State::Open
            && connection.output_head == NONE
            && !connection.shutdown_wanted
            && !connection.output_full
            && (connection.is_plain() || {
                let rare = self.core.slots.rare_of(connection);
                rare.files_sent == 0 && rare.finish_ms == NONE
            })
    }

    /// Tried again at once it would fail again: the deadline goes on with it.
    pub(super) fn rest(&mut self, slot: u32) {
        self.core.slots[slot].rests = true;
        self.core.timers.arm(slot, self.core.now_ms + RETRY_MS);
    }

    /// Bytes have left: progress.
    pub(super) fn note_sent(&mut self, slot: u32, bytes: u32) {
        self.core.counters.bytes_sent += u64::from(bytes);
        let connection = &mut self.core.slots[slot];
        connection.active_ms = self.core.now_ms;
        connection.stalled_since_ms = self.core.now_ms;
    }

    /// Everything queued has left: the FIN that waited for it follows.
    pub(super) fn output_is_empty(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        let draining = connection.state == State::Draining;
        // A file's `file_sent` comes before the end that may follow.
        if (!draining && !connection.shutdown_wanted) || self.core.slots.rare(slot).files_sent > 0 {
            return;
        }
        let socket = connection.descriptor;
        // ENOTCONN: it was reset meanwhile, which the receive side reports.
        let _ = self.ring.shutdown(socket, crate::ring::Shutdown::Write);
        let connection = &mut self.core.slots[slot];
        if connection.state == State::HalfClosedByPeer {
            connection.reason.get_or_insert(Reason::PeerFin);
        }
        connection.on(Event::OurFin);
        connection.stalled_since_ms = self.core.now_ms;
        if connection.state == State::Lingering && connection.fin_seen {
            connection.on(Event::PeerFin);
        }
    }

    /// Callbacks owed on the output side.
    pub(super) fn settle_output(&mut self, slot: u32) {
        while let Some(rare) = self.core.slots.rare_if_any(slot)
            && rare.files_sent > 0
            && !self.core.slots[slot].state.is_over()
        {
            self.core.slots.rare_mut(slot).files_sent -= 1;
            self.application.file_sent(&mut self.core, slot);
        }
        let low = self.core.limits.output_low_bytes;
        let connection = &mut self.core.slots[slot];
        if connection.output_full && (connection.output_bytes as usize) < low {
            connection.output_full = false;
            if !connection.state.accepts_output() {
                return;
            }
            // What was kept meanwhile follows after the callback.
            connection.deliver_owed = true;
            self.application.writable(&mut self.core, slot);
        }
    }
}
