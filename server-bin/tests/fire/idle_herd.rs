//! Thousands of connections that send nothing: parked, cheap, and still answered.

use crate::{PATIENCE, PROGRAM, alone, until};
use ringwright_test_support::raise_descriptor_limit;
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::scale::is_full;
use ringwrightd_test_support::socket::Sources;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

const HERD: usize = 18_000;
/// With fewer the figure would be one of pages and not of connections.
const HERD_MIN: usize = 4 * FIRST;
/// What the server has once, its pools and queues, is touched by these before memory is measured.
const FIRST: usize = 1_000;
/// Bytes of the daemon's memory per idle connection, at most; what the kernel needs is not in it.
const BYTES_MAX: usize = 256;
/// The same on epoll, where the ring remembers what waits for each descriptor.
const BYTES_MAX_ON_EPOLL: usize = 352;

#[test]
fn idle_herd_on_receives() {
    idle_herd(&["--probe", "recv"], "a zero-length receive");
}

#[test]
fn idle_herd_on_polls() {
    idle_herd(&["--probe", "poll"], "a poll");
}

fn idle_herd(probe: &[&str], name: &str) {
    let _alone = alone();
    let descriptors = raise_descriptor_limit();
    // A tenth is for everything else, here and in the daemon.
    let most = if is_full() { HERD } else { HERD / 3 };
    let herd_size = (descriptors / 10 * 9).min(most);
    assert!(herd_size >= HERD_MIN, "{descriptors} descriptors: raise it (ulimit -Hn)");
    let arguments = ["--max-connections", "19k", "--shards", "2", "--idle-timeout", "never"];
    let daemon = Daemon::start(PROGRAM, "echo", &[&arguments, probe].concat());
    let mut sources = Sources::new(0);
    let begun = Instant::now();
    let mut herd = Vec::with_capacity(herd_size);
    let mut grow = |to: usize| {
        while herd.len() < to {
            let mut client = sources.connect(daemon.address).unwrap();
            ask(&mut client);
            herd.push(client);
        }
    };
    grow(FIRST);
    let before = daemon.resident_kib();
    grow(herd_size);
    eprintln!("{herd_size} connected after {:.1?}", begun.elapsed());
    // Parking waits for the default five seconds of silence.
    until(PATIENCE, || match daemon.ledger().number("parked") {
        parked if parked < herd_size as u64 => Err(format!("{parked} of {herd_size} are parked")),
        _ => Ok(()),
    });
    let each = (daemon.resident_kib() - before) * 1024 / (herd_size - FIRST);
    eprintln!("on {name}: {each} bytes of the daemon's memory per idle connection");
    let on_epoll = daemon.ledger().text("ring.kind") == "epoll";
    let most = if on_epoll { BYTES_MAX_ON_EPOLL } else { BYTES_MAX };
    assert!(each <= most, "{each} bytes per idle connection");
    let begun = Instant::now();
    herd.iter_mut().for_each(ask);
    eprintln!("all answered again after {:.1?}", begun.elapsed());
    drop(herd);
    let ledger = daemon.stop();
    assert!(ledger.number("parked") >= herd_size as u64, "{ledger:?}");
    assert_eq!(ledger.number("connections.opened"), herd_size as u64, "{ledger:?}");
    assert_eq!(ledger.number("bytes.sent"), 2 * 5 * herd_size as u64, "{ledger:?}");
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}
