//! Too few buffers, too few descriptors, too many clients.

use crate::common::{PATIENCE, ask, many_descriptors, serve, start, try_start, wait_until};
use crate::outgoing::silent;
use crate::reconnect::away;
use ringwright::{BoxError, Config, Connection, Engine, Handler, Local, Origin, Reason};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct Echo;

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
}

/// Asks in a closed loop on every connection until told to stop; counts the answers of each.
struct Asker {
    to: std::net::SocketAddr,
    connections: u64,
    counts: Arc<Vec<AtomicU64>>,
}

impl Handler for Asker {
    type State = (usize, usize);

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        for tag in 0..self.connections {
            shard.connect(self.to, tag);
        }
        Ok(())
    }

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> (usize, usize) {
        let Origin::Connected(tag) = origin else { panic!("only connections out") };
        let _ = connection.send(&[tag as u8; 64]);
        (tag as usize, 0)
    }

    fn received(
        &mut self,
        (tag, have): &mut (usize, usize),
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        assert!(bytes.iter().all(|byte| *byte == *tag as u8), "another connection's bytes");
        *have += bytes.len();
        if *have >= 64 {
            assert_eq!(*have, 64);
            *have = 0;
            self.counts[*tag].fetch_add(1, Ordering::Relaxed);
            let _ = connection.send(&[*tag as u8; 64]);
        }
        bytes.len()
    }
}

#[test]
fn a_thousand_connections_take_turns_with_sixteen_buffers() {
    const CONNECTIONS: usize = 1_000;
    let _turn = many_descriptors();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        receive_buffers: 16,
        pin: false,
        ..Config::default()
    };
    let server = start(config, |_| Echo);
    let counts: Arc<Vec<AtomicU64>> =
        Arc::new((0..CONNECTIONS).map(|_| AtomicU64::new(0)).collect());
    let to = server.addresses()[0];
    let client = {
        let counts = counts.clone();
        let config = Config { shards: Some(1), pin: false, ..Config::default() };
        start(config, move |_| Asker {
            to,
            connections: CONNECTIONS as u64,
            counts: counts.clone(),
        })
    };
    let of_all = |counts: &[AtomicU64]| -> Vec<u64> {
        counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    };
    let begun = Instant::now();
    while of_all(&counts).iter().any(|count| *count < 100) {
        assert!(begun.elapsed() < 5 * PATIENCE, "{:?}", server.handle().ledger());
        std::thread::sleep(Duration::from_millis(5));
    }
    let at_the_end = of_all(&counts);
    let ledger = server.handle().ledger();
    let (slowest, busiest) = (*at_the_end.iter().min().unwrap(), *at_the_end.iter().max().unwrap());
    let requests: u64 = at_the_end.iter().sum();
    assert!(busiest <= 3 * slowest, "the busiest had {busiest}, the slowest {slowest}");
    assert!(
        ledger.sum.enters <= 3 * requests,
        "{} waits for {requests} requests",
        ledger.sum.enters
    );
    assert!(ledger.sum.starved > 0, "sixteen buffers were enough: this proves nothing");
    client.handle().drain(PATIENCE);
    client.join().unwrap();
    server.handle().drain(PATIENCE);
    let ledger = server.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!(ledger.sum.overflows, 0);
}

/// What connects out reports here.
struct Outward {
    to: std::net::SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
}

impl Outward {
    fn say(&self, what: String) {
        self.said.lock().unwrap().push(what);
    }
}

impl Handler for Outward {
    type State = ();
    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        shard.connect(self.to, 7);
        Ok(())
    }
    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) {
        self.say(format!("{origin:?}"));
        let _ = connection.send(b"echo hello\n");
    }
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        self.say(String::from_utf8_lossy(bytes).into_owned());
        connection.close();
        bytes.len()
    }
    fn connect_failed(&mut self, _: &mut Local<'_>, tag: u64, error: std::io::Error) {
        self.say(format!("{tag} {:?}", error.kind()));
    }
    fn closed(
        &mut self,
        _: Option<()>,
        _: &mut Local<'_>,
        _: ringwright::ConnectionId,
        reason: Reason,
    ) {
        self.say(reason.name().to_owned());
    }
}

fn connect_out(to: std::net::SocketAddr, change: impl FnOnce(&mut Config)) -> Vec<String> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let mut config = Config { shards: Some(1), pin: false, ..Config::default() };
    change(&mut config);
    let engine = {
        let said = said.clone();
        start(config, move |_| Outward { to, said: said.clone() })
    };
    wait_until("the connection has come to its end", || {
        let said = said.lock().unwrap();
        said.iter().any(|what| what.starts_with('7') || what == "local_close")
    });
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
    Arc::into_inner(said).expect("the engine has ended").into_inner().unwrap()
}

#[test]
fn connecting_out_runs_the_same_handlers() {
    let server = serve(|_| {});
    let said = connect_out(server.address, |_| {});
    assert_eq!(said, ["Connected(7)", "hello\n", "local_close"]);
    server.finish();
}

