//! The holders of pipes and the connections that wait for one: files on their way out and in.
//!
//! SPLICE moves a file into a pipe, on an io-wq thread that may wait for the disk. At most
//! `io_workers_max` threads do so. A non-blocking splice(2) moves the pipe to the socket. After
//! EAGAIN a poll for `POLLOUT` waits.
//!
//! A stalled reader holds no thread, and it holds a pipe only until another connection needs one.
//! Then the shard takes the pipe from a connection that has stalled for [`STALLED_MS`]. The content
//! is read again from the file later. Connections that wait for a pipe are served in order and are
//! checked every 20 ms. Their deadlines do not run meanwhile.
//!
//! Invariant: a pipe that holds bytes is closed and never reused.

use super::Shard;
use super::core::Core;
use super::deadlines::RETRY_MS;
use super::file::file_at_head;
use super::output::Body;
use crate::Reason;
use crate::handler::Handler;
use crate::memory::PooledPipe;
use crate::ring::Ring;

/// How long a reader has to have stalled before its pipe is taken from it: waiting for room for a
/// moment is what every download over a network does.
const STALLED_MS: u64 = 20;

/// Which way a file goes that needs a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Out,
    In,
}

/// A place in the queue for a pipe.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub slot: u32,
    generation: u64,
    side: Side,
    since_ms: u64,
}

impl Place {
    pub fn is_of(&self, slot: u32, side: Side) -> bool {
        self.slot == slot && self.side == side
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Gets a pipe, or a place in the queue for one.
    pub(super) fn take_pipe(&mut self, slot: u32, side: Side) -> bool {
        let generation = self.core.slots.generation(slot);
        wait_for_pipe(&mut self.core, slot, side, true);
        let since_ms = self.core.now_ms;
        let place = Place { slot, generation, side, since_ms };
        self.pipe_queue.push_back(place);
        self.serve_pipe_queue();
        let waits = self.waits_at(place);
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
        let piped = self.core.take_piped(slot);
        let pipe = piped.or_else(|| file_at_head(&mut self.core, slot).pipe.take());
        let Some(pipe) = pipe else { return false };
        self.give_holder_back(slot, pipe);
        true
    }

    /// Takes a pipe from a reader that stalls: what is in it is read from the file again when
    /// there is room in its socket. False: every holder is at work.
    pub(super) fn reclaim_pipe(&mut self) -> bool {
        let stalled = self.pipe_holders.iter().copied().find(|holder| {
            let connection = &self.core.slots[*holder];
            connection.waits_for_room()
                && connection.state().sends()
                && connection.stalled_since_ms() + STALLED_MS <= self.core.now_ms
        });
        let Some(slot) = stalled else { return false };
        let head = self.core.slots[slot].output_head() as usize;
        if self.core.chunks[head].is_piped() {
            return self.read_pipe_out(slot);
        }
        let file = file_at_head(&mut self.core, slot);
        let held_bytes = file.pipe.as_ref().map_or(0, |pipe| u64::from(pipe.held_bytes));
        mark!("a pipe is taken back");
        file.offset -= held_bytes;
        file.remaining += held_bytes;
        self.put_pipe_back(slot)
    }

    /// Moves bytes that are nowhere else from a pipe to memory. Returns `false` if that fails.
    fn read_pipe_out(&mut self, slot: u32) -> bool {
        let head = self.core.slots[slot].output_head() as usize;
        let Body::Piped(pipe) = &mut self.core.chunks[head].body else {
            unreachable!("just looked")
        };
        let mut bytes = vec![0; pipe.held_bytes as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.ring.read_pipe(pipe.pipe.read, &mut bytes[filled..]) {
                Ok(read @ 1..) => filled += read as usize,
                _ => break,
            }
        }
        mark!("a pipe is read out");
        pipe.held_bytes -= filled as u32;
        if pipe.held_bytes > 0 {
            // A part of the stream cannot be had any more.
            self.core.end(slot, Reason::NetworkError, true);
            return false;
        }
        let pipe = self.core.replace_piped(slot, bytes);
        self.give_holder_back(slot, pipe);
        true
    }

    fn give_holder_back(&mut self, slot: u32, pipe: PooledPipe) {
        self.pipes.give_back(pipe, &mut self.ring);
        let held = self.pipe_holders.iter().position(|holder| *holder == slot);
        self.pipe_holders.swap_remove(held.expect("whoever has a pipe is a holder"));
    }

    fn hand_out(&mut self, pipe: PooledPipe, Place { slot, side, since_ms, .. }: Place) {
        // The wait for a pipe is not the peer's.
        let waited_ms = self.core.now_ms - since_ms;
        wait_for_pipe(&mut self.core, slot, side, false);
        match side {
            Side::Out => {
                let connection = &mut self.core.slots[slot];
                connection.note_progress(connection.stalled_since_ms() + waited_ms);
                file_at_head(&mut self.core, slot).pipe = Some(pipe);
                self.pipe_holders.push(slot);
            }
            Side::In => {
                let incoming = &mut self.core.incoming[self.core.slots.incoming(slot) as usize];
                incoming.progress_ms += waited_ms;
                incoming.pipe = Some(pipe);
            }
        }
        self.core.touch(slot);
    }

    /// Whether whoever has this place still wants a pipe.
    pub(super) fn waits_at(&self, place: Place) -> bool {
        let life = self.core.slots.of_life(place.slot, place.generation);
        life.is_some_and(|connection| match place.side {
            Side::Out => connection.waits_for_pipe(),
            Side::In => {
                let number = self.core.slots.incoming(place.slot);
                let incoming = self.core.incoming.get(number as usize);
                incoming.is_some_and(|incoming| incoming.waits_for_pipe)
            }
        })
    }

    /// Hands pipes to those that wait, oldest first.
    pub(super) fn serve_pipe_queue(&mut self) {
        while let Some(place) = self.pipe_queue.front().copied() {
            if self.waits_at(place) && !self.core.slots[place.slot].state().is_over() {
                match self.pipes.take(&mut self.ring) {
                    Ok(Some(pipe)) => self.hand_out(pipe, place),
                    Ok(None) if self.reclaim_pipe() => continue,
                    // Out of descriptors, or the holders do not stall yet: looked at again soon.
                    full @ (Ok(None) | Err(_)) => {
                        mark!("no pipe now");
                        self.core.give_way(full.err().map_or(0, |errno| errno.0));
                        self.pipe_retry_at_ms = Some(self.core.now_ms + RETRY_MS);
                        return;
                    }
                }
            }
            self.pipe_queue.pop_front();
        }
    }
}

/// Notes whether one side of a connection is in the queue. Returns whether it was.
fn wait_for_pipe(core: &mut Core, slot: u32, side: Side, waits: bool) -> bool {
    match side {
        Side::Out => core.slots[slot].wait_for_pipe(waits),
        Side::In => {
            let incoming = &mut core.incoming[core.slots.incoming(slot) as usize];
            std::mem::replace(&mut incoming.waits_for_pipe, waits)
        }
    }
}
