//! Accepting, receiving, probing, sending, connecting.

use super::*;

fn a_zero_length_receive_waits_for_data_then_says_so_without_taking_it<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    ring.submit(0, Op::Probe { socket: ours });
    ring.assert_quiet();
    peer.write_all(b"x").expect("a write");
    let found = ring.one();
    assert_eq!((found.result, found.nonempty(), found.more()), (0, true, false));
    assert_eq!(found.buffer(), None);
    // Once more with the data unread: at once.
    ring.submit(1, Op::Probe { socket: ours });
    assert_eq!((ring.one().result, ring.counters().completed), (0, 2));
    ring.close_now(ours);
}

fn a_zero_length_receive_reports_fin_like_data_and_a_reset_as_an_error<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, peer) = pair();
    ring.submit(0, Op::Probe { socket: ours });
    ring.assert_quiet();
    drop(peer);
    let fin = ring.one();
    assert_eq!((fin.result, fin.nonempty()), (0, true));
    ring.close_now(ours);

    let (ours, peer) = pair();
    ring.submit(1, Op::Probe { socket: ours });
    ring.assert_quiet();
    reset(peer, ours);
    assert_eq!(ring.one().result, -libc::ECONNRESET);
    ring.close_now(ours);
}

fn without_buffers_a_receive_ends_at_once_and_hides_even_the_end<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, peer) = pair();
    for multishot in [true, false] {
        ring.submit(0, Op::Receive { socket: ours, multishot });
        let found = ring.one();
        let multishot_at_once = (-libc::ENOBUFS, false, None);
        assert_eq!((found.result, found.more(), found.buffer()), multishot_at_once);
    }
    drop(peer);
    ring.submit(1, Op::Receive { socket: ours, multishot: true });
    assert_eq!(ring.one().result, -libc::ENOBUFS);
    ring.provide(0);
    ring.submit(2, Op::Receive { socket: ours, multishot: true });
    assert_eq!(ring.one().result, 0, "the end was kept");
    ring.close_now(ours);
}

fn a_multishot_receive_brings_data_in_buffers_and_the_end_without_one<R: TestedRing>() {
    let setup = setup();
    let Some(mut ring) = ring_of::<R>(&setup) else { return };
    let (ours, mut peer) = pair();
    // Not from 0 on, so that a number taken without its flag shows.
    ring.provide(5);
    ring.provide(6);
    ring.submit(0, Op::Receive { socket: ours, multishot: true });
    ring.assert_quiet();
    for text in [&b"first"[..], b"second", b"third"] {
        peer.write_all(text).expect("a write");
        let found = ring.one();
        assert_eq!((found.result as usize, found.more()), (text.len(), true));
        let buffer = found.buffer().expect("a buffer");
        assert!([5, 6].contains(&buffer), "buffer {buffer} was not provided");
        let start = usize::from(buffer) * BUFFER_BYTES as usize;
        // SAFETY: the leaked arena, in a buffer the kernel has handed to us.
        let got = unsafe {
            std::slice::from_raw_parts(setup.arena_address.add(start), found.result as usize)
        };
        assert_eq!(got, text);
        ring.provide(buffer);
    }
    drop(peer);
    let end = ring.one();
    assert_eq!((end.result, end.more(), end.buffer()), (0, false, None));
    assert_eq!(ring.in_flight(), 0);
    ring.close_now(ours);
}

fn a_one_shot_receive_fills_a_buffer_and_tells_that_more_is_there<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    for buffer in 0..BUFFERS {
        ring.provide(buffer);
    }
    peer.write_all(&[7; BUFFER_BYTES as usize + 10]).expect("a write");
    ring.submit(0, Op::Receive { socket: ours, multishot: false });
    let full = ring.one();
    assert_eq!((full.result, full.nonempty()), (BUFFER_BYTES as i32, true));
    assert!(full.buffer().is_some() && !full.more(), "{full:?}");
    ring.submit(1, Op::Receive { socket: ours, multishot: false });
    let rest = ring.one();
    assert_eq!((rest.result, rest.nonempty()), (10, false));
    assert!(rest.buffer().is_some_and(|buffer| Some(buffer) != full.buffer()), "{rest:?}");
    ring.close_now(ours);
}

