//! The number of clients of a listener.

use std::sync::atomic::{AtomicU64, Ordering};

/// The kinds of listening sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// TCP, with a socket for each shard.
    Tcp,
    /// TCP, with one socket for all shards and perhaps for other processes.
    SharedTcp,
    /// One Unix socket for all shards.
    Unix,
}

impl SocketKind {
    /// Returns whether clients have no address.
    pub fn is_unix(self) -> bool {
        self == Self::Unix
    }

    /// Returns whether others have the same socket: it gets no filter, and no shutdown(2).
    pub fn is_shared(self) -> bool {
        self != Self::Tcp
    }
}

/// The state of a listener that all shards share.
///
/// Each shard keeps a reference while the listener is open there or has clients there, and so does
/// a command on its way. The number is free for another listener when only the registry has one.
#[derive(Debug)]
pub struct Listening {
    number: u16,
    kind: SocketKind,
    backlog: u32,
    handler: u8,
    connections: AtomicU64,
}

impl Listening {
    pub fn new(number: u16, kind: SocketKind, backlog: u32, handler: u8) -> Self {
        Self { number, kind, backlog, handler, connections: AtomicU64::new(0) }
    }

    /// The clients that may wait in the backlog of each socket.
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// The number of the handler that serves its connections.
    pub fn handler(&self) -> u8 {
        self.handler
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// The kind of its sockets.
    pub fn kind(&self) -> SocketKind {
        self.kind
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
