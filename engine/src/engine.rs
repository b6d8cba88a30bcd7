//! Starting an engine and waiting for its end.

use crate::admission::Admission;
use crate::cgroup;
use crate::config::{Config, Listener};
use crate::cpu::{self, Place};
use crate::ends::{Ending, Ends, Until};
use crate::error::{BoxError, Error};
use crate::handle::EngineHandle;
use crate::handler::Handler;
use crate::ledger::{Ledger, Published};
use crate::listener::{LISTEN_WAIT, Opening};
use crate::mailbox::{Command, Mailbox, Opened, Sending};
use crate::memory::Arena;
use crate::panics::{Panic, discard, message_of};
use crate::registry::Registry;
use crate::ring::calls;
use crate::ring::epoll::EpollRing;
use crate::ring::kernel::KernelRing;
use crate::ring::probe::{self, CreateRingError, Held, memlock_allowed};
use crate::ring::{Errno, Ring, RingInUse, RingKind, Setup};
use crate::shard::{Failure, Handed, Parts, Shard, Tells};
use crate::transit::Transit;
use crate::validate;
use crate::workers::{Pool, Port};
use std::any::TypeId;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The wait for operations in flight after a ring has failed. Then their memory is leaked.
const TEAR_DOWN_WAIT: Duration = Duration::from_millis(100);
/// The beginning of the notice about buffers that are not registered. There is at most one.
const UNREGISTERED: &str = "the buffers are not registered with the kernel";
/// The deadline of the drain with which a dropped engine ends.
const DROP_DEADLINE: Duration = Duration::from_secs(2);
/// The longest wait of a drop for the shards. Operations in flight may last three seconds longer
/// than a drain.
const DROP_WAIT: Duration = Duration::from_secs(6);
/// The wait for running jobs after the last shard has ended.
const JOBS_GRACE: Duration = Duration::from_secs(3);
/// The divisor for `open_files`: kept files use at most this part of the process's descriptors.
const OPEN_FILES_PART: u64 = 16;
/// The divisor for the default of `memory_budget_bytes`, and its bounds.
const BUDGET_PART: u64 = 32;
const BUDGET_BYTES_MIN: usize = 16 << 20;
const BUDGET_BYTES_MAX: usize = 256 << 20;
/// The least that a shard has of it by default.
const SHARE_BYTES_MIN: usize = 1 << 20;

