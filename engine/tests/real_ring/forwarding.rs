//! Tests of ranges of a stream that go to another connection.

use crate::common::{PATIENCE, abstract_name, is_reset, reset, start, stream_byte, wait_until};
use ringwright::{
    Config, Connection, ConnectionId, Engine, Forwarded, Handler, Local, Origin, Reason,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// The kind of a client's socket.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Unix,
}
use Kind::{Tcp, Unix};

/// An event that the handler reports to the test, with the number of the connection.
#[derive(Debug)]
enum Told {
    Bytes(usize, usize),
    Forwarded(usize, u64, Option<io::ErrorKind>),
    HalfClosed(usize),
    Closed(Reason),
}

/// Forwards after a line of 16 bytes: the number of the target and a length, 8 digits each. The
/// length 99999999 has no end.
struct Switch {
    connections: Vec<ConnectionId>,
    told: Sender<Told>,
}

impl Switch {
    fn tell(&self, told: Told) {
        self.told.send(told).unwrap();
    }
}

impl Handler for Switch {
    type State = usize;

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) -> usize {
        self.connections.push(connection.id());
        self.connections.len() - 1
    }

    fn received(
        &mut self,
        number: &mut usize,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        if !bytes[0].is_ascii_digit() {
            self.tell(Told::Bytes(*number, bytes.len()));
            return bytes.len();
        }
        let Some(line) = bytes.get(..16) else { return 0 };
        let digits = |line: &[u8]| std::str::from_utf8(line).unwrap().parse::<u64>().unwrap();
        let (to, length) = (digits(&line[..8]), digits(&line[8..]));
        let length = if length == 99_999_999 { u64::MAX } else { length };
        connection.forward(self.connections[to as usize], length).unwrap();
        16
    }

    fn forwarded(
        &mut self,
        number: &mut usize,
        _: &mut Connection<'_>,
        Forwarded { bytes, error, .. }: Forwarded,
    ) {
        self.tell(Told::Forwarded(*number, bytes, error.map(|error| error.kind())));
    }

    fn half_closed(&mut self, number: &mut usize, connection: &mut Connection<'_>) {
        self.tell(Told::HalfClosed(*number));
        connection.close();
    }

    fn closed(&mut self, _: Option<usize>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        self.tell(Told::Closed(reason));
    }
}

struct Served {
    engine: Engine,
    told: Receiver<Told>,
    clients: Vec<Socket>,
}

impl Served {
    /// Clients are connected one after the other, so that each has its number.
    fn new(clients: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::of(&vec![Tcp; clients], change)
    }

    fn of(clients: &[Kind], change: impl FnOnce(&mut Config)) -> Self {
        let name = abstract_name();
        let unix = format!("unix:@{name}");
        let mut config = Config {
            listeners: vec!["127.0.0.1:0".parse().unwrap(), unix.parse().unwrap()],
            shards: Some(1),
            pin: false,
            ..Config::default()
        };
        change(&mut config);
        let (sender, told) = channel();
        let switch = move |_| Switch { connections: Vec::new(), told: sender.clone() };
        let engine = start(config, switch);
        let mut served = Self { engine, told, clients: Vec::new() };
        for (number, kind) in clients.iter().enumerate() {
            let (domain, address) = match kind {
                Tcp => (Domain::IPV4, served.engine.addresses()[0].into()),
                Unix => (Domain::UNIX, SockAddr::unix(format!("\0{name}")).unwrap()),
            };
            let client = Socket::new(domain, Type::STREAM, None).unwrap();
            client.connect(&address).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.set_write_timeout(Some(PATIENCE)).unwrap();
            served.clients.push(client);
            let handle = served.engine.handle();
            wait_until("it is opened", || handle.ledger().sum.accepted == number as u64 + 1);
        }
        served
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    fn end(self) {
        drop(self.clients);
        self.engine.handle().drain(Duration::ZERO);
        assert!(self.engine.join().unwrap().balanced());
    }
}

fn line(to: usize, length: usize) -> Vec<u8> {
    format!("{to:08}{length:08}").into_bytes()
}

fn stream(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|at| stream_byte(at as u64)).collect()
}

