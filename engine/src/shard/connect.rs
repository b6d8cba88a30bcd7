//! Connecting out. Requested connects wait in a queue of the shard for the next flush. There each
//! takes a permit, a socket and a slot, or fails for itself. Only a full submission queue delays
//! those behind it.
//!
//! An attempt tries its addresses one after another, each in a slot of its own, and keeps its
//! permit in between: when the slot of a failed connect is closed, the attempt takes the permit
//! over and returns to the queue. The attempt of a slot is in [`Connects`] until it is answered.
//! connect(2) of a Unix socket never waits, so it is made here and needs no operation.
//!
//! A worker resolves the name of an attempt, which holds no permit meanwhile. It waits for that as
//! long as for an address, and a drain ends it.
//!
//! Hazard: a connect without a permit or a descriptor fails within the flush. A handler that
//! connects again in `connect_failed` would spin. Requests that are made in this callback begin 20
//! ms later, and no others.

mod queue;
mod requests;

pub use queue::{Attempt, Connects, NameKey};

use super::Shard;
use super::bounds::Full;
use super::deadlines::RETRY_MS;
use super::family::{After, Family, Outcome};
use super::settings::OF_CONFIG;
use super::slots::{NONE, Slot};
use super::state::{Event, State};
use super::turn::{Calling, Submitting};
use crate::address::{Address, Peer};
use crate::admission::Holder;
use crate::handler::Handler;
use crate::info::Origin;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Descriptor, Errno, Kind, Op, Ring, Token};
use crate::workers::{Job, Shut};
use crate::{Reason, SocketPath};
use std::io;
use std::net::SocketAddr;

/// The family of connects.
pub(super) struct Connecting;

impl Family for Connecting {
    type Due = ();

    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        outcome: Outcome,
        call: Calling,
    ) -> After {
        if outcome.kind == Kind::Connect {
            shard.on_connect(call, slot, outcome.completion.result);
        }
        After::Walk
    }

    #[inline]
    fn due<R: Ring, H: Handler>(
        shard: &Shard<R, H>,
        slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        if connection.state() == State::Connecting {
            candidate(connection.stalled_since_ms(), Some(shard.core.connect_ms(slot)), ());
        }
    }

    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        shard.cancel_late_connect(may, slot)
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        _slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        if connection.state() != State::Connecting {
            return;
        }
        if shard.core.draining && shard.core.sweeps.is_empty() {
            fail("still connects though it drains");
        }
        if !connection.in_flight().has(Kind::Connect) {
            fail("does not connect");
        }
    }
}

/// The result of the start of an attempt.
enum Started {
    /// Its name has to be resolved first.
    NeedsName,
    /// It connects.
    Connects(u32),
    /// It is connected.
    Connected(u32),
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Starts the requested connects. Each fails for itself; only a full submission queue delays
    /// those behind it.
    #[inline]
    pub(super) fn flush_connects(&mut self, may: Submitting, call: Calling) -> Result<(), Full> {
        if self.core.connects.is_empty() { Ok(()) } else { self.start_connects(may, call) }
    }

    #[inline(never)]
    fn start_connects(&mut self, may: Submitting, call: Calling) -> Result<(), Full> {
        self.core.connects.resume(self.core.now_ms, self.core.draining);
        // Those that are requested meanwhile belong to the next turn.
        for _ in 0..self.core.connects.count_due().min(Self::CONNECTS_MAX) {
            let Some(mut attempt) = self.core.connects.pop() else { break };
            match self.start_connect(may, &mut attempt) {
                Ok(Ok(Started::NeedsName)) => self.resolve(call, attempt),
                Ok(Ok(Started::Connects(slot))) => {
                    self.core.connects.with_slot.insert(slot, attempt);
                }
                Ok(Ok(Started::Connected(slot))) => self.is_connected(call, slot, attempt.tag),
                Ok(Err(error)) => self.fail(call, &attempt, error),
                Err(full) => {
                    mark!("connect meets a full queue");
                    self.core.connects.put_first(attempt);
                    return Err(full);
                }
            }
        }
        Ok(())
    }

