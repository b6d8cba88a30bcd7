//! Files on their way out.
//!
//! | file | way |
//! |---|---|
//! | fits into the rest of the send buffer, cached | preadv2(2) with `RWF_NOWAIT` into the buffer |
//! | the same, on a file system without `RWF_NOWAIT` (tmpfs) | READ on the ring into the buffer |
//! | larger and cached | sendfile(2) on the shard (`sendfile.rs`) |
//! | not cached, or on a file system that may wait | a pipe (`pipes.rs`) |
//!
//! A file that is shorter than announced, or whose read fails, closes its connection
//! (`end_at_file`). Output before the file leaves, then our FIN. Output behind the file is dropped,
//! because the peer would take it for the rest of the file. After `send_file_padded`, zeros replace
//! the missing bytes, 64 KiB at once in front of the file, and the connection goes on.

use super::Shard;
use super::bounds::Full;
use super::core::Core;
use super::family::{After, Family, Outcome, Vetoes};
use super::output::{Body, FileChunk};
use super::rare::Rare;
use super::slots::NONE;
#[cfg(any(test, feature = "testing"))]
use super::slots::Slot;
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::handler::Handler;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Errno, Kind, Op, Ring};
use std::convert::Infallible;

/// Raw `ERESTARTSYS`: what a splice that was interrupted ends with.
pub(super) const ERESTARTSYS: i32 = 512;

/// Files of a connection whose `file_sent` is due, at most. The next one waits for these calls.
/// Without a limit, empty files would all leave in one turn of the loop.
const FILES_SENT_MAX: u16 = 256;

/// The family of files on their way out. They are submitted with the output queue.
pub(super) struct FilesOut;

impl Family for FilesOut {
    type Due = Infallible;

    #[inline]
    fn is_record_quiet(rare: &Rare) -> bool {
        rare.files_sent() == 0
    }

