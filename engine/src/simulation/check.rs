//! What must be true of a world beyond the invariants of its shards: permits add up over all of
//! them, connections end for a reason that exists, and in quiet times nobody waits for nothing.

use super::book::{Mark, Record, Role};
use super::lane::{Lane, Life};
use super::streams::is_streaming;
use super::world::World;
use crate::ListenerInfo;
use crate::Reason;
use crate::admission::Holder;
use crate::ring::simulated::{Peer, Plan, Standing};
use crate::shard::slots::NONE;
use crate::shard::state::State;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A drain waits so long for a peer that sends nothing.
const DRAIN_LINGER_MS: u64 = 500;
/// A permit may lie free so long while a client waits: a wake is on its way.
const WASTED_US_MAX: u64 = 1_500_000;
/// What is overdue for so long has been forgotten: a wait takes a second at most.
const OVERDUE_US_MAX: u64 = 3_000_000;
/// A drain ends so long after its deadline: a wait, and the time for aborted connections.
const DRAIN_US_MAX: u64 = 5_000_000;
/// Reasons after which what was queued has left, up to a file that cannot be sent to its end.
pub const GRACEFUL: [Reason; 9] = [
    Reason::ProtocolError,
    Reason::LocalClose,
    Reason::PeerFin,
    Reason::IdleTimeout,
    Reason::Evicted,
    Reason::ReceiveTimeout,
    Reason::Drained,
    Reason::FileTruncated,
    Reason::FileFailed,
];

/// The peer of a connection.
pub fn find_peer<'a>(lanes: &'a mut [Lane], record: &Record) -> &'a Peer {
    let mut found = lanes.iter_mut().enumerate();
    let found = found.find_map(|(at, lane)| Some((at, lane.ring().number_of(record.peer)?)));
    let (at, number) = found.expect("each connection has a peer");
    &lanes[at].ring().peers[number]
}

impl World {
    /// The bytes before a marker that was reached have left, or were acknowledged.
    fn check_markers(&mut self) {
        let reached = std::mem::take(&mut self.book.borrow_mut().reached);
        let book = self.book.clone();
        for (id, at) in reached {
            let mut book = book.borrow_mut();
            let record = book.record(id).expect("markers belong to connections");
            let Mark { bytes: said, of_peer, .. } = record.markers[at];
            let peer = find_peer(&mut self.lanes, record);
            let taken = peer.taken;
            assert!(
                !of_peer || peer.socket.is_unix || said <= taken,
                "the peer has {taken} of {said} bytes before a marker: {record:?}"
            );
            // A reset takes the kernel's counts with it.
            let whole = peer.standing == Standing::Connected;
            let left = peer.acknowledged() + peer.socket.outbound.len() as u64;
            assert!(
                !whole || said <= left,
                "{left} of {said} bytes left before a marker: {record:?}"
            );
        }
    }

    /// What must be true after the turn of a shard.
    pub fn look(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        self.book.borrow_mut().slots[at] = lane.connections();
        if let Some(shard) = self.lanes[at].shard() {
            shard.check_invariants();
            self.excuse(at);
            self.check_deadlines(at);
        }
        self.check_permits();
        self.check_listeners(at);
        self.check_addresses();
        self.check_jobs(at);
        self.check_holds(at);
        self.check_kept(at);
        self.check_markers();
        self.hear();
        let failures = std::mem::take(&mut self.book.borrow_mut().failures);
        assert!(failures.is_empty(), "the handler says: {failures:?}");
    }

    /// Over all shards: a permit for every slot, and nobody waits while one is free.
    fn check_permits(&mut self) {
        let on_their_way = self.transit.on_their_way();
        let in_slots: usize = self.lanes.iter_mut().map(Lane::connections).sum();
        let in_use = in_slots + on_their_way;
        let (total, free) = (self.admission.total(), self.admission.free());
        assert_eq!(total - free, in_use, "permits held and slots in use");
        assert!(in_use <= self.config.max_connections, "{in_use} connections are open");
        let waits = |lane: &mut Lane| lane.shard().is_some_and(|shard| shard.ledger().waiting > 0);
        let mut accepted = on_their_way;
        for shard in self.lanes.iter_mut().filter_map(Lane::shard) {
            let slots = &shard.parts().1.slots;
            let is_accepted = |slot: u32| slots.holder(slot) == Holder::Accepted;
            accepted += slots.iter().filter(|(slot, _)| is_accepted(*slot)).count();
        }
        let share = self.config.max_connections - self.config.outgoing_reserved;
        let for_clients = self.admission.free_for_accepted();
        assert!(accepted <= share, "{accepted} accepted connections, {share} allowed");
        assert_eq!(for_clients, free.min(share - accepted), "permits free for clients");
        let wasted = for_clients > 0 && self.lanes.iter_mut().any(waits);
        let now_us = self.lanes.iter_mut().map(Lane::now_us).min().expect("there is a shard");
        if !wasted {
            self.wasted_since_us = None;
        } else if now_us > *self.wasted_since_us.get_or_insert(now_us) + WASTED_US_MAX {
            panic!(
                "{for_clients} permits are free, but a client waits since {:?}",
                self.wasted_since_us
            );
        }
    }

