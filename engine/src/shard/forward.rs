//! Forwarding: a range of the stream goes to the output of another connection of the shard, without
//! the handler.
//!
//! | bytes that arrive | way |
//! |---|---|
//! | short messages | from the receive buffer into the other's output queue |
//! | 4 full receive buffers in a row | socket, pipe, socket by splice(2) |
//! | 4 short splices in a row, or no pipe is free | through receive buffers again |
//!
//! A splice fills the pipe only when the other's output queue is empty, and the pipe becomes a
//! chunk of that queue. Output of the other's handler therefore stays in order, and the deadlines
//! of output, a drain and markers see the bytes. The pipe goes back to the pool as soon as it is
//! empty. If the other stalls, another connection may take the pipe, and its bytes move to memory
//! (`pipes.rs`).
//!
//! A range with an end has a deadline. Only bytes of the range count for it: the connection's own
//! output, which others may cause, does not. The wait for the other connection does not count.
//!
//! Hazard: splice(2) does not pass an urgent byte (`MSG_OOB`), while poll(2) reports input. Such a
//! range goes on through receive buffers.

mod range;

pub use range::Forward;

use super::Shard;
use super::bounds::Full;
use super::core::Core;
use super::family::{Family, Vetoes};
use super::rare::Rare;
use super::slots::{Armed, NONE, Slot};
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::handler::{Deadline, Handler};
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Errno, Kind, Op, Ring};
use std::io;

/// The most bytes asked of a socket at once. The pipe bounds them as well.
const SPLICE_BYTES_MAX: u64 = 1 << 20;
/// The pipes that one connection fills in a turn. Others have their turn, too.
const PIPES_PER_TURN: u32 = 8;

/// The family of ranges of the stream that go to another connection.
pub(super) struct Forwards;

impl Family for Forwards {
    /// No progress for too long.
    type Due = ();

    #[inline]
    fn is_record_quiet(rare: &Rare) -> bool {
        rare.forward() == NONE && rare.forwarded_by() == NONE
    }

    #[inline]
    fn record_vetoes(rare: &Rare) -> Vetoes {
        Vetoes::ALL.when(rare.forward_waits())
    }

    #[inline]
    fn counts_from_activity(rare: &Rare) -> bool {
        !rare.forward_is_finite()
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, call: Calling) {
        shard.settle_forward(call, slot);
    }

    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        shard.core.wake_source(slot);
        shard.flush_forward(may, slot)
    }

    #[inline]
    fn due<R: Ring, H: Handler>(
        shard: &Shard<R, H>,
        _slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        if connection.is_plain() || !connection.state().hears() {
            return;
        }
        let rare = shard.core.slots.rare_of(connection);
        if rare.forward_is_finite()
            && !rare.forward_waits()
            && let Some(forward) = shard.core.forwards.get(rare.forward() as usize)
            && !forward.is_over()
        {
            let transfer_ms = shard.core.limits_of(connection).transfer_ms;
            let any = bug!("activity-counts-as-progress");
            let since_ms = if any { connection.active_ms() } else { forward.progress_ms };
            candidate(since_ms, transfer_ms, ());
        }
    }

    fn expired<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, (): (), call: Calling) {
        if shard.unread_bytes(slot) > 0 {
            mark!("a forwarded range's bytes lie in the socket");
            let (number, now_ms) = (shard.core.slots.rare(slot).forward(), shard.core.now_ms);
            shard.core.slots[slot].note_activity(now_ms);
            shard.core.forwards[number as usize].progress_ms = now_ms;
        } else {
            mark!("a forwarded range comes no further");
            shard.application.expired(call, &mut shard.core, slot, Deadline::Transfer);
            shard.core.end(slot, Reason::TransferTimeout, true);
        }
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        shard.core.wake_source(slot);
        shard.core.take_forward(slot);
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        let core = &shard.core;
        let number = core.slots.rare(slot).forward() as usize;
        let Some(forward) = core.forwards.get(number) else { return };
        if connection.state().is_over() || connection.rests() {
            return;
        }
        let Some(to) = core.target(forward) else {
            let other = core.slots.of_life(forward.to, forward.generation);
            if !other.is_some_and(Slot::touched) {
                fail("forwards to nobody");
            }
            return;
        };
        let other = &core.slots[to];
        let full = other.is_full() || (forward.splices && other.output_head() != NONE);
        // Its walk wakes this one.
        let waits = full || other.touched();
        let comes = connection.in_flight().has(Kind::PollIn)
            || connection.armed() != Armed::Nothing
            || shard.is_in_starved_queue(slot);
        if forward.is_over() || (!waits && !comes) {
            fail("does not go on with what it forwards");
        }
    }
}

