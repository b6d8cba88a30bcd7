//! What must hold between two turns (ARCHITECTURE.md, "Invariants"), looked up in the shard and
//! in the simulated kernel.

use super::Shard;
use super::accept::{Listener, Stage};
use super::output::{Body, CHUNK_BYTES};
use super::rare::Rare;
use super::settings::OF_CONFIG;
use super::slots::{Armed, InFlight, Mode, NONE, Slot};
use super::state::State;
use super::timers::TICK_MS;
use crate::handler::Handler;
use crate::info::Origin;
use crate::mailbox::BanList;
use crate::ring::simulated::{SimulatedRing, View};
use crate::ring::{Kind, Token};
use crate::{ConnectionId, Reason};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A wait takes a second at most: what is later than this was forgotten.
const LATE_MS: u64 = 1_500;

impl<H: Handler> Shard<SimulatedRing, H> {
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_invariants(&mut self) {
        let kernel = self.ring.view();
        self.check_memory(&kernel);
        self.check_descriptors(&kernel);
        self.check_operations(&kernel);
        self.core.check_jobs();
        self.core.groups.check(|slot| self.core.slots.get(slot).is_some());
        self.core.check_links(self.until_due());
        self.core.check_connects();
        self.check_filters();
        self.core.file_cache.check(self.core.now_ms.saturating_sub(LATE_MS));
        let touched: BTreeSet<u32> = self.core.touched.iter().copied().collect();
        assert_eq!(touched.len(), self.core.touched.len(), "a slot is touched once");
        for (slot, connection) in self.core.slots.iter() {
            assert_eq!(connection.touched(), touched.contains(&slot), "slot {slot} and the list");
            if !connection.touched() && !self.due.contains(&slot) {
                self.check_progress(slot, connection);
            }
        }
    }

    /// How long the next turn would wait, if nothing came and it had nothing to submit.
    pub fn would_wait(&self) -> Option<Duration> {
        let wanted = self.accepting.wanted();
        let waits = self.accepting.resume_at_ms.is_some();
        let quiet = |it: &Listener| {
            let closes = it.stage == Stage::Closing && !it.is_busy() && !waits;
            it.cancelling || (it.armed == (wanted && it.accepts()) && !closes)
        };
        let settled = self.accepting.open().all(quiet);
        let (want, wait) = self.patience();
        (want > 0 && self.wake_armed && settled).then_some(wait)
    }

    /// Addresses of the clients that are open or wait, once for each client that has one.
    pub fn clients(&self) -> Vec<IpAddr> {
        let slots = &self.core.slots;
        let accepted = |slot: &u32| matches!(slots.origin(*slot), Origin::Listener(_));
        let open = slots.iter().map(|(slot, _)| slot).filter(accepted);
        let open = open.filter_map(|slot| slots.peer(slot).ip());
        let waiting = self.accepting.room.clients.iter().filter_map(|client| client.peer.ip());
        open.chain(waiting).collect()
    }

    /// Why connections that the application knows of end, if they do already.
    pub fn reasons(&self) -> Vec<(ConnectionId, Option<Reason>)> {
        let shown = self.core.slots.iter().filter(|(_, it)| it.opened());
        shown.map(|(slot, it)| (self.core.id(slot), it.reason())).collect()
    }

    /// What is banned as far as this shard knows; and whether whoever comes in next is looked at
    /// with this list.
    pub fn bans(&self) -> (Arc<BanList>, bool) {
        (self.core.bans.clone(), self.accepting.room.is_empty())
    }

    /// Whether a drain has waited long enough for operations that do not end.
    pub fn is_hung(&self) -> bool {
        self.drain_ends_at_ms.is_some_and(|at_ms| at_ms <= self.core.now_ms)
    }

    /// The shard is dropped; its ring stays, for whoever wants to know what it left.
    pub fn into_ring(self) -> SimulatedRing {
        self.ring
    }

    /// Connections with a deadline that has passed, with their generation: none may stay so.
    pub fn overdue(&self) -> Vec<(u32, u64)> {
        let due =
            |slot| self.next_deadline(slot).is_some_and(|(at_ms, _)| at_ms < self.core.now_ms);
        let overdue = self.core.slots.iter().filter(|(slot, _)| due(*slot));
        overdue.map(|(slot, _)| (slot, self.core.slots.generation(slot))).collect()
    }

