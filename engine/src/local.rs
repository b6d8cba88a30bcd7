//! What a handler may do on its own shard.

use crate::remote::Remote;
use crate::shard::core::{Core, milliseconds};
use crate::{ConnectionId, ConnectionInfo, Reason, SlowReaders};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The shard a callback runs on.
pub struct Local<'a> {
    core: &'a mut Core,
}

impl<'a> Local<'a> {
    pub(crate) fn new(core: &'a mut Core) -> Self {
        Self { core }
    }

    /// Its number, from 0.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.core.shard
    }

    /// Monotonic time since an arbitrary start, as of the current batch; milliseconds.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.core.now_ms)
    }

    /// Connections on this shard, those that are ending included: as many as permits are held here.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.core.slots.len()
    }

    /// Connects out from this shard. Later, [`Handler::opened`](crate::Handler::opened) with
    /// [`Origin::Connected`](crate::Origin::Connected) and this tag, or
    /// [`Handler::connect_failed`](crate::Handler::connect_failed). False: the engine drains, and
    /// nothing will come of it.
    pub fn connect(&mut self, to: SocketAddr, tag: u64) -> bool {
        if !self.core.draining {
            self.core.connects.push_back((to, tag));
        }
        !self.core.draining
    }

    /// Asks for one call of [`Handler::tick`](crate::Handler::tick) after so long, instead of
    /// one asked for before. Resolution: a millisecond.
    pub fn tick_after(&mut self, after: Duration) {
        self.core.tick_at_ms = Some(self.core.now_ms + milliseconds(after));
    }

    /// What is known of a connection of this shard; `None` if it is not here.
    #[must_use]
    pub fn info(&self, id: ConnectionId) -> Option<ConnectionInfo> {
        self.find(id).map(|slot| self.core.info(slot))
    }

    /// What is known of this shard's connections: those behind `after`, so many at most.
    #[must_use]
    pub fn list(&self, after: Option<ConnectionId>, limit: usize) -> Vec<ConnectionInfo> {
        self.core.list(after.map_or(0, |id| id.slot() + 1), limit)
    }

    /// Ends a connection of this shard with RST and [`Reason::Kicked`]; false if it is not here.
    pub fn kick(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.find(id) else { return false };
        self.core.end(slot, Reason::Kicked, true);
        true
    }

    /// Ends all connections of this shard with RST and [`Reason::Kicked`], a few hundred per turn.
    pub fn kick_all(&mut self) {
        self.core.end_all(Reason::Kicked);
    }

    /// Sends one shared payload to every connection of this shard.
    pub fn broadcast(&mut self, bytes: &Arc<[u8]>, slow: SlowReaders) {
        self.core.broadcast(bytes, slow);
    }

    /// Sends to a connection of this shard; false if it is not here.
    pub fn send_to(&mut self, id: ConnectionId, bytes: Arc<[u8]>) -> bool {
        let Some(slot) = self.find(id) else { return false };
        let _ = crate::Connection::new(self.core, slot).send_shared(bytes);
        true
    }

    /// The handle to the whole engine.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.core.remote
    }

    fn find(&self, id: ConnectionId) -> Option<u32> {
        if id.shard() == self.core.shard { self.core.slots.find(id) } else { None }
    }
}