/// Writes `bytes` in another thread.
fn write_beside(client: &Socket, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    let mut client = client.try_clone().unwrap();
    std::thread::spawn(move || client.write_all(&bytes).unwrap())
}

#[test]
fn a_stream_goes_to_another_connection_up_to_its_fin() {
    for kinds in [[Tcp, Tcp], [Tcp, Unix], [Unix, Tcp], [Unix, Unix]] {
        forward_a_stream(kinds);
    }
}

fn forward_a_stream(kinds: [Kind; 2]) {
    const BYTES: usize = 20 << 20;
    let mut served = Served::of(&kinds, |_| {});
    let content = stream(0..BYTES);
    served.clients[0].write_all(&line(1, 99_999_999)).unwrap();
    let writer = write_beside(&served.clients[0], content.clone());
    let mut received = vec![0; BYTES];
    served.clients[1].read_exact(&mut received).unwrap();
    assert!(received == content, "the bytes are others: {kinds:?}");
    writer.join().unwrap();
    // The other direction, at the same time as nothing.
    served.clients[1].write_all(&line(0, 5)).unwrap();
    served.clients[1].write_all(b"hello rest").unwrap();
    served.clients[0].read_exact(&mut received[..5]).unwrap();
    assert_eq!(&received[..5], b"hello");
    assert!(matches!(served.next(), Told::Forwarded(1, 5, None)));
    assert!(matches!(served.next(), Told::Bytes(1, 5)));
    served.clients[0].shutdown(Shutdown::Write).unwrap();
    let Told::Forwarded(0, bytes, Some(kind)) = served.next() else { panic!("an end") };
    assert_eq!((bytes, kind), (BYTES as u64, io::ErrorKind::UnexpectedEof));
    assert!(matches!(served.next(), Told::HalfClosed(0)));
    served.end();
}

#[test]
fn ranges_of_every_length_follow_each_other_and_messages() {
    for kinds in [[Tcp, Tcp], [Tcp, Unix], [Unix, Tcp], [Unix, Unix]] {
        forward_ranges(kinds);
    }
}

fn forward_ranges(kinds: [Kind; 2]) {
    let mut served = Served::of(&kinds, |_| {});
    for length in [0, 1, 15, 4_096, 65_536, 300_000, 3_000_000] {
        let content = stream(0..length);
        let mut all = line(1, length);
        all.extend(&content);
        all.extend(b"....");
        let writer = write_beside(&served.clients[0], all);
        let mut received = vec![0; length];
        served.clients[1].read_exact(&mut received).unwrap();
        assert!(received == content, "{length} bytes are others: {kinds:?}");
        let Told::Forwarded(0, bytes, None) = served.next() else { panic!("a range") };
        assert_eq!(bytes, length as u64);
        let mut rest = 0;
        while rest < 4 {
            let Told::Bytes(0, bytes) = served.next() else { panic!("a message") };
            rest += bytes;
        }
        writer.join().unwrap();
    }
    served.end();
}

