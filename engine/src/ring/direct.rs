//! The system calls a shard makes beside its ring. Each is a thin wrapper that never blocks.

mod cached;
mod listener;

use super::calls::{bind_source, close, from_sockaddr, set_keepalive, set_nodelay};
use super::{Delivery, Descriptor, Errno, Pipe, Shutdown, Traffic};
pub(super) use cached::{SYS_CACHESTAT, is_cached, read as read_cached, send_file};
pub(super) use listener::{drops, set_filter, unaccepted, unread_bytes};
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::ptr;

/// The errno of the call that just failed.
pub(super) fn last_errno() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().expect("an error of the kernel has a number"))
}

/// The count or descriptor of a call, or its errno.
pub(super) fn answer(result: impl Into<i64>) -> Result<i64, Errno> {
    let result = result.into();
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// send(2) or sendmsg(2) of bytes that the caller keeps.
pub(super) fn send(socket: Descriptor, pieces: &[libc::iovec], more: bool) -> Result<u32, Errno> {
    let more = if more { libc::MSG_MORE } else { 0 };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more;
    let sent = if let [piece] = pieces {
        // SAFETY: the kernel reads memory that the caller has for this during the call.
        uninterrupted(|| unsafe {
            libc::send(socket.0, piece.iov_base, piece.iov_len, flags) as i64
        })
    } else {
        // SAFETY: a msghdr of zeros names nothing.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = pieces.as_ptr().cast_mut();
        message.msg_iovlen = pieces.len();
        // SAFETY: as above; the pieces are only read.
        uninterrupted(|| unsafe { libc::sendmsg(socket.0, &raw const message, flags) as i64 })
    };
    sent.map(|sent| sent as u32)
}

/// Calls again while a signal came in between.
pub(super) fn uninterrupted<T: Into<i64>>(mut call: impl FnMut() -> T) -> Result<i64, Errno> {
    loop {
        match answer(call()) {
            Err(Errno(libc::EINTR)) => {}
            result => return result,
        }
    }
}

/// A position in a file. Beyond `i64::MAX` lies -1, "wherever the file stands", which is shared
/// by everybody who has it open.
pub(super) fn position(offset: u64) -> i64 {
    i64::try_from(offset).expect("an offset in a file is at most i64::MAX")
}

pub(super) fn page_bytes() -> u64 {
    // SAFETY: plain numbers.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).expect("a page has a size")
}

pub(super) fn block_sigpipe() -> io::Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) initialises the set, and the others only read it.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

