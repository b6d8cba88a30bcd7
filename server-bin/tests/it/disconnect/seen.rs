//! A client that sends messages one after the other and writes down how its connection ends.

use crate::common::PATIENCE;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of a message.
pub const MESSAGE: usize = 64;

/// What came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Fin,
    Rst,
}

/// How a connection went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Messages that came back whole.
    pub whole: usize,
    /// Bytes that came back of the one after them.
    pub part: usize,
    pub last: Last,
}

/// A connection whose server has ended it.
pub struct Visit {
    pub seen: Seen,
    /// From the last message to the end.
    pub last_message_took: Duration,
    /// Our side of it is still open, unless the RST came before connect(2) had returned.
    pub stream: Option<TcpStream>,
}

impl Visit {
    /// It ended so after a part of an echo.
    pub fn is_cut_by(&self, last: Last) -> bool {
        self.seen.last == last && self.seen.part > 0
    }

    /// It ended so, and nothing came back of the last message.
    pub fn is_unanswered_by(&self, last: Last) -> bool {
        self.seen.last == last && self.seen.part == 0
    }
}

/// Sends messages until the server ends the connection.
#[track_caller]
pub fn visit(address: SocketAddr) -> Visit {
    let begun = Instant::now();
    let mut stream = match TcpStream::connect(address) {
        Ok(stream) => stream,
        Err(error) => {
            let seen = Seen { whole: 0, part: 0, last: ended_by(&error) };
            return Visit { seen, last_message_took: begun.elapsed(), stream: None };
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut whole = 0;
    loop {
        let message: [u8; MESSAGE] = std::array::from_fn(|at| (whole * 31 + at * 7) as u8);
        let begun = Instant::now();
        let (part, last) = match stream.write_all(&message) {
            Ok(()) => read_back(&mut stream, &message),
            Err(error) => (0, Some(ended_by(&error))),
        };
        match last {
            None => whole += 1,
            Some(last) => {
                let seen = Seen { whole, part, last };
                return Visit { seen, last_message_took: begun.elapsed(), stream: Some(stream) };
            }
        }
    }
}

/// How much of a message comes back, and the end unless all of it does.
#[track_caller]
fn read_back(stream: &mut TcpStream, message: &[u8]) -> (usize, Option<Last>) {
    let mut back = [0; MESSAGE];
    let mut read = 0;
    while read < MESSAGE {
        match stream.read(&mut back[read..]) {
            Ok(0) => return (read, Some(Last::Fin)),
            Ok(bytes) => read += bytes,
            Err(error) => return (read, Some(ended_by(&error))),
        }
        assert_eq!(back[..read], message[..read], "other bytes came back");
    }
    (read, None)
}

#[track_caller]
fn ended_by(error: &Error) -> Last {
    let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(reset.contains(&error.kind()), "that is no reset: {error}");
    Last::Rst
}
