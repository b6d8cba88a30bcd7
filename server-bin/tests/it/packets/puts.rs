//! Files put, given up, refused.

use super::client::*;
use super::{Served, same, until};
use crate::common::{command_below, pattern};
use ringwrightd_test_support::socket;
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn what_is_put_is_got() {
    let served = Served::start(&[]);
    let mut client = served.client();
    for (name, bytes, chunk) in [
        ("empty", 0, 1),
        ("one", 1, 1),
        ("small", 1_000, 7),
        ("odd", 300_001, 70_000),
        ("middle", 5 << 20, 4 << 20),
        ("é a", 9 << 20, (4 << 20) - 1),
        (&"n".repeat(255), 10, 10),
    ] {
        let bytes = pattern(bytes);
        client.upload(1, name, &bytes, chunk);
        assert!(fs::read(served.dir.path().join(name)).unwrap() == bytes, "{name}");
        assert!(client.download(2, name) == bytes, "{name}");
    }
    drop(client);
    served.stop(&["empty", "middle", &"n".repeat(255), "odd", "one", "small", "é a"]);
}

/// Nobody sees a file before it is whole.
#[test]
fn a_file_is_not_there_before_its_last_byte() {
    let served = Served::start(&[]);
    let mut client = served.client();
    client.write(&put(1, "file", 10));
    client.expect(ACCEPTED, 1);
    client.write(&data(1, b"012345678"));
    client.echoes();
    assert!(served.names().is_empty());
    client.send(GET, 2, b"file");
    client.error(2, NO_SUCH_FILE);
    assert_eq!(client.ask(LIST, 3, b"", LISTED), [0]);
    client.write(&data(1, b"9"));
    client.expect(STORED, 1);
    assert_eq!(client.download(4, "file"), b"0123456789");
    drop(client);
    served.stop(&["file"]);
}

/// Everything in one go, and byte by byte.
#[test]
fn nobody_has_to_wait_for_accepted() {
    let served = Served::start(&[]);
    let mut client = served.client();
    let bytes = pattern(100_000);
    let upload = |id, name: &str| {
        let (first, second) = bytes.split_at(70_000);
        let parts = [put(id, name, 100_000), data(id, first), data(id, second)];
        [parts.concat(), packet(ECHO, id, b"behind")].concat()
    };
    client.write(&[upload(1, "a"), upload(2, "b"), put(3, "c", 0)].concat());
    for id in [1, 2] {
        client.expect(ACCEPTED, id);
        client.expect(STORED, id);
        assert_eq!(client.expect(ECHOED, id), b"behind");
    }
    client.expect(ACCEPTED, 3);
    client.expect(STORED, 3);
    for piece in [put(4, "d", 300), data(4, &bytes[..200]), data(4, &bytes[200..300])].concat() {
        client.write(&[piece]);
    }
    client.expect(ACCEPTED, 4);
    client.expect(STORED, 4);
    assert!(client.download(5, "a") == bytes && client.download(5, "b") == bytes);
    assert!(client.download(5, "d") == bytes[..300]);
    drop(client);
    served.stop(&["a", "b", "c", "d"]);
}

#[test]
fn a_name_that_is_taken_is_refused_before_the_bytes_and_after() {
    let served = Served::start(&[]);
    let mut client = served.client();
    served.write("old", b"old");
    for flags in [0, 1] {
        // Flag 1 is not allowed here. The bytes that follow are nobody's.
        let mut packet = put(1, "old", 3);
        packet[9] = flags;
        client.write(&[packet, data(1, b"new")].concat());
        client.error(1, EXISTS);
        client.echoes();
    }
    // Taken while it was on its way.
    client.write(&[put(2, "new", 3), data(2, b"1")].concat());
    client.expect(ACCEPTED, 2);
    client.echoes();
    served.write("new", b"somebody else's");
    client.write(&data(2, b"23"));
    client.error(2, EXISTS);
    client.echoes();
    assert_eq!(fs::read(served.dir.path().join("old")).unwrap(), b"old");
    assert_eq!(fs::read(served.dir.path().join("new")).unwrap(), b"somebody else's");
    drop(client);
    served.stop(&["new", "old"]);
}

