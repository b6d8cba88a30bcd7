//! Streams from another thread: flow control, bounded memory, the end.

use crate::common::{PATIENCE, is_reset, reset, start, wait_until};
use ringwright::{
    Config, Connection, ConnectionId, Engine, Handler, Origin, Payload, SendStreamErrorKind,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const WINDOW_BYTES: usize = 200_000;
const PIECE_BYTES: usize = 64 << 10;

/// Tells of each client. Any byte makes it try to wait for a stream in the callback.
struct Telling(Sender<ConnectionId>, Sender<SendStreamErrorKind>);

impl Handler for Telling {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.0.send(connection.id()).unwrap();
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let id = connection.id();
        let stream = connection.local().engine().stream(id, 1);
        self.1.send(stream.send("never", PATIENCE).unwrap_err().kind).unwrap();
        stream.try_send("at once").unwrap();
        bytes.len()
    }
}

fn telling() -> (Engine, Receiver<ConnectionId>, Receiver<SendStreamErrorKind>) {
    let (ids, opened) = channel();
    let (kinds, refused) = channel();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        output_bytes_max: 1 << 20,
        ..Config::default()
    };
    let engine = start(config, move |_| Telling(ids.clone(), kinds.clone()));
    (engine, opened, refused)
}

fn connect(engine: &Engine, opened: &Receiver<ConnectionId>) -> (TcpStream, ConnectionId) {
    let client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, opened.recv_timeout(PATIENCE).unwrap())
}

fn finish(engine: Engine) {
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}

#[test]
fn a_hundred_mebibytes_arrive_whole_at_a_slow_reader_in_flat_memory() {
    const BYTES: usize = 100 << 20;
    let (engine, opened, _refused) = telling();
    let (mut client, id) = connect(&engine, &opened);
    let pattern: Arc<[u8]> = (0..1_000_003_u32).map(|at| ((at * 7) >> 3) as u8).collect();
    let (handle, content) = (engine.handle().clone(), pattern.clone());
    let sender = std::thread::spawn(move || {
        let stream = handle.stream(id, WINDOW_BYTES);
        let (mut sent, mut most) = (0, 0);
        while sent < BYTES {
            let at = sent % content.len();
            let bytes = PIECE_BYTES.min(content.len() - at).min(BYTES - sent);
            let piece = Payload::range(content.clone(), at..at + bytes);
            stream.send(piece, PATIENCE).unwrap();
            sent += bytes;
            most = most.max(stream.under_way_bytes());
            let queued = handle.ledger().sum.budget_used_bytes as usize;
            // Each piece counts with its part of the pattern, which has few holders.
            assert!(queued < 4 * content.len(), "{queued} bytes are queued");
        }
        most
    });
    let (mut read, mut buffer) = (0, vec![0; 256 << 10]);
    while read < BYTES {
        let bytes = client.read(&mut buffer).unwrap();
        assert!(bytes > 0, "{read} bytes, then the end");
        let mut rest = &buffer[..bytes];
        while !rest.is_empty() {
            let at = read % pattern.len();
            let length = rest.len().min(pattern.len() - at);
            assert!(rest[..length] == pattern[at..at + length], "other bytes after {read}");
            read += length;
            rest = &rest[length..];
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let most = sender.join().unwrap();
    assert!((WINDOW_BYTES / 2..WINDOW_BYTES + PIECE_BYTES).contains(&most), "{most} bytes");
    finish(engine);
}

#[test]
fn a_stream_that_waits_is_told_of_room_and_of_the_end() {
    let (engine, opened, refused) = telling();
    let (mut client, id) = connect(&engine, &opened);
    let stream = engine.handle().stream(id, WINDOW_BYTES);
    let piece: Arc<[u8]> = vec![1; PIECE_BYTES].into();
    // The sockets take some megabytes.
    let fill = || {
        let mut sent = 0;
        loop {
            match stream.send(piece.clone(), Duration::from_millis(300)) {
                Ok(()) => sent += PIECE_BYTES,
                Err(full) => {
                    assert_eq!(full.kind, SendStreamErrorKind::Full);
                    assert_eq!(full.payload.as_ref(), &piece[..]);
                    return sent;
                }
            }
        }
    };
    let sent = fill();
    let (called, room) = channel();
    let notice = called.clone();
    stream.notify(move || notice.send("room").unwrap());
    assert!(room.recv_timeout(Duration::from_millis(50)).is_err(), "nothing was read");
    client.read_exact(&mut vec![0; sent]).unwrap();
    assert_eq!(room.recv_timeout(PATIENCE), Ok("room"));
    wait_until("everything has left", || stream.under_way_bytes() == 0);
    stream.notify(move || called.send("at once").unwrap());
    assert_eq!(room.try_recv(), Ok("at once"));
    // A thread that waits is woken by the end.
    fill();
    let waiter = std::thread::spawn(move || stream.send("late", PATIENCE).map_err(|it| it.kind));
    std::thread::sleep(Duration::from_millis(50));
    reset(client);
    let ended = waiter.join().unwrap();
    let reset = |it| matches!(it, SendStreamErrorKind::Ended(Some(reason)) if is_reset(reason));
    assert!(ended.is_err_and(reset), "{ended:?}");
    // The shard's own thread does not wait for itself.
    let (mut client, _) = connect(&engine, &opened);
    client.write_all(b"?").unwrap();
    assert_eq!(refused.recv_timeout(PATIENCE), Ok(SendStreamErrorKind::FromCallback));
    client.read_exact(&mut [0; 7]).unwrap();
    finish(engine);
}

/// The queue of the shard is full, and not the window: a thread waits for the queue.
#[test]
fn a_stream_waits_for_a_command_queue_that_is_full() {
    let (engine, opened, _refused) = telling();
    let (mut client, id) = connect(&engine, &opened);
    let handle = engine.handle();
    let (stops, stopped) = channel();
    let (go_on, waits) = channel::<()>();
    let stop = move |_: &mut ringwright::Local<'_>| {
        stops.send(()).unwrap();
        let _ = waits.recv_timeout(PATIENCE);
    };
    handle.run_on_shard(0, stop).unwrap();
    stopped.recv_timeout(PATIENCE).unwrap();
    while handle.kick(ConnectionId::from_number(0)).is_ok() {}
    let stream = handle.stream(id, WINDOW_BYTES);
    let busy = stream.try_send("at once").unwrap_err();
    assert_eq!(busy.kind, SendStreamErrorKind::Busy);
    let busy = stream.send("soon", Duration::from_millis(20)).unwrap_err();
    assert_eq!(busy.kind, SendStreamErrorKind::Busy);
    let waiter = std::thread::spawn(move || stream.send("later", PATIENCE).map_err(|it| it.kind));
    std::thread::sleep(Duration::from_millis(20));
    go_on.send(()).unwrap();
    assert_eq!(waiter.join().unwrap(), Ok(()));
    let mut later = [0; 5];
    client.read_exact(&mut later).unwrap();
    assert_eq!(&later, b"later");
    finish(engine);
}
