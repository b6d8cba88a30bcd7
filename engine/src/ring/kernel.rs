//! The real ring: io_uring(7).
//!
//! Entries are built and queued with the `io-uring` crate; io_uring_enter(2) is called directly,
//! because the registered descriptor of the crate binds to one borrowed `Submitter`, and because
//! every call here carries `IORING_ENTER_GETEVENTS` (deferred task work runs under no other flag).
//!
//! # Tear-down
//! The kernel may write into the arena as long as a receive or a read is in flight. Whoever owns
//! the arena must have drained the ring before it unmaps it, or leak it. The ring does the same
//! with the one mapping it owns: see [`KernelRing`]'s `Drop`.

mod buffers;
mod enter;
#[cfg(test)]
mod tests;

use super::probe::{CreateRingError, EXT_ARG, Facts, PBUF_RING, Share};
use super::{
    CLOCK_START_US, Calls, Completion, Descriptor, Errno, Op, Ring, RingCounters, Setup, Token,
    calls, direct,
};
use buffers::BufferRing;
use enter::EnterDescriptor;
use io_uring::types::{Fd, OpenHow, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::{Duration, Instant};

/// The buffer group of the one provided ring.
const GROUP: u16 = 0;
/// The call that registers the ring of provided buffers.
const PBUF_RING_CALL: &str = "io_uring_register(2), IORING_REGISTER_PBUF_RING,";
/// The kernel registers at most this much memory as one buffer; more is EFAULT. A larger arena is
/// registered as several buffers.
const REGISTERED_BYTES_MAX: usize = 1 << 30;

/// The ways to open a path, by [`how`]. `O_NONBLOCK`, so that opening a FIFO somebody put into the
/// tree waits for no writer.
static HOWS: [OpenHow; 8] = {
    let mut hows = [OpenHow::new(); 8];
    let mut at = 0;
    while at < hows.len() {
        let flags = if at & PATH_ONLY == 0 { OPEN_FLAGS } else { FIND_FLAGS };
        let here = if at & WAITS == 0 { libc::RESOLVE_NO_XDEV } else { 0 };
        let links = if at & FOLLOWS == 0 { libc::RESOLVE_NO_SYMLINKS } else { 0 };
        hows[at] = OpenHow::new().flags(flags).resolve(RESOLVE | here | links);
        at += 1;
    }
    hows
};
const PATH_ONLY: usize = 1;
const WAITS: usize = 2;
const FOLLOWS: usize = 4;

const OPEN_FLAGS: u64 =
    (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64;
const FIND_FLAGS: u64 = (libc::O_PATH | libc::O_CLOEXEC) as u64;
const RESOLVE: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;

/// How a file is made that has no name yet. 0644: what others may do with it is the umask's.
static CREATE_HOW: OpenHow =
    OpenHow::new().flags((libc::O_TMPFILE | libc::O_WRONLY | libc::O_CLOEXEC) as u64).mode(0o644);

/// A ring of the kernel, with its provided buffers. It stays on the thread that made it: the
/// kernel takes submissions from no other (`IORING_SETUP_SINGLE_ISSUER`), and the registered
/// descriptor means another ring on another thread.
pub struct KernelRing {
    ring: IoUring,
    buffers: BufferRing,
    /// What to call io_uring_enter(2) with: a registered index, or the descriptor itself.
    enter: EnterDescriptor,
    /// The flags of every io_uring_enter(2).
    enter_flags: EnterFlags,
    /// Addresses of connects waiting to be submitted, one place for each submission entry. The
    /// kernel copies an address when it takes the entry, so a place is free when its entry is.
    addresses: Box<[MaybeUninit<libc::sockaddr_storage>]>,
    /// Entries ever pushed, wrapping: the low bits are the place of the next entry.
    pushed: u32,
    /// Operations whose last completion was taken.
    ended: u64,
    counters: RingCounters,
    /// Multishot receives are known to the kernel.
    multishot_receive: bool,
    /// cachestat(2) can be called.
    cachestat: bool,
    /// The registered arena, if it is: reads into it need no page walk.
    arena: Option<Registered>,
    /// Counts this ring for error messages of others.
    _share: Option<Share>,
    started: Instant,
}

impl KernelRing {
    /// Makes the shard's ring, on the shard's own thread, and registers its memory. No receive
    /// buffer is in the kernel's hands yet: [`Ring::provide`] gives them.
    ///
    /// SIGPIPE is blocked on the calling thread from here on. splice(2) to a socket whose peer
    /// is gone raises it and takes no `MSG_NOSIGNAL`; what the process does with the signal
    /// otherwise is not this engine's business.
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub fn new(setup: &Setup) -> Result<Self, CreateRingError> {
        assert!(setup.submission_entries.is_power_of_two(), "submission entries: a power of two");
        assert!(
            setup.completion_entries >= setup.submission_entries,
            "a completion for each entry"
        );
        assert!(setup.io_workers_max > 0, "at least one io-wq thread of each class");
        let arena_needed = usize::from(setup.receive_buffers) * setup.receive_buffer_bytes as usize;
        assert!(arena_needed <= setup.arena_bytes, "the receive buffers lie inside the arena");

        let failed =
            |call| move |error: io::Error| CreateRingError::of(call, &error, &Facts::of(setup));
        direct::block_sigpipe().map_err(failed("pthread_sigmask(3)"))?;
        let ring = build(setup).map_err(failed("io_uring_setup(2)"))?;
        let (has, may_use) = (ring.params(), setup.features);
        if !(has.is_feature_ext_arg() && may_use.ext_arg) {
            return Err(CreateRingError::lacks(EXT_ARG));
        }
        let no_iowait = has.is_feature_no_iowait() && may_use.no_iowait;
        let entries = ring.params().sq_entries() as usize;
        let enter = EnterDescriptor::of(&ring);
        let mut this = Self {
            buffers: BufferRing::new(setup).map_err(failed("mmap(2) of the buffer ring"))?,
            enter_flags: enter.flags() | wait_flags(no_iowait),
            enter,
            ring,
            addresses: Box::new_uninit_slice(entries),
            pushed: 0,
            ended: 0,
            counters: RingCounters::default(),
            multishot_receive: false,
            cachestat: may_use.cachestat,
            arena: None,
            _share: None,
            started: setup.started,
        };
        if !may_use.buffer_ring || !this.register_buffers().map_err(failed(PBUF_RING_CALL))? {
            return Err(CreateRingError::lacks(PBUF_RING));
        }
        this.limit_workers(setup.io_workers_max)
            .map_err(failed("io_uring_register(2), IORING_REGISTER_IOWQ_MAX_WORKERS,"))?;
        let multishot = this.try_multishot_receive();
        let multishot = multishot.map_err(|errno| failed("io_uring_enter(2)")(errno.into()))?;
        this.multishot_receive = multishot && may_use.multishot_receive;
        if setup.arena_registered {
            this.arena = this
                .register_arena(setup, REGISTERED_BYTES_MAX)
                .map_err(failed("io_uring_register(2), IORING_REGISTER_BUFFERS,"))?;
        }
        this._share = Some(Share::of(&Setup { arena_registered: this.has_arena(), ..*setup }));
        Ok(this)
    }

    /// Registers the ring of provided buffers. `false`: the kernel knows no such rings.
    fn register_buffers(&self) -> io::Result<bool> {
        let (address, entries) = (self.buffers.address(), self.buffers.entries());
        let submitter = self.ring.submitter();
        // SAFETY: the mapping holds `entries` descriptors and outlives its registration: `Drop`
        // unregisters it first, or leaks it.
        match unsafe { submitter.register_buf_ring_with_flags(address, entries, GROUP, 0) } {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn limit_workers(&self, workers_max: u32) -> io::Result<()> {
        // Both classes: bounded work waits for disks, unbounded for whatever else would block.
        self.ring.submitter().register_iowq_max_workers(&mut [workers_max; 2])
    }

    /// Returns whether the kernel knows multishot receives. One from no file then fails because of
    /// the file, and otherwise because of its flags (EINVAL).
    fn try_multishot_receive(&mut self) -> Result<bool, Errno> {
        let entry = opcode::RecvMulti::new(Fd(-1), GROUP).build();
        // SAFETY: the entry names no memory.
        unsafe { self.ring.submission().push(&entry) }.expect("an empty queue has room");
        self.enter(1, EnterFlags::GETEVENTS, Duration::from_secs(1))?;
        let result = self.ring.completion().next().map(|entry| entry.result());
        self.counters = RingCounters::default();
        Ok(result == Some(-libc::EBADF))
    }

    /// Registers the arena in pieces of so many bytes. `None`: there is no room for it within
    /// `RLIMIT_MEMLOCK`, of which other rings of this user, some of them gone just now, take their
    /// part. Works without, at a price.
    fn register_arena(&self, setup: &Setup, piece_bytes: usize) -> io::Result<Option<Registered>> {
        let pieces: Vec<libc::iovec> = (0..setup.arena_bytes)
            .step_by(piece_bytes)
            .map(|begin| libc::iovec {
                iov_base: setup.arena_address.wrapping_add(begin).cast(),
                iov_len: piece_bytes.min(setup.arena_bytes - begin),
            })
            .collect();
        // SAFETY: the owner of the arena keeps it mapped until this ring is drained; the kernel
        // pins the pages themselves.
        match unsafe { self.ring.submitter().register_buffers(&pieces) } {
            Ok(()) => Ok(Some(Registered { address: setup.arena_address.addr(), piece_bytes })),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the arena is registered.
    pub fn has_arena(&self) -> bool {
        self.arena.is_some()
    }

    /// Operations submitted whose last completion was not taken yet.
    pub(super) fn in_flight(&self) -> u64 {
        self.counters.submitted - self.ended
    }

    /// The entry for an operation, to be pushed next: a connect takes that place's address.
    fn entry(&mut self, op: Op) -> squeue::Entry {
        match op {
            Op::Receive { socket, multishot: true } => {
                debug_assert!(self.multishot_receive, "the kernel knows multishot receives");
                opcode::RecvMulti::new(Fd(socket.0), GROUP).build()
            }
            // Length 0 with a selected buffer means the buffer's own length.
            Op::Receive { socket, multishot: false } => {
                opcode::Recv::new(Fd(socket.0), ptr::null_mut(), 0)
                    .buf_group(GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
            Op::Send { socket, address, length, more } => {
                let more = if more { libc::MSG_MORE } else { 0 };
                opcode::Send::new(Fd(socket.0), address, length)
                    .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL | more)
                    .build()
            }
            Op::Probe { socket } => opcode::Recv::new(Fd(socket.0), ptr::null_mut(), 0).build(),
            Op::Poll { descriptor, events } => {
                opcode::PollAdd::new(Fd(descriptor.0), events).build()
            }
            Op::Accept { listener, multishot } => {
                let (listener, flags) = (Fd(listener.0), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
                if multishot {
                    opcode::AcceptMulti::new(listener).flags(flags).build()
                } else {
                    let nowhere = ptr::null_mut();
                    opcode::Accept::new(listener, nowhere, ptr::null_mut()).flags(flags).build()
                }
            }
            Op::Read { file, address, length, offset } => {
                let position = direct::position(offset).cast_unsigned();
                let file = Fd(file.0);
                match self.arena.as_ref().and_then(|arena| arena.index(address, length)) {
                    Some(index) => opcode::ReadFixed::new(file, address, length, index)
                        .offset(position)
                        .build(),
                    None => opcode::Read::new(file, address, length).offset(position).build(),
                }
            }
            // No offset on the pipe's side. The pipe is O_NONBLOCK, so a full one is EAGAIN.
            Op::Splice { file, offset, pipe, length } => {
                opcode::Splice::new(Fd(file.0), direct::position(offset), Fd(pipe.0), -1, length)
                    .build()
            }
            Op::Open { directory, path, waits, path_only, follows } => {
                opcode::OpenAt2::new(Fd(directory.0), path, how(path_only, waits, follows)).build()
            }
            Op::Write { file, address, length, offset, .. } => {
                opcode::Write::new(Fd(file.0), address, length)
                    .offset(direct::position(offset).cast_unsigned())
                    .build()
            }
            Op::SpliceToFile { pipe, file, offset, length } => {
                opcode::Splice::new(Fd(pipe.0), -1, Fd(file.0), direct::position(offset), length)
                    .build()
            }
            Op::Create { directory } => {
                opcode::OpenAt2::new(Fd(directory.0), c".".as_ptr(), &raw const CREATE_HOW).build()
            }
            Op::Sync { descriptor } => opcode::Fsync::new(Fd(descriptor.0)).build(),
            Op::Link { file, source, directory, name } => {
                let (source, flags) = calls::link_source(source);
                opcode::LinkAt::new(Fd(file.0), source, Fd(directory.0), name).flags(flags).build()
            }
            Op::Rename { directory, from, to } => {
                opcode::RenameAt::new(Fd(directory.0), from, Fd(directory.0), to).build()
            }
            Op::Unlink { directory, name } => opcode::UnlinkAt::new(Fd(directory.0), name).build(),
            Op::Connect { socket, address } => {
                // SAFETY: the submitter keeps the address valid; it is copied here.
                let (address, length) = calls::to_sockaddr(unsafe { &*address });
                let place = self.pushed as usize & (self.addresses.len() - 1);
                let address = self.addresses[place].write(address);
                opcode::Connect::new(Fd(socket.0), (&raw const *address).cast(), length).build()
            }
            Op::Close { descriptor } | Op::CloseFile { descriptor, .. } => {
                opcode::Close::new(Fd(descriptor.0)).build()
            }
            Op::Cancel { target } => opcode::AsyncCancel::new(target.user_data()).build(),
        }
    }

    /// io_uring_enter(2). What it submitted is read off the queue, not off the result: an error
    /// hides the count.
    fn enter(&mut self, want: u32, flags: EnterFlags, timeout: Duration) -> Result<(), Errno> {
        let to_submit = self.ring.submission().len() as u32;
        let timeout = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timeout);
        let flags = flags | self.enter_flags;
        // SAFETY: the descriptor is this ring's, called on its own thread, and the arguments live
        // until the call returns.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter.number(),
                to_submit,
                want,
                flags.bits(),
                &raw const arguments,
                size_of_val(&arguments),
            )
        };
        let error = if result < 0 { direct::last_errno() } else { Errno(0) };
        let left = self.ring.submission().len() as u32;
        self.counters.enters += 1;
        self.counters.submitted += u64::from(to_submit - left);
        match error.0 {
            // ETIME: nothing came. EINTR: a signal. EAGAIN: no memory for a request just now.
            // EBUSY: completions first. Whatever was not taken is still queued.
            0 | libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY => Ok(()),
            _ => Err(error),
        }
    }
}

impl Ring for KernelRing {
    #[inline]
    fn push(&mut self, token: Token, op: Op) -> bool {
        // Before the entry is built: a connect's address would go where one still waits.
        if self.ring.submission().is_full() {
            // An error repeats at the next wait and is told there.
            let _ = self.enter(0, EnterFlags::empty(), Duration::ZERO);
        }
        if self.ring.submission().is_full() {
            return false;
        }
        let mut entry = self.entry(op).user_data(token.user_data());
        if op.waits() {
            entry = entry.flags(squeue::Flags::ASYNC);
        }
        // SAFETY: whoever made the operation keeps its memory until the terminal completion;
        // addresses of connects and `OPEN_HOW` stay until the entry is taken at least.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "there was room");
        self.pushed = self.pushed.wrapping_add(1);
        true
    }

    fn submit_all(&mut self) -> bool {
        if !self.ring.submission().is_empty() {
            let _ = self.enter(0, EnterFlags::empty(), Duration::ZERO);
        }
        self.ring.submission().is_empty()
    }

    fn submit_and_wait(&mut self, want: u32, timeout: Duration) -> Result<(), Errno> {
        if self.ring.submission().cq_overflow() {
            self.counters.overflows += 1;
        }
        // The kernel counts what already waits in the queue towards `want`; whoever left some
        // there wants to take them now, not to wait for more.
        let want = if self.ring.completion().is_empty() { want } else { 0 };
        self.enter(want, EnterFlags::GETEVENTS, timeout)
    }

    #[inline]
    fn completion(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let completion = Completion {
            token: Token::from_user_data(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        };
        self.counters.completed += 1;
        self.ended += u64::from(!completion.more());
        Some(completion)
    }

    #[inline]
    fn provide(&mut self, buffer: u16) {
        self.buffers.provide(buffer);
    }

    fn now_us(&mut self) -> u64 {
        CLOCK_START_US + self.started.elapsed().as_micros() as u64
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }

    fn has_multishot_receive(&self) -> bool {
        self.multishot_receive
    }
}

impl Calls for KernelRing {
    fn is_cached(&mut self, file: Descriptor, offset: u64, length: u32) -> bool {
        self.cachestat && direct::is_cached(file, offset, length)
    }
}

impl Drop for KernelRing {
    /// Closing a ring ends its operations some time later, on a thread of the kernel. So the
    /// buffer ring is unmapped only when nothing is in flight and the kernel has let go of it;
    /// otherwise it is leaked. Unregistering it comes first in any case: what is still armed
    /// finds no buffer any more.
    fn drop(&mut self) {
        let unregistered = match self.ring.submitter().unregister_buf_ring(GROUP) {
            Ok(()) => true,
            // The ring never got as far as to register it.
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        let released = unregistered && self.in_flight() == 0;
        if released {
            // SAFETY: the kernel no longer knows the mapping, and nothing uses it after this.
            unsafe { self.buffers.unmap() };
        }
        // The thread's table holds a reference to the ring: without this it would live as long
        // as the thread.
        self.enter.release(&self.ring);
    }
}

/// An arena that is registered with the kernel, in pieces that are fixed buffers 0, 1 and so on.
struct Registered {
    address: usize,
    piece_bytes: usize,
}

impl Registered {
    /// The fixed buffer that holds these bytes of the arena. `None`: they lie in two of them.
    fn index(&self, address: *const u8, length: u32) -> Option<u16> {
        let begin = address.addr() - self.address;
        let last = begin + (length as usize).saturating_sub(1);
        let (index, of_last) = (begin / self.piece_bytes, last / self.piece_bytes);
        (index == of_last).then(|| u16::try_from(index).expect("an arena has few pieces"))
    }
}

/// The way in which a path is opened.
fn how(path_only: bool, waits: bool, follows: bool) -> *const OpenHow {
    let chosen = |chosen, flag| if chosen { flag } else { 0 };
    let at = chosen(path_only, PATH_ONLY) | chosen(waits, WAITS) | chosen(follows, FOLLOWS);
    &raw const HOWS[at]
}

/// io_uring_setup(2) with what the engine needs.
fn build(setup: &Setup) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        // One thread submits; in return the kernel takes cheaper locks.
        .setup_single_issuer()
        // Completion work runs when this thread asks for it, not in the middle of a handler.
        .setup_defer_taskrun()
        // One bad entry does not hold back those behind it.
        .setup_submit_all()
        // More entries than the kernel allows become as many as it allows.
        .setup_clamp()
        // Multishots complete more often than they are submitted.
        .setup_cqsize(setup.completion_entries);
    if !setup.features.no_sqarray {
        return builder.build(setup.submission_entries);
    }
    // Without the index array, one cache line less for each submission; from Linux 6.6.
    match builder.clone().setup_no_sqarray().build(setup.submission_entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            builder.build(setup.submission_entries)
        }
        result => result,
    }
}

/// Returns how io_uring_enter(2) waits. Before Linux 6.15 (`IORING_FEAT_NO_IOWAIT`), the kernel
/// refuses the flag. Without the flag, the kernel counts an idle shard as a thread that waits for
/// I/O: an idle engine then shows 100 % I/O pressure.
fn wait_flags(has_no_iowait: bool) -> EnterFlags {
    let no_iowait = if has_no_iowait { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
    EnterFlags::EXT_ARG | no_iowait
}
