//! The probes of each protocol and the check of their answers.

use super::loss::How;
use crate::http::bodies::{Bodies, Deviant};
use crate::http::reply::{Last, Parser, Reply};
use crate::http::{Url, head::HEAD_BYTES_MAX};
use crate::packets::{Answer, BODY_BYTES_MAX, LENGTH_BYTES, Packet, Request};
use crate::stream::Stream;

/// Size of an echo probe.
const PROBE_BYTES: usize = 32;
/// Maximum number of unexpected bytes that a message shows.
const SHOWN_BYTES_MAX: usize = 60;

/// The protocol of all connections.
pub enum Tongue {
    /// Echoes of bytes from the connection's own stream.
    Echo(Echoes),
    /// The same in ECHO packets.
    Packets(Echoes),
    /// GET requests for one URL.
    Http(Box<Gets>),
}

/// State of the echo protocols.
pub struct Echoes {
    seed: u64,
    connections: u64,
}

/// State of the HTTP protocol: the request and the expected bodies.
pub struct Gets {
    request: Vec<u8>,
    last: Last,
    bodies: Bodies,
    vary_ok: bool,
}

/// Receive state of a connection, which exists only while a probe is in flight.
#[derive(Debug, Default)]
pub struct Ear {
    /// Received and not yet consumed.
    unread: Vec<u8>,
    /// The HTTP parser.
    parser: Parser,
}

impl Ear {
    /// Returns true if the state can be dropped.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unread.is_empty() && self.parser.is_between_replies()
    }
}

/// A probe in flight.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The connection's number.
    pub number: u64,
    /// Number of earlier probes on the connection.
    pub round: u64,
}

/// The result of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The answer is incomplete.
    Part,
    /// The answer is complete.
    Answer,
    /// The answer is complete, and the server will close the connection.
    LastAnswer,
}

/// An error in received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The kind of loss that it causes.
    pub how: How,
    /// The observation, for people.
    pub detail: String,
}

impl Wrong {
    fn new(how: How, detail: impl std::fmt::Display) -> Self {
        Self { how, detail: detail.to_string() }
    }
}

impl Tongue {
    /// Creates the echo protocol for `connections`.
    #[must_use]
    pub const fn echo(seed: u64, connections: u64) -> Self {
        Self::Echo(Echoes { seed, connections })
    }

    /// Creates the packet protocol for `connections`.
    #[must_use]
    pub const fn packets(seed: u64, connections: u64) -> Self {
        Self::Packets(Echoes { seed, connections })
    }

    /// Creates the HTTP protocol for `url`. With `vary_ok`, bodies are not compared.
    #[must_use]
    pub fn http(url: &Url, vary_ok: bool) -> Self {
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", url.path, url.host);
        let (last, bodies) = (Last::default(), Bodies::default());
        Self::Http(Box::new(Gets { request: request.into(), last, bodies, vary_ok }))
    }

    /// Returns the bytes of a probe.
    #[must_use]
    pub fn question(&self, probe: Probe) -> Vec<u8> {
        match self {
            Self::Echo(echoes) => echoes.bytes(probe).to_vec(),
            Self::Packets(echoes) => Request::ECHO.packet(id_of(probe), &[&echoes.bytes(probe)]),
            Self::Http(gets) => gets.request.clone(),
        }
    }

    /// Handles received bytes; `probe` is the probe in flight.
    ///
    /// # Errors
    /// An error that makes the connection unusable.
    pub fn hear(
        &mut self,
        ear: &mut Ear,
        probe: Option<Probe>,
        bytes: &[u8],
    ) -> Result<Heard, Wrong> {
        ear.unread.extend_from_slice(bytes);
        match self {
            Self::Echo(echoes) => echoes.hear_bytes(ear, probe),
            Self::Packets(echoes) => echoes.hear_packets(ear, probe),
            Self::Http(gets) => gets.hear(ear, probe),
        }
    }

    /// Handles the server's FIN during a probe. Returns true if the FIN ends an answer.
    ///
    /// # Errors
    /// The answer is wrong.
    pub fn end(&mut self, ear: &mut Ear, probe: Probe) -> Result<bool, Wrong> {
        match self {
            Self::Http(gets) => {
                ear.parser.end().map_or(Ok(false), |reply| gets.judge(reply, probe).map(|_| true))
            }
            Self::Echo(_) | Self::Packets(_) => Ok(false),
        }
    }

    /// Returns answers that were accepted before the expected body was known, and differ from it:
    /// the number of the connection, and the error. At the end of the run (`is_over`) no further
    /// answer can decide which body is expected.
    pub fn late(&mut self, is_over: bool) -> Vec<(usize, Wrong)> {
        let Self::Http(gets) = self else { return Vec::new() };
        if is_over {
            gets.bodies.finish();
        }
        let late = gets.bodies.late().into_iter().filter(|_| !gets.vary_ok);
        late.map(|deviant| (deviant.tag as usize, differs(&deviant))).collect()
    }
}

impl Echoes {
    fn bytes(&self, probe: Probe) -> [u8; PROBE_BYTES] {
        let mut bytes = [0; PROBE_BYTES];
        Stream::new(self.seed, probe.number).fill(probe.round * PROBE_BYTES as u64, &mut bytes);
        bytes
    }

