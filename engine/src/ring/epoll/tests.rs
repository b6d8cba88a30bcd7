//! Facts of the ring on epoll that io_uring does not share, and the races that are its own.

use super::*;
use crate::ring::facts::files::{Tree, opening_stays_beneath};
use crate::ring::facts::{
    A_WHILE, PATIENCE, TestedRing, event, pair, poll_readable, ring_of, setup, token,
};
use crate::ring::{Shutdown, calls};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{self, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};

fn ring() -> EpollRing {
    ring_of(&setup()).expect("no system forbids epoll")
}

/// Gives a descriptor a number that no other test uses: the first free one from `base` on.
fn numbered(descriptor: Descriptor, base: i32) -> Descriptor {
    // SAFETY: no pointers.
    let number = unsafe { libc::fcntl(descriptor.0, libc::F_DUPFD_CLOEXEC, base) };
    assert!(number >= base, "{}", io::Error::last_os_error());
    calls::close(descriptor);
    Descriptor(number)
}

/// Fills the send buffer of a socket.
fn fill(socket: Descriptor) {
    let block = [1u8; 64 << 10];
    // SAFETY: the bytes are sent during the call.
    while unsafe { libc::send(socket.0, block.as_ptr().cast(), block.len(), 0) } > 0 {}
}

#[test]
fn a_close_ends_what_waits_for_the_descriptor() {
    let mut ring = ring();
    let (ours, mut peer) = pair();
    ring.provide(0);
    fill(ours);
    ring.submit(0, Op::Receive { socket: ours, multishot: true });
    ring.submit(1, Op::Poll { descriptor: ours, events: 0 });
    ring.submit(2, Op::Send { socket: ours, address: b"x".as_ptr(), length: 1, more: false });
    ring.assert_quiet();
    ring.submit(3, Op::Close { descriptor: ours });
    let results: Vec<i32> = ring.collect(4).iter().map(|completion| completion.result).collect();
    assert_eq!(results, [-libc::ECANCELED, -libc::ECANCELED, -libc::ECANCELED, 0]);
    peer.read_to_end(&mut Vec::new()).expect("our FIN");
    assert_eq!(ring.buffers.len(), 1, "the buffer was not taken");
}

/// The next descriptor gets the same number, and must be registered anew.
#[test]
fn a_number_that_is_used_again_is_another_descriptor() {
    let mut ring = ring();
    for turn in 0..3 {
        let event = numbered(event(0), 700);
        assert_eq!(event, Descriptor(700));
        ring.submit(turn, poll_readable(event));
        ring.assert_quiet();
        calls::signal_event(event);
        assert_eq!(ring.one().result, i32::from(libc::POLLIN));
        ring.close_now(event);
    }
    assert_eq!(ring.table.find(Descriptor(700)), None);
}

/// An event of a closed descriptor that somebody else still has open must not reach the next one.
#[test]
fn events_of_an_earlier_registration_are_dropped() {
    let mut ring = ring();
    let first = numbered(event(0), 720);
    // SAFETY: no pointers.
    let copy = Descriptor(unsafe { libc::fcntl(first.0, libc::F_DUPFD_CLOEXEC, 721) });
    ring.submit(0, poll_readable(first));
    ring.assert_quiet();
    ring.close_now(first);
    assert_eq!(ring.one().result, -libc::ECANCELED);
    // The copy has the number after it.
    let second = numbered(event(0), 720);
    assert_eq!(second, first, "the same number");
    ring.submit(1, poll_readable(second));
    // The copy keeps the first registration alive (epoll(7)).
    calls::signal_event(copy);
    ring.assert_quiet();
    calls::signal_event(second);
    assert_eq!(ring.one().token, token(1));
    ring.close_now(second);
    calls::close(copy);
}

