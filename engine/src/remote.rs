//! The thread-safe handle.

use crate::admission::{Admission, Bans, Prefix, program};
use crate::info::ConnectionInfo;
use crate::ledger::{Ledger, Published, ShardLedger};
use crate::mailbox::{BanList, Busy, Command, Sending};
use crate::workers::{Pool, WorkersFailed};
use crate::{ConnectionId, Error, Reconnect};
use crossbeam_channel::{Receiver, bounded};
use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a shard has to answer a question.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Connections that a shard lists in one go: it does nothing else meanwhile.
const LIST_MAX: usize = 1_000;
/// Prefixes that may be banned.
pub(crate) const BANS_MAX: usize = 1 << 16;

thread_local! {
    /// The engine that this thread is a shard of, as the address of what its handles share.
    static SHARD_OF: Cell<usize> = const { Cell::new(0) };
}

struct Shared {
    mailboxes: Vec<Sending>,
    published: Vec<Arc<Published>>,
    admission: Arc<Admission>,
    pool: Pool,
    draining: AtomicBool,
    /// The list as it was last given to the shards. Locked for as long as a pointer is copied.
    bans: Mutex<Arc<Vec<Prefix>>>,
    /// Locked by whoever changes the list; nobody waits for it.
    changing_bans: Mutex<()>,
}

/// Speaks to an engine from any thread, callbacks included. What only tells the shards something
/// does not block: a full queue is [`Busy`]. [`Remote::find`] and [`Remote::list`] wait for an
/// answer, for a second at most. Cheap to clone.
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A shard's queue is full.
    Busy,
    /// A shard did not answer within a second: it is stuck in a callback, or it has ended.
    NoAnswer,
    /// Asked on a shard's own thread, which would wait for itself: ask
    /// [`Local`](crate::Local) there.
    FromCallback,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => Busy.fmt(f),
            Self::NoAnswer => f.write_str(
                "a shard did not answer within 1 second: a callback is blocking it, or it has ended",
            ),
            Self::FromCallback => f.write_str(
                "called on a shard's own thread, which would wait for itself; use Local there",
            ),
        }
    }
}

impl std::error::Error for Ask {}

/// Why the list of banned addresses was not changed everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanFailed {
    /// Somebody else changes it at this moment: call again.
    Changing,
    /// A shard's queue is full and it has the old list: call again.
    Busy,
    /// There are 65,536 prefixes in it already.
    TooMany,
}

impl fmt::Display for BanFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changing => {
                f.write_str("another thread is changing the list of banned addresses; try again")
            }
            Self::Busy => Busy.fmt(f),
            Self::TooMany => write!(
                f,
                "the limit of {BANS_MAX} banned prefixes is reached; merge prefixes or remove some"
            ),
        }
    }
}

impl std::error::Error for BanFailed {}

/// What a broadcast does about connections whose output is above the high-water mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowReaders {
    /// They do not get it; counted in the ledger as `broadcasts_skipped`.
    Skip,
    /// It is queued behind the rest; beyond `output_bytes_max` they are ended with
    /// [`Reason::OutputTooLong`](crate::Reason::OutputTooLong).
    Queue,
    /// They are ended with [`Reason::OutputTooLong`](crate::Reason::OutputTooLong) at once.
    Disconnect,
}

impl Remote {
    pub(crate) fn new(
        mailboxes: Vec<Sending>,
        published: Vec<Arc<Published>>,
        admission: Arc<Admission>,
        pool: Pool,
    ) -> Self {
        Self(Arc::new(Shared {
            mailboxes,
            published,
            admission,
            pool,
            draining: AtomicBool::new(false),
            bans: Mutex::default(),
            changing_bans: Mutex::default(),
        }))
    }

