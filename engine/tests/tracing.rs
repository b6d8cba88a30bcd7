//! The events of the feature `tracing`, on real rings and on simulated ones.

use ringwright::testing::{Bench, Faults};
use ringwright::{
    Audience, BoxError, Config, Connection, ConnectionId, Engine, Handler, Local, Origin, Reason,
    Reconnect, RingChoice, SlowReaders,
};
use ringwright_test_support::{
    alone,
    seccomp::{fails_with, filter},
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

/// The longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The fields of an event by their names, with `level` and `message`.
type Fields = BTreeMap<String, String>;

/// Collects events. One field of the text "panic" makes it panic.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Fields>>>);

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringwright"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let level = event.metadata().level().to_string();
        let mut fields = Fields::from([("level".to_owned(), level)]);
        event.record(&mut Visitor(&mut fields));
        self.0.lock().unwrap().push(fields);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Collector {
    fn of_process() -> Self {
        let collector = Self::default();
        tracing::subscriber::set_global_default(collector.clone()).expect("the only one");
        collector
    }

    /// Waits for an event with this message, and returns the first one.
    #[track_caller]
    fn first(&self, message: &str) -> Fields {
        let begun = Instant::now();
        loop {
            let events = self.0.lock().unwrap();
            if let Some(found) = events.iter().find(|fields| fields["message"] == message) {
                return found.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "no event {message:?}: {events:#?}");
            drop(events);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn messages(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().iter().map(|fields| fields["message"].clone()).collect()
    }
}

/// Compares an event with these fields, and asks that it has these further ones.
#[track_caller]
fn compare(event: &Fields, expected: &[(&str, &str)], further: &[&str]) {
    for (name, value) in expected {
        assert_eq!(event.get(*name).map(String::as_str), Some(*value), "{name} of {event:?}");
    }
    let names = expected.iter().map(|(name, _)| *name).chain(further.iter().copied());
    let names: BTreeSet<&str> = names.chain(["message"]).collect();
    assert_eq!(event.keys().map(String::as_str).collect::<BTreeSet<_>>(), names, "{event:?}");
}

/// Echoes. "panic" panics, and a port is called up again and again.
#[derive(Default)]
struct Echo {
    calls: Option<SocketAddr>,
    fails: bool,
}

impl Handler for Echo {
    type State = ();

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        if let Some(to) = self.calls {
            let long = Duration::from_secs(100);
            shard.keep_connected(to, 7, Reconnect { first: long, most: long, attempts: None })?;
        }
        if self.fails { Err("no table".into()) } else { Ok(()) }
    }

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        assert_ne!(bytes, b"panic");
        let _ = connection.send(bytes);
        bytes.len()
    }

    fn closed(&mut self, _: Option<()>, _: &mut Local<'_>, _: ConnectionId, _: Reason) {}
}

fn connect(engine: &Engine) -> TcpStream {
    let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hi").unwrap();
    client
}

fn is_answered(client: &mut TcpStream) {
    client.read_exact(&mut [0; 2]).unwrap();
}

/// An engine's life, in which everything happens that has an event, without a failure of its ring.
#[test]
fn the_events_of_a_real_engine_have_the_fields_that_tell_what_happened() {
    if !alone("the_events_of_a_real_engine_have_the_fields_that_tell_what_happened") {
        return;
    }
    let events = Collector::of_process();
    let nobody = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 9), 0)).unwrap().local_addr().unwrap();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        max_connections: 1,
        count_traffic: true,
        pin: false,
        ..Config::default()
    };
    let failed = Engine::start(config.clone(), |_| Echo { fails: true, ..Echo::default() });
    failed.expect_err("there is no table");
    let text = "the application's `started` failed on shard 0: no table";
    compare(&events.first("engine not started"), &[("level", "ERROR"), ("error", text)], &[]);
    events.0.lock().unwrap().clear();

    let engine =
        Engine::start(config, move |_| Echo { calls: Some(nobody), fails: false }).unwrap();
    let started = events.first("engine started");
    compare(&started, &[("level", "INFO"), ("shards", "1"), ("listeners", "1")], &["ring"]);
    compare(&events.first("shard started"), &[("level", "DEBUG"), ("shard", "0")], &[]);
    let refused = [("level", "DEBUG"), ("shard", "0"), ("tag", "7")];
    let errno = ("errno", "111");
    compare(&events.first("connect failed"), &[&refused[..], &[errno]].concat(), &["error"]);
    compare(&events.first("reconnect waits"), &refused, &["wait_ms"]);

    let mut client = connect(&engine);
    is_answered(&mut client);
    let id = engine.handle().list(None, 1).unwrap()[0].id.get().to_string();
    let peer = client.local_addr().unwrap().to_string();
    let of_client = [("shard", "0"), ("connection", &*id), ("peer", &*peer), ("level", "DEBUG")];
    let opened = events.first("connection opened");
    compare(&opened, &[&of_client[..], &[("listener", "0")]].concat(), &[]);
    let mut second = connect(&engine);
    let waits = events.first("client waits for a permit");
    let expected = [("level", "DEBUG"), ("shard", "0"), ("listener", "0"), ("waiting", "1")];
    compare(&waits, &expected, &[]);
    // A close with unread bytes is a reset.
    client.write_all(b"hi").unwrap();
    client.peek(&mut [0; 1]).unwrap();
    drop(client);
    let ended = [("reason", "peer_reset"), ("errno", "104"), ("sent_bytes", "4")];
    let closed = events.first("connection closed");
    compare(&closed, &[&of_client[..], &ended].concat(), &["lifetime_ms", "received_bytes"]);

    is_answered(&mut second);
    second.write_all(b"panic").unwrap();
    assert!(second.read(&mut [0; 1]).is_err(), "it is reset");
    compare(
        &events.first("handler panicked"),
        &[("level", "ERROR"), ("shard", "0")],
        &["connection"],
    );

    let mut third = connect(&engine);
    is_answered(&mut third);
    // It reads nothing, so it is still there at the deadline.
    let id = engine.handle().list(None, 1).unwrap()[0].id;
    engine.handle().send(id, vec![0; 10 << 20]).unwrap();
    engine.handle().drain(Duration::from_millis(50));
    let begun = events.first("drain begun");
    let expected = [("level", "INFO"), ("shard", "0"), ("deadline_ms", "50"), ("connections", "1")];
    compare(&begun, &expected, &[]);
    let cut = [("level", "WARN"), ("shard", "0"), ("connections", "1")];
    compare(&events.first("drain cut short"), &cut, &[]);
    engine.join().unwrap();
    compare(&events.first("drain ended"), &[("level", "INFO"), ("shard", "0")], &[]);
    compare(&events.first("shard ended"), &[("level", "DEBUG"), ("shard", "0")], &[]);
    compare(&events.first("engine ended"), &[("level", "INFO")], &[]);
}

