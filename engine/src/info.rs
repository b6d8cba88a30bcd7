//! What is known of a connection, for whoever asks from outside.

use crate::{ConnectionId, Origin};
use std::net::SocketAddr;
use std::time::Duration;

/// A connection as its shard saw it when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its name.
    pub id: ConnectionId,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Where it came from.
    pub origin: Origin,
    /// Where it is in its life, as in ARCHITECTURE.md: `open`, `half_closed_by_peer`,
    /// `half_closed_by_us`, `draining`, `lingering`.
    pub state: &'static str,
    /// Since it was opened.
    pub age: Duration,
    /// Since bytes last came or went.
    pub idle: Duration,
    /// Bytes queued to be sent, files not counted.
    pub queued_bytes: usize,
}
