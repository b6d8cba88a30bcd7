//! Operations in flight: what each waits for, what it does then, and how it is cancelled.

use super::super::{F_BUFFER, F_MORE, F_SOCK_NONEMPTY, Op, Token};
use super::SimulatedRing;
use super::descriptors::Object;
use super::files::Name;
use super::peers::NEVER;
use super::sockets::{ALWAYS, IN, OUT, Phase};

/// Receives of one multishot in one go (`MULTISHOT_MAX_RETRY`).
const RECEIVES_MAX: usize = 32;

/// Errnos of accept that pass: for want of something, which come with nobody there as well; of
/// whoever was to be accepted, and of the network (accept(2)).
const PASSING_ERRNOS: [i32; 12] = [
    libc::ENFILE,
    libc::ENOBUFS,
    libc::ENOMEM,
    libc::ECONNABORTED,
    libc::EINTR,
    libc::EPERM,
    libc::EPROTO,
    libc::ENETDOWN,
    libc::EHOSTDOWN,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
    libc::EOPNOTSUPP,
];

/// A result and its flags.
pub type Outcome = (i32, u32);

/// An operation that the kernel has.
#[derive(Debug)]
pub struct Pending {
    /// Its identity.
    pub token: Token,
    /// What was asked.
    pub op: Op,
    /// What it holds open.
    pub holding: Option<usize>,
    /// The pipe of a splice.
    pub second: Option<usize>,
    /// What the path of an open leads to.
    pub name: Name,
    /// Bytes a send has moved.
    pub done: u32,
    /// Nothing happens to it before.
    pub ready_us: u64,
    /// Where a connect ends, negated, or 0.
    pub connect_result: i32,
    /// How it ended, not told yet.
    pub outcome: Option<Outcome>,
    /// A cancel has found it.
    pub cancelled: bool,
    /// A cancel has interrupted it.
    pub interrupted: bool,
    /// It waits for storage that does not answer, and nothing ends it.
    pub hangs: bool,
}

impl SimulatedRing {
    /// Lets operations happen that can, in any order, until so many completions were posted.
    /// True: time must pass for the others, but not necessarily much.
    pub(super) fn run_operations(&mut self, limit: usize) -> bool {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        self.next_ready_us = NEVER;
        for (at, pending) in self.pending.iter().enumerate() {
            let Some(pending) = pending else { continue };
            if self.is_ready(pending) {
                order.push(at);
            } else if pending.ready_us > self.now_us {
                self.next_ready_us = self.next_ready_us.min(pending.ready_us);
            }
        }
        let before = self.counters.completed + self.waiting_completions();
        for at in 0..order.len() {
            let other = at + self.rng.below((order.len() - at) as u64) as usize;
            order.swap(at, other);
            let after = self.counters.completed + self.waiting_completions();
            if after - before >= limit as u64 {
                break;
            }
            if !self.rng.per_mille(self.faults.delay) {
                self.run_operation(order[at]);
            }
        }
        let stirred = !order.is_empty();
        self.order = order;
        stirred
    }

    fn run_operation(&mut self, at: usize) {
        let mut pending = self.pending[at].take().expect("only what is there is run");
        if pending.outcome.is_none() {
            pending.outcome = self.run(&mut pending);
            if pending.outcome.is_some() && self.rng.per_mille(self.faults.late_completion) {
                let most_us = if self.rng.below(8) == 0 { 50_000 } else { 2_000 };
                pending.ready_us = self.now_us + 1 + self.rng.below(most_us);
                self.pending[at] = Some(pending);
                return;
            }
        }
        let Some((result, flags)) = pending.outcome else {
            self.pending[at] = Some(pending);
            return;
        };
        self.pending_free.push(at);
        for holding in [pending.holding, pending.second].into_iter().flatten() {
            self.let_go(holding);
        }
        self.post(pending.token, result, flags);
    }

    /// Whether it would do something now.
    pub(super) fn is_ready(&self, pending: &Pending) -> bool {
        if pending.hangs {
            return false;
        }
        let socket = || &self.peers[self.pending_socket(pending)].socket;
        if pending.outcome.is_some() {
            return pending.ready_us <= self.now_us;
        }
        if pending.cancelled {
            return true;
        }
        match pending.op {
            Op::Accept { .. } => {
                !self.backlog_of(pending).is_empty() || self.listens_no_more(pending)
            }
            Op::Receive { .. } | Op::Probe { .. } => socket().is_readable(),
            Op::Send { .. } => socket().room() > 0 || socket().is_unsendable(),
            Op::Poll { events, .. } => self.poll_mask(pending) & (events | ALWAYS) != 0,
            Op::Connect { .. } if socket().phase != Phase::Connecting => true,
            _ => pending.ready_us <= self.now_us,
        }
    }

