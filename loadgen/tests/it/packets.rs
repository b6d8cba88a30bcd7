//! Load on packet servers: on good ones, and on such as misbehave in one way each.

use crate::support::packets::{DIGEST, ECHO, Files, Request, error, packet, packets};
use crate::support::{SOON, run_packets, server};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// A server whose answers pass through what `twist` makes for each connection.
fn serve<T>(twist: impl Fn() -> T + Clone + Send + 'static) -> SocketAddr
where
    T: FnMut(&Request, Vec<u8>) -> Option<Vec<u8>>,
{
    server(move |stream| packets(stream, &Files::default(), twist()))
}

/// A server that changes the answers to one kind of request.
fn change(
    kind: u8,
    how: impl Fn(&Request, Vec<u8>) -> Vec<u8> + Clone + Send + 'static,
) -> SocketAddr {
    serve(move || {
        let how = how.clone();
        move |request: &Request, answer| {
            Some(if request.kind == kind { how(request, answer) } else { answer })
        }
    })
}

#[test]
fn echoes_and_digests_are_checked_and_counted() {
    let digests = Arc::new(AtomicU64::new(0));
    let address = serve({
        let digests = digests.clone();
        move || {
            let digests = digests.clone();
            move |request: &Request, answer| {
                digests.fetch_add((request.kind == DIGEST).into(), Ordering::Relaxed);
                Some(answer)
            }
        }
    });
    let ended = run_packets(address, "-n 1k -c 8 --size 100 --pipeline 4");
    ended.passed();
    for (name, count) in
        [("requests", 1_000), ("replies", 1_000), ("connections_opened", 8), ("unfinished", 0)]
    {
        assert_eq!(ended.count(name), count, "{name}\n{ended}");
    }
    let digests = digests.load(Ordering::Relaxed);
    // A quarter, but for what is left over on each connection.
    assert!((242..=258).contains(&digests), "{digests}");
    let received = (1_000 - digests) * (9 + 100) + digests * (9 + 32);
    assert_eq!(ended.count("sent_bytes"), 1_000 * (9 + 100), "{ended}");
    assert_eq!(ended.count("received_bytes"), received, "{ended}");
    assert_eq!(ended.report["service_time_us"]["samples"], 1_000, "{ended}");
    assert_eq!(ended.report["plan"]["digest_every"], 4, "{ended}");
    assert!(ended.stderr.contains("1 request in 4 is a digest"), "{ended}");
}

#[test]
fn packets_of_the_largest_size_come_back() {
    let address = serve(|| |_: &Request, answer| Some(answer));
    let ended = run_packets(address, "-n 60 -c 2 --size 65531 --pipeline 4 --digest-every 3");
    ended.passed();
    assert_eq!(ended.count("replies"), 60, "{ended}");
}

#[test]
fn every_request_or_none_is_a_digest() {
    for (every, other) in [("1", ECHO), ("0", DIGEST)] {
        let address = change(other, |request, _| error(request.id, 3, "not asked for"));
        let options = format!("-n 50 -c 3 --requests-per-connection 4 --digest-every {every}");
        run_packets(address, &options).passed();
    }
}

#[test]
fn echoes_may_overtake_digests() {
    let address = serve(|| {
        let mut held = Vec::new();
        move |request: &Request, answer: Vec<u8>| {
            if request.kind == DIGEST {
                held.extend(answer);
                return Some(Vec::new());
            }
            Some([answer, std::mem::take(&mut held)].concat())
        }
    });
    // The last two are echoes: no digest is held for ever.
    let ended = run_packets(address, "-n 14 -c 1 --pipeline 8");
    ended.passed();
    assert_eq!(ended.count("replies"), 14, "{ended}");
}

#[test]
fn an_answer_that_is_overtaken_has_taken_long() {
    let address = serve(|| {
        let (mut held, mut echoes) = (Vec::new(), 0);
        move |request: &Request, answer: Vec<u8>| {
            if request.kind == DIGEST {
                held = answer;
                return Some(Vec::new());
            }
            thread::sleep(Duration::from_millis(5));
            echoes += 1;
            Some(if echoes == 50 { [&held[..], &answer].concat() } else { answer })
        }
    });
    // The 30th of 55 is a digest; twenty echoes of 5 ms overtake it.
    let ended = run_packets(address, "-n 55 -c 1 --pipeline 2 --digest-every 30");
    ended.passed();
    let times = &ended.report["service_time_us"];
    assert!(times["max"].as_f64() > Some(100_000.0), "{ended}");
    assert!(times["p50"].as_f64() < Some(50_000.0), "{ended}");
}

#[test]
fn broadcasts_of_others_do_not_matter() {
    let message = packet(0x90, [0; 4], b"hello, all");
    let address = change(ECHO, move |_, answer| [&message[..], &answer, &message].concat());
    run_packets(address, "-n 50 -c 2 --pipeline 3").passed();
}

#[test]
fn a_wrong_digest() {
    let address = change(DIGEST, |_, mut answer| {
        answer[20] ^= 1;
        answer
    });
    let ended = run_packets(address, "-n 20 -c 1");
    let first = &ended.only("wrong_bytes").report["first_errors"]["wrong_bytes"];
    assert!(first.as_str().is_some_and(|text| text.contains("DIGESTED 4 is")), "{ended}");
    assert_eq!(ended.report["errors"]["wrong_bytes"], 5, "{ended}");
    // The packets are in order: the connection is used on.
    assert_eq!((ended.count("replies"), ended.count("connections_opened")), (20, 1), "{ended}");
}

#[test]
fn a_wrong_byte_in_an_echo() {
    let address = change(ECHO, |_, mut answer| {
        answer[9 + 42] ^= 1;
        answer
    });
    let ended = run_packets(address, "-n 4 -c 1");
    let first = &ended.only("wrong_bytes").report["first_errors"]["wrong_bytes"];
    assert!(first.as_str().is_some_and(|text| text.contains("byte 42 of ECHOED 1 is")), "{ended}");
    assert_eq!(ended.report["errors"]["wrong_bytes"], 3, "{ended}");
}

#[test]
fn digests_out_of_order() {
    let address = serve(|| {
        let mut held = VecDeque::new();
        move |request: &Request, answer: Vec<u8>| {
            if request.kind == DIGEST {
                held.push_front(answer);
            } else {
                return Some(answer);
            }
            Some(if held.len() == 2 { held.drain(..).flatten().collect() } else { Vec::new() })
        }
    });
    let ended = run_packets(address, "-n 8 -c 1 --pipeline 8");
    let first = &ended.only("protocol").report["first_errors"]["protocol"];
    assert!(
        first.as_str().is_some_and(|text| text.contains("DIGESTED 8 arrived before DIGESTED 4")),
        "{ended}"
    );
    assert_eq!(ended.count("replies"), 6, "the echoes\n{ended}");
}

#[test]
fn answers_to_nothing_that_was_asked() {
    for (kind, says) in [
        (ECHO, "ECHOED 65537 answers no pending request"),
        (DIGEST, "DIGESTED 65540 answers no pending request"),
    ] {
        let address = change(kind, |_, mut answer| {
            answer[6] ^= 1;
            answer
        });
        let ended = run_packets(address, "-n 8 -c 1");
        let first = &ended.only("protocol").report["first_errors"]["protocol"];
        assert!(first.as_str().is_some_and(|text| text.contains(says)), "{ended}");
        assert!(ended.count("connections_opened") > 1, "{ended}");
    }
    let twice = change(ECHO, |_, answer| answer.repeat(2));
    run_packets(twice, "-n 2 -c 1").only("protocol");
    let digest = change(ECHO, |request, _| packet(0x82, request.id, &[0; 32]));
    run_packets(digest, "-n 2 -c 1").only("protocol");
}

#[test]
fn errors_are_counted_by_code_and_the_first_one_is_quoted() {
    let address = change(DIGEST, |request, _| error(request.id, 11, "start it with --workers"));
    let ended = run_packets(address, "-n 20 -c 1");
    let first = &ended.only("bad_status").report["first_errors"]["bad_status"];
    let says = "request 4: error 11 NO_WORKERS: start it with --workers";
    assert!(first.as_str().is_some_and(|text| text.contains(says)), "{ended}");
    assert_eq!(ended.report["statuses"], serde_json::json!({ "11": 5 }), "{ended}");
    assert_eq!((ended.count("replies"), ended.count("connections_opened")), (20, 1), "{ended}");
}

#[test]
fn what_was_asked_behind_a_last_error_is_asked_again() {
    let address = serve(|| {
        let mut is_over = false;
        move |request: &Request, answer| {
            if is_over {
                return None;
            }
            is_over = request.kind == DIGEST;
            Some(if is_over { error(request.id, 1, "no") } else { answer })
        }
    });
    let ended = run_packets(address, "-n 20 -c 1 --pipeline 8");
    assert_eq!(ended.only("bad_status").count("replies"), 20, "{ended}");
    assert_eq!(ended.count("requests"), 20, "{ended}");
    // An error about nothing in particular ends the connection too.
    let address = change(ECHO, |_, _| error([0; 4], 2, "too long"));
    let ended = run_packets(address, "-n 3 -c 1");
    assert_eq!(ended.only("bad_status").report["errors"]["bad_status"], 3, "{ended}");
    assert!(ended.stdout.contains("error 2 TOO_LONG: too long"), "{ended}");
}

#[test]
fn a_close_in_the_middle_of_a_packet() {
    let address = serve(|| {
        let mut count = 0;
        move |_: &Request, mut answer: Vec<u8>| {
            count += 1;
            if count == 3 {
                answer.truncate(30);
            }
            (count < 4).then_some(answer)
        }
    });
    let ended = run_packets(address, "-n 16 -c 1 --pipeline 4");
    let first = &ended.only("eof").report["first_errors"]["eof"];
    assert!(first.as_str().is_some_and(|text| text.contains("after 2 of ")), "{ended}");
    assert!(ended.count("connections_opened") > 2, "reopened\n{ended}");
}

#[test]
fn packets_that_are_none() {
    for (bytes, says) in [
        (vec![0, 1, 0, 1], "a packet of 65537 bytes is too long: 65536 are allowed"),
        (b"220 mail.example ESMTP\r\n".to_vec(), "is too long"),
        (vec![0, 0, 0, 4, 0x81, 0, 0, 0], "has no id"),
        (packet(0x42, [0, 0, 0, 1], b"?"), "type 0x42"),
    ] {
        let address = change(ECHO, move |_, _| bytes.clone());
        let ended = run_packets(address, "-n 2 -c 1");
        let first = &ended.only("protocol").report["first_errors"]["protocol"];
        assert!(first.as_str().is_some_and(|text| text.contains(says)), "{says}\n{ended}");
    }
}

#[test]
fn a_digest_that_never_comes_is_missed_though_echoes_do() {
    let address = change(DIGEST, |_, _| Vec::new());
    let ended = run_packets(address, "-n 8 -c 1 --pipeline 4 --timeout 300ms");
    assert!(ended.only("timeout").count("replies") > 0, "{ended}");
    assert!(ended.took < SOON, "{ended}");
}
