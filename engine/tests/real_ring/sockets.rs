//! Options of sockets that the engine has open.

use socket2::Socket;
use std::io;
use std::net::TcpStream;
use std::os::fd::RawFd;

/// The descriptor of the engine's end of a connection; both ends are in this process.
pub fn other_end(peer: &TcpStream) -> RawFd {
    let (ours, theirs) = (peer.local_addr().unwrap(), peer.peer_addr().unwrap());
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("/proc is there");
    let numbers = descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |number: &RawFd| {
        // SAFETY: only looked at, and not closed: it belongs to the engine.
        let socket = std::mem::ManuallyDrop::new(unsafe {
            <Socket as std::os::fd::FromRawFd>::from_raw_fd(*number)
        });
        socket.peer_addr().ok().and_then(|peer| peer.as_socket()) == Some(ours)
            && socket.local_addr().ok().and_then(|local| local.as_socket()) == Some(theirs)
    };
    numbers.into_iter().find(is_it).expect("the engine has it open")
}

pub fn option(socket: RawFd, level: libc::c_int, name: libc::c_int) -> (libc::c_int, u32) {
    let mut value: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is one int.
    let result =
        unsafe { libc::getsockopt(socket, level, name, (&raw mut value).cast(), &raw mut length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    (value, length)
}