/// The bytes of the next receive beside the ring of at most `bytes_max`.
fn take<R: TestedRing>(ring: &mut R, ours: Descriptor, bytes_max: usize) -> Result<u32, Errno> {
    ring.receive_now(ours, &mut vec![0; bytes_max])
}

fn a_poll_reports_what_receives_beside_the_ring_have_left<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    let mask = events(libc::POLLIN | libc::POLLRDHUP);
    let poll = Op::Poll { descriptor: ours, events: mask };
    assert_eq!(take(&mut ring, ours, 10), Err(Errno(libc::EAGAIN)));
    for round in 0..3 {
        ring.submit(0, poll);
        ring.assert_quiet();
        peer.write_all(&[round; 100]).expect("a write");
        assert_eq!(ring.one().result, i32::from(libc::POLLIN));
        let mut bytes = [0; 60];
        assert_eq!(ring.receive_now(ours, &mut bytes), Ok(60));
        assert_eq!(bytes, [round; 60]);
        ring.submit(1, poll);
        assert_eq!(ring.one().result, i32::from(libc::POLLIN), "the rest");
        assert_eq!(take(&mut ring, ours, 60), Ok(40));
        assert_eq!(take(&mut ring, ours, 60), Err(Errno(libc::EAGAIN)));
    }
    ring.submit(2, poll);
    ring.assert_quiet();
    peer.write_all(b"last").expect("a write");
    peer.shutdown(std::net::Shutdown::Write).expect("a FIN");
    assert!(ring.one().result & i32::from(libc::POLLIN) != 0);
    assert_eq!(take(&mut ring, ours, 60), Ok(4));
    ring.submit(3, poll);
    assert!(ring.one().result & i32::from(libc::POLLIN) != 0, "the end");
    assert_eq!(take(&mut ring, ours, 60), Ok(0));
    ring.close_now(ours);
}

fn a_receive_beside_the_ring_reports_a_reset<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, peer) = pair();
    reset(peer, ours);
    ring.submit(0, Op::Poll { descriptor: ours, events: events(libc::POLLIN) });
    assert!(ring.one().result & i32::from(libc::POLLERR) != 0);
    assert_eq!(take(&mut ring, ours, 60), Err(Errno(libc::ECONNRESET)));
    ring.close_now(ours);
}

/// A connection goes from a multishot receive to polls and back.
fn a_multishot_receive_follows_receives_beside_the_ring<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    (0..BUFFERS).for_each(|buffer| ring.provide(buffer));
    for round in 0..3 {
        ring.submit(0, Op::Receive { socket: ours, multishot: true });
        peer.write_all(b"one").expect("a write");
        let found = ring.one();
        assert_eq!((found.result, found.more()), (3, true));
        ring.provide(found.buffer().expect("a buffer"));
        ring.submit(1, Op::Cancel { target: token(0) });
        let ended = ring.collect(2);
        assert_eq!((ended[0].result, ended[0].more()), (-libc::ECANCELED, false));
        ring.submit(2, Op::Poll { descriptor: ours, events: events(libc::POLLIN) });
        peer.write_all(&[round; 5_000]).expect("a write");
        assert_eq!(ring.one().result, i32::from(libc::POLLIN));
        let mut left = 5_000;
        while left > 0 {
            left -= take(&mut ring, ours, 5_000).expect("more on loopback");
        }
    }
    ring.close_now(ours);
}

