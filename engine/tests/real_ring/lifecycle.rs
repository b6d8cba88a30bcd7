//! How connections begin and end, on the real ring.

use crate::common::{
    PATIENCE, Scripted, address_of_its_own, ask, is_reset, read_line, reset, serve, stalling_bytes,
    start, stream_byte, try_start, wait_until,
};
use ringwright::{
    AtCapacity, Audience, BoxError, Config, Connection, ConnectionId, Error, Handler,
    IdleOperation, Local, Origin, Reason, SendStatus, SlowReaders,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[test]
fn bytes_come_in_order_whatever_the_pieces() {
    for operation in [IdleOperation::Receive, IdleOperation::Poll] {
        let server = serve(|config| {
            config.idle_operation = operation;
            config.park_after = Duration::from_millis(20);
        });
        let mut client = server.connect();
        let sum = || server.engine.handle().ledger().sum;
        let mut sent = 0;
        for round in 0..3 {
            let text = format!("{round}-{}", "x".repeat(5_000 * round));
            let line = format!("echo {text}\n");
            for piece in line.as_bytes().chunks(1_777) {
                client.write_all(piece).unwrap();
            }
            assert_eq!(read_line(&mut client).unwrap(), text);
            // The next round wakes it.
            sent += line.len() as u64;
            wait_until("it is parked", || {
                let sum = sum();
                (sum.bytes_received, sum.parked_now) == (sent, 1)
            });
        }
        assert_eq!(ask(&mut client, "echo 1\necho 2\necho 3"), "1");
        assert_eq!(read_line(&mut client).unwrap(), "2");
        assert_eq!(read_line(&mut client).unwrap(), "3");
        drop(client);
        assert_eq!(server.next_end(), Reason::PeerFin);
        server.finish();
    }
}

#[test]
fn a_half_close_is_seen_and_still_answered() {
    let server = serve(|_| {});
    let mut client = server.connect();
    client.write_all(b"echo a\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "a\nhalf\n");
    assert_eq!(server.next_end(), Reason::PeerFin);
    server.finish();
}

#[test]
fn shutdown_sends_fin_after_the_last_byte_and_still_receives() {
    let server = serve(|_| {});
    let mut client = server.connect();
    client.write_all(b"big 3000000\nshutdown\n").unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(b"bye\n") && all.len() == 3_000_004);
    // Our direction is still open.
    client.write_all(b"echo unheard\n").unwrap();
    drop(client);
    assert_eq!(server.next_end(), Reason::PeerFin);
    server.finish();
}

/// Notes its callbacks. Its FIN answers the first bytes.
struct ShutsFirst(mpsc::Sender<&'static str>);

impl Handler for ShutsFirst {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {
        self.0.send("opened").unwrap();
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        self.0.send("received").unwrap();
        connection.shutdown();
        bytes.len()
    }

    fn half_closed(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        self.0.send("half_closed").unwrap();
        assert_eq!(connection.send(b"late"), SendStatus::Closed);
    }

    fn closed(&mut self, _: Option<()>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        assert_eq!(reason, Reason::PeerFin);
        self.0.send("closed").unwrap();
    }
}

#[test]
fn a_fin_that_answers_ours_is_reported() {
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        ..Config::default()
    };
    let (sender, callbacks) = mpsc::channel();
    let engine = start(config, move |_| ShutsFirst(sender.clone()));
    let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"first").unwrap();
    assert_eq!(client.read(&mut [0; 10]).unwrap(), 0, "its FIN comes first");
    client.write_all(b"second").unwrap();
    drop(client);
    let called: Vec<_> =
        std::iter::repeat_with(|| callbacks.recv_timeout(PATIENCE).unwrap()).take(5).collect();
    assert_eq!(called, ["opened", "received", "received", "half_closed", "closed"]);
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}

