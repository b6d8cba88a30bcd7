//! Holds: results that threads and tasks of tokio make, their order, their end, and drains.

use crate::common::{PATIENCE, read_line, reset, start, wait_until};
use ringwright::workers::{Hold, Job, JobDone, TakeHoldError};
use ringwright::{
    BoxError, Config, Connection, ConnectionId, Engine, Handler, Ledger, Local, Origin, Reason,
};
use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

fn config() -> Config {
    Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        ..Config::default()
    }
}

fn connect(engine: &Engine) -> TcpStream {
    let client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

fn finish(engine: Engine) -> Ledger {
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().expect("it ends well");
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!(ledger.sum.holds_under_way, 0, "{}", ledger.to_json());
    ledger
}

/// Takes a hold for each byte and gives it away. Its value is sent as a line.
struct Gives(Sender<Hold>);

impl Handler for Gives {
    type State = u64;

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> u64 {
        0
    }

    fn received(&mut self, tag: &mut u64, connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        for (used, byte) in bytes.iter().enumerate() {
            let unordered = *byte == b'u';
            let hold =
                if unordered { connection.hold_unordered(*tag) } else { connection.hold(*tag) };
            match hold {
                Ok(hold) => self.0.send(hold).expect("the test listens"),
                Err(TakeHoldError::Full) => return used,
                Err(error) => panic!("{error}"),
            }
            *tag += 1;
        }
        bytes.len()
    }

    fn job_done(&mut self, _: &mut u64, connection: &mut Connection<'_>, job: JobDone) {
        let tag = job.tag();
        let _ = match job.result::<String>() {
            Ok(value) => connection.send(format!("{tag} {value}\n").as_bytes()),
            Err(error) => connection.send(format!("{tag} {error}\n").as_bytes()),
        };
    }
}

/// An engine without workers, and the holds that it gives away.
fn gives(change: impl FnOnce(&mut Config)) -> (Engine, Receiver<Hold>) {
    let mut config = config();
    change(&mut config);
    let (sender, holds) = channel();
    (start(config, move |_| Gives(sender.clone())), holds)
}

fn take(holds: &Receiver<Hold>) -> Hold {
    holds.recv_timeout(PATIENCE).expect("a hold comes")
}

fn hear(client: &mut TcpStream, expected: &[&str]) {
    for line in expected {
        assert_eq!(read_line(client).unwrap(), *line);
    }
}

#[test]
fn values_of_threads_come_in_the_order_of_the_holds() {
    let (engine, holds) = gives(|_| {});
    let mut client = connect(&engine);
    client.write_all(b"hhuh").unwrap();
    let [first, second, third, last] = std::array::from_fn(|_| take(&holds));
    let threads = [
        thread::spawn(move || last.complete("late".to_owned())),
        thread::spawn(move || drop(second)),
        thread::spawn(move || third.complete("soon".to_owned())),
    ];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    hear(&mut client, &["2 soon"]);
    first.complete("first".to_owned());
    hear(&mut client, &["0 first", "1 the hold was dropped without a value", "3 late"]);
    drop(client);
    let sum = finish(engine).sum;
    assert_eq!((sum.holds_taken, sum.holds_dropped, sum.jobs_done, sum.jobs_failed), (4, 1, 3, 1));
}

/// A shard that nobody wakes sleeps for a second.
#[test]
fn a_value_wakes_the_shard() {
    const ROUNDS: u32 = 10;
    let (engine, holds) = gives(|_| {});
    let mut client = connect(&engine);
    let mut waited = Duration::ZERO;
    for round in 0..ROUNDS {
        client.write_all(b"h").unwrap();
        let hold = take(&holds);
        thread::sleep(Duration::from_millis(5));
        let began = Instant::now();
        hold.complete("awake".to_owned());
        hear(&mut client, &[&format!("{round} awake")]);
        waited += began.elapsed();
    }
    assert!(waited < Duration::from_millis(500) * ROUNDS, "{waited:?}");
    drop(client);
    finish(engine);
}

#[test]
fn a_command_sent_before_a_value_precedes_it() {
    let (engine, holds) = gives(|config| config.jobs_per_connection_max = 1_000);
    let mut client = connect(&engine);
    let handle = engine.handle();
    client.write_all(&[b'h'; 1_000]).unwrap();
    wait_until("it is in", || handle.connections() == 1);
    let id = handle.list(None, 1).expect("the shard answers")[0].id;
    let sender = thread::spawn(move || {
        for tag in 0..1_000 {
            let hold = take(&holds);
            while handle.send(id, format!("before {tag}\n")).is_err() {
                thread::yield_now();
            }
            hold.complete("after".to_owned());
        }
    });
    // The line before a value comes before it, and may come before earlier values.
    let mut before = 0;
    for tag in 0..1_000 {
        loop {
            let line = read_line(&mut client).unwrap();
            if line == format!("{tag} after") {
                break;
            }
            assert_eq!(line, format!("before {before}"));
            before += 1;
        }
        assert!(before > tag, "{before} commands precede value {tag}");
    }
    sender.join().unwrap();
    drop(client);
    finish(engine);
}

#[test]
fn a_held_answer_outlives_the_clients_fin() {
    let (engine, holds) = gives(|config| config.idle_timeout = Some(Duration::from_millis(100)));
    let mut client = connect(&engine);
    client.write_all(b"hh").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (first, second) = (take(&holds), take(&holds));
    second.complete("second".to_owned());
    thread::sleep(Duration::from_millis(300));
    first.complete("first".to_owned());
    hear(&mut client, &["0 first", "1 second"]);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "and then it is closed");
    drop(client);
    finish(engine);
}

