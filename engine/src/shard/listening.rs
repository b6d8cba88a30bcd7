//! The listeners: taken over at the start, filtered while addresses are banned, closed when a drain
//! begins, without resetting anybody whose handshake was under way.

use super::Shard;
use super::accept::{Accepting, Listener};
use crate::admission::{Instruction, no_new_handshakes};
use crate::handler::Handler;
use crate::mailbox::{BanList, Sockets};
use crate::ring::{Errno, Ring, Shutdown};
use std::sync::Arc;

/// Connections taken from each backlog when a drain closes its listener: it refills while it is
/// emptied, where the kernel takes no filter.
const BACKLOG_DRAIN_MAX: usize = 4_096;
/// How long handshakes under way have for their last packet, once no new one can begin.
const HANDSHAKE_GRACE_MS: u64 = 100;
/// How often the listeners are asked how many packets they dropped.
const DROPS_EVERY_MS: u64 = 1_000;

/// How far the end of listening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody thinks of the end.
    Listening,
    /// No handshake begins any more; those under way are accepted until then, ms.
    LastCall(u64),
    /// Accepts are being cancelled, or the rest of the backlog is being taken.
    Closing,
    /// The listeners are closed, but a drain still lets in who waits.
    Closed,
}

impl Stage {
    pub fn accepts(self) -> bool {
        matches!(self, Self::Listening | Self::LastCall(_))
    }

    pub fn ends_at_ms(self) -> Option<u64> {
        if let Self::LastCall(at_ms) = self { Some(at_ms) } else { None }
    }
}

impl Accepting {
    pub(super) fn listeners_open(&self) -> usize {
        if self.stage == Stage::Closed { 0 } else { self.listeners.len() }
    }

