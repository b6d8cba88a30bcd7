//! One seed: what the shard is given, what happens around it, and what must be true of it.

use super::actor::{Actor, FILE_KEY, PATHS};
use super::book::{Book, Farewell, Part, Role, key_of};
use crate::admission::Admission;
use crate::config::{AtCapacity, Config, Probe};
use crate::ledger::{Ledger, Published};
use crate::mailbox::{Command, Mailbox, Sockets};
use crate::memory::Arena;
use crate::remote::Remote;
use crate::ring::simulated::{
    Afterwards, Endpoint, Faults, Plan, Rng, SimulatedFile, SimulatedRing, stream,
};
use crate::ring::{Descriptor, FileKind, Ring};
use crate::shard::{Parts, Shard};
use crate::{Directory, SlowReaders};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Peers of one simulation at most.
const PEERS_MAX: usize = 120;

/// A shard and everything around it.
pub struct World {
    pub shard: Shard<SimulatedRing, Actor>,
    pub book: Rc<RefCell<Book>>,
    pub config: Config,
    pub remote: Remote,
    pub rng: Rng,
    pub published: Arc<Published>,
    pub admission: Arc<Admission>,
    listeners: Vec<Descriptor>,
    /// Bytes given to each peer to send.
    given: Vec<u64>,
    /// Things done by the world itself.
    pub actions: u64,
    /// When a drain aborts what is left, in simulated µs.
    pub drain_deadline_us: Option<u64>,
    /// Connections with an overdue deadline, since when, in simulated µs.
    overdue: BTreeMap<(u32, u64), u64>,
    /// Behind the shard: it is unmapped last.
    _arena: Arena,
}