#[test]
fn a_drain_waits_for_holds_within_its_deadline() {
    for in_time in [true, false] {
        let (engine, holds) = gives(|_| {});
        let mut client = connect(&engine);
        client.write_all(b"h").unwrap();
        let hold = take(&holds);
        let deadline = if in_time { PATIENCE } else { Duration::from_millis(50) };
        engine.handle().drain(deadline);
        if in_time {
            thread::sleep(Duration::from_millis(100));
            hold.complete("in time".to_owned());
            hear(&mut client, &["0 in time"]);
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
            drop(client);
            assert_eq!(finish(engine).sum.jobs_done, 1);
        } else {
            let sum = finish(engine).sum;
            assert_eq!((sum.jobs_done, sum.jobs_unclaimed), (0, 1));
            assert!(hold.is_abandoned());
            hold.complete("late".to_owned());
        }
    }
}

#[test]
fn values_for_a_connection_that_has_gone_are_dropped() {
    let (engine, holds) = gives(|config| config.max_connections = 1);
    let mut gone = connect(&engine);
    gone.write_all(b"hh").unwrap();
    let (first, second) = (take(&holds), take(&holds));
    assert!(!first.is_abandoned());
    reset(gone);
    // The only permit and the same slot, while the holds are out.
    let mut next = connect(&engine);
    next.write_all(b"h").unwrap();
    let hold = take(&holds);
    assert!(first.is_abandoned() && second.is_abandoned() && !hold.is_abandoned());
    first.complete("late".to_owned());
    drop(second);
    hold.complete("in time".to_owned());
    hear(&mut next, &["0 in time"]);
    drop(next);
    let sum = finish(engine).sum;
    assert_eq!((sum.jobs_done, sum.jobs_unclaimed, sum.holds_dropped), (1, 2, 0));
}

/// Answers each number of eight bytes with the same number, from tasks of a runtime.
struct Numbers {
    runtime: tokio::runtime::Handle,
    /// The last answer of each connection waits for it.
    drained: Arc<AtomicBool>,
    last: u64,
}

/// Waits for a time that depends on the number as if it were random.
async fn delay(number: u64) {
    match number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59 {
        0..16 => {}
        turns @ 16..31 => {
            for _ in 16..turns {
                tokio::task::yield_now().await;
            }
        }
        _ => tokio::time::sleep(Duration::from_micros(number % 2_000)).await,
    }
}

impl Handler for Numbers {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        for request in bytes.as_chunks().0 {
            let number = u64::from_le_bytes(*request);
            let hold = match connection.hold(number) {
                Ok(hold) => hold,
                Err(TakeHoldError::Full) => break,
                Err(error) => panic!("{error}"),
            };
            let (drained, waits) = (self.drained.clone(), number == self.last);
            self.runtime.spawn(async move {
                delay(number).await;
                while waits && !drained.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                hold.complete(number);
            });
            used += request.len();
        }
        used
    }

    fn job_done(&mut self, _: &mut (), connection: &mut Connection<'_>, job: JobDone) {
        let number = job.result::<u64>().expect("no task panics");
        let _ = connection.send(&number.to_le_bytes());
    }
}