    fn check_memory(&self, kernel: &View) {
        let core = &self.core;
        let total = self.receive_buffers.total();
        assert_eq!(self.receive_buffers.free(), total, "no buffer is held between turns");
        let with_kernel = self.ring.buffers_provided() + kernel.buffers_coming;
        assert_eq!(with_kernel, usize::from(total), "receive buffers");
        let (mut pooled, mut pipes, mut piped) = (0, 0, 0);
        let (mut chunks, mut spilled, mut charged) = (0, 0, 0);
        for (slot, connection) in core.slots.iter() {
            let mut bytes = 0;
            let mut at = connection.output_head();
            while at != NONE {
                let chunk = &core.chunks[at as usize];
                chunks += 1;
                match &chunk.body {
                    Body::Pooled { start, end, .. } => {
                        pooled += 1;
                        bytes += end - start;
                    }
                    Body::Spilled { spill, start } => {
                        spilled += 1;
                        charged += core.spills.bytes_each() + CHUNK_BYTES;
                        bytes += spill.length() - start;
                    }
                    Body::Payload { payload, charged: part } => {
                        charged += *part as usize;
                        bytes += payload.len() as u32;
                    }
                    Body::Lent { .. } => panic!("slot {slot}: bytes are lent between turns"),
                    Body::Piped(pipe) => {
                        pipes += 1;
                        piped += pipe.held_bytes as usize;
                    }
                    Body::File(file) => {
                        pipes += u32::from(file.pipe.is_some());
                        piped += file.pipe.as_ref().map_or(0, |pipe| pipe.held_bytes as usize);
                    }
                }
                if chunk.next == NONE {
                    assert_eq!(connection.output_tail(), at, "slot {slot}: tail of its output");
                }
                at = chunk.next;
            }
            let closing = connection.state() == State::Closing;
            assert!(closing || connection.output_bytes() == bytes, "slot {slot}: output {bytes}");
            // A small file is read into the first send buffer, and a pipe into memory, whatever is
            // queued behind it.
            let beyond = core.send_buffers.bytes_each().max(self.pipes.bytes_each() as usize);
            let bound = core.settings.output_bytes_max() + beyond;
            assert!(bytes as usize <= bound, "slot {slot}: output {bytes} of {bound}");
        }
        charged += core.carries.iter().map(|(_, kept)| kept.capacity()).sum::<usize>();
        for (_, incoming) in &core.incoming {
            charged += incoming.kept_capacity();
            pipes += u32::from(incoming.pipe.is_some());
            piped += incoming.pipe.as_ref().map_or(0, |pipe| pipe.held_bytes as usize);
        }
        assert_eq!(
            core.counters.budget_used_bytes, charged as u64,
            "the budget counts all that is held"
        );
        core.check_budget();
        core.markers.check();
        assert_eq!(core.chunks.len(), chunks, "every chunk belongs to a connection");
        assert_eq!(core.send_buffers.total(), core.send_buffers.free() + pooled, "send buffers");
        assert_eq!(core.spills.in_use(), spilled, "buffers beyond the send buffers");
        assert_eq!(self.pipes.total(), self.pipes.free() + pipes, "pipes");
        let slow = |(slot, it): &(u32, &Slot)| {
            let open = core.slots.rare(*slot).open();
            it.in_flight().has(Kind::Open) && core.opens[open as usize].waits
        };
        let slow_opens = core.slots.iter().filter(slow).count();
        assert_eq!(self.slow_opens as usize, slow_opens, "opens that may wait");
        let mut slots = core.slots.iter();
        let splices = slots.by_ref().filter(|(_, it)| it.in_flight().has(Kind::Splice)).count();
        assert_eq!(self.splicing.len(), splices, "files that are spliced");
        let waits = core.opens.iter().filter(|(_, it)| it.queued).count();
        assert!(waits <= self.open_queue.len(), "an open in no queue");
        let begins = |(slot, it): (u32, &Slot)| {
            let open = core.opens.get(core.slots.rare(slot).open() as usize);
            it.touched() && open.is_some_and(|open| !open.queued)
        };
        let next = slow_opens > 0 || core.slots.iter().any(begins);
        assert!(waits == 0 || next, "opens wait for nothing");
        for place in &self.pipe_queue {
            assert!(
                self.waits_at(*place),
                "{place:?} is in the queue for a pipe, and does not wait"
            );
        }
        let splices = [Kind::Splice, Kind::SpliceToFile];
        let mut slots = core.slots.iter();
        let splicing =
            slots.any(|(_, it)| splices.into_iter().any(|kind| it.in_flight().has(kind)));
        assert!(splicing || self.ring.bytes_in_pipes() == piped, "bytes in pipes");
        let carries = core.slots.iter().filter(|(_, it)| it.carry() != NONE).count();
        assert_eq!(core.carries.len(), carries, "every carry belongs to a connection");
        let ending =
            |slot: &u32| core.slots.get(*slot).is_some_and(|it| it.is_cut() && it.opened());
        assert!(core.traffic.keys().all(ending), "bytes of connections that are not ending");
        let over = |slot: &u32| {
            core.slots.get(*slot).is_some_and(|it| it.state().is_over() && it.opened())
        };
        assert!(core.errnos.keys().all(over), "errors of connections that are not ending");
        let rare = || core.slots.iter().map(|(slot, _)| core.slots.rare(slot));
        let incoming = rare().filter(|it| it.incoming() != NONE).count();
        assert_eq!(core.incoming.len(), incoming, "every file on its way belongs to a connection");
        let forwards = rare().filter(|it| it.forward() != NONE).count();
        assert_eq!(core.forwards.len(), forwards, "every range belongs to a connection");
        let namings = rare().filter(|it| it.naming() != NONE).count();
        assert_eq!(core.namings.len(), namings, "every file to be named belongs to a connection");
        let opens = rare().filter(|it| it.open() != NONE).count();
        assert_eq!(core.opens.len(), opens, "every open belongs to a connection");
        let records = core.slots.iter().filter(|(_, it)| !it.is_plain()).count();
        assert_eq!(core.slots.records(), records, "every record belongs to a connection");
        let closing = core.files_closing.len() + self.files_closing as usize - kernel.files_gone;
        let held = core.files_open.count() as usize;
        let open = self.ring.open_counts().files;
        assert_eq!(open, held + closing + kernel.files_coming, "files");
    }

