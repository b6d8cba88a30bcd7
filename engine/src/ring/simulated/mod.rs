//! A kernel, a network and peers that exist only in memory and do what one seed says.
//!
//! The same seed and the same calls give the same run, bit for bit: no clock, no hashing, no
//! thread. What the simulated kernel may do is what the real one was seen to do; each of these
//! facts has a test in [`tests`]. A misuse that a real kernel would answer with somebody else's
//! data (a descriptor closed twice, a buffer provided twice, two operations of one token) panics
//! with the last events.
//!
//! Descriptors are numbered from [`FIRST`] on, so that nothing real is touched by mistake, and by
//! ring, so that what is done beside the rings finds the right one.

mod beside;
mod broken;
mod changes;
mod descriptors;
mod faults;
mod files;
mod made;
mod moved;
mod network;
mod operations;
mod peers;
mod queue;
mod rng;
mod sockets;
mod submission;
#[cfg(test)]
mod tests;
mod trace;
mod view;

use beside::{close_beside, read_beside, signal_beside, status_beside};
pub use beside::{interrupt, present_us, set_interrupts, unix_peer};
pub use broken::Enter;
#[cfg(test)]
pub use descriptors::FIRST;
pub use descriptors::OpenCounts;
pub use faults::Faults;
pub use files::SimulatedFile;
pub use made::Made;
pub use network::{Endpoint, SOURCE};
pub use peers::{Afterwards, Birth, NEVER, Peer, Plan, Standing};
pub use rng::{Rng, is_stretch, stretch};
#[cfg(test)]
pub use rng::{stream, stream_byte};
pub use view::View;

use super::calls::TcpOptions;
use super::{
    Calls, Completion, Delivery, Descriptor, Errno, FileStatus, Instruction, Op, Outside, Pipe,
    Ring, RingCounters, Setup, Shutdown, Token, Traffic,
};
use crate::address::SocketPath;
use changes::Facts;
use descriptors::{Object, Table};
use files::{Name, PipeBytes};
use network::Listener;
use operations::Pending;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use trace::Trace;

/// The simulated kernel with its peers.
pub struct SimulatedRing {
    /// For whoever drives the simulation, too.
    pub rng: Rng,
    /// What goes wrong from now on.
    pub faults: Faults,
    /// Everybody who connects or is connected to, in the order of appearance.
    pub peers: Vec<Peer>,
    /// All files.
    pub files: Vec<SimulatedFile>,
    /// What is known of them beside.
    facts: Vec<Facts>,
    /// All files that were made.
    pub made: Vec<Made>,
    /// Who can be connected to; anybody else refuses.
    pub endpoints: Vec<Endpoint>,
    /// Paths that were looked up (`O_PATH`) and led to something.
    pub lookups: u64,
    /// Sockets that were closed with unread input, so that their peer got RST.
    pub closes_with_unread: u64,
    /// Sockets that were closed while the peer had not acknowledged all output.
    pub closes_undelivered: u64,
    /// Reads of files that failed, or found nothing where the file should have gone on.
    pub file_failures: u64,
    /// Descriptors closed while operations held what they stood for: the peer gets no FIN yet.
    pub closes_while_armed: u64,
    /// Entries of the submission queue.
    pub submission_capacity: usize,
    /// Entries of the completion queue.
    pub completion_capacity: usize,
    /// Whether the enter call works.
    pub enter: Enter,
    /// Operations that hang do so for ever.
    pub hung_for_good: bool,
    /// When the enter call failed first.
    failed_us: Option<u64>,
    /// A wait returns at this time at the latest, so that the rings of other shards can keep up.
    pub horizon_us: u64,
    seed: u64,
    number: usize,
    setup: Setup,
    now_us: u64,
    peers_next_us: Vec<u64>,
    next_ready_us: u64,
    names: BTreeMap<Vec<u8>, Name>,
    /// Paths to other file systems.
    elsewhere: BTreeSet<Vec<u8>>,
    /// Paths across a symbolic link.
    links: BTreeSet<Vec<u8>>,
    listeners: Vec<Listener>,
    pipes: Vec<PipeBytes>,
    table: Table,
    queue: VecDeque<(Token, Op)>,
    /// Where to the connects in it go.
    addresses: VecDeque<SocketAddr>,
    pending: Vec<Option<Pending>>,
    pending_free: Vec<usize>,
    order: Vec<usize>,
    completions: VecDeque<Completion>,
    overflowed: VecDeque<Completion>,
    provided: VecDeque<u16>,
    is_provided: Vec<bool>,
    /// When the event descriptor was, or will be, written to.
    wakes_us: Vec<u64>,
    /// Calls of send(2).
    pub sends_at_once: u64,
    /// Peers accepted so far.
    accepted: u64,
    counters: RingCounters,
    trace: Trace,
}

