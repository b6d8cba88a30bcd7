//! Against servers that misbehave in one way each: it must be named, and the run must fail.

use crate::support::{
    EARLY, LONG, SOON, address_of_its_own, echo, http, nobody, ok, reset_on_close, run_echo,
    run_http, server, start, stop_listening,
};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn a_wrong_byte_in_an_echo() {
    let address = server(|stream| {
        echo(stream, |bytes, offset| {
            // The hundredth byte, wherever the reads were cut.
            if let Some(at) = 100_u64.checked_sub(offset)
                && let Some(byte) = bytes.get_mut(at as usize)
            {
                *byte ^= 1;
            }
            true
        });
    });
    let ended = run_echo(address, "-n 8 -c 1");
    let first = &ended.only("wrong_bytes").report["first_errors"]["wrong_bytes"];
    assert!(first.as_str().is_some_and(|text| text.contains("byte 100 is")), "{ended}");
    // One good message before each wrong one, which costs its connection.
    assert_eq!((ended.count("requests"), ended.count("replies")), (8, 4), "{ended}");
    assert_eq!(ended.report["errors"]["wrong_bytes"], 4);
}

#[test]
fn a_body_that_is_not_the_first_one() {
    for (other, says) in [("hellp", "differs"), ("hell", "4 bytes")] {
        let address = server(move |stream| {
            http(stream, |_, number| {
                Some(ok(if number == 5 { other } else { "hello" }.as_bytes()))
            });
        });
        let ended = run_http(address, "-n 10 -c 1");
        let first = &ended.only("wrong_bytes").report["first_errors"]["wrong_bytes"];
        assert!(first.as_str().is_some_and(|text| text.contains(says)), "{ended}");
        assert_eq!((ended.count("replies"), ended.count("connections_opened")), (10, 1), "{ended}");
        assert_eq!(ended.report["errors"]["wrong_bytes"], 1);
    }
}

/// Serves the replies in turn, over all connections.
fn in_turn(replies: &'static [&[u8]]) -> std::net::SocketAddr {
    let count = Arc::new(AtomicUsize::new(0));
    server(move |stream| {
        let count = count.clone();
        http(stream, move |_, _| {
            let at = count.fetch_add(1, Ordering::Relaxed);
            Some(replies[at % replies.len()].to_vec())
        });
    })
}

