//! The output queue of a connection: a chain of chunks in the shard's slab.
//!
//! A chunk is a send buffer of the arena, a spill, a payload, or a range of a file. Bytes longer
//! than a send buffer fill several while more than half of the send buffers are free, and spills
//! from then on. Short output goes to spills while no send buffer is free. Where no spill can be
//! mapped, the copy is a payload on the heap. Later output fills the last buffer of the queue, and
//! short payloads are copied into it. The ledger counts spills and copies on the heap as
//! `heap_chunks`.

mod chunk;
mod loan;

pub use chunk::{Body, CHUNK_BYTES, Chunk, FileChunk};
pub use loan::Loan;

use super::core::Core;
use super::slots::NONE;
use crate::files::OpenFile;
use crate::memory::{Payload, PooledPipe};

/// Zeros that replace bytes of a file.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Payloads up to this length are copied (DECISIONS.md).
const COPIED_BYTES_MAX: usize = 2 << 10;
/// The same for one that others hold as well: it may be in many queues.
const COPIED_SHARED_BYTES_MAX: usize = 512;

impl Core {
    /// Copies `bytes` to the end of a slot's queue.
    pub fn queue_bytes(&mut self, slot: u32, bytes: &[u8]) {
        let mut rest = bytes;
        let size = self.send_buffers.bytes_each();
        if bytes.len() > size {
            return self.queue_long(slot, bytes);
        }
        let connection = &mut self.slots[slot];
        connection.add_output_bytes(bytes.len() as u32);
        let tail = connection.output_tail();
        if tail != NONE {
            match &mut self.chunks[tail as usize].body {
                Body::Pooled { buffer, end, .. } => {
                    let fits = rest.len().min(size - *end as usize);
                    self.send_buffers.write(buffer, *end as usize, &rest[..fits]);
                    *end += fits as u32;
                    rest = &rest[fits..];
                }
                Body::Spilled { spill, .. } => rest = self.spills.extend(spill, rest),
                Body::Payload { .. } | Body::Lent { .. } | Body::Piped(_) | Body::File(_) => {}
            }
        }
        if rest.is_empty() {
            return;
        }
        match self.send_buffers.take() {
            Some(buffer) => {
                self.send_buffers.write(&buffer, 0, rest);
                self.append(slot, Body::Pooled { buffer, start: 0, end: rest.len() as u32 });
            }
            None => self.append_spill(slot, rest),
        }
    }

    /// Appends a copy of what fits into a buffer, beyond the send buffers.
    #[cold]
    fn append_spill(&mut self, slot: u32, bytes: &[u8]) {
        let Some(mut spill) = self.spills.take() else { return self.append_copy(slot, bytes) };
        let rest = self.spills.extend(&mut spill, bytes);
        assert!(rest.is_empty(), "what is longer than a buffer is split before");
        self.counters.heap_chunks += 1;
        self.charge(self.spills.bytes_each() + CHUNK_BYTES);
        self.append(slot, Body::Spilled { spill, start: 0 });
    }

    /// Copies bytes that are longer than a buffer into several: they leave together. Beyond half of
    /// the send buffers, which remain for others, the copies are spills: malloc would keep memory
    /// of this size when the clients that did not read have left.
    #[cold]
    fn queue_long(&mut self, slot: u32, bytes: &[u8]) {
        if self.lend(slot, bytes) {
            return;
        }
        let (size, plenty) = (self.send_buffers.bytes_each(), self.send_buffers.total() / 2);
        for piece in bytes.chunks(size) {
            if self.send_buffers.free() > plenty {
                self.queue_bytes(slot, piece);
            } else {
                self.slots[slot].add_output_bytes(piece.len() as u32);
                self.append_spill(slot, piece);
            }
        }
    }

    /// Queues bytes without a copy if they lie in the long buffer and nothing is queued before
    /// them.
    fn lend(&mut self, slot: u32, bytes: &[u8]) -> bool {
        if self.slots[slot].output_head() != NONE {
            return false;
        }
        let Some(start) = self.loan.take(slot, bytes) else { return false };
        let length = bytes.len() as u32;
        self.slots[slot].add_output_bytes(length);
        self.append(slot, Body::Lent { start, end: start + length });
        true
    }

    /// Replaces the lent bytes at the head of a queue by a copy. `long` is the long buffer.
    pub fn copy_loan(&mut self, slot: u32, long: &[u8]) {
        let head = self.slots[slot].output_head();
        let Some(chunk) = self.chunks.get(head as usize) else { return };
        let Body::Lent { start, end } = chunk.body else { return };
        let rest = &long[start as usize..end as usize];
        if chunk.next == NONE {
            mark!("lent bytes that did not leave are copied");
            self.slots[slot].remove_output_bytes(rest.len() as u32);
            self.drop_head(slot);
            self.queue_bytes(slot, rest);
        } else {
            self.counters.heap_chunks += 1;
            let body = self.charged(rest.to_vec().into());
            self.chunks[head as usize].body = body;
        }
    }

