//! A client that vanishes without a word: its host is off, or a link is down on the way. A socket
//! filter that drops all that arrives makes a client mute in this very way: no acknowledgement, no
//! FIN, no RST.

use crate::{PATIENCE, PROGRAM, alone, same, until};
use ringwright::{Config, Connection, Engine, Handler, Origin, Reason};
use ringwright_test_support::can_filter;
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::socket::{self, Sources};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// `BPF_RET | BPF_K`: keep so many bytes of a packet; 0 drops it.
const RETURN: u16 = 0x06;

struct Echo;

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
}

/// The daemon has no option for it, and its 60 seconds are too long for a test.
#[test]
fn vanished_peer_loses_its_permit_to_the_user_timeout() {
    if !can_filter() {
        return;
    }
    let _alone = alone();
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        max_connections: 1,
        tcp_user_timeout: Some(Duration::from_millis(500)),
        idle_timeout: None,
        write_timeout: None,
        ..Config::default()
    };
    let engine = Engine::start(config, |_| Echo).unwrap();
    let mut sources = Sources::new(0);
    let mut client = sources.connect(engine.addresses()[0]).unwrap();
    ask(&mut client);
    let mut next = sources.connect(engine.addresses()[0]).unwrap();
    next.write_all(b"?").unwrap();
    vanish(&client);
    client.write_all(b"?").unwrap();
    let begun = Instant::now();
    next.read_exact(&mut [0]).unwrap();
    let taken = begun.elapsed();
    eprintln!("the next client had the permit {taken:.1?} after the first one vanished");
    assert!(taken > Duration::from_millis(400), "it was not the timeout: {taken:?}");
    drop((client, next));
    let handle = engine.handle();
    until(PATIENCE, || same("free permits", handle.ledger().permits.free, 1));
    handle.drain(PATIENCE);
    let ledger = engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!(ledger.sum.closed_by[Reason::NetworkError as usize], 1, "{}", ledger.to_json());
}

#[test]
fn vanished_peer_is_looked_for_by_every_socket_of_the_daemon() {
    let _alone = alone();
    let daemon = Daemon::start(PROGRAM, "echo", &["--shards", "2"]);
    let mut client = Sources::new(0).connect(daemon.address).unwrap();
    ask(&mut client);
    let accepted: Vec<OwnedFd> = daemon
        .descriptors_of("socket")
        .into_iter()
        .map(|descriptor| daemon.borrow(descriptor).unwrap())
        .filter(|socket| socket::get(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).unwrap() == 0)
        .filter(|socket| {
            socket::get(socket, libc::SOL_SOCKET, libc::SO_DOMAIN).unwrap() == libc::AF_INET
        })
        .collect();
    assert_eq!(accepted.len(), 1, "accepted sockets");
    let option = |level, name| socket::get(&accepted[0], level, name).unwrap();
    assert_eq!(option(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
    assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 60, "seconds");
    assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), 60_000, "milliseconds");
    drop((accepted, client));
    daemon.stop();
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"?").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

fn vanish(client: &TcpStream) {
    let mut drop_all = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut drop_all };
    socket::set(client, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program).unwrap();
}
