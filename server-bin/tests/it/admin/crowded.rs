//! When the engine that serves is full, or the process has no descriptor left.

use super::{json, ledger_once};
use crate::common::{Client, Modes, PATIENCE, Server, command_below};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const DESCRIPTORS: usize = 64;

fn with_few_descriptors(arguments: &[&str]) -> Server {
    let any = "127.0.0.1:0";
    let mut all = vec!["echo", "--shards", "2", "--listen", any, "--admin", any];
    all.extend_from_slice(arguments);
    Server::start_with_admin(&mut command_below(&format!("-n {DESCRIPTORS}"), &all), "echo")
}

#[test]
fn it_answers_while_the_process_has_no_descriptor_left() {
    let server = with_few_descriptors(&[]);
    let crowd: Vec<Client> = (0..200).map(|_| server.client()).collect();
    full_once(&server);
    // Several at once, again and again: what one leaves free must not be taken by a client.
    for _ in 0..5 {
        let mut visitors: Vec<Client> = (0..6).map(|_| server.admin()).collect();
        for visitor in &mut visitors {
            for target in ["/livez", "/readyz", "/ledger", "/metrics", "/connections"] {
                let reply = visitor.request("GET", target);
                assert_eq!(reply.status, 200, "{target}: {reply:?}");
            }
        }
        drop(visitors);
        // What they leave free is not for the clients that wait.
        full_once(&server);
    }
    // More visitors than it has places: those beyond are turned away.
    for _ in 0..10 {
        drop((0..40).map(|_| TcpStream::connect(server.admin.unwrap())).collect::<Vec<_>>());
        full_once(&server);
        live_once(&server);
    }
    // More visitors than its own table has numbers, until its accept fails as well: it recovers.
    let stays: Vec<Client> = (0..10).map(|_| server.admin()).collect();
    for _ in 0..10 {
        drop((0..120).map(|_| TcpStream::connect(server.admin.unwrap())).collect::<Vec<_>>());
        live_once(&server);
    }
    drop(stays);
    let ledger = json(&server, "/ledger");
    let open = ledger["connections"]["open"].as_u64().unwrap();
    assert!((30..DESCRIPTORS as u64).contains(&open), "{ledger}");
    drop(crowd);
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 0 && ledger["balanced"] == true);
    let mut client = server.client();
    client.send("again");
    let mut back = [0; 5];
    client.stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"again");
    drop(client);
    server.stop().cleanly();
}

/// Waits until every descriptor is in use.
#[track_caller]
fn full_once(server: &Server) {
    let give_up = Instant::now() + PATIENCE;
    while server.descriptors() < DESCRIPTORS {
        let used = server.descriptors();
        assert!(Instant::now() < give_up, "{used} of {DESCRIPTORS} descriptors are in use");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks until there is an answer. A visitor is turned away while the places of those that have left
/// are not free yet.
#[track_caller]
fn live_once(server: &Server) {
    let give_up = Instant::now() + PATIENCE;
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(server.admin.unwrap())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    };
    loop {
        let reply = ask();
        if matches!(&reply, Ok(text) if text.starts_with("HTTP/1.1 200 ")) {
            return;
        }
        assert!(Instant::now() < give_up, "{reply:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_answers_when_every_permit_is_taken() {
    let server = Server::echo_with_admin(&["--shards", "1", "--max-connections", "3"]);
    let clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    // Who waits keeps the rest in the backlog.
    let ledger = ledger_once(&server, |ledger| ledger["connections"]["waiting"].as_u64() > Some(0));
    assert_eq!(ledger["permits"], serde_json::json!({"total": 3, "free": 0}));
    assert_eq!(server.admin().request("GET", "/readyz").status, 200);
    drop(clients);
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 0 && ledger["balanced"] == true);
    server.stop().cleanly();
}

/// Whoever has been silent for longest makes room for whoever comes.
#[test]
fn silent_visitors_lock_nobody_out() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut visitors: Vec<Client> = (0..10).map(|_| server.admin()).collect();
    for visitor in &mut visitors {
        assert_eq!(visitor.request("GET", "/livez").status, 200);
    }
    // And some that do not ask, or only half.
    let mut silent: Vec<Client> = Vec::new();
    for number in 0..30 {
        let mut visitor = server.admin();
        if number % 2 == 0 {
            let _ = visitor.stream.get_mut().write_all(b"GET /livez HT");
        }
        silent.push(visitor);
        thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..40 {
        assert_eq!(server.admin().request("GET", "/livez").status, 200);
    }
    drop((visitors, silent));
    server.stop().cleanly();
}