/// A running engine: its shards, their threads and their listeners.
///
/// [`Engine::start`] starts it and [`Engine::join`] waits for its end. In between,
/// [`Engine::handle`] gives a handle that other threads use to drain it, to read its counters and
/// to send to its connections.
///
/// ```
/// use ringwright::{Config, Connection, Engine, Handler, Origin};
/// use std::time::{Duration, Instant};
///
/// struct Discard;
///
/// impl Handler for Discard {
///     type State = ();
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
///     fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         bytes.len()
///     }
/// }
///
/// let config = Config {
///     listeners: vec!["127.0.0.1:0".parse()?],
///     shards: Some(2),
///     ..Config::default()
/// };
/// let engine = Engine::start(config, |_shard| Discard)?;
/// for notice in engine.notices() {
///     eprintln!("notice: {notice}");
/// }
/// println!("listening on {}", engine.addresses()[0]);
///
/// // A program drains on SIGTERM, for example. The call returns at once.
/// engine.handle().drain(Duration::from_secs(5));
/// let ledger = engine.join()?;
/// assert!(ledger.balanced());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Methods by purpose
/// | to | call |
/// |---|---|
/// | start the shards, workers and listeners | [`Engine::start`], [`Engine::try_start`] |
/// | learn the port that port 0 became | [`Engine::addresses`] |
/// | learn of limits that will hurt | [`Engine::notices`] |
/// | control it from any thread | [`Engine::handle`] |
/// | wait until a shard ends | [`Engine::wait`] |
/// | wait for the end, and get the ledger | [`Engine::join`] |
/// | wait for these in a task | [`Engine::shard_ended`], [`Engine::ended`] |
/// | ask if it has ended | [`Engine::is_finished`] |
///
/// # Threads
/// An `Engine` is `Send` and `Sync`: it can lie in a static, or in an `Arc` that several threads
/// share.
///
/// Each shard runs on its own thread, `shard-0` and so on, pinned to a CPU unless [`Config::pin`]
/// is off. Workers run on threads `worker-0` and so on. SIGPIPE is blocked on the threads of the
/// shards, because splice(2) raises it. The engine installs no signal handlers.
///
/// # Shutdown
/// 1. [`EngineHandle::drain`] stops accepting, calls [`Handler::drain_begun`] for every shard and
///    [`Handler::draining`] for every connection, and resets the connections that are left at the
///    deadline. [`EngineHandle::stop`] resets all at once.
/// 2. Each shard ends when its last connection has ended. Its last callback is [`Handler::ended`].
/// 3. [`Engine::join`] returns the final [`Ledger`], or the error of the first shard that failed.
///
/// An engine that is dropped without `join` drains with a deadline of 2 seconds. The drop waits
/// for the shards to end, but no longer than 6 seconds: a shard whose callback blocks is left
/// behind. It does not wait for running jobs, and not at all on a shard's own thread.
pub struct Engine {
    notices: Vec<String>,
    handle: EngineHandle,
    shards: Vec<JoinHandle<Result<(), Error>>>,
    ends: Ends,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("shards", &self.shards.len())
            .field("notices", &self.notices)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the engine: the shards, the workers, then the listeners.
    ///
    /// `factory` is called once on the thread of each shard, with the shard's number from 0, and
    /// returns its handler. The listeners are opened when [`Handler::started`] has returned on
    /// every shard. For an address in use, `start` tries again for one second, because the sockets
    /// of a killed process live on for some milliseconds. If anything fails, `start` ends all
    /// shards again before it returns the error.
    ///
    /// # Errors
    /// * [`Error::Config`]: a field of `config` is out of range.
    /// * [`Error::Ring`]: io_uring is forbidden though [`Config::ring`] demands it, or a limit is
    ///   too low for the rings.
    /// * [`Error::Listen`]: an address cannot be listened on.
    /// * [`Error::Start`]: a thread, mapping or event descriptor cannot be created.
    /// * [`Error::HandlerFailed`]: [`Handler::started`] returned an error.
    /// * [`Error::HandlerPanicked`]: `factory` or [`Handler::started`] panicked.
    #[doc(alias("bind", "listen", "serve", "run"))]
    pub fn start<H: Handler>(
        config: Config,
        factory: impl Fn(usize) -> H + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::try_start(config, move |shard| Ok(factory(shard)))
    }

