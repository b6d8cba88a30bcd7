//! The listeners of an engine: what the application says of them, and the registry of their
//! numbers.

use crate::admission::{Bans, Prefix, program};
use crate::config::Config;
use crate::error::Error;
use crate::mailbox::{Busy, Command, Opened, Place};
use crate::remote::Remote;
use crate::ring::calls::{self, ListenerOptions};
use crate::ring::{Descriptor, Errno, Outside};
use crate::shard::core::milliseconds;
use crate::validate;
use std::io;
use std::net::{AddrParseError, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The limit on listeners, with removed ones that still have connections.
pub(crate) const LISTENERS_MAX: usize = u16::MAX as usize;

/// The limit on different settings in use at a time, with those of the configuration. A connection
/// remembers its own in a byte.
const SETTINGS_MAX: usize = 256;
/// The time in which a listener must get its address. The error says it, too.
pub(crate) const LISTEN_WAIT: Duration = Duration::from_secs(1);
/// Why there is no further listener.
const TOO_MANY: &str = "the limit of 65535 listeners is reached; remove some";

/// A listener for [`Config::listeners`] and [`Remote::add_listener`]: an address, and the settings
/// of its connections.
///
/// ```
/// use ringwright::{Config, Listener, ListenerSettings};
///
/// // The settings of the engine.
/// let plain: Listener = "127.0.0.1:7000".parse()?;
/// // The same, except for some.
/// let config = Config::default();
/// let settings = ListenerSettings {
///     idle_timeout: None,
///     connections_max: Some(100),
///     ..ListenerSettings::of(&config)
/// };
/// let private = Listener { address: "[::1]:7001".parse()?, settings: Some(settings) };
/// let config = Config { listeners: vec![plain, private], ..config };
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address to listen on. Port 0 takes a free port.
    pub address: SocketAddr,
    /// The settings of the connections that the listener accepts. `None`: those of the engine's
    /// [`Config`].
    pub settings: Option<ListenerSettings>,
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Self { address, settings: None }
    }
}

impl FromStr for Listener {
    type Err = AddrParseError;

    fn from_str(address: &str) -> Result<Self, AddrParseError> {
        address.parse::<SocketAddr>().map(Self::from)
    }
}

/// The settings of the connections that a listener accepts. [`Config`] explains the fields of the
/// same names.
///
/// [`Remote::set_listener`] changes them while the engine runs. A connection keeps the settings
/// that its listener had when the connection was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// See [`Config::idle_timeout`].
    pub idle_timeout: Option<Duration>,
    /// See [`Config::receive_timeout`].
    pub receive_timeout: Option<Duration>,
    /// See [`Config::write_timeout`].
    pub write_timeout: Option<Duration>,
    /// See [`Config::transfer_timeout`].
    pub transfer_timeout: Option<Duration>,
    /// See [`Config::min_rate`]. It needs `evict_idle`.
    pub min_rate: u32,
    /// Connections of this listener may be ended to make room for waiting clients of any listener.
    /// Nothing is ended unless [`Config::evict_idle`] is on.
    pub evict_idle: bool,
    /// See [`Config::count_traffic`].
    pub count_traffic: bool,
    /// See [`Config::message_bytes_max`].
    pub message_bytes_max: usize,
    /// The limit on connections of this listener over all shards, 1 or more; clients that wait for
    /// a permit count as well. `None`: no limit but those of the engine.
    ///
    /// The engine closes a client beyond the limit at once. The ledger counts these as
    /// `over_listener_limit`.
    pub connections_max: Option<usize>,
}

impl ListenerSettings {
    /// The settings of an engine's configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            idle_timeout: config.idle_timeout,
            receive_timeout: config.receive_timeout,
            write_timeout: config.write_timeout,
            transfer_timeout: config.transfer_timeout,
            min_rate: config.min_rate,
            evict_idle: config.evict_idle,
            count_traffic: config.count_traffic,
            message_bytes_max: config.message_bytes_max,
            connections_max: None,
        }
    }
}

/// Settings with the number that connections remember. The number belongs to other settings only
/// when nobody but the registry refers to these.
#[derive(Clone, Debug)]
pub(crate) struct SharedSettings {
    pub number: u8,
    pub values: Arc<ListenerSettings>,
}

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
    /// The settings of connections that it accepts from now on.
    pub settings: ListenerSettings,
}

/// The state of a listener that all shards share.
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

    /// Counts a client. False: there are as many as allowed.
    pub fn enter(&self, connections_max: Option<usize>) -> bool {
        let most = connections_max.map_or(u64::MAX, |most| most as u64);
        let more = |count| (count < most).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
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
    settings: SharedSettings,
}