impl Core {
    /// The next bytes of the stream go to another connection.
    pub fn request_forward(&mut self, slot: u32, to: u32, length: u64) {
        let forward = Forward::new(to, self.slots.generation(to), length, self.now_ms);
        let is_finite = forward.is_finite();
        let forward = self.forwards.insert(forward) as u32;
        self.slots.rare_mut(slot).set_forward(forward, is_finite);
        self.slots.rare_mut(to).set_forwarded_by(slot);
        // The peer sends a range, and no message.
        self.forget_message(slot);
        self.touch(slot);
    }

    /// The slot that a range goes to, unless that connection takes no more output.
    fn target(&self, forward: &Forward) -> Option<u32> {
        let connection = self.slots.of_life(forward.to, forward.generation)?;
        let takes = connection.state().accepts_output() && !connection.shutdown_wanted();
        takes.then_some(forward.to)
    }

    /// Lets the connection go on whose range goes to this one: something has changed here.
    fn wake_source(&mut self, slot: u32) {
        let source = self.slots.rare(slot).forwarded_by();
        // A connection that forwards to itself goes on anyway, in the same walk.
        if source == NONE || source == slot {
            return;
        }
        let (connection, number) = (&self.slots[slot], self.slots.rare(source).forward());
        let forward = &self.forwards[number as usize];
        let goes_on = match self.kept_bytes(source) {
            0 => forward.splices && connection.output_head() == NONE,
            _ => !connection.is_full(),
        };
        if goes_on || self.target(forward).is_none() {
            self.touch(source);
        }
    }

    /// The range waits for room in the other connection's queue, or does not.
    fn set_forward_waits(&mut self, slot: u32, waits: bool) {
        let rare = self.slots.rare_mut(slot);
        if rare.forward_waits() && !waits {
            self.forwards[rare.forward() as usize].progress_ms = self.now_ms;
        }
        rare.set_forward_waits(waits);
    }

    /// Takes the range of a connection out, if it has one.
    fn take_forward(&mut self, slot: u32) -> Option<Forward> {
        let number = self.slots.rare_if_any(slot)?.take_forward()?;
        self.slots.rare_mut(slot).set_forward_waits(false);
        let forward = self.forwards.remove(number as usize);
        if self.slots.of_life(forward.to, forward.generation).is_some()
            && let Some(other) = self.slots.rare_if_any(forward.to)
        {
            other.set_forwarded_by(NONE);
            // Its record may be of no more use.
            self.touch(forward.to);
        }
        Some(forward)
    }

    /// Queues bytes that have just come to the other connection, if nothing is in the way. Returns
    /// how many were taken.
    pub fn forward_at_once(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let number = self.slots.rare(slot).forward();
        let Some(forward) = self.forwards.get(number as usize) else { return 0 };
        let mine = usize::try_from(forward.missing()).map_or(bytes.len(), |it| it.min(bytes.len()));
        let Some(to) = self.target(forward) else { return 0 };
        if mine == 0 || forward.failed.is_some() {
            return 0;
        }
        // As many as there is room for: all of them at once may be more than a queue ever takes.
        let mine = mine.min(self.room_bytes(to));
        if self.slots[to].is_full() || mine == 0 {
            mark!("a forwarded range waits for room");
            return 0;
        }
        let is_long = bytes.len() >= self.limits.receive_buffer_bytes;
        self.forwards[number as usize].on_copied(mine, is_long, self.now_ms);
        self.queue_bytes(to, &bytes[..mine]);
        self.queued(to);
        mine
    }

