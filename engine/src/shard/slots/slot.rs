//! What is known of one connection, and what of it is in flight.

use crate::Reason;
use crate::ring::{Descriptor, Kind};
use crate::shard::rare::{NONE, read};
use crate::shard::state::{Event, State};

/// So much of [`Slot::unasked`] is a short reply or two, which the peer has as good as certainly. A
/// short connection ends without a question.
const UNASKED_MAX: u8 = 2;

/// Kept bytes are to be delivered again.
const DELIVERY: u8 = 1;
/// A poll has reported input, which one recv(2) takes.
const LONG_READ: u8 = 2;

/// What is armed on the receive side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Armed {
    /// Nothing.
    Nothing,
    /// A multishot receive.
    Multishot,
    /// A one-shot receive.
    OneShot,
    /// The probe.
    Probe,
}

/// How a connection that should receive does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Multishot: for busy connections.
    Streaming,
    /// One receive, then see.
    Once,
    /// On a probe: idle, or taking turns for buffers.
    Parked,
    /// Found no buffer: in the queue for one, nothing armed.
    Starved,
    /// On a poll, and then one recv(2) into the long buffer: for long messages.
    Long,
}

impl Mode {
    pub(super) const COUNT: usize = 5;
}

/// The output queue against its high-water mark. `writable` is due in both full states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fill {
    /// Below the mark.
    Free,
    /// Above the mark, and nothing is received meanwhile.
    FullAndPaused,
    /// Above the mark, and the connection receives on.
    FullAndReading,
}

/// Why reading stops, apart from a full output queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pause {
    /// It does not stop.
    No,
    /// The application called `pause`, or waits for room for a job.
    Application,
    /// The memory budget is short in the middle of a long message. What has come is delivered.
    Budget,
}

/// Operations in flight, one bit for each place ([`Kind::place_in_slot`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight(u16);

impl InFlight {
    #[inline]
    const fn bit(kind: Kind) -> u16 {
        match kind.place_in_slot() {
            Some(place) => 1 << place,
            None => panic!("an operation of the shard belongs to no slot"),
        }
    }

