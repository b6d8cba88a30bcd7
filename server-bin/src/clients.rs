//! The clients that proxies have named in the PROXY protocol, for the admin listener: the engine
//! knows the proxies only.

use ringwright::{ConnectionId, ConnectionInfo, Peer};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shards rarely wait for each other with so many parts.
const PARTS: usize = 16;

/// The clients of open connections.
#[derive(Debug, Default)]
pub struct Clients {
    /// By the remainder of the id.
    parts: [Mutex<HashMap<ConnectionId, SocketAddr>>; PARTS],
}

impl Clients {
    /// Notes the client of a connection.
    pub fn add(&self, connection: ConnectionId, client: SocketAddr) {
        self.part(connection).insert(connection, client);
    }

    /// Forgets a connection that has ended. Returns whether its client was noted.
    pub fn remove(&self, connection: ConnectionId) -> bool {
        self.part(connection).remove(&connection).is_some()
    }

    /// The client of a connection; the peer if no proxy has named one.
    #[must_use]
    pub fn of(&self, connection: &ConnectionInfo) -> Peer {
        let named = self.part(connection.id).get(&connection.id).copied();
        named.map_or(connection.peer, Peer::Ip)
    }

    fn part(&self, connection: ConnectionId) -> MutexGuard<'_, HashMap<ConnectionId, SocketAddr>> {
        let part = &self.parts[(connection.get() % PARTS as u64) as usize];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