    /// Queues kept bytes to the other connection. Returns `false` if it has no room.
    fn forward_kept(&mut self, slot: u32) -> bool {
        let bytes = self.take_carry(slot);
        let used = self.forward_at_once(slot, &bytes);
        self.put_carry_back(slot, bytes, used);
        used > 0
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Moves the bytes that are there, as far as there is room.
    fn flush_forward(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        for _ in 0..PIPES_PER_TURN {
            let connection = &self.core.slots[slot];
            let number = self.core.slots.rare(slot).forward();
            if number == NONE || connection.rests() {
                return Ok(());
            }
            if !connection.state().hears() {
                mark!("a forwarded range is given up");
                self.core.take_forward(slot);
                return Ok(());
            }
            let forward = &self.core.forwards[number as usize];
            if forward.is_over() {
                // Told when the batch is settled.
                self.core.touch(slot);
                return Ok(());
            }
            let Some(to) = self.core.target(forward) else {
                mark!("a range is forwarded to nobody");
                self.fail_forward(slot, io::Error::from_raw_os_error(libc::EPIPE));
                return Ok(());
            };
            // Older than anything that is still in the socket.
            if self.core.kept_bytes(slot) > 0 {
                let taken = self.core.forward_kept(slot);
                self.core.set_forward_waits(slot, !taken);
                if !taken {
                    return Ok(());
                }
                continue;
            }
            if connection.fin_seen() {
                mark!("a forwarded range ends early");
                self.fail_forward(slot, io::ErrorKind::UnexpectedEof.into());
                return Ok(());
            }
            let busy =
                connection.armed() != Armed::Nothing || connection.in_flight().has(Kind::PollIn);
            let waits = self.core.slots[to].output_head() != NONE;
            let (splices, waits) = (forward.splices, forward.splices && waits);
            self.core.set_forward_waits(slot, waits);
            if !splices || busy || waits || !self.splice_forward(may, slot, to)? {
                return Ok(());
            }
        }
        mark!("a forwarded range waits for the next turn");
        self.bounds.leaves_something = true;
        self.core.touch(slot);
        Ok(())
    }

    /// Moves one pipe's worth. True: look again at once.
    fn splice_forward(&mut self, may: Submitting, slot: u32, to: u32) -> Result<bool, Full> {
        let number = self.core.slots.rare(slot).forward() as usize;
        let pipe = match self.pipes.take(&mut self.ring) {
            Ok(None) if self.reclaim_pipe() => self.pipes.take(&mut self.ring),
            pipe => pipe,
        };
        let Ok(Some(mut pipe)) = pipe else {
            mark!("no pipe for a forwarded range");
            self.core.forwards[number].copies();
            self.core.touch(slot);
            return Ok(false);
        };
        let socket = self.core.slots[slot].descriptor();
        let forward = &mut self.core.forwards[number];
        let length = forward.missing().min(SPLICE_BYTES_MAX) as u32;
        let result = self.ring.splice_from_socket(socket, pipe.pipe.write, length);
        let moved = match result {
            Ok(moved @ 1..) => moved,
            _ => {
                self.pipes.give_back(pipe, &mut self.ring);
                return self.on_no_splice(may, slot, result);
            }
        };
        assert!(moved <= length, "the kernel moved more than it was asked for");
        let long_bytes = self.core.limits.receive_buffer_bytes;
        forward.on_spliced(moved, long_bytes, self.core.now_ms);
        pipe.held_bytes = moved;
        self.bounds.note_work(moved as usize);
        self.core.counters.bytes_received += u64::from(moved);
        self.core.slots[slot].note_activity(self.core.now_ms);
        self.core.queue_pipe(to, pipe);
        self.pipe_holders.push(to);
        self.core.touch(to);
        self.flush_output(may, to)?;
        Ok(true)
    }

    /// A splice has moved nothing.
    fn on_no_splice(
        &mut self,
        may: Submitting,
        slot: u32,
        result: Result<u32, Errno>,
    ) -> Result<bool, Full> {
        let number = self.core.slots.rare(slot).forward() as usize;
        let forward = &mut self.core.forwards[number];
        match result {
            Ok(_) => self.on_fin(slot),
            Err(errno) if errno.0 == libc::EAGAIN && forward.take_polled() => {
                // A splice stops at an urgent byte, for ever; a receive skips it.
                mark!("a forward passes nothing though something is there");
                forward.copies_only();
                self.core.touch(slot);
                return Ok(false);
            }
            Err(errno) if errno.0 == libc::EAGAIN => {
                mark!("a forwarded range waits for its peer");
                let descriptor = self.core.slots[slot].descriptor();
                let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
                self.submit(may, slot, Kind::PollIn, Op::Poll { descriptor, events })?;
                return Ok(false);
            }
            Err(errno) => {
                mark!("splice of a forwarded range failed");
                self.core.fail(slot, errno);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fail_forward(&mut self, slot: u32, error: io::Error) {
        let number = self.core.slots.rare(slot).forward() as usize;
        self.core.forwards[number].failed = Some(error);
        self.core.touch(slot);
    }

    /// Calls `forwarded` for a range that is over.
    fn settle_forward(&mut self, call: Calling, slot: u32) {
        let number = self.core.slots.rare(slot).forward() as usize;
        let over = self.core.forwards.get(number).is_some_and(Forward::is_over);
        if !over || !self.core.slots[slot].state().hears() {
            return;
        }
        let forward = self.core.take_forward(slot).expect("just looked");
        if bug!("range-end-loses-pipe")
            && let Some(to) = self.core.target(&forward)
            && self.core.slots[to].output_head() != NONE
        {
            self.return_pipe(to);
        }
        // The bytes behind it are delivered after the callback.
        self.core.slots[slot].owe_delivery();
        self.application.forwarded(call, &mut self.core, slot, forward.result());
        self.core.touch(slot);
    }
}
