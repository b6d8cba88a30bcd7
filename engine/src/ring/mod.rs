//! The interface between a shard and the kernel.
//!
//! A shard uses the trait [`Ring`]: plain-data operations in, plain-data completions out. The trait
//! [`Calls`] has the system calls that a shard makes directly. [`kernel`] implements both on
//! io_uring(7), and [`epoll`] on epoll(7). The simulated ring, for tests only, plays the kernel
//! from a seed. Invariant: nothing here knows what a connection is.

mod beside;
pub mod calls;
mod choice;
mod direct;
pub mod epoll;
#[cfg(test)]
mod facts;
mod features;
pub mod kernel;
pub mod probe;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
mod token;

pub use beside::Calls;
pub use choice::{RingChoice, RingInUse, RingKind};
pub use features::Features;
pub use token::{Kind, Token};

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A file descriptor as the kernel numbers it. The module that stores it owns it by convention.
/// Dropping it closes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Descriptor(pub i32);

impl Descriptor {
    /// No descriptor.
    pub const NONE: Self = Self(-1);
}

/// A positive error number of the kernel, as in errno(3). Its `Debug` text is the system's message
/// with the number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(pub i32);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// One operation for the ring. Pointers are addresses of memory that the submitter keeps valid
/// until the operation's last completion.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Accept with `SOCK_NONBLOCK | SOCK_CLOEXEC`.
    Accept {
        /// A listening socket.
        listener: Descriptor,
        /// `IORING_ACCEPT_MULTISHOT`: stays armed while completions carry `IORING_CQE_F_MORE`.
        /// The first of several rings with a multishot accept on one socket gets every client.
        multishot: bool,
    },
    /// Receive into a buffer of the provided ring (`IOSQE_BUFFER_SELECT`).
    Receive {
        /// A connected socket.
        socket: Descriptor,
        /// `IORING_RECV_MULTISHOT`: stays armed while completions carry `IORING_CQE_F_MORE`.
        multishot: bool,
    },
    /// Zero-length receive: completes on data, FIN or an error, and holds no buffer.
    Probe {
        /// A connected socket.
        socket: Descriptor,
    },
    /// One-shot poll (`IORING_OP_POLL_ADD`); `POLLERR` and `POLLHUP` are always reported, and on
    /// io_uring(7) `POLLRDHUP` as well.
    Poll {
        /// Any pollable descriptor.
        descriptor: Descriptor,
        /// `POLLIN` and its like, as in poll(2).
        events: u32,
    },
    /// Stream send, `MSG_WAITALL | MSG_NOSIGNAL`.
    Send {
        /// A connected socket.
        socket: Descriptor,
        /// First byte to send.
        address: *const u8,
        /// Bytes to send; never 0.
        length: u32,
        /// `MSG_MORE`: more bytes follow at once, so the kernel holds a partial segment back.
        more: bool,
    },
    /// Read from a regular file into the arena (`READ_FIXED` where the arena is registered).
    Read {
        /// A regular file.
        file: Descriptor,
        /// The target inside the arena.
        address: *mut u8,
        /// Bytes to read at most.
        length: u32,
        /// Offset in the file, bytes.
        offset: u64,
    },
    /// Splice from a regular file into a pipe. It runs on an io-wq thread and may wait for the
    /// disk.
    Splice {
        /// A regular file.
        file: Descriptor,
        /// Offset in the file, bytes.
        offset: u64,
        /// The pipe's write end.
        pipe: Descriptor,
        /// Bytes at most; not more than the pipe has room for.
        length: u32,
    },
    /// Write to a regular file.
    Write {
        /// A regular file.
        file: Descriptor,
        /// First byte to write.
        address: *const u8,
        /// Bytes to write; never 0.
        length: u32,
        /// Offset in the file, bytes.
        offset: u64,
        /// The operation may take long: an io-wq thread runs it from the start (`IOSQE_ASYNC`).
        waits: bool,
    },
    /// Splice from a pipe into a regular file. It runs on an io-wq thread and may wait for the
    /// disk.
    SpliceToFile {
        /// The pipe's read end.
        pipe: Descriptor,
        /// A regular file.
        file: Descriptor,
        /// Offset in the file, bytes.
        offset: u64,
        /// Bytes to move; the pipe holds them.
        length: u32,
    },
    /// Create a file without a name: openat2(2) with `O_TMPFILE | O_WRONLY`, mode 0644.
    Create {
        /// The directory in which the file gets its name later.
        directory: Descriptor,
    },
    /// fsync(2).
    Sync {
        /// A file or a directory.
        descriptor: Descriptor,
    },
    /// linkat(2): gives an open file a name. EEXIST: the name exists.
    Link {
        /// The file.
        file: Descriptor,
        /// `/proc/self/fd/N` of the file, NUL-terminated (open(2), `O_TMPFILE`).
        source: *const libc::c_char,
        /// The directory of the name.
        directory: Descriptor,
        /// NUL-terminated.
        name: *const libc::c_char,
    },
    /// renameat(2) within a directory; replaces a file of the new name.
    Rename {
        /// The directory of the name.
        directory: Descriptor,
        /// NUL-terminated.
        from: *const libc::c_char,
        /// NUL-terminated.
        to: *const libc::c_char,
    },
    /// unlinkat(2).
    Unlink {
        /// The directory of the name.
        directory: Descriptor,
        /// NUL-terminated.
        name: *const libc::c_char,
    },
    /// Close a file. The last close of a file without a name frees its blocks inside this call.
    CloseFile {
        /// The descriptor to close.
        descriptor: Descriptor,
        /// The operation may take long: an io-wq thread runs it from the start (`IOSQE_ASYNC`).
        waits: bool,
    },
    /// Open a file for reading: openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS`, and with
    /// `RESOLVE_NO_SYMLINKS` unless it `follows` links. `O_NONBLOCK` keeps a FIFO in the tree from
    /// blocking a thread, and `O_NOCTTY` a terminal from becoming that of the process.
    ///
    /// With `path_only` it is looked up, not opened (`O_PATH`). The descriptor gives its status.
    ///
    /// Without `waits` also `RESOLVE_NO_XDEV`: a path onto another file system, where opening may
    /// wait, fails with EXDEV.
    Open {
        /// The directory beneath which the path must stay.
        directory: Descriptor,
        /// A NUL-terminated relative path.
        path: *const libc::c_char,
        /// The operation may take long: an io-wq thread runs it from the start (`IOSQE_ASYNC`).
        waits: bool,
        /// `O_PATH`.
        path_only: bool,
        /// Symbolic links are followed as long as they stay beneath the directory.
        follows: bool,
    },
    /// Connect a non-blocking socket.
    Connect {
        /// The socket.
        socket: Descriptor,
        /// The peer. The ring copies the address in `push`.
        address: *const SocketAddr,
    },
    /// Close a descriptor.
    Close {
        /// The descriptor to close.
        descriptor: Descriptor,
    },
    /// `IORING_OP_ASYNC_CANCEL` by `user_data`. The target ends with its own last completion, not
    /// with the result of this operation.
    Cancel {
        /// The operation to cancel.
        target: Token,
    },
}

