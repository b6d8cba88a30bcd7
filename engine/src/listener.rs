//! Adding and removing listeners while the engine runs.
//!
//! A listener is added in two steps. [`EngineHandle::prepare_listeners`] opens its sockets, and
//! clients connect to its backlog. [`PreparedListeners::accept`] hands the sockets to the shards.
//! In between, an application makes known what the listener is for.

use crate::address::Address;
use crate::admission::{Bans, Listening, Prefix, program};
use crate::config::{Listener, ListenerSettings, SharedSettings, milliseconds};
use crate::error::{Error, SendCommandError};
use crate::handle::EngineHandle;
use crate::mailbox::{Command, Opened, Place};
use crate::registry::{ListenerInfo, ListenerState};
use crate::ring::calls::{self, ListenerOptions};
use crate::ring::{Descriptor, Errno, Instruction, Outside};
use crate::validate;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time in which a listener must get its address. The error says it, too.
pub(crate) const LISTEN_WAIT: Duration = Duration::from_secs(1);
/// Why there is no further listener.
const TOO_MANY: &str = "the limit of 65535 listeners is reached; remove some";

/// Listening sockets that no shard has yet, one per shard that runs.
pub(crate) struct Sockets {
    listening: Arc<Listening>,
    settings: SharedSettings,
    descriptors: Vec<Descriptor>,
}

impl Sockets {
    /// The sockets for their shards, in order.
    pub fn share(mut self) -> Vec<Opened> {
        let opened = |socket| {
            Opened::new(self.listening.clone(), self.settings.clone(), socket, Outside::KERNEL)
        };
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

/// Listeners whose sockets are open. Clients wait in their backlogs until
/// [`accept`](Self::accept) hands them to the shards.
///
/// Dropped instead, the listeners are gone, and the kernel resets the clients in their backlogs.
/// Until then `EngineHandle::listeners` does not show them.
pub struct PreparedListeners<'a> {
    handle: &'a EngineHandle,
    /// One per shard.
    places: Vec<Place<'a>>,
    sockets: Vec<Sockets>,
}

impl PreparedListeners<'_> {
    /// The numbers and addresses, in the order of the call that prepared them.
    #[must_use]
    pub fn list(&self) -> Vec<(u16, Address)> {
        let registry = self.handle.registry();
        let numbers = self.sockets.iter().map(Sockets::number);
        numbers.map(|number| (number, registry.address(number).clone())).collect()
    }

    /// Lets the shards accept the clients. Returns the listeners in the order of the call that
    /// prepared them.
    pub fn accept(mut self) -> Vec<ListenerInfo> {
        let sockets = std::mem::take(&mut self.sockets);
        let numbers: Vec<u16> = sockets.iter().map(Sockets::number).collect();
        let mut of_shards: Vec<Vec<Opened>> = self.places.iter().map(|_| Vec::new()).collect();
        for opened in sockets.into_iter().map(Sockets::share) {
            of_shards.iter_mut().zip(opened).for_each(|(shard, opened)| shard.push(opened));
        }
        // Held while the commands are queued: a removal must reach the shards behind them.
        let mut registry = self.handle.registry();
        let infos = registry.accept(&numbers);
        for (place, opened) in self.places.drain(..).zip(of_shards) {
            // A shard that has ended closes its sockets.
            let _ = place.send(Command::Listen(opened));
        }
        infos
    }
}

impl Drop for PreparedListeners<'_> {
    fn drop(&mut self) {
        let mut registry = self.handle.registry();
        self.sockets.iter().for_each(|sockets| registry.cancel(sockets.number()));
    }
}

impl fmt::Debug for PreparedListeners<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// How the sockets of listeners are opened.
pub(crate) struct Opening {
    /// Until then, an address in use is tried again.
    pub deadline: Instant,
    filter: Vec<Instruction>,
    bans: Bans,
}

impl Opening {
    /// `bans`: addresses that a socket filter refuses from the first moment on.
    pub fn new(deadline: Instant, bans: &[Prefix]) -> Self {
        let bans = Bans::new(bans);
        let filter = if bans.is_empty() { None } else { program(&bans) };
        Self { deadline, filter: filter.unwrap_or_default(), bans }
    }

