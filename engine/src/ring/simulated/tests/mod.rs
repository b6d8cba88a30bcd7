//! That the simulated kernel does what the real one was seen to do.

mod accepting;
mod ending;
mod misuse;
mod receiving;
mod sending;
mod swarm;

use super::*;
use crate::ring::{F_SOCK_NONEMPTY, Features, Kind};

pub const BUFFERS: u16 = 8;
pub const BUFFER_BYTES: u32 = 64;
const ARENA_BYTES: usize = 1 << 16;

/// A kernel with a listener, and what is needed to talk to it.
pub struct Bench {
    pub ring: SimulatedRing,
    pub listener: Descriptor,
    arena: *mut u8,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` from a slice of this length; nothing uses it any more.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.arena, ARENA_BYTES)) });
    }
}

impl Bench {
    pub fn new(seed: u64) -> Self {
        let mut bench = Self::without_buffers(seed);
        for buffer in 0..BUFFERS {
            bench.ring.provide(buffer);
        }
        bench
    }

    pub fn without_buffers(seed: u64) -> Self {
        let arena = Box::into_raw(vec![0u8; ARENA_BYTES].into_boxed_slice()).cast::<u8>();
        let setup = Setup {
            submission_entries: 64,
            completion_entries: 256,
            arena_address: arena,
            arena_bytes: ARENA_BYTES,
            arena_registered: true,
            receive_buffers: BUFFERS,
            receive_buffer_bytes: BUFFER_BYTES,
            io_workers_max: 2,
            features: Features::ALL,
            started: std::time::Instant::now(),
        };
        let mut ring = SimulatedRing::new(seed, setup);
        ring.completion_capacity = 256;
        let listener = ring.add_listener(16);
        Self { ring, listener, arena }
    }

    /// Where files may be read to.
    pub fn read_address(&self) -> *mut u8 {
        // SAFETY: within the arena, behind the receive buffers.
        unsafe { self.arena.add(usize::from(BUFFERS) * BUFFER_BYTES as usize) }
    }

    pub fn push(&mut self, token: Token, op: Op) {
        assert!(self.ring.push(token, op));
    }

    /// Everything that comes within so many milliseconds.
    pub fn all_within(&mut self, ms: u64) -> Vec<Completion> {
        let end_ms = self.ring.now_ms() + ms;
        let mut all = Vec::new();
        while self.ring.now_ms() < end_ms {
            let left = Duration::from_millis(end_ms - self.ring.now_ms());
            self.ring.submit_and_wait(1, left).expect("never fails");
            all.extend(std::iter::from_fn(|| self.ring.completion()));
        }
        all
    }

    /// The one completion that comes within a second.
    #[track_caller]
    pub fn one(&mut self) -> Completion {
        let all = self.all_within(1000);
        assert_eq!(all.len(), 1, "{all:?}\n{}", self.ring.trace());
        all[0]
    }

    /// A peer that was accepted: its number and the descriptor.
    pub fn accepted(&mut self, plan: Plan, bytes: &[u8]) -> (usize, Descriptor) {
        let peer = self.ring.add_peer(self.listener, plan, bytes);
        while self.ring.peers[peer].standing == Standing::Unconnected {
            self.all_within(1);
        }
        let descriptor = self.ring.accept_now(self.listener).expect("somebody waits");
        assert_eq!(Peer::birth_of(self.ring.peers[peer].address), (0, peer));
        (peer, descriptor)
    }

    /// The bytes of a completed receive; the buffer goes back.
    pub fn bytes_of(&mut self, completion: Completion) -> Vec<u8> {
        let buffer = completion.buffer().expect("data comes in a buffer");
        let offset = usize::from(buffer) * BUFFER_BYTES as usize;
        // SAFETY: the buffer was completed and not yet provided again.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.arena.add(offset), completion.result as usize)
        };
        let bytes = bytes.to_vec();
        self.ring.provide(buffer);
        bytes
    }
}

/// A token for slot `slot`.
pub fn token(kind: Kind, slot: u32) -> Token {
    Token::new(kind, 1, slot)
}

/// Seeds of a test that needs luck to see everything.
pub const SEEDS: u64 = 200;

#[test]
fn streams_are_reproducible_from_any_offset() {
    let whole: Vec<u8> = stream(7, 0).take(100).collect();
    for offset in 0..90u64 {
        assert!(stream(7, offset).take(10).eq(whole[offset as usize..][..10].iter().copied()));
        assert_eq!(stream_byte(7, offset), whole[offset as usize]);
        for length in 0..=100 - offset as usize {
            let bytes = &whole[offset as usize..][..length];
            assert_eq!(stretch(7, offset, length), bytes);
            assert!(is_stretch(7, offset, bytes));
            for at in 0..length {
                let mut wrong = bytes.to_vec();
                wrong[at] ^= 1;
                assert!(!is_stretch(7, offset, &wrong));
            }
        }
    }
    assert!(!stream(8, 0).take(100).eq(whole.iter().copied()));
}

#[test]
fn time_passes_to_the_timeout_when_nothing_happens() {
    let mut bench = Bench::new(1);
    let before_ms = bench.ring.now_ms();
    bench.ring.submit_and_wait(1, Duration::from_secs(5)).expect("never fails");
    assert!((5000..5002).contains(&(bench.ring.now_ms() - before_ms)));
    assert!(bench.ring.completion().is_none());
}

#[test]
fn a_wait_of_no_time_still_takes_some() {
    let mut bench = Bench::new(1);
    let before_ms = bench.ring.now_ms();
    for _ in 0..1000 {
        bench.ring.submit_and_wait(1, Duration::ZERO).expect("never fails");
    }
    assert!(bench.ring.now_ms() > before_ms);
}

#[test]
fn another_thread_wakes_by_the_event_descriptor() {
    let mut bench = Bench::new(1);
    let wake = bench.ring.add_event();
    let poll = Op::Poll { descriptor: wake, events: libc::POLLIN as u32 };
    bench.push(token(Kind::Wake, 0), poll);
    assert!(bench.all_within(50).is_empty());
    signal_beside(wake);
    assert_eq!(bench.one().result, i32::from(libc::POLLIN));
    bench.ring.clear_wake(wake);
    bench.push(token(Kind::Wake, 0), poll);
    assert!(bench.all_within(50).is_empty());
}
