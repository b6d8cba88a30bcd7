//! The handle to an engine that works on every thread.

mod messages;

use crate::admission::{Admission, BANS_MAX, Bans, Prefix, program};
use crate::connect::Connect;
use crate::error::{Error, SendCommandError};
use crate::id::ConnectionId;
use crate::info::ConnectionInfo;
use crate::ledger::{Ledger, Published, ShardLedger};
use crate::mailbox::{Audience, BanList, Command, Place, Sending, SlowReaders};
use crate::memory::Payload;
use crate::reconnect::Reconnect;
use crate::registry::Registry;
use crate::ring::RingInUse;
use crate::scope::scoped;
use crate::workers::{Pool, SetWorkersError};
use crossbeam_channel::{Receiver, bounded};
use std::any::TypeId;
use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The wait for a shard's answer to a question.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// The limit on connections that a shard lists in one go, because it does nothing else meanwhile.
const LIST_MAX: usize = 1_000;
thread_local! {
    /// The engine of which this thread is a shard, as the address of its shared handle; 0 for
    /// others.
    static SHARD_OF: Cell<usize> = const { Cell::new(0) };
}

struct Shared {
    mailboxes: Vec<Sending>,
    published: Vec<Arc<Published>>,
    admission: Arc<Admission>,
    pool: Pool,
    ring: RingInUse,
    /// The handler's `State`.
    state: TypeId,
    draining: AtomicBool,
    /// The lock is held only while the list is read or changed and commands are queued.
    registry: Mutex<Registry>,
    /// The list last sent to the shards. The lock is held only while the pointer is copied.
    bans: Mutex<Arc<Vec<Prefix>>>,
    /// Held while the list changes. A second caller gets an error instead of waiting.
    changing_bans: Mutex<()>,
}

/// A handle to an engine for any thread, callbacks included. Cheap to clone.
///
/// The handle outlives the engine. [`Engine::handle`](crate::Engine::handle) and
/// [`Local::engine`](crate::Local::engine) return it.
///
/// ```
/// use ringwright::{Audience, ConnectionId, EngineHandle, SendCommandError, SlowReaders};
/// use std::sync::Arc;
///
/// /// Sends a line to everybody except one connection, which is reset.
/// fn announce(
///     engine: &EngineHandle,
///     line: &str,
///     banned: ConnectionId,
/// ) -> Result<(), SendCommandError> {
///     engine.kick(banned)?;
///     engine.broadcast(Arc::from(line.as_bytes()), &Audience::All, SlowReaders::Skip)
/// }
/// ```
///
/// # Ways to end a connection by its id
/// | a connection ends | from any thread | in a callback of its shard | reason |
/// |---|---|---|---|
/// | as its handler likes | [`drain_connection`] | the same, by [`Local::engine`] | any |
/// | after its work | [`run_on_connection`] | [`Local::connection`], [`finish`] | `LocalClose` |
/// | after its output | [`run_on_connection`] | [`Local::connection`], [`close`] | `LocalClose` |
/// | at once | [`kick`] | [`Local::kick`] | `Kicked` |
/// | at once, aborted | [`run_on_connection`] | [`Local::connection`], [`abort`] | `Aborted` |
///
/// A closure for `run_on_connection` calls the method of the third column: `|c| c.close()`.
/// `drain_connection` calls [`Handler::draining`](crate::Handler::draining).
///
/// In all of them an id that names nobody is no error. `EngineHandle` has methods for all
/// connections at once, and the guide has a page on [draining](crate::guide::draining).
///
/// [`drain_connection`]: Self::drain_connection
/// [`run_on_connection`]: Self::run_on_connection
/// [`kick`]: Self::kick
/// [`finish`]: crate::Connection::finish
/// [`close`]: crate::Connection::close
/// [`abort`]: crate::Connection::abort
/// [`Local::connection`]: crate::Local::connection
/// [`Local::kick`]: crate::Local::kick
/// [`Local::engine`]: crate::Local::engine
///
/// # Order
/// A shard carries out the commands of one thread in the order in which they were sent. It carries
/// out the commands of a job before it delivers the job's result, and those that precede
/// [`Hold::complete`](crate::workers::Hold::complete) before the value. Calls for different shards
/// have no order.
///
/// # Blocking
/// Commands to the shards go into bounded queues and never block: a full queue is
/// [`SendCommandError`], see [`Config::mailbox_commands_max`](crate::Config::mailbox_commands_max).
/// Only [`drain`](Self::drain) and [`stop`](Self::stop) always find a place. [`find`](Self::find)
/// and [`list`](Self::list) wait for an answer, for at most one second per shard asked.
#[derive(Clone)]
pub struct EngineHandle(Arc<Shared>, u8);