/// A receive stops before an urgent byte, although the socket holds more.
#[test]
fn urgent_data_hides_nothing_behind_it() {
    let mut ring = ring();
    let (ours, mut peer) = pair();
    (0..8).for_each(|buffer| ring.provide(buffer));
    ring.submit(0, Op::Receive { socket: ours, multishot: true });
    ring.submit_and_wait(0, Duration::ZERO).expect("a working ring");
    peer.write_all(b"before").expect("a write");
    let urgent = b"!";
    // SAFETY: one byte is sent during the call.
    let sent = unsafe { libc::send(peer.as_raw_fd(), urgent.as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    peer.write_all(b"behind").expect("a write");
    let mut bytes = 0;
    while bytes < 12 {
        ring.submit_and_wait(1, PATIENCE).expect("a working ring");
        let found: Vec<i32> =
            std::iter::from_fn(|| ring.completion()).map(|it| it.result).collect();
        assert!(!found.is_empty(), "{bytes} bytes came");
        bytes += found.iter().sum::<i32>();
    }
    assert_eq!(bytes, 12);
    ring.close_now(ours);
}

/// One that sends without a pause does not keep the ring from the others.
#[test]
fn a_busy_socket_leaves_its_turn_to_others() {
    let setup = Setup { receive_buffer_bytes: 64, receive_buffers: 512, ..setup() };
    let mut ring: EpollRing = ring_of(&setup).expect("a ring");
    (0..512).for_each(|buffer| ring.provide(buffer));
    let (busy, mut sender) = pair();
    let (other, mut client) = pair();
    sender.write_all(&[7; 64 * 300]).expect("a write");
    client.write_all(b"x").expect("a write");
    ring.submit(0, Op::Receive { socket: busy, multishot: true });
    ring.submit(1, Op::Receive { socket: other, multishot: true });
    ring.submit_and_wait(1, PATIENCE).expect("a working ring");
    let found: Vec<Completion> = std::iter::from_fn(|| ring.completion()).collect();
    let of = |number| found.iter().filter(move |it| it.token == token(number)).count();
    assert_eq!((of(0), of(1)), (RECEIVES_MAX, 1));
    // The rest follows without any further event.
    let mut rest = 300 - RECEIVES_MAX;
    while rest > 0 {
        ring.submit_and_wait(1, PATIENCE).expect("a working ring");
        rest -= std::iter::from_fn(|| ring.completion()).count();
    }
    ring.close_now(busy);
    ring.close_now(other);
}

/// A pipe without `O_NONBLOCK` that is full stands for a disk that does not answer.
struct Stall {
    file: Descriptor,
    pipe: [Descriptor; 2],
}

impl Stall {
    fn new(base: i32) -> Self {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[1; 4096]).expect("a write");
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two descriptors.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        let pipe = ends.map(Descriptor);
        // SAFETY: no pointers.
        let size = unsafe { libc::fcntl(pipe[1].0, libc::F_GETPIPE_SZ) };
        let block = vec![1u8; size as usize];
        // SAFETY: the bytes are read during the call.
        let written = unsafe { libc::write(pipe[1].0, block.as_ptr().cast(), block.len()) };
        assert_eq!(written, block.len() as isize);
        Self { file: numbered(Descriptor(file.into_raw_fd()), base), pipe }
    }

    fn splice(&self) -> Op {
        Op::Splice { file: self.file, offset: 0, pipe: self.pipe[1], length: 4096 }
    }

    /// The disk answers.
    fn answer(&self) {
        let mut block = [0u8; 4096];
        // SAFETY: the kernel writes at most that many bytes.
        let read = unsafe { libc::read(self.pipe[0].0, block.as_mut_ptr().cast(), block.len()) };
        assert_eq!(read, 4096);
    }
}

#[test]
fn a_stalled_disk_delays_neither_sockets_nor_the_wait() {
    let mut ring = ring();
    let stall = Stall::new(740);
    // As many as there are threads, and more: they wait, and nobody else does.
    for number in 0..4 {
        ring.submit(number, stall.splice());
    }
    let (ours, mut peer) = pair();
    ring.provide(0);
    ring.submit(10, Op::Receive { socket: ours, multishot: false });
    peer.write_all(b"x").expect("a write");
    assert_eq!(ring.one().token, token(10));
    // Opening and reading are another class.
    let arena = setup().arena_address;
    let other = Stall::new(790);
    ring.submit(12, Op::Read { file: other.file, address: arena, length: 10, offset: 0 });
    assert_eq!((ring.one().result, ring.files.threads()), (10, 3));
    ring.submit(11, Op::Cancel { target: token(0) });
    assert_eq!(ring.one().result, -libc::EALREADY);
    ring.assert_quiet();
    assert_eq!(ring.files.threads(), 2 + 1, "io_workers_max of the one class");
    ring.close_now(other.file);
    other.pipe.into_iter().for_each(calls::close);
    let begun = Instant::now();
    stall.answer();
    assert_eq!(ring.one().result, 4096, "the result ends the wait");
    assert!(begun.elapsed() < PATIENCE / 2);
    for _ in 0..3 {
        stall.answer();
        assert_eq!(ring.one().result, 4096);
    }
    ring.close_now(ours);
    ring.close_now(stall.file);
    stall.pipe.into_iter().for_each(calls::close);
}

/// Its number must not mean another file before the thread is done.
#[test]
fn a_descriptor_that_a_thread_uses_is_closed_afterwards() {
    let mut ring = ring();
    let stall = Stall::new(760);
    ring.submit(0, stall.splice());
    std::thread::sleep(A_WHILE);
    ring.close_now(stall.file);
    let next = numbered(event(0), stall.file.0);
    assert_ne!(next, stall.file, "the number is still taken");
    calls::close(next);
    stall.answer();
    assert_eq!(ring.one().result, 4096);
    let next = numbered(event(0), stall.file.0);
    assert_eq!(next, stall.file, "the number is free");
    calls::close(next);
    stall.pipe.into_iter().for_each(calls::close);
}

/// A ring may go while a disk does not answer; the thread ends when it does.
#[test]
fn a_ring_that_goes_waits_for_no_disk_and_leaves_no_descriptor() {
    let mut ring = ring();
    let stall = Stall::new(780);
    ring.submit(0, stall.splice());
    ring.submit(1, stall.splice());
    ring.submit(2, stall.splice());
    ring.assert_quiet();
    ring.close_now(stall.file);
    let begun = Instant::now();
    drop(ring);
    assert!(begun.elapsed() < PATIENCE / 2);
    let path = format!("/proc/self/fd/{}", stall.file.0);
    let is_open =
        || std::fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().ends_with("(deleted)"));
    assert!(is_open(), "a thread uses it");
    // The third one has not begun, and never does.
    stall.answer();
    stall.answer();
    let give_up = Instant::now() + PATIENCE;
    while is_open() {
        assert!(Instant::now() < give_up, "the last thread closes it");
        std::thread::yield_now();
    }
    stall.pipe.into_iter().for_each(calls::close);
}

