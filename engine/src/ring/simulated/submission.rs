//! What the kernel does when it is given an operation: it finds what the descriptor stands for,
//! copies what it copies, and fails what fails at once.

use super::super::{Descriptor, Kind, Op, Token};
use super::SimulatedRing;
use super::descriptors::Object;
use super::files::Name;
use super::operations::Pending;
use super::sockets::Phase;

/// A SYN is sent again for about so long before connect(2) gives up.
const CONNECT_GIVE_UP_US: u64 = 127_000_000;

impl Op {
    /// Its name and the descriptor that it holds open.
    fn describe(&self) -> (&'static str, Descriptor) {
        match *self {
            Self::Accept { listener, .. } => ("accept", listener),
            Self::Receive { socket, multishot: true } => ("receive multishot", socket),
            Self::Receive { socket, multishot: false } => ("receive", socket),
            Self::Probe { socket } => ("probe", socket),
            Self::Poll { descriptor, .. } => ("poll", descriptor),
            Self::Send { socket, .. } => ("send", socket),
            Self::Read { file, .. } => ("read", file),
            Self::Splice { file, .. } => ("splice", file),
            Self::Write { file, .. } => ("write", file),
            Self::SpliceToFile { pipe, .. } => ("splice to file", pipe),
            Self::Create { directory } => ("create", directory),
            Self::Sync { descriptor } => ("sync", descriptor),
            Self::Link { directory, .. } => ("link", directory),
            Self::Rename { directory, .. } => ("rename", directory),
            Self::Unlink { directory, .. } => ("unlink", directory),
            Self::Open { directory, .. } => ("open", directory),
            Self::Connect { socket, .. } => ("connect", socket),
            Self::Close { descriptor } | Self::CloseFile { descriptor, .. } => {
                ("close", descriptor)
            }
            Self::Cancel { .. } => ("cancel", Descriptor::NONE),
        }
    }

    /// Whether it names the descriptor.
    pub(super) fn uses(&self, descriptor: Descriptor) -> bool {
        let second = match *self {
            Self::Splice { pipe, .. } => pipe,
            Self::SpliceToFile { file, .. } => file,
            _ => Descriptor::NONE,
        };
        second == descriptor || self.describe().1 == descriptor
    }

    /// Whether a thread of io-wq does it, so that a cancel may come too late.
    pub(super) fn is_on_worker(&self) -> bool {
        matches!(
            self,
            Self::Splice { .. }
                | Self::Open { .. }
                | Self::Read { .. }
                | Self::Write { .. }
                | Self::SpliceToFile { .. }
                | Self::Create { .. }
                | Self::Sync { .. }
                | Self::Link { .. }
                | Self::Rename { .. }
                | Self::Unlink { .. }
        )
    }
}

impl SimulatedRing {
    /// The kernel takes what was pushed.
    pub(super) fn submit(&mut self) {
        while let Some((token, op)) = self.queue.pop_front() {
            self.counters.submitted += 1;
            self.start(token, op);
        }
    }

