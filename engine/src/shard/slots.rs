//! Connections in a slab: state, generation, operations in flight.

mod leases;
mod slot;

pub use super::rare::NONE;
#[cfg(any(test, feature = "testing"))]
pub use slot::InFlight;
pub use slot::{Armed, Fill, Mode, Pause, Slot};

use self::leases::Leases;
use super::identity::Identity;
use super::rare::Rare;
use super::state::State;
use crate::address::Peer;
use crate::admission::Holder;
use crate::id::{ConnectionId, SLOTS_MAX};
use crate::info::Origin;
use crate::ring::Descriptor;
use slab::Slab;
use std::net::SocketAddr;

/// The slots of a shard.
pub struct Slots {
    slots: Slab<Slot>,
    /// Generation of each slot's next life (or of its present one).
    generations: Vec<u64>,
    leases: Leases,
    /// Of each slot's present life, or of its last.
    identities: Vec<Identity>,
    rare: Slab<Rare>,
    retired: usize,
    /// Connections by mode.
    modes: [usize; Mode::COUNT],
}

impl Slots {
    /// Room for `capacity` connections without growing; the memory is touched only when used.
    pub fn new(shard: usize, capacity: usize) -> Self {
        Self {
            slots: Slab::with_capacity(capacity),
            generations: Vec::with_capacity(capacity),
            leases: Leases::new(shard),
            identities: Vec::with_capacity(capacity),
            rare: Slab::with_capacity(capacity),
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
        settings: u8,
        peer: Peer,
        now_ms: u64,
    ) -> u32 {
        let key = self.slots.vacant_key();
        assert!(key < SLOTS_MAX, "admission keeps the number of connections below {SLOTS_MAX}");
        let (listener, tag) = match origin {
            Origin::Listener(number) => (number, None),
            Origin::Connected(tag) => (0, Some(tag)),
        };
        let identity = Identity::new(peer, listener, now_ms.into());
        if key == self.generations.len() {
            self.generations.push(self.leases.first());
            self.identities.push(identity);
        } else {
            self.identities[key] = identity;
        }
        self.modes[Mode::Streaming as usize] += 1;
        let slot = self.slots.insert(Slot::new(descriptor, state, settings, now_ms)) as u32;
        let (flow, scope) = match peer {
            Peer::Ip(SocketAddr::V6(peer)) => (peer.flowinfo(), peer.scope_id()),
            Peer::Ip(SocketAddr::V4(_)) | Peer::Unix => (0, 0),
        };
        if tag.is_some() || flow != 0 || scope != 0 {
            self.rare_mut(slot).set_origin(tag, flow, scope);
        }
        slot
    }

    /// Frees a slot; its next life has the next generation.
    pub fn remove(&mut self, slot: u32) {
        let key = slot as usize;
        self.modes[self.slots[key].mode() as usize] -= 1;
        let rare = self.take_rare(slot);
        let Some(next) = self.leases.after(self.generations[key]) else {
            // Kept for good: a further life would repeat an id.
            self.retired += 1;
            return;
        };
        let gone = self.slots.remove(key);
        assert!(gone.in_flight().is_empty(), "a slot is freed with nothing in flight");
        assert!(gone.output_head() == NONE && gone.carry() == NONE && rare.open() == NONE);
        assert!(!rare.is_at_work() && !rare.waits_for_workers());
        self.generations[key] = next;
    }

    /// What few connections need, of this one.
    #[inline]
    pub fn rare(&self, slot: u32) -> &Rare {
        self.rare_of(&self[slot])
    }

    /// The same, of a connection at hand.
    #[inline]
    pub fn rare_of(&self, connection: &Slot) -> &Rare {
        static DEFAULT: Rare = Rare::DEFAULT;
        match connection.rare() {
            NONE => &DEFAULT,
            rare => &self.rare[rare as usize],
        }
    }

    /// The same to change it: from here on the connection has a record of its own.
    pub fn rare_mut(&mut self, slot: u32) -> &mut Rare {
        let rare = self.slots[slot as usize].rare_mut();
        if *rare == NONE {
            *rare = self.rare.insert(Rare::DEFAULT) as u32;
        }
        &mut self.rare[*rare as usize]
    }

    /// The same, if there is a record: for what sets something back.
    #[inline]
    pub fn rare_if_any(&mut self, slot: u32) -> Option<&mut Rare> {
        match self[slot].rare() {
            NONE => None,
            rare => Some(&mut self.rare[rare as usize]),
        }
    }

    fn take_rare(&mut self, slot: u32) -> Rare {
        match std::mem::replace(self[slot].rare_mut(), NONE) {
            NONE => Rare::DEFAULT,
            rare => self.rare.remove(rare as usize),
        }
    }

    /// A connection that is parked gives its record back, unless there is something in it.
    pub fn tidy(&mut self, slot: u32) {
        let connection = &self.slots[slot as usize];
        if connection.mode() != Mode::Parked {
            return;
        }
        let no_output = connection.output_head() == NONE;
        let Some(rare) = self.rare_if_any(slot) else { return };
        if no_output && !rare.delivering() {
            rare.forget_look();
        }
        if *rare == Rare::DEFAULT {
            self.take_rare(slot);
        }
    }

    /// The range of a file that comes in; `NONE`: none.
    #[inline]
    pub fn incoming(&self, slot: u32) -> u32 {
        self.rare(slot).incoming()
    }

    /// Returns whether a range of the stream goes past the handler: into a file, or to another
    /// connection.
    #[inline]
    pub fn takes_a_range(&self, connection: &Slot) -> bool {
        if connection.is_plain() {
            return false;
        }
        let rare = self.rare_of(connection);
        rare.incoming() != NONE || rare.forward() != NONE
    }

    /// Who is in a slot that is in use.
    #[inline]
    pub fn identity(&self, slot: u32) -> &Identity {
        &self.identities[slot as usize]
    }

    #[inline]
    pub fn identity_mut(&mut self, slot: u32) -> &mut Identity {
        &mut self.identities[slot as usize]
    }

    /// Whose connection it is.
    pub fn peer(&self, slot: u32) -> Peer {
        let rare = self.rare(slot);
        self.identity(slot).peer(rare.flow(), rare.scope())
    }

    /// Where it came from.
    pub fn origin(&self, slot: u32) -> Origin {
        match self.rare(slot).tag() {
            Some(tag) => Origin::Connected(tag),
            None => Origin::Listener(self.identity(slot).listener),
        }
    }

    /// The kind of connection that its permit is for.
    pub fn holder(&self, slot: u32) -> Holder {
        if self.rare(slot).tag().is_some() { Holder::Outgoing } else { Holder::Accepted }
    }

    /// Generation of the life of a slot that is in use.
    #[inline]
    pub fn generation(&self, slot: u32) -> u64 {
        self.generations[slot as usize]
    }

    /// A slot, if it still has the life of this generation.
    #[inline]
    pub fn of_life(&self, slot: u32, generation: u64) -> Option<&Slot> {
        self.get(slot).filter(|_| self.generation(slot) == generation)
    }

    /// The connection an id names, if it is still there.
    pub fn find(&self, id: ConnectionId) -> Option<u32> {
        let slot = id.slot();
        self.of_life(slot, id.generation())?.is_shown().then_some(slot)
    }

    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    /// Changes how a connection receives.
    #[inline]
    pub fn set_mode(&mut self, slot: u32, mode: Mode) {
        let slot = &mut self.slots[slot as usize];
        self.modes[slot.mode() as usize] -= 1;
        self.modes[mode as usize] += 1;
        slot.set_mode(mode);
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

    /// Records of what few connections need.
    #[cfg(any(test, feature = "testing"))]
    pub fn records(&self) -> usize {
        self.rare.len()
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
    use crate::shard::settings::OF_CONFIG;

    /// Shaped like the slab's own, which is private.
    #[expect(dead_code, reason = "only its size counts")]
    enum Entry<T> {
        Vacant(usize),
        Occupied(T),
    }

    #[test]
    fn a_slot_stays_in_a_cache_line() {
        // 128 bytes of user space per idle connection in all: this, 32 for its identity, 8 for its
        // generation and 16 for its timer node are everything an idle connection has.
        assert_eq!((size_of::<Entry<Slot>>(), align_of::<Slot>()), (64, 64));
        assert_eq!(size_of::<Entry<Rare>>(), 120);
    }

    fn insert(slots: &mut Slots, origin: Origin, peer: &str) -> u32 {
        let peer = Peer::Ip(peer.parse().unwrap());
        slots.insert(Descriptor(3), State::Open, origin, OF_CONFIG, peer, 0)
    }

    #[test]
    fn a_record_is_there_while_it_is_needed() {
        let mut slots = Slots::new(7, 4);
        let slot = insert(&mut slots, Origin::Listener(2), "127.0.0.1:1");
        assert_eq!((slots.records(), slots.rare(slot)), (0, &Rare::DEFAULT));
        assert_eq!(slots.rare_if_any(slot), None);
        slots.rare_mut(slot).set_timer(5, 0);
        slots.tidy(slot);
        slots.set_mode(slot, Mode::Parked);
        slots.tidy(slot);
        assert_eq!((slots.records(), slots.rare(slot).timer_ms()), (1, 5));
        slots.rare_mut(slot).set_timer(0, 0);
        // Of no use once the output has left.
        slots.rare_mut(slot).note_look(0, 1, false);
        slots[slot].append_chunk(0, 0);
        slots.tidy(slot);
        assert_eq!(slots.records(), 1);
        slots[slot].remove_chunk(NONE);
        slots.tidy(slot);
        assert_eq!((slots.records(), slots.origin(slot)), (0, Origin::Listener(2)));
        slots.rare_mut(slot).note_discarded();
        slots.remove(slot);
        assert_eq!(slots.records(), 0);
    }

    #[test]
    fn origin_and_scope_outlast_a_rest() {
        let mut slots = Slots::new(7, 4);
        let peer = "[fe80::1%3]:80";
        let by_listener = insert(&mut slots, Origin::Listener(1), peer);
        let by_us = insert(&mut slots, Origin::Connected(0), "127.0.0.1:1");
        for slot in [by_listener, by_us] {
            slots.set_mode(slot, Mode::Parked);
            slots.tidy(slot);
        }
        assert_eq!(slots.peer(by_listener), Peer::Ip(peer.parse().unwrap()));
        assert_eq!(slots.origin(by_listener), Origin::Listener(1));
        assert_eq!(slots.origin(by_us), Origin::Connected(0));
    }

    #[test]
    fn ids_are_never_used_again() {
        let mut slots = Slots::new(7, 4);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let slot = insert(&mut slots, Origin::Listener(0), "127.0.0.1:1");
            slots[slot].note_opened();
            let id = ConnectionId::new(7, slot, slots.generation(slot));
            assert_eq!((id.shard(), id.slot()), (7, slot));
            assert!(seen.insert(id));
            assert_eq!(slots.find(id), Some(slot));
            slots.remove(slot);
            assert_eq!(slots.find(id), None);
        }
        assert_eq!(slots.made(), 1);
    }
}
