//! Markers in the output of connections, and clients that a proxy names.

use crate::common::{PATIENCE, abstract_name, connect_narrow, is_reset, reset, start, wait_until};
use ringwright::{
    Config, Connection, ConnectionId, Engine, Handler, Local, Origin, Prefix, Reason, SentMarker,
};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Bytes that do not fit into the buffers of two sockets.
const LARGE_BYTES: usize = 12 << 20;
/// Bytes that fit into a send buffer, and not into the receive buffer of a narrow client.
const MIDDLE_BYTES: usize = 400_000;

/// Answers each byte: `m` sets a marker, `a` one that waits for the peer, `s` sends ten bytes, `M`
/// sends more, `l` sends many, `S` ends our half, `R` resets and sets a marker then. Each digit names
/// the client 192.0.2.DIGIT, which ends when it is banned.
struct Marking {
    sent: Sender<SentMarker>,
    tag: u64,
    named: Vec<(ConnectionId, IpAddr)>,
}

impl Handler for Marking {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        for byte in bytes {
            match byte {
                b'm' => {
                    self.tag += 1;
                    connection.mark_output(self.tag);
                }
                b'a' => {
                    self.tag += 1;
                    connection.mark_acknowledged(self.tag);
                }
                b's' => _ = connection.send(&[b's'; 10]),
                b'M' => _ = connection.send_payload(vec![b'M'; MIDDLE_BYTES]),
                b'S' => connection.shutdown(),
                b'l' => _ = connection.send_payload(vec![b'l'; LARGE_BYTES]),
                b'R' => {
                    connection.abort();
                    connection.mark_output(0);
                }
                digit => {
                    let client = IpAddr::from([192, 0, 2, digit - b'0']);
                    if connection.count_client(client) {
                        self.named.push((connection.id(), client));
                        let _ = connection.send(b"y");
                    } else {
                        let _ = connection.send(b"n");
                    }
                }
            }
        }
        bytes.len()
    }

    fn sent(&mut self, _: &mut Local<'_>, sent: &[SentMarker]) {
        sent.iter().for_each(|sent| self.sent.send(*sent).unwrap());
    }

    fn bans_changed(&mut self, shard: &mut Local<'_>) {
        for (id, client) in &self.named {
            if shard.is_banned(*client) {
                shard.kick(*id);
            }
        }
    }
}

fn marking(max_per_address: Option<u16>) -> (Engine, Receiver<SentMarker>) {
    let (sender, sent) = channel();
    let name = abstract_name();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap(), format!("unix:@{name}").parse().unwrap()],
        shards: Some(1),
        pin: false,
        max_per_address,
        ..Config::default()
    };
    let marking = move |_| Marking { sent: sender.clone(), tag: 0, named: Vec::new() };
    (start(config, marking), sent)
}

