//! What is answered, and what is refused.

use super::{json, ledger_once};
use crate::common::{Client, Modes, PATIENCE, Server, command};
use serde_json::Value;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn the_ledger_has_the_keys_that_scripts_read() {
    let server = Server::echo_with_admin(&["--shards", "2", "--max-connections", "50"]);
    let staying: Vec<Client> = (0..5).map(|_| server.client()).collect();
    let in_use = |ledger: &Value, pair: &str| {
        let pair = &ledger[pair];
        pair["total"].as_u64().unwrap() - pair["free"].as_u64().unwrap()
    };
    // The connections and a listener per shard. Each shard publishes its own figures in its turn.
    let ledger = ledger_once(&server, |ledger| {
        ledger["connections"]["open"] == 5 && in_use(ledger, "descriptors") == 5 + 2
    });
    assert_eq!(ledger["connections"]["opened"], 5);
    assert_eq!(ledger["connections"]["closed"], 0);
    for (key, total) in
        [("permits", Some(50)), ("buffers", Some(1024)), ("slots", None), ("pipes", Some(64))]
    {
        let pair = &ledger[key];
        let (all, free) = (pair["total"].as_u64().unwrap(), pair["free"].as_u64().unwrap());
        assert!(total.is_none_or(|total| total == all) && free <= all, "{key}: {pair}");
    }
    assert_eq!(ledger["permits"]["free"], 45);
    assert!(ledger["operations_in_flight"].is_u64());
    for reason in ["peer_fin", "peer_reset", "kicked", "drained", "idle_timeout"] {
        assert_eq!(ledger["closed_by"][reason], 0, "{reason}");
    }
    assert_eq!(ledger["balanced"], true);
    drop(staying);
    ledger_once(&server, |ledger| {
        ledger["connections"]["open"] == 0
            && ledger["closed_by"]["peer_fin"] == 5
            && ledger["permits"]["free"] == 50
            && ledger["slots"]["free"] == ledger["slots"]["total"]
            && ledger["balanced"] == true
    });
    server.stop().cleanly();
}

#[test]
fn it_can_be_asked_for_by_the_environment_and_warns_when_others_reach_it() {
    let mut daemon = command(&["echo", "--shards", "1", "--listen", "127.0.0.1:0"]);
    daemon.env("RINGWRIGHTD_ADMIN", "0.0.0.0:0");
    let mut server = Server::start_with_admin(&mut daemon, "echo");
    let port = server.admin.unwrap().port();
    server.admin = Some(([127, 0, 0, 1], port).into());
    assert_eq!(server.admin().request("GET", "/readyz").status, 200);
    let ended = server.stop().cleanly();
    assert!(ended.stderr.contains("--admin 0.0.0.0:0 has no password"), "{}", ended.stderr);
    let ended = Server::echo_with_admin(&["--shards", "1"]).stop().cleanly();
    assert!(!ended.stderr.contains("password"), "{}", ended.stderr);
}

#[test]
fn visitors_are_not_counted() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut visitors: Vec<Client> = (0..5).map(|_| server.admin()).collect();
    for visitor in &mut visitors {
        assert_eq!(visitor.request("GET", "/metrics").status, 200);
    }
    let ledger = json(&server, "/ledger");
    for key in ["opened", "closed", "open", "accepted"] {
        assert_eq!(ledger["connections"][key], 0, "{key}");
    }
    assert_eq!(ledger["bytes"], serde_json::json!({"received": 0, "sent": 0}));
    let listed = json(&server, "/connections");
    assert_eq!(listed["connections"], serde_json::json!([]));
    drop(visitors);
    let ended = server.stop().cleanly();
    assert!(ended.stderr.contains("ledger {\"connections\":{\"opened\":0,"), "{}", ended.stderr);
}

