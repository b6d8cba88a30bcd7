//! A connection ends when the peer has acknowledged everything, on the real ring.

use crate::common::{PATIENCE, Server, serve, stream_byte, wait_until};
use ringwright::{Config, Reason};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

const REPLY_BYTES: usize = 2_000_000;
/// More than the buffers of a narrow client hold.
const UNREAD_BYTES: usize = 1_000_000;

/// Deadlines that end a connection long before a slow reader has its reply.
fn short(config: &mut Config) {
    config.idle_timeout = Some(Duration::from_millis(200));
    config.linger_timeout = Duration::from_millis(50);
    config.linger_total = Duration::from_millis(100);
    config.output_high_bytes = 2 * REPLY_BYTES;
}

/// Reads the reply in pieces, slowly, and the `bye` behind it if there is one.
fn read_slowly(client: &mut TcpStream, server: &Server) {
    let (mut received, mut piece) = (0, [0; 20_000]);
    while received < REPLY_BYTES {
        let length = client.read(&mut piece).expect("the reply goes on");
        assert!(length > 0, "the reply ends after {received} bytes");
        let most = length.min(REPLY_BYTES - received);
        let right = (0..most).all(|at| piece[at] == stream_byte((received + at) as u64));
        assert!(right, "bytes behind {received}");
        received += length;
        let open = server.engine.handle().ledger().open();
        assert!(open == 1 || REPLY_BYTES - received.min(REPLY_BYTES) < UNREAD_BYTES);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_reader_keeps_its_connection_with_and_without_both_fins() {
    for (lines, fin) in
        [("", false), ("shutdown\n", true), ("shutdown\n", false), ("close\n", true)]
    {
        let server = serve(short);
        let mut client = server.connect_narrow();
        client.write_all(format!("big {REPLY_BYTES}\n{lines}").as_bytes()).unwrap();
        if fin {
            client.shutdown(Shutdown::Write).unwrap();
        }
        read_slowly(&mut client, &server);
        drop(client);
        let reason = server.next_end();
        let right = matches!(reason, Reason::PeerFin | Reason::LocalClose | Reason::IdleTimeout);
        assert!(right, "{lines:?}, {fin}: {reason:?}");
        server.finish();
    }
}

#[test]
fn a_reader_that_stalls_is_given_the_whole_time() {
    let timeout = Duration::from_millis(800);
    let server = serve(|config| config.write_timeout = Some(timeout));
    let begun = Instant::now();
    let client = server.stall();
    assert_eq!(server.next_end(), Reason::WriteTimeout);
    assert!(begun.elapsed() >= timeout, "after {:?}", begun.elapsed());
    drop(client);
    server.finish();
}

#[test]
fn whoever_stops_reading_after_both_fins_gives_its_place_up() {
    let server = serve(|config| {
        config.write_timeout = Some(Duration::from_millis(300));
        config.output_high_bytes = 2 * REPLY_BYTES;
    });
    let mut client = server.connect_narrow();
    client.write_all(format!("big {REPLY_BYTES}\nshutdown\n").as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_until("its place is free", || server.engine.handle().ledger().open() == 0);
    server.finish();
}

/// The peer hung in its send as soon as a megabyte had been thrown away.
#[test]
fn whoever_writes_everything_before_it_reads_gets_its_reply() {
    let server = serve(|config| config.receive_buffers = 4);
    let mut client = server.connect();
    client.write_all(b"close\n").unwrap();
    for _ in 0..60 {
        client.write_all(&[b'x'; 1 << 20]).expect("it is read and thrown away");
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("no reset before the reply was read");
    assert_eq!(answer, "bye\n");
    drop(client);
    assert_eq!(server.next_end(), Reason::LocalClose);
    server.finish();
}

#[test]
fn whoever_sends_for_ever_is_reset() {
    let server = serve(|config| config.linger_total = Duration::from_millis(300));
    let mut client = server.connect();
    client.write_all(b"close\n").unwrap();
    let begun = Instant::now();
    while client.write_all(&[b'x'; 1 << 16]).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it sends for ever");
    }
    assert!(begun.elapsed() >= Duration::from_millis(290));
    assert_eq!(server.next_end(), Reason::LocalClose);
    server.finish();
}
