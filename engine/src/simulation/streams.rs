//! Streams of other threads: what they send arrives in order and without a gap, no more than the
//! window is under way, and a stream with room is told of it.

use super::book::{Book, Record};
use super::world::World;
use crate::ring::simulated::Rng;
use crate::{ConnectionId, OutputStream, SendStreamErrorKind};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Streams of a world at most.
const STREAMS_MAX: usize = 6;
/// Content so long is found in one place only.
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 3_000;

/// A stream, and what it has promised.
pub struct Flow {
    stream: OutputStream,
    window_bytes: usize,
    /// The blobs that it took, in their order.
    sent: Vec<Vec<u8>>,
    /// Calls of notices that were asked for, and those that came.
    notices: usize,
    called: Arc<AtomicUsize>,
}

impl Flow {
    fn new(stream: OutputStream, window_bytes: usize) -> Self {
        let (sent, called) = (Vec::new(), Arc::default());
        Self { stream, window_bytes, sent, notices: 0, called }
    }

    fn send(&mut self, rng: &mut Rng, book: &RefCell<Book>) {
        let mut book = book.borrow_mut();
        let blob = book.blob(BYTES_MIN + rng.up_to(BYTES_MAX));
        let before = self.stream.under_way_bytes();
        let sent = self.stream.try_send(book.payload(&blob));
        drop(book);
        match sent {
            Ok(()) => {
                assert!(before < self.window_bytes, "{before} bytes under way, and more sent");
                self.sent.push(blob);
            }
            Err(refused) => {
                assert_eq!(refused.payload.as_ref(), blob, "it comes back as it was");
                let full = refused.kind == SendStreamErrorKind::Full;
                assert!(!full || before > self.window_bytes / 2, "{before} bytes are not full");
                if full && self.is_told() {
                    mark!("a stream is full");
                    self.notices += 1;
                    let called = self.called.clone();
                    self.stream.notify(move || {
                        called.fetch_add(1, Ordering::SeqCst);
                        std::panic::panic_any(super::actor::OnPurpose);
                    });
                }
            }
        }
    }

    /// Returns whether every notice was called.
    fn is_told(&self) -> bool {
        self.called.load(Ordering::SeqCst) == self.notices
    }

    /// Returns whether everything has left, and the stream knows.
    fn is_at_rest(&self) -> bool {
        self.stream.under_way_bytes() == 0 && self.is_told()
    }

    /// Returns whether the payloads that have arrived are the first ones, in order.
    fn is_in_order(&self, received: &[u8]) -> bool {
        let mut rest = received;
        let mut arrived = self.sent.iter().map(|sent| {
            let at = rest.windows(sent.len()).position(|it| it == sent)?;
            rest = &rest[at + sent.len()..];
            Some(at)
        });
        // Nothing comes behind a payload that has not arrived.
        arrived.by_ref().take_while(Option::is_some).for_each(drop);
        arrived.all(|at| at.is_none())
    }
}

impl World {
    /// A stream is opened, or sends.
    pub(super) fn stream(&mut self) {
        let known = self.streams.len();
        if known < STREAMS_MAX && (known == 0 || self.rng.below(8) == 0) {
            let Some(id) = self.book.borrow().anybody(&mut self.rng) else { return };
            let window_bytes = self.rng.pick(&[1, 100, 5_000, 50_000]);
            let stream = self.handle.stream(id, window_bytes);
            self.streams.push(Flow::new(stream, window_bytes));
        }
        let at = self.rng.below(self.streams.len() as u64) as usize;
        for _ in 0..self.rng.up_to(6) {
            self.streams[at].send(&mut self.rng, &self.book);
        }
    }

    /// After the end of all shards: no stream waits for anything, unless its shard leaks.
    pub(super) fn judge_streams(&self) {
        for flow in &self.streams {
            let leaks = !self.lanes[flow.stream.id().shard()].at_rest;
            assert!(leaks || flow.is_at_rest(), "{:?} is not at rest", flow.stream);
        }
    }
}

/// Returns whether a stream to a connection has bytes under way.
pub fn is_streaming(streams: &[Flow], id: ConnectionId) -> bool {
    streams.iter().any(|flow| flow.stream.id() == id && !flow.is_at_rest())
}

