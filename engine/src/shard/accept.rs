//! Accepting: a multishot accept per listener, the waiting room, and pauses after EMFILE.

use super::state::State;
use super::{Full, Shard};
use crate::config::AtCapacity;
use crate::handler::{Handler, Origin};
use crate::mailbox::Sockets;
use crate::ring::{Completion, Descriptor, Kind, Op, Ring, Shutdown, Token};
use std::collections::VecDeque;

/// The longest pause of accepting.
const BACKOFF_MAX_MS: u64 = 1_000;
/// Connections taken from a backlog when a drain begins: it refills while it is emptied.
const BACKLOG_DRAIN_MAX: usize = 4_096;

pub(super) struct Listener {
    descriptor: Descriptor,
    pub(super) armed: bool,
    pub(super) cancelling: bool,
}

/// What a shard knows of accepting.
pub(crate) struct Accepting {
    pub(super) listeners: Vec<Listener>,
    at_capacity: AtCapacity,
    /// Accepted, without a permit: a descriptor and nothing else.
    waiting_room: VecDeque<(Descriptor, u16)>,
    backoff_first_ms: u64,
    backoff_ms: u64,
    /// Until when accepting pauses.
    resume_at_ms: Option<u64>,
    closed: bool,
}

impl Accepting {
    pub fn new(at_capacity: AtCapacity, backoff_first_ms: u64) -> Self {
        Self {
            listeners: Vec::new(),
            at_capacity,
            waiting_room: VecDeque::new(),
            backoff_first_ms,
            backoff_ms: backoff_first_ms,
            resume_at_ms: None,
            closed: false,
        }
    }

    pub fn listen(&mut self, sockets: Sockets) {
        if self.closed {
            return;
        }
        let descriptors = sockets.take();
        let listener = |descriptor| Listener { descriptor, armed: false, cancelling: false };
        self.listeners.extend(descriptors.into_iter().map(listener));
    }

    /// No accept is in flight and nobody waits.
    pub fn is_quiet(&self) -> bool {
        self.closed && self.waiting_room.is_empty()
    }

    pub fn waiting(&self) -> usize {
        self.waiting_room.len()
    }

    pub fn listening(&self) -> usize {
        if self.closed { 0 } else { self.listeners.len() }
    }

    pub fn resume_at_ms(&self) -> Option<u64> {
        self.resume_at_ms
    }

    /// Ends listening at once: an armed accept holds the socket beyond its close, and a listener
    /// that nobody serves blackholes its share.
    pub fn stop<R: Ring>(&mut self, ring: &mut R) {
        if !self.closed {
            for listener in &self.listeners {
                let _ = ring.shutdown(listener.descriptor, Shutdown::Both);
            }
        }
    }

    /// Closes what is still open.
    pub fn close<R: Ring>(&mut self, ring: &mut R) {
        if !std::mem::replace(&mut self.closed, true) {
            for listener in &self.listeners {
                ring.close_now(listener.descriptor);
            }
        }
        for (descriptor, _) in self.waiting_room.drain(..) {
            ring.close_now(descriptor);
        }
    }

