//! Payloads that leave from where they lie, and come back where they are refused.

use crate::common::{PATIENCE, start, wait_until};
use ringwright::{Config, Connection, Engine, Handler, Origin, Payload, SendStatus};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const LONG_BYTES: usize = 700_000;
static STATIC: [u8; LONG_BYTES] = [b's'; LONG_BYTES];

/// Bytes whose owner counts its drops, and panics in each.
struct Owner(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
        panic!("a drop of the application panics on purpose");
    }
}

/// Answers each byte with a payload of the kind of that name. A refused one waits for `writable`.
struct Kinds(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Kinds {
    fn payload(&self, kind: u8) -> Payload {
        let bytes = vec![kind; LONG_BYTES];
        match kind {
            b'v' => bytes.into(),
            b'b' => bytes.into_boxed_slice().into(),
            b'a' => Arc::<[u8]>::from(bytes).into(),
            b'r' => {
                let around = [&[0; 10][..], &bytes, &[0; 10]].concat();
                Payload::range(around.into(), 10..10 + LONG_BYTES)
            }
            b's' => (&STATIC).into(),
            b'o' => Payload::from_owner(Owner(bytes, self.0.clone())),
            short => vec![short; 100].into(),
        }
    }

    fn send(&self, refused: &mut Vec<Payload>, connection: &mut Connection<'_>, next: Payload) {
        if !refused.is_empty() {
            return refused.push(next);
        }
        // A head that were queued without its payload would be a gap.
        if let Err(error) = connection.send_with_head(b"[", next) {
            assert_eq!(error.status, SendStatus::Refused, "{error}");
            assert!(error.to_string().starts_with("700000 bytes were not queued"), "{error}");
            self.1.fetch_add(1, Ordering::SeqCst);
            refused.push(error.payload);
        }
    }
}

impl Handler for Kinds {
    type State = Vec<Payload>;

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> Vec<Payload> {
        Vec::new()
    }

    fn received(
        &mut self,
        refused: &mut Vec<Payload>,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        for kind in bytes {
            self.send(refused, connection, self.payload(*kind));
        }
        bytes.len()
    }

    fn writable(&mut self, refused: &mut Vec<Payload>, connection: &mut Connection<'_>) {
        for payload in std::mem::take(refused) {
            self.send(refused, connection, payload);
        }
    }
}

fn kinds(config: Config) -> (Engine, Kinds) {
    let counts = || (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (drops, refusals) = counts();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        ..config
    };
    let (of_engine, refused) = (drops.clone(), refusals.clone());
    let engine = start(config, move |_| Kinds(of_engine.clone(), refused.clone()));
    (engine, Kinds(drops, refusals))
}

fn connect(engine: &Engine) -> TcpStream {
    let client = TcpStream::connect(engine.addresses()[0]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn expect(client: &mut TcpStream, kinds: &[u8]) {
    for kind in kinds {
        let long = b"vbarso".contains(kind);
        let mut bytes = vec![0; if long { LONG_BYTES } else { 100 } + 1];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes.remove(0), b'[');
        assert!(bytes.iter().all(|byte| byte == kind), "{}", char::from(*kind));
    }
}

#[test]
fn payloads_of_every_kind_arrive_in_order_and_are_dropped() {
    let (engine, counts) = kinds(Config::default());
    let mut client = connect(&engine);
    let order = b"1v2b3a4r5s6o78ovov9";
    client.write_all(order).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    expect(&mut client, order);
    wait_until("the owners are dropped", || counts.0.load(Ordering::SeqCst) == 3);
    // A connection that ends drops what has not left. Neither panic ends the shard.
    let mut client = connect(&engine);
    client.write_all(&[b'o'; 20]).unwrap();
    client.read_exact(&mut [0; 1_000]).unwrap();
    drop(client);
    wait_until("the other owners are dropped", || counts.0.load(Ordering::SeqCst) == 23);
    wait_until("the budget is empty", || engine.handle().ledger().sum.budget_used_bytes == 0);
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}

#[test]
fn a_refused_payload_comes_back_and_is_sent_again() {
    let (engine, counts) = kinds(Config { output_bytes_max: 2_000_000, ..Config::default() });
    let mut client = connect(&engine);
    let order = b"vbarso".repeat(4);
    client.write_all(&order).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    expect(&mut client, &order);
    assert!(counts.1.load(Ordering::SeqCst) > 0, "nothing was refused");
    engine.handle().drain(Duration::ZERO);
    assert!(engine.join().unwrap().balanced());
}
