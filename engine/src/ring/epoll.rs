//! A ring without io_uring: epoll(7), non-blocking calls, and a few threads for disks. It serves
//! systems that forbid io_uring, and behaves as the trait [`Ring`] promises, so that the shard does
//! not know the difference.
//!
//! # The way of an operation
//! | operation | first attempt, in `push` | otherwise |
//! |---|---|---|
//! | send, connect | the call itself, non-blocking | waits for its descriptor |
//! | accept, receive, probe | none | waits for its descriptor |
//! | poll | poll(2), if the descriptor may be ready | waits for its descriptor |
//! | close of a socket or a small file, cancel | done at once | |
//! | open | openat2(2) with `RESOLVE_CACHED`, unless it `waits` | a thread ([`walk`] without it) |
//! | read, write, splice, sync, create, names, other closes | none | a thread |
//!
//! `push` therefore takes every operation and is never full: the caller bounds what it pushes
//! between two waits. Completions wait in a queue until the caller takes them.
//!
//! # Readiness
//! A descriptor is registered once, at its first operation that has to wait, for both directions
//! and edge-triggered; closing it ends that. An entry of the table ([`table`]) keeps what the
//! kernel said last and the list of operations that wait for the descriptor. A bit that is not set
//! is exact: a call has found nothing, and the kernel reports the next change. A bit that is set is
//! a hint: calls beside the ring may have taken what was there. Operations try and find out, and a
//! poll asks poll(2).
//!
//! Hazard: a receive that does not fill its buffer has emptied the socket, except before urgent
//! data (`MSG_OOB`) or a FIN. After `EPOLLPRI`, `EPOLLRDHUP`, `EPOLLHUP` or `EPOLLERR` only EAGAIN
//! counts as empty.
//!
//! Hazard: a descriptor that a child process inherits for a moment (fork(2) without exec) stays
//! registered after it was closed here. Events carry the generation of their entry, and old ones
//! are dropped.
//!
//! # Like io_uring on purpose
//! * A receive takes its buffer when there is something to read, and fails with `-ENOBUFS` if no
//!   buffer is provided: when it is submitted, and before a FIN.
//! * A multishot receive or accept completes with [`F_MORE`] until its last completion. It brings
//!   at most [`RECEIVES_MAX`] buffers before other descriptors have their turn.
//! * A send completes when everything has left. After an error it reports what has left before,
//!   and the next send reports the error.
//! * A cancel ends an operation that waits; the operation has its own completion. One that a thread
//!   has is not cancelled (`-EALREADY`).
//!
//! A close differs: it ends the operations that wait for the descriptor with `-ECANCELED`, where
//! io_uring would let them hold the file. The shard closes no descriptor that an operation uses,
//! except after a failure.
//!
//! # Files
//! Threads run the operations that may wait for a disk ([`files`]), oldest first: at most
//! `io_workers_max` for splices into pipes, and as many for the others. A thread starts when there
//! is more to do than there are threads, and all end with the ring. A result comes back through a
//! channel, and an event descriptor ends the wait.
//!
//! # Limits
//! The queue of completions holds `completion_entries` before the ring stops looking at ready
//! descriptors until the next wait, plus the completions of what was pushed. A wait asks the kernel
//! once for up to [`EVENTS_MAX`] events, and again only while nothing has completed.

mod calls;
mod files;
mod ready;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use super::probe::CreateRingError;
use super::{
    CLOCK_START_US, Calls, Completion, Descriptor, Errno, F_MORE, Op, Ring, RingCounters, Setup,
    Token, direct,
};
use files::Files;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use table::{READABLE, Table, Wait};

/// Events that one epoll_wait(2) returns at most.
const EVENTS_MAX: usize = 256;
/// Receives of one multishot, or accepts, before other descriptors have their turn.
const RECEIVES_MAX: usize = 32;

