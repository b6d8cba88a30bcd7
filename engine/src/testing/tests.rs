//! That the bench shows what a handler does, and that a storm finds what is wrong with one.

mod forwards;
mod holds;
mod long;

use super::*;
use crate::workers::{Job, JobDone};
use crate::{Config, Connection, ConnectionId, Handler, Ledger, Local, Origin};
use crate::{SendStatus, SendStreamErrorKind};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Echoes; commands of one letter do something else.
struct Echo(Place);

impl Handler for Echo {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        match bytes {
            b"F" => connection.open_file(&self.0.directory, b"file").expect("one at a time"),
            b"J" => {
                let job = Job::new(7, || "done".to_owned());
                connection.offload(job).map_err(|refused| refused.kind).expect("there is a worker");
            }
            b"T" => connection.set_timer(0, Some(Duration::from_secs(3))),
            b"P" => panic!("on purpose"),
            b"D" => {
                let text = format!("{connection:?}") + &format!(" {:?}", connection.local());
                let _ = connection.send(text.as_bytes());
            }
            b"C" => connection.close(),
            _ => drop(connection.send(bytes)),
        }
        bytes.len()
    }

    fn file_opened(
        &mut self,
        _: &mut (),
        connection: &mut Connection<'_>,
        file: io::Result<crate::files::OpenFile>,
    ) {
        // EMFILE or ENOMEM: the client learns of it by the end of the connection.
        let Ok(file) = file else { return connection.close() };
        let status = file.status();
        assert_eq!(file.status_now().expect("it is open").inode, status.inode);
        // The end, once again.
        let mut end = [0; 10];
        assert_eq!(file.read(&mut end, status.bytes - 7).expect("it is open"), 7);
        let _ = connection.send_file(file, 0, status.bytes);
        let _ = connection.send(&end[..7]);
    }

    fn job_done(&mut self, _: &mut (), connection: &mut Connection<'_>, job: JobDone) {
        let text: String = job.result().expect("it did not panic");
        let _ = connection.send(text.as_bytes());
    }

    fn timer(&mut self, _: &mut (), connection: &mut Connection<'_>, _: u8) {
        let _ = connection.send(b"late");
    }

    fn half_closed(&mut self, _: &mut (), connection: &mut Connection<'_>) {
        connection.close();
    }

    fn tick(&mut self, _: &mut Local<'_>) {}
}

fn echo(place: &Place) -> Echo {
    Echo(place.clone())
}

fn config() -> Config {
    Config { workers: 1, max_connections: 8, ..Config::default() }
}

fn bench() -> Bench<Echo> {
    Bench::new(config(), echo)
}

#[test]
fn a_stream_and_a_payload_arrive_while_the_bench_runs() {
    struct Greeting(Option<ConnectionId>);
    impl Handler for Greeting {
        type State = ();
        fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
            self.0 = Some(connection.id());
            let sent = connection.send_with_head(b"hello, ", vec![b'w'; 5_000]);
            assert_eq!(sent.expect("the queue is empty"), SendStatus::Ready);
        }
        fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
            bytes.len()
        }
    }
    let mut bench = Bench::new(Config::default(), |_| Greeting(None));
    let client = bench.connect();
    bench.run();
    let id = bench.handler(0).and_then(|greeting| greeting.0).expect("it was opened");
    let stream = bench.handle().stream(id, 10);
    stream.try_send("a long line of a thread").expect("there is room");
    let full = stream.try_send("another one").expect_err("there is none");
    assert_eq!(full.kind, SendStreamErrorKind::Full);
    bench.run();
    stream.try_send(full.payload).expect("the first line has left");
    bench.run();
    let received = bench.received(client);
    assert_eq!(received.len(), 7 + 5_000 + 34);
    assert!(received.starts_with(b"hello, www") && received.ends_with(b"threadanother one"));
    bench.finish();
}

#[test]
fn debug_text_identifies_a_connection_its_shard_and_the_engine() {
    let mut bench = bench();
    let client = bench.connect();
    bench.send(client, b"D");
    bench.run();
    let text = String::from_utf8_lossy(bench.received(client)).into_owned();
    for part in
        ["Connection { id: ", ", state: \"open\", .. } Local { shard: 0, connections: 1, .. }"]
    {
        assert!(text.contains(part), "{text}");
    }
    let handle = "EngineHandle { shards: 1, draining: false, .. }";
    assert_eq!(format!("{:?}", bench.handle()), handle);
    assert_eq!(format!("{bench:?}"), format!("Bench {{ handle: {handle}, .. }}"));
}

