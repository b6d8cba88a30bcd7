//! Digests and lists: what workers do.

use crate::client::*;
use crate::{Served, pattern, same, socket, until};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;

/// Large and small ones in turn, so that they finish in another order.
#[test]
fn digests_come_in_the_order_in_which_they_were_asked_for() {
    let served = Served::start(&["--workers", "4"]);
    let large = pattern(3 << 20);
    served.write("large", &large);
    let mut client = served.client();
    let texts: Vec<Vec<u8>> =
        (0..400_usize).map(|id| pattern(if id % 3 == 0 { 60_000 } else { id })).collect();
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let requests: Vec<u8> = texts
        .iter()
        .enumerate()
        .flat_map(|(id, text)| match id % 50 {
            7 => packet(DIGEST_FILE, id as u32, b"large"),
            _ => packet(DIGEST, id as u32, text),
        })
        .collect();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &requests));
    for (id, text) in texts.iter().enumerate() {
        let text = if id % 50 == 7 { &large } else { text };
        assert_eq!(client.expect(DIGESTED, id as u32), Sha256::digest(text)[..], "digest {id}");
    }
    writing.join().unwrap().unwrap();
    drop(client);
    served.stop(&["large"]);
}

/// More than a connection may have under way, from more connections than there are workers.
#[test]
fn who_asks_for_many_waits_its_turn() {
    let served = Served::start(&["--workers", "1"]);
    File::create(served.dir.path().join("large")).unwrap().set_len(32 << 20).unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| served.client()).collect();
    for client in &mut clients {
        let many: Vec<u8> = (0..40).flat_map(|id| packet(DIGEST_FILE, id, b"large")).collect();
        client.write(&many);
    }
    until(|| same(served.daemon.ledger().number("jobs.under_way"), 64));
    let sum = Sha256::digest(vec![0; 32 << 20]);
    for client in &mut clients {
        for id in 0..40 {
            assert_eq!(client.expect(DIGESTED, id), sum[..]);
        }
        client.echoes();
    }
    drop(clients);
    served.stop(&["large"]);
}

/// A worker stops for a connection that has gone, instead of reading on for nobody. One that sends
/// its FIN may only have said that it asks for nothing else: it is waited with for a while.
#[test]
fn nobody_reads_a_file_for_a_connection_that_has_gone() {
    let served = Served::start(&["--workers", "1", "--idle-timeout", "1s"]);
    // Hours of zeros.
    File::create(served.dir.path().join("endless")).unwrap().set_len(1 << 43).unwrap();
    for resets in [true, false] {
        let mut client = served.client();
        client.write(&packet(DIGEST_FILE, 1, b"endless").repeat(16));
        until(|| same(served.daemon.ledger().number("jobs.under_way"), 16));
        if resets {
            socket::reset(client.into_stream());
        } else {
            drop(client);
        }
        until(|| same(served.daemon.ledger().number("jobs.under_way"), 0));
        // The worker is free.
        served.client().ask(DIGEST, 1, b"", DIGESTED);
    }
    served.has_closed_by("idle_timeout", 1);
    served.stop(&["endless"]);
}

#[test]
fn without_workers_it_says_so() {
    let served = Served::start(&["--workers", "0"]);
    served.write("file", b"1");
    let mut client = served.client();
    for (kind, fields) in [(DIGEST, &b"abc"[..]), (DIGEST_FILE, b"file"), (LIST, b"")] {
        client.send(kind, 1, fields);
        client.error(1, NO_WORKERS);
    }
    assert_eq!(client.download(2, "file"), b"1");
    client.upload(3, "other", b"123", 2);
    drop(client);
    served.stop(&["file", "other"]);
}

#[test]
fn a_list_has_names_and_sizes_in_order() {
    let served = Served::start(&[]);
    served.write("b", b"12");
    served.write("a", b"1");
    served.write(".hidden", b"");
    std::fs::create_dir(served.dir.path().join("dir")).unwrap();
    let mut client = served.client();
    let entry = |size: u64, name: &str| {
        [&size.to_be_bytes()[..], &[name.len() as u8], name.as_bytes()].concat()
    };
    let expected = [vec![0], entry(1, "a"), entry(2, "b")].concat();
    assert_eq!(client.ask(LIST, 1, b"", LISTED), expected);
    assert_eq!(client.ask(LIST, 2, b"a", LISTED), [vec![0], entry(2, "b")].concat());
    assert_eq!(client.ask(LIST, 3, b"b", LISTED), [0]);
    drop(client);
    served.stop(&[".hidden", "a", "b", "dir"]);
}

#[test]
fn a_large_directory_is_listed_page_by_page() {
    let served = Served::start(&[]);
    let expected: BTreeSet<String> = (0..2_000)
        .map(|number| format!("{:x}-{}", number * 7919 % 2_000, "n".repeat(80)))
        .collect();
    for name in &expected {
        served.write(name, b"12345");
    }
    let mut client = served.client();
    let (mut found, mut pages) = (Vec::<String>::new(), 0);
    loop {
        let after = found.last().cloned().unwrap_or_default();
        let fields = client.ask(LIST, 1, after.as_bytes(), LISTED);
        let mut rest = &fields[1..];
        while let [size @ .., _] = &rest[..rest.len().min(9)]
            && !size.is_empty()
        {
            assert_eq!(*size, 5_u64.to_be_bytes());
            let length = usize::from(rest[8]);
            found.push(String::from_utf8(rest[9..9 + length].to_vec()).unwrap());
            rest = &rest[9 + length..];
        }
        pages += 1;
        if fields[0] == 0 {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(found, expected.iter().cloned().collect::<Vec<_>>());
    drop(client);
    served.comes_to_rest();
    served.daemon.stop();
}