impl SimulatedRing {
    /// The calls of a thread without the ring on a descriptor of it.
    pub const OUTSIDE: Outside = Outside {
        close: close_beside,
        signal: signal_beside,
        read_at: read_beside,
        file_status: status_beside,
    };

    /// A kernel that does what `seed` says, without faults until [`SimulatedRing::faults`] is
    /// set. The seed draws the sizes of the queues, too: at most what `setup` asks for.
    #[cfg(test)]
    pub fn new(seed: u64, setup: Setup) -> Self {
        let now_us = Rng::new(!seed).below(1_000_000_000_000);
        Self::of_shard(seed, 0, now_us, setup)
    }

    /// Lets time pass in which the process does not run.
    pub fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.now_us += 1_000;
            self.run_peers();
        }
        beside::set_now_us(self.now_us);
    }

    /// The same, for one of several shards, which have a time in common.
    pub fn of_shard(seed: u64, number: usize, now_us: u64, setup: Setup) -> Self {
        let mut rng = Rng::new(seed);
        let submission = rng.pick(&[4, 16, 64, usize::MAX]);
        let completion = rng.pick(&[2, 16, usize::MAX, usize::MAX, usize::MAX, usize::MAX]);
        let ring = Self {
            faults: Faults::none(),
            peers: Vec::new(),
            files: Vec::new(),
            facts: Vec::new(),
            made: Vec::new(),
            endpoints: Vec::new(),
            lookups: 0,
            closes_with_unread: 0,
            closes_undelivered: 0,
            file_failures: 0,
            closes_while_armed: 0,
            submission_capacity: submission.min(setup.submission_entries as usize),
            completion_capacity: completion.min(setup.completion_entries as usize),
            enter: Enter::Works,
            hung_for_good: false,
            failed_us: None,
            horizon_us: NEVER,
            seed,
            number,
            setup,
            now_us,
            peers_next_us: Vec::new(),
            next_ready_us: NEVER,
            names: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            links: BTreeSet::new(),
            listeners: Vec::new(),
            pipes: Vec::new(),
            table: Table::new(number, 1024),
            queue: VecDeque::new(),
            addresses: VecDeque::new(),
            pending: Vec::new(),
            pending_free: Vec::new(),
            order: Vec::new(),
            completions: VecDeque::new(),
            overflowed: VecDeque::new(),
            provided: VecDeque::new(),
            is_provided: vec![false; usize::from(setup.receive_buffers)],
            wakes_us: Vec::new(),
            sends_at_once: 0,
            accepted: 0,
            counters: RingCounters::default(),
            trace: Trace::default(),
            rng,
        };
        ring.forget_beside();
        Self::forget_moved();
        beside::set_now_us(now_us);
        ring
    }

    /// From now on everything goes well: peers read, nobody is silent, what was slow is swift.
    /// Storage answers again. Who has vanished stays away, and its connection times out.
    pub fn stop_faults(&mut self) {
        self.faults = Faults::none();
        if !self.hung_for_good {
            self.pending.iter_mut().flatten().for_each(|pending| pending.hangs = false);
        }
        self.completion_capacity = self.setup.completion_entries as usize;
        for peer in 0..self.peers.len() {
            self.peers[peer].behave();
            self.touch(peer);
        }
    }

    /// Most descriptors that may be open.
    pub fn set_descriptor_limit(&mut self, limit: usize) {
        self.table.limit = limit;
    }

    /// Descriptors that are open.
    pub fn open_counts(&self) -> OpenCounts {
        self.table.counts()
    }

    /// Operations pushed whose last completion has not been taken.
    #[cfg(test)]
    pub fn operations_in_flight(&self) -> usize {
        let last = |completion: &&Completion| !completion.more();
        let ended = self.completions.iter().chain(&self.overflowed).filter(last).count();
        self.queue.len() + self.pending.iter().flatten().count() + ended
    }

    /// Receive buffers that the kernel has.
    pub fn buffers_provided(&self) -> usize {
        self.provided.len()
    }

    /// The seed and the last events, as text.
    pub fn trace(&self) -> String {
        format!("seed {:#x}\n{}", self.seed, self.trace)
    }

    /// A mistake of whoever uses the ring, or of the simulation.
    #[track_caller]
    fn broken(&self, what: fmt::Arguments<'_>) -> ! {
        panic!("{}{what} at {} us, seed {:#x}", self.trace, self.now_us, self.seed)
    }

    /// What the descriptor stands for.
    fn holding(&self, descriptor: Descriptor, what: &str) -> usize {
        self.table.find(descriptor).unwrap_or_else(|| {
            self.broken(format_args!("{what} on descriptor {}: not open", descriptor.0))
        })
    }

    fn object(&self, descriptor: Descriptor, what: &str) -> Object {
        self.table.object(self.holding(descriptor, what))
    }

    fn close(&mut self, descriptor: Descriptor) {
        let Some(holding) = self.table.remove(descriptor) else {
            self.broken(format_args!("close of descriptor {}: not open", descriptor.0))
        };
        if self.table.references(holding) > 1 {
            self.closes_while_armed += 1;
        }
        self.trace.called(self.now_us, "closed", descriptor, 0);
        beside::forget_file(descriptor);
        self.let_go(holding);
    }

    /// One user less of what a descriptor stood for; with the last, it ends.
    fn let_go(&mut self, holding: usize) {
        match self.table.release(holding) {
            Some(Object::Listener(listener)) => self.end_listener(listener),
            Some(Object::Socket(peer)) => self.end_socket(peer),
            Some(Object::PipeRead(pipe)) => self.pipes[pipe].bytes.clear(),
            _ => {}
        }
    }

    /// Remembers a call beside the ring.
    fn called<T>(
        &mut self,
        what: &'static str,
        on: Descriptor,
        result: Result<T, Errno>,
    ) -> Result<T, Errno> {
        let number = result.as_ref().map_or_else(|errno| -i64::from(errno.0), |_| 0);
        self.trace.called(self.now_us, what, on, number);
        result
    }
}

