//! The application's side of the engine: one trait with a callback per event.

use crate::error::BoxError;
use crate::files::{NewFile, OpenFile, ReceiveFileError};
use crate::info::{Forwarded, Origin, SentMarker};
use crate::message::Message;
use crate::workers::JobDone;
use crate::{Connection, ConnectionId, Local, Reason};
use std::io;
use std::time::Duration;

/// A deadline of [`Config`](crate::Config) that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deadline {
    /// No byte was received or sent for `idle_timeout`.
    Idle,
    /// A message stayed incomplete for `receive_timeout`.
    Receive,
    /// Queued output made no progress for `write_timeout`.
    Write,
    /// A file being sent or received made no progress for `transfer_timeout`.
    Transfer,
}

/// An application: what happens to connections, as one callback per event.
///
/// The factory given to [`Engine::start`](crate::Engine::start) makes one handler per shard, on the
/// shard's own thread. [`Handlers`](crate::Handlers) makes one of several, each with listeners of
/// its own. The shard calls it on that thread only, one callback at a time and none
/// inside another. A handler therefore needs no locks for its own fields.
///
/// ```
/// use ringwright::{Connection, ConnectionId, Handler, Local, Origin, Reason};
///
/// /// Echoes all bytes and prints the total of each connection at its end.
/// struct Echo;
///
/// impl Handler for Echo {
///     /// The number of bytes received.
///     type State = usize;
///
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> usize {
///         0
///     }
///
///     fn received(
///         &mut self,
///         total: &mut usize,
///         connection: &mut Connection<'_>,
///         bytes: &[u8],
///     ) -> usize {
///         let _ = connection.send(bytes);
///         *total += bytes.len();
///         bytes.len() // all bytes are used
///     }
///
///     fn closed(
///         &mut self,
///         total: Option<usize>,
///         _: &mut Local<'_>,
///         id: ConnectionId,
///         reason: Reason,
///     ) {
///         let total = total.unwrap_or(0);
///         println!("connection {id}: {total} bytes, ended by {}", reason.name());
///     }
/// }
/// ```
///
/// # Order of callbacks
/// ```text
/// started                      once per shard, before every other callback
/// ├─ opened                    once per connection, before its other callbacks
/// │  ├─ received               whenever there are unused bytes
/// │  ├─ writable               the output queue has room again
/// │  ├─ file_opened, file_created, file_sent, file_received, file_published
/// │  ├─ job_done, message_to, timer
/// │  ├─ half_closed            at most once: the peer's FIN
/// │  ├─ draining               at most once: the engine drains
/// │  ├─ expired                a deadline is about to end the connection
/// │  └─ closed                 exactly once, last
/// ├─ connect_failed            instead of opened, for an outgoing connection
/// ├─ tick                      after Local::tick_after
/// ├─ message                   a message for the shard
/// ├─ mailbox_room              after Local::notify_of_room
/// ├─ shard_job_done            the result of Local::offload or Local::hold
/// ├─ sent                      markers of the output were reached
/// ├─ bans_changed              after EngineHandle::ban, unban or set_bans
/// ├─ drain_begun               at most once: the engine begins to drain, or is stopped
/// └─ ended                     once, after every other callback
/// ```
/// `drain_begun` precedes each `draining` by which the engine drains. A shard whose ring fails ends
/// without it, unless a drain had begun before. `ended` is not called after a failed `started`,
/// and not if the shard's own code has panicked
/// ([`Error::ShardPanicked`](crate::Error::ShardPanicked)).
///
/// # Ends of a connection
/// These rules hold for every connection:
/// * `opened` is the first callback and `closed` the last. `closed` follows every `opened`, even if
///   `opened` panicked, the shard failed or the engine was stopped.
/// * `half_closed` comes at most once, and `received` shows no new bytes after it. The peer's FIN
///   is reported whether or not our own FIN ([`Connection::shutdown`]) went first. After our FIN
///   the peer's FIN ends the connection: `closed` follows as soon as the peer has acknowledged all
///   output, and jobs in progress do not delay it.
/// * After [`Connection::shutdown`] there is no `writable`.
/// * After [`Connection::close`], [`Connection::protocol_error`], a file that could not be sent to
///   its end, or `expired` with [`Deadline::Idle`] or [`Deadline::Receive`], only `file_sent`,
///   `draining`, `expired` with another deadline, and `closed` can come. The results of jobs, opens
///   and files being received or published are not reported, and neither is the peer's FIN.
/// * After [`Connection::abort`], a kick, a reset, a panic, or `expired` with [`Deadline::Write`]
///   or [`Deadline::Transfer`], only `closed` comes.
/// * `draining` comes at most once.
///
/// In the table the peer has sent some bytes. A callback that comes several times in a row is
/// listed once.
///
/// | end | callbacks | reason |
/// |---|---|---|
/// | the peer's FIN, then `close` | `opened received half_closed closed` | `PeerFin` |
/// | the peer's FIN, then `shutdown` | `opened received half_closed closed` | `PeerFin` |
/// | the peer's FIN, `finish`, a job | `opened received half_closed job_done closed` | `PeerFin` |
/// | the peer's FIN, `finish`, a hold | `opened received half_closed job_done closed` | `PeerFin` |
/// | `shutdown`, then the peer's FIN | `opened received half_closed closed` | `PeerFin` |
/// | `shutdown` with full output, peer's FIN | `opened received half_closed closed` | `PeerFin` |
/// | `close` | `opened received closed` | `LocalClose` |
/// | `close`, while the peer sends on | `opened received closed` | `LocalClose` |
/// | `close` in `opened` | `opened closed` | `LocalClose` |
/// | `finish` | `opened received closed` | `LocalClose` |
/// | `protocol_error` | `opened received closed` | `ProtocolError` |
/// | `abort` | `opened received closed` | `Aborted` |
/// | a panic | `opened received closed` | `HandlerPanicked` |
/// | a panic in `opened` | `opened closed` | `HandlerPanicked` |
/// | `close` before the peer's FIN is reported | `opened received timer closed` | `LocalClose` |
/// | `close` while the output is full | `opened received closed` | `LocalClose` |
/// | `close` with a timer set | `opened received closed` | `LocalClose` |
/// | `close` with a job in progress | `opened received closed` | `LocalClose` |
/// | `close` with a hold in progress | `opened received closed` | `LocalClose` |
/// | `close` with a file being opened | `opened received closed` | `LocalClose` |
/// | `close` with a file queued | `opened received file_opened file_sent closed` | `LocalClose` |
/// | `close` with a file being received | `opened received file_created closed` | `LocalClose` |
/// | `close` with a file being published | `opened received file_created closed` | `LocalClose` |
/// | `close`, then a drain | `opened received draining closed` | `LocalClose` |
/// | the peer's reset | `opened received closed` | `PeerReset` |
/// | the network fails | `opened received closed` | `NetworkError` |
/// | `idle_timeout` | `opened received expired closed` | `IdleTimeout` |
/// | `receive_timeout` | `opened received expired closed` | `ReceiveTimeout` |
/// | `write_timeout` | `opened received expired closed` | `WriteTimeout` |
/// | `write_timeout` after `close` | `opened received expired closed` | `LocalClose` |
/// | `transfer_timeout` | `opened received file_opened expired closed` | `TransferTimeout` |
/// | evicted (`evict_idle`) | `opened received closed` | `Evicted` |
/// | slow (`min_rate`) | `opened received closed` | `TooSlow` |
/// | a message longer than `message_bytes_max` | `opened received closed` | `MessageTooLong` |
/// | output beyond `output_bytes_max` | `opened received closed` | `OutputTooLong` |
/// | a file shorter than announced | `opened received file_opened closed` | `FileTruncated` |
/// | a file that cannot be read | `opened received file_opened closed` | `FileFailed` |
/// | `kick` | `opened received closed` | `Kicked` |
/// | a drain | `opened received draining closed` | `Drained` |
/// | a drain that reaches its deadline | `opened received draining closed` | `Stopped` |
/// | `stop` | `opened received closed` | `Stopped` |
/// | the shard fails | `opened received closed` | `ShardFailed` |
/// | a connect that fails | `connect_failed` | |
///
/// # Blocking
/// A callback must not block: while it runs, every connection of the shard waits. Slow work belongs
/// on a worker, see [`Connection::offload`], or elsewhere, see [`Connection::hold`].
///
/// # Panics in a callback
/// A panic resets the connection with [`Reason::HandlerPanicked`], and the ledger counts it as
/// `handler_panics`. The shard and the handler continue. `closed` is still called. After a panic in
/// `opened` it gets no state.
///
/// A panic in the factory or in `started` makes [`Engine::start`](crate::Engine::start) fail with
/// [`Error::HandlerPanicked`](crate::Error::HandlerPanicked). A panic in `Drop` of the handler
/// comes back from [`Engine::join`](crate::Engine::join) in the same form.
pub trait Handler: 'static {
    /// The application's own data about one connection, stored by the shard.
    type State: Send + 'static;

    /// The number of handlers that this is made of; more than one only for
    /// [`Handlers`](crate::Handlers).
    #[doc(hidden)]
    const HANDLERS: u8 = 1;

    /// A connection was accepted or an outgoing connect succeeded. The handler may send at once.
    /// Returns the connection's state.
    #[doc(alias("accept", "on_open", "IORING_OP_ACCEPT"))]
    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> Self::State;

    /// Bytes have arrived. `bytes` holds every unused byte, oldest first, and is never empty.
    /// Returns how many of them the handler has used.
    ///
    /// The engine keeps the unused rest. It delivers the rest again together with the bytes that
    /// follow, or after [`Connection::resume`] or [`writable`](Self::writable). A handler that
    /// returns 0 and waits for more is the normal way to wait for a complete message.
    /// [`Connection::need`] spares the calls in between.
    ///
    /// The rest is limited by `message_bytes_max`. While the connection is paused, the limit grows
    /// by what one batch of receive buffers holds.
    ///
    /// # Panics
    /// A returned number above `bytes.len()` counts as a panic of the callback.
    #[doc(alias("recv", "read", "on_data", "IORING_OP_RECV"))]
    fn received(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize;

    /// The shard is ready. Called once, before any connection.
    /// [`Engine::start`](crate::Engine::start) waits until it has returned on every shard.
    ///
    /// # Errors
    /// Any error makes [`Engine::start`](crate::Engine::start) end all shards and return it in
    /// [`Error::HandlerFailed`](crate::Error::HandlerFailed).
    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        let _ = shard;
        Ok(())
    }

    /// The engine begins to drain or is stopped. Comes before the first
    /// [`draining`](Self::draining) by which it drains.
    ///
    /// Connects are refused from now on. A drain still waits for jobs that the handler gives to the
    /// workers here ([`Local::offload`]); a stop does not.
    #[doc(alias("shutdown", "stopping"))]
    fn drain_begun(&mut self, shard: &mut Local<'_>) {
        let _ = shard;
    }

    /// The shard has ended: its last callback, before the handler is dropped. A handler can write
    /// down here what it has kept.
    ///
    /// All connections have had their `closed`, and the results of jobs that are still in progress
    /// are dropped. The shard's thread may block here, which delays [`Engine::join`]. Connects and
    /// jobs are refused, and a tick does not come any more.
    ///
    /// [`Engine::join`]: crate::Engine::join
    #[doc(alias("stopped", "finish", "flush"))]
    fn ended(&mut self, shard: &mut Local<'_>) {
        let _ = shard;
    }

    /// The time asked for with [`Local::tick_after`] has come.
    fn tick(&mut self, shard: &mut Local<'_>) {
        let _ = shard;
    }

    /// A message for this shard ([`EngineHandle::post_to_shard`] or
    /// [`EngineHandle::post_to_shards`]). The default drops it.
    ///
    /// Messages and commands of one thread arrive in the order in which it sent them. If the shard
    /// ends before it has read a message, the message is dropped.
    ///
    /// [`EngineHandle::post_to_shard`]: crate::EngineHandle::post_to_shard
    /// [`EngineHandle::post_to_shards`]: crate::EngineHandle::post_to_shards
    #[doc(alias("on_message", "wake"))]
    fn message(&mut self, shard: &mut Local<'_>, message: Message) {
        let _ = (shard, message);
    }

    /// A message for a connection ([`EngineHandle::post_to_connection`]), in the same order as
    /// [`message`](Self::message). The default drops it. Not called after the connection was
    /// closed.
    ///
    /// [`EngineHandle::post_to_connection`]: crate::EngineHandle::post_to_connection
    #[doc(alias("on_message", "wake"))]
    fn message_to(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        message: Message,
    ) {
        let _ = (state, connection, message);
    }

    /// A command queue that was full has room again, after [`Local::notify_of_room`]. Other senders
    /// may have filled it meanwhile, and another queue may be full: ask again then.
    fn mailbox_room(&mut self, shard: &mut Local<'_>) {
        let _ = shard;
    }

    /// Markers in the output of connections were reached
    /// ([`Connection::mark_output`](crate::Connection::mark_output),
    /// [`mark_acknowledged`](crate::Connection::mark_acknowledged)), each once. It is called at
    /// most once per turn of the shard. A connection that has ended had its `closed` before.
    fn sent(&mut self, shard: &mut Local<'_>, sent: &[SentMarker]) {
        let _ = (shard, sent);
    }

    /// The result of a job given to [`Local::offload`], or of a hold taken by [`Local::hold`].
    ///
    /// Each gets exactly one call, unless the shard has ended before: at the deadline of a drain,
    /// by a stop, or by a failure.
    fn shard_job_done(&mut self, shard: &mut Local<'_>, job: JobDone) {
        let _ = (shard, job);
    }

    /// The banned addresses of the engine have changed
    /// ([`EngineHandle::ban`](crate::EngineHandle::ban)). [`Local::is_banned`] has the new ones.
    ///
    /// The engine itself leaves open connections alone. A handler that knows clients by other
    /// addresses than those of their sockets can end them here.
    fn bans_changed(&mut self, shard: &mut Local<'_>) {
        let _ = shard;
    }

    /// An outgoing connect failed: there is no connection and no state.
    ///
    /// `tag` is the one given to [`Local::connect`] or [`Local::keep_connected`]. For the latter,
    /// every failed attempt is reported here; [`Local::reconnects_in`] tells whether another one
    /// follows. `error` is the errno of socket(2), bind(2) or connect(2), ETIMEDOUT after the time
    /// of the connect, ECANCELED after [`Local::cancel_connect`], a
    /// [`ConnectError`](crate::ConnectError) if several addresses have failed, or a text that names
    /// the limit reached or says why a name has no address.
    fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: io::Error) {
        let _ = (shard, tag, error);
    }

    /// The peer has sent its FIN and will send nothing more. Responses may still be sent, unless
    /// [`Connection::shutdown`] was called. If our FIN has already left, the connection ends by
    /// itself after this call.
    ///
    /// All bytes were delivered before, except the beginning of a message for which
    /// [`Connection::need`] asked for more. Unused bytes are delivered again later only after
    /// [`Connection::resume`] or [`writable`](Self::writable).
    ///
    /// The default closes the connection once its output has left. It waits for jobs in progress
    /// and for a file being published, but not for an open.
    #[doc(alias("eof", "on_end"))]
    fn half_closed(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = state;
        if connection.is_at_work() {
            connection.finish(Duration::ZERO);
        } else {
            connection.close();
        }
    }

    /// The output queue has room again: it was above `output_high_bytes` and is now below
    /// `output_low_bytes`, or it is below the level of [`Connection::notify_below`]. If receiving
    /// was paused meanwhile, the engine delivers unused bytes again right after this callback.
    #[doc(alias("on_drain", "POLLOUT"))]
    fn writable(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = (state, connection);
    }

    /// The result of [`Connection::open_file`].
    fn file_opened(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        result: io::Result<OpenFile>,
    ) {
        let _ = (state, connection, result);
    }

    /// The last byte of a file given to [`Connection::send_file`] has left the file. The byte is
    /// then in the kernel or, for a small file, in a send buffer.
    fn file_sent(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = (state, connection);
    }

    /// The result of [`Connection::create_file`]. EOPNOTSUPP means that the file system does not
    /// support `O_TMPFILE`.
    fn file_created(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        result: io::Result<NewFile>,
    ) {
        let _ = (state, connection, result);
    }

    /// The result of [`Connection::receive_file`]. Either all bytes of the range are in the file,
    /// or the file is gone. Not called after the connection was closed.
    fn file_received(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        let _ = (state, connection, result);
    }

    /// The result of [`Connection::forward`]: the range was taken off the stream whole, or not. Its
    /// last bytes may still be in the other connection's output queue. Not called after the
    /// connection was closed.
    fn forwarded(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        forwarded: Forwarded,
    ) {
        let _ = (state, connection, forwarded);
    }

    /// The result of [`Connection::publish_file`]. Either the file has its name, or the file is
    /// gone. Not called after the connection was closed.
    fn file_published(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        result: io::Result<()>,
    ) {
        let _ = (state, connection, result);
    }

    /// The result of a job given to [`Connection::offload`], or of a hold taken by
    /// [`Connection::hold`].
    ///
    /// Results of [`Job::new`](crate::workers::Job::new) and [`Connection::hold`] come in the order
    /// of these calls. Results of [`Job::unordered`](crate::workers::Job::unordered) and
    /// [`Connection::hold_unordered`] come as soon as they are there. Every accepted job and every
    /// hold gets exactly one call, unless the connection was closed before.
    fn job_done(&mut self, state: &mut Self::State, connection: &mut Connection<'_>, job: JobDone) {
        let _ = (state, connection, job);
    }

    /// The time of a timer has come, which [`Connection::set_timer`] has set under this number.
    #[doc(alias = "timeout")]
    fn timer(&mut self, state: &mut Self::State, connection: &mut Connection<'_>, timer: u8) {
        let _ = (state, connection, timer);
    }

    /// A deadline has passed, and the engine is about to end the connection for it.
    ///
    /// The handler may still send. For [`Deadline::Idle`] and [`Deadline::Receive`] this output
    /// leaves before the connection closes. For [`Deadline::Write`] and [`Deadline::Transfer`] the
    /// engine resets the connection, and the output is lost.
    fn expired(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        deadline: Deadline,
    ) {
        let _ = (state, connection, deadline);
    }

    /// The engine drains: this connection should finish its work and close before the drain
    /// deadline. Or [`EngineHandle::drain_connection`](crate::EngineHandle::drain_connection) or
    /// [`EngineHandle::drain_connections`](crate::EngineHandle::drain_connections) asked for the
    /// end of the connection, without a deadline; [`Connection::is_draining`] is `false` then. Or
    /// its listener was [removed](crate::EngineHandle::remove_listener), with a deadline of its
    /// own.
    ///
    /// Called once per connection. A connection that opens during a drain gets the call right after
    /// `opened`. The default calls [`Connection::finish`], so that everything that has arrived is
    /// still received and answered. A paused connection does not finish by itself: resume or close
    /// it here, or the engine resets it at the deadline.
    #[doc(alias = "shutdown")]
    fn draining(&mut self, state: &mut Self::State, connection: &mut Connection<'_>) {
        let _ = state;
        connection.finish(Duration::ZERO);
    }

    /// The connection has ended and its descriptor is closed. Called exactly once for every
    /// `opened`, as the last callback of the connection.
    ///
    /// `state` is `None` if `opened` panicked, because it returned none then.
    #[doc(alias("on_close", "disconnect"))]
    fn closed(
        &mut self,
        state: Option<Self::State>,
        shard: &mut Local<'_>,
        id: ConnectionId,
        reason: Reason,
    ) {
        let _ = (state, shard, id, reason);
    }
}
