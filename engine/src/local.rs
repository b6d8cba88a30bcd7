//! What a handler may do on its own shard.

use crate::remote::Remote;
use crate::shard::core::Core;
use crate::shard::reconnect::Connect;
use crate::{
    Connection, ConnectionId, ConnectionInfo, KeepRefused, Reason, Reconnect, SlowReaders,
};
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

    /// The same in microseconds.
    #[cfg(test)]
    pub(crate) fn now_us(&self) -> u64 {
        self.core.now_us
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
            self.core.connects.push_back(Connect { to, tag, kept: false });
        }
        !self.core.draining
    }

    /// Connects out from this shard, as [`Local::connect`] does, and connects again whenever an
    /// attempt has failed or the connection has ended, after a wait that grows, see [`Reconnect`].
    ///
    /// Every attempt is answered by [`Handler::opened`](crate::Handler::opened) or
    /// [`Handler::connect_failed`](crate::Handler::connect_failed), every life has its own
    /// [`Handler::closed`](crate::Handler::closed). There is no next one after an end by
    /// [`Reason::LocalClose`] or [`Reason::Aborted`], which is the application's own doing; after
    /// [`Local::stop_reconnecting`]; when [`Reconnect::attempts`] are used up; and when the engine
    /// drains. After any other end there is: also when it was kicked, when a deadline passed, when the
    /// peer broke the protocol, when the handler panicked, and when the peer's FIN has answered our
    /// `shutdown`.
    ///
    /// The tag names it on this shard until then; a connection of `connect` with the same tag is
    /// not meant. One that waits for its next attempt holds no permit and no descriptor.
    ///
    /// # Errors
    /// See [`KeepRefused`]: then nothing is attempted, and nothing called.
    pub fn keep_connected(
        &mut self,
        to: SocketAddr,
        tag: u64,
        reconnect: Reconnect,
    ) -> Result<(), KeepRefused> {
        self.core.keep_connected(to, tag, reconnect)
    }

    /// Ends [`Local::keep_connected`]: there is no further attempt. One that is under way is still
    /// answered, and a connection that is open stays. Called in `opened` it means "until it has
    /// worked once". False: nothing is kept up under this tag any more.
    pub fn stop_reconnecting(&mut self, tag: u64) -> bool {
        self.core.stop_reconnecting(tag)
    }

    /// How long until a connection that is kept up is attempted again. `None`: an attempt is under
    /// way, it is open, or nothing is kept up under this tag any more. In `connect_failed` and
    /// `closed` that tells whether there will be another attempt, and when.
    #[must_use]
    pub fn reconnects_in(&self, tag: u64) -> Option<Duration> {
        self.core.reconnects_in(tag)
    }

    /// Asks for one call of [`Handler::tick`](crate::Handler::tick) so long after the beginning of
    /// the current batch, instead of one asked for before. Resolution: a microsecond; the kernel
    /// adds the thread's timer slack, 50 µs by default (`PR_SET_TIMERSLACK` of prctl(2)).
    pub fn tick_after(&mut self, after: Duration) {
        let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 50);
        self.core.tick_at_us = Some(self.core.now_us + after_us);
    }

    /// A connection of this shard, to do with it what its own callbacks may; `None` if it is not
    /// here, or is ending.
    pub fn connection(&mut self, id: ConnectionId) -> Option<Connection<'_>> {
        let slot = self.find(id).filter(|slot| self.core.slots[*slot].state.hears())?;
        Some(Connection::new(self.core, slot))
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
        let _ = Connection::new(self.core, slot).send_shared(bytes);
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
