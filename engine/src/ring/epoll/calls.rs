//! The system calls of the ring on epoll.

use super::super::calls::to_sockaddr;
use super::super::direct::{answer, last_errno, position, uninterrupted};
use super::super::{Descriptor, Errno, Op};
use super::walk;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ptr;
use std::time::Duration;

/// The registered events. `EPOLLERR` and `EPOLLHUP` come always.
const INTEREST: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET) as u32;

/// `RESOLVE_CACHED` of <linux/openat2.h>: EAGAIN for a path that is not in the cache. Linux 5.12.
const RESOLVE_CACHED: u64 = 0x20;
const RESOLVE: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
const OPEN_FLAGS: i32 = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
pub const FIND_FLAGS: i32 = libc::O_PATH | libc::O_CLOEXEC;
const CREATE_FLAGS: i32 = libc::O_TMPFILE | libc::O_WRONLY | libc::O_CLOEXEC;

/// epoll_create1(2).
pub fn epoll() -> io::Result<Descriptor> {
    // SAFETY: no pointers.
    let poller = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    answer(poller).map(|number| Descriptor(number as i32)).map_err(io::Error::from)
}

/// Registers a descriptor for both directions, edge-triggered.
pub fn add(poller: Descriptor, descriptor: Descriptor, key: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events: INTEREST, u64: key };
    let mut control = |operation| {
        // SAFETY: the kernel reads the event during the call.
        answer(unsafe { libc::epoll_ctl(poller.0, operation, descriptor.0, &raw mut event) })
    };
    match control(libc::EPOLL_CTL_ADD) {
        // Registered under an earlier key.
        Err(Errno(libc::EEXIST)) => control(libc::EPOLL_CTL_MOD),
        result => result,
    }
    .map(drop)
}

/// epoll_pwait2(2), whose timeout counts nanoseconds.
///
/// # Errors
/// ENOSYS before Linux 5.11; EPERM from seccomp filters that do not know the call.
pub fn wait_precisely(
    poller: Descriptor,
    events: &mut [libc::epoll_event],
    timeout: Duration,
) -> Result<usize, Errno> {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    let (address, count) = (events.as_mut_ptr(), events.len() as libc::c_int);
    let no_mask = ptr::null::<libc::sigset_t>();
    // SAFETY: the kernel writes at most as many events as there is room for.
    let found = unsafe {
        let (call, timeout) = (libc::SYS_epoll_pwait2, &raw const timeout);
        libc::syscall(call, poller.0, address, count, timeout, no_mask, 0usize)
    };
    answer(found).map(|found| found as usize)
}

/// epoll_wait(2). Its timeout counts milliseconds; parts of one count as a whole.
pub fn wait(
    poller: Descriptor,
    events: &mut [libc::epoll_event],
    timeout: Duration,
) -> Result<usize, Errno> {
    let ms = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
    // SAFETY: the kernel writes at most as many events as there is room for.
    let found = unsafe { libc::epoll_wait(poller.0, events.as_mut_ptr(), events.len() as i32, ms) };
    answer(found).map(|found| found as usize)
}

/// poll(2) without waiting: everything that epoll would report.
pub fn poll_now(descriptor: Descriptor) -> u32 {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP | libc::POLLPRI;
    let mut one = libc::pollfd { fd: descriptor.0, events, revents: 0 };
    // SAFETY: the kernel writes to one structure.
    let found = unsafe { libc::poll(&raw mut one, 1, 0) };
    // ENOMEM is the only error left. Nothing is lost if it counts as an error of the descriptor.
    let mask = if found < 0 { libc::POLLERR } else { one.revents };
    u32::from(mask.cast_unsigned())
}

/// recv(2) without waiting, to memory that the caller has for this.
pub fn receive(socket: Descriptor, address: *mut u8, length: u32) -> Result<u32, Errno> {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the caller's memory has the length given.
    uninterrupted(|| unsafe { libc::recv(socket.0, address.cast(), length as usize, flags) as i64 })
        .map(|count| count as u32)
}

/// Looks whether a byte, the end or an error is there to receive.
pub fn peek(socket: Descriptor) -> Result<u32, Errno> {
    let mut byte = 0u8;
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: the kernel writes at most one byte.
    uninterrupted(|| unsafe { libc::recv(socket.0, (&raw mut byte).cast(), 1, flags) as i64 })
        .map(|count| count as u32)
}

/// connect(2) of a non-blocking socket.
pub fn connect(socket: Descriptor, to: &SocketAddr) -> Result<(), Errno> {
    let (address, length) = to_sockaddr(to);
    // SAFETY: the storage holds an address of that length.
    answer(unsafe { libc::connect(socket.0, (&raw const address).cast(), length) }).map(drop)
}

/// `SO_ERROR`, which the call resets.
pub fn take_error(socket: Descriptor) -> i32 {
    let mut error: libc::c_int = 0;
    let mut length = size_of_val(&error) as libc::socklen_t;
    // SAFETY: the kernel writes one int.
    let result = answer(unsafe {
        let value = (&raw mut error).cast();
        libc::getsockopt(socket.0, libc::SOL_SOCKET, libc::SO_ERROR, value, &raw mut length)
    });
    result.map_or_else(|errno| errno.0, |_| error)
}

