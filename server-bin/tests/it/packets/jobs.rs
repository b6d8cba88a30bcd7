//! Digests and lists: what workers do.

use super::client::*;
use super::{Served, same, until};
use crate::common::{pattern, takes_less_than};
use ringwrightd_test_support::socket;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, Instant};

/// Large and small ones in turn, so that they finish in another order.
#[test]
fn digests_come_in_the_order_in_which_they_were_asked_for() {
    let served = Served::start(&["--workers", "4"]);
    // Several slices.
    let large = pattern(20 << 20);
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

/// From more connections than there are workers: one file of each is digested at a time.
#[test]
fn who_asks_for_many_waits_its_turn() {
    let served = Served::start(&["--workers", "1"]);
    File::create(served.dir.path().join("large")).unwrap().set_len(32 << 20).unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| served.client()).collect();
    for client in &mut clients {
        let many: Vec<u8> = (0..40).flat_map(|id| packet(DIGEST_FILE, id, b"large")).collect();
        client.write(&many);
    }
    until(|| same(served.daemon.ledger().number("jobs.under_way"), 4));
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

/// Large files that one client asks for take turns with what others ask for; so do they with each
/// other, whatever is behind them on their own connection, the FIN included.
#[test]
fn nobody_keeps_the_workers_to_itself() {
    let served = Served::start(&["--workers", "2"]);
    File::create(served.dir.path().join("huge")).unwrap().set_len(6 << 30).unwrap();
    let mut greedy: Vec<Client> = (0..3).map(|_| served.client()).collect();
    for client in &mut greedy {
        client.write(&packet(DIGEST_FILE, 1, b"huge").repeat(16));
        client.half_close();
    }
    until(|| same(served.daemon.ledger().number("jobs.under_way"), 3));
    let mut other = served.client();
    let mut id = 0;
    takes_less_than(Duration::from_secs(1), || {
        id += 1;
        other.write(&[packet(DIGEST, id, b"abc"), packet(LIST, 100 + id, b"")].concat());
        let answers = [other.answer(), other.answer()];
        assert!(answers.iter().any(|it| it.says() == (DIGESTED, id, 0)), "{answers:?}");
        assert!(answers.iter().any(|it| it.says() == (LISTED, 100 + id, 0)), "{answers:?}");
    });
    assert_eq!(served.daemon.ledger().number("jobs.under_way"), 3, "they are still at it");
    for client in greedy {
        socket::reset(client.into_stream());
    }
    // Their resets are noticed though their FIN came before, and though nobody reads from them.
    let since = Instant::now();
    until(|| same(served.daemon.ledger().number("connections.open"), 1));
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    drop(other);
    served.stop(&["huge"]);
}

/// What waits for a digest is answered behind it, and what does not wait is not held up by it. The
/// FIN ends nothing that was asked for.
#[test]
fn what_is_behind_a_file_waits_for_its_digest() {
    let served = Served::start(&["--workers", "4"]);
    let bytes = pattern(60 << 20);
    served.write("large", &bytes);
    let mut client = served.client();
    let digest = packet(DIGEST, 7, b"abc");
    let file = |id| packet(DIGEST_FILE, id, b"large");
    let requests = [
        digest.clone(),
        file(1),
        packet(ECHO, 2, b"at once"),
        file(3),
        packet(LIST, 4, b""),
        packet(ECHO, 5, b"behind"),
        file(6),
        digest,
    ];
    client.write(&requests.concat());
    client.half_close();
    let sum = Sha256::digest(&bytes);
    let mut order = Vec::new();
    for _ in 0..8 {
        let answer = client.answer();
        match answer.id {
            1 | 3 | 6 => assert_eq!(answer.fields, sum[..]),
            7 => assert_eq!(answer.fields, Sha256::digest(b"abc")[..]),
            _ => {}
        }
        order.push(answer.id);
    }
    client.is_at_its_end();
    let place = |id| order.iter().position(|it| *it == id).unwrap();
    let digests: Vec<u32> = order.iter().copied().filter(|id| [1, 3, 6, 7].contains(id)).collect();
    assert_eq!(digests, [7, 1, 3, 6, 7], "{order:?}");
    assert!(place(2) < place(1) && place(3) < place(4) && place(3) < place(5), "{order:?}");
    served.stop(&["large"]);
}

/// A full queue of jobs, for a while: a file's next slice finds its place when there is one again.
#[test]
fn the_queue_of_jobs_may_be_full_between_two_slices() {
    let served = Served::start(&["--workers", "1"]);
    let bytes = pattern(20 << 20);
    served.write("large", &bytes);
    let mut large: Vec<Client> = (0..100).map(|_| served.client()).collect();
    for client in &mut large {
        client.send(DIGEST_FILE, 1, b"large");
    }
    // Together more than the 1,024 places of the queue.
    let mut small: Vec<Client> = (0..80).map(|_| served.client()).collect();
    let request: Vec<u8> = (0..40).flat_map(|id| packet(DIGEST, id, b"abc")).collect();
    for client in &mut small {
        client.write(&request);
    }
    until(|| {
        let refused = served.daemon.ledger().number("jobs.refused");
        if refused > 80 { Ok(()) } else { Err(format!("{refused} jobs found no room")) }
    });
    for client in &mut small {
        for id in 0..40 {
            assert_eq!(client.expect(DIGESTED, id), Sha256::digest(b"abc")[..]);
        }
    }
    let sum = Sha256::digest(&bytes);
    for client in &mut large {
        assert_eq!(client.expect(DIGESTED, 1), sum[..]);
    }
    drop((small, large));
    served.stop(&["large"]);
}

/// Every file that is being digested is an open one: there is a limit, and it is given back.
#[test]
fn so_many_files_are_digested_at_a_time() {
    let served = Served::start(&["--workers", "1"]);
    File::create(served.dir.path().join("endless")).unwrap().set_len(1 << 43).unwrap();
    let mut clients: Vec<Client> = (0..256).map(|_| served.client()).collect();
    for client in &mut clients {
        client.send(DIGEST_FILE, 1, b"endless");
        client.echoes();
    }
    let mut late = served.client();
    late.send(DIGEST_FILE, 2, b"endless");
    late.error(2, BUSY);
    late.ask(DIGEST, 3, b"abc", DIGESTED);
    for client in clients {
        socket::reset(client.into_stream());
    }
    served.write("small", b"abc");
    until(|| {
        late.send(DIGEST_FILE, 4, b"small");
        same(late.answer().says(), (DIGESTED, 4, 0))
    });
    drop(late);
    served.stop(&["endless", "small"]);
}

/// A worker stops for a connection that has gone, instead of reading on for nobody.
#[test]
fn nobody_reads_a_file_for_a_connection_that_has_gone() {
    let served = Served::start(&["--workers", "1"]);
    // Hours of zeros.
    File::create(served.dir.path().join("endless")).unwrap().set_len(1 << 43).unwrap();
    // It is read from, or not any more.
    for requests in [1, 16] {
        let mut client = served.client();
        client.write(&packet(DIGEST_FILE, 1, b"endless").repeat(requests));
        until(|| same(served.daemon.ledger().number("jobs.under_way"), 1));
        socket::reset(client.into_stream());
        until(|| same(served.daemon.ledger().number("connections.open"), 0));
        until(|| same(served.daemon.ledger().number("jobs.under_way"), 0));
        // The worker is free.
        served.client().ask(DIGEST, 1, b"", DIGESTED);
    }
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
