//! Receiving files: a range of the stream goes into a file instead of to the handler.
//!
//! `Connection::create_file` makes a file without a name (`O_TMPFILE`), so that a process that dies
//! leaves nothing behind. `receive_file` directs a range of the stream into it. Bytes that receive
//! buffers have brought are written at their offset, oldest first.
//!
//! If more than `splice_from_bytes` bytes are still to come, the shard ends the multishot receive.
//! It moves exactly the remaining bytes: socket to pipe by non-blocking splice(2), pipe to file by
//! SPLICE on the ring, which may wait for the disk. A shorter remainder goes through receive
//! buffers. While nothing arrives, a poll waits and no pipe is held. A stalled upload therefore
//! costs only descriptors.
//!
//! Hazard: splice(2) does not pass an urgent byte (`MSG_OOB`), while poll(2) reports input. Such a
//! range continues through receive buffers, which skip the byte.

mod transfer;

pub use transfer::Incoming;

use super::Shard;
use super::bounds::Full;
use super::family::{After, Family, Outcome, Vetoes};
use super::file::ERESTARTSYS;
use super::pipes::Side;
use super::rare::Rare;
#[cfg(any(test, feature = "testing"))]
use super::slots::Mode;
use super::slots::{Armed, NONE, Slot};
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::files::ReceiveFileError;
use crate::handler::{Deadline, Handler};
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Kind, Op, Ring};
use std::io;

/// Bytes asked of a socket at once. A pipe has places for segments, not for bytes: it may hold
/// more than its size says.
const SPLICE_BYTES_MAX: u64 = 1 << 20;

/// The family of ranges of the stream that go into files.
pub(super) struct FilesIn;

impl Family for FilesIn {
    /// No progress for too long.
    type Due = ();

    #[inline]
    fn is_record_quiet(rare: &Rare) -> bool {
        rare.incoming() == NONE
    }

    #[inline]
    fn record_vetoes(rare: &Rare) -> Vetoes {
        Vetoes::ALL.when(rare.incoming() != NONE)
    }

