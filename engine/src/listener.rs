//! The listeners of an engine: what the application says of them, and the registry of their
//! numbers.

use crate::admission::{Bans, Prefix, program};
use crate::config::Config;
use crate::error::Error;
use crate::mailbox::{Busy, Command, Opened, Place};
use crate::remote::Remote;
use crate::ring::calls::{self, ListenerOptions};
use crate::ring::{Descriptor, Errno};
use crate::shard::core::milliseconds;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The limit on listeners, with removed ones that still have connections.
pub(crate) const LISTENERS_MAX: usize = u16::MAX as usize;

/// The time in which a listener must get its address. The error says it, too.
pub(crate) const LISTEN_WAIT: Duration = Duration::from_secs(1);
/// Why there is no further listener.
const TOO_MANY: &str = "the limit of 65535 listeners is reached; remove some";

/// The stage that a listener has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerState {
    /// It accepts clients.
    Open,
    /// It accepts no clients ([`Remote::pause_listener`](crate::Remote::pause_listener)); they wait
    /// in the listen backlog.
    Paused,
    /// It was removed ([`Remote::remove_listener`](crate::Remote::remove_listener)), and its last
    /// connection has not ended yet.
    Removed,
}

/// A snapshot of a listener, as [`Remote::listeners`](crate::Remote::listeners) returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Its number, as in [`Origin::Listener`](crate::Origin::Listener).
    pub number: u16,
    /// The address listened on, with the actual port.
    pub address: SocketAddr,
    /// The stage that it has reached.
    pub state: ListenerState,
    /// Its clients over all shards: its open and ending connections, and the clients that wait for
    /// a permit. Clients in the listen backlog do not count.
    pub connections: u64,
}

/// What all shards know of a listener together.
///
/// Each shard keeps a reference while the listener is open there or has clients there, and so does
/// a command on its way. The number is free for another listener when only the registry has one.
#[derive(Debug)]
pub(crate) struct Listening {
    number: u16,
    connections: AtomicU64,
}

impl Listening {
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Counts a client.
    pub fn enter(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the count of a client.
    pub fn leave(&self) {
        let before = self.connections.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more clients of a listener left than came");
    }

    /// The counted clients.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

struct Entry {
    listening: Arc<Listening>,
    address: SocketAddr,
    /// `None` while its sockets are being opened.
    state: Option<ListenerState>,
}

/// The listeners of an engine by number, and what all of them have in common.
pub(crate) struct Registry {
    entries: Vec<Option<Entry>>,
    pub backlog: u32,
    pub keepalive_s: Option<u32>,
    pub user_timeout_ms: Option<u32>,
    /// Accepted connections may have permits.
    pub serves_clients: bool,
}

impl Registry {
    pub fn new(config: &Config) -> Self {
        Self {
            entries: Vec::new(),
            backlog: config.backlog,
            keepalive_s: config.keepalive_s(),
            user_timeout_ms: config.user_timeout_ms(),
            serves_clients: config.outgoing_reserved < config.max_connections,
        }
    }

    /// Takes the lowest free number for a listener whose sockets will be opened. `None` if all are
    /// in use.
    pub fn reserve(&mut self, address: SocketAddr) -> Option<Arc<Listening>> {
        self.forget_ended();
        let free = self.entries.iter().position(Option::is_none);
        let number = free.unwrap_or(self.entries.len());
        if number >= LISTENERS_MAX {
            return None;
        }
        let connections = AtomicU64::new(0);
        let listening = Arc::new(Listening { number: number as u16, connections });
        let entry = Entry { listening: listening.clone(), address, state: None };
        match free {
            Some(_) => self.entries[number] = Some(entry),
            None => self.entries.push(Some(entry)),
        }
        Some(listening)
    }

    /// Gives a number back whose sockets could not be opened.
    pub fn cancel(&mut self, number: u16) {
        self.entries[usize::from(number)] = None;
    }

    /// The sockets are open, on this address.
    pub fn opened(&mut self, number: u16, address: SocketAddr) {
        if let Some(entry) = &mut self.entries[usize::from(number)] {
            (entry.address, entry.state) = (address, Some(ListenerState::Open));
        }
    }

    /// Changes the state of a listener. Returns false if there is no such listener, or if it was
    /// removed and is to be anything else.
    pub fn change(&mut self, number: u16, state: ListenerState) -> bool {
        self.forget_ended();
        let entry = self.entries.get_mut(usize::from(number)).and_then(Option::as_mut);
        let Some(entry) = entry else { return false };
        let found = match entry.state {
            None => false,
            Some(ListenerState::Removed) => state == ListenerState::Removed,
            Some(ListenerState::Open | ListenerState::Paused) => true,
        };
        if found {
            entry.state = Some(state);
        }
        found
    }

    /// The addresses that were not removed, also of listeners that are being opened.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let stays = |entry: &&Entry| entry.state != Some(ListenerState::Removed);
        self.entries.iter().flatten().filter(stays).map(|entry| entry.address).collect()
    }

    /// The listener of a number.
    pub fn info(&mut self, number: u16) -> Option<ListenerInfo> {
        self.list().into_iter().find(|info| info.number == number)
    }

    /// All listeners, by number.
    pub fn list(&mut self) -> Vec<ListenerInfo> {
        self.forget_ended();
        let info = |entry: &Entry| {
            let Entry { listening, address, state } = entry;
            let (number, connections) = (listening.number, listening.connections());
            Some(ListenerInfo { number, address: *address, state: (*state)?, connections })
        };
        self.entries.iter().flatten().filter_map(info).collect()
    }

    /// Frees the numbers of removed listeners that no shard knows any more.
    fn forget_ended(&mut self) {
        let ended = |entry: &Entry| {
            let removed = entry.state == Some(ListenerState::Removed);
            removed && Arc::strong_count(&entry.listening) == 1
        };
        for entry in &mut self.entries {
            if entry.as_ref().is_some_and(ended) {
                *entry = None;
            }
        }
        while matches!(self.entries.last(), Some(None)) {
            self.entries.pop();
        }
    }
}

/// Listening sockets that no shard has yet, one per shard that runs.
pub(crate) struct Sockets {
    listening: Arc<Listening>,
    descriptors: Vec<Descriptor>,
}

impl Sockets {
    /// The sockets for their shards, in order.
    pub fn share(mut self) -> Vec<Opened> {
        let opened = |socket| Opened::new(self.listening.clone(), socket);
        std::mem::take(&mut self.descriptors).into_iter().map(opened).collect()
    }