#[test]
fn close_never_turns_an_unread_reply_into_a_reset() {
    let server = serve(|_| {});
    for _ in 0..20 {
        let mut client = server.connect();
        let mut lines = b"close\n".to_vec();
        lines.extend(std::iter::repeat_n(b'x', 300_000));
        client.write_all(&lines).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("no reset before the reply was read");
        assert_eq!(answer, "bye\n");
        drop(client);
        assert_eq!(server.next_end(), Reason::LocalClose);
    }
    server.finish();
}

#[test]
fn close_gives_up_on_a_peer_that_never_ends() {
    let server = serve(|config| config.linger_timeout = Duration::from_millis(100));
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "close"), "bye");
    assert_eq!(server.next_end(), Reason::LocalClose);
    server.finish();
}

#[test]
fn abort_is_a_reset() {
    let server = serve(|_| {});
    let mut client = server.connect();
    client.write_all(b"abort\n").unwrap();
    let error = client.read(&mut [0; 16]).expect_err("a reset, not an end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.next_end(), Reason::Aborted);
    server.finish();
}

#[test]
fn a_reset_in_the_middle_of_a_reply_ends_that_connection_only() {
    let server = serve(|_| {});
    let mut witness = server.connect();
    for round in 0..100 {
        let mut client = server.connect();
        client.write_all(b"big 2000000\n").unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        if round % 2 == 0 {
            reset(client)
        } else {
            drop(client)
        }
        let reason = server.next_end();
        assert!(is_reset(reason), "{reason:?}");
    }
    assert_eq!(ask(&mut witness, "echo fine"), "fine");
    server.still_serves();
    drop(witness);
    server.finish();
}

#[test]
fn a_slow_reader_makes_itself_wait_and_nobody_else() {
    let server = serve(|_| {});
    let mut slow = server.stall();
    let total = stalling_bytes();
    // More input behind it.
    slow.write_all(b"echo after\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..50 {
        server.still_serves();
    }
    let mut read = 0;
    let mut piece = vec![0; 1 << 16];
    while read < total {
        let count = slow.read(&mut piece).unwrap().min((total - read) as usize);
        assert!(count > 0, "the end after {read} bytes");
        for byte in &piece[..count] {
            assert_eq!(*byte, stream_byte(read), "at {read}");
            read += 1;
        }
    }
    drop(slow);
    let ledger = server.finish();
    assert!(ledger.sum.bytes_sent >= total);
}

#[test]
fn deadlines_end_the_idle_the_half_sent_and_the_stalled() {
    let short = Some(Duration::from_millis(150));
    let server = serve(|config| config.idle_timeout = short);
    let mut idle = server.connect();
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "an idle connection ends with FIN");
    drop(idle);
    assert_eq!(server.next_end(), Reason::IdleTimeout);
    server.finish();

    let server = serve(|config| config.receive_timeout = short);
    let mut half = server.connect();
    let begun = Instant::now();
    let message = "echo never finished";
    for byte in message.as_bytes() {
        if half.write_all(&[*byte]).is_err() || begun.elapsed() > Duration::from_millis(400) {
            break;
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    let reply = read_line(&mut half).unwrap();
    let unused = reply.strip_prefix("late ").expect("the reply to a late message");
    assert!(unused.starts_with('e') && message.starts_with(unused), "{reply}");
    drop(half);
    assert_eq!(server.next_end(), Reason::ReceiveTimeout);
    server.finish();

    let server = serve(|config| config.write_timeout = short);
    let _stalled = server.stall();
    assert_eq!(server.next_end(), Reason::WriteTimeout);
    server.finish();
}

#[test]
fn a_message_that_never_ends_is_bounded() {
    let server = serve(|config| config.message_bytes_max = 10_000);
    let mut client = server.connect();
    let _ = client.write_all(&vec![b'x'; 100_000]);
    assert_eq!(server.next_end(), Reason::MessageTooLong);
    server.finish();
}

#[test]
fn a_panic_in_a_callback_ends_that_connection_only() {
    let server = serve(|_| {});
    let mut witness = server.connect();
    let mut client = server.connect();
    client.write_all(b"panic\n").unwrap();
    assert_eq!(server.next_end(), Reason::HandlerPanicked);
    assert_eq!(ask(&mut witness, "echo fine"), "fine");
    drop(witness);
    assert_eq!(server.finish().sum.handler_panics, 1);
}

#[test]
fn at_capacity_clients_wait_their_turn() {
    let server = serve(|config| config.max_connections = 3);
    let mut inside: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    for client in &mut inside {
        assert_eq!(ask(client, "echo in"), "in");
    }
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.write_all(b"echo at last\n").unwrap();
    }
    wait_until("somebody waits", || server.engine.handle().ledger().sum.waiting >= 1);
    let ledger = server.engine.handle().ledger();
    assert_eq!((ledger.open(), ledger.permits.free), (3, 0));
    drop(inside);
    for mut client in waiting {
        assert_eq!(read_line(&mut client).unwrap(), "at last");
    }
    server.finish();
}

#[test]
fn at_capacity_clients_are_turned_away_if_asked() {
    let server = serve(|config| {
        config.max_connections = 1;
        config.at_capacity = AtCapacity::Reject;
    });
    let mut inside = server.connect();
    assert_eq!(ask(&mut inside, "echo in"), "in");
    let mut outside = server.connect();
    assert_eq!(outside.read(&mut [0; 1]).unwrap_or(0), 0, "closed without an answer");
    drop(inside);
    wait_until("the permit is back", || server.engine.handle().ledger().permits.free == 1);
    server.still_serves();
    assert_eq!(server.finish().sum.rejected, 1);
}

#[test]
fn three_permits_under_clients_that_come_four_at_a_time_and_leave() {
    for shards in [1, 2] {
        let server = serve(|config| {
            config.max_connections = 3;
            config.shards = Some(shards);
        });
        let address = server.address;
        let clients: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    for round in 0..500 {
                        let client = TcpStream::connect(address).expect("it is let in in the end");
                        if round % 3 == 0 { reset(client) } else { drop(client) }
                    }
                })
            })
            .collect();
        while !clients.iter().all(std::thread::JoinHandle::is_finished) {
            let ledger = server.engine.handle().ledger();
            assert!(ledger.permits.free <= 3);
            std::thread::sleep(Duration::from_millis(1));
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
        server.still_serves();
        server.finish();
    }
}