impl World {
    /// The world of a seed, with nothing in it yet.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0005_eed0_fa11);
        let config = draw_config(&mut rng);
        let ticks = rng.below(3) == 0;
        Self::with(seed, rng, config, ticks)
    }

    /// A world of that configuration. `ticks`: now and then the handler kicks and sends unasked.
    pub fn with(seed: u64, mut rng: Rng, config: Config, ticks: bool) -> Self {
        let mut setup = config.setup();
        let arena = Arena::new(setup.arena_bytes).expect("memory for a simulation");
        setup.arena_address = arena.address();
        let mut ring = SimulatedRing::new(seed, setup);
        let directory = Directory::simulated(ring.add_directory());
        let sizes = [700, 5_000, 100_000, 5 << 30, 0, 0];
        for (at, (path, bytes)) in PATHS.into_iter().zip(sizes).enumerate() {
            let kind = if path == "folder" { FileKind::Directory } else { FileKind::Regular };
            ring.add_file(path, SimulatedFile { key: FILE_KEY + at as u64, bytes, kind });
        }
        ring.add_error("secret", libc::EACCES);
        let listeners: Vec<Descriptor> =
            (0..1 + rng.below(2)).map(|_| ring.add_listener(rng.pick(&[1, 2, 16]))).collect();

        let admission = Arc::new(Admission::new(
            config.max_connections,
            1,
            config.max_per_address,
            config.waiting_max(),
        ));
        let (sending, mailbox) = Mailbox::new(config.mailbox_commands_max).expect("an eventfd");
        admission.set_wakers(vec![sending.waker().clone()]);
        let published = Arc::new(Published::default());
        let remote = Remote::new(vec![sending], vec![published.clone()], admission.clone());
        let book = Rc::new(RefCell::new(Book::default()));
        let actor = Actor { book: book.clone(), directory, rng: Rng::new(rng.bits()), ticks };
        let shard = Shard::new(Parts {
            number: 0,
            config: &config,
            ring,
            arena: &arena,
            handler: actor,
            mailbox,
            published: published.clone(),
            admission: admission.clone(),
            remote: remote.clone(),
        });
        let mut world = Self {
            shard,
            book,
            config,
            remote,
            rng,
            published,
            admission,
            listeners,
            given: Vec::new(),
            actions: 0,
            drain_deadline_us: None,
            overdue: BTreeMap::new(),
            _arena: arena,
        };
        let listen = Command::Listen(Sockets::new(world.listeners.clone()));
        world.remote.to(0, listen).expect("the mailbox is empty");
        world.ring().wake();
        world.shard.start();
        world
    }

    pub fn ring(&mut self) -> &mut SimulatedRing {
        self.shard.parts().0
    }

    pub fn now_us(&mut self) -> u64 {
        Ring::now_us(self.ring())
    }

    /// Completions, and what peers and the world have done.
    pub fn events(&mut self) -> u64 {
        self.ring().counters().completed + self.actions
    }

    /// One turn of the shard, and a look at everything.
    pub fn turn(&mut self) {
        self.shard.turn().expect("a simulated ring does not break");
        self.look();
    }

    /// What must be true between two turns.
    pub fn look(&mut self) {
        self.shard.check_invariants();
        self.excuse();
        self.check_deadlines();
        let failures = std::mem::take(&mut self.book.borrow_mut().failures);
        assert!(failures.is_empty(), "the handler says: {failures:?}");
    }

    /// A deadline that stays overdue has been forgotten: a wait takes a second at most.
    fn check_deadlines(&mut self) {
        let now_us = self.now_us();
        let overdue = self.shard.overdue();
        self.overdue.retain(|connection, _| overdue.contains(connection));
        for connection in overdue {
            let since_us = *self.overdue.entry(connection).or_insert(now_us);
            assert!(now_us - since_us < 3_000_000, "{connection:?} is overdue since {since_us} us");
        }
    }

    /// Listens on so many more sockets. Returns the last.
    pub fn listen(&mut self, count: usize) -> Descriptor {
        let more: Vec<Descriptor> = (0..count).map(|_| self.ring().add_listener(16)).collect();
        let last = *more.last().expect("at least one");
        self.remote.to(0, Command::Listen(Sockets::new(more))).expect("few commands at a time");
        self.ring().wake();
        last
    }

    /// What has left and is on its way reaches those who read.
    pub fn flow_out(&mut self) {
        self.farewell();
        for _ in 0..400 {
            for (want, wait) in [(0, Duration::ZERO), (1, Duration::from_millis(1))] {
                self.ring().submit_and_wait(want, wait).expect("a simulated ring does not break");
            }
        }
    }

    /// A peer that will connect and play opposite such a part.
    pub fn add_peer(&mut self, plan: Plan, part: Part, bytes: usize) -> usize {
        let listener = self.rng.pick(&self.listeners);
        self.add_peer_at(listener, plan, part, bytes)
    }

    /// The same, at a certain listener.
    pub fn add_peer_at(
        &mut self,
        listener: Descriptor,
        plan: Plan,
        part: Part,
        bytes: usize,
    ) -> usize {
        let (ring, _) = self.shard.parts();
        let peer = ring.add_peer(listener, plan, &[]);
        let address = ring.peers[peer].address;
        self.book.borrow_mut().parts.insert(address, part);
        self.sends(peer, bytes);
        peer
    }

    /// Lets a peer send the next bytes of its stream.
    pub fn sends(&mut self, peer: usize, bytes: usize) {
        self.given.resize(self.given.len().max(peer + 1), 0);
        let (ring, _) = self.shard.parts();
        let content: Vec<u8> =
            stream(key_of(ring.peers[peer].address), self.given[peer]).take(bytes).collect();
        self.given[peer] += bytes as u64;
        ring.peer_sends(peer, &content);
        self.actions += 1;
    }

    /// Somebody new, of any kind.
    pub fn add_somebody(&mut self) {
        if self.ring().peers.len() >= PEERS_MAX {
            return;
        }
        let mut plan = Plan::draw(&mut self.rng);
        plan.start_after_us = self.rng.pick(&[0, 0, 1000, 50_000]);
        let slow = plan.send_chunk_max < 100 || plan.read_chunk_max < 300;
        let part = draw_part(&mut self.rng, slow);
        let bytes = self.draw_bytes(slow);
        self.add_peer(plan, part, bytes);
    }

    fn draw_bytes(&mut self, slow: bool) -> usize {
        let most = if slow { 200 } else { 20_000 };
        let bytes = self.rng.pick(&[0, 1, 30, 1000, 5000, 20_000]).min(most);
        self.rng.up_to(bytes + 1) - 1
    }

    /// Somebody to connect to.
    pub fn add_endpoint(&mut self) {
        let tag = self.book.borrow().parts.len() as u64;
        let port = 1024 + u16::try_from(tag).expect("few parts");
        let address: SocketAddr = (Ipv4Addr::new(10, 1, 0, 1), port).into();
        let mut plan = Plan::draw(&mut self.rng);
        plan.start_after_us = 0;
        let slow = plan.send_chunk_max < 100 || plan.read_chunk_max < 300;
        let part = draw_part(&mut self.rng, slow);
        let answers = self.rng.below(4) > 0;
        self.ring().endpoints.push(Endpoint { address, plan: answers.then_some(plan) });
        let mut book = self.book.borrow_mut();
        book.parts.insert(address, part);
        book.endpoints.push((address, tag));
    }

    /// Something happens around the shard.
    pub fn act(&mut self) {
        self.actions += 1;
        let peers = self.ring().peers.len();
        let somebody = self.rng.below(peers as u64) as usize;
        match self.rng.below(20) {
            0..5 => self.add_somebody(),
            5..13 if peers > 0 => {
                let plan = self.ring().peers[somebody].plan;
                let slow = plan.send_chunk_max < 100 || plan.read_chunk_max < 300;
                let bytes = self.draw_bytes(slow);
                if !self.ring().peers[somebody].sent_fin {
                    self.sends(somebody, bytes);
                }
            }
            13 if peers > 0 && self.rng.below(4) == 0 => self.ring().peer_resets(somebody),
            14 if peers > 0 && self.rng.below(8) == 0 => self.ring().peer_vanishes(somebody),
            15 => self.command(),
            16 => self.ring().wake(),
            17 => {
                self.add_endpoint();
                let endpoint = self.book.borrow_mut().endpoint().expect("just added");
                if self.remote.connect(0, endpoint.0, endpoint.1).is_err() {
                    self.book.borrow_mut().answered(endpoint.1);
                }
                self.ring().wake();
            }
            18 => self.add_endpoint(),
            19 if self.rng.below(4) == 0 => {
                let faults = Faults::draw(&mut self.rng);
                self.set_faults(faults);
            }
            _ => {}
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.ring().faults = faults;
    }

    fn command(&mut self) {
        let mut book = self.book.borrow_mut();
        match (self.rng.below(4), book.anybody(&mut self.rng)) {
            (0, Some(id)) => {
                if let Some(record) = book.record(id) {
                    record.cut = true;
                }
                let _ = self.remote.kick(id);
            }
            (1 | 2, Some(id)) => {
                let bytes = self.rng.up_to(2000);
                let _ = self.remote.send(id, book.blob(bytes).into());
            }
            _ => {
                let bytes = self.rng.up_to(500);
                let _ = self.remote.broadcast(book.blob(bytes).into(), SlowReaders::Queue);
            }
        }
        drop(book);
        self.ring().wake();
    }

    pub fn drain(&mut self, deadline: Duration) {
        self.remote.drain(deadline).expect("few commands at a time");
        self.ring().wake();
        let at_us = self.now_us() + deadline.as_micros() as u64;
        let earlier = self.drain_deadline_us.map_or(at_us, |before| before.min(at_us));
        self.drain_deadline_us = Some(earlier);
    }

    /// From now on nothing goes wrong any more, and everybody waits for us.
    pub fn calm(&mut self) {
        let ring = self.ring();
        ring.stop_faults();
        ring.set_descriptor_limit(4096);
        for peer in 0..ring.peers.len() {
            if !ring.peers[peer].sent_fin {
                ring.peers[peer].plan.afterwards = Afterwards::Wait;
            }
            ring.touch(peer);
        }
        self.endpoints_play(Plan::plain());
    }

    fn endpoints_play(&mut self, plan: Plan) {
        for endpoint in &mut self.ring().endpoints {
            endpoint.plan = endpoint.plan.and(Some(plan));
        }
    }

    /// Everybody has said what there was to say.
    pub fn farewell(&mut self) {
        let ring = self.ring();
        for peer in 0..ring.peers.len() {
            ring.peers[peer].plan.afterwards = Afterwards::Fin;
            ring.touch(peer);
        }
        self.endpoints_play(Plan { afterwards: Afterwards::Fin, ..Plan::plain() });
    }

    /// The ledger as anybody may read it.
    pub fn ledger(&self) -> Ledger {
        Ledger::of(std::iter::once(self.published.as_ref()), &self.admission)
    }
}

