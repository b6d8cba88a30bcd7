//! The proxy with plain sockets. Where HAProxy is installed, the same tests run through it as well:
//! they demand nothing that an established proxy does not do.

use super::{Counts, Options, join, start};
use ringwright::Engine;
use ringwright_test_support::needs_program;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, scope, sleep, spawn};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// The programs that a test runs through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Ours,
    HaProxy,
}

enum Running {
    Ours(Engine, Arc<Mutex<Counts>>),
    HaProxy(HaProxy),
}

/// Ends with its value, also when a test fails.
struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Proxy {
    address: SocketAddr,
    running: Running,
}

/// Calls `test` for the example and, if it is installed, for HAProxy.
#[track_caller]
fn with_each(test: impl Fn(Program)) {
    test(Program::Ours);
    if needs_program("haproxy", "haproxy") {
        test(Program::HaProxy);
    }
}

impl Program {
    fn start(self, upstreams: &[SocketAddr], max_connections: usize) -> Proxy {
        match self {
            Self::Ours => ours(upstreams, max_connections, CONNECT_TIMEOUT),
            Self::HaProxy => haproxy(upstreams, max_connections),
        }
    }
}

fn ours(upstreams: &[SocketAddr], max_connections: usize, connect_timeout: Duration) -> Proxy {
    let options = Options {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        upstreams: upstreams.to_vec(),
        shards: Some(2),
        max_connections,
        connect_timeout,
    };
    let (engine, counts) = start(options).unwrap();
    Proxy { address: engine.addresses()[0], running: Running::Ours(engine, counts) }
}

fn haproxy(upstreams: &[SocketAddr], max_connections: usize) -> Proxy {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, ready) = (free(), free());
    let mut text = format!(
        "global\n nbthread 1\n\
         defaults\n mode tcp\n option redispatch 1\n retries {}\n timeout connect {}ms\n\
         timeout client 60s\n timeout server 60s\n\
         frontend ready\n bind {ready}\n tcp-request connection reject\n\
         frontend proxy\n bind {address}\n backlog 1024\n maxconn {max_connections}\n\
         default_backend servers\n\
         backend servers\n balance roundrobin\n",
        upstreams.len() - 1,
        CONNECT_TIMEOUT.as_millis(),
    );
    for (number, upstream) in upstreams.iter().enumerate() {
        text += &format!(" server s{number} {upstream}\n");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(file.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running::HaProxy(HaProxy(command.spawn().unwrap()));
    // All listeners are bound before one of them accepts.
    let begin = Instant::now();
    while TcpStream::connect(ready).is_err() {
        assert!(begin.elapsed() < PATIENCE, "HAProxy does not listen");
        sleep(Duration::from_millis(5));
    }
    Proxy { address, running }
}

impl Proxy {
    /// Ends the proxy, whose clients have gone. Checks that nothing is left and, for the example,
    /// returns its counters.
    fn finish(self) -> Option<Counts> {
        let (engine, counts) = match self.running {
            Running::Ours(engine, counts) => (engine, counts),
            Running::HaProxy(_ends) => return None,
        };
        let begin = Instant::now();
        while engine.handle().connections() > 0 {
            assert!(begin.elapsed() < PATIENCE, "{:?}", engine.handle().list(None, 9));
            sleep(Duration::from_millis(2));
        }
        engine.handle().drain(PATIENCE);
        let (ledger, counts) = join(engine, &counts).unwrap();
        assert!(ledger.balanced() && ledger.open() == 0, "{}", ledger.to_json());
        assert_eq!(ledger.permits.free, ledger.permits.total);
        assert_eq!(ledger.sum.handler_panics, 0);
        Some(counts)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(address).unwrap())
}

fn patient(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Closes a socket by RST.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Waits for the end of a stream that has no more bytes. Returns whether it was a reset.
#[track_caller]
fn ends_by_reset(socket: &mut TcpStream) -> bool {
    match socket.read(&mut [0]) {
        Ok(0) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        other => panic!("neither FIN nor reset: {other:?}"),
    }
}

/// Accepts one connection and serves it on a thread.
fn upstream<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, spawn(move || serve(patient(listener.accept().unwrap().0))))
}

