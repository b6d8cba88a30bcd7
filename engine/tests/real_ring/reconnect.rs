//! Connections that are kept up: servers that are away, come, go and come back.

use crate::common::{address_of_its_own, serve, wait_until};
use crate::keeper::{Told, client};
use ringwright::{Connection, KeepConnectedError, Reason, Reconnect};
use socket2::SockRef;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// A port that is taken and refuses everybody, until somebody listens.
pub fn away() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address_of_its_own().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn nothing(_: &mut Connection<'_>, _: u64) {}

fn every(first: Duration, most: Duration) -> Reconnect {
    Reconnect { first, most, attempts: None }
}

/// Any part of a wait from its half on.
#[track_caller]
fn check_wait(next: Option<Duration>, whole: Duration) {
    let next = next.expect("it is tried again");
    assert!(next >= whole / 2 && next <= whole, "{next:?} of {whole:?}");
}

#[test]
fn a_server_that_is_away_at_first_is_found_when_it_comes() {
    let (socket, to) = away();
    let client = client(
        |_| {},
        nothing,
        move |shard| {
            shard.keep_connected(to, 7, every(8 * MS, 40 * MS)).expect("the first");
        },
    );
    let begun = Instant::now();
    let mut least = Duration::ZERO;
    for whole in [8, 16, 32, 40, 40] {
        check_wait(client.refused(7), whole * MS);
        least += whole * MS / 2;
    }
    socket.listen(8).unwrap();
    let (id, more) = client.opened(7);
    assert!(begun.elapsed() >= least, "{:?} for {least:?} of waiting", begun.elapsed());
    assert_eq!(client.handle().find(id).unwrap().expect("it is open").peer, to.into());
    let ledger = client.finish();
    let counted = (ledger.sum.connected, ledger.sum.connect_failed, ledger.sum.reconnects);
    assert_eq!(counted, (1, 5 + more, 5 + more));
}

#[test]
fn a_server_that_is_killed_is_found_again_when_it_is_back() {
    fn ask(connection: &mut Connection<'_>, _: u64) {
        let _ = connection.send(b"echo it\n");
    }
    let mut server = serve(|config| config.listeners = vec![address_of_its_own().into()]);
    let to = server.address;
    let client = client(
        |_| {},
        ask,
        move |shard| {
            shard.keep_connected(to, 1, every(5 * MS, 20 * MS)).expect("the first");
        },
    );
    for life in 0..4 {
        client.opened(1);
        let mut reply = Vec::new();
        while reply.len() < 3 {
            let Told::Received(1, bytes) = client.next() else { panic!("an echo") };
            reply.extend(bytes);
        }
        assert_eq!(reply, b"it\n");
        if life == 3 {
            break;
        }
        server.engine.handle().stop();
        assert_eq!(server.engine.join().unwrap().sum.closed_by[Reason::Stopped as usize], 1);
        let (reason, next) = client.closed(1);
        assert!(reason == Reason::PeerReset && next.is_some(), "{reason:?}, {next:?}");
        assert!(client.refused(1).is_some());
        server = serve(|config| config.listeners = vec![to.into()]);
    }
    client.finish();
    server.finish();
}

/// It accepts and hangs up: pressed no harder than if it were away.
#[test]
fn a_server_that_hangs_up_at_once_is_left_in_peace_for_longer_and_longer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let hangs_up = std::thread::spawn(move || {
        for _ in 0..4 {
            drop(listener.accept().unwrap());
        }
        listener.accept().unwrap()
    });
    let client = client(
        |_| {},
        nothing,
        move |shard| {
            shard.keep_connected(to, 1, every(100 * MS, 400 * MS)).expect("the first");
        },
    );
    for whole in [100, 200, 400, 400] {
        client.opened(1);
        let (reason, next) = client.closed(1);
        assert_eq!(reason, Reason::PeerFin);
        check_wait(next, whole * MS);
    }
    client.opened(1);
    let stays = hangs_up.join().unwrap();
    // One that has lasted begins anew.
    std::thread::sleep(450 * MS);
    drop(stays);
    let (_, next) = client.closed(1);
    check_wait(next, 100 * MS);
    client.finish();
}

