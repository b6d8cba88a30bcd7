//! Receiving, probing and polling.

use super::*;

fn receive(bench: &mut Bench, socket: Descriptor, multishot: bool) {
    bench.push(token(Kind::Receive, 1), Op::Receive { socket, multishot });
}

fn fin() -> Plan {
    Plan { afterwards: Afterwards::Fin, ..Plan::plain() }
}

#[test]
fn a_zero_length_receive_waits_and_tells_data_and_fin_alike() {
    let mut bench = Bench::new(1);
    let (peer, socket) = bench.accepted(Plan::plain(), b"");
    bench.push(token(Kind::Probe, 1), Op::Probe { socket });
    assert!(bench.all_within(100).is_empty(), "nothing is there");
    bench.ring.peer_sends(peer, b"x");
    let data = bench.one();
    let (_, finished) = bench.accepted(fin(), b"");
    bench.push(token(Kind::Probe, 2), Op::Probe { socket: finished });
    let end = bench.one();
    assert_eq!((data.result, data.flags), (0, F_SOCK_NONEMPTY));
    assert_eq!((end.result, end.flags), (0, F_SOCK_NONEMPTY));
    bench.push(token(Kind::Probe, 1), Op::Probe { socket });
    assert_eq!(bench.one().flags, F_SOCK_NONEMPTY, "unread data completes it at once");
}

#[test]
fn a_zero_length_receive_tells_a_reset_once() {
    let mut bench = Bench::new(1);
    let (peer, socket) = bench.accepted(Plan::plain(), b"");
    bench.push(token(Kind::Probe, 1), Op::Probe { socket });
    bench.all_within(10);
    bench.ring.peer_resets(peer);
    assert_eq!(bench.one().result, -libc::ECONNRESET);
    receive(&mut bench, socket, false);
    assert_eq!(bench.one().result, 0, "sk_err is told once");
}

#[test]
fn polls_tell_data_fin_and_reset_apart() {
    let mut bench = Bench::new(1);
    let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
    let (data, data_socket) = bench.accepted(Plan::plain(), b"");
    let (_, fin_socket) = bench.accepted(fin(), b"");
    let (reset, reset_socket) = bench.accepted(Plan::plain(), b"");
    bench.ring.peer_sends(data, b"x");
    bench.all_within(10);
    bench.ring.peer_resets(reset);
    for (socket, mask) in [(data_socket, 0x1), (fin_socket, 0x2001), (reset_socket, 0x2019)] {
        bench.push(token(Kind::Probe, 1), Op::Poll { descriptor: socket, events });
        assert_eq!(bench.one().result, mask);
    }
    bench.push(token(Kind::Hangup, 1), Op::Poll { descriptor: fin_socket, events: 0 });
    assert_eq!(bench.one().result, 0x2000, "a FIN is reported whatever was asked for");
}

#[test]
fn a_receive_armed_without_buffers_fails_at_once_though_idle() {
    for multishot in [false, true] {
        let mut bench = Bench::without_buffers(1);
        let (_, socket) = bench.accepted(Plan::plain(), b"");
        receive(&mut bench, socket, multishot);
        let completion = bench.one();
        assert_eq!((completion.result, completion.flags), (-libc::ENOBUFS, 0));
    }
}

#[test]
fn an_idle_multishot_holds_no_buffer_and_enobufs_hides_the_end() {
    let mut bench = Bench::without_buffers(1);
    bench.ring.provide(3);
    let (peer, socket) = bench.accepted(Plan::plain(), b"");
    receive(&mut bench, socket, true);
    bench.all_within(10);
    assert_eq!(bench.ring.buffers_provided(), 1);
    bench.ring.peer_sends(peer, b"!");
    let data = bench.one();
    assert!(data.more() && data.buffer() == Some(3));
    bench.ring.peers[peer].plan.afterwards = Afterwards::Fin;
    bench.ring.touch(peer);
    let hidden = bench.one();
    assert_eq!((hidden.result, hidden.flags), (-libc::ENOBUFS, 0));
    assert_eq!(bench.bytes_of(data), b"!");
    receive(&mut bench, socket, true);
    let end = bench.one();
    assert_eq!((end.result, end.buffer(), end.more()), (0, None, false));
}

