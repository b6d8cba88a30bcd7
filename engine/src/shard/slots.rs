//! Connections in a slab: state, generation, operations in flight.

use super::state::{Event, State};
use crate::Reason;
use crate::admission::Cell;
use crate::handler::Origin;
use crate::ring::{Descriptor, Kind};
use slab::Slab;
use std::fmt;
use std::net::SocketAddr;

/// "None" for the 32-bit indices stored in a slot.
pub const NONE: u32 = u32::MAX;

/// Slots of one shard at most: a slot number has 20 bits in a [`ConnectionId`].
pub const SLOTS_MAX: usize = 1 << 20;

/// A generation has 36 bits in a [`ConnectionId`]; a slot that has used them up is retired.
const GENERATION_MAX: u64 = (1 << 36) - 1;

/// Names a connection for as long as the process lives; never used for another one.
///
/// Bits: 56..64 shard, 36..56 slot, 0..36 generation of the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) fn new(shard: usize, slot: u32, generation: u64) -> Self {
        debug_assert!(shard < 256 && (slot as usize) < SLOTS_MAX && generation <= GENERATION_MAX);
        Self((shard as u64) << 56 | u64::from(slot) << 36 | generation)
    }

    pub(crate) fn shard(self) -> usize {
        (self.0 >> 56) as usize
    }

    pub(crate) fn slot(self) -> u32 {
        (self.0 >> 36) as u32 & (SLOTS_MAX as u32 - 1)
    }

    pub(crate) fn generation(self) -> u64 {
        self.0 & GENERATION_MAX
    }

    /// As a number, for logs and for [`ConnectionId::from_number`].
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// Back from [`ConnectionId::get`]. A number that names no connection is harmless.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.shard(), self.slot(), self.generation())
    }
}

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
    const COUNT: usize = 4;
}

/// Operations in flight, one bit per family; a family has at most one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight(u16);