    fn check_descriptors(&mut self, kernel: &View) {
        let core = &self.core;
        let open = self.ring.open_counts();
        let sockets = core.slots.len() + self.accepting.waiting() + kernel.sockets_coming;
        assert_eq!(open.sockets, sockets - kernel.sockets_gone, "sockets");
        // Others may be on their way in the mailbox; that none stays is seen at the end.
        assert!(open.listeners >= self.accepting.open_now, "listeners");
        assert_eq!(open.pipe_ends as u64, 2 * self.pipes.made(), "ends of pipes");
        let ledger = self.ledger();
        let known = open.sockets + self.accepting.open_now + open.pipe_ends;
        let files = open.files + kernel.files_gone - kernel.files_coming;
        let known = (known + files + kernel.sockets_gone - kernel.sockets_coming) as u64;
        assert_eq!(ledger.descriptors, known, "descriptors in the ledger");
        assert_eq!(self.ring.closes_while_armed, 0, "nothing is closed that an operation uses");
        assert_eq!(ledger.stale_completions, 0, "no completion comes after its slot's life");
    }

    /// The kernel refuses who is banned, or nobody: never who was banned before.
    fn check_filters(&self) {
        let accepting = &self.accepting;
        let filters = |it: &&Listener| it.stage == Stage::Listening && !it.kind.is_shared();
        for listener in accepting.open().filter(filters) {
            let program = self.core.bans.program.as_deref().filter(|_| listener.filtered);
            let attached = self.ring.filter_of(listener.descriptor);
            assert_eq!(attached, program.unwrap_or_default(), "the filter of a listener");
        }
        for at_ms in accepting.open().filter_map(|listener| listener.stage.ends_at_ms()) {
            assert!(self.core.now_ms < at_ms + LATE_MS, "the last call should have ended {at_ms}");
        }
        self.check_users();
    }

    /// The clients of each listener are counted exactly. What nobody uses is forgotten.
    fn check_users(&self) {
        let accepting = &self.accepting;
        let mut users = std::collections::BTreeMap::new();
        let open = accepting.listeners.iter().enumerate().filter(|(_, it)| it.is_some());
        let open = open.map(|(at, _)| at as u16);
        let waiting = accepting.room.clients.iter().map(|client| client.listener);
        let served = self.core.slots.iter().filter_map(|(slot, _)| self.listener_of(slot));
        open.chain(waiting).chain(served).for_each(|it| *users.entry(it).or_default() += 1);
        assert_eq!(self.core.listeners.users(), Vec::from_iter(users), "clients by listener");
        let mut settings = std::collections::BTreeMap::new();
        let slots = self.core.slots.iter();
        let is_counted =
            |slot, it: &Slot| self.listener_of(slot).is_some() || it.settings() != OF_CONFIG;
        let counted = slots.filter(|(slot, it)| is_counted(*slot, it));
        counted.for_each(|(_, it)| *settings.entry(it.settings()).or_default() += 1);
        assert_eq!(self.core.settings.users(), Vec::from_iter(settings), "settings in use");
        let due_ms = self.core.listeners.next_ms().unwrap_or(u64::MAX);
        assert!(accepting.next_ms <= due_ms, "a removed listener's end is not planned");
    }

    fn listener_of(&self, slot: u32) -> Option<u16> {
        match self.core.slots.origin(slot) {
            Origin::Listener(number) => Some(number),
            Origin::Connected(_) => None,
        }
    }

