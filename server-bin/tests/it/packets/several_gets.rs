//! Several downloads of a connection at once: whose chunk it is, whose turn it is, and how many.

use super::client::*;
use super::{Served, alone, same, until};
use crate::common::pattern;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::thread;
use std::time::Duration;

/// Downloads in progress on a connection at most.
const GETS_MAX: usize = 16;

/// The bytes and the ends of downloads until so many have ended.
fn collect(client: &mut Client, count: usize) -> (HashMap<u32, Vec<u8>>, Vec<u32>) {
    let (mut bytes, mut sent) = (HashMap::<u32, Vec<u8>>::new(), Vec::new());
    while sent.len() < count {
        let answer = client.answer();
        match answer.kind {
            CHUNK => bytes.entry(answer.id).or_default().extend(client.chunk(&answer)),
            SENT => sent.push(answer.id),
            OFFER | RANGE => {}
            _ => panic!("{:?}", answer.says()),
        }
    }
    (bytes, sent)
}

#[test]
fn chunks_of_several_files_come_in_turns_and_each_file_is_right() {
    let served = Served::start(&[]);
    let all = pattern(24 << 20);
    let files = [&all[..], &all[7..9 << 20], &all[11..300_000], &all[13..14]];
    for (id, bytes) in (1..).zip(files) {
        served.write(&id.to_string(), bytes);
    }
    let mut client = served.client();
    let get = |id: u32| get_range(id, &id.to_string(), 0, REST, ANY);
    client.write(&[get(1), get(2), get(3), get(4)].concat());
    let (bytes, sent) = collect(&mut client, 4);
    for (id, expected) in (1..).zip(files) {
        assert!(bytes[&id] == expected, "file {id}");
    }
    // The shorter, the earlier: nobody waits for a longer one.
    assert_eq!(sent, [4, 3, 2, 1]);
    // With offers, too.
    for id in 1..=4 {
        client.get(id, &id.to_string());
    }
    for id in 1..=4 {
        client.write(&take(id, 0, files[id as usize - 1].len() as u64));
    }
    let (bytes, sent) = collect(&mut client, 4);
    for (id, expected) in (1..).zip(files) {
        assert!(bytes[&id] == expected, "file {id}");
    }
    assert_eq!(sent[3], 1);
    drop(client);
    served.stop(&["1", "2", "3", "4"]);
}

/// All requests are there before the first chunk has left. The small file comes behind one chunk of
/// the large one, and small replies behind the chunk that is being sent.
#[test]
fn a_small_file_and_small_replies_do_not_wait_for_a_large_file() {
    let served = Served::start(&[]);
    File::create(served.dir.path().join("large")).unwrap().set_len(64 << 20).unwrap();
    served.write("small", b"small");
    let mut client = served.client();
    let large = get_range(1, "large", 0, REST, ANY);
    let behind = [packet(ECHO, 3, b""), packet(ABORT, 4, b"")].concat();
    let small = get_range(2, "small", 0, REST, ANY);
    client.write(&[large, behind, small].concat());
    client.range(1);
    let mut answers = Vec::new();
    let mut large_bytes = 0;
    while !answers.contains(&(SENT, 2, 0)) {
        let answer = client.answer();
        match answer.says() {
            (CHUNK, 1, 0) => large_bytes += client.chunk(&answer).len(),
            (CHUNK, 2, 0) => assert_eq!(client.chunk(&answer), b"small"),
            other => answers.push(other),
        }
    }
    let errors = (ERROR, 4, NO_TRANSFER);
    assert_eq!(answers, [(ECHOED, 3, 0), errors, (RANGE, 2, 0), (SENT, 2, 0)]);
    assert!(large_bytes <= 4 << 20, "{large_bytes} bytes came first");
    client.send(ABORT, 1, b"");
    while client_goes_on(&mut client, (ABORTED, 1, 0)) {}
    client.echoes();
    drop(client);
    served.stop(&["large", "small"]);
}

/// Reads an answer, of a CHUNK with its bytes. False: it is this one.
fn client_goes_on(client: &mut Client, last: (u8, u32, u16)) -> bool {
    let answer = client.answer();
    if answer.kind == CHUNK {
        client.chunk(&answer);
    }
    answer.says() != last
}

#[test]
fn an_abort_of_one_leaves_the_others() {
    let served = Served::start(&[]);
    let bytes = pattern(40 << 20);
    for name in ["a", "b", "c"] {
        served.write(name, &bytes);
    }
    let mut client = served.client();
    for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
        client.write(&get_range(id, name, 0, REST, ANY));
    }
    client.send(ABORT, 2, b"");
    let (mut back, mut ends) = (HashMap::<u32, Vec<u8>>::new(), Vec::new());
    while ends.len() < 3 {
        let answer = client.answer();
        match answer.says() {
            (CHUNK, id, 0) => {
                assert!(!ends.contains(&(ABORTED, 2, 0)) || id != 2, "behind ABORTED");
                back.entry(id).or_default().extend(client.chunk(&answer));
            }
            (RANGE, _, 0) => {}
            end => ends.push(end),
        }
    }
    ends.sort_unstable();
    assert_eq!(ends, [(SENT, 1, 0), (SENT, 3, 0), (ABORTED, 2, 0)]);
    assert!(back[&1] == bytes && back[&3] == bytes);
    assert!(back.get(&2).is_none_or(|some| some.len() < bytes.len()));
    drop(client);
    served.stop(&["a", "b", "c"]);
}

