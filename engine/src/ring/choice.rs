//! The choice between the rings: by configuration, or by what the system allows.

use super::Features;
use super::probe::{CreateRingError, try_io_uring};
use std::fmt;

/// The kernel interface that the shards use ([`Config::ring`](crate::Config::ring)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingChoice {
    /// io_uring where it is allowed, and epoll elsewhere.
    ///
    /// [`Engine::start`](crate::Engine::start) tries io_uring in a child process that lives for
    /// about a millisecond, because a seccomp filter may kill the process that tries. The choice
    /// holds for all shards. A kernel that is too old, a sysctl, a seccomp filter or a security
    /// module lead to epoll, and to a notice ([`Engine::notices`](crate::Engine::notices)). A lack
    /// of memory, processes or descriptors does not: it is an error of the start.
    #[default]
    Auto,
    /// io_uring. Where it is forbidden, the engine does not start.
    IoUring,
    /// epoll, non-blocking calls, and a few threads for disks.
    Epoll,
}

/// A kernel interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingKind {
    /// io_uring(7).
    #[default]
    IoUring,
    /// epoll(7).
    Epoll,
}

impl RingKind {
    /// The call with which a shard waits.
    pub(crate) fn wait_call(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring_enter(2)",
            Self::Epoll => "epoll_wait(2)",
        }
    }
}

/// `io_uring` or `epoll`, as in the ledger.
impl fmt::Display for RingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// The kernel interface that an engine uses, and the reason for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingInUse {
    /// The interface.
    pub kind: RingKind,
    /// The reason, on one line, such as `requested` or `io_uring_setup(2) is forbidden: …`.
    pub reason: String,
}

impl RingChoice {
    /// Decides. The notice says why epoll replaces io_uring, and what would change that.
    pub(crate) fn decide(self, features: Features) -> (RingInUse, Option<String>) {
        let of = |kind, reason: &str| RingInUse { kind, reason: reason.to_owned() };
        match self {
            Self::IoUring => (of(RingKind::IoUring, "requested"), None),
            Self::Epoll => (of(RingKind::Epoll, "requested"), None),
            Self::Auto => Self::judge(try_io_uring(features)),
        }
    }

    /// Decides after an attempt to use io_uring.
    fn judge(attempt: Result<(), CreateRingError>) -> (RingInUse, Option<String>) {
        let of = |kind, reason: String| RingInUse { kind, reason };
        match attempt {
            Ok(()) => (of(RingKind::IoUring, "io_uring is allowed".to_owned()), None),
            Err(error) => match error.prohibition() {
                Some(cause) => {
                    let notice = format!("epoll replaces io_uring, which is forbidden: {error}");
                    (of(RingKind::Epoll, cause), Some(notice))
                }
                // The shards will meet the same error, and it names a remedy.
                None => (of(RingKind::IoUring, format!("not forbidden, but {error}")), None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Errno;

    #[test]
    fn a_request_is_not_questioned() {
        let kind = |choice: RingChoice| choice.decide(Features::ALL).0.kind;
        assert_eq!(kind(RingChoice::IoUring), RingKind::IoUring);
        assert_eq!(kind(RingChoice::Epoll), RingKind::Epoll);
        let epoll = RingChoice::Epoll.decide(Features::ALL);
        assert_eq!((epoll.0.reason.as_str(), epoll.1), ("requested", None));
    }

    #[test]
    fn only_a_prohibition_leads_to_epoll() {
        let call = "io_uring_setup(2)";
        let kind = |error| RingChoice::judge(Err(error)).0.kind;
        assert_eq!(RingChoice::judge(Ok(())).0.kind, RingKind::IoUring);
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS].map(Errno) {
            assert_eq!(kind(CreateRingError::Filtered { call, errno }), RingKind::Epoll);
        }
        let found = "5.14.0".to_owned();
        assert_eq!(kind(CreateRingError::KernelTooOld { found, missing: "x" }), RingKind::Epoll);
        assert_eq!(kind(CreateRingError::Disabled { value: 2, group: -1 }), RingKind::Epoll);
        assert_eq!(kind(CreateRingError::Killed { call, signal: libc::SIGSYS }), RingKind::Epoll);
        assert_eq!(
            kind(CreateRingError::Descriptors { call, allowed: 3, hard: 3 }),
            RingKind::IoUring
        );
        let (rings, needed_bytes, allowed_bytes) = (1, 2, 1);
        let memory = CreateRingError::LockedMemory { call, rings, needed_bytes, allowed_bytes };
        assert_eq!(kind(memory), RingKind::IoUring);
        let errno = Errno(libc::ENOMEM);
        assert_eq!(kind(CreateRingError::Call { call, errno }), RingKind::IoUring);
    }

    #[test]
    fn the_notice_is_one_line_with_cause_and_remedy() {
        let error =
            CreateRingError::Filtered { call: "io_uring_setup(2)", errno: Errno(libc::EPERM) };
        let (ring, notice) = RingChoice::judge(Err(error));
        let notice = notice.expect("a notice");
        assert!(!notice.contains('\n') && notice.contains("seccomp"), "{notice}");
        assert_eq!(
            ring.reason,
            "io_uring_setup(2) is forbidden: Operation not permitted (os error 1)"
        );
    }
}
