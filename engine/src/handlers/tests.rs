//! Several handlers on simulated shards.

use super::Handlers;
use crate::BoxError;
use crate::testing::{Bench, ClientEnd};
use crate::workers::{Job, JobDone};
use crate::{
    Config, Connection, ConnectionId, Handler, Listener, Local, Message, Origin, Reason, SentMarker,
};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The callbacks of all handlers, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// A handler that notes its callbacks, and does what its clients say. Each number is a type of its
/// own, with a state of its own.
struct Noting<const N: usize>(Log);

impl<const N: usize> Noting<N> {
    fn note(&self, what: &str) {
        self.0.lock().unwrap().push(format!("{N} {what}"));
    }
}

impl<const N: usize> Handler for Noting<N> {
    type State = [u8; N];

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.note("started");
        shard.tick_after(Duration::from_secs(100 + N as u64));
        shard.offload(Job::new(5, || "done")).unwrap();
        Ok(())
    }

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> [u8; N] {
        assert_eq!(origin, connection.origin());
        self.note(&format!("opened {origin:?}"));
        [N as u8; N]
    }

    fn received(
        &mut self,
        state: &mut [u8; N],
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        assert_eq!(*state, [N as u8; N]);
        if !bytes.ends_with(b"\n") {
            return 0;
        }
        match bytes.trim_ascii() {
            b"mark" => {
                let _ = connection.send(b"marked");
                connection.mark_output(7);
            }
            b"connect" => {
                let mut shard = connection.local();
                assert!(shard.connect("192.0.2.1:9".parse::<SocketAddr>().unwrap(), 9));
            }
            b"hold" => {
                let hold = connection.local().hold(6).unwrap();
                assert_eq!(hold.tag(), 6);
                hold.complete("held");
            }
            b"post" => {
                let engine = connection.local().engine().clone();
                engine.post_to_shard(0, "to its own").unwrap();
            }
            b"large" => connection.mark_output(1 << 56),
            other => panic!("{other:?}"),
        }
        bytes.len()
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        self.note(&format!("tick {}", shard.shard()));
    }

    fn message(&mut self, _: &mut Local<'_>, message: Message) {
        self.note(message.downcast::<&str>().expect("a text"));
    }

    fn bans_changed(&mut self, _: &mut Local<'_>) {
        self.note("bans changed");
    }

    fn sent(&mut self, _: &mut Local<'_>, sent: &[SentMarker]) {
        sent.iter().for_each(|marker| self.note(&format!("sent {}", marker.tag)));
    }

    fn shard_job_done(&mut self, _: &mut Local<'_>, job: JobDone) {
        let tag = job.tag();
        self.note(&format!("job {tag} {}", job.result::<&str>().unwrap()));
    }

    fn connect_failed(&mut self, _: &mut Local<'_>, tag: u64, _: io::Error) {
        self.note(&format!("failed {tag}"));
    }

    fn closed(
        &mut self,
        state: Option<[u8; N]>,
        _: &mut Local<'_>,
        _: ConnectionId,
        reason: Reason,
    ) {
        self.note(&format!("closed {} {}", state.is_some(), reason.name()));
    }
}

type Three = Handlers<Handlers<Noting<0>, Noting<1>>, Noting<2>>;

