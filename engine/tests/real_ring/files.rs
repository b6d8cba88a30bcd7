//! Files: small ones in one send with what precedes them, large ones spliced.

use crate::common::{Server, ask, read_line, reset, serve_files, wait_until};
use ringwright::{Directory, Reason};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A directory that goes when the test does.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringwright-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: usize) -> Vec<u8> {
        let content: Vec<u8> =
            (0..bytes).map(|at| crate::common::stream_byte(at as u64 ^ bytes as u64)).collect();
        std::fs::write(self.0.join(name), &content).unwrap();
        content
    }

    fn sparse(&self, name: &str, bytes: u64) {
        std::fs::File::create(self.0.join(name)).unwrap().set_len(bytes).unwrap();
    }

    fn serve(&self, change: impl FnOnce(&mut ringwright::Config)) -> Server {
        serve_files(Some(Directory::open(&self.0).unwrap()), change)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
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
    let tree = Tree::new("sizes");
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
    let tree = Tree::new("beneath");
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

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_that_connection_only() {
    let tree = Tree::new("shrinks");
    tree.sparse("large", 200 << 20);
    let server = tree.serve(|_| {});
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "file large"), (200 << 20).to_string());
    client.read_exact(&mut [0; 1000]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(tree.path().join("large")).unwrap();
    file.set_len(1 << 20).unwrap();
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert!(rest.len() < 200 << 20);
    assert_eq!(server.next_end(), Reason::FileTruncated);
    server.still_serves();
    server.finish();
}

#[test]
fn stalled_downloads_hold_no_thread_and_delay_nobody() {
    // Through pipes, as what a disk has to bring; and past them, from the page cache.
    stalled_downloads("stalled", 0);
    stalled_downloads("stalled-cached", 1 << 20);
}

fn stalled_downloads(name: &str, sendfile_bytes_max: u32) {
    let tree = Tree::new(name);
    let large = tree.file("large", 24 << 20);
    let fresh = tree.file("fresh", 300_000);
    let server = tree.serve(|config| {
        config.pipes = 32;
        config.sendfile_bytes_max = sendfile_bytes_max;
    });
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let mut stalled: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
    for client in &mut stalled {
        client.write_all(b"file large\n").unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let fastest = (0..5)
        .map(|_| {
            let begun = Instant::now();
            server.still_serves();
            begun.elapsed()
        })
        .min()
        .unwrap();
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    // Other tests of this process have threads of their own; ours are capped at 4 per class.
    assert!(threads() <= before + 8 + 40, "{before} threads became {}", threads());
    // All pipes are with those that do not read: a file of somebody who does gets one of them.
    let free = if sendfile_bytes_max == 0 { 0 } else { 32 };
    assert_eq!(server.engine.remote().ledger().sum.pipes.free, free);
    let begun = Instant::now();
    assert!(fetch(&mut server.connect(), "fresh") == fresh);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
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
    let tree = Tree::new("progress");
    tree.sparse("large", 100 << 20);
    let server = tree.serve(|config| config.transfer_timeout = Some(Duration::from_millis(200)));
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "file large"), (100 << 20).to_string());
    assert_eq!(server.next_end(), Reason::TransferTimeout);
    server.finish();
}

#[test]
fn aborted_transfers_leave_nothing_behind() {
    let tree = Tree::new("aborted");
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
    let remote = server.engine.remote();
    wait_until("all have come and gone", || {
        let ledger = remote.ledger();
        ledger.sum.closed + ledger.sum.reset_before_accept == 200
    });
    server.still_serves();
    server.finish();
}

#[test]
fn transfers_that_wait_for_a_pipe_get_one() {
    let tree = Tree::new("queue");
    let large = tree.file("large", 24 << 20);
    let server = tree.serve(|config| config.pipes = 2);
    // All at once: none of them stalls yet when the third asks.
    let mut clients: Vec<TcpStream> = (0..5).map(|_| server.connect()).collect();
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
    let tree = Tree::new("ranges");
    let server = tree.serve(|_| {});
    let mut client = server.connect();
    client.write_all(b"beyond\n").unwrap();
    assert_eq!(server.next_end(), Reason::FileFailed);
    let mut client = server.connect();
    // Nothing may hold the head back for a file that has no bytes: MSG_MORE waits 200 ms.
    let begun = Instant::now();
    assert_eq!(ask(&mut client, "empty"), "head");
    assert!(begun.elapsed() < Duration::from_millis(150), "{:?}", begun.elapsed());
    drop(client);
    server.finish();
}
