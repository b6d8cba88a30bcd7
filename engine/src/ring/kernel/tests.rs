//! The facts the engine builds on, on the real ring. What a test here says of the kernel, the
//! shard relies upon.

mod ending;
mod files;
mod receiving;

use super::super::Kind;
use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;

const BUFFERS: u16 = 8;
const BUFFER_BYTES: u32 = 512;
/// The longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for something that would happen at once to have happened.
const A_WHILE: Duration = Duration::from_millis(50);

/// The arena is leaked: a failing test must not have the kernel write into freed memory.
fn setup() -> Setup {
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
    }
}

fn ring() -> KernelRing {
    KernelRing::new(&setup()).expect("a ring")
}

fn token(number: u32) -> Token {
    Token::new(Kind::Probe, 1, number)
}

impl KernelRing {
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

/// A descriptor of ours and the peer's end of the connection.
fn pair() -> (Descriptor, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connect");
    let (ours, _) = listener.accept().expect("an accept");
    ours.set_nonblocking(true).expect("non-blocking");
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (Descriptor(ours.into_raw_fd()), peer)
}

/// Ends a connection with RST: close(2) does that when input is left unread.
fn reset(mut peer: TcpStream, ours: Descriptor) {
    // SAFETY: the bytes are sent during the call.
    let sent = unsafe { libc::send(ours.0, b"unread".as_ptr().cast(), 6, 0) };
    assert_eq!(sent, 6);
    peer.read_exact(&mut [0; 1]).expect("the first byte; the rest stays unread");
    drop(peer);
}

fn event(count: u32) -> Descriptor {
    // SAFETY: no pointers.
    Descriptor(unsafe { libc::eventfd(count, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

fn events(mask: i16) -> u32 {
    mask.cast_unsigned().into()
}

/// A readable descriptor to poll, over and over.
fn poll_readable(event: Descriptor) -> Op {
    Op::Poll { descriptor: event, events: events(libc::POLLIN) }
}

#[test]
fn waiting_counts_as_io_only_where_the_kernel_lacks_the_feature() {
    assert_eq!(wait_flags(false), EnterFlags::EXT_ARG);
    assert_eq!(wait_flags(true), EnterFlags::EXT_ARG | EnterFlags::NO_IOWAIT);
    let ring = ring();
    let has = ring.ring.params().is_feature_no_iowait();
    assert_eq!(ring.enter_flags.contains(EnterFlags::NO_IOWAIT), has);
}

#[test]
fn a_full_submission_queue_loses_nothing() {
    let mut ring = ring();
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

#[test]
fn a_full_completion_queue_delays_and_is_counted() {
    let setup = Setup { completion_entries: 8, ..setup() };
    let mut ring = KernelRing::new(&setup).expect("a ring");
    let event = event(1);
    let count = 64;
    for number in 0..count {
        ring.submit(number, poll_readable(event));
    }
    let found = ring.collect(count as usize);
    assert!(found.iter().map(|completion| completion.token).eq((0..count).map(token)));
    assert!(ring.counters().overflows > 0);
    calls::close(event);
}

/// One call runs at most 20 completions' work unless more are wanted.
#[test]
fn one_call_brings_as_many_as_are_wanted() {
    let mut ring = ring();
    let sleeping: Vec<Descriptor> = (0..48).map(|_| event(0)).collect();
    for (number, event) in (0..).zip(&sleeping) {
        ring.submit(number, poll_readable(*event));
    }
    ring.submit_and_wait(0, Duration::ZERO).expect("a working ring");
    assert!(ring.completion().is_none());
    for event in &sleeping {
        calls::signal_event(*event);
    }
    let enters = ring.counters().enters;
    ring.submit_and_wait(48, PATIENCE).expect("a working ring");
    assert_eq!(std::iter::from_fn(|| ring.completion()).count(), 48);
    assert_eq!(ring.counters().enters, enters + 1);
    sleeping.into_iter().for_each(calls::close);
}

#[test]
fn completions_left_in_the_queue_end_a_wait_for_more() {
    let mut ring = ring();
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

#[test]
fn a_wait_ends_at_its_timeout_without_an_error() {
    let mut ring = ring();
    let before = Instant::now();
    ring.submit_and_wait(1, A_WHILE).expect("ETIME is no error");
    assert!(before.elapsed() >= A_WHILE);
    assert!(ring.now_ms() >= A_WHILE.as_millis() as u64);
}

/// A thread's table of registered rings has 16 places, and a ring that kept its place would live
/// on with its thread.
#[test]
fn a_dropped_ring_gives_its_place_in_the_thread_back() {
    for _ in 0..20 {
        let mut ring = ring();
        assert!(matches!(ring.enter, EnterDescriptor::Registered(_)));
        let event = event(1);
        ring.submit(0, poll_readable(event));
        assert!(ring.one().result > 0);
        calls::close(event);
    }
}

#[test]
fn rings_beyond_the_thread_s_table_work_with_their_plain_descriptor() {
    let mut rings: Vec<KernelRing> = (0..17).map(|_| ring()).collect();
    let last = rings.last_mut().expect("17 rings");
    assert!(matches!(last.enter, EnterDescriptor::Plain(_)));
    let event = event(1);
    last.submit(0, poll_readable(event));
    assert!(last.one().result > 0);
    calls::close(event);
}

#[test]
fn sigpipe_is_blocked_on_the_ring_s_thread() {
    let _ring = ring();
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call fills the set, which is only read then.
    let blocked = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), set.as_mut_ptr());
        libc::sigismember(set.as_ptr(), libc::SIGPIPE)
    };
    assert_eq!(blocked, 1);
}

#[test]
fn an_event_descriptor_is_emptied_without_waiting() {
    let mut ring = ring();
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

#[test]
fn a_peer_that_is_no_internet_socket_has_no_address() {
    let mut ring = ring();
    let (one, _other) = UnixStream::pair().expect("a pair");
    let one = Descriptor(one.into_raw_fd());
    assert_eq!(ring.peer_address(one), Err(Errno(libc::EAFNOSUPPORT)));
    ring.close_now(one);
}
