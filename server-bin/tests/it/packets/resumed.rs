//! Uploads that are resumed, and the limits of those that are not.

use super::client::*;
use super::{Served, alone, same, until};
use crate::common::pattern;
use ringwrightd_test_support::scale::scaled;
use ringwrightd_test_support::socket::{Sources, reset};
use std::fs;
use std::thread;
use std::time::Duration;

/// Uploads that wait to be resumed at most.
const WAITING_MAX: u64 = 64;
const SIZE: u64 = 1 << 20;
const CHUNK_BYTES: usize = 100_000;

/// Begins an upload, and sends this many chunks and some bytes of another one.
fn begin(served: &Served, bytes: &[u8], chunks: usize, more: usize) -> Client {
    let mut client = served.client();
    client.write(&put_resumable(1, "file", SIZE, 7));
    assert_eq!(client.resumed(1), 0);
    for chunk in bytes.chunks(CHUNK_BYTES).take(chunks) {
        client.write(&data(1, chunk));
    }
    client.echoes();
    let at = chunks * CHUNK_BYTES;
    let part = data(1, &bytes[at..at + CHUNK_BYTES]);
    client.write(&part[..more]);
    client
}

/// Resumes it, once the server has noticed the end of the other connection.
fn resume(served: &Served, bytes: &[u8], expected: u64) {
    let mut client = served.client();
    let offset = loop {
        client.write(&put_resumable(1, "file", SIZE, 7));
        let answer = client.answer();
        if answer.says() == (ERROR, 1, BUSY) {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        assert_eq!(answer.says(), (RESUMED, 1, 0));
        break u64::from_be_bytes(answer.fields.try_into().unwrap());
    };
    assert_eq!(offset, expected);
    for chunk in bytes[offset as usize..].chunks(CHUNK_BYTES) {
        client.write(&data(1, chunk));
    }
    client.expect(STORED, 1);
    assert!(fs::read(served.dir.path().join("file")).unwrap() == bytes);
}

/// With FIN and with RST, between two chunks and in one, and on any shard.
#[test]
fn an_upload_is_resumed_behind_its_last_whole_chunk() {
    let bytes = pattern(SIZE as usize);
    let served = Served::start(&["--shards", "2"]);
    for (chunks, more) in [(0, 0), (3, 0), (3, 9), (3, 50_000), (9, CHUNK_BYTES)] {
        for resets in [false, true] {
            let mut client = begin(&served, &bytes, chunks, more);
            if resets {
                reset(client.into_stream());
            } else {
                client.half_close();
                client.error(1, FAILED);
                client.is_at_its_end();
            }
            assert!(served.names().is_empty());
            resume(&served, &bytes, (chunks * CHUNK_BYTES) as u64);
            fs::remove_file(served.dir.path().join("file")).unwrap();
        }
    }
    served.stop(&[]);
}

#[test]
fn an_upload_is_resumed_only_as_what_it_was() {
    let bytes = pattern(SIZE as usize);
    let served = Served::start(&["--replace"]);
    let client = begin(&served, &bytes, 3, 0);
    // While its connection is there, nobody else continues it.
    let mut other = served.client();
    other.write(&put_resumable(2, "file", SIZE, 7));
    other.error(2, BUSY);
    reset(client.into_stream());
    // Another version, size or name is another upload. An ABORT ends it for good.
    for (name, size, version) in [("file", SIZE, 8), ("file", SIZE + 1, 7), ("other", SIZE, 7)] {
        other.write(&put_resumable(3, name, size, version));
        assert_eq!(other.resumed(3), 0);
        other.send(ABORT, 3, b"");
        other.expect(ABORTED, 3);
    }
    resume(&served, &bytes, 300_000);
    // Nothing is left of it.
    other.write(&put_resumable(4, "file", SIZE, 7));
    other.error(4, EXISTS);
    fs::remove_file(served.dir.path().join("file")).unwrap();
    other.write(&[put_resumable(5, "file", SIZE, 7), packet(ABORT, 5, b"")].concat());
    assert_eq!(other.resumed(5), 0);
    other.expect(ABORTED, 5);
    drop(other);
    served.stop(&[]);
}

/// Also the one that the client leaves in the middle of a pause.
#[test]
fn an_upload_that_expired_is_resumed_on_the_same_connection() {
    let bytes = pattern(SIZE as usize);
    let served = Served::start(&["--offer-timeout", "200ms"]);
    let mut client = begin(&served, &bytes, 2, 0);
    client.error(1, EXPIRED);
    client.write(&put_resumable(1, "file", SIZE, 7));
    assert_eq!(client.resumed(1), 2 * CHUNK_BYTES as u64);
    for chunk in bytes[2 * CHUNK_BYTES..].chunks(CHUNK_BYTES) {
        client.write(&data(1, chunk));
    }
    client.expect(STORED, 1);
    // Of nothing at all.
    client.write(&put_resumable(2, "empty", 0, 7));
    assert_eq!(client.resumed(2), 0);
    client.expect(STORED, 2);
    drop(client);
    served.stop(&["empty", "file"]);
}

#[test]
fn a_waiting_upload_is_discarded_after_its_time() {
    let bytes = pattern(SIZE as usize);
    let served = Served::start(&["--resume-timeout", "300ms"]);
    reset(begin(&served, &bytes, 3, 0).into_stream());
    until(|| same(served.daemon.ledger().number("connections.open"), 0));
    until(|| same(served.daemon.ledger().number("files"), 0));
    resume(&served, &bytes, 0);
    served.stop(&["file"]);
}

#[test]
fn waiting_uploads_take_only_so_much_space() {
    let bytes = pattern(SIZE as usize);
    // The bytes of an incomplete chunk count, too: 200,000 and 100,000.
    for (limit, expected) in [("300kB", 200_000), ("299kB", 0), ("0", 0)] {
        let served = Served::start(&["--resume-max", limit]);
        let client = begin(&served, &bytes, 2, 50_000);
        // A reset may overtake bytes that the server has not read.
        until(|| match served.daemon.ledger().number("bytes.received") {
            received if received > 250_000 => Ok(()),
            received => Err(format!("{received} bytes were received")),
        });
        reset(client.into_stream());
        until(|| same(served.daemon.ledger().number("connections.open"), 0));
        until(|| same(served.daemon.ledger().number("files"), u64::from(expected > 0)));
        resume(&served, &bytes, expected);
        served.stop(&["file"]);
    }
}

/// Thousands of halves: the oldest make room.
#[test]
fn halves_in_thousands_keep_little() {
    let _alone = alone();
    let served = Served::start(&["--shards", "2"]);
    let address = served.daemon.address;
    let clients: Vec<_> = (0..4_u8)
        .map(|number| {
            thread::spawn(move || {
                let mut sources = Sources::new(number);
                for at in 0..scaled(4_000) / 4 {
                    let mut client = Client::on(sources.connect(address).unwrap());
                    let name = format!("{number}-{at}");
                    client.write(&[put_resumable(1, &name, SIZE, 1), data(1, b"some")].concat());
                    assert_eq!(client.resumed(1), 0);
                    client.echoes();
                    reset(client.into_stream());
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    until(|| same(served.daemon.ledger().number("connections.open"), 0));
    until(|| same(served.daemon.ledger().number("files"), WAITING_MAX));
    // A drain gives them back.
    served.daemon.stop();
}

#[test]
fn what_cannot_be_put_is_refused() {
    let served = Served::start(&["--upload-max", "1KiB"]);
    served.write("taken", b"1");
    let mut client = served.client();
    for size in [1_025, 1 << 63, u64::MAX] {
        client.write(&put_resumable(1, "file", size, 7));
        client.error(1, TOO_LARGE);
    }
    client.write(&put_resumable(1, "taken", 5, 7));
    client.error(1, EXISTS);
    for name in ["", "..", "a/b", &"n".repeat(256)] {
        client.write(&put_resumable(1, name, 5, 7));
        client.error(1, BAD_NAME);
    }
    client.write(&[put_resumable(1, "file", 3, 7), put(2, "other", 3)].concat());
    assert_eq!(client.resumed(1), 0);
    client.error(2, BUSY);
    client.write(&data(1, b"four"));
    client.error(1, MALFORMED);
    client.is_at_its_end();
    drop(client);
    let served = Served::start(&["--read-only"]);
    let mut client = served.client();
    client.write(&put_resumable(1, "file", 5, 7));
    client.error(1, READ_ONLY);
    drop(client);
    served.stop(&[]);
}