/// A ring on epoll. It stays on the thread that made it.
pub struct EpollRing {
    poller: Descriptor,
    table: Table,
    /// Entries of the table of which an operation may go on.
    ready: VecDeque<u32>,
    completions: VecDeque<Completion>,
    completions_max: usize,
    /// The provided receive buffers. The last one is used first: the CPU caches still have it, and
    /// buffers that are never needed take no memory.
    buffers: Vec<u16>,
    buffers_count: u16,
    buffer_bytes: u32,
    /// The address of receive buffer 0; the others follow.
    arena_address: *mut u8,
    files: Files,
    /// The kernel waits for parts of a millisecond (epoll_pwait2(2)).
    precise: bool,
    /// openat2(2) can be called.
    openat2: bool,
    /// cachestat(2) can be called.
    cachestat: bool,
    events: Box<[libc::epoll_event]>,
    /// Operations whose last completion was taken.
    ended: u64,
    counters: RingCounters,
    started: Instant,
}

impl EpollRing {
    /// Makes the shard's ring, on the shard's own thread. No receive buffer is provided yet.
    ///
    /// SIGPIPE is blocked on the calling thread from here on, because splice(2) to a socket whose
    /// peer is gone raises it and takes no `MSG_NOSIGNAL`.
    ///
    /// # Errors
    /// The call that failed, and a remedy.
    pub fn new(setup: &Setup) -> Result<Self, CreateRingError> {
        let arena_needed = usize::from(setup.receive_buffers) * setup.receive_buffer_bytes as usize;
        assert!(arena_needed <= setup.arena_bytes, "the receive buffers lie inside the arena");
        assert!(setup.io_workers_max > 0, "at least one thread for disks");
        let failed = |call| move |error: io::Error| CreateRingError::of_epoll(call, &error);
        direct::block_sigpipe().map_err(failed("pthread_sigmask(3)"))?;
        let files = Files::new(setup.io_workers_max, setup.features.openat2)
            .map_err(failed("eventfd(2)"))?;
        let poller = calls::epoll().map_err(failed("epoll_create1(2)"))?;
        let no_event = libc::epoll_event { events: 0, u64: 0 };
        let this = Self {
            poller,
            table: Table::default(),
            ready: VecDeque::new(),
            completions: VecDeque::new(),
            completions_max: setup.completion_entries as usize,
            buffers: Vec::with_capacity(setup.receive_buffers.into()),
            buffers_count: setup.receive_buffers,
            buffer_bytes: setup.receive_buffer_bytes,
            arena_address: setup.arena_address,
            files,
            precise: true,
            openat2: setup.features.openat2,
            cachestat: setup.features.cachestat,
            events: vec![no_event; EVENTS_MAX].into_boxed_slice(),
            ended: 0,
            counters: RingCounters::default(),
            started: setup.started,
        };
        let added = calls::add(poller, this.files.event(), table::OF_FILES);
        added.map_err(|errno| failed("epoll_ctl(2)")(errno.into()))?;
        Ok(this)
    }

