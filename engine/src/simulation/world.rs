//! One seed: the shards with what they share, what happens around them, and in which order they
//! come to act.

use super::actor::{Actor, Habits, Talk};
use super::book::{Book, Part, key_of};
use super::draw::{self, Swarm, is_slow};
use super::elsewhere::Elsewhere;
use super::lane::{Bare, Common, Lane, Life};
use super::orders::Questions;
use super::streams::Flow;
use super::without::Without;
use crate::address::{Address, SocketPath};
use crate::admission::Admission;
use crate::config::{Balance, Config, Listener, ListenerSettings};
use crate::handle::EngineHandle;
use crate::inherited::InheritedSocket;
use crate::ledger::{Ledger, Published};
use crate::mailbox::{Command, Mailbox, Opened};
use crate::registry::Registry;
use crate::ring::simulated::{
    Afterwards, Endpoint, Faults, NEVER, Plan, Rng, SimulatedRing, stretch,
};
use crate::ring::{Descriptor, Ring, RingInUse};
use crate::shard::{Handed, Shard};
use crate::testing::{Shift, choose};
use crate::transit::Transit;
use crate::workers::Pool;
use std::any::TypeId;
use std::cell::RefCell;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Peers of one simulation at most.
const PEERS_MAX: usize = 120;
/// Listeners at most.
const LISTENERS_MAX: usize = 4;
/// The address of all listeners: only the registry asks for it.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

/// Shards and everything around them.
pub struct World {
    pub lanes: Vec<Lane>,
    pub book: Rc<RefCell<Book>>,
    pub config: Config,
    pub handle: EngineHandle,
    pub rng: Rng,
    pub admission: Arc<Admission>,
    /// The clients on their way to another shard.
    pub transit: Arc<Transit<Handed>>,
    pub swarm: Swarm,
    /// The parts of the seed that are left out.
    pub without: Without,
    /// Things done by the world itself.
    pub actions: u64,
    /// Since when somebody waits though a permit is free, in simulated µs.
    pub(super) wasted_since_us: Option<u64>,
    /// Who plays the workers.
    pub(super) shift: Rc<RefCell<Shift>>,
    /// The holds that other threads have.
    pub(super) elsewhere: Rc<RefCell<Elsewhere>>,
    /// Questions whose answers have not come.
    pub(super) questions: Rc<RefCell<Questions>>,
    /// Streams of other threads.
    pub(super) streams: Vec<Flow>,
}

/// Where a peer is: its shard, and its number there.
pub type Place = (usize, usize);

