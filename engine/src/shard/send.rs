//! Sending: one send in flight per connection, and everything written during a batch in as few
//! sends as possible, with files in between.
//!
//! Output leaves without the ring in three cases:
//!
//! * At most two connections are on the dirty list: send(2).
//! * The output lies in several chunks: one sendmsg(2) of up to 32 chunks and 1 MiB, once per flush
//!   and at most 4 MiB per turn. The rest waits on the ring for room, or for the other connections.
//! * A file follows that leaves by sendfile(2): send(2), so that both leave in the same turn.
//!
//! After `-ENOMEM` or `-ENOBUFS` a connection backs off for 20 ms.

use super::Shard;
use super::bounds::Full;
use super::deadlines::RETRY_MS;
use super::delivery::{Progress, look_ms};
use super::family::{After, Family, Outcome, Vetoes};
use super::output::{Body, Chunk};
use super::pipes::Side;
use super::rare::Rare;
use super::slots::{Fill, NONE, Slot};
use super::state::{Event, State};
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::handler::{Deadline, Handler};
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Errno, Kind, Op, Ring};

/// Bytes of one send at most: progress is seen, and a 32-bit result holds it.
const SEND_BYTES_MAX: usize = 1 << 20;

/// The same for a send of the ring on a Unix socket: only its completion tells of progress, for the
/// kernel does not count what the peer has read.
const UNIX_SEND_BYTES_MAX: u32 = 64 << 10;

/// Chunks of one send at most.
const PIECES_MAX: usize = 32;

/// What precedes so much of a file is a segment of its own.
const LONG_BYTES: u64 = 256 << 10;

/// The family of the output queue.
pub(super) struct Output;

impl Family for Output {
    type Due = Progress;

    const ALWAYS: bool = true;

    #[inline]
    fn is_quiet(connection: &Slot) -> bool {
        !connection.is_full()
    }

    #[inline]
    fn is_record_quiet(rare: &Rare) -> bool {
        rare.notify_below() == 0
    }

    #[inline]
    fn vetoes(connection: &Slot) -> Vetoes {
        Vetoes::ALL.when(connection.output_head() != NONE)
    }

