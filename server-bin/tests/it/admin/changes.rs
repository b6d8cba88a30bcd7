//! Changes by an operator: connections are ended, the number of workers is set, a drain begins.

use super::{json, ledger_once};
use crate::common::{Client, Modes, PATIENCE, Server, command, tree};
use ringwrightd_test_support::socket::Sources;
use serde_json::json;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::time::Instant;

const REQUEST: &str = "GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn connections_are_counted_by_address() {
    let any = "127.0.0.1:0";
    let mut daemon = command(&["echo", "--shards", "2", "--listen", any, "--admin", any]);
    let server = Server::start_with_admin(&mut daemon, "echo");
    let none = json!({"addresses": [], "total": 0, "connections": 0});
    assert_eq!(json(&server, "/addresses"), none);
    // The addresses 127.11.0.0, 127.12.0.0 and 127.13.0.0.
    let clients =
        [10, 11, 11, 12, 11].map(|client| Sources::new(client).connect(server.address).unwrap());
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 5);
    let of =
        |address: &str, connections: u64| json!({"address": address, "connections": connections});
    let addresses = [of("127.12.0.0", 3), of("127.11.0.0", 1), of("127.13.0.0", 1)];
    let all = json!({"addresses": addresses, "total": 3, "connections": 5});
    assert_eq!(json(&server, "/addresses"), all);
    let first = json!({"addresses": addresses[..1], "total": 3, "connections": 5});
    assert_eq!(json(&server, "/addresses?limit=1"), first);
    drop(clients);
    server.stop().cleanly();
}

#[test]
fn workers_come_and_go() {
    let tree = tree();
    let mut daemon = command(&["packets", tree.path().to_str().unwrap()]);
    daemon.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"]);
    let server = Server::start_with_admin(&mut daemon, "packets");
    ledger_once(&server, |ledger| ledger["jobs"]["workers"] == 2);
    for workers in [5, 0, 1] {
        let target = format!("/workers/{workers}");
        assert_eq!(server.admin().request("PUT", &target).status, 204);
        ledger_once(&server, |ledger| ledger["jobs"]["workers"] == workers);
    }
    let give_up = Instant::now() + PATIENCE;
    // Other threads of the daemon may have begun since the first reply.
    let threads = || server.threads_named("worker-");
    while threads() != 1 {
        assert!(Instant::now() < give_up, "{} workers, not 1", threads());
    }
    let mut visitor = server.admin();
    for nonsense in ["", "x", "-1", "+1", "1.5", "1025", "99999999999999999999", "1/2"] {
        let reply = visitor.request("PUT", &format!("/workers/{nonsense}"));
        let said = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(reply.status, 400, "{nonsense}: {said}");
        assert!(said.contains("from 0 to 1024"), "{said}");
    }
    ledger_once(&server, |ledger| ledger["jobs"]["workers"] == 1);
    server.stop().cleanly();
}

