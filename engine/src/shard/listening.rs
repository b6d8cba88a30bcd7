//! The listeners: taken over at the start, filtered while addresses are banned, closed when a drain
//! begins, without resetting anybody whose handshake was under way.

use super::Shard;
use super::accept::Listener;
use crate::admission::no_new_handshakes;
use crate::handler::Handler;
use crate::mailbox::{BanList, Sockets};
use crate::ring::{Ring, Shutdown};
use std::sync::Arc;

/// Connections taken from a backlog when a drain closes its listener: it refills while it is
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
            let program = if wanted { bans.program.as_deref() } else { Some([].as_slice()) };
            // One that failed leaves an earlier one in place, which is wrong by now.
            let set = |program| self.ring.set_filter(listener.descriptor, program).is_ok();
            let done = program.is_some_and(set);
            if !done && listener.filtered {
                mark!("a filter that cannot be changed is taken off");
                let _ = self.ring.set_filter(listener.descriptor, &[]);
            }
            listener.filtered = done && wanted;
            self.accepting.inherits_filter |= listener.filtered;
        }
        self.drops_at_ms = wanted.then_some(self.core.now_ms + DROPS_EVERY_MS);
    }

    pub(super) fn listeners_open(&self) -> usize {
        if self.accepting.stage == Stage::Closed { 0 } else { self.accepting.listeners.len() }
    }

    pub(super) fn filters_attached(&self) -> usize {
        let filtered = self.accepting.listeners.iter().filter(|listener| listener.filtered);
        if self.accepting.stage == Stage::Listening { filtered.count() } else { 0 }
    }

    /// Counts what the listeners have dropped, while a filter drops.
    pub(super) fn count_drops(&mut self) {
        if self.drops_at_ms.is_none_or(|at| at > self.core.now_ms) {
            return;
        }
        self.drops_at_ms = Some(self.core.now_ms + DROPS_EVERY_MS);
        for listener in &mut self.accepting.listeners {
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
        let program = no_new_handshakes();
        let listeners = &self.accepting.listeners;
        let mut all = !listeners.is_empty();
        for listener in listeners {
            all &= self.ring.set_filter(listener.descriptor, &program).is_ok();
        }
        self.accepting.inherits_filter |= all;
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
        let mut left = BACKLOG_DRAIN_MAX;
        for number in 0..self.accepting.listeners.len() {
            let descriptor = self.accepting.listeners[number].descriptor;
            while left > 0 {
                let Ok(accepted) = self.ring.accept_now(descriptor) else { break };
                mark!("taken from the backlog by a drain");
                left -= 1;
                self.admit(accepted, number as u16);
            }
            let lost = self.ring.unaccepted(descriptor).unwrap_or(0);
            self.core.counters.handshakes_lost += u64::from(lost);
            self.ring.close_now(descriptor);
        }
        self.accepting.stage = Stage::Closed;
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