#[test]
fn requests_are_answered_in_order_and_head_is_get_without_a_body() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut visitor = server.admin();
    let targets = ["/livez", "/connections", "/readyz", "/metrics", "/", "/ledger", "/connections"];
    let pipelined: String = targets
        .iter()
        .map(|target| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        .collect();
    visitor.send(pipelined);
    for target in targets {
        let reply = visitor.reply(false);
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(reply.field("cache-control"), "no-store");
        let expected = match target {
            "/" => "text/html; charset=utf-8",
            "/metrics" => "text/plain; version=0.0.4; charset=utf-8",
            "/ledger" | "/connections" => "application/json",
            _ => "text/plain; charset=utf-8",
        };
        assert_eq!(reply.field("content-type"), expected, "{target}");
    }
    for target in targets {
        let head = visitor.request("HEAD", target);
        assert_eq!(head.status, 200, "{target}");
        assert!(head.field("content-length").parse::<usize>().unwrap() > 0, "{target}");
    }
    // Half-closed behind the last request, it is answered all the same.
    visitor.send(
        "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /connections HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    );
    visitor.half_close();
    assert_eq!(visitor.reply(false).body, b"live\n");
    assert_eq!(visitor.reply(false).status, 200);
    visitor.is_at_its_end();
    // HTTP/1.0 ends by itself.
    let mut old = server.admin();
    let reply = old.ask("GET /connections HTTP/1.0\r\n\r\n");
    assert_eq!((reply.status, reply.field("connection")), (200, "close"));
    old.is_at_its_end();
    server.stop().cleanly();
}

#[test]
fn the_page_brings_everything_along() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let reply = server.admin().request("GET", "/");
    let policy = reply.field("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"));
    let page = str::from_utf8(&reply.body).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>"));
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for word in ["http://", "https://", "src=", "<link", "@import", "url("] {
        assert!(!outside.contains(word), "{word} would be loaded from elsewhere");
    }
    for asked in ["/ledger", "/connections", "/readyz"] {
        assert!(page.contains(asked), "{asked}");
    }
    server.stop().cleanly();
}

#[test]
fn what_cannot_be_answered_is_told_why() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut visitor = server.admin();
    for (method, target, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/Ledger", 404),
        ("GET", "/%6cedger", 404),
        ("GET", "/connections/12345", 404),
        ("DELETE", "/connections/12345", 404),
        ("GET", "/connections/", 400),
        ("GET", "/connections/x", 400),
        ("GET", "/connections/-1", 400),
        ("GET", "/connections/+1", 400),
        ("GET", "/connections/18446744073709551616", 400),
        ("GET", "/connections?limit=0", 400),
        ("GET", "/connections?limit=1001", 400),
        ("GET", "/connections?limit=99999999999999999999", 400),
        ("GET", "/connections?limit", 400),
        ("GET", "/connections?after=", 400),
        ("GET", "/connections?before=1", 400),
        ("GET", "ftp://localhost/", 400),
        ("GET", "localhost:80", 400),
        ("BREW", "/livez", 501),
        ("GET", "http://localhost/livez", 200),
        ("GET", "http:///livez", 400),
        ("GET", "http://:80/livez", 400),
        ("GET", "/livez?cache=no", 200),
        ("GET", "/connections?", 200),
        ("GET", "/connections?limit=1&after=0", 200),
    ] {
        let reply = visitor.request(method, target);
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
        assert!(!reply.body.is_empty());
    }
    for (method, target, allow) in [
        ("POST", "/livez", "GET, HEAD"),
        ("DELETE", "/ledger", "GET, HEAD"),
        ("PUT", "/connections", "GET, HEAD, DELETE"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("PUT", "/connections/1", "GET, HEAD, DELETE"),
    ] {
        let reply = visitor.request(method, target);
        assert_eq!((reply.status, reply.field("allow")), (405, allow), "{method} {target}");
    }
    let expecting = "GET /livez HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n";
    assert_eq!(visitor.ask(expecting).status, 417);
    server.stop().cleanly();
}

