//! One shard of a world: its ring, its listeners, and its end, good or bad.

use super::actor::{Actor, FILE_KEY, Habits, LINKED_PATHS, PATHS};
use super::book::{Book, NOT_FOUND, Record};
use super::callbacks::Told;
use super::elsewhere::Elsewhere;
use crate::admission::{Admission, SocketKind};
use crate::config::Config;
use crate::files::Directory;
use crate::handle::EngineHandle;
use crate::info::Origin;
use crate::ledger::Published;
use crate::mailbox::Mailbox;
use crate::memory::Arena;
use crate::ring::simulated::{
    Enter, OpenCounts, Peer, Rng, SimulatedFile, SimulatedRing, Standing,
};
use crate::ring::{Descriptor, FileKind, Ring, Setup};
use crate::shard::{Handed, Parts, Shard, Tells};
use crate::testing::Machine;
use crate::transit::Transit;
use crate::workers::Port;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// As long as the engine gives a shard that failed.
const TEAR_DOWN_WAIT: Duration = Duration::from_millis(100);

/// How far a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Runs,
    /// It ended with a drain.
    Finished,
    /// Its ring broke, or operations did not end with the drain.
    Failed,
}

/// What all shards of a world have in common.
pub struct Common {
    pub config: Config,
    pub admission: Arc<Admission>,
    pub transit: Arc<Transit<Handed>>,
    pub book: Rc<RefCell<Book>>,
    pub elsewhere: Rc<RefCell<Elsewhere>>,
}

pub struct Lane {
    pub number: usize,
    pub life: Life,
    machine: Machine<Actor>,
    book: Rc<RefCell<Book>>,
    /// When it failed, everything in flight ended.
    pub at_rest: bool,
    pub published: Arc<Published>,
    pub listeners: Vec<Descriptor>,
    /// The numbers of all listeners that its ring has ever had, in their order.
    pub numbers: Vec<u16>,
    /// When a removed listener's connections are reset here, by its number, in simulated µs.
    pub removed_us: BTreeMap<u16, u64>,
    /// Connections with an overdue deadline, since when, in simulated µs.
    pub overdue: BTreeMap<(u32, u64), u64>,
    /// Since when somebody waits for a place in the queue of jobs though there is one, in simulated
    /// µs, and the jobs that it had submitted by then.
    pub room_since_us: Option<(u64, u64)>,
    /// When a drain aborts what is left, in simulated µs.
    pub drain_deadline_us: Option<u64>,
    /// When a drain it has surely heard of aborts what is left.
    pub ends_by_us: Option<u64>,
    /// The last time that an operation hung, in simulated µs.
    pub hung_us: u64,
    /// After so many completions its ring breaks.
    pub breaks_after: u64,
}

/// A ring with its memory, before it has a shard.
pub struct Bare {
    ring: SimulatedRing,
    arena: Arena,
    directory: Directory,
    listeners: Vec<Descriptor>,
    /// What the shard will poll.
    pub event: Descriptor,
}

impl Bare {
    pub fn new(seed: u64, number: usize, now_us: u64, mut setup: Setup, rng: &mut Rng) -> Self {
        let arena = Arena::new(setup.arena_bytes).expect("memory for a simulation");
        setup.arena_address = arena.address();
        let seed = seed.wrapping_add((number as u64) << 56);
        let mut ring = SimulatedRing::of_shard(seed, number, now_us, setup);
        let directory = Directory::simulated(ring.add_directory());
        let sizes = [700, 5_000, 100_000, 5 << 30, 0, 0];
        for (at, (path, bytes)) in PATHS.into_iter().zip(sizes).enumerate() {
            let kind = if path == "folder" { FileKind::Directory } else { FileKind::Regular };
            ring.add_file(path, SimulatedFile { key: FILE_KEY + at as u64, bytes, kind });
        }
        ring.add_error("secret", libc::EACCES);
        ring.move_elsewhere("middling");
        LINKED_PATHS.into_iter().for_each(|path| ring.make_link(path));
        let listeners =
            (0..1 + rng.below(2)).map(|_| ring.add_listener(rng.pick(&[1, 2, 16]))).collect();
        let event = ring.add_event();
        Self { ring, arena, directory, listeners, event }
    }
}