    /// As [`Engine::start`], with a factory that may fail.
    ///
    /// ```
    /// # use ringwright::{Config, Connection, Engine, Error, Handler, Origin};
    /// # struct Table;
    /// # impl Handler for Table {
    /// #     type State = ();
    /// #     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    /// #     fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
    /// #         bytes.len()
    /// #     }
    /// # }
    /// let config = Config { shards: Some(2), ..Config::default() };
    /// let started = Engine::try_start(config, |_shard| {
    ///     let _text = std::fs::read_to_string("no-such-table")?;
    ///     Ok(Table)
    /// });
    /// if let Err(Error::HandlerFailed { shard, place, source }) = started {
    ///     eprintln!("shard {shard} has no handler, because its {place} failed: {source}");
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`Engine::start`], and [`Error::HandlerFailed`] with the error of the factory.
    pub fn try_start<H: Handler>(
        config: Config,
        factory: impl Fn(usize) -> Result<H, BoxError> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let started = Self::begin(config, factory);
        let facts = |engine: &Self| {
            let handle = &engine.handle;
            (handle.shards(), handle.ledger().ring.kind, handle.listeners().len())
        };
        report!(engine_started(started.as_ref().map(facts)));
        started
    }

    fn begin<H: Handler>(
        mut config: Config,
        factory: impl Fn(usize) -> Result<H, BoxError> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let Prepared { count, cpus, ring, mut notices } = prepare(&mut config)?;
        let (kind, others, setup) = (ring.kind, Held::of_process(), config.setup());
        let register_arena = kind == RingKind::IoUring
            && arena_fits_memlock(others.and(count, &setup), &mut notices);
        let rings = others.and(count, &Setup { arena_registered: register_arena, ..setup });

        let admission = Arc::new(Admission::new(
            config.max_connections,
            config.outgoing_reserved,
            count,
            config.max_per_address,
            count * config.waiting_max(),
        ));
        let (mailboxes, receiving) = make_mailboxes(&config, count)?;
        admission.set_wakers(mailboxes.iter().map(|sending| sending.waker().clone()).collect());
        let published: Vec<Arc<Published>> = (0..count).map(|_| Arc::default()).collect();
        let wakers: Vec<_> = mailboxes.iter().map(|sending| sending.waker().clone()).collect();
        let transit = Transit::new(wakers.clone());
        let (pool, ports) = Pool::new(config.jobs_queued_max, wakers, true);
        let handle = EngineHandle::new(
            mailboxes.clone(),
            published.clone(),
            admission.clone(),
            pool,
            ring,
            Registry::new(&config),
            TypeId::of::<H::State>(),
        );
        // The workers start first, because a handler may offload jobs from its first callback on.
        let ports = start_workers(&handle, config.workers, ports)?;
        let pinned = if config.pin { count } else { 0 };
        let mut places = Place::take(&cpus, config.pin_from, pinned).into_iter();
        let (ready, readiness) = sync_channel(count);
        let ends = Ends::new(count);
        let plan = |(shard, (mailbox, jobs))| Plan {
            shard,
            ring: kind,
            register_arena,
            started: setup.started,
            place: places.next(),
            config: config.clone(),
            mailbox,
            jobs,
            published: published[shard].clone(),
            admission: admission.clone(),
            transit: transit.clone(),
            handle: handle.clone(),
            ready: ready.clone(),
            ending: Some(ends.of_shard()),
        };
        let plans: Vec<_> = receiving.into_iter().zip(ports).enumerate().map(plan).collect();
        drop(ready);
        let (shards, failed) = spawn(plans, factory);
        let mut engine = Self { notices, handle, shards, ends };
        let started = match failed {
            Some(error) => Err(error),
            None => engine.wait_until_ready(&readiness, count),
        };
        match started.and_then(|()| engine.listen(&config, &mailboxes)) {
            Ok(()) => Ok(engine),
            Err(Error::Ring(error)) => Err(engine.end_start(Error::Ring(error.of_rings(rings)))),
            Err(error) => Err(engine.end_start(error)),
        }
    }

    /// Ends the shards of a start that failed, and returns the error that explains the most.
    fn end_start(self, error: Error) -> Error {
        self.handle.drain(Duration::ZERO);
        match self.join() {
            // The error of a shard that panicked explains more than that the shard was not ready.
            Err(panicked @ Error::ShardPanicked { .. }) => panicked,
            _ => error,
        }
    }

    /// The IP addresses listened on, with the actual ports, by the numbers of the listeners: those
    /// of [`Config::listeners`] in their order, without removed ones, and those that were added.
    /// Unix sockets are left out.
    ///
    /// [`EngineHandle::listeners`] tells more, and of Unix sockets, too.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.handle.registry().addresses()
    }

    /// Notices for the operator about limits of the system that make the engine slower, each with a
    /// remedy. Empty if there is nothing to report.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Returns a handle that works on every thread.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Waits until every shard has ended, and returns the final ledger. Shards end after
    /// [`EngineHandle::drain`] or [`EngineHandle::stop`], or when they fail.
    ///
    /// # Errors
    /// * [`Error::ShardFailed`], [`Error::ShardPanicked`], [`Error::DrainIncomplete`],
    ///   [`Error::HandlerPanicked`]: the error of the first shard that did not end well. All shards
    ///   have ended by then.
    /// * [`Error::JobsRunning`]: jobs still run three seconds after the last shard has ended.
    /// * [`Error::JoinFromCallback`]: the caller is a shard's own thread. The engine is dropped.
    pub fn join(mut self) -> Result<Ledger, Error> {
        self.handle.refuse_in_callback()?;
        let mut result = Ok(());
        for (shard, thread) in std::mem::take(&mut self.shards).into_iter().enumerate() {
            let ended = thread.join().unwrap_or_else(|panic| {
                Err(Error::ShardPanicked { shard, message: message_of(panic) })
            });
            result = result.and(ended);
        }
        // Those of shards that have all failed, without a drain.
        self.handle.registry().remove_files();
        let jobs = self.handle.pool().join(JOBS_GRACE);
        if jobs > 0 {
            result = result.and(Err(Error::JobsRunning { jobs }));
        }
        report!(engine_ended(result.as_ref().err()));
        result.map(|()| self.handle.ledger())
    }

    /// Waits until the first shard has ended, after a drain or because it failed.
    ///
    /// After a failure the other shards continue, but the listeners of the failed one are closed.
    /// To end the process then, call [`EngineHandle::drain`] and [`Engine::join`], which returns
    /// the cause.
    ///
    /// # Errors
    /// [`Error::JoinFromCallback`] on a shard's own thread.
    pub fn wait(&self) -> Result<(), Error> {
        self.handle.refuse_in_callback()?;
        self.ends.wait(Until::First, None);
        Ok(())
    }

    /// The end of the engine as a future, for tasks of any runtime. It is ready once every shard
    /// has ended, also if shards have failed. [`Engine::join`] then waits for running jobs only, up
    /// to three seconds, and tells how the shards have ended.
    ///
    /// The future borrows nothing, and there may be any number of them. One that is dropped leaves
    /// nothing behind, so it can be raced with a timeout. On a shard's own thread it must not block
    /// the thread.
    ///
    /// ```
    /// # use ringwright::{Config, Connection, Engine, Handler, Origin};
    /// # struct Discard;
    /// # impl Handler for Discard {
    /// #     type State = ();
    /// #     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    /// #     fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
    /// #         bytes.len()
    /// #     }
    /// # }
    /// use std::time::Duration;
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    /// # runtime.block_on(async {
    /// let engine = Engine::start(Config::default(), |_shard| Discard)?;
    /// engine.handle().drain(Duration::from_secs(5));
    /// engine.ended().await;
    /// let ledger = engine.join()?;
    /// # assert!(ledger.balanced());
    /// # Ok::<(), ringwright::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("async", "await", "tokio"))]
    pub fn ended(&self) -> impl Future<Output = ()> + Send + Sync + Unpin + use<> {
        self.ends.future(Until::Last)
    }

    /// As [`Engine::wait`], a future: it is ready once the first shard has ended. A program that
    /// does not drain by itself learns of a failure this way.
    ///
    /// It has the properties of [`Engine::ended`].
    pub fn shard_ended(&self) -> impl Future<Output = ()> + Send + Sync + Unpin + use<> {
        self.ends.future(Until::First)
    }

    /// Returns whether every shard has ended, so that [`Engine::join`] does not wait for a shard.
    ///
    /// This is stronger than an [`EngineHandle::ledger`] without open connections: a drain may not
    /// have reached every shard yet, and a new connection may not be in the published counters yet.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shards.iter().all(JoinHandle::is_finished)
    }

    fn wait_until_ready(
        &mut self,
        readiness: &Receiver<Result<bool, Error>>,
        count: usize,
    ) -> Result<(), Error> {
        for _ in 0..count {
            match readiness.recv() {
                Ok(ready) => {
                    if !ready?
                        && !self.notices.iter().any(|notice| notice.starts_with(UNREGISTERED))
                    {
                        self.notices.push(unregistered(
                            "they do not fit into RLIMIT_MEMLOCK together with the other rings \
                             of this user",
                        ));
                    }
                }
                // The thread ended before it reported anything; `join` returns its panic.
                Err(_) => {
                    let source = std::io::Error::other("a shard ended before it was ready");
                    return Err(Error::Start { what: "starting a shard", source });
                }
            }
        }
        Ok(())
    }

    fn listen(&mut self, config: &Config, mailboxes: &[Sending]) -> Result<(), Error> {
        let opening = Opening::new(Instant::now() + LISTEN_WAIT, &config.bans);
        let mut of_shard: Vec<Vec<Opened>> = mailboxes.iter().map(|_| Vec::new()).collect();
        let mut filter_failed = None;
        let ip = |listener: &Listener| listener.address.ip();
        let addresses: Vec<SocketAddr> = config.listeners.iter().filter_map(ip).collect();
        for listener in &config.listeners {
            let shards = mailboxes.len();
            let opened = self.handle.open_sockets(listener, shards, &addresses, &opening)?;
            filter_failed = filter_failed.or(opened.1);
            self.handle.registry().accept(&[opened.0.number()]);
            for (of_shard, opened) in of_shard.iter_mut().zip(opened.0.share()) {
                of_shard.push(opened);
            }
        }
        let unfiltered = match (opening.has_filter(), filter_failed) {
            (_, Some(Errno(libc::EPERM))) => {
                Some("SO_ATTACH_FILTER needs CAP_NET_ADMIN on this kernel".to_owned())
            }
            (_, Some(errno)) => Some(format!(
                "SO_ATTACH_FILTER failed ({errno:?}); ban fewer prefixes or raise \
                 net.core.optmem_max"
            )),
            (false, _) if !config.bans.is_empty() => {
                Some("the list is too long for a filter; ban fewer, larger prefixes".to_owned())
            }
            _ => None,
        };
        self.notices.extend(unfiltered.map(|why| {
            format!("banned clients are closed after accept, not refused by a socket filter: {why}")
        }));
        // The bans must reach the shards before the listeners do.
        self.handle.set_bans(&config.bans).map_err(|failed| Error::Start {
            what: "banning addresses",
            source: std::io::Error::other(failed),
        })?;
        for (mailbox, opened) in mailboxes.iter().zip(of_shard) {
            mailbox.send(Command::Listen(opened)).map_err(|busy| Error::Start {
                what: "handing the listeners to a shard",
                source: std::io::Error::other(busy),
            })?;
        }
        Ok(())
    }
}

