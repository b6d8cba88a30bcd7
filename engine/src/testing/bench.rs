//! A handler on simulated shards, and the clients that a test plays.

use super::{Faults, Machine, Shift, choose};
use crate::address::Address;
use crate::admission::Admission;
use crate::config::{Config, Listener};
use crate::files::Directory;
use crate::handle::EngineHandle;
use crate::handler::Handler;
use crate::ledger::{Ledger, Published};
use crate::mailbox::{Command, Mailbox, Opened};
use crate::memory::Arena;
use crate::registry::Registry;
use crate::ring::simulated::{
    Afterwards, NEVER, OpenCounts, Peer, Plan, Rng, SimulatedFile, SimulatedRing, Standing, stretch,
};
use crate::ring::{Descriptor, FileKind, Ring, RingInUse};
use crate::shard::{Parts, Shard, Tells};
use crate::transit::Transit;
use crate::workers::Pool;
use std::any::TypeId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The listener of a configuration that has none.
const ADDRESS: &str = "127.0.0.1:80";
/// Turns between two calls of a test, at most: a handler that never comes to rest fails the test.
const TURNS_MAX: u32 = 300_000;
/// The shards are at rest if nothing happens for so long, in µs.
const REST_US: u64 = 2_000_000;
/// The time that a shard which failed waits for its operations.
const TEAR_DOWN_WAIT: Duration = Duration::from_millis(100);
/// A drain ends so long after its deadline.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// The content of a file is derived from its number and this.
const FILE_KEY: u64 = 0xf11e << 32;

/// The place of a new handler.
#[derive(Clone, Debug)]
pub struct Place {
    /// The number of the shard.
    pub shard: usize,
    /// The simulated directory. It has the files of [`Bench::add_file`].
    pub directory: Directory,
}

/// A client of a [`Bench`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    shard: usize,
    number: usize,
}

/// The state of a client's connection, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEnd {
    /// It is not connected yet.
    Connecting,
    /// Nobody listened.
    Refused,
    /// It is open. The handler may still send.
    Open,
    /// The client has read everything, and then the server's FIN.
    Finished,
    /// The server reset the connection. Output that was under way is lost.
    Reset,
    /// The client reset it, or vanished ([`Bench::reset`], [`Bench::vanish`], or a fault), or
    /// closed its Unix socket.
    Left,
}

struct ShardOfBench<H: Handler> {
    machine: Machine<H>,
    published: Arc<Published>,
    listeners: Vec<Descriptor>,
    directory: Directory,
}

/// A ring with its memory, before it has a shard.
struct Bare {
    arena: Arena,
    ring: SimulatedRing,
    listeners: Vec<Descriptor>,
    directory: Directory,
    event: Descriptor,
}

impl Bare {
    fn new(config: &Config, number: usize, now_us: u64, rng: &mut Rng) -> Self {
        let mut setup = config.setup();
        let arena = Arena::new(setup.arena_bytes).expect("memory for a simulation");
        setup.arena_address = arena.address();
        let mut ring = SimulatedRing::of_shard(rng.bits(), number, now_us, setup);
        let backlog = config.backlog as usize;
        let mut open = |listener: &Listener| match listener.address {
            Address::Ip(_) if listener.inherited.is_some() => ring.add_shared_listener(backlog),
            Address::Ip(_) => ring.add_listener(backlog),
            Address::Unix(_) => ring.add_unix_listener(backlog),
        };
        let listeners = config.listeners.iter().map(&mut open).collect();
        let directory = Directory::simulated(ring.add_directory());
        let event = ring.add_event();
        Self { arena, ring, listeners, directory, event }
    }
}

/// The shards of an engine on a simulated kernel, with clients that a test plays.
///
/// Time passes only in [`run`](Self::run) and [`advance`](Self::advance). Both check the invariants
/// of the engine after each turn.
pub struct Bench<H: Handler> {
    shards: Vec<ShardOfBench<H>>,
    admission: Arc<Admission>,
    transit: Arc<Transit<crate::shard::Handed>>,
    handle: EngineHandle,
    shift: Shift,
    rng: Rng,
    next_shard: usize,
    panics_expected: u64,
}