    /// Shards of the engine.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.0.mailboxes.len()
    }

    /// Begins to drain and returns at once: no handshake begins any more, those under way and the
    /// backlog are accepted, who waits is let in as others leave,
    /// [`Handler::draining`](crate::Handler::draining) is called for every connection, and what is
    /// left after `deadline` is reset. Then the shards end. Called again it can only shorten the
    /// deadline. A shard that has ended is done.
    ///
    /// # Errors
    /// [`Busy`] when a shard's queue is full: that shard has not heard of it, call again.
    pub fn drain(&self, deadline: Duration) -> Result<(), Busy> {
        self.0.draining.store(true, Ordering::SeqCst);
        self.to_all(|| Command::Drain(deadline))
    }

    /// Resets every connection, turns away who waits, and ends the shards. Returns at once.
    ///
    /// # Errors
    /// As [`Remote::drain`].
    pub fn stop(&self) -> Result<(), Busy> {
        self.0.draining.store(true, Ordering::SeqCst);
        self.to_all(|| Command::Stop)
    }

    /// Whether a drain or a stop was begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Ends a connection with RST and [`Reason::Kicked`](crate::Reason::Kicked); one that is gone
    /// already is left in peace.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn kick(&self, id: ConnectionId) -> Result<(), Busy> {
        self.to_connection(id, Command::Kick(id))
    }

    /// Ends all connections there are now with RST and [`Reason::Kicked`](crate::Reason::Kicked),
    /// a few hundred per turn of each shard.
    ///
    /// # Errors
    /// [`Busy`]: some shard did not take it, others may have.
    pub fn kick_all(&self) -> Result<(), Busy> {
        self.to_all(|| Command::KickAll)
    }

    /// Sends to one connection; to one that is gone nothing is sent.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn send(&self, id: ConnectionId, bytes: Arc<[u8]>) -> Result<(), Busy> {
        self.to_connection(id, Command::Send(id, bytes))
    }

    /// Sends one shared payload to every connection.
    ///
    /// # Errors
    /// [`Busy`]: some shard did not take it, others may have.
    pub fn broadcast(&self, bytes: Arc<[u8]>, slow: SlowReaders) -> Result<(), Busy> {
        self.to_all(|| Command::Broadcast(bytes.clone(), slow))
    }

    /// Connects out from a shard.
    ///
    /// # Errors
    /// [`Busy`], also where there is no such shard or it has ended.
    pub fn connect(&self, shard: usize, to: SocketAddr, tag: u64) -> Result<(), Busy> {
        self.to(shard, Command::Connect(to, tag))
    }

    /// Connects out from a shard, again and again: [`Local::keep_connected`](crate::Local::keep_connected).
    /// What refuses it there comes as an error to
    /// [`Handler::connect_failed`](crate::Handler::connect_failed), with a
    /// [`KeepRefused`](crate::KeepRefused) inside.
    ///
    /// # Errors
    /// As [`Remote::connect`].
    pub fn keep_connected(
        &self,
        shard: usize,
        to: SocketAddr,
        tag: u64,
        reconnect: Reconnect,
    ) -> Result<(), Busy> {
        self.to(shard, Command::KeepConnected(to, tag, reconnect))
    }

    /// Ends that: [`Local::stop_reconnecting`](crate::Local::stop_reconnecting). A shard that has
    /// ended does not connect any more.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn stop_reconnecting(&self, shard: usize, tag: u64) -> Result<(), Busy> {
        let sent = self.to(shard, Command::StopReconnecting(tag));
        if self.is_gone(shard) { Ok(()) } else { sent }
    }

    /// What is known of a connection; `None` if it is gone. Waits for the shard's answer.
    ///
    /// # Errors
    /// See [`Ask`].
    pub fn find(&self, id: ConnectionId) -> Result<Option<ConnectionInfo>, Ask> {
        if self.is_gone(id.shard()) {
            return Ok(None);
        }
        let (answer, question) = bounded(1);
        match self.ask(id.shard(), Command::Find(id, answer), &question) {
            Err(Ask::NoAnswer | Ask::Busy) if self.is_gone(id.shard()) => Ok(None),
            answer => answer,
        }
    }

    /// What is known of the connections, ordered by shard and slot: those behind `after`, so many
    /// at most. Waits for the shards' answers.
    ///
    /// # Errors
    /// See [`Ask`].
    pub fn list(
        &self,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Result<Vec<ConnectionInfo>, Ask> {
        let mut found = Vec::new();
        let mut from = after.map_or(0, |id| id.slot() + 1);
        for shard in after.map_or(0, ConnectionId::shard)..self.shards() {
            while found.len() < limit && !self.is_gone(shard) {
                let (answer, question) = bounded(1);
                let limit = (limit - found.len()).min(LIST_MAX);
                let page = match self.ask(shard, Command::List { from, limit, answer }, &question) {
                    Err(Ask::NoAnswer | Ask::Busy) if self.is_gone(shard) => break,
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

    /// Changes how many workers do what handlers offload, while the engine runs; 0 is legal.
    /// More start at once, on the calling thread's time; fewer leave as they finish what they
    /// do. At zero, jobs still queued end with [`JobError::NoWorkers`](crate::JobError::NoWorkers).
    ///
    /// # Errors
    /// See [`WorkersFailed`].
    pub fn set_workers(&self, workers: usize) -> Result<(), WorkersFailed> {
        self.0.pool.resize(workers)
    }

    /// Workers that jobs are given to.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.0.pool.workers()
    }

    /// Lets nobody in any more from these addresses; who is connected stays. Where the kernel
    /// takes a filter for the listeners, such a client gets no answer to its SYN; where it does
    /// not (there is room for about a thousand prefixes of IPv4, or four hundred of IPv6), it is
    /// closed as soon as it was accepted. Who waits for a permit and is banned is closed.
    /// False: they were banned already.
    ///
    /// # Errors
    /// See [`BanFailed`].
    pub fn ban(&self, prefix: Prefix) -> Result<bool, BanFailed> {
        self.change_bans(|bans| match bans.binary_search(&prefix) {
            Ok(_) => Ok(false),
            Err(_) if bans.len() >= BANS_MAX => Err(BanFailed::TooMany),
            Err(at) => {
                bans.insert(at, prefix);
                Ok(true)
            }
        })
    }

    /// Undoes [`Remote::ban`]. False: there was no such prefix.
    ///
    /// # Errors
    /// See [`BanFailed`].
    pub fn unban(&self, prefix: Prefix) -> Result<bool, BanFailed> {
        self.change_bans(|bans| {
            let found = bans.binary_search(&prefix);
            Ok(found.map(|at| bans.remove(at)).is_ok())
        })
    }

    /// Bans exactly these, whatever was banned before.
    ///
    /// # Errors
    /// See [`BanFailed`].
    pub fn set_bans(&self, prefixes: &[Prefix]) -> Result<(), BanFailed> {
        let mut new = prefixes.to_vec();
        new.sort_unstable();
        new.dedup();
        if new.len() > BANS_MAX {
            return Err(BanFailed::TooMany);
        }
        self.change_bans(|bans| Ok(std::mem::replace(bans, new).is_empty())).map(drop)
    }

    /// What is banned.
    #[must_use]
    pub fn bans(&self) -> Arc<Vec<Prefix>> {
        self.0.bans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Clients of an address now, those that wait included; 0 where `max_per_address` is not set.
    #[must_use]
    pub fn connections_of(&self, address: IpAddr) -> u64 {
        self.0.admission.count_of(address)
    }

    /// Connections open now, over all shards.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.ledger().open()
    }

    /// The ledger, as the shards last published it.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::of(self.0.published.iter().map(AsRef::as_ref), &self.0.admission, &self.0.pool)
    }

    /// The ledger of each shard, as last published.
    #[must_use]
    pub fn shard_ledgers(&self) -> Vec<ShardLedger> {
        self.0.published.iter().map(|published| published.read()).collect()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// From now on the calling thread is a shard of this engine.
    pub(crate) fn enter_shard(&self) {
        SHARD_OF.set(self.identity());
    }

    /// An error on a shard's own thread.
    pub(crate) fn refuse_in_callback(&self) -> Result<(), Error> {
        if SHARD_OF.get() == self.identity() { Err(Error::JoinFromCallback) } else { Ok(()) }
    }

    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    fn change_bans(
        &self,
        change: impl FnOnce(&mut Vec<Prefix>) -> Result<bool, BanFailed>,
    ) -> Result<bool, BanFailed> {
        let _changing = self.0.changing_bans.try_lock().map_err(|_| BanFailed::Changing)?;
        let mut bans = self.bans().to_vec();
        let changed = change(&mut bans)?;
        // Also where nothing changed: the last time some shard may not have taken it.
        let list = Bans::new(&bans);
        *self.0.bans.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(bans);
        let list = Arc::new(BanList { program: program(&list), bans: list });
        self.to_all(|| Command::Ban(list.clone())).map_err(|_| BanFailed::Busy)?;
        Ok(changed)
    }

    fn ask<T>(&self, shard: usize, command: Command, answer: &Receiver<T>) -> Result<T, Ask> {
        if SHARD_OF.get() == self.identity() {
            return Err(Ask::FromCallback);
        }
        self.to(shard, command).map_err(|Busy| Ask::Busy)?;
        answer.recv_timeout(ANSWER_WAIT).map_err(|_| Ask::NoAnswer)
    }

    fn to_all(&self, command: impl Fn() -> Command) -> Result<(), Busy> {
        let mut result = Ok(());
        for mailbox in &self.0.mailboxes {
            let sent = mailbox.send(command());
            // A shard that has ended has nobody whom it could concern.
            if sent.is_err() && !mailbox.has_ended() {
                result = sent;
            }
        }
        result
    }

    /// There is no such shard, or not any more.
    fn is_gone(&self, shard: usize) -> bool {
        self.0.mailboxes.get(shard).is_none_or(Sending::has_ended)
    }

    /// A shard that is gone has no such connection any more.
    fn to_connection(&self, id: ConnectionId, command: Command) -> Result<(), Busy> {
        let sent = self.to(id.shard(), command);
        if self.is_gone(id.shard()) { Ok(()) } else { sent }
    }

    pub(crate) fn to(&self, shard: usize, command: Command) -> Result<(), Busy> {
        self.0.mailboxes.get(shard).ok_or(Busy)?.send(command)
    }
}
