//! The descriptors of a process: those that it runs out of, and those that are left behind. A test
//! binary of its own, because the limit is the process's.

use ringwright::{BoxError, Config, Connection, Engine, Error, Handler, Local, Origin};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Echo;

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
}

/// The stat file of the thread named so, opened while there is a descriptor for it.
fn stat_of(name: &str) -> File {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let mut file = File::open(task.unwrap().path().join("stat")).unwrap();
        let mut stat = String::new();
        file.read_to_string(&mut stat).unwrap();
        if stat.contains(&format!("({name})")) {
            return file;
        }
    }
    panic!("no thread {name}");
}

/// CPU time in ticks of 10 ms.
fn cpu_ticks(stat: &mut File) -> u64 {
    let mut text = String::new();
    stat.rewind().unwrap();
    stat.read_to_string(&mut text).unwrap();
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn limit_descriptors(soft: usize) {
    let hard = ringwright_test_support::raise_descriptor_limit();
    let limit = libc::rlimit { rlim_cur: soft as u64, rlim_max: hard as u64 };
    // SAFETY: the pointer is to a limit on the stack.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// The soft and the hard limit.
fn limits() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a limit on the stack.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    (limit.rlim_cur, limit.rlim_max)
}

/// One test at a time: all of them count what the process has.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptors of the process, and the threads of engines in it.
fn descriptors_and_threads() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let of_engine = |name: &String| name.starts_with("shard-") || name.starts_with("worker-");
    (descriptors, names.filter(of_engine).count())
}

/// An application without a table, on the shard of that number.
struct Incomplete(Option<usize>);

impl Handler for Incomplete {
    type State = ();
    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        // What is asked for before the failure ends with the shard.
        shard.connect("127.0.0.1:1".parse::<std::net::SocketAddr>()?, 1);
        shard.tick_after(Duration::from_millis(1));
        if self.0 == Some(shard.shard()) {
            File::open("no-such-table")?;
        }
        Ok(())
    }
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

#[test]
fn a_start_that_the_application_fails_leaves_nothing_behind() {
    let _alone = alone();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(3),
        workers: 2,
        pin: false,
        ..Config::default()
    };
    let before = descriptors_and_threads();
    for (in_factory, place) in [(true, "factory"), (false, "started")] {
        let failed = Engine::try_start(config.clone(), move |shard| {
            if in_factory && shard == 1 {
                File::open("no-such-table")?;
            }
            Ok(Incomplete(Some(1)))
        });
        let error = failed.expect_err("there is no table");
        let cause = "No such file or directory (os error 2)";
        let text = format!("the application's `{place}` failed on shard 1: {cause}");
        assert_eq!(error.to_string(), text);
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), cause);
        let Error::HandlerFailed { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.downcast::<std::io::Error>().unwrap().raw_os_error(), Some(libc::ENOENT));
        let begun = Instant::now();
        while descriptors_and_threads() != before {
            let now = descriptors_and_threads();
            assert!(begun.elapsed() < PATIENCE, "{place}: {now:?}, not {before:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let engine = Engine::start(config, |_| Incomplete(None)).unwrap();
    assert!(descriptors_and_threads() > before);
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}

#[test]
fn out_of_descriptors_it_pauses_and_recovers_by_itself() {
    let _alone = alone();
    // The clients' sockets are made before the limit closes behind them; it must be there when
    // accepting begins, for an armed accept keeps the limit it was armed under.
    let sockets: Vec<_> = (0..200)
        .map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap())
        .collect();
    limit_descriptors(std::fs::read_dir("/proc/self/fd").unwrap().count() + 64);
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        ..Config::default()
    };
    let engine = Engine::start(config.clone(), |_| Echo).unwrap();
    // The engine leaves the limit alone, and says that it is low.
    let (soft, hard) = limits();
    assert!(soft < 1_000 && soft < hard, "{soft} of {hard}");
    let notice = format!("the limit on open files is {soft} (hard limit {hard})");
    assert!(engine.notices().iter().any(|it| it.contains(&notice)), "{:?}", engine.notices());
    let handle = engine.handle();
    let mut stat = stat_of("shard-0");
    for socket in &sockets {
        socket.connect(&engine.addresses()[0].into()).unwrap();
    }
    let begun = Instant::now();
    while handle.ledger().sum.accept_backoffs < 3 {
        assert!(begun.elapsed() < PATIENCE, "it never ran out");
        std::thread::sleep(Duration::from_millis(5));
    }
    // A further listener finds no descriptor, and leaves nothing behind.
    let refused = handle.add_listener(&"127.0.0.1:0".parse().unwrap()).unwrap_err().to_string();
    assert!(refused.contains("127.0.0.1:0: Too many open files (os error 24)"), "{refused}");
    assert_eq!((handle.listeners().len(), handle.ledger().sum.listeners), (1, 1));
    let before = cpu_ticks(&mut stat);
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_ticks(&mut stat) - before;
    assert!(used <= 5, "{used} % of a CPU while full");
    // The oldest leave, and the others are let in.
    let mut rest: Vec<TcpStream> = sockets.into_iter().skip(150).map(TcpStream::from).collect();
    for client in &mut rest {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"in").unwrap();
        let mut back = [0; 2];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"in");
    }
    drop(rest);
    handle.drain(PATIENCE);
    let ledger = engine.join().unwrap();
    assert!(ledger.balanced() && ledger.open() == 0, "{}", ledger.to_json());

    let raising = Config { raise_descriptors: true, max_connections: 100, ..config };
    let engine = Engine::start(raising, |_| Echo).unwrap();
    assert_eq!(limits(), (hard, hard));
    assert!(!engine.notices().iter().any(|it| it.contains("open files")), "{:?}", engine.notices());
    engine.handle().drain(PATIENCE);
    assert!(engine.join().unwrap().balanced());
}
