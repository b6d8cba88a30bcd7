//! What is known of one connection, and what of it is in flight.

use crate::Reason;
use crate::ring::{Descriptor, Kind};
use crate::shard::rare::NONE;
use crate::shard::state::{Event, State};

/// So much of [`Slot::unasked`] is a short reply or two, which the peer has as good as certainly. A
/// short connection ends without a question.
const UNASKED_MAX: u8 = 2;

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
}

impl Mode {
    pub(super) const COUNT: usize = 4;
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

    pub fn add(&mut self, kind: Kind) {
        assert!(!self.has(kind), "a second {kind:?} in flight");
        self.0 |= Self::bit(kind);
    }

    pub fn remove(&mut self, kind: Kind) {
        assert!(self.has(kind), "a completion of a {kind:?} that is not in flight");
        self.0 &= !Self::bit(kind);
    }
}

/// One connection: what a request looks at, in one cache line. Who it is stands in its `Identity`,
/// what few need in a `Rare`.
#[repr(C, align(64))]
pub struct Slot {
    pub descriptor: Descriptor,
    /// Its record of what few need.
    pub(super) rare: u32,
    /// Last time bytes came or went, ms.
    pub active_ms: u64,
    /// Since when output makes no progress, or since when connecting, ms. While lingering: since
    /// when everything is acknowledged.
    pub stalled_since_ms: u64,
    /// Output queue: first and last chunk.
    pub output_head: u32,
    pub output_tail: u32,
    /// Bytes in the output queue, files not counted.
    pub output_bytes: u32,
    /// Kept unread bytes.
    pub carry: u32,
    /// Do not deliver fewer.
    pub need: u32,
    pub in_flight: InFlight,
    pub state: State,
    pub armed: Armed,
    pub(super) mode: Mode,
    pub reason: Option<Reason>,
    /// On the list of slots to look at when the batch is done.
    pub touched: bool,
    /// `opened` was called, so `closed` is owed.
    pub opened: bool,
    /// The number of its settings.
    pub settings: u8,
    pub pause: Pause,
    /// Kept bytes are to be delivered again.
    pub deliver_owed: bool,
    /// Set when output goes above the high-water mark, cleared when it falls below the low one.
    pub fill: Fill,
    /// `shutdown` was called: our FIN follows the last queued byte.
    pub shutdown_wanted: bool,
    /// The peer's FIN was read.
    pub fin_seen: bool,
    /// Both FINs have passed, or the peer has closed a Unix socket, says the watch; the peer's FIN
    /// may still be unread.
    pub hung_up: bool,
    /// End by RST instead of FIN.
    pub abortive: bool,
    /// shutdown(2) or abort was called on the descriptor.
    pub cut: bool,
    /// Output rests until the deadline fires: the kernel had no memory for it.
    pub rests: bool,
    /// Waits in the queue for a pipe.
    pub waits_for_pipe: bool,
    /// An upper estimate of the unacknowledged output, in units of 16 KiB and at least one for each
    /// send; it stops at 255. 0 when everything was found to be acknowledged.
    pub unasked: u8,
}

impl Slot {
    /// How it receives; changed by [`super::Slots::set_mode`].
    #[inline]
    pub fn mode(&self) -> Mode {
        self.mode
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
            && !self.deliver_owed
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