#[test]
fn what_is_given_up_is_not_tried_again() {
    let (_away, to) = away();
    let client = client(
        |_| {},
        nothing,
        move |shard| {
            for tag in 0..2 {
                shard.keep_connected(to, tag, every(20 * MS, 20 * MS)).expect("there is room");
            }
        },
    );
    client.stop_reconnecting(0);
    client.told.try_iter().for_each(drop);
    // The one that was under way may be told of.
    let (mut told, mut others) = (0, 0);
    while others < 10 {
        match client.next() {
            Told::Failed(0, ..) => told += 1,
            Told::Failed(1, ..) => others += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(told <= 1, "{told} attempts after it was given up");
    // Of one that is not there, nothing comes.
    client.stop_reconnecting(0);
    client.stop_reconnecting(1);
    let handle = client.handle();
    let ledger = client.finish();
    assert_eq!(ledger.sum.connect_failed, 2 + ledger.sum.reconnects);
    handle.stop_reconnecting(0, 1).expect("a shard that has ended does not connect");
    handle.keep_connected(0, to, 1, Reconnect::default()).expect_err("nor does it begin to");
}

/// Given up in `opened`: until it has worked once.
#[test]
fn what_is_given_up_while_it_is_open_stays_open() {
    fn enough(connection: &mut Connection<'_>, tag: u64) {
        assert!(connection.local().stop_reconnecting(tag));
        assert!(!connection.local().stop_reconnecting(tag));
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let client = client(
        |_| {},
        enough,
        move |shard| {
            shard.keep_connected(to, 3, every(MS, MS)).expect("the first");
        },
    );
    let (id, _) = client.opened(3);
    let stays = listener.accept().unwrap();
    assert!(client.handle().find(id).unwrap().is_some(), "it stays");
    drop(stays);
    assert_eq!(client.closed(3), (Reason::PeerFin, None));
    assert_eq!(client.finish().sum.reconnects, 0);
}

/// Three of one tag in one callback: what was asked for is done, but only the last is kept up.
#[test]
fn a_tag_that_was_given_up_can_be_taken_again_at_once() {
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (before, after) = (listen(), listen());
    let (first, to) = (before.local_addr().unwrap(), after.local_addr().unwrap());
    let client = client(
        |_| {},
        nothing,
        move |shard| {
            shard.keep_connected(first, 5, every(MS, MS)).expect("the first");
            assert!(shard.stop_reconnecting(5));
            shard.keep_connected(to, 5, every(MS, MS)).expect("the tag is free");
            let taken = shard.keep_connected(to, 5, every(MS, MS)).expect_err("the tag is taken");
            assert_eq!(taken, KeepConnectedError::TagTaken { tag: 5 });
            assert!(shard.connect(first, 5), "what is not kept up may have any tag");
        },
    );
    for _ in 0..3 {
        client.opened(5);
    }
    for _ in 0..2 {
        drop(before.accept().unwrap());
        assert_eq!(client.closed(5), (Reason::PeerFin, None));
    }
    drop(after.accept().unwrap());
    let (reason, next) = client.closed(5);
    assert_eq!(reason, Reason::PeerFin);
    check_wait(next, MS);
    client.opened(5);
    let ledger = client.finish();
    assert_eq!((ledger.sum.connected, ledger.sum.reconnects), (4, 1));
}

#[test]
fn attempts_are_used_up() {
    let (socket, to) = away();
    let three = Reconnect { first: MS, most: 4 * MS, attempts: Some(3) };
    let client = client(
        |_| {},
        nothing,
        move |shard| {
            shard.keep_connected(to, 1, three).expect("the first");
        },
    );
    check_wait(client.refused(1), MS);
    check_wait(client.refused(1), 2 * MS);
    assert_eq!(client.refused(1), None);
    let handle = client.handle();
    // The tag is free again. What has lasted may fail as often as before.
    socket.listen(8).unwrap();
    let listener = TcpListener::from(socket);
    handle.keep_connected(0, to, 1, three).unwrap();
    client.opened(1);
    let (stays, _) = listener.accept().unwrap();
    std::thread::sleep(20 * MS);
    // A close would not do: a process of another test may hold a copy of the descriptor.
    SockRef::from(&listener).shutdown(Shutdown::Read).unwrap();
    drop(stays);
    let (reason, next) = client.closed(1);
    assert_eq!(reason, Reason::PeerFin);
    check_wait(next, MS);
    check_wait(client.refused(1), MS);
    check_wait(client.refused(1), 2 * MS);
    assert_eq!(client.refused(1), None);
    assert_eq!(client.finish().sum.reconnects, 5);
}

/// Nothing is held meanwhile, and nothing is waited for.
#[test]
fn a_drain_ends_those_that_wait() {
    let (_away, to) = away();
    let hour = Duration::from_secs(3600);
    let client = client(
        |config| config.reconnects_max = 1_000,
        nothing,
        move |shard| {
            for tag in 0..1_000 {
                shard.keep_connected(to, tag, every(hour, hour)).expect("there is room");
            }
            let refused =
                shard.keep_connected(to, 1_000, every(hour, hour)).expect_err("one too many");
            assert_eq!(refused, KeepConnectedError::TooMany { most: 1_000 });
            assert!(refused.to_string().contains("reconnects_max = 1000"), "{refused}");
        },
    );
    let mut waits = BTreeSet::new();
    for _ in 0..1_000 {
        let Told::Failed(_, _, Some(next)) = client.next() else { panic!("a failure") };
        check_wait(Some(next), hour);
        waits.insert(next.as_secs() / 18);
    }
    // A hundred parts of half an hour, ten in each: they do not come back in step.
    assert!(waits.len() > 95, "{} parts", waits.len());
    let handle = client.handle();
    // From outside, refusals come as failures.
    handle.keep_connected(0, to, 2_000, Reconnect::default()).unwrap();
    let Told::Failed(2_000, error, None) = client.next() else { panic!("it is refused") };
    let refused = error.get_ref().and_then(|inside| inside.downcast_ref::<KeepConnectedError>());
    assert_eq!(refused, Some(&KeepConnectedError::TooMany { most: 1_000 }));
    let idle = || {
        let ledger = handle.ledger();
        ledger.permits.free == ledger.permits.total && ledger.sum.descriptors == 0
    };
    wait_until("they hold nothing", idle);
    let ledger = client.finish();
    assert_eq!((ledger.sum.connect_failed, ledger.sum.reconnects), (1_001, 0));
}

/// Which ends are our own doing.
#[test]
fn what_we_end_ourselves_does_not_come_back() {
    fn act(connection: &mut Connection<'_>, tag: u64) {
        let _ = connection.send(&[tag as u8]);
        match tag {
            0 => connection.close(),
            1 => connection.abort(),
            2 => connection.finish(Duration::ZERO),
            3 => connection.protocol_error(),
            4 => connection.shutdown(),
            5 => panic!("a handler that panics"),
            _ => {}
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let accepts = std::thread::spawn(move || {
        // The other end is the first to end, until somebody says that this was the last.
        while let Ok((mut peer, _)) = listener.accept() {
            let mut bytes = Vec::new();
            let _ = peer.read_to_end(&mut bytes);
            if bytes == [99] {
                return;
            }
        }
    });
    let ends = [
        (Reason::LocalClose, false),
        (Reason::Aborted, false),
        (Reason::LocalClose, false),
        (Reason::ProtocolError, true),
        (Reason::PeerFin, true),
        (Reason::HandlerPanicked, true),
        (Reason::Kicked, true),
    ];
    for (tag, (reason, again)) in (0..).zip(ends) {
        let client = client(
            |_| {},
            act,
            move |shard| {
                shard.keep_connected(to, tag, every(20 * MS, 20 * MS)).expect("the first");
            },
        );
        let (id, _) = client.opened(tag);
        if reason == Reason::Kicked {
            client.handle().kick(id).unwrap();
        }
        // One of them has panicked in `opened`: its end is told, too.
        let (found, next) = client.closed(tag);
        assert_eq!((found, next.is_some()), (reason, again), "{next:?}");
        if again {
            client.opened(tag);
        }
        let ledger = client.finish();
        assert_eq!(ledger.sum.reconnects > 0, again, "{reason:?}: {}", ledger.to_json());
    }
    TcpStream::connect(to).unwrap().write_all(&[99]).unwrap();
    accepts.join().unwrap();
}

/// An attempt for which there is no permit has failed like any other.
#[test]
fn an_attempt_without_a_permit_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let client = client(
        |config| config.max_connections = 1,
        nothing,
        move |shard| {
            for tag in 0..2 {
                shard.keep_connected(to, tag, every(10 * MS, 10 * MS)).expect("there is room");
            }
        },
    );
    let (mut opened, mut failed) = (0, 0);
    while opened < 1 || failed < 3 {
        match client.next() {
            Told::Opened(0, _) => opened += 1,
            Told::Failed(1, error, next) => {
                assert!(error.to_string().contains("max_connections = 1"), "{error}");
                check_wait(next, 10 * MS);
                failed += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    client.stop_reconnecting(0);
    drop(listener.accept().unwrap());
    loop {
        match client.next() {
            Told::Closed(0, Reason::PeerFin, None) | Told::Failed(1, _, Some(_)) => {}
            Told::Opened(1, _) => break,
            other => panic!("{other:?}"),
        }
    }
    client.finish();
}
