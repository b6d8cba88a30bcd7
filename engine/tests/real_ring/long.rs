//! Long messages over real sockets.

use crate::both::kind;
use crate::common::{Echo, PATIENCE, start, wait_until};
use ringwright::{Config, Engine, Ledger, RingKind};
use std::io::{Read, Write};
use std::net::TcpStream;

const MESSAGE_BYTES: usize = 48 << 10;
const MESSAGES: u64 = 50;

/// A server whose send buffers hold less than a message.
fn serve() -> Engine {
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        send_buffers: 2,
        send_buffer_bytes: 4_096,
        ..Config::default()
    };
    start(config, |_| Echo)
}

fn connect(engine: &Engine) -> TcpStream {
    let client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn echoes(client: &mut TcpStream, number: u64, bytes: usize) {
    let message: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8 ^ number as u8).collect();
    client.write_all(&message).unwrap();
    let mut echo = vec![0; bytes];
    client.read_exact(&mut echo).unwrap();
    assert!(echo == message, "message {number}");
}

/// The ledger once the shard has published what it did for these bytes.
fn ledger(engine: &Engine, bytes: u64) -> Ledger {
    let handle = engine.handle();
    wait_until("all bytes have left", || handle.ledger().sum.bytes_sent == bytes);
    handle.ledger()
}

#[test]
fn long_messages_take_few_operations_and_leave_without_a_copy() {
    let engine = serve();
    let mut client = connect(&engine);
    for number in 0..4 {
        echoes(&mut client, number, MESSAGE_BYTES);
    }
    let before = ledger(&engine, 4 * MESSAGE_BYTES as u64);
    assert!(before.sum.heap_chunks > 0, "the first one needs copies beyond the send buffers");
    for number in 0..MESSAGES {
        echoes(&mut client, number, MESSAGE_BYTES);
    }
    let after = ledger(&engine, (4 + MESSAGES) * MESSAGE_BYTES as u64);
    // A busy machine may cut a message into pieces, of which a poll reports each.
    let completions = after.sum.completed - before.sum.completed;
    assert!(completions < 6 * MESSAGES, "{completions} completions: a receive buffer holds 4 KiB");
    let copies = after.sum.heap_chunks - before.sum.heap_chunks;
    assert!(copies < MESSAGES, "{copies} chunks beyond the send buffers");
    drop(client);
    engine.handle().drain(PATIENCE);
    assert!(engine.join().unwrap().balanced());
}

/// Each change takes effect, and no byte is lost or moved.
#[test]
fn a_connection_goes_from_long_messages_to_short_ones_and_back() {
    let engine = serve();
    let mut client = connect(&engine);
    let mut sent = 0;
    for round in 0..4 {
        for number in 0..40 {
            let bytes = if round % 2 == 0 { 200_000 } else { 64 };
            echoes(&mut client, number, bytes);
            sent += bytes as u64;
        }
    }
    let before = ledger(&engine, sent);
    for number in 0..40 {
        echoes(&mut client, number, 64);
    }
    let after = ledger(&engine, sent + 40 * 64);
    // A multishot receive stays armed, and a short echo is sent past the ring.
    let submitted = after.sum.submitted - before.sum.submitted;
    assert!(kind() != RingKind::IoUring || submitted <= 10, "{submitted} operations");
    drop(client);
    engine.handle().drain(PATIENCE);
    engine.join().unwrap();
}
