//! Limits that root never meets, met as an ordinary user: the test program runs one test of itself
//! again, with the limit. As root it first copies itself to where any user can read it, and
//! becomes a user of its own.

use crate::both::{VARIABLE, kind, needs_io_uring};
use crate::common::{PATIENCE, try_start};
use ringwright::files::OpenFile;
use ringwright::{Config, Connection, Engine, Handler, Origin};
use ringwright_test_support::{needs_root, raise_descriptor_limit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Each test is a user of its own: these limits count per user.
static USERS: AtomicU32 = AtomicU32::new(0);
const ROLE: &str = "RINGWRIGHT_TEST_WITH_LIMIT";

static STARTING: Mutex<()> = Mutex::new(());

/// Runs `test` of this program again as an ordinary user with that `RLIMIT_MEMLOCK`. True: this is
/// that run.
fn with_limit(test: &str, memlock_bytes: u64) -> bool {
    if std::env::var_os(ROLE).is_some() {
        raise_descriptor_limit();
        return true;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("test");
    // A child of another thread that is forked while the copy is open for writing keeps it open
    // until its own exec: ETXTBSY.
    let alone = STARTING.lock().unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let limit = libc::rlimit { rlim_cur: memlock_bytes, rlim_max: memlock_bytes };
    let (_, module) = module_path!().split_once("::").expect("a module of the test program");
    let test = format!("{module}::{test}");
    let mut command = Command::new(&copy);
    command.args([test.as_str(), "--exact", "--nocapture"]).env(ROLE, "1").current_dir("/");
    // The limit need not have room for finding out.
    command.env(VARIABLE, kind().to_string());
    // SAFETY: between fork and exec only setrlimit(2) is called, on a limit copied before.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        let user = 1_500_000_000 + 16 * std::process::id() + USERS.fetch_add(1, Ordering::Relaxed);
        command.uid(user).gid(user);
    }
    let child = command.spawn().unwrap();
    drop(alone);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Returns true if a test whose rings must fit can run. Root becomes a user of its own.
#[track_caller]
fn needs_room() -> bool {
    let is_that_run = std::env::var_os(ROLE).is_some();
    is_that_run || needs_root("all rings of a user share RLIMIT_MEMLOCK")
}

/// Sends the same file to every client.
struct Sender(OpenFile);

impl Handler for Sender {
    type State = ();
    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        let bytes = self.0.status().bytes;
        let _ = connection.send_file(self.0.clone(), 0, bytes);
        connection.close();
    }
    fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

fn file(bytes: usize) -> (OpenFile, Vec<u8>) {
    let content: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    (OpenFile::from_file(file).unwrap(), content)
}

/// Returns whether this kernel surely counts rings as locked memory. Before Linux 6.14, and after
/// the releases listed here, it need not.
fn rings_count() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is there");
    (14..=18).any(|minor| release.starts_with(&format!("6.{minor}.")))
}

fn config() -> Config {
    Config { listeners: vec!["127.0.0.1:0".parse().unwrap()], shards: Some(1), ..Config::default() }
}

fn fetch(engine: &Engine) -> Vec<u8> {
    let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"please").unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    all
}

fn finish(engine: Engine) {
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
}

#[test]
fn without_room_for_the_rings_the_error_names_needed_and_allowed() {
    if !needs_io_uring("it locks memory") {
        return;
    }
    if !with_limit("without_room_for_the_rings_the_error_names_needed_and_allowed", 16 << 10) {
        return;
    }
    let (sent, _) = file(10);
    let config = Config { shards: Some(3), ..config() };
    let error = match try_start(config, move |_| Sender(sent.clone())) {
        Ok(engine) => {
            assert!(!rings_count(), "no room");
            return finish(engine);
        }
        Err(error) => error,
    };
    let error = error.to_string();
    assert!(error.contains("the 3 ring(s) of this process need"), "{error}");
    assert!(error.contains("MEMLOCK") && error.contains("16384"), "{error}");
    assert!(error.contains("ulimit -l"), "{error}");
}

#[test]
fn with_room_for_the_rings_only_it_serves_and_says_so() {
    let test = "with_room_for_the_rings_only_it_serves_and_says_so";
    if !needs_io_uring("it locks memory") || !needs_room() || !with_limit(test, 2 << 20) {
        return;
    }
    let (sent, content) = file(1_000);
    let engine = try_start(config(), move |_| Sender(sent.clone())).unwrap();
    let notices = engine.notices().join("\n");
    assert!(notices.contains("not registered") && notices.contains("2097152"), "{notices}");
    assert_eq!(fetch(&engine), content);
    finish(engine);
}

/// What the limit has room for depends on what the user's other rings take.
#[test]
fn beside_another_engine_it_serves_without_registered_buffers_and_says_so() {
    let test = "beside_another_engine_it_serves_without_registered_buffers_and_says_so";
    if !needs_io_uring("it locks memory") || !needs_room() || !with_limit(test, 8 << 20) {
        return;
    }
    let half = Config { receive_buffers: 1024, send_buffers: 128, ..config() };
    let start = |content: &OpenFile| {
        let sent = content.clone();
        try_start(half.clone(), move |_| Sender(sent.clone())).unwrap()
    };
    let (sent, content) = file(1_000);
    let first = start(&sent);
    assert!(first.notices().is_empty(), "{:?}", first.notices());
    let second = start(&sent);
    let notices = second.notices().join("\n");
    assert!(notices.contains("not registered") && notices.contains("RLIMIT_MEMLOCK"), "{notices}");
    for engine in [first, second] {
        assert_eq!(fetch(&engine), content);
        finish(engine);
    }
}

#[test]
fn past_the_pipe_limit_the_kernel_shrinks_pipes_and_files_still_arrive() {
    let test = "past_the_pipe_limit_the_kernel_shrinks_pipes_and_files_still_arrive";
    if !needs_room() || !with_limit(test, 4 << 20) {
        return;
    }
    let soft: i64 = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // Pipes of 16 pages each, until the user's share is used up.
    let pipes: Vec<_> = (0..soft / 16 + 8).map(|_| std::io::pipe().unwrap()).collect();
    let (sent, content) = file(5_000_000);
    let engine = try_start(config(), move |_| Sender(sent.clone())).unwrap();
    assert!(fetch(&engine) == content);
    finish(engine);
    drop(pipes);
}