/// Beyond the limit, requests wait in the socket while something is being sent.
#[test]
fn thousands_of_gets_wait_for_their_turn() {
    const GETS: u32 = 3_000;
    let _alone = alone();
    let served = Served::start(&[]);
    let bytes = pattern(300_000);
    served.write("file", &bytes);
    let mut client = served.client();
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let writing = thread::spawn(move || {
        for id in 0..GETS {
            let get = get_range(id, "file", u64::from(id), 70_000 + u64::from(id), ANY);
            writer.write_all(&get).unwrap();
        }
    });
    // The client reads nothing: the socket is full, and the limit is reached.
    until(|| same(served.daemon.ledger().number("files"), GETS_MAX as u64));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(served.daemon.ledger().number("files"), GETS_MAX as u64);
    let mut running = HashMap::<u32, usize>::new();
    let (mut ended, mut most) = (0, 0);
    while ended < GETS {
        let answer = client.answer();
        let at = answer.id as usize;
        match answer.kind {
            RANGE => drop(running.insert(answer.id, at)),
            CHUNK => {
                let place = running.get_mut(&answer.id).expect("its RANGE came before");
                let chunk = client.chunk(&answer);
                assert!(chunk == bytes[*place..*place + chunk.len()]);
                *place += chunk.len();
            }
            SENT => {
                assert_eq!(running.remove(&answer.id), Some(at + 70_000 + at));
                ended += 1;
            }
            _ => panic!("{:?}", answer.says()),
        }
        most = most.max(running.len());
    }
    assert!(most <= GETS_MAX, "{most} at once");
    writing.join().unwrap();
    client.echoes();
    drop(client);
    served.stop(&["file"]);
}

/// Nothing but a TAKE would free a place, and it may be behind the GET.
#[test]
fn too_many_offers_are_refused() {
    let served = Served::start(&["--offer-timeout", "1h"]);
    served.write("file", b"0123456789");
    let mut client = served.client();
    let limit = GETS_MAX as u32;
    for id in 0..limit {
        client.get(id, "file");
    }
    client.send(GET, 100, b"file");
    client.error(100, BUSY);
    client.write(&get_range(101, "file", 0, REST, ANY));
    client.error(101, BUSY);
    client.write(&[take(0, 1, 3), packet(ABORT, 1, b"")].concat());
    let (mut kinds, mut bytes) = (Vec::new(), Vec::new());
    while kinds.len() < 2 {
        let answer = client.answer();
        match answer.kind {
            CHUNK => bytes.extend(client.chunk(&answer)),
            _ => kinds.push(answer.says()),
        }
    }
    kinds.sort_unstable();
    assert_eq!((kinds, &bytes[..]), (vec![(SENT, 0, 0), (ABORTED, 1, 0)], &b"123"[..]));
    client.get(102, "file");
    drop(client);
    served.stop(&["file"]);
}

#[test]
fn a_range_is_checked_before_anything_is_sent() {
    let served = Served::start(&[]);
    served.write("ten", b"0123456789");
    let mut client = served.client();
    for (offset, length) in
        [(0, 11), (10, 1), (11, REST), (u64::MAX, 1), (u64::MAX, REST), (1, REST - 1), (REST, 0)]
    {
        client.write(&get_range(1, "ten", offset, length, ANY));
        client.error(1, BAD_RANGE);
    }
    for (offset, length, expected) in [
        (0, REST, &b"0123456789"[..]),
        (3, 4, b"3456"),
        (9, REST, b"9"),
        (10, REST, b""),
        (5, 0, b""),
    ] {
        client.write(&get_range(1, "ten", offset, length, ANY));
        assert_eq!(client.range(1).0, 10);
        assert_eq!(client.taken(1), expected);
    }
    for name in ["", ".", "a/b", &"n".repeat(256)] {
        client.write(&get_range(2, name, 0, REST, ANY));
        client.error(2, BAD_NAME);
    }
    client.write(&get_range(3, "nothing", 0, REST, ANY));
    client.error(3, NO_SUCH_FILE);
    client.send(GET_RANGE, 4, &[0; 31]);
    client.error(4, MALFORMED);
    client.is_at_its_end();
    drop(client);
    served.stop(&["ten"]);
}

#[test]
fn a_range_of_another_version_is_refused() {
    let served = Served::start(&[]);
    served.write("file", b"0123456789");
    let mut client = served.client();
    // A file that has just changed has no version.
    let version = |client: &mut Client| loop {
        client.write(&get_range(1, "file", 0, 0, ANY));
        let (_, version) = client.range(1);
        client.expect(SENT, 1);
        if version != ANY {
            return version;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let old = version(&mut client);
    assert_eq!(version(&mut client), old);
    client.write(&get_range(2, "file", 5, REST, old));
    assert_eq!(client.range(2), (10, old));
    assert_eq!(client.taken(2), b"56789");
    // Changed in place, to the same size.
    served.write("file", b"9876543210");
    client.write(&get_range(3, "file", 5, REST, old));
    client.error(3, CHANGED);
    assert_ne!(version(&mut client), old);
    // The offset of another version says nothing: CHANGED comes first.
    client.write(&get_range(4, "file", 11, REST, old));
    client.error(4, CHANGED);
    client.echoes();
    drop(client);
    served.stop(&["file"]);
}