/// The number of shards, the CPUs for them, their ring, and notices for the operator.
struct Prepared {
    count: usize,
    cpus: Vec<usize>,
    ring: RingInUse,
    notices: Vec<String>,
}

/// Starts the workers, or nothing at all.
fn start_workers(
    handle: &EngineHandle,
    workers: usize,
    ports: Vec<Port>,
) -> Result<Vec<Port>, Error> {
    handle.set_workers(workers).map(|()| ports).map_err(|failed| {
        handle.pool().join(JOBS_GRACE);
        let source = std::io::Error::other(failed);
        Error::Start { what: "starting the workers", source }
    })
}

/// A command queue with its two ends for each shard.
fn make_mailboxes(config: &Config, count: usize) -> Result<(Vec<Sending>, Vec<Mailbox>), Error> {
    let pairs: Result<Vec<_>, _> =
        (0..count).map(|_| Mailbox::new(config.mailbox_commands_max)).collect();
    let pairs = pairs.map_err(|source| Error::Start { what: "eventfd(2)", source })?;
    Ok(pairs.into_iter().unzip())
}

/// Checks the configuration, and fits it to the limits of the process.
fn prepare(config: &mut Config) -> Result<Prepared, Error> {
    // A shard that is not pinned stays where the calling thread is.
    let cpus = if config.pin { cpu::of_process() } else { cpu::allowed() };
    let count = config.shards.unwrap_or_else(|| cpu::shards(cpus.len(), cpu::quota()));
    validate::check(config, count)?;
    config.shards = Some(count);
    config.memory_budget_bytes.get_or_insert_with(|| default_budget(cgroup::memory_bytes(), count));
    let mut notices = Vec::new();
    let descriptors = descriptors(config, &mut notices);
    notices.extend(bound_thread(&cpu::allowed(), &cpus));
    config.features = probe::found(config.features);
    let (ring, fallback) = config.ring.decide(config.features);
    notices.extend(fallback);
    let open_files_max = descriptors / OPEN_FILES_PART / count as u64;
    config.open_files = config.open_files.min(usize::try_from(open_files_max).unwrap_or(0));
    Ok(Prepared { count, cpus, ring, notices })
}