/// An echo server that reads nothing while it writes. Threads and sockets last as long as the test.
struct Echo {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (open, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, total) = (open.clone(), served.clone());
        spawn(move || {
            for socket in listener.incoming() {
                let (socket, now) = (socket.unwrap(), now.clone());
                now.fetch_add(1, Ordering::SeqCst);
                total.fetch_add(1, Ordering::SeqCst);
                spawn(move || {
                    let _ = echo(socket);
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open, served }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn has_no_connection(&self) {
        let begin = Instant::now();
        while self.open.load(Ordering::SeqCst) > 0 {
            assert!(begin.elapsed() < PATIENCE, "connections are left");
            sleep(Duration::from_millis(2));
        }
    }
}

fn echo(mut socket: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return socket.shutdown(Shutdown::Write);
        }
        socket.write_all(&buffer[..length])?;
    }
}

/// An address that refuses connections.
fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A listener whose backlog is full, with the socket that fills it. SYNs get no answer.
fn full() -> (TcpListener, TcpStream) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let fills = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, fills)
}

/// Sends `request` on a connection of its own and reads the same bytes back.
#[track_caller]
fn is_echoed(proxy: SocketAddr, request: &[u8]) {
    let mut client = connect(proxy);
    client.write_all(request).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).unwrap();
    assert!(reply == request, "{} of {} bytes", reply.len(), request.len());
}

#[test]
fn an_upload_is_answered_at_its_end() {
    with_each(|program| {
        let (address, server) = upstream(|mut socket| {
            let mut upload = Vec::new();
            socket.read_to_end(&mut upload).unwrap();
            socket.write_all(b"received").unwrap();
            upload
        });
        let proxy = program.start(&[address], 10);
        let upload = content(50_000_000);
        let mut client = connect(proxy.address);
        client.write_all(&upload).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, b"received");
        assert!(server.join().unwrap() == upload);
        drop(client);
        if let Some(counts) = proxy.finish() {
            assert_eq!((counts.pairs, counts.bytes_to_upstreams), (1, 50_000_000));
            assert_eq!(counts.bytes_to_clients, 8);
        }
    });
}

