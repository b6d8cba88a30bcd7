//! Listeners: taken over, filtered while addresses are banned, paused, and closed when a drain
//! begins or they are removed. No client whose handshake is in progress is reset.
//!
//! # A drain, or the end of a listener
//! 1. A filter on the listeners drops first SYNs. No handshake begins any more; those in progress
//!    can complete.
//! 2. After 100 ms the accepts are cancelled, each backlog is accepted, and the listeners are
//!    closed. Where the kernel refuses the filter, this comes at once. (Attaching a filter needs
//!    CAP_NET_ADMIN on the kernel that was measured and nothing on others.) A shard accepts at most
//!    4,096 clients from a backlog, which refills without a filter. Closing a listener resets the
//!    clients that are left in its queue; they are counted as `handshakes_lost`.
//! 3. `draining` is called for every connection, 256 per turn. By default a connection ends as soon
//!    as it is at rest: nothing is queued, kept or being opened, and nothing is unread in the
//!    socket. An incomplete message is waited for until one second of silence. The socket is asked
//!    right before the FIN; bytes that arrive between the two system calls are counted as
//!    `cut_off`.
//! 4. Waiting clients are admitted as others leave.
//! 5. At the deadline, or at a stop, all remaining connections are reset and waiting clients are
//!    turned away. Three seconds after that of a drain, `join` reports operations that still have
//!    not ended (hung storage), and their memory is leaked.
//!
//! A removal takes one listener through these stages, with a deadline of its own. Before, a removal
//! ends the pause of its listener, so that nobody in the backlog is reset.
//! `EngineHandle::drain_connection` and `drain_connections` do step 3 for one connection or for all
//! of them, without a deadline and while the shard goes on. A connection is told once, whoever
//! asks.
//!
//! # Many listeners
//! A paused listener has no accept in flight. Once a turn, the shard compares two flags to learn if
//! accepts have to be armed or cancelled; the number of listeners does not matter.
//!
//! Hazard: closing one of several listeners may fill or empty the waiting room, and the others'
//! accepts depend on it. The flush looks again until nothing changes.

use super::Shard;
use super::accept::{Accepting, Listener, Stage};
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::address::Peer;
use crate::admission::{SocketKind, no_new_handshakes};
use crate::config::SharedSettings;
use crate::handler::Handler;
use crate::mailbox::{BanList, Opened};
use crate::ring::calls::TcpOptions;
use crate::ring::{Errno, Instruction, Kind, Op, Ring, Shutdown, Token};
use std::sync::Arc;

/// Connections taken from each backlog when a drain closes its listener: it refills while it is
/// emptied, where the kernel takes no filter.
const BACKLOG_DRAIN_MAX: usize = 4_096;
/// How long handshakes under way have for their last packet, once no new one can begin.
const HANDSHAKE_GRACE_MS: u64 = 100;
/// How often the listeners are asked how many packets they dropped.
const DROPS_EVERY_MS: u64 = 1_000;

