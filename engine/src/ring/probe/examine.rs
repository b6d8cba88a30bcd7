//! The check behind the daemon's `doctor` command: what is there, what is needed and what to
//! change.

use super::super::kernel::KernelRing;
use super::super::{Features, Ring, RingChoice, RingKind, Setup};
use super::limits::{has_capability, limit, memlock_allowed, page_bytes, release, sysctl};
use super::{CreateRingError, Held, KERNEL_NEEDED, found, try_io_uring};
use crate::cpu;
use io_uring::{IoUring, Probe, opcode};
use std::fmt;
use std::thread;
use std::time::Instant;

/// `CAP_SYS_RESOURCE` and `CAP_SYS_ADMIN` of <linux/capability.h>: either of them lifts the limits
/// on pipes.
const PIPE_CAPABILITIES: [u32; 2] = [24, 21];
/// Descriptors of a process besides those of its shards: standard streams, logs, directories.
const DESCRIPTORS_BESIDE: u64 = 64;
/// The width of the printed screen, in columns.
const COLUMNS: usize = 100;

/// The needs of an engine, which [`examine`] compares with the system.
///
/// [`Config::requirements`](crate::Config::requirements) returns those of a configuration.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Requirements {
    /// The kernel interface to use ([`Config::ring`](crate::Config::ring)).
    pub ring: RingChoice,
    /// The number of shards, each with one ring.
    pub shards: usize,
    /// The limit on open connections over all shards.
    pub max_connections: usize,
    /// The locked memory without which a shard cannot start, in bytes (`RLIMIT_MEMLOCK`). The limit
    /// applies to all processes of a user together.
    pub memlock_needed_bytes: u64,
    /// The number of addresses to listen on.
    pub listeners: usize,
    /// The listen(2) backlog of each listener and shard.
    pub backlog: u32,
    /// The number of pipes of each shard.
    pub pipes: u32,
    /// The size of a pipe in bytes.
    pub pipe_bytes: u32,
}

/// The result of [`examine`]. Its `Display` text is one screen: at most 42 lines of 100 columns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examination {
    /// The kernel's release.
    pub release: String,
    /// The kernel interface that the shards would use. `None`: neither.
    pub ring: Option<RingKind>,
    /// `Ok` if a ring of io_uring can be made, or the reason why not.
    pub io_uring: Result<(), CreateRingError>,
    /// The features of the kernel that the engine uses. Empty if no ring can be made.
    pub features: Vec<Feature>,
    /// The limits of the system and the process.
    pub limits: Vec<Limit>,
    /// `true` if the engine can run: it has a kernel interface, no required feature of io_uring is
    /// missing if that is the one, and no required limit is too small.
    pub can_run: bool,
}

/// A feature of the kernel that the engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// The feature's name in the UAPI, or that of a system call.
    pub name: &'static str,
    /// The engine's use of the feature.
    pub purpose: &'static str,
    /// `true` if the kernel has the feature.
    pub found: bool,
    /// `true` if the engine cannot run without the feature.
    pub required: bool,
}

/// A limit of the system or the process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// The limit's name in the manual pages.
    pub name: &'static str,
    /// The present value.
    pub found: String,
    /// The value that the engine needs.
    pub needed: String,
    /// `true` if the present value is enough.
    pub enough: bool,
    /// `true` if the engine cannot run below the needed value. Otherwise it only runs worse.
    pub required: bool,
    /// The change to make if the value is not enough.
    pub remedy: String,
}

/// Checks this kernel, this container and these limits against the requirements of an engine. It
/// makes a few small rings and closes them again.
#[must_use]
pub fn examine(needs: &Requirements) -> Examination {
    // In a child process first, because a filter may kill the process that tries. Then on a thread
    // of its own, because making a ring blocks SIGPIPE and registers the ring there.
    let multishot_receive = try_io_uring(Features::ALL).and_then(|()| {
        thread::scope(|scope| {
            scope.spawn(|| try_ring(false)).join().expect("making a ring does not panic")
        })
    });
    let has_multishot_receive = multishot_receive == Ok(true);
    // The memory of the planned shards counts, not that of the small ring.
    let (rings, bytes) = (needs.shards as u64, locked_bytes(needs));
    let io_uring =
        multishot_receive.map(drop).map_err(|error| error.of_rings(Held { rings, bytes }));
    let ring = choose(needs.ring, &io_uring);
    let system_calls = found(Features::ALL);
    let features = match ring {
        Some(RingKind::IoUring) => features(has_multishot_receive, system_calls.cachestat),
        Some(RingKind::Epoll) => vec![cachestat(system_calls.cachestat)],
        None => Vec::new(),
    };
    let limits = limits(needs, ring);
    let can_run = ring.is_some()
        && features.iter().all(|feature| feature.found || !feature.required)
        && limits.iter().all(|limit| limit.enough || !limit.required);
    Examination { release: release(), ring, io_uring, features, limits, can_run }
}

