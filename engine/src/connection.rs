//! The connection that a callback is about, and what a handler can do with it.

mod files;
mod flow;
mod output;

use crate::config::ListenerSettings;
use crate::handle::EngineHandle;
use crate::info::{JoinGroupError, Origin};
use crate::local::Local;
use crate::mailbox::Command;
use crate::ring::{Calls, calls};
use crate::shard::core::Core;
use crate::shard::markers::MarkerKind;
use crate::workers::{Hold, Job, OffloadJobError, TakeHoldError};
use crate::{
    ConnectionId, Error, Peer, PeerCredentials, Reason, RunWithStateError, SendCommandError,
};
use std::any::{Any, TypeId};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// The connection that a callback is about.
///
/// A callback borrows it for its own duration. [`Local::connection`] gives access to another
/// connection of the same shard. [`EngineHandle`](crate::EngineHandle) reaches connections from any
/// thread, by their [`ConnectionId`].
///
/// Every method returns at once. A method records what the handler wants, and the shard turns that
/// into operations after the current batch of events. All output of a batch therefore leaves
/// together. Only [`cached_file`](Self::cached_file), [`send_cached`](Self::send_cached),
/// [`local_address`](Self::local_address), [`peer_credentials`](Self::peer_credentials) and
/// [`set_settings`](Self::set_settings) make system calls, none of which waits.
///
/// ```
/// use ringwright::{Connection, Handler, Origin, SendStatus};
///
/// /// Sends every line back. The line "quit" closes the connection.
/// struct Lines;
///
/// impl Handler for Lines {
///     type State = ();
///     fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
///         let _ = connection.send(b"welcome\n");
///     }
///     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         let mut used = 0;
///         while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
///             let line = &bytes[used..=used + length];
///             used += line.len();
///             if line == b"quit\n" {
///                 connection.close(); // after the queued output has left
///                 break;
///             }
///             if connection.send(line) == SendStatus::Full {
///                 break; // the unused lines are delivered again after `writable`
///             }
///         }
///         used
///     }
/// }
/// ```
///
/// # Backpressure
/// `send` never blocks. It returns [`SendStatus::Full`] above `output_high_bytes`; the engine then
/// pauses receiving. A handler that keeps sending anyway gets [`SendStatus::Refused`] at
/// `output_bytes_max`: it must send those bytes again, or reset the connection, because its stream
/// would have a gap.
///
/// [`SendStatus::Full`]: crate::SendStatus::Full
/// [`SendStatus::Refused`]: crate::SendStatus::Refused
///
/// # Ways to end a connection
/// | method | what leaves first | the peer sees | reason |
/// |---|---|---|---|
/// | [`close`] | all queued output | FIN | [`Reason::LocalClose`] |
/// | [`protocol_error`] | all queued output | FIN | [`Reason::ProtocolError`] |
/// | [`finish`] | output and work in progress | FIN | [`Reason::LocalClose`], [`Drained`] |
/// | [`shutdown`] | all queued output | FIN; may still send | [`Reason::PeerFin`] later |
/// | [`abort`] | nothing | RST | [`Reason::Aborted`] |
///
/// [`close`]: Self::close
/// [`protocol_error`]: Self::protocol_error
/// [`finish`]: Self::finish
/// [`shutdown`]: Self::shutdown
/// [`abort`]: Self::abort
/// [`Drained`]: Reason::Drained
///
/// A `close` that answers the peer's FIN counts as [`Reason::PeerFin`]. On a connection that is
/// ending, the methods do nothing.
pub struct Connection<'a> {
    core: &'a mut Core,
    slot: u32,
    /// Set in `received` only: `cached_file` and `send_cached` make their system calls through it.
    calls: Option<&'a mut dyn Calls>,
}

impl fmt::Debug for Connection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id())
            .field("peer", &self.peer())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The socket, for getsockopt(2), setsockopt(2) and ioctl(2): `TCP_INFO`, `SO_PEERSEC` and others.
