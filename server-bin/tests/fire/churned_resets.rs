//! Connections that are reset in the middle of a request or a reply leave nothing behind.

use crate::{PATIENCE, PROGRAM, alone, same, scaled, until};
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::socket::{self, Sources};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

const CONNECTIONS: usize = 100_000;
const GROWTH_MAX_KIB: usize = 2 << 10;
const CLIENTS: u8 = 4;
/// Far more than the socket buffers hold: it is cut off on its way.
const FILE_BYTES: u64 = 64 << 20;
/// A client's next connection may need its pipe before that of the last one is back.
const PIPE_ENDS_MAX: usize = 2 * 4 * CLIENTS as usize;

#[test]
fn churned_resets() {
    let _alone = alone();
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("small"), "it").unwrap();
    File::create(tree.path().join("large")).unwrap().set_len(FILE_BYTES).unwrap();
    let daemon = Daemon::start(PROGRAM, "http", &[tree.path().to_str().unwrap(), "--shards", "2"]);
    let at_rest = Rest::of(&daemon);
    let mut sources: Vec<Sources> = (0..CLIENTS).map(Sources::new).collect();
    // After a tenth, the pools that the daemon keeps have reached their size.
    let (connections, tenth) = (scaled(CONNECTIONS), scaled(CONNECTIONS) / 10);
    churn(&daemon, &mut sources, tenth);
    at_rest.is_again(&daemon);
    let (before, begun) = (daemon.resident_kib(), Instant::now());
    for tenths in 2..=10 {
        churn(&daemon, &mut sources, tenth);
        let (kib, seconds) = (daemon.resident_kib(), begun.elapsed().as_secs());
        eprintln!("{} connections after {seconds} s, {kib} KiB", tenths * tenth);
    }
    at_rest.is_again(&daemon);
    let after = daemon.resident_kib();
    eprintln!("{before} KiB after the first {tenth}, {after} KiB after {connections}");
    assert!(after <= before + GROWTH_MAX_KIB, "it grew from {before} to {after} KiB");
    let ledger = daemon.stop();
    eprintln!("closed by {:?}", ledger.nonzero("closed_by"));
    assert_eq!(ledger.number("connections.accepted"), connections as u64, "{ledger:?}");
    // A file that was under way may have met the reset first: EPIPE.
    let resets = ["peer_reset", "broken_pipe"].map(|it| ledger.number(&format!("closed_by.{it}")));
    assert_eq!(resets.iter().sum::<u64>(), connections as u64, "{ledger:?}");
    assert!(resets[1] < connections as u64 / 10, "{ledger:?}");
}

fn churn(daemon: &Daemon, sources: &mut [Sources], connections: usize) {
    let left = AtomicUsize::new(connections);
    thread::scope(|scope| {
        for sources in sources {
            scope.spawn(|| {
                let (order, more) = (Ordering::Relaxed, |left: usize| left.checked_sub(1));
                while let Ok(number) = left.fetch_update(order, order, more) {
                    let mut client = sources.connect(daemon.address).unwrap();
                    // What has been answered is certainly open.
                    let file = if number.is_multiple_of(2) { "small" } else { "large" };
                    let request = format!("GET /{file} HTTP/1.1\r\nHost: x\r\n\r\n");
                    client.write_all(request.as_bytes()).unwrap();
                    let mut begun = [0; 64];
                    client.read_exact(&mut begun).unwrap();
                    assert!(begun.starts_with(b"HTTP/1.1 200 OK\r\n"));
                    if number.is_multiple_of(2) {
                        client.write_all(b"GET /small HTTP/1.1\r\nHo").unwrap();
                    }
                    socket::reset(client);
                }
            });
        }
    });
}

/// What a daemon has while nobody is there, pipes left out: those of the pool are made when they
/// are first needed, and one that a transfer was cut off in is closed.
struct Rest {
    descriptors: usize,
}

impl Rest {
    fn of(daemon: &Daemon) -> Self {
        Self { descriptors: daemon.descriptors_at_rest() - daemon.descriptors_of("pipe").len() }
    }

    fn is_again(&self, daemon: &Daemon) {
        until(PATIENCE, || {
            let ledger = daemon.ledger();
            same("open", ledger.number("connections.open"), 0)?;
            same("waiting", ledger.number("connections.waiting"), 0)?;
            for pair in ["permits", "slots", "buffers", "send_buffers", "pipes"] {
                same(pair, ledger.in_use(pair), 0)?;
            }
            same("balanced", ledger.is_balanced(), true)?;
            let pipe_ends = daemon.descriptors_of("pipe").len();
            same("descriptors", daemon.descriptors() - pipe_ends, self.descriptors)?;
            match pipe_ends {
                0..=PIPE_ENDS_MAX => Ok(()),
                more => Err(format!("{more} ends of pipes for {CLIENTS} clients")),
            }
        });
    }
}
