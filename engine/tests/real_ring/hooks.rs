//! The callbacks about the life of a shard: the first, at the beginning of a drain, and the last.

use crate::common::{PATIENCE, read_line, start};
use ringwright::workers::{Job, JobDone, OffloadJobErrorKind};
use ringwright::{BoxError, Config, Connection, ConnectionId, Handler, Local, Origin, Reason};
use ringwright_test_support::block_on;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Tells of callbacks, with the number of the shard.
struct Telling {
    told: Sender<(usize, String)>,
    /// It panics behind the callbacks about the end.
    careless: bool,
}

impl Telling {
    fn tell(&self, shard: &Local<'_>, what: impl Into<String>) {
        let _ = self.told.send((shard.shard(), what.into()));
    }
}

impl Handler for Telling {
    type State = ();

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.tell(shard, "started");
        Ok(())
    }

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.tell(&connection.local(), "opened");
        let _ = connection.send(b"welcome\n");
    }

    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn draining(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        self.tell(&connection.local(), "draining");
        connection.close();
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        self.tell(shard, format!("closed {}", reason.name()));
    }

    fn drain_begun(&mut self, shard: &mut Local<'_>) {
        assert!(shard.engine().is_draining());
        assert!(
            !shard.connect(std::net::SocketAddr::from(([127, 0, 0, 1], 1)), 1),
            "no connect begins"
        );
        // A drain waits for it.
        let job = Job::new(1, || std::thread::sleep(Duration::from_millis(50)));
        let sent = shard.offload(job).is_ok();
        self.tell(shard, format!("drain_begun {sent}"));
        assert!(!self.careless, "at the beginning of a drain");
    }

    fn shard_job_done(&mut self, shard: &mut Local<'_>, _: JobDone) {
        self.tell(shard, "shard_job_done");
    }

    fn ended(&mut self, shard: &mut Local<'_>) {
        let refused = shard.offload(Job::new(2, || ())).expect_err("it could not be delivered");
        assert_eq!(refused.kind, OffloadJobErrorKind::Ending);
        assert!(
            !shard.connect(std::net::SocketAddr::from(([127, 0, 0, 1], 1)), 2),
            "no connect begins"
        );
        self.tell(shard, format!("ended with {}", shard.connections()));
        assert!(!self.careless, "at the end");
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let _ = self.told.send((usize::MAX, "drop".to_owned()));
    }
}

/// The callbacks of the shard with a client, and those of the other one.
fn told(heard: &Receiver<(usize, String)>, busy: usize) -> [Vec<String>; 2] {
    let (mut of_busy, mut of_idle) = (Vec::new(), Vec::new());
    for (shard, what) in heard.iter().filter(|(shard, _)| *shard != usize::MAX) {
        if shard == busy { of_busy.push(what) } else { of_idle.push(what) }
    }
    [of_busy, of_idle]
}

#[test]
fn a_shard_tells_of_the_drain_before_its_connections_do_and_of_its_end_last() {
    for stop in [false, true] {
        let config = Config {
            listeners: vec!["127.0.0.1:0".parse().unwrap()],
            shards: Some(2),
            workers: 1,
            pin: false,
            ..Config::default()
        };
        let (sender, heard) = channel();
        let engine = start(config, move |_| Telling { told: sender.clone(), careless: false });
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(read_line(&mut client).unwrap(), "welcome");
        let busy = engine.handle().list(None, 1).unwrap()[0].id.shard();
        let begin = |handle: ringwright::EngineHandle| match stop {
            true => handle.stop(),
            false => handle.drain(PATIENCE),
        };
        // A second time changes nothing.
        (0..2).for_each(|_| begin(engine.handle()));
        assert!(engine.join().expect("it ends well").balanced());
        let [mut of_busy, of_idle] = told(&heard, busy);
        // The job may end before the connection, or after it.
        let last = of_busy.len() - 1;
        of_busy[3..last].sort();
        let middle: &[&str] = match stop {
            true => &["closed stopped"],
            false => &["closed local_close", "draining", "shard_job_done"],
        };
        let begin = ["started", "opened", "drain_begun true"];
        assert_eq!(of_busy, [&begin, middle, &["ended with 0"]].concat());
        let middle: &[&str] = if stop { &[] } else { &["shard_job_done"] };
        assert_eq!(of_idle, [&["started", "drain_begun true"], middle, &["ended with 0"]].concat());
    }
}

#[test]
fn a_panic_in_the_last_callback_is_counted_and_the_end_goes_on() {
    let config = Config { shards: Some(1), workers: 1, pin: false, ..Config::default() };
    let (sender, heard) = channel();
    let engine = start(config, move |_| Telling { told: sender.clone(), careless: true });
    engine.handle().drain(PATIENCE);
    assert_eq!(engine.join().expect("the shard ends").sum.handler_panics, 2);
    let expected = ["started", "drain_begun true", "shard_job_done", "ended with 0"];
    assert_eq!(told(&heard, 0)[0], expected);
}

#[test]
fn tasks_of_any_runtime_wait_for_the_end_of_an_engine() {
    let config = Config { shards: Some(2), workers: 1, pin: false, ..Config::default() };
    let (sender, heard) = channel();
    let engine = start(config, move |_| Telling { told: sender.clone(), careless: false });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let soon = Duration::from_millis(50);
        for _ in 0..3 {
            // Each of them is cancelled.
            assert!(tokio::time::timeout(soon, engine.ended()).await.is_err());
            assert!(tokio::time::timeout(soon, engine.shard_ended()).await.is_err());
        }
    });
    let (first, last) = (engine.shard_ended(), engine.ended());
    let waits = std::thread::spawn(move || {
        block_on(first);
        block_on(last);
    });
    engine.handle().drain(PATIENCE);
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, engine.shard_ended()).await.expect("a shard ends");
        tokio::time::timeout(PATIENCE, engine.ended()).await.expect("all shards end");
    });
    waits.join().unwrap();
    let ends = heard.try_iter().filter(|(_, what)| what == "ended with 0").count();
    assert_eq!(ends, 2);
    // Whoever asks later need not wait.
    block_on(engine.ended());
    assert!(engine.join().unwrap().balanced());
}
