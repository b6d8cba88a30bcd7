//! Runs on schedule: what they must show of a server, and what of ringload itself.

use crate::support::{
    EARLY, Ended, LONG, STARTED_MAX, address_of_its_own, echo, nobody, run_echo, run_http, server,
    start, stop_listening,
};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A time of the report, microseconds.
fn time_us(ended: &Ended, name: &str, which: &str) -> f64 {
    ended.report[name][which].as_f64().unwrap_or_else(|| panic!("{name} {which}\n{ended}"))
}

/// Nothing that was due is missing: neither in the counts nor in the distribution.
fn is_complete(ended: &Ended) {
    let parts = ["replies", "lost", "unfinished", "unsent"];
    let sum: u64 = parts.iter().map(|name| ended.count(name)).sum();
    assert_eq!(ended.count("intended"), sum, "{ended}");
    assert_eq!(ended.count("requests") + ended.count("unsent"), sum, "{ended}");
    assert_eq!(ended.report["latency_us"]["samples"], sum, "{ended}");
}

/// Asserts that nothing went wrong; a machine that is too busy for the generator is no failure.
fn no_errors(ended: &Ended) {
    assert!(matches!(ended.status, 0 | 4), "{ended}");
    assert_eq!(ended.report["errors_total"], 0, "{ended}");
}

#[test]
fn a_rate_is_kept_to() {
    let address = server(|stream| echo(stream, |_, _| true));
    for arrivals in ["uniform", "poisson"] {
        let line = format!("-n 200 -R 400 -c 4 -t 2 --arrivals {arrivals}");
        let ended = run_echo(address, &line);
        no_errors(&ended);
        is_complete(&ended);
        assert_eq!((ended.count("replies"), ended.count("connections_opened")), (200, 4));
        // 200 at 400 per second; two threads with connections that come up at their own times.
        assert!(ended.report["elapsed_s"].as_f64() > Some(0.3), "{ended}");
        assert_eq!(ended.report["plan"]["pacing"], "requests");
        assert_eq!(ended.report["schedule_lag_us"]["samples"], 200);
        assert!(ended.stdout.contains("200 requests were due"), "{ended}");
        let threads = ended.report["threads"].as_array().expect("an array");
        let is_shard =
            |thread: &&Value| thread["name"].as_str().unwrap_or("").starts_with("shard-");
        assert_eq!(threads.iter().filter(is_shard).count(), 2, "{ended}");
        assert!(ended.report["network"]["listen_overflows"].is_u64(), "{ended}");
    }
}

#[test]
fn a_server_that_stops_shows_it_in_an_open_loop_and_hides_it_in_a_closed_one() {
    let stops = || {
        let since = Instant::now();
        server(move |stream| {
            echo(stream, move |_, _| {
                // 200 ms in every two seconds.
                let into = Duration::from_millis(since.elapsed().as_millis() as u64 % 2_000);
                thread::sleep(Duration::from_millis(200).saturating_sub(into));
                true
            });
        })
    };
    let (one, other) = (stops(), stops());
    let closed = thread::spawn(move || run_echo(one, "-d 4s -c 4"));
    let open = run_echo(other, "-d 4s -c 4 -R 500");
    let closed = closed.join().expect("no panic");
    no_errors(&open);
    is_complete(&open);
    // A tenth of the requests were due in the stops; only those on the four connections were sent
    // before, and have it in their service time.
    for quantile in ["p99", "p99.9"] {
        assert!(time_us(&open, "latency_us", quantile) >= 150_000.0, "{open}");
    }
    assert!(time_us(&open, "service_time_us", "p99") < 100_000.0, "{open}");
    // It was asked eight times in the stops, and thousands of times in between.
    closed.passed();
    assert!(time_us(&closed, "service_time_us", "p99") < 100_000.0, "{closed}");
    assert!(closed.report["latency_us"].is_null(), "{closed}");
    assert!(closed.stdout.contains("Closed loop"), "{closed}");
}

#[test]
fn a_slow_server_is_not_taken_for_a_slow_generator() {
    let address = server(|stream| {
        echo(stream, |_, _| {
            thread::sleep(Duration::from_millis(300));
            true
        });
    });
    // Four connections are good for 13 per second.
    let ended = run_echo(address, "-d 1500ms -R 200 -c 4");
    ended.passed();
    is_complete(&ended);
    assert!(ended.report["bottleneck"].is_null(), "{ended}");
    assert!(ended.count("unsent") > ended.count("replies"), "{ended}");
    assert!(time_us(&ended, "latency_us", "p99") > 1e6, "{ended}");
    assert!(time_us(&ended, "latency_us", "p50") > 300_000.0, "{ended}");
    assert!(ended.stdout.contains("no connection was free"), "{ended}");
}