    #[inline]
    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        outcome: Outcome,
        _call: Calling,
    ) -> After {
        shard.on_send(slot, outcome.completion.result);
        if shard.is_quiet_after_send(slot) { After::Quiet } else { After::Walk }
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, call: Calling) {
        if shard.core.is_room_to_report(slot) {
            shard.report_room(call, slot);
        }
    }

    #[inline]
    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        shard.flush_output(may, slot)
    }

    #[inline]
    fn due<R: Ring, H: Handler>(
        shard: &Shard<R, H>,
        _slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        let head = connection.output_head();
        let leaves = connection.state().sends() || connection.state() == State::HalfClosedByUs;
        // A queue for a pipe is not the peer's doing: those that hold the pipes have deadlines.
        if head == NONE || !leaves || connection.waits_for_pipe() {
            return;
        }
        let own = shard.core.limits_of(connection);
        let (after_ms, deadline) = match shard.core.chunks[head as usize].body {
            Body::File(_) => (own.transfer_ms, Deadline::Transfer),
            _ => (own.write_ms, Deadline::Write),
        };
        let since_ms = connection.stalled_since_ms();
        candidate(since_ms, after_ms, Progress::Stalled(deadline));
        if after_ms.is_some() {
            let looked_ms = shard.core.slots.rare_of(connection).looked_ms();
            candidate(since_ms.max(looked_ms), Some(look_ms(after_ms)), Progress::Look);
        }
    }

    fn expired<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        due: Progress,
        call: Calling,
    ) {
        shard.on_progress_due(call, slot, due);
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        shard.drop_output(slot);
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        let (flight, state) = (connection.in_flight(), connection.state());
        let rests = shard.rests_shortly(slot);
        if state.sends() {
            let sending = [Kind::Send, Kind::Read, Kind::Splice, Kind::PollOut];
            let mut places = shard.pipe_queue.iter();
            let pipe = connection.waits_for_pipe() && places.any(|it| it.is_of(slot, Side::Out));
            if connection.output_head() == NONE {
                if !rests && (state == State::Draining || connection.shutdown_wanted()) {
                    fail("has not sent its FIN");
                }
            } else if !pipe && !rests && !sending.into_iter().any(|kind| flight.has(kind)) {
                fail("does not send what it has to");
            }
        }
        let resumes = shard.core.budget.is_resuming();
        if state.accepts_output() && shard.core.is_room_to_report(slot) && !resumes {
            fail("has room and its handler does not know");
        }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Starts the next step of the output, unless one is under way.
    pub(super) fn flush_output(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let mut tried = false;
        loop {
            let connection = &self.core.slots[slot];
            let flight = connection.in_flight();
            let busy = flight.has(Kind::Send)
                || flight.has(Kind::Read)
                || flight.has(Kind::Splice)
                || flight.has(Kind::PollOut);
            if !connection.state().sends()
                || busy
                || connection.waits_for_pipe()
                || connection.rests()
            {
                return Ok(());
            }
            let head = connection.output_head();
            if head == NONE {
                self.output_is_empty(slot);
                return Ok(());
            }
            let chunk = &self.core.chunks[head as usize];
            if matches!(chunk.body, Body::File(_) | Body::Piped(_)) {
                let goes_on = match chunk.body {
                    Body::Piped(_) => self.flush_piped(may, slot)?,
                    _ => self.flush_file(may, slot)?,
                };
                if goes_on {
                    continue;
                }
                return Ok(());
            }
            let (next, mut at_once) = (chunk.next, self.sends_at_once && !tried);
            if next != NONE {
                if self.small_file_follows(head) {
                    if self.read_behind_head(may, slot)? {
                        continue;
                    }
                    return Ok(());
                }
                let file_follows = self.sendfile_takes(next);
                if file_follows && self.sendfile_left == 0 {
                    mark!("what precedes a file waits for it");
                    self.core.touch(slot);
                    return Ok(());
                }
                let several =
                    self.gather_left > 0 && self.is_bytes(next) && !self.small_file_follows(next);
                at_once |= file_follows || (several && !tried);
            }
            if at_once && self.send_now(slot) {
                if self.is_quiet_after_send(slot) {
                    return Ok(());
                }
                let empty = self.core.slots[slot].output_head() == NONE;
                if empty || self.core.is_room_to_report(slot) {
                    // What else follows is seen to as after a completion.
                    self.core.touch(slot);
                }
                // Once: what is left waits for room, or for the others.
                tried = true;
                continue;
            }
            return self.send_head(may, slot);
        }
    }

    fn send_head(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        let chunk = &self.core.chunks[connection.output_head() as usize];
        let more = self.something_follows(chunk.next);
        let piece = self.piece(connection.output_head());
        let (address, mut length) = (piece.iov_base.cast_const().cast(), piece.iov_len as u32);
        if length > UNIX_SEND_BYTES_MAX && self.core.slots.identity(slot).is_unix() {
            length = UNIX_SEND_BYTES_MAX;
        }
        let op = Op::Send { socket: connection.descriptor(), address, length, more };
        self.bounds.note_work(length as usize);
        self.submit(may, slot, Kind::Send, op)
    }

    /// Sends without the ring. What precedes a file: so that the file follows in the same turn, and
    /// its reader is at work on the one while the other comes. What answers a small batch: a send
    /// of the ring completes at once, too, and the wait that submits it ends with nothing but that;
    /// it costs a turn more. What lies in several buffers: one call instead of a send and a turn
    /// for each. False: there is no room at once.
    #[inline(always)]
    pub(super) fn send_now(&mut self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        let (socket, head) = (connection.descriptor(), connection.output_head());
        let next = self.core.chunks[head as usize].next;
        let result = if self.gather_left > 0 && self.is_bytes(next) {
            self.send_together(slot)
        } else {
            let more = self.more_follows(next);
            self.ring.send_now(socket, &[self.piece(head)], more)
        };
        let result = match result {
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

    /// Sends the bytes of the first chunk and of those behind it. What it returns is of the last of
    /// them of which something has left; those before it are off the queue.
    fn send_together(&mut self, slot: u32) -> Result<u32, Errno> {
        mark!("several chunks leave together");
        let connection = &self.core.slots[slot];
        let (socket, mut chunk) = (connection.descriptor(), connection.output_head());
        let mut pieces = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES_MAX];
        let (mut count, mut left) = (0, SEND_BYTES_MAX);
        while count < PIECES_MAX && left > 0 && self.is_bytes(chunk) {
            // That leaves with the file.
            if count > 0 && self.small_file_follows(chunk) {
                break;
            }
            let mut piece = self.piece(chunk);
            piece.iov_len = piece.iov_len.min(left);
            left -= piece.iov_len;
            pieces[count] = piece;
            count += 1;
            chunk = self.core.chunks[chunk as usize].next;
        }
        let more = self.more_follows(chunk);
        let mut sent = self.ring.send_now(socket, &pieces[..count], more)?;
        self.gather_left = self.gather_left.saturating_sub(sent as usize);
        self.bounds.note_work(sent as usize);
        self.bounds.leaves_something = true;
        for piece in &pieces[..count] {
            let length = piece.iov_len as u32;
            if sent <= length {
                break;
            }
            self.on_send(slot, length as i32);
            sent -= length;
        }
        Ok(sent)
    }

    /// Whether there is a chunk, and it is no file's.
    #[inline]
    fn is_bytes(&self, chunk: u32) -> bool {
        chunk != NONE
            && !matches!(self.core.chunks[chunk as usize].body, Body::File(_) | Body::Piped(_))
    }

    /// Whether a partial segment before this chunk is to be held back for it.
    fn more_follows(&self, chunk: u32) -> bool {
        chunk != NONE && self.something_follows(chunk) && !self.is_late(chunk)
    }

    /// Whether a chunk is so much of a file that its reader had better be at work when it comes, or
    /// a file that has to wait for its turn.
    fn is_late(&self, chunk: u32) -> bool {
        if self.sendfile_left == 0 && self.sendfile_takes(chunk) {
            return true;
        }
        let chunk = self.core.chunks.get(chunk as usize).map(|chunk| &chunk.body);
        matches!(chunk, Some(Body::File(file)) if file.remaining >= LONG_BYTES)
    }

    /// What is left of a chunk of bytes.
    #[inline(always)]
    fn piece(&self, chunk: u32) -> libc::iovec {
        let (address, length) = match &self.core.chunks[chunk as usize].body {
            Body::Pooled { buffer, start, end } => {
                let address = self.core.send_buffers.address(buffer);
                (address.cast_const().wrapping_add(*start as usize), (end - start) as usize)
            }
            Body::Spilled { spill, start } => {
                let address = self.core.spills.address(spill).cast_const();
                (address.wrapping_add(*start as usize), (spill.length() - start) as usize)
            }
            Body::Lent { start, end } => {
                let lent = &self.receive_buffers.long()[*start as usize..*end as usize];
                (lent.as_ptr(), lent.len())
            }
            Body::Payload { payload, .. } => {
                let rest = payload.as_ref();
                (rest.as_ptr(), rest.len().min(SEND_BYTES_MAX))
            }
            Body::Piped(_) | Body::File(_) => unreachable!("pipes have their own way"),
        };
        assert!(length > 0, "an empty chunk is not queued");
        libc::iovec { iov_base: address.cast_mut().cast(), iov_len: length }
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

    #[inline(always)]
    fn on_send(&mut self, slot: u32, result: i32) {
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
                    if bug!("epipe-ends-shard") && errno == libc::EPIPE {
                        self.stop_listening();
                    }
                    self.core.fail(slot, Errno(errno));
                }
            },
        }
    }

    /// Returns whether nothing but deadlines follows from a send: most often everything has left,
    /// and there is nothing to do until something comes. Every request has such a moment.
    #[inline]
    fn is_quiet_after_send(&self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        connection.output_head() == NONE
            && !connection.shutdown_wanted()
            && (self.is_quiet(slot) || bug!("level-not-reported"))
    }

    /// Tried again at once it would fail again: the deadline goes on with it.
    pub(super) fn rest(&mut self, slot: u32) {
        self.core.slots[slot].rest();
        self.core.timers.arm(slot, self.core.now_ms + RETRY_MS);
    }

    /// Bytes have left: progress.
    pub(super) fn note_sent(&mut self, slot: u32, bytes: u32) {
        self.core.counters.bytes_sent += u64::from(bytes);
        let connection = &mut self.core.slots[slot];
        connection.note_activity(self.core.now_ms);
        connection.note_progress(self.core.now_ms);
        connection.note_unacknowledged(bytes);
        if self.core.markers.are_in_use() {
            self.core.advance_markers(slot, bytes);
        }
    }

    /// Tells the application of the markers that were reached.
    #[inline]
    pub(super) fn report_sent(&mut self, call: Calling) {
        if !self.core.markers.reached.is_empty() {
            self.report_reached(call);
        }
    }

    #[cold]
    #[inline(never)]
    fn report_reached(&mut self, call: Calling) {
        let mut reached = std::mem::take(&mut self.core.markers.reached);
        self.application.sent(call, &mut self.core, &reached);
        reached.clear();
        // The callback may have set markers where nothing is queued.
        reached.append(&mut self.core.markers.reached);
        self.core.markers.reached = reached;
    }

    /// Everything queued has left: the FIN that waited for it follows.
    pub(super) fn output_is_empty(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        let draining = connection.state() == State::Draining;
        // A file's `file_sent` comes before the end that may follow.
        if (!draining && !connection.shutdown_wanted())
            || self.core.slots.rare(slot).files_sent() > 0
        {
            return;
        }
        let socket = connection.descriptor();
        // ENOTCONN: it was reset meanwhile, which the receive side reports.
        let fin_sent = self.ring.shutdown(socket, crate::ring::Shutdown::Write).is_ok();
        let connection = &mut self.core.slots[slot];
        if connection.state() == State::HalfClosedByPeer {
            connection.give_reason(Reason::PeerFin);
        }
        connection.on(Event::OurFin);
        connection.note_progress(self.core.now_ms);
        if fin_sent {
            self.core.markers.waiting.note_fin(slot);
        }
    }

    /// Gives the memory and the pipe of the queue back.
    fn drop_output(&mut self, slot: u32) {
        if self.core.slots[slot].wait_for_pipe(false) {
            self.pipe_queue.retain(|place| !place.is_of(slot, Side::Out));
        }
        // Much memory may be unmapped.
        self.bounds.note_work(self.core.slots[slot].output_bytes() as usize);
        while self.core.slots[slot].output_head() != NONE {
            let head = self.core.slots[slot].output_head();
            match self.core.chunks[head as usize].body {
                Body::Piped(_) => {
                    self.return_pipe(slot);
                    continue;
                }
                Body::File(_) => self.return_pipe(slot),
                _ => {}
            }
            self.core.drop_head(slot);
        }
    }

    /// Calls `writable`: the queue fell below a mark, or below the level that was asked for.
    pub(super) fn report_room(&mut self, call: Calling, slot: u32) {
        let connection = &mut self.core.slots[slot];
        let bytes = connection.output_bytes();
        let low_bytes = self.core.settings.marks_of(connection.settings()).low_bytes;
        if connection.is_full() && bytes < low_bytes {
            // Bytes that were kept during the pause follow after the callback.
            if connection.state().hears() {
                connection.owe_delivery();
            }
            connection.set_fill(Fill::Free);
        }
        if let Some(rare) = self.core.slots.rare_if_any(slot)
            && bytes < rare.notify_below()
        {
            mark!("below the level that was asked for");
            rare.set_notify_below(0);
        }
        let connection = &self.core.slots[slot];
        if connection.state().accepts_output() && !connection.shutdown_wanted() {
            self.application.writable(call, &mut self.core, slot);
        }
    }
}