/// The reason why [`EngineHandle::find`] or [`EngineHandle::list`] has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryShardError {
    /// The shard's command queue is full.
    Busy,
    /// The shard did not answer within one second: a callback is blocking it, or it has ended.
    NoAnswer,
    /// The caller is a shard's own thread, which would wait for itself. Use [`Local`](crate::Local)
    /// there.
    FromCallback,
}

impl fmt::Display for QueryShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => SendCommandError.fmt(f),
            Self::NoAnswer => f.write_str(
                "a shard did not answer within 1 second: a callback blocks it, or it has ended",
            ),
            Self::FromCallback => f.write_str(
                "called on a shard's own thread, which would wait for itself; use Local there",
            ),
        }
    }
}

impl std::error::Error for QueryShardError {}

/// The reason why a shard did not take a command that names it by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandShardError {
    /// The shard's command queue is full. Call again.
    Busy,
    /// The shard has ended.
    Ended,
    /// The number is not below [`EngineHandle::shards`].
    NoSuchShard,
}

impl fmt::Display for CommandShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => SendCommandError.fmt(f),
            Self::Ended => f.write_str("the shard has ended"),
            Self::NoSuchShard => f.write_str(
                "the engine has no shard of this number; EngineHandle::shards counts them",
            ),
        }
    }
}

impl std::error::Error for CommandShardError {}

/// The reason why a change of the banned addresses did not reach every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeBansError {
    /// Another thread is changing the list at this moment. Call again.
    Changing,
    /// A shard's command queue is full. The shards still have the old list, and
    /// [`EngineHandle::bans`] shows the new one. Call again.
    Busy,
    /// The list would have more than 65,536 prefixes.
    TooMany,
}

impl fmt::Display for ChangeBansError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changing => {
                f.write_str("another thread is changing the list of banned addresses; try again")
            }
            Self::Busy => SendCommandError.fmt(f),
            Self::TooMany => write!(
                f,
                "the limit of {BANS_MAX} banned prefixes is reached; merge prefixes or remove some"
            ),
        }
    }
}

impl std::error::Error for ChangeBansError {}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle")
            .field("shards", &self.shards())
            .field("draining", &self.is_draining())
            .finish_non_exhaustive()
    }
}

impl EngineHandle {
    pub(crate) fn new(
        mailboxes: Vec<Sending>,
        published: Vec<Arc<Published>>,
        admission: Arc<Admission>,
        pool: Pool,
        ring: RingInUse,
        registry: Registry,
        state: TypeId,
    ) -> Self {
        let shared = Arc::new(Shared {
            mailboxes,
            published,
            admission,
            pool,
            ring,
            state,
            draining: AtomicBool::new(false),
            registry: Mutex::new(registry),
            bans: Mutex::default(),
            changing_bans: Mutex::default(),
        });
        Self(shared, 0)
    }

    /// A handle whose messages to shards, connects and kept connections are for another handler of
    /// an engine with several ([`Handlers`](crate::Handlers)), by its number. Clones keep it.
    ///
    /// # Panics
    /// With such a handle, [`connect`](Self::connect), [`keep_connected`](Self::keep_connected) and
    /// [`stop_reconnecting`](Self::stop_reconnecting) panic if the tag is 2^56 or more.
    #[must_use]
    pub fn for_handler(&self, number: u8) -> Self {
        Self(self.0.clone(), number)
    }

    /// The number of the handler for which it is.
    pub(crate) fn handler(&self) -> u8 {
        self.1
    }