/// Requests that all clients send together: a tenth of them unless `RINGWRIGHT_FULL` is set.
fn requests() -> u64 {
    if std::env::var_os("RINGWRIGHT_FULL").is_some() { 1_000_000 } else { 100_000 }
}

/// All requests are pipelined, and the drain comes while answers are missing.
#[test]
fn a_runtime_answers_pipelined_requests_in_order_and_a_drain_loses_none() {
    const CLIENTS: u64 = 4;
    let each = requests() / CLIENTS;
    let runtime = Runtime::new().unwrap();
    let (of_engine, drained) = (runtime.handle().clone(), Arc::new(AtomicBool::new(false)));
    let of_handler = drained.clone();
    let config = Config { shards: Some(2), jobs_per_connection_max: 2_000, ..config() };
    let engine = start(config, move |_| Numbers {
        runtime: of_engine.clone(),
        drained: of_handler.clone(),
        last: each - 1,
    });
    let (sender, written) = channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, sender) = (connect(&engine), sender.clone());
            thread::spawn(move || {
                let mut writer = BufWriter::new(client.try_clone().unwrap());
                let writing = thread::spawn(move || {
                    (0..each).for_each(|number| writer.write_all(&number.to_le_bytes()).unwrap());
                    writer.flush().unwrap();
                    sender.send(()).unwrap();
                });
                let mut reader = BufReader::new(client);
                let mut answer = [0; 8];
                for number in 0..each {
                    reader.read_exact(&mut answer).unwrap();
                    assert_eq!(u64::from_le_bytes(answer), number, "in order");
                }
                assert_eq!(reader.read(&mut answer).unwrap(), 0, "nothing follows");
                writing.join().unwrap();
            })
        })
        .collect();
    for _ in 0..CLIENTS {
        written.recv_timeout(PATIENCE).expect("everything is written");
    }
    // A drain cannot wait for bytes that are still on their way to the server.
    let handle = engine.handle();
    wait_until("the requests", || handle.ledger().sum.holds_taken == CLIENTS * each);
    assert!(handle.ledger().sum.jobs_done < CLIENTS * each);
    handle.drain(PATIENCE);
    wait_until("the drain begins", || engine.handle().is_draining());
    drained.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let sum = finish(engine).sum;
    assert_eq!((sum.jobs_done, sum.holds_taken), (CLIENTS * each, CLIENTS * each));
    assert_eq!(sum.closed_by[Reason::Drained as usize], CLIENTS);
}

/// Saves each connection when it has ended, and loads something at first.
struct Saves(Arc<Mutex<Vec<String>>>, Sender<Hold>);

impl Handler for Saves {
    type State = ();

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.1.send(shard.hold(7).expect("it begins")).expect("the test listens");
        Ok(())
    }

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        let save = Job::new(8, move || {
            thread::sleep(Duration::from_millis(100));
            reason.name().to_owned()
        });
        shard.offload(save).expect("there is room");
    }

    fn shard_job_done(&mut self, _: &mut Local<'_>, job: JobDone) {
        let (tag, value) = (job.tag(), job.result::<String>().expect("it is completed"));
        self.0.lock().unwrap().push(format!("{tag} {value}"));
    }
}

#[test]
fn jobs_of_a_shard_need_no_connection_and_a_drain_waits_for_them() {
    let list: Arc<Mutex<Vec<String>>> = Arc::default();
    let (sender, holds) = channel();
    let of_handler = list.clone();
    let engine = start(Config { workers: 1, ..config() }, move |_| {
        Saves(of_handler.clone(), sender.clone())
    });
    take(&holds).complete("loaded".to_owned());
    wait_until("the first is told", || list.lock().unwrap().len() == 1);
    let clients = [connect(&engine), connect(&engine)];
    wait_until("both are in", || engine.handle().connections() == 2);
    engine.handle().drain(PATIENCE);
    for mut client in clients {
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }
    let sum = finish(engine).sum;
    assert_eq!(*list.lock().unwrap(), ["7 loaded", "8 drained", "8 drained"]);
    assert_eq!((sum.jobs_done, sum.jobs_unclaimed), (3, 0));
}
