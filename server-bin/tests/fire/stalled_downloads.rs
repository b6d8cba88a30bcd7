//! 1,000 clients that ask for a file and do not read it: they hold no thread and no pipe that
//! somebody else could use, and a fresh client does not notice them.

use crate::download;
use crate::{PATIENCE, PROGRAM, alone, same, until};
use ringwright_test_support::needs_root;
use ringwrightd_test_support::daemon::{self, Daemon};
use ringwrightd_test_support::socket::{self, Sources};
use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, iter};

const STALLED: usize = 1_000;
/// Several times what the sockets of a narrow connection hold.
const FILE_BYTES: usize = 256 << 10;
const SMALL: &str = "small";
const MIDDLE: &str = "middle";
const MIDDLE_BYTES: usize = 300 << 10;
/// The longest wait of a fresh client, from connect(2) to the last byte.
const FRESH_MAX: Duration = Duration::from_millis(50);
/// Threads of the kernel for a shard's ring at most (`Config::io_workers_max`): four that read
/// files, and four for the rest.
const IO_WORKERS_MAX: usize = 2 * 4;
/// `Config::pipes` of the one shard, and `Config::pipe_bytes`.
const PIPES: u64 = 32;
const PIPE_BYTES: i32 = 256 << 10;
/// What a user gets who has too many pages in pipes (pipe(7), fs/pipe.c: `PIPE_MIN_DEF_BUFFERS`).
const SHRUNKEN_PIPE_BYTES: i32 = 2 * 4096;
/// Enough to have all the pages a user may have (`pipe-user-pages-soft`: 16,384 in pipes of 16).
const FOREIGN_PIPES: usize = 1_024;
const READERS: usize = 4;
const WIDE_BYTES: i32 = 128 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    /// May ask which parts of a file are in the page cache, and needs no pipe for those.
    Owner,
    /// May not, and goes through pipes.
    Nobody,
    /// Has used up the pages for them.
    NobodyWithoutPages,
}

#[test]
fn stalled_downloads_of_many_files() {
    stalled(STALLED, User::Owner);
}

#[test]
fn stalled_downloads_of_one_file() {
    stalled(1, User::Owner);
}

#[test]
fn stalled_downloads_of_many_files_through_small_pipes() {
    stalled(STALLED, User::NobodyWithoutPages);
}

#[test]
fn stalled_downloads_of_one_file_through_pipes() {
    stalled(1, User::Nobody);
}

fn stalled(files: usize, user: User) {
    if user != User::Owner && !needs_root("the daemon is another user's") {
        return;
    }
    let _alone = alone();
    let tree = tree(files);
    let foreign = (user == User::NobodyWithoutPages).then(Foreign::pipes);
    let daemon = start(user, tree.path());
    let descriptors = rest_at_first(&daemon);
    let mut sources = Sources::new(0);
    fetch_fresh(&daemon, &mut sources);
    until(PATIENCE, || same("open", daemon.ledger().number("connections.open"), 0));
    let threads = daemon.threads();

    let mut clients: Vec<TcpStream> = (0..STALLED)
        .map(|number| {
            let mut client = sources.connect_narrow(daemon.address).unwrap();
            download::ask(&mut client, &(number % files).to_string()).unwrap();
            client
        })
        .collect();
    let sent = until_stalled(&daemon);
    let ledger = daemon.ledger();
    let (pipes, waits) = (ledger.in_use("pipes"), ledger.number("pipe_waits"));
    eprintln!("{} KiB each sent, {pipes} pipes, {waits} waits for one", sent >> 10);
    eprintln!("{} threads instead of {threads}", daemon.threads());
    match user {
        User::Owner => assert_eq!((pipes, waits), (0, 0), "cached files need no pipe: {ledger:?}"),
        _ => {
            assert_eq!(pipes, PIPES, "{ledger:?}");
            assert!(waits > STALLED as u64 - PIPES, "{waits} waits for a pipe");
        }
    }
    let sizes = pipe_sizes(&daemon);
    assert!(sizes.len() as u64 >= pipes, "{sizes:?}");
    match user {
        User::Owner => assert_eq!(sizes, [] as [i32; 0]),
        User::Nobody => assert!(sizes.iter().all(|bytes| *bytes == PIPE_BYTES), "{sizes:?}"),
        User::NobodyWithoutPages => {
            assert!(sizes.iter().all(|bytes| *bytes <= SHRUNKEN_PIPE_BYTES), "{sizes:?}");
        }
    }
    // On a busy machine not each of them is so quick.
    until(PATIENCE, || match fetch_fresh(&daemon, &mut sources) {
        fresh if fresh < FRESH_MAX => Ok(()),
        fresh => Err(format!("a fresh client waited for {fresh:?}")),
    });
    assert!(daemon.threads() <= threads + IO_WORKERS_MAX, "{} threads", daemon.threads());

    // Half of them read on, the others are gone at once.
    let leaving: Vec<TcpStream> = clients.split_off(STALLED / 2);
    let resets = leaving.len() as u64;
    leaving.into_iter().for_each(socket::reset);
    let begun = Instant::now();
    read_on(clients, files);
    eprintln!("{} read on within {:.1?}", STALLED as u64 - resets, begun.elapsed());
    until(PATIENCE, || {
        let ledger = daemon.ledger();
        same("open", ledger.number("connections.open"), 0)?;
        for pair in ["permits", "slots", "buffers", "send_buffers", "pipes"] {
            same(pair, ledger.in_use(pair), 0)?;
        }
        same("balanced", ledger.is_balanced(), true)?;
        same("descriptors", rest(&daemon), descriptors)
    });
    assert!(daemon.descriptors_of("pipe").len() <= 2 * PIPES as usize);
    let ledger = daemon.stop();
    let ended = ["peer_reset", "broken_pipe"].map(|it| ledger.number(&format!("closed_by.{it}")));
    assert_eq!(ended[0] + ended[1], resets, "{ledger:?}");
    drop(foreign);
}