impl Op {
    /// Returns whether an io-wq thread runs the operation from the start.
    const fn waits(&self) -> bool {
        match *self {
            Self::Write { waits, .. }
            | Self::Open { waits, .. }
            | Self::CloseFile { waits, .. } => waits,
            _ => false,
        }
    }
}

/// One completion, as the kernel delivered it.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The token of the submitted operation.
    pub token: Token,
    /// A count or descriptor, or a negated errno.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

/// `IORING_CQE_F_BUFFER`: the upper 16 bits of the flags are a buffer's number.
pub const F_BUFFER: u32 = 1 << 0;
/// `IORING_CQE_F_MORE`: the operation continues. Without it, this completion is its last one.
pub const F_MORE: u32 = 1 << 1;
/// `IORING_CQE_F_SOCK_NONEMPTY`: the socket holds more bytes, or a FIN.
pub const F_SOCK_NONEMPTY: u32 = 1 << 2;

impl Completion {
    /// The provided buffer of this completion, if it has one. Hazard: without the flag the number
    /// reads as 0, which is another operation's buffer.
    #[inline]
    #[must_use]
    pub const fn buffer(&self) -> Option<u16> {
        if self.flags & F_BUFFER != 0 { Some((self.flags >> 16) as u16) } else { None }
    }

