//! The system calls made outside of a shard's loop: at start, from other threads, on drop.

mod inherited;
mod listeners;
mod unix;

use super::{Descriptor, Errno, FileKind, FileStatus};
pub(crate) use inherited::{adopt, examine, listener as inherited_listener};
pub use listeners::ListenerOptions;
pub(crate) use listeners::listeners;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::LazyLock;
pub(crate) use unix::{SocketFile, connect as connect_unix, peer_credentials};

/// Keepalive probes without an answer that end a connection. They are so far apart that it ends
/// after twice the time to the first of them.
const KEEPALIVE_PROBES: u32 = 4;

/// close(2); nothing is to be done about its error.
pub(crate) fn close(descriptor: Descriptor) {
    // SAFETY: closing a number touches no memory; whoever calls owns the descriptor.
    unsafe { libc::close(descriptor.0) };
}

/// The path and the flags with which linkat(2) finds an open file: `by_proc` is its
/// `/proc/self/fd/N`. Without /proc an empty path stands for the descriptor itself, which needs
/// Linux 6.10 or `CAP_DAC_READ_SEARCH`; otherwise it fails with ENOENT.
pub(crate) fn link_source(by_proc: *const libc::c_char) -> (*const libc::c_char, i32) {
    static HAS_PROC: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/self/fd").exists());
    match *HAS_PROC {
        true => (by_proc, libc::AT_SYMLINK_FOLLOW),
        false => (c"".as_ptr(), libc::AT_EMPTY_PATH),
    }
}

/// eventfd(2), non-blocking.
pub(crate) fn event() -> io::Result<Descriptor> {
    // SAFETY: no pointers.
    let event = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    checked(event).map(Descriptor)
}

/// Adds one to an event descriptor; EAGAIN means that it is readable anyway.
pub(crate) fn signal_event(event: Descriptor) {
    let one = 1u64;
    // SAFETY: the buffer is 8 bytes of an initialised integer.
    unsafe { libc::write(event.0, (&raw const one).cast(), 8) };
}

/// `RLIMIT_NOFILE`, soft and hard.
pub(crate) fn descriptors_allowed() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills the limit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

/// Raises the soft `RLIMIT_NOFILE` to the hard one.
pub(crate) fn raise_descriptors() -> io::Result<()> {
    let (soft, hard) = descriptors_allowed();
    if soft == hard {
        return Ok(());
    }
    let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: the kernel reads the limit during the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// File systems that open a file and read what they have cached without asking anybody: local
/// ones, and what containers lay over those. By `f_type` of statfs(2).
const LOCAL_FILE_SYSTEMS: [i64; 10] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0xf2f5_2010, // f2fs
    0x2fc1_2fc1, // zfs
    0x794c_7630, // overlay
    0xe0f5_e1e2, // erofs
    0x7371_7368, // squashfs
];

/// Whether a file lies on a file system that may wait for somebody: FUSE, NFS, what nobody knows.
pub(crate) fn may_wait(file: Descriptor) -> bool {
    let mut status = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the pointer is to memory of the right size, which the call fills when it succeeds.
    let kind = unsafe {
        if libc::fstatfs(file.0, status.as_mut_ptr()) != 0 {
            return true;
        }
        status.assume_init().f_type
    };
    !LOCAL_FILE_SYSTEMS.contains(&kind)
}

/// statx(2) of an open file, of what is known of it here (`AT_STATX_DONT_SYNC`): opening it has
/// just asked, and a server of files that does not answer must not hold the shard up.
pub(crate) fn file_status(file: Descriptor) -> Result<FileStatus, Errno> {
    let mut stat = MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the pointer is to memory of the right size, which the call fills when it succeeds.
    let stat = unsafe {
        let (path, mask) = (c"".as_ptr(), libc::STATX_BASIC_STATS);
        if libc::statx(file.0, path, flags, mask, stat.as_mut_ptr()) != 0 {
            return Err(last_errno());
        }
        stat.assume_init()
    };
    let kind = match libc::mode_t::from(stat.stx_mode) & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular,
        libc::S_IFDIR => FileKind::Directory,
        _ => FileKind::Other,
    };
    Ok(FileStatus {
        bytes: stat.stx_size,
        modified_s: stat.stx_mtime.tv_sec,
        modified_ns: stat.stx_mtime.tv_nsec,
        changed_s: stat.stx_ctime.tv_sec,
        changed_ns: stat.stx_ctime.tv_nsec,
        links: stat.stx_nlink,
        device: libc::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        kind,
    })
}

/// preadv2(2) with these `RWF_*` flags.
pub(crate) fn read_at(
    file: Descriptor,
    buffer: &mut [u8],
    offset: u64,
    flags: i32,
) -> io::Result<usize> {
    let Ok(offset) = libc::off_t::try_from(offset) else {
        return Err(io::Error::from_raw_os_error(libc::EOVERFLOW));
    };
    let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    loop {
        // SAFETY: one vector, whose memory the kernel writes during the call.
        let read = unsafe { libc::preadv2(file.0, &raw const vector, 1, offset, flags) };
        match usize::try_from(read) {
            Ok(read) => return Ok(read),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// clock_gettime(2) of `CLOCK_REALTIME_COARSE`, milliseconds since 1970-01-01 UTC.
pub(crate) fn wall_ms() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the structure; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) };
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

fn stream_socket(address: &SocketAddr) -> io::Result<Descriptor> {
    stream(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })
}