///
/// # Hazards
/// Reading from it, writing to it and shutdown(2) disturb the engine, and so does `O_NONBLOCK`
/// (fcntl(2)). On a simulated kernel it is the number of no descriptor.
impl AsFd for Connection<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        calls::borrow_socket(self.core.slots[self.slot].descriptor())
    }
}

impl<'a> Connection<'a> {
    pub(crate) fn new(core: &'a mut Core, slot: u32) -> Self {
        Self { core, slot, calls: None }
    }

    pub(crate) fn with_calls(core: &'a mut Core, calls: &'a mut dyn Calls, slot: u32) -> Self {
        Self { core, slot, calls: Some(calls) }
    }

    /// The connection's id. No other connection of the process ever gets the same id.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.core.id(self.slot)
    }

    /// The peer's address, read once when the connection was opened (getpeername(2)). Clients of a
    /// Unix socket have none.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.core.slots.peer(self.slot)
    }

    pub(crate) fn core_mut(&mut self) -> &mut Core {
        self.core
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn descriptor(&self) -> crate::ring::Descriptor {
        self.core.slots[self.slot].descriptor()
    }

    /// The way the connection came to the engine: a listener or a connect.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.core.shown_origin(self.slot)
    }

    /// The connection's state, by the names of [`ConnectionInfo::state`]. It changes at once with
    /// calls that end the connection: `ending` follows [`abort`](Self::abort).
    ///
    /// [`ConnectionInfo::state`]: crate::ConnectionInfo::state
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.core.slots[self.slot].state().name()
    }

    /// Gives this connection other deadlines and limits than its listener or the configuration has.
    /// They hold from now on. `connections_max` and `exempt` have no effect here.
    ///
    /// An engine has room for 256 different settings, those of its listeners included. Connections
    /// with equal settings share them, so an application should have a few to choose from.
    ///
    /// # Errors
    /// * [`Error::Config`]: a value is not allowed.
    /// * [`Error::TooManySettings`]: 256 different settings are in use.
    #[doc(alias("timeout", "set_timeout", "set_idle_timeout", "message_bytes_max"))]
    #[doc(alias("SO_KEEPALIVE", "TCP_USER_TIMEOUT", "watermark"))]
    pub fn set_settings(&mut self, settings: &ListenerSettings) -> Result<(), Error> {
        let shared = self.core.handle.registry().settings(Some(settings))?;
        let (tcp, connection) = (shared.values.tcp_options(), &self.core.slots[self.slot]);
        if tcp != self.core.limits_of(connection).tcp && self.peer() != Peer::Unix {
            // EINVAL: it was reset meanwhile, which its receive reports.
            let _ = tcp.set(connection.descriptor());
        }
        self.core.set_settings(self.slot, &shared);
        Ok(())
    }

    /// The address of our side of the connection (getsockname(2), a system call). `None` for Unix
    /// sockets and on a simulated kernel.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        calls::local_address(self.core.slots[self.slot].descriptor()).ok()
    }

    /// The process at the other end of a Unix socket, when it connected (`SO_PEERCRED`, unix(7); a
    /// system call). `None` for TCP and on a simulated kernel.
    #[must_use]
    #[doc(alias("SO_PEERCRED", "ucred", "getpeereid"))]
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        let of_unix = self.peer() == Peer::Unix;
        let socket = self.core.slots[self.slot].descriptor();
        if of_unix { calls::peer_credentials(socket).ok() } else { None }
    }

    /// Sets a number of the application's own, which [`ConnectionInfo::user_data`] and
    /// [`EndedConnection::user_data`] show: the number of a user or of a session, for example.
    ///
    /// [`ConnectionInfo::user_data`]: crate::ConnectionInfo::user_data
    /// [`EndedConnection::user_data`]: crate::EndedConnection::user_data
    #[doc(alias("label", "tag", "cookie"))]
    pub fn set_user_data(&mut self, user_data: u64) {
        if user_data != self.core.slots.rare(self.slot).user_data() {
            self.core.slots.rare_mut(self.slot).set_user_data(user_data);
        }
    }

    /// The number given to [`set_user_data`](Self::set_user_data). Default 0.
    #[must_use]
    pub fn user_data(&self) -> u64 {
        self.core.slots.rare(self.slot).user_data()
    }

    /// Makes the connection a member of a group, which the application names by a number. Returns
    /// `false` if it was one. The membership ends with the connection.
    ///
    /// One command sends a payload to the members on all shards:
    /// [`EngineHandle::broadcast`] with [`Audience::Group`](crate::Audience::Group). The payload is
    /// shared, not copied.
    ///
    /// # Errors
    /// [`JoinGroupError`].
    #[doc(alias("subscribe", "room", "topic", "channel"))]
    pub fn join(&mut self, group: u64) -> Result<bool, JoinGroupError> {
        self.core.groups.join(self.slot, group)
    }

    /// Ends the membership in a group. Returns `false` if there was none.
    #[doc(alias = "unsubscribe")]
    pub fn leave(&mut self, group: u64) -> bool {
        self.core.groups.leave(self.slot, group)
    }

    /// The groups of which the connection is a member, sorted.
    #[must_use]
    pub fn groups(&self) -> &[u64] {
        self.core.groups.of(self.slot)
    }

    /// Returns whether a job, a hold, a file being received or a file being published is in
    /// progress, so that its callback will follow. An open does not count.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.core.slots.rare(self.slot).is_at_work()
    }

    /// Gives `job` to a worker thread. The result comes to
    /// [`Handler::job_done`](crate::Handler::job_done), unless the connection was closed by then.
    /// [`Job`] explains order, limits and the end.
    ///
    /// A connection with a job in progress does not [`finish`](Self::finish), is not idle for
    /// `idle_timeout`, and is waited for by a drain.
    ///
    /// # Errors
    /// The job comes back inside [`OffloadJobError`], with the
    /// [`OffloadJobErrorKind`](crate::workers::OffloadJobErrorKind):
    /// * `NoWorkers`: the engine has no workers.
    /// * `Full`: the queue is full, or the connection has `jobs_per_connection_max` jobs and holds
    ///   in progress. The engine pauses the connection and resumes it when there is room. A handler
    ///   that leaves the request unused gets it again then. A connection that the handler paused
    ///   itself stays paused.
    /// * `Ending`: the connection is ending.
    #[doc(alias("spawn_blocking", "worker"))]
    pub fn offload(&mut self, job: Job) -> Result<(), OffloadJobError> {
        self.core.offload(self.slot, job)
    }

    /// Takes a hold, for work that is done elsewhere: by a task of tokio or another thread of the
    /// application. Its value comes to [`Handler::job_done`](crate::Handler::job_done) with `tag`,
    /// after the results of the jobs and holds that the connection asked for before.
    ///
    /// It counts as a job ([`offload`](Self::offload)) but needs no worker. [`Hold`] explains order
    /// and end.
    ///
    /// # Errors
    /// * [`TakeHoldError::Full`]: the connection has `jobs_per_connection_max` jobs and holds in
    ///   progress. It is paused and resumed as by [`offload`](Self::offload).
    /// * [`TakeHoldError::Ending`]: the connection is ending.
    #[doc(alias("defer", "async", "tokio", "oneshot"))]
    pub fn hold(&mut self, tag: u64) -> Result<Hold, TakeHoldError> {
        self.core.hold(self.slot, tag, true)
    }

    /// As [`hold`](Self::hold), but the value comes as soon as it is there.
    ///
    /// # Errors
    /// [`TakeHoldError`], as for [`hold`](Self::hold).
    pub fn hold_unordered(&mut self, tag: u64) -> Result<Hold, TakeHoldError> {
        self.core.hold(self.slot, tag, false)
    }

    /// The number of offloaded jobs and holds for which `job_done` has not been called yet.
    #[must_use]
    pub fn jobs_under_way(&self) -> usize {
        self.core.jobs_under_way(self.slot) as usize
    }

    /// The queued output in bytes. Files do not count.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.core.slots[self.slot].output_bytes() as usize
    }

    /// The bytes that have arrived and that [`Handler::received`](crate::Handler::received) has not
    /// used: the beginning of an incomplete message, or input that a pause holds back. Empty inside
    /// `received`, where they are the argument.
    ///
    /// In [`Handler::expired`](crate::Handler::expired), these are the bytes of the late message.
    #[must_use]
    pub fn unused(&self) -> &[u8] {
        self.core.kept(self.slot)
    }

    /// Sends FIN after the queued output has left, and continues to receive (shutdown(2),
    /// `SHUT_WR`). Nothing can be sent after this call.
    ///
    /// The peer's FIN is reported by [`Handler::half_closed`](crate::Handler::half_closed) as
    /// without this call. It then ends the connection.
    #[doc(alias("SHUT_WR", "half_close", "IORING_OP_SHUTDOWN"))]
    pub fn shutdown(&mut self) {
        self.core.slots[self.slot].want_shutdown();
        self.core.touch(self.slot);
    }

    /// Closes the connection gracefully: the queued output leaves, then FIN.
    ///
    /// The engine then reads and discards the peer's input until the peer's FIN, `linger_timeout`
    /// or `linger_total`. Without this, unread input would turn the close into a reset, which
    /// can destroy output that the peer has not read yet. `received` is not called any more.
    #[doc(alias("disconnect", "IORING_OP_CLOSE"))]
    pub fn close(&mut self) {
        self.core.close(self.slot, Reason::LocalClose);
    }

    /// Closes the connection as [`close`](Self::close) does, and counts it as
    /// [`Reason::ProtocolError`]. The peer can still read an error response sent before.
    pub fn protocol_error(&mut self) {
        self.core.close(self.slot, Reason::ProtocolError);
    }

    /// Closes the connection as [`close`](Self::close) does, but only when it is at rest.
    ///
    /// A connection is at rest when all of this holds:
    /// * It is not paused, and its output queue is empty.
    /// * No file is being opened, received or published, and no job or hold is in progress.
    /// * No byte was received or sent for `quiet`, or for 1 s if a message is incomplete and
    ///   `quiet` is shorter.
    ///
    /// Bytes that arrive before the FIN are still delivered and can be answered. The engine knows
    /// of responses that the application prepares elsewhere only by a [`hold`](Self::hold). It
    /// counts as [`Reason::Drained`] during a drain ([`is_draining`](Self::is_draining)) and as
    /// [`Reason::LocalClose`] otherwise.
    #[doc(alias = "graceful")]
    pub fn finish(&mut self, quiet: std::time::Duration) {
        let quiet_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        self.core.finish(self.slot, quiet_ms);
    }

    /// Returns whether the connection has a deadline by which it must end:
    /// [`EngineHandle::drain`](crate::EngineHandle::drain) or
    /// [`EngineHandle::stop`](crate::EngineHandle::stop) was called, or its listener was
    /// [removed](crate::EngineHandle::remove_listener).
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.drains(self.slot)
    }

    /// Ends the connection at once with RST. Queued output is lost, and no TIME_WAIT remains.
    #[doc(alias("reset", "RST", "SO_LINGER"))]
    pub fn abort(&mut self) {
        self.core.end(self.slot, Reason::Aborted, true);
    }

    /// Sets a marker behind the queued output. [`Handler::sent`](crate::Handler::sent) is called
    /// with `tag` when everything before it has left, files included, or when the connection has
    /// ended.
    ///
    /// Bytes have left when the kernel has taken them; the peer may not have them yet. A marker
    /// takes 24 bytes until it is reached, and the first one on a shard 16 bytes for each slot.
    #[doc(alias = "flush")]
    pub fn mark_output(&mut self, tag: u64) {
        self.core.set_marker(self.slot, self.core.scoped(tag), MarkerKind::Sent);
    }

    /// As [`mark_output`](Self::mark_output), but [`Handler::sent`](crate::Handler::sent) is called
    /// when the peer has acknowledged everything before the marker. The peer's kernel has the bytes
    /// then; its application may not have read them yet.
    ///
    /// The shard asks the kernel 10 ms after the last byte has left, and then after an eighth of
    /// the time waited so far, at least every 250 ms. One question serves all markers of the
    /// connection. The last one comes at its end. The bytes of a Unix socket count as acknowledged
    /// when they have left.
    ///
    /// Markers of each kind are reported in their order. One of this kind may be reported after
    /// later ones of [`mark_output`](Self::mark_output).
    #[doc(alias("TCP_INFO", "SIOCOUTQ", "delivered"))]
    pub fn mark_acknowledged(&mut self, tag: u64) {
        self.core.set_marker(self.slot, self.core.scoped(tag), MarkerKind::Acknowledged);
    }

    /// Counts the connection as one of this address for
    /// [`max_per_address`](crate::Config::max_per_address), instead of its peer's. A server behind
    /// a trusted proxy calls it with the address that the proxy names; the proxy's own is one of
    /// [`exempt`](crate::ListenerSettings::exempt). [`Local::is_banned`] tells if it is banned, and
    /// [`Handler::bans_changed`](crate::Handler::bans_changed) when to ask again.
    ///
    /// Returns `false` if the address has reached the limit. Nothing has changed then, and the
    /// handler decides about the connection.
    #[must_use]
    pub fn count_client(&mut self, address: IpAddr) -> bool {
        let Some(cell) = self.core.admission.count_address(address) else { return false };
        let identity = self.core.slots.identity_mut(self.slot);
        let before = std::mem::replace(&mut identity.cell, cell);
        self.core.admission.forget_address(before);
        true
    }

    /// The connection's shard.
    pub fn local(&mut self) -> Local<'_> {
        Local::new(self.core)
    }
}

