//! New connections are spread over the shards, whichever of them the kernel chooses.

use crate::common::{Echo, PATIENCE, start, wait_until};
use ringwright::{Balance, Config, Connection, Engine, Handler, Listener, Local, Message, Origin};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn engine(listener: Listener, shards: usize, balance: Balance) -> Engine {
    let listeners = vec![listener];
    let config =
        Config { listeners, shards: Some(shards), pin: false, balance, ..Config::default() };
    start(config, |_| Echo)
}

fn connections(engine: &Engine) -> Vec<u64> {
    let shards = engine.handle().shard_ledgers();
    shards.into_iter().map(|shard| shard.opened - shard.closed).collect()
}

/// Opens so many connections, each of which is answered, and returns how many each shard has.
fn spread<C: Read + Write>(engine: &Engine, count: u64, connect: impl Fn() -> C) -> Vec<u64> {
    let mut clients: Vec<C> = (0..count).map(|_| connect()).collect();
    for client in &mut clients {
        client.write_all(b"ping").expect("the server reads");
        let mut answer = [0; 4];
        client.read_exact(&mut answer).expect("the server answers");
    }
    wait_until("counted", || connections(engine).iter().sum::<u64>() == count);
    let each = connections(engine);
    drop(clients);
    wait_until("closed", || connections(engine).iter().sum::<u64>() == 0);
    each
}

fn finish(engine: Engine) -> u64 {
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().expect("a good end");
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!(ledger.sum.handed_over, ledger.sum.taken_over);
    ledger.sum.handed_over
}

fn assert_even(each: &[u64], most_off: u64) {
    let even = each.iter().sum::<u64>() / each.len() as u64;
    assert!(each.iter().all(|count| count.abs_diff(even) <= most_off), "{each:?}");
}

fn tcp(engine: &Engine) -> TcpStream {
    let client = TcpStream::connect(engine.addresses()[0]).expect("the server accepts");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// An engine of its own for each try: right after connections have ended, differences are left
/// alone.
#[test]
fn connections_that_stay_are_spread_evenly() {
    for shards in [2, 4] {
        for (count, most_off) in [(8, 1), (64, 2)] {
            for _ in 0..10 {
                let listener = "127.0.0.1:0".parse().unwrap();
                let engine = engine(listener, shards, Balance::Accept);
                let each = spread(&engine, count, || tcp(&engine));
                assert_even(&each, most_off);
                finish(engine);
            }
        }
    }
}

/// A socket that all shards share goes to whoever wakes first: in a burst, always to the same.
#[test]
fn shared_sockets_are_spread_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let unix = engine(format!("unix:{}", path.display()).parse().unwrap(), 2, Balance::Accept);
    let each = spread(&unix, 64, || {
        let client = UnixStream::connect(&path).expect("the server accepts");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    });
    assert_even(&each, 2);
    finish(unix);

    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let inherited = Listener::inherited(socket.into()).expect("it listens");
    let engine = engine(inherited, 2, Balance::Accept);
    let each = spread(&engine, 64, || tcp(&engine));
    assert_even(&each, 2);
    finish(engine);
}

#[test]
fn without_balance_no_client_is_handed_over() {
    let engine = engine("127.0.0.1:0".parse().unwrap(), 2, Balance::Off);
    let _ = spread(&engine, 64, || tcp(&engine));
    assert_eq!(finish(engine), 0);
}

/// Clients that come and go while shards hand them over: none is lost, and everything comes back.
#[test]
fn clients_that_leave_are_served_wherever_they_are() {
    let engine = engine("127.0.0.1:0".parse().unwrap(), 4, Balance::Accept);
    for _ in 0..20 {
        let _ = spread(&engine, 30, || tcp(&engine));
    }
    finish(engine);
}

/// Knows the listeners that it was told of, and writes down clients of others.
struct Told {
    shard: usize,
    listener: u16,
    strangers: Arc<AtomicU64>,
}

impl Handler for Told {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) {
        if matches!(origin, Origin::Listener(number) if number > self.listener) {
            self.strangers.fetch_add(1, Ordering::Relaxed);
        }
        let _ = connection.send(b"hello");
    }

    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn message(&mut self, _: &mut Local<'_>, message: Message) {
        match message.downcast::<u16>() {
            Ok(listener) => self.listener = listener,
            // The other shard accepts meanwhile, and hands clients to this one.
            Err(_) if self.shard == 1 => std::thread::sleep(Duration::from_millis(50)),
            Err(_) => {}
        }
    }
}

/// A message that all shards got before a listener was added comes before the clients of that
/// listener, also where another shard hands them over.
#[test]
fn a_message_precedes_the_clients_of_a_later_listener() {
    let strangers = Arc::<AtomicU64>::default();
    let count = strangers.clone();
    let listeners = vec!["127.0.0.1:0".parse().unwrap()];
    let config = Config { listeners, shards: Some(2), pin: false, ..Config::default() };
    let engine = start(config, move |shard| Told { shard, listener: 0, strangers: count.clone() });
    for number in 1..6_u16 {
        let handle = engine.handle();
        handle.post_to_shards(()).expect("there is room");
        handle.post_to_shards(number).expect("there is room");
        let added = handle.add_listener(&"127.0.0.1:0".parse().unwrap()).expect("a listener");
        assert_eq!(added.number, number, "numbers follow one another");
        let address = added.address.ip().expect("a TCP listener");
        let clients: Vec<TcpStream> =
            (0..16).map(|_| TcpStream::connect(address).expect("the server accepts")).collect();
        for mut client in clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut hello = [0; 5];
            client.read_exact(&mut hello).expect("a greeting");
        }
    }
    assert_eq!(strangers.load(Ordering::Relaxed), 0, "clients of listeners not told of");
    assert!(finish(engine) > 0, "no client was handed over");
}