    /// Operations pushed whose last completion was not taken yet.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.counters.submitted - self.ended
    }

    fn complete(&mut self, token: Token, result: i32, flags: u32) {
        self.completions.push_back(Completion { token, result, flags });
    }

    /// Lets an operation wait for its descriptor. Returns the entry, unless that failed.
    fn wait_for(&mut self, token: Token, descriptor: Descriptor, wait: Wait) -> Option<u32> {
        match self.table.entry(self.poller, descriptor) {
            Ok(entry) => {
                self.table.insert(entry, token, wait);
                Some(entry)
            }
            Err(errno) => {
                self.complete(token, -errno.0, 0);
                None
            }
        }
    }

    /// Lets an operation wait for input.
    fn read_on(&mut self, token: Token, descriptor: Descriptor, wait: Wait) {
        if let Some(entry) = self.wait_for(token, descriptor, wait)
            && self.table[entry].seen & READABLE != 0
        {
            self.enqueue(entry);
        }
    }

    fn poll(&mut self, token: Token, descriptor: Descriptor, events: u32) {
        let wanted = events | (libc::POLLERR | libc::POLLHUP) as u32;
        if let Some(entry) = self.table.find(descriptor)
            && self.table[entry].may_be_ready() & wanted != 0
        {
            let mask = self.table.look(entry) & wanted;
            if mask != 0 {
                return self.complete(token, mask.cast_signed(), 0);
            }
        }
        // A descriptor that was not registered so far is reported with the next wait.
        self.wait_for(token, descriptor, Wait::Poll { wanted });
    }

    fn connect(&mut self, token: Token, socket: Descriptor, to: &SocketAddr) {
        match calls::connect(socket, to) {
            Ok(()) => self.complete(token, 0, 0),
            // A signal does not end it either (connect(2)).
            Err(Errno(libc::EINPROGRESS | libc::EINTR)) => {
                self.wait_for(token, socket, Wait::Connect);
            }
            Err(errno) => self.complete(token, -errno.0, 0),
        }
    }

    fn send(&mut self, token: Token, socket: Descriptor, mut send: table::Send) {
        let blocked = self.table.find(socket).is_some_and(|entry| self.table[entry].blocked);
        if !blocked && let Some(result) = send.go_on(socket) {
            return self.complete(token, result, 0);
        }
        if let Some(entry) = self.wait_for(token, socket, Wait::Send(send)) {
            // A new registration reports room that has come since.
            self.table[entry].blocked = true;
        }
    }

    fn cancel(&mut self, token: Token, target: Token) {
        let result = match self.table.remove_token(target) {
            Some(wait) => {
                self.complete(target, wait.cut_short(), 0);
                0
            }
            None if self.files.has(target) => -libc::EALREADY,
            None => -libc::ENOENT,
        };
        self.complete(token, result, 0);
    }

    fn open(&mut self, token: Token, op: Op) {
        match calls::open_cached(&op) {
            Err(Errno(libc::EAGAIN | libc::EINVAL)) => self.hand_over(token, op),
            result => self.complete(token, calls::result_of(result), 0),
        }
    }

    /// Gives an operation that may wait for a disk to a thread.
    fn hand_over(&mut self, token: Token, op: Op) {
        if let Err(errno) = self.files.push(token, op) {
            self.complete(token, -errno.0, 0);
        }
    }

    fn enqueue(&mut self, entry: u32) {
        if !std::mem::replace(&mut self.table[entry].queued, true) {
            self.ready.push_back(entry);
        }
    }

    /// Takes the results of the threads.
    fn collect_files(&mut self) {
        while let Some((token, result)) = self.files.next_result() {
            self.complete(token, result, 0);
        }
    }

    /// Asks the kernel what has happened, and waits for it at most so long.
    fn harvest(&mut self, timeout: Duration) -> Result<(), Errno> {
        self.counters.enters += 1;
        let mut events = std::mem::take(&mut self.events);
        let mut found = Err(Errno(libc::ENOSYS));
        if self.precise && !timeout.is_zero() {
            found = calls::wait_precisely(self.poller, &mut events, timeout);
            self.precise = !matches!(found, Err(Errno(libc::ENOSYS | libc::EPERM)));
        }
        if !self.precise || timeout.is_zero() {
            found = calls::wait(self.poller, &mut events, timeout);
        }
        for event in &events[..*found.as_ref().unwrap_or(&0)] {
            self.note(event.u64, event.events);
        }
        self.events = events;
        found.map(drop)
    }

    /// Notes an event: what it says of a descriptor, and the polls that it ends.
    fn note(&mut self, key: u64, events: u32) {
        let Some(entry) = self.table.of_event(key) else { return };
        self.table[entry].note(events);
        while let Some((token, mask)) = self.table.take_poll(entry, events) {
            self.complete(token, mask.cast_signed(), 0);
        }
        if self.table[entry].is_waited_for() {
            self.enqueue(entry);
        }
    }
}

