//! The description of a connection for callers outside its callbacks.

use crate::{ConnectionId, Origin};
use std::net::SocketAddr;
use std::time::Duration;

/// A snapshot of one open connection, taken by its shard.
///
/// [`Remote::find`](crate::Remote::find), [`Remote::list`](crate::Remote::list) and the same
/// methods of [`Local`](crate::Local) return it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The connection's id.
    pub id: ConnectionId,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The way the connection came to the engine: a listener or a connect.
    pub origin: Origin,
    /// The connection's state: `open`, `half_closed_by_peer`, `half_closed_by_us`, `draining`
    /// (`close` was called and output is still queued) or `lingering` (our FIN has left and the
    /// peer's is awaited). The file `ARCHITECTURE.md` of this crate has the table of states.
    pub state: &'static str,
    /// The time since the connection was opened, with a resolution of 1 ms.
    pub age: Duration,
    /// The time since bytes were last received or sent, with a resolution of 1 ms.
    pub idle: Duration,
    /// The queued output in bytes. Files do not count.
    pub queued_bytes: usize,
}

/// A connection that has ended, as [`Local::ended`](crate::Local::ended) describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedConnection {
    /// The peer's address.
    pub peer: SocketAddr,
    /// The way the connection came to the engine: a listener or a connect.
    pub origin: Origin,
    /// The time from `opened` to `closed`, with a resolution of 1 ms.
    pub lifetime: Duration,
    /// The bytes of the connection. `None` if
    /// [`Config::count_traffic`](crate::Config::count_traffic) is off, or if the kernel gave no
    /// answer.
    pub traffic: Option<Traffic>,
}

/// The bytes of a TCP stream in both directions, as the kernel counts them (tcp(7), `TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that arrived from the peer, read or not.
    pub received_bytes: u64,
    /// Bytes that were sent to the peer, acknowledged or not. A byte that was sent again counts
    /// once.
    pub sent_bytes: u64,
}