pub(super) fn shutdown(socket: Descriptor, how: Shutdown) -> Result<(), Errno> {
    let how = match how {
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: plain numbers.
    answer(unsafe { libc::shutdown(socket.0, how) }).map(drop)
}

pub(super) fn abort(socket: Descriptor) -> Result<(), Errno> {
    let unspecified =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: the kernel reads an address of the length given.
    let result = uninterrupted(|| unsafe {
        libc::connect(socket.0, &raw const unspecified, socklen::<libc::sockaddr>())
    });
    match result {
        // Unix sockets cannot be disconnected.
        Err(Errno(libc::EINVAL)) => shutdown(socket, Shutdown::Both),
        result => result.map(drop),
    }
}

pub(super) fn peer_address(socket: Descriptor) -> Result<SocketAddr, Errno> {
    // SAFETY: all zeroes is a valid address of family AF_UNSPEC.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut length = socklen::<libc::sockaddr_storage>();
    // SAFETY: the kernel writes at most `length` bytes of address.
    answer(unsafe { libc::getpeername(socket.0, (&raw mut address).cast(), &raw mut length) })?;
    from_sockaddr(&address).ok_or(Errno(libc::EAFNOSUPPORT))
}

/// The beginning of struct tcp_info of <linux/tcp.h>, in words of 8 bytes.
type TcpInfo = [u64; BYTES_RECEIVED + 1];
/// Where `tcpi_bytes_acked` lies.
const BYTES_ACKED: usize = 120 / 8;
/// Where `tcpi_bytes_received` lies.
const BYTES_RECEIVED: usize = 128 / 8;
/// Where `tcpi_bytes_sent` lies.
const BYTES_SENT: usize = 200 / 8;
/// Where `tcpi_bytes_retrans` lies.
const BYTES_RETRANS: usize = 208 / 8;
/// The first byte of the structure is the state. These are its numbers in <net/tcp_states.h>.
const TCP_FIN_WAIT1: u8 = 4;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_CLOSING: u8 = 11;

fn state_of(info: &[u64]) -> u8 {
    info[0].to_ne_bytes()[0]
}

fn tcp_info<const WORDS: usize>(socket: Descriptor) -> Result<[u64; WORDS], Errno> {
    let mut info = [0; WORDS];
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of info.
    answer(unsafe {
        let info = info.as_mut_ptr().cast();
        libc::getsockopt(socket.0, libc::IPPROTO_TCP, libc::TCP_INFO, info, &raw mut length)
    })?;
    Ok(info)
}

pub(super) fn delivery(socket: Descriptor) -> Result<Delivery, Errno> {
    let mut queued: libc::c_int = 0;
    // SAFETY: the kernel writes one int (`SIOCOUTQ` is `TIOCOUTQ`).
    answer(unsafe { libc::ioctl(socket.0, libc::TIOCOUTQ, &raw mut queued) })?;
    let info: TcpInfo = match tcp_info(socket) {
        Err(Errno(libc::EOPNOTSUPP)) => return Ok(delivery_of_unix(queued)),
        info => info?,
    };
    let (outstanding, lost) = match state_of(&info) {
        TCP_CLOSE => (0, queued),
        // The FIN has a sequence number of its own.
        TCP_FIN_WAIT1 | TCP_LAST_ACK | TCP_CLOSING => (queued - 1, 0),
        _ => (queued, 0),
    };
    let [outstanding, lost] = [outstanding, lost].map(|it| u32::try_from(it).unwrap_or(0));
    let (acknowledged, received) = (info[BYTES_ACKED], info[BYTES_RECEIVED]);
    Ok(Delivery { acknowledged, outstanding, lost, received })
}

/// Invariant: between two looks at a connection whose output makes no progress, nothing is sent.
/// Then the queue changes only because the peer reads.
fn delivery_of_unix(queued: libc::c_int) -> Delivery {
    let outstanding = u32::try_from(queued).unwrap_or(0);
    let acknowledged = u64::from(outstanding.wrapping_neg());
    Delivery { acknowledged, outstanding, ..Delivery::default() }
}

pub(super) fn traffic(socket: Descriptor, fin_seen: bool) -> Result<Traffic, Errno> {
    let info: [u64; BYTES_RETRANS + 1] = tcp_info(socket)?;
    let fin = match state_of(&info) {
        TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING | TCP_TIME_WAIT => true,
        // The state in which a connection ends, with the peer's FIN or with its reset.
        TCP_CLOSE => fin_seen,
        _ => false,
    };
    Ok(Traffic {
        received_bytes: info[BYTES_RECEIVED].saturating_sub(u64::from(fin)),
        sent_bytes: info[BYTES_SENT].saturating_sub(info[BYTES_RETRANS]),
    })
}

pub(super) fn discard(socket: Descriptor, bytes_max: u32) -> Result<u32, Errno> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC, the kernel writes nothing (tcp(7)).
    let discarded = uninterrupted(|| unsafe {
        libc::recv(socket.0, ptr::null_mut(), bytes_max as usize, flags) as i64
    });
    match discarded {
        Err(Errno(libc::EFAULT)) => discard_copied(socket, bytes_max),
        result => result.map(|bytes| bytes as u32),
    }
}

/// The same for a Unix socket, which copies the bytes in spite of `MSG_TRUNC`.
fn discard_copied(socket: Descriptor, bytes_max: u32) -> Result<u32, Errno> {
    let mut bytes = [MaybeUninit::<u8>::uninit(); 16 << 10];
    let length = bytes.len().min(bytes_max as usize);
    // SAFETY: the kernel writes at most `length` bytes, which the array has.
    uninterrupted(|| unsafe {
        libc::recv(socket.0, bytes.as_mut_ptr().cast(), length, libc::MSG_DONTWAIT) as i64
    })
    .map(|bytes| bytes as u32)
}

