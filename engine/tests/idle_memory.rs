//! What an idle connection costs in user space: a process of its own, so that what grows is ours.

use ringwright::{Config, Connection, Engine, Handler, Origin};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 9_000;
/// Bytes per idle connection, beside the application's state.
const LIMIT: usize = 128;

/// Anonymous memory of this process in bytes: the allocator's and the mappings'. Counted page by
/// page: the figures in `status` are off by what each processor has not yet added to them.
fn anonymous_bytes() -> usize {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to a limit on the stack.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
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
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    ask(&mut client);
    client
}

#[test]
fn an_idle_connection_costs_at_most_128_bytes() {
    raise_descriptor_limit();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        park_after: Duration::from_millis(50),
        idle_timeout: None,
        ..Config::default()
    };
    let engine = Engine::start(config, |_| Echo).unwrap();
    let (address, remote) = (engine.addresses()[0], engine.remote());
    let mut clients: Vec<TcpStream> = Vec::with_capacity(CONNECTIONS);
    // What every server has once: the pools are touched, the queues have their size.
    clients.extend((0..200).map(|_| connect(address)));
    let before = anonymous_bytes();
    clients.extend((200..CONNECTIONS).map(|_| connect(address)));
    let begun = Instant::now();
    while remote.ledger().sum.parked < CONNECTIONS as u64 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", remote.ledger().to_json());
        std::thread::sleep(Duration::from_millis(5));
    }
    let each = (anonymous_bytes() - before) / (CONNECTIONS - 200);
    println!("{each} bytes of user space per idle connection");
    assert!(each <= LIMIT, "{each} bytes of user space per idle connection");
    for client in clients.iter_mut().step_by(97) {
        ask(client);
    }
    drop(clients);
    remote.drain(Duration::from_secs(5)).unwrap();
    assert!(engine.join().unwrap().balanced());
}