    /// Appends a copy on the heap.
    #[cold]
    fn append_copy(&mut self, slot: u32, bytes: &[u8]) {
        self.counters.heap_chunks += 1;
        let body = self.charged(bytes.to_vec().into());
        self.append(slot, body);
    }

    /// Queues a payload. A short one is copied, because a chunk takes more time than the bytes.
    pub fn queue_payload(&mut self, slot: u32, payload: Payload) {
        let most = if payload.is_shared() { COPIED_SHARED_BYTES_MAX } else { COPIED_BYTES_MAX };
        if payload.len() <= most.min(self.send_buffers.bytes_each()) {
            return self.queue_bytes(slot, payload.as_ref());
        }
        mark!("a payload is queued without a copy");
        self.slots[slot].add_output_bytes(payload.len() as u32);
        let body = self.charged(payload);
        self.append(slot, body);
    }

    fn charged(&mut self, payload: Payload) -> Body {
        let charged = u32::try_from(payload.held_bytes() + CHUNK_BYTES).unwrap_or(u32::MAX);
        self.charge(charged as usize);
        Body::Payload { payload, charged }
    }

    /// Queues a range of a file.
    pub fn queue_file(
        &mut self,
        slot: u32,
        file: OpenFile,
        (offset, remaining): (u64, u64),
        padded: bool,
    ) {
        let chunk = FileChunk {
            file,
            offset,
            remaining,
            uncached: false,
            padded,
            cut_off: false,
            cancelled: false,
            pipe: None,
        };
        self.append(slot, Body::File(chunk));
    }

    /// Queues the bytes in a pipe. Nothing else is queued.
    pub fn queue_pipe(&mut self, slot: u32, pipe: PooledPipe) {
        assert!(self.slots[slot].output_head() == NONE, "a pipe is filled for an empty queue");
        self.append(slot, Body::Piped(pipe));
    }

    /// Takes the pipe at the head of a queue out, if there is one. The chunk is gone then.
    pub fn take_piped(&mut self, slot: u32) -> Option<PooledPipe> {
        let head = self.slots[slot].output_head();
        let is_piped = self.chunks.get(head as usize).is_some_and(Chunk::is_piped);
        if !is_piped {
            return None;
        }
        let chunk = self.chunks.remove(head as usize);
        self.slots[slot].remove_chunk(chunk.next);
        match chunk.body {
            Body::Piped(pipe) => Some(pipe),
            _ => unreachable!("just looked"),
        }
    }

    /// Replaces the pipe at the head of a queue by the bytes that were in it. Returns the pipe.
    pub fn replace_piped(&mut self, slot: u32, bytes: Vec<u8>) -> PooledPipe {
        self.slots[slot].add_output_bytes(bytes.len() as u32);
        let body = self.charged(bytes.into());
        let head = self.slots[slot].output_head();
        match std::mem::replace(&mut self.chunks[head as usize].body, body) {
            Body::Piped(pipe) => pipe,
            _ => unreachable!("a pipe is at the head of the queue"),
        }
    }

    pub(super) fn append(&mut self, slot: u32, body: Body) {
        let chunk = self.chunks.insert(Chunk { body, next: NONE }) as u32;
        let before = self.slots[slot].append_chunk(chunk, self.now_ms);
        if before != NONE {
            self.chunks[before as usize].next = chunk;
        }
    }

    /// Puts an empty send buffer in front of the queue; `false` when none is free.
    pub fn prepend_buffer(&mut self, slot: u32) -> bool {
        let Some(buffer) = self.send_buffers.take() else { return false };
        let head = self.slots[slot].output_head();
        assert!(head != NONE, "there is something to put it in front of");
        let body = Body::Pooled { buffer, start: 0, end: 0 };
        self.slots[slot].prepend_chunk(self.chunks.insert(Chunk { body, next: head }) as u32);
        true
    }

    /// Puts zeros in front of a file that was cut off, at the head of the queue.
    #[cold]
    pub fn prepend_zeros(&mut self, slot: u32) {
        let head = self.slots[slot].output_head();
        let Body::File(file) = &mut self.chunks[head as usize].body else {
            unreachable!("a file is at the head of the queue")
        };
        let length = file.remaining.min(ZEROS.len() as u64);
        file.offset += length;
        file.remaining -= length;
        let body = self.charged(ZEROS[..length as usize].into());
        self.slots[slot].add_output_bytes(length as u32);
        self.slots[slot].prepend_chunk(self.chunks.insert(Chunk { body, next: head }) as u32);
    }