    /// The clients of each listener are counted over all shards, and none stays for long after the
    /// deadline of its removal.
    fn check_listeners(&mut self, at: usize) {
        let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
        let shards = self.lanes.iter_mut().filter_map(Lane::shard);
        let clients = shards.flat_map(|shard| shard.clients_by_listener());
        clients.for_each(|(number, clients)| *counts.entry(number).or_default() += clients);
        self.transit.each(|client| *counts.entry(client.origin().0).or_default() += 1);
        for ListenerInfo { number, connections, .. } in self.handle.listeners() {
            let count = counts.remove(&number).unwrap_or(0);
            assert_eq!(connections, count, "clients of listener {number}, left as counted");
        }
        assert!(counts.is_empty(), "listeners that nobody knows: {counts:?}");
        let lane = &mut self.lanes[at];
        if lane.life != Life::Runs {
            return;
        }
        let now_us = lane.now_us();
        if lane.ring().hangs() {
            lane.hung_us = now_us;
            return;
        }
        let hung_us = lane.hung_us;
        let slots = &lane.shard().expect("it runs").parts().1.slots;
        let origins: Vec<_> = slots.iter().map(|(slot, _)| slots.origin(slot)).collect();
        for origin in origins {
            let since_us = lane.reset_us(origin).map(|at_us| at_us.max(hung_us));
            let late_us = since_us.map_or(0, |since_us| now_us.saturating_sub(since_us));
            assert!(late_us < DRAIN_US_MAX, "a client of a removed listener stays {late_us} us");
        }
    }

    /// Never more of an address than may be, and counted exactly.
    fn check_addresses(&mut self) {
        let Some(limit) = self.config.max_per_address else { return };
        let mut counts: BTreeMap<IpAddr, u64> = BTreeMap::new();
        let shards = self.lanes.iter_mut().filter_map(Lane::shard);
        shards.flat_map(|shard| shard.clients()).for_each(|ip| *counts.entry(ip).or_default() += 1);
        self.transit.each(|client| {
            client.origin().1.into_iter().for_each(|ip| *counts.entry(ip).or_default() += 1);
        });
        for host in Plan::HOSTS {
            let ip = IpAddr::from([10, 0, 0, host]);
            if self.book.borrow().exempt.iter().any(|prefix| prefix.contains(ip)) {
                // At one listener, and counted at another.
                continue;
            }
            let count = counts.get(&ip).copied().unwrap_or(0);
            assert!(count <= u64::from(limit), "{count} clients of {ip}");
            assert_eq!(self.handle.connections_of(ip), count, "clients of {ip}, left as counted");
        }
    }

    /// A deadline that stays overdue has been forgotten.
    fn check_deadlines(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let now_us = lane.now_us();
        let late_us = lane.ends_by_us.map_or(0, |by_us| now_us.saturating_sub(by_us));
        assert!(late_us < DRAIN_US_MAX, "a drain goes on {late_us} us after its deadline");
        let overdue = lane.shard().expect("it runs").overdue();
        lane.overdue.retain(|connection, _| overdue.contains(connection));
        for connection in overdue {
            let since_us = *lane.overdue.entry(connection).or_insert(now_us);
            let overdue_us = now_us - since_us;
            assert!(overdue_us < OVERDUE_US_MAX, "{connection:?} is overdue since {since_us} us");
        }
    }

