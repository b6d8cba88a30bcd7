//! The only place that knows io_uring.
//!
//! A shard speaks to [`Ring`]: plain-data operations in, plain-data completions out, and the few
//! system calls that do better beside the ring than through it. [`kernel`] is the real one; the
//! simulated one (tests only) plays the kernel from a seed. Nothing here knows what a connection is.

pub mod calls;
pub mod kernel;
pub mod probe;
#[cfg(test)]
pub mod simulated;
mod token;

pub use token::{Kind, Token};

use crate::admission::Instruction;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// A file descriptor as the kernel numbers it. Owned by whoever holds it by convention of the
/// module that stores it; it closes nothing when dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Descriptor(pub i32);

impl Descriptor {
    /// No descriptor.
    pub const NONE: Self = Self(-1);
}

/// An error number of the kernel, positive, as in errno(3).
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
/// until the operation's terminal completion.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Multishot accept, `SOCK_NONBLOCK | SOCK_CLOEXEC` (`IORING_ACCEPT_MULTISHOT`).
    Accept {
        /// A listening socket.
        listener: Descriptor,
    },
    /// Receive into a buffer of the provided ring (`IOSQE_BUFFER_SELECT`).
    Receive {
        /// A connected socket.
        socket: Descriptor,
        /// `IORING_RECV_MULTISHOT`: stays armed while completions carry `IORING_CQE_F_MORE`.
        multishot: bool,
    },
    /// Zero-length receive: completes when data, FIN or an error is there; holds no buffer.
    Probe {
        /// A connected socket.
        socket: Descriptor,
    },
    /// One-shot poll (`IORING_OP_POLL_ADD`); `POLLERR` and `POLLHUP` are always reported.
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
        /// `MSG_MORE`: more follows at once, hold a partial segment back.
        more: bool,
    },
    /// Read from a regular file into the arena (`READ_FIXED` where the arena is registered).
    Read {
        /// A regular file.
        file: Descriptor,
        /// Where to, inside the arena.
        address: *mut u8,
        /// Bytes to read at most.
        length: u32,
        /// Offset in the file, bytes.
        offset: u64,
    },
    /// Splice from a regular file into a pipe (runs on an io-wq thread; may wait for the disk).
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
        /// It may take long: an io-wq thread does it from the start (`IOSQE_ASYNC`).
        waits: bool,
    },
    /// Splice from a pipe into a regular file (runs on an io-wq thread; may wait for the disk).
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
    /// A file without a name: openat2(2) with `O_TMPFILE | O_WRONLY`, mode 0644.
    Create {
        /// The directory that it is to get a name in.
        directory: Descriptor,
    },
    /// fsync(2).
    Sync {
        /// A file or a directory.
        descriptor: Descriptor,
    },
    /// linkat(2) with `AT_SYMLINK_FOLLOW`: gives an open file a name. EEXIST: the name is taken.
    Link {
        /// `/proc/self/fd/N` of the file, NUL-terminated (open(2), `O_TMPFILE`).
        source: *const libc::c_char,
        /// Where.
        directory: Descriptor,
        /// NUL-terminated.
        name: *const libc::c_char,
    },
    /// renameat(2) within a directory; replaces a file of the new name.
    Rename {
        /// Where.
        directory: Descriptor,
        /// NUL-terminated.
        from: *const libc::c_char,
        /// NUL-terminated.
        to: *const libc::c_char,
    },
    /// unlinkat(2).
    Unlink {
        /// Where.
        directory: Descriptor,
        /// NUL-terminated.
        name: *const libc::c_char,
    },
    /// Close a file. The last close of one without a name frees its blocks, right here.
    CloseFile {
        /// Which.
        descriptor: Descriptor,
        /// It may take long: an io-wq thread does it from the start (`IOSQE_ASYNC`).
        waits: bool,
    },
    /// openat2(2), read-only, `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`,
    /// `O_NONBLOCK` so that a FIFO in the tree cannot hold a thread.
    /// Without `waits` also `RESOLVE_NO_XDEV`: a path that leads to another file system, where
    /// opening may wait, is EXDEV.
    Open {
        /// The directory beneath which the path must stay.
        directory: Descriptor,
        /// A NUL-terminated relative path.
        path: *const libc::c_char,
        /// It may take long: an io-wq thread does it from the start (`IOSQE_ASYNC`).
        waits: bool,
    },
    /// Connect a non-blocking socket.
    Connect {
        /// The socket.
        socket: Descriptor,
        /// Where to; the ring copies it when it is pushed.
        address: *const SocketAddr,
    },
    /// Close a descriptor.
    Close {
        /// Which.
        descriptor: Descriptor,
    },
    /// `IORING_OP_ASYNC_CANCEL` by `user_data`. Its result is not the target's end: the target's
    /// own terminal completion is.
    Cancel {
        /// The operation to cancel.
        target: Token,
    },
}

