//! The ways to a server: several addresses, a source address, Unix sockets, names, and an end.

use crate::common::{PATIENCE, serve, wait_until};
use crate::keeper::{Client, Told, client};
use crate::outgoing::silent;
use crate::reconnect::away;
use ringwright::{
    Address, Config, Connect, ConnectError, Connection, Peer, Reconnect, SendStatus, SocketPath,
};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

fn nothing(_: &mut Connection<'_>, _: u64) {}

fn greets(connection: &mut Connection<'_>, _: u64) {
    assert_eq!(connection.send(b"hello"), SendStatus::Ready);
}

/// A client that connects with tag 1.
fn connects(to: impl Into<Connect>, change: impl FnOnce(&mut Config)) -> Client {
    let to = to.into();
    client(change, greets, move |shard| assert!(shard.connect(to, 1)))
}

#[track_caller]
fn failure(client: &Client) -> io::Error {
    match client.next() {
        Told::Failed(1, error, None) => error,
        other => panic!("it does not fail, but {other:?}"),
    }
}

/// The failure of a connect, and how long it took.
fn error_of(to: impl Into<Connect>, change: impl FnOnce(&mut Config)) -> (io::Error, Duration) {
    let begun = Instant::now();
    let client = connects(to, change);
    let error = failure(&client);
    let took = begun.elapsed();
    let sum = client.finish().sum;
    assert_eq!((sum.connected, sum.connect_failed), (0, 1));
    (error, took)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    (listener, to)
}

fn unix(path: &Path) -> Address {
    Address::Unix(SocketPath { path: path.into(), mode: None })
}

#[test]
fn the_next_address_answers_when_one_refuses_or_stays_silent() {
    let (_silence, silent) = silent();
    let (_away, refused) = away();
    let (_listener, to) = listener();
    let nowhere = unix(Path::new("/nowhere/at/all"));
    let all = [nowhere, refused.into(), silent.into(), to.into(), silent.into()];
    let begun = Instant::now();
    // One permit is enough for all of them.
    let connect = Connect::to_any(all).timeout(300 * MS);
    let client = connects(connect, |config| config.max_connections = 1);
    let (id, failed) = client.opened(1);
    assert!(failed == 0 && begun.elapsed() >= 300 * MS, "{failed}, {:?}", begun.elapsed());
    assert_eq!(client.handle().find(id).unwrap().expect("it is open").peer, to.into());
    let sum = client.finish().sum;
    assert_eq!((sum.connected, sum.connect_failed), (1, 0));
}

#[test]
fn an_attempt_that_fails_names_every_address() {
    let (_away, refused) = away();
    let (_silence, silent) = silent();
    let all = Connect::from(vec![silent, refused]).timeout(200 * MS);
    let (error, took) = error_of(all, |_| {});
    assert!(took >= 200 * MS, "{took:?}");
    assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::ConnectionRefused, None));
    let inside = error.get_ref().and_then(|it| it.downcast_ref::<ConnectError>());
    let failures = inside.expect("two failures").failures().iter();
    let found: Vec<_> = failures.map(|(to, why)| (to.clone(), why.raw_os_error())).collect();
    let expected =
        [(silent.into(), Some(libc::ETIMEDOUT)), (refused.into(), Some(libc::ECONNREFUSED))];
    assert_eq!(found, expected);
    for one in [Connect::from(refused), Connect::from(vec![refused])] {
        let (error, _) = error_of(one, |_| {});
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    }
    let (error, _) = error_of(Vec::<SocketAddr>::new(), |_| {});
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_connect_has_its_own_time() {
    let (_silence, silent) = silent();
    let connect = Connect::from(silent).timeout(200 * MS);
    let (error, took) = error_of(connect, |config| config.connect_timeout = PATIENCE);
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    assert!(took >= 200 * MS && took < PATIENCE, "{took:?}");
}