#[test]
fn kicking_and_sending_from_another_thread() {
    let server = serve(|_| {});
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "echo hello"), "hello");
    let handle = server.engine.handle();
    handle.broadcast(b"to all\n"[..].into(), &Audience::All, SlowReaders::Queue).unwrap();
    assert_eq!(read_line(&mut client).unwrap(), "to all");
    drop(client);
    let (id, _) = server.ended.recv_timeout(PATIENCE).unwrap();
    // Gone: nothing happens to whoever has its slot now.
    let mut next = server.connect();
    assert_eq!(ask(&mut next, "echo next"), "next");
    handle.kick(id).unwrap();
    handle.send(id, b"wrong\n").unwrap();
    assert_eq!(ask(&mut next, "echo still"), "still");
    drop(next);
    server.finish();
}

#[test]
fn drain_lets_what_is_in_flight_finish() {
    let server = serve(|config| config.listeners = vec![address_of_its_own().into()]);
    let mut client = server.stall();
    client.read_exact(&mut [0; 100]).unwrap();
    let handle = server.engine.handle();
    handle.drain(2 * PATIENCE);
    handle.drain(PATIENCE);
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).map(|_| rest.len())
    });
    let ledger = server.engine.join().unwrap();
    // What was queued when the drain began, all of it; then FIN.
    assert!(reader.join().unwrap().unwrap() >= 256 << 10);
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

