//! Shutting down, aborting, closing, cancelling.

use super::*;

fn receive(bench: &mut Bench, socket: Descriptor) {
    bench.push(token(Kind::Receive, 1), Op::Receive { socket, multishot: true });
}

fn close(bench: &mut Bench, descriptor: Descriptor) {
    bench.push(token(Kind::Close, 1), Op::Close { descriptor });
}

#[test]
fn closing_with_a_receive_armed_sends_no_fin_until_it_ends() {
    let mut bench = Bench::new(1);
    let (peer, socket) = bench.accepted(Plan::plain(), b"");
    receive(&mut bench, socket);
    bench.all_within(10);
    close(&mut bench, socket);
    assert_eq!(bench.one().result, 0);
    assert_eq!(bench.ring.closes_while_armed, 1);
    assert!(!bench.ring.peers[peer].got_fin);
    let target = token(Kind::Receive, 1);
    bench.push(token(Kind::CancelReceive, 1), Op::Cancel { target });
    assert_eq!(bench.all_within(100).len(), 2);
    assert!(bench.ring.peers[peer].got_fin);
}

#[test]
fn shutdown_ends_what_is_armed_without_nonempty() {
    let mut bench = Bench::new(1);
    let (peer, socket) = bench.accepted(Plan::plain(), b"");
    receive(&mut bench, socket);
    bench.push(token(Kind::Hangup, 1), Op::Poll { descriptor: socket, events: 0 });
    bench.all_within(10);
    assert_eq!(bench.ring.shutdown(socket, Shutdown::Both), Ok(()));
    let mut all = bench.all_within(100);
    all.sort_by_key(|one| one.token.user_data());
    let told: Vec<(i32, u32)> = all.iter().map(|one| (one.result, one.flags)).collect();
    assert_eq!(told, [(0, 0), (i32::from(libc::POLLHUP | libc::POLLRDHUP), 0)]);
    assert!(bench.ring.peers[peer].got_fin);
}

#[test]
fn shutting_down_our_half_lets_the_other_go_on() {
    let mut bench = Bench::new(1);
    let plan = Plan { afterwards: Afterwards::Wait, ..Plan::plain() };
    let (peer, socket) = bench.accepted(plan, b"");
    assert_eq!(bench.ring.shutdown(socket, Shutdown::Write), Ok(()));
    bench.ring.peer_sends(peer, b"!");
    receive(&mut bench, socket);
    let all = bench.all_within(100);
    assert_eq!(bench.bytes_of(all[0]), b"!");
    assert_eq!(all[1].result, 0);
    assert_eq!(bench.ring.shutdown(socket, Shutdown::Both), Err(Errno(libc::ENOTCONN)));
}

#[test]
fn abort_is_a_reset_at_once_and_ends_what_is_armed() {
    let mut errors = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut bench = Bench::new(seed);
        let (peer, socket) = bench.accepted(Plan::plain(), b"");
        receive(&mut bench, socket);
        bench.all_within(10);
        assert_eq!(bench.ring.abort(socket), Ok(()));
        assert_eq!(bench.ring.peers[peer].standing, Standing::GotReset);
        errors.insert(-bench.one().result);
        assert_eq!(bench.ring.peer_address(socket), Err(Errno(libc::ENOTCONN)));
        assert_eq!(bench.ring.shutdown(socket, Shutdown::Both), Err(Errno(libc::ENOTCONN)));
    }
    assert!(errors.into_iter().eq([libc::ECONNRESET, libc::ENOTCONN]));
}

#[test]
fn closing_with_unread_input_resets_and_destroys_the_reply() {
    let mut bench = Bench::new(1);
    let (peer, socket) = bench.accepted(Plan::plain(), b"a request that nobody reads");
    bench.all_within(10);
    bench.ring.peers[peer].plan.pace_us = 1_000_000;
    let op = Op::Send { socket, address: b"reply".as_ptr(), length: 5, more: false };
    bench.push(token(Kind::Send, 1), op);
    bench.ring.submit_and_wait(1, Duration::from_millis(1)).expect("never fails");
    assert_eq!(bench.ring.completion().expect("there is room").result, 5);
    bench.ring.close_now(socket);
    assert_eq!(bench.ring.closes_with_unread, 1);
    let peer = &bench.ring.peers[peer];
    assert_eq!((peer.standing, peer.lost_by_reset), (Standing::GotReset, 5));
}