    pub fn has(self, kind: Kind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn with(self, kind: Kind) -> Self {
        assert!(!self.has(kind), "a second {kind:?} in flight");
        Self(self.0 | Self::bit(kind))
    }

    #[must_use]
    fn without(self, kind: Kind) -> Self {
        assert!(self.has(kind), "a completion of a {kind:?} that is not in flight");
        Self(self.0 & !Self::bit(kind))
    }
}

/// One connection: what a request looks at, in one cache line. Who it is stands in its `Identity`,
/// what few need in a `Rare`.
///
/// The fields are private: each change has a name, and is in this file. The families call those of
/// their own, and what all of them may change: activity, progress, the state.
#[repr(C, align(64))]
pub struct Slot {
    descriptor: Descriptor,
    /// Its record of what few need.
    rare: u32,
    /// Last time bytes came or went, ms.
    active_ms: u64,
    /// Since when output makes no progress, or since when connecting, ms. While lingering: since
    /// when everything is acknowledged.
    stalled_since_ms: u64,
    /// Output queue: first and last chunk.
    output_head: u32,
    output_tail: u32,
    /// Bytes in the output queue, files not counted.
    output_bytes: u32,
    /// Kept unread bytes.
    carry: u32,
    /// Do not deliver fewer.
    need: u32,
    in_flight: InFlight,
    state: State,
    armed: Armed,
    mode: Mode,
    reason: Option<Reason>,
    /// On the list of slots to look at when the batch is done.
    touched: bool,
    /// `opened` was called, so `closed` is owed.
    opened: bool,
    /// The number of its settings.
    settings: u8,
    pause: Pause,
    /// The input that is due: [`DELIVERY`], [`LONG_READ`].
    input_due: u8,
    /// Set when output goes above the high-water mark, cleared when it falls below the low one.
    fill: Fill,
    /// `shutdown` was called: our FIN follows the last queued byte.
    shutdown_wanted: bool,
    /// The peer's FIN was read.
    fin_seen: bool,
    /// Both FINs have passed, or the peer has closed a Unix socket, says the watch; the peer's FIN
    /// may still be unread.
    hung_up: bool,
    /// End by RST instead of FIN.
    abortive: bool,
    /// shutdown(2) or abort was called on the descriptor.
    cut: bool,
    /// Output rests until the deadline fires: the kernel had no memory for it.
    rests: bool,
    /// Waits in the queue for a pipe.
    waits_for_pipe: bool,
    /// An upper estimate of the unacknowledged output, in units of 16 KiB and at least one for each
    /// send; it stops at 255. 0 when everything was found to be acknowledged.
    unasked: u8,
}

read! {
    Slot:
    descriptor: Descriptor,
    active_ms: u64,
    stalled_since_ms: u64,
    output_head: u32,
    output_tail: u32,
    output_bytes: u32,
    carry: u32,
    need: u32,
    in_flight: InFlight,
    state: State,
    armed: Armed,
    mode: Mode,
    reason: Option<Reason>,
    opened: bool,
    settings: u8,
    pause: Pause,
    shutdown_wanted: bool,
    fin_seen: bool,
    abortive: bool,
    rests: bool,
    waits_for_pipe: bool,
    unasked: u8,
}

#[cfg(any(test, feature = "testing"))]
read! {
    Slot:
    touched: bool,
    hung_up: bool,
    fill: Fill,
}

impl Slot {
    /// A connection that has just begun.
    pub(super) fn new(descriptor: Descriptor, state: State, settings: u8, now_ms: u64) -> Self {
        Self {
            descriptor,
            rare: NONE,
            active_ms: now_ms,
            stalled_since_ms: now_ms,
            output_head: NONE,
            output_tail: NONE,
            output_bytes: 0,
            carry: NONE,
            need: 0,
            in_flight: InFlight::default(),
            state,
            armed: Armed::Nothing,
            mode: Mode::Streaming,
            reason: None,
            touched: false,
            opened: false,
            settings,
            pause: Pause::No,
            input_due: 0,
            fill: Fill::Free,
            shutdown_wanted: false,
            fin_seen: false,
            hung_up: false,
            abortive: false,
            cut: false,
            rests: false,
            waits_for_pipe: false,
            unasked: 0,
        }
    }

    /// Gives it settings by their number.
    pub fn set_settings(&mut self, number: u8) {
        self.settings = number;
    }

    /// Whether it does nothing but receive and send, so that nothing of it stands elsewhere.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.rare == NONE
    }

    /// Returns whether the connection receives by multishot, and goes on with it.
    #[inline]
    pub fn streams(&self) -> bool {
        self.armed == Armed::Multishot
            && self.mode == Mode::Streaming
            && self.state == State::Open
            && self.is_plain()
            && self.pause == Pause::No
            && self.fill == Fill::Free
            && !self.fin_seen
            && self.input_due == 0
    }

    /// Returns whether no input is due: neither kept bytes nor a long read.
    #[inline]
    pub fn is_no_input_due(&self) -> bool {
        self.input_due == 0
    }

    /// Returns whether kept bytes are to be delivered again.
    #[inline]
    pub fn deliver_owed(&self) -> bool {
        self.input_due & DELIVERY != 0
    }

    /// Returns whether a file waits for room in the socket: for a poll, or for a while. Hazard: a
    /// connection also rests after a receive without memory, while its output goes on.
    #[inline]
    pub fn waits_for_room(&self) -> bool {
        let flight = self.in_flight;
        let goes_on = [Kind::Send, Kind::Read, Kind::Splice].into_iter().any(|it| flight.has(it));
        flight.has(Kind::PollOut) || (self.rests && !goes_on)
    }

    /// Returns whether the application does not want to be called with input.
    #[inline]
    pub fn is_paused(&self) -> bool {
        self.pause == Pause::Application
    }

