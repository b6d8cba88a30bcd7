//! A shard whose ring stops working. A seccomp filter breaks it, for the whole process.

use ringwright::{
    Audience, CommandShardError, Config, Connection, ConnectionId, Engine, Error, Handler, Local,
    Origin, Reason, RingChoice, SlowReaders,
};
use ringwright_test_support::{
    alone, block_on, needs_io_uring,
    seccomp::{fails_with, filter},
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// The longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reports the end of each connection, and then that of the shard.
struct Echo(Sender<Option<Reason>>);

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
    fn closed(&mut self, _: Option<()>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        self.0.send(Some(reason)).unwrap();
    }
    fn drain_begun(&mut self, _: &mut Local<'_>) {
        panic!("nobody drains");
    }
    fn ended(&mut self, shard: &mut Local<'_>) {
        assert!(
            !shard.connect(std::net::SocketAddr::from(([127, 0, 0, 7], 1)), 1),
            "no connect begins"
        );
        self.0.send(None).unwrap();
    }
}

#[test]
fn a_shard_whose_io_uring_breaks_is_reported_and_takes_its_listener_with_it() {
    let name = "a_shard_whose_io_uring_breaks_is_reported_and_takes_its_listener_with_it";
    if needs_io_uring() && alone(name) {
        breaks(RingChoice::IoUring, &[libc::SYS_io_uring_enter], "io_uring_enter(2)");
    }
}

#[test]
fn a_shard_whose_epoll_breaks_is_reported_and_takes_its_listener_with_it() {
    if alone("a_shard_whose_epoll_breaks_is_reported_and_takes_its_listener_with_it") {
        let calls = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
        breaks(RingChoice::Epoll, &calls, "epoll_wait(2)");
    }
}

fn breaks(ring: RingChoice, calls: &[libc::c_long], named: &str) {
    let (sender, ends) = channel();
    let config = Config {
        // Of a loopback address of its own, where nobody else listens afterwards.
        listeners: vec!["127.0.0.7:0".parse().unwrap()],
        shards: Some(2),
        ring,
        ..Config::default()
    };
    let engine = Engine::start(config, move |_| Echo(sender.clone())).unwrap();
    let (address, handle) = (engine.addresses()[0], engine.handle());
    let mut clients: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"a").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    }
    filter(calls, fails_with(libc::EPERM));
    // Whatever wakes them is their end.
    handle.broadcast(b"wake up"[..].into(), &Audience::All, SlowReaders::Queue).unwrap();
    engine.wait().unwrap();
    block_on(engine.shard_ended());
    block_on(engine.ended());
    let error = engine.join().expect_err("both shards have failed");
    assert!(matches!(error, Error::ShardFailed { .. }), "{error}");
    assert!(error.to_string().contains(named), "{error}");
    let ended: Vec<Option<Reason>> = ends.iter().collect();
    let of_connections = ended.iter().filter(|end| **end == Some(Reason::ShardFailed)).count();
    let of_shards = ended.iter().filter(|end| end.is_none()).count();
    assert_eq!((of_connections, of_shards, ended.len()), (clients.len(), 2, clients.len() + 2));
    assert_eq!(ended.last(), Some(&None), "the end of a shard comes last");
    for client in &mut clients {
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    let ledger = handle.ledger();
    assert_eq!(ledger.permits.free, ledger.permits.total);
    // Nothing hangs afterwards.
    handle.drain(Duration::ZERO);
    handle.broadcast(b"?"[..].into(), &Audience::All, SlowReaders::Queue).unwrap();
    assert_eq!(handle.list(None, 10), Ok(Vec::new()));
    assert_eq!(handle.connect(0, address, 1), Err(CommandShardError::Ended));
}