#[test]
fn the_server_sees_the_source_address() {
    let (listener, to) = listener();
    let source = Ipv4Addr::new(127, 0, 0, 7);
    let both = client(
        |_| {},
        nothing,
        move |shard| {
            for tag in 0..2 {
                assert!(shard.connect(Connect::from(to).source_ip(source), tag));
            }
        },
    );
    let seen: Vec<SocketAddr> = (0..2).map(|_| listener.accept().unwrap().1).collect();
    assert!(seen.iter().all(|seen| seen.ip() == source) && seen[0] != seen[1], "{seen:?}");
    both.finish();
    // The port of the first one is free again, because its connection was reset.
    let fixed = SocketAddr::from(([127, 0, 0, 8], 30_000 + std::process::id() as u16 % 2_000));
    let one = connects(Connect::from(to).source(fixed), |_| {});
    assert_eq!(listener.accept().unwrap().1, fixed);
    one.opened(1);
    one.finish();
    let cases = [
        (Connect::from(to).source_ip(Ipv4Addr::new(192, 0, 2, 1)), libc::EADDRNOTAVAIL),
        (Connect::from(to).source_ip(Ipv6Addr::LOCALHOST), libc::EAFNOSUPPORT),
    ];
    for (connect, errno) in cases {
        let (error, _) = error_of(connect, |_| {});
        assert_eq!(error.raw_os_error(), Some(errno), "{error}");
    }
}

/// Sends the first bytes of one client back, until the client ends.
fn echo(listener: &UnixListener) {
    let (mut client, _) = listener.accept().unwrap();
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes).unwrap();
    client.write_all(&bytes).unwrap();
    assert_eq!(client.read(&mut bytes).unwrap(), 0, "it ends");
}

#[test]
fn unix_sockets_are_connected_to_by_path_and_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let name = format!("ringwright-{}", std::process::id());
    let hidden = UnixAddr::from_abstract_name(&name).unwrap();
    let cases = [
        (UnixListener::bind(&path).unwrap(), Connect::from(unix(&path))),
        (UnixListener::bind_addr(&hidden).unwrap(), Connect::to_abstract(&name)),
    ];
    for (listener, to) in cases {
        let server = thread::spawn(move || echo(&listener));
        // A source address means nothing to a Unix socket.
        let client = connects(to.source_ip(Ipv4Addr::LOCALHOST), |_| {});
        let (id, _) = client.opened(1);
        assert_eq!(client.handle().find(id).unwrap().expect("it is open").peer, Peer::Unix);
        let Told::Received(1, bytes) = client.next() else { panic!("an echo") };
        assert_eq!(bytes, b"hello");
        let sum = client.finish().sum;
        assert_eq!((sum.connected, sum.connect_failed), (1, 0));
        server.join().unwrap();
    }
}

#[test]
fn a_unix_socket_fails_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let [missing, dead, full] = ["missing", "dead", "full"].map(|name| folder.path().join(name));
    drop(UnixListener::bind(&dead).unwrap());
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&full).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _waits = UnixStream::connect(&full).unwrap();
    let long = folder.path().join("a".repeat(108));
    let expected = [
        (unix(&missing), libc::ENOENT),
        (unix(&dead), libc::ECONNREFUSED),
        (unix(&full), libc::EAGAIN),
        (unix(&long), libc::EINVAL),
        (unix(Path::new("")), libc::EINVAL),
        (unix(Path::new("@")), libc::EINVAL),
    ];
    for (to, errno) in expected {
        let (error, took) = error_of(to.clone(), |_| {});
        assert_eq!(error.raw_os_error(), Some(errno), "{to}: {error}");
        assert!(took < PATIENCE, "{to}: {took:?}");
    }
}

#[test]
fn a_cancelled_connect_fails_once_and_an_open_connection_stays() {
    let (_silence, silent) = silent();
    let (_listener, to) = listener();
    let client = client(
        |_| {},
        nothing,
        move |shard| {
            assert!(shard.connect(to, 1) && shard.cancel_connect(1) && !shard.cancel_connect(1));
            // Another address is not tried.
            assert!(shard.connect(vec![silent, to], 2) && shard.connect(to, 3));
        },
    );
    let cancelled = |expected| match client.next() {
        Told::Failed(tag, error, None) if tag == expected => {
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        }
        other => panic!("{expected} is not cancelled, but {other:?}"),
    };
    cancelled(1);
    client.opened(3);
    let handle = client.handle();
    handle.cancel_connect(0, 3).unwrap();
    handle.cancel_connect(0, 2).unwrap();
    cancelled(2);
    let (sender, answer) = channel();
    let ask = move |shard: &mut ringwright::Local<'_>| {
        sender.send([1, 2, 3].map(|tag| shard.cancel_connect(tag))).unwrap();
    };
    handle.run_on_shard(0, ask).unwrap();
    assert_eq!(answer.recv_timeout(PATIENCE), Ok([false; 3]), "nothing is in progress");
    assert_eq!(handle.list(None, 9).unwrap().len(), 1, "the open one stays");
    let sum = client.finish().sum;
    assert_eq!((sum.connected, sum.connect_failed), (1, 2));
    assert!(handle.cancel_connect(0, 2).is_ok(), "the shard has ended");
}