/// A bench with a listener for each handler, and one whose handler is missing.
fn bench() -> (Bench<Three>, Log) {
    let log = Log::default();
    let listener = |handler| {
        let plain: Listener = format!("127.0.0.1:{}", 80 + u16::from(handler)).parse().unwrap();
        Listener { handler, ..plain }
    };
    let listeners = (0..4).map(listener).collect();
    let of_shard = log.clone();
    let config = Config { listeners, workers: 1, ..Config::default() };
    let bench = Bench::new(config, move |_| {
        let (first, second) = (Noting(of_shard.clone()), Noting(of_shard.clone()));
        Handlers::new(first, second).and(Noting(of_shard.clone()))
    });
    (bench, log)
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

/// Takes the callbacks so far out, sorted by handler.
fn sorted(log: &Log) -> Vec<String> {
    let mut all = taken(log);
    all.sort();
    all
}

#[test]
fn all_start_in_their_order_and_each_has_its_jobs_and_ticks() {
    let (mut bench, log) = bench();
    bench.run();
    let told = taken(&log);
    assert_eq!(told[..3], ["0 started", "1 started", "2 started"]);
    let mut jobs = told[3..].to_vec();
    jobs.sort();
    assert_eq!(jobs, ["0 job 5 done", "1 job 5 done", "2 job 5 done"]);
    bench.advance(Duration::from_secs(110));
    assert_eq!(taken(&log), ["0 tick 0", "1 tick 0", "2 tick 0"]);
    bench.advance(Duration::from_secs(1_000));
    assert!(taken(&log).is_empty(), "each tick comes once");
    bench.handle().set_bans(&["192.0.2.7".parse().unwrap()]).unwrap();
    bench.run();
    assert_eq!(taken(&log), ["0 bans changed", "1 bans changed", "2 bans changed"]);
    bench.finish();
}

#[test]
fn the_handler_of_a_listener_gets_what_its_connections_ask_for() {
    let (mut bench, log) = bench();
    bench.run();
    taken(&log);
    let clients: Vec<_> = (0..3).map(|listener| bench.connect_to(0, listener)).collect();
    bench.run();
    let opened = |number| format!("{number} opened Listener({number})");
    assert_eq!(sorted(&log), [opened(0), opened(1), opened(2)]);
    for (asked, told) in [
        ("mark", "sent 7"),
        ("connect", "failed 9"),
        ("hold", "job 6 held"),
        ("post", "to its own"),
    ] {
        // All three in one turn, with the same tags.
        clients.iter().for_each(|client| bench.send(*client, format!("{asked}\n").as_bytes()));
        bench.advance(Duration::from_secs(60));
        let all: Vec<String> = (0..3).map(|number| format!("{number} {told}")).collect();
        let got: Vec<String> =
            sorted(&log).into_iter().filter(|line| !line.contains("tick")).collect();
        assert_eq!(got, all, "{asked}");
    }
    for number in 0..3 {
        bench.handle().for_handler(number).post_to_shard(0, "from elsewhere").unwrap();
        bench.run();
        assert_eq!(taken(&log), [format!("{number} from elsewhere")]);
    }
    clients.iter().for_each(|client| bench.close(*client));
    bench.run();
    let closed = |number| format!("{number} closed true peer_fin");
    assert_eq!(sorted(&log), [closed(0), closed(1), closed(2)]);
    bench.finish();
}

#[test]
fn a_panic_ends_its_connection_and_leaves_the_others_to_their_handlers() {
    let (mut bench, log) = bench();
    bench.expect_panics(3);
    bench.run();
    taken(&log);
    // A tag with bits of the engine, of the last handler and of the first.
    for listener in [2, 0] {
        let client = bench.connect_to(0, listener);
        bench.send(client, b"large\n");
        bench.run();
        assert_eq!(bench.client_end(client), ClientEnd::Reset);
        let ended = format!("{listener} closed true handler_panicked");
        assert_eq!(taken(&log).last(), Some(&ended));
    }
    // A listener that names a handler that is missing.
    let client = bench.connect_to(0, 3);
    bench.run();
    assert_eq!(bench.client_end(client), ClientEnd::Reset);
    assert_eq!(taken(&log), ["2 closed false handler_panicked"]);
    // After the panics, what the first handler posts is its own.
    let client = bench.connect_to(0, 0);
    bench.send(client, b"post\n");
    bench.run();
    assert_eq!(taken(&log).last().map(String::as_str), Some("0 to its own"));
    bench.finish();
}

/// A callback that is new in the trait must not end at `Handlers`.
#[test]
fn every_callback_is_passed_on() {
    let body = include_str!("../handler.rs").split("pub trait Handler").nth(1).unwrap();
    let ours = include_str!("../handlers.rs");
    let callbacks = body.lines().filter_map(|line| line.strip_prefix("    fn ")?.split('(').next());
    let callbacks: Vec<&str> = callbacks.collect();
    assert!(callbacks.len() > 20, "{callbacks:?}");
    for name in callbacks {
        let is_there = |it: &str| ours.contains(it);
        let passed = is_there(&format!("    fn {name}(")) || is_there(&format!("        {name}("));
        assert!(passed, "{name} is not passed on");
    }
}
