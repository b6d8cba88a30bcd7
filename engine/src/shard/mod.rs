//! One core: a ring, its connections, and the loop that connects them.
//!
//! A completion is decoded once, changes its connection, and puts it on the dirty list
//! (`Core::touched`). At the end of the batch [`Shard::flush`] turns the wants of those connections
//! into operations. Nothing else submits, so a full submission queue can only delay.

mod accept;
mod again;
mod application;
mod balance;
mod bounds;
mod budget;
mod cached;
mod close;
mod commands;
pub(crate) mod connect;
pub(crate) mod core;
mod deadlines;
mod delivery;
mod evict;
mod families;
mod family;
mod file;
mod file_cache;
#[cfg(ringwright_breaks)]
mod forbidden;
mod forward;
mod groups;
mod identity;
mod incoming;
#[cfg(any(test, feature = "testing"))]
mod invariants;
mod jobs;
mod listeners;
mod listening;
mod long;
mod looks;
pub(crate) mod markers;
mod naming;
mod opening;
mod output;
mod pipes;
mod publish;
mod rare;
mod receive;
pub(crate) mod reconnect;
mod regular_paths;
mod send;
mod sendfile;
pub(crate) mod settings;
pub(crate) mod slots;
mod slow;
pub(crate) mod state;
mod sweep;
mod teardown;
mod timer;
mod timers;
mod turn;
mod u48;
mod waiting;

pub(crate) use self::balance::Handed;
pub(crate) use self::teardown::Tells;
pub(crate) use self::turn::Failure;

use self::accept::Accepting;
use self::application::Application;
use self::balance::Balancing;
use self::bounds::{Bounds, Full, GATHERED_BYTES_MAX, SENDFILES_MAX};
use self::commands::Commands;
use self::core::Core;
use self::evict::Eviction;
use self::jobs::Jobs;
use self::pipes::Place;
use self::slots::Slots;
use self::turn::Submitting;
use crate::admission::Admission;
use crate::config::Config;
use crate::handle::EngineHandle;
use crate::handler::Handler;
use crate::ledger::Published;
use crate::mailbox::Mailbox;
use crate::memory::{Arena, PipePool, ReceiveBuffers, SendBuffers};
use crate::ring::{Kind, Op, Ring, Token};
use crate::transit::Transit;
use crate::workers::Port;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a shard is put together from.
pub(crate) struct Parts<'a, R: Ring, H: Handler> {
    pub number: usize,
    pub config: &'a Config,
    pub ring: R,
    /// Stays mapped for as long as the shard lives.
    pub arena: &'a Arena,
    pub handler: H,
    pub mailbox: Mailbox,
    pub published: Arc<Published>,
    pub admission: Arc<Admission>,
    pub handle: EngineHandle,
    pub jobs: Port,
    pub transit: Arc<Transit<Handed>>,
}

/// One shard.
pub(crate) struct Shard<R: Ring, H: Handler> {
    ring: R,
    core: Core,
    application: Application<H>,
    receive_buffers: ReceiveBuffers,
    pipes: PipePool,
    accepting: Accepting,
    balancing: Balancing,
    transit: Arc<Transit<Handed>>,
    eviction: Eviction,
    mailbox: Mailbox,
    commands: Commands,
    wake_armed: bool,
    /// Connections that found no buffer, oldest first, with their generation.
    starved: VecDeque<(u32, u64)>,
    /// One-shot receives armed in this turn, or about to be, and still in flight: each may take a
    /// buffer. An older one waits for its peer, and delays no other connection.
    once_armed: usize,
    starving_until_ms: u64,
    long: long::Long,
    /// Connections that wait for a pipe, oldest first.
    pipe_queue: VecDeque<Place>,
    /// Connections that have a pipe for a file on its way out.
    pipe_holders: Vec<u32>,
    pipe_retry_at_ms: Option<u64>,
    drain_deadline_ms: Option<u64>,
    /// When a drain that has passed its deadline ends, come what may.
    drain_ends_at_ms: Option<u64>,
    /// Operations whose terminal completion has not been seen.
    in_flight: u64,
    /// Files whose close is in flight.
    files_closing: u64,
    /// When the listeners are asked what they dropped.
    drops_at_ms: Option<u64>,
    /// Operations pushed between two looks into the ring at most.
    pushes_max: u32,
    /// The shard was kept from running until then: what has come meanwhile may not have been seen.
    paused_until_ms: u64,
    /// When the last wait ended, and how many completions were dispatched since then.
    woke_us: u64,
    batch: u64,
    bounds: Bounds,
    /// Few connections are flushed: what they send need not wait for one another.
    sends_at_once: bool,
    /// Operations that may still be pushed before the next look into the ring.
    pushes_left: u32,
    /// Bytes of cached files that may still be sent in this turn.
    sendfile_left: u64,
    /// Bytes that may still leave several buffers at once in this turn.
    gather_left: usize,
    /// What was found in the page cache lately.
    looks: looks::Looks,
    /// Inodes of files of which a splice into a pipe is in flight, once for each.
    splicing: Vec<u64>,
    /// Who has sent a piece of a file in this turn: behind those who have not.
    served: Vec<u32>,
    /// Opens in flight that may wait for more than a disk, and the connections whose opens wait
    /// for those, oldest first, with their generation.
    slow_opens: u32,
    open_queue: VecDeque<(u32, u64)>,
    /// Most of them: one thread is left for those that wait for a disk only.
    slow_opens_max: u32,
    /// Slots whose deadlines are due, the earliest first.
    due: Vec<u32>,
    published: Arc<Published>,
}