impl<H: Handler> fmt::Debug for Bench<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("handle", &self.handle).finish_non_exhaustive()
    }
}

fn admission_of(config: &Config, shards: usize) -> Arc<Admission> {
    Arc::new(Admission::new(
        config.max_connections,
        config.outgoing_reserved,
        shards,
        config.max_per_address,
        config.waiting_max(),
    ))
}

impl<H: Handler> Bench<H> {
    /// Shards with the settings of `config` and no faults. `new_handler` makes one handler for each
    /// shard; with `Config::shards` at `None` there is one shard.
    ///
    /// # Panics
    /// If [`Config::check`] finds an error, or if [`Handler::started`] fails.
    pub fn new(config: Config, new_handler: impl FnMut(&Place) -> H) -> Self {
        Self::with_seed(0, config, new_handler)
    }

    /// As [`new`](Self::new). The seed decides what a kernel leaves open: the sizes of its queues,
    /// in which order shards run, how many bytes a receive takes, and when a fault happens.
    ///
    /// # Panics
    /// If [`Config::check`] finds an error, or if [`Handler::started`] fails.
    pub fn with_seed(
        seed: u64,
        mut config: Config,
        mut new_handler: impl FnMut(&Place) -> H,
    ) -> Self {
        if config.listeners.is_empty() {
            config.listeners.push(ADDRESS.parse().expect("an address"));
        }
        config.check().unwrap_or_else(|error| panic!("{error}"));
        // A kernel without multishot receives takes none.
        config.features.multishot_receive &= config.streaming_connections_max > 0;
        let count = config.shards.unwrap_or(1);
        let mut rng = Rng::new(seed);
        let now_us = rng.below(1_000_000_000_000);
        let admission = admission_of(&config, count);
        let bare: Vec<Bare> =
            (0..count).map(|number| Bare::new(&config, number, now_us, &mut rng)).collect();
        let mailbox = |bare: &Bare| {
            Mailbox::with_event(config.mailbox_commands_max, bare.event, SimulatedRing::OUTSIDE)
        };
        let (sendings, mailboxes): (Vec<_>, Vec<_>) = bare.iter().map(mailbox).unzip();
        let wakers: Vec<_> = sendings.iter().map(|sending| sending.waker().clone()).collect();
        let transit = Transit::new(wakers.clone());
        admission.set_wakers(wakers.clone());
        let published: Vec<Arc<Published>> = (0..count).map(|_| Arc::default()).collect();
        let (pool, ports) = Pool::new(config.jobs_queued_max, wakers, false);
        pool.resize(config.workers).expect("a simulated worker is no thread");
        let shift = Shift::new(pool.clone(), Rng::new(rng.bits()));
        let handle = EngineHandle::new(
            sendings,
            published.clone(),
            admission.clone(),
            pool,
            RingInUse::default(),
            Registry::new(&config),
            TypeId::of::<H::State>(),
        );
        let mut shards = Vec::with_capacity(count);
        for (number, ((bare, mailbox), jobs)) in
            bare.into_iter().zip(mailboxes).zip(ports).enumerate()
        {
            let Bare { arena, ring, listeners, directory, .. } = bare;
            let handler = new_handler(&Place { shard: number, directory: directory.clone() });
            let published = published[number].clone();
            let shard = Shard::new(Parts {
                number,
                config: &config,
                ring,
                arena: &arena,
                handler,
                mailbox,
                published: published.clone(),
                admission: admission.clone(),
                handle: handle.clone(),
                jobs,
                transit: transit.clone(),
            });
            let machine = Machine::new(shard, arena);
            shards.push(ShardOfBench { machine, published, listeners, directory });
        }
        let (next_shard, panics_expected) = (0, 0);
        let mut bench =
            Self { shards, admission, transit, handle, shift, rng, next_shard, panics_expected };
        bench.start(&config);
        bench
    }

