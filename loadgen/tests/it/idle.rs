//! Herds of idle connections against small servers: good ones, and ones that lose some.

use crate::support::packets::packets;
use crate::support::{
    EARLY, Ended, LONG, STARTED_MAX, echo, http, nobody, ok, reset_on_close, server, start,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

fn idle(address: SocketAddr, options: &str) -> Ended {
    start("idle", &address.to_string(), options).end()
}

/// Asserts that it failed, and that so many connections were lost that way and no other.
fn lost(ended: &Ended, how: &str, count: u64) {
    assert_eq!(ended.status, 1, "{ended}");
    for (name, lost) in ended.report["lost"].as_object().expect("counts") {
        assert_eq!(lost.as_u64(), Some(if name == how { count } else { 0 }), "{name}\n{ended}");
    }
    assert!(ended.stdout.contains(&format!("{how}: {count}")), "{ended}");
}

#[test]
fn every_connection_is_shown_to_still_answer() {
    let options = "-c 100 --hold 800ms --probe-every 400ms";
    let echoes = server(|stream| echo(stream, |_, _| true));
    let pages = server(|stream| http(stream, |_, _| Some(ok(&[b'x'; 100_000]))));
    let files = Arc::new(Mutex::new(HashMap::new()));
    let frames = server(move |stream| packets(stream, &files, |_, answer| Some(answer)));
    for (address, protocol) in [(echoes, "echo"), (pages, "http"), (frames, "packets")] {
        let ended = idle(address, &format!("{options} --protocol {protocol}"));
        assert_eq!(ended.status, 0, "{ended}");
        for (name, count) in [
            ("connected", 100),
            ("answered_last", 100),
            ("lost_total", 0),
            ("connects_failed_total", 0),
            ("unfinished", 0),
        ] {
            assert_eq!(ended.count(name), count, "{name}\n{ended}");
        }
        // The last round and at least one before: whose turn comes before it is connected waits for
        // its next.
        assert!(ended.count("answers") >= 200, "{ended}");
        assert_eq!(ended.report["connect_time_us"]["samples"], 100, "{ended}");
        assert_eq!(ended.report["last_round_time_us"]["samples"], 100, "{ended}");
        assert!(ended.stdout.contains("All 100 connections answered at the end."), "{ended}");
    }
}

#[test]
fn connects_keep_to_their_rate() {
    let address = server(|stream| echo(stream, |_, _| true));
    let ended = idle(address, "-c 30 --conn-rate 50 --hold 50ms --probe-every 50ms");
    assert_eq!(ended.status, 0, "{ended}");
    let ramp_s = ended.report["ramp_s"].as_f64().expect("a number");
    assert!((0.58..60.0).contains(&ramp_s), "29 fiftieths of a second\n{ended}");
}

#[test]
fn connections_that_a_server_has_forgotten_are_found() {
    let accepted = Arc::new(AtomicU64::new(0));
    let address = server(move |stream| {
        let forgotten = accepted.fetch_add(1, Ordering::Relaxed).is_multiple_of(10);
        echo(stream, |_, _| {
            if forgotten {
                thread::sleep(Duration::from_secs(60));
            }
            true
        });
    });
    let ended = idle(address, "-c 40 --hold 2500ms --probe-every 500ms --timeout 2s");
    lost(&ended, "unanswered", 4);
    assert_eq!((ended.count("connected"), ended.count("answered_last")), (40, 36), "{ended}");
    let first = &ended.report["losses"][0];
    assert_eq!((&first["how"], &first["answers"]), (&"unanswered".into(), &0.into()), "{ended}");
    assert!(ended.stdout.contains("was not answered within 2s"), "{ended}");
    assert!(
        ended.stdout.contains("FAILED: 4 connections were lost or could not be established."),
        "{ended}"
    );
}

#[test]
fn a_reset_after_a_while_is_a_loss_with_its_time() {
    let accepted = Arc::new(AtomicU64::new(0));
    let address = server(move |stream| {
        if accepted.fetch_add(1, Ordering::Relaxed) < 5 {
            thread::sleep(Duration::from_millis(300));
            reset_on_close(&stream);
        } else {
            echo(stream, |_, _| true);
        }
    });
    // Nobody is asked before they are reset.
    let ended = idle(address, "-c 20 --hold 900ms --probe-every 20s");
    lost(&ended, "reset", 5);
    for loss in ended.report["losses"].as_array().expect("losses") {
        let at_s = loss["at_s"].as_f64().expect("a number");
        assert!(at_s >= 0.3 && loss["age_s"].as_f64() <= Some(at_s), "{ended}");
    }
}

#[test]
fn a_server_with_an_idle_timeout_is_told_by_its_timer() {
    let address = server(|stream| {
        let timeout = Some(Duration::from_secs(1));
        stream.set_read_timeout(timeout).expect("a timeout");
        echo(stream, |_, _| true);
    });
    let ended = idle(address, &format!("-c 30 --hold {LONG} --probe-every 200s"));
    // The first has its turn at once, and is closed one second after it.
    lost(&ended, "fin", 30);
    let hint = ended.report["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("idle timeout") && ended.stdout.contains(hint), "{ended}");
    assert!(ended.took < EARLY, "nobody was left\n{ended}");
}

#[test]
fn bytes_of_another_connection_are_attributed() {
    // The bytes of one connection are sent to the one before it, as if the server had mixed up
    // two buffers.
    let others = Arc::new(Mutex::new(Vec::<[u8; 32]>::new()));
    let address = server(move |stream| {
        echo(stream, |bytes, _| {
            let mut others = others.lock().expect("no panic");
            if let (Ok(own), 3..) = (<[u8; 32]>::try_from(&*bytes), others.len()) {
                bytes.copy_from_slice(&others[1]);
                others.push(own);
            } else if let Ok(own) = (&*bytes).try_into() {
                others.push(own);
            }
            true
        });
    });
    let ended = idle(address, "-c 4 --hold 300ms --probe-every 400ms");
    assert_eq!(ended.status, 1, "{ended}");
    assert!(ended.report["lost"]["wrong_bytes"].as_u64() >= Some(2), "{ended}");
    assert!(ended.stdout.contains("these bytes belong to offset "), "{ended}");
}

#[test]
fn a_page_that_changes_or_fails_is_a_loss() {
    for (page, how) in [
        (ok(b"another"), "wrong_bytes"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec(), "bad_status"),
    ] {
        let address = server(move |stream| {
            let page = page.clone();
            http(stream, |_, number| Some(if number == 0 { ok(b"hello") } else { page.clone() }));
        });
        let ended = idle(address, "-c 5 --protocol http --hold 300ms --probe-every 250ms");
        lost(&ended, how, 5);
    }
}

#[test]
fn where_nobody_listens_nothing_is_held() {
    let ended = idle(nobody(), "-c 2k --hold 20s");
    assert_eq!((ended.status, ended.count("connected")), (3, 0), "{ended}");
    // Nobody has to be asked two thousand times to learn that.
    let refused = ended.report["connects_failed"]["refused"].as_u64().expect("a count");
    assert!((256..2_000).contains(&refused), "{ended}");
    assert!(ended.stdout.contains("first refused: connection 0"), "{ended}");
}

#[test]
fn an_interrupt_leaves_a_partial_report() {
    let (sender, answers) = mpsc::channel();
    let address = server(move |stream| {
        let sender = sender.clone();
        echo(stream, move |_, offset| offset > 0 || sender.send(()).is_ok());
    });
    let options = format!("-c 50 --hold {LONG} --probe-every 200ms");
    let running = start("idle", &address.to_string(), &options);
    (0..50).for_each(|_| answers.recv_timeout(STARTED_MAX).expect("all are asked"));
    // There is a line per second.
    thread::sleep(Duration::from_millis(1_800));
    running.signal(libc::SIGINT);
    let ended = running.end();
    assert_eq!((ended.status, ended.count("connected")), (130, 50), "{ended}");
    assert!(ended.count("answers") >= 50 && ended.stdout.contains("INTERRUPTED"), "{ended}");
    assert_eq!(ended.count("lost_total"), 0, "{ended}");
    let line = ended.stderr.lines().find(|line| line.contains(" hold ")).unwrap_or_default();
    assert!(line.contains(" 50 "), "{ended}");
    assert!(ended.took < EARLY, "{ended}");
}

#[test]
fn more_than_the_descriptors_allow_is_refused_with_the_remedy() {
    let program = env!("CARGO_BIN_EXE_ringload");
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" idle 127.0.0.1:1 -c 100", program])
        .output()
        .expect("sh starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("hard limit is 64") && stderr.contains("ulimit"), "{stderr}");
}

#[test]
fn an_odd_first_body_is_one_loss_and_bodies_may_vary_if_it_is_said_so() {
    let serve = |vary: bool| {
        let count = Arc::new(AtomicU64::new(0));
        server(move |stream| {
            let count = count.clone();
            http(stream, move |_, _| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let shown = if vary { number } else { number.min(1) };
                Some(ok(shown.to_string().as_bytes()))
            });
        })
    };
    let run = |vary, options: &str| {
        let options = format!("--protocol http -c 4 --hold 400ms --probe-every 200ms {options}");
        start("idle", &serve(vary).to_string(), &options).end()
    };
    let ended = run(false, "");
    assert_eq!((ended.status, &ended.report["lost"]["wrong_bytes"]), (1, &1.into()), "{ended}");
    assert_eq!(ended.count("lost_total"), 1, "{ended}");
    let ended = run(true, "");
    assert!(ended.status == 1 && ended.count("lost_total") > 1, "{ended}");
    let ended = run(true, "--vary-ok");
    assert_eq!((ended.status, ended.count("lost_total")), (0, 0), "{ended}");
}