#[test]
fn what_is_no_request_ends_its_connection_only() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("HEAD / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET /livez HTTP/1.1\r\nHost: [::1\r\n\r\n".into(), 400),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n".into(), 505),
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(9_000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "a".repeat(17_000)), 431),
        ("GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".into(), 413),
        (
            "DELETE /connections/1 HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\n"
                .into(),
            413,
        ),
    ] {
        let mut visitor = server.admin();
        visitor.send(&request);
        let reply = visitor.reply(request.starts_with("HEAD "));
        assert_eq!((reply.status, reply.field("connection")), (status, "close"), "{request:.40}");
        visitor.is_at_its_end();
    }
    let mut empty = server.admin();
    empty.send("DELETE /connections/1 HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(empty.reply(false).status, 404, "nothing is no body");
    server.stop().cleanly();
}

#[test]
fn other_sites_are_refused() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut visitor = server.admin();
    let mut ask = |method: &str, target: &str, fields: &str| {
        visitor.ask(&format!("{method} {target} HTTP/1.1\r\n{fields}\r\n\r\n")).status
    };
    for target in ["/", "/connections", "/connections/1"] {
        assert_eq!(ask("GET", target, "Host: rebound.example"), 421, "{target}");
    }
    assert_eq!(ask("DELETE", "/connections/1", "Host: rebound.example"), 421);
    assert_eq!(ask("GET", "http://rebound.example/connections", "Host: localhost"), 421);
    // Scrapers and probes come under any name, and learn about nobody.
    for target in ["/metrics", "/livez", "/readyz", "/ledger"] {
        assert_eq!(ask("GET", target, "Host: server.internal:9000"), 200, "{target}");
    }
    for refused in ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        let fields = format!("Host: localhost\r\n{refused}");
        assert_eq!(ask("DELETE", "/connections/1", &fields), 403, "{refused}");
    }
    let own = "Host: localhost:9\r\nOrigin: http://localhost:9\r\nSec-Fetch-Site: same-origin";
    assert_eq!(ask("DELETE", "/connections/1", own), 404);
    server.stop().cleanly();
}

#[test]
fn a_request_that_does_not_come_is_not_waited_for_long() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut visitor = server.admin();
    visitor.send("GET /live");
    let reply = visitor.reply(false);
    assert_eq!((reply.status, reply.field("connection")), (408, "close"));
    visitor.is_at_its_end();
    server.stop().cleanly();
}

#[test]
fn all_that_is_asked_is_answered_at_the_pace_it_is_read() {
    let server = Server::echo_with_admin(&["--shards", "2"]);
    let mut visitor = server.admin();
    let mut writer = visitor.stream.get_ref().try_clone().unwrap();
    let requests = 1000;
    let writing = thread::spawn(move || {
        let pipelined = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(requests);
        writer.write_all(pipelined.as_bytes()).unwrap();
    });
    for number in 0..requests {
        assert_eq!(visitor.reply(false).status, 200, "{number}");
    }
    writing.join().unwrap();
    server.stop().cleanly();
}

#[test]
fn replies_that_nobody_reads_are_bounded() {
    let server = Server::echo_with_admin(&["--shards", "2"]);
    let before = server.descriptors();
    let mut greedy = server.admin();
    let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let stream = greedy.stream.get_mut();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // Far more than the buffers on the way hold: it is not read on, and the write stalls.
    let stalled = (0..1000).any(|_| stream.write_all(requests.as_bytes()).is_err());
    assert!(stalled, "it reads on without being read");
    let mut other = server.admin();
    assert_eq!(other.request("GET", "/livez").status, 200);
    drop(other);
    // And it is ended for it.
    let give_up = Instant::now() + PATIENCE;
    while server.descriptors() > before {
        assert!(Instant::now() < give_up, "who does not read is kept");
        thread::sleep(Duration::from_millis(20));
    }
    drop(greedy);
    server.stop().cleanly();
}