#[test]
fn a_client_sees_what_the_handler_does() {
    let mut bench = bench();
    bench.add_file("file", 100_000);
    let client = bench.connect();
    assert_eq!(bench.client_end(client), ClientEnd::Connecting);
    bench.send(client, b"hello");
    bench.run();
    assert_eq!(bench.received(client), b"hello");
    assert_eq!(bench.ledger().sum.opened, 1);
    let file = [file_content(0, 0, 100_000), file_content(0, 99_993, 7)].concat();
    for (command, reply) in [(b"F", file), (b"J", b"done".to_vec()), (b"T", vec![])] {
        let before = bench.received(client).len();
        bench.send(client, command);
        bench.run();
        assert_eq!(&bench.received(client)[before..], reply);
    }
    let since = bench.now();
    bench.advance(Duration::from_secs(2));
    assert!(!bench.received(client).ends_with(b"late"));
    bench.advance(Duration::from_secs(2));
    assert!(bench.received(client).ends_with(b"late"));
    assert!(bench.now() - since >= Duration::from_secs(4));
    bench.send(client, b"C");
    bench.run();
    assert_eq!(bench.client_end(client), ClientEnd::Finished);
    let ledger: Ledger = bench.finish();
    assert_eq!((ledger.sum.accepted, ledger.open()), (1, 0));
}

#[test]
fn clients_end_in_every_way_and_read_at_their_own_pace() {
    let mut bench = Bench::new(Config { shards: Some(2), ..config() }, echo);
    let clients: Vec<Client> = (0..5).map(|_| bench.connect()).collect();
    clients.iter().for_each(|client| bench.send(*client, &[b'x'; 300]));
    bench.stop_reading(clients[4]);
    bench.run();
    bench.half_close(clients[0]);
    bench.close(clients[1]);
    bench.reset(clients[2]);
    bench.vanish(clients[3]);
    bench.run();
    let ends: Vec<ClientEnd> = clients.iter().map(|client| bench.client_end(*client)).collect();
    use ClientEnd::{Finished, Left, Open};
    assert_eq!(ends, [Finished, Finished, Left, Left, Open]);
    assert_eq!((bench.received(clients[0]).len(), bench.received(clients[4]).len()), (300, 0));
    bench.read_on(clients[4], 100);
    bench.send_at_most(clients[4], 1);
    bench.send(clients[4], b"abc");
    bench.run();
    assert_eq!(&bench.received(clients[4])[300..], b"abc");
    assert_eq!(bench.handler(1).map(|handler| handler.0.shard), Some(1));
    bench.half_close(clients[4]);
    bench.finish();
}

#[test]
fn a_bench_has_unix_sockets() {
    let listeners = ["127.0.0.1:80", "unix:/run/a.sock"].map(|text| text.parse().unwrap()).into();
    let mut bench = Bench::new(Config { listeners, ..config() }, echo);
    let [tcp, unix, leaves] = [0, 1, 1].map(|listener| bench.connect_to(0, listener));
    let clients = [tcp, unix, leaves];
    clients.iter().for_each(|client| bench.send(*client, b"hello"));
    bench.run();
    clients.iter().for_each(|client| assert_eq!(bench.received(*client), b"hello"));
    bench.half_close(unix);
    bench.close(leaves);
    bench.run();
    let ends = clients.map(|client| bench.client_end(client));
    assert_eq!(ends, [ClientEnd::Open, ClientEnd::Finished, ClientEnd::Left]);
    bench.finish();
}

#[test]
fn a_panic_of_the_handler_fails_the_test_unless_it_is_expected() {
    let panics = |expected| {
        let mut bench = bench();
        bench.expect_panics(expected);
        let client = bench.connect();
        bench.send(client, b"P");
        bench.run();
        bench.finish();
    };
    panics(1);
    assert!(catch_unwind(|| panics(0)).is_err());
}

/// Forgets what it has when a message arrives in two parts.
struct Forgetful;

impl Handler for Forgetful {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        if bytes == b"ping\n" {
            let _ = connection.send(b"pong\n");
        }
        bytes.len()
    }
}

fn message_of_storm(storm: &Storm<'_, Forgetful>, seeds: std::ops::Range<u64>) -> String {
    let result = catch_unwind(AssertUnwindSafe(|| storm.run(seeds)));
    crate::panics::message_of(result.expect_err("a seed fails"))
}

