//! Listening sockets that the process has from its parent, such as systemd (sd_listen_fds(3)).

use super::listeners::Listening;
use super::{TcpOptions, checked, close, local_address, unix};
use crate::address::{Address, SocketPath};
use crate::ring::{Descriptor, direct};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Takes a descriptor number that the environment names as one of the process's own, and sets
/// `FD_CLOEXEC`.
///
/// # Errors
/// EBADF: nothing is open there.
pub fn adopt(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    checked(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and the caller takes each number once. The parent of the process has
    // given it to the process, so that no other part of it knows the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Finds the address of a stream socket that listens, and makes it non-blocking.
///
/// # Errors
/// It is not one. The text says why.
pub fn examine(socket: &OwnedFd) -> io::Result<Address> {
    let descriptor = Descriptor(socket.as_raw_fd());
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    if option(descriptor, libc::SO_TYPE).map_err(|_| wrong("it is not a socket"))?
        != libc::SOCK_STREAM
    {
        return Err(wrong("it is not a stream socket"));
    }
    if option(descriptor, libc::SO_ACCEPTCONN)? == 0 {
        return Err(wrong("it does not listen (listen(2))"));
    }
    let address = match option(descriptor, libc::SO_DOMAIN)? {
        libc::AF_INET | libc::AF_INET6 if option(descriptor, libc::SO_PROTOCOL)? != TCP => {
            return Err(wrong("it is not a TCP socket"));
        }
        libc::AF_INET | libc::AF_INET6 => Address::Ip(local_address(descriptor)?),
        libc::AF_UNIX => Address::Unix(unix_path(descriptor)?),
        _ => return Err(wrong("it is neither a TCP nor a Unix socket")),
    };
    // SAFETY: plain numbers.
    unsafe {
        let flags = checked(libc::fcntl(descriptor.0, libc::F_GETFL))?;
        checked(libc::fcntl(descriptor.0, libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    }
    Ok(address)
}

const TCP: i32 = libc::IPPROTO_TCP;

/// Makes one descriptor for each shard of a socket that listens. The options of the socket stay,
/// but a filter of an earlier process goes: it may refuse everybody.
pub fn listener(
    socket: &OwnedFd,
    address: &Address,
    shards: usize,
    (backlog, tcp): (Option<u32>, TcpOptions),
) -> io::Result<Listening> {
    let descriptor = Descriptor(socket.as_raw_fd());
    direct::set_filter(descriptor, &[])?;
    if let Some(backlog) = backlog {
        // SAFETY: no pointers. On a socket that listens, it changes the backlog.
        checked(unsafe { libc::listen(descriptor.0, backlog as i32) })?;
    }
    if address.ip().is_some() {
        tcp.set(descriptor)?;
    }
    let mut sockets = Vec::with_capacity(shards);
    // `socket` itself is one more, and is closed by the caller.
    match unix::share(descriptor, shards + 1, &mut sockets) {
        Ok(()) => Ok(Listening { address: address.clone(), sockets, file: None }),
        Err(error) => {
            sockets.drain(..).for_each(close);
            Err(error)
        }
    }
}

fn option(socket: Descriptor, name: i32) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut length = mem::size_of_val(&value) as libc::socklen_t;
    let level = libc::SOL_SOCKET;
    // SAFETY: the kernel writes one int.
    checked(unsafe {
        libc::getsockopt(socket.0, level, name, (&raw mut value).cast(), &raw mut length)
    })?;
    Ok(value)
}

/// The path or the abstract name of a Unix socket (getsockname(2)).
fn unix_path(socket: Descriptor) -> io::Result<SocketPath> {
    // SAFETY: all-zero bytes are a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    let mut length = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: address and length belong together.
    checked(unsafe { libc::getsockname(socket.0, (&raw mut address).cast(), &raw mut length) })?;
    let bytes = (length as usize).saturating_sub(mem::offset_of!(libc::sockaddr_un, sun_path));
    Ok(unix::from_sun_path(&address.sun_path[..bytes.min(address.sun_path.len())]))
}
