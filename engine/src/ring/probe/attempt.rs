//! An attempt to use io_uring in a child process, because a seccomp filter may kill the process
//! that makes it.

use super::super::direct::{answer, last_errno};
use super::super::{Errno, calls};
use super::{Facts, SetupError};
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
/// The place of the flags in struct io_uring_params, and its size, in words of 4 bytes.
const FLAGS: usize = 2;
const PARAMS: usize = 30;

/// The part of memory in which the child reports to its parent.
struct Report {
    /// The number of the call that the child makes.
    call: AtomicI32,
    /// The errno of that call, or 0.
    errno: AtomicI32,
    /// The descriptor of the ring, or -1. The processes have one table of descriptors.
    ring: AtomicI32,
}

/// Tries io_uring in a child process.
///
/// # Errors
/// The reason why a ring cannot be used. Limits that only a larger ring meets do not show here.
/// If no child process can be made, nothing is known, and the result is `Ok`.
pub(crate) fn try_io_uring() -> Result<(), SetupError> {
    let Ok(shared) = Shared::new() else { return Ok(()) };
    let report = shared.report();
    let Ok(status) = in_child(report) else { return Ok(()) };
    let ring = report.ring.load(Relaxed);
    if ring >= 0 {
        calls::close(super::super::Descriptor(ring));
    }
    let call = CALLS[report.call.load(Relaxed) as usize % CALLS.len()];
    if libc::WIFSIGNALED(status) {
        return Err(SetupError::Killed { call, signal: libc::WTERMSIG(status) });
    }
    match report.errno.load(Relaxed) {
        0 => Ok(()),
        errno => Err(SetupError::of(call, &io::Error::from_raw_os_error(errno), &Facts::now())),
    }
}

/// Runs the attempt in a child, and returns the child's status, as waitpid(2) gives it.
fn in_child(report: &Report) -> Result<libc::c_int, Errno> {
    // The table of descriptors is shared, so that nothing stays open in the child that is closed
    // here meanwhile. Without a signal for its end, no handler or waitpid(2) of the program sees
    // the child.
    let flags = libc::CLONE_FILES as libc::c_long;
    // SAFETY: the child has a copy of this thread and of the memory. Other threads may have held
    // locks, so that it makes system calls only, and leaves by one.
    let child = answer(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if child == 0 {
        attempt(report);
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

/// The child. It allocates nothing and takes no lock.
fn attempt(report: &Report) -> ! {
    // A handler of the program must not run here, and a death leaves no core.
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain calls of the kernel that change this process only.
    unsafe {
        libc::signal(libc::SIGSYS, libc::SIG_DFL);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
    }
    let mut params = [0u32; PARAMS];
    params[FLAGS] = SETUP_FLAGS;
    let mut workers = [0u32; 2];
    let done = |result: libc::c_long| {
        if result < 0 {
            report.errno.store(last_errno().0, Relaxed);
        }
        result >= 0
    };
    // SAFETY: the kernel reads and writes the structures during the calls.
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, ENTRIES, params.as_mut_ptr());
        if done(ring) {
            report.ring.store(ring as i32, Relaxed);
            report.call.store(1, Relaxed);
            let (number, workers) = (REGISTER_IOWQ_MAX_WORKERS, workers.as_mut_ptr());
            if done(libc::syscall(libc::SYS_io_uring_register, ring, number, workers, 2u32)) {
                report.call.store(2, Relaxed);
                let flags = IORING_ENTER_GETEVENTS;
                done(libc::syscall(
                    libc::SYS_io_uring_enter,
                    ring,
                    0u32,
                    0u32,
                    flags,
                    0usize,
                    0usize,
                ));
            }
        }
        libc::syscall(libc::SYS_exit_group, 0);
        unreachable!("exit_group(2) does not return")
    }
}

/// One page that a child shares with its parent.
struct Shared(*mut libc::c_void);

impl Shared {
    fn new() -> io::Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping touches no memory of anybody.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), size_of::<Report>(), protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let this = Self(address);
        this.report().ring.store(-1, Relaxed);
        Ok(this)
    }

    fn report(&self) -> &Report {
        // SAFETY: the mapping is a page of zeros, which is a valid report, and is aligned to it.
        unsafe { &*self.0.cast() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no reference to it is left.
        unsafe { libc::munmap(self.0, size_of::<Report>()) };
    }
}