    fn hear_bytes(&self, ear: &mut Ear, probe: Option<Probe>) -> Result<Heard, Wrong> {
        let Some(probe) = probe else { return Err(unasked(&ear.unread)) };
        let must = self.bytes(probe);
        let seen = ear.unread.len().min(PROBE_BYTES);
        if ear.unread[..seen] != must[..seen] {
            return Err(self.foreign(probe, &ear.unread[..seen]));
        }
        if ear.unread.len() > PROBE_BYTES {
            return Err(unasked(&ear.unread[PROBE_BYTES..]));
        }
        if seen < PROBE_BYTES {
            return Ok(Heard::Part);
        }
        ear.unread = Vec::new();
        Ok(Heard::Answer)
    }

    fn hear_packets(&self, ear: &mut Ear, probe: Option<Probe>) -> Result<Heard, Wrong> {
        let mut heard = Heard::Part;
        let mut used = 0;
        while let Some((length, rest)) = ear.unread[used..].split_first_chunk::<LENGTH_BYTES>() {
            let body_bytes = u32::from_be_bytes(*length) as usize;
            if body_bytes > BODY_BYTES_MAX {
                let detail = format_args!(
                    "a packet announces a body of {body_bytes} bytes; the maximum is {BODY_BYTES_MAX}"
                );
                return Err(Wrong::new(How::Protocol, detail));
            }
            let Some(body) = rest.get(..body_bytes) else { break };
            let packet = Packet::parse(body).map_err(|wrong| Wrong::new(How::Protocol, wrong))?;
            match (packet.answer, probe) {
                // Another client's broadcast.
                (Answer::Message, _) => {}
                (Answer::Error(error), _) => return Err(Wrong::new(How::BadStatus, error)),
                (Answer::Echoed(bytes), Some(probe))
                    if packet.id == id_of(probe) && heard == Heard::Part =>
                {
                    if bytes != self.bytes(probe) {
                        return Err(self.foreign(probe, bytes));
                    }
                    heard = Heard::Answer;
                }
                (other, _) => {
                    let detail =
                        format_args!("{} {} answers no pending request", other.name(), packet.id);
                    return Err(Wrong::new(How::Protocol, detail));
                }
            }
            used += LENGTH_BYTES + body_bytes;
        }
        ear.unread.drain(..used);
        Ok(heard)
    }

    /// Describes wrong bytes, and names the connection and probe to which they belong, if known.
    #[cold]
    fn foreign(&self, probe: Probe, bytes: &[u8]) -> Wrong {
        let at = bytes.iter().zip(self.bytes(probe)).position(|(byte, must)| *byte != must);
        let whole = bytes.len() == PROBE_BYTES;
        let is_of = |other: Probe| whole && bytes == self.bytes(other);
        // Other connections are within a few rounds of this one.
        let rounds = probe.round.saturating_sub(2)..=probe.round + 1;
        let own = (0..probe.round).map(|round| Probe { round, ..probe });
        let others = (0..self.connections)
            .flat_map(|number| rounds.clone().map(move |round| Probe { number, round }));
        let whose = own.chain(others).find(|other| is_of(*other));
        let detail = match (whose, at) {
            (Some(other), _) if other.number == probe.number => {
                format!(
                    "probe {} was answered with the bytes of probe {}",
                    probe.round, other.round
                )
            }
            (Some(other), _) => format!(
                "probe {} was answered with the bytes of connection {}, probe {}",
                probe.round, other.number, other.round
            ),
            (None, Some(at)) => format!(
                "byte {at} of the answer to probe {} is {:#04x}, expected {:#04x}",
                probe.round,
                bytes[at],
                self.bytes(probe)[at]
            ),
            (None, None) => format!(
                "the answer to probe {} has {} bytes, expected {PROBE_BYTES}",
                probe.round,
                bytes.len()
            ),
        };
        Wrong::new(How::WrongBytes, detail)
    }
}

impl Gets {
    fn hear(&mut self, ear: &mut Ear, probe: Option<Probe>) -> Result<Heard, Wrong> {
        let Some(probe) = probe else { return Err(unasked(&ear.unread)) };
        let step = ear
            .parser
            .advance(&ear.unread, false, &mut self.last)
            .map_err(|wrong| Wrong::new(How::Protocol, wrong))?;
        ear.unread.drain(..step.used);
        let Some(reply) = step.reply else {
            assert!(ear.unread.len() <= HEAD_BYTES_MAX, "the parser uses or refuses more");
            return Ok(Heard::Part);
        };
        if !ear.unread.is_empty() {
            return Err(unasked(&ear.unread));
        }
        ear.unread = Vec::new();
        self.judge(reply, probe)
    }

    fn judge(&mut self, reply: Reply, probe: Probe) -> Result<Heard, Wrong> {
        if reply.status >= 400 {
            return Err(Wrong::new(How::BadStatus, format_args!("status {}", reply.status)));
        }
        let expected = self.bodies.take(reply.status, reply.body, probe.number);
        if let Some(expected) = expected.filter(|it| *it != reply.body && !self.vary_ok) {
            let deviant = Deviant::new(reply.status, reply.body, expected, probe.number);
            return Err(differs(&deviant));
        }
        Ok(if reply.close { Heard::LastAnswer } else { Heard::Answer })
    }
}

fn differs(deviant: &Deviant) -> Wrong {
    Wrong::new(How::WrongBytes, deviant.text())
}

/// Returns the id of a probe's packet. Ids start at 1: the server uses 0 for packets that answer no
/// particular request.
fn id_of(probe: Probe) -> u32 {
    (probe.round % u64::from(u32::MAX)) as u32 + 1
}

fn unasked(bytes: &[u8]) -> Wrong {
    let shown = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    let detail = format_args!("{} bytes without a probe: \"{shown}\"", bytes.len());
    Wrong::new(How::Unasked, detail)
}

#[cfg(test)]
mod tests;