    /// Its last result, if it ended.
    fn run(&mut self, pending: &mut Pending) -> Option<Outcome> {
        if pending.cancelled {
            let repeats =
                matches!(pending.op, Op::Accept { .. } | Op::Receive { multishot: true, .. });
            if repeats && self.rng.below(2) == 0 {
                let outcome = match pending.op {
                    Op::Accept { .. } => self.run_accept(pending),
                    _ => self.run_receive(pending, true),
                };
                if outcome.is_some() {
                    return outcome;
                }
            }
            let result = if pending.done > 0 { pending.done as i32 } else { -libc::ECANCELED };
            return Some((result, 0));
        }
        if let Some(errno) = self.cut_short(pending) {
            return Some((-errno, 0));
        }
        match pending.op {
            Op::Accept { .. } => self.run_accept(pending),
            Op::Receive { multishot, .. } => self.run_receive(pending, multishot),
            Op::Probe { .. } => self.run_probe(pending),
            Op::Poll { events, .. } => {
                let mask = self.poll_mask(pending) & (events | ALWAYS);
                (mask != 0).then_some((mask as i32, 0))
            }
            Op::Send { .. } => self.run_send(pending),
            Op::Read { .. } => Some((self.run_read(pending), 0)),
            Op::Splice { .. } => Some((self.run_splice(pending), 0)),
            Op::Open { .. } => Some((self.run_open(pending), 0)),
            Op::Write { .. } => Some((self.run_write(pending), 0)),
            Op::SpliceToFile { .. } => Some((self.run_splice_to_file(pending), 0)),
            Op::Create { .. } => Some((self.run_create(), 0)),
            Op::Sync { .. } => Some((self.run_sync(pending), 0)),
            Op::Link { source, name, .. } => Some((self.run_link(source, name), 0)),
            Op::Rename { from, to, .. } => Some((self.run_rename(from, to), 0)),
            Op::Unlink { name, .. } => Some((self.run_unlink(name), 0)),
            Op::Connect { .. } => Some((self.run_connect(pending), 0)),
            Op::Close { descriptor } | Op::CloseFile { descriptor, .. } => {
                self.close(descriptor);
                Some((0, 0))
            }
            Op::Cancel { target } => Some((self.run_cancel(target), 0)),
        }
    }

    /// What may happen to an operation before it has done anything.
    fn cut_short(&mut self, pending: &Pending) -> Option<i32> {
        let (cut, memory) = match pending.op {
            Op::Receive { .. } | Op::Probe { .. } => (true, true),
            Op::Send { .. } => (pending.done == 0, false),
            _ => (false, false),
        };
        if cut && self.rng.per_mille(self.faults.cut_short) {
            return Some(self.rng.pick(&[libc::EINTR, libc::EAGAIN]));
        }
        (memory && self.rng.per_mille(self.faults.no_receive_memory)).then_some(libc::ENOMEM)
    }

    /// An errno of accept that has nothing to do with who connects.
    pub(super) fn accept_failure(&mut self, somebody_waits: bool) -> Option<i32> {
        if self.table.is_full() || self.rng.per_mille(self.faults.no_descriptor) {
            return Some(-libc::EMFILE);
        }
        if self.rng.per_mille(self.faults.no_memory) {
            let errnos = if somebody_waits { &PASSING_ERRNOS } else { &PASSING_ERRNOS[..3] };
            return Some(-self.rng.pick(errnos));
        }
        None
    }

    fn run_accept(&mut self, pending: &Pending) -> Option<Outcome> {
        if self.listens_no_more(pending) {
            return Some((-libc::EINVAL, 0));
        }
        if self.backlog_of(pending).is_empty() {
            return None;
        }
        if let Some(errno) = self.accept_failure(true) {
            return Some((errno, 0));
        }
        let listener = self.listener_of(pending);
        while let Some(peer) = self.listeners[listener].backlog.pop_front() {
            if self.table.is_full() {
                self.listeners[listener].backlog.push_front(peer);
                return Some((-libc::EMFILE, 0));
            }
            let descriptor = self.accepted(peer).0;
            let once = matches!(pending.op, Op::Accept { multishot: false, .. });
            if once || self.multishot_ends() {
                return Some((descriptor, 0));
            }
            self.post(pending.token, descriptor, F_MORE);
        }
        None
    }

    /// A full completion queue ends a multishot; so may chance.
    fn multishot_ends(&mut self) -> bool {
        self.completions.len() >= self.completion_capacity
            || self.rng.per_mille(self.faults.multishot_end)
    }