#[test]
fn a_generator_that_was_stopped_says_that_it_was_the_bottleneck() {
    // It goes on when the time is over, and before.
    // A server that is slow keeps several connections busy; with 64 one is free in any case, and
    // what is due then waits for the generator alone.
    for line in ["-d 1s -R 500 -c 64", "-d 2s -R 500 -c 64"] {
        let (sender, receiver) = mpsc::channel();
        let address = server(move |stream| {
            let sender = sender.clone();
            echo(stream, move |_, offset| {
                // The receiver needs only the first message.
                let _ = (offset == 0).then(|| sender.send(()));
                true
            });
        });
        let running = start("echo", &address.to_string(), line);
        receiver.recv_timeout(STARTED_MAX).expect("it runs");
        thread::sleep(Duration::from_millis(200));
        running.signal(libc::SIGSTOP);
        thread::sleep(Duration::from_secs(1));
        running.signal(libc::SIGCONT);
        let ended = running.end();
        assert_eq!((ended.status, &ended.report["outcome"]), (4, &"saturated".into()), "{ended}");
        is_complete(&ended);
        assert_eq!(ended.report["schedule_lag_us"]["samples"], ended.count("intended"), "{ended}");
        // Not only of those that went first: hundreds waited, on average for half a second.
        assert!(time_us(&ended, "schedule_lag_us", "p90") > 400_000.0, "{ended}");
        let why = ended.report["bottleneck"].as_str().unwrap_or_default();
        assert!(why.contains("was late"), "{ended}");
        assert!(ended.stdout.contains("INVALID: ringload was the bottleneck"), "{ended}");
    }
}

#[test]
fn what_was_never_sent_or_answered_is_in_the_distribution() {
    // Three replies, then none.
    let hangs = || {
        server(|stream| {
            let mut rest = stream.try_clone().expect("a second descriptor");
            echo(stream, |_, offset| offset < 3 * 64);
            let _ = rest.read_to_end(&mut Vec::new());
        })
    };
    let ended = run_echo(hangs(), "-d 1s -R 200 -c 2 --timeout 300ms");
    assert_eq!(ended.status, 1, "{ended}");
    is_complete(&ended);
    assert!(ended.count("lost") >= 2 && ended.count("unsent") > 0, "{ended}");
    assert!(time_us(&ended, "latency_us", "p90") > 100_000.0, "{ended}");

    let running = start("echo", &hangs().to_string(), "-d 20s -R 200 -c 2");
    thread::sleep(Duration::from_millis(500));
    running.signal(libc::SIGINT);
    let ended = running.end();
    assert_eq!(ended.status, 130, "{ended}");
    is_complete(&ended);
    assert!(ended.count("lost") == 0 && ended.count("errors_total") == 0, "{ended}");
}

#[test]
fn a_connection_that_is_closed_politely_is_opened_again() {
    let address = server(|mut stream| {
        let mut message = [0; 64];
        if stream.read_exact(&mut message).is_ok() {
            stream.write_all(&message).expect("the client waits for it");
        }
    });
    // The FIN has half a second until the next request is due.
    let ended = run_echo(address, "-n 6 -R 2 -c 1");
    no_errors(&ended);
    is_complete(&ended);
    assert_eq!(ended.count("replies"), 6, "{ended}");
    // The last one is ours to close.
    assert!(ended.count("closed_idle") >= 5, "{ended}");
    assert!(ended.count("connections_opened") >= 6, "{ended}");

    // Announced, and with a request pipelined behind it that is taken back.
    let address = server(|mut stream| {
        let mut request = [0; 1024];
        if stream.read(&mut request).unwrap_or(0) > 0 {
            let reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
            stream.write_all(reply).expect("the client waits for it");
        }
    });
    let ended = run_http(address, "-n 50 -R 500 -c 2 --pipeline 4");
    no_errors(&ended);
    is_complete(&ended);
    assert_eq!(ended.count("replies"), 50, "{ended}");
    assert!(ended.count("connections_opened") >= 50, "{ended}");
}

/// Sends FIN and reads on, so that what comes meanwhile makes no reset.
fn end_politely(mut stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Answers five requests on each of two connections, drains, and is gone. In the end: `end`.
fn drains(end: impl Fn(TcpStream) + Clone + Send + 'static) -> std::net::SocketAddr {
    let listener = TcpListener::bind(address_of_its_own()).expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        let clients: Vec<_> = (0..2).map(|_| listener.accept().expect("a client").0).collect();
        stop_listening(listener);
        for mut stream in clients {
            let end = end.clone();
            thread::spawn(move || {
                let mut message = [0; 64];
                for _ in 0..5 {
                    stream.read_exact(&mut message).expect("a request");
                    stream.write_all(&message).expect("the client waits for it");
                }
                end(stream);
            });
        }
    });
    address
}

