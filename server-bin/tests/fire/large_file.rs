//! A file of more than 4 GiB over HTTP, in parts and (with `RINGWRIGHT_FULL`) whole, with flat
//! memory.

use crate::download;
use crate::{PROGRAM, alone};
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::scale::is_full;
use ringwrightd_test_support::socket::Sources;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

/// Beyond what 32 bits hold, and no whole number of anything.
const BYTES: u64 = (5 << 30) + 12_345;
/// Data in the holes: at both ends, and across what 31 and 32 bits hold.
const MARKS: [u64; 4] = [0, (2 << 30) - 4, (4 << 30) - 4, BYTES - 8];
const MARK: [u8; 8] = *b"\x01marked\xff";
const GROWTH_MAX_KIB: usize = 1 << 10;
/// The part that is sent in one reply: the whole file, or a tenth of it across 4 GiB.
fn long_part() -> Range<u64> {
    if is_full() { 0..BYTES } else { (4 << 30) - BYTES / 20..(4 << 30) + BYTES / 20 }
}
/// Between two looks at the daemon's memory.
const SAMPLE_BYTES: u64 = 64 << 20;
/// Of a part that is asked for, on either side of a mark.
const AROUND: u64 = 100_000;

#[test]
fn large_file() {
    let _alone = alone();
    let tree = tempfile::tempdir().unwrap();
    write_marks(&tree.path().join("large"));
    let daemon = Daemon::start(PROGRAM, "http", &[tree.path().to_str().unwrap(), "--shards", "1"]);
    let mut client = Sources::new(0).connect(daemon.address).unwrap();
    // From the disk through pipes, and then from the page cache past them.
    for mark in [MARKS, MARKS].concat() {
        expect_part(&mut client, mark.saturating_sub(AROUND)..BYTES.min(mark + AROUND));
    }

    expect_flat_memory(&daemon, &mut client, long_part());
    // The stream is in step.
    expect_part(&mut client, (4 << 30) - AROUND..(4 << 30) + AROUND);
    drop(client);
    let ledger = daemon.stop();
    let part = long_part();
    assert!(ledger.number("bytes.sent") > part.end - part.start, "{ledger:?}");
}

fn expect_flat_memory(daemon: &Daemon, client: &mut TcpStream, part: Range<u64>) {
    let before_kib = daemon.resident_kib();
    let begun = Instant::now();
    let status = if part == (0..BYTES) {
        download::ask(client, "large").unwrap();
        200
    } else {
        ask_for(client, &part);
        206
    };
    let reply = download::head(client);
    assert_eq!((reply.status, reply.body_bytes), (status, part.end - part.start));
    let (mut most_kib, mut at) = (before_kib, part.start);
    let mut expect = |bytes: &[u8]| {
        expect_bytes(bytes, at);
        let before = at;
        at += bytes.len() as u64;
        if before / SAMPLE_BYTES != at / SAMPLE_BYTES {
            most_kib = most_kib.max(daemon.resident_kib());
        }
        at < part.end
    };
    let mut block = vec![0; 1 << 20];
    let mut goes_on = expect(&reply.begun);
    while goes_on {
        let read = client.read(&mut block).unwrap();
        assert!(read > 0, "the end before that of the part");
        goes_on = expect(&block[..read]);
    }
    eprintln!("{part:?} in {:.1?}, {before_kib} to {most_kib} KiB", begun.elapsed());
    assert!(most_kib <= before_kib + GROWTH_MAX_KIB, "{before_kib} KiB became {most_kib}");
}

fn write_marks(path: &Path) {
    let file = File::create_new(path).unwrap();
    file.set_len(BYTES).unwrap();
    for mark in MARKS {
        file.write_all_at(&MARK, mark).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), BYTES);
}

/// Asks for a part of the file (RFC 9110, 14.2).
fn ask_for(client: &mut TcpStream, part: &Range<u64>) {
    let range = format!("Range: bytes={}-{}\r\n", part.start, part.end - 1);
    let request = format!("GET /large HTTP/1.1\r\nHost: x\r\n{range}\r\n");
    client.write_all(request.as_bytes()).unwrap();
}

#[track_caller]
fn expect_part(client: &mut TcpStream, part: Range<u64>) {
    ask_for(client, &part);
    let (status, body) = download::body(client);
    assert_eq!((status, body.len() as u64), (206, part.end - part.start), "{part:?}");
    expect_bytes(&body, part.start);
}

/// These bytes are those of the file at an offset.
#[track_caller]
fn expect_bytes(mut bytes: &[u8], mut at: u64) {
    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
    while !bytes.is_empty() {
        let mark = MARKS.into_iter().find(|mark| at < mark + MARK.len() as u64);
        let (expected, what) = match mark {
            Some(mark) if mark <= at => (&MARK[(at - mark) as usize..], "a mark"),
            Some(mark) => (&ZEROS[..(mark - at).min(1 << 20) as usize], "a hole"),
            None => (&ZEROS[..], "a hole"),
        };
        let length = expected.len().min(bytes.len());
        assert!(bytes[..length] == expected[..length], "other bytes in {what} at {at}");
        bytes = &bytes[length..];
        at += length as u64;
    }
}