/// A download that was begun goes on with the old file.
#[test]
fn a_file_is_replaced_at_once_where_it_is_allowed() {
    let served = Served::start(&["--replace", "--sync"]);
    let old = pattern(8 << 20);
    served.write("file", &old);
    let mut reader = served.client();
    reader.get(1, "file");
    let mut client = served.client();
    let mut replacing = put(1, "file", 3);
    client.write(&replacing);
    client.error(1, EXISTS);
    replacing[9] = 1;
    client.write(&replacing);
    client.expect(ACCEPTED, 1);
    client.write(&data(1, b"ne"));
    client.echoes();
    assert!(client.download(2, "file") == old);
    client.write(&data(1, b"w"));
    client.expect(STORED, 1);
    assert_eq!(client.download(3, "file"), b"new");
    reader.write(&take(1, 0, old.len() as u64));
    assert!(reader.taken(1) == old);
    // What is no file is not replaced by one.
    fs::create_dir(served.dir.path().join("dir")).unwrap();
    std::os::unix::fs::symlink("file", served.dir.path().join("link")).unwrap();
    for name in ["dir", "link"] {
        let mut replacing = put(4, name, 0);
        replacing[9] = 1;
        client.write(&replacing);
        client.error(4, EXISTS);
    }
    // And a new one needs no old one.
    let mut fresh = put(5, "fresh", 0);
    fresh[9] = 1;
    client.write(&fresh);
    client.expect(ACCEPTED, 5);
    client.expect(STORED, 5);
    drop((client, reader));
    served.stop(&["dir", "file", "fresh", "link"]);
}

#[test]
fn what_is_too_large_or_not_wanted_is_refused() {
    let served = Served::start(&["--upload-max", "1KiB"]);
    let mut client = served.client();
    for size in [1_025, 1 << 40, u64::MAX] {
        client.write(&[put(1, "file", size), data(1, b"early")].concat());
        client.error(1, TOO_LARGE);
    }
    client.upload(2, "file", &pattern(1_024), 1_024);
    drop(client);
    served.stop(&["file"]);

    let served = Served::start(&["--read-only"]);
    let mut client = served.client();
    client.write(&[put(1, "file", 5), data(1, b"early")].concat());
    client.error(1, READ_ONLY);
    client.echoes();
    drop(client);
    served.stop(&[]);
}

#[test]
fn one_put_at_a_time_and_no_byte_too_many() {
    let served = Served::start(&[]);
    let mut client = served.client();
    client.write(&put(1, "first", 3));
    client.expect(ACCEPTED, 1);
    client.write(&[put(2, "second", 3), data(2, b"abc")].concat());
    client.error(2, BUSY);
    client.write(&data(1, b"abc"));
    client.expect(STORED, 1);
    client.write(&[put(3, "third", 3), data(3, b"ab"), data(3, b"cd")].concat());
    client.expect(ACCEPTED, 3);
    client.error(3, MALFORMED);
    client.is_at_its_end();
    drop(client);
    let mut client = served.client();
    client.write(&put(4, "fourth", 3));
    client.expect(ACCEPTED, 4);
    client.write(&put(4, "fifth", 3));
    client.error(4, MALFORMED);
    client.is_at_its_end();
    drop(client);
    served.stop(&["first"]);
}

/// Bytes of puts that are none are thrown away, exactly as many as were announced.
#[test]
fn chunks_that_nobody_wants_leave_the_stream_in_step() {
    let served = Served::start(&[]);
    let mut client = served.client();
    for bytes in [1, 2, 5, 4_096, 65_540, 4 << 20] {
        client.write(&data(77, &packet(ECHO, 1, &[0; 40]).repeat(1 + bytes / 49)[..bytes]));
        client.echoes();
    }
    client.write(&[data(1, b"x"), data(2, b"yy"), packet(ECHO, 3, b"")].concat());
    client.expect(ECHOED, 3);
    drop(client);
    served.stop(&[]);
}

/// A chunk is no packet: the deadline for packets is not its own.
#[test]
fn a_chunk_that_nobody_wants_may_take_its_time() {
    let served = Served::start(&["--request-timeout", "200ms"]);
    let mut client = served.client();
    client.write(&packet(DATA, 1, &10_u32.to_be_bytes()));
    for piece in [&b"01234567"[..], b"8"] {
        client.write(piece);
        served.client().echoes();
        std::thread::sleep(Duration::from_millis(500));
    }
    client.write(b"9");
    client.echoes();
    drop(client);
    served.stop(&[]);
}

