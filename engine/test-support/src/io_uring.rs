//! Tests that need io_uring.

use crate::left_out::leave_out;

/// The words of `struct io_uring_params`, and the place of its flags.
const PARAMS: usize = 30;
const FLAGS: usize = 2;
/// `IORING_SETUP_SUBMIT_ALL`, `IORING_SETUP_SINGLE_ISSUER` and `IORING_SETUP_DEFER_TASKRUN` of
/// <linux/io_uring.h>, which Linux 6.1 has.
const SETUP_FLAGS: u32 = 1 << 7 | 1 << 12 | 1 << 13;

/// Returns true if io_uring is allowed here. Otherwise the caller returns at once.
#[must_use]
#[track_caller]
pub fn needs_io_uring() -> bool {
    let is_allowed = makes_a_ring();
    if !is_allowed {
        leave_out("io_uring");
    }
    is_allowed
}

/// A child process tries, because a seccomp filter may kill the process that does.
fn makes_a_ring() -> bool {
    let mut params = [0_u32; PARAMS];
    params[FLAGS] = SETUP_FLAGS;
    // SAFETY: the child makes system calls only, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the kernel fills the structure during the call.
        unsafe {
            let ring = libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr());
            libc::_exit(i32::from(ring < 0));
        }
    }
    assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: the kernel writes the status during the call.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } != child {}
    status == 0
}
