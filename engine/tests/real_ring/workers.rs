//! Jobs on the worker pool: order, panics, a pool that changes its size, a queue that is full,
//! connections that go, and the end.

use crate::common::{Doors, PATIENCE, read_line, reset, start, wait_until};
use ringwright::workers::{Job, JobDone, OffloadJobErrorKind, RunJobError, SetWorkersError};
use ringwright::{
    BoxError, Config, Connection, Engine, EngineHandle, Error, Handler, Ledger, Local, Origin,
};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A line is a job: `at DOOR` waits, `any DOOR` waits and is told of unordered, `sum N` adds up,
/// `panic` panics. What came of it is sent back as a line.
struct Offloads(Arc<Doors>);

impl Offloads {
    fn job(&self, tag: u64, line: &str) -> Job {
        let (word, rest) = line.split_once(' ').unwrap_or((line, "0"));
        let number: u64 = rest.parse().expect("a number");
        let doors = self.0.clone();
        let wait = move || {
            assert!(doors.pass(number as usize), "door {number} stays shut");
            format!("passed {number}")
        };
        match word {
            "at" => Job::new(tag, wait),
            "any" => Job::unordered(tag, wait),
            "sum" => Job::new(tag, move || format!("sum {}", (0..=number).sum::<u64>())),
            "panic" => Job::new(tag, || -> String { panic!("on purpose") }),
            other => panic!("unknown line {other}"),
        }
    }
}

impl Handler for Offloads {
    type State = u64;

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> u64 {
        0
    }

    fn received(&mut self, tag: &mut u64, connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
            let line = str::from_utf8(&bytes[used..used + length]).expect("text").to_owned();
            match connection.offload(self.job(*tag, &line)) {
                Ok(()) => *tag += 1,
                // It is shown again.
                Err(refused) if refused.kind == OffloadJobErrorKind::Full => break,
                Err(refused) => {
                    assert_eq!(refused.job.tag(), *tag, "the job comes back");
                    let _ = connection.send(format!("{refused}\n").as_bytes());
                }
            }
            used += length + 1;
        }
        used
    }

    fn job_done(&mut self, _: &mut u64, connection: &mut Connection<'_>, job: JobDone) {
        let tag = job.tag();
        let said = match job.result::<String>() {
            Ok(said) => said,
            Err(RunJobError::Panicked(said)) => format!("panicked {said}"),
            Err(error) => format!("failed {error}"),
        };
        let _ = connection.send(format!("{tag} {said}\n").as_bytes());
    }
}

struct Server {
    engine: Engine,
    handle: EngineHandle,
    doors: Arc<Doors>,
}

fn serve(change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        ..Config::default()
    };
    change(&mut config);
    let doors: Arc<Doors> = Arc::default();
    let handler_doors = doors.clone();
    let engine = start(config, move |_| Offloads(handler_doors.clone()));
    Server { handle: engine.handle(), engine, doors }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.engine.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client
    }

    fn finish(self) -> Ledger {
        self.handle.drain(PATIENCE);
        let ledger = self.engine.join().expect("it ends well");
        assert!(ledger.balanced(), "{}", ledger.to_json());
        assert_eq!((ledger.jobs_queued, ledger.jobs_running), (0, 0), "{}", ledger.to_json());
        assert_eq!((ledger.workers, ledger.sum.jobs_under_way), (0, 0), "{}", ledger.to_json());
        ledger
    }
}

fn say(client: &mut TcpStream, lines: &str) {
    client.write_all(lines.as_bytes()).unwrap();
}

fn hear(client: &mut TcpStream, expected: &[&str]) {
    for line in expected {
        assert_eq!(read_line(client).unwrap(), *line);
    }
}

/// Threads of this process by that prefix of their name.
fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("comm")));
    names.flatten().filter(|name| name.starts_with(prefix)).count()
}