#[test]
fn bodies_that_differ_are_errors_unless_they_may_vary() {
    let address = in_turn(&[
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nbb",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nccc\r\n0\r\n\r\n",
    ]);
    let ended = run_http(address, "-n 30 -c 1");
    ended.only("wrong_bytes");
    assert_eq!(ended.report["errors"]["wrong_bytes"], 20, "{ended}");
    let ended = run_http(address, "-n 30 -c 1 --vary-ok");
    ended.passed();
    assert_eq!(ended.count("deviating_bodies"), 20, "{ended}");
    assert!(ended.stdout.contains("20 of 30 replies had another body"), "{ended}");
    // Framing and status are still checked.
    let address = in_turn(&[b"HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\na"]);
    run_http(address, "-n 3 -c 1 --vary-ok").only("bad_status");
    let address = in_turn(&[b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\na"]);
    run_http(address, "-n 3 -c 1 --bodies-may-vary").only("protocol");
}

#[test]
fn an_odd_first_reply_is_one_error_and_a_redirection_none() {
    const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const EARLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
    const FOUND: &[u8] = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    static ODD: [&[u8]; 5] = [EARLY, HELLO, HELLO, HELLO, HELLO];
    let ended = run_http(in_turn(&ODD), "-n 5 -c 1");
    ended.only("wrong_bytes");
    assert_eq!(ended.report["errors"]["wrong_bytes"], 1, "{ended}");
    static MOVED: [&[u8]; 5] = [FOUND, HELLO, HELLO, HELLO, HELLO];
    run_http(in_turn(&MOVED), "-n 5 -c 1").passed();
}

#[test]
fn a_close_in_the_middle_of_a_reply() {
    let address = server(|stream| {
        let mut writer = stream.try_clone().expect("a second descriptor");
        http(stream, |_, number| {
            if number < 2 {
                return Some(ok(b"hello"));
            }
            writer.write_all(&ok(b"hello")[..42]).ok()?;
            None
        });
    });
    let ended = run_http(address, "-n 6 -c 1");
    let first = &ended.only("eof").report["first_errors"]["eof"];
    assert!(first.as_str().is_some_and(|text| text.contains("in the middle")), "{ended}");
    assert_eq!((ended.count("replies"), ended.count("connections_opened")), (4, 2), "{ended}");

    let address = server(|stream| echo(stream, |_, offset| offset < 64));
    let ended = run_echo(address, "-n 4 -c 1");
    let first = &ended.only("eof").report["first_errors"]["eof"];
    assert!(first.as_str().is_some_and(|text| text.contains("64 of 128 bytes")), "{ended}");
}

/// The first connection is ended after one reply, all others before the first one.
#[test]
fn a_request_is_repeated_once_and_a_fresh_connection_must_answer() {
    let is_first = Arc::new(AtomicBool::new(true));
    let address = server(move |mut stream| {
        let mut request = [0; 1024];
        let first = is_first.swap(false, Ordering::Relaxed);
        if stream.read(&mut request).unwrap_or(0) > 0 && first {
            let _ = stream.write_all(&ok(b"hello"));
            let _ = stream.read(&mut request);
        }
    });
    let ended = run_http(address, "-n 4 -c 1");
    ended.only("eof");
    // The second attempt of one request, and the only one of two others.
    assert_eq!(ended.report["errors"]["eof"], 3, "{ended}");
    assert_eq!((ended.count("repeated"), ended.count("lost")), (1, 3), "{ended}");
    assert_eq!((ended.count("requests"), ended.count("replies")), (4, 1), "{ended}");
}

#[test]
fn an_interim_reply_is_the_beginning_of_a_reply() {
    let address = server(|stream| {
        let mut writer = stream.try_clone().expect("a second descriptor");
        http(stream, |_, number| {
            if number == 0 {
                return Some(ok(b"hello"));
            }
            writer.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").ok()?;
            None
        });
    });
    let ended = run_http(address, "-n 4 -c 1");
    ended.only("eof");
    assert_eq!(ended.count("repeated"), 0, "{ended}");
}

#[test]
fn disconnects_are_errors_unless_they_are_expected() {
    for reset in [false, true] {
        // The second message is cut.
        let address = server(move |stream| {
            if reset {
                reset_on_close(&stream);
            }
            let mut writer = stream.try_clone().expect("a second descriptor");
            echo(stream, move |bytes, offset| {
                if offset >= 64 {
                    let _ = writer.write_all(&bytes[..7]);
                }
                offset < 64
            });
        });
        let ended = run_echo(address, "-n 20 -c 1");
        assert_eq!((ended.status, ended.count("disconnects")), (1, 0), "{ended}");
        let ended = run_echo(address, "-n 20 -c 1 --expect-disconnects");
        ended.passed();
        assert_eq!((ended.count("disconnects"), ended.count("lost")), (10, 10), "{ended}");
        assert!(ended.stdout.contains("disconnects: 10"), "{ended}");
        // They take no time: a connection that has answered is replaced at once.
        assert!(ended.took < SOON, "{ended}");
    }
    // Wrong bytes stay errors.
    let address = server(|stream| {
        echo(stream, |bytes, _| {
            bytes[0] ^= 1;
            true
        });
    });
    run_echo(address, "-n 2 -c 1 --expect-disconnects").only("wrong_bytes");
}

#[test]
fn a_reset() {
    let address = server(|stream| {
        reset_on_close(&stream);
        echo(stream, |_, offset| offset < 64);
    });
    let ended = run_echo(address, "-n 4 -c 1");
    assert_eq!(ended.only("reset").report["errors"]["reset"], 2, "{ended}");
    assert_eq!((ended.count("requests"), ended.count("replies")), (4, 2), "{ended}");
}

#[test]
fn no_answer() {
    let address = server(|mut stream| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
    });
    let ended = run_http(address, "-n 4 -c 2 --timeout 200ms");
    assert_eq!(ended.only("timeout").report["errors"]["timeout"], 4, "{ended}");
    assert!(ended.took < SOON, "{ended}");

    // The end of the run does not save a server that hangs, not even half of the time.
    let hanging = Arc::new(AtomicBool::new(false));
    let address = server(move |mut stream| {
        if hanging.fetch_xor(true, Ordering::Relaxed) {
            let _ = stream.read_to_end(&mut Vec::new());
        } else {
            echo(stream, |_, _| true);
        }
    });
    let ended = run_echo(address, "-d 200ms -c 6 --timeout 600ms");
    assert_eq!(ended.only("timeout").report["errors"]["timeout"], 3, "{ended}");
    assert_eq!(ended.status, 1, "{ended}");
    assert!(ended.took < SOON, "{ended}");
}

#[test]
fn a_reply_in_time_keeps_the_connection_from_its_timeout() {
    let address = server(|stream| {
        echo(stream, |_, _| {
            thread::sleep(Duration::from_millis(60));
            true
        });
    });
    let ended = run_echo(address, "-n 20 -c 1 --timeout 1s");
    ended.passed();
    assert_eq!((ended.count("replies"), ended.count("connections_opened")), (20, 1), "{ended}");
}

#[test]
fn nobody_listens() {
    let address = nobody();
    for options in [format!("-d {LONG} -c 4"), "-n 1k -c 4 -t 2".into()] {
        let ended = run_echo(address, &options);
        assert_eq!((ended.status, &ended.report["outcome"]), (3, &"unreachable".into()), "{ended}");
        assert!(ended.report["errors"]["connect_refused"].as_u64() > Some(0), "{ended}");
        assert!(ended.stdout.contains("Connection refused"), "{ended}");
        assert!(ended.took < EARLY, "{ended}");
    }
    let ended = start("echo", "no-such-host.invalid:1", "").end();
    assert_eq!(ended.status, 3, "{ended}");
}

#[test]
fn a_server_that_goes_away() {
    let listener = TcpListener::bind(address_of_its_own()).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        stop_listening(listener);
        echo(stream, |_, offset| offset < 10 * 64);
    });
    let ended = run_echo(address, "-n 15 -c 1");
    server.join().expect("no panic");
    assert_eq!((ended.status, ended.count("replies")), (1, 10), "{ended}");
    assert_eq!(ended.report["errors"]["eof"], 1, "{ended}");
    assert_eq!(ended.report["errors"]["connect_refused"], 4, "{ended}");

    // Many requests are left, but ringload waits for the server only as long as for a reply.
    let ended = {
        let listener = TcpListener::bind(address_of_its_own()).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let server = thread::spawn(move || {
            let (_stream, _) = listener.accept().expect("a client");
            stop_listening(listener);
        });
        let ended = run_echo(address, "-n 1M -c 1 --timeout 500ms");
        server.join().expect("no panic");
        ended
    };
    assert_eq!((ended.status, ended.count("connections_opened")), (1, 1), "{ended}");
    assert!(ended.took < EARLY, "{ended}");
}