    /// Gives an attempt its permit, and the next of its addresses a socket and a slot. An address
    /// without a socket has failed.
    fn start_connect(
        &mut self,
        may: Submitting,
        attempt: &mut Attempt,
    ) -> Result<io::Result<Started>, Full> {
        if let Some(error) = attempt.take_verdict() {
            return Ok(Err(error));
        }
        if self.core.draining {
            mark!("connect while draining");
            return Ok(Err(io::Error::other("the engine is draining")));
        }
        if attempt.needs_addresses() {
            return Ok(Ok(Started::NeedsName));
        }
        if !attempt.permit && !self.core.admission.try_take(Holder::Outgoing) {
            mark!("connect without a permit");
            let total = self.core.admission.total();
            return Ok(Err(io::Error::other(format!(
                "max_connections = {total} is reached; raise it, or reserve a part of it \
                 (outgoing_reserved)"
            ))));
        }
        attempt.permit = true;
        while let Some(address) = attempt.address() {
            let made = match &address {
                Address::Ip(to) => {
                    let source = attempt.connect.source_address();
                    self.ring.socket(to, source, self.core.limits.keepalive_s)
                }
                Address::Unix(path) => self.connect_unix(path),
            };
            match made {
                Ok(socket) => return self.use_socket(may, attempt, &address, socket).map(Ok),
                Err(errno) => {
                    mark!("connect without a descriptor");
                    self.core.give_way(errno.0);
                    attempt.note_failure(errno);
                }
            }
        }
        Ok(Err(attempt.take_error()))
    }

    fn connect_unix(&mut self, path: &SocketPath) -> Result<Descriptor, Errno> {
        let connected = self.ring.connect_unix(path);
        if connected.is_ok() {
            mark!("a Unix socket is connected");
        }
        connected
    }

    /// Gives a socket its slot, and connects it unless it is.
    fn use_socket(
        &mut self,
        may: Submitting,
        attempt: &mut Attempt,
        address: &Address,
        socket: Descriptor,
    ) -> Result<Started, Full> {
        let origin = Origin::Connected(attempt.tag);
        let peer = address.ip().map_or(Peer::Unix, Peer::Ip);
        let now_ms = self.core.now_ms;
        let (slots, state) = (&mut self.core.slots, State::Connecting);
        let slot = slots.insert(socket, state, origin, OF_CONFIG, peer, now_ms);
        if let Peer::Ip(to) = &peer {
            let op = Op::Connect { socket, address: std::ptr::from_ref::<SocketAddr>(to) };
            if let Err(full) = self.submit(may, slot, Kind::Connect, op) {
                // Nothing has happened to the socket yet.
                self.core.slots.remove(slot);
                self.ring.close_now(socket);
                return Err(full);
            }
        }
        // From now on it is the slot's.
        attempt.permit = false;
        if attempt.kept {
            let id = self.core.id(slot);
            self.core.links.lives(attempt.tag, id);
        }
        self.core.touch(slot);
        let connects = peer != Peer::Unix;
        Ok(if connects { Started::Connects(slot) } else { Started::Connected(slot) })
    }

    /// Has a worker resolve the name of an attempt.
    fn resolve(&mut self, call: Calling, mut attempt: Box<Attempt>) {
        let Some(name) = attempt.connect.name().cloned() else { return };
        let resolver = attempt.connect.resolver_of_name();
        let wait_ms = attempt.timeout_ms().unwrap_or(self.core.limits.connect_ms);
        let key = self.core.connects.next_name(self.core.now_ms + wait_ms);
        let job = Job::unordered(0, move || resolver(&name));
        match self.core.offload_name(key, job) {
            Ok(()) => self.core.connects.resolves(key, attempt),
            Err(refused) => {
                mark!("no worker resolves a name");
                let why = match refused {
                    Shut::NoWorkers => {
                        "the engine has no workers; set Config::workers or call \
                         EngineHandle::set_workers"
                    }
                    Shut::Full => "the job queue is full; raise workers or jobs_queued_max",
                };
                attempt.note_unresolved(&why, io::ErrorKind::Other);
                let error = attempt.take_error();
                self.fail(call, &attempt, error);
            }
        }
    }