    /// Listeners whose filter refuses who is banned.
    pub(super) fn filters_attached(&self) -> usize {
        let filtered = self.listeners.iter().filter(|listener| listener.filtered);
        if self.stage == Stage::Listening { filtered.count() } else { 0 }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Takes over listening sockets.
    pub(super) fn listen(&mut self, sockets: Sockets) {
        // Too late: dropped, they are closed.
        if self.accepting.stage != Stage::Listening {
            mark!("listen too late");
            return;
        }
        for descriptor in sockets.take() {
            let listener =
                Listener { descriptor, armed: false, cancelling: false, filtered: false, drops: 0 };
            self.accepting.listeners.push(listener);
        }
        self.filter_listeners();
    }

    /// From now on these addresses are not let in.
    pub(super) fn ban(&mut self, bans: Arc<BanList>) {
        self.accepting.bans = bans;
        self.turn_away_banned();
        if self.accepting.stage == Stage::Listening {
            self.filter_listeners();
        }
    }

    /// Has the kernel refuse banned addresses. Where it will not, the look at accepted ones does
    /// the work alone.
    fn filter_listeners(&mut self) {
        let bans = self.accepting.bans.clone();
        let wanted = !bans.bans.is_empty();
        for listener in &mut self.accepting.listeners {
            let descriptor = listener.descriptor;
            let mut set = |program: &[Instruction]| self.ring.set_filter(descriptor, program);
            let mut filtered = false;
            if wanted && let Some(program) = &bans.program {
                // There may be no memory for two at a time; for a moment there is none then.
                filtered = set(program).is_ok() || (set(&[]).is_ok() && set(program).is_ok());
            }
            if !filtered {
                // An earlier one is wrong by now.
                mark!("no filter");
                let _ = set(&[]);
            }
            let before = std::mem::replace(&mut listener.filtered, filtered);
            self.accepting.inherits_filter |= filtered;
            if before != filtered {
                // What was dropped without a filter is not counted, what was with it is.
                let drops = self.ring.drops(descriptor).unwrap_or(listener.drops);
                let more = drops.wrapping_sub(std::mem::replace(&mut listener.drops, drops));
                self.core.counters.listener_drops += if before { u64::from(more) } else { 0 };
            }
        }
        if !self.accepting.listeners.iter().any(|listener| listener.filtered) {
            self.drops_at_ms = None;
        } else if self.drops_at_ms.is_none() {
            self.drops_at_ms = Some(self.core.now_ms + DROPS_EVERY_MS);
        }
    }

    /// Counts what the listeners have dropped, while a filter drops.
    pub(super) fn count_drops(&mut self) {
        if self.drops_at_ms.is_none_or(|at| at > self.core.now_ms) {
            return;
        }
        self.drops_at_ms = Some(self.core.now_ms + DROPS_EVERY_MS);
        self.add_drops();
    }

    fn add_drops(&mut self) {
        let filtered = |listener: &&mut Listener| listener.filtered;
        for listener in self.accepting.listeners.iter_mut().filter(filtered) {
            if let Ok(drops) = self.ring.drops(listener.descriptor) {
                let more = drops.wrapping_sub(std::mem::replace(&mut listener.drops, drops));
                self.core.counters.listener_drops += u64::from(more);
            }
        }
    }

    /// The beginning of the end of listening: lets nobody new begin a handshake.
    pub(super) fn stop_listening(&mut self) {
        if self.accepting.stage != Stage::Listening {
            return;
        }
        self.add_drops();
        let program = no_new_handshakes();
        let listeners = &self.accepting.listeners;
        let mut all = !listeners.is_empty();
        for listener in listeners {
            let set = self.ring.set_filter(listener.descriptor, &program).is_ok();
            self.accepting.inherits_filter |= set;
            all &= set;
        }
        self.drops_at_ms = None;
        self.accepting.stage = if all {
            mark!("last call");
            Stage::LastCall(self.core.now_ms + HANDSHAKE_GRACE_MS)
        } else {
            mark!("no last call");
            Stage::Closing
        };
    }

    /// After the last call, or at once.
    pub(super) fn end_last_call(&mut self, at_once: bool) {
        if let Some(at_ms) = self.accepting.stage.ends_at_ms()
            && (at_once || at_ms <= self.core.now_ms)
        {
            self.accepting.stage = Stage::Closing;
        }
    }

    /// Once nothing is armed any more: takes what the backlog holds, for closing a listener
    /// resets whoever waits there. Those are counted.
    pub(super) fn close_listeners(&mut self) {
        if self.accepting.listeners.iter().any(|listener| listener.armed || listener.cancelling) {
            return;
        }
        for number in 0..self.accepting.listeners.len() {
            let descriptor = self.accepting.listeners[number].descriptor;
            for _ in 0..BACKLOG_DRAIN_MAX {
                match self.ring.accept_now(descriptor) {
                    Ok(accepted) => {
                        mark!("taken from the backlog by a drain");
                        self.admit(accepted, number as u16);
                    }
                    Err(Errno(libc::EAGAIN)) => break,
                    Err(Errno(libc::ECONNABORTED)) => {}
                    // Out of descriptors: others leave, and until the deadline there is time.
                    Err(errno) if self.drain_ends_at_ms.is_none() => {
                        mark!("a drain waits for a descriptor");
                        self.core.give_way(errno.0);
                        return self.pause_accepting();
                    }
                    Err(_) => break,
                }
            }
        }
        for listener in &self.accepting.listeners {
            let descriptor = listener.descriptor;
            let lost = self.ring.unaccepted(descriptor).unwrap_or(0);
            self.core.counters.handshakes_lost += u64::from(lost);
            self.ring.close_now(descriptor);
        }
        self.accepting.stage = Stage::Closed;
        // Whoever was put into the waiting room must be noted there before the next wait.
        self.admit_waiting();
    }

    /// For a shard that failed. Ends listening at once: an armed accept holds the socket beyond
    /// its close, and a listener that nobody serves blackholes its share.
    pub(super) fn abandon_listeners(&mut self) {
        if self.accepting.stage != Stage::Closed {
            for listener in &self.accepting.listeners {
                mark!("a failed shard abandons its listeners");
                let _ = self.ring.shutdown(listener.descriptor, Shutdown::Both);
            }
        }
    }

    /// Closes the listeners if they are open.
    pub(super) fn discard_listeners(&mut self) {
        if std::mem::replace(&mut self.accepting.stage, Stage::Closed) != Stage::Closed {
            for listener in &self.accepting.listeners {
                self.ring.close_now(listener.descriptor);
            }
        }
    }
}