    #[inline]
    fn counts_from_activity(rare: &Rare) -> bool {
        rare.incoming() == NONE
    }

    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        outcome: Outcome,
        _call: Calling,
    ) -> After {
        let result = outcome.completion.result;
        match outcome.kind {
            Kind::Write => shard.on_write(slot, result),
            Kind::SpliceToFile => shard.on_splice_to_file(slot, result),
            _ => shard.on_poll_in(slot),
        }
        After::Walk
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, call: Calling) {
        shard.settle_incoming(call, slot);
    }

    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        shard.flush_incoming(may, slot)
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
        let number = shard.core.slots.rare_of(connection).incoming() as usize;
        if let Some(incoming) = shard.core.incoming.get(number)
            && !incoming.waits_for_pipe
        {
            let transfer_ms = shard.core.limits_of(connection).transfer_ms;
            candidate(incoming.progress_ms, transfer_ms, ());
        }
    }

    fn expired<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, (): (), call: Calling) {
        shard.on_no_progress(call, slot);
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        shard.drop_incoming(slot);
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        let number = shard.core.slots.incoming(slot) as usize;
        let Some(incoming) = shard.core.incoming.get(number) else { return };
        if connection.state().is_over() {
            return;
        }
        let flight = connection.in_flight();
        let stores = flight.has(Kind::Write) || flight.has(Kind::SpliceToFile);
        let queued = shard.pipe_queue.iter().any(|place| place.is_of(slot, Side::In));
        let starved = connection.mode() == Mode::Starved;
        let comes = flight.has(Kind::PollIn) || connection.armed() != Armed::Nothing || starved;
        if incoming.waits_for_pipe != queued {
            fail("is wrong about the queue for a pipe");
        }
        if !stores && !comes && !queued && !connection.rests() {
            fail("does not go on with its file");
        }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Starts the next step of what goes into a file, unless one is under way.
    fn flush_incoming(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        loop {
            let connection = &self.core.slots[slot];
            let flight = connection.in_flight();
            let stores = flight.has(Kind::Write) || flight.has(Kind::SpliceToFile);
            let number = self.core.slots.incoming(slot);
            if number == NONE || stores || connection.rests() {
                return Ok(());
            }
            if !connection.state().hears() {
                mark!("a file is given up");
                self.drop_incoming(slot);
                return Ok(());
            }
            let incoming = &self.core.incoming[number as usize];
            if incoming.is_over() {
                // Told when the batch is settled.
                self.core.touch(slot);
                return Ok(());
            }
            if incoming.written < incoming.kept.len() {
                return self.write_kept(may, slot);
            }
            if incoming.held_bytes() > 0 {
                return self.empty_into_file(may, slot);
            }
            // Older than anything that is still in the socket.
            if self.core.kept_bytes(slot) > 0 {
                self.take_kept(slot);
                continue;
            }
            if connection.fin_seen() {
                mark!("a file ends early");
                self.fail_incoming(slot, io::ErrorKind::UnexpectedEof.into());
                continue;
            }
            let splices = self.may_splice(slot);
            let connection = &self.core.slots[slot];
            let incoming = &self.core.incoming[number as usize];
            let ignored = bug!("multishot-beside-splice") && connection.armed() != Armed::Probe;
            let waits = (connection.armed() != Armed::Nothing && !ignored)
                || flight.has(Kind::PollIn)
                || incoming.waits_for_pipe;
            if waits || !splices || !self.fill_from_socket(may, slot)? {
                return Ok(());
            }
        }
    }

    /// Whether the rest goes through a pipe; decided anew as it gets less, but not taken back.
    fn may_splice(&mut self, slot: u32) -> bool {
        let incoming = &mut self.core.incoming[self.core.slots.incoming(slot) as usize];
        let long = incoming.missing > self.core.limits.splice_from_bytes;
        incoming.splices |= long && !incoming.refuses_splice;
        incoming.splices
    }

    fn on_poll_in(&mut self, slot: u32) {
        let incoming = self.core.incoming.get_mut(self.core.slots.incoming(slot) as usize);
        if let Some(incoming) = incoming {
            incoming.polled = true;
        }
        let forward = self.core.slots.rare(slot).forward();
        if let Some(forward) = self.core.forwards.get_mut(forward as usize) {
            forward.note_poll();
        }
    }

    /// Takes what came in receive buffers.
    fn take_kept(&mut self, slot: u32) {
        let mut bytes = self.core.take_carry(slot);
        let incoming = &mut self.core.incoming[self.core.slots.incoming(slot) as usize];
        if bug!("file-swallows-the-stream") {
            incoming.missing = incoming.missing.max(bytes.len() as u64);
        }
        let mine = usize::try_from(incoming.missing).map_or(bytes.len(), |it| it.min(bytes.len()));
        let rest = bytes[mine..].to_vec();
        bytes.truncate(mine);
        incoming.missing -= mine as u64;
        let taken = bytes.capacity();
        let before = std::mem::replace(&mut incoming.kept, bytes);
        incoming.written = 0;
        self.core.charge(taken);
        self.core.discharge(before.capacity());
        self.core.spare_carry(before);
        self.may_splice(slot);
        if !rest.is_empty() {
            mark!("the stream goes on behind a file");
            self.core.keep(slot, &rest);
        }
    }

    fn write_kept(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let incoming = &self.core.incoming[self.core.slots.incoming(slot) as usize];
        let rest = &incoming.kept[incoming.written..];
        let op = Op::Write {
            file: incoming.file.descriptor(),
            address: rest.as_ptr(),
            length: u32::try_from(rest.len()).unwrap_or(u32::MAX),
            offset: incoming.offset,
            waits: incoming.file.directory().waits(),
        };
        self.submit(may, slot, Kind::Write, op)
    }

    fn on_write(&mut self, slot: u32, result: i32) {
        let incoming = &mut self.core.incoming[self.core.slots.incoming(slot) as usize];
        if result > 0 {
            incoming.written += result as usize;
            incoming.on_written(result as u32, self.core.now_ms);
        } else {
            self.on_store_error(slot, -result);
        }
    }

    fn empty_into_file(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let incoming = &self.core.incoming[self.core.slots.incoming(slot) as usize];
        let pipe = incoming.pipe.as_ref().expect("it holds bytes");
        let op = Op::SpliceToFile {
            pipe: pipe.pipe.read,
            file: incoming.file.descriptor(),
            offset: incoming.offset,
            length: pipe.held_bytes,
        };
        self.submit(may, slot, Kind::SpliceToFile, op)
    }

    fn on_splice_to_file(&mut self, slot: u32, result: i32) {
        let incoming = &mut self.core.incoming[self.core.slots.incoming(slot) as usize];
        if result > 0 {
            let pipe = incoming.pipe.as_mut().expect("it was spliced from");
            pipe.held_bytes -= result as u32;
            incoming.on_written(result as u32, self.core.now_ms);
        } else {
            self.on_store_error(slot, -result);
        }
    }

    fn on_store_error(&mut self, slot: u32, errno: i32) {
        match errno {
            libc::ECANCELED | libc::EINTR | libc::EAGAIN | ERESTARTSYS => {
                mark!("storing cut short");
            }
            libc::ENOMEM => {
                mark!("storing without memory");
                self.rest(slot);
            }
            // A write of something that writes nothing: there is no room.
            0 => self.fail_incoming(slot, io::Error::from_raw_os_error(libc::ENOSPC)),
            _ => {
                mark!("storing failed");
                self.fail_incoming(slot, io::Error::from_raw_os_error(errno));
            }
        }
    }

    fn fail_incoming(&mut self, slot: u32, error: io::Error) {
        let incoming = &mut self.core.incoming[self.core.slots.incoming(slot) as usize];
        incoming.failed = Some(error);
        self.core.touch(slot);
    }

    /// Moves what has come into a pipe. True: look again at once.
    fn fill_from_socket(&mut self, may: Submitting, slot: u32) -> Result<bool, Full> {
        let connection = &self.core.slots[slot];
        let (socket, number) = (connection.descriptor(), self.core.slots.incoming(slot) as usize);
        let incoming = &mut self.core.incoming[number];
        if incoming.pipe.is_none() {
            return Ok(self.take_pipe(slot, Side::In));
        }
        let pipe = incoming.pipe.as_mut().expect("just looked");
        let length = incoming.missing.min(SPLICE_BYTES_MAX) as u32;
        match self.ring.splice_from_socket(socket, pipe.pipe.write, length) {
            Ok(0) => {
                self.on_fin(slot);
                Ok(true)
            }
            Ok(moved) => {
                assert!(moved <= length, "the kernel moved more than it was asked for");
                pipe.held_bytes = moved;
                incoming.polled = false;
                incoming.missing -= u64::from(moved);
                incoming.progress_ms = self.core.now_ms;
                self.bounds.note_work(moved as usize);
                self.core.counters.bytes_received += u64::from(moved);
                self.core.slots[slot].note_activity(self.core.now_ms);
                Ok(true)
            }
            Err(errno) if errno.0 == libc::EAGAIN => {
                if std::mem::replace(&mut incoming.polled, false) {
                    // A splice stops at an urgent byte, for ever; a receive skips it.
                    mark!("a splice passes nothing though something is there");
                    (incoming.splices, incoming.refuses_splice) = (false, true);
                    self.return_incoming_pipe(slot);
                    return Ok(false);
                }
                mark!("a file waits for its peer");
                // Before the pipe goes: a full queue comes back here with it.
                let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
                self.submit(may, slot, Kind::PollIn, Op::Poll { descriptor: socket, events })?;
                self.return_incoming_pipe(slot);
                Ok(false)
            }
            Err(errno) => {
                mark!("splice from socket failed");
                self.core.fail(slot, errno);
                Ok(false)
            }
        }
    }

    /// What is owed to the application of a file that is there, or has failed.
    fn settle_incoming(&mut self, call: Calling, slot: u32) {
        let connection = &self.core.slots[slot];
        let (flight, number) = (connection.in_flight(), self.core.slots.incoming(slot));
        if number == NONE
            || !connection.state().hears()
            || flight.has(Kind::Write)
            || flight.has(Kind::SpliceToFile)
            || !self.core.incoming[number as usize].is_over()
        {
            return;
        }
        if bug!("unstored-counts-as-missing") {
            let incoming = &mut self.core.incoming[number as usize];
            incoming.missing += u64::from(incoming.held_bytes());
        }
        self.return_incoming_pipe(slot);
        let Incoming { file, missing, failed, waits_for_pipe, .. } = self.take_incoming(slot);
        if waits_for_pipe {
            mark!("a file is given up that waits for a pipe");
            self.pipe_queue.retain(|place| !place.is_of(slot, Side::In));
        }
        let result = match failed {
            None => Ok(file),
            Some(error) => Err(ReceiveFileError { error, missing_bytes: missing }),
        };
        // What follows it on the stream comes after the callback.
        self.core.slots[slot].owe_delivery();
        self.application.file_received(call, &mut self.core, slot, result);
        self.core.touch(slot);
    }

    /// The time for progress has passed.
    fn on_no_progress(&mut self, call: Calling, slot: u32) {
        if self.brings_more(slot) {
            mark!("a file's bytes lie in the socket");
            let incoming = self.core.slots.incoming(slot) as usize;
            self.core.incoming[incoming].progress_ms = self.core.now_ms;
        } else {
            mark!("a file comes no further");
            self.application.expired(call, &mut self.core, slot, Deadline::Transfer);
            self.core.end(slot, Reason::TransferTimeout, true);
        }
    }

    /// Returns whether the socket holds the next bytes of a file, and only a turn is missing.
    fn brings_more(&mut self, slot: u32) -> bool {
        let flight = self.core.slots[slot].in_flight();
        !flight.has(Kind::Write) && !flight.has(Kind::SpliceToFile) && self.has_unread(slot)
    }

    fn take_incoming(&mut self, slot: u32) -> Incoming {
        let number = self.core.slots.rare_mut(slot).take_incoming();
        let mut incoming = self.core.incoming.remove(number as usize);
        self.core.discharge(incoming.kept.capacity());
        self.core.spare_carry(std::mem::take(&mut incoming.kept));
        incoming
    }

    /// Gives up what no operation uses any more.
    pub(super) fn drop_incoming(&mut self, slot: u32) {
        if self.core.slots.incoming(slot) == NONE {
            return;
        }
        self.return_incoming_pipe(slot);
        if self.take_incoming(slot).waits_for_pipe {
            self.pipe_queue.retain(|place| !place.is_of(slot, Side::In));
        }
    }

    fn return_incoming_pipe(&mut self, slot: u32) {
        if self.put_incoming_pipe_back(slot) {
            self.serve_pipe_queue();
        }
    }

    pub(super) fn put_incoming_pipe_back(&mut self, slot: u32) -> bool {
        let number = self.core.slots.incoming(slot);
        let Some(incoming) = self.core.incoming.get_mut(number as usize) else { return false };
        let Some(pipe) = incoming.pipe.take() else { return false };
        self.pipes.give_back(pipe, &mut self.ring);
        true
    }
}
