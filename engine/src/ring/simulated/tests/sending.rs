//! Sending, files and pipes.

use super::*;
use crate::ring::{Delivery, FileKind};

fn send(bench: &mut Bench, socket: Descriptor, bytes: &[u8]) {
    let length = bytes.len() as u32;
    let op = Op::Send { socket, address: bytes.as_ptr(), length, more: false };
    bench.push(token(Kind::Send, 1), op);
}

fn delivery(acknowledged: u64, outstanding: u32) -> Delivery {
    Delivery { acknowledged, outstanding, ..Delivery::default() }
}

/// A peer that takes nothing, and room for so many bytes on the way to it.
fn stalled(bench: &mut Bench, room: usize) -> (usize, Descriptor) {
    let (peer, socket) = bench.accepted(Plan::plain(), b"");
    bench.ring.peer_vanishes(peer);
    bench.ring.peers[peer].socket.outbound_capacity = room;
    (peer, socket)
}

#[test]
fn a_send_completes_in_full_when_the_reader_reads() {
    for seed in 0..20 {
        let mut bench = Bench::new(seed);
        let plan = Plan { read_chunk_max: 100, pace_us: 50, ..Plan::plain() };
        let (peer, socket) = bench.accepted(plan, b"");
        bench.ring.peers[peer].socket.outbound_capacity = 10;
        let bytes: Vec<u8> = stream(seed, 0).take(2000).collect();
        send(&mut bench, socket, &bytes);
        assert_eq!(bench.one().result, 2000);
        assert_eq!(bench.ring.peers[peer].received, bytes);
        assert_eq!(bench.ring.delivery(socket), Ok(delivery(2000, 0)));
    }
}

#[test]
fn what_is_sent_is_read_as_late_as_at_the_completion() {
    let changed = (0..SEEDS).filter(|&seed| {
        let mut bench = Bench::new(seed);
        bench.ring.faults.delay = 500;
        let (peer, socket) = bench.accepted(Plan::plain(), b"");
        let mut bytes = vec![b'a'; 4000];
        send(&mut bench, socket, &bytes);
        bench.ring.submit_and_wait(0, Duration::ZERO).expect("never fails");
        bytes.fill(b'b');
        send_done(&mut bench);
        bench.ring.peers[peer].received.contains(&b'b')
    });
    assert!((100..190).contains(&changed.count()));
}

fn send_done(bench: &mut Bench) {
    while bench.ring.in_flight(token(Kind::Send, 1)) {
        bench.all_within(1);
    }
    bench.all_within(100);
}

#[test]
fn a_send_in_the_middle_ends_short_when_shut_down_aborted_or_cancelled() {
    let bytes = [7; 100];
    for way in 0..4 {
        let mut bench = Bench::new(1);
        let (peer, socket) = stalled(&mut bench, 30);
        send(&mut bench, socket, &bytes);
        assert!(bench.all_within(100).is_empty());
        assert_eq!(bench.ring.delivery(socket), Ok(delivery(0, 30)));
        match way {
            0 => bench.ring.shutdown(socket, Shutdown::Write).expect("connected"),
            1 => bench.ring.abort(socket).expect("connected"),
            2 => bench.ring.peers[peer].socket.die(libc::ECONNRESET),
            _ => bench
                .push(token(Kind::CancelReceive, 1), Op::Cancel { target: token(Kind::Send, 1) }),
        }
        let all = bench.all_within(100);
        let sent = all.iter().find(|one| one.token == token(Kind::Send, 1));
        assert_eq!(sent.expect("ended").result, 30);
        if way < 3 {
            send(&mut bench, socket, &bytes);
            assert!([-libc::EPIPE, -libc::ECONNRESET].contains(&bench.one().result));
        }
    }
}

#[test]
fn who_has_vanished_times_out() {
    let mut bench = Bench::new(1);
    let (_, socket) = stalled(&mut bench, 30);
    send(&mut bench, socket, &[7; 10]);
    bench.one();
    bench.push(token(Kind::Hangup, 1), Op::Poll { descriptor: socket, events: 0 });
    let gone = bench.all_within(130_000);
    assert_eq!(gone[0].result, i32::from(libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP));
    send(&mut bench, socket, &[7; 10]);
    assert_eq!(bench.one().result, -libc::ETIMEDOUT);
}

fn open(bench: &mut Bench, path: &std::ffi::CStr) -> i32 {
    let directory = bench.ring.add_directory();
    bench.push(
        token(Kind::Open, 1),
        Op::Open { directory, path: path.as_ptr(), waits: false, path_only: false, follows: false },
    );
    let result = bench.one().result;
    bench.ring.close_now(directory);
    result
}

const FILE: SimulatedFile = SimulatedFile { key: 5, bytes: 1 << 33, kind: FileKind::Regular };

