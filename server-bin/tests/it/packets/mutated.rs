//! Mutated packets: what the daemon answers must not depend on how they are split.

use super::client::{
    ABORT, CHUNK, DIGEST, DIGEST_FILE, ECHO, ERROR, GET, LIST, MALFORMED, MESSAGE, TOO_LONG, data,
    get_range, packet, put, take,
};
use super::{Served, until};
use crate::PATIENCE;
use crate::mutated::{Random, send_pieces};
use ringwrightd_test_support::scale::scaled;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// Bytes that mean something somewhere in a packet: lengths, types, ends of names, and large
/// numbers.
const TOKENS: [&[u8]; 16] = [
    b"\0\0\0\x05",
    b"\0\0\0\x04",
    b"\0\x01\0\0",
    b"\0\x01\0\x01",
    b"\0\0\0\x07",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\0",
    b"\x05",
    b"\x06",
    b"\x07",
    b"\x0a",
    b"\x0b",
    b"/",
    b".",
    b"\0",
    b"small",
];

/// Requests that read, with ids of their own.
fn reading(id: u32) -> Vec<Vec<u8>> {
    let get = packet(GET, id, b"large");
    let aborted = [packet(GET, id, b"small"), packet(ABORT, id, b"")].concat();
    vec![
        packet(ECHO, id, b""),
        packet(ECHO, id, b"some bytes"),
        packet(DIGEST, id, b"bytes to digest"),
        packet(DIGEST_FILE, id, b"large"),
        packet(LIST, id, b""),
        packet(LIST, id, b"large"),
        get,
        packet(GET, id, b"missing"),
        packet(ABORT, id, b""),
        aborted,
        take(id, 0, 5),
        get_range(id, "large", 100, 70_000, [0; 16]),
        get_range(id, "small", 0, 5, [0; 16]),
        get_range(id, "small", 4, u64::MAX, [0; 16]),
    ]
}

/// Uploads, whole and in parts.
fn writing(id: u32) -> Vec<Vec<u8>> {
    let name = format!("file-{}", id >> 24);
    vec![
        [put(id, &name, 5), data(id, b"bytes")].concat(),
        [put(id, &name, 9), data(id, b"in "), data(id, b"parts.")].concat(),
        put(id, &name, 0),
        put(id, &name, 7),
        [put(id, &name, 9), data(id, b"more than one")].concat(),
        data(id, b"of no upload"),
        packet(ECHO, id, b"between"),
    ]
}

/// The answers with one id, in any order, because answers to different requests overtake each
/// other; and the bytes of all chunks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answers {
    packets: BTreeSet<Vec<u8>>,
    chunks: Vec<u8>,
}

/// The answers by id. Where an error ended the connection, only that error: what else has been sent
/// by then depends on the workers.
fn story(received: &[u8]) -> BTreeMap<u32, Answers> {
    let mut story = BTreeMap::<u32, Answers>::new();
    let mut rest = received;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        let (body, mut behind) = behind.split_at(length);
        let (kind, id) = (body[0], u32::from_be_bytes(body[1..5].try_into().unwrap()));
        let fields = &body[5..];
        match kind {
            // A mutation has made a broadcast of another connection.
            MESSAGE => {}
            CHUNK => {
                let count = u32::from_be_bytes(fields.try_into().unwrap()) as usize;
                story.entry(id).or_default().chunks.extend(&behind[..count]);
                behind = &behind[count..];
            }
            ERROR if ends_connection(fields) => {
                assert_eq!(behind, b"", "something follows an error that ends the connection");
                story = BTreeMap::new();
                story.entry(id).or_default().packets.insert(body.to_vec());
            }
            // The explanation may name what the other connection does not have.
            ERROR => drop(story.entry(id).or_default().packets.insert(body[..7].to_vec())),
            _ => drop(story.entry(id).or_default().packets.insert(body.to_vec())),
        }
        rest = behind;
    }
    assert_eq!(rest, b"", "a packet in parts");
    story
}

/// Returns whether an error ends the connection, from its fields.
fn ends_connection(fields: &[u8]) -> bool {
    [MALFORMED, TOO_LONG].contains(&u16::from_be_bytes([fields[0], fields[1]]))
}

/// The answers to `bytes`, which arrive in pieces that end at `cuts`.
fn exchange(address: SocketAddr, bytes: &[u8], cuts: &[usize]) -> BTreeMap<u32, Answers> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The daemon may have refused the first packets, and closed the connection.
    let _ = send_pieces(&mut stream, bytes, cuts);
    let _ = stream.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    story(&received)
}

/// Sends each case whole to one daemon and split to another one. Returns how many of `count` ended
/// their connection by an error.
fn compare(
    whole: &Served,
    split: &Served,
    samples: fn(u32) -> Vec<Vec<u8>>,
    seed: u64,
    count: usize,
) -> usize {
    let mut random = Random::new(seed);
    let mut refused = 0;
    for number in 0..count {
        let mut bytes = Vec::new();
        for place in 1..=1 + random.below(3) as u32 {
            let of_id = samples(place << 24 | 0x5a_5a5a);
            bytes.extend(&of_id[random.below(of_id.len())]);
        }
        for _ in 0..random.below(4) {
            random.mutate(&mut bytes, &TOKENS);
        }
        let cuts = random.cuts(bytes.len());
        let first = exchange(whole.daemon.address, &bytes, &[]);
        let second = exchange(split.daemon.address, &bytes, &cuts);
        let shown = bytes.escape_ascii();
        assert_eq!(second, first, "seed {seed}, number {number}, cuts {cuts:?}: {shown}");
        let mut answers = first.values().flat_map(|it| &it.packets);
        refused += usize::from(answers.any(|it| it[0] == ERROR && ends_connection(&it[5..])));
    }
    refused
}

#[test]
fn mutated_requests_are_answered_alike_whole_and_split() {
    let served = Served::start(&["--read-only"]);
    served.write("small", b"small");
    served.write("large", &vec![b'l'; 100_000]);
    // The version of a file that has just changed is unknown.
    thread::sleep(Duration::from_millis(50));
    let count = scaled(40_000);
    let refused: usize = thread::scope(|scope| {
        let served = &served;
        let run = |seed| scope.spawn(move || compare(served, served, reading, seed, count / 4));
        let threads = [11, 12, 13, 14].map(run);
        threads.map(|it| it.join().unwrap()).iter().sum()
    });
    // The mutations are neither harmless nor hopeless.
    assert!((count / 10..count / 5 * 4).contains(&refused), "{refused} of {count} refused");
    served.stop(&["large", "small"]);
}

/// The files of a directory.
fn contents(served: &Served) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(served.dir.path()).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
}

/// Two daemons with the same history: the first upload of a name succeeds, and the others do not.
#[test]
fn mutated_uploads_are_stored_alike_whole_and_split() {
    let [whole, split] = [(); 2].map(|()| Served::start(&["--replace"]));
    compare(&whole, &split, writing, 15, scaled(10_000));
    until(|| super::same(contents(&whole), contents(&split)));
    let stored = contents(&whole);
    let names = [1, 2, 3].map(|place| OsString::from(format!("file-{place}")));
    assert!(names.iter().all(|name| stored.contains_key(name)), "{:?}", stored.keys());
    // Other names are mutated, and are no UTF-8.
    for served in [whole, split] {
        served.comes_to_rest();
        served.daemon.stop();
    }
}
