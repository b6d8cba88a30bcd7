//! Receiving: multishot for busy connections, a probe for idle and starved ones, and turns when
//! buffers are short.
//!
//! # Modes
//! * *Streaming*: a multishot receive. It holds no buffer while nothing arrives.
//! * *Parked*: the connection was idle for `park_after`. The multishot receive was cancelled, and a
//!   probe waits instead: a poll or a zero-length receive. The latter takes three times the kernel
//!   memory.
//! * *Starved*: the connection waits in a first-in, first-out queue for a receive buffer.
//! * *Once*: one receive at a time. It is used while buffers are short, and for every connection
//!   when the shard has more than `streaming_connections_max`.
//! * *Long*: a poll, and then one recv(2) of a long piece (`shard/long.rs`).
//!
//! # Short buffers
//! The shard arms as many one-shot receives in a turn as it has buffers. One that is older than a
//! turn waits for its peer and keeps nobody's turn. For [`STARVING_MS`] after the last shortage,
//! every connection reads once and returns to its probe. Neither a busy connection nor an idle one
//! then keeps a buffer from others.
//!
//! # Pauses
//! The application pauses a connection, and so does a full output queue, unless
//! `receive_while_full` is on. The multishot receive of a paused connection stays armed until a
//! receive buffer's worth of unwanted bytes has arrived. A paused connection keeps the bytes that
//! arrive before the cancel takes effect. These are at most one batch of receive buffers, in
//! addition to `message_bytes_max`. With nothing armed, a poll for `POLLERR | POLLHUP` notices a
//! reset.
//!
//! After `close`, input is discarded by recv(2) with `MSG_TRUNC`, which takes no receive buffer.

use super::Shard;
use super::bounds::{DISCARDED_BYTES_MAX, Full};
use super::deadlines::RETRY_MS;
use super::family::{After, Family, Outcome, Vetoes};
use super::rare::Rare;
use super::slots::{Armed, Mode, NONE, Pause, Slot};
use super::state::{Event, State};
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::config::IdleOperation;
use crate::handler::{Deadline, Handler};
use crate::memory::{HeldBuffer, Received};
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Completion, Errno, Kind, Op, Ring, Token};

/// The time between two looks for a reset behind a FIN, in milliseconds.
const WATCH_MS: u64 = 1_000;
/// The time for which connections still take turns after a buffer was missing, in milliseconds.
const STARVING_MS: u64 = 100;

/// A byte that is shown to a handler counts as so many that are moved.
const HANDLER_WORK: usize = 4;

/// The deadlines of the receive side.
#[derive(Clone, Copy)]
pub(super) enum Receiving {
    /// A message is incomplete for too long.
    Late,
    /// To watch for a reset behind a FIN.
    Watch,
    /// To wait on a probe from now on.
    Park,
}

/// The family of receiving.
pub(super) struct Input;

impl Family for Input {
    type Due = Receiving;

    const ALWAYS: bool = true;

    #[inline]
    fn is_quiet(connection: &Slot) -> bool {
        !connection.fin_seen() && connection.is_no_input_due()
    }

    #[inline]
    fn vetoes(connection: &Slot) -> Vetoes {
        let waits = connection.is_paused() || connection.deliver_owed();
        let begun = connection.carry() != NONE || connection.fin_seen();
        (Vetoes::FINISH | Vetoes::EVICTION).when(waits) | Vetoes::EVICTION.when(begun)
    }

    #[inline]
    fn counts_from_activity(rare: &Rare) -> bool {
        rare.receiving_since_ms() == 0 && rare.watch_ms() == 0
    }