#[test]
fn without_buffers_the_data_stays_in_the_socket() {
    let mut bench = Bench::without_buffers(1);
    bench.ring.provide(0);
    let bytes: Vec<u8> = stream(1, 0).take(200).collect();
    let (_, socket) = bench.accepted(Plan::plain(), &bytes);
    let mut seen = Vec::new();
    while seen.len() < bytes.len() {
        if !bench.ring.in_flight(token(Kind::Receive, 1)) {
            receive(&mut bench, socket, true);
        }
        for completion in bench.all_within(5) {
            if completion.result == -libc::ENOBUFS {
                assert!(!completion.more());
            } else {
                assert!(completion.result > 0);
                seen.extend(bench.bytes_of(completion));
            }
        }
    }
    assert_eq!(seen, bytes);
}

#[test]
fn the_last_completion_of_a_multishot_may_carry_data() {
    let mut ended_with_data = 0;
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed);
        bench.ring.faults.multishot_end = 500;
        let (_, socket) = bench.accepted(Plan::plain(), b"data");
        receive(&mut bench, socket, true);
        let first = bench.all_within(50)[0];
        assert_eq!(first.buffer(), Some(0));
        ended_with_data += u32::from(!first.more());
        assert_eq!(bench.ring.in_flight(token(Kind::Receive, 1)), first.more());
    }
    assert!((20..180).contains(&ended_with_data));
}

#[test]
fn nonempty_says_whether_more_waits() {
    let mut bench = Bench::new(1);
    let (_, socket) = bench.accepted(fin(), &[1; 100]);
    bench.all_within(20);
    receive(&mut bench, socket, false);
    let first = bench.one();
    assert!(first.result == 64 && first.nonempty());
    receive(&mut bench, socket, false);
    let second = bench.one();
    assert!(second.result == 36 && second.nonempty(), "the FIN waits");
}

#[test]
fn a_reset_behind_a_fin_is_not_seen_by_reading() {
    let mut bench = Bench::new(1);
    let (peer, socket) = bench.accepted(fin(), b"");
    bench.all_within(10);
    bench.ring.peer_resets(peer);
    receive(&mut bench, socket, false);
    assert_eq!(bench.one().result, 0);
    bench.push(token(Kind::Hangup, 1), Op::Poll { descriptor: socket, events: 0 });
    assert_eq!(bench.one().result, i32::from(libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP));
    bench.push(
        token(Kind::Send, 1),
        Op::Send { socket, address: b"x".as_ptr(), length: 1, more: false },
    );
    assert_eq!(bench.one().result, -libc::EPIPE);
}

#[test]
fn a_full_completion_queue_ends_multishots_and_loses_nothing() {
    let mut bench = Bench::new(1);
    bench.ring.completion_capacity = 2;
    let bytes: Vec<u8> = stream(1, 0).take(500).collect();
    let (_, socket) = bench.accepted(Plan::plain(), &bytes);
    let mut seen = Vec::new();
    let mut ended = 0;
    while seen.len() < bytes.len() {
        if !bench.ring.in_flight(token(Kind::Receive, 1)) {
            receive(&mut bench, socket, true);
        }
        for completion in bench.all_within(5) {
            ended += u32::from(!completion.more());
            seen.extend(bench.bytes_of(completion));
        }
    }
    assert_eq!(seen, bytes);
    assert!(ended > 0 && bench.ring.counters().overflows > 0);
}

#[test]
fn a_receive_beside_the_ring_takes_some_of_what_is_there() {
    let (mut cut, mut without_memory) = (0, 0);
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed);
        (bench.ring.faults.short_receive, bench.ring.faults.no_receive_memory) = (300, 300);
        let sent: Vec<u8> = stream(1, 0).take(200).collect();
        let (_, socket) = bench.accepted(fin(), &sent);
        bench.all_within(20);
        let (mut seen, mut buffer) = (Vec::<u8>::new(), [0; 150]);
        loop {
            match bench.ring.receive_now(socket, &mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    cut += u32::from((count as usize) < buffer.len().min(sent.len() - seen.len()));
                    seen.extend(&buffer[..count as usize]);
                }
                Err(Errno(libc::ENOMEM)) => without_memory += 1,
                Err(Errno(libc::EAGAIN)) => drop(bench.all_within(5)),
                Err(errno) => panic!("{errno:?}"),
            }
        }
        assert_eq!(seen, sent);
    }
    assert!(cut > 0 && without_memory > 0);
    let mut bench = Bench::new(1);
    let (peer, socket) = bench.accepted(Plan::plain(), b"");
    assert_eq!(bench.ring.receive_now(socket, &mut [0; 9]), Err(Errno(libc::EAGAIN)));
    bench.ring.peer_resets(peer);
    assert_eq!(bench.ring.receive_now(socket, &mut [0; 9]), Err(Errno(libc::ECONNRESET)));
}