    /// The listener's number.
    pub fn number(&self) -> u16 {
        self.listening.number()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.descriptors.drain(..).for_each(calls::close);
    }
}

/// How the sockets of listeners are opened.
pub(crate) struct Opening {
    /// Until then, an address in use is tried again.
    pub deadline: Instant,
    filter: Vec<crate::admission::Instruction>,
}

impl Opening {
    /// `bans`: addresses that a socket filter refuses from the first moment on.
    pub fn new(deadline: Instant, bans: &[Prefix]) -> Self {
        let filter = if bans.is_empty() { None } else { program(&Bans::new(bans)) };
        Self { deadline, filter: filter.unwrap_or_default() }
    }

    /// Returns whether there is a filter.
    pub fn has_filter(&self) -> bool {
        !self.filter.is_empty()
    }
}

/// Adding and removing listeners while the engine runs.
impl Remote {
    /// Listens on a further address. Returns the listener's number and its address, with the actual
    /// port if that of `address` is 0. The call returns when the sockets are open: a client that
    /// connects from then on is served.
    ///
    /// Every shard opens a socket of its own, with the options and the ban filter of
    /// [`Config`](crate::Config). The number is the lowest that no other listener has and that no
    /// connection has any more.
    ///
    /// `[::]` takes IPv4 clients as well, unless the engine has an IPv4 address with the same port
    /// at this moment. The kernel fixes that when the socket is bound. Therefore an IPv4 address
    /// cannot be added to the port of a `[::]` that takes both families (EADDRINUSE), and a `[::]`
    /// that was added beside an IPv4 address takes IPv6 only, even after the other was removed.
    ///
    /// # Blocking
    /// For an address in use, the call tries again for one second: the sockets of a listener that
    /// was just removed live on for 100 ms. On a shard's own thread it does not wait.
    ///
    /// # Errors
    /// [`Error::Listen`] with the address and the errno of the call that failed on one of the
    /// shards; no shard listens on the address then. Its source is a [`Busy`] if a command queue is
    /// full, and a text if the engine drains or has ended, or if 65,535 listeners exist.
    /// [`Error::Config`] if `outgoing_reserved` leaves nothing to accepted connections.
    pub fn add_listener(&self, address: SocketAddr) -> Result<ListenerInfo, Error> {
        let in_callback = self.refuse_in_callback().is_err();
        let wait = if in_callback { Duration::ZERO } else { LISTEN_WAIT };
        let opening = Opening::new(Instant::now() + wait, &self.bans());
        if !self.registry().serves_clients {
            let (key, value) = ("outgoing_reserved", "max_connections".to_owned());
            return Err(Error::Config { key, value, remedy: "less than max_connections" });
        }
        let refused = |source: io::Error| Error::Listen { address, source };
        if self.is_draining() {
            return Err(refused(io::Error::other("the engine drains")));
        }
        // The places first: a socket that listens must come to its shard.
        let running = self.mailboxes().iter().filter(|mailbox| !mailbox.has_ended());
        let places: Result<Vec<Place<'_>>, Busy> = running.map(|it| it.reserve()).collect();
        let places = places.map_err(|busy| refused(io::Error::other(busy)))?;
        if places.is_empty() {
            return Err(refused(io::Error::other("every shard has ended")));
        }
        let addresses = self.registry().addresses();
        let (sockets, _) = self.open_listener(address, places.len(), &addresses, &opening)?;
        let number = sockets.number();
        for (place, command) in places.into_iter().zip(sockets.share()) {
            // A shard that has ended closes its socket.
            let _ = place.send(Command::Listen(vec![command]));
        }
        let info = self.registry().info(number);
        info.ok_or_else(|| refused(io::Error::other("it was removed at once")))
    }