    /// Looks at connections whose graceful end was cut short: something must justify it.
    fn excuse(&mut self, at: usize) {
        let shard = self.lanes[at].shard().expect("it runs");
        let slots = 0..shard.parts().1.slots.made() as u32;
        let measured: Vec<bool> = slots.map(|slot| shard.is_slow(slot).is_some()).collect();
        let core = shard.parts().1;
        let (now_ms, limits) = (core.now_ms, core.limits.clone());
        let mut cut_short = Vec::new();
        for (slot, connection) in core.slots.iter() {
            let graceful = connection.reason().is_some_and(|reason| GRACEFUL.contains(&reason));
            let over = matches!(connection.state(), State::Ending | State::Closing);
            if !over || !graceful || !connection.opened() {
                continue;
            }
            let since_ms = now_ms - connection.stalled_since_ms();
            let silent_ms = since_ms.min(now_ms - connection.active_ms());
            let silent = core.drains(slot) && !core.slots.rare(slot).discards();
            let waited = silent_ms >= limits.linger_ms
                || (silent && silent_ms >= DRAIN_LINGER_MS)
                || since_ms >= limits.linger_total_ms;
            // Nothing was queued, unread or unacknowledged.
            let idle = matches!(connection.reason(), Some(Reason::IdleTimeout | Reason::Evicted));
            let own = core.limits_of(connection);
            let stalled = [own.write_ms, own.transfer_ms].into_iter().flatten();
            let stalled = stalled.min().is_some_and(|least_ms| since_ms >= least_ms);
            if connection.abortive() {
                // A slow peer keeps the reason for which its connection was closing already.
                let slow = measured[slot as usize];
                cut_short.push((core.id(slot), stalled || waited || slow));
            } else if !connection.fin_seen() {
                cut_short.push((core.id(slot), waited || idle));
            }
        }
        let drained = self.is_past_drain(at);
        for (id, mut justified) in cut_short {
            let mut book = self.book.borrow_mut();
            justified |= book.kicks_all || book.disconnects || drained;
            let record = book.record(id).expect("who was opened has a record");
            let reset_us = self.lanes[at].reset_us(record.origin);
            justified |= reset_us.is_some_and(|at_us| self.lanes[at].now_us() + 1000 >= at_us);
            justified |= find_peer(&mut self.lanes, record).standing != Standing::Connected;
            justified |= record.cut || record.excused;
            assert!(justified, "cut short: {record:?}");
            record.excused = true;
        }
    }

    pub(super) fn is_past_drain(&mut self, at: usize) -> bool {
        let lane = &mut self.lanes[at];
        let now_us = lane.now_us();
        lane.drain_deadline_us.is_some_and(|at_us| now_us + 1000 >= at_us)
    }

    /// In quiet times, with peers that read and answer: what is still under way, if anything.
    pub fn unsettled(&mut self) -> Option<String> {
        let on_their_way = self.transit.on_their_way();
        if on_their_way > 0 {
            return Some(format!("{on_their_way} clients are on their way to another shard"));
        }
        let room = self.missing_room();
        room.or_else(|| (0..self.lanes.len()).find_map(|at| self.unsettled_at(at)))
    }

    fn unsettled_at(&mut self, at: usize) -> Option<String> {
        let permits = self.admission.free_for_accepted();
        let lane = &mut self.lanes[at];
        let draining = lane.drain_deadline_us.is_some();
        let (ring, core) = lane.shard()?.parts();
        for (slot, connection) in core.slots.iter() {
            let book = self.book.borrow();
            let record = book.records.iter().rev().find(|it| it.id == core.id(slot));
            let number = record.and_then(|it| ring.number_of(it.peer));
            let Some(peer) = number.map(|number| &ring.peers[number]) else { continue };
            if peer.standing != Standing::Connected || !connection.opened() {
                continue;
            }
            let state = connection.state();
            let reads =
                state.receives() && !connection.is_paused() && !connection.is_full_and_paused();
            if reads && (!peer.socket.inbound.is_empty() || !peer.to_send.is_empty()) {
                return Some(format!("slot {at}/{slot} has not read what its peer sends"));
            }
            if state.sends() && connection.output_bytes() > 0 {
                return Some(format!("slot {at}/{slot} has not sent what it has to"));
            }
            if state.sends() && is_streaming(&self.streams, core.id(slot)) {
                return Some(format!("slot {at}/{slot} has a stream under way"));
            }
            if core.slots.rare(slot).naming() != NONE {
                return Some(format!("slot {at}/{slot} has a file to name"));
            }
            if core.jobs_under_way(slot) > 0 {
                return Some(format!("slot {at}/{slot} has jobs under way"));
            }
            if connection.is_paused() || connection.is_full() || !peer.socket.outbound.is_empty() {
                return Some(format!("slot {at}/{slot} has not gone on"));
            }
            let said = record.map_or(0, |it| it.said_of_its_own());
            if let Some(Role::Greeter(total) | Role::Lecturer(total) | Role::Metered(total)) =
                record.map(|it| it.part.role)
                && said < total
                && state.accepts_output()
            {
                return Some(format!("slot {at}/{slot} has said {said} of {total} bytes"));
            }
            if matches!(state, State::Draining | State::Ending | State::Closing) {
                return Some(format!("slot {at}/{slot} is still {state}"));
            }
        }
        if core.jobs.of_shard() > 0 {
            return Some(format!("shard {at} has jobs under way"));
        }
        let waits = ring.peers.iter().position(|peer| {
            // One that was accepted may be of another ring's listener.
            let knocks = !peer.outgoing && !peer.established && !peer.plan.stillborn;
            let is_refused = matches!(peer.standing, Standing::Refused | Standing::SentReset);
            knocks && !is_refused && ring.is_open(peer.listener)
        });
        match waits {
            Some(peer) if permits > 0 && !draining => {
                Some(format!("peer {at}/{peer} has not been let in, {permits} permits are free"))
            }
            _ => None,
        }
    }
}
