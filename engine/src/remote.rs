//! The thread-safe handle.

use crate::ConnectionId;
use crate::admission::Admission;
use crate::ledger::{Ledger, Published};
use crate::mailbox::{Busy, Command, Sending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

struct Shared {
    mailboxes: Vec<Sending>,
    published: Vec<Arc<Published>>,
    admission: Arc<Admission>,
}

/// Speaks to an engine from any thread, callbacks included. Nothing here blocks: a full queue is
/// [`Busy`]. Cheap to clone.
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

impl Remote {
    pub(crate) fn new(
        mailboxes: Vec<Sending>,
        published: Vec<Arc<Published>>,
        admission: Arc<Admission>,
    ) -> Self {
        Self(Arc::new(Shared { mailboxes, published, admission }))
    }

    /// Shards of the engine.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.0.mailboxes.len()
    }

    /// Begins to drain: nothing more is accepted, [`Handler::draining`](crate::Handler::draining)
    /// is called for every connection, and what is left after `deadline` is reset. Then the
    /// shards end. Called again it can only shorten the deadline. A shard that has ended is done.
    ///
    /// # Errors
    /// [`Busy`] when a shard's queue is full: that shard has not heard of it, call again.
    pub fn drain(&self, deadline: Duration) -> Result<(), Busy> {
        let mut result = Ok(());
        for mailbox in &self.0.mailboxes {
            let sent = mailbox.send(Command::Drain(deadline));
            if sent.is_err() && !mailbox.has_ended() {
                result = sent;
            }
        }
        result
    }

    /// Ends a connection with RST and [`Reason::Kicked`](crate::Reason::Kicked); one that is gone
    /// already is left in peace.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn kick(&self, id: ConnectionId) -> Result<(), Busy> {
        self.to(id.shard(), Command::Kick(id))
    }

    /// Sends to one connection; to one that is gone nothing is sent.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn send(&self, id: ConnectionId, bytes: Arc<[u8]>) -> Result<(), Busy> {
        self.to(id.shard(), Command::Send(id, bytes))
    }

    /// Sends one shared payload to every connection. A reader so slow that its queue passes
    /// `output_bytes_max` is ended with [`Reason::OutputTooLong`](crate::Reason::OutputTooLong).
    ///
    /// # Errors
    /// [`Busy`]: some shard did not take it, others may have.
    pub fn broadcast(&self, bytes: Arc<[u8]>) -> Result<(), Busy> {
        let mut result = Ok(());
        for mailbox in &self.0.mailboxes {
            result = mailbox.send(Command::Broadcast(bytes.clone())).and(result);
        }
        result
    }

    /// Connects out from a shard.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn connect(&self, shard: usize, to: SocketAddr, tag: u64) -> Result<(), Busy> {
        self.to(shard, Command::Connect(to, tag))
    }

    /// Connections open now, over all shards.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.ledger().open()
    }

    /// The ledger, as the shards last published it.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::of(self.0.published.iter().map(AsRef::as_ref), &self.0.admission)
    }

    pub(crate) fn to(&self, shard: usize, command: Command) -> Result<(), Busy> {
        self.0.mailboxes.get(shard).ok_or(Busy)?.send(command)
    }
}