/// Collects the events of this thread, on which a bench has its shards.
fn on_bench(test: impl FnOnce(&Collector)) {
    let events = Collector::default();
    tracing::subscriber::with_default(events.clone(), || test(&events));
}

#[test]
fn a_bench_shows_the_events_of_its_shards() {
    on_bench(|events| {
        let mut bench = Bench::new(Config::default(), |_| Echo::default());
        let client = bench.connect();
        bench.run();
        let opened = [("level", "DEBUG"), ("shard", "0"), ("listener", "0")];
        compare(&events.first("connection opened"), &opened, &["connection", "peer"]);
        bench.close(client);
        bench.advance(Duration::from_millis(1_500));
        let closed = [("level", "DEBUG"), ("shard", "0"), ("reason", "peer_fin")];
        let further = ["connection", "peer", "lifetime_ms"];
        compare(&events.first("connection closed"), &closed, &further);

        let mut faults = Faults::none();
        faults.no_descriptor = 1_000;
        bench.set_faults(&faults);
        let _ = bench.connect();
        bench.advance(Duration::from_secs(1));
        let paused = [("level", "WARN"), ("shard", "0"), ("errno", "24")];
        compare(&events.first("accept paused"), &paused, &["pause_ms"]);
        bench.stop_faults();
        bench.finish();
        let begun = [("level", "INFO"), ("shard", "0"), ("deadline_ms", "10000")];
        compare(&events.first("drain begun"), &begun, &["connections"]);
        compare(&events.first("drain ended"), &[("level", "INFO"), ("shard", "0")], &[]);
        assert!(!events.messages().contains("drain cut short"));
    });
}

