//! Files: opened beneath a directory on the ring, then sent. Small ones are read into the send
//! buffer behind what precedes them and leave with it in one send; larger ones are spliced, file
//! to pipe on the ring (which may wait for a disk) and pipe to socket without blocking.

use super::output::{Body, FileChunk};
use super::slots::NONE;
use super::{Full, RETRY_MS, Shard};
use crate::Reason;
use crate::file::OpenFile;
use crate::handler::Handler;
use crate::ring::{Descriptor, Kind, Op, Ring};
use std::io;

/// How long a reader has to have stalled before its pipe is taken from it: waiting for room for a
/// moment is what every download over a network does.
const STALLED_MS: u64 = 20;
/// Raw `ERESTARTSYS`: what a splice that was interrupted ends with.
const ERESTARTSYS: i32 = 512;

impl<R: Ring, H: Handler> Shard<R, H> {
    pub(super) fn flush_open(&mut self, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        if connection.open == NONE || connection.in_flight.has(Kind::Open) {
            return Ok(());
        }
        if connection.state.is_over() {
            mark!("open of a connection that is over");
            self.core.finish_open(slot);
            return Ok(());
        }
        let request = &self.core.opens[connection.open as usize];
        if request.path[..request.path.len() - 1].contains(&0) {
            mark!("open of a path with NUL");
            self.core.finish_open(slot);
            if !self.core.slots[slot].state.discards() {
                let error = io::Error::from_raw_os_error(libc::EINVAL);
                self.application.file_opened(&mut self.core, slot, Err(error));
                self.core.touch(slot);
            }
            return Ok(());
        }
        let op = Op::Open {
            directory: request.directory.descriptor(),
            path: request.path.as_ptr().cast(),
        };
        self.submit(slot, Kind::Open, op)
    }

    pub(super) fn on_open(&mut self, slot: u32, result: i32) {
        self.core.finish_open(slot);
        let opened = if result >= 0 {
            let file = Descriptor(result);
            match self.ring.file_status(file) {
                Ok(status) => Ok(OpenFile::new(file, status, &self.core.files_open)),
                Err(errno) => {
                    mark!("fstat failed");
                    self.ring.close_now(file);
                    Err(errno.into())
                }
            }
        } else {
            Err(io::Error::from_raw_os_error(-result))
        };
        let connection = &self.core.slots[slot];
        if connection.state.is_over() || connection.state.discards() {
            mark!("opened too late");
            if let Ok(file) = opened {
                self.core.close_file(file);
            }
            return;
        }
        self.application.file_opened(&mut self.core, slot, opened);
    }

    /// Whether the chunk behind the first is a file that fits into the first one's buffer.
    pub(super) fn small_file_follows(&self, slot: u32) -> bool {
        let head = &self.core.chunks[self.core.slots[slot].output_head as usize];
        let Body::Pooled { end, .. } = &head.body else { return false };
        if head.next == NONE {
            return false;
        }
        let room = (self.core.send_buffers.bytes_each() - *end as usize) as u64;
        match &self.core.chunks[head.next as usize].body {
            Body::File(file) => (1..=room).contains(&file.remaining) && file.pipe.is_none(),
            _ => false,
        }
    }

    /// Reads the small file behind the first chunk's bytes.
    pub(super) fn read_behind_head(&mut self, slot: u32) -> Result<(), Full> {
        let head = &self.core.chunks[self.core.slots[slot].output_head as usize];
        let Body::Pooled { buffer, end, .. } = &head.body else { unreachable!("just looked at") };
        let Body::File(file) = &self.core.chunks[head.next as usize].body else {
            unreachable!("just looked at")
        };
        let op = Op::Read {
            file: file.file.descriptor(),
            address: self.core.send_buffers.address(buffer).wrapping_add(*end as usize),
            length: file.remaining as u32,
            offset: file.offset,
        };
        self.submit(slot, Kind::Read, op)
    }

