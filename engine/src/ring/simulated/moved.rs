//! Sockets that go from one simulated ring to another, each with its peer.

use super::super::Descriptor;
use super::descriptors::Object;
use super::peers::{Birth, NEVER, Peer};
use super::{SimulatedRing, beside};
use std::cell::{Cell, RefCell};

/// The number of the first socket on its way: above those of all rings.
const FIRST: i32 = 2_000_000_000;

thread_local! {
    static ON_THEIR_WAY: RefCell<Vec<(i32, Peer)>> = const { RefCell::new(Vec::new()) };
    static NEXT: Cell<i32> = const { Cell::new(FIRST) };
}

impl SimulatedRing {
    /// Forgets the sockets that were on their way when an earlier simulation ended.
    pub(super) fn forget_moved() {
        ON_THEIR_WAY.with_borrow_mut(Vec::clear);
    }

    pub(super) fn hand_out_socket(&mut self, socket: Descriptor) -> Descriptor {
        self.catch_up();
        let number = self.socket_number(socket, "hand out");
        let holding = self.table.remove(socket).expect("just looked up");
        if self.table.references(holding) > 1 {
            self.broken(format_args!("{} is handed out while an operation uses it", socket.0));
        }
        let released = self.table.release(holding);
        assert_eq!(released, Some(Object::Socket(number)));
        let tombstone = self.peers[number].gone();
        let peer = std::mem::replace(&mut self.peers[number], tombstone);
        self.peers_next_us[number] = NEVER;
        self.trace.called(self.now_us, "handed out", socket, 0);
        let on_its_way = NEXT.get();
        NEXT.set(on_its_way + 1);
        ON_THEIR_WAY.with_borrow_mut(|sockets| sockets.push((on_its_way, peer)));
        Descriptor(on_its_way)
    }

    pub(super) fn take_in_socket(&mut self, socket: Descriptor) -> Descriptor {
        self.catch_up();
        let found = ON_THEIR_WAY.with_borrow_mut(|sockets| {
            let at = sockets.iter().position(|(number, _)| *number == socket.0)?;
            Some(sockets.swap_remove(at).1)
        });
        let Some(mut peer) = found else {
            self.broken(format_args!("{} is taken in, and is not on its way", socket.0))
        };
        if self.rng.per_mille((50 * self.faults.peer_reset).min(500)) {
            peer.reset(&mut self.rng);
        }
        let number = self.peers.len();
        let (is_unix, birth, address) = (peer.socket.is_unix, peer.birth, peer.address);
        self.peers.push(peer);
        self.peers_next_us.push(NEVER);
        self.touch(number);
        let descriptor = self.table.insert(Object::Socket(number));
        if is_unix {
            beside::note_unix(descriptor, address, birth);
        }
        self.trace.called(self.now_us, "taken in", descriptor, 0);
        descriptor
    }

    /// Changes the peers that are on their way.
    pub fn change_moved(change: impl FnMut(&mut Peer)) {
        ON_THEIR_WAY.with_borrow_mut(|sockets| {
            sockets.iter_mut().map(|(_, peer)| peer).for_each(change);
        });
    }

    /// The number here of a peer that came to some ring first, unless it is elsewhere.
    pub fn number_of(&self, birth: Birth) -> Option<usize> {
        let here = |peer: &Peer| peer.birth == birth && !peer.is_elsewhere();
        let at_home = (birth.0 == self.number).then(|| self.peers.get(birth.1)).flatten();
        if at_home.is_some_and(here) {
            return Some(birth.1);
        }
        self.peers.iter().position(here)
    }
}
