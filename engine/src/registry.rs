//! The registry of the listeners of an engine: their numbers, states and settings.
//!
//! `EngineHandle::prepare_listeners` opens a socket per shard, and `PreparedListeners::accept`
//! hands each to its shard. The places in the command queues are taken first: a socket that listens
//! must find its shard, and giving up on it would reset clients. If anything fails before, the
//! sockets are closed and the number is free.
//!
//! A listener has the lowest number that is free, so that tables by number stay small. The shards
//! share an `Arc` per listener (`admission/listening.rs`) that counts its clients. A shard keeps a
//! reference while the listener is open there or has clients there, and so does a command on its
//! way.
//!
//! Invariant: a number belongs to another listener only when no shard and no command refers to it
//! any more. Then the registry's reference is the last one. Nobody has to report that.
//!
//! Equal settings share a number, and those of `Config` have 0. Every listener, connection table
//! and command holds a reference: a number gets other settings only when nobody else refers to the
//! old ones. At most 256 different settings exist at a time.

use crate::address::Address;
use crate::admission::{Listening, SocketKind};
use crate::config::{Config, Listener, ListenerSettings, SharedSettings};
use crate::error::Error;
use crate::ring::calls::SocketFile;
use crate::validate;
use std::net::SocketAddr;
use std::sync::Arc;

/// The limit on listeners, with removed ones that still have connections.
pub(crate) const LISTENERS_MAX: usize = u16::MAX as usize;

/// The limit on different settings in use at a time, with those of the configuration. A connection
/// remembers its own in a byte.
const SETTINGS_MAX: usize = 256;
/// The stage that a listener has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerState {
    /// It accepts clients.
    Open,
    /// It accepts no clients
    /// ([`EngineHandle::pause_listener`](crate::EngineHandle::pause_listener)); they wait in the
    /// listen backlog.
    Paused,
    /// It was removed ([`EngineHandle::remove_listener`](crate::EngineHandle::remove_listener)),
    /// and its last connection has not ended yet.
    Removed,
}

/// A snapshot of a listener, as [`EngineHandle::listeners`](crate::EngineHandle::listeners) returns
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerInfo {
    /// Its number, as in [`Origin::Listener`](crate::Origin::Listener).
    pub number: u16,
    /// The address listened on, with the actual port.
    pub address: Address,
    /// The stage that it has reached.
    pub state: ListenerState,
    /// Its clients over all shards: its open and ending connections, and the clients that wait for
    /// a permit. Clients in the listen backlog do not count.
    pub connections: u64,
    /// The settings of connections that it accepts from now on.
    pub settings: ListenerSettings,
}

struct Entry {
    listening: Arc<Listening>,
    address: Address,
    /// The file of a Unix socket that was not removed.
    file: Option<SocketFile>,
    /// `None` until the shards get its sockets.
    state: Option<ListenerState>,
    settings: SharedSettings,
}

impl Entry {
    fn info(&self) -> Option<ListenerInfo> {
        let Self { listening, address, state, settings, file: _ } = self;
        Some(ListenerInfo {
            number: listening.number(),
            address: address.clone(),
            state: (*state)?,
            connections: listening.connections(),
            settings: (*settings.values).clone(),
        })
    }
}

/// The listeners of an engine by number, and what all of them have in common.
pub(crate) struct Registry {
    entries: Vec<Option<Entry>>,
    /// By number; those of the configuration come first.
    settings: Vec<Arc<ListenerSettings>>,
    backlog: u32,
    /// Accepted connections may have permits.
    pub serves_clients: bool,
}

impl Registry {
    pub fn new(config: &Config) -> Self {
        Self {
            entries: Vec::new(),
            settings: vec![Arc::new(ListenerSettings::of(config))],
            backlog: config.backlog,
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
        listener: &Listener,
        settings: SharedSettings,
    ) -> Option<Arc<Listening>> {
        self.forget_ended();
        let free = self.entries.iter().position(Option::is_none);
        let number = free.unwrap_or(self.entries.len());
        if number >= LISTENERS_MAX {
            return None;
        }
        let kind = match (listener.address.unix(), &listener.inherited) {
            (Some(_), _) => SocketKind::Unix,
            (None, Some(_)) => SocketKind::SharedTcp,
            (None, None) => SocketKind::Tcp,
        };
        let backlog = listener.backlog(self.backlog);
        let listening = Arc::new(Listening::new(number as u16, kind, backlog, listener.handler));
        let (address, shared) = (listener.address.clone(), listening.clone());
        let entry = Entry { listening: shared, address, file: None, state: None, settings };
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
    pub fn opened(&mut self, number: u16, address: Address, file: Option<SocketFile>) {
        if let Some(entry) = &mut self.entries[usize::from(number)] {
            (entry.address, entry.file) = (address, file);
        }
    }

    /// The shards get the sockets. Returns the listeners.
    pub fn accept(&mut self, numbers: &[u16]) -> Vec<ListenerInfo> {
        let accept = |number: &u16| {
            let entry = self.entries[usize::from(*number)].as_mut()?;
            entry.state = Some(ListenerState::Open);
            entry.info()
        };
        numbers.iter().filter_map(accept).collect()
    }

    /// The address of a listener that was prepared.
    pub fn address(&self, number: u16) -> &Address {
        let entry = self.entries[usize::from(number)].as_ref();
        &entry.expect("a prepared listener keeps its number").address
    }

    /// Removes the files of all Unix sockets, so that no further client finds them.
    pub fn remove_files(&mut self) {
        self.entries.iter_mut().flatten().for_each(|entry| entry.file = None);
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
            if state == ListenerState::Removed {
                entry.file = None;
            }
        }
        found
    }

    /// The IP addresses that were not removed, also of listeners that are being opened.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let stays = |entry: &&Entry| entry.state != Some(ListenerState::Removed);
        let stay = self.entries.iter().flatten().filter(stays);
        stay.filter_map(|entry| entry.address.ip()).collect()
    }

    /// All listeners, by number.
    pub fn list(&mut self) -> Vec<ListenerInfo> {
        self.forget_ended();
        self.entries.iter().flatten().filter_map(Entry::info).collect()
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