fn draw_part(rng: &mut Rng, slow: bool) -> Part {
    let long = if slow { 300 } else { rng.pick(&[2_000, 30_000, 30_000, 300_000]) };
    let after = rng.pick(&[1, 100, 3_000]);
    let role = match rng.below(32) {
        0..5 => Role::Echo,
        5..9 => Role::Pausing,
        9..12 => Role::Whole(rng.pick(&[2, 60, 700, 5_000])),
        12..17 => Role::Files,
        17..20 => Role::CloseAfter(after),
        20..22 => Role::ShutdownAfter(after),
        22 => Role::AbortAfter(after),
        23 => Role::PanicAfter(after),
        24 => Role::PanicsAtEnds,
        25 => Role::Meddler,
        26 | 27 => Role::Greeter(rng.below(long)),
        28 => Role::Lecturer(rng.below(long)),
        29 => Role::Deaf,
        _ => Role::Connector,
    };
    Part {
        role,
        farewell: rng.pick(&[
            Farewell::Close,
            Farewell::ReplyAndClose,
            Farewell::ReplyAndShutdown,
            Farewell::CloseLater,
        ]),
        reply_bytes_max: if slow { 300 } else { rng.pick(&[100, 2_000, 60_000]) },
        stubborn: rng.below(4) == 0,
    }
}