    /// Returns whether the operation continues.
    #[inline]
    #[must_use]
    pub const fn more(&self) -> bool {
        self.flags & F_MORE != 0
    }

    /// Returns whether the socket held more when the operation completed.
    #[inline]
    #[must_use]
    pub const fn nonempty(&self) -> bool {
        self.flags & F_SOCK_NONEMPTY != 0
    }
}

/// The sizes and the memory of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Entries of the submission queue, a power of two.
    pub submission_entries: u32,
    /// Entries of the completion queue, a power of two.
    pub completion_entries: u32,
    /// The first byte of the arena, which holds all buffers.
    pub arena_address: *mut u8,
    /// The size of the arena in bytes.
    pub arena_bytes: usize,
    /// Registers the arena as fixed buffers. It then counts against `RLIMIT_MEMLOCK`.
    pub arena_registered: bool,
    /// The number of receive buffers, which lie at the start of the arena.
    pub receive_buffers: u16,
    /// The size of a receive buffer in bytes.
    pub receive_buffer_bytes: u32,
    /// The limit on io-wq threads of each of the two classes (`IORING_REGISTER_IOWQ_MAX_WORKERS`).
    pub io_workers_max: u32,
    /// The features of the kernel that the ring may use.
    pub features: Features,
    /// The start of the engine. The clocks of all its rings count from then.
    pub started: Instant,
}

/// The calls of a thread on descriptors of a ring that it does not have: it drops or reads a file,
/// or wakes a shard.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    /// close(2).
    pub close: fn(Descriptor),
    /// write(2) to an event descriptor.
    pub signal: fn(Descriptor),
    /// preadv2(2) with these flags.
    pub read_at: fn(Descriptor, &mut [u8], u64, i32) -> io::Result<usize>,
    /// statx(2).
    pub file_status: fn(Descriptor) -> Result<FileStatus, Errno>,
}

impl Outside {
    /// The system calls.
    pub const KERNEL: Self = Self {
        close: calls::close,
        signal: calls::signal_event,
        read_at: calls::read_at,
        file_status: calls::file_status,
    };
}

/// The half of a connection that shutdown(2) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// `SHUT_WR`: sends FIN and continues to receive.
    Write,
    /// `SHUT_RDWR`: ends armed operations as well.
    Both,
}

/// The bytes of a TCP stream in both directions, as the kernel counts them (tcp(7), `TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that arrived from the peer, read or not.
    pub received_bytes: u64,
    /// Bytes that were sent to the peer, acknowledged or not. A byte that was sent again counts
    /// once.
    pub sent_bytes: u64,
}

/// One BPF instruction: `struct sock_filter` of <linux/filter.h>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not hold.
    pub jump_false: u8,
    /// The operand.
    pub k: u32,
}

/// The progress of the bytes on a socket, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes that the peer has acknowledged (`tcpi_bytes_acked` of `TCP_INFO`). Of a Unix socket:
    /// a number that changes whenever `outstanding` does.
    pub acknowledged: u64,
    /// Bytes that were sent and not acknowledged (`SIOCOUTQ`, tcp(7)), the FIN not counted. Of a
    /// Unix socket: the memory of what the peer has not read. 0 once the connection is gone.
    pub outstanding: u32,
    /// Bytes that were not acknowledged when a reset or the kernel's deadline has ended the
    /// connection, with one for our FIN. 0 before, and for a Unix socket.
    pub lost: u32,
    /// Bytes that the peer has sent, read or not (`tcpi_bytes_received` of `TCP_INFO`). 0 for a
    /// Unix socket.
    pub received: u64,
}