impl Op {
    /// Whether an io-wq thread does it from the start.
    const fn waits(&self) -> bool {
        match *self {
            Self::Write { waits, .. }
            | Self::Open { waits, .. }
            | Self::CloseFile { waits, .. } => waits,
            _ => false,
        }
    }
}

/// One completion, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// What was submitted.
    pub token: Token,
    /// A count or descriptor, or a negated errno.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

/// `IORING_CQE_F_BUFFER`: the upper 16 bits of the flags are a buffer's number.
pub const F_BUFFER: u32 = 1 << 0;
/// `IORING_CQE_F_MORE`: the operation goes on; without it this completion is its last.
pub const F_MORE: u32 = 1 << 1;
/// `IORING_CQE_F_SOCK_NONEMPTY`: more can be read (or a FIN waits).
pub const F_SOCK_NONEMPTY: u32 = 1 << 2;

impl Completion {
    /// The provided buffer this completion carries, if it carries one. Without the flag the
    /// number would be 0, which is somebody else's buffer.
    #[inline]
    #[must_use]
    pub const fn buffer(&self) -> Option<u16> {
        if self.flags & F_BUFFER != 0 { Some((self.flags >> 16) as u16) } else { None }
    }

    /// Whether the operation goes on.
    #[inline]
    #[must_use]
    pub const fn more(&self) -> bool {
        self.flags & F_MORE != 0
    }

    /// Whether the socket held more when this completed.
    #[inline]
    #[must_use]
    pub const fn nonempty(&self) -> bool {
        self.flags & F_SOCK_NONEMPTY != 0
    }
}

/// What the ring needs to know of a shard's memory and sizes.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Submission queue entries; a power of two.
    pub submission_entries: u32,
    /// Completion queue entries; a power of two.
    pub completion_entries: u32,
    /// First byte of the arena.
    pub arena_address: *mut u8,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Register the arena as fixed buffer 0 (counts against `RLIMIT_MEMLOCK`).
    pub arena_registered: bool,
    /// The receive buffers lie at the start of the arena: how many.
    pub receive_buffers: u16,
    /// Bytes of each receive buffer.
    pub receive_buffer_bytes: u32,
    /// Most io-wq threads of each of the two classes (`IORING_REGISTER_IOWQ_MAX_WORKERS`).
    pub io_workers_max: u32,
}

/// Which half of a connection shutdown(2) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// `SHUT_WR`: send FIN, go on receiving.
    Write,
    /// `SHUT_RDWR`: end what is armed as well.
    Both,
}

/// What statx(2) says of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Size in bytes.
    pub bytes: u64,
    /// Last modification, seconds since 1970-01-01 UTC.
    pub modified_s: i64,
    /// Nanoseconds of that second.
    pub modified_ns: u32,
    /// Last change of its contents, its names or anything else about it, seconds since 1970-01-01 UTC.
    pub changed_s: i64,
    /// Nanoseconds of that second.
    pub changed_ns: u32,
    /// Names it has.
    pub links: u32,
    /// Device that it lies on (makedev(3)).
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// What it is.
    pub kind: FileKind,
}