    /// Gives the shards their listeners, and starts them.
    fn start(&mut self, config: &Config) {
        let registered: Vec<_> =
            config.listeners.iter().map(|listener| self.handle.register(listener)).collect();
        for (number, shard) in self.shards.iter_mut().enumerate() {
            let sockets = registered.iter().zip(&shard.listeners);
            let opened = sockets.map(|((listening, settings), socket)| {
                let (listening, settings) = (listening.clone(), settings.clone());
                Opened::new(listening, settings, *socket, SimulatedRing::OUTSIDE)
            });
            let listen = Command::Listen(opened.collect());
            self.handle.to(number, listen).expect("the mailbox is empty");
            let started = shard.machine.shard().expect("it is new").start();
            match started {
                Ok(Ok(())) => {}
                Ok(Err(error)) => panic!("`Handler::started` failed: {error}"),
                Err(_) => panic!("`Handler::started` panicked"),
            }
        }
    }

    /// A client that connects to the first listener, as time passes. The shards take turns. Bytes
    /// may be sent at once; they follow the connect.
    pub fn connect(&mut self) -> Client {
        let shard = self.next_shard;
        self.next_shard = (shard + 1) % self.shards.len();
        self.connect_to(shard, 0)
    }

    /// A client that connects to a listener of a shard. `listener` is its place in
    /// `Config::listeners`. With [`Balance::Accept`](crate::Balance::Accept), which is the default,
    /// another shard may serve it.
    ///
    /// # Panics
    /// If there is no such shard or listener.
    pub fn connect_to(&mut self, shard: usize, listener: usize) -> Client {
        let ShardOfBench { machine, listeners, .. } = &mut self.shards[shard];
        let number = machine.ring().add_peer(listeners[listener], Plan::plain(), &[]);
        Client { shard, number }
    }

    /// The client sends `bytes` after all that it has sent before. It does so as time passes.
    pub fn send(&mut self, client: Client, bytes: &[u8]) {
        let (ring, number) = self.find(client);
        ring.peer_sends(number, bytes);
    }

    /// The client sends FIN after its last byte and reads on.
    pub fn half_close(&mut self, client: Client) {
        self.change(client, |plan| plan.afterwards = Afterwards::Fin);
    }

    /// The client closes: it sends FIN after its last byte, and answers what still comes with RST.
    /// That of a Unix socket is gone after its last byte.
    pub fn close(&mut self, client: Client) {
        self.change(client, |plan| plan.afterwards = Afterwards::Close);
    }

    /// The client sends RST now. That of a Unix socket closes now.
    pub fn reset(&mut self, client: Client) {
        let (ring, number) = self.find(client);
        ring.peer_resets(number);
    }

    /// The client acknowledges, sends and reads nothing from now on.
    pub fn vanish(&mut self, client: Client) {
        let (ring, number) = self.find(client);
        ring.peer_vanishes(number);
    }

    /// The client stops reading. Its receive buffer of up to 64 KiB fills, then the server's output
    /// queue.
    pub fn stop_reading(&mut self, client: Client) {
        self.change(client, |plan| plan.stall_us = NEVER);
    }

    /// The client reads again, at most `bytes_max` bytes at a time.
    pub fn read_on(&mut self, client: Client, bytes_max: usize) {
        self.change(client, |plan| (plan.stall_us, plan.read_chunk_max) = (0, bytes_max.max(1)));
    }

    /// From now on the client sends at most `bytes_max` bytes at a time.
    pub fn send_at_most(&mut self, client: Client, bytes_max: usize) {
        self.change(client, |plan| plan.send_chunk_max = bytes_max.max(1));
    }

    fn change(&mut self, client: Client, change: impl FnOnce(&mut Plan)) {
        let (ring, number) = self.find(client);
        change(&mut ring.peers[number].plan);
        ring.touch(number);
    }

    /// The ring that has a client, and its number there. A client that is handed over to another
    /// shard goes to the ring of that one.
    fn find(&mut self, client: Client) -> (&mut SimulatedRing, usize) {
        let birth = (client.shard, client.number);
        let mut shards = self.shards.iter_mut();
        let found = shards.find_map(|shard| {
            let ring = shard.machine.ring();
            ring.number_of(birth).map(|number| (ring, number))
        });
        found.expect("between two calls of a test, no client is on its way")
    }

    fn peer(&mut self, client: Client) -> &Peer {
        let (ring, number) = self.find(client);
        &ring.peers[number]
    }