    fn start(&mut self, token: Token, op: Op) {
        let (what, descriptor) = op.describe();
        self.trace.submitted(self.now_us, token, what, descriptor);
        let mut pending = Pending {
            token,
            op,
            holding: None,
            second: None,
            name: Name::Error(libc::ENOENT),
            done: 0,
            ready_us: self.now_us,
            connect_result: 0,
            outcome: None,
            cancelled: false,
            interrupted: false,
            hangs: false,
        };
        if descriptor != Descriptor::NONE {
            let holding = self.holding(descriptor, what);
            if !matches!(op, Op::Close { .. } | Op::CloseFile { .. }) {
                self.table.hold(holding);
                pending.holding = Some(holding);
            }
        }
        self.prepare(&mut pending);
        let at = self.pending_free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len() - 1
        });
        self.pending[at] = Some(pending);
    }

    fn prepare(&mut self, pending: &mut Pending) {
        match pending.op {
            Op::Accept { .. } => {
                pending.outcome = self.accept_failure(false).map(|errno| (errno, 0));
            }
            Op::Receive { .. } if self.provided.is_empty() => {
                pending.outcome = Some((-libc::ENOBUFS, 0));
            }
            Op::Read { address, length, .. } => self.prepare_read(address, length as usize),
            Op::Splice { pipe: second, .. } | Op::SpliceToFile { file: second, .. } => {
                let holding = self.holding(second, "splice");
                self.table.hold(holding);
                pending.second = Some(holding);
            }
            Op::Open { path, waits, follows, .. } => {
                let directory = self.table.object(pending.holding.expect("just set"));
                if directory != Object::Directory {
                    self.broken(format_args!("open beneath {directory:?}"));
                }
                // SAFETY: a NUL-terminated string that the submitter keeps.
                let path = unsafe { std::ffi::CStr::from_ptr(path) };
                pending.name = *self.names.get(path.to_bytes()).unwrap_or(&pending.name);
                if !waits && self.elsewhere.contains(path.to_bytes()) {
                    pending.name = Name::Error(libc::EXDEV);
                }
                if !follows && self.links.contains(path.to_bytes()) {
                    pending.name = Name::Error(libc::ELOOP);
                }
            }
            Op::Connect { .. } => self.prepare_connect(pending),
            _ => {}
        }
        if pending.op.is_on_worker() && pending.outcome.is_none() {
            pending.ready_us += self.rng.below(3000);
            pending.hangs = self.rng.per_mille(self.faults.hung_storage);
        }
    }

    fn prepare_connect(&mut self, pending: &mut Pending) {
        let to = self.addresses.pop_front().expect("one for each connect in the queue");
        let peer = self.pending_socket(pending);
        self.peers[peer].socket.phase = Phase::Connecting;
        pending.ready_us += 1 + self.rng.below(30_000);
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.address == to);
        match endpoint.and_then(|endpoint| endpoint.plan) {
            Some(plan) => self.peers[peer].plan = plan,
            None => pending.connect_result = -libc::ECONNREFUSED,
        }
        if self.rng.per_mille(self.faults.connect_refused) {
            const ERRNOS: [i32; 4] =
                [libc::ECONNREFUSED, libc::ENETUNREACH, libc::EADDRNOTAVAIL, libc::ENOBUFS];
            pending.connect_result = -self.rng.pick(&ERRNOS);
        } else if self.rng.per_mille(self.faults.connect_silent) {
            pending.connect_result = -libc::ETIMEDOUT;
            pending.ready_us += CONNECT_GIVE_UP_US;
        }
    }

    /// The kernel may write to the destination of a read at any time.
    pub(super) fn prepare_read(&mut self, address: *mut u8, length: usize) {
        let (arena, setup) = (self.setup.arena_address as usize, &self.setup);
        let receiving = usize::from(setup.receive_buffers) * setup.receive_buffer_bytes as usize;
        let (first, end) = (address as usize, address as usize + length);
        if first < arena + receiving || end > arena + setup.arena_bytes || length == 0 {
            self.broken(format_args!("read of {length} bytes to {first:#x}: not in the arena"));
        }
        // SAFETY: it lies in the arena, behind the receive buffers, and is the kernel's now.
        unsafe { address.write_bytes(0xee, length) };
    }

    /// Whether two operations of this token at once would be a mistake: cancels and closes of
    /// files carry numbers that are used again before their completions are seen.
    pub(super) fn is_twice(&self, token: Token) -> bool {
        let repeats = [Kind::CloseFile, Kind::CancelReceive, Kind::CancelAccept];
        !token.kind().is_some_and(|kind| repeats.contains(&kind) || kind == Kind::CancelConnect)
            && self.in_flight(token)
    }

    /// Whether an operation of this token was pushed and has not ended.
    pub fn in_flight(&self, token: Token) -> bool {
        self.queue.iter().any(|(queued, _)| *queued == token)
            || self.pending.iter().flatten().any(|pending| pending.token == token)
    }
}
