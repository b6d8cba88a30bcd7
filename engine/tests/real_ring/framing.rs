//! Packets over real sockets: cut anywhere, too long, and how often the handler is called.

use crate::common::{PATIENCE, start};
use ringwright::packets::Framing;
use ringwright::{Config, Connection, ConnectionId, Engine, Handler, Local, Origin, Reason};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

const BODY_BYTES_MAX: usize = 50_000;
static CALLS: AtomicU64 = AtomicU64::new(0);

struct EchoPackets(Framing, Sender<Reason>);

impl Handler for EchoPackets {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        CALLS.fetch_add(1, Ordering::SeqCst);
        let mut packets = self.0.packets(bytes);
        for packet in &mut packets {
            match packet {
                Ok(body) => drop(self.0.send(connection, &[body]).expect("it is no longer")),
                Err(too_long) => {
                    let _ = self.0.send(connection, &[b"error: ", too_long.to_string().as_bytes()]);
                    connection.protocol_error();
                    return bytes.len();
                }
            }
        }
        packets.finish(connection)
    }

    fn closed(&mut self, _: Option<()>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        self.1.send(reason).unwrap();
    }
}

fn serve() -> (Engine, Receiver<Reason>) {
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        ..Config::default()
    };
    let framing = Framing::new(BODY_BYTES_MAX, &config).unwrap();
    let (sender, reasons) = channel();
    let sender = Mutex::new(sender);
    let make = move |_| EchoPackets(framing, sender.lock().unwrap().clone());
    (start(config, make), reasons)
}

fn connect(engine: &Engine) -> TcpStream {
    let client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

fn packet(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

fn read_packet(client: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 4];
    client.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    client.read_exact(&mut body).unwrap();
    body
}

// One test: the calls are counted over all connections.
#[test]
fn packets_cut_anywhere_come_back_and_half_of_one_costs_no_calls() {
    let (engine, reasons) = serve();
    let mut client = connect(&engine);
    let bodies = [0, 1, 3, 4_092, 4_093, 9_000, BODY_BYTES_MAX, 17];
    let bodies = bodies.map(|length| (0..length).map(|at| at as u8).collect::<Vec<u8>>());
    let stream: Vec<u8> = bodies.iter().flat_map(|body| packet(body)).collect();
    for piece in [1, 5, 1_000, 4_097, stream.len()] {
        stream.chunks(piece.max(stream.len() / 3_000)).for_each(|it| client.write_all(it).unwrap());
        for body in &bodies {
            assert_eq!(read_packet(&mut client), *body, "in pieces of {piece}");
        }
    }
    // Three calls at most: what came first, the length, the end; whatever comes in between.
    let before = CALLS.load(Ordering::SeqCst);
    let handle = engine.handle();
    let received = || handle.ledger().sum.bytes_received;
    // A reply may be read before the ledger of its turn is out.
    let sent = 5 * stream.len() as u64;
    crate::common::wait_until("all of it is counted", || received() == sent);
    for byte in packet(&[7; 100]) {
        let so_far = received();
        client.write_all(&[byte]).unwrap();
        crate::common::wait_until("it has come", || received() == so_far + 1);
    }
    assert_eq!(read_packet(&mut client), [7; 100]);
    let calls = CALLS.load(Ordering::SeqCst) - before;
    assert!((1..=3).contains(&calls), "{calls} calls for 104 bytes");

    let mut wrong = connect(&engine);
    wrong.write_all(&[packet(b"right"), vec![0, 0, 0xc3, 0x51], vec![9; 70_000]].concat()).unwrap();
    assert_eq!(read_packet(&mut wrong), b"right");
    let said = String::from_utf8(read_packet(&mut wrong)).unwrap();
    assert!(said.contains("50001") && said.contains("50000"), "{said}");
    assert_eq!(wrong.read(&mut [0; 1]).unwrap(), 0, "no reset takes the error away");
    drop(wrong);
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), Reason::ProtocolError);
    // Half a packet and then the FIN is no packet.
    client.write_all(&[0, 0, 0, 9, 1, 2]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
}
