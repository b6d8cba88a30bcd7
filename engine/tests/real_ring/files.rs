//! Files: small ones in one send with what precedes them, large ones spliced.

use crate::both::knows_page_cache;
use crate::common::{
    PATIENCE, Server, ask, read_line, reset, serve_files, stalling_bytes, start, wait_until,
};
use ringwright::files::{Directory, OpenFile};
use ringwright::{Config, Connection, Handler, Origin, Reason};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A directory that goes when the test does.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: usize) -> Vec<u8> {
        let content: Vec<u8> =
            (0..bytes).map(|at| crate::common::stream_byte(at as u64 ^ bytes as u64)).collect();
        std::fs::write(self.path().join(name), &content).unwrap();
        content
    }

    fn sparse(&self, name: &str, bytes: u64) {
        std::fs::File::create(self.path().join(name)).unwrap().set_len(bytes).unwrap();
    }

    fn serve(&self, change: impl FnOnce(&mut ringwright::Config)) -> Server {
        serve_files(Some(Directory::open(self.path()).unwrap()), change)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn fetch(client: &mut TcpStream, name: &str) -> Vec<u8> {
    let bytes: usize = ask(client, &format!("file {name}")).parse().expect("a length");
    let mut content = vec![0; bytes];
    client.read_exact(&mut content).unwrap();
    content
}

#[test]
fn files_of_every_size_arrive_whole_and_in_order() {
    let tree = Tree::new();
    let sizes = [0, 1, 1_000, 8_191, 8_192, 8_193, 65_536, 65_537, 3_000_000];
    let contents: Vec<Vec<u8>> =
        sizes.iter().map(|bytes| tree.file(&bytes.to_string(), *bytes)).collect();
    let server = tree.serve(|_| {});
    let mut client = server.connect();
    for (bytes, content) in sizes.iter().zip(&contents) {
        assert!(fetch(&mut client, &bytes.to_string()) == *content, "{bytes} bytes");
    }
    // Asked for all at once, they come one after another.
    let lines: String = sizes.iter().map(|bytes| format!("file {bytes}\necho next\n")).collect();
    client.write_all(lines.as_bytes()).unwrap();
    for content in &contents {
        assert_eq!(read_line(&mut client).unwrap(), content.len().to_string());
        let mut got = vec![0; content.len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == *content);
        assert_eq!(read_line(&mut client).unwrap(), "next");
    }
    drop(client);
    let ledger = server.finish();
    assert_eq!(ledger.sum.pipes.free, ledger.sum.pipes.total);
}

#[test]
fn nothing_leads_out_of_the_directory() {
    let tree = Tree::new();
    tree.file("inside", 10);
    std::os::unix::fs::symlink("/etc/passwd", tree.path().join("link")).unwrap();
    std::os::unix::fs::symlink("inside", tree.path().join("harmless")).unwrap();
    let server = tree.serve(|_| {});
    let mut client = server.connect();
    let errno = |client: &mut TcpStream, name: &str| ask(client, &format!("file {name}"));
    assert_eq!(errno(&mut client, "../etc/passwd"), format!("error {}", libc::EXDEV));
    assert_eq!(errno(&mut client, "/etc/passwd"), format!("error {}", libc::EXDEV));
    assert_eq!(errno(&mut client, "link"), format!("error {}", libc::ELOOP));
    assert_eq!(errno(&mut client, "harmless"), format!("error {}", libc::ELOOP));
    assert_eq!(errno(&mut client, "in\0side"), format!("error {}", libc::EINVAL));
    assert_eq!(errno(&mut client, "absent"), format!("error {}", libc::ENOENT));
    assert_eq!(fetch(&mut client, "inside").len(), 10);
    drop(client);
    server.finish();
}

/// Renames elsewhere disturb the kernel while it follows `..` in a link.
#[test]
fn links_are_followed_where_that_is_allowed_and_only_beneath_the_directory() {
    let tree = Tree::new();
    let content = tree.file("inside", 10);
    std::fs::create_dir(tree.path().join("sub")).unwrap();
    for (link, target) in [
        ("link", "inside"),
        ("sub/back", "../inside"),
        ("sub/out", "../../out"),
        ("absolute", "/etc/passwd"),
        ("self", "self"),
    ] {
        std::os::unix::fs::symlink(target, tree.path().join(link)).unwrap();
    }
    let directory = Directory::open_following_links(tree.path()).unwrap();
    let server = serve_files(Some(directory), |_| {});
    let mut client = server.connect();
    let renaming = AtomicBool::new(true);
    // Also when the test fails.
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let (tree, renaming) = (&tree, &renaming);
        let _ends = Ends(renaming);
        scope.spawn(move || {
            let (one, other) = (tree.path().join("one"), tree.path().join("other"));
            std::fs::write(&one, "").unwrap();
            while renaming.load(Ordering::Relaxed) {
                std::fs::rename(&one, &other).unwrap();
                std::fs::rename(&other, &one).unwrap();
            }
        });
        for name in ["inside", "link", "sub/back"].iter().cycle().take(600) {
            assert!(fetch(&mut client, name) == content, "{name}");
        }
        for (name, errno) in [
            ("sub/out", libc::EXDEV),
            ("absolute", libc::EXDEV),
            ("self", libc::ELOOP),
            ("../link", libc::EXDEV),
        ] {
            assert_eq!(ask(&mut client, &format!("file {name}")), format!("error {errno}"));
        }
    });
    drop(client);
    server.finish();
}

