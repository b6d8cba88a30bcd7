//! Packets: every request that is no file's, what is wrong with some, and how they are cut.

use super::Served;
use super::client::*;
use crate::common::pattern;
use crate::common::{Server, command};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::net::TcpStream;
use std::time::Instant;

#[test]
fn an_echo_is_the_same_bytes_up_to_the_largest_packet() {
    let served = Served::start(&[]);
    let mut client = served.client();
    for (id, length) in [(0, 0), (1, 1), (u32::MAX, 65_531), (7, 10_000)] {
        let bytes = pattern(length);
        assert_eq!(client.ask(ECHO, id, &bytes, ECHOED), bytes);
    }
    drop(client);
    served.stop(&[]);
}

#[test]
fn a_digest_is_the_sha_256() {
    let served = Served::start(&[]);
    let mut client = served.client();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let sum = client.ask(DIGEST, 1, b"abc", DIGESTED);
    assert_eq!(sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), abc);
    let bytes = pattern(65_531);
    assert_eq!(client.ask(DIGEST, 2, &bytes, DIGESTED), Sha256::digest(&bytes)[..]);
    drop(client);
    served.stop(&[]);
}

/// The sender too; and who comes later does not.
#[test]
fn a_broadcast_reaches_everybody() {
    let served = Served::start(&["--shards", "2"]);
    let mut clients: Vec<Client> = (0..8).map(|_| served.client()).collect();
    for client in &mut clients {
        client.echoes();
    }
    for (number, bytes) in [(0, pattern(65_531)), (5, b"hello".to_vec()), (7, Vec::new())] {
        clients[number].send(BROADCAST, 9, &bytes);
        let mut says = [clients[number].answer(), clients[number].answer()];
        says.sort_by_key(|answer| answer.kind);
        assert_eq!(says[0], Answer { kind: BROADCAST_SENT, id: 9, fields: Vec::new() });
        assert_eq!(says[1], Answer { kind: MESSAGE, id: 0, fields: bytes.clone() });
        for client in clients.iter_mut().enumerate().filter(|(at, _)| *at != number) {
            assert_eq!(client.1.expect(MESSAGE, 0), bytes);
        }
    }
    let mut late = served.client();
    late.echoes();
    drop((clients, late));
    served.stop(&[]);
}

#[test]
fn more_broadcasts_than_a_shard_takes_are_refused_and_lose_nothing_else() {
    let served = Served::start(&[]);
    let mut client = served.client();
    let many: Vec<u8> = (0..5_000).flat_map(|id| packet(BROADCAST, id, b"")).collect();
    let begun = Instant::now();
    client.write(&many);
    client.send(ECHO, 5_000, b"");
    let (mut sent, mut refused, mut messages, mut echoed) = (0_u128, 0, 0, false);
    while !echoed || messages < sent {
        match client.answer().says() {
            (BROADCAST_SENT, _, _) => sent += 1,
            (MESSAGE, 0, _) => messages += 1,
            (ERROR, _, BUSY) => refused += 1,
            (ECHOED, 5_000, _) => echoed = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent + refused, 5_000);
    let most = 32 * (begun.elapsed().as_millis() + 2);
    assert!(sent <= most, "{sent} sent, of at most {most} in that time");
    assert!(sent >= 32 && refused > 0, "{sent} sent, {refused} refused");
    drop(client);
    served.stop(&[]);
}

#[test]
fn packets_may_be_cut_anywhere() {
    let served = Served::start(&[]);
    let stream =
        [packet(ECHO, 1, b"abc"), packet(DIGEST, 2, b""), packet(0x55, 3, b"?"), put(4, "a", 3)];
    let stream = [stream.concat(), data(4, b"xyz"), packet(ECHO, 5, b"")].concat();
    let check = |client: &mut Client| {
        let mut kinds: Vec<(u8, u32, u16)> = (0..6).map(|_| client.answer().says()).collect();
        kinds.sort_unstable();
        let expected = [
            (ECHOED, 1, 0),
            (ECHOED, 5, 0),
            (DIGESTED, 2, 0),
            (ACCEPTED, 4, 0),
            (STORED, 4, 0),
            (ERROR, 3, UNKNOWN_TYPE),
        ];
        assert_eq!(kinds, expected);
        std::fs::remove_file(served.dir.path().join("a")).unwrap();
    };
    let mut client = served.client();
    for byte in &stream {
        client.write(std::slice::from_ref(byte));
    }
    check(&mut client);
    for cut in 0..=stream.len() {
        client.write(&stream[..cut]);
        if cut % 3 == 0 {
            // It has been looked at by now.
            served.client().echoes();
        }
        client.write(&stream[cut..]);
        check(&mut client);
    }
    // And all of them at once, on one connection, answered in step.
    let echoes: Vec<u8> =
        (0..20_000).flat_map(|id: u32| packet(ECHO, id, &id.to_be_bytes())).collect();
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &echoes));
    for id in 0..20_000_u32 {
        assert_eq!(client.expect(ECHOED, id), id.to_be_bytes());
    }
    writing.join().unwrap().unwrap();
    drop(client);
    served.stop(&[]);
}