    /// The clients of each listener, waiting ones included, by its number.
    pub fn clients_by_listener(&self) -> Vec<(u16, u64)> {
        let is_open = |number: u16| {
            let listeners = &self.accepting.listeners;
            listeners.get(usize::from(number)).is_some_and(Option::is_some)
        };
        let users = self.core.listeners.users().into_iter();
        let clients = |(number, users)| (number, u64::from(users) - u64::from(is_open(number)));
        users.map(clients).collect()
    }

    /// What the books say is in flight, and what the kernel has.
    fn check_operations(&self, kernel: &View) {
        let mut tokens = Vec::new();
        for (slot, connection) in self.core.slots.iter() {
            let mut counted = InFlight::default();
            let mut expect = |kind: Kind| {
                counted = counted.with(kind);
                tokens.push(Token::new(kind, self.core.slots.generation(slot), slot));
            };
            match connection.armed() {
                Armed::Nothing => {}
                Armed::Multishot | Armed::OneShot => expect(Kind::Receive),
                Armed::Probe => expect(Kind::Probe),
            }
            // A receive and a probe share a place.
            let of_slot = |kind: &Kind| {
                kind.place_in_slot().is_some() && *kind != Kind::Receive && *kind != Kind::Probe
            };
            let kinds = Kind::ALL.iter().copied().filter(of_slot);
            kinds.filter(|kind| connection.in_flight().has(*kind)).for_each(expect);
            assert_eq!(counted, connection.in_flight(), "slot {slot}: what is armed");
        }
        for (number, listener) in self.accepting.listeners.iter().enumerate() {
            let Some(listener) = listener else { continue };
            if listener.armed {
                tokens.push(Token::new(Kind::Accept, 0, number as u32));
            }
            if listener.cancelling {
                tokens.push(Token::new(Kind::CancelAccept, 0, number as u32));
            }
        }
        if self.wake_armed {
            tokens.push(Token::new(Kind::Wake, 0, 0));
        }
        tokens.sort_by_key(|token| token.user_data());
        let of_files = |token: &&Token| token.kind() == Some(Kind::CloseFile);
        let files = kernel.tokens.iter().filter(of_files).count();
        assert_eq!(files as u64, self.files_closing, "files whose close is in flight");
        let others = kernel.tokens.iter().filter(|token| !of_files(token)).copied();
        assert_eq!(others.collect::<Vec<_>>(), tokens, "operations in flight, left the kernel's");
        assert_eq!(self.in_flight, kernel.tokens.len() as u64, "count of operations in flight");
    }

    /// A connection that is on no list of work waits for something that can come: an operation, a
    /// deadline, a queue.
    fn check_progress(&self, slot: u32, connection: &Slot) {
        let (flight, state) = (connection.in_flight(), connection.state());
        let fail = |what: &str| {
            panic!("slot {slot} (descriptor {}) is {state} and {what}", connection.descriptor().0)
        };
        self.check_families(slot, &fail);
        let rare = self.core.slots.rare(slot);
        if connection.mode() == Mode::Parked && !connection.is_plain() && *rare == Rare::DEFAULT {
            fail("is parked and keeps a record with nothing in it");
        }
        let due_ms = self.core.timers.at_ms(slot);
        if let Some((at_ms, _)) = self.next_deadline(slot)
            && !self.is_due_by(slot, at_ms.max(self.core.now_ms))
            && self.core.sweeps.is_empty()
        {
            let now_ms = self.core.now_ms;
            fail(&format!("is due at {at_ms} ms, not at {due_ms:?}; it is {now_ms}"));
        }
        if flight.is_empty()
            && due_ms.is_none()
            && !self.is_in_starved_queue(slot)
            && !connection.waits_for_pipe()
            && !(state == State::Open && connection.hung_up())
        {
            fail("waits for nothing");
        }
    }

    /// Returns whether the wheel fires for a connection by then.
    fn is_due_by(&self, slot: u32, at_ms: u64) -> bool {
        self.core.timers.at_ms(slot).is_some_and(|due_ms| due_ms <= at_ms + 2 * TICK_MS)
    }

    /// Returns whether a connection rests, and the wheel ends that soon.
    pub(super) fn rests_shortly(&self, slot: u32) -> bool {
        let retry_ms = self.core.now_ms + super::deadlines::RETRY_MS;
        self.core.slots[slot].rests() && self.is_due_by(slot, retry_ms)
    }

    /// Returns whether a connection waits in the queue for a receive buffer.
    pub(super) fn is_in_starved_queue(&self, slot: u32) -> bool {
        let starved = self.core.slots[slot].mode() == Mode::Starved;
        starved && self.starved.contains(&(slot, self.core.slots.generation(slot)))
    }
}