    /// Opens the sockets of a listener, for so many shards. `addresses` are those that the engine
    /// listens on besides. Returns the errno with which the kernel refused the filter, too.
    pub(crate) fn open_listener(
        &self,
        address: SocketAddr,
        shards: usize,
        addresses: &[SocketAddr],
        opening: &Opening,
    ) -> Result<(Sockets, Option<Errno>), Error> {
        let mut registry = self.registry();
        let full = || Error::Listen { address, source: io::Error::other(TOO_MANY) };
        let listening = registry.reserve(address).ok_or_else(full)?;
        let options = ListenerOptions {
            addresses,
            deadline: opening.deadline,
            filter: &opening.filter,
            filter_failed: None.into(),
            backlog: registry.backlog,
            keepalive_s: registry.keepalive_s,
            user_timeout_ms: registry.user_timeout_ms,
        };
        drop(registry);
        let opened = calls::listeners(address, shards, &options);
        let mut registry = self.registry();
        match opened {
            Ok((bound, descriptors)) => {
                registry.opened(listening.number(), bound);
                Ok((Sockets { listening, descriptors }, options.filter_failed.get()))
            }
            Err(source) => {
                registry.cancel(listening.number());
                Err(Error::Listen { address, source })
            }
        }
    }

    /// Removes a listener and returns at once. No client whose handshake is complete or in progress
    /// is reset, as in a [drain](Self::drain) of the engine: the shards let no new handshake begin,
    /// accept what has come within 100 ms, and close their sockets.
    ///
    /// The connections of this listener end as in a drain: the shards call
    /// [`Handler::draining`](crate::Handler::draining) for each of them, and reset those that are
    /// left after `deadline` ([`Reason::Stopped`](crate::Reason::Stopped)). Connections of other
    /// listeners are not touched. Another call can only shorten the deadline.
    ///
    /// [`listeners`](Self::listeners) shows the listener as [`ListenerState::Removed`] until its
    /// last connection has ended. Then its number is free for another one.
    ///
    /// # Errors
    /// * [`Error::NoSuchListener`]: it never existed, or has ended.
    /// * [`Error::Busy`]: a command queue is full. Other shards may have taken the command, and the
    ///   listener counts as removed: call again.
    pub fn remove_listener(&self, number: u16, deadline: Duration) -> Result<(), Error> {
        let deadline_ms = milliseconds(deadline);
        let command = || Command::RemoveListener(number, deadline_ms);
        self.change_listener(number, ListenerState::Removed, command)
    }

    /// Pauses accepting at a listener and returns at once. Its clients wait in the listen backlog;
    /// a few that have come already are still accepted. Its connections go on.
    ///
    /// # Errors
    /// * [`Error::NoSuchListener`]: there is no listener of this number, or it was removed.
    /// * [`Error::Busy`]: a command queue is full. Other shards may have taken the command: call
    ///   again.
    pub fn pause_listener(&self, number: u16) -> Result<(), Error> {
        let command = || Command::PauseListener(number, true);
        self.change_listener(number, ListenerState::Paused, command)
    }

    /// Undoes [`pause_listener`](Self::pause_listener).
    ///
    /// # Errors
    /// Those of `pause_listener`.
    pub fn resume_listener(&self, number: u16) -> Result<(), Error> {
        let command = || Command::PauseListener(number, false);
        self.change_listener(number, ListenerState::Open, command)
    }

    /// The listeners, by number, with those that were removed and still have connections.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerInfo> {
        self.registry().list()
    }

    /// A listener whose sockets come from elsewhere.
    #[cfg(test)]
    pub(crate) fn register(&self, address: SocketAddr) -> Arc<Listening> {
        let mut registry = self.registry();
        let listening = registry.reserve(address).expect("a number is free");
        registry.opened(listening.number(), address);
        listening
    }

    fn change_listener(
        &self,
        number: u16,
        state: ListenerState,
        command: impl Fn() -> Command,
    ) -> Result<(), Error> {
        // Held while the commands are queued: two callers would reach the shards in another order.
        let mut registry = self.registry();
        if !registry.change(number, state) {
            return Err(Error::NoSuchListener { number });
        }
        self.to_all(command).map_err(Error::Busy)
    }
}