    #[inline]
    fn record_vetoes(rare: &Rare) -> Vetoes {
        (Vetoes::FINISH | Vetoes::EVICTION).when(rare.files_sent() > 0)
    }

    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        outcome: Outcome,
        _call: Calling,
    ) -> After {
        let result = outcome.completion.result;
        match outcome.kind {
            Kind::PollOut => shard.on_room(slot, result),
            Kind::Read => shard.on_read(slot, result),
            _ => shard.on_splice(slot, result),
        }
        After::Walk
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, call: Calling) {
        shard.report_files_sent(call, slot);
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        if shard.core.slots.rare(slot).files_sent() > 0 && !connection.state().is_over() {
            fail("owes its handler a file_sent");
        }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Calls `file_sent` for each file that has left.
    fn report_files_sent(&mut self, call: Calling, slot: u32) {
        while let Some(rare) = self.core.slots.rare_if_any(slot)
            && rare.files_sent() > 0
            && !self.core.slots[slot].state().is_over()
        {
            self.core.slots.rare_mut(slot).note_file_sent();
            self.application.file_sent(call, &mut self.core, slot);
        }
    }

    /// Whether the chunk behind the first is a file that fits into the first one's buffer.
    pub(super) fn small_file_follows(&self, chunk: u32) -> bool {
        let head = &self.core.chunks[chunk as usize];
        let Body::Pooled { end, .. } = &head.body else { return false };
        if head.next == NONE {
            return false;
        }
        let room = (self.core.send_buffers.bytes_each() - *end as usize) as u64;
        match &self.core.chunks[head.next as usize].body {
            Body::File(file) => {
                (1..=room).contains(&file.remaining) && file.pipe.is_none() && !file.uncached
            }
            _ => false,
        }
    }

    /// Reads the small file behind the first chunk's bytes: from the page cache, at once, or not at
    /// all, so that no slow disk is waited for here or holds a thread that opens files. True: look
    /// at the queue again at once.
    pub(super) fn read_behind_head(&mut self, may: Submitting, slot: u32) -> Result<bool, Full> {
        let head = &self.core.chunks[self.core.slots[slot].output_head() as usize];
        let next = head.next;
        let Body::Pooled { buffer, end, .. } = &head.body else { unreachable!("just looked at") };
        let Body::File(chunk) = &self.core.chunks[next as usize].body else {
            unreachable!("just looked at")
        };
        let (file, offset, length) =
            (chunk.file.descriptor(), chunk.offset, chunk.remaining as u32);
        let address = self.core.send_buffers.address(buffer).wrapping_add(*end as usize);
        let read = match chunk.file.waits() {
            true => Err(Errno(libc::EAGAIN)),
            false => self.ring.read_cached(file, address, length, offset),
        };
        match read {
            Ok(length) => {
                self.on_read(slot, length as i32);
                let call = may.reads_at_once();
                self.report_files_sent(call, slot);
                if self.core.is_room_to_report(slot) {
                    self.report_room(call, slot);
                }
                if self.core.slots[slot].deliver_owed() {
                    mark!("room while a file is read");
                    self.core.touch(slot);
                }
            }
            Err(Errno(libc::EAGAIN)) => {
                mark!("a small file is not cached");
                self.note_uncached(slot, next);
            }
            Err(Errno(libc::EOPNOTSUPP)) => {
                mark!("a file system that does not tell what is cached");
                self.submit(may, slot, Kind::Read, Op::Read { file, address, length, offset })?;
                return Ok(false);
            }
            Err(errno) => self.on_file_error(slot, errno.0),
        }
        Ok(true)
    }

    /// It goes through a pipe, then; a buffer that was put before it for nothing goes back.
    fn note_uncached(&mut self, slot: u32, next: u32) {
        if let Body::File(chunk) = &mut self.core.chunks[next as usize].body {
            chunk.uncached = true;
        }
        self.core.drop_empty_head(slot);
    }

    fn on_read(&mut self, slot: u32, result: i32) {
        let head = self.core.slots[slot].output_head();
        let next = self.core.chunks[head as usize].next;
        let Body::File(file) = &mut self.core.chunks[next as usize].body else {
            unreachable!("a read is in flight for the file behind the first chunk")
        };
        if file.cancelled {
            file.remaining = 0;
            return self.note_uncached(slot, next);
        }
        match result {
            1.. => {
                file.offset += result as u64;
                file.remaining -= result as u64;
                let done = file.remaining == 0;
                if !done {
                    mark!("read in parts");
                }
                if let Body::Pooled { end, .. } = &mut self.core.chunks[head as usize].body {
                    *end += result as u32;
                }
                self.core.slots[slot].add_output_bytes(result as u32);
                if done {
                    self.core.drop_second(slot);
                    self.core.slots.rare_mut(slot).owe_file_sent();
                }
            }
            0 => self.end_at_file(slot, Reason::FileTruncated),
            _ => self.on_file_error(slot, -result),
        }
    }

    /// One step of the file at the head of the queue. True: look at the queue again at once.
    pub(super) fn flush_file(&mut self, may: Submitting, slot: u32) -> Result<bool, Full> {
        let file = file_at_head(&mut self.core, slot);
        if file.remaining == 0 && file.pipe.as_ref().is_none_or(|pipe| pipe.held_bytes == 0) {
            self.return_pipe(slot);
            self.core.drop_head(slot);
            let rare = self.core.slots.rare_mut(slot);
            rare.owe_file_sent();
            let enough = rare.files_sent() >= FILES_SENT_MAX;
            self.core.touch(slot);
            return Ok(!enough);
        }
        if file.cut_off {
            self.core.prepend_zeros(slot);
            return Ok(true);
        }
        if file.pipe.is_none() {
            let (remaining, uncached) = (file.remaining, file.uncached);
            let small = remaining <= self.core.send_buffers.bytes_each() as u64;
            if small && !uncached && self.core.prepend_buffer(slot) {
                return Ok(true);
            }
            return self.send_cached(may, slot);
        }
        if file.pipe.as_ref().is_some_and(|pipe| pipe.held_bytes > 0) {
            return self.empty_pipe(may, slot);
        }
        let file = file_at_head(&mut self.core, slot);
        let pipe = file.pipe.as_ref().expect("it has one").pipe;
        let op = Op::Splice {
            file: file.file.descriptor(),
            offset: file.offset,
            pipe: pipe.write,
            length: file.remaining.min(u64::from(pipe.capacity_bytes)) as u32,
        };
        let inode = file.file.status().inode;
        self.submit(may, slot, Kind::Splice, op)?;
        self.splicing.push(inode);
        Ok(false)
    }

    fn on_splice(&mut self, slot: u32, result: i32) {
        let file = file_at_head(&mut self.core, slot);
        let inode = file.file.status().inode;
        let at = self.splicing.iter().position(|it| *it == inode);
        self.splicing.swap_remove(at.expect("it was noted when it began"));
        let file = file_at_head(&mut self.core, slot);
        if file.cancelled {
            file.remaining = 0;
            // A pipe with bytes in it is closed, not used again.
            file.pipe.as_mut().expect("it has one").held_bytes = u32::try_from(result).unwrap_or(0);
            return self.return_pipe(slot);
        }
        match result {
            1.. => {
                file.offset += result as u64;
                file.remaining -= result as u64;
                file.pipe.as_mut().expect("it has one").held_bytes += result as u32;
                self.core.slots[slot].note_progress(self.core.now_ms);
            }
            0 => self.end_at_file(slot, Reason::FileTruncated),
            _ => self.on_file_error(slot, -result),
        }
    }

    pub(super) fn on_file_error(&mut self, slot: u32, errno: i32) {
        match errno {
            libc::ECANCELED | libc::EINTR | libc::EAGAIN | ERESTARTSYS => {
                mark!("file operation cut short");
            }
            libc::ENOMEM => {
                mark!("file operation without memory");
                self.rest(slot);
            }
            _ => {
                mark!("file operation failed");
                self.end_at_file(slot, Reason::FileFailed);
            }
        }
    }

    /// Ends a connection whose file cannot be sent to its end, or pads the file. Output before the
    /// file still leaves, and our FIN follows. Output behind the file is dropped: the peer would
    /// take it for the rest of the file.
    pub(super) fn end_at_file(&mut self, slot: u32, reason: Reason) {
        if self.core.slots[slot].state().is_over() || self.pad_file(slot, reason) {
            return;
        }
        mark!("a file ends its connection");
        if bug!("file-end-resets") {
            return self.core.end(slot, reason, true);
        }
        let head = self.core.slots[slot].output_head() as usize;
        if matches!(self.core.chunks[head].body, Body::File(_)) {
            self.return_pipe(slot);
        }
        self.core.drop_from_file(slot);
        self.core.close(slot, reason);
        self.core.touch(slot);
    }

    /// Replaces the rest of a padded file, at the head or behind it, by zeros. Returns `false` for
    /// any other file.
    #[cold]
    fn pad_file(&mut self, slot: u32, reason: Reason) -> bool {
        let head = self.core.slots[slot].output_head();
        let is_head = matches!(self.core.chunks[head as usize].body, Body::File(_));
        let at = if is_head { head } else { self.core.chunks[head as usize].next };
        let Body::File(file) = &mut self.core.chunks[at as usize].body else {
            unreachable!("a file that was read is at the head or behind it")
        };
        if !file.padded {
            return false;
        }
        file.file.fail(reason);
        // The ways past a pipe are for files that can be read.
        (file.cut_off, file.uncached) = (true, true);
        if is_head {
            self.return_pipe(slot);
        } else {
            self.note_uncached(slot, at);
        }
        self.core.touch(slot);
        true
    }

    /// The socket has room, or an error that the next send meets. Hazard: io_uring reports a FIN
    /// (POLLRDHUP) although the socket has no room, and would do so again at once.
    #[cold]
    #[inline(never)]
    fn on_room(&mut self, slot: u32, result: i32) {
        if result == i32::from(libc::POLLRDHUP) && !bug!("fin-spins") {
            mark!("a FIN wakes a file that waits for room");
            self.rest(slot);
        }
    }

    /// Looks at the queue again when the socket has room.
    pub(super) fn poll_room(&mut self, may: Submitting, slot: u32) -> Result<bool, Full> {
        let socket = self.core.slots[slot].descriptor();
        let op = Op::Poll { descriptor: socket, events: libc::POLLOUT as u32 };
        self.submit(may, slot, Kind::PollOut, op)?;
        Ok(false)
    }

    /// One step of the pipe at the head of the queue. True: look at the queue again at once.
    pub(super) fn flush_piped(&mut self, may: Submitting, slot: u32) -> Result<bool, Full> {
        let head = &self.core.chunks[self.core.slots[slot].output_head() as usize];
        if head.body.bytes() > 0 {
            return self.empty_pipe(may, slot);
        }
        self.return_pipe(slot);
        self.core.touch(slot);
        Ok(true)
    }

    /// Moves what the pipe holds to the socket, as far as there is room.
    fn empty_pipe(&mut self, may: Submitting, slot: u32) -> Result<bool, Full> {
        let socket = self.core.slots[slot].descriptor();
        let head = &mut self.core.chunks[self.core.slots[slot].output_head() as usize];
        let last = head.next == NONE;
        let (pipe, remaining) = match &mut head.body {
            Body::File(file) => (file.pipe.as_mut().expect("it has one"), file.remaining),
            Body::Piped(pipe) => (pipe, 0),
            _ => unreachable!("a pipe is at the head of the queue"),
        };
        let more = !last || remaining > 0;
        match self.ring.splice_to_socket(pipe.pipe.read, socket, pipe.held_bytes, more) {
            Ok(0) => {
                self.core.end(slot, Reason::BrokenPipe, true);
                Ok(false)
            }
            Ok(moved) => {
                pipe.held_bytes -= moved;
                self.bounds.note_work(moved as usize);
                self.note_sent(slot, moved);
                Ok(true)
            }
            Err(errno) if errno.0 == libc::EAGAIN => {
                mark!("no room for a splice");
                self.poll_room(may, slot)
            }
            Err(errno) => {
                mark!("splice to socket failed");
                self.core.fail(slot, errno);
                Ok(false)
            }
        }
    }
}

pub(super) fn file_at_head(core: &mut Core, slot: u32) -> &mut FileChunk {
    let head = core.slots[slot].output_head();
    match &mut core.chunks[head as usize].body {
        Body::File(file) => file,
        _ => unreachable!("a file is at the head of the queue"),
    }
}
