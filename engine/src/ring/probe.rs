//! Checks of the kernel, the container and the limits of this process, with errors that name a
//! remedy.
//!
//! * [`examine`] checks everything that a planned engine needs, and prints as one screen.
//! * [`CreateRingError`] is the reason why a ring could not be made.
//!
//! ```
//! use ringwright::{Config, probe};
//!
//! let config = Config { max_connections: 50_000, ..Config::default() };
//! let examination = probe::examine(&config.requirements());
//! println!("{examination}");
//! ```

mod attempt;
mod examine;
mod held;
mod limits;
#[cfg(test)]
mod tests;

use super::{Errno, Setup};
use limits::{at_least, is_exempt, limit, page_bytes, release, release_of, text_of};
use std::fmt;
use std::io;

pub(crate) use attempt::{found, try_io_uring};
pub use examine::{Examination, Feature, Limit, Requirements, examine};
pub(crate) use held::{Held, Share};
pub(crate) use limits::memlock_allowed;

/// The reason why a ring could not be made, with a remedy in its `Display` text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateRingError {
    /// The kernel lacks a feature that the engine needs.
    KernelTooOld {
        /// The kernel's release, as in uname(2).
        found: String,
        /// The missing feature.
        missing: &'static str,
    },
    /// The sysctl `kernel.io_uring_disabled` forbids io_uring.
    Disabled {
        /// The sysctl's value. 1: only processes in `group` or with CAP_SYS_ADMIN may use io_uring.
        /// 2: no process may.
        value: i64,
        /// The value of `kernel.io_uring_group`; -1 for none.
        group: i64,
    },
    /// The kernel's settings allow io_uring, but a seccomp filter or a security module forbids it.
    Filtered {
        /// The call that failed.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// A seccomp filter kills the process that uses io_uring.
    Killed {
        /// The call that was killed.
        call: &'static str,
        /// The signal, usually SIGSYS.
        signal: i32,
    },
    /// `RLIMIT_MEMLOCK` is too small for the rings of this process.
    LockedMemory {
        /// The call that failed.
        call: &'static str,
        /// The number of rings that this process needs: those of all shards of this engine, and
        /// those of its other engines.
        rings: u64,
        /// The bytes of locked memory that these rings need together.
        needed_bytes: u64,
        /// The bytes of locked memory that all rings of the user may have together.
        allowed_bytes: u64,
    },
    /// All descriptors of `RLIMIT_NOFILE` are in use.
    Descriptors {
        /// The call that failed.
        call: &'static str,
        /// The soft limit.
        allowed: u64,
        /// The hard limit, up to which the process may raise the soft one.
        hard: u64,
    },
    /// Any other failure of a call.
    Call {
        /// The call that failed.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
}

/// The first Linux release with everything that the engine needs (`IORING_SETUP_DEFER_TASKRUN`).
/// It lacks some features that the engine can do without; [`examine`] shows which the kernel has.
pub const KERNEL_NEEDED: &str = "6.1";

/// Names of features without which a ring on io_uring cannot be made.
pub(crate) const EXT_ARG: &str = "IORING_FEAT_EXT_ARG";
pub(crate) const PBUF_RING: &str = "IORING_REGISTER_PBUF_RING";

/// Returns true if a unit test that needs io_uring can run. One line on standard error tells if
/// none can.
#[cfg(test)]
pub(crate) fn needs_io_uring() -> bool {
    static ALLOWED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let cause = try_io_uring(super::Features::ALL).err().and_then(|error| error.prohibition());
        if let Some(cause) = &cause {
            // Not by a print macro, which libtest captures.
            let line = format!("left out, needs io_uring: the unit tests of its ring ({cause})\n");
            let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        }
        cause.is_none()
    })
}

