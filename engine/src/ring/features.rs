//! Features of the kernel that some systems lack.
//!
//! The oldest kernel for the ring on io_uring is Linux 6.1 (`IORING_SETUP_DEFER_TASKRUN`). On an
//! older one `RingChoice::Auto` takes epoll; no test has run on a kernel before 6.1. Each ring asks
//! the kernel for features, not for its release. `doctor` shows the answers (`probe/examine.rs`).
//!
//! A feature that is switched off in [`Features`] counts as one that the kernel lacks. Tests run
//! the code for older kernels in this way on every kernel. `tests/real_ring/older.rs` runs the main
//! tests again without each. `.ci/linux-6.1` runs all tests of the real rings on Debian's Linux 6.1
//! in a virtual machine. In the table, "run on 6.1" means that this kernel lacks the feature, and
//! "switched off" that a test did so on a newer one.
//!
//! | feature | since | without it | tested |
//! |---|---|---|---|
//! | `IORING_SETUP_DEFER_TASKRUN` | 6.1 | epoll | simulated: EINVAL of an older release |
//! | `IORING_FEAT_EXT_ARG` | 5.11 | epoll | switched off |
//! | `IORING_REGISTER_PBUF_RING` | 5.19 | epoll | switched off |
//! | multishot accept | 5.19 | not asked for: as old as the buffer ring | not at all |
//! | `IORING_RECV_MULTISHOT` | 6.0 | single receives, parked between | switched off; 1/4 of seeds |
//! | cachestat(2) | 6.5 | large cached files go through pipes | run on 6.1; switched off; seccomp |
//! | `IORING_SETUP_NO_SQARRAY` | 6.6 | one more cache line per entry | run on 6.1; switched off |
//! | `IORING_FEAT_NO_IOWAIT` | 6.15 | an idle shard counts as I/O wait | run on 6.1; switched off |
//! | rings count as locked memory | 6.14 | less of `RLIMIT_MEMLOCK` is needed | run on 6.1 |
//! | `net.core.optmem_max` of 128 KiB | after 6.1 | shorter filters for bans | run on 6.1 |
//! | 20 work items per enter | after 6.1 | many ends overflow the queue, none lost | run on 6.1 |
//! | `IORING_REGISTER_RING_FDS` | 5.18 | the plain descriptor | 17 rings on one thread |
//! | `IORING_REGISTER_BUFFERS` | 5.1 | READ in place of READ_FIXED | `RLIMIT_MEMLOCK` |
//! | openat2(2), for epoll only | 5.6 | by segments (`epoll/walk.rs`) | switched off; seccomp |
//! | epoll_pwait2(2) | 5.11 | waits in whole milliseconds | not at all |
//!
//! io_uring opens paths by `IORING_OP_OPENAT2`, which no seccomp filter sees.

/// The features of the kernel that a ring may use.
///
/// A ring asks the kernel for each feature and uses those that are found. One that is `false` here
/// counts as not found; nothing else differs. Tests run the code for older kernels this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `IORING_FEAT_EXT_ARG`: io_uring_enter(2) takes a timeout. Linux 5.11.
    pub ext_arg: bool,
    /// `IORING_REGISTER_PBUF_RING`: a ring of provided buffers. Linux 5.19.
    pub buffer_ring: bool,
    /// `IORING_RECV_MULTISHOT`. Linux 6.0.
    pub multishot_receive: bool,
    /// `IORING_SETUP_NO_SQARRAY`. Linux 6.6.
    pub no_sqarray: bool,
    /// `IORING_FEAT_NO_IOWAIT`. Linux 6.15.
    pub no_iowait: bool,
    /// The system call cachestat(2). Linux 6.5.
    pub cachestat: bool,
    /// The system call openat2(2), which only the ring on epoll makes. Linux 5.6.
    pub openat2: bool,
}

impl Features {
    /// All of them.
    pub const ALL: Self = Self {
        ext_arg: true,
        buffer_ring: true,
        multishot_receive: true,
        no_sqarray: true,
        no_iowait: true,
        cachestat: true,
        openat2: true,
    };
}