    /// A shard calls this handler.
    pub(crate) fn serve(&mut self, handler: u8) {
        self.1 = handler;
    }

    /// A tag as it goes through the shard.
    fn scoped(&self, tag: u64) -> u64 {
        if self.1 > 0 { scoped(self.1, tag) } else { tag }
    }

    /// The number of shards of the engine.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.0.mailboxes.len()
    }

    /// Starts a graceful shutdown and returns at once.
    ///
    /// The shards let no new handshake begin. They still accept clients whose handshake is in
    /// progress or complete, and admit waiting clients as others leave. They call
    /// [`Handler::draining`](crate::Handler::draining) for every connection, and reset the
    /// connections that are left after `deadline`. A shard ends when its last connection has ended,
    /// and its last job without a connection ([`Local::offload`](crate::Local::offload)). Another
    /// call can only shorten the deadline. A full command queue does not keep a drain out.
    #[doc(alias("shutdown", "graceful_shutdown"))]
    pub fn drain(&self, deadline: Duration) {
        self.0.draining.store(true, Ordering::SeqCst);
        self.registry().remove_files();
        self.0.mailboxes.iter().for_each(|mailbox| mailbox.drain(deadline));
    }

    /// Resets every connection, closes waiting clients and ends the shards. Returns at once. A full
    /// command queue does not keep a stop out.
    #[doc(alias = "shutdown")]
    pub fn stop(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        self.registry().remove_files();
        self.0.mailboxes.iter().for_each(Sending::stop);
    }

    /// Returns whether [`EngineHandle::drain`] or [`EngineHandle::stop`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Resets a connection with [`Reason::Kicked`](crate::Reason::Kicked). Nothing happens if the
    /// connection has ended already.
    ///
    /// # Errors
    /// [`SendCommandError`] if the shard's queue is full.
    #[doc(alias = "disconnect")]
    pub fn kick(&self, id: ConnectionId) -> Result<(), SendCommandError> {
        self.to_connection(id, Command::Kick(id))
    }

    /// Resets all present connections with [`Reason::Kicked`](crate::Reason::Kicked). Each shard
    /// resets 256 of them per turn of its loop.
    ///
    /// # Errors
    /// [`SendCommandError`] if a shard's queue is full. No shard has taken the command then.
    pub fn kick_all(&self) -> Result<(), SendCommandError> {
        self.to_all(|| Command::KickAll)
    }

    /// Asks one connection to end gracefully, while the engine goes on: calls
    /// [`Handler::draining`](crate::Handler::draining) for it, as a drain of the engine does.
    /// Nothing happens if the connection has ended already, or was asked before.
    ///
    /// There is no deadline: the connection ends when its handler and its timeouts end it, and
    /// [`EngineHandle::kick`] ends it at once.
    ///
    /// # Errors
    /// [`SendCommandError`] if the shard's queue is full.
    pub fn drain_connection(&self, id: ConnectionId) -> Result<(), SendCommandError> {
        self.to_connection(id, Command::DrainConnection(id))
    }

    /// Asks all present connections to end gracefully, as [`EngineHandle::drain_connection`] does.
    /// The engine goes on accepting. Each shard asks 256 of them per turn of its loop.
    ///
    /// # Errors
    /// [`SendCommandError`] if a shard's queue is full. No shard has taken the command then.
    pub fn drain_connections(&self) -> Result<(), SendCommandError> {
        self.to_all(|| Command::DrainConnections)
    }

    /// Sends to one connection. Nothing happens if the connection has ended. There is no flow
    /// control, which [`EngineHandle::stream`] has.
    ///
    /// # Errors
    /// [`SendCommandError`] if the shard's queue is full.
    pub fn send(
        &self,
        id: ConnectionId,
        payload: impl Into<Payload>,
    ) -> Result<(), SendCommandError> {
        self.to_connection(id, Command::Send(id, payload.into(), None))
    }

    /// Sends one shared payload to the connections of `audience`. `slow` decides about those of
    /// them whose output queue is full. A large shard takes several turns of its loop for it. A
    /// connection that opens meanwhile may get it or not. A broadcast in
    /// [`Handler::opened`](crate::Handler::opened) reaches the new connection itself.
    ///
    /// # Errors
    /// [`SendCommandError`] if a shard's queue is full. No shard has taken the command then.
    #[doc(alias = "publish")]
    pub fn broadcast(
        &self,
        bytes: Arc<[u8]>,
        audience: &Audience,
        slow: SlowReaders,
    ) -> Result<(), SendCommandError> {
        self.to_all(|| Command::Broadcast(bytes.clone(), audience.clone(), slow))
    }

    /// Connects out from shard number `shard`, as [`Local::connect`](crate::Local::connect) does.
    /// The result is a callback with `tag`.
    ///
    /// # Errors
    /// See [`CommandShardError`].
    #[doc(alias("IORING_OP_CONNECT", "dial"))]
    pub fn connect(
        &self,
        shard: usize,
        to: impl Into<Connect>,
        tag: u64,
    ) -> Result<(), CommandShardError> {
        self.to_shard(shard, Command::Connect(Box::new(to.into()), self.scoped(tag)))
    }

    /// Ends the attempts of shard number `shard` to connect with a tag, as
    /// [`Local::cancel_connect`](crate::Local::cancel_connect) does. It changes nothing if there is
    /// none.
    ///
    /// # Errors
    /// [`CommandShardError::Busy`] or [`CommandShardError::NoSuchShard`].
    pub fn cancel_connect(&self, shard: usize, tag: u64) -> Result<(), CommandShardError> {
        self.unless_ended(shard, Command::CancelConnect(self.scoped(tag)))
    }

    /// Connects out from shard number `shard` again and again, as
    /// [`Local::keep_connected`](crate::Local::keep_connected) does.
    ///
    /// A refusal of the shard comes to [`Handler::connect_failed`](crate::Handler::connect_failed),
    /// as an error with a [`KeepConnectedError`](crate::KeepConnectedError) inside.
    ///
    /// # Errors
    /// See [`CommandShardError`].
    pub fn keep_connected(
        &self,
        shard: usize,
        to: impl Into<Connect>,
        tag: u64,
        reconnect: Reconnect,
    ) -> Result<(), CommandShardError> {
        self.to_shard(
            shard,
            Command::KeepConnected(Box::new(to.into()), self.scoped(tag), reconnect),
        )
    }

    /// Ends [`EngineHandle::keep_connected`], as
    /// [`Local::stop_reconnecting`](crate::Local::stop_reconnecting) does. It succeeds on a shard
    /// that has ended.
    ///
    /// # Errors
    /// [`CommandShardError::Busy`] or [`CommandShardError::NoSuchShard`].
    pub fn stop_reconnecting(&self, shard: usize, tag: u64) -> Result<(), CommandShardError> {
        self.unless_ended(shard, Command::StopReconnecting(self.scoped(tag)))
    }

    /// Sends a command that has nothing to do on a shard that has ended.
    fn unless_ended(&self, shard: usize, command: Command) -> Result<(), CommandShardError> {
        match self.to_shard(shard, command) {
            Err(CommandShardError::Ended) => Ok(()),
            sent => sent,
        }
    }

    /// Describes a connection, or returns `None` if it has ended. Waits for the shard's answer, at
    /// most one second.
    ///
    /// # Errors
    /// See [`QueryShardError`].
    #[doc(alias = "get")]
    pub fn find(&self, id: ConnectionId) -> Result<Option<ConnectionInfo>, QueryShardError> {
        if self.is_gone(id.shard()) {
            return Ok(None);
        }
        let (answer, question) = bounded(1);
        match self.ask(id.shard(), Command::Find(id, answer), &question) {
            Err(QueryShardError::NoAnswer | QueryShardError::Busy) if self.is_gone(id.shard()) => {
                Ok(None)
            }
            answer => answer,
        }
    }

    /// Describes up to `limit` connections, ordered by shard and slot. `after` continues behind a
    /// connection; `None` starts at the beginning. Waits at most one second per answer of a shard,
    /// which describes up to 1,000 connections.
    ///
    /// # Errors
    /// See [`QueryShardError`].
    pub fn list(
        &self,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Result<Vec<ConnectionInfo>, QueryShardError> {
        let mut found = Vec::new();
        let mut from = after.map_or(0, |id| id.slot() + 1);
        for shard in after.map_or(0, ConnectionId::shard)..self.shards() {
            while found.len() < limit && !self.is_gone(shard) {
                let (answer, question) = bounded(1);
                let limit = (limit - found.len()).min(LIST_MAX);
                let page = match self.ask(shard, Command::List { from, limit, answer }, &question) {
                    Err(QueryShardError::NoAnswer | QueryShardError::Busy)
                        if self.is_gone(shard) =>
                    {
                        break;
                    }
                    page => page?,
                };
                let Some(last) = page.last() else { break };
                from = last.id.slot() + 1;
                found.extend(page);
            }
            from = 0;
        }
        Ok(found)
    }

    /// Changes the number of worker threads while the engine runs, 0 to 1,024.
    ///
    /// Additional workers start at once, on the time of the calling thread. Surplus workers leave
    /// as soon as they finish their current job. With 0 workers, queued jobs fail with
    /// [`RunJobError::NoWorkers`](crate::workers::RunJobError::NoWorkers).
    ///
    /// # Errors
    /// See [`SetWorkersError`].
    pub fn set_workers(&self, workers: usize) -> Result<(), SetWorkersError> {
        self.0.pool.resize(workers)
    }

    /// The number of workers that take jobs.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.pool.workers()
    }

    /// Bans an address or prefix. Returns `false` if this prefix is banned already.
    ///
    /// New clients from there are refused; open connections stay open. A banned client that waits
    /// for a permit is closed. The engine puts a socket filter on its listeners, so that a banned
    /// client gets no answer to its SYN.
    ///
    /// A filter has room for about a thousand IPv4 prefixes or 450 IPv6 addresses. If the list is
    /// longer, or if the kernel refuses the filter, the engine closes banned clients right after
    /// accept instead.
    ///
    /// # Errors
    /// See [`ChangeBansError`].
    #[doc(alias("block", "blocklist"))]
    pub fn ban(&self, prefix: Prefix) -> Result<bool, ChangeBansError> {
        self.change_bans(|bans| match bans.binary_search(&prefix) {
            Ok(_) => Ok(false),
            Err(_) if bans.len() >= BANS_MAX => Err(ChangeBansError::TooMany),
            Err(at) => {
                bans.insert(at, prefix);
                Ok(true)
            }
        })
    }

    /// Undoes [`EngineHandle::ban`] for exactly this prefix. Returns `false` if it was not banned.
    ///
    /// # Errors
    /// See [`ChangeBansError`].
    pub fn unban(&self, prefix: Prefix) -> Result<bool, ChangeBansError> {
        self.change_bans(|bans| {
            let found = bans.binary_search(&prefix);
            Ok(found.map(|at| bans.remove(at)).is_ok())
        })
    }

    /// Replaces the whole list of banned prefixes.
    ///
    /// # Errors
    /// See [`ChangeBansError`].
    pub fn set_bans(&self, prefixes: &[Prefix]) -> Result<(), ChangeBansError> {
        let mut new = prefixes.to_vec();
        new.sort_unstable();
        new.dedup();
        if new.len() > BANS_MAX {
            return Err(ChangeBansError::TooMany);
        }
        self.change_bans(|bans| Ok(std::mem::replace(bans, new).is_empty())).map(drop)
    }

    /// The banned prefixes, sorted.
    #[must_use]
    pub fn bans(&self) -> Arc<Vec<Prefix>> {
        self.0.bans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of clients of an address, with waiting ones. For IPv6, the number of its /64
    /// prefix. 0 if `max_per_address` is not set.
    #[must_use]
    pub fn connections_of(&self, address: IpAddr) -> u64 {
        self.0.admission.count_of(address)
    }

    /// The number of open connections over all shards, as last published.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.ledger().open()
    }

    /// The counters of the engine, as the shards last published them. Every shard publishes once
    /// per turn of its loop.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let published = self.0.published.iter().map(AsRef::as_ref);
        let ring = self.0.ring.clone();
        Ledger { ring, ..Ledger::of(published, &self.0.admission, &self.0.pool) }
    }

    /// The counters of each shard, as last published.
    #[must_use]
    pub fn shard_ledgers(&self) -> Vec<ShardLedger> {
        self.0.published.iter().map(|published| published.read()).collect()
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mailboxes(&self) -> &[Sending] {
        &self.0.mailboxes
    }

    /// Returns whether handlers have states of this type.
    pub(crate) fn has_state(&self, of: TypeId) -> bool {
        self.0.state == of
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Marks the calling thread as a shard of this engine.
    pub(crate) fn enter_shard(&self) {
        SHARD_OF.set(self.identity());
    }

    /// Returns an error on a shard's own thread.
    pub(crate) fn refuse_in_callback(&self) -> Result<(), Error> {
        if SHARD_OF.get() == self.identity() { Err(Error::JoinFromCallback) } else { Ok(()) }
    }

    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    fn change_bans(
        &self,
        change: impl FnOnce(&mut Vec<Prefix>) -> Result<bool, ChangeBansError>,
    ) -> Result<bool, ChangeBansError> {
        let _changing = self.0.changing_bans.try_lock().map_err(|_| ChangeBansError::Changing)?;
        let mut bans = self.bans().to_vec();
        let changed = change(&mut bans)?;
        // The list is sent even if nothing changed, because a shard may have missed the previous
        // one.
        let list = Bans::new(&bans);
        *self.0.bans.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(bans);
        let list = Arc::new(BanList { program: program(&list), bans: list });
        self.to_all(|| Command::Ban(list.clone())).map_err(|_| ChangeBansError::Busy)?;
        Ok(changed)
    }

    fn ask<T>(
        &self,
        shard: usize,
        command: Command,
        answer: &Receiver<T>,
    ) -> Result<T, QueryShardError> {
        if SHARD_OF.get() == self.identity() {
            return Err(QueryShardError::FromCallback);
        }
        self.to(shard, command).map_err(|SendCommandError| QueryShardError::Busy)?;
        answer.recv_timeout(ANSWER_WAIT).map_err(|_| QueryShardError::NoAnswer)
    }

    /// Sends a command to every shard, or to none if a queue is full.
    pub(crate) fn to_all(&self, command: impl Fn() -> Command) -> Result<(), SendCommandError> {
        for place in self.reserve_all()? {
            // A shard that has ended meanwhile has no connection that the command could concern.
            let _ = place.send(command());
        }
        Ok(())
    }

    /// A place in the queue of each shard that has not ended.
    fn reserve_all(&self) -> Result<Vec<Place<'_>>, SendCommandError> {
        let mut places = Vec::with_capacity(self.0.mailboxes.len());
        for mailbox in &self.0.mailboxes {
            match mailbox.reserve() {
                Ok(place) => places.push(place),
                Err(_) if mailbox.has_ended() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(places)
    }

    /// Returns whether the shard has ended or never existed.
    fn is_gone(&self, shard: usize) -> bool {
        self.0.mailboxes.get(shard).is_none_or(Sending::has_ended)
    }

    /// Sends a command about a connection. A shard that has ended does not have it any more, which
    /// is no error.
    pub(crate) fn to_connection(
        &self,
        id: ConnectionId,
        command: Command,
    ) -> Result<(), SendCommandError> {
        let sent = self.to(id.shard(), command);
        if self.is_gone(id.shard()) { Ok(()) } else { sent }
    }

    /// Sends a command to a shard that the caller names by its number.
    pub(crate) fn to_shard(&self, shard: usize, command: Command) -> Result<(), CommandShardError> {
        let mailbox = self.0.mailboxes.get(shard).ok_or(CommandShardError::NoSuchShard)?;
        let sent = mailbox.send(command);
        sent.map_err(|SendCommandError| {
            if mailbox.has_ended() { CommandShardError::Ended } else { CommandShardError::Busy }
        })
    }

    pub(crate) fn to(&self, shard: usize, command: Command) -> Result<(), SendCommandError> {
        self.0.mailboxes.get(shard).ok_or(SendCommandError)?.send(command)
    }
}
