//! The waiting room: clients that were accepted and have no permit yet. Each has a descriptor, but
//! no slot, no buffer and no receive. Accepting is disarmed while the room is not empty, so further
//! clients wait in the backlog.

use super::Shard;
use super::turn::Calling;
use crate::address::Peer;
use crate::admission::{Cell, Holder};
use crate::config::AtCapacity;
use crate::handler::Handler;
use crate::ring::{Descriptor, Ring};
use std::collections::VecDeque;

/// Accepted, and not turned away so far.
pub(super) struct Client {
    pub(super) descriptor: Descriptor,
    pub(super) listener: u16,
    pub(super) peer: Peer,
    pub(super) cell: Cell,
}

impl Client {
    /// Returns whether it has not reset meanwhile. The bytes of a client of a Unix socket can be
    /// read after it is gone.
    pub(super) fn is_there<R: Ring>(&self, ring: &mut R) -> bool {
        self.peer == Peer::Unix || ring.peer_address(self.descriptor).is_ok()
    }
}

/// Clients that wait, first come first served.
pub(super) struct WaitingRoom {
    pub(super) clients: VecDeque<Client>,
    /// The limit on clients for each listener: a whole backlog, and a second one from an accept
    /// that is being cancelled.
    each_max: usize,
    /// The shard may be noted as waiting for a permit.
    pub(super) noted: bool,
}

impl WaitingRoom {
    pub fn new(each_max: usize) -> Self {
        Self { clients: VecDeque::new(), each_max, noted: false }
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// A listener comes with this backlog.
    pub fn make_room_for(&mut self, backlog: u32) {
        self.each_max = self.each_max.max(2 * backlog as usize);
    }

    /// Back comes who may not wait, or finds it full: of so many listeners.
    pub fn enter(
        &mut self,
        client: Client,
        may_wait: bool,
        listeners: usize,
    ) -> Result<(), Client> {
        if !may_wait || self.clients.len() >= self.each_max * listeners.max(1) {
            return Err(client);
        }
        self.clients.push_back(client);
        Ok(())
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Lets in who waits, as far as there are permits.
    #[inline]
    pub(super) fn admit_waiting(&mut self, call: Calling) {
        if !self.accepting.room.is_empty() || self.accepting.room.noted {
            self.admit_those_that_wait(call);
        }
    }

    #[inline(never)]
    fn admit_those_that_wait(&mut self, call: Calling) {
        while !self.accepting.room.is_empty() {
            self.accepting.room.noted = true;
            if !self.core.admission.take_or_wait(self.core.shard) {
                mark!("waits for a permit");
                return self.wait_or_turn_away();
            }
            self.eviction.begin_anew();
            let client = self.accepting.room.clients.pop_front().expect("it is not empty");
            if client.is_there(&mut self.ring) {
                self.let_in(call, client);
            } else {
                // Reset meanwhile: it ends without ever having had a slot.
                mark!("gone while waiting");
                self.core.counters.gone_while_waiting += 1;
                self.turn_away(client);
                if !bug!("reset-while-waiting") {
                    self.core.admission.give_back(Holder::Accepted);
                }
            }
        }
        if bug!("permit-without-client") {
            let takes = self.accepting.open().any(|listener| listener.accepts())
                && !self.accepting.room.noted;
            self.accepting.room.noted |= takes && self.core.admission.try_take(Holder::Accepted);
            return;
        }
        if std::mem::replace(&mut self.accepting.room.noted, false) {
            self.core.admission.stop_waiting(self.core.shard);
        }
    }

    /// No permit is free: an idle connection may make room. If none does, clients that may not wait
    /// are turned away.
    fn wait_or_turn_away(&mut self) {
        let rejects = self.accepting.at_capacity == AtCapacity::Reject;
        if rejects && self.asked_in_vain() {
            mark!("rejected after a round in vain");
            self.eviction.begin_anew();
            let rejected = self.empty_waiting_room();
            self.core.counters.rejected += rejected;
            return;
        }
        self.ask_for_room();
    }

    /// Turns away who waits and is banned by now.
    pub(super) fn turn_away_banned(&mut self) {
        for _ in 0..self.accepting.room.len() {
            let Some(client) = self.accepting.room.clients.pop_front() else { break };
            let settings = &self.core.listeners.settings_of(client.listener).values;
            let is_banned = |ip| self.core.bans.bans.contains(ip) && !settings.is_exempt(ip);
            if client.peer.ip().is_some_and(is_banned) {
                mark!("banned while waiting");
                self.core.counters.banned += 1;
                self.turn_away(client);
            } else {
                self.accepting.room.clients.push_back(client);
            }
        }
    }

    /// Turns away the waiting clients of a removed listener, when the time for it is over.
    pub(super) fn turn_away_from(&mut self, listener: u16) {
        for _ in 0..self.accepting.room.len() {
            let Some(client) = self.accepting.room.clients.pop_front() else { break };
            if client.listener == listener {
                mark!("turned away from a removed listener");
                self.core.counters.turned_away += 1;
                self.turn_away(client);
            } else {
                self.accepting.room.clients.push_back(client);
            }
        }
    }

    /// Turns away all clients that wait, when the time for it is over.
    pub(super) fn end_waiting(&mut self) {
        let turned_away = self.empty_waiting_room();
        if turned_away > 0 {
            mark!("turned away");
        }
        self.core.counters.turned_away += turned_away;
    }

    /// Turns away all clients that wait. Returns how many these are.
    fn empty_waiting_room(&mut self) -> u64 {
        let count = self.accepting.room.len() as u64;
        while let Some(client) = self.accepting.room.clients.pop_front() {
            self.turn_away(client);
        }
        self.accepting.room.noted = false;
        self.core.admission.stop_waiting(self.core.shard);
        count
    }
}
