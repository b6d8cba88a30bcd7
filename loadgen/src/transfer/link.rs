//! A connection with blocking calls.

use super::POLL;
use super::progress::Shared;
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{Answer, BODY_BYTES_MAX, Packet};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Speed that the timeout assumes for server work on a whole file (sync, digest), bytes per second.
const WORK_BYTES_PER_S: u64 = 32 << 20;
/// Size of the receive buffer.
const BUFFER_BYTES: usize = 256 << 10;

/// A connection to the server.
pub struct Link {
    stream: BufReader<TcpStream>,
    timeout: Duration,
    shared: Arc<Shared>,
}

impl Link {
    /// Connects. Each later call fails after `timeout` without progress.
    ///
    /// # Errors
    /// The connect failed, or a signal arrived.
    pub fn connect(to: SocketAddr, timeout: Duration, shared: Arc<Shared>) -> Result<Self, Fault> {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(TcpStream::connect_timeout(&to, timeout)));
        let stream = loop {
            match receiver.recv_timeout(POLL) {
                Ok(stream) => break stream,
                Err(_) if shared.is_interrupted() => break Err(io::ErrorKind::Interrupted.into()),
                Err(_) => {}
            }
        };
        let stream = stream.and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            shared.opened(stream.try_clone()?);
            Ok(stream)
        });
        let stream = stream.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorKind::ConnectRefused,
                _ => ErrorKind::ConnectFailed,
            };
            let detail = format_args!("connect to {to}: {error}; is the server running there?");
            Fault::new(kind, detail)
        })?;
        Ok(Self { stream: BufReader::with_capacity(BUFFER_BYTES, stream), timeout, shared })
    }

    /// Returns the address of the server, or an empty string after the connection broke.
    #[must_use]
    pub fn server(&self) -> String {
        let address = self.stream.get_ref().peer_addr();
        address.map(|address| address.to_string()).unwrap_or_default()
    }

    /// Gives the server time to process a file of this size before its next answer.
    ///
    /// # Errors
    /// errno of setsockopt(2).
    pub fn expect_work(&self, size_bytes: u64) -> Result<(), Fault> {
        let timeout = self.timeout + Duration::from_secs(size_bytes / WORK_BYTES_PER_S);
        let set = self.stream.get_ref().set_read_timeout(Some(timeout));
        set.map_err(|error| self.failed(&error))
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// The connection broke, or the server read nothing within the timeout.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let sent = self.stream.get_mut().write_all(bytes);
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let (timeout, progress) = (self.timeout, self.shared.progress());
                let why = format_args!("the server took no data for {timeout:.1?} {progress}");
                Fault::new(ErrorKind::Timeout, why)
            }
            _ => self.failed(&error),
        })
    }

    /// Reads at least one byte into `bytes` and returns the number of bytes.
    ///
    /// # Errors
    /// The connection broke or ended, or nothing arrived within the timeout.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Fault> {
        loop {
            match self.stream.read(bytes) {
                Ok(0) => return Err(self.failed(&io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.stream.read_exact(bytes).map_err(|error| self.failed(&error))
    }

    /// Returns the body of the next packet, without broadcasts.
    ///
    /// # Errors
    /// As [`Self::read`], or the bytes are no packet.
    pub fn packet(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(body) = self.answer()? {
                return Ok(body);
            }
        }
    }

    /// As [`Self::packet`], if a packet has arrived already.
    ///
    /// # Errors
    /// As [`Self::packet`].
    pub fn early_packet(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        while self.is_readable()? {
            if let Some(body) = self.answer()? {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    /// Returns the body of the next packet; `None` for a broadcast.
    fn answer(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > BODY_BYTES_MAX {
            let why = format_args!("a packet with a body of {length} bytes is too long");
            return Err(Fault::new(ErrorKind::Protocol, why));
        }
        let mut body = vec![0; length];
        self.read_exact(&mut body)?;
        let is_message = parse(&body)?.answer == Answer::Message;
        Ok((!is_message).then_some(body))
    }

    fn is_readable(&mut self) -> Result<bool, Fault> {
        if !self.stream.buffer().is_empty() {
            return Ok(true);
        }
        let socket = self.stream.get_ref();
        let peek = || -> io::Result<bool> {
            socket.set_nonblocking(true)?;
            let found = socket.peek(&mut [0]);
            socket.set_nonblocking(false)?;
            match found {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                found => found.map(|_| true),
            }
        };
        peek().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Fault {
        let progress = self.shared.progress();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let why = format_args!("the server closed the connection (FIN) {progress}");
                Fault::new(ErrorKind::Eof, why)
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Fault::new(
                ErrorKind::Reset,
                format_args!("the connection broke {progress}: {error}"),
            ),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let timeout = self.timeout;
                Fault::new(ErrorKind::Timeout, format_args!("no data for {timeout:.1?} {progress}"))
            }
            _ => Fault::new(ErrorKind::Other, format_args!("the connection failed: {error}")),
        }
    }
}

/// Parses the body of a packet.
///
/// # Errors
/// The bytes are no packet.
pub fn parse(body: &[u8]) -> Result<Packet<'_>, Fault> {
    Packet::parse(body).map_err(|why| Fault::new(ErrorKind::Protocol, why))
}

/// Makes the fault for a packet that answers no request.
#[must_use]
pub fn unanswering(packet: &Packet<'_>) -> Fault {
    let (id, name) = (packet.id, packet.answer.name());
    match &packet.answer {
        Answer::Error(error) => Fault::new(ErrorKind::BadStatus, error),
        _ => {
            Fault::new(ErrorKind::Protocol, format_args!("{name} {id} answers no pending request"))
        }
    }
}

/// Makes the fault for an answer that the protocol does not allow after `moved_bytes` of a file.
#[must_use]
pub fn unexpected(answer: &Answer<'_>, moved_bytes: u64, size_bytes: Option<u64>) -> Fault {
    let name = answer.name();
    let of = size_bytes.map(|size| format!(" of {size}")).unwrap_or_default();
    let detail = format_args!("unexpected {name} after {moved_bytes}{of} bytes");
    Fault::new(ErrorKind::Protocol, detail)
}
