//! Sockets of clients: from addresses of their own, with a deadline on everything.

use crate::PATIENCE;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

/// Addresses of the loopback network to come from. A port that waits in TIME_WAIT is taken only
/// for its address, so that however many connections are made, ports do not run out.
pub struct Sources {
    client: u8,
    made: u32,
}

/// Connections from one address before the next one is taken.
const PER_ADDRESS: u32 = 256;

/// A narrow connection's receive buffer; the kernel doubles it (socket(7)).
const NARROW_BYTES: i32 = 4 << 10;
const ETHERNET_SEGMENT_BYTES: i32 = 1460;
/// The least that every host takes (RFC 9293, section 3.7.1).
const SHORT_SEGMENT_BYTES: i32 = 536;

impl Sources {
    /// Those of one client, counted from 0.
    pub fn new(client: u8) -> Self {
        Self { client: client + 1, made: 0 }
    }

    fn next(&mut self) -> Ipv4Addr {
        let [_, _, high, low] = (self.made / PER_ADDRESS).to_be_bytes();
        self.made += 1;
        Ipv4Addr::new(127, self.client, high, low)
    }

    /// A connection from the next address.
    pub fn connect(&mut self, server: SocketAddr) -> io::Result<TcpStream> {
        self.connect_within(server, PATIENCE)
    }

    /// The same, with EINPROGRESS if it has not come about within `timeout`.
    pub fn connect_within(
        &mut self,
        server: SocketAddr,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        self.connect_as(server, timeout, |_| Ok(()))
    }

    /// A connection over which little is ever under way: as to a far client with a small window.
    /// Without this a single segment of the loopback is 64 KiB, and sockets take megabytes.
    pub fn connect_narrow(&mut self, server: SocketAddr) -> io::Result<TcpStream> {
        self.connect_as(server, PATIENCE, |stream| {
            set(stream, libc::SOL_SOCKET, libc::SO_RCVBUF, &NARROW_BYTES)?;
            set(stream, libc::IPPROTO_TCP, libc::TCP_MAXSEG, &ETHERNET_SEGMENT_BYTES)
        })
    }

    /// A connection to a client whose socket holds about a kilobyte.
    pub fn connect_dripping(&mut self, server: SocketAddr) -> io::Result<TcpStream> {
        self.connect_as(server, PATIENCE, |stream| {
            // The kernel raises it to its minimum.
            set(stream, libc::SOL_SOCKET, libc::SO_RCVBUF, &1)?;
            set(stream, libc::IPPROTO_TCP, libc::TCP_MAXSEG, &SHORT_SEGMENT_BYTES)
        })
    }

    fn connect_as(
        &mut self,
        server: SocketAddr,
        timeout: Duration,
        prepare: impl FnOnce(&TcpStream) -> io::Result<()>,
    ) -> io::Result<TcpStream> {
        let SocketAddr::V4(server) = server else { panic!("{server} is not of IPv4") };
        // SAFETY: no pointers.
        let socket =
            unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let stream = unsafe { TcpStream::from_raw_fd(socket) };
        prepare(&stream)?;
        // connect(2) keeps to the send timeout (socket(7)).
        stream.set_write_timeout(Some(timeout))?;
        // The port is chosen by connect(2), which knows both ends (ip(7)).
        set(&stream, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1_i32)?;
        let call = |call: unsafe extern "C" fn(_, _, _) -> _, address: Ipv4Addr, port: u16| {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
                sin_zero: [0; 8],
            };
            let length = size_of_val(&address) as libc::socklen_t;
            // SAFETY: bind(2) and connect(2) read an address of that length.
            match unsafe { call(socket, (&raw const address).cast(), length) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        call(libc::bind, self.next(), 0)?;
        call(libc::connect, *server.ip(), server.port())?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// Closes with RST.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set(&stream, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
}

pub fn set<T>(stream: &TcpStream, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value = (&raw const *value).cast();
    // SAFETY: the value is as long as is said, and the kernel only reads it.
    match unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, value, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An option's number.
pub fn get(socket: &impl AsRawFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut length = mem::size_of_val(&value) as libc::socklen_t;
    let (to, size) = ((&raw mut value).cast(), &raw mut length);
    // SAFETY: the kernel writes at most `length` bytes to `value`.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, to, size) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The places in `streams` of those that have something to read or have ended, within `timeout`.
pub fn readable(streams: &[TcpStream], timeout: Duration) -> Vec<usize> {
    let mut polled: Vec<libc::pollfd> = streams
        .iter()
        .map(|stream| libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    // SAFETY: the array holds as many as are said.
    let ready = unsafe {
        libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout.as_millis() as i32)
    };
    assert!(ready >= 0, "poll: {}", io::Error::last_os_error());
    (0..polled.len()).filter(|&at| polled[at].revents != 0).collect()
}
