//! 200 clients at a server that may have 64 descriptors: it must neither spin nor stay stuck.

use crate::{PATIENCE, PROGRAM, alone, same, until};
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::socket::{self, Sources};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const DESCRIPTORS: usize = 64;
const CLIENTS: usize = 200;
/// The rest is the program's own, and what is kept for the admin listener.
const INSIDE_MIN: usize = DESCRIPTORS / 4;
/// For how long its CPU time is measured.
const FULL: Duration = Duration::from_secs(3);
const CPU_MAX: f64 = 0.05;
/// A fresh client is answered within this time after the others have left. Accepting pauses for a
/// second at most; the rest is for a busy machine.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

/// More clients than it has descriptors for, each of which has said something.
fn crowd(daemon: &Daemon, sources: &mut Sources) -> Vec<TcpStream> {
    let mut clients: Vec<TcpStream> =
        (0..CLIENTS).map(|_| sources.connect(daemon.address).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"?").unwrap();
    }
    until(PATIENCE, || match daemon.ledger().number("accept_backoffs") {
        0 => Err(format!("{} of {DESCRIPTORS} descriptors", daemon.descriptors())),
        _ => Ok(()),
    });
    clients
}

#[test]
fn out_of_descriptors() {
    let _alone = alone();
    let arguments = ["--shards", "2", "--idle-timeout", "never"];
    let daemon = Daemon::with_descriptors(PROGRAM, Some(DESCRIPTORS as u64), "echo", &arguments);
    let at_rest = daemon.descriptors_at_rest();
    let mut sources = Sources::new(0);
    let mut clients = crowd(&daemon, &mut sources);
    let (begun, before) = (Instant::now(), daemon.cpu());
    // Not for something to happen: this is the time that is measured.
    thread::sleep(FULL);
    let share = (daemon.cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    eprintln!("full, with {CLIENTS} clients: {:.1} % of a CPU", share * 100.0);
    assert!(share < CPU_MAX, "{:.1} % of a CPU while there is nothing to do", share * 100.0);
    // Who is inside is served as ever.
    let inside = socket::readable(&clients, Duration::ZERO);
    assert_eq!(inside.len() as u64, daemon.ledger().number("connections.open"));
    assert!(inside.len() > INSIDE_MIN, "only {} are let in", inside.len());
    for at in inside {
        let client = &mut clients[at];
        client.write_all(b"!").unwrap();
        let mut back = [0; 2];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"?!");
    }
    drop(clients);
    let begun = Instant::now();
    let mut fresh = sources.connect(daemon.address).unwrap();
    fresh.write_all(b"?").unwrap();
    fresh.read_exact(&mut [0]).unwrap();
    let recovery = begun.elapsed();
    eprintln!("a fresh client was answered {recovery:.1?} after they left");
    assert!(recovery < RECOVERY_MAX, "a fresh client waited for {recovery:?}");
    drop(fresh);
    // Those that left without having been let in are looked at too.
    until(PATIENCE, || {
        same("accepted", daemon.ledger().number("connections.accepted"), CLIENTS as u64 + 1)
    });
    until(PATIENCE, || same("descriptors", daemon.descriptors(), at_rest));
    daemon.stop();
}

/// A drain in that state: those in the backlog have sent something, and are let in and answered as
/// the descriptors of others come free.
#[test]
fn out_of_descriptors_and_then_drained() {
    let _alone = alone();
    let daemon =
        Daemon::with_descriptors(PROGRAM, Some(DESCRIPTORS as u64), "echo", &["--shards", "2"]);
    let clients = crowd(&daemon, &mut Sources::new(0));
    daemon.terminate();
    thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                let mut back = Vec::new();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.read_to_end(&mut back).expect("no reset");
                assert_eq!(back, b"?");
            });
        }
    });
    let ledger = daemon.wait();
    assert_eq!(ledger.number("connections.opened"), CLIENTS as u64, "{ledger:?}");
    assert_eq!(ledger.number("connections.handshakes_lost"), 0, "{ledger:?}");
}
