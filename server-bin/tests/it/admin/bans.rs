//! Addresses that are not let in: from the start, changed while it runs, and too many of one.

use super::{json, ledger_once};
use crate::common::{Modes, PATIENCE, Server};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Whether a new client is served. One whose SYN gets no answer is not.
fn lets_in(server: &Server) -> bool {
    let connected = TcpStream::connect_timeout(&server.address, Duration::from_millis(200));
    let Ok(mut stream) = connected else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}

/// A change reaches the shards soon, not at once.
#[track_caller]
fn lets_in_once(server: &Server, expected: bool) {
    let give_up = Instant::now() + PATIENCE;
    while lets_in(server) != expected {
        assert!(Instant::now() < give_up, "let in: {}", !expected);
    }
}

#[test]
fn bans_change_while_it_runs() {
    let server = Server::echo_with_admin(&["--shards", "2", "--ban", "192.0.2.9,2001:db8::/32"]);
    let at_first = json!({
        "bans": ["192.0.2.9/32", "2001:db8::/32"],
        "origins": {"192.0.2.9/32": "configuration", "2001:db8::/32": "configuration"},
    });
    assert_eq!(json(&server, "/bans"), at_first);
    let mut staying = server.client();
    staying.send("1");
    staying.stream.read_exact(&mut [0]).unwrap();
    let mut visitor = server.admin();
    for _ in 0..2 {
        assert_eq!(visitor.request("PUT", "/bans/127.0.0.0/8").status, 204, "twice is once");
    }
    lets_in_once(&server, false);
    let bans = json(&server, "/bans");
    assert_eq!(bans["bans"], json!(["127.0.0.0/8", "192.0.2.9/32", "2001:db8::/32"]));
    let origins = ["127.0.0.0/8", "192.0.2.9/32"].map(|prefix| &bans["origins"][prefix]);
    assert_eq!(origins, ["admin", "configuration"]);
    // Who was there stays, and the admin listener bans nobody.
    staying.send("2");
    staying.stream.read_exact(&mut [0]).unwrap();
    let one = b"{\"prefix\":\"127.0.0.0/8\",\"origin\":\"admin\"}";
    for same in ["/bans/127.0.0.0/8", "/bans/127.0.0.0%2F8", "/bans/127.1.2.3/8"] {
        let reply = visitor.request("GET", same);
        assert_eq!((reply.status, &reply.body[..]), (200, &one[..]));
    }
    for (method, target, status) in [
        ("GET", "/bans/127.0.0.1", 404),
        ("DELETE", "/bans/127.0.0.1", 404),
        ("GET", "/bans/", 400),
        ("PUT", "/bans/everybody", 400),
        ("PUT", "/bans/127.0.0.0/33", 400),
        ("PUT", "/bans/127.0.0.0%2", 400),
        ("POST", "/bans/127.0.0.0/8", 405),
        ("DELETE", "/bans", 405),
    ] {
        assert_eq!(visitor.request(method, target).status, status, "{method} {target}");
    }
    let of_another_site = "PUT /bans/0.0.0.0/0 HTTP/1.1\r\nHost: localhost\r\n\
                           Sec-Fetch-Site: cross-site\r\n\r\n";
    assert_eq!(visitor.ask(of_another_site).status, 403);
    assert_eq!(visitor.request("DELETE", "/bans/127.0.0.0%2f8").status, 204);
    lets_in_once(&server, true);
    assert_eq!(json(&server, "/bans"), at_first);
    drop(staying);
    server.stop().cleanly();
}

#[test]
fn bans_of_the_command_line_hold_from_the_start() {
    let server = Server::echo_with_admin(&["--shards", "2", "--ban", "127.0.0.1"]);
    for _ in 0..5 {
        assert!(!lets_in(&server));
    }
    assert_eq!(json(&server, "/ledger")["connections"]["opened"], 0);
    assert_eq!(server.admin().request("DELETE", "/bans/127.0.0.1").status, 204);
    lets_in_once(&server, true);
    server.stop().cleanly();
}

#[test]
fn one_address_has_so_many_connections_at_most() {
    let server = Server::echo_with_admin(&["--shards", "2", "--max-per-ip", "3"]);
    let within: Vec<_> = (0..3).map(|_| server.client()).collect();
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 3);
    assert!(!lets_in(&server), "that is one too many");
    ledger_once(&server, |ledger| ledger["connections"]["over_address_limit"] == 1);
    drop(within);
    lets_in_once(&server, true);
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 0 && ledger["balanced"] == true);
    server.stop().cleanly();
}
