//! What other threads may do: find, list, send, kick, broadcast, drain and stop.

use crate::common::{
    PATIENCE, address_of_its_own, ask, many_descriptors, read_line, serve, start, wait_until,
};
use ringwright::{
    Audience, CommandShardError, Config, Connection, ConnectionId, Engine, EngineHandle, Error,
    Handler, Local, Origin, QueryShardError, Reason, SlowReaders,
};
use ringwright_test_support::can_filter;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A deadline of a drain that no test waits for.
const FAR: Duration = Duration::from_secs(3_600);

#[test]
fn connections_are_found_and_listed() {
    let server = serve(|config| config.shards = Some(2));
    let handle = server.engine.handle();
    let mut clients: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, "echo in"), "in");
    }
    let all = handle.list(None, 1000).unwrap();
    assert_eq!(all.len(), 40);
    let mut addresses: Vec<SocketAddr> =
        all.iter().filter_map(|info| info.peer.address()).collect();
    addresses.sort_unstable();
    let mut expected: Vec<SocketAddr> =
        clients.iter().map(|client| client.local_addr().unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(addresses, expected);
    let mut paged = Vec::new();
    while let Ok(page) = handle.list(paged.last().copied(), 7)
        && !page.is_empty()
    {
        assert!(page.len() <= 7);
        paged.extend(page.into_iter().map(|info| info.id));
    }
    assert_eq!(paged, all.iter().map(|info| info.id).collect::<Vec<_>>());
    for info in &all {
        let found = handle.find(info.id).unwrap().expect("it is open");
        assert_eq!((found.id, found.peer), (info.id, info.peer));
        assert_eq!((found.state, found.origin), ("open", Origin::Listener(0)));
    }
    let gone = all[0].id;
    handle.kick(gone).unwrap();
    wait_until("it is gone", || handle.find(gone).unwrap().is_none());
    assert_eq!(handle.find(ConnectionId::from_number(u64::MAX)), Ok(None));
    assert_eq!(handle.list(None, 1000).unwrap().len(), 39);
    drop(clients);
    server.finish();
}

/// The table of `EngineHandle`.
#[test]
fn each_way_to_end_a_connection_by_its_id_keeps_its_output_or_drops_it() {
    const BYTES: usize = 300_000;
    type Way = fn(&EngineHandle, ConnectionId);
    let ways: [(Way, Reason); 7] = [
        (|handle, id| handle.drain_connection(id).unwrap(), Reason::LocalClose),
        (
            |handle, id| handle.run_on_connection(id, |c| c.finish(Duration::ZERO)).unwrap(),
            Reason::LocalClose,
        ),
        (|handle, id| handle.run_on_connection(id, |c| c.close()).unwrap(), Reason::LocalClose),
        (
            |handle, id| {
                let close = move |local: &mut Local<'_>| local.connection(id).unwrap().close();
                handle.run_on_shard(id.shard(), close).unwrap();
            },
            Reason::LocalClose,
        ),
        (|handle, id| handle.run_on_connection(id, |c| c.abort()).unwrap(), Reason::Aborted),
        (|handle, id| handle.kick(id).unwrap(), Reason::Kicked),
        (
            |handle, id| {
                handle.run_on_shard(id.shard(), move |local| assert!(local.kick(id))).unwrap();
            },
            Reason::Kicked,
        ),
    ];
    let server = serve(|_| {});
    let handle = server.engine.handle();
    for (way, (end, reason)) in ways.into_iter().enumerate() {
        let mut client = server.connect();
        assert_eq!(ask(&mut client, "echo in"), "in");
        let id = handle.list(None, 1).unwrap()[0].id;
        handle.send(id, vec![7; BYTES]).unwrap();
        end(&handle, id);
        let mut rest = Vec::new();
        let read = client.read_to_end(&mut rest);
        if reason == Reason::LocalClose {
            assert_eq!((read.unwrap(), rest.len()), (BYTES, BYTES), "way {way}");
        } else {
            assert!(read.is_err(), "way {way}: a reset");
        }
        drop(client);
        assert_eq!(server.ended.recv_timeout(PATIENCE), Ok((id, reason)), "way {way}");
        // The id names nobody any more.
        handle.drain_connection(id).unwrap();
        handle.kick(id).unwrap();
    }
    server.finish();
}