fn buffers_go_round_the_ring_many_times<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    for buffer in 0..BUFFERS {
        ring.provide(buffer);
    }
    ring.submit(0, Op::Receive { socket: ours, multishot: true });
    ring.submit_and_wait(0, Duration::ZERO).expect("a working ring");
    // More than a u16's tail can count without wrapping would take long; the ring wraps 32 times.
    for turn in 0..u32::from(BUFFERS) * 32 {
        peer.write_all(&turn.to_ne_bytes()).expect("a write");
        let found = ring.one();
        assert_eq!((found.result, found.more()), (4, true));
        ring.provide(found.buffer().expect("a buffer"));
    }
    ring.submit(1, Op::Cancel { target: token(0) });
    ring.collect(2);
    ring.close_now(ours);
}

fn a_multishot_accept_brings_sockets_that_never_block<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let listener = TcpListener::bind("[::1]:0").expect("a listener");
    let to = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("non-blocking");
    let listening = Descriptor(listener.as_raw_fd());
    ring.submit(0, Op::Accept { listener: listening, multishot: true });
    ring.assert_quiet();
    let clients: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(to).expect("a connect")).collect();
    let accepted = ring.collect(3);
    for completion in &accepted {
        assert!(completion.result >= 0 && completion.more(), "{completion:?}");
        let socket = Descriptor(completion.result);
        // SAFETY: no pointers.
        let flags = unsafe { libc::fcntl(socket.0, libc::F_GETFL) };
        assert_ne!(flags & libc::O_NONBLOCK, 0);
        let peer = ring.peer_address(socket).expect("a peer");
        assert!(clients.iter().any(|client| client.local_addr().is_ok_and(|own| own == peer)));
        ring.close_now(socket);
    }
    ring.submit(1, Op::Cancel { target: token(0) });
    let ended = ring.collect(2);
    assert_eq!((ended[0].result, ended[0].more()), (-libc::ECANCELED, false));

    assert_eq!(ring.accept_now(listening), Err(Errno(libc::EAGAIN)));
    let _late = TcpStream::connect(to).expect("a connect");
    let late = ring.accept_now(listening).expect("what waits in the backlog");
    ring.close_now(late);
}

/// Their addresses outlive the full queue that delays them.
fn connects_beyond_the_queue_all_arrive<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let listeners: Vec<TcpListener> = ["127.0.0.1:0", "[::1]:0", "127.0.0.2:0"]
        .iter()
        .map(|address| TcpListener::bind(address).expect("a listener"))
        .collect();
    let mut sockets = Vec::new();
    for number in 0..30 {
        let to = listeners[number % 3].local_addr().expect("an address");
        let socket = ring.socket(&to, None, None).expect("a socket");
        sockets.push((socket, to));
        ring.submit(number as u32, Op::Connect { socket, address: &raw const to });
    }
    assert!(ring.collect(30).iter().all(|completion| completion.result == 0));
    for (socket, to) in sockets {
        assert_eq!(ring.peer_address(socket), Ok(to));
        ring.close_now(socket);
    }
}

fn a_send_is_finished_by_the_kernel_however_slow_the_reader<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    let bytes = vec![3u8; 16 << 20];
    let length = bytes.len() as u32;
    ring.submit(0, Op::Send { socket: ours, address: bytes.as_ptr(), length, more: false });
    ring.assert_quiet();
    let before = ring.delivery(ours).expect("a TCP socket").acknowledged;
    assert!(before < u64::from(length));
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; 16 << 20];
        peer.read_exact(&mut received).map(|()| received)
    });
    assert_eq!(ring.one().result, length as i32);
    assert!(ring.delivery(ours).expect("a TCP socket").acknowledged > before);
    assert_eq!(reader.join().expect("no panic").expect("all bytes"), bytes);
    ring.close_now(ours);
}

fn piece(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// Waits until the progress of a socket is as expected. A segment of the peer, even over loopback,
/// may be handled a moment later on another CPU.
#[track_caller]
fn wait_for<R: TestedRing>(ring: &mut R, socket: Descriptor, expected: impl Fn(Delivery) -> bool) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let delivery = ring.delivery(socket).expect("a TCP socket");
        if expected(delivery) {
            return;
        }
        assert!(Instant::now() < give_up, "{delivery:?}");
        std::thread::yield_now();
    }
}

