//! Who is connected, page by page, and the end of one of them on request.

use super::{json, ledger_once, parsed};
use crate::common::{Client, Modes, PATIENCE, Server};
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;
use std::time::{Duration, Instant};

#[test]
fn all_are_listed_page_by_page() {
    let server = Server::echo_with_admin(&["--shards", "2"]);
    let clients: Vec<Client> = (0..25).map(|_| server.client()).collect();
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 25);
    let peers: HashSet<String> = clients
        .iter()
        .map(|client| client.stream.get_ref().local_addr().unwrap().to_string())
        .collect();
    for limit in [1, 7, 25, 26, 1000] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = json(&server, &format!("/connections?limit={limit}{after}"));
            let connections = page["connections"].as_array().unwrap();
            assert!(connections.len() <= limit);
            found.extend(connections.iter().cloned());
            assert!(found.len() <= 25, "somebody is listed twice");
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let listed: HashSet<String> =
            found.iter().map(|one| one["peer"].as_str().unwrap().to_owned()).collect();
        assert_eq!(listed, peers, "limit {limit}");
    }
    let all = json(&server, "/connections");
    let first = &all["connections"][0];
    assert_eq!(first["listener"], format!("echo://{}", server.address));
    assert_eq!(first["queued_bytes"], 0);
    let seconds = |one: &Value, key: &str| one[key].as_f64().unwrap();
    assert!(seconds(first, "age_seconds") < 60.0 && seconds(first, "idle_seconds") < 60.0);
    let id = first["id"].as_str().unwrap();
    let one = json(&server, &format!("/connections/{id}"));
    assert_eq!((&one["id"], &one["peer"]), (&first["id"], &first["peer"]));
    drop(clients);
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 0);
    assert_eq!(json(&server, "/connections"), serde_json::json!({"connections": [], "next": null}));
    let gone = server.admin().request("GET", &format!("/connections/{id}"));
    assert_eq!(gone.status, 404);
    server.stop().cleanly();
}

#[test]
fn what_a_client_does_not_read_is_seen_waiting() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut client = server.client();
    client.send(vec![b'x'; 100]);
    client.stream.read_exact(&mut [0; 100]).unwrap();
    // More than the socket buffers hold, and nothing of it is read.
    let stream = client.stream.get_mut();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let block = vec![b'y'; 1 << 20];
    while std::io::Write::write_all(stream, &block).is_ok() {}
    let give_up = Instant::now() + PATIENCE;
    while json(&server, "/connections")["connections"][0]["queued_bytes"] == 0 {
        assert!(Instant::now() < give_up, "nothing is queued");
    }
    drop(client);
    server.stop().cleanly();
}

#[test]
fn a_kicked_client_is_reset_and_nobody_else() {
    let server = Server::echo_with_admin(&["--shards", "2"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("x");
        client.stream.read_exact(&mut [0]).unwrap();
    }
    let mut victim = clients.remove(1);
    let peer = victim.stream.get_ref().local_addr().unwrap().to_string();
    let listed = json(&server, "/connections");
    let listed = listed["connections"].as_array().unwrap();
    let entry = listed.iter().find(|one| one["peer"] == peer.as_str()).unwrap();
    let target = format!("/connections/{}", entry["id"].as_str().unwrap());
    let mut visitor = server.admin();
    let reply = visitor.request("DELETE", &target);
    assert_eq!((reply.status, reply.fields.contains_key("content-length")), (204, false));
    let end = victim.stream.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    let ledger = ledger_once(&server, |ledger| ledger["connections"]["open"] == 3);
    assert_eq!(ledger["closed_by"]["kicked"], 1);
    // The same connection of the visitor goes on; the one that is gone is gone.
    assert_eq!(visitor.request("DELETE", &target).status, 404);
    assert_eq!(visitor.request("GET", &target).status, 404);
    for client in &mut clients {
        client.send("y");
        client.stream.read_exact(&mut [0]).unwrap();
    }
    drop(clients);
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 0 && ledger["balanced"] == true);
    let page = visitor.request("GET", "/connections");
    assert_eq!(parsed(&page)["connections"], serde_json::json!([]));
    server.stop().cleanly();
}