#[test]
fn files_are_opened_read_and_closed() {
    let mut bench = Bench::new(1);
    bench.ring.add_file("big", FILE);
    bench.ring.add_error("secret", libc::EACCES);
    assert_eq!(open(&mut bench, c"absent"), -libc::ENOENT);
    assert_eq!(open(&mut bench, c"secret"), -libc::EACCES);
    let file = Descriptor(open(&mut bench, c"big"));
    let status = bench.ring.file_status(file).expect("open");
    assert_eq!((status.bytes, status.kind), (1 << 33, FileKind::Regular));
    let address = bench.read_address();
    for (offset, count) in [(5, 1000), (FILE.bytes - 10, 10), (FILE.bytes, 0)] {
        bench.push(token(Kind::Read, 1), Op::Read { file, address, length: 1000, offset });
        assert_eq!(bench.one().result, count);
        // SAFETY: in the arena; the read has completed.
        let bytes = unsafe { std::slice::from_raw_parts(address, count as usize) };
        assert!(bytes.iter().copied().eq(stream(5, offset).take(count as usize)));
    }
    close_beside(file);
    bench.all_within(1);
    assert_eq!(bench.ring.open_counts().files, 0);
}

#[test]
fn a_file_goes_through_a_pipe_to_a_socket() {
    for seed in 0..20 {
        let mut bench = Bench::new(seed);
        bench.ring.add_file("big", FILE);
        let file = Descriptor(open(&mut bench, c"big"));
        let (peer, socket) = bench.accepted(Plan::plain(), b"");
        bench.ring.peers[peer].socket.outbound_capacity = 3000;
        bench.ring.faults = Faults { short_file: 300, splice_again: 300, ..Faults::none() };
        let pipe = bench.ring.pipe(65536).expect("descriptors are free");
        let (from, length) = (1 << 32, 20_000u64);
        let mut done = 0;
        while done < length {
            let most = u64::from(pipe.capacity_bytes).min(length - done);
            let offset = from + done;
            let op = Op::Splice { file, offset, pipe: pipe.write, length: most as u32 };
            bench.push(token(Kind::Splice, 1), op);
            let mut held = bench.one().result as u32;
            done += u64::from(held);
            while held > 0 {
                match bench.ring.splice_to_socket(pipe.read, socket, held, false) {
                    Ok(count) => held -= count,
                    Err(errno) => {
                        assert_eq!(errno, Errno(libc::EAGAIN));
                        let events = libc::POLLOUT as u32;
                        let poll = Op::Poll { descriptor: socket, events };
                        bench.push(token(Kind::PollOut, 1), poll);
                        assert_eq!(bench.one().result, i32::from(libc::POLLOUT));
                    }
                }
            }
        }
        bench.all_within(10);
        assert_eq!(bench.ring.bytes_in_pipes(), 0);
        let expected = stream(5, from).take(length as usize);
        assert!(bench.ring.peers[peer].received.iter().copied().eq(expected));
    }
}

#[test]
fn a_file_cut_off_meanwhile_ends_early_and_storage_fails() {
    let mut bench = Bench::new(1);
    let number = bench.ring.add_file("big", FILE);
    let file = Descriptor(open(&mut bench, c"big"));
    let pipe = bench.ring.pipe(65536).expect("descriptors are free").write;
    bench.ring.files[number].bytes = 100;
    let splice = Op::Splice { file, offset: 100, pipe, length: 1000 };
    bench.push(token(Kind::Splice, 1), splice);
    assert_eq!(bench.one().result, 0);
    bench.ring.faults.file_error = 1000;
    bench.push(token(Kind::Splice, 1), splice);
    assert_eq!(bench.one().result, -libc::EIO);
    bench.ring.faults = Faults { file_interrupted: 1000, ..Faults::none() };
    bench.push(token(Kind::Splice, 1), splice);
    assert_eq!(bench.one().result, -libc::EINTR);
}

#[test]
fn a_pipe_may_be_smaller_than_asked_for() {
    let small = (0..SEEDS).filter(|&seed| {
        let mut bench = Bench::new(seed);
        bench.ring.pipe(65536).expect("descriptors are free").capacity_bytes == 4096
    });
    assert!((5..60).contains(&small.count()));
}

#[test]
fn every_transfer_may_be_short_and_none_is_empty_for_that() {
    let mut short = [0; 3];
    for seed in 0..20 {
        let mut bench = Bench::new(seed);
        bench.ring.add_file("big", FILE);
        let file = Descriptor(open(&mut bench, c"big"));
        let (peer, socket) = bench.accepted(Plan::plain(), b"");
        bench.ring.peer_sends(peer, &[1; 50]);
        bench.all_within(50);
        bench.ring.peers[peer].socket.outbound_capacity = 25;
        bench.ring.faults =
            Faults { short_file: 1000, short_send: 1000, short_receive: 1000, ..Faults::none() };
        let address = bench.read_address();
        send(&mut bench, socket, &[7; 50]);
        bench.push(token(Kind::Receive, 1), Op::Receive { socket, multishot: false });
        bench.push(token(Kind::Read, 1), Op::Read { file, address, length: 50, offset: 0 });
        let all = bench.all_within(50);
        for (kind, short) in [Kind::Send, Kind::Receive, Kind::Read].into_iter().zip(&mut short) {
            let one = all.iter().find(|one| one.token == token(kind, 1)).expect("ended");
            assert!((1..=50).contains(&one.result));
            *short += u32::from(one.result < 50);
        }
    }
    assert!(short.iter().all(|short| *short > 10), "{short:?}");
}