#[test]
fn who_sends_to_a_closed_socket_is_reset() {
    for both_halves in [false, true] {
        let mut bench = Bench::new(1);
        let (peer, socket) = bench.accepted(Plan { stall_us: NEVER, ..Plan::plain() }, b"");
        if both_halves {
            bench.ring.shutdown(socket, Shutdown::Both).expect("connected");
        } else {
            bench.ring.close_now(socket);
        }
        bench.all_within(10);
        assert_eq!(bench.ring.peers[peer].standing, Standing::Connected);
        bench.ring.peer_sends(peer, b"too late");
        bench.all_within(10);
        assert_eq!(bench.ring.peers[peer].standing, Standing::GotReset);
    }
}

#[test]
fn who_has_closed_answers_data_with_a_reset() {
    let mut bench = Bench::new(1);
    let (_, socket) = bench.accepted(Plan { afterwards: Afterwards::Close, ..Plan::plain() }, b"");
    bench.all_within(10);
    let send = Op::Send { socket, address: b"x".as_ptr(), length: 1, more: false };
    for result in [1, -libc::EPIPE] {
        bench.push(token(Kind::Send, 1), send);
        assert_eq!(bench.one().result, result);
    }
}

#[test]
fn a_cancel_may_win_or_come_too_late() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed);
        bench.ring.faults = Faults { delay: 500, late_completion: 500, ..Faults::none() };
        let (peer, socket) = bench.accepted(Plan::plain(), b"");
        bench.push(token(Kind::Receive, 1), Op::Receive { socket, multishot: seed % 2 == 0 });
        bench.all_within(5);
        bench.ring.peer_sends(peer, b"race");
        let target = token(Kind::Receive, 1);
        bench.push(token(Kind::CancelReceive, 1), Op::Cancel { target });
        let all = bench.all_within(50);
        let cancel = all.iter().find(|one| one.token != target).expect("a cancel ends").result;
        let data = all.iter().any(|one| one.token == target && one.result > 0);
        let last = all.iter().find(|one| one.token == target && !one.more());
        let cancelled = last.is_some_and(|one| one.result == -libc::ECANCELED);
        assert_eq!(cancelled, cancel == 0 && last.is_some_and(|one| one.result < 0));
        assert!(last.is_some() || cancel == -libc::EALREADY, "{all:?}");
        seen.insert((-cancel, data, cancelled));
    }
    for expected in [
        (0, false, true),
        (0, true, true),
        (libc::ENOENT, true, false),
        (libc::EALREADY, true, false),
    ] {
        assert!(seen.contains(&expected), "{expected:?} is not among {seen:?}");
    }
}

#[test]
fn a_cancelled_splice_may_end_in_erestartsys() {
    let mut results = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed);
        let kind = crate::ring::FileKind::Regular;
        bench.ring.add_file("f", SimulatedFile { key: 1, bytes: 1000, kind });
        let directory = bench.ring.add_directory();
        bench.push(
            token(Kind::Open, 1),
            Op::Open {
                directory,
                path: c"f".as_ptr(),
                waits: false,
                path_only: false,
                follows: false,
            },
        );
        let file = Descriptor(bench.one().result);
        let pipe = bench.ring.pipe(4096).expect("descriptors are free").write;
        bench.push(token(Kind::Splice, 1), Op::Splice { file, offset: 0, pipe, length: 100 });
        let target = token(Kind::Splice, 1);
        bench.push(token(Kind::CancelReceive, 1), Op::Cancel { target });
        let all = bench.all_within(50);
        assert_eq!(all.len(), 2);
        results.insert(all.iter().find(|one| one.token == target).expect("ended").result);
    }
    assert!(results.into_iter().eq([-512, -libc::ECANCELED, 100]));
}