/// The error of a negated errno.
const fn failed(negated: i32) -> Errno {
    Errno(-negated)
}

impl Ring for SimulatedRing {
    const SMALL_TURNS: bool = true;

    fn push(&mut self, token: Token, op: Op) -> bool {
        self.catch_up();
        if self.is_twice(token) {
            self.broken(format_args!("{op:?}: an operation of {token:?} is in flight already"));
        }
        if matches!(op, Op::Receive { multishot: true, .. }) && !self.has_multishot_receive() {
            self.broken(format_args!("{op:?}: this kernel has no multishot receives"));
        }
        if self.queue.len() >= self.submission_capacity {
            if self.rng.per_mille(self.faults.submission_refused) {
                return false;
            }
            self.counters.enters += 1;
            if self.enter_fails().is_some() {
                return false;
            }
            self.submit();
        }
        if let Op::Connect { address, .. } = op {
            // SAFETY: the submitter keeps the address during this call.
            self.addresses.push_back(unsafe { *address });
        }
        self.queue.push_back((token, op));
        true
    }

    fn submit_and_wait(&mut self, want: u32, timeout: Duration) -> Result<(), Errno> {
        self.catch_up();
        self.counters.enters += 1;
        if let Some(errno) = self.enter_fails() {
            return Err(errno);
        }
        self.flush_overflow();
        if !self.rng.per_mille(self.faults.enter_interrupted) {
            self.submit();
            let timeout_us = u64::try_from(timeout.as_micros()).unwrap_or(NEVER);
            let want = (want as usize).min(self.completion_capacity);
            self.wait(want, self.now_us.saturating_add(timeout_us).min(self.horizon_us));
            self.flush_overflow();
        }
        self.now_us += 1 + self.rng.below(50);
        beside::set_now_us(self.now_us);
        Ok(())
    }

    fn submit_all(&mut self) -> bool {
        if self.queue.is_empty() {
            return true;
        }
        self.catch_up();
        self.counters.enters += 1;
        if self.enter_fails().is_none() && !self.rng.per_mille(self.faults.enter_interrupted) {
            self.submit();
        }
        self.queue.is_empty()
    }

    fn completion(&mut self) -> Option<Completion> {
        let completion = self.completions.pop_front()?;
        self.counters.completed += 1;
        Some(completion)
    }