impl<R: Ring, H: Handler> Shard<R, H> {
    pub fn new(parts: Parts<'_, R, H>) -> Self {
        let Parts { number, config, mut ring, arena, handler, .. } = parts;
        let receive_bytes =
            usize::from(config.receive_buffers) * config.receive_buffer_bytes as usize;
        let receive_buffers = ReceiveBuffers::new(
            arena.address(),
            config.receive_buffers,
            config.receive_buffer_bytes,
            &mut ring,
        );
        let send_address = arena.address().wrapping_add(receive_bytes);
        let send_buffers =
            SendBuffers::new(send_address, config.send_buffers, config.send_buffer_bytes);
        let setup = config.setup();
        let (now_ms, admission) = (ring.now_ms(), parts.admission);
        let balancing = Balancing::new(config.balance, parts.transit.shards());
        let jobs = Jobs::new(parts.jobs, config);
        let mut core =
            Core::new(number, config, &mut ring, send_buffers, admission, parts.handle, jobs);
        core.counters.submission_entries = u64::from(setup.submission_entries);
        core.counters.completion_entries = u64::from(setup.completion_entries);
        core.counters.budget_bytes = core.budget.share_bytes() as u64;
        Self {
            ring,
            core,
            application: Application::new(handler),
            receive_buffers,
            pipes: PipePool::new(config.pipes, config.pipe_bytes),
            accepting: Accepting::new(config),
            balancing,
            transit: parts.transit,
            eviction: Eviction::new(config.evict_idle),
            mailbox: parts.mailbox,
            commands: Commands::default(),
            published: parts.published,
            wake_armed: false,
            starved: VecDeque::new(),
            once_armed: 0,
            starving_until_ms: 0,
            long: long::Long::default(),
            pipe_queue: VecDeque::new(),
            pipe_holders: Vec::new(),
            pipe_retry_at_ms: None,
            drain_deadline_ms: None,
            drain_ends_at_ms: None,
            in_flight: 0,
            files_closing: 0,
            drops_at_ms: None,
            // Half a completion queue in one go, or what ends at once would overflow it.
            pushes_max: setup.completion_entries / 2,
            paused_until_ms: 0,
            woke_us: now_ms * 1000,
            batch: 0,
            bounds: Bounds::new(config.receive_buffer_bytes, Self::FLUSHED),
            sends_at_once: false,
            pushes_left: setup.completion_entries / 2,
            sendfile_left: SENDFILES_MAX * u64::from(config.sendfile_bytes_max),
            gather_left: GATHERED_BYTES_MAX,
            looks: looks::Looks::default(),
            splicing: Vec::new(),
            served: Vec::new(),
            slow_opens: 0,
            open_queue: VecDeque::new(),
            slow_opens_max: (config.io_workers_max - 1).max(1),
            due: Vec::new(),
        }
    }

    fn push(&mut self, _may: Submitting, token: Token, op: Op) -> Result<(), Full> {
        if self.pushes_left == 0 || !self.ring.push(token, op) {
            return Err(Full);
        }
        self.pushes_left -= 1;
        self.in_flight += 1;
        Ok(())
    }

    /// Submits an operation of a connection.
    fn submit(&mut self, may: Submitting, slot: u32, kind: Kind, op: Op) -> Result<(), Full> {
        let token = Token::new(kind, self.core.slots.generation(slot), slot);
        self.push(may, token, op)?;
        self.core.slots[slot].began(kind);
        Ok(())
    }

    fn give_back(&mut self, buffer: Option<crate::memory::HeldBuffer>) {
        if let Some(buffer) = buffer {
            self.receive_buffers.give_back(buffer, &mut self.ring);
        }
    }

    /// Whether a drain has come to its end: nothing open, nothing in flight but the wake poll.
    pub fn is_finished(&self) -> bool {
        self.core.draining
            && self.core.slots.len() == 0
            && self.core.sweeps.is_empty()
            && self.accepting.is_quiet()
            && self.core.files_closing.is_empty()
            && self.core.file_cache.len() == 0
            && !self.core.files_open.has_dropped()
            && self.core.connects.is_empty()
            && !self.core.jobs.holds_up_drain()
            && self.in_flight == u64::from(self.wake_armed)
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn parts(&mut self) -> (&mut R, &mut Core) {
        (&mut self.ring, &mut self.core)
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn handler(&mut self) -> &mut H {
        self.application.handler()
    }

    fn slots(&self) -> &Slots {
        &self.core.slots
    }
}