/// Opens a path that is in the cache.
///
/// # Errors
/// EAGAIN: it is not. EINVAL: the kernel does not know the question.
pub fn open_cached(op: &Op) -> Result<i64, Errno> {
    open(op, RESOLVE_CACHED)
}

/// Opens or looks up a path.
fn open(op: &Op, resolve: u64) -> Result<i64, Errno> {
    let Op::Open { directory, path, waits, path_only, follows } = *op else {
        unreachable!("{op:?}")
    };
    let here = if waits { 0 } else { libc::RESOLVE_NO_XDEV };
    // SAFETY: the structure is made of integers.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = if path_only { FIND_FLAGS } else { OPEN_FLAGS } as u64;
    let links = if follows { 0 } else { libc::RESOLVE_NO_SYMLINKS };
    how.resolve = RESOLVE | here | links | resolve;
    // SAFETY: the submitter keeps the path valid, and the kernel reads the structure.
    let result = unsafe {
        let (how, length) = (&raw const how, size_of::<libc::open_how>());
        libc::syscall(libc::SYS_openat2, directory.0, path, how, length)
    };
    answer(result)
}

/// The same without openat2(2).
fn open_by_walking(op: &Op) -> Result<i64, Errno> {
    let Op::Open { directory, path, waits, path_only, follows } = *op else {
        unreachable!("{op:?}")
    };
    // SAFETY: the submitter keeps the path valid until the completion.
    let path = unsafe { CStr::from_ptr(path) };
    let flags = if path_only { FIND_FLAGS } else { OPEN_FLAGS };
    walk::open(directory, path.to_bytes(), flags, walk::Limits { here: !waits, follows })
}

/// A result as a completion tells it.
pub fn result_of(result: Result<i64, Errno>) -> i32 {
    result.map_or_else(|errno| -errno.0, |result| result as i32)
}

/// Runs an operation that may wait for a disk, on a thread that may. `openat2`: that call works.
pub fn run(op: &Op, openat2: bool) -> i32 {
    match op {
        Op::Open { .. } if openat2 => result_of(open(op, 0)),
        Op::Open { .. } => result_of(open_by_walking(op)),
        _ => result_of(run_file(op)),
    }
}

fn run_file(op: &Op) -> Result<i64, Errno> {
    // SAFETY, for each call: the submitter keeps memory and paths valid until the completion.
    match *op {
        Op::Create { directory } => {
            let path = c".".as_ptr();
            // SAFETY: the path is static.
            answer(unsafe { libc::openat(directory.0, path, CREATE_FLAGS, 0o644 as libc::mode_t) })
        }
        Op::Read { file, address, length, offset } => {
            let offset = position(offset);
            // SAFETY: as above.
            answer(unsafe { libc::pread(file.0, address.cast(), length as usize, offset) as i64 })
        }
        Op::Write { file, address, length, offset, .. } => {
            let offset = position(offset);
            // SAFETY: as above.
            answer(unsafe { libc::pwrite(file.0, address.cast(), length as usize, offset) as i64 })
        }
        Op::Splice { file, offset, pipe, length } => {
            let mut offset = position(offset);
            splice(file, &raw mut offset, pipe, ptr::null_mut(), length)
        }
        Op::SpliceToFile { pipe, file, offset, length } => {
            let mut offset = position(offset);
            splice(pipe, ptr::null_mut(), file, &raw mut offset, length)
        }
        // SAFETY: no pointers.
        Op::Sync { descriptor } => answer(unsafe { libc::fsync(descriptor.0) }),
        Op::Link { file, source, directory, name } => {
            let (source, flags) = super::super::calls::link_source(source);
            // SAFETY: as above.
            answer(unsafe { libc::linkat(file.0, source, directory.0, name, flags) })
        }
        Op::Rename { directory, from, to } => {
            // SAFETY: as above.
            answer(unsafe { libc::renameat(directory.0, from, directory.0, to) })
        }
        // SAFETY: as above.
        Op::Unlink { directory, name } => answer(unsafe { libc::unlinkat(directory.0, name, 0) }),
        Op::CloseFile { descriptor, .. } => {
            super::super::calls::close(descriptor);
            Ok(0)
        }
        _ => unreachable!("{op:?} waits for no disk"),
    }
}

fn splice(
    from: Descriptor,
    from_offset: *mut i64,
    to: Descriptor,
    to_offset: *mut i64,
    length: u32,
) -> Result<i64, Errno> {
    // SAFETY: the offsets are null or those of the caller, which live during the call.
    let moved = unsafe { libc::splice(from.0, from_offset, to.0, to_offset, length as usize, 0) };
    answer(moved as i64)
}

/// gettid(2).
pub fn thread_id() -> i32 {
    // SAFETY: no arguments, and it cannot fail.
    unsafe { libc::gettid() }
}

/// Blocks every signal on the calling thread.
pub fn block_signals() {
    let mut all = MaybeUninit::uninit();
    // SAFETY: the first call fills the set, and the second one only reads it.
    let error = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut())
    };
    debug_assert_eq!(error, 0, "{:?}", last_errno());
}