#[test]
fn a_bad_status() {
    let address = server(|stream| {
        http(stream, |_, number| {
            let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
            Some(if number % 2 == 0 { ok(b"hello") } else { busy.into() })
        });
    });
    let ended = run_http(address, "-n 10 -c 1");
    assert_eq!(ended.only("bad_status").report["errors"]["bad_status"], 5, "{ended}");
    assert_eq!(ended.report["statuses"], serde_json::json!({ "200": 5, "503": 5 }));
    assert_eq!((ended.count("replies"), ended.count("connections_opened")), (10, 1), "{ended}");
    assert!(ended.stdout.contains("200: 5, 503: 5"), "{ended}");
}

#[test]
fn another_protocol() {
    let greeting = server(|mut stream| {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    run_http(greeting, "-n 2 -c 1").only("protocol");

    let twice = server(|stream| http(stream, |_, _| Some(ok(b"hello").repeat(2))));
    let ended = run_http(twice, "-n 2 -c 1");
    let first = &ended.only("protocol").report["first_errors"]["protocol"];
    assert!(
        first.as_str().is_some_and(|text| text.contains("43 bytes without a request")),
        "{ended}"
    );
}

/// Reads a whole request of each of two connections, and answers each with the other's.
fn mixes_up(request_bytes: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        let mut clients: Vec<_> = (0..2).map(|_| listener.accept().expect("a client").0).collect();
        let requests: Vec<Vec<u8>> = clients
            .iter_mut()
            .map(|client| {
                let mut request = vec![0; request_bytes];
                client.read_exact(&mut request).expect("a request");
                request
            })
            .collect();
        for (client, request) in clients.iter_mut().zip(requests.iter().rev()) {
            client.write_all(request).expect("the client waits for it");
        }
        clients.iter_mut().for_each(|client| drop(client.read_to_end(&mut Vec::new())));
    });
    address
}

#[test]
fn another_connections_bytes_are_traced_to_it() {
    let ended = run_echo(mixes_up(100), "-n 2 -c 2 --size 100");
    let first = &ended.only("foreign_bytes").report["first_errors"]["foreign_bytes"];
    let traced = ["01", "10"].map(|both| {
        let (whose, found) = both.split_at(1);
        let says = |text: &str| text.starts_with(&format!("connection {whose}: byte 0 is "));
        let home = format!(": these bytes belong to offset 0 of connection {found}");
        first.as_str().is_some_and(|text| says(text) && text.ends_with(&home))
    });
    assert!(traced[0] || traced[1], "{ended}");
}