    /// Returns whether there is a filter.
    pub fn has_filter(&self) -> bool {
        !self.filter.is_empty()
    }
}

/// Adding and removing listeners while the engine runs.
impl EngineHandle {
    /// Listens on a further address. Returns the listener's number and its address, with the actual
    /// port if that of `address` is 0. The call returns when the sockets are open: a client that
    /// connects from then on is served.
    ///
    /// Every shard opens a socket of its own, with the options and the ban filter of
    /// [`Config`](crate::Config). All shards share the one socket of a Unix address. The number is
    /// the lowest that no other listener has and that no connection has any more.
    ///
    /// `[::]` takes IPv4 clients as well, unless the engine has an IPv4 address with the same port
    /// at this moment. The kernel fixes that when the socket is bound. Therefore an IPv4 address
    /// cannot be added to the port of a `[::]` that takes both families (EADDRINUSE), and a `[::]`
    /// that was added beside an IPv4 address takes IPv6 only, even after the other was removed.
    /// [`Listener::v6_only`] decides instead.
    ///
    /// # Blocking
    /// For an address in use, the call tries again for one second: the sockets of a listener that
    /// was just removed live on for 100 ms. On a shard's own thread it does not wait.
    ///
    /// # Errors
    /// [`Error::Listen`] with the address and the errno of the call that failed on one of the
    /// shards; no shard listens on the address then. Its source is a [`SendCommandError`] if a
    /// command queue is full, and a text if the engine drains or has ended, or if 65,535 listeners
    /// exist. [`Error::Config`] if `outgoing_reserved` leaves nothing to accepted connections.
    /// [`Error::Config`] too if a value of the listener or its settings is not allowed, and
    /// [`Error::TooManySettings`] if 256 different settings are in use.
    #[doc(alias("bind", "listen"))]
    pub fn add_listener(&self, listener: &Listener) -> Result<ListenerInfo, Error> {
        let mut added = self.prepare_listeners(slice::from_ref(listener))?.accept();
        Ok(added.remove(0))
    }

