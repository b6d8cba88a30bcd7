//! What shutdown(2), connect(2) to AF_UNSPEC and a cancel do to what is armed.

use super::*;

const RECEIVE: u32 = 0;
const HANGUP: u32 = 1;
const ROOM: u32 = 2;

/// Reads one byte. The work of a ring on the same thread interrupts a read that has a timeout
/// (signal(7): EINTR), so that the read is repeated.
pub fn read_one(peer: &mut TcpStream) -> std::io::Result<usize> {
    loop {
        match peer.read(&mut [0; 1]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A socket whose send buffer is full, with a receive, a poll for its end, and a poll for room.
fn armed<R: TestedRing>(ring: &mut R, multishot: bool) -> (Descriptor, TcpStream) {
    let (ours, peer) = pair();
    let block = [1u8; 64 << 10];
    // SAFETY: the bytes are sent during the call.
    while unsafe { libc::send(ours.0, block.as_ptr().cast(), block.len(), 0) } > 0 {}
    ring.provide(0);
    ring.submit(RECEIVE, Op::Receive { socket: ours, multishot });
    ring.submit(HANGUP, Op::Poll { descriptor: ours, events: 0 });
    ring.submit(ROOM, Op::Poll { descriptor: ours, events: events(libc::POLLOUT) });
    ring.assert_quiet();
    (ours, peer)
}

fn shutdown_ends_receive_and_polls<R: TestedRing>() {
    for multishot in [true, false] {
        let Some(mut ring) = ring::<R>() else { return };
        let (ours, _peer) = armed(&mut ring, multishot);
        ring.shutdown(ours, Shutdown::Both).expect("a connected socket");
        let ended = ring.collect(3);
        let receive = ended[RECEIVE as usize];
        assert_eq!((receive.result, receive.more(), receive.buffer()), (0, false, None));
        assert!(!receive.nonempty(), "unlike a FIN of the peer");
        for poll in [HANGUP, ROOM] {
            let mask = ended[poll as usize].result;
            assert_ne!(mask & i32::from(libc::POLLHUP), 0, "poll {poll}: {mask:#x}");
        }
        assert_eq!(ring.in_flight(), 0);
        ring.close_now(ours);
    }
}

fn shutdown_ends_a_probe<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, _peer) = pair();
    ring.submit(0, Op::Probe { socket: ours });
    ring.assert_quiet();
    ring.shutdown(ours, Shutdown::Both).expect("a connected socket");
    assert_eq!(ring.one().result, 0);
    ring.close_now(ours);
}

fn abort_ends_receive_and_polls_and_resets_the_peer<R: TestedRing>() {
    for multishot in [true, false] {
        let Some(mut ring) = ring::<R>() else { return };
        let (ours, mut peer) = armed(&mut ring, multishot);
        ring.abort(ours).expect("a connected socket");
        let ended = ring.collect(3);
        let receive = ended[RECEIVE as usize];
        assert!(
            [-libc::ECONNRESET, -libc::ENOTCONN].contains(&receive.result) && !receive.more(),
            "{receive:?}"
        );
        for poll in [HANGUP, ROOM] {
            let mask = ended[poll as usize].result;
            assert_ne!(mask & i32::from(libc::POLLERR), 0, "poll {poll}: {mask:#x}");
        }
        // What had arrived may be read first; then the reset, never an end.
        let error = peer.read_to_end(&mut Vec::new()).expect_err("a reset");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        ring.close_now(ours);
    }
}

fn abort_ends_a_send_and_a_probe<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, _peer) = pair();
    let bytes = vec![3u8; 16 << 20];
    let length = bytes.len() as u32;
    ring.submit(0, Op::Send { socket: ours, address: bytes.as_ptr(), length, more: false });
    ring.submit(1, Op::Probe { socket: ours });
    ring.assert_quiet();
    ring.abort(ours).expect("a connected socket");
    let ended = ring.collect(2);
    assert!(ended[0].result < length as i32, "{:?}", ended[0]);
    assert!(ended[1].result < 0, "{:?}", ended[1]);
    assert_eq!(ring.in_flight(), 0);
    ring.close_now(ours);
}

fn after_a_reset_there_is_nothing_to_shut_down_and_no_peer<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, peer) = pair();
    ring.submit(0, Op::Poll { descriptor: ours, events: 0 });
    ring.assert_quiet();
    reset(peer, ours);
    assert_ne!(ring.one().result & i32::from(libc::POLLHUP), 0, "a poll for nothing hears it");
    assert_eq!(ring.shutdown(ours, Shutdown::Both), Err(Errno(libc::ENOTCONN)));
    assert_eq!(ring.peer_address(ours), Err(Errno(libc::ENOTCONN)));
    ring.close_now(ours);
}