    /// Takes `sent` bytes off the front of the queue; they are no file's.
    pub fn advance_output(&mut self, slot: u32, sent: u32) {
        let head = self.slots[slot].output_head();
        let chunk = &mut self.chunks[head as usize];
        let done = match &mut chunk.body {
            Body::Pooled { start, end, .. } => {
                *start += sent;
                assert!(*start <= *end, "no more was sent than was there");
                start == end
            }
            Body::Spilled { spill, start } => {
                *start += sent;
                assert!(*start <= spill.length(), "no more was sent than was there");
                *start == spill.length()
            }
            Body::Payload { payload, .. } => {
                payload.advance(sent as usize);
                payload.is_empty()
            }
            Body::Lent { start, end } => {
                *start += sent;
                start == end
            }
            Body::Piped(_) | Body::File(_) => unreachable!("a pipe is not sent by SEND"),
        };
        self.slots[slot].remove_output_bytes(sent);
        if done {
            self.drop_head(slot);
        }
    }

    /// Takes the first chunk off the queue and gives back what it holds; a pipe it may have was
    /// given back before.
    pub fn drop_head(&mut self, slot: u32) {
        let head = self.slots[slot].output_head();
        let chunk = self.chunks.remove(head as usize);
        self.slots[slot].remove_chunk(chunk.next);
        self.release(chunk.body);
    }

    /// Takes the chunk behind the first one off: a small file that was read into the first one.
    pub fn drop_second(&mut self, slot: u32) {
        let head = self.slots[slot].output_head();
        let second = self.chunks[head as usize].next;
        let chunk = self.chunks.remove(second as usize);
        self.chunks[head as usize].next = chunk.next;
        if chunk.next == NONE {
            self.slots[slot].end_queue_at_head();
        }
        self.release(chunk.body);
    }

    /// Drops the file at the head of the queue, or behind the bytes there, and what follows it.
    pub fn drop_from_file(&mut self, slot: u32) {
        let head = self.slots[slot].output_head();
        let kept_bytes = match self.chunks[head as usize].body {
            Body::Pooled { start, end, .. } => end - start,
            Body::File(_) => 0,
            _ => unreachable!("a file is read behind a send buffer only"),
        };
        while self.chunks[head as usize].next != NONE {
            self.drop_second(slot);
        }
        if kept_bytes == 0 {
            self.drop_head(slot);
        }
        let connection = &mut self.slots[slot];
        connection.remove_output_bytes(connection.output_bytes() - kept_bytes);
    }

    /// Gives up all files of a queue: nothing more is read from them. Returns the bytes that are
    /// not sent because of that. `reads` is the number of the chunk that an operation in flight
    /// reads.
    pub fn cancel_files(&mut self, slot: u32, reads: u32) -> u64 {
        let (mut missing_bytes, mut end) = (0, 0);
        let mut at = self.slots[slot].output_head();
        while at != NONE {
            let chunk = &mut self.chunks[at as usize];
            let next = chunk.next;
            end += chunk.body.bytes();
            if let Body::File(file) = &mut chunk.body
                && !file.cancelled
            {
                let bytes = file.remaining;
                if at == reads {
                    mark!("a queued file is given up while it is read");
                    file.cancelled = true;
                } else {
                    mark!("a queued file is given up");
                    file.remaining = 0;
                }
                self.forget_marked(slot, end, bytes);
                missing_bytes += bytes;
                end -= bytes;
            }
            at = next;
        }
        if reads == NONE {
            self.drop_empty_head(slot);
        }
        missing_bytes
    }

    /// Gives back a buffer that was put in front of a small file for nothing.
    pub fn drop_empty_head(&mut self, slot: u32) {
        let head = self.chunks.get(self.slots[slot].output_head() as usize);
        let body = head.map(|chunk| &chunk.body);
        if matches!(body, Some(Body::Pooled { start, end, .. }) if start == end) {
            self.drop_head(slot);
        }
    }

    fn release(&mut self, body: Body) {
        match body {
            Body::Pooled { buffer, .. } => self.send_buffers.give_back(buffer),
            Body::Spilled { spill, .. } => {
                self.discharge(self.spills.bytes_each() + CHUNK_BYTES);
                self.spills.give_back(spill);
            }
            Body::File(chunk) => {
                assert!(chunk.pipe.is_none(), "a pipe goes back to its pool");
                self.close_file(chunk.file);
            }
            Body::Payload { charged, .. } => self.discharge(charged as usize),
            Body::Lent { .. } => {}
            Body::Piped(_) => unreachable!("a pipe goes back to its pool"),
        }
    }

    /// Closes a file on the ring, at the end of the batch.
    pub fn close_file(&mut self, file: OpenFile) {
        self.files_closing.extend(file.into_last());
    }
}