impl Accepting {
    /// Counts the listeners after a change. The ledger shows the counts in every turn.
    fn recount(&mut self) {
        while matches!(self.listeners.last(), Some(None)) {
            self.listeners.pop();
        }
        self.open_now = self.open().count();
        let listening = self.open().filter(|listener| listener.stage == Stage::Listening);
        self.filters_attached = listening.filter(|listener| listener.filtered).count();
        self.changed = true;
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Takes over listening sockets.
    pub(super) fn listen(&mut self, opened: Vec<Opened>) {
        // Too late: dropped, they are closed.
        if self.accepting.ended {
            mark!("listen too late");
            return;
        }
        for opened in opened {
            let (listening, settings, descriptor) = opened.take();
            let at = usize::from(listening.number());
            let listeners = &mut self.accepting.listeners;
            if at >= listeners.len() {
                listeners.resize_with(at + 1, || None);
            }
            listeners[at] = Some(Listener::new(descriptor, listening.kind()));
            self.accepting.room.make_room_for(listening.backlog());
            let (number, kind) = (listening.number(), listening.kind());
            self.core.listeners.open(listening, settings);
            self.transit.set_removed(self.core.shard, number, false);
            if kind == SocketKind::SharedTcp {
                // Its backlog may be older than the options that the engine has given it.
                self.expect_other_options(number);
            }
        }
        self.filter_listeners();
    }

    /// Pauses accepting at a listener, or resumes it.
    pub(super) fn pause_listener(&mut self, number: u16, paused: bool) {
        if let Some(listener) = self.accepting.listener(number)
            && listener.stage == Stage::Listening
        {
            listener.paused = paused;
            self.accepting.changed = true;
        }
    }

    /// Closes a listener without resetting a client, and asks its connections to end. Those that
    /// are left after `deadline_ms` are reset.
    pub(super) fn remove_listener(&mut self, call: Calling, number: u16, deadline_ms: u64) {
        self.transit.set_removed(self.core.shard, number, true);
        self.take_over_rest(call);
        let until_ms = self.core.now_ms + deadline_ms;
        if !self.core.listeners.remove(number, until_ms) {
            mark!("removed where it is gone already");
            return;
        }
        self.stop_listener(number);
        self.core.drain_clients_of(number);
        self.plan_accepting();
    }

    /// From now on these addresses are not let in.
    pub(super) fn ban(&mut self, call: Calling, bans: Arc<BanList>) {
        self.core.bans = bans;
        self.turn_away_banned();
        self.filter_listeners();
        self.application.bans_changed(call, &mut self.core);
    }

    /// Clients that come from now on have these settings.
    pub(super) fn set_listener(&mut self, number: u16, settings: SharedSettings) {
        if self.core.listeners.knows(number) {
            let before = self.core.listeners.settings_of(number).values.tcp_options();
            let options = settings.values.tcp_options();
            self.core.listeners.set(number, settings);
            if options != before {
                self.set_tcp_options(number, options);
            }
        }
        self.turn_away_banned();
        self.filter_listeners();
    }

    /// Gives a listener's socket and its waiting clients other options.
    fn set_tcp_options(&mut self, number: u16, options: TcpOptions) {
        for client in &self.accepting.room.clients {
            if client.listener == number && client.peer != Peer::Unix {
                let _ = self.ring.set_tcp_options(client.descriptor, options);
            }
        }
        let Some(listener) = self.accepting.listener(number) else { return };
        if !listener.kind.is_unix() {
            let descriptor = listener.descriptor;
            let _ = self.ring.set_tcp_options(descriptor, options);
            self.expect_other_options(number);
        }
    }

    /// Clients in the accept queue, and in completions that the shard has not seen yet, have the
    /// options that the socket had before.
    pub(super) fn expect_other_options(&mut self, number: u16) {
        let unseen = self.core.counters.completion_entries as u32;
        let Some(listener) = self.accepting.listener(number) else { return };
        let descriptor = listener.descriptor;
        let count = self.ring.unaccepted(descriptor).unwrap_or(u32::MAX).saturating_add(unseen);
        if let Some(listener) = self.accepting.listener(number) {
            listener.with_other_options = count;
        }
    }

    /// Has the kernel refuse banned addresses. Where it will not, the look at accepted ones does
    /// the work alone.
    fn filter_listeners(&mut self) {
        let bans = self.core.bans.clone();
        let open = self.accepting.listeners.iter_mut().zip(0..);
        let open = open.filter_map(|(listener, number)| Some((listener.as_mut()?, number)));
        let filters = |it: &Listener| it.stage == Stage::Listening && !it.kind.is_shared();
        for (listener, number) in open.filter(|(it, _)| filters(it)) {
            let settings = &self.core.listeners.settings_of(number).values;
            // A filter cannot tell exempt clients from others.
            let wanted = !bans.bans.is_empty() && !bans.bans.meets(&settings.exempt);
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
        self.accepting.recount();
        if self.accepting.filters_attached == 0 {
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
        for at in 0..self.accepting.listeners.len() {
            self.add_drops(at as u16);
        }
    }

    fn add_drops(&mut self, number: u16) {
        let Some(listener) = self.accepting.listener(number) else { return };
        if listener.filtered
            && listener.stage == Stage::Listening
            && let Ok(drops) = self.ring.drops(listener.descriptor)
        {
            let more = drops.wrapping_sub(std::mem::replace(&mut listener.drops, drops));
            self.core.counters.listener_drops += u64::from(more);
        }
    }

    /// The beginning of the end of all listening: a drain.
    pub(super) fn stop_listening(&mut self) {
        self.accepting.ended = true;
        for at in 0..self.accepting.listeners.len() {
            self.stop_listener(at as u16);
        }
        self.drops_at_ms = None;
        self.plan_accepting();
    }

    /// The beginning of the end of a listener: lets nobody new begin a handshake.
    fn stop_listener(&mut self, number: u16) {
        self.add_drops(number);
        let ends_at_ms = self.core.now_ms + HANDSHAKE_GRACE_MS;
        let Some(listener) = self.accepting.listener(number) else { return };
        if listener.stage != Stage::Listening {
            return;
        }
        // Clients that wait in the backlog of a paused one are let in, too.
        listener.paused = false;
        listener.stage = Stage::Closing;
        let descriptor = listener.descriptor;
        if listener.kind.is_shared() {
            // The file of a Unix socket is gone, so that nobody new finds it. Clients of an
            // inherited one may be another process's.
            mark!("a listener with a shared socket ends");
        } else if self.ring.set_filter(descriptor, &no_new_handshakes()).is_ok() {
            mark!("last call");
            self.accepting.inherits_filter = true;
            if let Some(listener) = self.accepting.listener(number) {
                listener.stage = Stage::LastCall(ends_at_ms);
            }
        } else {
            mark!("no last call");
        }
        self.accepting.recount();
    }

    /// Ends the last call of all listeners at once.
    pub(super) fn end_last_calls(&mut self) {
        let open = self.accepting.listeners.iter_mut().flatten();
        for listener in open.filter(|listener| listener.stage != Stage::Listening) {
            listener.stage = Stage::Closing;
        }
        self.accepting.resume_at_ms = None;
        self.accepting.changed = true;
        self.plan_accepting();
    }

    /// Computes when something about accepting is due.
    pub(super) fn plan_accepting(&mut self) {
        let accepting = &mut self.accepting;
        let ends = accepting.listeners.iter().flatten().filter_map(|it| it.stage.ends_at_ms());
        let next = ends.chain(accepting.resume_at_ms).chain(self.core.listeners.next_ms()).min();
        accepting.next_ms = next.unwrap_or(u64::MAX);
    }

    /// Ends what is due: a pause, a last call, the time of a removed listener's connections.
    #[cold]
    #[inline(never)]
    pub(super) fn expire_accepting(&mut self) {
        let now_ms = self.core.now_ms;
        let due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if due(self.accepting.resume_at_ms) {
            self.accepting.resume_at_ms = None;
        }
        for listener in self.accepting.listeners.iter_mut().flatten() {
            if due(listener.stage.ends_at_ms()) {
                listener.stage = Stage::Closing;
            }
        }
        while let Some(number) = self.core.listeners.take_due(now_ms) {
            mark!("the time of a removed listener is over");
            if let Some(listener) = self.accepting.listener(number) {
                listener.stage = Stage::Closing;
            }
            self.turn_away_from(number);
            self.core.end_clients_of(number, Reason::Stopped);
        }
        self.accepting.changed = true;
        self.plan_accepting();
    }

    /// Closes the listeners whose end has come.
    pub(super) fn close_listeners(&mut self, call: Calling) {
        let closes = self.accepting.open().any(|listener| listener.stage == Stage::Closing);
        if !closes {
            return;
        }
        for at in 0..self.accepting.listeners.len() {
            let number = at as u16;
            // It does not wait for descriptors for longer than its clients may.
            let waits = self.accepting.resume_at_ms.is_some();
            let waits = waits && !self.core.listeners.is_over(number);
            let Some(listener) = self.accepting.listener(number) else { continue };
            if listener.stage == Stage::Closing && !listener.is_busy() && !waits {
                self.close_listener(call, number);
            }
        }
        self.accepting.recount();
        self.accepting.changed = false;
        // Whoever was put into the waiting room must be noted there before the next wait.
        self.admit_waiting(call);
    }

    /// Once nothing is armed any more: takes what the backlog holds, for closing a listener
    /// resets whoever waits there. Those are counted.
    fn close_listener(&mut self, call: Calling, number: u16) {
        let Some(listener) = self.accepting.listener(number) else { return };
        let (descriptor, kind) = (listener.descriptor, listener.kind);
        for _ in 0..BACKLOG_DRAIN_MAX {
            let is_over = self.drain_ends_at_ms.is_some() || self.core.listeners.is_over(number);
            match self.ring.accept_now(descriptor) {
                Ok(accepted) => {
                    mark!("taken from the backlog by a drain");
                    self.admit(call, accepted, number);
                }
                Err(Errno(libc::EAGAIN)) => break,
                Err(Errno(libc::ECONNABORTED)) => {}
                // Out of descriptors: others leave, and until the deadline there is time.
                Err(errno) if !is_over => {
                    mark!("a drain waits for a descriptor");
                    self.core.give_way(errno.0);
                    return self.pause_accepting(errno.0);
                }
                Err(_) => break,
            }
        }
        if !kind.is_shared() {
            let lost = self.ring.unaccepted(descriptor).unwrap_or(0);
            self.core.counters.handshakes_lost += u64::from(lost);
        }
        self.ring.close_now(descriptor);
        self.accepting.listeners[usize::from(number)] = None;
        self.core.listeners.close(number);
    }

    /// For a shard that failed. Ends listening at once: an armed accept holds the socket beyond
    /// its close, and a listener that nobody serves blackholes its share. Other shards go on with a
    /// shared socket, so only the accept ends.
    pub(super) fn abandon_listeners(&mut self, may: Submitting) {
        self.accepting.ended = true;
        self.pushes_left = self.accepting.listeners.len() as u32;
        for at in 0..self.accepting.listeners.len() {
            let Some(listener) = &self.accepting.listeners[at] else { continue };
            mark!("a failed shard abandons its listeners");
            if !listener.kind.is_shared() {
                let _ = self.ring.shutdown(listener.descriptor, Shutdown::Both);
            } else if listener.armed && !listener.cancelling {
                let target = Token::new(Kind::Accept, 0, at as u32);
                // Not taken: the accept ends with the ring.
                let token = Token::new(Kind::CancelAccept, 0, at as u32);
                let _ = self.push(may, token, Op::Cancel { target });
            }
        }
    }

    /// Closes the listeners that are open.
    pub(super) fn discard_listeners(&mut self) {
        self.accepting.ended = true;
        for (at, listener) in std::mem::take(&mut self.accepting.listeners).iter().enumerate() {
            if let Some(listener) = listener {
                self.ring.close_now(listener.descriptor);
                self.core.listeners.close(at as u16);
            }
        }
        self.accepting.recount();
    }
}
