//! Accepting: a multishot accept per listener, who is let in, and pauses after EMFILE. The waiting
//! room is in `waiting.rs`, the end of listening in `listening.rs`.

use super::listening::Stage;
use super::slots::Mode;
use super::state::State;
use super::waiting::WaitingRoom;
use super::{Full, Shard};
use crate::admission::{Cell, Holder};
use crate::config::{AtCapacity, Config};
use crate::handler::{Handler, Origin};
use crate::mailbox::BanList;
use crate::ring::{Completion, Descriptor, Kind, Op, Ring, Token};
use crate::shard::core::milliseconds;
use std::net::SocketAddr;
use std::sync::Arc;

/// The longest pause of accepting.
const BACKOFF_MAX_MS: u64 = 1_000;

pub(super) struct Listener {
    pub(super) descriptor: Descriptor,
    pub(super) armed: bool,
    pub(super) cancelling: bool,
    /// Its socket filter refuses banned addresses.
    pub(super) filtered: bool,
    /// Packets it had dropped at the last look.
    pub(super) drops: u32,
}

/// Accepted, and not turned away so far.
pub(super) struct Client {
    pub(super) descriptor: Descriptor,
    pub(super) listener: u16,
    pub(super) peer: SocketAddr,
    pub(super) cell: Cell,
}

/// What a shard knows of accepting.
pub(crate) struct Accepting {
    pub(super) listeners: Vec<Listener>,
    pub(super) stage: Stage,
    pub(super) bans: Arc<BanList>,
    pub(super) room: WaitingRoom,
    /// Sockets accepted may have inherited a filter.
    pub(super) inherits_filter: bool,
    pub(super) at_capacity: AtCapacity,
    backoff_first_ms: u64,
    backoff_ms: u64,
    /// Until when accepting pauses.
    resume_at_ms: Option<u64>,
}

impl Accepting {
    pub fn new(config: &Config) -> Self {
        let backoff_first_ms = milliseconds(config.accept_backoff);
        Self {
            listeners: Vec::new(),
            stage: Stage::Listening,
            bans: Arc::default(),
            room: WaitingRoom::new(config.waiting_max()),
            inherits_filter: false,
            at_capacity: config.at_capacity,
            backoff_first_ms,
            backoff_ms: backoff_first_ms,
            resume_at_ms: None,
        }
    }

    /// No accept is in flight and nobody waits.
    pub fn is_quiet(&self) -> bool {
        self.stage == Stage::Closed && self.room.is_empty()
    }

    pub fn waiting(&self) -> usize {
        self.room.len()
    }

    pub fn next_ms(&self) -> Option<u64> {
        match (self.resume_at_ms, self.stage.ends_at_ms()) {
            (Some(resume), Some(end)) => Some(resume.min(end)),
            (resume, end) => resume.or(end),
        }
    }

    /// A pause ends early.
    pub fn resume_now(&mut self) {
        self.resume_at_ms = None;
    }

    /// Whether accepts should be armed.
    pub(super) fn wanted(&self) -> bool {
        self.stage.accepts() && self.resume_at_ms.is_none() && self.room.is_empty()
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Arms what should accept and cancels what should not.
    pub(super) fn flush_accept(&mut self) -> Result<(), Full> {
        if self.accepting.stage == Stage::Closed {
            return Ok(());
        }
        let wanted = self.accepting.wanted();
        for number in 0..self.accepting.listeners.len() {
            let Listener { descriptor, armed, cancelling, .. } = self.accepting.listeners[number];
            let target = Token::new(Kind::Accept, 0, number as u32);
            if wanted && !armed && !cancelling {
                self.push(target, Op::Accept { listener: descriptor })?;
                self.accepting.listeners[number].armed = true;
            } else if !wanted && armed && !cancelling {
                let token = Token::new(Kind::CancelAccept, 0, number as u32);
                self.push(token, Op::Cancel { target })?;
                self.accepting.listeners[number].cancelling = true;
            }
        }
        if self.accepting.stage == Stage::Closing && self.accepting.resume_at_ms.is_none() {
            self.close_listeners();
        }
        Ok(())
    }

    pub(super) fn on_accept(&mut self, kind: Kind, completion: Completion) {
        let number = completion.token.slot() as usize;
        if kind == Kind::CancelAccept {
            self.accepting.listeners[number].cancelling = false;
            return;
        }
        let more = completion.more() || (bug!("accept-not-rearmed") && completion.result >= 0);
        if !more {
            self.accepting.listeners[number].armed = false;
        }
        if completion.result >= 0 {
            self.accepting.backoff_ms = self.accepting.backoff_first_ms;
            return self.admit(Descriptor(completion.result), number as u16);
        }
        match -completion.result {
            // Cancelled by ourselves, or ended early: flush arms it again if it is wanted.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                mark!("accept cut short");
            }
            // Out of descriptors or memory, or a client that was gone before it was accepted.
            // All of them pass, and armed again at once they would spin.
            errno => {
                mark!("accept failed");
                self.core.give_way(errno);
                self.pause_accepting();
            }
        }
    }