/// Each limit is drawn from what is tight, what is ordinary, and what is never reached.
fn draw_config(rng: &mut Rng) -> Config {
    let ms = Duration::from_millis;
    let optional = |rng: &mut Rng, from: &[u64]| {
        if rng.below(2) == 0 { None } else { Some(ms(rng.pick(from))) }
    };
    let output_high_bytes = rng.pick(&[200, 4_000, 60_000]);
    Config {
        max_connections: rng.pick(&[1, 2, 3, 5, 8, 64, 64]),
        at_capacity: rng.pick(&[AtCapacity::Wait, AtCapacity::Wait, AtCapacity::Reject]),
        backlog: 16,
        receive_buffers: rng.pick(&[1, 2, 4, 16, 64]),
        receive_buffer_bytes: rng.pick(&[64, 256, 4096]),
        send_buffers: rng.pick(&[1, 2, 8, 64]),
        send_buffer_bytes: rng.pick(&[64, 512, 8192]),
        pipes: rng.pick(&[1, 2, 8]),
        pipe_bytes: rng.pick(&[4096, 65536]),
        submission_entries: rng.pick(&[4, 64, 1024]),
        message_bytes_max: rng.pick(&[100, 10_000, 1 << 20]),
        output_high_bytes,
        output_low_bytes: rng.up_to(output_high_bytes),
        output_bytes_max: rng.pick(&[60_000, 16 << 20, 16 << 20]),
        probe: rng.pick(&[Probe::Receive, Probe::Poll]),
        park_after: ms(rng.pick(&[3, 40, 5_000])),
        streaming_connections_max: rng.pick(&[0, 2, 1_000, 1_000]),
        idle_timeout: optional(rng, &[30, 1_000, 75_000]),
        receive_timeout: optional(rng, &[30, 1_000, 30_000]),
        write_timeout: optional(rng, &[30, 1_000, 30_000]),
        transfer_timeout: optional(rng, &[30, 1_000, 60_000]),
        connect_timeout: ms(rng.pick(&[10, 1_000, 10_000])),
        linger_timeout: ms(rng.pick(&[10, 1_000, 5_000])),
        linger_bytes_max: rng.pick(&[50, 10_000, 1 << 20]),
        accept_backoff: ms(10),
        mailbox_commands_max: 64,
        ..Config::default()
    }
}
