//! Attempts to use io_uring, openat2(2) and cachestat(2), in child processes, because a seccomp
//! filter may kill the process that makes them.
//!
//! The attempt is made before the shards start, once for all of them. The child shares the table of
//! descriptors with the engine and runs system calls only. It reports through a shared page which
//! call failed or killed it. openat2(2) and cachestat(2) get arguments that the kernel refuses.

use super::super::direct::{SYS_CACHESTAT, answer, last_errno};
use super::super::{Errno, Features, calls};
use super::{CreateRingError, EXT_ARG, Facts, PBUF_RING, page_bytes};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// The calls of the attempt, in their order.
const CALLS: [&str; 3] = ["io_uring_setup(2)", "io_uring_register(2)", "io_uring_enter(2)"];

/// `IORING_SETUP_SUBMIT_ALL`, `IORING_SETUP_SINGLE_ISSUER` and `IORING_SETUP_DEFER_TASKRUN` of
/// <linux/io_uring.h>: what a shard's ring cannot do without.
const SETUP_FLAGS: u32 = 1 << 7 | 1 << 12 | 1 << 13;
/// `IORING_REGISTER_IOWQ_MAX_WORKERS`. With zeros it only asks.
const REGISTER_IOWQ_MAX_WORKERS: u32 = 19;
const IORING_ENTER_GETEVENTS: u32 = 1;
const ENTRIES: u32 = 8;
/// The places of the flags and the features in struct io_uring_params, and its size, in words of 4
/// bytes.
const FLAGS: usize = 2;
const FEATURES: usize = 5;
const PARAMS: usize = 30;
/// `IORING_FEAT_EXT_ARG`.
const FEAT_EXT_ARG: u32 = 1 << 8;
/// The features that the attempt may find missing. The report has their number, from 1 on.
const REQUIRED: [&str; 2] = [EXT_ARG, PBUF_RING];
const LACKS_EXT_ARG: i32 = 1;
const LACKS_PBUF_RING: i32 = 2;
/// `IORING_REGISTER_PBUF_RING`.
const REGISTER_PBUF_RING: u32 = 22;

/// `struct io_uring_buf_reg` of <linux/io_uring.h>.
#[repr(C)]
struct BufferRing {
    address: u64,
    entries: u32,
    group: u16,
    flags: u16,
    reserved: [u64; 3],
}

/// The part of memory in which the child reports to its parent.
struct Report {
    /// The number of the call that the child makes.
    call: AtomicI32,
    /// The errno of that call, or 0.
    errno: AtomicI32,
    /// The descriptor of the ring, or -1. The processes have one table of descriptors.
    ring: AtomicI32,
    /// The number of the required feature that is missing, or 0.
    missing: AtomicI32,
    /// 1 if openat2(2) can be called.
    openat2: AtomicI32,
    /// 1 if cachestat(2) can be called.
    cachestat: AtomicI32,
}

/// Tries io_uring in a child process.
///
/// # Errors
/// The reason why a ring cannot be used. Limits that only a larger ring meets do not show here.
/// If no child process can be made, nothing is known, and the result is `Ok`.
pub(crate) fn try_io_uring(may_use: Features) -> Result<(), CreateRingError> {
    let Ok(shared) = Shared::new() else { return Ok(()) };
    let (report, buffers) = (shared.report(), shared.second_page());
    let Ok(status) = in_child(|| attempt(report, buffers, may_use)) else { return Ok(()) };
    let ring = report.ring.load(Relaxed);
    if ring >= 0 {
        calls::close(super::super::Descriptor(ring));
    }
    let call = CALLS[report.call.load(Relaxed) as usize % CALLS.len()];
    if libc::WIFSIGNALED(status) {
        return Err(CreateRingError::Killed { call, signal: libc::WTERMSIG(status) });
    }
    let missing = report.missing.load(Relaxed) as usize;
    if missing > 0 {
        return Err(CreateRingError::lacks(REQUIRED[missing - 1]));
    }
    match report.errno.load(Relaxed) {
        0 => Ok(()),
        errno => {
            Err(CreateRingError::of(call, &io::Error::from_raw_os_error(errno), &Facts::now()))
        }
    }
}

/// Returns the features without those whose system calls are missing or forbidden. If no child
/// process can be made, nothing is known, and all of them remain.
pub(crate) fn found(may_use: Features) -> Features {
    let Ok(shared) = Shared::new() else { return may_use };
    let report = shared.report();
    if in_child(|| attempt_system_calls(report)).is_err() {
        return may_use;
    }
    Features {
        openat2: may_use.openat2 && report.openat2.load(Relaxed) == 1,
        cachestat: may_use.cachestat && report.cachestat.load(Relaxed) == 1,
        ..may_use
    }
}