    fn wanted(&self, draining: bool) -> bool {
        !draining && self.resume_at_ms.is_none() && self.waiting_room.is_empty()
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Arms what should accept and cancels what should not.
    pub(super) fn flush_accept(&mut self) -> Result<(), Full> {
        if self.accepting.closed {
            return Ok(());
        }
        let wanted = self.accepting.wanted(self.core.draining);
        for number in 0..self.accepting.listeners.len() {
            let Listener { descriptor, armed, cancelling } = self.accepting.listeners[number];
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
        if self.core.draining {
            self.close_listeners();
        }
        Ok(())
    }

    /// Once nothing is armed any more: takes what the backlog holds, for closing a listener
    /// resets whoever waits there.
    fn close_listeners(&mut self) {
        if self.accepting.listeners.iter().any(|listener| listener.armed || listener.cancelling) {
            return;
        }
        let mut left = BACKLOG_DRAIN_MAX;
        for number in 0..self.accepting.listeners.len() {
            let descriptor = self.accepting.listeners[number].descriptor;
            while left > 0 {
                let Ok(accepted) = self.ring.accept_now(descriptor) else { break };
                left -= 1;
                self.admit(accepted, number as u16);
            }
            self.ring.close_now(descriptor);
        }
        self.accepting.closed = true;
    }

    pub(super) fn on_accept(&mut self, kind: Kind, completion: Completion) {
        let number = completion.token.slot() as usize;
        if kind == Kind::CancelAccept {
            self.accepting.listeners[number].cancelling = false;
            return;
        }
        if !completion.more() {
            self.accepting.listeners[number].armed = false;
        }
        if completion.result >= 0 {
            self.accepting.backoff_ms = self.accepting.backoff_first_ms;
            return self.admit(Descriptor(completion.result), number as u16);
        }
        match -completion.result {
            // Cancelled by ourselves, or ended early: flush arms it again if it is wanted.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            // Out of descriptors or memory, or a client that was gone before it was accepted.
            // All of them pass, and armed again at once they would spin.
            _ => {
                self.core.counters.accept_backoffs += 1;
                self.accepting.resume_at_ms = Some(self.core.now_ms + self.accepting.backoff_ms);
                self.accepting.backoff_ms = (self.accepting.backoff_ms * 2).min(BACKOFF_MAX_MS);
            }
        }
    }

    /// A descriptor in hand: a permit makes it a connection.
    fn admit(&mut self, descriptor: Descriptor, listener: u16) {
        self.core.counters.accepted += 1;
        if self.accepting.waiting_room.is_empty() && self.core.admission.try_take() {
            return self.open(descriptor, listener);
        }
        match self.accepting.at_capacity {
            AtCapacity::Wait if !self.core.draining => {
                self.accepting.waiting_room.push_back((descriptor, listener));
                self.core.admission.set_waiting(self.core.shard, true);
            }
            AtCapacity::Wait | AtCapacity::Reject => {
                self.core.counters.rejected += 1;
                self.ring.close_now(descriptor);
            }
        }
    }

    /// Lets in who waits, as far as there are permits.
    pub(super) fn admit_waiting(&mut self) {
        if self.accepting.waiting_room.is_empty() {
            return;
        }
        while !self.accepting.waiting_room.is_empty() && self.core.admission.try_take() {
            let (descriptor, listener) =
                self.accepting.waiting_room.pop_front().expect("it is not empty");
            self.open(descriptor, listener);
        }
        if self.accepting.waiting_room.is_empty() {
            self.core.admission.set_waiting(self.core.shard, false);
        }
    }

    /// Turns away who waits, when a drain begins.
    pub(super) fn empty_waiting_room(&mut self) {
        for (descriptor, _) in std::mem::take(&mut self.accepting.waiting_room) {
            self.core.counters.rejected += 1;
            self.ring.close_now(descriptor);
        }
        self.core.admission.set_waiting(self.core.shard, false);
    }

    /// Accepting goes on after a pause.
    pub(super) fn resume_accepting(&mut self) {
        if self.accepting.resume_at_ms.is_some_and(|at| at <= self.core.now_ms) {
            self.accepting.resume_at_ms = None;
        }
    }

    /// A connection is there; its permit is taken.
    fn open(&mut self, descriptor: Descriptor, listener: u16) {
        let peer = match self.ring.peer_address(descriptor) {
            Ok(peer) => peer,
            Err(_) => {
                // Reset before it was accepted: it ends without ever having had a slot.
                self.core.counters.reset_before_accept += 1;
                self.ring.close_now(descriptor);
                self.core.admission.give_back();
                return;
            }
        };
        let origin = Origin::Listener(listener);
        let now_ms = self.core.now_ms;
        let slot = self.core.slots.insert(descriptor, State::Open, origin, peer, now_ms);
        self.introduce(slot, origin);
    }

    /// Shows a new connection to the application.
    pub(super) fn introduce(&mut self, slot: u32, origin: Origin) {
        self.core.counters.opened += 1;
        self.core.slots[slot].opened = true;
        self.core.touch(slot);
        self.application.opened(&mut self.core, slot, origin);
        if self.core.draining {
            self.application.draining(&mut self.core, slot);
        }
    }
}