fn received_bytes_count_before_they_are_read<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    let received = |ring: &mut R| ring.delivery(ours).expect("a TCP socket").received;
    assert_eq!(received(&mut ring), 0);
    peer.write_all(&[3; 1_000]).expect("there is room");
    wait_for(&mut ring, ours, |it| it.received == 1_000);
    assert_eq!(ring.discard(ours, 400), Ok(400));
    assert_eq!(received(&mut ring), 1_000);
    ring.close_now(ours);
}

fn outstanding_bytes_end_with_the_acknowledgement_or_the_connection<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    assert_eq!(ring.delivery(ours).map(|it| it.outstanding), Ok(0));
    let bytes = vec![3u8; 16 << 20];
    let sent = ring.send_now(ours, &[piece(&bytes)], false).expect("there is room");
    let outstanding = |ring: &mut R| ring.delivery(ours).expect("a socket").outstanding;
    let before = outstanding(&mut ring);
    assert!(0 < before && before < sent, "{before} of {sent}");
    // The FIN waits behind them and is not counted.
    ring.shutdown(ours, Shutdown::Write).expect("connected");
    assert_eq!(outstanding(&mut ring), before);
    let mut received = Vec::new();
    peer.read_to_end(&mut received).expect("all that was sent");
    assert_eq!(received.len(), sent as usize);
    wait_for(&mut ring, ours, |it| it.outstanding == 0);
    drop(peer);
    assert_eq!(outstanding(&mut ring), 0);
    ring.close_now(ours);

    let (ours, peer) = pair();
    ring.send_now(ours, &[piece(&bytes)], false).expect("there is room");
    let before = wait_for_rest(&mut ring, ours);
    // Unread bytes: a reset.
    drop(peer);
    wait_for(&mut ring, ours, |it| it.outstanding == 0);
    assert_eq!(ring.delivery(ours).map(|it| it.lost), Ok(before));
    ring.close_now(ours);
}

/// Waits until the peer acknowledges nothing more. Returns the bytes that it has not.
fn wait_for_rest<R: TestedRing>(ring: &mut R, socket: Descriptor) -> u32 {
    let mut before = ring.delivery(socket).expect("a TCP socket");
    loop {
        std::thread::sleep(A_WHILE);
        let now = ring.delivery(socket).expect("a TCP socket");
        if now == before {
            return now.outstanding;
        }
        before = now;
    }
}

fn bytes_are_discarded_up_to_the_end_of_the_stream<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    assert_eq!(ring.discard(ours, 100), Err(Errno(libc::EAGAIN)));
    peer.write_all(&[1; 250]).expect("connected");
    wait_for(&mut ring, ours, |it| it.received == 250);
    let discarded = [100, 100, 50].map(Ok);
    assert_eq!([(); 3].map(|()| ring.discard(ours, 100)), discarded);
    assert_eq!(ring.discard(ours, 100), Err(Errno(libc::EAGAIN)));
    drop(peer);
    // The FIN counts as a received byte.
    wait_for(&mut ring, ours, |it| it.received == 251);
    assert_eq!(ring.discard(ours, 100), Ok(0));
    ring.close_now(ours);
}

fn a_send_past_the_ring_takes_its_pieces_in_order_and_as_many_as_there_is_room_for<
    R: TestedRing,
