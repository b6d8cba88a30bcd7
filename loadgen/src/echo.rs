//! Echo: what comes back must be what was sent.

use crate::protocol::{Answer, ErrorKind, Fault, Protocol, Step};
use crate::stream::{Stream, Tracer};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Bytes generated at once.
const BLOCK_BYTES: usize = 16 << 10;

/// Messages of one size, cut from the stream of their connection.
pub struct Echo {
    seed: u64,
    size_bytes: u64,
    tracer: Tracer,
    block: Box<[u8; BLOCK_BYTES]>,
}

/// How far a connection is in its stream.
pub struct EchoState {
    stream: Stream,
    sent: u64,
    received: u64,
    number: u64,
}

impl Echo {
    /// Messages of `size_bytes`, in a run with `seed`; `numbers` is what its shards share, see
    /// [`Tracer`].
    #[must_use]
    pub fn new(seed: u64, size_bytes: u64, numbers: Arc<AtomicU64>) -> Self {
        assert!(size_bytes > 0, "an empty message has no echo");
        let tracer = Tracer::new(seed, numbers);
        Self { seed, size_bytes, tracer, block: Box::new([0; BLOCK_BYTES]) }
    }
}

impl Protocol for Echo {
    type State = EchoState;

    fn open(&self, number: u64) -> EchoState {
        self.tracer.opened(number);
        EchoState { stream: Stream::new(self.seed, number), sent: 0, received: 0, number }
    }

    fn request(&mut self, state: &mut EchoState, count: usize, mut send: impl FnMut(&[u8])) -> u64 {
        let bytes = self.size_bytes * count as u64;
        let end = state.sent + bytes;
        while state.sent < end {
            let block = &mut self.block[..(end - state.sent).min(BLOCK_BYTES as u64) as usize];
            state.stream.fill(state.sent, block);
            send(block);
            state.sent += block.len() as u64;
        }
        self.tracer.sent(end);
        bytes
    }

    fn is_between_replies(&self, state: &EchoState) -> bool {
        state.received.is_multiple_of(self.size_bytes)
    }

    fn receive(&mut self, state: &mut EchoState, bytes: &[u8]) -> Result<Step, Fault> {
        let missing = self.size_bytes - state.received % self.size_bytes;
        let used = missing.min(bytes.len() as u64) as usize;
        if let Some(at) = state.stream.mismatch(state.received, &bytes[..used]) {
            let offset = state.received + at as u64;
            let what = format_args!("connection {}: byte {offset}", state.number);
            return Err(self.tracer.fault(state.stream, offset, &bytes[at..], what));
        }
        state.received += used as u64;
        let answer = Answer { place: 0, status: None, fault: None, last: false };
        Ok(Step { used, need: 0, answer: (used as u64 == missing).then_some(answer) })
    }

    fn end(&mut self, state: &mut EchoState) -> Result<Answer, Fault> {
        Err(Fault::new(
            ErrorKind::Eof,
            format_args!(
                "connection {}: closed by the peer after {} of {} bytes",
                state.number, state.received, state.sent
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends `count` messages and returns the bytes.
    fn sent(echo: &mut Echo, state: &mut EchoState, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let announced = echo.request(state, count, |block| bytes.extend_from_slice(block));
        assert_eq!(announced, bytes.len() as u64);
        bytes
    }

    proptest! {
        #[test]
        fn every_message_comes_back_however_it_is_cut(
            size in 1_u64..40_000, count in 1_usize..4, cut in 1_usize..50_000,
        ) {
            let mut echo = Echo::new(7, size, Arc::default());
            let mut state = echo.open(3);
            let bytes = sent(&mut echo, &mut state, count);
            let mut answers = 0;
            for mut piece in bytes.chunks(cut) {
                while !piece.is_empty() {
                    let step = echo.receive(&mut state, piece)
                        .map_err(|fault| TestCaseError::fail(fault.detail))?;
                    prop_assert!(step.used > 0);
                    piece = &piece[step.used..];
                    answers += usize::from(step.answer.is_some());
                }
            }
            prop_assert_eq!(answers, count);
        }
    }

    #[test]
    fn a_wrong_byte_is_named() {
        let mut echo = Echo::new(7, 100, Arc::default());
        let mut state = echo.open(3);
        let mut bytes = sent(&mut echo, &mut state, 2);
        bytes[142] ^= 0xff;
        let first = echo.receive(&mut state, &bytes).expect("the first message is right");
        let fault = echo.receive(&mut state, &bytes[first.used..]).expect_err("the second is not");
        assert_eq!(fault.kind, ErrorKind::WrongBytes);
        assert!(fault.detail.contains("connection 3: byte 142 is"), "{}", fault.detail);
    }

    #[test]
    fn another_connections_bytes_are_traced_to_it() {
        let mut echo = Echo::new(7, 64, Arc::default());
        let (mut one, mut other) = (echo.open(1), echo.open(2));
        let bytes = sent(&mut echo, &mut one, 1);
        sent(&mut echo, &mut other, 1);
        let fault = echo.receive(&mut other, &bytes).expect_err("not its own");
        assert_eq!(fault.kind, ErrorKind::ForeignBytes);
        assert!(fault.detail.ends_with("these are bytes 0 of connection 1"), "{}", fault.detail);
    }
}