#[test]
fn a_server_may_drain_if_it_is_said_so() {
    let ended = run_echo(drains(end_politely), "-d 500ms -c 2 --drain-ok");
    ended.passed();
    assert_eq!((ended.count("replies"), ended.count("unanswered_at_close")), (10, 2), "{ended}");
    assert!(ended.count("refused") >= 2, "{ended}");
    assert!(ended.stdout.contains("unanswered at close: 2"), "{ended}");

    let ended = run_echo(drains(end_politely), "-d 300ms -c 2");
    assert_eq!((ended.status, &ended.report["errors"]["eof"]), (1, &2.into()), "{ended}");
    assert_eq!((ended.count("unanswered_at_close"), ended.count("refused")), (2, 0), "{ended}");

    // ringload must still finish the answer it began to read.
    let cuts = |mut stream: TcpStream| {
        let mut message = [0; 64];
        stream.read_exact(&mut message).expect("a request");
        stream.write_all(&message[..7]).expect("the client waits for it");
        end_politely(stream);
    };
    let ended = run_echo(drains(cuts), "-d 300ms -c 2 --drain-ok");
    assert_eq!(ended.only("eof").report["errors"]["eof"], 2, "{ended}");
    let resets = |mut stream: TcpStream| {
        stream.read_exact(&mut [0; 64]).expect("a request");
        crate::support::reset_on_close(&stream);
    };
    let ended = run_echo(drains(resets), "-d 300ms -c 2 --drain-ok");
    assert_eq!(ended.only("reset").report["errors"]["reset"], 2, "{ended}");
}

#[test]
fn connections_come_on_schedule() {
    let address = server(|stream| echo(stream, |_, _| true));
    let line = "-n 99 --conn-rate 200 --requests-per-connection 2 -t 2 --arrivals poisson";
    let ended = run_echo(address, line);
    no_errors(&ended);
    // Odd shares: 50 requests for one thread, 49 for the other.
    assert_eq!((ended.count("replies"), ended.count("connections_opened")), (99, 50), "{ended}");
    assert_eq!((ended.count("sessions"), ended.count("intended")), (50, 50), "{ended}");
    for name in ["connect_time_us", "first_byte_us", "session_us", "schedule_lag_us"] {
        assert_eq!(ended.report[name]["samples"], 50, "{name}\n{ended}");
    }
    assert_eq!(ended.report["service_time_us"]["samples"], 99, "{ended}");
    assert!(ended.report["latency_us"].is_null(), "{ended}");
    assert!(time_us(&ended, "session_us", "min") >= time_us(&ended, "connect_time_us", "min"));
}

#[test]
fn a_connection_that_finds_no_room_waits_and_its_time_counts() {
    let address = server(|stream| {
        echo(stream, |_, _| {
            thread::sleep(Duration::from_millis(100));
            true
        });
    });
    let ended = run_echo(address, "-n 10 --conn-rate 100 -c 1");
    no_errors(&ended);
    assert_eq!(ended.count("sessions"), 10, "{ended}");
    // The tenth was due after 90 ms, and began when nine had had theirs.
    assert!(time_us(&ended, "connect_time_us", "max") > 700_000.0, "{ended}");
    assert!(time_us(&ended, "session_us", "max") > 800_000.0, "{ended}");

    // The end of a run for a time finds some that never came to it.
    let ended = run_echo(address, "-d 500ms --conn-rate 100 -c 1");
    no_errors(&ended);
    assert_eq!(ended.count("intended"), ended.count("sessions") + ended.count("unsent"), "{ended}");
    assert!(ended.count("unsent") > 30, "{ended}");
    for name in ["session_us", "schedule_lag_us"] {
        assert_eq!(ended.report[name]["samples"], ended.count("intended"), "{name}\n{ended}");
    }
}

#[test]
fn nobody_listens_to_a_schedule() {
    let address = nobody();
    for line in [
        format!("-d {LONG} -R 100 -c 2"),
        "-n 5 -R 100 -c 2".into(),
        "-n 5 --conn-rate 100".into(),
        format!("-d {LONG} --conn-rate 100 -c 2"),
    ] {
        let ended = run_echo(address, &line);
        assert_eq!((ended.status, &ended.report["outcome"]), (3, &"unreachable".into()), "{ended}");
        assert!(ended.took < EARLY, "{ended}");
    }
}

#[test]
fn a_rate_rises_or_follows_stages() {
    let address = server(|stream| echo(stream, |_, _| true));
    let ended = run_echo(address, "-R 100:900 -d 1s -c 8");
    assert_eq!(ended.count("errors_total"), 0, "{ended}");
    // 500 but for the time until all connections are open.
    let intended = ended.count("intended");
    assert!((1..=500).contains(&intended), "{ended}");
    assert_eq!(ended.report["plan"]["rate"], serde_json::Value::Null, "{ended}");
    let stage = serde_json::json!({ "length_s": 1.0, "from": 100, "to": 900 });
    assert_eq!(ended.report["plan"]["stages"], serde_json::json!([stage]), "{ended}");
    let folder = tempfile::tempdir().expect("a folder");
    let stages = folder.path().join("stages");
    std::fs::write(&stages, "300ms 100:500\n200ms 500\n").expect("a file");
    let ended = run_echo(address, &format!("--stages {} -c 8 -t 2", stages.display()));
    assert_eq!(ended.count("errors_total"), 0, "{ended}");
    assert!((1..=190).contains(&ended.count("intended")), "{ended}");
    let line = ", requests per second: 100 to 500 for 300ms, then 500 for 200ms (uniform)";
    assert!(ended.stderr.contains(line), "{ended}");
    assert_eq!(ended.report["plan"]["duration_s"], 0.5, "{ended}");
    let ended = run_echo(address, &format!("--stages {} -d 5s", stages.display()));
    assert_eq!(ended.status, 2, "{ended}");
}
