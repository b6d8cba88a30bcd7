//! Files offered, taken, given up.

use super::client::*;
use super::{Served, same, until};
use crate::common::pattern;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

#[test]
fn a_file_comes_whole_and_in_ranges() {
    let served = Served::start(&[]);
    let bytes = pattern((2 << 20) + 777);
    served.write("file", &bytes);
    served.write("empty", b"");
    let modified = fs::metadata(served.dir.path().join("file")).unwrap().modified().unwrap();
    let modified_s = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut client = served.client();
    let offer = client.ask(GET, 1, b"file", OFFER);
    assert_eq!(offer[..8], (bytes.len() as u64).to_be_bytes());
    assert_eq!(offer[8..], modified_s.to_be_bytes());
    client.write(&take(1, 0, bytes.len() as u64));
    assert!(client.taken(1) == bytes);
    for (offset, length) in
        [(0, 1), (5, 10), (1 << 20, 1 << 20), ((1 << 20) - 1, 3), (bytes.len() - 1, 1)]
    {
        client.get(2, "file");
        client.write(&take(2, offset as u64, length as u64));
        assert!(client.taken(2) == bytes[offset..offset + length], "{length} from {offset} on");
    }
    for (offset, length) in [(0, 0), (bytes.len(), 0)] {
        client.get(3, "file");
        client.write(&take(3, offset as u64, length as u64));
        assert!(client.taken(3).is_empty());
    }
    assert!(client.download(4, "empty").is_empty());
    // Asked for without waiting for the offer.
    client.write(&[packet(GET, 5, b"file"), take(5, 0, 3), packet(ECHO, 6, b"")].concat());
    client.expect(OFFER, 5);
    let (mut chunk, mut echoed) = (Vec::new(), false);
    loop {
        let answer = client.answer();
        match answer.says() {
            (CHUNK, 5, 0) => chunk = client.chunk(&answer),
            (ECHOED, 6, 0) => echoed = true,
            (SENT, 5, 0) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(chunk == bytes[..3]);
    if !echoed {
        client.expect(ECHOED, 6);
    }
    drop(client);
    served.stop(&["empty", "file"]);
}

#[test]
fn a_range_outside_of_the_file_ends_the_offer() {
    let served = Served::start(&[]);
    served.write("ten", b"0123456789");
    let mut client = served.client();
    for (offset, length) in [(0, 11), (10, 1), (11, 0), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(client.get(1, "ten"), 10);
        client.write(&take(1, offset, length));
        client.error(1, BAD_RANGE);
        client.write(&take(1, 0, 1));
        client.error(1, NO_TRANSFER);
    }
    assert_eq!(client.download(1, "ten"), b"0123456789");
    drop(client);
    served.stop(&["ten"]);
}

#[test]
fn only_regular_files_of_the_directory_are_there() {
    let served = Served::start(&[]);
    let at = |name: &str| served.dir.path().join(name);
    served.write("file", b"1");
    served.write(".hidden", b"1");
    fs::create_dir(at("dir")).unwrap();
    symlink("file", at("link")).unwrap();
    symlink("/etc/passwd", at("out")).unwrap();
    let socket = UnixListener::bind(at("socket")).unwrap();
    let fifo = std::ffi::CString::new(at("fifo").to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let mut client = served.client();
    for name in ["nothing", "dir", "link", "out", "socket", "fifo"] {
        for kind in [GET, DIGEST_FILE] {
            client.send(kind, 1, name.as_bytes());
            client.error(1, NO_SUCH_FILE);
        }
    }
    for name in [".hidden", "..", "dir/../file", "./file"] {
        client.send(GET, 2, name.as_bytes());
        client.error(2, BAD_NAME);
    }
    // And none of these names is free.
    for name in ["dir", "link", "out", "socket", "fifo"] {
        client.write(&put(3, name, 1));
        client.error(3, EXISTS);
    }
    client.echoes();
    drop((client, socket));
    let names = [".hidden", "dir", "fifo", "file", "link", "out", "socket"];
    served.stop(&names);
}

/// The chunk under way comes to its end; nothing of the transfer comes behind ABORTED.
#[test]
fn an_abort_stops_between_chunks_and_keeps_the_connection() {
    let served = Served::start(&[]);
    let size = 256 << 20;
    File::create(served.dir.path().join("large")).unwrap().set_len(size).unwrap();
    let mut client = served.client();
    // An offer.
    client.get(1, "large");
    client.send(ABORT, 1, b"");
    client.expect(ABORTED, 1);
    client.write(&take(1, 0, 1));
    client.error(1, NO_TRANSFER);
    // In the middle.
    client.get(2, "large");
    client.write(&take(2, 0, size));
    let first = client.answer();
    client.chunk(&first);
    client.send(ABORT, 2, b"");
    let mut chunks = 1;
    loop {
        let answer = client.answer();
        if answer.says() == (ABORTED, 2, 0) {
            break;
        }
        client.chunk(&answer);
        chunks += 1;
    }
    assert!(chunks < 100, "{chunks} chunks of 256 came");
    client.send(ABORT, 2, b"");
    client.error(2, NO_TRANSFER);
    // Too late: SENT was on its way.
    client.get(3, "large");
    client.write(&take(3, 0, 10));
    assert_eq!(client.taken(3).len(), 10);
    client.send(ABORT, 3, b"");
    client.error(3, NO_TRANSFER);
    client.echoes();
    drop(client);
    served.stop(&["large"]);
}

#[test]
fn an_offer_is_taken_once() {
    let served = Served::start(&[]);
    let size = 64 << 20;
    File::create(served.dir.path().join("large")).unwrap().set_len(size).unwrap();
    served.write("small", b"1");
    let mut client = served.client();
    client.get(1, "large");
    client.write(&take(2, 0, 1));
    client.error(2, NO_TRANSFER);
    client.write(&take(1, 0, size));
    let first = client.answer();
    client.chunk(&first);
    // Whoever takes it again does not know what comes: it is stopped.
    client.write(&take(1, 0, size));
    loop {
        let answer = client.answer();
        if answer.says() == (ERROR, 1, NO_TRANSFER) {
            break;
        }
        client.chunk(&answer);
    }
    // A transfer's id is not given to another one.
    client.get(1, "small");
    client.send(GET, 1, b"small");
    client.error(1, MALFORMED);
    client.is_at_its_end();
    drop(client);
    served.stop(&["large", "small"]);
}

#[test]
fn an_offer_that_is_not_taken_is_withdrawn() {
    let served = Served::start(&["--offer-timeout", "1s"]);
    served.write("file", b"1");
    let mut client = served.client();
    let begun = Instant::now();
    client.get(1, "file");
    until(|| same(served.daemon.ledger().number("files"), 1));
    client.error(1, EXPIRED);
    assert!(begun.elapsed() >= Duration::from_millis(990), "{:?}", begun.elapsed());
    until(|| same(served.daemon.ledger().number("files"), 0));
    client.write(&take(1, 0, 1));
    client.error(1, NO_TRANSFER);
    // One that was taken has no such deadline.
    assert_eq!(client.download(2, "file"), b"1");
    std::thread::sleep(Duration::from_millis(1_100));
    client.echoes();
    drop(client);
    served.stop(&["file"]);
}

/// Our FIN behind the requests: all answers come, the file whole, and then the server's FIN.
#[test]
fn answers_still_come_after_a_half_close() {
    let served = Served::start(&["--offer-timeout", "1h"]);
    let bytes = pattern(20 << 20);
    served.write("file", &bytes);
    let mut client = served.client();
    let requests = [
        packet(GET, 1, b"file"),
        take(1, 0, bytes.len() as u64),
        packet(DIGEST_FILE, 2, b"file"),
        packet(LIST, 3, b""),
    ];
    client.write(&requests.concat());
    client.half_close();
    let (mut back, mut kinds) = (Vec::new(), Vec::new());
    while kinds.len() < 4 {
        let answer = client.answer();
        match answer.kind {
            CHUNK => back.extend(client.chunk(&answer)),
            kind => kinds.push(kind),
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [DIGESTED, LISTED, OFFER, SENT]);
    assert!(back == bytes);
    client.is_at_its_end();
    // An offer that nobody can take any more is no reason to wait.
    let mut client = served.client();
    client.send(GET, 1, b"file");
    client.half_close();
    client.expect(OFFER, 1);
    client.is_at_its_end();
    drop(client);
    served.stop(&["file"]);
}

/// The chunk is filled up, the download ends with an error, and all else goes on.
#[test]
fn a_file_that_becomes_shorter_in_a_chunk_ends_only_its_own_download() {
    let served = Served::start(&[]);
    let file = File::create(served.dir.path().join("large")).unwrap();
    file.set_len(512 << 20).unwrap();
    let other = pattern(64 << 20);
    served.write("other", &other);
    let mut client = served.client();
    client.get(1, "large");
    client.get(2, "other");
    client.write(&[take(1, 0, 512 << 20), take(2, 0, other.len() as u64)].concat());
    let first = client.answer();
    client.stream.read_exact(&mut [0; 100]).unwrap();
    file.set_len(1 << 20).unwrap();
    client.stream.read_exact(&mut vec![0; first.count() - 100]).unwrap();
    let (mut back, mut ends) = (Vec::new(), Vec::new());
    while ends.len() < 2 {
        let answer = client.answer();
        match answer.says() {
            (CHUNK, 1, 0) => drop(client.chunk(&answer)),
            (CHUNK, 2, 0) => back.extend(client.chunk(&answer)),
            end => ends.push(end),
        }
    }
    ends.sort_unstable();
    assert_eq!(ends, [(SENT, 2, 0), (ERROR, 1, FAILED)]);
    assert!(back == other);
    assert_eq!(client.download(1, "large").len(), 1 << 20);
    drop(client);
    served.has_closed_by("file_truncated", 0);
    served.stop(&["large", "other"]);
}

/// The chunk under way is still whole, then comes the error, then the end.
#[test]
fn a_broken_packet_ends_a_download_between_two_chunks() {
    let served = Served::start(&[]);
    let size = 256 << 20;
    File::create(served.dir.path().join("large")).unwrap().set_len(size).unwrap();
    let mut client = served.client();
    client.get(1, "large");
    client.write(&take(1, 0, size));
    let first = client.answer();
    client.chunk(&first);
    client.write(&[0xff; 4]);
    loop {
        let answer = client.answer();
        if answer.says() == (ERROR, 0, TOO_LONG) {
            break;
        }
        client.chunk(&answer);
    }
    client.is_at_its_end();
    drop(client);
    served.has_closed_by("protocol_error", 1);
    served.stop(&["large"]);
}

/// Beside a download other requests are answered between two chunks.
#[test]
fn a_download_and_an_upload_share_a_connection() {
    let served = Served::start(&[]);
    let bytes = pattern(40 << 20);
    served.write("down", &bytes);
    let mut client = served.client();
    client.get(1, "down");
    client.write(&[take(1, 0, bytes.len() as u64), put(2, "up", bytes.len() as u64)].concat());
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let up = bytes.clone();
    let writing = std::thread::spawn(move || {
        for (number, chunk) in up.chunks(1 << 20).enumerate() {
            let echo = packet(ECHO, 100 + number as u32, b"");
            std::io::Write::write_all(&mut writer, &[data(2, chunk), echo].concat()).unwrap();
        }
    });
    let (mut back, mut others) = (Vec::new(), Vec::new());
    while others.len() < 2 + 40 + 1 {
        let answer = client.answer();
        match answer.kind {
            CHUNK => back.extend(client.chunk(&answer)),
            _ => others.push(answer.says()),
        }
    }
    writing.join().unwrap();
    assert!(back == bytes);
    let echoes: Vec<u32> = others.iter().filter(|it| it.0 == ECHOED).map(|it| it.1).collect();
    assert_eq!(echoes, (100..140).collect::<Vec<_>>());
    others.retain(|it| it.0 != ECHOED);
    others.sort_unstable();
    assert_eq!(others, [(SENT, 1, 0), (ACCEPTED, 2, 0), (STORED, 2, 0)]);
    assert!(client.download(3, "up") == bytes);
    drop(client);
    served.stop(&["down", "up"]);
}
