//! Features of the kernel that some systems lack. ARCHITECTURE.md has the table of what happens
//! without each.

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