    /// All bytes that the client has read.
    #[must_use]
    pub fn received(&mut self, client: Client) -> &[u8] {
        &self.peer(client).received
    }

    /// The number of bytes that have left the client.
    pub(super) fn sent(&mut self, client: Client) -> usize {
        self.peer(client).sent as usize
    }

    /// The state of the connection, as the client sees it.
    #[must_use]
    pub fn client_end(&mut self, client: Client) -> ClientEnd {
        let peer = self.peer(client);
        match peer.standing {
            Standing::Unconnected => ClientEnd::Connecting,
            Standing::Refused => ClientEnd::Refused,
            Standing::Connected if peer.got_fin => ClientEnd::Finished,
            Standing::Connected => ClientEnd::Open,
            Standing::GotReset => ClientEnd::Reset,
            Standing::SentReset | Standing::Vanished | Standing::Left => ClientEnd::Left,
            Standing::Elsewhere => unreachable!("a client is looked for where it is"),
        }
    }

    /// Adds a regular file of `bytes` bytes to the simulated directory of every shard.
    /// [`file_content`] tells its content.
    pub fn add_file(&mut self, path: &str, bytes: u64) {
        for shard in &mut self.shards {
            let ring = shard.machine.ring();
            let key = FILE_KEY + ring.files.len() as u64;
            ring.add_file(path, SimulatedFile { key, bytes, kind: FileKind::Regular });
        }
    }

    /// Sets what goes wrong from now on, on all shards.
    pub fn set_faults(&mut self, faults: &Faults) {
        for shard in &mut self.shards {
            shard.machine.ring().faults = *faults;
        }
    }

    /// From now on nothing goes wrong: storage answers, clients that stopped reading read on, and
    /// no client resets. A client that vanished stays away.
    pub fn stop_faults(&mut self) {
        self.shift.hurries = true;
        for shard in &mut self.shards {
            shard.machine.ring().stop_faults();
        }
    }

    /// The handle for control from other threads. Its commands take effect as time passes.
    #[must_use]
    pub fn handle(&self) -> &EngineHandle {
        &self.handle
    }

    /// The directory of a shard, as its handler got it.
    ///
    /// # Panics
    /// If there is no such shard.
    #[must_use]
    pub fn directory(&self, shard: usize) -> &Directory {
        &self.shards[shard].directory
    }

