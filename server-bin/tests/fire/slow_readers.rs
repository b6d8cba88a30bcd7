//! A full server of clients that read a few bytes now and then. Each read is progress, so no
//! timeout ends them. With a floor they make room for a client that waits, without one they do not.
//!
//! A rate is that of 30 seconds, so the test takes a minute. It runs only with `RINGWRIGHT_FULL`.

use crate::download;
use crate::{PROGRAM, alone, same, until};
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::scale::is_full;
use ringwrightd_test_support::socket::Sources;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 20;
const FILE_BYTES: usize = 1 << 20;
/// 60 bytes a second. Such a client acknowledges about a kilobyte every 20 seconds.
const CHUNK_BYTES: usize = 300;
const PACE: Duration = Duration::from_secs(5);
const FLOOR: &str = "256";
/// The clients read for this time before the first fresh client comes.
const BEFORE: Duration = Duration::from_secs(2);
/// A window, the time to the first look and that to the last one, and a busy machine.
const NOTICED: Duration = Duration::from_secs(50);
/// The longest wait of a fresh client once the slow ones are known.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn slow_readers_make_room_if_there_is_a_floor() {
    if !is_full() {
        eprintln!("left out without RINGWRIGHT_FULL: it takes a minute");
        return;
    }
    let _alone = alone();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("large"), vec![b'l'; FILE_BYTES]).unwrap();
    fs::write(tree.path().join("small"), "it").unwrap();
    let (with_floor, without) = (start(tree.path(), FLOOR), start(tree.path(), "0"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut clients = crowd(&with_floor, &mut Sources::new(0));
        clients.append(&mut crowd(&without, &mut Sources::new(1)));
        scope.spawn(|| drip(clients, &over));
        thread::sleep(BEFORE);
        let begun = Instant::now();
        let mut sources = Sources::new(2);
        let mut left_out = sources.connect(without.address).unwrap();
        download::ask(&mut left_out, "small").unwrap();
        let first = fetch(&with_floor, &mut sources, NOTICED);
        // The clients that were served close their connections, so that nobody is idle.
        let soon = (0..5).map(|_| fetch(&with_floor, &mut sources, SOON)).max().unwrap();
        eprintln!("the first one waited for {first:.1?}, the next ones for {soon:.1?} at most");
        left_out.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let waited = left_out.read(&mut [0]);
        assert!(waited.is_err(), "served after {:?} without a floor: {waited:?}", begun.elapsed());
        let ledger = with_floor.ledger();
        assert!(ledger.number("closed_by.too_slow") > 0, "{ledger:?}");
        assert_eq!(ledger.number("closed_by.transfer_timeout"), 0, "{ledger:?}");
        over.store(true, Ordering::Relaxed);
    });
    for daemon in [with_floor, without] {
        until(Duration::from_secs(60), || {
            same("open", daemon.ledger().number("connections.open"), 0)
        });
        assert!(daemon.stop().is_balanced());
    }
}

fn start(tree: &std::path::Path, floor: &str) -> Daemon {
    let places = CLIENTS.to_string();
    let full = ["--max-connections", &places, "--shards", "2"];
    let rules = ["--min-rate", floor, "--write-timeout", "never"];
    Daemon::start(PROGRAM, "http", &[&[tree.to_str().unwrap()], &full[..], &rules].concat())
}

/// Clients that have asked for more than their sockets hold.
fn crowd(daemon: &Daemon, sources: &mut Sources) -> Vec<TcpStream> {
    (0..CLIENTS)
        .map(|_| {
            let mut client = sources.connect_dripping(daemon.address).unwrap();
            download::ask(&mut client, "large").unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect()
}

/// Reads from each client once in a while. Those that were reset are let go.
fn drip(mut clients: Vec<TcpStream>, over: &AtomicBool) {
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            next += PACE;
            clients.retain_mut(|client| match client.read(&mut [0; CHUNK_BYTES]) {
                Ok(length) => length > 0,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            });
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Has a fresh client served. Returns how long it has waited.
#[track_caller]
fn fetch(daemon: &Daemon, sources: &mut Sources, limit: Duration) -> Duration {
    let begun = Instant::now();
    let mut client = sources.connect(daemon.address).unwrap();
    client.set_read_timeout(Some(limit)).unwrap();
    assert_eq!(download::fetch(&mut client, "small"), (200, b"it".to_vec()));
    begun.elapsed()
}