/// A connect that the peer refuses, and one that succeeds later.
#[test]
fn a_connect_has_its_own_error() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let to = listener.local_addr().expect("an address");
    // A close would not do: a process of another test may hold a copy of the descriptor.
    SockRef::from(&listener).shutdown(net::Shutdown::Read).expect("it listens");
    let socket = ring.socket(&to, None, None).expect("a socket");
    ring.submit(0, Op::Connect { socket, address: &raw const to });
    assert_eq!(ring.one().result, -libc::ECONNREFUSED);
    ring.close_now(socket);
}

/// A send that waits for room goes on by itself, and its rest is not sent twice.
#[test]
fn a_cancelled_send_reports_the_bytes_that_have_left() {
    let mut ring = ring();
    let (ours, mut peer) = pair();
    let bytes = vec![3u8; 16 << 20];
    let length = bytes.len() as u32;
    ring.submit(0, Op::Send { socket: ours, address: bytes.as_ptr(), length, more: false });
    ring.assert_quiet();
    ring.submit(1, Op::Cancel { target: token(0) });
    let ended = ring.collect(2);
    let sent = ended[0].result;
    assert!(0 < sent && sent < length as i32, "{sent}");
    assert_eq!(ended[1].result, 0);
    ring.shutdown(ours, Shutdown::Write).expect("connected");
    let mut received = Vec::new();
    peer.read_to_end(&mut received).expect("all that was sent");
    assert_eq!(received.len(), sent as usize);
    ring.close_now(ours);
}