/// The kinds of file that matter to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file: the only kind that can be sent.
    Regular,
    /// A directory.
    Directory,
    /// Anything else: device, FIFO, socket.
    Other,
}

/// A pipe fresh from the kernel, non-blocking at both ends.
#[derive(Clone, Copy, Debug)]
pub struct Pipe {
    /// Read end.
    pub read: Descriptor,
    /// Write end.
    pub write: Descriptor,
    /// Bytes it holds (`F_GETPIPE_SZ`): may be less than asked for (`pipe-user-pages-soft`).
    pub capacity_bytes: u32,
}

/// Counters of a ring, wrapping never within a life (64 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of io_uring_enter(2).
    pub enters: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Completions taken.
    pub completed: u64,
    /// Times the completion queue had overflowed when looked at. Expected: 0.
    pub overflows: u64,
}

/// A ring and the system calls beside it. All of it belongs to one thread.
///
/// None of the calls may block: descriptors are non-blocking, and what can wait for a disk or a
/// peer goes through the ring.
pub trait Ring {
    /// Puts an operation into the submission queue. `false`: the queue is full even after
    /// submitting what was in it; nothing was taken, ask again after the next wait.
    #[must_use]
    fn push(&mut self, token: Token, op: Op) -> bool;

    /// Submits what was pushed and waits for `want` completions (0: only submit and collect),
    /// at most `timeout`. EINTR, EAGAIN, EBUSY and ETIME are not errors: it returns and the
    /// caller comes back.
    ///
    /// # Errors
    /// Any other errno of io_uring_enter(2): the ring is broken and the shard ends.
    fn submit_and_wait(&mut self, want: u32, timeout: Duration) -> Result<(), Errno>;

    /// Takes the next completion.
    fn completion(&mut self) -> Option<Completion>;

    /// Gives a receive buffer (back) to the kernel. Takes effect at once, or at latest at the
    /// next wait.
    fn provide(&mut self, buffer: u16);

    /// Monotonic time in microseconds since an arbitrary start.
    fn now_us(&mut self) -> u64;

    /// The same in milliseconds.
    fn now_ms(&mut self) -> u64 {
        self.now_us() / 1000
    }

    /// The clock that file systems take their times from (`CLOCK_REALTIME_COARSE`), milliseconds
    /// since 1970-01-01 UTC.
    fn wall_ms(&mut self) -> i64;

    /// Counters so far.
    fn counters(&self) -> RingCounters;

    /// shutdown(2) of a connected socket.
    ///
    /// # Errors
    /// ENOTCONN after a reset is normal.
    fn shutdown(&mut self, socket: Descriptor, how: Shutdown) -> Result<(), Errno>;

    /// connect(2) to `AF_UNSPEC`: RST at once, no TIME_WAIT, ends what is armed.
    ///
    /// # Errors
    /// As connect(2).
    fn abort(&mut self, socket: Descriptor) -> Result<(), Errno>;

    /// getpeername(2).
    ///
    /// # Errors
    /// ENOTCONN: it was reset before it was accepted.
    fn peer_address(&mut self, socket: Descriptor) -> Result<SocketAddr, Errno>;

    /// `tcpi_bytes_acked` of `TCP_INFO`: bytes that the peer has acknowledged in all.
    ///
    /// # Errors
    /// As getsockopt(2).
    fn acknowledged_bytes(&mut self, socket: Descriptor) -> Result<u64, Errno>;

    /// Whether a connected socket is no longer that without our doing: `tcpi_state` of `TCP_INFO`
    /// is `TCP_CLOSE`. A send that was cut short has taken the error with it, and a receive says 0.
    fn is_reset(&mut self, socket: Descriptor) -> bool;

    /// sendmsg(2) without waiting, of bytes that stay during the call; `more` adds `MSG_MORE`. Fewer
    /// than all of them may be taken.
    ///
    /// # Errors
    /// EAGAIN: the socket has no room. ENOBUFS, ENOMEM, EPIPE, ECONNRESET.
    fn send_now(
        &mut self,
        socket: Descriptor,
        pieces: &[libc::iovec],
        more: bool,
    ) -> Result<u32, Errno>;