#[test]
fn results_come_in_the_order_of_submission_whatever_order_jobs_end_in() {
    let server = serve(|config| config.workers = 4);
    let mut client = server.connect();
    say(&mut client, "at 0\nat 1\nat 2\npanic\n");
    server.doors.has_begun(3);
    server.doors.open(2);
    server.doors.open(1);
    let waits_for_first = || server.handle.ledger().jobs_running == 1;
    wait_until("all but the first are over", waits_for_first);
    assert_eq!(server.handle.ledger().sum.jobs_done, 0, "nobody overtakes the first");
    server.doors.open(0);
    hear(&mut client, &["0 passed 0", "1 passed 1", "2 passed 2", "3 panicked on purpose"]);
    say(&mut client, "sum 10\n");
    hear(&mut client, &["4 sum 55"]);
    let ledger = server.finish();
    let sum = ledger.sum;
    assert_eq!((sum.jobs_submitted, sum.jobs_done, sum.jobs_failed), (5, 4, 1));
    assert_eq!(sum.handler_panics, 0, "a job's panic is no handler's");
}

#[test]
fn unordered_results_come_as_they_are_done() {
    let server = serve(|config| config.workers = 3);
    let mut client = server.connect();
    say(&mut client, "at 0\nany 1\nany 2\n");
    server.doors.has_begun(3);
    server.doors.open(2);
    hear(&mut client, &["2 passed 2"]);
    server.doors.open(1);
    hear(&mut client, &["1 passed 1"]);
    server.doors.open(0);
    hear(&mut client, &["0 passed 0"]);
    server.finish();
}

#[test]
fn a_job_for_zero_workers_is_an_error_that_says_what_to_do() {
    let server = serve(|_| {});
    let mut client = server.connect();
    say(&mut client, "sum 1\n");
    let said = read_line(&mut client).unwrap();
    assert!(said.contains("EngineHandle::set_workers"), "{said}");
    server.handle.set_workers(1).unwrap();
    say(&mut client, "sum 2\n");
    hear(&mut client, &["0 sum 3"]);
    assert!(matches!(server.handle.set_workers(1025), Err(SetWorkersError::TooMany)));
    let handle = server.handle.clone();
    let ledger = server.finish();
    assert_eq!((ledger.sum.jobs_refused, ledger.sum.jobs_submitted), (1, 1));
    assert!(matches!(handle.set_workers(1), Err(SetWorkersError::Ended)));
}

#[test]
fn jobs_queued_when_the_pool_shrinks_to_nothing_are_answered_and_running_ones_end() {
    let server = serve(|config| config.workers = 1);
    let mut client = server.connect();
    say(&mut client, "at 0\nat 1\nat 2\n");
    server.doors.has_begun(1);
    wait_until("two are queued", || server.handle.ledger().jobs_queued == 2);
    server.handle.set_workers(0).unwrap();
    assert_eq!((server.handle.workers(), server.handle.ledger().jobs_queued), (0, 0));
    server.doors.open(0);
    hear(&mut client, &["0 passed 0"]);
    for tag in 1..3 {
        let said = read_line(&mut client).unwrap();
        assert!(said.starts_with(&format!("{tag} failed")) && said.contains("never ran"), "{said}");
    }
    server.doors.has_begun(1);
    let ledger = server.finish();
    assert_eq!((ledger.sum.jobs_done, ledger.sum.jobs_failed), (1, 2));
}