/// The edge of a signal that comes between a look and the next wait is not lost.
#[test]
fn wake_ups_from_another_thread_are_never_missed() {
    const SIGNALS: u32 = 20_000;
    let mut ring = ring();
    let wake = event(0);
    let (sender, taken) = std::sync::mpsc::sync_channel(0);
    let waker = std::thread::spawn(move || {
        for _ in 0..SIGNALS {
            calls::signal_event(wake);
            // The next signal comes at any time after this one was taken.
            if sender.send(()).is_err() {
                return;
            }
        }
    });
    for number in 0..SIGNALS {
        ring.submit(number, poll_readable(wake));
        assert_eq!(ring.one().result, i32::from(libc::POLLIN), "signal {number}");
        ring.clear_wake(wake);
        taken.recv().expect("the sender lives");
    }
    waker.join().expect("no panic");
    ring.close_now(wake);
}

#[test]
fn short_waits_are_short() {
    let mut ring = ring();
    let begun = Instant::now();
    for _ in 0..100 {
        ring.submit_and_wait(1, Duration::from_micros(50)).expect("a working ring");
    }
    assert!(begun.elapsed() >= Duration::from_millis(5));
    // Where the kernel or a filter lacks the precise call, whole milliseconds are waited for.
    ring.precise = false;
    let begun = Instant::now();
    ring.submit_and_wait(1, Duration::from_micros(50)).expect("a working ring");
    assert!(begun.elapsed() >= Duration::from_millis(1));
}

/// A client that reads nothing holds up nobody.
#[test]
fn sockets_without_room_cost_no_wake_ups() {
    let mut ring = ring();
    let clients: Vec<(Descriptor, TcpStream)> = (0..10).map(|_| pair()).collect();
    let byte = b"x";
    for (number, (ours, _)) in (0..).zip(&clients) {
        fill(*ours);
        ring.submit(
            number,
            Op::Send { socket: *ours, address: byte.as_ptr(), length: 1, more: false },
        );
    }
    // The first wait brings the registrations' own events.
    ring.submit_and_wait(1, Duration::from_millis(1)).expect("a working ring");
    let before = ring.counters().enters;
    ring.submit_and_wait(1, A_WHILE).expect("a working ring");
    assert_eq!(ring.counters().enters, before + 1);
    clients.into_iter().for_each(|(ours, _)| ring.close_now(ours));
}

/// openat2(2) is missing or forbidden: nothing leads out of the directory either. A path with `..`
/// is refused wherever it leads.
#[test]
fn without_openat2_opening_stays_beneath_its_directory_and_crosses_no_link() {
    let mut setup = setup();
    setup.features.openat2 = false;
    let ring: EpollRing = ring_of(&setup).expect("no system forbids epoll");
    opening_stays_beneath(ring, Err(libc::EXDEV));
}

#[test]
fn without_cachestat_nothing_counts_as_cached() {
    let mut setup = setup();
    setup.features.cachestat = false;
    let mut ring: EpollRing = ring_of(&setup).expect("no system forbids epoll");
    let tree = Tree::new();
    let file = tree.file(b"cached");
    assert!(!ring.is_cached(file, 0, 6));
    calls::close(file);
}