#[test]
fn drain_resets_what_is_left_at_its_deadline() {
    let server = serve(|_| {});
    let mut client = server.stall();
    client.read_exact(&mut [0; 100]).unwrap();
    let begun = Instant::now();
    server.engine.handle().drain(Duration::from_millis(200));
    let ledger = server.engine.join().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(195));
    assert!(begun.elapsed() < PATIENCE);
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!(ledger.sum.closed, 1);
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let refused = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        match try_start(config, |_| Scripted::unobserved()) {
            Err(Error::Config { key, remedy, .. }) => {
                assert!(!remedy.is_empty(), "{key}");
                key
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it started"),
        }
    };
    assert_eq!(refused(|config| config.shards = Some(0)), "shards");
    assert_eq!(refused(|config| config.max_connections = 0), "max_connections");
    assert_eq!(refused(|config| config.outgoing_reserved = 10_001), "outgoing_reserved");
    let reserves_all = |config: &mut Config| {
        config.listeners = vec!["127.0.0.1:0".parse().unwrap()];
        config.outgoing_reserved = config.max_connections;
    };
    assert_eq!(refused(reserves_all), "outgoing_reserved");
    assert_eq!(refused(|config| config.receive_buffers = 100), "receive_buffers");
    assert_eq!(refused(|config| config.backlog = 0), "backlog");
    assert_eq!(refused(|config| config.pipe_bytes = 0), "pipe_bytes");
    assert_eq!(refused(|config| config.pipe_bytes = u32::MAX), "pipe_bytes");
    let refused_zero = |key: &str, change: fn(&mut Config, Duration)| {
        let mut config = Config { shards: Some(1), pin: false, ..Config::default() };
        change(&mut config, Duration::ZERO);
        let error = try_start(config, |_| Scripted::unobserved()).err();
        let text = error.expect("zero is refused").to_string();
        assert!(text.starts_with(&format!("{key} = 0ns is not allowed")), "{text}");
    };
    refused_zero("open_files_valid", |config, value| config.open_files_valid = value);
    refused_zero("park_after", |config, value| config.park_after = value);
    refused_zero("idle_timeout", |config, value| config.idle_timeout = Some(value));
    refused_zero("receive_timeout", |config, value| config.receive_timeout = Some(value));
    refused_zero("write_timeout", |config, value| config.write_timeout = Some(value));
    refused_zero("transfer_timeout", |config, value| config.transfer_timeout = Some(value));
    refused_zero("connect_timeout", |config, value| config.connect_timeout = value);
    refused_zero("linger_timeout", |config, value| config.linger_timeout = value);
    refused_zero("linger_total", |config, value| config.linger_total = value);
    refused_zero("accept_backoff", |config, value| config.accept_backoff = value);
    refused_zero("tcp_keepalive", |config, value| config.tcp_keepalive = Some(value));
    refused_zero("tcp_user_timeout", |config, value| config.tcp_user_timeout = Some(value));
    let day = |config: &mut Config| config.tcp_keepalive = Some(Duration::from_secs(86_400));
    assert_eq!(refused(day), "tcp_keepalive");
    // Beyond 2^32 ms, this would wrap to 1 ms.
    let wraps =
        |config: &mut Config| config.tcp_user_timeout = Some(Duration::from_millis((1 << 32) + 1));
    assert_eq!(refused(wraps), "tcp_user_timeout");
}

/// The kernel takes the largest values that the engine allows.
#[test]
fn the_longest_tcp_timeouts_work() {
    let server = serve(|config| {
        config.tcp_keepalive = Some(Duration::from_secs(32_767));
        config.tcp_user_timeout = Some(Duration::from_millis(i32::MAX as u64));
    });
    server.still_serves();
    server.finish();
}

#[test]
fn an_address_in_use_is_an_error_that_says_so() {
    let server = serve(|_| {});
    let config =
        Config { listeners: vec![server.address.into()], shards: Some(2), ..Config::default() };
    let error = try_start(config, |_| Scripted::unobserved()).err();
    let error = error.expect("the port is taken").to_string();
    assert!(error.contains(&server.address.to_string()) && error.contains("another process"));
    server.still_serves();
    server.finish();
}