/// The readers of the first ranges stall with bytes in the only pipe, which others need.
#[test]
fn ranges_whose_readers_stall_keep_no_pipe_and_lose_no_byte() {
    const BYTES: usize = 12 << 20;
    const STALLED: usize = 3;
    let mut served = Served::new(2 * STALLED + 2, |config| config.pipes = 1);
    let content = stream(0..BYTES);
    let mut writers = Vec::new();
    for number in 0..STALLED {
        served.clients[number].write_all(&line(STALLED + number, 99_999_999)).unwrap();
        writers.push(write_beside(&served.clients[number], content.clone()));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (from, to) = (2 * STALLED, 2 * STALLED + 1);
    served.clients[from].write_all(&line(to, 99_999_999)).unwrap();
    let writer = write_beside(&served.clients[from], content.clone());
    let mut received = vec![0; BYTES];
    served.clients[to].read_exact(&mut received).unwrap();
    assert!(received == content, "the bytes are others");
    writer.join().unwrap();
    for number in 0..STALLED {
        served.clients[STALLED + number].read_exact(&mut received).unwrap();
        assert!(received == content, "the bytes of range {number} are others");
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    served.end();
}

#[test]
fn a_target_that_is_reset_ends_the_range_and_not_its_connection() {
    let mut served = Served::new(2, |_| {});
    served.clients[0].write_all(&line(1, 99_999_999)).unwrap();
    let writer = write_beside(&served.clients[0], vec![b'.'; 4 << 20]);
    let target = served.clients.pop().unwrap();
    (&target).read_exact(&mut vec![0; 1 << 20]).unwrap();
    reset(TcpStream::from(target));
    let (mut ended, mut forwarded, mut rest) = (false, None, 0);
    while !ended || forwarded.is_none_or(|bytes| bytes + rest < 4 << 20) {
        match served.next() {
            Told::Closed(reason) => ended = is_reset(reason),
            Told::Forwarded(0, bytes, Some(io::ErrorKind::BrokenPipe)) => forwarded = Some(bytes),
            Told::Bytes(0, bytes) => rest += bytes as u64,
            other => panic!("{other:?}"),
        }
    }
    writer.join().unwrap();
    served.end();
}

/// Output of the connection is no progress of its range, which never was late.
#[test]
fn only_bytes_of_a_range_keep_it_from_being_late() {
    for kind in [Tcp, Unix] {
        let timeout = Duration::from_millis(400);
        let config = |config: &mut Config| config.transfer_timeout = Some(timeout);
        let mut served = Served::of(&[kind, Tcp], config);
        served.clients[1].write_all(&line(0, 99_999_999)).unwrap();
        served.clients[0].write_all(&line(1, 100)).unwrap();
        let begun = Instant::now();
        let mut last = begun;
        let mut ended = None;
        while ended.is_none() {
            // Bytes of the range, until the deadline has passed once; then output only.
            if begun.elapsed() < 2 * timeout {
                served.clients[0].write_all(b"r").unwrap();
                last = Instant::now();
            }
            served.clients[1].write_all(b"output").unwrap();
            assert!(begun.elapsed() < PATIENCE, "a range that is never late: {kind:?}");
            // The other range has lost its target, and may be told first.
            if let Ok(Told::Closed(reason)) = served.told.recv_timeout(timeout / 10) {
                ended = Some(reason);
            }
        }
        assert_eq!(ended, Some(Reason::TransferTimeout), "{kind:?}");
        assert!(last.elapsed() >= timeout - timeout / 10 && begun.elapsed() > 2 * timeout);
        served.end();
    }
}

/// splice(2) stops at an urgent byte, for ever.
#[test]
fn an_urgent_byte_in_a_range_neither_stops_it_nor_spins() {
    const BYTES: usize = 4 << 20;
    let mut served = Served::new(2, |_| {});
    served.clients[0].write_all(&line(1, 99_999_999)).unwrap();
    let writer = write_beside(&served.clients[0], stream(0..BYTES));
    let mut received = vec![0; BYTES];
    served.clients[1].read_exact(&mut received).unwrap();
    writer.join().unwrap();
    let handle = served.engine.handle();
    let before = handle.ledger().sum.turns;
    // SAFETY: the byte is valid during the call.
    let sent = unsafe {
        libc::send(served.clients[0].as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB)
    };
    assert_eq!(sent, 1);
    std::thread::sleep(Duration::from_millis(300));
    let turns = handle.ledger().sum.turns - before;
    assert!(turns < 2_000, "{turns} turns in 300 ms");
    let writer = write_beside(&served.clients[0], stream(BYTES..2 * BYTES));
    served.clients[1].read_exact(&mut received).unwrap();
    assert!(received == stream(BYTES..2 * BYTES), "the bytes are others");
    writer.join().unwrap();
    served.end();
}