    fn provide(&mut self, buffer: u16) {
        self.catch_up();
        match self.is_provided.get_mut(usize::from(buffer)) {
            Some(provided) if !*provided => *provided = true,
            Some(_) => self.broken(format_args!("buffer {buffer} is provided twice")),
            None => self.broken(format_args!("buffer {buffer} is provided: there is none such")),
        }
        let each = self.setup.receive_buffer_bytes as usize;
        // SAFETY: the number was checked, the arena holds all receive buffers at its start, and
        // this one is the kernel's from now on: whoever still looks at it sees.
        unsafe {
            self.setup.arena_address.add(usize::from(buffer) * each).write_bytes(0xdd, each);
        }
        self.provided.push_back(buffer);
    }

    fn now_us(&mut self) -> u64 {
        self.now_us
    }

    fn wall_ms(&mut self) -> i64 {
        self.wall_us() / 1000
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }

    fn has_multishot_receive(&self) -> bool {
        self.setup.features.multishot_receive
    }
}

impl Calls for SimulatedRing {
    fn outside(&self) -> Outside {
        Self::OUTSIDE
    }

    fn hand_out(&mut self, socket: Descriptor) -> Descriptor {
        self.hand_out_socket(socket)
    }

    fn take_in(&mut self, socket: Descriptor) -> Descriptor {
        self.take_in_socket(socket)
    }

    fn shutdown(&mut self, socket: Descriptor, how: Shutdown) -> Result<(), Errno> {
        self.catch_up();
        let result = self.shut_down(socket, how);
        let what = if how == Shutdown::Both { "shutdown both" } else { "shutdown write" };
        self.called(what, socket, result)
    }

    fn abort(&mut self, socket: Descriptor) -> Result<(), Errno> {
        self.catch_up();
        self.disconnect(socket);
        self.called("abort", socket, Ok(()))
    }

    fn peer_address(&mut self, socket: Descriptor) -> Result<SocketAddr, Errno> {
        self.catch_up();
        let result = self.address_of(socket);
        self.called("getpeername", socket, result)
    }

    fn delivery(&mut self, socket: Descriptor) -> Result<Delivery, Errno> {
        self.catch_up();
        Ok(self.delivery_of(socket))
    }

    fn traffic(&mut self, socket: Descriptor, _: bool) -> Result<Traffic, Errno> {
        self.traffic_of(socket)
    }

    fn discard(&mut self, socket: Descriptor, bytes_max: u32) -> Result<u32, Errno> {
        self.catch_up();
        let result = self.discard_some(socket, bytes_max as usize);
        let number = result.map_or_else(|errno| -i64::from(errno.0), i64::from);
        self.trace.called(self.now_us, "discard", socket, number);
        result
    }

    fn receive_now(&mut self, socket: Descriptor, bytes: &mut [u8]) -> Result<u32, Errno> {
        self.catch_up();
        let result = self.receive_some(socket, bytes);
        let number = result.map_or_else(|errno| -i64::from(errno.0), i64::from);
        self.trace.called(self.now_us, "recv", socket, number);
        result
    }

    fn read_pipe(&mut self, pipe: Descriptor, bytes: &mut [u8]) -> Result<u32, Errno> {
        self.catch_up();
        let read = self.read_out(pipe, bytes);
        self.trace.called(self.now_us, "read", pipe, i64::from(read));
        Ok(read)
    }

    fn is_reset(&mut self, socket: Descriptor) -> bool {
        self.catch_up();
        self.is_dead(socket)
    }

    fn send_now(
        &mut self,
        socket: Descriptor,
        pieces: &[libc::iovec],
        _more: bool,
    ) -> Result<u32, Errno> {
        self.catch_up();
        self.sends_at_once += 1;
        let result = self.send_direct(socket, pieces);
        let number = result.map_or_else(|errno| -i64::from(errno.0), i64::from);
        self.trace.called(self.now_us, "send", socket, number);
        result
    }

    fn splice_to_socket(
        &mut self,
        pipe: Descriptor,
        socket: Descriptor,
        length: u32,
        _more: bool,
    ) -> Result<u32, Errno> {
        self.catch_up();
        let result = self.splice_out(pipe, socket, length as usize);
        let number = result.map_or_else(|errno| -i64::from(errno.0), i64::from);
        self.trace.called(self.now_us, "splice", socket, number);
        result
    }

    fn read_cached(
        &mut self,
        file: Descriptor,
        address: *mut u8,
        length: u32,
        offset: u64,
    ) -> Result<u32, Errno> {
        self.catch_up();
        let result = self.read_now(file, address, length, offset);
        let number = result.map_or_else(|errno| -i64::from(errno.0), i64::from);
        self.trace.called(self.now_us, "preadv2", file, number);
        result
    }