pub(super) fn receive(socket: Descriptor, bytes: &mut [u8]) -> Result<u32, Errno> {
    let (address, length) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: the kernel writes at most as many bytes as the slice has.
    uninterrupted(|| unsafe { libc::recv(socket.0, address, length, libc::MSG_DONTWAIT) as i64 })
        .map(|bytes| bytes as u32)
}

pub(super) fn read_pipe(pipe: Descriptor, bytes: &mut [u8]) -> Result<u32, Errno> {
    // SAFETY: the kernel writes at most as many bytes as the slice has.
    uninterrupted(|| unsafe { libc::read(pipe.0, bytes.as_mut_ptr().cast(), bytes.len()) as i64 })
        .map(|bytes| bytes as u32)
}

pub(super) fn is_reset(socket: Descriptor) -> bool {
    tcp_info::<1>(socket).is_ok_and(|info| state_of(&info) == TCP_CLOSE)
}

pub(super) fn splice_to_socket(
    pipe: Descriptor,
    socket: Descriptor,
    length: u32,
    more: bool,
) -> Result<u32, Errno> {
    splice(pipe, socket, length, if more { libc::SPLICE_F_MORE } else { 0 })
}

pub(super) fn splice_from_socket(
    socket: Descriptor,
    pipe: Descriptor,
    length: u32,
) -> Result<u32, Errno> {
    splice(socket, pipe, length, 0)
}

fn splice(from: Descriptor, to: Descriptor, length: u32, flags: u32) -> Result<u32, Errno> {
    let (length, flags) = (length as usize, libc::SPLICE_F_NONBLOCK | flags);
    // SAFETY: no offsets, plain numbers otherwise.
    uninterrupted(|| unsafe {
        libc::splice(from.0, ptr::null_mut(), to.0, ptr::null_mut(), length, flags) as i64
    })
    .map(|bytes| bytes as u32)
}

pub(super) fn socket(
    to: &SocketAddr,
    source: Option<SocketAddr>,
    keepalive_s: Option<u32>,
) -> Result<Descriptor, Errno> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain numbers.
    let socket = descriptor(answer(unsafe { libc::socket(family, kind, 0) })?);
    let keepalive = || keepalive_s.map_or(Ok(()), |idle_s| set_keepalive(socket, idle_s));
    let bind = || source.map_or(Ok(()), |source| bind_source(socket, to, source));
    let prepared = set_nodelay(socket).and_then(|()| keepalive()).and_then(|()| bind());
    prepared.inspect_err(|_| close(socket))?;
    Ok(socket)
}

pub(super) fn pipe(capacity_bytes: u32) -> Result<Pipe, Errno> {
    let mut ends: [libc::c_int; 2] = [-1; 2];
    // SAFETY: the kernel writes two descriptors.
    answer(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
    let [read, write] = ends.map(Descriptor);
    // SAFETY: plain numbers.
    let found = answer(unsafe { libc::fcntl(write.0, libc::F_GETPIPE_SZ) }).inspect_err(|_| {
        close(read);
        close(write);
    })?;
    let grown = if found < i64::from(capacity_bytes) {
        // SAFETY: plain numbers.
        answer(unsafe { libc::fcntl(write.0, libc::F_SETPIPE_SZ, capacity_bytes as libc::c_int) })
    } else {
        Ok(found)
    };
    // EPERM: the user's pages are used up, or it is beyond pipe-max-size. A smaller pipe works.
    let capacity_bytes = grown.unwrap_or(found) as u32;
    Ok(Pipe { read, write, capacity_bytes })
}

pub(super) fn accept_now(listener: Descriptor) -> Result<Descriptor, Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no address is asked for.
    let accepted = uninterrupted(|| unsafe {
        libc::accept4(listener.0, ptr::null_mut(), ptr::null_mut(), flags)
    });
    accepted.map(descriptor)
}

pub(super) fn clear_wake(wake: Descriptor) {
    let mut count = 0u64;
    // SAFETY: an eventfd gives eight bytes. EAGAIN: somebody emptied it already.
    let _ = uninterrupted(|| unsafe {
        libc::read(wake.0, (&raw mut count).cast(), size_of::<u64>()) as i64
    });
}

fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn descriptor(number: i64) -> Descriptor {
    Descriptor(number as i32)
}
