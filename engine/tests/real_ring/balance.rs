//! New connections are spread over the shards, whichever of them the kernel chooses.

use crate::common::{PATIENCE, start, wait_until};
use ringwright::{Balance, Config, Connection, Engine, Handler, Listener, Origin};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
}

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
