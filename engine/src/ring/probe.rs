//! What this kernel and this container allow, and errors that say what to do about the rest.

mod examine;
mod limits;
#[cfg(test)]
mod tests;

use super::{Errno, Setup};
use limits::{at_least, limit, page_bytes, release, sysctl};
use std::fmt;
use std::io;

pub use examine::{Examination, Feature, Limit, Request, examine};
pub use limits::memlock_allowed;

/// Why a ring could not be made, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The kernel lacks something that the engine cannot do without.
    KernelTooOld {
        /// Its release, as in uname(2).
        found: String,
        /// What it does not know.
        missing: &'static str,
    },
    /// `kernel.io_uring_disabled` forbids it.
    Disabled {
        /// 1: only for others than `group`; 2: for everybody.
        value: i64,
        /// `kernel.io_uring_group`, -1 for none.
        group: i64,
    },
    /// Not the kernel's settings: a seccomp filter or a security module.
    Filtered {
        /// The call that failed.
        call: &'static str,
        /// With what.
        errno: Errno,
    },
    /// `RLIMIT_MEMLOCK` is too small for the rings, the buffer ring and the arena.
    LockedMemory {
        /// The call that failed.
        call: &'static str,
        /// Bytes this ring needs.
        needed_bytes: u64,
        /// Bytes all rings of the user may have together.
        allowed_bytes: u64,
    },
    /// `RLIMIT_NOFILE` is used up.
    Descriptors {
        /// The call that failed.
        call: &'static str,
        /// The soft limit.
        allowed: u64,
        /// The hard limit: as far as the process may raise the soft one.
        hard: u64,
    },
    /// Any other failure.
    Call {
        /// The call that failed.
        call: &'static str,
        /// With what.
        errno: Errno,
    },
}

/// The release from which the kernel knows all that the engine needs
/// (`IORING_SETUP_DEFER_TASKRUN`).
pub const KERNEL_NEEDED: &str = "6.1";

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KernelTooOld { found, missing } => write!(
                f,
                "kernel {found} is too old: it lacks {missing}; use Linux {KERNEL_NEEDED} or later"
            ),
            Self::Disabled { value: 1, group } => write!(
                f,
                "io_uring is restricted: kernel.io_uring_disabled is 1, and this process neither \
                 is in the group kernel.io_uring_group ({group}) nor has CAP_SYS_ADMIN; set the \
                 sysctl to a group of this process (sysctl -w kernel.io_uring_group=GID) or allow \
                 io_uring to everybody (sysctl -w kernel.io_uring_disabled=0)"
            ),
            Self::Disabled { value, .. } => write!(
                f,
                "io_uring is disabled: kernel.io_uring_disabled is {value}; allow it to everybody \
                 (sysctl -w kernel.io_uring_disabled=0) or to the group kernel.io_uring_group \
                 (sysctl -w kernel.io_uring_disabled=1)"
            ),
            Self::Filtered { call, errno } => write!(
                f,
                "{call} failed ({errno:?}) although kernel.io_uring_disabled allows io_uring: a \
                 container or seccomp profile or a security module forbids it; allow \
                 io_uring_setup, io_uring_enter and io_uring_register there (docker, podman: \
                 --security-opt seccomp=PROFILE.json; systemd: SystemCallFilter=@io-event)"
            ),
            Self::LockedMemory { call, needed_bytes, allowed_bytes } => write!(
                f,
                "{call} failed: not enough locked memory; this ring needs {needed_bytes} bytes, \
                 and RLIMIT_MEMLOCK allows {allowed_bytes} bytes for all rings of this user \
                 together; raise it (ulimit -l unlimited, systemd: LimitMEMLOCK=infinity) or use \
                 fewer or smaller buffers"
            ),
            Self::Descriptors { call, allowed, hard } => write!(
                f,
                "{call} failed: no file descriptor is free; RLIMIT_NOFILE is {allowed} (hard \
                 limit {hard}); raise it (ulimit -n, systemd: LimitNOFILE=)"
            ),
            Self::Call { call, errno } => write!(f, "{call} failed: {errno:?}"),
        }
    }
}

impl std::error::Error for SetupError {}

/// What an errno has to be judged by.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel's release.
    pub release: String,
    /// `kernel.io_uring_disabled`; `None` before Linux 6.6.
    pub disabled: Option<i64>,
    /// `kernel.io_uring_group`.
    pub group: Option<i64>,
    /// What the ring needs of `RLIMIT_MEMLOCK`, bytes.
    pub memlock_needed: u64,
    /// See [`memlock_allowed`].
    pub memlock_allowed: Option<u64>,
    /// `RLIMIT_NOFILE`, soft and hard.
    pub descriptors: (u64, u64),
}

impl Facts {
    /// As they are now.
    #[must_use]
    pub fn of(setup: &Setup) -> Self {
        Self {
            release: release(),
            disabled: sysctl("kernel/io_uring_disabled"),
            group: sysctl("kernel/io_uring_group"),
            memlock_needed: memlock_needed(setup),
            memlock_allowed: memlock_allowed(),
            descriptors: limit(libc::RLIMIT_NOFILE),
        }
    }
}

impl SetupError {
    /// The cause of a call's failure.
    #[must_use]
    pub fn of(call: &'static str, error: &io::Error, facts: &Facts) -> Self {
        let errno = Errno(error.raw_os_error().unwrap_or(libc::EIO));
        let new_enough = at_least(&facts.release, (6, 1));
        let too_old = |missing| Self::KernelTooOld { found: facts.release.clone(), missing };
        match errno.0 {
            libc::EPERM if facts.disabled.is_some_and(|value| value > 0) => Self::Disabled {
                value: facts.disabled.unwrap_or(0),
                group: facts.group.unwrap_or(-1),
            },
            libc::ENOSYS if !new_enough => {
                too_old("io_uring, or parts of it that the engine needs")
            }
            // A profile that does not know io_uring may answer either.
            libc::EPERM | libc::EACCES | libc::ENOSYS => Self::Filtered { call, errno },
            libc::EINVAL if !new_enough => too_old("IORING_SETUP_DEFER_TASKRUN"),
            libc::ENOMEM => match facts.memlock_allowed {
                Some(allowed_bytes) => {
                    Self::LockedMemory { call, needed_bytes: facts.memlock_needed, allowed_bytes }
                }
                None => Self::Call { call, errno },
            },
            libc::EMFILE => {
                let (allowed, hard) = facts.descriptors;
                Self::Descriptors { call, allowed, hard }
            }
            _ => Self::Call { call, errno },
        }
    }
}

/// What a ring takes of `RLIMIT_MEMLOCK`, bytes: its queues, the buffer ring, and the arena where
/// it is registered. From Linux 6.14 all of it counts; before that less. It counts for all
/// processes of a user together.
#[must_use]
pub fn memlock_needed(setup: &Setup) -> u64 {
    let page = page_bytes();
    let entries = u64::from(setup.submission_entries);
    // struct io_rings and the array of indices (absent with NO_SQARRAY), then the completions.
    let queues = 512 + 4 * entries + 16 * u64::from(setup.completion_entries);
    let arena = if setup.arena_registered { setup.arena_bytes as u64 } else { 0 };
    [queues, 64 * entries, 16 * u64::from(setup.receive_buffers), arena]
        .map(|bytes| bytes.next_multiple_of(page))
        .iter()
        .sum()
}
