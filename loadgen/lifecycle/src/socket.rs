//! The few things that scripts do to a socket. Nothing here blocks, and nothing raises SIGPIPE.

use super::dialect::Ending;
use crate::system::bind_no_port;
use socket2::{Domain, Protocol, SockFilter, Type};
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

/// A TCP connection, or one on its way.
#[derive(Debug)]
pub struct Socket(socket2::Socket);

/// How far a connect has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connecting {
    /// There is no answer yet.
    Pending,
    /// The handshake is done.
    Done,
    /// The handshake was done, and a reset has come since.
    Reset,
    /// ECONNREFUSED: a reset was the answer.
    Refused,
    /// ETIMEDOUT: the kernel has given up.
    Timeout,
    /// Another errno.
    Failed(i32),
}

impl Socket {
    /// A socket that connects to `to`; from `from`, if that is given, of which the port may be 0.
    /// With a `rcvbuf` in bytes the window is small from the SYN on.
    ///
    /// # Errors
    /// errno of `socket(2)`, `setsockopt(2)`, `bind(2)` and `connect(2)`: [`is_ours`] tells whether
    /// it says anything of the server.
    pub fn connect(
        to: SocketAddr,
        from: Option<SocketAddr>,
        rcvbuf: Option<u32>,
    ) -> io::Result<Self> {
        let socket =
            socket2::Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = rcvbuf {
            socket.set_recv_buffer_size(bytes as usize)?;
        }
        // Otherwise a port that is named could not be bound beside one that is in use to elsewhere.
        socket.set_reuse_address(true)?;
        if let Some(from) = from {
            if from.port() == 0 {
                bind_no_port(socket.as_fd())?;
            }
            socket.bind(&from.into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => Ok(Self(socket)),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(Self(socket)),
            // The answer came before connect(2) returned; SO_ERROR does not tell it again.
            Err(error) => Err(error),
        }
    }

    /// How far it has come. Takes a pending error: ask only until it is no longer pending.
    pub fn connecting(&self) -> Connecting {
        match self.0.take_error() {
            Ok(None) if self.0.peer_addr().is_ok() => Connecting::Done,
            Ok(None) => Connecting::Pending,
            Ok(Some(error)) | Err(error) => of_connect(&error),
        }
    }

    /// The error that the socket has, if any.
    ///
    /// # Errors
    /// errno of `getsockopt(2)`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
    }