/// The listeners of an engine by number, and what all of them have in common.
pub(crate) struct Registry {
    entries: Vec<Option<Entry>>,
    /// By number; those of the configuration come first.
    settings: Vec<Arc<ListenerSettings>>,
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
            settings: vec![Arc::new(ListenerSettings::of(config))],
            backlog: config.backlog,
            keepalive_s: config.keepalive_s(),
            user_timeout_ms: config.user_timeout_ms(),
            serves_clients: config.outgoing_reserved < config.max_connections,
        }
    }

    /// Finds or makes the settings of a listener.
    ///
    /// # Errors
    /// A value that is not allowed, or more different settings than have a number.
    pub fn settings(
        &mut self,
        settings: Option<&ListenerSettings>,
    ) -> Result<SharedSettings, Error> {
        let Some(settings) = settings else {
            return Ok(SharedSettings { number: 0, values: self.settings[0].clone() });
        };
        validate::check_settings(settings)?;
        self.forget_ended();
        let equal = self.settings.iter().position(|it| **it == *settings);
        let free = |it: &Arc<ListenerSettings>| Arc::strong_count(it) == 1;
        let unused = || self.settings.iter().skip(1).position(free).map(|at| at + 1);
        let at = equal.or_else(unused).unwrap_or(self.settings.len());
        if at >= SETTINGS_MAX {
            return Err(Error::TooManySettings);
        }
        if at == self.settings.len() {
            self.settings.push(Arc::new(settings.clone()));
        } else if equal.is_none() {
            self.settings[at] = Arc::new(settings.clone());
        }
        Ok(SharedSettings { number: at as u8, values: self.settings[at].clone() })
    }

    /// Changes the settings of a listener. Returns false if there is no such listener, or if it was
    /// removed.
    pub fn set(&mut self, number: u16, settings: SharedSettings) -> bool {
        let entry = self.entries.get_mut(usize::from(number)).and_then(Option::as_mut);
        let stays = |entry: &&mut Entry| {
            matches!(entry.state, Some(ListenerState::Open | ListenerState::Paused))
        };
        let Some(entry) = entry.filter(stays) else { return false };
        entry.settings = settings;
        true
    }

    /// Takes the lowest free number for a listener whose sockets will be opened. `None` if all are
    /// in use.
    pub fn reserve(
        &mut self,
        address: SocketAddr,
        settings: SharedSettings,
    ) -> Option<Arc<Listening>> {
        self.forget_ended();
        let free = self.entries.iter().position(Option::is_none);
        let number = free.unwrap_or(self.entries.len());
        if number >= LISTENERS_MAX {
            return None;
        }
        let connections = AtomicU64::new(0);
        let listening = Arc::new(Listening { number: number as u16, connections });
        let entry = Entry { listening: listening.clone(), address, state: None, settings };
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
            let Entry { listening, address, state, settings } = entry;
            Some(ListenerInfo {
                number: listening.number,
                address: *address,
                state: (*state)?,
                connections: listening.connections(),
                settings: (*settings.values).clone(),
            })
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
    /// [`Error::Config`] too if a value of the settings is not allowed, and
    /// [`Error::TooManySettings`] if 256 different settings are in use.
    pub fn add_listener(&self, listener: &Listener) -> Result<ListenerInfo, Error> {
        let address = listener.address;
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
        let (sockets, _) = self.open_listener(listener, places.len(), &addresses, &opening)?;
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
        listener: &Listener,
        shards: usize,
        addresses: &[SocketAddr],
        opening: &Opening,
    ) -> Result<(Sockets, Option<Errno>), Error> {
        let address = listener.address;
        let mut registry = self.registry();
        let settings = registry.settings(listener.settings.as_ref())?;
        let full = || Error::Listen { address, source: io::Error::other(TOO_MANY) };
        let listening = registry.reserve(address, settings.clone()).ok_or_else(full)?;
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
                Ok((Sockets { listening, settings, descriptors }, options.filter_failed.get()))
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

    /// Changes the settings of the connections that a listener accepts from now on, and returns at
    /// once. Present connections keep those that they have; a client that waits for a permit gets
    /// the new ones. `None`: the settings of the engine's [`Config`].
    ///
    /// # Errors
    /// * [`Error::Config`]: a value is not allowed.
    /// * [`Error::TooManySettings`]: 256 different settings are in use, by listeners or by
    ///   connections.
    /// * [`Error::NoSuchListener`]: there is no listener of this number, or it was removed.
    /// * [`Error::Busy`]: a command queue is full. Other shards may have taken the command: call
    ///   again.
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
        let listening = registry.reserve(listener.address, settings.clone());
        let listening = listening.expect("a number is free");
        registry.opened(listening.number(), listener.address);
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
