//! Connecting out.

use super::reconnect::Connect;
use super::slots::NONE;
use super::state::{Event, State};
use super::{Full, RETRY_MS, Shard};
use crate::Reason;
use crate::handler::{Handler, Origin};
use crate::ring::{Kind, Op, Ring};
use std::io;

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Starts the connects that were asked for.
    pub(super) fn flush_connects(&mut self) -> Result<(), Full> {
        if self.connect_retry_at_ms.is_some_and(|at| at > self.core.now_ms) && !self.core.draining {
            return Ok(());
        }
        self.connect_retry_at_ms = None;
        for _ in 0..self.core.connects.len() {
            let Some(connect) = self.core.connects.pop_front() else { break };
            if self.core.draining {
                mark!("connect while draining");
                self.fail(&connect, io::Error::other("the engine is draining"));
                continue;
            }
            if !self.core.admission.try_take() {
                mark!("connect without a permit");
                // Whoever asks again at once would do so for ever.
                self.connect_retry_at_ms = Some(self.core.now_ms + RETRY_MS);
                let total = self.core.admission.total();
                self.fail(
                    &connect,
                    io::Error::other(format!("max_connections = {total} is reached; raise it")),
                );
                continue;
            }
            let Connect { to, tag, kept } = connect;
            let socket = match self.ring.socket(&to, self.core.limits.keepalive_s) {
                Ok(socket) => socket,
                Err(errno) => {
                    mark!("connect without a descriptor");
                    self.core.give_way(errno.0);
                    self.connect_retry_at_ms = Some(self.core.now_ms + RETRY_MS);
                    self.core.admission.give_back();
                    self.fail(&connect, errno.into());
                    continue;
                }
            };
            let origin = Origin::Connected(tag);
            let now_ms = self.core.now_ms;
            let slot = self.core.slots.insert(socket, State::Connecting, origin, to, now_ms);
            let op = Op::Connect { socket, address: &raw const to };
            if self.submit(slot, Kind::Connect, op).is_err() {
                mark!("connect meets a full queue");
                // Nothing has happened to the socket yet: back to where it was.
                self.core.slots.remove(slot);
                self.ring.close_now(socket);
                self.core.admission.give_back();
                self.core.connects.push_front(connect);
                return Err(Full);
            }
            if kept {
                let id = self.core.id(slot);
                self.core.links.lives(tag, id);
            }
            self.core.touch(slot);
        }
        Ok(())
    }

    pub(super) fn on_connect(&mut self, slot: u32, result: i32) {
        if self.core.draining {
            // Opened now it would be told of the drain twice: the sweep is on its way.
            self.core.end(slot, Reason::Drained, true);
        }
        debug_assert!(self.core.slots[slot].output_head == NONE);
        let Origin::Connected(tag) = self.core.slots.origin(slot) else {
            unreachable!("only what connects out has a connect in flight")
        };
        let connects = result == 0 && self.core.slots[slot].state == State::Connecting;
        let result = if connects { self.set_user_timeout(slot) } else { result };
        let connection = &mut self.core.slots[slot];
        if result == 0 && connects {
            connection.on(Event::Connected);
            connection.active_ms = self.core.now_ms;
            self.core.slots.identity_mut(slot).opened_ms = self.core.now_ms.into();
            self.core.counters.connected += 1;
            return self.introduce(slot, Origin::Connected(tag));
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
        self.application.connect_failed(&mut self.core, tag, io::Error::from_raw_os_error(errno));
    }

    /// Returns 0 or a negative errno, as the connect does. Hazard: set before the connect, the
    /// option would end the connect as well (`tcp_write_timeout` of the kernel), possibly long
    /// before `connect_timeout`.
    fn set_user_timeout(&mut self, slot: u32) -> i32 {
        let Some(ms) = self.core.limits.user_timeout_ms else { return 0 };
        let socket = self.core.slots[slot].descriptor;
        self.ring.set_user_timeout(socket, ms).map_or_else(|errno| -errno.0, |()| 0)
    }

    /// A connect that never had a slot, or has none any more, did not come about.
    pub(super) fn fail(&mut self, connect: &Connect, error: io::Error) {
        self.core.counters.connect_failed += 1;
        self.core.attempt_failed(connect);
        self.application.connect_failed(&mut self.core, connect.tag, error);
    }
}