/// The kernel interface that the shards would use.
fn choose(ring: RingChoice, io_uring: &Result<(), CreateRingError>) -> Option<RingKind> {
    match (ring, io_uring) {
        (RingChoice::Epoll, _) => Some(RingKind::Epoll),
        (_, Ok(())) => Some(RingKind::IoUring),
        (RingChoice::Auto, Err(error)) if error.prohibition().is_some() => Some(RingKind::Epoll),
        (_, Err(_)) => None,
    }
}

/// Makes a ring as a shard would, only smaller. Returns whether the kernel has multishot receives.
fn try_ring(arena_registered: bool) -> Result<bool, CreateRingError> {
    let mut arena = vec![0u8; page_bytes() as usize];
    KernelRing::new(&Setup {
        submission_entries: 8,
        completion_entries: 16,
        arena_address: arena.as_mut_ptr(),
        arena_bytes: arena.len(),
        arena_registered,
        receive_buffers: 1,
        receive_buffer_bytes: 1,
        io_workers_max: 1,
        features: Features::ALL,
        started: Instant::now(),
    })
    // The ring is dropped before its arena, and no operation uses that.
    .map(|ring| ring.has_multishot_receive())
}

const OPERATIONS: [(&str, u8, &str); 16] = [
    ("IORING_OP_ACCEPT", opcode::AcceptMulti::CODE, "accepting, many clients per submission"),
    ("IORING_OP_RECV", opcode::RecvMulti::CODE, "receiving into provided buffers, idle waits"),
    ("IORING_OP_SEND", opcode::Send::CODE, "sending"),
    ("IORING_OP_POLL_ADD", opcode::PollAdd::CODE, "idle waits, resets, room to send, wake-ups"),
    ("IORING_OP_CONNECT", opcode::Connect::CODE, "connecting out"),
    (
        "IORING_OP_ASYNC_CANCEL",
        opcode::AsyncCancel::CODE,
        "cancelling accepts, receives and connects",
    ),
    ("IORING_OP_CLOSE", opcode::Close::CODE, "closing descriptors"),
    ("IORING_OP_OPENAT2", opcode::OpenAt2::CODE, "opening and creating files beneath a directory"),
    ("IORING_OP_READ", opcode::Read::CODE, "reading small files"),
    ("IORING_OP_READ_FIXED", opcode::ReadFixed::CODE, "reading small files into registered memory"),
    ("IORING_OP_SPLICE", opcode::Splice::CODE, "sending and receiving files through pipes"),
    ("IORING_OP_WRITE", opcode::Write::CODE, "writing received files"),
    ("IORING_OP_FSYNC", opcode::Fsync::CODE, "making received files durable"),
    ("IORING_OP_LINKAT", opcode::LinkAt::CODE, "naming received files"),
    ("IORING_OP_RENAMEAT", opcode::RenameAt::CODE, "replacing files with received ones"),
    ("IORING_OP_UNLINKAT", opcode::UnlinkAt::CODE, "removing temporary names"),
];

fn required(name: &'static str, purpose: &'static str, found: bool) -> Feature {
    Feature { name, purpose, found, required: true }
}

fn optional(name: &'static str, purpose: &'static str, found: bool) -> Feature {
    Feature { name, purpose, found, required: false }
}

fn cachestat(found: bool) -> Feature {
    optional("cachestat(2)", "sending cached files without a pipe (Linux 6.5)", found)
}

