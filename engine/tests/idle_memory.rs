//! The user memory of an idle connection. Each test is a process of its own, so that all growth
//! belongs to it.

use ringwright::{Config, Connection, Engine, Handler, Origin, RingChoice};
use ringwright_test_support::{alone, needs_io_uring};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CONNECTIONS_MAX: usize = 9_000;
/// With fewer the figure would be one of pages and not of connections.
const CONNECTIONS_MIN: usize = 2_000;
/// Connections that touch what every server has once: its pools and queues.
const FIRST: usize = 200;
/// Descriptors that are not connections.
const OTHERS: usize = 100;
/// The longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes per idle connection, beside the application's state.
const LIMIT: usize = 128;
/// The same on epoll, where the ring itself remembers what waits for each descriptor.
const LIMIT_ON_EPOLL: usize = 288;

/// Anonymous memory of this process in bytes: the allocator's and the mappings'. Counted page by
/// page: the figures in `status` are off by what each processor has not yet added to them.
fn anonymous_bytes() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

struct Echo;

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

fn connect(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut client);
    client
}

#[test]
fn an_idle_connection_costs_at_most_128_bytes() {
    let name = "an_idle_connection_costs_at_most_128_bytes";
    if needs_io_uring() && alone(name) {
        measure(RingChoice::IoUring, LIMIT);
    }
}

#[test]
fn on_epoll_an_idle_connection_costs_at_most_288_bytes() {
    if alone("on_epoll_an_idle_connection_costs_at_most_288_bytes") {
        measure(RingChoice::Epoll, LIMIT_ON_EPOLL);
    }
}

fn measure(ring: RingChoice, limit: usize) {
    // Both ends are descriptors of this process.
    let descriptors = ringwright_test_support::raise_descriptor_limit();
    let connections = (descriptors.saturating_sub(OTHERS) / 2).min(CONNECTIONS_MAX);
    assert!(connections >= CONNECTIONS_MIN, "{descriptors} descriptors: raise it (ulimit -Hn)");
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        park_after: Duration::from_millis(50),
        idle_timeout: None,
        ring,
        ..Config::default()
    };
    let engine = Engine::start(config, |_| Echo).unwrap();
    let (address, handle) = (engine.addresses()[0], engine.handle());
    let mut clients: Vec<TcpStream> = Vec::with_capacity(connections);
    clients.extend((0..FIRST).map(|_| connect(address)));
    let before = anonymous_bytes();
    clients.extend((FIRST..connections).map(|_| connect(address)));
    let begun = Instant::now();
    while handle.ledger().sum.parked_now < connections as u64 {
        assert!(begun.elapsed() < PATIENCE, "{}", handle.ledger().to_json());
        std::thread::sleep(Duration::from_millis(5));
    }
    let each = (anonymous_bytes() - before) / (connections - FIRST);
    println!("{each} bytes of user space per idle connection");
    assert!(each <= limit, "{each} bytes of user space per idle connection");
    for client in clients.iter_mut().step_by(97) {
        ask(client);
    }
    drop(clients);
    handle.drain(PATIENCE);
    assert!(engine.join().unwrap().balanced());
}