/// Output before the file and the rest of the file arrive, then the server's FIN. The file leaves
/// through a pipe, and from the page cache.
#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_that_connection_with_a_fin() {
    for sendfile_bytes_max in [0, 1 << 20] {
        let tree = Tree::new();
        // The socket takes less than what is left, so that none of the rest has left before.
        let kept_bytes = stalling_bytes() as usize;
        let content = tree.file("large", kept_bytes + (2 << 20));
        let server = tree.serve(|config| {
            config.sendfile_bytes_max = sendfile_bytes_max;
            config.max_connections = 2;
        });
        let mut client = server.connect_narrow();
        client.write_all(b"echo before\nfile large\necho behind\n").unwrap();
        assert_eq!(read_line(&mut client).unwrap(), "before");
        assert_eq!(read_line(&mut client).unwrap(), content.len().to_string());
        let file = std::fs::File::options().write(true).open(tree.path().join("large")).unwrap();
        file.set_len(kept_bytes as u64).unwrap();
        server.still_serves();
        // The slot and the permit stay until the client has read everything.
        let mut got = vec![0; 1 << 20];
        for piece in got.chunks_mut(64 << 10) {
            client.read_exact(piece).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(server.engine.handle().ledger().open(), 1);
        client.read_to_end(&mut got).expect("no reset");
        assert!(got == content[..kept_bytes], "{} of {kept_bytes} bytes came", got.len());
        drop(client);
        // One of them only asked whether the server still serves.
        let ends = [server.next_end(), server.next_end()];
        assert!(ends.contains(&Reason::FileTruncated), "{ends:?}");
        server.finish();
    }
}

/// Files that fit into a send buffer: read at once, and on a file system that does not tell what is
/// cached (tmpfs) on the ring.
#[test]
fn a_small_file_that_is_shorter_than_announced_ends_in_a_fin() {
    let tree = Tree::new();
    let content = tree.file("small", 1_000);
    let mut in_memory = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    in_memory.write_all(&content).unwrap();
    let server = tree.serve(|_| {});
    for path in [tree.path().join("small"), in_memory.path().to_owned()] {
        let mut client = server.connect();
        client.write_all(format!("short {}\n", path.display()).as_bytes()).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("no reset");
        assert!(got == [b"head\n", &content[..]].concat(), "{} bytes came", got.len());
        drop(client);
        assert_eq!(server.next_end(), Reason::FileTruncated);
    }
    server.finish();
}

/// Small and large, from the page cache, through a pipe, and on a file system that does not tell
/// what is cached.
#[test]
fn a_padded_file_that_is_shorter_than_announced_keeps_the_connection() {
    for sendfile_bytes_max in [0, 1 << 20] {
        let tree = Tree::new();
        let small = tree.file("small", 1_000);
        let large = tree.file("large", 300_000);
        let mut in_memory = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        in_memory.write_all(&small).unwrap();
        let server = tree.serve(|config| config.sendfile_bytes_max = sendfile_bytes_max);
        let mut client = server.connect();
        for (path, content) in [
            (tree.path().join("small"), &small),
            (tree.path().join("large"), &large),
            (in_memory.path().to_owned(), &small),
        ] {
            client.write_all(format!("padded {}\n", path.display()).as_bytes()).unwrap();
            let mut got = vec![0; 5 + content.len() + 10 + 7];
            client.read_exact(&mut got).unwrap();
            let expected = [b"head\n", &content[..], &[0; 10], b"behind\n"].concat();
            assert!(got == expected, "{}", path.display());
        }
        drop(client);
        server.finish();
    }
}