/// io_uring reports a FIN whatever the poll asked for, and does so again at once.
fn a_poll_for_nothing_tells_of_a_fin_on_io_uring_alone<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, peer) = pair();
    ring.submit(0, Op::Poll { descriptor: ours, events: 0 });
    ring.assert_quiet();
    peer.shutdown(std::net::Shutdown::Write).expect("a connected socket");
    if R::TELLS_OF_FIN {
        for _ in 0..2 {
            assert_eq!(ring.one().result, i32::from(libc::POLLRDHUP));
            ring.submit(0, Op::Poll { descriptor: ours, events: 0 });
        }
        assert_eq!(ring.one().result, i32::from(libc::POLLRDHUP));
    } else {
        ring.assert_quiet();
        reset(peer, ours);
        assert_ne!(ring.one().result & i32::from(libc::POLLERR), 0);
    }
    ring.close_now(ours);
}

/// A connect that hangs: the listener's queue is full and nobody accepts.
fn hanging_connect<R: TestedRing>(ring: &mut R) -> (Descriptor, TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    // SAFETY: no pointers. Listening again changes the backlog.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let to = listener.local_addr().expect("an address");
    let first = TcpStream::connect(to).expect("backlog 0 holds one");
    let socket = ring.socket(&to, None, None).expect("a socket");
    ring.submit(0, Op::Connect { socket, address: &raw const to });
    ring.assert_quiet();
    (socket, listener, first)
}

fn shutdown_ends_a_connect_that_hangs<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (socket, _listener, _first) = hanging_connect(&mut ring);
    ring.shutdown(socket, Shutdown::Both).expect("a socket that connects");
    assert_eq!(ring.one().result, -libc::ECONNRESET);
    ring.close_now(socket);
}

fn abort_ends_a_connect_that_hangs<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (socket, _listener, _first) = hanging_connect(&mut ring);
    ring.abort(socket).expect("a socket that connects");
    assert_eq!(ring.one().result, -libc::ECONNRESET);
    ring.close_now(socket);
}

fn a_cancel_ends_a_connect_that_hangs<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (socket, _listener, _first) = hanging_connect(&mut ring);
    ring.submit(1, Op::Cancel { target: token(0) });
    let ended = ring.collect(2);
    assert_eq!((ended[0].result, ended[1].result), (-libc::ECANCELED, 0));
    ring.close_now(socket);
}

fn a_cancelled_receive_has_an_end_of_its_own<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, _peer) = pair();
    ring.provide(0);
    ring.submit(0, Op::Receive { socket: ours, multishot: true });
    ring.assert_quiet();
    ring.submit(1, Op::Cancel { target: token(0) });
    let ended = ring.collect(2);
    assert_eq!((ended[0].result, ended[0].more()), (-libc::ECANCELED, false));
    assert_eq!(ended[1].result, 0);
    ring.submit(2, Op::Cancel { target: token(0) });
    assert_eq!(ring.one().result, -libc::ENOENT, "nothing left to cancel");
    ring.close_now(ours);
}

/// What a ring leaves behind when it goes without being drained: no memory that the kernel might
/// write to, and no socket held.
fn a_ring_dropped_with_a_receive_armed_lets_go_of_the_socket<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    ring.provide(0);
    ring.submit(0, Op::Receive { socket: ours, multishot: true });
    ring.assert_quiet();
    ring.close_now(ours);
    assert_eq!(ring.in_flight(), 1);
    drop(ring);
    assert_eq!(read_one(&mut peer).expect("an end"), 0);
}

on_each_ring! {
    shutdown_ends_receive_and_polls,
    shutdown_ends_a_probe,
    abort_ends_receive_and_polls_and_resets_the_peer,
    abort_ends_a_send_and_a_probe,
    after_a_reset_there_is_nothing_to_shut_down_and_no_peer,
    a_poll_for_nothing_tells_of_a_fin_on_io_uring_alone,
    shutdown_ends_a_connect_that_hangs,
    abort_ends_a_connect_that_hangs,
    a_cancel_ends_a_connect_that_hangs,
    a_cancelled_receive_has_an_end_of_its_own,
    a_ring_dropped_with_a_receive_armed_lets_go_of_the_socket,
}