    /// The handler of a shard, until that shard has ended.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn handler(&mut self, shard: usize) -> Option<&mut H> {
        self.shards[shard].machine.shard().map(|shard| shard.handler())
    }

    /// The ledger, as any thread may read it.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let published = self.shards.iter().map(|shard| shard.published.as_ref());
        Ledger::of(published, &self.admission, self.handle.pool())
    }

    /// Simulated time since some moment in the past.
    pub fn now(&mut self) -> Duration {
        Duration::from_micros(self.now_us())
    }

    fn now_us(&mut self) -> u64 {
        self.shards.iter_mut().map(|shard| shard.machine.now_us()).max().expect("there is a shard")
    }

    /// Further panics of callbacks that are no failure. Without this, the first one fails the test.
    pub fn expect_panics(&mut self, count: u64) {
        self.panics_expected += count;
    }

    /// Lets time pass until nothing more happens by itself: clients have sent and read what they
    /// can, jobs are done, and the shards wait. Deadlines, retries and timers need
    /// [`advance`](Self::advance).
    ///
    /// # Panics
    /// If an invariant of the engine does not hold, if a callback panicked, or if the shards do not
    /// come to rest.
    pub fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            if self.is_at_rest() {
                return;
            }
            self.turn(NEVER - 1);
        }
        panic!("the shards do not come to rest within {TURNS_MAX} turns");
    }

    /// Lets `time` pass.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn advance(&mut self, time: Duration) {
        let until_us = self.now_us() + u64::try_from(time.as_micros()).unwrap_or(NEVER / 2);
        self.pass_until(until_us);
    }

    /// Lets all shards act until that time, or until all have ended.
    fn pass_until(&mut self, until_us: u64) {
        for _ in 0..TURNS_MAX {
            if !self.turn(until_us) {
                return;
            }
        }
        panic!("the shards take more than {TURNS_MAX} turns");
    }

    /// Returns whether nothing happens soon, unless a deadline passes.
    fn is_at_rest(&mut self) -> bool {
        self.shift.unfinished() == 0
            && self.shards.iter_mut().all(|shard| {
                let Some(running) = shard.machine.shard() else { return true };
                let waits = running.would_wait().is_some();
                let ring = shard.machine.ring();
                waits && ring.next_event_us() > ring.now_us() + REST_US
            })
    }

    /// One turn of a shard whose time has come, until then at most. Returns false if all shards are
    /// as far or have ended.
    fn turn(&mut self, until_us: u64) -> bool {
        let mut next_us = Vec::with_capacity(self.shards.len());
        for shard in &mut self.shards {
            let over = shard.machine.now_us() >= until_us || shard.machine.shard().is_none();
            next_us.push(if over { NEVER } else { shard.machine.next_us().min(until_us) });
        }
        self.shift.work();
        let Some((at, horizon_us)) = choose(&next_us, &mut self.rng) else { return false };
        let machine = &mut self.shards[at].machine;
        let ring = machine.ring();
        ring.horizon_us = horizon_us.min(until_us).max(ring.now_us() + 1);
        let shard = machine.shard().expect("it acts");
        let failed = shard.turn().is_err() || shard.is_hung();
        shard.check_invariants();
        let panics = shard.ledger().handler_panics;
        assert!(panics <= self.panics_expected, "a callback panicked (its message is above)");
        if failed {
            shard.give_up(TEAR_DOWN_WAIT, Tells::Handler);
            machine.leave_ring();
            machine.ring().end();
        } else if shard.is_finished() {
            shard.finish();
            machine.leave_ring();
        }
        self.check_permits();
        true
    }

    /// Over all shards: a permit for every connection.
    fn check_permits(&mut self) {
        let open: usize = self.shards.iter_mut().map(|shard| shard.machine.connections()).sum();
        let held = self.admission.total() - self.admission.free();
        assert_eq!(held, open + self.transit.on_their_way(), "permits held and connections open");
    }

    /// Drains with a deadline of 10 s, as [`EngineHandle::drain`], and checks that everything came
    /// back: permits, buffers, descriptors, jobs. Returns the ledger, which balances.
    ///
    /// # Panics
    /// If something is missing, or as [`run`](Self::run).
    pub fn finish(mut self) -> Ledger {
        self.end()
    }

    pub(super) fn end(&mut self) -> Ledger {
        let deadline = Duration::from_secs(10);
        self.shift.hurries = true;
        self.handle.drain(deadline);
        let until_us = self.now_us() + (deadline + DRAIN_MAX).as_micros() as u64;
        self.pass_until(until_us);
        self.shift.end();
        for (number, shard) in self.shards.iter_mut().enumerate() {
            assert!(shard.machine.shard().is_none(), "shard {number} does not end");
            let open = shard.machine.ring().open_counts();
            assert_eq!(open, OpenCounts::default(), "descriptors of shard {number} left open");
        }
        let ledger = self.ledger();
        assert!(ledger.balanced() && ledger.open() == 0, "the ledger: {ledger:?}");
        assert_eq!(ledger.permits.free, ledger.permits.total, "permits are missing");
        ledger
    }
}

/// The content of the file that was the `number`-th to be added ([`Bench::add_file`]), counted from
/// 0: `bytes` bytes from `offset` on.
#[must_use]
pub fn file_content(number: usize, offset: u64, bytes: usize) -> Vec<u8> {
    stretch(FILE_KEY + number as u64, offset, bytes)
}

/// Calls `test` with `bytes` in two parts, for every place at which they can be cut, the beginning
/// and the end included. A failure says at which place it happened.
pub fn at_every_cut(bytes: &[u8], test: impl Fn(&[u8], &[u8])) {
    struct Cut(usize);
    impl Drop for Cut {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the bytes were cut at {}", self.0);
            }
        }
    }
    for at in 0..=bytes.len() {
        let _named = Cut(at);
        test(&bytes[..at], &bytes[at..]);
    }
}