#[test]
fn stalled_downloads_hold_no_thread_and_delay_nobody() {
    // Through pipes, as what a disk has to bring; and past them, from the page cache.
    stalled_downloads(0);
    stalled_downloads(1 << 20);
}

/// Threads that wait for disks by the ring that they work for: they are named after its thread.
fn ring_workers() -> HashMap<String, usize> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("comm")));
    let mut workers = HashMap::new();
    for name in
        names.flatten().filter(|name| ["iou-wrk-", "file-"].iter().any(|of| name.starts_with(of)))
    {
        *workers.entry(name).or_default() += 1;
    }
    workers
}

/// Waits until `act` takes less than `limit`. On a busy machine that is not so each time; if
/// `act` waits for something each time, it is never so.
fn takes_less_than(limit: Duration, mut act: impl FnMut()) {
    wait_until("it is quick", || {
        let begun = Instant::now();
        act();
        begun.elapsed() < limit
    });
}

fn stalled_downloads(sendfile_bytes_max: u32) {
    let tree = Tree::new();
    let large = tree.file("large", stalling_bytes() as usize);
    let fresh = tree.file("fresh", 300_000);
    let server = tree.serve(|config| {
        config.pipes = 32;
        config.sendfile_bytes_max = sendfile_bytes_max;
    });
    let mut stalled: Vec<TcpStream> = (0..60).map(|_| server.connect_narrow()).collect();
    for client in &mut stalled {
        client.write_all(b"file large\n").unwrap();
    }
    // All pipes are with those that do not read: a file of somebody who does gets one of them.
    let through_pipes = sendfile_bytes_max == 0 || !knows_page_cache();
    let free = if through_pipes { 0 } else { 32 };
    let sum = || server.engine.handle().ledger().sum;
    wait_until("all are under way", || sum().files == 60 && sum().pipes.free == free);
    std::thread::sleep(Duration::from_millis(300));
    takes_less_than(Duration::from_millis(50), || server.still_serves());
    // Each ring of this process has four of either class at most.
    let workers = ring_workers();
    assert!(workers.values().all(|count| *count <= 2 * 4), "{workers:?}");
    assert_eq!(sum().pipes.free, free);
    takes_less_than(Duration::from_millis(500), || {
        assert!(fetch(&mut server.connect(), "fresh") == fresh);
    });
    // The first that stalled lost its pipe to one of the others, and gets the rest of its file
    // all the same, from the right place on.
    let mut first = stalled.remove(0);
    stalled.into_iter().for_each(reset);
    assert_eq!(read_line(&mut first).unwrap(), large.len().to_string());
    let mut got = vec![0; large.len()];
    first.read_exact(&mut got).unwrap();
    assert!(got == large);
    drop(first);
    server.finish();
}

#[test]
fn a_transfer_without_progress_times_out() {
    let tree = Tree::new();
    tree.sparse("large", 100 << 20);
    let server = tree.serve(|config| config.transfer_timeout = Some(Duration::from_millis(200)));
    let mut client = server.connect_narrow();
    assert_eq!(ask(&mut client, "file large"), (100 << 20).to_string());
    assert_eq!(server.next_end(), Reason::TransferTimeout);
    server.finish();
}

#[test]
fn aborted_transfers_leave_nothing_behind() {
    let tree = Tree::new();
    tree.sparse("large", 100 << 20);
    let server = tree.serve(|config| config.pipes = 4);
    for round in 0..200 {
        let mut client = server.connect();
        client.write_all(b"file large\n").unwrap();
        if round % 2 == 0 {
            client.read_exact(&mut [0; 100]).unwrap();
        }
        reset(client);
    }
    let handle = server.engine.handle();
    wait_until("all have come and gone", || {
        let ledger = handle.ledger();
        ledger.sum.closed + ledger.sum.reset_before_accept == 200
    });
    server.still_serves();
    server.finish();
}

#[test]
fn transfers_that_wait_for_a_pipe_get_one() {
    let tree = Tree::new();
    let large = tree.file("large", stalling_bytes() as usize);
    let server = tree.serve(|config| config.pipes = 2);
    // All at once: none of them stalls yet when the third asks.
    let mut clients: Vec<TcpStream> = (0..5).map(|_| server.connect_narrow()).collect();
    for client in &mut clients {
        client.write_all(b"file large\n").unwrap();
    }
    // Read by turns, so that the others stall meanwhile.
    for client in &mut clients {
        assert_eq!(read_line(client).unwrap(), large.len().to_string());
        let mut got = vec![0; large.len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == large);
    }
    drop(clients);
    server.finish();
}