    pub(super) fn on_read(&mut self, slot: u32, result: i32) {
        let head = self.core.slots[slot].output_head;
        let next = self.core.chunks[head as usize].next;
        let Body::File(file) = &mut self.core.chunks[next as usize].body else {
            unreachable!("a read is in flight for the file behind the first chunk")
        };
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
                self.core.slots[slot].output_bytes += result as u32;
                if done {
                    self.core.drop_second(slot);
                    self.core.slots[slot].files_sent += 1;
                }
            }
            0 => self.core.end(slot, Reason::FileTruncated, true),
            _ => self.on_file_error(slot, -result),
        }
    }

    /// One step of the file at the head of the queue. True: look at the queue again at once.
    pub(super) fn flush_file(&mut self, slot: u32) -> Result<bool, Full> {
        let file = file_at_head(&mut self.core, slot);
        if file.remaining == 0 && file.pipe.as_ref().is_none_or(|pipe| pipe.held_bytes == 0) {
            self.return_pipe(slot);
            self.core.drop_head(slot);
            self.core.slots[slot].files_sent += 1;
            self.core.touch(slot);
            return Ok(true);
        }
        if file.pipe.is_none() {
            let small = file.remaining <= self.core.send_buffers.bytes_each() as u64;
            if small && self.core.prepend_buffer(slot) {
                return Ok(true);
            }
            return Ok(self.take_pipe(slot));
        }
        if file.pipe.as_ref().is_some_and(|pipe| pipe.held_bytes > 0) {
            return self.empty_pipe(slot);
        }
        let file = file_at_head(&mut self.core, slot);
        let pipe = file.pipe.as_ref().expect("it has one").pipe;
        let op = Op::Splice {
            file: file.file.descriptor(),
            offset: file.offset,
            pipe: pipe.write,
            length: file.remaining.min(u64::from(pipe.capacity_bytes)) as u32,
        };
        self.submit(slot, Kind::Splice, op)?;
        Ok(false)
    }

    pub(super) fn on_splice(&mut self, slot: u32, result: i32) {
        let file = file_at_head(&mut self.core, slot);
        match result {
            1.. => {
                file.offset += result as u64;
                file.remaining -= result as u64;
                file.pipe.as_mut().expect("it has one").held_bytes += result as u32;
                self.core.slots[slot].stalled_since_ms = self.core.now_ms;
            }
            0 => self.core.end(slot, Reason::FileTruncated, true),
            _ => self.on_file_error(slot, -result),
        }
    }

    fn on_file_error(&mut self, slot: u32, errno: i32) {
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
                self.core.end(slot, Reason::FileFailed, true);
            }
        }
    }

    /// Moves what the pipe holds to the socket, as far as there is room.
    fn empty_pipe(&mut self, slot: u32) -> Result<bool, Full> {
        let socket = self.core.slots[slot].descriptor;
        let last = self.core.chunks[self.core.slots[slot].output_head as usize].next == NONE;
        let file = file_at_head(&mut self.core, slot);
        let more = !last || file.remaining > 0;
        let pipe = file.pipe.as_mut().expect("it has one");
        match self.ring.splice_to_socket(pipe.pipe.read, socket, pipe.held_bytes, more) {
            Ok(0) => {
                self.core.end(slot, Reason::BrokenPipe, true);
                Ok(false)
            }
            Ok(moved) => {
                pipe.held_bytes -= moved;
                self.note_sent(slot, moved);
                Ok(true)
            }
            Err(errno) if errno.0 == libc::EAGAIN => {
                mark!("no room for a splice");
                let op = Op::Poll { descriptor: socket, events: libc::POLLOUT as u32 };
                self.submit(slot, Kind::PollOut, op)?;
                Ok(false)
            }
            Err(errno) => {
                mark!("splice to socket failed");
                self.core.end(slot, Reason::from_errno(errno.0), false);
                Ok(false)
            }
        }
    }

    /// Gets a pipe for the file at the head, or a place in the queue for one.
    fn take_pipe(&mut self, slot: u32) -> bool {
        let connection = &mut self.core.slots[slot];
        connection.waits_for_pipe = true;
        self.pipe_queue.push_back((slot, connection.generation));
        self.serve_pipe_queue();
        let waits = self.core.slots[slot].waits_for_pipe;
        self.core.counters.pipe_waits += u64::from(waits);
        !waits
    }

    /// Gives the pipe of the file at the head back, and lets the next in the queue have one.
    pub(super) fn return_pipe(&mut self, slot: u32) {
        if self.put_pipe_back(slot) {
            self.serve_pipe_queue();
        }
    }

    pub(super) fn put_pipe_back(&mut self, slot: u32) -> bool {
        let Some(pipe) = file_at_head(&mut self.core, slot).pipe.take() else { return false };
        self.pipes.give_back(pipe, &mut self.ring);
        let held = self.pipe_holders.iter().position(|holder| *holder == slot);
        self.pipe_holders.swap_remove(held.expect("whoever has a pipe is a holder"));
        true
    }

    /// Takes a pipe from a reader that stalls: what is in it is read from the file again when
    /// there is room in its socket. False: every holder is at work.
    fn reclaim_pipe(&mut self) -> bool {
        let stalled = self.pipe_holders.iter().copied().find(|holder| {
            let connection = &self.core.slots[*holder];
            connection.in_flight.has(Kind::PollOut)
                && connection.state.sends()
                && connection.stalled_since_ms + STALLED_MS <= self.core.now_ms
        });
        let Some(slot) = stalled else { return false };
        let file = file_at_head(&mut self.core, slot);
        let held_bytes = file.pipe.as_ref().map_or(0, |pipe| u64::from(pipe.held_bytes));
        mark!("a pipe is taken back");
        file.offset -= held_bytes;
        file.remaining += held_bytes;
        self.put_pipe_back(slot)
    }

    /// Hands pipes to those that wait, oldest first.
    pub(super) fn serve_pipe_queue(&mut self) {
        while let Some((slot, generation)) = self.pipe_queue.front().copied() {
            let waits = self.core.slots.get(slot).is_some_and(|connection| {
                connection.generation == generation
                    && connection.waits_for_pipe
                    && connection.state.sends()
            });
            if waits {
                match self.pipes.take(&mut self.ring) {
                    Ok(Some(pipe)) => {
                        let connection = &mut self.core.slots[slot];
                        connection.waits_for_pipe = false;
                        connection.stalled_since_ms = self.core.now_ms;
                        file_at_head(&mut self.core, slot).pipe = Some(pipe);
                        self.pipe_holders.push(slot);
                        self.core.touch(slot);
                    }
                    Ok(None) if self.reclaim_pipe() => continue,
                    // Out of descriptors, or the holders do not stall yet: looked at again soon.
                    Ok(None) | Err(_) => {
                        mark!("no pipe now");
                        self.pipe_retry_at_ms = Some(self.core.now_ms + RETRY_MS);
                        return;
                    }
                }
            }
            self.pipe_queue.pop_front();
        }
    }
}

fn file_at_head(core: &mut super::core::Core, slot: u32) -> &mut FileChunk {
    let head = core.slots[slot].output_head;
    match &mut core.chunks[head as usize].body {
        Body::File(file) => file,
        _ => unreachable!("a file is at the head of the queue"),
    }
}