    fn is_connected(&mut self, call: Calling, slot: u32, tag: u64) {
        let connection = &mut self.core.slots[slot];
        connection.on(Event::Connected);
        connection.note_activity(self.core.now_ms);
        self.core.slots.identity_mut(slot).opened_ms = self.core.now_ms.into();
        self.core.counters.connected += 1;
        self.introduce(call, slot, Origin::Connected(tag));
    }

    fn on_connect(&mut self, call: Calling, slot: u32, result: i32) {
        if self.core.draining {
            // Opened now it would be told of the drain twice: the sweep is on its way.
            self.core.end(slot, Reason::Drained, true);
        }
        debug_assert!(self.core.slots[slot].output_head() == NONE);
        let attempt = self.core.connects.with_slot.remove(&slot);
        let mut attempt = attempt.expect("what connects has its attempt");
        let goes_on = self.core.slots[slot].state() == State::Connecting;
        let connects = result == 0 && goes_on;
        let result = if connects { self.set_user_timeout(slot) } else { result };
        if result == 0 && connects {
            return self.is_connected(call, slot, attempt.tag);
        }
        mark!("connect failed");
        let errno = match -result {
            // Cancelled by the deadline; or it came about after we had given it up.
            libc::ECANCELED | 0 => {
                mark!("an address has not answered in time");
                libc::ETIMEDOUT
            }
            errno => errno,
        };
        attempt.note_failure(Errno(errno));
        self.core.end(slot, Reason::NetworkError, false);
        if goes_on && attempt.goes_on() {
            // The attempt waits until the slot is free.
            self.core.connects.with_slot.insert(slot, attempt);
            return;
        }
        self.core.counters.connect_failed += 1;
        self.core.connect_of_slot_failed(slot);
        let error = attempt.take_error();
        self.application.connect_failed(call, &mut self.core, attempt.tag, error);
    }

    /// Cancels a connect whose deadline has passed.
    fn cancel_late_connect(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        if connection.state() != State::Connecting
            || self.core.now_ms < connection.stalled_since_ms() + self.core.connect_ms(slot)
        {
            return Ok(());
        }
        if connection.in_flight().has(Kind::CancelConnect) {
            mark!("connect is being cancelled already");
            return Ok(());
        }
        let target = Token::new(Kind::Connect, self.core.slots.generation(slot), slot);
        self.submit(may, slot, Kind::CancelConnect, Op::Cancel { target })
    }

    /// Returns 0 or a negative errno, as the connect does. Hazard: set before the connect, the
    /// option would end the connect as well (`tcp_write_timeout` of the kernel), possibly long
    /// before `connect_timeout`.
    fn set_user_timeout(&mut self, slot: u32) -> i32 {
        let Some(ms) = self.core.limits.user_timeout_ms else { return 0 };
        let socket = self.core.slots[slot].descriptor();
        self.ring.set_user_timeout(socket, ms).map_or_else(|errno| -errno.0, |()| 0)
    }

    /// Reports that an attempt without a slot has failed, after it has given back its permit.
    pub(super) fn fail(&mut self, call: Calling, attempt: &Attempt, error: io::Error) {
        if attempt.permit {
            self.core.admission.give_back(Holder::Outgoing);
        }
        self.core.counters.connect_failed += 1;
        self.core.attempt_failed(attempt);
        self.core.connects.postpones_until_ms = Some(self.core.now_ms + RETRY_MS);
        self.application.connect_failed(call, &mut self.core, attempt.tag, error);
        if !bug!("failed-connect-delays-others") {
            self.core.connects.postpones_until_ms = None;
        }
    }
}
