//! Outgoing connections: their socket options, failures beside others, and a proxy.

use crate::common::{PATIENCE, many_descriptors, serve, start};
use crate::keeper::{Told, client};
use crate::reconnect::away;
use crate::sockets::{option, other_end};
use ringwright::{AtCapacity, Config, Connection, ConnectionId, Handler, Local, Origin, Reason};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// Sockets that keep an address silent.
type Silence = (socket2::Socket, Vec<TcpStream>);

/// An address that drops SYNs, because its backlog is full.
pub fn silent() -> (Silence, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut filling = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, 100 * MS) {
        filling.push(client);
        assert!(filling.len() < 16, "the backlog fills up");
    }
    ((socket, filling), address)
}

fn nothing(_: &mut Connection<'_>, _: u64) {}

/// The options that the engine sets, of its end of a connection.
fn options(peer: &TcpStream) -> [libc::c_int; 6] {
    let socket = other_end(peer);
    [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    ]
    .map(|(level, name)| option(socket, level, name).0)
}

#[test]
fn accepted_and_outgoing_sockets_have_the_same_options() {
    for on in [true, false] {
        let change = |config: &mut Config| {
            config.tcp_keepalive = on.then_some(Duration::from_secs(20));
            config.tcp_user_timeout = on.then_some(7_000 * MS);
        };
        let server = serve(change);
        let mut accepted = server.connect();
        assert_eq!(crate::common::ask(&mut accepted, "echo in"), "in");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let client = client(change, nothing, move |shard| assert!(shard.connect(to, 1)));
        let (peer, _) = listener.accept().unwrap();
        client.opened(1);
        let found = options(&peer);
        assert_eq!(found, options(&accepted), "both kinds");
        if on {
            assert_eq!(found, [1, 20, 5, 4, 7_000, 1]);
        } else {
            assert_eq!((found[0], found[4], found[5]), (0, 0, 1));
        }
        drop((peer, accepted));
        client.finish();
        server.finish();
    }
}

/// Set before the connect, `TCP_USER_TIMEOUT` ended it with the first repeated SYN, after a second.
#[test]
fn a_short_user_timeout_does_not_shorten_a_connect() {
    let (_silence, to) = silent();
    let begun = Instant::now();
    let change = |config: &mut Config| {
        config.tcp_user_timeout = Some(100 * MS);
        config.connect_timeout = 2_500 * MS;
    };
    let client = client(change, nothing, move |shard| assert!(shard.connect(to, 1)));
    let Told::Failed(1, error, None) = client.next() else { panic!("nobody answers") };
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    assert!(begun.elapsed() >= 2_500 * MS, "{:?}", begun.elapsed());
    client.finish();
}

/// Refused, unreachable, silent and good addresses, in one callback: each has its own result.
#[test]
fn connects_fail_each_for_itself() {
    const EACH: u64 = 10;
    let (_silence, silent) = silent();
    let (_away, refused) = away();
    // A TCP connection to a broadcast address is refused by the kernel at once.
    let unreachable = "255.255.255.255:9".parse().unwrap();
    let server = serve(|_| {});
    let addresses = [silent, refused, unreachable, server.address];
    let begun = Instant::now();
    let client = client(
        |config| config.connect_timeout = 1_500 * MS,
        nothing,
        move |shard| {
            for tag in 0..4 * EACH {
                assert!(shard.connect(addresses[tag as usize % 4], tag));
            }
        },
    );
    let mut results = HashMap::new();
    for _ in 0..4 * EACH {
        let (tag, result) = match client.next() {
            Told::Opened(tag, _) => (tag, 0),
            Told::Failed(tag, error, None) => (tag, error.raw_os_error().expect("an errno")),
            other => panic!("{other:?}"),
        };
        let late = result == libc::ETIMEDOUT;
        assert_eq!(begun.elapsed() >= 1_500 * MS, late, "{tag}: {result}, {:?}", begun.elapsed());
        assert_eq!(results.insert(tag, result), None, "{tag} is answered twice");
    }
    for (tag, result) in results {
        match tag % 4 {
            0 => assert_eq!(result, libc::ETIMEDOUT),
            1 => assert_eq!(result, libc::ECONNREFUSED),
            2 => assert!([libc::EACCES, libc::ENETUNREACH].contains(&result), "{result}"),
            _ => assert_eq!(result, 0),
        }
    }
    client.finish();
    server.finish();
}

/// More than the queue and the permits take at once: each is answered, and the queue only delays.
#[test]
fn a_thousand_connects_in_one_callback_are_all_answered() {
    let _one = many_descriptors();
    let server = serve(|_| {});
    let to = server.address;
    let client = client(
        |config| {
            config.max_connections = 600;
            // Without listeners, all of them may be reserved.
            config.outgoing_reserved = 600;
            config.submission_entries = 16;
        },
        nothing,
        move |shard| (0..1_000).for_each(|tag| assert!(shard.connect(to, tag))),
    );
    let (mut opened, mut failed) = (0, 0);
    for _ in 0..1_000 {
        match client.next() {
            Told::Opened(tag, _) => {
                assert!(tag < 600, "{tag} comes before others");
                opened += 1;
            }
            Told::Failed(_, error, None) => {
                assert!(error.to_string().contains("max_connections = 600"), "{error}");
                failed += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((opened, failed), (600, 400));
    client.finish();
    server.finish();
}

/// The two ends of a proxied connection.
struct Pair {
    client: ConnectionId,
    backend: Option<ConnectionId>,
    /// Received from the client before the backend was there.
    early: Vec<u8>,
}

/// One end: its pair, and whether it is the client.
struct End(u64, bool);

/// Gives each client a connection to the backend, and passes on what comes.
struct Proxy {
    backend: SocketAddr,
    pairs: HashMap<u64, Pair>,
}

impl Proxy {
    fn close(&self, local: &mut Local<'_>, id: Option<ConnectionId>) {
        if let Some(mut other) = id.and_then(|id| local.connection(id)) {
            other.close();
        }
    }
}

impl Handler for Proxy {
    type State = End;

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> End {
        let id = connection.id();
        if let Origin::Connected(tag) = origin {
            if let Some(pair) = self.pairs.get_mut(&tag) {
                pair.backend = Some(id);
                let _ = connection.send(&pair.early);
            } else {
                connection.close();
            }
            return End(tag, false);
        }
        self.pairs.insert(id.get(), Pair { client: id, backend: None, early: Vec::new() });
        connection.local().connect(self.backend, id.get());
        End(id.get(), true)
    }

    fn received(&mut self, end: &mut End, connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let Some(pair) = self.pairs.get_mut(&end.0) else { return bytes.len() };
        let other = if end.1 { pair.backend } else { Some(pair.client) };
        match other {
            None => pair.early.extend(bytes),
            Some(other) => {
                connection.local().send_to(other, bytes.to_vec());
            }
        }
        bytes.len()
    }

    /// The backend goes first. The permit of a client is thus free only after that of its backend.
    fn half_closed(&mut self, end: &mut End, connection: &mut Connection<'_>) {
        match self.pairs.get(&end.0).and_then(|pair| pair.backend) {
            Some(backend) if end.1 => self.close(&mut connection.local(), Some(backend)),
            _ => connection.close(),
        }
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, _: io::Error) {
        let client = self.pairs.get(&tag).map(|pair| pair.client);
        self.close(shard, client);
    }

    fn closed(&mut self, end: Option<End>, shard: &mut Local<'_>, _: ConnectionId, _: Reason) {
        let End(tag, is_client) = end.expect("`opened` does not panic");
        let Some(pair) = self.pairs.get_mut(&tag) else { return };
        let other = if is_client { pair.backend } else { Some(pair.client) };
        self.close(shard, other);
        if is_client {
            self.pairs.remove(&tag);
        }
    }
}

/// A client of the proxy, which waits for `all` before it leaves. Returns whether it was answered.
fn is_served(proxy: SocketAddr, number: usize, all: Option<&Barrier>) -> bool {
    let mut stream = TcpStream::connect(proxy).expect("the backlog has room");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("echo client {number}\n");
    let mut reply = vec![0; request.len() - "echo ".len()];
    // A rejected client may be reset while it writes or reads.
    let served = stream.write_all(request.as_bytes()).is_ok()
        && stream
            .read_exact(&mut reply)
            .inspect_err(|error| assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "it hangs"))
            .is_ok();
    assert!(!served || request.as_bytes().ends_with(&reply));
    if let Some(all) = all {
        all.wait();
    }
    served
}

/// 50 pairs fit. Without the reservation, clients took all 100 permits and each connect failed.
#[test]
fn a_hundred_clients_of_a_proxy_with_a_hundred_permits() {
    const CLIENTS: usize = 100;
    for (at_capacity, expected) in [(AtCapacity::Wait, CLIENTS), (AtCapacity::Reject, 50)] {
        let backend = serve(|_| {});
        let to = backend.address;
        let config = Config {
            listeners: vec!["127.0.0.1:0".parse().unwrap()],
            shards: Some(2),
            pin: false,
            max_connections: CLIENTS,
            outgoing_reserved: CLIENTS / 2,
            at_capacity,
            ..Config::default()
        };
        let proxy = start(config, move |_| Proxy { backend: to, pairs: HashMap::new() });
        let (address, handle) = (proxy.addresses()[0], proxy.handle());
        // A client that comes late would be let in instead of rejected if others had left by then.
        let all = (at_capacity == AtCapacity::Reject).then(|| Arc::new(Barrier::new(CLIENTS)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let all = all.clone();
                std::thread::spawn(move || is_served(address, number, all.as_deref()))
            })
            .collect();
        let served = clients.into_iter().map(|it| it.join().unwrap());
        assert_eq!(served.filter(|served| *served).count(), expected);
        handle.drain(PATIENCE);
        let ledger = proxy.join().unwrap();
        assert!(ledger.balanced(), "{}", ledger.to_json());
        let sum = &ledger.sum;
        assert_eq!((sum.connected, sum.connect_failed), (expected as u64, 0));
        assert_eq!((sum.accepted, sum.rejected), (100, 100 - expected as u64));
        assert_eq!((ledger.permits.free, ledger.permits_for_clients), (100, 50));
        backend.finish();
    }
}