fn connect(engine: &Engine) -> TcpStream {
    let client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn finish(engine: Engine) {
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}

#[test]
fn markers_are_reached_in_order_when_the_bytes_before_them_have_left() {
    let (engine, sent) = marking(None);
    let mut client = connect(&engine);
    client.write_all(b"msmmlmsm").unwrap();
    let next = || sent.recv_timeout(PATIENCE).unwrap();
    // Nothing is queued before the first one, and nothing between the next two.
    for tag in 1..=3 {
        let sent = next();
        assert_eq!((sent.tag, sent.unsent_bytes, sent.reason), (tag, 0, None));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(sent.try_recv().is_err(), "the client has not read so much");
    client.read_exact(&mut vec![0; LARGE_BYTES + 20]).unwrap();
    let (large, last) = (next(), next());
    assert_eq!((large.tag, large.reason, last.tag, last.reason), (4, None, 5, None));
    assert!(large.at <= last.at && large.connection == last.connection);
    finish(engine);
}

#[test]
fn markers_tell_of_what_has_not_left_at_the_end() {
    let (engine, sent) = marking(None);
    let mut client = connect(&engine);
    client.write_all(b"smlmsm").unwrap();
    client.read_exact(&mut vec![0; 1 << 20]).unwrap();
    reset(client);
    let next = || sent.recv_timeout(PATIENCE).unwrap();
    let (first, large, last) = (next(), next(), next());
    assert_eq!((first.tag, first.unsent_bytes, first.reason), (1, 0, None));
    assert!((1..LARGE_BYTES as u64 - (1 << 19)).contains(&large.unsent_bytes), "{large:?}");
    assert_eq!((large.tag, last.tag, last.unsent_bytes), (2, 3, 10));
    assert!(large.reason.is_some_and(is_reset), "{large:?}");
    assert_eq!(last.reason, large.reason);
    // The slot has another connection, with markers of its own.
    let mut client = connect(&engine);
    client.write_all(b"smR").unwrap();
    let (after, cut) = (next(), next());
    assert_eq!((after.tag, cut.tag, cut.unsent_bytes), (4, 0, u64::MAX));
    assert_eq!(cut.reason, Some(Reason::Aborted));
    finish(engine);
}

#[test]
fn a_marker_for_the_peer_is_reached_when_it_has_acknowledged_the_bytes() {
    let (engine, sent) = marking(None);
    let mut client = connect_narrow(engine.addresses()[0]);
    client.write_all(b"aMmasS").unwrap();
    let next = || sent.recv_timeout(PATIENCE).unwrap();
    // Nothing precedes the first one, which waits all the same until the kernel is asked.
    let mut tags = [next().tag, next().tag];
    tags.sort_unstable();
    assert_eq!(tags, [1, 2]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(sent.try_recv().is_err(), "the client has not taken so much");
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), MIDDLE_BYTES + 10);
    let last = next();
    assert_eq!((last.tag, last.unsent_bytes, last.reason), (3, 0, None));
    finish(engine);
}

#[test]
fn markers_for_the_peer_tell_of_what_it_has_not_acknowledged_at_the_end() {
    let (engine, sent) = marking(None);
    for ends in ["", "S"] {
        let mut client = connect_narrow(engine.addresses()[0]);
        client.write_all(format!("Masma{ends}").as_bytes()).unwrap();
        let next = || sent.recv_timeout(PATIENCE).unwrap();
        let left = next();
        assert_eq!((left.unsent_bytes, left.reason), (0, None));
        std::thread::sleep(Duration::from_millis(100));
        reset(client);
        let (first, last) = (next(), next());
        assert_eq!((first.tag, last.tag), (left.tag - 1, left.tag + 1));
        assert!((1..MIDDLE_BYTES as u64).contains(&first.unsent_bytes), "{first:?}");
        assert!(first.reason.is_some_and(is_reset), "{first:?}");
        assert_eq!((last.unsent_bytes, last.reason), (10, first.reason));
    }
    finish(engine);
}

#[test]
fn bytes_of_a_unix_socket_are_acknowledged_when_they_have_left() {
    let (engine, sent) = marking(None);
    let address = UnixAddr::from_abstract_name(abstract_name()).unwrap();
    let mut client = UnixStream::connect_addr(&address).unwrap();
    client.write_all(b"sas").unwrap();
    let marker = sent.recv_timeout(PATIENCE).unwrap();
    assert_eq!((marker.tag, marker.unsent_bytes, marker.reason), (1, 0, None));
    client.read_exact(&mut [0; 20]).unwrap();
    drop(client);
    finish(engine);
}

/// Credits of a stream lie between the markers of the handler, which must not notice them.
#[test]
fn a_marker_counts_bytes_before_the_payload_of_a_stream() {
    let (engine, sent) = marking(None);
    let mut client = connect(&engine);
    client.write_all(b"l").unwrap();
    let handle = engine.handle();
    let info = || handle.list(None, 1).unwrap().pop();
    wait_until("the output", || info().is_some_and(|info| info.queued_bytes > LARGE_BYTES / 4));
    let id = info().unwrap().id;
    let stream = handle.stream(id, 10_000);
    stream.try_send(vec![b't'; 1_000]).unwrap();
    handle.run_on_connection(id, |connection| connection.mark_output(7)).unwrap();
    let queued_bytes = info().unwrap().queued_bytes;
    reset(client);
    let marker = sent.recv_timeout(PATIENCE).unwrap();
    assert!(marker.tag == 7 && marker.reason.is_some(), "{marker:?}");
    // The kernel may have taken some more.
    let queued_bytes = queued_bytes as u64;
    assert!((queued_bytes / 2..=queued_bytes).contains(&marker.unsent_bytes), "{marker:?}");
    finish(engine);
}

#[test]
fn a_connection_counts_for_the_client_that_is_named() {
    let (engine, _sent) = marking(Some(2));
    let handle = engine.handle();
    let name = |client: &mut TcpStream, digit: u8| {
        client.write_all(&[digit]).unwrap();
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        answer[0]
    };
    let mut clients: Vec<_> = (0..2).map(|_| connect(&engine)).collect();
    // Two are the limit of the socket's address, until they count elsewhere.
    assert_eq!(connect(&engine).read(&mut [0]).unwrap_or(0), 0);
    clients.iter_mut().for_each(|client| assert_eq!(name(client, b'7'), b'y'));
    let mut third = connect(&engine);
    assert_eq!((name(&mut third, b'7'), name(&mut third, b'8')), (b'n', b'y'));
    drop(clients.pop());
    wait_until("the place is free", || name(&mut third, b'7') == b'y');
    handle.ban("192.0.2.7".parse::<Prefix>().unwrap()).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap_or(0), 0, "banned");
    assert_eq!(clients[0].read(&mut [0]).unwrap_or(0), 0, "banned");
    wait_until("they are counted", || handle.ledger().sum.closed_by[Reason::Kicked as usize] == 2);
    finish(engine);
}