/// Every request is answered in order, with a result or with an error, while the pool has any size.
#[test]
fn the_pool_changes_its_size_under_load() {
    const LINES: usize = 4_000;
    let server = serve(|config| {
        config.shards = Some(2);
        config.workers = 2;
        config.jobs_queued_max = 8;
        config.jobs_per_connection_max = 6;
    });
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = server.connect();
            std::thread::spawn(move || {
                let mut writer = client.try_clone().unwrap();
                let writing = std::thread::spawn(move || {
                    (0..LINES).for_each(|line| say(&mut writer, &format!("sum {line}\n")));
                });
                let mut answers = Vec::new();
                for _ in 0..LINES {
                    answers.push(read_line(&mut client).unwrap());
                }
                writing.join().unwrap();
                answers
            })
        })
        .collect();
    let mut sizes = 0;
    while !clients.iter().all(std::thread::JoinHandle::is_finished) {
        match server.handle.set_workers([0, 3, 1, 0, 2][sizes % 5]) {
            Ok(()) | Err(SetWorkersError::Changing) => sizes += 1,
            Err(failed) => panic!("{failed}"),
        }
        assert!(threads_named("worker-") < 64, "threads are left behind");
    }
    assert!(sizes > 5, "{sizes} sizes only");
    let mut done = 0;
    for client in clients {
        let mut next = 0;
        for answer in client.join().unwrap() {
            // One that was refused has no tag, and the next job takes it.
            let Some((tag, said)) = answer.split_once(' ').filter(|(tag, _)| *tag != "the") else {
                continue;
            };
            assert_eq!(tag, next.to_string(), "in order: {answer}");
            done += u64::from(said.starts_with("sum"));
            next += 1;
        }
    }
    let ledger = server.finish();
    let sum = ledger.sum;
    assert_eq!(sum.jobs_done, done, "{}", ledger.to_json());
    assert_eq!((sum.jobs_unclaimed, sum.jobs_done + sum.jobs_failed), (0, sum.jobs_submitted));
}

#[test]
fn a_connection_that_has_gone_takes_no_result_and_its_slot_is_free() {
    let server = serve(|config| {
        config.workers = 2;
        config.max_connections = 1;
    });
    let mut gone = server.connect();
    say(&mut gone, "at 0\nat 1\n");
    server.doors.has_begun(2);
    reset(gone);
    // The only permit and the same slot, while the jobs still run.
    let mut next = server.connect();
    wait_until("the next is in", || server.handle.ledger().sum.opened == 2);
    server.doors.open(1);
    server.doors.open(0);
    wait_until("both are over", || server.handle.ledger().sum.jobs_unclaimed == 2);
    say(&mut next, "sum 4\n");
    hear(&mut next, &["0 sum 10"]);
    let ledger = server.finish();
    assert_eq!((ledger.sum.jobs_done, ledger.sum.jobs_unclaimed), (1, 2));
}

#[test]
fn a_full_queue_pauses_who_offloads_and_loses_nothing() {
    let server = serve(|config| {
        config.workers = 1;
        config.jobs_queued_max = 2;
    });
    let (mut first, mut second) = (server.connect(), server.connect());
    say(&mut first, "at 0\n");
    server.doors.has_begun(1);
    say(&mut first, "sum 1\nsum 2\nsum 3\nsum 4\n");
    wait_until("the queue is full", || server.handle.ledger().sum.jobs_refused == 1);
    say(&mut second, "sum 5\nsum 6\n");
    wait_until("so it is for others", || server.handle.ledger().sum.jobs_refused == 2);
    assert_eq!(server.handle.ledger().jobs_queued, 2);
    server.doors.open(0);
    hear(&mut first, &["0 passed 0", "1 sum 1", "2 sum 3", "3 sum 6", "4 sum 10"]);
    hear(&mut second, &["0 sum 15", "1 sum 21"]);
    server.finish();
}

