//! When the engine that serves is full, or the process has no descriptor left.

use super::{json, ledger_once};
use crate::common::{Client, PATIENCE, Server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// With so few descriptors the admin listener keeps a quarter of them for itself.
const DESCRIPTORS: usize = 64;
/// What is left for everything else.
const FULL: usize = 48;

fn with_few_descriptors(arguments: &[&str]) -> Server {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\"")])
        .args([env!("CARGO_BIN_EXE_ringwrightd"), "echo", "--shards", "2"])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Server::start_with_admin(&mut shell, "echo")
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
    // As many visitors as the reserve has descriptors: half of them are turned away, and the accept
    // stays armed.
    for _ in 0..10 {
        let visitors = DESCRIPTORS - FULL;
        drop((0..visitors).map(|_| TcpStream::connect(server.admin.unwrap())).collect::<Vec<_>>());
        full_once(&server);
        let mut visitor = server.admin();
        assert_eq!(visitor.request("GET", "/livez").status, 200);
    }
    let ledger = json(&server, "/ledger");
    let open = ledger["connections"]["open"].as_u64().unwrap();
    assert!((20..FULL as u64).contains(&open), "{ledger}");
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

/// Waits until every descriptor is in use but for those reserved, none of which is.
#[track_caller]
fn full_once(server: &Server) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let numbers = server.descriptor_numbers();
        let of = |range: Range<usize>| numbers.iter().filter(|at| range.contains(at)).count();
        let (usual, reserved) = (of(0..FULL), of(FULL..DESCRIPTORS));
        if (usual, reserved) == (FULL, 0) {
            return;
        }
        assert!(Instant::now() < give_up, "{usual} of {FULL}, and {reserved} of those reserved");
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
