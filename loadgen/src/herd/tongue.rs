//! What a probe asks and what must come back, per protocol.

use super::loss::How;
use crate::http::fingerprint::Fingerprint;
use crate::http::reply::{Last, Parser, Reply};
use crate::http::{Url, head::HEAD_BYTES_MAX};
use crate::packets::wire::{Answer, BODY_BYTES_MAX, Packet, Request};
use crate::stream::Stream;

/// Bytes of an echo.
const PROBE_BYTES: usize = 32;
/// Bytes in front of a packet's body: its length.
const LENGTH_BYTES: usize = 4;
/// Of what nobody asked for, as much as is shown.
const SHOWN_BYTES_MAX: usize = 60;

/// What all connections of a herd speak.
pub enum Tongue {
    /// Bytes of a stream of the connection's own.
    Echo(Echoes),
    /// The same in ECHO packets.
    Packets(Echoes),
    /// GETs of one URL.
    Http(Box<Gets>),
}

/// The bytes of the probes.
pub struct Echoes {
    seed: u64,
    connections: u64,
}

/// A GET, and what its answer must be.
pub struct Gets {
    request: Vec<u8>,
    last: Last,
    learnt: Option<Fingerprint>,
}

/// What is kept of a connection while it is spoken to.
#[derive(Debug, Default)]
pub struct Ear {
    /// Heard, and not yet used.
    unread: Vec<u8>,
    /// In the middle of an answer.
    parser: Parser,
}

impl Ear {
    /// Nothing needs to be kept.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unread.is_empty() && self.parser.is_between_replies()
    }
}

/// A probe under way.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The connection's number.
    pub number: u64,
    /// How many probes it had before.
    pub round: u64,
}

/// What the bytes that came amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Not yet an answer.
    Part,
    /// The answer.
    Answer,
    /// The answer, and no other will come on this connection.
    LastAnswer,
}

/// What was wrong with them.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What it counts as.
    pub how: How,
    /// What exactly was seen.
    pub detail: String,
}

impl Wrong {
    fn new(how: How, detail: impl std::fmt::Display) -> Self {
        Self { how, detail: detail.to_string() }
    }
}

impl Tongue {
    /// Echoes for a herd of so many.
    #[must_use]
    pub const fn echo(seed: u64, connections: u64) -> Self {
        Self::Echo(Echoes { seed, connections })
    }

    /// ECHO packets for a herd of so many.
    #[must_use]
    pub const fn packets(seed: u64, connections: u64) -> Self {
        Self::Packets(Echoes { seed, connections })
    }

    /// GETs of `url`.
    #[must_use]
    pub fn http(url: &Url) -> Self {
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", url.path, url.host);
        let gets = Gets { request: request.into(), last: Last::default(), learnt: None };
        Self::Http(Box::new(gets))
    }

    /// The bytes of a probe.
    #[must_use]
    pub fn question(&self, probe: Probe) -> Vec<u8> {
        match self {
            Self::Echo(echoes) => echoes.bytes(probe).to_vec(),
            Self::Packets(echoes) => Request::Echo.packet(id_of(probe), &[&echoes.bytes(probe)]),
            Self::Http(gets) => gets.request.clone(),
        }
    }

    /// Takes what came, during a probe or, when there is none, unasked.
    ///
    /// # Errors
    /// What makes the connection unusable.
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

    /// The server's FIN came in the middle of `ear`: whether that is the end of an answer.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn end(&mut self, ear: &mut Ear) -> Result<bool, Wrong> {
        match self {
            Self::Http(gets) => {
                ear.parser.end().map_or(Ok(false), |reply| gets.judge(reply).map(|_| true))
            }
            Self::Echo(_) | Self::Packets(_) => Ok(false),
        }
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
                let detail = format_args!("a packet announces a body of {body_bytes} bytes");
                return Err(Wrong::new(How::Protocol, detail));
            }
            let Some(body) = rest.get(..body_bytes) else { break };
            let packet = Packet::parse(body).map_err(|wrong| Wrong::new(How::Protocol, wrong))?;
            match (packet.answer, probe) {
                // Somebody else's broadcast.
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
                    let detail = format_args!("{} {}, for no request", other.name(), packet.id);
                    return Err(Wrong::new(How::Protocol, detail));
                }
            }
            used += LENGTH_BYTES + body_bytes;
        }
        ear.unread.drain(..used);
        Ok(heard)
    }

    /// Other bytes than must have come: whose they are, if they are of this herd.
    #[cold]
    fn foreign(&self, probe: Probe, bytes: &[u8]) -> Wrong {
        let at = bytes.iter().zip(self.bytes(probe)).position(|(byte, must)| *byte != must);
        let whole = bytes.len() == PROBE_BYTES;
        let is_of = |other: Probe| whole && bytes == self.bytes(other);
        // Connections are about as far as this one, give or take a turn.
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
                "byte {at} of probe {} came back as {:#04x}, not {:#04x}",
                probe.round,
                bytes[at],
                self.bytes(probe)[at]
            ),
            (None, None) => format!(
                "probe {} came back with {} of {PROBE_BYTES} bytes",
                probe.round,
                bytes.len()
            ),
        };
        Wrong::new(How::WrongBytes, detail)
    }
}

impl Gets {
    fn hear(&mut self, ear: &mut Ear, probe: Option<Probe>) -> Result<Heard, Wrong> {
        if probe.is_none() {
            return Err(unasked(&ear.unread));
        }
        let step = ear
            .parser
            .advance(&ear.unread, &mut self.last)
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
        self.judge(reply)
    }

    fn judge(&mut self, reply: Reply) -> Result<Heard, Wrong> {
        if reply.status >= 400 {
            return Err(Wrong::new(How::BadStatus, format_args!("status {}", reply.status)));
        }
        let must = *self.learnt.get_or_insert(reply.body);
        if reply.body != must {
            let detail = format_args!(
                "a body of {} bytes, not the first answer's of {}",
                reply.body.length, must.length
            );
            return Err(Wrong::new(How::WrongBytes, detail));
        }
        Ok(if reply.close { Heard::LastAnswer } else { Heard::Answer })
    }
}

/// The id of a probe's packet, from 1: 0 is what the server uses for no request in particular.
fn id_of(probe: Probe) -> u32 {
    (probe.round % u64::from(u32::MAX)) as u32 + 1
}

fn unasked(bytes: &[u8]) -> Wrong {
    let shown = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    let detail = format_args!("{} bytes that nobody asked for: \"{shown}\"", bytes.len());
    Wrong::new(How::Unasked, detail)
}

#[cfg(test)]
mod tests;