/// A shard that waits for a place is woken when another shard's job leaves the queue; a shard that
/// nobody wakes sleeps for a second.
#[test]
fn room_made_by_another_shards_job_is_noticed_at_once() {
    const ROUNDS: usize = 5;
    let server = serve(|config| {
        config.shards = Some(2);
        config.workers = 1;
        config.jobs_queued_max = 1;
    });
    // One connection on each shard; the others are not needed.
    let mut of_shard: [Option<TcpStream>; 2] = [None, None];
    while of_shard.iter().any(Option::is_none) {
        let opened = || -> Vec<u64> {
            server.handle.shard_ledgers().iter().map(|shard| shard.opened).collect()
        };
        let before = opened();
        let client = server.connect();
        wait_until("it is in", || opened() != before);
        of_shard[usize::from(opened()[1] != before[1])] = Some(client);
    }
    let [mut one, mut other] = of_shard.map(Option::unwrap);
    let mut waited = Duration::ZERO;
    for round in 0..ROUNDS {
        let (first, second) = (2 * round, 2 * round + 1);
        say(&mut one, &format!("at {first}\n"));
        server.doors.has_begun(first as u64 + 1);
        say(&mut one, &format!("at {second}\n"));
        wait_until("the queue is full", || server.handle.ledger().jobs_queued == 1);
        say(&mut other, "sum 5\n");
        let refused = || server.handle.ledger().sum.jobs_refused;
        wait_until("it is refused", || refused() as usize == round + 1);
        let began = Instant::now();
        server.doors.open(first);
        let submitted = || server.handle.ledger().sum.jobs_submitted as usize;
        wait_until("it has a place", || submitted() == 3 * round + 3);
        waited += began.elapsed();
        server.doors.open(second);
        hear(&mut one, &[&format!("{first} passed {first}"), &format!("{second} passed {second}")]);
        hear(&mut other, &[&format!("{round} sum 15")]);
    }
    assert!(waited < Duration::from_millis(500 * ROUNDS as u64), "{waited:?}");
    drop((one, other));
    server.finish();
}

#[test]
fn a_connection_has_no_more_jobs_than_it_may() {
    let server = serve(|config| {
        config.workers = 4;
        config.jobs_per_connection_max = 2;
    });
    let mut client = server.connect();
    say(&mut client, "at 0\nat 1\nat 2\nat 3\n");
    server.doors.has_begun(2);
    wait_until("the third is refused", || server.handle.ledger().sum.jobs_refused == 1);
    // Done, but not its turn: it counts still.
    server.doors.open(1);
    wait_until("one runs", || server.handle.ledger().jobs_running == 1);
    assert_eq!(server.handle.ledger().sum.jobs_submitted, 2);
    server.doors.open(0);
    hear(&mut client, &["0 passed 0", "1 passed 1"]);
    server.doors.has_begun(4);
    server.doors.open(2);
    server.doors.open(3);
    hear(&mut client, &["2 passed 2", "3 passed 3"]);
    server.finish();
}

#[test]
fn replies_that_workers_prepare_outlive_the_clients_fin() {
    let server = serve(|config| config.workers = 1);
    let mut client = server.connect();
    say(&mut client, "at 0\nsum 3\n");
    client.shutdown(Shutdown::Write).unwrap();
    server.doors.has_begun(1);
    server.doors.open(0);
    hear(&mut client, &["0 passed 0", "1 sum 6"]);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "and then it is closed");
    server.finish();
}

#[test]
fn a_drain_waits_for_jobs_within_its_deadline() {
    let server = serve(|config| config.workers = 2);
    let (mut patient, mut hasty) = (server.connect(), server.connect());
    say(&mut patient, "at 0\n");
    say(&mut hasty, "sum 1\n");
    hear(&mut hasty, &["0 sum 1"]);
    server.doors.has_begun(1);
    server.handle.drain(PATIENCE);
    assert_eq!(hasty.read(&mut [0; 1]).unwrap(), 0, "who is at rest goes");
    drop(hasty);
    wait_until("it has gone", || server.handle.connections() == 1);
    server.doors.open(0);
    hear(&mut patient, &["0 passed 0"]);
    assert_eq!(patient.read(&mut [0; 1]).unwrap(), 0);
    let ledger = server.finish();
    assert_eq!((ledger.sum.jobs_done, ledger.sum.jobs_unclaimed), (2, 0));
}