>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    let bytes: Vec<u8> = (0..64 << 20).map(|at: u32| (at / 7) as u8).collect();
    let small = [piece(&bytes[..1]), piece(&bytes[1..4]), piece(&bytes[4..9_000])];
    assert_eq!(ring.send_now(ours, &small, false), Ok(9_000));
    let rest = [piece(&bytes[9_000..100_000]), piece(&bytes[100_000..])];
    let mut taken = 9_000 + ring.send_now(ours, &rest, false).expect("there is room") as usize;
    assert!((9_001..bytes.len()).contains(&taken), "{taken}");
    // The kernel moves bytes to the peer meanwhile, which makes room for more.
    let refused = loop {
        match ring.send_now(ours, &[piece(&bytes[taken..])], false) {
            Ok(more) => taken += more as usize,
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, Errno(libc::EAGAIN));
    let mut received = vec![0; taken];
    peer.read_exact(&mut received).expect("all that was taken");
    assert!(received == bytes[..taken]);
    ring.shutdown(ours, Shutdown::Write).expect("a connected socket");
    assert_eq!(ring.send_now(ours, &small, false), Err(Errno(libc::EPIPE)), "and no signal");
    ring.close_now(ours);
}

/// `MSG_NOSIGNAL` and EPIPE: a dead peer costs an error, not the process.
fn a_send_after_our_fin_is_an_error_and_no_signal<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, _peer) = pair();
    ring.shutdown(ours, Shutdown::Write).expect("a connected socket");
    ring.submit(0, Op::Send { socket: ours, address: b"x".as_ptr(), length: 1, more: false });
    assert_eq!(ring.one().result, -libc::EPIPE);
    ring.close_now(ours);
}

/// The kernel counts the FIN of the peer as a byte.
fn traffic_counts_bytes_of_the_stream_only<R: TestedRing>() {
    let Some(mut ring) = ring::<R>() else { return };
    let (ours, mut peer) = pair();
    let traffic = |ring: &mut R, fin_seen| {
        let Traffic { received_bytes, sent_bytes } = ring.traffic(ours, fin_seen).expect("TCP");
        (received_bytes, sent_bytes)
    };
    assert_eq!(traffic(&mut ring, false), (0, 0));
    peer.write_all(&[3; 1_000]).expect("there is room");
    wait_for(&mut ring, ours, |it| it.received == 1_000);
    assert_eq!(ring.send_now(ours, &[piece(&[1; 30])], false), Ok(30));
    assert_eq!(traffic(&mut ring, false), (1_000, 30));
    peer.shutdown(std::net::Shutdown::Write).expect("connected");
    wait_for(&mut ring, ours, |it| it.received == 1_001);
    assert_eq!(traffic(&mut ring, false), (1_000, 30));
    // Our FIN, and both are acknowledged: the end of the connection.
    ring.shutdown(ours, Shutdown::Write).expect("connected");
    peer.read_to_end(&mut Vec::new()).expect("30 bytes");
    let give_up = Instant::now() + PATIENCE;
    while !ring.is_reset(ours) {
        assert!(Instant::now() < give_up, "our FIN is not acknowledged");
        std::thread::yield_now();
    }
    assert_eq!(traffic(&mut ring, true), (1_000, 30));
    ring.close_now(ours);
}

on_each_ring! {
    a_zero_length_receive_waits_for_data_then_says_so_without_taking_it,
    a_zero_length_receive_reports_fin_like_data_and_a_reset_as_an_error,
    without_buffers_a_receive_ends_at_once_and_hides_even_the_end,
    a_multishot_receive_brings_data_in_buffers_and_the_end_without_one,
    a_one_shot_receive_fills_a_buffer_and_tells_that_more_is_there,
    a_poll_reports_what_receives_beside_the_ring_have_left,
    a_receive_beside_the_ring_reports_a_reset,
    a_multishot_receive_follows_receives_beside_the_ring,
    buffers_go_round_the_ring_many_times,
    a_multishot_accept_brings_sockets_that_never_block,
    connects_beyond_the_queue_all_arrive,
    a_send_is_finished_by_the_kernel_however_slow_the_reader,
    received_bytes_count_before_they_are_read,
    outstanding_bytes_end_with_the_acknowledgement_or_the_connection,
    bytes_are_discarded_up_to_the_end_of_the_stream,
    a_send_past_the_ring_takes_its_pieces_in_order_and_as_many_as_there_is_room_for,
    a_send_after_our_fin_is_an_error_and_no_signal,
    traffic_counts_bytes_of_the_stream_only,
}