#[test]
fn a_connect_that_is_refused_says_so() {
    let (_away, nobody) = away();
    assert_eq!(connect_out(nobody, |_| {}), ["7 ConnectionRefused"]);
}

#[test]
fn a_connect_that_nobody_answers_times_out() {
    let (_silent, address) = silent();
    let begun = Instant::now();
    let said = connect_out(address, |config| config.connect_timeout = Duration::from_millis(150));
    assert_eq!(said, ["7 TimedOut"]);
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

#[test]
fn many_slow_requests_over_few_send_buffers_spill_to_the_heap_and_come_back() {
    let server = serve(|config| config.send_buffers = 2);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"big 1000000\n").unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    for client in &mut clients {
        let mut all = vec![0; 1_000_000];
        client.read_exact(&mut all).unwrap();
        assert_eq!(ask(client, "echo done"), "done");
    }
    drop(clients);
    assert!(server.finish().sum.heap_chunks > 0);
}

#[test]
fn join_from_a_callback_is_an_error_and_not_a_deadlock() {
    struct Joining(Arc<Mutex<Option<Engine>>>, std::sync::mpsc::Sender<String>);
    impl Handler for Joining {
        type State = ();
        fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {
            let engine = self.0.lock().unwrap().take().expect("the engine is there");
            let error = engine.join().expect_err("it would wait for itself");
            self.1.send(error.to_string()).unwrap();
        }
        fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
            bytes.len()
        }
    }
    let cell = Arc::new(Mutex::new(None));
    let (sender, said) = std::sync::mpsc::channel();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        ..Config::default()
    };
    let engine = {
        let cell = cell.clone();
        start(config, move |_| Joining(cell.clone(), sender.clone()))
    };
    let (address, handle) = (engine.addresses()[0], engine.handle());
    *cell.lock().unwrap() = Some(engine);
    let _client = TcpStream::connect(address).unwrap();
    let said = said.recv_timeout(PATIENCE).unwrap();
    assert!(said.contains("shard's own thread"), "{said}");
    handle.drain(Duration::ZERO);
}

#[test]
fn idle_connections_do_not_keep_the_turn_of_those_that_have_something_to_say() {
    let server = serve(|config| config.receive_buffers = 2);
    let mut sleeper = server.connect();
    assert_eq!(ask(&mut sleeper, "echo in"), "in");
    // While the shard waits, senders empty the buffer ring before the idle are armed on it.
    sleeper.write_all(b"door 0\n").unwrap();
    server.doors.has_begun(1);
    let mut senders: Vec<TcpStream> = (0..6).map(|_| server.connect()).collect();
    for sender in &mut senders {
        sender.write_all(b"echo first\n").unwrap();
    }
    let mut idle: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
    server.doors.open(0);
    for client in &mut senders {
        assert_eq!(crate::common::read_line(client).unwrap(), "first");
        assert_eq!(ask(client, "echo again"), "again");
    }
    for client in &mut idle {
        assert_eq!(ask(client, "echo at last"), "at last");
    }
    drop((senders, idle, sleeper));
    server.finish();
}

#[test]
fn durations_without_end_are_taken_as_very_long() {
    let forever = Some(Duration::MAX);
    let server = serve(|config| {
        config.idle_timeout = forever;
        config.receive_timeout = forever;
        config.write_timeout = forever;
        config.park_after = Duration::MAX;
    });
    let mut client = server.connect();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(ask(&mut client, "echo here"), "here");
    server.engine.handle().drain(Duration::MAX);
    // Gracefully: our FIN, not a reset.
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    assert!(server.engine.join().unwrap().balanced());
}

#[test]
fn a_drain_ends_although_the_handler_connects_again_and_again() {
    struct Stubborn(std::net::SocketAddr);
    impl Handler for Stubborn {
        type State = ();
        fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
            shard.connect(self.0, 0);
            Ok(())
        }
        fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
        fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
            bytes.len()
        }
        fn connect_failed(&mut self, shard: &mut Local<'_>, _: u64, _: std::io::Error) {
            shard.connect(self.0, 0);
        }
    }
    let (_away, nobody) = away();
    let config = Config { shards: Some(1), pin: false, ..Config::default() };
    let engine = start(config, move |_| Stubborn(nobody));
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    engine.handle().drain(2 * PATIENCE);
    assert!(engine.join().unwrap().balanced());
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_shard_that_panics_before_it_serves_says_why() {
    struct Never;
    impl Handler for Never {
        type State = ();
        fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
        fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
            bytes.len()
        }
    }
    let config = Config { shards: Some(2), ..Config::default() };
    let error = try_start(config, |shard| match shard {
        0 => Never,
        _ => panic!("no handler for this shard"),
    });
    let error = error.expect_err("it cannot start").to_string();
    assert!(error.contains("no handler for this shard"), "{error}");
}
