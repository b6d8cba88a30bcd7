//! Load on a packet server: echoes and digests, each answer checked.
//!
//! # Order
//! Answers to digests come in the order in which they were asked for, others may overtake: what an
//! answer belongs to is told by its id.

use super::wire::{Answer as Said, BODY_BYTES_MAX, DIGEST_BYTES, Packet, Request, ServerError};
use crate::protocol::{Answer, ErrorKind, Fault, Protocol, Step};
use crate::stream::{Stream, Tracer};
use crate::units::show_hex;
use ringwright::Framing;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Bytes generated at once.
const BLOCK_BYTES: usize = 16 << 10;

/// Requests of one size, their bytes cut from the stream of their connection.
pub struct Packets {
    seed: u64,
    size_bytes: usize,
    /// Every such request is a digest; 0: none.
    digest_every: u64,
    framing: Framing,
    tracer: Tracer,
    block: Box<[u8; BLOCK_BYTES]>,
}

/// What a connection waits for.
pub struct PacketsState {
    stream: Stream,
    number: u64,
    asked: u64,
    answered: u64,
    /// Requests without an answer by their place in the stream of requests, oldest first.
    waiting: VecDeque<u64>,
}

impl Packets {
    /// Requests of `size_bytes` in a run with `seed`; each `digest_every`-th is a digest, with 0
    /// none is. `numbers` is what the run's shards share, see [`Tracer`].
    #[must_use]
    pub fn new(
        seed: u64,
        size_bytes: usize,
        digest_every: u64,
        framing: Framing,
        numbers: Arc<AtomicU64>,
    ) -> Self {
        assert!(framing.body_bytes_max() == BODY_BYTES_MAX, "the protocol has one maximum");
        let block = Box::new([0; BLOCK_BYTES]);
        let tracer = Tracer::new(seed, numbers);
        Self { seed, size_bytes, digest_every, framing, tracer, block }
    }

    /// Counted from another place on each connection, so that those of one request ask for
    /// digests too.
    fn is_digest(&self, state: &PacketsState, index: u64) -> bool {
        self.digest_every > 0 && (state.number + index + 1).is_multiple_of(self.digest_every)
    }

    /// Calls `each` with every part of the bytes of request `index`.
    fn bytes_of(&mut self, stream: Stream, index: u64, mut each: impl FnMut(&[u8])) {
        let (mut at, end) = self.range_of(index);
        while at < end {
            let block = &mut self.block[..(end - at).min(BLOCK_BYTES as u64) as usize];
            stream.fill(at, block);
            each(block);
            at += block.len() as u64;
        }
    }

    fn range_of(&self, index: u64) -> (u64, u64) {
        let size = self.size_bytes as u64;
        (index * size, (index + 1) * size)
    }

    fn digest_of(&mut self, stream: Stream, index: u64) -> [u8; DIGEST_BYTES] {
        let mut hash = Sha256::new();
        self.bytes_of(stream, index, |block| hash.update(block));
        hash.finalize().into()
    }

    /// What a packet means for the requests that wait; `None`: nothing.
    fn judge(
        &mut self,
        state: &mut PacketsState,
        packet: Packet<'_>,
    ) -> Result<Option<Answer>, Fault> {
        let Packet { id, answer } = packet;
        let place = state.waiting.iter().position(|index| id_of(*index) == id);
        let Some(place) = place else { return self.unasked(state, id, &answer) };
        let index = state.waiting[place];
        let (mut status, mut last) = (None, false);
        let fault = match (answer, self.is_digest(state, index)) {
            (Said::Error(error), _) => {
                (status, last) = (Some(error.code), error.is_last());
                Some(refused(state, id, &error))
            }
            (Said::Echoed(bytes), false) => self.check_echo(state, index, bytes),
            (Said::Digested(digest), true) => {
                self.check_order(state, place)?;
                self.check_digest(state, index, digest)
            }
            (other, is_digest) => {
                let asked = if is_digest { "DIGEST" } else { "ECHO" };
                let detail = format_args!("{asked} {id} was answered by {}", other.name());
                return Err(protocol(state, detail));
            }
        };
        state.waiting.remove(place);
        state.answered += 1;
        Ok(Some(Answer { place, status, fault, last }))
    }

    /// Digests come in order: no older one waits.
    fn check_order(&self, state: &PacketsState, place: usize) -> Result<(), Fault> {
        let mut older = state.waiting.iter().take(place);
        match older.find(|index| self.is_digest(state, **index)) {
            None => Ok(()),
            Some(index) => {
                let (id, older) = (id_of(state.waiting[place]), id_of(*index));
                let detail = format_args!("DIGESTED {id} came before {older}, asked for earlier");
                Err(protocol(state, detail))
            }
        }
    }

