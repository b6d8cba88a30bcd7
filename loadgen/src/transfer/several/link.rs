//! A connection with blocking calls.

use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{Answer, BODY_BYTES_MAX, PREFIX_BYTES, Packet};
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Speed that the timeout assumes for server work on a whole file (sync, digest), bytes per second.
const WORK_BYTES_PER_S: u64 = 32 << 20;
/// Size of the receive buffer.
const BUFFER_BYTES: usize = 256 << 10;

/// A connection to the server.
pub struct Link {
    stream: BufReader<TcpStream>,
    timeout: Duration,
}

impl Link {
    /// Each call fails after `timeout` without progress.
    ///
    /// # Errors
    /// errno of setsockopt(2).
    pub fn new(stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::with_capacity(BUFFER_BYTES, stream), timeout })
    }

    /// The socket, to shut it down from another thread.
    ///
    /// # Errors
    /// errno of dup(2).
    pub fn socket(&self) -> io::Result<TcpStream> {
        self.stream.get_ref().try_clone()
    }

    /// Gives the server time to process a file of this size before its next answer.
    pub fn expect_work(&self, size_bytes: u64) -> Result<(), Fault> {
        let timeout = self.timeout + Duration::from_secs(size_bytes / WORK_BYTES_PER_S);
        self.stream.get_ref().set_read_timeout(Some(timeout)).map_err(|error| failed(&error))
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.get_mut().write_all(bytes).map_err(|error| failed(&error))
    }

    /// Fills `bytes`.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.stream.read_exact(bytes).map_err(|error| failed(&error))
    }

    /// The body of the next packet that is no broadcast.
    pub fn packet(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(body) = self.answer()? {
                return Ok(body);
            }
        }
    }

    /// The same, if a packet has arrived already.
    pub fn early_packet(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        while self.is_readable()? {
            if let Some(body) = self.answer()? {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    /// The body of the next packet; `None` for a broadcast.
    fn answer(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(PREFIX_BYTES..=BODY_BYTES_MAX).contains(&length) {
            let why = format_args!("a packet with a body of {length} bytes");
            return Err(Fault::new(ErrorKind::Protocol, why));
        }
        let mut body = vec![0; length];
        self.read(&mut body)?;
        let is_message = parse(&body)?.answer == Answer::Message;
        Ok((!is_message).then_some(body))
    }

    fn is_readable(&mut self) -> Result<bool, Fault> {
        if !self.stream.buffer().is_empty() {
            return Ok(true);
        }
        let socket = self.stream.get_ref();
        let look = || -> io::Result<bool> {
            socket.set_nonblocking(true)?;
            let found = socket.peek(&mut [0]);
            socket.set_nonblocking(false)?;
            match found {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                found => found.map(|_| true),
            }
        };
        look().map_err(|error| failed(&error))
    }
}

/// Parses the body of a packet.
pub fn parse(body: &[u8]) -> Result<Packet<'_>, Fault> {
    Packet::parse(body).map_err(|why| Fault::new(ErrorKind::Protocol, why))
}

/// The fault for an answer that answers nothing.
pub fn unexpected(packet: &Packet<'_>) -> Fault {
    let (id, name) = (packet.id, packet.answer.name());
    match &packet.answer {
        Answer::Error(error) => Fault::new(ErrorKind::BadStatus, error),
        _ => Fault::new(ErrorKind::Protocol, format_args!("unexpected {name} {id}")),
    }
}

fn failed(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Fault::new(ErrorKind::Eof, "the server closed the connection (FIN)")
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Fault::new(ErrorKind::Reset, format_args!("the connection broke: {error}"))
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Fault::new(ErrorKind::Timeout, "no progress within --timeout")
        }
        _ => Fault::new(ErrorKind::Other, format_args!("the connection failed: {error}")),
    }
}