impl fmt::Display for CreateRingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KernelTooOld { found, missing } => write!(
                f,
                "kernel {found} is too old: it lacks {missing}; use Linux {KERNEL_NEEDED} or later"
            ),
            Self::Disabled { value: 1, group } => write!(
                f,
                "io_uring is restricted: kernel.io_uring_disabled is 1, and this process neither \
                 is in the group kernel.io_uring_group ({group}{none}) nor has CAP_SYS_ADMIN; set \
                 the sysctl to a group of this process (sysctl -w kernel.io_uring_group=GID) or \
                 allow io_uring to everybody (sysctl -w kernel.io_uring_disabled=0)",
                none = if *group < 0 { ": no group" } else { "" }
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
                 --security-opt seccomp=PROFILE.json; systemd: SystemCallFilter=@aio)"
            ),
            Self::Killed { call, signal } => write!(
                f,
                "{call} kills the process (signal {signal}): a seccomp filter forbids it; allow \
                 io_uring_setup, io_uring_enter and io_uring_register there (docker, podman: \
                 --security-opt seccomp=PROFILE.json; systemd: SystemCallFilter=@aio)"
            ),
            Self::LockedMemory { call, rings, needed_bytes, allowed_bytes } => write!(
                f,
                "{call} failed: not enough locked memory; the {rings} ring(s) of this process \
                 need {needed_bytes} bytes, and RLIMIT_MEMLOCK allows {allowed_bytes} bytes for \
                 all rings of this user together; raise it (ulimit -l unlimited, systemd: \
                 LimitMEMLOCK=infinity), use fewer or smaller buffers, or use epoll, which locks \
                 none"
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

impl std::error::Error for CreateRingError {}

/// The settings and limits that tell the cause of an errno.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The kernel's release.
    pub release: String,
    /// The value of `kernel.io_uring_disabled`. `None` before Linux 6.6.
    pub disabled: Option<i64>,
    /// The value of `kernel.io_uring_group`.
    pub group: Option<i64>,
    /// `true` if this process may use io_uring where `kernel.io_uring_disabled` is 1: it has
    /// CAP_SYS_ADMIN or is in the group.
    pub exempt: bool,
    /// The number of rings of this process, with the one that failed.
    pub rings: u64,
    /// The bytes of `RLIMIT_MEMLOCK` that these rings need together.
    pub memlock_needed: u64,
    /// The result of [`memlock_allowed`].
    pub memlock_allowed: Option<u64>,
    /// The soft and hard `RLIMIT_NOFILE`.
    pub descriptors: (u64, u64),
}

impl Facts {
    /// Reads the settings and limits as they are now, for one more ring.
    pub fn of(setup: &Setup) -> Self {
        let now = Self::now();
        Self { memlock_needed: now.memlock_needed + memlock_needed(setup), ..now }
    }

    /// Reads the settings and limits as they are now.
    pub fn now() -> Self {
        Self::from_texts(text_of)
    }

    /// Reads the settings from the texts of these files of /proc, and the limits as they are now.
    fn from_texts(text_of: impl Fn(&str) -> Option<String>) -> Self {
        let others = Held::of_process();
        let number = |name: &str| text_of(name)?.trim().parse().ok();
        let group = number("sys/kernel/io_uring_group");
        let of_process = |name: &str| text_of(name).unwrap_or_default();
        Self {
            release: release_of(&text_of),
            disabled: number("sys/kernel/io_uring_disabled"),
            group,
            exempt: is_exempt(
                group,
                &of_process("thread-self/status"),
                &of_process("self/uid_map"),
            ),
            rings: others.rings + 1,
            memlock_needed: others.bytes,
            memlock_allowed: memlock_allowed(),
            descriptors: limit(libc::RLIMIT_NOFILE),
        }
    }

    /// Returns true if the sysctl forbids io_uring to this process (io_uring_allowed() in the
    /// kernel's io_uring/io_uring.c).
    fn is_disabled(&self) -> bool {
        match self.disabled {
            None | Some(0) => false,
            Some(1) => !self.exempt,
            Some(_) => true,
        }
    }
}