#[test]
fn a_lack_of_buffers_is_told_once_for_many_connections() {
    on_bench(|events| {
        let config = Config { receive_buffers: 16, ..Config::default() };
        let mut bench = Bench::new(config, |_| Echo::default());
        let clients: Vec<_> = (0..100).map(|_| bench.connect()).collect();
        bench.run();
        clients.iter().for_each(|client| bench.send(*client, &[7; 3_000]));
        bench.run();
        let starved = bench.ledger().sum.starved;
        let lacks = [("level", "WARN"), ("shard", "0")];
        compare(&events.first("out of receive buffers"), &lacks, &["connection"]);
        let events = events.0.lock().unwrap().clone();
        let told = events.iter().filter(|it| it["message"] == "out of receive buffers").count();
        assert!(told as u64 * 2 < starved, "{told} events of {starved}");
        drop(clients);
        bench.finish();
    });
}

/// A subscriber is code of the application, on the shard's thread.
#[test]
fn a_subscriber_that_panics_loses_its_event_and_nothing_else() {
    struct Careless;
    impl Subscriber for Careless {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, _: &Event<'_>) {
            std::panic::panic_any("a careless subscriber");
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }
    tracing::subscriber::with_default(Careless, || {
        let mut bench = Bench::new(Config::default(), |_| Echo::default());
        let client = bench.connect();
        bench.send(client, b"hi");
        bench.run();
        assert_eq!(bench.received(client), b"hi");
        assert!(bench.finish().balanced());
    });
}

#[test]
fn a_shard_whose_ring_breaks_is_told_with_its_error() {
    if !alone("a_shard_whose_ring_breaks_is_told_with_its_error") {
        return;
    }
    let events = Collector::of_process();
    let ring = RingChoice::Epoll;
    let config = Config { shards: Some(1), ring, pin: false, ..Config::default() };
    let engine = Engine::start(config, |_| Echo::default()).unwrap();
    filter(
        &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2],
        fails_with(libc::EPERM),
    );
    let wake = engine.handle().broadcast(b""[..].into(), &Audience::All, SlowReaders::Skip);
    wake.unwrap();
    let error = engine.join().expect_err("it has failed").to_string();
    let failed = [("level", "ERROR"), ("shard", "0"), ("error", &*error)];
    compare(&events.first("shard failed"), &failed, &[]);
    compare(&events.first("engine ended"), &[("level", "INFO"), ("error", &*error)], &[]);
}

/// The guide lists the events that the engine has.
#[test]
fn the_guide_lists_every_event() {
    let source = include_str!("../src/trace.rs");
    // The message is the only literal of an event.
    let events = source.split("emit!(").skip(1);
    let emitted = events.filter_map(|event| event.split('"').nth(1).map(str::to_owned));
    let guide = include_str!("../src/guide/events.md");
    let rows = guide.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed = rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned()));
    let (emitted, listed): (BTreeSet<_>, BTreeSet<_>) = (emitted.collect(), listed.collect());
    assert!(emitted.len() > 10 && emitted == listed, "{emitted:#?}\n{listed:#?}");
}