#[test]
fn an_abort_gives_a_put_up_and_keeps_the_connection() {
    let served = Served::start(&[]);
    let mut client = served.client();
    for bytes in [0, 10, 200_000] {
        client.write(&put(1, "file", 300_000));
        client.expect(ACCEPTED, 1);
        if bytes > 0 {
            client.write(&data(1, &pattern(bytes)));
        }
        client.send(ABORT, 1, b"");
        client.expect(ABORTED, 1);
        client.write(&data(1, b"late"));
        client.send(ABORT, 1, b"");
        client.error(1, NO_TRANSFER);
        assert!(served.names().is_empty());
    }
    // All of it at once, and too late.
    client.write(&[put(2, "file", 1), packet(ABORT, 2, b"")].concat());
    client.expect(ACCEPTED, 2);
    client.expect(ABORTED, 2);
    client.write(&[put(3, "file", 1), data(3, b"x"), packet(ABORT, 3, b"")].concat());
    client.expect(ACCEPTED, 3);
    client.expect(STORED, 3);
    client.error(3, NO_TRANSFER);
    drop(client);
    served.stop(&["file"]);
}

#[test]
fn a_put_of_which_nothing_comes_is_given_up() {
    let served = Served::start(&["--offer-timeout", "1s"]);
    let mut client = served.client();
    client.write(&put(1, "file", 10));
    client.expect(ACCEPTED, 1);
    let begun = Instant::now();
    // Each chunk gives it time anew.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(300));
        client.write(&data(1, b"x"));
    }
    client.error(1, EXPIRED);
    assert!(begun.elapsed() >= Duration::from_millis(2_190), "{:?}", begun.elapsed());
    until(|| same(served.daemon.ledger().number("files"), 0));
    client.write(&data(1, b"late"));
    client.echoes();
    // Whoever puts nothing else is not disturbed.
    client.upload(2, "file", b"0123456789", 5);
    drop(client);
    served.stop(&["file"]);
}

/// A client that stalls in the middle of a chunk has no way to say anything else.
#[test]
fn who_stalls_in_a_chunk_is_disconnected() {
    let served = Served::start(&["--write-timeout", "300ms"]);
    for bytes in [100, 1 << 20] {
        let mut client = served.client();
        client.write(&put(1, "file", bytes as u64));
        client.expect(ACCEPTED, 1);
        let chunk = data(1, &pattern(bytes));
        client.write(&chunk[..chunk.len() - 1]);
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
        assert!(rest.is_empty());
    }
    served.has_closed_by("transfer_timeout", 2);
    served.stop(&[]);
}

/// With FIN and with RST, before, in and between chunks: nothing of it stays.
#[test]
fn a_client_that_goes_in_the_middle_leaves_nothing() {
    let served = Served::start(&[]);
    for bytes in [0, 1, 50_000, 300_000, 999_999] {
        for resets in [false, true] {
            let mut client = served.client();
            client.write(&put(1, "file", 2_000_000));
            client.expect(ACCEPTED, 1);
            let chunk = data(1, &pattern(1_000_000));
            client.write(&chunk[..chunk.len() - 1_000_000 + bytes]);
            if resets {
                socket::reset(client.into_stream());
            } else {
                // The rest will not come: an answer still does.
                client.half_close();
                client.error(1, FAILED);
                client.is_at_its_end();
            }
        }
    }
    served.comes_to_rest();
    assert!(served.names().is_empty());
    served.stop(&[]);
}

/// A file above the process's own limit is an error like any other.
#[test]
fn the_limit_of_file_sizes_ends_the_put_and_not_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = command_below("-f 1", &["packets", dir.path().to_str().unwrap()]);
    limited.args(["--listen", "127.0.0.1:0", "--shards", "1"]);
    let server = crate::common::Server::start(&mut limited, "packets");
    // The signal that comes with the error where the shard itself writes (XFS, Btrfs).
    server.signal(libc::SIGXFSZ);
    let mut client = Client::connect(server.address);
    for (id, bytes) in [(1, 2_000), (2, 200_000)] {
        client.write(&[put(id, "file", bytes as u64), data(id, &pattern(bytes))].concat());
        client.expect(ACCEPTED, id);
        client.error(id, TOO_LARGE);
        client.echoes();
    }
    drop(client);
    server.stop().cleanly();
    assert!(super::names_in(dir.path()).is_empty());
}