    /// Non-blocking splice(2) from a pipe to a socket; `more` adds `SPLICE_F_MORE`.
    ///
    /// # Errors
    /// EAGAIN: the socket has no room (the pipe is known not to be empty). EPIPE, ECONNRESET.
    fn splice_to_socket(
        &mut self,
        pipe: Descriptor,
        socket: Descriptor,
        length: u32,
        more: bool,
    ) -> Result<u32, Errno>;

    /// preadv2(2) with `RWF_NOWAIT` into the arena: what lies in the page cache. 0: the end.
    ///
    /// # Errors
    /// EAGAIN: it does not lie there. EOPNOTSUPP: this file system does not tell.
    fn read_cached(
        &mut self,
        file: Descriptor,
        address: *mut u8,
        length: u32,
        offset: u64,
    ) -> Result<u32, Errno>;

    /// Whether all of a range of a regular file lies in the page cache, so that reading it does not
    /// wait for a disk. `length` is not 0.
    fn is_cached(&mut self, file: Descriptor, offset: u64, length: u32) -> bool;

    /// sendfile(2) of a range that is cached; 0: the file ends before it.
    ///
    /// # Errors
    /// EAGAIN: the socket has no room. EPIPE, ECONNRESET, and those of read(2).
    fn send_file(
        &mut self,
        file: Descriptor,
        offset: u64,
        length: u32,
        socket: Descriptor,
    ) -> Result<u32, Errno>;

    /// Non-blocking splice(2) from a socket to an empty pipe; 0: the peer's FIN.
    ///
    /// # Errors
    /// EAGAIN: nothing has come. ECONNRESET.
    fn splice_from_socket(
        &mut self,
        socket: Descriptor,
        pipe: Descriptor,
        length: u32,
    ) -> Result<u32, Errno>;

    /// A new non-blocking TCP socket for connecting to `to`, `TCP_NODELAY` set.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM.
    fn socket(&mut self, to: &SocketAddr) -> Result<Descriptor, Errno>;

    /// A new pipe, grown towards `capacity_bytes` as far as the kernel allows.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    fn pipe(&mut self, capacity_bytes: u32) -> Result<Pipe, Errno>;

    /// accept4(2) without waiting: for draining a backlog.
    ///
    /// # Errors
    /// EAGAIN: the backlog is empty.
    fn accept_now(&mut self, listener: Descriptor) -> Result<Descriptor, Errno>;

    /// Bytes received on a socket and not yet read (`FIONREAD`).
    ///
    /// # Errors
    /// As ioctl(2).
    fn unread_bytes(&mut self, socket: Descriptor) -> Result<u32, Errno>;

    /// Attaches a classic BPF filter to a socket, instead of one it has; an empty one takes it off.
    /// What a listener has when it accepts the accepted socket has, too.
    ///
    /// # Errors
    /// ENOMEM: too long for `net.core.optmem_max`.
    fn set_filter(&mut self, socket: Descriptor, program: &[Instruction]) -> Result<(), Errno>;

    /// Clients in a listener's accept queue.
    ///
    /// # Errors
    /// As getsockopt(2).
    fn unaccepted(&mut self, listener: Descriptor) -> Result<u32, Errno>;

    /// Packets that a listener has dropped, by its filter or for a full queue; modulo 2^32.
    ///
    /// # Errors
    /// As getsockopt(2).
    fn drops(&mut self, listener: Descriptor) -> Result<u32, Errno>;

    /// close(2) of a descriptor that no operation uses.
    fn close_now(&mut self, descriptor: Descriptor);

    /// statx(2) of an open file, without asking a server of files.
    ///
    /// # Errors
    /// As statx(2).
    fn file_status(&mut self, file: Descriptor) -> Result<FileStatus, Errno>;

    /// Empties the event descriptor that other threads write to.
    fn clear_wake(&mut self, wake: Descriptor);
}
