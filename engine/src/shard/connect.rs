//! Connecting out. Requested connects wait in a queue of the shard for the next flush. There each
//! takes a permit, a socket and a slot, or fails for itself. Only a full submission queue delays
//! those behind it.
//!
//! Hazard: a connect without a permit or a descriptor fails within the flush. A handler that
//! connects again in `connect_failed` would spin. Requests that are made in this callback begin 20
//! ms later, and no others.

mod queue;

pub use queue::{Connect, Connects};

use super::Shard;
use super::bounds::Full;
use super::deadlines::RETRY_MS;
use super::family::{After, Family, Outcome};
use super::settings::OF_CONFIG;
use super::slots::{NONE, Slot};
use super::state::{Event, State};
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::admission::Holder;
use crate::handler::Handler;
use crate::info::Origin;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Kind, Op, Ring, Token};
use std::io;

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
        _slot: u32,
        connection: &Slot,
        candidate: &mut impl FnMut(u64, Option<u64>, Self::Due),
    ) {
        if connection.state() == State::Connecting {
            candidate(connection.stalled_since_ms(), Some(shard.core.limits.connect_ms), ());
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

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Starts the requested connects. Each fails for itself; only a full submission queue delays
    /// those behind it.
    pub(super) fn flush_connects(&mut self, may: Submitting, call: Calling) -> Result<(), Full> {
        if self.core.connects.is_empty() {
            return Ok(());
        }
        self.core.connects.resume(self.core.now_ms, self.core.draining);
        // Those that are requested meanwhile belong to the next turn.
        for _ in 0..self.core.connects.due.len().min(Self::CONNECTS_MAX) {
            let Some(connect) = self.core.connects.due.pop_front() else { break };
            match self.start_connect(may, &connect) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.fail(call, &connect, error),
                Err(full) => {
                    mark!("connect meets a full queue");
                    self.core.connects.due.push_front(connect);
                    return Err(full);
                }
            }
        }
        Ok(())
    }

    /// Gives a connect its permit, its socket and its slot, and submits it.
    fn start_connect(
        &mut self,
        may: Submitting,
        connect: &Connect,
    ) -> Result<io::Result<()>, Full> {
        let Connect { to, tag, kept } = *connect;
        if self.core.draining {
            mark!("connect while draining");
            return Ok(Err(io::Error::other("the engine is draining")));
        }
        if !self.core.admission.try_take(Holder::Outgoing) {
            mark!("connect without a permit");
            let total = self.core.admission.total();
            return Ok(Err(io::Error::other(format!(
                "max_connections = {total} is reached; raise it, or reserve a part of it \
                 (outgoing_reserved)"
            ))));
        }
        let socket = match self.ring.socket(&to, self.core.limits.keepalive_s) {
            Ok(socket) => socket,
            Err(errno) => {
                mark!("connect without a descriptor");
                self.core.give_way(errno.0);
                self.core.admission.give_back(Holder::Outgoing);
                return Ok(Err(errno.into()));
            }
        };
        let origin = Origin::Connected(tag);
        let now_ms = self.core.now_ms;
        let (slots, state) = (&mut self.core.slots, State::Connecting);
        let slot = slots.insert(socket, state, origin, OF_CONFIG, to.into(), now_ms);
        let op = Op::Connect { socket, address: &raw const to };
        if let Err(full) = self.submit(may, slot, Kind::Connect, op) {
            // Nothing has happened to the socket yet.
            self.core.slots.remove(slot);
            self.ring.close_now(socket);
            self.core.admission.give_back(Holder::Outgoing);
            return Err(full);
        }
        if kept {
            let id = self.core.id(slot);
            self.core.links.lives(tag, id);
        }
        self.core.touch(slot);
        Ok(Ok(()))
    }

    fn on_connect(&mut self, call: Calling, slot: u32, result: i32) {
        if self.core.draining {
            // Opened now it would be told of the drain twice: the sweep is on its way.
            self.core.end(slot, Reason::Drained, true);
        }
        debug_assert!(self.core.slots[slot].output_head() == NONE);
        let Origin::Connected(tag) = self.core.slots.origin(slot) else {
            unreachable!("only what connects out has a connect in flight")
        };
        let connects = result == 0 && self.core.slots[slot].state() == State::Connecting;
        let result = if connects { self.set_user_timeout(slot) } else { result };
        let connection = &mut self.core.slots[slot];
        if result == 0 && connects {
            connection.on(Event::Connected);
            connection.note_activity(self.core.now_ms);
            self.core.slots.identity_mut(slot).opened_ms = self.core.now_ms.into();
            self.core.counters.connected += 1;
            return self.introduce(call, slot, Origin::Connected(tag));
        }
        mark!("connect failed");
        let errno = match -result {
            // Cancelled by the deadline; or it came about after we had given it up.
            libc::ECANCELED | 0 => libc::ETIMEDOUT,
            errno => errno,
        };
        self.core.end(slot, Reason::NetworkError, false);
        self.core.counters.connect_failed += 1;
        self.core.connect_of_slot_failed(slot);
        self.application.connect_failed(
            call,
            &mut self.core,
            tag,
            io::Error::from_raw_os_error(errno),
        );
    }

    /// Cancels a connect whose deadline has passed.
    fn cancel_late_connect(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        if connection.state() != State::Connecting
            || self.core.now_ms < connection.stalled_since_ms() + self.core.limits.connect_ms
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

    /// Reports that a connect without a slot has failed.
    pub(super) fn fail(&mut self, call: Calling, connect: &Connect, error: io::Error) {
        self.core.counters.connect_failed += 1;
        self.core.attempt_failed(connect);
        self.core.connects.postpones_until_ms = Some(self.core.now_ms + RETRY_MS);
        self.application.connect_failed(call, &mut self.core, connect.tag, error);
        if !bug!("failed-connect-delays-others") {
            self.core.connects.postpones_until_ms = None;
        }
    }
}