/// The end of an attempt is a failure like any other, and gives up only with `stop_reconnecting`.
#[test]
fn a_kept_connection_goes_on_after_a_cancelled_attempt() {
    let (_silence, silent) = silent();
    let client = client(
        |_| {},
        nothing,
        move |shard| shard.keep_connected(silent, 1, Reconnect::default()).expect("the first"),
    );
    let handle = client.handle();
    for gives_up in [false, true] {
        if gives_up {
            // The next attempt is under way.
            wait_until("an attempt", || handle.ledger().sum.reconnects == 1);
            client.stop_reconnecting(1);
        }
        handle.cancel_connect(0, 1).unwrap();
        let Told::Failed(1, error, next) = client.next() else { panic!("it is cancelled") };
        assert_eq!((error.raw_os_error(), next.is_none()), (Some(libc::ECANCELED), gives_up));
    }
    let sum = client.finish().sum;
    assert_eq!((sum.connect_failed, sum.reconnects), (2, 1));
}

#[test]
fn a_name_needs_a_worker() {
    let server = serve(|_| {});
    let port = server.address.port();
    let name = Connect::to_name(format!("localhost:{port}"));
    let (error, _) = error_of(name.clone(), |config| config.workers = 0);
    let text = error.to_string();
    assert!(
        text.contains(&format!("localhost:{port}")) && text.contains("Config::workers"),
        "{text}"
    );
    // One of the two addresses of localhost has no server, if there is such an address at all.
    let client = connects(name, |config| config.workers = 1);
    let (id, failed) = client.opened(1);
    assert_eq!(failed, 0);
    let peer = client.handle().find(id).unwrap().expect("it is open").peer;
    assert_eq!(peer, server.address.into());
    assert_eq!(client.finish().sum.jobs_done, 1);
    // An address needs none.
    let address = Connect::to_name(server.address.to_string());
    let client = connects(address, |config| config.workers = 0);
    client.opened(1);
    client.finish();
    server.finish();
}

#[test]
fn a_resolver_of_ones_own_is_asked_again_for_each_attempt() {
    let (_away, refused) = away();
    let (_listener, to) = listener();
    let calls = AtomicUsize::new(0);
    let connect = Connect::to_name("server.test:80").resolver(move |name| {
        assert_eq!(name, "server.test:80");
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Err(io::Error::new(io::ErrorKind::NotFound, "nobody knows it")),
            1 => Ok(Vec::new()),
            2 => panic!("a resolver with a bug"),
            3 => Ok(vec![refused]),
            _ => Ok(vec![refused, to]),
        }
    });
    let again = Reconnect { first: MS, most: 5 * MS, attempts: None };
    let client = client(
        |config| config.workers = 1,
        nothing,
        move |shard| shard.keep_connected(connect, 1, again).expect("the first"),
    );
    let mut texts = Vec::new();
    for _ in 0..4 {
        let Told::Failed(1, error, Some(_)) = client.next() else { panic!("it fails") };
        texts.push(error.to_string());
    }
    let parts = ["nobody knows it", "no address", "a resolver with a bug", "refused"];
    for (text, part) in texts.iter().zip(parts) {
        assert!(text.contains(part), "{text}");
        assert_eq!(text.contains("cannot resolve server.test:80"), part != "refused", "{text}");
    }
    assert_eq!(client.opened(1).1, 0);
    client.finish();
}

/// A drain answers an attempt whose resolver hangs, and the shard ends before the worker does.
#[test]
fn a_drain_does_not_wait_for_a_resolver() {
    let (release, released) = channel::<()>();
    let (begins, begun) = channel();
    let ends = Mutex::new((begins, released));
    let connect = Connect::to_name("server.test:80").resolver(move |_| {
        let ends = ends.lock().unwrap();
        ends.0.send(()).unwrap();
        let _ = ends.1.recv();
        Ok(Vec::new())
    });
    let client = connects(connect, |config| config.workers = 1);
    begun.recv_timeout(PATIENCE).expect("a worker begins");
    client.handle().drain(PATIENCE);
    assert!(failure(&client).to_string().contains("draining"));
    drop(release);
    assert_eq!(client.finish().sum.jobs_unclaimed, 1);
}