    /// Out of descriptors or memory: accepting pauses, longer each time.
    pub(super) fn pause_accepting(&mut self) {
        self.core.counters.accept_backoffs += 1;
        let pause_ms = if bug!("emfile-spins") { 0 } else { self.accepting.backoff_ms };
        self.accepting.resume_at_ms = Some(self.core.now_ms + pause_ms);
        self.accepting.backoff_ms = (self.accepting.backoff_ms * 2).min(BACKOFF_MAX_MS);
    }

    /// A descriptor in hand: a permit makes it a connection.
    pub(super) fn admit(&mut self, descriptor: Descriptor, listener: u16) {
        self.core.counters.accepted += 1;
        if self.drain_ends_at_ms.is_some() {
            mark!("accepted after the end of a drain");
            self.core.counters.turned_away += 1;
            return self.ring.close_now(descriptor);
        }
        let Some(client) = self.examine(descriptor, listener) else {
            return self.ring.close_now(descriptor);
        };
        let kept = bug!("permit-without-client") && std::mem::take(&mut self.accepting.room.noted);
        if self.accepting.room.is_empty()
            && (kept || self.core.admission.try_take(Holder::Accepted))
        {
            return self.open(client);
        }
        let waits = self.accepting.at_capacity == AtCapacity::Wait
            || (self.eviction.is_on() && !self.core.draining);
        if let Err(client) = self.accepting.room.enter(client, waits) {
            mark!("rejected");
            self.core.counters.rejected += 1;
            self.turn_away(client);
        }
    }

    /// Whether it may come in at all; `None`: it may not, and that was counted.
    fn examine(&mut self, descriptor: Descriptor, listener: u16) -> Option<Client> {
        if self.accepting.inherits_filter {
            // It would run for every packet of the connection's life, and keep its memory.
            let _ = self.ring.set_filter(descriptor, &[]);
        }
        let Ok(peer) = self.ring.peer_address(descriptor) else {
            // Reset before it was accepted.
            mark!("reset before accept");
            self.core.counters.reset_before_accept += 1;
            return None;
        };
        if self.accepting.bans.bans.contains(peer.ip()) {
            mark!("banned");
            self.core.counters.banned += 1;
            return None;
        }
        let Some(cell) = self.core.admission.count_address(peer.ip()) else {
            mark!("over the limit of its address");
            self.core.counters.over_address_limit += 1;
            return None;
        };
        Some(Client { descriptor, listener, peer, cell })
    }

    /// Closes a client that was counted by its address.
    pub(super) fn turn_away(&mut self, client: Client) {
        self.ring.close_now(client.descriptor);
        self.core.admission.forget_address(client.cell);
    }

    /// Accepting goes on after a pause.
    pub(super) fn resume_accepting(&mut self) {
        if self.accepting.resume_at_ms.is_some_and(|at| at <= self.core.now_ms) {
            self.accepting.resume_at_ms = None;
        }
    }

    /// A connection is there; its permit is taken.
    pub(super) fn open(&mut self, client: Client) {
        let Client { descriptor, listener, peer, cell } = client;
        let origin = Origin::Listener(listener);
        let now_ms = self.core.now_ms;
        let slot = self.core.slots.insert(descriptor, State::Open, origin, peer, now_ms);
        self.core.slots.identity_mut(slot).cell = cell;
        self.introduce(slot, origin);
    }

    /// Shows a new connection to the application.
    pub(super) fn introduce(&mut self, slot: u32, origin: Origin) {
        self.core.counters.opened += 1;
        self.core.slots[slot].opened = true;
        if self.reading_mode() == Mode::Once {
            self.core.slots.set_mode(slot, Mode::Once);
        }
        self.core.touch(slot);
        self.application.opened(&mut self.core, slot, origin);
        if self.core.draining {
            mark!("opened while draining");
            self.tell_of_drain(slot);
        }
    }
}
