//! The search for the highest rate at which a server meets objectives.

use crate::support::{LONG, http, nobody, ok, server, start};
use std::thread;
use std::time::Duration;

/// A reply takes at least this long.
const SERVICE: Duration = Duration::from_millis(20);
/// The most that one connection can have answered in a probe of 250 ms: 13 requests with the one
/// that is in flight at its end, and the share that may be missing.
const RATE_MAX: f64 = 13.0 / 0.25 / 0.99 + 0.5;

#[test]
fn no_rate_is_found_that_the_server_cannot_reach() {
    let address = server(|stream| {
        http(stream, |_, _| {
            thread::sleep(SERVICE);
            Some(ok(b"hello"))
        });
    });
    let options = "-c 1 --max-time 5s --seed 7 --slo p99<10s --slo errors==0";
    let ended = start("search", &format!("http://{address}/"), options).end();
    let search = &ended.report["search"];
    let rate = search["rate"].as_f64().unwrap_or_else(|| panic!("{ended}"));
    assert!((1.0..=RATE_MAX).contains(&rate), "{ended}");
    assert_eq!(search["low"], rate, "{ended}");
    // It depends on the machine whether the server or ringload is the limit. The status says it.
    let (limit, high) = (&search["limited_by"], search["high"].as_f64());
    assert!(high.is_none_or(|high| high > rate), "{ended}");
    assert_eq!(ended.status, if limit == "ringload" { 4 } else { 0 }, "{ended}");
    let probes = search["probes"].as_array().expect("probes");
    assert!(!probes.is_empty() && ended.took >= Duration::from_secs(1), "{ended}");
    for probe in probes {
        let of = |name: &str| probe[name].as_f64().expect("a number");
        assert!(probe["is_reached"] == false || of("rate") <= RATE_MAX, "{ended}");
        assert_eq!(probe["slos"][1]["expression"], "errors==0", "{ended}");
    }
    assert!(search["closed_loop_replies_per_s"].as_f64() <= Some(RATE_MAX), "{ended}");
    assert!(ended.stderr.contains("closed loop: "), "{ended}");
}

#[test]
fn a_server_that_misses_an_objective_at_any_rate_fails() {
    let address = server(|stream| {
        let failed = b"HTTP/1.1 500 Failed\r\nContent-Length: 0\r\n\r\n";
        http(stream, |_, _| Some(failed.to_vec()));
    });
    let options = "--max-time 5s --slo errors==0 --quiet";
    let ended = start("search", &format!("http://{address}/"), options).end();
    let search = &ended.report["search"];
    assert!(search["rate"].is_null() && search["low"] == 0.0, "{ended}");
    // If ringload was late as well, it says so.
    let status = if search["limited_by"] == "ringload" { 4 } else { 1 };
    assert_eq!((ended.status, ended.stderr.as_str()), (status, ""), "{ended}");
    assert!(ended.stdout.contains("objectives    errors==0"), "{ended}");
}

#[test]
fn nobody_and_an_interruption_end_a_search() {
    let ended = start("search", &format!("http://{}/", nobody()), "--slo errors==0").end();
    assert_eq!((ended.status, &ended.report["outcome"]), (3, &"unreachable".into()), "{ended}");
    let (sender, asked) = std::sync::mpsc::channel();
    let address = server(move |stream| {
        let sender = sender.clone();
        http(stream, move |_, _| {
            let _ = sender.send(());
            Some(ok(b"hello"))
        });
    });
    let options = format!("--slo errors==0 --max-time {LONG}");
    let running = start("search", &format!("http://{address}/"), &options);
    asked.recv().expect("a request");
    running.signal(libc::SIGINT);
    let ended = running.end();
    assert_eq!((ended.status, &ended.report["outcome"]), (130, &"interrupted".into()), "{ended}");
}
