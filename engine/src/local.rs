//! The shard that a callback runs on, and what a handler can do with it.

use crate::connect::Connect;
use crate::handle::{CommandShardError, EngineHandle};
use crate::mailbox::{Audience, Command, SlowReaders};
use crate::memory::Payload;
use crate::shard::connect::Attempt;
use crate::shard::core::Core;
use crate::workers::{Hold, Job, OffloadJobError, TakeHoldError};
use crate::{ConnectionId, ConnectionInfo, EndedConnection, KeepConnectedError, Reason, Reconnect};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The shard that a callback runs on.
///
/// Callbacks about a shard get it as an argument; the others get it from
/// [`Connection::local`](crate::Connection::local). It reaches the connections of this shard only.
/// [`Local::engine`] reaches the whole engine. No method blocks.
pub struct Local<'a> {
    pub(crate) core: &'a mut Core,
}

impl fmt::Debug for Local<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("shard", &self.shard())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

impl<'a> Local<'a> {
    pub(crate) fn new(core: &'a mut Core) -> Self {
        Self { core }
    }

    /// The shard's number, from 0.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.core.shard
    }

    /// The time of the current batch of events, from a monotonic clock with an arbitrary start. The
    /// resolution is 1 ms.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.core.now_ms)
    }

    /// Returns whether an address is banned, as far as this shard knows. For the address that a
    /// proxy names; the engine itself checks the addresses of sockets.
    #[must_use]
    pub fn is_banned(&self, address: IpAddr) -> bool {
        self.core.bans.bans.contains(address)
    }

    /// The time of the current batch in microseconds.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn now_us(&self) -> u64 {
        self.core.now_us
    }

    /// The number of connections on this shard. Connections that are connecting or ending count as
    /// well, because they hold a permit of `max_connections`.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.core.permits()
    }

    /// Returns whether the files open on this shard, for its connections and for the next ones who
    /// ask for them, take more than an eighth of all descriptors (`RLIMIT_NOFILE`), divided by the
    /// number of shards.
    ///
    /// A handler that queues several files on a connection should then queue one, and pause reading
    /// ([`Connection::pause`](crate::Connection::pause)) until it has left. Otherwise a few
    /// thousand clients that read nothing take every descriptor of the process.
    #[must_use]
    pub fn is_short_of_files(&self) -> bool {
        self.core.files_open.count() > self.core.limits.files_share
    }

    /// Connects out from this shard, to an address, or as a [`Connect`] says.
    ///
    /// The result comes with the same `tag`: [`Handler::opened`](crate::Handler::opened) with
    /// [`Origin::Connected`](crate::Origin::Connected), or
    /// [`Handler::connect_failed`](crate::Handler::connect_failed). Returns `false` if the engine
    /// drains; no callback follows then.
    ///
    /// Each connect fails for itself and holds up no other:
    /// * `max_connections` connections are open: a text that names the limit, at once.
    ///   [`Config::outgoing_reserved`](crate::Config::outgoing_reserved) keeps places free.
    /// * The name cannot be resolved: a text with the reason. Without
    ///   [`workers`](crate::Config::workers), at once.
    /// * socket(2) or bind(2) fails, for example with EMFILE, ENOBUFS, EAFNOSUPPORT or
    ///   EADDRNOTAVAIL: its errno, at once.
    /// * connect(2) fails, for example with ECONNREFUSED, ENETUNREACH or EADDRNOTAVAIL: its errno.
    /// * There is no answer within [`Connect::timeout`]: ETIMEDOUT.
    /// * [`Local::cancel_connect`] was called: ECANCELED.
    ///
    /// If several addresses were tried, the error has a [`ConnectError`](crate::ConnectError)
    /// inside.
    ///
    /// A connect that is requested while `connect_failed` reports a failure without a wait begins
    /// 20 ms later. A handler that tries again at once therefore does not spin.
    ///
    /// A TCP socket has `TCP_NODELAY`, and keepalive and user timeout as accepted ones have
    /// (`tcp_keepalive`, `tcp_user_timeout`).
    #[doc(alias("IORING_OP_CONNECT", "dial"))]
    pub fn connect(&mut self, to: impl Into<Connect>, tag: u64) -> bool {
        if !self.core.draining {
            let tag = self.core.scoped(tag);
            self.core.connects.ask(Attempt::new(to.into(), tag, false));
        }
        !self.core.draining
    }

    /// Ends the attempts to connect with this tag, those of a kept connection included. They may
    /// wait for their start, for their name or for an answer.
    /// [`Handler::connect_failed`](crate::Handler::connect_failed) follows for each, with
    /// ECANCELED. A connection that is open already is not touched.
    ///
    /// Returns `false` if no attempt was in progress. `opened` or `connect_failed` may have been
    /// called, or the attempt was cancelled before.
    ///
    /// A kept connection waits for its next attempt as after any other failure. Call
    /// [`stop_reconnecting`](Self::stop_reconnecting) as well to give it up.
    ///
    /// It takes time in proportion to the number of attempts on this shard.
    pub fn cancel_connect(&mut self, tag: u64) -> bool {
        self.core.cancel_connect(self.core.scoped(tag))
    }

    /// Connects out from this shard and connects again after every end. [`Reconnect`] sets the
    /// waits in between.
    ///
    /// `tag` names the kept connection on this shard. Every attempt leads to
    /// [`Handler::opened`](crate::Handler::opened) or
    /// [`Handler::connect_failed`](crate::Handler::connect_failed), and every opened connection to
    /// [`Handler::closed`](crate::Handler::closed). A connection that waits for its next attempt
    /// holds no permit and no descriptor. A name is resolved again for each attempt.
    ///
    /// The engine makes no further attempt in these cases:
    /// * The connection ended with [`Reason::LocalClose`] or [`Reason::Aborted`], which the
    ///   application caused itself.
    /// * [`Local::stop_reconnecting`] was called.
    /// * [`Reconnect::attempts`] failed attempts were made in a row.
    /// * The engine drains.
    ///
    /// It connects again after every other end: a kick, a timeout, a protocol error, a panic of the
    /// handler, and a FIN of the peer, even one that answers our own `shutdown`.
    ///
    /// # Errors
    /// [`KeepConnectedError`]: nothing is attempted, and no callback follows.
    #[doc(alias("reconnect", "backoff"))]
    pub fn keep_connected(
        &mut self,
        to: impl Into<Connect>,
        tag: u64,
        reconnect: Reconnect,
    ) -> Result<(), KeepConnectedError> {
        self.core.keep_connected(to.into(), self.core.scoped(tag), reconnect)
    }

    /// Makes the engine stop after the current attempt for `tag`.
    ///
    /// An attempt in progress still gets its callback, unless [`cancel_connect`] ends it, and an
    /// open connection stays open. Called in `opened`, it therefore means "connect until it has
    /// worked once". Returns `false` if no connection is kept up under `tag`.
    ///
    /// [`cancel_connect`]: Self::cancel_connect
    pub fn stop_reconnecting(&mut self, tag: u64) -> bool {
        self.core.stop_reconnecting(self.core.scoped(tag))
    }

    /// The time until the next attempt for `tag`. `None` if an attempt is in progress, if the
    /// connection is open, or if no connection is kept up under `tag`.
    ///
    /// In `connect_failed` and `closed` this tells whether another attempt follows, and when.
    #[must_use]
    pub fn reconnects_in(&self, tag: u64) -> Option<Duration> {
        self.core.reconnects_in(self.core.scoped(tag))
    }

    /// Asks for one call of [`Handler::tick`](crate::Handler::tick), `after` the start of the
    /// current batch. It replaces a tick asked for before.
    ///
    /// The resolution is 1 µs. The kernel adds the timer slack of the thread, 50 µs by default
    /// (prctl(2), `PR_SET_TIMERSLACK`).
    #[doc(alias("timeout", "interval"))]
    pub fn tick_after(&mut self, after: Duration) {
        let after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 50);
        self.core.tick_at(self.core.now_us + after_us);
    }

    /// Gives a job that belongs to no connection to a worker thread. The result comes to
    /// [`Handler::shard_job_done`](crate::Handler::shard_job_done) as soon as it is there, also if
    /// the job is not [unordered](Job::unordered).
    ///
    /// [`Handler::closed`](crate::Handler::closed) can save a session this way, and
    /// [`Handler::started`](crate::Handler::started) or [`Handler::tick`](crate::Handler::tick) can
    /// load a table. A drain waits for such jobs until its deadline, after the last connection has
    /// ended.
    ///
    /// # Errors
    /// The job comes back inside [`OffloadJobError`], with the
    /// [`OffloadJobErrorKind`](crate::workers::OffloadJobErrorKind):
    /// * `NoWorkers`: the engine has no workers.
    /// * `Full`: the queue is full, or the shard has
    ///   [`jobs_per_shard_max`](crate::Config::jobs_per_shard_max) such jobs and holds in progress.
    ///   Nothing is called when there is room: try again in `tick` or `shard_job_done`.
    /// * `Ending`: the deadline of a drain has passed, the engine was stopped, or the shard has
    ///   failed. The result could not be delivered.
    #[doc(alias("spawn_blocking", "worker"))]
    pub fn offload(&mut self, job: Job) -> Result<(), OffloadJobError> {
        let plain = job.tag();
        let job = job.with_tag(self.core.scoped(plain));
        self.core.offload_for_shard(job).map_err(|mut refused| {
            refused.job = refused.job.with_tag(plain);
            refused
        })
    }

    /// Takes a hold that belongs to no connection. Its value comes to
    /// [`Handler::shard_job_done`](crate::Handler::shard_job_done) as soon as it is there.
    ///
    /// It counts as a job of [`offload`](Self::offload), but needs no worker: a drain waits for it
    /// until its deadline.
    ///
    /// # Errors
    /// [`TakeHoldError`]: `Full` and `Ending` as for [`offload`](Self::offload).
    pub fn hold(&mut self, tag: u64) -> Result<Hold, TakeHoldError> {
        self.core.hold_for_shard(self.core.scoped(tag)).map(|hold| hold.shown_as(tag))
    }

    /// Describes a connection of this shard. `None` if it is not on this shard.
    #[must_use]
    pub fn info(&self, id: ConnectionId) -> Option<ConnectionInfo> {
        self.find(id).map(|slot| self.core.info(slot))
    }

    /// Describes the connection that has ended, inside
    /// [`Handler::closed`](crate::Handler::closed). `None` in every other callback.
    #[must_use]
    pub fn ended(&self) -> Option<EndedConnection> {
        self.core.ended()
    }

    /// Describes up to `limit` connections of this shard, in the order of their slots. `after`
    /// continues behind a connection; `None` starts at the beginning.
    #[must_use]
    pub fn list(&self, after: Option<ConnectionId>, limit: usize) -> Vec<ConnectionInfo> {
        self.core.list(after.map_or(0, |id| id.slot() + 1), limit)
    }

    /// Resets a connection of this shard with [`Reason::Kicked`]. Returns `false` if it is not on
    /// this shard.
    #[doc(alias = "disconnect")]
    pub fn kick(&mut self, id: ConnectionId) -> bool {
        let Some(slot) = self.find(id) else { return false };
        self.core.end(slot, Reason::Kicked, true);
        true
    }

    /// Resets all connections of this shard with [`Reason::Kicked`], 256 per turn of the loop.
    pub fn kick_all(&mut self) {
        self.core.end_all(Reason::Kicked);
    }

    /// Sends one shared payload to the connections of `audience` on this shard. `slow` decides
    /// about those of them whose output queue is full.
    #[doc(alias = "publish")]
    pub fn broadcast(&mut self, bytes: &Arc<[u8]>, audience: &Audience, slow: SlowReaders) {
        self.core.broadcast(bytes, audience, slow, 0, u32::MAX);
    }

    /// Sends to a connection of this shard. Returns `false` if it is not on this shard. Bytes that
    /// do not fit into `output_bytes_max` end it with [`Reason::OutputTooLong`].
    pub fn send_to(&mut self, id: ConnectionId, payload: impl Into<Payload>) -> bool {
        let Some(slot) = self.find(id) else { return false };
        self.core.send_unasked(slot, payload.into(), None);
        true
    }

    /// Asks for one call of [`Handler::mailbox_room`](crate::Handler::mailbox_room) once the first
    /// command queue that is full has room again, soon if none is full. For a callback whose
    /// message or command was refused. A call before that callback changes nothing.
    pub fn notify_of_room(&mut self) {
        self.core.ask_for_room();
    }

    /// The number of members of a group on this shard, see
    /// [`Connection::join`](crate::Connection::join). It takes time in proportion to the number.
    #[must_use]
    pub fn group_members(&self, group: u64) -> usize {
        self.core.groups.count(group)
    }

    /// The handle to the whole engine.
    #[must_use]
    pub fn engine(&self) -> &EngineHandle {
        &self.core.handle
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<u32> {
        if id.shard() == self.core.shard { self.core.slots.find(id) } else { None }
    }
}

/// A closure for a shard, on its way there.
pub(crate) struct ShardTask(pub Box<dyn FnOnce(&mut Local<'_>) + Send>);

impl EngineHandle {
    /// Calls a closure on the thread of shard number `shard`, once. Commands and closures of one
    /// thread run in their order. If the shard ends before, the closure is dropped.
    ///
    /// A panic of the closure is counted as `handler_panics`, and the shard continues.
    ///
    /// # Errors
    /// See [`CommandShardError`]. The closure is dropped then.
    #[doc(alias("spawn", "execute"))]
    pub fn run_on_shard(
        &self,
        shard: usize,
        run: impl FnOnce(&mut Local<'_>) + Send + 'static,
    ) -> Result<(), CommandShardError> {
        let task = ShardTask(Box::new(run));
        self.to_shard(shard, Command::Run(None, Box::new(task)))
    }
}