/// Runs an attempt in a child, and returns the child's status, as waitpid(2) gives it. The attempt
/// allocates nothing, takes no lock, and ends the process.
fn in_child(attempt: impl FnOnce()) -> Result<libc::c_int, Errno> {
    // The table of descriptors is shared, so that nothing stays open in the child that is closed
    // here meanwhile. Without a signal for its end, no handler or waitpid(2) of the program sees
    // the child.
    let flags = libc::CLONE_FILES as libc::c_long;
    // SAFETY: the child has a copy of this thread and of the memory. Other threads may have held
    // locks, so that it makes system calls only, and leaves by one.
    let child = answer(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if child == 0 {
        be_quiet();
        attempt();
        loop {
            // SAFETY: no pointers.
            unsafe { libc::syscall(libc::SYS_exit_group, 0) };
        }
    }
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes the status during the call.
        let ended = answer(unsafe {
            libc::wait4(child as libc::pid_t, &raw mut status, libc::__WALL, ptr::null_mut())
        });
        match ended {
            Err(Errno(libc::EINTR)) => {}
            ended => return ended.map(|_| status),
        }
    }
}

/// A handler of the program must not run in the child, and a death leaves no core.
fn be_quiet() {
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain calls of the kernel that change this process only.
    unsafe {
        libc::signal(libc::SIGSYS, libc::SIG_DFL);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
    }
}

/// Makes the calls of io_uring. The memory for provided buffers is a page.
fn attempt(report: &Report, buffers: *mut libc::c_void, may_use: Features) {
    let mut params = [0u32; PARAMS];
    params[FLAGS] = SETUP_FLAGS;
    let mut workers = [0u32; 2];
    let done = |result: libc::c_long| {
        if result < 0 {
            report.errno.store(last_errno().0, Relaxed);
        }
        result >= 0
    };
    // SAFETY: the kernel reads and writes the structures during the calls. Nothing is ever received
    // into the provided buffers.
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, ENTRIES, params.as_mut_ptr());
        if !done(ring) {
            return;
        }
        report.ring.store(ring as i32, Relaxed);
        if !may_use.ext_arg || params[FEATURES] & FEAT_EXT_ARG == 0 {
            return report.missing.store(LACKS_EXT_ARG, Relaxed);
        }
        report.call.store(1, Relaxed);
        let (register, workers) = (libc::SYS_io_uring_register, workers.as_mut_ptr());
        if !done(libc::syscall(register, ring, REGISTER_IOWQ_MAX_WORKERS, workers, 2u32)) {
            return;
        }
        let address = buffers.addr() as u64;
        let provided = BufferRing { address, entries: 8, group: 0, flags: 0, reserved: [0; 3] };
        let has_ring = libc::syscall(register, ring, REGISTER_PBUF_RING, &raw const provided, 1u32);
        if !may_use.buffer_ring || (has_ring < 0 && last_errno() == Errno(libc::EINVAL)) {
            return report.missing.store(LACKS_PBUF_RING, Relaxed);
        }
        if done(has_ring) {
            report.call.store(2, Relaxed);
            let (enter, flags) = (libc::SYS_io_uring_enter, IORING_ENTER_GETEVENTS);
            done(libc::syscall(enter, ring, 0u32, 0u32, flags, 0usize, 0usize));
        }
    }
}

/// Makes calls whose arguments are wrong. Only a kernel that has the call, and may carry it out,
/// says so.
fn attempt_system_calls(report: &Report) {
    let (path, nothing) = (c"/".as_ptr(), 0usize);
    let complains = |result: libc::c_long, errno| result < 0 && last_errno() == Errno(errno);
    // SAFETY: the kernel refuses the sizes and the descriptor before it reads a structure.
    unsafe {
        let opened = libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path, nothing, 0usize);
        report.openat2.store(complains(opened, libc::EINVAL).into(), Relaxed);
        let counted = libc::syscall(SYS_CACHESTAT, -1i32, nothing, nothing, 0u32);
        report.cachestat.store(complains(counted, libc::EBADF).into(), Relaxed);
    }
}

/// Two pages that a child shares with its parent. The report is in the first one.
struct Shared(*mut libc::c_void);

impl Shared {
    fn new() -> io::Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping touches no memory of anybody.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), shared_bytes(), protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let this = Self(address);
        this.report().ring.store(-1, Relaxed);
        Ok(this)
    }

    fn report(&self) -> &Report {
        // SAFETY: the mapping begins with a page of zeros, which is a valid report, and is aligned
        // to it.
        unsafe { &*self.0.cast() }
    }

    fn second_page(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(page_bytes() as usize)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no reference to it is left.
        unsafe { libc::munmap(self.0, shared_bytes()) };
    }
}

fn shared_bytes() -> usize {
    2 * page_bytes() as usize
}
