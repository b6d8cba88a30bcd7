//! A disk that does not answer delays only those that ask for what lies on it.
//!
//! One shard serves files of a FUSE file system that holds its answers back, and, in the same
//! tree, files that lie in the page cache. Everybody here is on that shard.

use crate::download;
use crate::fuse::{self, Disk, Slow};
use crate::{PATIENCE, PROGRAM, alone, same, until};
use ringwright_test_support::needs_root;
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::socket::Sources;
use std::fs;
use std::iter;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 16;
/// The longest wait of everybody else, 99 times of 100. On a busy machine: three times as long as
/// before the disk was slow.
const P99_MAX: Duration = Duration::from_millis(50);
/// The machine may have other things to do.
const TRIES: usize = 5;
const REQUESTS: usize = 200;
/// Through a pipe, in two reads of the disk or more.
const LARGE_BYTES: u64 = 200 << 10;
/// Read into the reply's buffer.
const SMALL_BYTES: u64 = 4096;

#[test]
fn slow_disk_through_pipes() {
    delays_nobody_else(LARGE_BYTES, Slow::Read, true);
}

#[test]
fn slow_disk_into_buffers() {
    delays_nobody_else(SMALL_BYTES, Slow::Read, true);
}

/// Even where reading ahead waits.
#[test]
fn slow_disk_that_reads_nothing_ahead() {
    delays_nobody_else(SMALL_BYTES, Slow::Read, false);
}

/// A file server that has to be asked whether a file may be opened.
#[test]
fn slow_disk_that_opens_slowly() {
    delays_nobody_else(SMALL_BYTES, Slow::Open, true);
}

fn delays_nobody_else(file_bytes: u64, slow_at: Slow, reads_ahead: bool) {
    if !needs_root("it mounts a slow disk") {
        return;
    }
    let _alone = alone();
    let disk = Disk { files: CLIENTS as u64, file_bytes, slow_at, reads_ahead };
    // The mounts are those of one thread, which ends with the test.
    thread::scope(|scope| scope.spawn(|| with_mounts(disk)).join().unwrap());
}

fn with_mounts(disk: Disk) {
    let tree = tempfile::tempdir().unwrap();
    let slow = tree.path().join("slow");
    fs::create_dir(&slow).unwrap();
    fs::write(tree.path().join("small"), "it").unwrap();
    fs::write(tree.path().join("middle"), vec![1; 300 << 10]).unwrap();
    fuse::separate_mounts();
    let held = fuse::mount(disk, &slow);
    let daemon = Daemon::start(PROGRAM, "http", &[tree.path().to_str().unwrap(), "--shards", "1"]);
    // The kernel knows the names, as those of a disk that is in use.
    for number in 0..CLIENTS {
        fs::metadata(slow.join(number.to_string())).unwrap();
    }
    let mut sources = Sources::new(0);
    let mut other = sources.connect(daemon.address).unwrap();
    assert_eq!(download::fetch(&mut other, "small").0, 200);
    let others = [("small", 200), ("middle", 200), ("absent", 404)];
    let before = others.map(|(name, status)| best_p99(&mut other, name, status, Duration::ZERO));
    let mut waiting: Vec<TcpStream> =
        (0..CLIENTS).map(|_| sources.connect(daemon.address).unwrap()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        download::ask(client, &format!("slow/{number}")).unwrap();
    }
    until(PATIENCE, || match held.waiting() {
        0 => Err("the disk was asked for nothing".into()),
        _ => Ok(()),
    });
    for ((name, status), before) in iter::zip(others, before) {
        let most = P99_MAX.max(3 * before);
        let p99 = best_p99(&mut other, name, status, most);
        eprintln!("{name}: p99 {before:.1?}, {p99:.1?} while {} wait for the disk", held.waiting());
        assert!(p99 < most, "{name}: 1 of 100 waited for {p99:.1?}, {before:.1?} before");
    }
    held.release();
    for (number, client) in waiting.iter_mut().enumerate() {
        let (status, body) = download::body(client);
        assert_eq!((status, body.len() as u64), (200, disk.file_bytes), "slow/{number}");
        assert!(body.iter().all(|byte| *byte == 0), "slow/{number} has other bytes");
    }
    drop((waiting, other));
    until(PATIENCE, || same("open", daemon.ledger().number("connections.open"), 0));
    daemon.stop();
}

/// The 99th of 100 answers, in the best of a few tries; one below `enough` is the last.
fn best_p99(client: &mut TcpStream, name: &str, status: u16, enough: Duration) -> Duration {
    let mut best = Duration::MAX;
    for round in 0..TRIES {
        let mut taken: Vec<Duration> = (0..REQUESTS)
            .map(|number| {
                // What is not there is asked for by a name that the kernel has not looked for yet.
                let name = match status {
                    404 => format!("{name}{round}.{number}.{}", enough.as_micros()),
                    _ => name.to_owned(),
                };
                let begun = Instant::now();
                assert_eq!(download::fetch(client, &name).0, status, "{name}");
                begun.elapsed()
            })
            .collect();
        taken.sort();
        best = best.min(taken[REQUESTS * 99 / 100]);
        if best < enough {
            break;
        }
    }
    best
}