    fn is_cached(&mut self, file: Descriptor, _offset: u64, length: u32) -> bool {
        self.catch_up();
        let object = self.object(file, "cachestat(2)");
        assert!(length > 0 && matches!(object, Object::File(_)), "{length} bytes of {object:?}");
        !self.rng.per_mille(self.faults.not_cached)
    }

    fn send_file(
        &mut self,
        file: Descriptor,
        offset: u64,
        length: u32,
        socket: Descriptor,
    ) -> Result<u32, Errno> {
        self.catch_up();
        let result = self.send_out(file, offset, length as usize, socket);
        let number = result.map_or_else(|errno| -i64::from(errno.0), i64::from);
        self.trace.called(self.now_us, "sendfile", socket, number);
        result
    }

    fn splice_from_socket(
        &mut self,
        socket: Descriptor,
        pipe: Descriptor,
        length: u32,
    ) -> Result<u32, Errno> {
        self.catch_up();
        let result = self.splice_in(socket, pipe, length as usize);
        let number = result.map_or_else(|errno| -i64::from(errno.0), i64::from);
        self.trace.called(self.now_us, "splice from", socket, number);
        result
    }

    fn socket(
        &mut self,
        to: &SocketAddr,
        source: Option<SocketAddr>,
        _: Option<u32>,
    ) -> Result<Descriptor, Errno> {
        self.catch_up();
        let result = self.make_socket(*to, source);
        let on = result.unwrap_or(Descriptor::NONE);
        self.called("socket", on, result)
    }

    fn connect_unix(&mut self, path: &SocketPath) -> Result<Descriptor, Errno> {
        self.catch_up();
        let result = self.connect_path(path);
        let on = result.unwrap_or(Descriptor::NONE);
        self.called("connect to a path", on, result)
    }

    fn set_user_timeout(&mut self, socket: Descriptor, _: u32) -> Result<(), Errno> {
        self.catch_up();
        let result = self.time_out(socket);
        self.called("set user timeout", socket, result)
    }

    fn set_tcp_options(&mut self, socket: Descriptor, options: TcpOptions) -> Result<(), Errno> {
        self.catch_up();
        let result = self.set_options(socket, options);
        self.called("set tcp options", socket, result)
    }

    fn pipe(&mut self, capacity_bytes: u32) -> Result<Pipe, Errno> {
        self.catch_up();
        let result = self.make_pipe(capacity_bytes);
        let on = result.map_or(Descriptor::NONE, |pipe| pipe.read);
        self.called("pipe", on, result)
    }

    fn accept_now(&mut self, listener: Descriptor) -> Result<Descriptor, Errno> {
        self.catch_up();
        let result = self.accept_one(listener);
        let on = result.unwrap_or(listener);
        self.called("accept4", on, result)
    }

    fn unread_bytes(&mut self, socket: Descriptor) -> Result<u32, Errno> {
        self.catch_up();
        Ok(self.unread(socket))
    }

    fn set_filter(&mut self, socket: Descriptor, program: &[Instruction]) -> Result<(), Errno> {
        self.catch_up();
        let result = self.filter(socket, program);
        self.called("set filter", socket, result)
    }

    fn unaccepted(&mut self, listener: Descriptor) -> Result<u32, Errno> {
        self.catch_up();
        Ok(self.queued_at(listener))
    }

    fn drops(&mut self, listener: Descriptor) -> Result<u32, Errno> {
        self.catch_up();
        Ok(self.dropped_at(listener))
    }

    fn close_now(&mut self, descriptor: Descriptor) {
        self.catch_up();
        let holding = self.holding(descriptor, "close");
        let queued = self.queue.iter().any(|(_, op)| op.uses(descriptor));
        if (queued || self.table.references(holding) > 1) && !self.never_ends(descriptor, holding) {
            self.broken(format_args!("close of {}, which an operation uses", descriptor.0));
        }
        self.close(descriptor);
    }

    fn file_status(&mut self, file: Descriptor) -> Result<FileStatus, Errno> {
        self.catch_up();
        let fails = self.rng.per_mille(self.faults.no_status);
        let status = if fails { Err(Errno(libc::EIO)) } else { Ok(self.status_of(file)) };
        self.called("fstat", file, status)
    }

    fn clear_wake(&mut self, wake: Descriptor) {
        let object = self.object(wake, "read(2)");
        if object != Object::Event {
            self.broken(format_args!("{object:?} is cleared like an event"));
        }
        self.clear_event();
    }
}