/// The status of an open file, from statx(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// The size in bytes.
    pub bytes: u64,
    /// The last modification of the contents, in seconds since 1970-01-01 UTC.
    pub modified_s: i64,
    /// The nanoseconds of that second.
    pub modified_ns: u32,
    /// The last change of contents, names or attributes, in seconds since 1970-01-01 UTC.
    pub changed_s: i64,
    /// The nanoseconds of that second.
    pub changed_ns: u32,
    /// The number of names (hard links).
    pub links: u32,
    /// The device on which the file lies (makedev(3)).
    pub device: u64,
    /// The inode number.
    pub inode: u64,
    /// The kind of file.
    pub kind: FileKind,
}

/// The kinds of files that matter to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file, the only kind that can be sent.
    Regular,
    /// A directory.
    Directory,
    /// Any other kind: a device, a FIFO, a socket.
    Other,
}

/// A new pipe, non-blocking at both ends.
#[derive(Clone, Copy, Debug)]
pub struct Pipe {
    /// The read end.
    pub read: Descriptor,
    /// The write end.
    pub write: Descriptor,
    /// The size in bytes (`F_GETPIPE_SZ`). It may be less than requested (`pipe-user-pages-soft`).
    pub capacity_bytes: u32,
}

/// The first reading of a ring's clock, in microseconds ([`Ring::now_us`]).
const CLOCK_START_US: u64 = 1_000;

/// Counters of a ring since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of io_uring_enter(2), or of epoll_wait(2).
    pub enters: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Completions taken.
    pub completed: u64,
    /// Times the completion queue had overflowed when looked at. Expected: 0.
    pub overflows: u64,
}

/// A ring, its clocks, and the [`Calls`] that a shard makes beside it. All of it belongs to one
/// thread. Operations that can wait for a disk or a peer go through the ring.
pub trait Ring: Calls {
    /// Turns of a shard on this ring leave work after a few steps, so that this happens often. Only
    /// a simulated ring asks for it.
    const SMALL_TURNS: bool = false;

    /// Puts an operation into the submission queue. `false` means that the queue is full even after
    /// its entries were submitted; the operation was not taken. Try again after the next wait.
    #[must_use]
    fn push(&mut self, token: Token, op: Op) -> bool;

    /// Submits the pushed operations and waits for `want` completions (0: does not wait), for at
    /// most `timeout`. EINTR, EAGAIN, EBUSY and ETIME are not errors: the call returns, and the
    /// caller comes back.
    ///
    /// # Errors
    /// Any other errno of io_uring_enter(2) or epoll_wait(2): the ring has failed and the shard
    /// ends.
    fn submit_and_wait(&mut self, want: u32, timeout: Duration) -> Result<(), Errno>;

    /// Submits the pushed operations without a wait. Returns whether the kernel has taken all of
    /// them. An error repeats at the next wait.
    #[must_use]
    fn submit_all(&mut self) -> bool;

    /// Takes the next completion.
    fn completion(&mut self) -> Option<Completion>;

    /// Gives a receive buffer to the kernel. It takes effect at the next wait at the latest.
    fn provide(&mut self, buffer: u16);

    /// Microseconds of a monotonic clock with an arbitrary start, at least 1,000: shards write 0 ms
    /// for "never".
    fn now_us(&mut self) -> u64;

    /// Milliseconds of the same clock.
    fn now_ms(&mut self) -> u64 {
        self.now_us() / 1000
    }

    /// Milliseconds since 1970-01-01 UTC, from the clock that file systems use for their times
    /// (`CLOCK_REALTIME_COARSE`).
    fn wall_ms(&mut self) -> i64 {
        calls::wall_ms()
    }

    /// The counters so far.
    fn counters(&self) -> RingCounters;

    /// Returns whether [`Op::Receive`] may be a multishot one.
    fn has_multishot_receive(&self) -> bool {
        true
    }
}