/// A shard that was kept from running for longer than the deadline looks at what has come before it
/// takes its clients for idle. They are more than one look into the ring brings.
#[test]
fn whose_bytes_are_there_is_not_idle() {
    let timeout = Duration::from_secs(1);
    let server = serve(|config| config.idle_timeout = Some(timeout));
    let mut clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
    let mut last = server.connect();
    // All at once, so that the shard is kept before the first of them is idle.
    for client in &mut clients {
        client.write_all(b"echo here\n").unwrap();
    }
    for client in &mut clients {
        assert_eq!(read_line(client).unwrap(), "here");
    }
    last.write_all(b"door 0\n").unwrap();
    server.doors.has_begun(1);
    let kept = Instant::now();
    for client in &mut clients {
        client.write_all(b"echo still here\n").unwrap();
    }
    std::thread::sleep((timeout + timeout / 4).saturating_sub(kept.elapsed()));
    server.doors.open(0);
    for client in &mut clients {
        assert_eq!(read_line(client).unwrap(), "still here");
    }
    drop((clients, last));
    server.finish();
}

/// A payload whose drop panics, too.
struct Twice;

impl Drop for Twice {
    fn drop(&mut self) {
        std::panic::panic_any(Self)
    }
}

/// Panics where the engine has no connection to reset.
struct Careless {
    in_started: bool,
    in_drop: bool,
}

impl Handler for Careless {
    type State = ();
    fn started(&mut self, _: &mut Local<'_>) -> Result<(), BoxError> {
        assert!(!self.in_started, "no such table");
        Ok(())
    }
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

impl Drop for Careless {
    fn drop(&mut self) {
        if self.in_drop {
            std::panic::panic_any(Twice);
        }
    }
}

#[test]
fn a_panic_outside_the_callbacks_of_a_connection_is_the_applications() {
    let config = || Config { shards: Some(2), pin: false, ..Config::default() };
    let told = |error: Option<Error>| match error {
        Some(Error::HandlerPanicked { shard: 1, place, message }) => format!("{place}: {message}"),
        error => panic!("{error:?}"),
    };
    let started = try_start(config(), |shard| {
        assert!(shard == 0, "no such file");
        Careless { in_started: false, in_drop: false }
    });
    assert_eq!(told(started.err()), "factory: no such file");
    let started = try_start(config(), |shard| {
        let in_started = shard == 1;
        Careless { in_started, in_drop: false }
    });
    assert_eq!(told(started.err()), "started: no such table");
    let engine = start(config(), |shard| Careless { in_started: false, in_drop: shard == 1 });
    engine.handle().drain(Duration::ZERO);
    assert_eq!(told(engine.join().err()), "drop: no message");
}

#[test]
fn a_dropped_engine_drains_and_its_drop_comes_to_an_end() {
    let listeners = || vec![address_of_its_own().into()];
    let server = serve(|config| config.listeners = listeners());
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "echo in"), "in");
    let handle = server.engine.handle();
    drop(server.engine);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "a drain, no reset");
    let ledger = handle.ledger();
    assert!(ledger.balanced() && ledger.open() == 0, "{}", ledger.to_json());
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");

    // A callback that blocks does not keep the drop for ever.
    let server = serve(|config| config.listeners = listeners());
    let mut client = server.connect();
    client.write_all(b"door 0\n").unwrap();
    server.doors.has_begun(1);
    let (handle, begun) = (server.engine.handle(), Instant::now());
    drop(server.engine);
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    server.doors.open(0);
    wait_until("the drain goes on without the engine", || handle.ledger().open() == 0);
}

#[test]
fn output_beyond_the_bound_is_refused_and_ends_only_whom_nobody_can_tell() {
    let server = serve(|config| {
        config.output_high_bytes = 1_000;
        config.output_low_bytes = 1_000;
        config.output_bytes_max = 10_000;
    });
    let mut client = server.connect();
    let long = "x".repeat(20_000);
    // The script ignores the answer; nothing of the long line was queued.
    client.write_all(format!("echo {long}\necho after\n").as_bytes()).unwrap();
    assert_eq!(read_line(&mut client).unwrap(), "after");
    let handle = server.engine.handle();
    let id = handle.list(None, 1).unwrap()[0].id;
    handle.send(id, long).unwrap();
    assert_eq!(server.next_end(), Reason::OutputTooLong);
    server.finish();
}
