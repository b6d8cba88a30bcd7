//! What is said while the engine drains, and that nobody waits for the admin listener to end.

use super::ledger_once;
use crate::common::{Modes, PATIENCE, Server, command, tree};
use std::fs::File;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn it_answers_until_the_drain_has_ended() {
    let tree = tree();
    File::create(tree.path().join("large.bin")).unwrap().set_len(100 << 20).unwrap();
    let mut daemon = command(&["http", tree.path().to_str().unwrap(), "--shards", "2"]);
    daemon.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let server = Server::start_with_admin(&mut daemon, "http");
    let mut stalled = server.client();
    stalled.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(stalled.head().status, 200);
    let mut visitor = server.admin();
    assert_eq!(visitor.request("GET", "/readyz").body, b"ready\n");
    server.signal(libc::SIGTERM);
    // On the same connection and on new ones.
    let give_up = Instant::now() + PATIENCE;
    while visitor.request("GET", "/readyz").status == 200 {
        assert!(Instant::now() < give_up, "it stays ready");
    }
    for mut visitor in [visitor, server.admin()] {
        let reply = visitor.request("GET", "/readyz");
        assert_eq!((reply.status, &reply.body[..]), (503, &b"draining\n"[..]));
        assert_eq!(visitor.request("GET", "/livez").status, 200);
    }
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < give_up, "new clients are let in while it drains");
    }
    // Those that were let in meanwhile have left.
    ledger_once(&server, |ledger| ledger["connections"]["open"] == 1);
    // What is waited for ends, and with it everything.
    drop(stalled);
    server.wait().cleanly();
}

#[test]
fn it_does_not_delay_the_end() {
    let server = Server::echo_with_admin(&["--shards", "1"]);
    let mut staying = server.admin();
    assert_eq!(staying.request("GET", "/livez").status, 200);
    let mut half = server.admin();
    half.send("GET /ledg");
    ledger_once(&server, |ledger| ledger["balanced"] == true);
    let start = Instant::now();
    server.stop().cleanly();
    // A request that was begun has five seconds otherwise.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_second_signal_does_not_wait_for_visitors() {
    let server = Server::echo_with_admin(&["--shards", "1", "--drain-timeout", "1h"]);
    let mut busy = server.client();
    busy.send(vec![b'x'; 100_000]);
    let mut visitor = server.admin();
    server.signal(libc::SIGTERM);
    let give_up = Instant::now() + PATIENCE;
    while visitor.request("GET", "/readyz").status == 200 {
        assert!(Instant::now() < give_up, "it stays ready");
        thread::sleep(Duration::from_millis(1));
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().status.code(), Some(0));
}