impl Local<'_> {
    /// Returns a connection of this shard, with everything its own callbacks may do. `None` if it
    /// is not on this shard or is ending.
    pub fn connection(&mut self, id: ConnectionId) -> Option<Connection<'_>> {
        let slot = self.find(id).filter(|slot| self.core.slots[*slot].state().hears())?;
        Some(Connection::new(self.core, slot))
    }

    /// Calls a closure with a connection of this shard and its state, right after the current
    /// callback and before any other one. Closures of one callback run in their order.
    ///
    /// The state of another connection cannot be reached within a callback, which may have borrowed
    /// the state of this very connection. A closure runs even if the current callback panics. If
    /// the connection begins to end before, the closure is dropped, and the ledger counts it as
    /// `messages_unclaimed`. A panic of the closure resets its connection, as one of a callback
    /// does. Closures may ask for further ones, which run behind them: without end, they hold up
    /// the shard.
    ///
    /// ```
    /// use ringwright::{Connection, ConnectionId, Handler, Origin};
    ///
    /// /// Passes each line to the previous client, which counts them.
    /// #[derive(Default)]
    /// struct Whispers(Option<ConnectionId>);
    ///
    /// impl Handler for Whispers {
    ///     type State = u64;
    ///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> u64 {
    ///         0
    ///     }
    ///     fn received(&mut self, _: &mut u64, c: &mut Connection<'_>, bytes: &[u8]) -> usize {
    ///         let line = bytes.to_vec();
    ///         if let Some(previous) = self.0.replace(c.id()) {
    ///             // It may have gone meanwhile.
    ///             let _ = c.local().run_with_state(previous, move |lines: &mut u64, connection| {
    ///                 *lines += 1;
    ///                 let _ = connection.send_with_head(format!("{lines}: ").as_bytes(), line);
    ///             });
    ///         }
    ///         bytes.len()
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`RunWithStateError`]: the closure is dropped.
    #[doc(alias("with_state", "other"))]
    pub fn run_with_state<S: 'static>(
        &mut self,
        id: ConnectionId,
        run: impl FnOnce(&mut S, &mut Connection<'_>) + 'static,
    ) -> Result<(), RunWithStateError> {
        self.core.handle.refuse_state::<S>()?;
        if self.core.closures.len() >= CLOSURES_MAX {
            return Err(RunWithStateError::Full);
        }
        if self.connection(id).is_none() {
            return Err(RunWithStateError::NoSuchConnection);
        }
        let closure = LocalClosure(Box::new(|state, connection| with(run, state, connection)));
        self.core.closures.push_back((id, Box::new(closure)));
        Ok(())
    }
}