impl World {
    /// The world of a seed, with nothing in it yet.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0005_eed0_fa11);
        let mut config = draw::draw_config(&mut rng);
        // Not drawn, so that the other seeds stay what they are.
        config.balance = if seed.is_multiple_of(3) { Balance::Accept } else { Balance::Off };
        let ticks = rng.below(3) == 0;
        let habits = Habits { ticks, employs: true, joins: true, whims: true, leaves: true };
        let shards = draw::draw_shards(&mut rng);
        let mut world = Self::with(seed, rng, config, shards, habits);
        world.book.borrow_mut().draws_ways = true;
        if world.rng.below(4) == 0 {
            world.add_unix_listener(4, None);
        }
        world
    }

    /// A world of that configuration, whose handlers have these habits.
    pub fn with(seed: u64, mut rng: Rng, config: Config, shards: usize, habits: Habits) -> Self {
        let mut config = Config { count_traffic: true, ..config };
        // A kernel without multishot receives takes none.
        config.features.multishot_receive = config.streaming_connections_max > 0;
        let now_us = rng.below(1_000_000_000_000);
        let swarm = Swarm::draw(&mut rng);
        let admission = Arc::new(Admission::new(
            config.max_connections,
            config.outgoing_reserved,
            shards,
            config.max_per_address,
            config.waiting_max(),
        ));
        let book = Rc::new(RefCell::new(Book::new(shards)));
        let mut bare = |number| Bare::new(seed, number, now_us, config.setup(), &mut rng);
        let bares: Vec<Bare> = (0..shards).map(&mut bare).collect();
        let mailbox = |bare: &Bare| {
            Mailbox::with_event(config.mailbox_commands_max, bare.event, SimulatedRing::OUTSIDE)
        };
        let (sending, mailboxes): (Vec<_>, Vec<_>) = bares.iter().map(mailbox).unzip();
        admission.set_wakers(sending.iter().map(|sending| sending.waker().clone()).collect());
        let published: Vec<Arc<Published>> = (0..shards).map(|_| Arc::default()).collect();
        let wakers: Vec<_> = sending.iter().map(|sending| sending.waker().clone()).collect();
        let transit = Transit::new(wakers.clone());
        let (pool, ports) = Pool::new(config.jobs_queued_max, wakers, false);
        pool.resize(config.workers).expect("a simulated worker is no thread");
        let shift = Shift::new(pool.clone(), Rng::new(rng.bits()));
        let (published_by, admitted, ring) =
            (published.clone(), admission.clone(), RingInUse::default());
        let registry = Registry::new(&config);
        let state = TypeId::of::<Talk>();
        let handle =
            EngineHandle::new(sending, published_by, admitted, pool, ring, registry, state);
        let elsewhere = Rc::new(RefCell::new(Elsewhere::new(Rng::new(seed ^ 0x401d))));
        let common = Common {
            config,
            admission: admission.clone(),
            transit: transit.clone(),
            book: book.clone(),
            elsewhere: elsewhere.clone(),
        };
        let mut lanes = Vec::with_capacity(shards);
        for (number, (bare, (mailbox, jobs))) in
            bares.into_iter().zip(mailboxes.into_iter().zip(ports)).enumerate()
        {
            let ends = (mailbox, published[number].clone(), handle.clone(), jobs);
            let handler = (Rng::new(rng.bits()), habits);
            lanes.push(Lane::new(number, bare, &common, ends, handler));
        }
        let mut world = Self {
            lanes,
            book,
            config: common.config,
            handle,
            rng,
            admission,
            transit,
            swarm,
            without: Without::default(),
            actions: 0,
            wasted_since_us: None,
            shift: Rc::new(RefCell::new(shift)),
            elsewhere,
            questions: Rc::default(),
            streams: Vec::new(),
        };
        let most = world.lanes.iter().map(|lane| lane.listeners.len()).max();
        let listening: Vec<_> =
            (0..most.unwrap_or(0)).map(|_| world.handle.register(&ADDRESS.into())).collect();
        for number in 0..shards {
            let sockets = listening.iter().zip(&world.lanes[number].listeners);
            let opened = sockets.map(|((listening, settings), socket)| {
                Opened::new(listening.clone(), settings.clone(), *socket, SimulatedRing::OUTSIDE)
            });
            let listen = Command::Listen(opened.collect());
            world.handle.to(number, listen).expect("the mailbox is empty");
            assert!(matches!(world.shard(number).start(), Ok(Ok(()))), "`started` works");
        }
        world
    }

    /// The ring of the first shard.
    #[cfg(test)]
    pub fn ring(&mut self) -> &mut SimulatedRing {
        self.lanes[0].ring()
    }

    /// A shard that runs.
    pub fn shard(&mut self, number: usize) -> &mut Shard<SimulatedRing, Actor> {
        self.lanes[number].shard().expect("this shard runs")
    }

    /// The time of the shard that is furthest.
    pub fn now_us(&mut self) -> u64 {
        self.lanes.iter_mut().map(Lane::now_us).max().expect("there is a shard")
    }

    /// Completions, and what peers and the world have done.
    pub fn events(&mut self) -> u64 {
        let completed = |lane: &mut Lane| lane.ring().counters().completed;
        self.lanes.iter_mut().map(completed).sum::<u64>() + self.actions
    }

    /// Whether every shard has ended.
    pub fn is_over(&self) -> bool {
        self.lanes.iter().all(|lane| lane.life != Life::Runs)
    }

    /// One turn of a shard whose time has come, and a look at everything.
    pub fn turn(&mut self) {
        let next_us: Vec<u64> = self.lanes.iter_mut().map(Lane::next_us).collect();
        let Some((at, horizon_us)) = choose(&next_us, &mut self.rng) else { return };
        self.shift.borrow_mut().work();
        self.elsewhere.borrow_mut().work();
        self.note_room();
        self.lanes[at].turn(horizon_us);
        self.look(at);
    }

    /// A shard listens on so many more sockets. Returns the last.
    #[cfg(test)]
    pub fn listen(&mut self, shard: usize, count: usize) -> Descriptor {
        let mut last = None;
        let mut more = Vec::new();
        for _ in 0..count {
            let (listening, settings) = self.handle.register(&ADDRESS.into());
            let listener = self.lanes[shard].add_listener(
                listening.number(),
                16,
                crate::admission::SocketKind::Tcp,
            );
            more.push(Opened::new(listening, settings, listener, SimulatedRing::OUTSIDE));
            last = Some(listener);
        }
        self.handle.to(shard, Command::Listen(more)).expect("few commands at a time");
        last.expect("at least one")
    }

    /// The shards are given another listener, perhaps too late. Returns its number, and its
    /// descriptors on the shards that run.
    #[cfg(test)]
    pub fn add_listener(&mut self, backlog: usize) -> (u16, Vec<Descriptor>) {
        self.add_listener_with(backlog, None)
    }

    /// The same, with settings for its connections.
    pub fn add_listener_with(
        &mut self,
        backlog: usize,
        settings: Option<ListenerSettings>,
    ) -> (u16, Vec<Descriptor>) {
        self.add(backlog, Listener { settings, ..ADDRESS.into() })
    }

    /// The shards are given a Unix socket, each one of its own: their clients take turns anyway.
    pub fn add_unix_listener(
        &mut self,
        backlog: usize,
        settings: Option<ListenerSettings>,
    ) -> (u16, Vec<Descriptor>) {
        let address = Address::Unix(SocketPath { path: "/run/a".into(), mode: None });
        self.add(backlog, Listener { settings, ..address.into() })
    }

    /// The shards are given an inherited TCP socket, each one of its own.
    pub fn add_inherited_listener(
        &mut self,
        backlog: usize,
        settings: Option<ListenerSettings>,
    ) -> (u16, Vec<Descriptor>) {
        let null = File::open("/dev/null").expect("it is there");
        let inherited = Some(InheritedSocket::untried(null.into()));
        self.add(backlog, Listener { settings, inherited, ..ADDRESS.into() })
    }

    fn add(&mut self, backlog: usize, listener: Listener) -> (u16, Vec<Descriptor>) {
        let (listening, settings) = self.handle.register(&listener);
        let (number, kind) = (listening.number(), listening.kind());
        let mut descriptors = Vec::new();
        for (shard, lane) in self.lanes.iter_mut().enumerate() {
            if lane.life == Life::Runs {
                let listener = lane.add_listener(number, backlog, kind);
                descriptors.push(listener);
                let opened = Opened::new(
                    listening.clone(),
                    settings.clone(),
                    listener,
                    SimulatedRing::OUTSIDE,
                );
                // Not taken: dropped, it is closed.
                let _ = self.handle.to(shard, Command::Listen(vec![opened]));
            }
        }
        (number, descriptors)
    }

    /// Another listener, unless there are many.
    fn listen_more(&mut self) {
        if self.handle.listeners().len() < LISTENERS_MAX {
            let settings = draw::draw_settings(&mut self.rng);
            match self.rng.below(4) {
                0 => self.add_inherited_listener(4, settings),
                1 => self.add_unix_listener(4, settings),
                _ => self.add_listener_with(4, settings),
            };
        }
    }

    /// What has left and is on its way reaches those who read.
    pub fn flow_out(&mut self) {
        self.farewell();
        for lane in &mut self.lanes {
            let ring = lane.ring();
            ring.horizon_us = NEVER;
            ring.enter = crate::ring::simulated::Enter::Works;
            for _ in 0..400 {
                for (want, wait) in [(0, Duration::ZERO), (1, Duration::from_millis(1))] {
                    ring.submit_and_wait(want, wait).expect("it works again");
                }
            }
        }
    }

    /// A peer of the first shard that will connect and play opposite such a part.
    #[cfg(test)]
    pub fn add_peer(&mut self, plan: Plan, part: Part, bytes: usize) -> usize {
        self.add_peer_to(0, plan, part, bytes)
    }

    /// The same, of another shard.
    pub fn add_peer_to(&mut self, shard: usize, plan: Plan, part: Part, bytes: usize) -> usize {
        let listeners = self.lanes[shard].listening();
        let listener = self.rng.pick(&listeners);
        self.add_peer_at(shard, listener, plan, part, bytes)
    }

    /// The same, at a certain listener.
    pub fn add_peer_at(
        &mut self,
        shard: usize,
        listener: Descriptor,
        plan: Plan,
        part: Part,
        bytes: usize,
    ) -> usize {
        let ring = self.lanes[shard].ring();
        let peer = ring.add_peer(listener, plan, &[]);
        let address = ring.peers[peer].address;
        self.book.borrow_mut().parts.insert(address, part);
        self.sends((shard, peer), bytes);
        peer
    }

    /// Lets a peer send the next bytes of its stream.
    pub fn sends(&mut self, (shard, peer): Place, bytes: usize) {
        let ring = self.lanes[shard].ring();
        let somebody = &mut ring.peers[peer];
        let content = stretch(key_of(somebody.address), somebody.given, bytes);
        somebody.given += bytes as u64;
        ring.peer_sends(peer, &content);
        self.actions += 1;
    }

    /// Somebody new, of any kind, at a shard that listens.
    pub fn add_somebody(&mut self) {
        let shard = self.swarm.draw_shard(&mut self.rng, self.lanes.len());
        let lane = &mut self.lanes[shard];
        let peers_max = self.without.peers_max.unwrap_or(PEERS_MAX);
        if lane.ring().peers.len() >= peers_max || lane.listening().is_empty() {
            return;
        }
        let plan = self.swarm.draw_plan(&mut self.rng);
        let part = self.swarm.draw_part(&mut self.rng, is_slow(&plan));
        let bytes = self.draw_bytes(is_slow(&plan));
        self.add_peer_to(shard, plan, part, bytes);
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
        let mut plan = self.swarm.draw_plan(&mut self.rng);
        plan.start_after_us = 0;
        let part = self.swarm.draw_part(&mut self.rng, is_slow(&plan));
        let answers = self.rng.below(4) > 0;
        for lane in &mut self.lanes {
            lane.ring().endpoints.push(Endpoint { address, plan: answers.then_some(plan) });
        }
        let mut book = self.book.borrow_mut();
        book.parts.insert(address, part);
        book.endpoints.push((address, tag));
    }

    /// Something happens around the shards.
    pub fn act(&mut self) {
        self.actions += 1;
        let shard = self.rng.below(self.lanes.len() as u64) as usize;
        let peers = self.lanes[shard].ring().peers.len();
        let somebody = self.rng.below(peers as u64) as usize;
        let action = self.swarm.draw_action(&mut self.rng);
        if self.without.skips(action) {
            return;
        }
        match action {
            0..5 => self.add_somebody(),
            5..13 if peers > 0 => {
                let peer = &self.lanes[shard].ring().peers[somebody];
                let (slow, sent_fin) = (is_slow(&peer.plan), peer.sent_fin);
                let bytes = self.draw_bytes(slow);
                if !sent_fin {
                    self.sends((shard, somebody), bytes);
                }
            }
            13 if peers > 0 && self.rng.below(4) == 0 => {
                self.lanes[shard].ring().peer_resets(somebody);
            }
            14 if peers > 0 && self.rng.below(8) == 0 => {
                self.lanes[shard].ring().peer_vanishes(somebody);
            }
            15 => self.order(),
            16 => self.lanes[shard].ring().wake(),
            17 => {
                for _ in 0..if self.swarm.bursts { 10 } else { 1 } {
                    self.connect(shard);
                }
            }
            18 => self.add_endpoint(),
            19 if self.rng.below(4) == 0 => {
                let mut faults = Faults::draw(&mut self.rng);
                self.without.calm(&mut faults);
                self.lanes[shard].ring().faults = faults;
            }
            22 if self.rng.below(4) == 0 => self.listen_more(),
            29 if self.rng.below(10) == 0 => self.remove_some_listener(),
            30 if self.rng.below(3) == 0 => self.pause_or_resume(),
            31 if self.rng.below(2) == 0 => self.change_settings(),
            32..34 => self.post(),
            34 => self.publish(),
            35 if self.rng.below(8) == 0 => (0..100).for_each(|_| self.post()),
            36 => self.stream(),
            37 if self.rng.below(2) == 0 => self.cancel_kept(),
            37 => self.cancel_connect(shard),
            23 if self.rng.below(4) == 0 => self.change_workers(),
            24 => self.keep_connected(shard),
            25 => self.come_and_go(),
            26 if self.rng.below(4) == 0 => self.stop_reconnecting(),
            27 => self.change_file(shard),
            28 if self.rng.below(8) == 0 => self.pause(),
            20 if self.swarm.bans => self.change_bans(),
            21 if self.swarm.drains && self.rng.below(8) == 0 => self.drain_or_stop(),
            _ => {}
        }
    }

    /// The process does not run for a while: it is stopped, or its machine is.
    fn pause(&mut self) {
        let time = Duration::from_millis(self.rng.pick(&[60, 300]));
        for lane in &mut self.lanes {
            lane.ring().pass(time);
            lane.room_since_us = None;
        }
        self.wasted_since_us = None;
        self.questions.borrow_mut().wait_longer(time);
    }

    /// Asks a shard to connect out.
    fn connect(&mut self, shard: usize) {
        self.add_endpoint();
        let target = self.book.borrow_mut().target(shard, &mut self.rng);
        let (to, tag) = target.expect("just added");
        if self.handle.connect(shard, to, tag).is_err() {
            self.book.borrow_mut().not_asked(tag);
        }
    }

    /// Faults of every shard.
    pub fn set_faults(&mut self, faults: &[Faults]) {
        for (lane, faults) in self.lanes.iter_mut().zip(faults) {
            lane.ring().faults = *faults;
        }
    }

    /// From now on nothing goes wrong any more, and everybody waits for us.
    pub fn calm(&mut self) {
        self.insist(|world| world.handle.set_bans(&[]).is_ok());
        self.resume_all();
        self.shift.borrow_mut().hurries = true;
        self.elsewhere.borrow_mut().hurries = true;
        for lane in &mut self.lanes {
            let ring = lane.ring();
            ring.stop_faults();
            ring.set_descriptor_limit(4096);
            for peer in 0..ring.peers.len() {
                if !ring.peers[peer].sent_fin {
                    ring.peers[peer].plan.afterwards = Afterwards::Wait;
                }
                ring.touch(peer);
            }
        }
        SimulatedRing::change_moved(|peer| {
            peer.behave();
            if !peer.sent_fin {
                peer.plan.afterwards = Afterwards::Wait;
            }
        });
        self.endpoints_play(Plan::plain());
        self.calm_kept();
    }

    fn endpoints_play(&mut self, plan: Plan) {
        for lane in &mut self.lanes {
            for endpoint in &mut lane.ring().endpoints {
                endpoint.plan = endpoint.plan.and(Some(plan));
            }
        }
    }

    /// Everybody has said what there was to say.
    pub fn farewell(&mut self) {
        for lane in &mut self.lanes {
            let ring = lane.ring();
            for peer in 0..ring.peers.len() {
                ring.peers[peer].plan.afterwards = Afterwards::Fin;
                ring.touch(peer);
            }
        }
        SimulatedRing::change_moved(|peer| peer.plan.afterwards = Afterwards::Fin);
        // Some turns pass meanwhile: what connects in them says good-bye, too.
        self.endpoints_play(Plan { afterwards: Afterwards::Fin, ..Plan::plain() });
        self.release_kept();
    }

    /// The ledger as anybody may read it.
    pub fn ledger(&self) -> Ledger {
        let published = self.lanes.iter().map(|lane| lane.published.as_ref());
        Ledger::of(published, &self.admission, self.handle.pool())
    }
}