    /// Returns whether the memory budget pauses the connection in the middle of a message.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.pause == Pause::Budget
    }

    /// Returns whether the output queue has gone above its high-water mark.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.fill != Fill::Free
    }

    /// Returns whether receiving is paused because the output queue is full.
    #[inline]
    pub fn is_full_and_paused(&self) -> bool {
        self.fill == Fill::FullAndPaused
    }

    /// Returns whether a reset has to be watched for when nothing is armed.
    #[inline]
    pub fn is_watched(&self) -> bool {
        match self.state {
            State::Open if self.hung_up => false,
            State::Open => self.mode != Mode::Starved || self.fin_seen,
            State::HalfClosedByPeer | State::Draining => true,
            // Once the peer's FIN has come, too, no reset can follow it.
            State::HalfClosedByUs => self.mode != Mode::Starved && !self.hung_up,
            _ => false,
        }
    }

    /// Whether the application and others know of it.
    pub fn is_shown(&self) -> bool {
        self.opened && !self.state.is_over()
    }

    /// Whether so much has left that it pays to ask what the peer has acknowledged.
    #[inline]
    pub fn may_be_unacknowledged(&self) -> bool {
        self.unasked > UNASKED_MAX
    }

    /// Its record of what few need; [`NONE`]: it has none.
    #[inline]
    pub(super) fn rare(&self) -> u32 {
        self.rare
    }

    pub(super) fn rare_mut(&mut self) -> &mut u32 {
        &mut self.rare
    }

    /// Changes how it receives. [`super::Slots::set_mode`] counts.
    #[inline]
    pub(super) fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Bytes came or went, or something else has shown that the connection is not idle.
    #[inline]
    pub fn note_activity(&mut self, now_ms: u64) {
        self.active_ms = now_ms;
    }

    /// Output makes progress, or a wait of another kind begins.
    #[inline]
    pub fn note_progress(&mut self, now_ms: u64) {
        self.stalled_since_ms = now_ms;
    }

    /// An operation is in flight.
    #[inline]
    pub fn began(&mut self, kind: Kind) {
        self.in_flight = self.in_flight.with(kind);
    }

    /// An operation is not in flight any more.
    #[inline]
    pub fn ended(&mut self, kind: Kind) {
        self.in_flight = self.in_flight.without(kind);
    }

    /// Puts it on the list of slots to look at; `false` if it was there.
    #[inline]
    pub fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.touched, true)
    }

    /// Takes it off that list; `false` if it was not there.
    #[inline]
    pub fn untouch(&mut self) -> bool {
        std::mem::replace(&mut self.touched, false)
    }

    /// `opened` is called now.
    pub fn note_opened(&mut self) {
        self.opened = true;
    }

    /// Returns, once, whether `closed` is owed.
    pub fn take_opened(&mut self) -> bool {
        std::mem::replace(&mut self.opened, false)
    }

    /// Gives the end its reason. The first one counts.
    pub fn give_reason(&mut self, reason: Reason) {
        self.reason.get_or_insert(reason);
    }

    /// The end is by RST, or by FIN.
    pub fn end_by_reset(&mut self, abortive: bool) {
        self.abortive = abortive;
    }

    /// Returns whether shutdown(2) or abort was called.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// shutdown(2) or abort is called now; `false` if it was before.
    pub fn cut(&mut self) -> bool {
        !std::mem::replace(&mut self.cut, true)
    }

    /// Output rests until the deadline fires.
    pub fn rest(&mut self) {
        self.rests = true;
    }

    /// Output goes on.
    pub fn end_rest(&mut self) {
        self.rests = false;
    }

    /// Enters or leaves the queue for a pipe. Returns whether it was in it.
    pub fn wait_for_pipe(&mut self, waits: bool) -> bool {
        std::mem::replace(&mut self.waits_for_pipe, waits)
    }

    /// Puts a chunk behind the output queue. Returns the chunk before it; [`NONE`]: there is none.
    #[inline]
    pub fn append_chunk(&mut self, chunk: u32, now_ms: u64) -> u32 {
        let before = std::mem::replace(&mut self.output_tail, chunk);
        if before == NONE {
            self.output_head = chunk;
            self.stalled_since_ms = now_ms;
        }
        before
    }

    /// Puts a chunk in front of a queue that is not empty.
    pub fn prepend_chunk(&mut self, chunk: u32) {
        debug_assert!(self.output_head != NONE);
        self.output_head = chunk;
    }

    /// Takes the first chunk off the queue: `next` follows.
    #[inline]
    pub fn remove_chunk(&mut self, next: u32) {
        self.output_head = next;
        if next == NONE {
            self.output_tail = NONE;
        }
    }

    /// The first chunk is the last one from now on.
    pub fn end_queue_at_head(&mut self) {
        self.output_tail = self.output_head;
    }

    /// More bytes are queued.
    #[inline]
    pub fn add_output_bytes(&mut self, bytes: u32) {
        self.output_bytes += bytes;
    }

    /// Fewer bytes are queued.
    #[inline]
    pub fn remove_output_bytes(&mut self, bytes: u32) {
        self.output_bytes -= bytes;
    }

    /// Bytes have left, and wait for their acknowledgement. More than 2 MiB at once wrap around,
    /// which several sends make up for.
    #[inline]
    pub fn note_unacknowledged(&mut self, bytes: u32) {
        self.unasked = self.unasked.saturating_add(1 + (bytes >> 14) as u8 % 128);
    }

    /// Everything was found to be acknowledged.
    pub fn note_acknowledged(&mut self) {
        self.unasked = 0;
    }

    /// Our FIN follows the last queued byte.
    pub fn want_shutdown(&mut self) {
        self.shutdown_wanted = true;
    }

    /// The output queue has gone above a mark, or below it.
    pub fn set_fill(&mut self, fill: Fill) {
        self.fill = fill;
    }

    /// Unread bytes are kept there.
    pub fn set_carry(&mut self, carry: u32) {
        self.carry = carry;
    }

    /// Takes the kept bytes out; [`NONE`]: there are none.
    #[inline]
    pub fn take_carry(&mut self) -> u32 {
        std::mem::replace(&mut self.carry, NONE)
    }

    /// No fewer bytes are delivered next.
    #[inline]
    pub fn set_need(&mut self, bytes: u32) {
        self.need = bytes;
    }

    /// That is armed on the receive side.
    #[inline]
    pub fn arm(&mut self, armed: Armed) {
        self.armed = armed;
    }

    /// Reading stops for that reason.
    pub fn pause_for(&mut self, pause: Pause) {
        self.pause = pause;
    }

    /// Reading goes on.
    pub fn end_pause(&mut self) {
        self.pause = Pause::No;
    }

    /// Kept bytes are to be delivered again.
    pub fn owe_delivery(&mut self) {
        self.input_due |= DELIVERY;
    }

    /// Kept bytes are delivered now, or never.
    #[inline]
    pub fn owe_no_delivery(&mut self) {
        self.input_due &= !DELIVERY;
    }

    /// The flush is to make a long read.
    pub fn owe_long_read(&mut self) {
        self.input_due |= LONG_READ;
    }

    /// Returns, once, whether a long read is due.
    pub fn take_long_read(&mut self) -> bool {
        let due = self.input_due & LONG_READ != 0;
        self.input_due &= !LONG_READ;
        due
    }

    /// The peer's FIN is read.
    pub fn note_fin(&mut self) {
        self.fin_seen = true;
    }

    /// The watch says that both FINs have passed, or that the peer has closed a Unix socket.
    pub fn note_hang_up(&mut self) {
        self.hung_up = true;
    }

    /// Moves the state on.
    ///
    /// # Panics
    /// If the table has no such transition: a bug in the engine.
    pub fn on(&mut self, event: Event) {
        #[cfg(any(test, feature = "testing"))]
        crate::marks::moved(self.state, event);
        match self.state.after(event) {
            Some(next) => self.state = next,
            None => panic!("{event:?} cannot happen to a connection that is {}", self.state),
        }
    }
}