impl Lane {
    /// A shard on that ring, not started yet.
    pub fn new(
        number: usize,
        bare: Bare,
        common: &Common,
        (mailbox, published, handle, jobs): (Mailbox, Arc<Published>, EngineHandle, Port),
        (rng, habits): (Rng, Habits),
    ) -> Self {
        let Bare { ring, arena, directory, listeners, .. } = bare;
        let valid_us = common.config.open_files_valid.as_micros() as u64;
        let shard = Shard::new(Parts {
            number,
            config: &common.config,
            ring,
            arena: &arena,
            handler: Actor {
                book: common.book.clone(),
                elsewhere: common.elsewhere.clone(),
                transit: common.transit.clone(),
                directory,
                rng,
                habits,
                valid_us,
            },
            mailbox,
            published: published.clone(),
            admission: common.admission.clone(),
            handle,
            jobs,
            transit: common.transit.clone(),
        });
        let machine = Machine::new(shard, arena);
        Self {
            number,
            life: Life::Runs,
            machine,
            book: common.book.clone(),
            at_rest: true,
            published,
            numbers: (0..listeners.len() as u16).collect(),
            listeners,
            removed_us: BTreeMap::new(),
            overdue: BTreeMap::new(),
            room_since_us: None,
            drain_deadline_us: None,
            ends_by_us: None,
            hung_us: 0,
            breaks_after: u64::MAX,
        }
    }

    pub fn ring(&mut self) -> &mut SimulatedRing {
        self.machine.ring()
    }

    /// The shard, if it runs.
    pub fn shard(&mut self) -> Option<&mut Shard<SimulatedRing, Actor>> {
        self.machine.shard()
    }

    pub fn now_us(&mut self) -> u64 {
        self.machine.now_us()
    }

    /// Slots in use.
    pub fn connections(&mut self) -> usize {
        self.machine.connections()
    }

    /// A further listener on its ring.
    pub fn add_listener(&mut self, number: u16, backlog: usize, kind: SocketKind) -> Descriptor {
        let ring = self.ring();
        let descriptor = match kind {
            SocketKind::Tcp => ring.add_listener(backlog),
            SocketKind::SharedTcp => ring.add_shared_listener(backlog),
            SocketKind::Unix => ring.add_unix_listener(backlog),
        };
        // The number may have had a listener before.
        self.removed_us.remove(&number);
        self.numbers.push(number);
        self.listeners.push(descriptor);
        descriptor
    }

    /// When the connections of a listener are reset because it was removed.
    pub fn reset_us(&self, origin: Origin) -> Option<u64> {
        match origin {
            Origin::Listener(number) => self.removed_us.get(&number).copied(),
            Origin::Connected(_) => None,
        }
    }

    /// Listeners that a peer finds.
    pub fn listening(&mut self) -> Vec<Descriptor> {
        let mut listeners = self.listeners.clone();
        let ring = self.ring();
        ring.catch_up();
        listeners.sort_unstable_by_key(|listener| listener.0);
        listeners.dedup();
        listeners.retain(|listener| ring.is_listener(*listener));
        listeners
    }

    /// When the shard does something, unless somebody makes it do so earlier.
    pub fn next_us(&mut self) -> u64 {
        self.machine.next_us()
    }

    /// One turn of the loop of `Shard::run`, until `horizon_us` at most.
    pub fn turn(&mut self, horizon_us: u64) {
        let breaks_after = self.breaks_after;
        let ring = self.ring();
        ring.horizon_us = horizon_us.max(ring.now_us() + 1);
        if ring.counters().completed >= breaks_after && ring.enter == Enter::Works {
            ring.enter_breaks();
        }
        let opened = self.book.borrow().records.len();
        let shard = self.shard().expect("it runs");
        let before = shard.bans();
        let hung = |shard: &mut Shard<SimulatedRing, Actor>| {
            shard.is_hung() && {
                assert!(shard.parts().0.hangs(), "a drain does not end, though nothing hangs");
                true
            }
        };
        let failed = shard.turn().is_err() || hung(shard);
        let after = shard.bans().0;
        self.find_peers(opened);
        self.note_ends();
        if before.1 && Arc::ptr_eq(&before.0, &after) {
            self.book.borrow_mut().check_bans(opened, self.number, &after.bans);
        }
        // A drain takes what the backlog holds before it waits; who comes may be gone after that.
        if !self.shard().expect("it runs").parts().1.draining {
            self.check_opened(opened);
        }
        let shard = self.shard().expect("it runs");
        if failed {
            self.fail();
        } else if shard.is_finished() {
            shard.finish();
            self.check_told();
            self.life = Life::Finished;
            self.machine.leave_ring();
        }
    }

