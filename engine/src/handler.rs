//! What an application writes.

use crate::{Connection, ConnectionId, JobDone, Local, NewFile, OpenFile, Reason, ReceiveFailed};
use std::io;
use std::time::Duration;

/// Where a connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Accepted on the listener of this number: its place in [`Config::listeners`](crate::Config).
    Listener(u16),
    /// Connected out by [`Local::connect`], [`Local::keep_connected`] or their like of
    /// [`Remote`](crate::Remote), with the tag given there.
    Connected(u64),
}

/// A deadline of [`Config`](crate::Config) that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Nothing was received or sent for `idle_timeout`.
    Idle,
    /// A message was begun and not finished within `receive_timeout`.
    Receive,
    /// Queued output made no progress for `write_timeout`.
    Write,
    /// A file being sent or received made no progress for `transfer_timeout`.
    Transfer,
}

/// One value per shard, made by the factory given to [`Engine::start`](crate::Engine::start) on
/// the shard's own thread. All its callbacks run there, one at a time, none inside another, and
/// must not block: while one runs, every connection of the shard waits.
///
/// # Panics in a callback
/// A panic ends that connection with [`Reason::HandlerPanicked`]; it is counted, and the shard
/// goes on.
pub trait Handler: 'static {
    /// The application's own state of one connection, stored in its slot.
    type State: Send + 'static;

    /// A connection is there. Called once, before anything else of it. It may send at once.
    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> Self::State;

    /// Bytes have come: everything unread, oldest first. Returns how many of them were used; the
    /// rest is kept and delivered again, with what follows, when more arrives or after
    /// [`Connection::resume`]. What is kept of a message is bounded by `message_bytes_max`; while
    /// the connection is paused, by that and what one batch of receive buffers brings.
    fn received(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize;

    /// The shard runs. Called once, before any connection.
    fn started(&mut self, shard: &mut Local<'_>) {
        let _ = shard;
    }

    /// The time asked for with [`Local::tick_after`] has come.
    fn tick(&mut self, shard: &mut Local<'_>) {
        let _ = shard;
    }

    /// A connect did not come about; there is no connection and no state. Of what
    /// [`Local::keep_connected`] keeps up, every attempt that fails comes here;
    /// [`Local::reconnects_in`] says whether another follows.
    fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: io::Error) {
        let _ = (shard, tag, error);
    }

    /// The peer has sent its FIN and will send no more; everything it sent was delivered, but for
    /// the beginning of a message of which [`Connection::need`] asked for more. A reply may still be sent. By default the connection is closed
    /// once its output has left, and after its jobs under way and the file being published were told of.
    fn half_closed(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = state;
        if connection.is_at_work() {
            connection.finish(Duration::ZERO);
        } else {
            connection.close();
        }
    }

    /// Output has fallen below the low-water mark after having been above the high one. Kept
    /// bytes are delivered again right after this.
    fn writable(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = (state, connection);
    }

    /// What [`Connection::open_file`] asked for.
    fn file_opened(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        result: io::Result<OpenFile>,
    ) {
        let _ = (state, connection, result);
    }

    /// The last byte of a file given to [`Connection::send_file`] has left the file: it is with the
    /// kernel, or, of a small file, in a send buffer on its way there.
    fn file_sent(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = (state, connection);
    }

    /// What [`Connection::create_file`] asked for. EOPNOTSUPP: the file system has no `O_TMPFILE`.
    fn file_created(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        result: io::Result<NewFile>,
    ) {
        let _ = (state, connection, result);
    }

    /// What came of [`Connection::receive_file`]. All bytes of the range are in the file, or the file
    /// is gone. Not called any more after the connection was closed or has gone.
    fn file_received(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFailed>,
    ) {
        let _ = (state, connection, result);
    }

    /// What came of [`Connection::publish_file`]. The file has its name, or is gone. Not called any
    /// more after the connection was closed or has gone.
    fn file_published(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        result: io::Result<()>,
    ) {
        let _ = (state, connection, result);
    }

    /// What came of a job of [`Connection::offload`]: in the order in which they were offloaded,
    /// unless it was asked for otherwise. Called for every job taken, but not after the connection
    /// was closed or has gone.
    fn job_done(&mut self, state: &mut Self::State, connection: &mut Connection<'_>, job: JobDone) {
        let _ = (state, connection, job);
    }

    /// The time set with [`Connection::set_timer`] has come.
    fn timer(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = (state, connection);
    }

    /// A deadline has passed and the connection is about to end for it. Something may be sent
    /// still; for [`Deadline::Idle`] and [`Deadline::Receive`] it will leave before the end.
    fn expired(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        deadline: Deadline,
    ) {
        let _ = (state, connection, deadline);
    }

    /// The engine drains: this connection should finish what it does and close before the
    /// drain's deadline. Called once, for a connection that is let in during a drain right after
    /// `opened`. By default it ends as soon as it is at rest, see [`Connection::finish`]: what
    /// had arrived by then was received and answered. One that the application has paused is
    /// not at rest: resume or close it here, or it is reset at the deadline.
    fn draining(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = state;
        connection.finish(Duration::ZERO);
    }

    /// The connection is gone; its descriptor is closed. Called exactly once for every `opened`,
    /// after everything else of it.
    fn closed(
        &mut self,
        state: Self::State,
        shard: &mut Local<'_>,
        id: ConnectionId,
        reason: Reason,
    ) {
        let _ = (state, shard, id, reason);
    }
}
