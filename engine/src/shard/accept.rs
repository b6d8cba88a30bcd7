//! Accepting: a multishot accept per listener, the checks of a client, and pauses after EMFILE. The
//! waiting room is in `waiting.rs`; how listeners come and go in `listening.rs`.
//!
//! An accepted client passes these steps in order: its address is read, the bans are checked, and
//! places among those of its address and of its listener are taken. `ListenerSettings::exempt`
//! skips the bans and the place of the address. Then it takes a permit. Without one it enters the
//! waiting room, or is closed with `AtCapacity::Reject`, unless eviction may make room for it.
//!
//! Clients that never get a slot have counters of their own: `rejected`, `banned`,
//! `over_address_limit`, `over_listener_limit`, `reset_before_accept`, `gone_while_waiting`,
//! `turned_away`, `handshakes_lost`.

use super::Shard;
use super::bounds::Full;
use super::slots::Mode;
use super::state::State;
use super::turn::{Calling, Submitting};
use super::waiting::{Client, WaitingRoom};
use crate::address::Peer;
use crate::admission::{Cell, Holder, SocketKind};
use crate::config::{AtCapacity, Config, milliseconds};
use crate::handler::Handler;
use crate::info::Origin;
use crate::ring::{Completion, Descriptor, Kind, Op, Ring, Token};

/// The longest pause of accepting.
const BACKOFF_MAX_MS: u64 = 1_000;

/// The progress of the end of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody thinks of the end.
    Listening,
    /// No handshake begins any more; those under way are accepted until then, ms.
    LastCall(u64),
    /// Its accept is being cancelled, or the rest of the backlog is being taken.
    Closing,
}

impl Stage {
    pub fn accepts(self) -> bool {
        matches!(self, Self::Listening | Self::LastCall(_))
    }

    pub fn ends_at_ms(self) -> Option<u64> {
        if let Self::LastCall(at_ms) = self { Some(at_ms) } else { None }
    }
}

/// A listening socket.
pub(super) struct Listener {
    pub(super) descriptor: Descriptor,
    pub(super) kind: SocketKind,
    pub(super) stage: Stage,
    /// Its clients wait in the backlog.
    pub(super) paused: bool,
    pub(super) armed: bool,
    pub(super) cancelling: bool,
    /// Its socket filter refuses banned addresses.
    pub(super) filtered: bool,
    /// Packets it had dropped at the last look.
    pub(super) drops: u32,
    /// Clients that may come yet whose handshake was complete before the options of the socket
    /// changed, and that have inherited others.
    pub(super) with_other_options: u32,
}

impl Listener {
    pub(super) fn new(descriptor: Descriptor, kind: SocketKind) -> Self {
        Self {
            descriptor,
            kind,
            stage: Stage::Listening,
            paused: false,
            armed: false,
            cancelling: false,
            filtered: false,
            drops: 0,
            with_other_options: 0,
        }
    }

    /// Returns whether an accept should be armed if the shard wants any.
    pub(super) fn accepts(&self) -> bool {
        self.stage.accepts() && !self.paused
    }

    /// Returns whether an accept of it is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.armed || self.cancelling
    }
}

/// What a shard knows of accepting.
pub(crate) struct Accepting {
    /// Open listeners by number.
    pub(super) listeners: Vec<Option<Listener>>,
    /// The number of these.
    pub(super) open_now: usize,
    /// Those whose filter refuses who is banned.
    pub(super) filters_attached: usize,
    /// A drain has begun: no further listener is taken.
    pub(super) ended: bool,
    pub(super) room: WaitingRoom,
    /// Sockets accepted may have inherited a filter.
    pub(super) inherits_filter: bool,
    pub(super) at_capacity: AtCapacity,
    /// Something may have to be armed, cancelled or closed.
    pub(super) changed: bool,
    /// Accepts were wanted at the last look.
    was_wanted: bool,
    backoff_first_ms: u64,
    backoff_ms: u64,
    /// Until when accepting pauses.
    pub(super) resume_at_ms: Option<u64>,
    /// When something is due here, or the time of a removed listener's connections is over;
    /// `u64::MAX`: nothing is.
    pub(super) next_ms: u64,
}