#[test]
fn everybody_is_kicked_and_those_who_come_later_are_not() {
    let _turn = many_descriptors();
    let server = serve(|config| config.shards = Some(2));
    let mut clients: Vec<TcpStream> = (0..900).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, "echo in"), "in");
    }
    server.engine.handle().kick_all().unwrap();
    for client in &mut clients {
        let error = client.read(&mut [0; 1]).expect_err("it was reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    server.still_serves();
    let ledger = server.finish();
    assert_eq!(ledger.sum.closed_by[Reason::Kicked as usize], 900);
    assert_eq!(ledger.sum.overflows, 0);
}

#[test]
fn a_broadcast_does_with_slow_readers_as_it_is_told() {
    let payload: Arc<[u8]> = Arc::from(&b"news\n"[..]);
    for slow in [SlowReaders::Skip, SlowReaders::Queue, SlowReaders::Disconnect] {
        let server = serve(|config| {
            config.output_high_bytes = 10_000;
            config.output_low_bytes = 5_000;
        });
        let handle = server.engine.handle();
        let mut swift = server.connect();
        assert_eq!(ask(&mut swift, "echo in"), "in");
        let lazy = server.stall();
        // Full since its first answer: below 5,000 bytes the handler queues more at once.
        wait_until("it does not read", || {
            let infos = handle.list(None, 10).unwrap();
            infos.iter().any(|info| info.queued_bytes >= 5_000)
        });
        handle.broadcast(payload.clone(), &Audience::All, slow).unwrap();
        assert_eq!(read_line(&mut swift).unwrap(), "news");
        // Who reads may do so before the ledger of that turn is out.
        let skipped = || handle.ledger().sum.broadcasts_skipped;
        wait_until("one is skipped, or none", || skipped() == u64::from(slow == SlowReaders::Skip));
        if slow == SlowReaders::Disconnect {
            assert_eq!(server.next_end(), Reason::OutputTooLong);
        } else {
            let connections = handle.connections();
            assert_eq!(connections, 2, "{slow:?}");
        }
        drop((swift, lazy));
        server.finish();
    }
}

/// Asks, in a callback, what would wait for itself.
struct Inside {
    engine: Arc<Mutex<Option<Engine>>>,
    answers: Sender<Vec<String>>,
}

impl Handler for Inside {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let id = connection.id();
        let state = connection.state();
        let local = connection.local();
        assert_eq!(local.list(None, 10)[0].id, id);
        assert_eq!((local.info(id).map(|it| it.state), state), (Some("open"), "open"));
        assert_eq!(local.info(id).expect("it is here").id, id);
        let handle: EngineHandle = local.engine().clone();
        assert_eq!(handle.find(id), Err(QueryShardError::FromCallback));
        assert_eq!(handle.list(None, 1), Err(QueryShardError::FromCallback));
        let engine = self.engine.lock().unwrap().take().expect("asked once");
        let waited = engine.wait().expect_err("it would wait for itself");
        // To begin a drain is no waiting, and allowed.
        handle.drain(PATIENCE);
        let joined = engine.join().expect_err("it would wait for itself");
        assert!(matches!((&waited, &joined), (Error::JoinFromCallback, Error::JoinFromCallback)));
        self.answers.send(vec![waited.to_string(), joined.to_string()]).unwrap();
        bytes.len()
    }
}

#[test]
fn waiting_in_a_callback_is_an_error_and_no_deadlock() {
    let (answers, answer) = channel();
    let engine = Arc::new(Mutex::new(None));
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        ..Config::default()
    };
    let inside = engine.clone();
    let started =
        start(config, move |_| Inside { engine: inside.clone(), answers: answers.clone() });
    let (address, handle) = (started.addresses()[0], started.handle());
    *engine.lock().unwrap() = Some(started);
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"?").unwrap();
    let errors = answer.recv_timeout(PATIENCE).expect("no deadlock");
    assert!(errors.iter().all(|error| error.contains("shard's own thread")), "{errors:?}");
    // The drain begun in the callback comes to its end.
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    wait_until("the shard has ended", || handle.connect(0, address, 1).is_err());
    assert_eq!(handle.connect(0, address, 1), Err(CommandShardError::Ended));
    assert_eq!(handle.connect(1, address, 1), Err(CommandShardError::NoSuchShard));
    assert_eq!(handle.stop_reconnecting(0, 1), Ok(()));
    assert_eq!(handle.stop_reconnecting(1, 1), Err(CommandShardError::NoSuchShard));
    assert!(handle.ledger().balanced());
}