    /// Listens on further addresses, as [`add_listener`](Self::add_listener) does, and accepts no
    /// client before [`PreparedListeners::accept`]. All of them are opened, or none.
    ///
    /// `[::]` takes IPv6 clients only if the list has an IPv4 address with the same port.
    ///
    /// # Errors
    /// Those of `add_listener`.
    pub fn prepare_listeners(
        &self,
        listeners: &[Listener],
    ) -> Result<PreparedListeners<'_>, Error> {
        let mut prepared =
            PreparedListeners { handle: self, places: Vec::new(), sockets: Vec::new() };
        let Some(first) = listeners.first() else { return Ok(prepared) };
        let in_callback = self.refuse_in_callback().is_err();
        let wait = if in_callback { Duration::ZERO } else { LISTEN_WAIT };
        let opening = Opening::new(Instant::now() + wait, &self.bans());
        if !self.registry().serves_clients {
            let (key, value) = ("outgoing_reserved", "max_connections".to_owned());
            return Err(Error::Config { key, value, remedy: "less than max_connections" });
        }
        let refused = |source: io::Error| Error::Listen { address: first.address.clone(), source };
        if self.is_draining() {
            return Err(refused(io::Error::other("the engine drains")));
        }
        // The places first: a socket that listens must come to its shard.
        let running = self.mailboxes().iter().filter(|mailbox| !mailbox.has_ended());
        let places: Result<Vec<Place<'_>>, SendCommandError> =
            running.map(|it| it.reserve()).collect();
        prepared.places = places.map_err(|busy| refused(io::Error::other(busy)))?;
        if prepared.places.is_empty() {
            return Err(refused(io::Error::other("every shard has ended")));
        }
        let mut addresses = self.registry().addresses();
        addresses.extend(listeners.iter().filter_map(|listener| listener.address.ip()));
        for listener in listeners {
            let shards = prepared.places.len();
            let (sockets, _) = self.open_sockets(listener, shards, &addresses, &opening)?;
            prepared.sockets.push(sockets);
        }
        Ok(prepared)
    }

    /// Opens the sockets of a listener, for so many shards. `addresses` are the IP addresses that
    /// the engine listens on besides. Returns the errno with which the kernel refused the filter,
    /// too.
    pub(crate) fn open_sockets(
        &self,
        listener: &Listener,
        shards: usize,
        addresses: &[SocketAddr],
        opening: &Opening,
    ) -> Result<(Sockets, Option<Errno>), Error> {
        validate::check_listener(listener)?;
        let address = &listener.address;
        let refused = |source| Error::Listen { address: address.clone(), source };
        let mut registry = self.registry();
        let settings = registry.settings(listener.settings.as_ref())?;
        let full = || refused(io::Error::other(TOO_MANY));
        let listening = registry.reserve(listener, settings.clone()).ok_or_else(full)?;
        let options = ListenerOptions {
            addresses,
            deadline: opening.deadline,
            filter: if opening.bans.meets(&settings.values.exempt) { &[] } else { &opening.filter },
            filter_failed: None.into(),
            backlog: listening.backlog(),
            v6_only: listener.v6_only,
            tcp: settings.values.tcp_options(),
        };
        drop(registry);
        let opened = match &listener.inherited {
            None => calls::listeners(address, shards, &options),
            Some(inherited) => inherited.take().and_then(|socket| {
                let options = (listener.backlog, options.tcp);
                calls::inherited_listener(&socket, address, shards, options)
            }),
        };
        let mut registry = self.registry();
        match opened {
            Ok(opened) => {
                registry.opened(listening.number(), opened.address, opened.file);
                let descriptors = opened.sockets;
                Ok((Sockets { listening, settings, descriptors }, options.filter_failed.get()))
            }
            Err(source) => {
                registry.cancel(listening.number());
                Err(refused(source))
            }
        }
    }

    /// Removes a listener and returns at once. No client whose handshake is complete or in progress
    /// is reset, as in a [drain](Self::drain) of the engine: the shards let no new handshake begin,
    /// accept what has come within 100 ms, and close their sockets. The file of a Unix socket is
    /// gone when the call returns, and the shards accept what its backlog holds.
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
    /// * [`Error::Busy`]: a command queue is full. No shard has taken the command, but the listener
    ///   counts as removed: call again.
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
    /// * [`Error::Busy`]: a command queue is full. No shard has taken the command: call again.
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

    /// Changes the settings of the connections that a listener accepts from now on, and returns at
    /// once. Present connections keep those that they have; a client that waits for a permit or in
    /// the listen backlog gets the new ones. `None`: the settings of the engine's
    /// [`Config`](crate::Config).
    ///
    /// # Errors
    /// * [`Error::Config`]: a value is not allowed.
    /// * [`Error::TooManySettings`]: 256 different settings are in use, by listeners or by
    ///   connections.
    /// * [`Error::NoSuchListener`]: there is no listener of this number, or it was removed.
    /// * [`Error::Busy`]: a command queue is full. No shard has taken the command: call again.
    pub fn set_listener(
        &self,
        number: u16,
        settings: Option<ListenerSettings>,
    ) -> Result<(), Error> {
        let mut registry = self.registry();
        let settings = registry.settings(settings.as_ref())?;
        if !registry.set(number, settings.clone()) {
            return Err(Error::NoSuchListener { number });
        }
        self.to_all(|| Command::SetListener(number, settings.clone())).map_err(Error::Busy)
    }

    /// The listeners, by number, with those that were removed and still have connections.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerInfo> {
        self.registry().list()
    }

    /// A listener whose sockets come from elsewhere.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn register(&self, listener: &Listener) -> (Arc<Listening>, SharedSettings) {
        let mut registry = self.registry();
        let settings = registry.settings(listener.settings.as_ref()).expect("few settings");
        let listening = registry.reserve(listener, settings.clone());
        let listening = listening.expect("a number is free");
        registry.opened(listening.number(), listener.address.clone(), None);
        registry.accept(&[listening.number()]);
        (listening, settings)
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