fn features(has_multishot_receive: bool, has_cachestat: bool) -> Vec<Feature> {
    let ring = IoUring::new(8);
    let mut probe = Probe::new();
    // Without an answer of the probe, every operation counts as missing.
    let probed =
        ring.as_ref().is_ok_and(|ring| ring.submitter().register_probe(&mut probe).is_ok());
    let has =
        |of: fn(&io_uring::Parameters) -> bool| ring.as_ref().is_ok_and(|ring| of(ring.params()));
    let no_array =
        IoUring::<io_uring::squeue::Entry>::builder().setup_no_sqarray().build(8).is_ok();
    let arena = thread::scope(|scope| {
        scope.spawn(|| try_ring(true)).join().expect("making a ring does not panic")
    });
    let mut features = vec![
        // The ring that was made before has these features.
        required(
            "IORING_SETUP_DEFER_TASKRUN",
            "running completions only when the shard waits",
            true,
        ),
        required("IORING_REGISTER_PBUF_RING", "idle connections hold no receive buffer", true),
        required(
            "IORING_FEAT_EXT_ARG",
            "waiting with a deadline",
            has(io_uring::Parameters::is_feature_ext_arg),
        ),
        required(
            "IORING_FEAT_NODROP",
            "no completion is lost when the queue is full",
            has(io_uring::Parameters::is_feature_nodrop),
        ),
        optional("IORING_SETUP_NO_SQARRAY", "cheaper submission (Linux 6.6)", no_array),
        optional(
            "IORING_FEAT_NO_IOWAIT",
            "idle shards do not count as I/O wait (Linux 6.15)",
            has(io_uring::Parameters::is_feature_no_iowait),
        ),
        optional("IORING_REGISTER_BUFFERS", "reading into registered memory", arena.is_ok()),
        optional("IORING_RECV_MULTISHOT", "many receives per submission", has_multishot_receive),
        cachestat(has_cachestat),
    ];
    features.extend(OPERATIONS.iter().map(|&(name, code, purpose)| {
        let found = probed && probe.is_supported(code);
        // A plain READ replaces READ_FIXED where memory is not registered.
        Feature { name, purpose, found, required: code != opcode::ReadFixed::CODE }
    }));
    features
}

fn limits(needs: &Requirements, ring: Option<RingKind>) -> Vec<Limit> {
    // epoll locks no memory.
    let locks = ring != Some(RingKind::Epoll);
    let mut limits = vec![descriptors(needs, limit(libc::RLIMIT_NOFILE))];
    limits.extend(locks.then(|| locked_memory(needs, memlock_allowed())));
    limits.extend([
        backlog(needs, sysctl("net/core/somaxconn")),
        pipes(needs, pipe_pages_allowed()),
        cpus(needs, cpu::of_process().len(), cpu::quota()),
    ]);
    limits
}

fn descriptors(needs: &Requirements, (soft, hard): (u64, u64)) -> Limit {
    // The ring, its threads' event, the wake-up descriptor, and one per waiting client of each
    // listener.
    let accepting = needs.listeners as u64 * (1 + u64::from(needs.backlog));
    let shard = 3 + accepting + 2 * u64::from(needs.pipes);
    let needed = needs.max_connections as u64 + needs.shards as u64 * shard + DESCRIPTORS_BESIDE;
    let remedy = if hard < needed {
        format!("raise the hard limit (systemd: LimitNOFILE={needed}) or allow fewer connections")
    } else {
        format!("ulimit -n {needed} (systemd: LimitNOFILE={needed}) or allow fewer connections")
    };
    Limit {
        name: "RLIMIT_NOFILE",
        found: format!("{soft} of {hard}"),
        needed: format!("{needed}, plus the files in use"),
        enough: soft >= needed,
        required: true,
        remedy,
    }
}

fn locked_memory(needs: &Requirements, allowed: Option<u64>) -> Limit {
    let needed = locked_bytes(needs);
    Limit {
        name: "RLIMIT_MEMLOCK",
        found: allowed.map_or("not limited".to_owned(), |bytes| format!("{} KiB", bytes >> 10)),
        needed: format!("{} KiB, unused by this user", needed.div_ceil(1024)),
        enough: allowed.is_none_or(|allowed| allowed >= needed),
        required: true,
        remedy:
            "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity), fewer or smaller buffers, or \
                 epoll, which locks none"
                .to_owned(),
    }
}

/// The locked memory of all shards in bytes.
fn locked_bytes(needs: &Requirements) -> u64 {
    needs.shards as u64 * needs.memlock_needed_bytes
}

