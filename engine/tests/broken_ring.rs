//! A shard whose ring stops working: a test binary of its own, for the seccomp filter that breaks
//! it is the process's.

use ringwright::{
    Audience, Config, Connection, ConnectionId, Engine, Error, Handler, Local, NotTaken, Origin,
    Reason, SlowReaders,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// The longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Echo(Sender<Reason>);

impl Handler for Echo {
    type State = ();
    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
    fn closed(&mut self, _: Option<()>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        self.0.send(reason).unwrap();
    }
}

/// From now on io_uring_enter(2) answers EPERM, in every thread of this process.
fn forbid_enter() {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        // The number of the call (struct seccomp_data, first field).
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_io_uring_enter as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives through the call, which copies it.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_shard_whose_ring_breaks_is_reported_and_takes_its_listener_with_it() {
    let (sender, ends) = channel();
    let config = Config {
        // Of a loopback address of its own, where nobody else listens afterwards.
        listeners: vec!["127.0.0.7:0".parse().unwrap()],
        shards: Some(2),
        ..Config::default()
    };
    let engine = Engine::start(config, move |_| Echo(sender.clone())).unwrap();
    let (address, remote) = (engine.addresses()[0], engine.remote());
    let mut clients: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"a").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    }
    forbid_enter();
    // Whatever wakes them is their end.
    remote.broadcast(b"wake up"[..].into(), &Audience::All, SlowReaders::Queue).unwrap();
    engine.wait().unwrap();
    let error = engine.join().expect_err("both shards have failed");
    assert!(matches!(error, Error::ShardFailed { .. }), "{error}");
    assert!(error.to_string().contains("io_uring_enter"), "{error}");
    for _ in 0..clients.len() {
        assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), Reason::ShardFailed);
    }
    for client in &mut clients {
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    let ledger = remote.ledger();
    assert_eq!(ledger.permits.free, ledger.permits.total);
    // Nothing hangs afterwards.
    remote.drain(Duration::ZERO);
    remote.broadcast(b"?"[..].into(), &Audience::All, SlowReaders::Queue).unwrap();
    assert_eq!(remote.list(None, 10), Ok(Vec::new()));
    assert_eq!(remote.connect(0, address, 1), Err(NotTaken::Ended));
}