#[test]
fn all_connections_are_reset_and_new_ones_are_not() {
    let server = Server::echo_with_admin(&["--shards", "2"]);
    let mut clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 6);
    assert_eq!(server.admin().request("DELETE", "/connections").status, 204);
    for client in &mut clients {
        let end = client.stream.read(&mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
    let mut client = server.client();
    client.send("x");
    client.stream.read_exact(&mut [0]).unwrap();
    ledger_once(&server, |ledger| {
        ledger["closed_by"]["kicked"] == 6 && ledger["connections"]["open"] == 1
    });
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_graceful_end_finishes_what_is_in_progress() {
    let tree = tree();
    let length = 20 << 20;
    File::create(tree.path().join("large.bin")).unwrap().set_len(length).unwrap();
    let server = Server::http_with_admin(tree.path(), &["--shards", "2"]);
    let mut idle = server.client();
    assert_eq!(idle.ask(REQUEST).status, 200);
    let half = "GET /ten.txt HTTP/1.1\r\nHo";
    let mut begun = server.client();
    begun.send(half);
    let mut download = server.client();
    let large = "GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n";
    download.send(large);
    assert_eq!(download.head().status, 200);
    let sent = REQUEST.len() + half.len() + large.len();
    ledger_once(&server, |ledger| ledger["bytes"]["received"] == sent);

    // One of them, and then all.
    let listed = json(&server, "/connections");
    let peer = idle.stream.get_ref().local_addr().unwrap().to_string();
    let listed = listed["connections"].as_array().unwrap();
    let entry = listed.iter().find(|one| one["peer"] == peer.as_str()).unwrap();
    let target = format!("/connections/{}?graceful", entry["id"].as_str().unwrap());
    assert_eq!(server.admin().request("DELETE", &target).status, 204);
    idle.is_at_its_end();
    drop(idle);
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 2);
    assert_eq!(server.admin().request("DELETE", &target).status, 404);
    assert_eq!(server.admin().request("DELETE", "/connections?graceful").status, 204);
    begun.send("st: x\r\n\r\n");
    let reply = begun.reply(false);
    assert_eq!((reply.status, &reply.body[..]), (200, &b"0123456789"[..]));
    begun.is_at_its_end();
    let mut left = Vec::new();
    download.stream.read_to_end(&mut left).unwrap();
    assert_eq!(left.len() as u64, length);
    drop((begun, download));

    // The server goes on.
    assert_eq!(server.admin().request("GET", "/readyz").status, 200);
    let mut next = server.client();
    assert_eq!((next.ask(REQUEST).status, next.ask(REQUEST).status), (200, 200));
    drop(next);
    let ledger = ledger_once(&server, |ledger| ledger["connections"]["open"] == 0);
    assert_eq!(
        (&ledger["closed_by"]["kicked"], &ledger["closed_by"]["drained"]),
        (&json!(0), &json!(0))
    );
    server.stop().cleanly();
}

#[test]
fn a_drain_begins_on_request() {
    let tree = tree();
    File::create(tree.path().join("large.bin")).unwrap().set_len(20 << 20).unwrap();
    let server = Server::http_with_admin(tree.path(), &["--shards", "2"]);
    let mut download = server.client();
    download.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(download.head().status, 200);
    let forged = "POST /drain HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n";
    assert_eq!(server.admin().ask(forged).status, 403);
    assert_eq!(server.admin().request("GET", "/readyz").status, 200);
    let mut visitor = server.admin();
    // A second call changes nothing.
    for _ in 0..2 {
        assert_eq!(visitor.request("POST", "/drain").status, 204);
        let reply = visitor.request("GET", "/readyz");
        assert_eq!((reply.status, &reply.body[..]), (503, &b"draining\n"[..]));
    }
    let mut left = Vec::new();
    download.stream.read_to_end(&mut left).unwrap();
    assert_eq!(left.len(), 20 << 20);
    drop((download, visitor));
    let ended = server.wait().cleanly();
    let said = "draining for the admin listener: waiting up to 30s for requests in progress";
    assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
}

#[test]
fn what_cannot_be_changed_is_told_why() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut visitor = server.admin();
    for (method, target, status) in [
        ("DELETE", "/connections?gracefully", 400),
        ("DELETE", "/connections?graceful=1", 400),
        ("DELETE", "/connections/1?force", 400),
        ("DELETE", "/connections/x?graceful", 400),
        ("DELETE", "/connections/12345?graceful", 404),
        ("GET", "/addresses?limit=0", 400),
        ("GET", "/addresses?after=1", 400),
        ("PUT", "/workers", 404),
        ("POST", "/drain/", 404),
        ("POST", "/reload/", 404),
    ] {
        let reply = visitor.request(method, target);
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
    }
    for (method, target, allow) in [
        ("POST", "/addresses", "GET, HEAD"),
        ("DELETE", "/addresses", "GET, HEAD"),
        ("GET", "/workers/3", "PUT"),
        ("DELETE", "/workers/3", "PUT"),
        ("POST", "/workers/x", "PUT"),
        ("GET", "/drain", "POST"),
        ("PUT", "/drain", "POST"),
        ("GET", "/reload", "POST"),
        ("POST", "/connections", "GET, HEAD, DELETE"),
        ("POST", "/connections/1", "GET, HEAD, DELETE"),
        ("PATCH", "/connections/x", "GET, HEAD, DELETE"),
    ] {
        let reply = visitor.request(method, target);
        assert_eq!((reply.status, reply.field("allow")), (405, allow), "{method} {target}");
    }
    takes_no_effect(&server);
    server.stop().cleanly();
}

/// None of the requests that were refused has changed anything.
#[track_caller]
fn takes_no_effect(server: &Server) {
    assert_eq!(server.admin().request("GET", "/readyz").status, 200);
    let ledger = json(server, "/ledger");
    assert_eq!(ledger["jobs"]["workers"], 0);
}