impl Ring for EpollRing {
    fn push(&mut self, token: Token, op: Op) -> bool {
        self.counters.submitted += 1;
        match op {
            Op::Receive { .. } if self.buffers.is_empty() => {
                self.complete(token, -libc::ENOBUFS, 0);
            }
            Op::Receive { socket, multishot } => {
                self.read_on(token, socket, Wait::Receive { multishot });
            }
            Op::Accept { listener, multishot } => {
                self.read_on(token, listener, Wait::Accept { multishot });
            }
            Op::Probe { socket } => self.read_on(token, socket, Wait::Probe),
            Op::Poll { descriptor, events } => self.poll(token, descriptor, events),
            Op::Send { socket, address, length, more } => {
                self.send(token, socket, table::Send { address, length, done: 0, more });
            }
            // SAFETY: the submitter keeps the address valid during this call.
            Op::Connect { socket, address } => self.connect(token, socket, unsafe { &*address }),
            Op::Close { descriptor } | Op::CloseFile { descriptor, waits: false } => {
                self.close_now(descriptor);
                self.complete(token, 0, 0);
            }
            Op::Cancel { target } => self.cancel(token, target),
            Op::Open { waits: false, .. } if self.openat2 => self.open(token, op),
            Op::Read { .. }
            | Op::Splice { .. }
            | Op::Write { .. }
            | Op::SpliceToFile { .. }
            | Op::Create { .. }
            | Op::Sync { .. }
            | Op::Link { .. }
            | Op::Rename { .. }
            | Op::Unlink { .. }
            | Op::CloseFile { waits: true, .. }
            | Op::Open { .. } => self.hand_over(token, op),
        }
        true
    }

    fn submit_all(&mut self) -> bool {
        true
    }

    fn submit_and_wait(&mut self, want: u32, timeout: Duration) -> Result<(), Errno> {
        // Completions that the caller left in the queue are taken before it waits for more.
        let want = if self.completions.is_empty() { want as usize } else { 0 };
        let begun = Instant::now();
        let mut left = timeout;
        loop {
            self.collect_files();
            let may_go_on = self.completions.len() >= want || !self.ready.is_empty();
            match self.harvest(if may_go_on { Duration::ZERO } else { left }) {
                Ok(()) => {}
                Err(Errno(libc::EINTR)) => return Ok(()),
                Err(errno) => return Err(errno),
            }
            self.collect_files();
            self.serve();
            if self.completions.len() >= want {
                return Ok(());
            }
            left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    #[inline]
    fn completion(&mut self) -> Option<Completion> {
        let completion = self.completions.pop_front()?;
        self.counters.completed += 1;
        self.ended += u64::from(completion.flags & F_MORE == 0);
        Some(completion)
    }

    #[inline]
    fn provide(&mut self, buffer: u16) {
        assert!(buffer < self.buffers_count, "a receive buffer that exists");
        self.buffers.push(buffer);
    }

    fn now_us(&mut self) -> u64 {
        CLOCK_START_US + self.started.elapsed().as_micros() as u64
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }
}

impl Calls for EpollRing {
    /// Ends the operations that wait for the descriptor. Invariant: a descriptor that a thread uses
    /// is closed when the thread is done, because its number must not mean another file before.
    fn close_now(&mut self, descriptor: Descriptor) {
        if let Some(entry) = self.table.find(descriptor) {
            while let Some((token, wait)) = self.table.take_first(entry) {
                self.complete(token, wait.cut_short(), 0);
            }
            self.table.forget(entry);
        }
        self.files.close(descriptor);
    }

    fn is_cached(&mut self, file: Descriptor, offset: u64, length: u32) -> bool {
        self.cachestat && direct::is_cached(file, offset, length)
    }

    fn clear_wake(&mut self, wake: Descriptor) {
        direct::clear_wake(wake);
        if let Some(entry) = self.table.find(wake) {
            // A signal after the call is an event that is still to come.
            self.table[entry].seen &= !(libc::EPOLLIN as u32);
        }
    }
}

impl Drop for EpollRing {
    fn drop(&mut self) {
        super::calls::close(self.poller);
    }
}