fn backlog(needs: &Requirements, somaxconn: Option<i64>) -> Limit {
    let wanted = i64::from(needs.backlog);
    Limit {
        name: "net.core.somaxconn",
        found: somaxconn.map_or("unknown".to_owned(), |found| found.to_string()),
        needed: wanted.to_string(),
        enough: somaxconn.is_none_or(|found| found >= wanted),
        required: false,
        remedy: format!(
            "the kernel caps the backlog at this; sysctl -w net.core.somaxconn={wanted}"
        ),
    }
}

/// The pages that pipes of an unprivileged user may take before they shrink to one or two pages.
/// `None`: no limit.
fn pipe_pages_allowed() -> Option<u64> {
    let exempt = PIPE_CAPABILITIES.into_iter().any(has_capability);
    let pages = sysctl("fs/pipe-user-pages-soft").and_then(|pages| u64::try_from(pages).ok());
    pages.filter(|pages| !exempt && *pages > 0)
}

fn pipes(needs: &Requirements, allowed: Option<u64>) -> Limit {
    let pages = u64::from(needs.pipe_bytes).div_ceil(page_bytes());
    let needed = needs.shards as u64 * u64::from(needs.pipes) * pages;
    Limit {
        name: "fs.pipe-user-pages-soft",
        found: allowed.map_or("not limited".to_owned(), |pages| format!("{pages} pages")),
        needed: format!("{needed} pages"),
        enough: allowed.is_none_or(|allowed| allowed >= needed),
        required: false,
        remedy: format!(
            "pipes get smaller, transfers slower; sysctl -w fs.pipe-user-pages-soft={needed}"
        ),
    }
}

fn cpus(needs: &Requirements, allowed: usize, quota: Option<f64>) -> Limit {
    let quota_text = quota.map_or("no quota".to_owned(), |cpus| format!("quota {cpus:.2}"));
    let usable = quota.map_or(allowed as f64, |cpus| cpus.min(allowed as f64));
    Limit {
        name: "CPUs",
        found: format!("{allowed}, {quota_text}"),
        needed: format!("{}, one per shard", needs.shards),
        enough: needs.shards as f64 <= usable,
        required: false,
        remedy: "shards share CPUs or are throttled; run fewer shards or allow more CPUs"
            .to_owned(),
    }
}

/// One screen: at most 42 lines of at most 100 columns.
impl fmt::Display for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict =
            if self.can_run { "ringwright can run here" } else { "ringwright cannot run here" };
        let on_epoll = self.ring == Some(RingKind::Epoll);
        let ring = if on_epoll { ", on epoll" } else { "" };
        let needed =
            format!("(needed{}: {KERNEL_NEEDED})", if on_epoll { " for io_uring" } else { "" });
        writeln!(f, "{verdict}{ring}: Linux {} {needed}", self.release)?;
        if let Err(error) = &self.io_uring {
            writeln!(f)?;
            wrapped(f, &error.to_string(), 2)?;
        }
        if !self.features.is_empty() {
            writeln!(f, "\n{:<28} {:<9} used for", "feature", "")?;
        }
        for feature in &self.features {
            let state = match feature {
                Feature { found: true, .. } => "found",
                Feature { required: true, .. } => "MISSING",
                Feature { required: false, .. } => "absent",
            };
            writeln!(f, "  {:<26} {state:<9} {}", feature.name, feature.purpose)?;
        }
        writeln!(f, "\n{:<28} {:<9} {:<22} needed", "limit", "", "found")?;
        for limit in &self.limits {
            let state = match limit {
                Limit { enough: true, .. } => "enough",
                Limit { required: true, .. } => "TOO SMALL",
                Limit { required: false, .. } => "low",
            };
            writeln!(f, "  {:<26} {state:<9} {:<22} {}", limit.name, limit.found, limit.needed)?;
            if !limit.enough {
                wrapped(f, &limit.remedy, 6)?;
            }
        }
        Ok(())
    }
}

fn wrapped(f: &mut fmt::Formatter<'_>, text: &str, indent: usize) -> fmt::Result {
    let mut column = 0;
    for word in text.split_whitespace() {
        if column > 0 && column + 1 + word.len() <= COLUMNS {
            write!(f, " {word}")?;
            column += 1 + word.len();
        } else {
            let line_end = if column > 0 { "\n" } else { "" };
            write!(f, "{line_end}{:indent$}{word}", "")?;
            column = indent + word.len();
        }
    }
    writeln!(f)
}

#[cfg(test)]
mod tests;
