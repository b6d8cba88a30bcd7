//! The facts that the engine builds on, on each real ring. The shard relies on every fact here. A
//! fact is a function, and [`on_each_ring`] makes a test of it for each ring.

/// Makes a test for each ring of every fact that a module has. The compiler reports a fact that is
/// missing here as dead code.
macro_rules! on_each_ring {
    ($($fact:ident,)*) => {
        mod on_io_uring {
            $(#[test] fn $fact() { super::$fact::<crate::ring::kernel::KernelRing>() })*
        }
        mod on_epoll {
            $(#[test] fn $fact() { super::$fact::<crate::ring::epoll::EpollRing>() })*
        }
    };
}

pub(super) mod ending;
pub(super) mod files;
mod receiving;

use super::epoll::EpollRing;
use super::kernel::KernelRing;
use super::probe::{CreateRingError, needs_io_uring};
use crate::ring::{
    Calls, Completion, Delivery, Descriptor, Errno, Features, Kind, Op, Ring, Setup, Shutdown,
    Token, Traffic, calls, direct,
};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::time::{Duration, Instant};

const BUFFERS: u16 = 8;
const BUFFER_BYTES: u32 = 512;
/// The longest wait for anything that must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for something that would happen at once to have happened.
pub(super) const A_WHILE: Duration = Duration::from_millis(50);

/// The arena is leaked: a failing test must not have the kernel write into freed memory.
pub(super) fn setup() -> Setup {
    let arena_bytes = 64 << 10;
    let arena = Box::leak(vec![0u8; arena_bytes].into_boxed_slice());
    Setup {
        submission_entries: 8,
        completion_entries: 256,
        arena_address: arena.as_mut_ptr(),
        arena_bytes,
        arena_registered: false,
        receive_buffers: BUFFERS,
        receive_buffer_bytes: BUFFER_BYTES,
        io_workers_max: 2,
        features: Features::ALL,
        started: Instant::now(),
    }
}

pub(super) fn ring<R: TestedRing>() -> Option<R> {
    ring_of(&setup())
}

/// `None`: this system forbids it.
pub(super) fn ring_of<R: TestedRing>(setup: &Setup) -> Option<R> {
    R::is_allowed().then(|| R::of(setup).expect("a ring"))
}

pub(super) fn token(number: u32) -> Token {
    Token::new(Kind::Probe, 1, number)
}

/// A real ring.
pub(super) trait TestedRing: Ring + Calls + Sized {
    /// A poll that asks for nothing reports a FIN (`POLLRDHUP`).
    const TELLS_OF_FIN: bool;

    fn is_allowed() -> bool;

    fn of(setup: &Setup) -> Result<Self, CreateRingError>;

    fn in_flight(&self) -> u64;

    /// Pushes an operation that must find room.
    fn submit(&mut self, number: u32, op: Op) {
        assert!(self.push(token(number), op), "room for operation {number}");
    }

    /// Exactly so many completions, in the order of their numbers.
    fn collect(&mut self, count: usize) -> Vec<Completion> {
        let deadline = Instant::now() + PATIENCE;
        let mut found: Vec<Completion> = Vec::new();
        while found.len() < count {
            assert!(Instant::now() < deadline, "{count} completions, found {found:?}");
            self.submit_and_wait(1, PATIENCE).expect("a working ring");
            found.extend(std::iter::from_fn(|| self.completion()));
        }
        assert_eq!(found.len(), count, "no more completions than expected: {found:?}");
        found.sort_by_key(|completion| completion.token.slot());
        found
    }

    fn one(&mut self) -> Completion {
        self.collect(1)[0]
    }

    fn assert_quiet(&mut self) {
        self.submit_and_wait(1, A_WHILE).expect("a working ring");
        let found = self.completion();
        assert!(found.is_none(), "nothing completes by itself: {found:?}");
    }
}

impl TestedRing for KernelRing {
    const TELLS_OF_FIN: bool = true;

    fn is_allowed() -> bool {
        needs_io_uring()
    }

    fn of(setup: &Setup) -> Result<Self, CreateRingError> {
        Self::new(setup)
    }

    fn in_flight(&self) -> u64 {
        self.in_flight()
    }
}

impl TestedRing for EpollRing {
    const TELLS_OF_FIN: bool = false;

    /// No system forbids epoll.
    fn is_allowed() -> bool {
        true
    }

    fn of(setup: &Setup) -> Result<Self, CreateRingError> {
        Self::new(setup)
    }

    fn in_flight(&self) -> u64 {
        self.in_flight()
    }
}

/// A descriptor of ours and the peer's end of the connection.
pub(super) fn pair() -> (Descriptor, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connect");
    let (ours, _) = listener.accept().expect("an accept");
    ours.set_nonblocking(true).expect("non-blocking");
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (Descriptor(ours.into_raw_fd()), peer)
}

/// Ends a connection with RST: close(2) does that when input is left unread.
pub(super) fn reset(mut peer: TcpStream, ours: Descriptor) {
    // SAFETY: the bytes are sent during the call.
    let sent = unsafe { libc::send(ours.0, b"unread".as_ptr().cast(), 6, 0) };
    assert_eq!(sent, 6);
    peer.read_exact(&mut [0; 1]).expect("the first byte; the rest stays unread");
    drop(peer);
}

pub(super) fn event(count: u32) -> Descriptor {
    // SAFETY: no pointers.
    Descriptor(unsafe { libc::eventfd(count, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

pub(super) fn events(mask: i16) -> u32 {
    mask.cast_unsigned().into()
}

/// A readable descriptor to poll, over and over.
pub(super) fn poll_readable(event: Descriptor) -> Op {
    Op::Poll { descriptor: event, events: events(libc::POLLIN) }
}

fn a_full_submission_queue_loses_nothing<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let event = event(1);
    let count = 5 * 8 + 3;
    for number in 0..count {
        ring.submit(number, poll_readable(event));
    }
    let found = ring.collect(count as usize);
    assert!(found.iter().map(|completion| completion.token).eq((0..count).map(token)));
    let counters = ring.counters();
    assert_eq!((counters.submitted, counters.completed), (count.into(), count.into()));
    assert_eq!(counters.overflows, 0);
    assert_eq!(ring.in_flight(), 0);
    calls::close(event);
}

fn completions_left_in_the_queue_end_a_wait_for_more<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let event = event(1);
    ring.submit(0, poll_readable(event));
    ring.submit(1, poll_readable(event));
    ring.submit_and_wait(2, PATIENCE).expect("a working ring");
    assert!(ring.completion().is_some());
    let before = Instant::now();
    ring.submit_and_wait(64, PATIENCE).expect("a working ring");
    assert!(before.elapsed() < PATIENCE / 2);
    assert!(ring.completion().is_some());
    calls::close(event);
}

/// A client may send within the first millisecond of a ring. A shard that noted 0 for that time
/// would take it for "never", and the client's deadline would not run.
fn the_clock_does_not_begin_at_zero<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    assert!(ring.now_us() >= 1_000 && ring.now_ms() > 0);
}

/// A shard can compare the times of another one with its own.
fn the_clocks_of_the_rings_of_an_engine_agree<R: TestedRing>() {
    let setup = setup();
    let Some(mut early) = ring_of::<R>(&setup) else { return };
    std::thread::sleep(A_WHILE);
    let mut late = ring_of::<R>(&setup).expect("a second ring fits");
    let (before, between, after) = (early.now_us(), late.now_us(), early.now_us());
    assert!((before..=after).contains(&between), "{before}, {between}, {after}");
}

fn a_wait_ends_at_its_timeout_without_an_error<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let before = Instant::now();
    ring.submit_and_wait(1, A_WHILE).expect("ETIME is no error");
    assert!(before.elapsed() >= A_WHILE);
    assert!(ring.now_ms() >= A_WHILE.as_millis() as u64);
}

fn sigpipe_is_blocked_on_the_ring_s_thread<R: TestedRing>() {
    let Some(_ring) = ring::<R>() else { return };
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call fills the set, which is only read then.
    let blocked = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), set.as_mut_ptr());
        libc::sigismember(set.as_ptr(), libc::SIGPIPE)
    };
    assert_eq!(blocked, 1);
}

fn an_event_descriptor_is_emptied_without_waiting<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let wake = event(0);
    ring.clear_wake(wake);
    calls::signal_event(wake);
    ring.submit(0, poll_readable(wake));
    assert_eq!(ring.one().result, i32::from(libc::POLLIN));
    ring.clear_wake(wake);
    ring.submit(1, poll_readable(wake));
    ring.assert_quiet();
    calls::close(wake);
}

fn a_peer_that_is_no_internet_socket_has_no_address<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (one, _other) = UnixStream::pair().expect("a pair");
    let one = Descriptor(one.into_raw_fd());
    assert_eq!(ring.peer_address(one), Err(Errno(libc::EAFNOSUPPORT)));
    ring.close_now(one);
}

on_each_ring! {
    a_full_submission_queue_loses_nothing,
    completions_left_in_the_queue_end_a_wait_for_more,
    the_clock_does_not_begin_at_zero,
    the_clocks_of_the_rings_of_an_engine_agree,
    a_wait_ends_at_its_timeout_without_an_error,
    sigpipe_is_blocked_on_the_ring_s_thread,
    an_event_descriptor_is_emptied_without_waiting,
    a_peer_that_is_no_internet_socket_has_no_address,
}