/// Both directions are full most of the time, and the server reads nothing while it writes.
#[test]
fn a_blocking_echo_gets_everything_back() {
    let sent = content(100_000_000);
    let run = |program: Program| {
        let server = Echo::start();
        let proxy = program.start(&[server.address], 10);
        let client = connect(proxy.address);
        let mut writer = client.try_clone().unwrap();
        scope(|threads| {
            threads.spawn(|| {
                writer.write_all(&sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let (mut client, mut buffer, mut got) = (&client, vec![0; 1 << 16], 0);
            while got < sent.len() {
                let length = client.read(&mut buffer).unwrap();
                assert!(length > 0 && buffer[..length] == sent[got..][..length], "at {got}");
                got += length;
            }
            assert_eq!(client.read(&mut buffer).unwrap(), 0);
        });
        drop((client, writer));
        proxy.finish();
    };
    (0..6).for_each(|_| run(Program::Ours));
    if needs_program("haproxy", "haproxy") {
        run(Program::HaProxy);
    }
}

#[test]
fn each_half_close_is_passed_on() {
    with_each(|program| {
        let (address, server) = upstream(|mut socket| {
            socket.write_all(b"all there is").unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).unwrap();
            rest
        });
        let proxy = program.start(&[address], 10);
        let (mut client, mut reply) = (connect(proxy.address), Vec::new());
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, b"all there is");
        for piece in [b"and", b"one", b"way"] {
            client.write_all(piece).unwrap();
            sleep(Duration::from_millis(20));
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.join().unwrap(), b"andoneway");
        drop(client);
        proxy.finish();
        // The other direction first.
        let server = Echo::start();
        let proxy = program.start(&[server.address], 10);
        is_echoed(proxy.address, b"");
        is_echoed(proxy.address, &content(300_000));
        server.has_no_connection();
        proxy.finish();
    });
}

#[test]
fn each_reset_is_passed_on() {
    with_each(|program| {
        for by_client in [false, true] {
            let (address, server) = upstream(move |mut socket| {
                socket.read_exact(&mut [0; 2]).unwrap();
                socket.write_all(b"ok").unwrap();
                if by_client {
                    return ends_by_reset(&mut socket);
                }
                socket.read_exact(&mut [0; 2]).unwrap();
                reset(socket);
                true
            });
            let proxy = program.start(&[address], 10);
            let mut client = connect(proxy.address);
            client.write_all(b"hi").unwrap();
            client.read_exact(&mut [0; 2]).unwrap();
            let was_reset = if by_client {
                reset(client);
                server.join().unwrap()
            } else {
                client.write_all(b"go").unwrap();
                server.join().unwrap();
                ends_by_reset(&mut client)
            };
            // HAProxy closes the other side, too, but by FIN.
            assert!(was_reset || program == Program::HaProxy);
            proxy.finish();
        }
    });
}

#[test]
fn upstreams_that_refuse_or_do_not_answer_are_left_out() {
    with_each(|program| {
        let (server, (silent, _fills)) = (Echo::start(), full());
        let upstreams = [refusing(), silent.local_addr().unwrap(), server.address];
        let proxy = program.start(&upstreams, 10);
        for _ in 0..6 {
            is_echoed(proxy.address, b"request");
        }
        assert_eq!(server.served(), 6);
        server.has_no_connection();
        if let Some(counts) = proxy.finish() {
            assert_eq!((counts.pairs, counts.refused), (6, 0));
            // Each of the two shards notes by itself which upstreams fail.
            assert!((1..=4).contains(&counts.connects_failed), "{counts:?}");
        }
    });
}

#[test]
fn a_client_that_no_upstream_takes_is_refused() {
    with_each(|program| {
        let (silent, _fills) = full();
        for upstreams in [vec![refusing(), refusing()], vec![silent.local_addr().unwrap()]] {
            let proxy = program.start(&upstreams, 10);
            for _ in 0..3 {
                let mut client = connect(proxy.address);
                let begin = Instant::now();
                let was_reset = ends_by_reset(&mut client);
                assert!(was_reset || program == Program::HaProxy);
                assert!(begin.elapsed() < PATIENCE / 2);
            }
            if let Some(counts) = proxy.finish() {
                assert_eq!((counts.pairs, counts.refused), (0, 3));
                assert_eq!(counts.connects_failed, 3 * upstreams.len() as u64);
            }
        }
    });
}

#[test]
fn a_server_that_never_answers_loses_its_connection_with_the_client() {
    with_each(|program| {
        for by_reset in [false, true] {
            let (address, server) = upstream(|mut socket| {
                let mut request = [0; 7];
                socket.read_exact(&mut request).unwrap();
                ends_by_reset(&mut socket);
                request
            });
            let proxy = program.start(&[address], 10);
            let mut client = connect(proxy.address);
            client.write_all(b"request").unwrap();
            client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            assert!(client.read(&mut [0]).is_err(), "nothing is answered");
            if by_reset {
                reset(client);
            } else {
                drop(client);
            }
            assert_eq!(&server.join().unwrap(), b"request");
            proxy.finish();
        }
    });
}

/// The kernel repeats its SYN after a second, when the backlog has room again. HAProxy gives such a
/// connect up, so only the example runs here.
#[test]
fn an_upstream_that_comes_after_the_clients_end_is_closed() {
    for by_reset in [false, true] {
        let (late, _fills) = full();
        let proxy = ours(&[late.local_addr().unwrap()], 10, PATIENCE);
        let mut client = connect(proxy.address);
        client.write_all(b"request").unwrap();
        sleep(Duration::from_millis(50));
        if by_reset {
            reset(client);
        } else {
            drop(client);
        }
        drop(late.accept().unwrap());
        let mut upstream = patient(late.accept().unwrap().0);
        // A client that has sent its FIN may still wait for the answer, so it is connected.
        let mut request = Vec::new();
        let end = upstream.read_to_end(&mut request);
        assert!(end.is_err() || by_reset || request == b"request", "{end:?}: {request:?}");
        drop(upstream);
        let counts = proxy.finish().unwrap();
        assert_eq!((counts.refused, counts.connects_failed), (0, 0));
    }
}

#[test]
fn clients_beyond_the_limit_wait() {
    with_each(|program| {
        let server = Echo::start();
        let proxy = program.start(&[server.address], 2);
        let ask = |client: &mut TcpStream| {
            client.write_all(b"?").unwrap();
            client.read_exact(&mut [0]).unwrap();
        };
        let [mut first, mut second] = [(); 2].map(|()| connect(proxy.address));
        ask(&mut first);
        ask(&mut second);
        let mut third = connect(proxy.address);
        third.write_all(b"?").unwrap();
        third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(third.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        third.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(first);
        third.read_exact(&mut [0]).unwrap();
        ask(&mut second);
        drop((second, third));
        server.has_no_connection();
        proxy.finish();
    });
}

/// With places for one pair, two clients must not take both of them.
#[test]
fn at_full_capacity_every_client_is_served() {
    with_each(|program| {
        for (max_connections, clients) in [(50, 100), (1, 10)] {
            let (server, request) = (Echo::start(), content(1_000));
            let proxy = program.start(&[server.address], max_connections);
            let address = proxy.address;
            scope(|threads| {
                for _ in 0..clients {
                    threads.spawn(|| (0..5).for_each(|_| is_echoed(address, &request)));
                }
            });
            server.has_no_connection();
            if let Some(counts) = proxy.finish() {
                assert_eq!(counts.pairs, 5 * clients);
                assert_eq!((counts.refused, counts.connects_failed), (0, 0));
                assert_eq!(counts.bytes_to_clients, 5 * clients * 1_000);
            }
        }
    });
}

/// One client of the churn: `draw` decides at which step it leaves, and how.
fn leaves(proxy: SocketAddr, draw: u64) {
    let mut client = connect(proxy);
    let request = content([0, 1, 1_000, 200_000][draw as usize % 4]);
    if client.write_all(&request).is_err() {
        return;
    }
    let (how, reads) = (draw / 4 % 4, draw / 16 % 3);
    if how == 3 {
        let _ = client.shutdown(Shutdown::Write);
    }
    if reads > 0 && !request.is_empty() {
        let mut part = vec![0; request.len() / reads as usize];
        client.read_exact(&mut part).unwrap();
        assert!(part == request[..part.len()]);
    }
    sleep(Duration::from_micros(draw / 64 % 3 * 200));
    match how {
        0 => drop(client),
        1 => reset(client),
        2 => {
            let _ = client.shutdown(Shutdown::Both);
        }
        _ => {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
        }
    }
}

#[test]
fn churn_leaves_nothing_behind() {
    with_each(|program| {
        let server = Echo::start();
        let proxy = program.start(&[server.address], 20);
        scope(|threads| {
            for thread in 0..8_u64 {
                let address = proxy.address;
                threads.spawn(move || {
                    let mut draw = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(thread + 1);
                    for _ in 0..100 {
                        // xorshift64
                        draw ^= draw << 13;
                        draw ^= draw >> 7;
                        draw ^= draw << 17;
                        leaves(address, draw);
                    }
                });
            }
        });
        is_echoed(proxy.address, &content(100_000));
        server.has_no_connection();
        if let Some(counts) = proxy.finish() {
            assert_eq!((counts.refused, counts.connects_failed), (0, 0));
        }
    });
}

#[test]
fn a_drain_lets_transfers_end_and_closes_quiet_pairs() {
    let server = Echo::start();
    let proxy = ours(&[server.address], 10, CONNECT_TIMEOUT);
    let (mut busy, mut quiet) = (connect(proxy.address), connect(proxy.address));
    for client in [&mut busy, &mut quiet] {
        client.write_all(b"?").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    let Running::Ours(engine, counts) = proxy.running else { unreachable!("ours was started") };
    engine.handle().drain(PATIENCE);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2_500) {
        busy.write_all(b"?").unwrap();
        busy.read_exact(&mut [0]).unwrap();
        sleep(Duration::from_millis(100));
    }
    assert!(!ends_by_reset(&mut quiet));
    busy.shutdown(Shutdown::Write).unwrap();
    assert!(!ends_by_reset(&mut busy));
    drop((busy, quiet));
    let (ledger, counts) = join(engine, &counts).unwrap();
    assert!(ledger.balanced() && ledger.open() == 0, "{}", ledger.to_json());
    assert_eq!(counts.pairs, 2);
    server.has_no_connection();
}

#[test]
fn a_unix_socket_is_one_of_the_listeners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy");
    let server = Echo::start();
    let arguments = format!(
        "--listen 127.0.0.1:0 --unix {} --to {} --shards 1 --max-connections 3",
        path.display(),
        server.address
    );
    let options = super::options(arguments.split(' ').map(String::from)).unwrap();
    let (engine, counts) = start(options).unwrap();
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    client.write_all(b"over a file").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"over a file");
    drop(client);
    let address = engine.addresses()[0];
    Proxy { address, running: Running::Ours(engine, counts) }.finish();
}

#[test]
fn options_need_a_listener_and_an_upstream() {
    let parse = |line: &str| super::options(line.split(' ').map(String::from)).is_ok();
    assert!(parse("--listen 127.0.0.1:1 --to 127.0.0.1:2,127.0.0.1:3"));
    for wrong in ["--listen 127.0.0.1:1", "--to 127.0.0.1:2", "--to", "--listen x", "--what 1"] {
        assert!(!parse(wrong), "{wrong}");
    }
}