/// Files that everybody may read. They are in the page cache, having just been written.
fn tree(files: usize) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::set_permissions(tree.path(), Permissions::from_mode(0o755)).unwrap();
    for number in 0..files {
        fs::write(tree.path().join(number.to_string()), content(number)).unwrap();
    }
    fs::write(tree.path().join(SMALL), "it").unwrap();
    fs::write(tree.path().join(MIDDLE), vec![b'm'; MIDDLE_BYTES]).unwrap();
    tree
}

/// Bytes that show whose and where they are.
fn content(file: usize) -> Vec<u8> {
    let words = (0..FILE_BYTES as u64 / 8).map(|word| word << 32 | file as u64);
    words.flat_map(u64::to_ne_bytes).collect()
}

fn start(user: User, tree: &Path) -> Daemon {
    let dir = tree.to_str().unwrap();
    let arguments = [dir, "--shards", "1", "--idle-timeout", "never", "--write-timeout", "never"];
    match user {
        User::Owner => Daemon::start(PROGRAM, "http", &arguments),
        _ => Daemon::of_nobody(PROGRAM, tree, "http", &arguments),
    }
}

/// Until nothing more is sent to anybody. How many bytes each of them was sent by then.
fn until_stalled(daemon: &Daemon) -> u64 {
    let mut before = u64::MAX;
    until(PATIENCE, || {
        let ledger = daemon.ledger();
        same("open", ledger.number("connections.open"), STALLED as u64)?;
        let sent = ledger.number("bytes.sent");
        if sent == before && ledger.number("operations_in_flight") >= STALLED as u64 {
            return Ok(());
        }
        before = sent;
        // For longer than those that wait for a pipe are not looked at.
        thread::sleep(Duration::from_millis(200));
        Err(format!("{sent} bytes were sent by now"))
    });
    let each = before / STALLED as u64;
    assert!((1..FILE_BYTES as u64 * 3 / 4).contains(&each), "{each} bytes each are no stall");
    each
}

/// Descriptors without those of pipes, which are made when first needed and kept.
fn rest(daemon: &Daemon) -> usize {
    daemon.descriptors() - daemon.descriptors_of("pipe").len()
}

/// The fewest of some moments: the start may still close one, or a pipe between the two counts.
fn rest_at_first(daemon: &Daemon) -> usize {
    let counts = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(5));
        rest(daemon)
    });
    counts.min().unwrap()
}

/// What the daemon's pipes hold at most.
fn pipe_sizes(daemon: &Daemon) -> Vec<i32> {
    let pipes = daemon.descriptors_of("pipe").into_iter();
    // Standard output and standard error are pipes of this process.
    let own = pipes.filter(|descriptor| *descriptor > 2);
    // One may be closed meanwhile.
    let borrowed = own.filter_map(|descriptor| daemon.borrow(descriptor).ok());
    // SAFETY: plain numbers.
    borrowed.map(|pipe| unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) }).collect()
}

/// How long a new client takes to get two files.
fn fetch_fresh(daemon: &Daemon, sources: &mut Sources) -> Duration {
    let begun = Instant::now();
    let mut client = sources.connect(daemon.address).unwrap();
    assert_eq!(download::fetch(&mut client, SMALL), (200, b"it".to_vec()));
    let (status, body) = download::fetch(&mut client, MIDDLE);
    let taken = begun.elapsed();
    assert_eq!(status, 200);
    assert!(body.len() == MIDDLE_BYTES && body.iter().all(|byte| *byte == b'm'));
    taken
}

fn read_on(clients: Vec<TcpStream>, files: usize) {
    let mut numbered: Vec<(usize, TcpStream)> = iter::zip(0.., clients).collect();
    let share = numbered.len().div_ceil(READERS);
    thread::scope(|scope| {
        for clients in numbered.chunks_mut(share) {
            scope.spawn(move || {
                for (number, client) in clients {
                    download::widen(client, WIDE_BYTES);
                    let (status, body) = download::body(client);
                    assert_eq!(status, 200, "client {number}");
                    assert!(body == content(*number % files), "client {number}: other bytes");
                }
            });
        }
    });
}

/// A process of the user that owns nothing, which has filled the pages that this user may have in
/// pipes. Killed when dropped.
struct Foreign(Child);

impl Foreign {
    fn pipes() -> Self {
        let mut command = daemon::nobody(Command::new("cat"));
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let fill = || {
            for _ in 0..FOREIGN_PIPES {
                let mut ends = [0; 2];
                // SAFETY: the kernel writes two descriptors. They are passed on to what is run.
                if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec it only makes system calls. The user is another by then.
        unsafe { command.pre_exec(fill) };
        Self(command.spawn().unwrap())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