#[test]
fn a_storm_finds_a_message_in_two_parts_and_reduces_it_to_them() {
    let storm = Storm::new(config(), |_| Forgetful).sends(b"ping\n").judge(|client| {
        let asked = client.sent() == b"ping\n";
        assert!(client.was_disturbed() || !asked || client.received() == b"pong\n", "no pong");
    });
    let message = message_of_storm(&storm, 0..100);
    assert!(message.contains("no pong") && message.contains("To run it again: run("), "{message}");
    let events: Vec<&str> = message.lines().filter(|line| line.starts_with("  ")).collect();
    let sends = events.iter().filter(|line| line.contains("sends the next")).count();
    assert!(sends >= 2 && events.len() <= sends + 8, "{message}");
    // The same seed fails in the same way.
    let again = message.split("run(").nth(1).and_then(|rest| rest.split("..").next());
    let seed: u64 = again.and_then(|seed| seed.parse().ok()).expect("a seed");
    assert_eq!(message_of_storm(&storm, seed..seed + 1), message);
}

#[test]
fn a_storm_of_a_handler_without_fault_passes_and_meets_every_kind_of_fault() {
    let reached = Storm::new(Config { receive_buffers: 2, ..config() }, echo)
        .prepare(|bench| bench.add_file("file", 20_000))
        .sends(b"F")
        .sends(vec![b'x'; 30_000])
        .judge(|client| {
            let (sent, received) = (client.sent().len(), client.received().len());
            let whole = received == sent || client.sent() == b"F";
            assert!(client.was_disturbed() || whole, "{sent} {received} {:?}", client.end());
        })
        .run(0..300);
    for mark in ["receive without a buffer", "send cut short", "receive failed", "hang-up"] {
        assert!(reached.count(mark) > 0, "{mark}");
    }
}

/// Uses each method of the guide's table at each moment, and writes the row.
#[derive(Default)]
struct Moments {
    directory: Option<crate::files::Directory>,
    rows: Vec<String>,
}

impl Moments {
    fn note(&mut self, moment: &str, connection: &mut Connection<'_>) {
        let state = connection.state();
        let send = format!("{:?}", connection.send(b"."));
        let directory = self.directory.clone().expect("the bench has one");
        let open = match connection.open_file(&directory, b"file") {
            Ok(()) if state == "draining" => "accepted, no result".to_owned(),
            Ok(()) => "accepted".to_owned(),
            Err(error) => format!("`{error:?}`"),
        };
        let offload = match connection.offload(Job::new(0, || ())) {
            Ok(()) => "accepted".to_owned(),
            Err(error) => format!("`{:?}`", error.kind),
        };
        let hold = match connection.hold(0) {
            Ok(_dropped) => "accepted".to_owned(),
            Err(error) => format!("`{error:?}`"),
        };
        assert_eq!(hold, offload, "the guide has one column for both");
        let id = connection.id();
        let found = connection.local().connection(id).map_or("not found", |_| "found");
        self.rows
            .push(format!("| {moment} | `{state}` | `{send}` | {open} | {offload} | {found} |"));
    }
}

impl Handler for Moments {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        match bytes {
            b"O" => self.note("open", connection),
            b"S" => {
                connection.shutdown();
                self.note("after `shutdown`, in the same callback", connection);
            }
            b"L" => self.note("our FIN has left", connection),
            b"C" => {
                connection.close();
                self.note("after `close`", connection);
            }
            b"A" => {
                connection.abort();
                self.note("after `abort`", connection);
            }
            other => panic!("{other:?}"),
        }
        bytes.len()
    }

    fn file_opened(
        &mut self,
        _: &mut (),
        connection: &mut Connection<'_>,
        _: io::Result<crate::files::OpenFile>,
    ) {
        assert_ne!(connection.state(), "draining", "the guide says: no result");
    }

    fn half_closed(&mut self, _: &mut (), connection: &mut Connection<'_>) {
        if connection.state() == "half_closed_by_peer" {
            self.note("after the peer's FIN", connection);
        }
        connection.close();
    }
}

#[test]
fn the_guide_tells_what_a_method_does_in_each_state() {
    let new =
        |place: &Place| Moments { directory: Some(place.directory.clone()), ..Moments::default() };
    let mut bench = Bench::new(config(), new);
    bench.add_file("file", 10);
    for messages in [&[&b"O"[..]][..], &[b"S", b"L"], &[b"C"], &[b"A"]] {
        let client = bench.connect();
        // A client that sees our FIN sends its own.
        bench.stop_reading(client);
        for message in messages {
            bench.send(client, message);
            bench.run();
        }
        bench.read_on(client, 1_000);
        if messages == [b"O"] {
            bench.half_close(client);
        } else {
            bench.close(client);
        }
        bench.run();
    }
    let rows = std::mem::take(&mut bench.handler(0).expect("it runs").rows);
    let guide = include_str!("../guide/life.md");
    // Its rows, behind its heading and the line below that.
    let table = guide.lines().skip_while(|line| !line.starts_with("| moment | state |")).skip(2);
    let table: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows, table);
}