/// The memory budget of an engine with so many shards that may use `memory_bytes`.
///
/// A stalled client may keep a whole high-water mark of 256 KiB: on a machine of 1 GiB, 128 of them
/// do so before the marks are lowered. More than 256 MiB would let 10,000 clients take half a
/// gigabyte for nothing.
fn default_budget(memory_bytes: Option<u64>, shards: usize) -> usize {
    let part = memory_bytes.unwrap_or(0) / BUDGET_PART;
    let bytes = usize::try_from(part).unwrap_or(usize::MAX);
    bytes.clamp(BUDGET_BYTES_MIN, BUDGET_BYTES_MAX).max(shards * SHARE_BYTES_MIN)
}

/// Raises the limit on descriptors if the configuration asks for it. Returns the soft limit.
fn descriptors(config: &Config, notices: &mut Vec<String>) -> u64 {
    if config.raise_descriptors
        && let Err(error) = calls::raise_descriptors()
    {
        notices.push(format!("cannot raise the limit on open files (RLIMIT_NOFILE): {error}"));
    }
    let (soft, hard) = calls::descriptors_allowed();
    let connections = config.max_connections;
    if soft <= connections as u64 {
        notices.push(format!(
            "max_connections is {connections}, but the limit on open files is {soft} (hard limit \
             {hard}); clients beyond that wait until a descriptor is free; raise the limit \
             (ulimit -n, systemd: LimitNOFILE=, or Config::raise_descriptors up to the hard \
             limit) or lower max_connections"
        ));
    }
    soft
}

