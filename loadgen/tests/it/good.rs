//! Against servers that do what they must: everything is counted, and nothing is wrong.

use crate::support::{EARLY, echo, http, ok, reset_on_close, run_echo, run_http, server, start};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn every_echoed_byte_is_counted() {
    let address = server(|stream| echo(stream, |_, _| true));
    let ended = run_echo(address, "-n 1k -c 8 --size 100 --pipeline 4");
    ended.passed();
    for (name, count) in
        [("requests", 1_000), ("replies", 1_000), ("unfinished", 0), ("connections_opened", 8)]
    {
        assert_eq!(ended.count(name), count, "{name}\n{ended}");
    }
    assert_eq!((ended.count("sent_bytes"), ended.count("received_bytes")), (100_000, 100_000));
    assert_eq!(ended.report["service_time_us"]["samples"], 1_000);
    assert_eq!(ended.report["connect_time_us"]["samples"], 8);
    assert!(ended.report["service_time_us"]["p50"].as_f64() > Some(1.0), "{ended}");
}

#[test]
fn messages_larger_than_every_buffer_come_back() {
    let address = server(|stream| echo(stream, |_, _| true));
    let ended = run_echo(address, "-n 40 -c 2 --size 1.5MiB --pipeline 2");
    ended.passed();
    assert_eq!(ended.count("received_bytes"), 40 * (3 << 19), "{ended}");
}

#[test]
fn a_run_for_a_time_ends_in_time_with_nothing_in_flight() {
    let address = server(|stream| echo(stream, |_, _| true));
    let ended = run_echo(address, "-d 300ms -c 7 -t 2");
    ended.passed();
    assert_eq!(ended.count("requests"), ended.count("replies"), "{ended}");
    assert_eq!(ended.count("connections_opened"), 7, "{ended}");
    let elapsed = ended.report["elapsed_s"].as_f64().expect("a number");
    assert!((0.3..10.0).contains(&elapsed), "{ended}");
    let rate = ended.report["replies_per_s"].as_f64().expect("a number");
    assert!((rate * elapsed - ended.count("replies") as f64).abs() < 1.0, "{ended}");
}

#[test]
fn http_requests_arrive_as_asked_and_connections_are_renewed() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let address = server({
        let heads = heads.clone();
        move |stream| {
            http(stream, |head, _| {
                heads.lock().expect("no panic").push(head.to_string());
                Some(ok(b"hello"))
            });
        }
    });
    let ended = run_http(address, "-n 500 -c 4 --requests-per-connection 10 -H X-Test:yes");
    ended.passed();
    assert_eq!(ended.report["statuses"], serde_json::json!({ "200": 500 }));
    // The last four share what is left, and need not come to ten each.
    assert!((50..=53).contains(&ended.count("connections_opened")), "{ended}");
    let heads = heads.lock().expect("no panic");
    assert_eq!(heads.len(), 500);
    let expected = format!("GET / HTTP/1.1\r\nHost: {address}\r\nX-Test: yes\r\n\r\n");
    assert!(heads.iter().all(|head| *head == expected), "{:?}", heads[0]);
}

#[test]
fn a_server_that_closes_after_each_reply_is_connected_to_again() {
    for framing in ["Connection: close\r\nContent-Length: 5\r\n", ""] {
        let address = server(move |mut stream| {
            let mut request = [0; 1024];
            if stream.read(&mut request).unwrap_or(0) > 0 {
                let reply = format!("HTTP/1.1 200 OK\r\n{framing}\r\nhello");
                stream.write_all(reply.as_bytes()).expect("the client waits for it");
            }
        });
        // With two in flight one stays unanswered; it is no error, and sent again.
        for pipeline in [1, 2] {
            let ended = run_http(address, &format!("-n 50 -c 4 --pipeline {pipeline}"));
            ended.passed();
            assert_eq!((ended.count("requests"), ended.count("replies")), (50, 50), "{ended}");
            assert!(ended.count("connections_opened") >= 50, "{ended}");
        }
    }
}

/// A 204 or a 304 may announce a length but has no body, and a head may be long.
#[test]
fn a_reply_without_a_body_and_a_long_head_are_read() {
    let cookies = format!("Set-Cookie: {}\r\n", "x".repeat(4_000)).repeat(15);
    for head in [
        "204 No Content\r\nContent-Length: 0\r\n".into(),
        "204 No Content\r\nContent-Length: 5\r\n".into(),
        "304 Not Modified\r\nTransfer-Encoding: chunked\r\n".into(),
        "103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No Content\r\n".into(),
        format!("200 OK\r\nContent-Length: 0\r\n{cookies}"),
    ] {
        let reply = format!("HTTP/1.1 {head}\r\n");
        let address = server(move |stream| {
            let reply = reply.clone();
            http(stream, move |_, _| Some(reply.clone().into_bytes()));
        });
        let ended = run_http(address, "-n 6 -c 1");
        ended.passed();
        assert_eq!((ended.count("replies"), ended.count("connections_opened")), (6, 1), "{ended}");
    }
}

