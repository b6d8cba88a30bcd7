//! SIGTERM while something is under way.

use super::Served;
use super::client::*;
use crate::common::pattern;
use std::fs;
use std::time::Duration;

#[test]
fn a_drain_finishes_transfers_and_answers_what_comes_meanwhile() {
    let served = Served::start(&["--drain-timeout", "1h", "--offer-timeout", "1h"]);
    let bytes = pattern(64 << 20);
    served.write("down", &bytes);
    let mut idle = served.client();
    idle.echoes();
    let mut offered = served.client();
    offered.get(1, "down");
    let mut getting = served.client();
    getting.get(1, "down");
    getting.write(&take(1, 0, bytes.len() as u64));
    let mut putting = served.client();
    putting.write(&[put(1, "up", 3), data(1, b"1")].concat());
    putting.expect(ACCEPTED, 1);
    let mut stopping = served.client();
    stopping.get(1, "down");
    stopping.write(&take(1, 0, bytes.len() as u64));
    let first = stopping.answer();
    stopping.chunk(&first);

    served.daemon.terminate();
    idle.is_at_its_end();
    offered.is_at_its_end();
    // Longer than a connection without a transfer is waited for.
    putting.write(&data(1, b"2"));
    std::thread::sleep(Duration::from_millis(1_200));
    putting.echoes();
    putting.write(&data(1, b"3"));
    putting.expect(STORED, 1);
    putting.is_at_its_end();
    assert!(getting.taken(1) == bytes);
    getting.is_at_its_end();
    stopping.send(ABORT, 1, b"");
    loop {
        let answer = stopping.answer();
        if answer.says() == (ABORTED, 1, 0) {
            break;
        }
        stopping.chunk(&answer);
    }
    stopping.is_at_its_end();
    drop((idle, offered, getting, putting, stopping));
    let ledger = served.daemon.wait();
    assert_eq!(ledger.number("closed_by.stopped"), 0, "{ledger:?}");
    assert_eq!(fs::read(served.dir.path().join("up")).unwrap(), b"123");
}

#[test]
fn a_drain_ends_transfers_at_its_deadline() {
    let served = Served::start(&["--drain-timeout", "500ms"]);
    let size = 256 << 20;
    fs::File::create(served.dir.path().join("down")).unwrap().set_len(size).unwrap();
    fs::File::create(served.dir.path().join("endless")).unwrap().set_len(1 << 43).unwrap();
    let mut getting = served.client();
    getting.get(1, "down");
    getting.write(&take(1, 0, size));
    let mut putting = served.client();
    putting.write(&[put(1, "up", 1 << 20), data(1, &pattern(200_000))].concat());
    putting.expect(ACCEPTED, 1);
    let mut in_chunk = served.client();
    let chunk = data(1, &pattern(500_000));
    in_chunk.write(&[put(1, "up", 1 << 20), chunk[..300_000].to_vec()].concat());
    in_chunk.expect(ACCEPTED, 1);
    let mut digesting = served.client();
    digesting.send(DIGEST_FILE, 1, b"endless");
    digesting.echoes();
    served.daemon.terminate();
    let Served { daemon, dir } = served;
    let ledger = daemon.wait();
    assert_eq!(ledger.number("closed_by.stopped"), 4, "{ledger:?}");
    assert_eq!(super::names_in(dir.path()), ["down", "endless"]);
}