    #[inline]
    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        outcome: Outcome,
        call: Calling,
    ) -> After {
        let result = outcome.completion.result;
        match outcome.kind {
            Kind::Receive => shard.on_receive(call, slot, outcome.completion, outcome.buffer),
            Kind::Probe => shard.on_probe(slot, result),
            Kind::Hangup => shard.on_hangup(slot, result),
            // The receive ends as well, and says so.
            _ => debug_assert_eq!(outcome.kind, Kind::CancelReceive),
        }
        After::Walk
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, call: Calling) {
        if shard.core.slots[slot].take_long_read() {
            shard.read_long(call, slot);
        }
        shard.settle_input(call, slot);
    }

    #[inline]
    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        shard.flush_receive(may, slot)
    }

    #[inline]
    fn due<R: Ring, H: Handler>(
        shard: &Shard<R, H>,
        _slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        if !connection.state().hears() && connection.state() != State::Draining {
            return;
        }
        if !connection.is_plain() {
            let rare = shard.core.slots.rare_of(connection);
            if rare.receiving_since_ms() != 0 {
                let receive_ms = shard.core.limits_of(connection).receive_ms;
                candidate(rare.receiving_since_ms(), receive_ms, Receiving::Late);
            }
            if rare.watch_ms() != 0 {
                candidate(rare.watch_ms(), Some(0), Receiving::Watch);
            }
        }
        let parks = match connection.armed() {
            Armed::Multishot => connection.mode() == Mode::Streaming,
            Armed::Probe => connection.mode() == Mode::Long,
            Armed::Nothing | Armed::OneShot => false,
        };
        if parks {
            let park_after_ms = shard.core.limits.park_after_ms;
            candidate(connection.active_ms(), Some(park_after_ms), Receiving::Park);
        }
    }

    fn expired<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        due: Receiving,
        call: Calling,
    ) {
        match due {
            Receiving::Late => shard.on_late_message(call, slot),
            Receiving::Watch => shard.core.slots.rare_mut(slot).set_watch(0),
            Receiving::Park => {
                shard.core.counters.parked += 1;
                shard.core.slots.set_mode(slot, Mode::Parked);
            }
        }
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        shard.core.drop_carry(slot);
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        let rare = shard.core.slots.rare(slot);
        let (flight, state) = (connection.in_flight(), connection.state());
        let files = rare.incoming() != NONE || rare.forward() != NONE;
        let starved = shard.is_in_starved_queue(slot);
        let heard = !connection.is_paused() && !connection.is_full_and_paused() && !files;
        let reads = !connection.fin_seen() && ((state.receives() && heard) || state.discards());
        // The turn of a held connection comes.
        let reads = reads && (!connection.is_held() || files);
        if reads && connection.armed() == Armed::Nothing && !starved && !connection.rests() {
            fail("does not read");
        }
        if state.receives() && heard && (connection.deliver_owed() || connection.fin_seen()) {
            fail("owes its handler bytes or a FIN");
        }
        // What rests is looked at again soon. A FIN that was reported has its deadline.
        let watched = connection.is_watched() && !(files && connection.rests());
        let watched = watched && rare.watch_ms() == 0;
        if watched && connection.armed() == Armed::Nothing && !flight.has(Kind::Hangup) && !reads {
            fail("would not hear of a reset");
        }
        // With nothing left to read, the peer of a Unix socket is gone.
        let asks_twice = state != State::Open && shard.core.slots.identity(slot).is_unix();
        if connection.hung_up() && flight.has(Kind::Hangup) && !asks_twice {
            fail("asks again for what it was told");
        }
        let parked = connection.mode() == Mode::Parked && state == State::Open;
        let cancels = flight.has(Kind::CancelReceive);
        if parked && connection.armed() == Armed::Multishot && !cancels && reads {
            fail("is parked and keeps its multishot receive");
        }
        let keeps = shard.core.kept_bytes(slot) >= shard.core.limits.receive_buffer_bytes;
        let stops = connection.armed() != Armed::Multishot || cancels;
        let keeps = keeps && (!files || shard.stops_for_range(slot));
        if keeps && !reads && !stops && !state.is_over() {
            fail("goes on reading what nobody wants");
        }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Makes what is armed what is wanted.
    #[inline(always)]
    fn flush_receive(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        // So it is with almost every request.
        if connection.streams() {
            return Ok(());
        }
        let socket = connection.descriptor();
        let wanted = self.wanted(slot);
        let kind = match (connection.armed(), wanted) {
            (Armed::Nothing, Armed::Nothing) => return self.watch(may, slot),
            (Armed::Nothing, _) if connection.rests() => return Ok(()),
            (Armed::Nothing, Armed::Probe) => Kind::Probe,
            (Armed::Nothing, Armed::Multishot | Armed::OneShot) => Kind::Receive,
            (Armed::Multishot, Armed::Multishot) => return Ok(()),
            (Armed::Multishot, _) => return self.stop_multishot(may, slot, wanted),
            // One receive or one probe is not worth a cancel: it ends by itself.
            (Armed::OneShot | Armed::Probe, _) => return Ok(()),
        };
        let op = match wanted {
            Armed::Probe if self.core.slots[slot].mode() == Mode::Long => {
                Op::Poll { descriptor: socket, events: (libc::POLLIN | libc::POLLRDHUP) as u32 }
            }
            Armed::Probe => match self.core.limits.idle_operation {
                IdleOperation::Receive => Op::Probe { socket },
                IdleOperation::Poll => {
                    Op::Poll { descriptor: socket, events: (libc::POLLIN | libc::POLLRDHUP) as u32 }
                }
            },
            _ => Op::Receive { socket, multishot: wanted == Armed::Multishot },
        };
        self.submit(may, slot, kind, op)?;
        self.core.slots[slot].arm(wanted);
        self.once_armed += usize::from(wanted == Armed::OneShot);
        Ok(())
    }

    /// Cancels a multishot receive if it would bring too much of what nobody wants yet.
    #[inline(never)]
    fn stop_multishot(&mut self, may: Submitting, slot: u32, wanted: Armed) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        let stops = match wanted {
            Armed::Multishot => unreachable!("it goes on"),
            Armed::OneShot => self.core.budget.is_wary(),
            Armed::Nothing => self.must_stop(slot),
            Armed::Probe => !connection.state().discards() || self.must_stop(slot),
        };
        if !stops {
            return Ok(());
        }
        if self.core.budget.is_wary() && connection.mode() == Mode::Streaming {
            // From here on no batch comes beyond what is wanted.
            self.core.slots.set_mode(slot, Mode::Once);
        }
        self.cancel_receive(may, slot)
    }

    /// The one place that decides what should be armed.
    #[inline(always)]
    pub(super) fn wanted(&self, slot: u32) -> Armed {
        let connection = &self.core.slots[slot];
        let reads = match connection.state() {
            State::Open | State::HalfClosedByUs if self.core.slots.takes_a_range(connection) => {
                !connection.fin_seen() && !self.stops_for_range(slot)
            }
            State::Open | State::HalfClosedByUs => {
                // What is kept is shown first: whoever pauses again and again would keep ever more.
                let much_kept = connection.deliver_owed()
                    && self.core.kept_bytes(slot) >= self.core.limits.receive_buffer_bytes;
                connection.pause() == Pause::No
                    && !connection.is_full_and_paused()
                    && !connection.fin_seen()
                    && !much_kept
            }
            State::Draining | State::Lingering if connection.fin_seen() => false,
            // Discarded input takes no buffer from the connections that wait for one.
            State::Draining | State::Lingering => return Armed::Probe,
            _ => false,
        };
        match connection.mode() {
            _ if !reads => Armed::Nothing,
            Mode::Streaming => Armed::Multishot,
            Mode::Once => Armed::OneShot,
            Mode::Parked | Mode::Long => Armed::Probe,
            Mode::Starved => Armed::Nothing,
        }
    }

    /// Returns whether a range that passes the handler stops receiving: it goes through a pipe, or
    /// it comes faster than it is passed on.
    pub(super) fn stops_for_range(&self, slot: u32) -> bool {
        let (kept, rare) = (self.core.kept_bytes(slot), self.core.slots.rare(slot));
        if let Some(forward) = self.core.forwards.get(rare.forward() as usize) {
            return forward.splices || kept >= self.core.limits.receive_buffer_bytes;
        }
        let incoming = &self.core.incoming[rare.incoming() as usize];
        (incoming.splices() && !bug!("multishot-beside-splice"))
            || kept >= self.core.limits_of(&self.core.slots[slot]).message_bytes_max
    }

    /// A paused connection's multishot goes on until it has brought a buffer's worth that nobody
    /// wants yet: most pauses are over before anything comes, and a cancel costs as much as a
    /// receive.
    fn must_stop(&self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        if connection.state().discards() {
            // One that has brought nothing so far may bring the FIN.
            return self.core.slots.rare(slot).discards();
        }
        if self.core.slots.takes_a_range(connection) {
            return !connection.state().is_over() && self.stops_for_range(slot);
        }
        !connection.state().is_over()
            && self.core.kept_bytes(slot) >= self.core.limits.kept_while_paused_bytes
    }

    /// With nothing armed a reset would go unnoticed: a poll for errors and hang-up sees it.
    #[inline(never)]
    fn watch(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        let rests = self.core.slots.rare(slot).watch_ms() != 0 && !bug!("fin-spins");
        if !connection.is_watched() || rests || connection.in_flight().has(Kind::Hangup) {
            return Ok(());
        }
        let op = Op::Poll { descriptor: connection.descriptor(), events: 0 };
        self.submit(may, slot, Kind::Hangup, op)
    }

    fn cancel_receive(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        if connection.in_flight().has(Kind::CancelReceive) {
            return Ok(());
        }
        let target = Token::new(Kind::Receive, self.core.slots.generation(slot), slot);
        self.submit(may, slot, Kind::CancelReceive, Op::Cancel { target })
    }

    fn on_receive(
        &mut self,
        call: Calling,
        slot: u32,
        completion: Completion,
        buffer: Option<HeldBuffer>,
    ) {
        let was = self.core.slots[slot].armed();
        if !completion.more() {
            self.core.slots[slot].arm(Armed::Nothing);
            self.once_armed = self.once_armed.saturating_sub(usize::from(was == Armed::OneShot));
        }
        // The result first, the end of the multishot second: its last completion may carry data.
        match (completion.result, buffer) {
            (length @ 1.., Some(buffer)) => {
                self.on_bytes(call, slot, Received::Provided(&buffer), length as usize);
                self.receive_buffers.give_back(buffer, &mut self.ring);
                let full = length as usize == self.core.limits.receive_buffer_bytes;
                if full && was == Armed::Multishot {
                    self.note_full_buffer(slot);
                }
                if was == Armed::OneShot {
                    self.after_once(slot, completion.nonempty());
                }
            }
            (0, buffer) => {
                if buffer.is_some() {
                    mark!("end of input with a buffer");
                }
                self.give_back(buffer);
                self.on_fin(slot);
            }
            (result, buffer) => {
                if buffer.is_some() {
                    mark!("receive error with a buffer");
                }
                self.give_back(buffer);
                self.on_receive_error(slot, -result);
            }
        }
    }

    #[inline(never)]
    pub(super) fn on_receive_error(&mut self, slot: u32, errno: i32) {
        match errno {
            libc::ENOBUFS => {
                mark!("receive without a buffer");
                self.core.counters.starved += 1;
                if !self.is_starving() {
                    report!(out_of_buffers(self.core.shard, self.core.id(slot)));
                }
                if bug!("enobufs-ends") {
                    self.core.end(slot, Reason::NetworkError, false);
                }
                self.starving_until_ms = self.core.now_ms + STARVING_MS;
                // Whoever has nothing to read must not queue: the receive it got when its turn
                // came would wait, and keep the turn of those that have. A long read takes none.
                if self.core.slots[slot].mode() != Mode::Long {
                    self.core.slots.set_mode(slot, Mode::Parked);
                }
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                mark!("receive cut short");
                if self.core.slots[slot].mode() == Mode::Once {
                    self.core.slots.set_mode(slot, Mode::Parked);
                }
            }
            libc::ENOMEM => {
                mark!("receive without memory");
                self.core.slots.set_mode(slot, Mode::Parked);
                self.rest(slot);
            }
            _ => {
                mark!("receive failed");
                self.core.fail(slot, Errno(errno));
            }
        }
    }

    /// Something is there to read (or the probe was cut short): look.
    fn on_probe(&mut self, slot: u32, result: i32) {
        self.core.slots[slot].arm(Armed::Nothing);
        if bug!("probe-is-eof") && result == 0 {
            return self.on_fin(slot);
        }
        match -result {
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                mark!("probe cut short");
            }
            libc::ENOMEM | libc::ENOBUFS => {
                mark!("probe without memory");
                self.rest(slot);
            }
            errno @ 1.. => {
                mark!("probe failed");
                self.core.fail(slot, Errno(errno));
            }
            _ if self.core.slots[slot].state().discards() => self.discard(slot),
            _ if self.core.slots[slot].mode() == Mode::Long => {
                self.core.slots[slot].owe_long_read();
            }
            _ if self.is_starving() => {
                mark!("queues for a buffer");
                self.starve(slot);
            }
            _ => self.core.slots.set_mode(slot, self.reading_mode()),
        }
    }

    fn on_hangup(&mut self, slot: u32, result: i32) {
        if result < 0 || self.core.slots[slot].state().is_over() {
            mark!("hang-up of no interest");
            return;
        }
        // After our FIN a hang-up alone says no more than that the peer's has come, perhaps with
        // bytes before it that are still to be read.
        let state = self.core.slots[slot].state();
        let sent_fin = matches!(state, State::HalfClosedByUs | State::Lingering);
        let reads_on = sent_fin || self.outlasts_peer(slot);
        let connection = &mut self.core.slots[slot];
        let (error, hung_up) = (libc::POLLERR as u32, libc::POLLHUP as u32);
        if result as u32 & error != 0 || (result as u32 & hung_up != 0 && !reads_on) {
            mark!("hang-up");
            self.core.end(slot, Reason::PeerReset, false);
        } else if result as u32 & hung_up != 0 {
            mark!("hang-up with something to read");
            connection.note_hang_up();
        } else {
            // Hazard: io_uring reports a FIN (POLLRDHUP) whatever was asked for, and would do so
            // again at once. A reset may still follow it.
            mark!("a FIN wakes the watch");
            self.core.slots.rare_mut(slot).set_watch(self.core.now_ms + WATCH_MS);
        }
    }

    /// Returns whether bytes of the peer of a Unix socket are still to be shown. When the peer
    /// closes, our end hangs up at once, and the bytes can still be read.
    fn outlasts_peer(&mut self, slot: u32) -> bool {
        let connection = &self.core.slots[slot];
        self.core.slots.identity(slot).is_unix()
            && connection.state() == State::Open
            && (connection.carry() != NONE
                || self.core.slots.takes_a_range(connection)
                || self.unread_bytes(slot) > 0)
    }

    /// After a one-shot receive: read on, wait for more, or take turns.
    fn after_once(&mut self, slot: u32, nonempty: bool) {
        if self.is_starving() && nonempty {
            return self.starve(slot);
        }
        let streaming = !self.is_starving() && self.reading_mode() == Mode::Streaming;
        let mode = match (streaming, nonempty) {
            (true, _) => Mode::Streaming,
            (false, true) => Mode::Once,
            (false, false) => Mode::Parked,
        };
        self.core.slots.set_mode(slot, mode);
    }

    /// The mode of a connection that has something to read.
    pub(super) fn reading_mode(&self) -> Mode {
        let many = self.slots().len() > self.core.limits.streaming_connections_max;
        if many { Mode::Once } else { Mode::Streaming }
    }

    fn is_starving(&self) -> bool {
        !self.starved.is_empty() || self.core.now_ms < self.starving_until_ms
    }

    fn starve(&mut self, slot: u32) {
        self.core.slots.set_mode(slot, Mode::Starved);
        self.starved.push_back((slot, self.core.slots.generation(slot)));
    }

    /// Lets those that wait for a buffer read in turn, no more at a time than there are buffers.
    pub(super) fn feed_starved(&mut self) {
        let mut quota = usize::from(self.receive_buffers.free()).saturating_sub(self.once_armed);
        while quota > 0 {
            let Some((slot, generation)) = self.starved.pop_front() else { return };
            let waits = self.core.slots.of_life(slot, generation);
            let waits = waits.is_some_and(|found| found.mode() == Mode::Starved);
            if waits {
                self.core.slots.set_mode(slot, Mode::Once);
                self.core.touch(slot);
                quota -= 1;
            }
        }
    }

    #[inline(always)]
    pub(super) fn on_bytes(
        &mut self,
        call: Calling,
        slot: u32,
        place: Received<'_>,
        length: usize,
    ) {
        let now_ms = self.core.now_ms;
        self.core.counters.bytes_received += length as u64;
        let connection = &mut self.core.slots[slot];
        connection.note_activity(now_ms);
        if connection.state().discards() {
            self.core.slots.rare_mut(slot).note_discarded();
            return;
        }
        if !connection.state().receives() {
            return;
        }
        let connection = &self.core.slots[slot];
        let waits = connection.is_paused()
            || connection.is_full_and_paused()
            || connection.deliver_owed()
            || self.core.slots.takes_a_range(connection);
        let bytes = self.receive_buffers.bytes(place, length);
        if waits || connection.carry() != NONE {
            let at_once = connection.carry() == NONE && self.core.slots.takes_a_range(connection);
            let used = if at_once { self.core.forward_at_once(slot, bytes) } else { 0 };
            if used < length {
                self.core.keep(slot, &bytes[used..]);
            }
            if !waits {
                self.deliver_kept(call, slot);
            }
            return;
        }
        if length < connection.need() as usize {
            self.core.keep(slot, bytes);
            self.note_message(slot, false);
            return;
        }
        self.core.slots[slot].set_need(0);
        let used = self.application.received(call, &mut self.core, &mut self.ring, slot, bytes);
        if used < length && !self.core.slots[slot].state().is_over() {
            self.core.keep(slot, &bytes[used..]);
        }
        self.note_message(slot, used > 0);
    }

    /// Shows the kept bytes to the application, once.
    #[inline(never)]
    fn deliver_kept(&mut self, call: Calling, slot: u32) {
        self.core.slots[slot].owe_no_delivery();
        let kept = self.core.kept_bytes(slot);
        if kept == 0 || kept < self.core.slots[slot].need() as usize {
            return self.note_message(slot, false);
        }
        self.core.slots[slot].set_need(0);
        let bytes = self.core.take_carry(slot);
        // Much of it at once is shown in a flush, where the handler's time counts as well.
        self.bounds.note_work(HANDLER_WORK * kept);
        let used = self.application.received(call, &mut self.core, &mut self.ring, slot, &bytes);
        self.core.put_carry_back(slot, bytes, used);
        self.note_message(slot, used > 0);
    }

    /// After a delivery: the deadline and the bound of a message that is not complete.
    #[inline(always)]
    fn note_message(&mut self, slot: u32, progressed: bool) {
        let kept = self.core.kept_bytes(slot);
        let connection = &self.core.slots[slot];
        if !connection.state().hears() {
            return self.core.drop_carry(slot);
        }
        let takes_a_range = self.core.slots.takes_a_range(connection);
        let waits = connection.is_paused() || connection.is_full_and_paused() || takes_a_range;
        if kept == 0 || waits {
            return self.core.forget_message(slot);
        }
        self.note_incomplete(slot, kept, progressed);
    }

    #[inline(never)]
    fn note_incomplete(&mut self, slot: u32, kept: usize, progressed: bool) {
        let now_ms = self.core.now_ms;
        let rare = self.core.slots.rare_mut(slot);
        if progressed || rare.receiving_since_ms() == 0 {
            rare.begin_message(now_ms);
        }
        let connection = &self.core.slots[slot];
        let is_long = kept > self.core.limits_of(connection).message_bytes_max;
        if is_long && !connection.deliver_owed() {
            self.core.end(slot, Reason::MessageTooLong, false);
        } else if self.core.budget.is_tight() {
            self.core.hold_if_long(slot);
        }
    }

    pub(super) fn on_fin(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        // A file that was cut short may have taken the error of a reset with it.
        if connection.output_head() != NONE && self.ring.is_reset(connection.descriptor()) {
            mark!("a reset that looks like a FIN");
            return self.core.end(slot, Reason::PeerReset, false);
        }
        self.core.slots[slot].note_fin();
    }

    /// The time for a message has passed.
    fn on_late_message(&mut self, call: Calling, slot: u32) {
        if self.has_unread(slot) {
            mark!("a message whose bytes are there is not late");
            let own = self.core.limits_of(&self.core.slots[slot]);
            let receive_ms = own.receive_ms.unwrap_or(0);
            let since_ms = (self.core.now_ms + RETRY_MS).saturating_sub(receive_ms).max(1);
            self.core.slots.rare_mut(slot).begin_message(since_ms);
            return;
        }
        self.application.expired(call, &mut self.core, slot, Deadline::Receive);
        self.core.close(slot, Reason::ReceiveTimeout);
    }

    /// Throws away what has come after `close`, without a buffer.
    fn discard(&mut self, slot: u32) {
        let socket = self.core.slots[slot].descriptor();
        match self.ring.discard(socket, DISCARDED_BYTES_MAX) {
            Ok(0) => self.on_fin(slot),
            Ok(bytes) => {
                mark!("discarded without a buffer");
                self.core.counters.bytes_received += u64::from(bytes);
                self.core.slots[slot].note_activity(self.core.now_ms);
                self.core.slots.rare_mut(slot).note_discarded();
            }
            Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
            Err(errno) => self.core.fail(slot, errno),
        }
    }

    /// Callbacks owed on the input side: kept bytes, then the peer's FIN.
    fn settle_input(&mut self, call: Calling, slot: u32) {
        let connection = &self.core.slots[slot];
        let takes_a_range = self.core.slots.takes_a_range(connection);
        let waits = connection.is_paused() || connection.is_full_and_paused() || takes_a_range;
        if !connection.state().hears() || !connection.opened() || waits {
            return;
        }
        if connection.deliver_owed() {
            self.deliver_kept(call, slot);
        }
        let connection = &self.core.slots[slot];
        let waits = connection.is_paused()
            || connection.is_full_and_paused()
            || connection.deliver_owed()
            || self.core.slots.takes_a_range(connection);
        if !connection.fin_seen() || waits || !connection.state().receives() {
            return;
        }
        self.core.forget_message(slot);
        let connection = &mut self.core.slots[slot];
        connection.on(Event::PeerFin);
        let answers_ours = connection.state() == State::Lingering;
        if !answers_ours || !bug!("answering-fin-untold") {
            self.application.half_closed(call, &mut self.core, slot);
        }
        if answers_ours {
            self.core.slots[slot].give_reason(Reason::PeerFin);
        }
        self.core.touch(slot);
    }
}