/// A proxy ends an idle connection with a reply that no request asked for.
#[test]
fn a_408_on_an_idle_connection_is_a_polite_end() {
    const GOODBYE: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 4\r\n\r\nidle";
    for at in [GOODBYE.len(), 10] {
        let address = server(move |mut stream| {
            let mut request = [0; 1024];
            if stream.read(&mut request).unwrap_or(0) > 0 {
                let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
                stream.write_all(reply).expect("the client waits for it");
                thread::sleep(Duration::from_millis(50));
                let _ = stream.write_all(&GOODBYE[..at]);
                thread::sleep(Duration::from_millis(5));
                let _ = stream.write_all(&GOODBYE[at..]);
            }
        });
        let ended = run_http(address, "-n 4 -R 3 -c 1");
        assert_eq!(ended.count("errors_total"), 0, "{ended}");
        assert_eq!(ended.count("replies"), 4, "{ended}");
        assert!(ended.count("closed_idle") >= 3, "{ended}");
    }
}

/// The end of a connection that meets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
    /// A reply that announces the end of an idle connection.
    Goodbye,
}

/// Answers the first request on each connection, and ends it while a second one is on its way.
fn ends_kept_connections(end: End) -> std::net::SocketAddr {
    const GOODBYE: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    server(move |mut stream| {
        let mut request = [0; 1024];
        for reply in [&ok(b"hello")[..], if end == End::Goodbye { GOODBYE } else { b"" }] {
            if stream.read(&mut request).unwrap_or(0) == 0 || stream.write_all(reply).is_err() {
                return;
            }
        }
        if end == End::Reset {
            reset_on_close(&stream);
        }
    })
}

#[test]
fn a_request_that_meets_the_end_of_a_kept_connection_is_repeated_once() {
    for end in [End::Fin, End::Reset, End::Goodbye] {
        for options in ["-n 20 -c 2", "-n 20 -c 2 -R 200"] {
            let ended = run_http(ends_kept_connections(end), options);
            assert_eq!(ended.count("errors_total"), 0, "{ended}");
            for name in ["requests", "replies"] {
                assert_eq!(ended.count(name), 20, "{name}\n{ended}");
            }
            // All but the first request on each of the two first connections meet an end, or on one
            // of them, if the other one is opened too late.
            assert!((18..=19).contains(&ended.count("repeated")), "{ended}");
            assert_eq!((ended.count("lost"), ended.count("unfinished")), (0, 0), "{ended}");
            assert!(ended.stdout.contains("repeated      "), "{ended}");
        }
    }
}

/// Latency counts from the first start, and nothing is pipelined behind a repeated request.
#[test]
fn repeated_requests_are_sent_one_by_one_and_take_the_time_of_both_attempts() {
    let connections = Arc::new(AtomicU64::new(0));
    let most = Arc::new(AtomicU64::new(0));
    let address = server({
        let (connections, most) = (connections.clone(), most.clone());
        move |mut stream| {
            let is_first = connections.fetch_add(1, Ordering::Relaxed) == 0;
            let (mut bytes, mut answered) = ([0; 4096], 0);
            loop {
                let count = stream.read(&mut bytes).unwrap_or(0);
                if count == 0 {
                    return;
                }
                let heads = bytes[..count].windows(4).filter(|part| part == b"\r\n\r\n").count();
                if !is_first && answered == 0 {
                    most.fetch_max(heads as u64, Ordering::Relaxed);
                }
                if is_first && answered > 0 {
                    thread::sleep(Duration::from_millis(300));
                    return;
                }
                let replies = if is_first { 1 } else { heads };
                answered += replies;
                if stream.write_all(&ok(b"hello").repeat(replies)).is_err() {
                    return;
                }
                if is_first {
                    thread::sleep(Duration::from_millis(300));
                    return;
                }
            }
        }
    });
    let ended = run_http(address, "-n 12 -c 1 --pipeline 4");
    ended.passed();
    assert!((3..=4).contains(&ended.count("repeated")), "{ended}");
    assert_eq!((ended.count("requests"), ended.count("replies")), (12, 12), "{ended}");
    assert_eq!(most.load(Ordering::Relaxed), 1, "{ended}");
    let longest = ended.report["service_time_us"]["max"].as_f64().expect("a number");
    assert!(longest >= 250_000.0, "{ended}");
}

/// A server that answers and keeps its side open for longer than the client waits.
#[test]
fn a_server_that_closes_late_does_not_slow_the_load_down() {
    for (announced, options) in [("Connection: close\r\n", ""), ("", "--requests-per-connection 1")]
    {
        let reply = format!("HTTP/1.1 200 OK\r\n{announced}Content-Length: 5\r\n\r\nhello");
        let address = server(move |mut stream| {
            let mut request = [0; 1024];
            if stream.read(&mut request).unwrap_or(0) > 0 {
                stream.write_all(reply.as_bytes()).expect("the client waits for it");
                thread::sleep(Duration::from_secs(60));
            }
        });
        let begun = std::time::Instant::now();
        let ended = run_http(address, &format!("-n 100 -c 1 {options}"));
        ended.passed();
        assert_eq!(ended.count("replies"), 100, "{ended}");
        // A second each, and 100 in all, is what the server takes.
        assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    }
}