    /// The address and port on our side.
    ///
    /// # Errors
    /// errno of `getsockname(2)`.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()?.as_socket().ok_or_else(|| ErrorKind::AddrNotAvailable.into())
    }

    /// Hands bytes to the kernel: how many.
    ///
    /// # Errors
    /// errno of `send(2)`; `WouldBlock` when it takes none.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_with_flags(bytes, libc::MSG_NOSIGNAL)
    }

    /// Reads what is there: how many bytes; 0 is the peer's FIN.
    ///
    /// # Errors
    /// errno of `recv(2)`; `WouldBlock` when nothing is there.
    pub fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(into)
    }

    /// Looks whether there is anything to be read, and leaves it there: 0 is the peer's FIN.
    ///
    /// # Errors
    /// errno of `recv(2)`; `WouldBlock` when nothing is there.
    pub fn peek(&self) -> io::Result<usize> {
        self.0.peek(&mut [MaybeUninit::uninit()])
    }

    /// Makes room for so many bytes to come. Through a window smaller than a segment, bytes come at
    /// the pace of the sender's persist timer.
    pub fn open_window(&self, bytes: usize) {
        // After an error the former size is sufficient.
        let _ = self.0.set_recv_buffer_size(bytes);
    }

    /// Sends the FIN.
    ///
    /// # Errors
    /// ENOTCONN: it is not connected, or the peer has reset it.
    pub fn fin(&self) -> io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Write)
    }

    /// Closes with a reset (socket(7), SO_LINGER).
    pub fn reset(self) {
        // It cannot fail on a socket; and if it did, the close would still be one.
        let _ = self.0.set_linger(Some(Duration::ZERO));
    }

    /// Nothing that comes is seen any more, by the kernel neither: no ACK leaves.
    ///
    /// # Errors
    /// errno of SO_ATTACH_FILTER.
    pub fn turn_deaf(&self) -> io::Result<()> {
        // `ret 0`: keep no byte of any packet (bpf(4) of BSD; linux/filter.h).
        let nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        self.0.attach_filter(&[nothing])
    }

    /// Closes without a packet (TCP_REPAIR); true if that is allowed. Otherwise with a reset.
    pub fn vanish(self) -> bool {
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the option's value is an int of its size.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_REPAIR,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result != 0 {
            self.reset();
        }
        result == 0
    }

    /// Bytes that have come and are unread (FIONREAD).
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.ioctl(libc::FIONREAD)
    }

    /// Bytes of ours that the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7)); a FIN counts
    /// as one.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.ioctl(libc::TIOCOUTQ)
    }

    fn ioctl(&self, request: libc::Ioctl) -> u64 {
        let mut bytes = MaybeUninit::<libc::c_int>::zeroed();
        // SAFETY: both requests write an int, for which there is room; zeroed is a valid one.
        let bytes = unsafe {
            libc::ioctl(self.0.as_raw_fd(), request, bytes.as_mut_ptr());
            bytes.assume_init()
        };
        bytes.max(0) as u64
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Classifies the errno of a connect.
fn of_connect(error: &io::Error) -> Connecting {
    match error.raw_os_error().unwrap_or(libc::EIO) {
        libc::ECONNREFUSED => Connecting::Refused,
        libc::ETIMEDOUT => Connecting::Timeout,
        libc::ECONNRESET | libc::EPIPE => Connecting::Reset,
        errno => Connecting::Failed(errno),
    }
}

/// How a connect ended that failed with such an errno.
#[must_use]
pub fn ending_of(error: &io::Error) -> Ending {
    match of_connect(error) {
        Connecting::Refused => Ending::Refused,
        Connecting::Timeout => Ending::ConnectTimeout,
        _ => Ending::ConnectFailed(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// It is our side that is short of something: descriptors, ports, memory.
#[must_use]
pub fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                // epoll_ctl(2): fs.epoll.max_user_watches.
                | libc::ENOSPC
                // A firewall of our own.
                | libc::EPERM
                | libc::EACCES
                | libc::EADDRNOTAVAIL
                | libc::EADDRINUSE
                | libc::EAGAIN
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread::sleep;

    const MOMENT: Duration = Duration::from_millis(1);

    fn pair(rcvbuf: Option<u32>) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("its address");
        let from = SocketAddr::from(([127, 0, 0, 77], 0));
        let ours = Socket::connect(to, Some(from), rcvbuf).expect("a connect");
        let (theirs, peer) = listener.accept().expect("a connection");
        assert_eq!(peer.ip(), from.ip());
        while ours.connecting() == Connecting::Pending {
            sleep(MOMENT);
        }
        assert_eq!(ours.local().expect("an address"), peer);
        (ours, theirs)
    }

    #[test]
    fn a_fin_and_a_reset_are_told_apart() {
        let (ours, mut theirs) = pair(None);
        assert_eq!(ours.send(b"hello").expect("room"), 5);
        ours.fin().expect("connected");
        let mut received = String::new();
        theirs.read_to_string(&mut received).expect("a FIN");
        assert_eq!(received, "hello");

        let (ours, mut theirs) = pair(None);
        ours.reset();
        let error = theirs.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn what_has_turned_deaf_acknowledges_nothing() {
        use std::io::Write;
        let (ours, mut theirs) = pair(Some(4_096));
        if let Err(error) = ours.turn_deaf() {
            let is_root =
                ringwright_test_support::needs_root("this kernel lets only root filter TCP");
            assert!(!is_root, "a filter: {error}");
            return;
        }
        theirs.write_all(b"hello").expect("room");
        let theirs = Socket(theirs.into());
        sleep(20 * MOMENT);
        assert_eq!((ours.unread(), theirs.unacknowledged()), (0, 5));
        ours.vanish();
    }

    #[test]
    fn a_refused_connect_is_not_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("its address");
        // A close would not do: a process of another test may hold a copy of the descriptor.
        SockRef::from(&listener).shutdown(Shutdown::Read).expect("it listens");
        let outcome = match Socket::connect(to, None, None) {
            Ok(socket) => socket.connecting(),
            Err(error) => {
                assert!(!is_ours(&error));
                of_connect(&error)
            }
        };
        assert_eq!(outcome, Connecting::Refused);
    }
}