#[test]
fn a_stop_resets_everybody_and_drains_are_as_good_as_one() {
    for drains_first in [false, true] {
        let server = serve(|config| config.shards = Some(2));
        // A drain would wait for them.
        let mut clients: Vec<TcpStream> = (0..50).map(|_| server.stall()).collect();
        for client in &mut clients {
            client.read_exact(&mut [0; 1]).unwrap();
        }
        let handle = server.engine.handle();
        if drains_first {
            let threads: Vec<_> = (0..8)
                .map(|at| {
                    let handle = handle.clone();
                    std::thread::spawn(move || {
                        for _ in 0..10 {
                            handle.drain(FAR + Duration::from_secs(at));
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
        let begun = Instant::now();
        handle.stop();
        assert!(handle.is_draining());
        let ledger = server.engine.join().unwrap();
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        assert!(ledger.balanced() && ledger.open() == 0, "{}", ledger.to_json());
        assert_eq!(ledger.sum.closed_by[Reason::Stopped as usize], 50);
        handle.stop();
    }
}

#[test]
fn who_waits_when_a_drain_begins_is_still_served() {
    let server = serve(|config| config.max_connections = 1);
    let mut inside = server.connect();
    assert_eq!(ask(&mut inside, "echo in"), "in");
    inside.write_all(b"big 3000000\n").unwrap();
    let mut waiting: Vec<TcpStream> = (0..5).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.write_all(b"echo at last\n").unwrap();
    }
    let handle = server.engine.handle();
    handle.drain(PATIENCE);
    std::thread::sleep(Duration::from_millis(300));
    let mut rest = Vec::new();
    inside.read_to_end(&mut rest).unwrap();
    drop(inside);
    for mut client in waiting {
        assert_eq!(read_line(&mut client).unwrap(), "at last");
    }
    let ledger = server.engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!((ledger.sum.opened, ledger.sum.turned_away), (6, 0));
}

/// Clients that connect without pause while the engine drains: who got a connection is answered,
/// who came too late is refused, nobody is reset.
#[test]
fn a_drain_resets_nobody_who_has_just_connected() {
    if !can_filter() {
        return;
    }
    // A SYN that the draining listener drops is sent again after a second: five rounds at a time.
    for batch in 0..2 {
        std::thread::scope(|scope| {
            for round in 0..5 {
                scope.spawn(move || drain_among_connects(5 * batch + round));
            }
        });
    }
}

fn drain_among_connects(round: usize) {
    let server = serve(|config| {
        config.shards = Some(1 + round % 2);
        config.listeners = vec![address_of_its_own().into()];
    });
    let address = server.address;
    let served = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let served = served.clone();
            std::thread::spawn(move || {
                loop {
                    let mut client = match TcpStream::connect(address) {
                        Ok(client) => client,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                            return;
                        }
                    };
                    client.set_read_timeout(Some(PATIENCE)).unwrap();
                    // An end before the first byte left is no answer, but no reset either.
                    let Ok(()) = client.write_all(b"echo in\n") else { continue };
                    let mut line = [0; 3];
                    match client.read_exact(&mut line) {
                        Ok(()) => {
                            assert_eq!(&line, b"in\n");
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
                    }
                }
            })
        })
        .collect();
    wait_until("somebody is served", || served.load(Ordering::Relaxed) > 0);
    std::thread::sleep(Duration::from_millis(7 * round as u64));
    server.engine.handle().drain(PATIENCE);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let ledger = server.engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!(ledger.sum.handshakes_lost, 0);
}

/// A handler that does nothing about a drain: what came before our FIN is received and answered.
#[test]
fn bytes_that_came_before_the_fin_are_answered() {
    for round in 0..20 {
        let server = serve(|_| {});
        let mut client = server.connect();
        assert_eq!(ask(&mut client, "echo in"), "in");
        // The shard is busy while both come: the drain, and bytes that it has not looked at.
        client.write_all(b"door 0\n").unwrap();
        server.doors.has_begun(1);
        if round % 2 == 0 {
            client.write_all(b"echo before\n").unwrap();
            server.engine.handle().drain(PATIENCE);
        } else {
            server.engine.handle().drain(PATIENCE);
            client.write_all(b"echo before\n").unwrap();
        }
        server.doors.open(0);
        let mut all = String::new();
        client.read_to_string(&mut all).unwrap();
        assert_eq!(all, "passed\nbefore\n", "round {round}");
        drop(client);
        let ledger = server.engine.join().unwrap();
        assert!(ledger.balanced(), "{}", ledger.to_json());
        assert_eq!(ledger.sum.closed_by[Reason::Drained as usize], 1);
        assert_eq!(ledger.sum.cut_off, 0);
    }
}

/// Our FIN has left, the peer's does not come: a drain does not wait for it.
#[test]
fn a_drain_ends_what_is_half_closed_or_half_asked() {
    for (line, answer, reason) in
        [("shutdown\n", "bye\n", Reason::Drained), ("half a li", "", Reason::Drained)]
    {
        let server = serve(|_| {});
        let mut client = server.connect();
        client.write_all(line.as_bytes()).unwrap();
        let mut back = vec![0; answer.len()];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, answer.as_bytes());
        wait_until("it has come", || server.engine.handle().ledger().sum.bytes_received == 9);
        server.engine.handle().drain(FAR);
        assert_eq!(client.read(&mut [0; 1]).expect("FIN, no reset"), 0);
        assert_eq!(server.next_end(), reason, "{line}");
        assert!(server.engine.join().unwrap().balanced());
    }
}

#[test]
fn a_broadcast_to_many_leaves_room_for_its_completions() {
    let _turn = many_descriptors();
    let server = serve(|config| {
        config.submission_entries = 64;
        config.receive_buffers = 64;
        config.send_buffers = 16;
        config.backlog = 64;
    });
    let handle = server.engine.handle();
    // One after the other: more at once than the backlog takes would wait a second each.
    let connect = |_| {
        let mut client = server.connect();
        assert_eq!(ask(&mut client, "echo in"), "in");
        client
    };
    let mut clients: Vec<TcpStream> = (0..1200).map(connect).collect();
    assert!(handle.ledger().sum.completion_entries < 600);
    handle.broadcast(b"news\n"[..].into(), &Audience::All, SlowReaders::Queue).unwrap();
    for client in &mut clients {
        assert_eq!(read_line(client).unwrap(), "news");
    }
    // Linux 6.1 may bring the ends of all connections in one call, and the queue overflows then.
    assert_eq!(handle.ledger().sum.overflows, 0);
    drop(clients);
    server.finish();
}

#[test]
fn ids_that_name_nobody_are_harmless() {
    let server = serve(|_| {});
    let handle = server.engine.handle();
    for id in [u64::MAX, 0, 1 << 56].map(ConnectionId::from_number) {
        assert_eq!(handle.find(id), Ok(None));
        assert_eq!(handle.kick(id), Ok(()));
        assert_eq!(handle.send(id, b"?"), Ok(()));
        // And that was carried out, before the next client gets one of these ids.
        assert_eq!(handle.find(id), Ok(None));
    }
    server.still_serves();
    server.finish();
}

#[test]
fn a_later_drain_does_not_lengthen_and_who_still_waits_is_turned_away() {
    let server = serve(|config| config.max_connections = 1);
    let handle = server.engine.handle();
    let mut inside = server.stall();
    inside.read_exact(&mut [0; 1]).unwrap();
    let waiting: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    wait_until("one waits, the others behind it", || handle.ledger().sum.waiting >= 1);
    let begun = Instant::now();
    handle.drain(Duration::from_millis(300));
    handle.drain(FAR);
    let ledger = server.engine.join().unwrap();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!((ledger.sum.opened, ledger.sum.turned_away), (1, 3));
    assert_eq!(ledger.sum.closed_by[Reason::Stopped as usize], 1);
    for mut client in waiting {
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}

#[test]
fn an_id_of_another_engine_names_nobody() {
    let (one, other) = (serve(|_| {}), serve(|_| {}));
    let (mut client, mut witness) = (one.connect(), other.connect());
    assert_eq!(ask(&mut client, "echo one"), "one");
    assert_eq!(ask(&mut witness, "echo other"), "other");
    let id = one.engine.handle().list(None, 1).unwrap()[0].id;
    let handle = other.engine.handle();
    assert_eq!(handle.find(id), Ok(None));
    handle.send(id, b"wrong\n").unwrap();
    handle.kick(id).unwrap();
    assert_eq!(ask(&mut witness, "echo still"), "still");
    drop((client, witness));
    one.finish();
    other.finish();
}

#[test]
fn a_broadcast_reaches_the_listeners_that_it_names() {
    let server = serve(|config| config.listeners = vec!["127.0.0.1:0".parse().unwrap(); 2]);
    let connect = |at: usize| {
        let client = TcpStream::connect(server.engine.addresses()[at]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    };
    let (mut first, mut second) = (connect(0), connect(1));
    for client in [&mut first, &mut second] {
        assert_eq!(ask(client, "echo in"), "in");
    }
    let handle = server.engine.handle();
    let send = |line: &'static [u8], listeners: &[u16]| {
        let audience = Audience::Listeners(listeners.into());
        handle.broadcast(line.into(), &audience, SlowReaders::Queue).unwrap();
    };
    send(b"nobody\n", &[]);
    send(b"nobody\n", &[2, 9]);
    send(b"second\n", &[1]);
    send(b"both\n", &[0, 1]);
    assert_eq!(read_line(&mut first).unwrap(), "both");
    assert_eq!(read_line(&mut second).unwrap(), "second");
    assert_eq!(read_line(&mut second).unwrap(), "both");
    drop((first, second));
    server.finish();
}