/// The limit on closures that wait for the end of a callback.
const CLOSURES_MAX: usize = 1_024;

/// A closure that a callback has left for a connection of its shard.
pub(crate) struct LocalClosure(pub Box<LocalCode>);

type LocalCode = dyn FnOnce(&mut dyn Any, &mut Connection<'_>);

/// Calls a closure with the state whose type it names.
fn with<S: 'static>(
    run: impl FnOnce(&mut S, &mut Connection<'_>),
    state: &mut dyn Any,
    connection: &mut Connection<'_>,
) {
    run(state.downcast_mut().expect("the handle has compared the types"), connection);
}

/// A closure for a connection, on its way there.
pub(crate) struct ConnectionTask(pub Box<SentCode>);

type SentCode = dyn FnOnce(&mut dyn Any, &mut Connection<'_>) + Send;

impl EngineHandle {
    /// Calls a closure with a connection, once, on the thread of its shard. Commands and closures
    /// of one thread run in their order. The closure has no access to the connection's state in the
    /// handler, which [`EngineHandle::run_with_state`] has.
    ///
    /// If the connection is connecting, is ending or has ended, the closure is dropped, and the
    /// ledger counts it as `messages_unclaimed`. A panic of the closure resets the connection, as
    /// one of a callback does.
    ///
    /// # Errors
    /// [`SendCommandError`] if the shard's queue is full. The closure is dropped then.
    #[doc(alias("spawn", "execute"))]
    pub fn run_on_connection(
        &self,
        id: ConnectionId,
        run: impl FnOnce(&mut Connection<'_>) + Send + 'static,
    ) -> Result<(), SendCommandError> {
        self.send_task(id, move |_, connection| run(connection))
    }

    /// As [`EngineHandle::run_on_connection`], with the connection's state. `S` is the `State` of
    /// the [`Handler`](crate::Handler) with which the engine was started.
    ///
    /// # Errors
    /// * [`RunWithStateError::OtherState`]: the handler has another `State`. No closure is sent.
    /// * [`RunWithStateError::Full`]: the shard's queue is full. The closure is dropped.
    #[doc(alias("spawn", "execute"))]
    pub fn run_with_state<S: 'static>(
        &self,
        id: ConnectionId,
        run: impl FnOnce(&mut S, &mut Connection<'_>) + Send + 'static,
    ) -> Result<(), RunWithStateError> {
        self.refuse_state::<S>()?;
        let sent = self.send_task(id, |state, connection| with(run, state, connection));
        sent.map_err(|SendCommandError| RunWithStateError::Full)
    }

    fn refuse_state<S: 'static>(&self) -> Result<(), RunWithStateError> {
        let known = self.has_state(TypeId::of::<S>());
        if known { Ok(()) } else { Err(RunWithStateError::OtherState) }
    }

    fn send_task(
        &self,
        id: ConnectionId,
        run: impl FnOnce(&mut dyn Any, &mut Connection<'_>) + Send + 'static,
    ) -> Result<(), SendCommandError> {
        let task = ConnectionTask(Box::new(run));
        self.to_connection(id, Command::Run(Some(id), Box::new(task)))
    }
}
