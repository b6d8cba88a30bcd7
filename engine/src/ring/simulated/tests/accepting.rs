//! Accepting and connecting.

use super::*;

fn accept(bench: &mut Bench) {
    let listener = bench.listener;
    bench.push(token(Kind::Accept, 0), Op::Accept { listener, multishot: true });
}

#[test]
fn multishot_accept_drains_the_backlog() {
    let mut bench = Bench::new(1);
    for _ in 0..10 {
        bench.ring.add_peer(bench.listener, Plan::plain(), b"");
    }
    bench.all_within(5);
    accept(&mut bench);
    let all = bench.all_within(5);
    assert_eq!(all.len(), 10);
    assert!(all.iter().all(Completion::more));
    bench.ring.add_peer(bench.listener, Plan::plain(), b"");
    assert!(bench.one().more(), "it stays armed");
}

#[test]
fn emfile_ends_accept_with_nobody_connecting_and_loses_nothing() {
    let mut bench = Bench::new(1);
    bench.ring.set_descriptor_limit(1);
    accept(&mut bench);
    let failed = bench.one();
    assert_eq!((failed.result, failed.more()), (-libc::EMFILE, false));
    bench.ring.set_descriptor_limit(2);
    accept(&mut bench);
    for _ in 0..2 {
        bench.ring.add_peer(bench.listener, Plan::plain(), b"");
    }
    let results: Vec<i32> = bench.all_within(5).iter().map(|one| one.result).collect();
    assert_eq!(results, [FIRST + 1, -libc::EMFILE]);
    bench.ring.set_descriptor_limit(3);
    accept(&mut bench);
    assert_eq!(bench.one().result, FIRST + 2);
}

#[test]
fn passing_errors_end_accept() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed);
        bench.ring.faults.no_memory = 500;
        bench.ring.add_peer(bench.listener, Plan::plain(), b"");
        bench.all_within(5);
        accept(&mut bench);
        let completion = bench.all_within(5)[0];
        if completion.result < 0 {
            assert!(!completion.more());
            seen.insert(-completion.result);
        }
    }
    let expected = [
        libc::EPERM,
        libc::EINTR,
        libc::ENOMEM,
        libc::ENFILE,
        libc::EPROTO,
        libc::EOPNOTSUPP,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::ECONNABORTED,
        libc::ENOBUFS,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
    ];
    assert!(seen.iter().eq(&expected), "{seen:?}");
}

#[test]
fn a_socket_reset_before_it_is_accepted_has_no_address() {
    let mut bench = Bench::new(1);
    bench.ring.add_peer(bench.listener, Plan { stillborn: true, ..Plan::plain() }, b"");
    accept(&mut bench);
    let socket = Descriptor(bench.one().result);
    assert_eq!(bench.ring.peer_address(socket), Err(Errno(libc::ENOTCONN)));
    assert_eq!(bench.ring.shutdown(socket, Shutdown::Both), Err(Errno(libc::ENOTCONN)));
}

#[test]
fn closing_a_listener_resets_who_waits_but_not_while_an_accept_holds_it() {
    let mut bench = Bench::new(1);
    let peer = bench.ring.add_peer(bench.listener, Plan::plain(), b"");
    bench.all_within(5);
    bench.ring.close_now(bench.listener);
    assert_eq!(bench.ring.peers[peer].standing, Standing::GotReset);

    let mut bench = Bench::new(1);
    accept(&mut bench);
    let late = Plan { start_after_us: 1_500_000, ..Plan::plain() };
    bench.ring.add_peer(bench.listener, late, b"");
    bench.push(token(Kind::Close, 0), Op::Close { descriptor: bench.listener });
    assert_eq!(bench.one().result, 0);
    assert!(bench.one().result >= FIRST, "still accepted");
    bench.push(token(Kind::CancelAccept, 0), Op::Cancel { target: token(Kind::Accept, 0) });
    let mut results: Vec<i32> = bench.all_within(5).iter().map(|one| one.result).collect();
    results.sort_unstable();
    assert_eq!(results, [-libc::ECANCELED, 0]);
}

#[test]
fn an_empty_backlog_is_eagain_and_numbers_are_reused_lowest_first() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.ring.accept_now(bench.listener), Err(Errno(libc::EAGAIN)));
    let (_, first) = bench.accepted(Plan::plain(), b"");
    let (_, second) = bench.accepted(Plan::plain(), b"");
    assert_eq!((first.0, second.0), (FIRST + 1, FIRST + 2));
    bench.ring.close_now(first);
    let (_, third) = bench.accepted(Plan::plain(), b"");
    assert_eq!(third, first);
    assert_eq!(bench.ring.open_counts().sockets, 2);
}

fn connect(bench: &mut Bench, address: &SocketAddr) -> Descriptor {
    let socket = bench.ring.socket(address, None, None).expect("descriptors are free");
    bench.push(token(Kind::Connect, 1), Op::Connect { socket, address });
    socket
}

#[test]
fn connects_come_about_are_refused_or_stay_unanswered() {
    let address: SocketAddr = "10.1.1.1:80".parse().expect("an address");
    let mut bench = Bench::new(1);
    let socket = connect(&mut bench, &address);
    assert_eq!(bench.one().result, -libc::ECONNREFUSED);
    bench.ring.close_now(socket);

    bench.ring.endpoints.push(Endpoint { address, plan: Some(Plan::plain()) });
    let socket = connect(&mut bench, &address);
    assert_eq!(bench.one().result, 0);
    assert_eq!(bench.ring.peer_address(socket), Ok(address));
    assert!(bench.ring.peers.iter().any(|peer| peer.outgoing && peer.established));

    bench.ring.faults.connect_silent = 1000;
    let silent = connect(&mut bench, &address);
    assert!(bench.all_within(10_000).is_empty());
    bench.push(token(Kind::CancelConnect, 1), Op::Cancel { target: token(Kind::Connect, 1) });
    let mut results: Vec<i32> = bench.all_within(5).iter().map(|one| one.result).collect();
    results.sort_unstable();
    assert_eq!(results, [-libc::ECANCELED, 0]);
    bench.ring.close_now(silent);

    let silent = connect(&mut bench, &address);
    bench.all_within(5);
    assert_eq!(bench.ring.shutdown(silent, Shutdown::Both), Ok(()));
    assert_eq!(bench.one().result, -libc::ECONNRESET);
    bench.ring.close_now(silent);

    connect(&mut bench, &address);
    let late = bench.all_within(130_000);
    assert_eq!((late.len(), late[0].result), (1, -libc::ETIMEDOUT));
}