    fn check_echo(&mut self, state: &PacketsState, index: u64, bytes: &[u8]) -> Option<Fault> {
        let (start, _) = self.range_of(index);
        let (number, id, size) = (state.number, id_of(index), self.size_bytes);
        if bytes.len() != size {
            let detail = format_args!(
                "connection {number}: ECHOED {id} has {} of {size} bytes",
                bytes.len()
            );
            return Some(Fault::new(ErrorKind::WrongBytes, detail));
        }
        let at = state.stream.mismatch(start, bytes)?;
        let what = format_args!("connection {number}: byte {at} of ECHOED {id}");
        Some(self.tracer.fault(state.stream, start + at as u64, &bytes[at..], what))
    }

    fn check_digest(
        &mut self,
        state: &PacketsState,
        index: u64,
        digest: [u8; DIGEST_BYTES],
    ) -> Option<Fault> {
        let must = self.digest_of(state.stream, index);
        (digest != must).then(|| {
            let (number, id) = (state.number, id_of(index));
            let detail = format_args!(
                "connection {number}: DIGESTED {id} is {}, not {}",
                show_hex(&digest),
                show_hex(&must)
            );
            Fault::new(ErrorKind::WrongBytes, detail)
        })
    }

    /// A packet about no request that waits.
    #[cold]
    fn unasked(
        &self,
        state: &PacketsState,
        id: u32,
        answer: &Said<'_>,
    ) -> Result<Option<Answer>, Fault> {
        match answer {
            // Somebody else's broadcast.
            Said::Message => Ok(None),
            Said::Error(error) if id == 0 => Err(refused(state, id, error)),
            other => {
                let detail = format_args!("{} {id}, which waits for no answer", other.name());
                Err(protocol(state, detail))
            }
        }
    }
}

impl Protocol for Packets {
    type State = PacketsState;

    /// Broadcasts of other clients.
    const MAY_SPEAK_UNASKED: bool = true;

    fn open(&self, number: u64) -> PacketsState {
        let stream = Stream::new(self.seed, number);
        self.tracer.opened(number);
        PacketsState { stream, number, asked: 0, answered: 0, waiting: VecDeque::new() }
    }

    fn request(
        &mut self,
        state: &mut PacketsState,
        count: usize,
        mut send: impl FnMut(&[u8]),
    ) -> u64 {
        let mut bytes = 0;
        for _ in 0..count {
            let index = state.asked;
            let request =
                if self.is_digest(state, index) { Request::Digest } else { Request::Echo };
            let head = request.head(id_of(index), self.size_bytes);
            send(&head);
            self.bytes_of(state.stream, index, &mut send);
            state.waiting.push_back(index);
            state.asked += 1;
            self.tracer.sent(self.range_of(index).1);
            bytes += (head.len() + self.size_bytes) as u64;
        }
        bytes
    }

    /// What is left of a packet is not used before it is whole.
    fn is_between_replies(&self, _state: &PacketsState) -> bool {
        true
    }

    fn receive(&mut self, state: &mut PacketsState, bytes: &[u8]) -> Result<Step, Fault> {
        let mut packets = self.framing.packets(bytes);
        let mut answer = None;
        while answer.is_none()
            && let Some(body) = packets.next()
        {
            let body = body.map_err(|too_long| protocol(state, too_long))?;
            let packet = Packet::parse(body).map_err(|wrong| protocol(state, wrong))?;
            answer = self.judge(state, packet)?;
        }
        Ok(Step { used: packets.used(), need: packets.need(), answer })
    }

    fn end(&mut self, state: &mut PacketsState) -> Result<Answer, Fault> {
        let PacketsState { number, asked, answered, .. } = state;
        let detail = format_args!(
            "connection {number}: closed by the peer after {answered} of {asked} answers"
        );
        Err(Fault::new(ErrorKind::Eof, detail))
    }
}

/// The id of a connection's request, from 1: 0 is what the server uses for no request in
/// particular.
fn id_of(index: u64) -> u32 {
    (index % u64::from(u32::MAX)) as u32 + 1
}

#[cold]
fn protocol(state: &PacketsState, detail: impl std::fmt::Display) -> Fault {
    Fault::new(ErrorKind::Protocol, format_args!("connection {}: {detail}", state.number))
}

#[cold]
fn refused(state: &PacketsState, id: u32, error: &ServerError) -> Fault {
    let detail = format_args!("connection {}: request {id}: {error}", state.number);
    Fault::new(ErrorKind::BadStatus, detail)
}

#[cfg(test)]
mod tests;