    /// Notes the peers of those who were opened in this turn, from record `first` on. Several that
    /// we have connected to may have the same address, one after the other.
    fn find_peers(&mut self, first: usize) {
        let book = self.book.clone();
        let (ring, core) = self.shard().expect("it runs").parts();
        for record in &mut book.borrow_mut().records[first..] {
            let (id, slots) = (record.id, &core.slots);
            let connection = slots.of_life(id.slot(), id.generation());
            record.limits = connection.map(|connection| core.limits_of(connection).clone());
            let marks = connection.map(|connection| core.marks_of(connection));
            record.output_bytes_max = marks.map(|marks| marks.output_bytes_max);
            // Who was accepted from a backlog may be gone already.
            if record.accepted {
                record.peer = Peer::birth_of(record.address);
            } else if record.peer == NOT_FOUND {
                let number = ring.peer_of(core.slots[record.id.slot()].descriptor());
                record.peer = ring.peers[number].birth;
            }
        }
    }

    /// Notes when those have ended that ended in this turn.
    fn note_ends(&mut self) {
        let now_us = self.now_us();
        let book = self.book.clone();
        let mine = |record: &&mut Record| {
            record.id.shard() == self.number && record.closed.is_some() && record.ended_us == 0
        };
        for record in book.borrow_mut().records.iter_mut().filter(mine) {
            record.ended_us = now_us;
            record.leaves_us = self.reset_us(record.origin);
        }
    }

    /// Who was let in in this turn, from record `first` on, was still there.
    fn check_opened(&mut self, first: usize) {
        let book = self.book.clone();
        let (book, number) = (book.borrow(), self.number);
        // As with a drain: the end of a listener takes what its backlog holds.
        let stays = |record: &&Record| record.accepted && self.reset_us(record.origin).is_none();
        let records: Vec<&Record> = book.records[first..].iter().filter(stays).collect();
        let ring = self.ring();
        for record in records {
            let mut peers = ring.peers.iter().rev();
            let peer = peers.find(|peer| peer.address == record.address && !peer.outgoing);
            let reset = peer.is_some_and(|peer| {
                // A client that leaves a Unix socket is let in all the same.
                peer.standing == Standing::SentReset && !peer.socket.is_unix
            });
            let mine = record.id.shard() == number;
            assert!(!(mine && reset), "reset before it was let in: {record:?}");
        }
    }

    /// The handler was told of the end of its shard.
    fn check_told(&self) {
        let told = self.book.borrow().told[self.number];
        assert_eq!(told, Told::Ended, "the last that the handler of shard {} heard", self.number);
    }

    /// What the thread of a shard that failed does.
    fn fail(&mut self) {
        self.life = Life::Failed;
        self.book.borrow_mut().fail(self.number);
        let shard = self.shard().expect("it ran");
        let reasons = shard.reasons();
        self.at_rest = shard.give_up(TEAR_DOWN_WAIT, Tells::Handler);
        self.check_told();
        self.note_ends();
        self.book.borrow_mut().check_reasons(&reasons);
        let tokens = self.ring().view().tokens;
        let rests = tokens.iter().all(|token| token.is_wake());
        assert!(rests || !self.at_rest, "said to be at rest: {tokens:?}");
        self.machine.leave_ring();
        self.ring().end();
        self.book.borrow_mut().has_failed(self.number);
        let open = self.ring().open_counts();
        // What the kernel may still use is left to it.
        let left = if self.at_rest { OpenCounts::default() } else { open };
        let left = OpenCounts { listeners: 0, ..left };
        assert_eq!(open, left, "shard {}: descriptors left open", self.number);
    }
}