fn stream(family: i32) -> io::Result<Descriptor> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    checked(unsafe { libc::socket(family, kind, 0) }).map(Descriptor)
}

fn set(socket: Descriptor, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let length = mem::size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option's value is an int, and its length says so.
    let result =
        unsafe { libc::setsockopt(socket.0, level, name, (&raw const value).cast(), length) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Options of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// `TCP_KEEPIDLE` in seconds, with `SO_KEEPALIVE`, `TCP_KEEPINTVL` and `TCP_KEEPCNT`.
    pub keepalive_s: Option<u32>,
    /// `TCP_USER_TIMEOUT` in milliseconds.
    pub user_timeout_ms: Option<u32>,
}

impl TcpOptions {
    /// Gives them to a socket, and `TCP_NODELAY`. Connections inherit those of their listener when
    /// their handshake is complete (tcp(7)).
    pub(crate) fn set(self, socket: Descriptor) -> Result<(), Errno> {
        set_nodelay(socket)?;
        match self.keepalive_s {
            Some(idle_s) => set_keepalive(socket, idle_s)?,
            None => set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0)?,
        }
        // 0 is the kernel's own timeout.
        set_user_timeout(socket, self.user_timeout_ms.unwrap_or(0))
    }
}

/// `SO_KEEPALIVE`, with `TCP_KEEPIDLE`, `TCP_KEEPINTVL` and `TCP_KEEPCNT` (tcp(7)).
pub(crate) fn set_keepalive(socket: Descriptor, idle_s: u32) -> Result<(), Errno> {
    set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, idle_s as i32)?;
    let between_s = (idle_s / KEEPALIVE_PROBES).max(1);
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, between_s as i32)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEPALIVE_PROBES as i32)
}

/// `TCP_USER_TIMEOUT` (tcp(7)).
pub(crate) fn set_user_timeout(socket: Descriptor, ms: u32) -> Result<(), Errno> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms as i32)
}

/// `TCP_NODELAY` (tcp(7)).
pub(crate) fn set_nodelay(socket: Descriptor) -> Result<(), Errno> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

fn bind(socket: Descriptor, address: &SocketAddr) -> io::Result<()> {
    let (storage, length) = to_sockaddr(address);
    // SAFETY: the storage holds an address of that length.
    checked(unsafe { libc::bind(socket.0, (&raw const storage).cast(), length) }).map(drop)
}

/// bind(2) of a socket before its connect. With port 0 the kernel chooses the port at the connect
/// (`IP_BIND_ADDRESS_NO_PORT`), so it need not differ from those of other targets.
pub(crate) fn bind_source(
    socket: Descriptor,
    to: &SocketAddr,
    source: SocketAddr,
) -> Result<(), Errno> {
    if to.is_ipv4() != source.is_ipv4() {
        return Err(Errno(libc::EAFNOSUPPORT));
    }
    if source.port() == 0 {
        set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    }
    bind(socket, &source).map_err(|_| last_errno())
}

/// A descriptor of a connection, for as long as a callback has the connection.
pub fn borrow_socket<'a>(socket: Descriptor) -> BorrowedFd<'a> {
    // SAFETY: the engine closes the socket of a connection when no callback has the connection any
    // more, and the number is not -1.
    unsafe { BorrowedFd::borrow_raw(socket.0) }
}

/// getsockname(2).
///
/// # Errors
/// As getsockname(2). EAFNOSUPPORT: it is no IP socket.
pub fn local_address(socket: Descriptor) -> io::Result<SocketAddr> {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut length = mem::size_of_val(&storage) as libc::socklen_t;
    // SAFETY: storage and length belong together.
    checked(unsafe { libc::getsockname(socket.0, (&raw mut storage).cast(), &raw mut length) })?;
    from_sockaddr(&storage).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// An address as the kernel takes it.
pub(crate) fn to_sockaddr(address: &SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is large and aligned enough for every address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// A descriptor for the calls of the standard library. It is open as long as its owner, which
/// holds `descriptor`.
pub fn borrow(descriptor: &Descriptor) -> BorrowedFd<'_> {
    // SAFETY: the owner closes the descriptor when it is dropped, and the result borrows from it.
    unsafe { BorrowedFd::borrow_raw(descriptor.0) }
}

/// An address as the kernel gave it; `None` for a family that is not IP.
pub(crate) fn from_sockaddr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which type lies there.
            let raw = unsafe { *(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = raw.sin_addr.s_addr.to_ne_bytes();
            Some(SocketAddr::from((ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { *(&raw const *storage).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::V6(std::net::SocketAddrV6::new(
                raw.sin6_addr.s6_addr.into(),
                u16::from_be(raw.sin6_port),
                raw.sin6_flowinfo,
                raw.sin6_scope_id,
            )))
        }
        _ => None,
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn last_errno() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