/// A notice if the calling thread may not use all CPUs of the process.
fn bound_thread(allowed: &[usize], cpus: &[usize]) -> Option<String> {
    (allowed != cpus).then(|| {
        format!(
            "the thread that started the engine is bound to {} of {} CPUs of the process; the \
             shards use all of them; set Config::shards and Config::pin_from to change that",
            allowed.len(),
            cpus.len()
        )
    })
}

impl Drop for Engine {
    /// Drains, unless `join` has waited for the end already.
    fn drop(&mut self) {
        if self.shards.is_empty() {
            return;
        }
        self.handle.drain(DROP_DEADLINE);
        if self.handle.refuse_in_callback().is_ok() {
            self.ends.wait(Until::Last, Some(DROP_WAIT));
            report!(engine_ended(None::<&Error>));
        }
    }
}

/// Starts a thread for each plan. After a failure the further plans are dropped.
fn spawn<H: Handler>(
    plans: Vec<Plan>,
    factory: impl Fn(usize) -> Result<H, BoxError> + Send + Sync + 'static,
) -> (Vec<JoinHandle<Result<(), Error>>>, Option<Error>) {
    let factory = Arc::new(factory);
    let mut shards = Vec::with_capacity(plans.len());
    for plan in plans {
        let (shard, factory) = (plan.shard, factory.clone());
        let spawned = std::thread::Builder::new().name(format!("shard-{shard}")).spawn(move || {
            let ended = plan.run(|| factory(shard));
            // The last reference drops what the application's closure holds.
            discard(factory);
            ended
        });
        match spawned {
            Ok(thread) => shards.push(thread),
            Err(source) => {
                return (shards, Some(Error::Start { what: "starting a shard's thread", source }));
            }
        }
    }
    (shards, None)
}

/// The parts that a shard's thread starts from.
struct Plan {
    shard: usize,
    ring: RingKind,
    register_arena: bool,
    started: Instant,
    place: Option<Place>,
    config: Config,
    mailbox: Mailbox,
    jobs: Port,
    published: Arc<Published>,
    admission: Arc<Admission>,
    transit: Arc<Transit<Handed>>,
    handle: EngineHandle,
    /// Reports whether the arena is registered, or the error that prevents this shard.
    ready: SyncSender<Result<bool, Error>>,
    ending: Option<Ending>,
}

impl Plan {
    /// Runs a shard on the current thread until its end.
    fn run<H: Handler>(self, make: impl FnOnce() -> Result<H, BoxError>) -> Result<(), Error> {
        match self.ring {
            RingKind::IoUring => self.run_on(KernelRing::new, KernelRing::has_arena, make),
            // Without io_uring there is nothing to register the arena with, and nothing to report.
            RingKind::Epoll => self.run_on(EpollRing::new, |_| true, make),
        }
    }