impl Accepting {
    pub fn new(config: &Config) -> Self {
        let backoff_first_ms = milliseconds(config.accept_backoff);
        Self {
            listeners: Vec::new(),
            open_now: 0,
            filters_attached: 0,
            ended: false,
            room: WaitingRoom::new(2 * config.backlog as usize),
            inherits_filter: false,
            at_capacity: config.at_capacity,
            changed: false,
            was_wanted: false,
            backoff_first_ms,
            backoff_ms: backoff_first_ms,
            resume_at_ms: None,
            next_ms: u64::MAX,
        }
    }

    /// No accept is in flight, nobody waits, and nobody will come.
    pub fn is_quiet(&self) -> bool {
        self.ended && self.listeners.is_empty() && self.room.is_empty()
    }

    pub fn waiting(&self) -> usize {
        self.room.len()
    }

    pub(super) fn listener(&mut self, number: u16) -> Option<&mut Listener> {
        self.listeners.get_mut(usize::from(number)).and_then(Option::as_mut)
    }

    /// Open listeners.
    pub(super) fn open(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().flatten()
    }

    /// Returns whether accepts of listeners that accept should be armed.
    #[inline]
    pub(super) fn wanted(&self) -> bool {
        self.resume_at_ms.is_none() && self.room.is_empty()
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Arms what should accept and cancels what should not.
    #[inline]
    pub(super) fn flush_accept(&mut self, may: Submitting, call: Calling) -> Result<(), Full> {
        // Closing a listener may fill or empty the waiting room.
        while self.accepting.changed || self.accepting.wanted() != self.accepting.was_wanted {
            self.update_accepts(may, call)?;
        }
        Ok(())
    }

    #[inline(never)]
    fn update_accepts(&mut self, may: Submitting, call: Calling) -> Result<(), Full> {
        let wanted = self.accepting.wanted();
        // Until all of them have found room in the submission queue.
        self.accepting.changed = true;
        for at in 0..self.accepting.listeners.len() {
            let Some(listener) = &self.accepting.listeners[at] else { continue };
            let wanted = wanted && listener.accepts();
            let Listener { descriptor, kind, armed, cancelling, .. } = *listener;
            let target = Token::new(Kind::Accept, 0, at as u32);
            if cancelling || wanted == armed {
                continue;
            } else if wanted {
                // One client each, so that shards that share a socket take turns.
                let op = Op::Accept { listener: descriptor, multishot: !kind.is_shared() };
                self.push(may, target, op)?;
            } else {
                let token = Token::new(Kind::CancelAccept, 0, at as u32);
                self.push(may, token, Op::Cancel { target })?;
            }
            if let Some(listener) = &mut self.accepting.listeners[at] {
                (listener.armed, listener.cancelling) = (true, !wanted);
            }
        }
        (self.accepting.changed, self.accepting.was_wanted) = (false, wanted);
        self.close_listeners(call);
        Ok(())
    }

    #[inline(never)]
    pub(super) fn on_accept(&mut self, call: Calling, kind: Kind, completion: Completion) {
        let number = completion.token.slot() as u16;
        let listener = self.accepting.listener(number).expect("it is open while it is busy");
        if kind == Kind::CancelAccept {
            listener.cancelling = false;
            self.accepting.changed = true;
            return;
        }
        let more = completion.more() || (bug!("accept-not-rearmed") && completion.result >= 0);
        if !more {
            listener.armed = false;
            self.accepting.changed = true;
        }
        if completion.result >= 0 {
            self.accepting.backoff_ms = self.accepting.backoff_first_ms;
            return self.admit(call, Descriptor(completion.result), number);
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
                self.pause_accepting(errno);
            }
        }
    }

    /// Out of descriptors or memory: accepting pauses, longer each time.
    pub(super) fn pause_accepting(&mut self, errno: i32) {
        self.core.counters.accept_backoffs += 1;
        let pause_ms = if bug!("emfile-spins") { 0 } else { self.accepting.backoff_ms };
        self.accepting.resume_at_ms = Some(self.core.now_ms + pause_ms);
        report!(accept_paused(self.core.shard, errno, pause_ms));
        self.accepting.backoff_ms = (self.accepting.backoff_ms * 2).min(BACKOFF_MAX_MS);
        self.plan_accepting();
    }