#[test]
fn what_cannot_be_understood_ends_the_connection_with_an_error() {
    let served = Served::start(&[]);
    let number = 7_u64.to_be_bytes();
    let cases: &[(Vec<u8>, u32, u16)] = &[
        (vec![0, 0, 0, 0], 0, MALFORMED),
        (vec![0, 0, 0, 4, 1, 0, 0, 0], 0, MALFORMED),
        (vec![0, 1, 0, 1], 0, TOO_LONG),
        (vec![0xff; 4], 0, TOO_LONG),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 0, TOO_LONG),
        (packet(TAKE, 3, &number), 3, MALFORMED),
        (packet(TAKE, 3, &[&number[..], &number, b"x"].concat()), 3, MALFORMED),
        (packet(ABORT, 3, b"x"), 3, MALFORMED),
        (packet(PUT, 3, b""), 3, MALFORMED),
        (packet(PUT, 3, &[&[2][..], &number, b"name"].concat()), 3, MALFORMED),
        (packet(DATA, 3, b""), 3, MALFORMED),
        (packet(DATA, 3, &[0; 4]), 3, MALFORMED),
        (packet(DATA, 3, &(4_194_305_u32).to_be_bytes()), 3, TOO_LONG),
    ];
    for (bytes, id, code) in cases {
        let mut client = served.client();
        // What came before is answered, what comes behind is not.
        client.write(&[packet(ECHO, 1, b"before"), bytes.clone(), packet(ECHO, 2, b"")].concat());
        assert_eq!(client.expect(ECHOED, 1), b"before");
        client.error(*id, *code);
        client.is_at_its_end();
    }
    served.has_closed_by("protocol_error", cases.len() as u64);
    served.stop(&[]);
}

#[test]
fn what_is_wrong_with_one_request_leaves_the_next_alone() {
    let served = Served::start(&[]);
    let mut client = served.client();
    client.send(0x0d, 1, b"fields");
    client.error(1, UNKNOWN_TYPE);
    client.send(0, 2, b"");
    client.error(2, UNKNOWN_TYPE);
    let long = "n".repeat(256);
    for name in ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "a\0", &long] {
        for kind in [GET, DIGEST_FILE, LIST] {
            if (kind, name) != (LIST, "") {
                client.send(kind, 3, name.as_bytes());
                client.error(3, BAD_NAME);
            }
        }
        client.write(&put(4, name, 1));
        client.error(4, BAD_NAME);
    }
    client.write(&take(5, 0, 1));
    client.error(5, NO_TRANSFER);
    client.send(ABORT, 6, b"");
    client.error(6, NO_TRANSFER);
    client.echoes();
    drop(client);
    served.stop(&[]);
}

#[test]
fn a_packet_that_does_not_end_is_an_error_in_time() {
    let served = Served::start(&["--request-timeout", "200ms"]);
    let mut client = served.client();
    client.write(&packet(ECHO, 1, b"abc")[..7]);
    client.error(0, EXPIRED);
    client.is_at_its_end();
    drop(client);
    served.has_closed_by("receive_timeout", 1);
    served.stop(&[]);
}

/// Answers that are not read hold the client back, and nobody else.
#[test]
fn who_does_not_read_is_not_read_from() {
    let served = Served::start(&[]);
    let stalled = TcpStream::connect(served.daemon.address).unwrap();
    stalled.set_nonblocking(true).unwrap();
    let echo = packet(ECHO, 1, &pattern(65_531));
    let (mut written, mut full) = (0, 0);
    while full < 100 {
        match std::io::Write::write(&mut &stalled, &echo[written % echo.len()..]) {
            Ok(count) => (written, full) = (written + count, 0),
            Err(_) => {
                full += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        assert!(written < 200 << 20, "it reads on and on");
    }
    assert!(served.daemon.resident_kib() < 100 << 10, "{} KiB", served.daemon.resident_kib());
    let mut other = served.client();
    other.echoes();
    // Broadcasts pass it by.
    for id in 0..100 {
        other.send(BROADCAST, id, &pattern(60_000));
        let mut kinds = [other.answer().kind, other.answer().kind];
        kinds.sort_unstable();
        assert_eq!(kinds, [BROADCAST_SENT, MESSAGE]);
    }
    // Nothing is lost of what it asked: all of it comes as soon as it reads.
    stalled.set_nonblocking(false).unwrap();
    let mut stalled = Client::on(stalled);
    for _ in 0..written / echo.len() {
        let mut answer = stalled.answer();
        while answer.kind == MESSAGE {
            answer = stalled.answer();
        }
        assert_eq!(answer.says(), (ECHOED, 1, 0));
    }
    drop((stalled, other));
    served.stop(&[]);
}

/// However much has come of what it asked, and however little it takes.
#[test]
fn what_is_queued_for_a_slow_reader_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let arguments = ["packets", path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let server = Server::start_with_admin(&mut command(&arguments), "packets");
    let mut stream = TcpStream::connect(server.address).unwrap();
    let mut writer = stream.try_clone().unwrap();
    // Each is answered with several times as many bytes.
    let writing = std::thread::spawn(move || {
        let many = packet(0x77, 1, b"").repeat(10_000);
        while std::io::Write::write_all(&mut writer, &many).is_ok() {}
    });
    let mut admin = server.admin();
    let mut most = 0;
    for _ in 0..400 {
        stream.read_exact(&mut [0; 50_000]).unwrap();
        let reply = admin.request("GET", "/connections");
        let connections: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        most = most.max(connections["connections"][0]["queued_bytes"].as_u64().unwrap());
    }
    assert!((64 << 10..320 << 10).contains(&most), "{most} bytes were queued");
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    writing.join().unwrap();
    drop((stream, admin));
    server.stop().cleanly();
}

/// The example of `PACKETS.md`, byte by byte.
#[test]
fn the_documented_bytes_are_those_on_the_wire() {
    let served = Served::start(&[]);
    let page = include_str!("../../../PACKETS.md");
    let example: Vec<Vec<u8>> =
        page.split("```").nth(1).unwrap().trim().lines().map(bytes).collect();
    let mut client = served.client();
    client.write(&example[0]);
    let mut answer = vec![0; example[1].len()];
    client.stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, example[1]);
    client.half_close();
    client.is_at_its_end();
    served.stop(&[]);
}

fn bytes(line: &str) -> Vec<u8> {
    line.split_whitespace().map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect()
}