impl CreateRingError {
    /// Finds the cause of a failed call.
    pub(crate) fn of(call: &'static str, error: &io::Error, facts: &Facts) -> Self {
        let errno = Errno(error.raw_os_error().unwrap_or(libc::EIO));
        let new_enough = at_least(&facts.release, (6, 1));
        let too_old = |missing| Self::KernelTooOld { found: facts.release.clone(), missing };
        match errno.0 {
            libc::EPERM if facts.is_disabled() => Self::Disabled {
                value: facts.disabled.unwrap_or(0),
                group: facts.group.unwrap_or(-1),
            },
            libc::ENOSYS if !new_enough => {
                too_old("io_uring, or parts of it that the engine needs")
            }
            // A seccomp profile that does not know io_uring may return any of these.
            libc::EPERM | libc::EACCES | libc::ENOSYS => Self::Filtered { call, errno },
            libc::EINVAL if !new_enough => too_old("IORING_SETUP_DEFER_TASKRUN"),
            libc::ENOMEM => match facts.memlock_allowed {
                Some(allowed_bytes) => Self::LockedMemory {
                    call,
                    rings: facts.rings,
                    needed_bytes: facts.memlock_needed,
                    allowed_bytes,
                },
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

impl CreateRingError {
    /// The cause on one line if io_uring is forbidden or missing. `None` if only memory or
    /// descriptors are.
    pub(crate) fn prohibition(&self) -> Option<String> {
        match self {
            Self::KernelTooOld { found, missing } => Some(format!("Linux {found} lacks {missing}")),
            Self::Disabled { value, .. } => Some(format!("kernel.io_uring_disabled is {value}")),
            Self::Filtered { call, errno } => Some(format!("{call} is forbidden: {errno:?}")),
            Self::Killed { call, signal } => {
                Some(format!("{call} is forbidden: it is killed by signal {signal}"))
            }
            Self::LockedMemory { .. } | Self::Descriptors { .. } | Self::Call { .. } => None,
        }
    }

    /// The kernel lacks a feature of io_uring.
    pub(crate) fn lacks(missing: &'static str) -> Self {
        Self::KernelTooOld { found: release(), missing }
    }

    /// Finds the cause of a failed call that prepares a ring on epoll. It locks no memory.
    pub(crate) fn of_epoll(call: &'static str, error: &io::Error) -> Self {
        match error.raw_os_error().unwrap_or(libc::EIO) {
            libc::EMFILE => {
                let (allowed, hard) = limit(libc::RLIMIT_NOFILE);
                Self::Descriptors { call, allowed, hard }
            }
            errno => Self::Call { call, errno: Errno(errno) },
        }
    }

    /// Names the locked memory of these rings instead of those that existed when a call failed.
    pub(crate) fn of_rings(self, needed: Held) -> Self {
        match self {
            Self::LockedMemory { call, allowed_bytes, .. } => {
                let Held { rings, bytes: needed_bytes } = needed;
                Self::LockedMemory { call, rings, needed_bytes, allowed_bytes }
            }
            other => other,
        }
    }
}

/// The bytes of `RLIMIT_MEMLOCK` that a ring takes: its queues, its buffer ring and, if registered,
/// its arena.
///
/// All of it counts from Linux 6.14 on, and less of it before. The limit applies to all processes
/// of a user together.
pub(crate) fn memlock_needed(setup: &Setup) -> u64 {
    let page = page_bytes();
    let entries = u64::from(setup.submission_entries);
    // struct io_rings, the index array (absent with NO_SQARRAY) and the completion entries.
    let queues = 512 + 4 * entries + 16 * u64::from(setup.completion_entries);
    let arena = if setup.arena_registered { setup.arena_bytes as u64 } else { 0 };
    [queues, 64 * entries, 16 * u64::from(setup.receive_buffers), arena]
        .map(|bytes| bytes.next_multiple_of(page))
        .iter()
        .sum()
}