/// # Panics
/// If the streams to a connection did not come as they were sent.
pub fn judge_streams(streams: &[Flow], record: &Record, received: &[u8]) {
    for flow in streams.iter().filter(|flow| flow.stream.id() == record.id) {
        assert!(flow.is_in_order(received), "a stream with a gap: {record:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::{Farewell, Role};
    use super::super::run_until;
    use super::super::scenarios::{config, end, go_on, part, world_of};
    use super::*;
    use crate::ring::simulated::{NEVER, Plan, stretch};
    use crate::{Config, Reason};
    use std::time::Duration;

    const PIECE_BYTES: usize = 3_000;

    /// A world with a client and a stream to it.
    fn streaming(plan: Plan, window_bytes: usize) -> (World, usize, OutputStream) {
        super::super::run::be_quiet();
        let small = Config { output_bytes_max: 60_000, ..config() };
        let mut world = world_of(5, small, 1);
        let peer = world.add_peer(plan, part(Role::Echo, Farewell::Close), 0);
        go_on(&mut world, Duration::from_millis(20));
        let id = world.book.borrow().records[0].id;
        let stream = world.handle.stream(id, window_bytes);
        (world, peer, stream)
    }

    /// Without flow control, the end of the connection was `OutputTooLong`.
    #[test]
    fn a_long_stream_to_a_slow_reader_arrives_whole_in_bounded_memory() {
        const BYTES: usize = 600_000;
        let slow = Plan { read_chunk_max: 2_000, pace_us: 500, ..Plan::plain() };
        let (mut world, peer, stream) = streaming(slow, 10_000);
        let mut sent = 0;
        let mut fulls = 0;
        while world.ring().peers[peer].received.len() < BYTES {
            while sent < BYTES && stream.try_send(stretch(9, sent as u64, PIECE_BYTES)).is_ok() {
                sent += PIECE_BYTES;
            }
            fulls += usize::from(sent < BYTES);
            world.turn();
            let queued = world.shard(0).parts().1.slots[0].output_bytes() as usize;
            assert!(queued <= stream.under_way_bytes(), "{queued} bytes are queued");
            assert!(stream.under_way_bytes() < 10_000 + PIECE_BYTES + 64);
            assert!(world.now_us() < u64::MAX / 2 && fulls < 100_000, "it goes on");
        }
        assert_eq!(world.ring().peers[peer].received, stretch(9, 0, BYTES));
        go_on(&mut world, Duration::from_millis(20));
        assert_eq!(stream.under_way_bytes(), 0);
        world.book.borrow_mut().records[0].said.push(super::super::book::Piece {
            key: 9,
            offset: 0,
            bytes: BYTES as u64,
            shape: super::super::book::Shape::Bytes,
        });
        end(&mut world);
    }

    /// A thread that waits for room is told of the end, too.
    #[test]
    fn a_stream_ends_with_its_connection_and_knows_the_reason() {
        let (mut world, _, stream) = streaming(Plan { stall_us: NEVER, ..Plan::plain() }, 20_000);
        while stream.try_send(vec![1; PIECE_BYTES]).is_ok() {
            world.turn();
        }
        let called = Arc::new(AtomicUsize::new(0));
        let told = called.clone();
        stream.notify(move || {
            told.fetch_add(1, Ordering::SeqCst);
        });
        go_on(&mut world, Duration::from_millis(20));
        assert_eq!((called.load(Ordering::SeqCst), stream.under_way_bytes() > 0), (0, true));
        world.book.borrow_mut().kicks_all = true;
        world.handle.kick(stream.id()).expect("there is room");
        go_on(&mut world, Duration::from_millis(20));
        let ended = stream.try_send("too late").expect_err("it has ended");
        assert_eq!(ended.kind, SendStreamErrorKind::Ended(Some(Reason::Kicked)));
        assert!(ended.to_string().ends_with("(kicked)"), "{ended}");
        assert_eq!((called.load(Ordering::SeqCst), stream.under_way_bytes()), (1, 0));
        // Another one, to a connection that is gone, hears of it after its first payload.
        let late = world.handle.stream(stream.id(), 1);
        late.try_send("nobody is there").expect("it does not know yet");
        go_on(&mut world, Duration::from_millis(20));
        let ended = late.try_send("").expect_err("it has ended");
        assert_eq!(ended.kind, SendStreamErrorKind::Ended(None));
        let closed = |world: &mut World| world.ledger().sum.closed == 1;
        run_until(&mut world, Duration::from_secs(5), "the end", closed);
    }

    #[test]
    fn a_full_command_queue_takes_no_part_of_the_window() {
        let (mut world, _, stream) = streaming(Plan::plain(), 1_000);
        while world.handle.send(stream.id(), vec![7; 30]).is_ok() {}
        let busy = stream.try_send("a line").expect_err("the queue is full");
        assert_eq!((busy.kind, busy.payload.len()), (SendStreamErrorKind::Busy, 6));
        assert_eq!(stream.under_way_bytes(), 0);
        go_on(&mut world, Duration::from_millis(20));
        assert!(stream.try_send("a line").is_ok());
    }
}