    /// The same on one of the rings. Each has code of its own, so that no operation asks for the
    /// kind of its ring.
    fn run_on<R: Ring, H: Handler>(
        mut self,
        make_ring: fn(&Setup) -> Result<R, CreateRingError>,
        has_arena: fn(&R) -> bool,
        make: impl FnOnce() -> Result<H, BoxError>,
    ) -> Result<(), Error> {
        let _ending = self.ending.take();
        self.handle.enter_shard();
        if let Some(place) = &self.place {
            // Not fatal: the affinity mask may have changed since it was read.
            let _ = cpu::pin(place.cpu());
        }
        let mut setup = self.config.setup();
        (setup.arena_registered, setup.started) = (self.register_arena, self.started);
        let unmapped = |source| Error::Start { what: "mmap(2) of the arena", source };
        let built = Arena::new(setup.arena_bytes).map_err(unmapped).and_then(|arena| {
            setup.arena_address = arena.address();
            make_ring(&setup).map(|ring| (arena, ring)).map_err(Error::from)
        });
        let (arena, ring) = match built {
            Ok(built) => built,
            Err(error) => {
                let _ = self.ready.send(Err(error));
                return Ok(());
            }
        };
        self.config.streaming_connections_max *= usize::from(ring.has_multishot_receive());
        let (shard, kind, has_arena) = (self.shard, self.ring, has_arena(&ring));
        let handler = match settled(shard, "factory", catch_unwind(AssertUnwindSafe(make))) {
            Ok(handler) => handler,
            Err(error) => {
                let _ = self.ready.send(Err(error));
                return Ok(());
            }
        };
        let mut running = Shard::new(Parts {
            number: shard,
            config: &self.config,
            ring,
            arena: &arena,
            handler,
            mailbox: self.mailbox,
            jobs: self.jobs,
            published: self.published,
            admission: self.admission,
            transit: self.transit,
            handle: self.handle,
        });
        let started = settled(shard, "started", running.start());
        let has_started = started.is_ok();
        let _ = self.ready.send(started.map(|()| has_arena));
        // The receiver must see a disconnect when no other shard can become ready.
        drop(self.ready);
        let mut ended = Ok(());
        if has_started {
            ended = run_to_end(shard, kind.wait_call(), &mut running);
        } else {
            running.finish();
        }
        if let Err(error) = &ended
            && !gives_up(&mut running, error)
        {
            // The kernel may still write to the arena.
            arena.leak();
        }
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(running)));
        let ended = ended.and(dropped.map_err(|panic| handler_panicked(shard, "drop", panic)));
        report!(shard_ended(shard, &ended));
        ended
    }
}

/// Returns the value of the application's code, or an error that names the place of its failure.
fn settled<T>(
    shard: usize,
    place: &'static str,
    result: Result<Result<T, BoxError>, Panic>,
) -> Result<T, Error> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::HandlerFailed { shard, place, source }),
        Err(panic) => Err(handler_panicked(shard, place, panic)),
    }
}

fn handler_panicked(shard: usize, place: &'static str, panic: Panic) -> Error {
    Error::HandlerPanicked { shard, place, message: message_of(panic) }
}

/// Runs a shard until a drain is complete, or returns the cause of an earlier end.
fn run_to_end<R: Ring, H: Handler>(
    shard: usize,
    call: &'static str,
    running: &mut Shard<R, H>,
) -> Result<(), Error> {
    report!(shard_started(shard));
    match catch_unwind(AssertUnwindSafe(|| running.run())) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Failure::Ring(errno))) => Err(Error::ShardFailed { shard, call, errno }),
        Ok(Err(Failure::Hung { operations })) => Err(Error::DrainIncomplete { shard, operations }),
        Err(panic) => Err(Error::ShardPanicked { shard, message: message_of(panic) }),
    }
}

/// Ends everything of a shard that failed. Returns whether the kernel is done with its memory.
fn gives_up<R: Ring, H: Handler>(running: &mut Shard<R, H>, error: &Error) -> bool {
    let panicked = matches!(error, Error::ShardPanicked { .. });
    let tells = if panicked { Tells::Nobody } else { Tells::Handler };
    // The tear-down may panic again, in the same code. Then everything is left as it is.
    let at_rest = catch_unwind(AssertUnwindSafe(|| running.give_up(TEAR_DOWN_WAIT, tells)));
    at_rest.map_err(discard).unwrap_or(false)
}

/// Returns whether the arenas of all shards fit into `RLIMIT_MEMLOCK` together with the rings. If
/// not, the arenas stay unregistered, which makes reads of small files slightly slower.
fn arena_fits_memlock(needed: Held, notices: &mut Vec<String>) -> bool {
    let Some(allowed) = memlock_allowed() else { return true };
    let Held { rings, bytes } = needed;
    if bytes <= allowed {
        return true;
    }
    notices.push(unregistered(&format!(
        "the {rings} ring(s) of this process need {bytes} bytes of locked memory, RLIMIT_MEMLOCK \
         allows {allowed}"
    )));
    false
}

fn unregistered(why: &str) -> String {
    format!(
        "{UNREGISTERED}: {why}; raise RLIMIT_MEMLOCK (ulimit -l, \
         systemd: LimitMEMLOCK=) or use fewer or smaller buffers"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_and_its_handle_can_be_shared_by_threads() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Engine>();
        is_shared::<EngineHandle>();
    }
}