    fn run_receive(&mut self, pending: &Pending, multishot: bool) -> Option<Outcome> {
        let peer = self.pending_socket(pending);
        for _ in 0..RECEIVES_MAX {
            if !self.peers[peer].socket.is_readable() {
                return None;
            }
            // The buffer is taken first: without one, even the end is not seen.
            let Some(&buffer) = self.provided.front() else {
                return Some((-libc::ENOBUFS, 0));
            };
            let socket = &mut self.peers[peer].socket;
            if socket.inbound.is_empty() {
                let result = socket.end_of_input();
                let hint = result == 0 && socket.peer_finished;
                let mut flags = if hint { F_SOCK_NONEMPTY } else { 0 };
                if self.rng.per_mille(self.faults.buffer_at_end) {
                    self.provided.pop_front();
                    self.is_provided[usize::from(buffer)] = false;
                    flags |= F_BUFFER | u32::from(buffer) << 16;
                }
                return Some((result, flags));
            }
            self.provided.pop_front();
            self.is_provided[usize::from(buffer)] = false;
            let each = self.setup.receive_buffer_bytes as usize;
            let mut count = socket.inbound.len().min(each);
            if self.rng.per_mille(self.faults.short_receive) {
                count = self.rng.up_to(count);
            }
            // SAFETY: the buffer's number was bounds-checked when it was provided; the arena
            // holds all receive buffers at its start and outlives the ring.
            let to = unsafe { self.setup.arena_address.add(usize::from(buffer) * each) };
            // SAFETY: `count` is at most the buffer's size.
            let to = unsafe { std::slice::from_raw_parts_mut(to, count) };
            let (front, back) = socket.inbound.as_slices();
            let first = front.len().min(count);
            to[..first].copy_from_slice(&front[..first]);
            to[first..].copy_from_slice(&back[..count - first]);
            socket.inbound.drain(..count);
            let mut flags = F_BUFFER | u32::from(buffer) << 16;
            // Before Linux 6.17 the kernel does not say it of a Unix socket.
            if socket.is_nonempty() && !socket.is_unix {
                flags |= F_SOCK_NONEMPTY;
            }
            self.touch(peer);
            if !multishot || self.multishot_ends() {
                return Some((count as i32, flags));
            }
            self.post(pending.token, count as i32, flags | F_MORE);
        }
        None
    }

    fn run_probe(&mut self, pending: &Pending) -> Option<Outcome> {
        let peer = self.pending_socket(pending);
        let socket = &mut self.peers[peer].socket;
        if !socket.is_readable() {
            return None;
        }
        Some(if socket.is_nonempty() { (0, F_SOCK_NONEMPTY) } else { (socket.end_of_input(), 0) })
    }

    fn run_send(&mut self, pending: &mut Pending) -> Option<Outcome> {
        let Op::Send { address, length, .. } = pending.op else { unreachable!() };
        let peer = self.pending_socket(pending);
        let socket = &mut self.peers[peer].socket;
        if socket.is_unsendable() {
            // What was moved counts; the error waits for the next call.
            let moved = (pending.done > 0).then_some(pending.done as i32);
            return moved.or_else(|| socket.send_failure()).map(|result| (result, 0));
        }
        if pending.done == 0 && self.rng.per_mille(self.faults.no_send_memory) {
            return Some((-self.rng.pick(&[libc::ENOBUFS, libc::ENOMEM]), 0));
        }
        let left = (length - pending.done) as usize;
        let most = left.min(socket.room());
        if most == 0 {
            return None;
        }
        let count = if self.rng.below(4) == 0 { self.rng.up_to(most) } else { most };
        // SAFETY: the submitter keeps the bytes until the completion.
        let bytes =
            unsafe { std::slice::from_raw_parts(address.add(pending.done as usize), count) };
        socket.outbound.extend(bytes);
        pending.done += count as u32;
        self.touch(peer);
        let over = pending.done == length || self.rng.per_mille(self.faults.short_send);
        over.then_some((pending.done as i32, 0))
    }

    fn run_connect(&mut self, pending: &Pending) -> i32 {
        let peer = self.pending_socket(pending);
        let now_us = self.now_us;
        let peer_end = &mut self.peers[peer];
        if peer_end.socket.phase == Phase::Connecting && pending.connect_result == 0 {
            peer_end.connect(now_us);
            peer_end.established = true;
            self.touch(peer);
            return 0;
        }
        match std::mem::take(&mut peer_end.socket.error) {
            0 if pending.connect_result == 0 => -libc::ECONNABORTED,
            0 => pending.connect_result,
            errno => -errno,
        }
    }

    /// `io_async_cancel`, which knows only what it can still find.
    fn run_cancel(&mut self, target: Token) -> i32 {
        let found = self.pending.iter().position(|pending| {
            pending.as_ref().is_some_and(|pending| pending.token == target && !pending.cancelled)
        });
        let Some(at) = found else { return -libc::ENOENT };
        let mut pending = self.pending[at].take().expect("just found");
        let heads = self.rng.below(2) == 0;
        let result = if pending.hangs {
            -libc::EALREADY
        } else if pending.outcome.is_some() {
            if heads { -libc::ENOENT } else { -libc::EALREADY }
        } else if heads && (pending.op.is_on_worker() || self.is_ready(&pending)) {
            pending.interrupted = self.rng.below(2) == 0;
            -libc::EALREADY
        } else {
            pending.cancelled = true;
            0
        };
        self.pending[at] = Some(pending);
        result
    }

    fn poll_mask(&self, pending: &Pending) -> u32 {
        match self.table.object(pending.holding.expect("resolved when submitted")) {
            Object::Socket(peer) => self.peers[peer].socket.poll_mask(),
            Object::Event if self.is_woken() => IN,
            Object::Event => 0,
            Object::Listener(listener) if self.listeners[listener].backlog.is_empty() => 0,
            Object::Listener(_) => IN,
            other => self.broken(format_args!("poll of {other:?}, events {OUT:#x}")),
        }
    }
}