#[test]
fn chunks_and_dribbled_replies_are_put_together() {
    let body: Vec<u8> = (0..30_000_u32).flat_map(u32::to_le_bytes).collect();
    let address = server(move |stream| {
        let mut writer = stream.try_clone().expect("a second descriptor");
        http(stream, |_, number| {
            let mut reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(1_000 + 77 * number as usize) {
                reply.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                reply.extend_from_slice(chunk);
                reply.extend_from_slice(b"\r\n");
            }
            reply.extend_from_slice(b"0\r\n\r\n");
            for part in reply.chunks(7_001) {
                writer.write_all(part).ok()?;
                thread::sleep(Duration::from_micros(100));
            }
            Some(Vec::new())
        });
    });
    let ended = run_http(address, "-n 20 -c 2");
    ended.passed();
    assert_eq!(ended.count("replies"), 20, "{ended}");
}

#[test]
fn the_seed_makes_the_bytes() {
    let sums = || {
        let sum = Arc::new(AtomicU64::new(0));
        let address = server({
            let sum = sum.clone();
            move |stream| {
                let sum = sum.clone();
                echo(stream, move |bytes, _| {
                    let bytes = bytes.iter().map(|byte| u64::from(*byte)).sum();
                    sum.fetch_add(bytes, Ordering::Relaxed);
                    true
                });
            }
        });
        (address, sum)
    };
    let [one, again, other] = ["7", "7", "8"].map(|seed| {
        let (address, sum) = sums();
        let ended = run_echo(address, &format!("-n 10 -c 1 --seed {seed}"));
        ended.passed();
        assert_eq!(ended.report["environment"]["seed"].to_string(), seed);
        sum.load(Ordering::Relaxed)
    });
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[test]
fn a_line_is_printed_per_second_unless_quiet() {
    let address = server(|stream| echo(stream, |_, _| true));
    let ended = run_echo(address, "-d 2s -c 2");
    ended.passed();
    assert!(ended.stderr.contains("replies/s") && ended.stderr.contains("2.0s"), "{ended}");
    let intervals = ended.report["intervals"].as_array().expect("an array");
    assert_eq!(intervals.len(), 2, "{ended}");
    assert!(intervals.iter().all(|line| line["replies"].as_u64() > Some(0)), "{ended}");
    let quiet = run_echo(address, "-d 1200ms -c 2 --quiet");
    assert_eq!(quiet.passed().stderr, "");
    assert_eq!(quiet.report["intervals"].as_array().map(Vec::len), Some(1), "{quiet}");
}

#[test]
fn the_ring_that_is_asked_for_is_named() {
    let address = server(|stream| echo(stream, |_, _| true));
    let ended = run_echo(address, "-n 10 -c 1 --ring epoll");
    assert_eq!(ended.passed().report["environment"]["ring"], "epoll", "{ended}");
    assert!(ended.stdout.contains("\nring          epoll\n"), "{ended}");
}

#[test]
fn localhost_is_found_on_whichever_address_it_listens() {
    let address = server(|stream| echo(stream, |_, _| true));
    let name = format!("localhost:{}", address.port());
    let ended = start("echo", &name, "-n 10 -c 1").end();
    ended.passed();
    assert_eq!(ended.report["plan"]["address"], address.to_string());
}

/// The wait begins with the reply, and the end of the run does not wait for it.
#[test]
fn a_connection_thinks_between_a_reply_and_its_next_request() {
    const THINK: Duration = Duration::from_millis(100);
    let waits = Arc::new(Mutex::new(Vec::new()));
    let address = server({
        let waits = waits.clone();
        move |stream| {
            let mut answered: Option<Instant> = None;
            http(stream, |_, _| {
                let wait = answered.map(|answered| answered.elapsed());
                waits.lock().expect("no panic").extend(wait);
                answered = Some(Instant::now());
                Some(ok(b"hello"))
            });
        }
    });
    let ended = run_http(address, "-n 12 -c 3 --think 100ms");
    ended.passed();
    assert_eq!((ended.count("replies"), ended.count("connections_opened")), (12, 3), "{ended}");
    assert_eq!(ended.report["plan"]["think_s"], 0.1, "{ended}");
    let waits = std::mem::take(&mut *waits.lock().expect("no panic"));
    // The engine's clock counts whole milliseconds.
    let least = THINK - Duration::from_millis(1);
    assert!(waits.len() == 9 && waits.iter().all(|wait| *wait >= least), "{waits:?}");
    let ended = run_http(address, "-d 200ms -c 3 --think 1h");
    ended.passed();
    assert_eq!((ended.count("replies"), ended.took < EARLY), (3, true), "{ended}");
    let ended = run_http(address, "-n 4 -c 1 --requests-per-connection 1 --think 1h");
    assert_eq!((ended.passed().count("replies"), ended.took < EARLY), (4, true), "{ended}");
}
