//! Engines where io_uring is forbidden: a seccomp filter answers with an errno, or kills.

use ringwright::files::{Directory, OpenFile};
use ringwright::{Config, Connection, Engine, Error, Handler, Origin, RingChoice, RingKind, probe};
use ringwright_test_support::{
    alone, needs_io_uring,
    seccomp::{fails_with, filter},
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
const IO_URING: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter];

/// Echoes, and sends a file when the client has finished.
struct Echo(OpenFile);

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
    fn half_closed(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        let bytes = self.0.status().bytes;
        let _ = connection.send_file(self.0.clone(), 0, bytes);
        connection.close();
    }
}

fn start(ring: RingChoice) -> Result<(Engine, Vec<u8>), Error> {
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 31 % 251) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let file = OpenFile::from_file(file).unwrap();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(2),
        ring,
        ..Config::default()
    };
    Engine::start(config, move |_| Echo(file.clone())).map(|engine| (engine, content))
}

/// The engine chooses epoll, says why, and works.
fn serves_on_epoll(cause: &str) {
    let (engine, content) = start(RingChoice::Auto).expect("it starts on epoll");
    let notices = engine.notices().join("\n");
    assert!(notices.contains("epoll replaces io_uring"), "{notices}");
    assert!(notices.contains("seccomp"), "the remedy: {notices}");
    for _ in 0..10 {
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert!(all == [b"hello", &content[..]].concat(), "{} bytes came", all.len());
    }
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!((ledger.ring.kind, ledger.sum.closed), (RingKind::Epoll, 10));
    assert!(ledger.ring.reason.contains(cause), "{}", ledger.ring.reason);
    assert!(ledger.to_json().contains("\"ring\":{\"kind\":\"epoll\",\"reason\":\"io_uring_"));
}

/// A program that asks for io_uring gets an error, and no other ring.
fn refuses_io_uring() {
    let error = start(RingChoice::IoUring).map(drop).expect_err("it is forbidden");
    assert!(matches!(error, Error::Ring(probe::CreateRingError::Filtered { .. })), "{error}");
}

#[test]
fn where_io_uring_answers_eperm_epoll_serves() {
    if needs_io_uring() && alone("where_io_uring_answers_eperm_epoll_serves") {
        filter(&IO_URING, fails_with(libc::EPERM));
        serves_on_epoll("io_uring_setup(2) is forbidden: Operation not permitted");
        refuses_io_uring();
    }
}

#[test]
fn where_io_uring_answers_enosys_epoll_serves() {
    if needs_io_uring() && alone("where_io_uring_answers_enosys_epoll_serves") {
        filter(&IO_URING, fails_with(libc::ENOSYS));
        serves_on_epoll("io_uring_setup(2) is forbidden: Function not implemented");
        refuses_io_uring();
    }
}

#[test]
fn where_io_uring_kills_epoll_serves() {
    if alone("where_io_uring_kills_epoll_serves") {
        filter(&IO_URING, libc::SECCOMP_RET_KILL_PROCESS);
        serves_on_epoll("killed by signal 31");
    }
}

#[test]
fn where_io_uring_kills_the_thread_epoll_serves() {
    if alone("where_io_uring_kills_the_thread_epoll_serves") {
        filter(&IO_URING, libc::SECCOMP_RET_KILL_THREAD);
        serves_on_epoll("killed by signal 31");
    }
}

/// A filter may forbid the later calls only.
#[test]
fn where_only_waiting_is_forbidden_epoll_serves() {
    if needs_io_uring() && alone("where_only_waiting_is_forbidden_epoll_serves") {
        filter(&[libc::SYS_io_uring_enter], fails_with(libc::EPERM));
        serves_on_epoll("io_uring_enter(2) is forbidden: Operation not permitted");
    }
}

/// Sends the file that a line names, or the error.
struct Files(Directory);

impl Handler for Files {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let Some(path) = bytes.strip_suffix(b"\n") else { return 0 };
        connection.open_file(&self.0, path).expect("no other open");
        bytes.len()
    }
    fn file_opened(
        &mut self,
        (): &mut (),
        connection: &mut Connection<'_>,
        result: std::io::Result<OpenFile>,
    ) {
        match result {
            Ok(file) => {
                let bytes = file.status().bytes;
                let _ = connection.send_file(file, 0, bytes);
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                let _ = connection.send(format!("errno {errno}").as_bytes());
            }
        }
        connection.close();
    }
}

/// Files are served without openat2(2) and cachestat(2), and links are not followed.
fn serves_files_on_epoll() {
    let tree = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at * 7) as u8).collect();
    std::fs::create_dir(tree.path().join("sub")).unwrap();
    std::fs::write(tree.path().join("sub/file"), &content).unwrap();
    std::os::unix::fs::symlink("sub", tree.path().join("link")).unwrap();
    let directory = Directory::open(tree.path()).unwrap();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        ring: RingChoice::Epoll,
        ..Config::default()
    };
    let engine = Engine::start(config, move |_| Files(directory.clone())).expect("it starts");
    for (path, expected) in [
        ("sub/file", content),
        ("link/file", format!("errno {}", libc::ELOOP).into_bytes()),
        ("../file", format!("errno {}", libc::EXDEV).into_bytes()),
        ("none", format!("errno {}", libc::ENOENT).into_bytes()),
    ] {
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(format!("{path}\n").as_bytes()).unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert!(all == expected, "{path}: {} bytes came", all.len());
    }
    engine.handle().drain(PATIENCE);
    assert!(engine.join().unwrap().balanced());
}

const FILES: [libc::c_long; 2] = [libc::SYS_openat2, 451];

#[test]
fn where_openat2_and_cachestat_answer_eperm_files_are_served() {
    if alone("where_openat2_and_cachestat_answer_eperm_files_are_served") {
        filter(&FILES, fails_with(libc::EPERM));
        serves_files_on_epoll();
    }
}

#[test]
fn where_openat2_and_cachestat_kill_files_are_served() {
    if alone("where_openat2_and_cachestat_kill_files_are_served") {
        filter(&FILES, libc::SECCOMP_RET_KILL_PROCESS);
        serves_files_on_epoll();
    }
}

/// A lack of descriptors is an error as before, and no reason for another ring.
#[test]
fn a_lack_of_descriptors_is_no_reason_for_epoll() {
    if !alone("a_lack_of_descriptors_is_no_reason_for_epoll") {
        return;
    }
    let limit = libc::rlimit { rlim_cur: 8, rlim_max: 8 };
    // SAFETY: the kernel reads the limit during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let config = Config { shards: Some(1), ..Config::default() };
    let error = Engine::start(config, |_| -> Echo { unreachable!("no shard starts") });
    let error = error.map(drop).expect_err("no descriptor is left").to_string();
    assert!(error.contains("RLIMIT_NOFILE"), "{error}");
    drop(held);
}