impl InFlight {
    fn bit(kind: Kind) -> u16 {
        match kind {
            Kind::Receive | Kind::Probe => 1 << 0,
            Kind::Hangup => 1 << 1,
            Kind::Send => 1 << 2,
            Kind::PollOut => 1 << 3,
            Kind::Read => 1 << 4,
            Kind::Splice => 1 << 5,
            Kind::Open => 1 << 6,
            Kind::Connect => 1 << 7,
            Kind::Close => 1 << 8,
            Kind::CancelReceive => 1 << 9,
            Kind::CancelConnect => 1 << 10,
            Kind::Write => 1 << 11,
            Kind::SpliceToFile => 1 << 12,
            Kind::PollIn => 1 << 13,
            Kind::Publish => 1 << 14,
            Kind::Accept | Kind::CloseFile | Kind::CancelAccept | Kind::Wake | Kind::CancelWake => {
                unreachable!("{kind:?} belongs to no slot")
            }
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

/// One connection.
pub struct Slot {
    pub descriptor: Descriptor,
    pub state: State,
    pub armed: Armed,
    mode: Mode,
    pub reason: Option<Reason>,
    pub in_flight: InFlight,
    /// On the list of slots to look at when the batch is done.
    pub touched: bool,
    /// `opened` was called, so `closed` is owed.
    pub opened: bool,
    /// `draining` was called.
    pub told_of_drain: bool,
    /// The application called `pause`.
    pub paused: bool,
    /// It is paused because a job of it was not taken, until there is room.
    pub paused_for_jobs: bool,
    /// Waits for a place in the queue of jobs.
    pub waits_for_workers: bool,
    /// Kept bytes are to be delivered again.
    pub deliver_owed: bool,
    /// Output went above the high-water mark; `writable` is owed when it falls below the low.
    pub output_full: bool,
    /// `shutdown` was called: our FIN follows the last queued byte.
    pub shutdown_wanted: bool,
    /// The peer's FIN was read.
    pub fin_seen: bool,
    /// Both FINs have passed, says the watch; the peer's may still be unread.
    pub hung_up: bool,
    /// End by RST instead of FIN.
    pub abortive: bool,
    /// shutdown(2) or abort was called on the descriptor.
    pub cut: bool,
    /// Output rests until the deadline fires: the kernel had no memory for it.
    pub rests: bool,
    /// Waits in the queue for a pipe.
    pub waits_for_pipe: bool,
    /// Files sent whose `file_sent` is owed.
    pub files_sent: u16,
    /// Bytes acknowledged, modulo 2^32, at the last look of the write deadline.
    pub acknowledged: u32,
    /// Bytes of the send in flight.
    pub sending: u32,
    /// Output queue: first and last chunk.
    pub output_head: u32,
    pub output_tail: u32,
    /// Bytes in the output queue, files not counted.
    pub output_bytes: u32,
    /// Kept unread bytes.
    pub carry: u32,
    /// Do not deliver fewer.
    pub need: u32,
    /// An open under way.
    pub open: u32,
    /// Its jobs under way.
    pub jobs: u32,
    /// A range of the stream on its way into a file.
    pub incoming: u32,
    /// A file on its way to its name.
    pub naming: u32,
    /// Input thrown away while draining and lingering.
    pub discarded: u32,
    pub origin: Origin,
    pub generation: u64,
    /// Last time bytes came or went, ms.
    pub active_ms: u64,
    /// Since when a message is incomplete, ms; 0: none is.
    pub receiving_since_ms: u64,
    /// Since when output makes no progress, or since when lingering or connecting, ms.
    pub stalled_since_ms: u64,
    /// The application's timer, ms; 0: none.
    pub timer_ms: u64,
    /// When it was opened, ms.
    pub opened_ms: u64,
    /// Where it is counted by its address.
    pub cell: Cell,
    /// Ends by itself once it has been quiet for so long, ms; `NONE`: does not.
    pub finish_ms: u32,
    pub peer: SocketAddr,
}

impl Slot {
    /// How it receives; changed by [`Slots::set_mode`].
    #[inline]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the application and others know of it.
    pub fn is_shown(&self) -> bool {
        self.opened && !self.state.is_over()
    }

    /// Moves the state on.
    ///
    /// # Panics
    /// If the table has no such transition: a bug in the engine.
    pub fn on(&mut self, event: Event) {
        #[cfg(test)]
        crate::marks::moved(self.state, event);
        match self.state.after(event) {
            Some(next) => self.state = next,
            None => panic!("{event:?} cannot happen to a connection that is {}", self.state),
        }
    }
}

/// The slots of a shard.
pub struct Slots {
    slots: Slab<Slot>,
    /// Generation of each slot's next life (or of its present one).
    generations: Vec<u64>,
    retired: usize,
    /// Connections by mode.
    modes: [usize; Mode::COUNT],
}

impl Slots {
    /// Room for `capacity` connections without growing; the memory is touched only when used.
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: Slab::with_capacity(capacity),
            generations: Vec::with_capacity(capacity),
            retired: 0,
            modes: [0; Mode::COUNT],
        }
    }

    /// A slot for a descriptor.
    pub fn insert(
        &mut self,
        descriptor: Descriptor,
        state: State,
        origin: Origin,
        peer: SocketAddr,
        now_ms: u64,
    ) -> u32 {
        let key = self.slots.vacant_key();
        assert!(key < SLOTS_MAX, "admission keeps the number of connections below {SLOTS_MAX}");
        if key == self.generations.len() {
            self.generations.push(0);
        }
        let generation = self.generations[key];
        self.modes[Mode::Streaming as usize] += 1;
        self.slots.insert(Slot {
            descriptor,
            state,
            armed: Armed::Nothing,
            mode: Mode::Streaming,
            reason: None,
            in_flight: InFlight::default(),
            touched: false,
            opened: false,
            told_of_drain: false,
            paused: false,
            paused_for_jobs: false,
            waits_for_workers: false,
            deliver_owed: false,
            output_full: false,
            shutdown_wanted: false,
            fin_seen: false,
            hung_up: false,
            abortive: false,
            cut: false,
            rests: false,
            waits_for_pipe: false,
            files_sent: 0,
            acknowledged: 0,
            sending: 0,
            output_head: NONE,
            output_tail: NONE,
            output_bytes: 0,
            carry: NONE,
            need: 0,
            open: NONE,
            jobs: NONE,
            incoming: NONE,
            naming: NONE,
            discarded: 0,
            origin,
            generation,
            active_ms: now_ms,
            receiving_since_ms: 0,
            stalled_since_ms: now_ms,
            timer_ms: 0,
            opened_ms: now_ms,
            cell: Cell::NONE,
            finish_ms: NONE,
            peer,
        }) as u32
    }

    /// Frees a slot; its next life has the next generation.
    pub fn remove(&mut self, slot: u32) {
        let key = slot as usize;
        self.modes[self.slots[key].mode as usize] -= 1;
        if self.generations[key] == GENERATION_MAX {
            // Kept for good: a further life would repeat an id.
            self.retired += 1;
            return;
        }
        let gone = self.slots.remove(key);
        assert!(gone.in_flight.is_empty(), "a slot is freed with nothing in flight");
        assert!(gone.output_head == NONE && gone.carry == NONE && gone.open == NONE);
        assert!(gone.jobs == NONE && !gone.waits_for_workers);
        assert!(gone.incoming == NONE && gone.naming == NONE);
        self.generations[key] += 1;
    }

    /// The connection an id names, if it is still there.
    pub fn find(&self, id: ConnectionId) -> Option<u32> {
        let slot = id.slot();
        let found = self.slots.get(slot as usize)?;
        (found.generation == id.generation() && found.is_shown()).then_some(slot)
    }

    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    /// Changes how a connection receives.
    #[inline]
    pub fn set_mode(&mut self, slot: u32, mode: Mode) {
        let slot = &mut self.slots[slot as usize];
        self.modes[slot.mode as usize] -= 1;
        self.modes[mode as usize] += 1;
        slot.mode = mode;
    }

    /// Connections that receive like that.
    pub fn in_mode(&self, mode: Mode) -> usize {
        self.modes[mode as usize]
    }

    /// Connections there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.retired
    }

    /// Slots made so far, used or free.
    pub fn made(&self) -> usize {
        self.generations.len()
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.slots.iter().map(|(key, slot)| (key as u32, slot))
    }
}

impl std::ops::Index<u32> for Slots {
    type Output = Slot;
    #[inline]
    fn index(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<u32> for Slots {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_stays_small() {
        // 256 bytes of user space per idle connection in all: the slot, its generation and its
        // timer node are everything an idle connection has.
        assert!(size_of::<Slot>() <= 216, "{} bytes", size_of::<Slot>());
    }

    #[test]
    fn ids_are_never_used_again() {
        let mut slots = Slots::new(4);
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let slot = slots.insert(Descriptor(3), State::Open, Origin::Listener(0), peer, 0);
            slots[slot].opened = true;
            let id = ConnectionId::new(7, slot, slots[slot].generation);
            assert_eq!((id.shard(), id.slot()), (7, slot));
            assert!(seen.insert(id));
            assert_eq!(slots.find(id), Some(slot));
            slots.remove(slot);
            assert_eq!(slots.find(id), None);
        }
        assert_eq!(slots.made(), 1);
    }
}