    /// A descriptor in hand: a permit makes it a connection.
    pub(super) fn admit(&mut self, call: Calling, descriptor: Descriptor, listener: u16) {
        self.core.counters.accepted += 1;
        if self.drain_ends_at_ms.is_some() || self.core.listeners.is_over(listener) {
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
            return self.let_in(call, client);
        }
        let waits = self.accepting.at_capacity == AtCapacity::Wait
            || (self.eviction.is_on() && !self.core.draining);
        let listeners = self.accepting.open_now;
        if let Err(client) = self.accepting.room.enter(client, waits, listeners) {
            mark!("rejected");
            self.core.counters.rejected += 1;
            return self.turn_away(client);
        }
        report!(client_waits(self.core.shard, listener, self.accepting.room.clients.len()));
    }

    /// Whether it may come in at all; `None`: it may not, and that was counted.
    fn examine(&mut self, descriptor: Descriptor, listener: u16) -> Option<Client> {
        let is_unix = self.accepting.listener(listener).is_some_and(|it| it.kind.is_unix());
        let (peer, cell) = if is_unix {
            (Peer::Unix, Cell::NONE)
        } else {
            self.examine_address(descriptor, listener)?
        };
        if !self.core.listeners.enter(listener) {
            mark!("over the limit of its listener");
            self.core.counters.over_listener_limit += 1;
            self.core.admission.forget_address(cell);
            return None;
        }
        Some(Client { descriptor, listener, peer, cell })
    }

    /// The same for what depends on its address.
    fn examine_address(&mut self, descriptor: Descriptor, listener: u16) -> Option<(Peer, Cell)> {
        if self.accepting.inherits_filter {
            // It would run for every packet of the connection's life, and keep its memory.
            let _ = self.ring.set_filter(descriptor, &[]);
        }
        self.give_options(descriptor, listener);
        let Ok(peer) = self.ring.peer_address(descriptor) else {
            // Reset before it was accepted.
            mark!("reset before accept");
            self.core.counters.reset_before_accept += 1;
            return None;
        };
        let settings = &self.core.listeners.settings_of(listener).values;
        let is_exempt = settings.is_exempt(peer.ip());
        if !is_exempt && self.core.bans.bans.contains(peer.ip()) {
            mark!("banned");
            self.core.counters.banned += 1;
            return None;
        }
        let counted = || self.core.admission.count_address(peer.ip());
        let Some(cell) = (if is_exempt { Some(Cell::NONE) } else { counted() }) else {
            mark!("over the limit of its address");
            self.core.counters.over_address_limit += 1;
            return None;
        };
        Some((Peer::Ip(peer), cell))
    }

    /// Gives a client the options of its listener, if it may have inherited others.
    #[inline]
    fn give_options(&mut self, descriptor: Descriptor, listener: u16) {
        if let Some(listening) = self.accepting.listener(listener)
            && listening.with_other_options > 0
        {
            mark!("accepted with other options");
            listening.with_other_options -= 1;
            let options = self.core.listeners.settings_of(listener).values.tcp_options();
            // EINVAL: it was reset meanwhile, which its receive reports.
            let _ = self.ring.set_tcp_options(descriptor, options);
        }
    }

    /// Closes a client that was counted by its address.
    pub(super) fn turn_away(&mut self, client: Client) {
        self.ring.close_now(client.descriptor);
        self.core.listeners.leave(client.listener);
        self.core.admission.forget_address(client.cell);
    }

    /// A connection is there; its permit is taken.
    pub(super) fn open(&mut self, call: Calling, client: Client) {
        let Client { descriptor, listener, peer, cell } = client;
        let origin = Origin::Listener(listener);
        let now_ms = self.core.now_ms;
        let core = &mut self.core;
        let settings = core.listeners.settings_of(listener);
        let settings = core.settings.take(settings, &mut core.budget);
        let slots = &mut core.slots;
        let slot = slots.insert(descriptor, State::Open, origin, settings, peer, now_ms);
        self.core.slots.identity_mut(slot).cell = cell;
        self.introduce(call, slot, origin);
    }

    /// Shows a new connection to the application.
    pub(super) fn introduce(&mut self, call: Calling, slot: u32, origin: Origin) {
        self.core.counters.opened += 1;
        self.transit.note_opened(self.core.shard);
        self.core.slots[slot].note_opened();
        if self.reading_mode() == Mode::Once {
            self.core.slots.set_mode(slot, Mode::Once);
        }
        self.core.touch(slot);
        report!(opened(self.core.shard, self.core.id(slot), self.core.slots.peer(slot), origin));
        self.application.opened(call, &mut self.core, slot, origin);
        if self.core.drains(slot) {
            mark!("opened while draining");
            self.tell_of_drain(call, slot);
        }
    }
}