#[test]
fn a_job_that_outlasts_the_drain_is_reported_and_hangs_nobody() {
    let server = serve(|config| config.workers = 2);
    let mut client = server.connect();
    say(&mut client, "at 0\nsum 1\n");
    server.doors.has_begun(1);
    wait_until("the other is over", || server.handle.ledger().jobs_running == 1);
    let began = Instant::now();
    server.handle.drain(Duration::from_millis(50));
    match server.engine.join() {
        Err(Error::JobsRunning { jobs: 1 }) => {}
        other => panic!("{other:?}"),
    }
    let took = began.elapsed();
    // Less than the door stays shut.
    assert!(took >= Duration::from_millis(2_900) && took < PATIENCE, "{took:?}");
    let ledger = server.handle.ledger();
    assert!(ledger.balanced() && ledger.sum.jobs_unclaimed == 2, "{}", ledger.to_json());
    // Its thread ends with it.
    server.doors.open(0);
    wait_until("it is over", || server.handle.ledger().jobs_running == 0);
}

/// A handler that asks for what the job did not return, and results whose drop panics.
struct Careless(Sender<&'static str>);

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a result that panics when it is dropped");
    }
}

impl Handler for Careless {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let sender = self.0.clone();
        let job = match bytes[0] {
            b'w' => Job::new(0, || 5u8),
            _ => Job::new(1, move || {
                sender.send("ran").unwrap();
                PanicsWhenDropped
            }),
        };
        connection.offload(job).expect("there is a worker");
        if bytes[0] == b'c' {
            connection.close();
        }
        bytes.len()
    }

    fn job_done(&mut self, (): &mut (), _: &mut Connection<'_>, job: JobDone) {
        self.0.send("told").unwrap();
        let _ = job.result::<String>();
    }
}

#[test]
fn a_careless_handler_loses_its_connection_only() {
    let (sender, said): (_, Receiver<&str>) = channel();
    let sender = Mutex::new(sender);
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        workers: 1,
        ..Config::default()
    };
    let engine = start(config, move |_| Careless(sender.lock().unwrap().clone()));
    let limit = PATIENCE;
    // What the job returned is no String; one whose drop panics; one that nobody takes.
    for (line, tells) in [("w", &["told"][..]), ("d", &["ran", "told"]), ("c", &["ran"])] {
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.set_read_timeout(Some(limit)).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        for tell in tells {
            assert_eq!(said.recv_timeout(limit).unwrap(), *tell);
        }
        let _ = client.read(&mut [0; 1]);
    }
    let handle = engine.handle();
    wait_until("the last is dropped", || handle.ledger().sum.jobs_unclaimed == 1);
    handle.drain(limit);
    let ledger = engine.join().expect("neither the shard nor the worker noticed");
    assert_eq!(ledger.sum.handler_panics, 2);
    assert!(ledger.balanced(), "{}", ledger.to_json());
}

#[test]
fn whoever_waits_for_a_job_is_not_idle() {
    let server = serve(|config| {
        config.workers = 1;
        config.idle_timeout = Some(Duration::from_millis(400));
    });
    let mut client = server.connect();
    say(&mut client, "at 0\n");
    server.doors.has_begun(1);
    std::thread::sleep(Duration::from_millis(800));
    server.doors.open(0);
    hear(&mut client, &["0 passed 0"]);
    // And then it is.
    assert_eq!(client.read(&mut [0]).expect("a FIN"), 0);
    drop(client);
    server.finish();
}

/// Says how many workers there are when its shard begins.
struct Early(Sender<usize>);

impl Handler for Early {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        let _ = self.0.send(shard.engine().workers());
        Ok(())
    }
}

#[test]
fn workers_are_there_before_a_shard_begins() {
    let config = Config { shards: Some(1), pin: false, workers: 3, ..Config::default() };
    let (sender, workers) = channel();
    let engine = start(config, move |_| Early(sender.clone()));
    assert_eq!(workers.recv_timeout(PATIENCE), Ok(3));
    engine.handle().drain(Duration::ZERO);
    engine.join().expect("the shard ends well");
}