#[test]
fn ranges_that_cannot_be_end_the_connection_and_not_the_shard() {
    let tree = Tree::new();
    let server = tree.serve(|_| {});
    let mut client = server.connect();
    client.write_all(b"echo first\nbeyond\n").unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).expect("no reset");
    assert_eq!(got, b"first\n");
    drop(client);
    assert_eq!(server.next_end(), Reason::FileFailed);
    let mut client = server.connect();
    // Nothing may hold the head back for a file that has no bytes: MSG_MORE waits 200 ms.
    takes_less_than(Duration::from_millis(150), || {
        assert_eq!(ask(&mut client, "empty"), "head");
    });
    drop(client);
    server.finish();
}

#[test]
fn a_fifo_is_not_opened_for_its_name() {
    let tree = Tree::new();
    let path = tree.path().join("fifo");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
    let server = tree.serve(|_| {});
    // It waits for a reader (fifo(7)).
    let of_writer = path.clone();
    let writer =
        std::thread::spawn(move || std::fs::OpenOptions::new().write(true).open(of_writer));
    for _ in 0..50 {
        let mut client = server.connect();
        client.write_all(b"file fifo\n").unwrap();
        // It is no file to send: the answer of its length is followed by the end.
        client.read_to_end(&mut Vec::new()).expect("no reset");
        drop(client);
        assert_eq!(server.next_end(), Reason::FileFailed);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!writer.is_finished(), "the writer found a reader");
    }
    // It stays open until the writer has it: a busy machine may start that thread only now.
    let both_ends = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    drop(writer.join().unwrap());
    drop(both_ends);
    server.finish();
}

/// A lookup is valid for a while. It must not be so for ever.
#[test]
fn a_fifo_in_the_place_of_a_file_is_not_opened() {
    let tree = Tree::new();
    let path = tree.path().join("name");
    std::fs::write(&path, b"content").unwrap();
    let server = tree.serve(|_| {});
    let mut client = server.connect();
    client.write_all(b"file name\n").unwrap();
    let mut answer = [0; 9];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"7\ncontent");
    std::fs::remove_file(&path).unwrap();
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
    let of_writer = path.clone();
    let writer =
        std::thread::spawn(move || std::fs::OpenOptions::new().write(true).open(of_writer));
    std::thread::sleep(Duration::from_millis(300));
    client.write_all(b"file name\n").unwrap();
    client.read_to_end(&mut Vec::new()).expect("no reset");
    std::thread::sleep(Duration::from_millis(2));
    assert!(!writer.is_finished(), "the writer found a reader");
    // It stays open until the writer has it: a busy machine may start that thread only now.
    let both_ends = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    drop(writer.join().unwrap());
    drop(both_ends);
    drop(client);
    server.finish();
}

/// Queues this many empty files for each line.
const EMPTY_FILES: u32 = 70_000;

struct Empties(Directory);

impl Handler for Empties {
    type State = u32;

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> u32 {
        0
    }

    fn received(&mut self, _: &mut u32, connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let Some(first) = connection.cached_file(&self.0, b"empty") else {
            connection.open_file(&self.0, b"empty").expect("the first");
            connection.pause();
            return bytes.len();
        };
        let _ = connection.send_file(first, 0, 0);
        for _ in 1..EMPTY_FILES {
            let file = connection.cached_file(&self.0, b"empty").expect("it was cached just now");
            let _ = connection.send_file(file, 0, 0);
        }
        bytes.len()
    }

    fn file_opened(
        &mut self,
        _: &mut u32,
        connection: &mut Connection<'_>,
        result: io::Result<OpenFile>,
    ) {
        result.expect("the file exists");
        let _ = connection.send(b"opened\n");
        connection.resume();
    }

    fn file_sent(&mut self, sent: &mut u32, connection: &mut Connection<'_>) {
        *sent += 1;
        if *sent == EMPTY_FILES {
            let _ = connection.send(b"sent\n");
        }
    }
}

#[test]
fn every_one_of_70_000_empty_files_is_reported_as_sent() {
    let tree = Tree::new();
    tree.file("empty", 0);
    // A file that has just changed is not kept open.
    std::thread::sleep(Duration::from_millis(100));
    let directory = Directory::open(tree.path()).unwrap();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        open_files: 4,
        open_files_valid: PATIENCE,
        ..Config::default()
    };
    let engine = start(config, move |_| Empties(directory.clone()));
    let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let answers: Vec<String> = (0..2).map(|_| ask(&mut client, "go")).collect();
    assert_eq!(answers, ["opened", "sent"]);
    drop(client);
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}
