//! Unix sockets: listeners, their files, and how their connections differ from those of TCP.

use crate::common::{PATIENCE, Scripted, start, stream_byte, try_start, wait_until};
use ringwright::files::Directory;
use ringwright::{
    Config, Connection, ConnectionId, EndedConnection, Engine, Handler, Ledger, Local, Origin,
    Peer, Prefix, Reason,
};
use std::fs;
use std::io::{IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// More than a Unix socket holds (`net.core.wmem_max` is not asked: a sender has `wmem_default`).
const MUCH: usize = 4 << 20;

/// A folder with a socket in it.
struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("socket"), _folder: folder }
    }

    fn config(&self, shards: usize) -> Config {
        let listeners = vec![self.address().parse().unwrap()];
        Config { listeners, shards: Some(shards), pin: false, ..Config::default() }
    }

    fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    fn connect(&self) -> UnixStream {
        connect(&self.path)
    }
}

fn connect(path: &Path) -> UnixStream {
    let client = UnixStream::connect(path).expect("the server accepts");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

fn ask(client: &mut UnixStream, text: &str) {
    client.write_all(format!("echo {text}\n").as_bytes()).unwrap();
    let mut answer = vec![0; text.len() + 1];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, format!("{text}\n").as_bytes());
}

fn finish(engine: Engine) -> Ledger {
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().unwrap();
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!((ledger.open(), ledger.sum.descriptors), (0, 0), "{}", ledger.to_json());
    ledger
}

/// Sends every byte back, and describes each end to the test.
struct Echo {
    ended: Sender<(Reason, EndedConnection, usize)>,
    /// Reads nothing before.
    deaf: Duration,
}

impl Echo {
    fn start(
        config: Config,
        deaf: Duration,
    ) -> (Engine, Receiver<(Reason, EndedConnection, usize)>) {
        let (ended, ends) = channel();
        (start(config, move |_| Self { ended: ended.clone(), deaf }), ends)
    }
}

impl Handler for Echo {
    /// Bytes received.
    type State = usize;

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) -> usize {
        assert_eq!(connection.peer(), Peer::Unix);
        if !self.deaf.is_zero() {
            connection.pause();
            connection.set_timer(0, Some(self.deaf));
        }
        0
    }

    fn timer(&mut self, _: &mut usize, connection: &mut Connection<'_>, _: u8) {
        connection.resume();
    }

    fn received(
        &mut self,
        got: &mut usize,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        *got += bytes.len();
        if self.deaf.is_zero() {
            let _ = connection.send(bytes);
        }
        bytes.len()
    }

    fn closed(
        &mut self,
        got: Option<usize>,
        shard: &mut Local<'_>,
        _: ConnectionId,
        reason: Reason,
    ) {
        let _ = self.ended.send((reason, shard.ended().expect("inside closed"), got.unwrap_or(0)));
    }
}

#[test]
fn clients_have_no_address_and_no_limit_by_it() {
    let place = Place::new();
    let everybody = ["0.0.0.0/0", "::/0"].map(|it| it.parse::<Prefix>().unwrap());
    let config = Config {
        bans: everybody.to_vec(),
        max_per_address: Some(1),
        count_traffic: true,
        ..place.config(2)
    };
    let (engine, ends) = Echo::start(config, Duration::ZERO);
    let handle = engine.handle();
    assert!(engine.addresses().is_empty());
    assert_eq!(handle.listeners()[0].address.to_string(), place.address());
    let mut clients = [(); 3].map(|()| place.connect());
    let echo = |client: &mut UnixStream| {
        client.write_all(b"here").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"here");
    };
    clients.iter_mut().for_each(echo);
    handle.set_bans(&everybody).unwrap();
    clients.iter_mut().for_each(echo);
    let list = handle.list(None, 10).unwrap();
    assert_eq!(list.iter().map(|info| info.peer).collect::<Vec<_>>(), [Peer::Unix; 3]);
    drop(clients);
    for _ in 0..3 {
        let (reason, ended, _) = ends.recv_timeout(PATIENCE).unwrap();
        assert_eq!((reason, ended.peer, ended.traffic), (Reason::PeerFin, Peer::Unix, None));
    }
    let ledger = finish(engine);
    assert_eq!((ledger.sum.opened, ledger.sum.banned), (3, 0));
}

#[test]
fn the_file_has_its_mode_and_goes_with_the_listener() {
    let place = Place::new();
    let listener = format!("{} (mode=0620)", place.address()).parse().unwrap();
    let engine =
        start(Config { listeners: Vec::new(), ..place.config(2) }, |_| Scripted::unobserved());
    let handle = engine.handle();
    for round in 0..3 {
        let number = handle.add_listener(&listener).unwrap().number;
        assert_eq!(fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, 0o620);
        let refused = handle.add_listener(&listener).unwrap_err().to_string();
        assert!(refused.contains("in use") && refused.contains("ss -lxp"), "{refused}");
        let mut client = place.connect();
        ask(&mut client, "in");
        // Clients that wait in the backlog are let in.
        handle.pause_listener(number).unwrap();
        ask(&mut client, "paused");
        let mut waiting = place.connect();
        if round == 0 {
            handle.resume_listener(number).unwrap();
            ask(&mut waiting, "resumed");
        }
        waiting.write_all(b"echo let in\n").unwrap();
        handle.remove_listener(number, PATIENCE).unwrap();
        assert!(!place.path.exists(), "the file outlasts the call");
        let mut answer = [0; 7];
        waiting.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"let in\n");
    }
    handle.add_listener(&listener).unwrap();
    handle.drain(PATIENCE);
    assert!(!place.path.exists(), "the file outlasts the drain");
    finish(engine);
}

#[test]
fn a_start_says_what_is_in_its_way() {
    let place = Place::new();
    let start_here = || {
        let refused = try_start(place.config(1), |_| Scripted::unobserved());
        refused.map(|_| ()).unwrap_err().to_string()
    };
    let live = UnixListener::bind(&place.path).unwrap();
    let error = start_here();
    assert!(error.contains(&place.address()) && error.contains("a process listens"), "{error}");
    drop(live);
    let engine = start(place.config(1), |_| Scripted::unobserved());
    ask(&mut place.connect(), "replaced");
    drop(engine);
    fs::write(&place.path, "mine").unwrap();
    let error = start_here();
    assert!(error.contains("not a socket"), "{error}");
    assert_eq!(fs::read(&place.path).unwrap(), b"mine");
}

/// A multishot accept of one shard would keep every client from the other.
#[test]
fn shards_take_turns_at_their_one_socket() {
    let place = Place::new();
    let counts: Arc<[AtomicU64; 2]> = Arc::default();
    let all = counts.clone();
    let engine = start(place.config(2), move |shard| Counting(shard, all.clone()));
    wait_until("both shards have had 8 clients", || {
        place.connect().read_exact(&mut [0]).unwrap();
        counts.iter().all(|count| count.load(Ordering::Relaxed) >= 8)
    });
    finish(engine);
}

/// Counts clients by shard, and greets each with a byte.
struct Counting(usize, Arc<[AtomicU64; 2]>);

impl Handler for Counting {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.1[self.0].fetch_add(1, Ordering::Relaxed);
        let _ = connection.send(b"a");
    }

    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

/// close(2) of the peer hangs up the other end of a Unix socket at once, with unread bytes in it.
#[test]
fn bytes_of_a_client_that_has_gone_are_delivered() {
    let place = Place::new();
    let deaf = Duration::from_millis(200);
    for idle_operation in [ringwright::IdleOperation::Receive, ringwright::IdleOperation::Poll] {
        let (engine, ends) = Echo::start(Config { idle_operation, ..place.config(1) }, deaf);
        for bytes in [0, 1, 5_000, 100_000] {
            let mut client = place.connect();
            client.write_all(&vec![b'x'; bytes]).unwrap();
            drop(client);
            let (_, _, got) = ends.recv_timeout(PATIENCE).unwrap();
            assert_eq!(got, bytes, "{idle_operation:?}");
        }
        finish(engine);
    }
}

#[test]
fn either_side_ends_first() {
    let place = Place::new();
    let config = Config { linger_timeout: PATIENCE, linger_total: PATIENCE, ..place.config(1) };
    let engine = start(config, |_| Scripted::unobserved());
    let mut ended = Vec::new();
    // The peer's half-close, ours, and both at once.
    let mut client = place.connect();
    client.write_all(b"echo last\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_end(&mut ended).unwrap();
    assert_eq!(ended, b"last\nhalf\n");
    drop(client);
    for word in ["close", "shutdown"] {
        let mut client = place.connect();
        ended.clear();
        client.write_all(format!("{word}\n").as_bytes()).unwrap();
        client.read_to_end(&mut ended).unwrap();
        assert_eq!(ended, b"bye\n", "{word}");
    }
    // A client that still sends gets the reply all the same: its bytes are thrown away.
    let mut client = place.connect();
    client.write_all(b"close\n").unwrap();
    client.write_all(&vec![b'x'; MUCH]).expect("it is read to its end");
    ended.clear();
    client.read_to_end(&mut ended).unwrap();
    assert_eq!(ended, b"bye\n");
    drop(client);
    // There is no reset: the peer of an aborted connection reads the end.
    let mut client = place.connect();
    client.write_all(b"abort\n").unwrap();
    ended.clear();
    client.read_to_end(&mut ended).unwrap();
    assert_eq!(ended, b"");
    drop(client);
    finish(engine);
}

#[test]
fn long_output_and_files_arrive_whole() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..MUCH as u64).map(stream_byte).collect();
    fs::write(folder.path().join("long"), &content).unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let engine = start(place.config(1), move |_| Scripted {
        directory: Some(directory.clone()),
        ..Scripted::unobserved()
    });
    let mut client = place.connect();
    let mut got = vec![0; MUCH];
    client.write_all(format!("big {MUCH}\n").as_bytes()).unwrap();
    client.read_exact(&mut got).unwrap();
    assert!(got == content, "the bytes differ");
    client.write_all(b"file long\n").unwrap();
    let mut head = vec![0; format!("{MUCH}\n").len()];
    client.read_exact(&mut head).unwrap();
    got.fill(0);
    client.read_exact(&mut got).unwrap();
    assert!(got == content, "the file's bytes differ");
    drop(client);
    finish(engine);
}

/// A client that reads nothing is late. One that reads now and then is not, though one send of the
/// ring waits for it all the time.
#[test]
fn a_reader_that_stalls_is_late_and_a_slow_one_is_not() {
    let place = Place::new();
    let write_timeout = Duration::from_secs(2);
    let config = Config { write_timeout: Some(write_timeout), ..place.config(1) };
    let (sender, ended) = channel();
    let content: Arc<[u8]> = (0..MUCH as u64).map(stream_byte).collect();
    let of_handler = content.clone();
    let engine = start(config, move |_| Lecturer(of_handler.clone(), sender.clone()));
    let (mut slow, stalled) = (place.connect(), place.connect());
    let mut got = vec![0; MUCH];
    let begun = Instant::now();
    let mut read = 0;
    while begun.elapsed() < 2 * write_timeout {
        slow.read_exact(&mut got[read..read + 20_000]).unwrap();
        read += 20_000;
        std::thread::sleep(write_timeout / 20);
    }
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), Reason::WriteTimeout);
    assert_eq!(engine.handle().ledger().open(), 1, "the slow one stays");
    slow.read_exact(&mut got[read..]).unwrap();
    assert!(got[..] == content[..], "the bytes differ");
    drop((slow, stalled));
    finish(engine);
}

/// Sends the same to every client.
struct Lecturer(Arc<[u8]>, Sender<Reason>);

impl Handler for Lecturer {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        let _ = connection.send_payload(self.0.clone());
    }

    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn closed(&mut self, _: Option<()>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        let _ = self.1.send(reason);
    }
}

/// The kernel cuts a receive short behind a descriptor that came with the bytes.
#[test]
fn descriptors_that_a_client_sends_are_dropped() {
    let place = Place::new();
    let (engine, _ends) = Echo::start(place.config(1), Duration::ZERO);
    let mut client = place.connect();
    for _ in 0..50 {
        let (mut read, write) = std::io::pipe().unwrap();
        send_with_descriptor(&client, b"first", write.as_raw_fd());
        drop(write);
        client.write_all(b"second").unwrap();
        let mut answer = [0; 11];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"firstsecond");
        // Nobody else has the pipe's other end.
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
    }
    drop(client);
    finish(engine);
}

/// sendmsg(2) with `SCM_RIGHTS` (unix(7)).
fn send_with_descriptor(socket: &UnixStream, bytes: &[u8], descriptor: i32) {
    let mut control = Vec::new();
    // struct cmsghdr: its length with the data, level and type.
    control.extend(20_usize.to_ne_bytes());
    control.extend(libc::SOL_SOCKET.to_ne_bytes());
    control.extend(libc::SCM_RIGHTS.to_ne_bytes());
    control.extend(descriptor.to_ne_bytes());
    control.extend([0; 4]);
    let pieces = [IoSlice::new(bytes)];
    let message = socket2::MsgHdr::new().with_buffers(&pieces).with_control(&control);
    let sent = socket2::SockRef::from(socket).sendmsg(&message, 0).unwrap();
    assert_eq!(sent, bytes.len());
}

#[test]
fn a_tcp_listener_and_a_unix_socket_serve_side_by_side() {
    let place = Place::new();
    let mut config = place.config(2);
    config.listeners.insert(0, "127.0.0.1:0".parse().unwrap());
    let engine = start(config, |_| Scripted::unobserved());
    let address = engine.addresses()[0];
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut place.connect(), "unix");
    tcp.write_all(b"echo tcp\n").unwrap();
    let mut answer = [0; 4];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"tcp\n");
    let numbers = engine.handle().listeners();
    assert_eq!(numbers[1].address.to_string(), place.address());
    drop(tcp);
    finish(engine);
}

/// Tells each client who it is.
struct Telling;

impl Handler for Telling {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        let who = connection.peer_credentials();
        let who = who.map(|who| (who.pid, who.uid, who.gid));
        let _ = connection.send(format!("{who:?}\n").as_bytes());
        connection.close();
    }

    fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

#[test]
fn an_abstract_name_has_no_file_and_tells_who_its_clients_are() {
    let name = format!("ringwright-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let tcp = "127.0.0.1:0".parse().unwrap();
    let listeners = vec![format!("unix:@{name}").parse().unwrap(), tcp];
    let config = Config { listeners, shards: Some(2), pin: false, ..Config::default() };
    let engine = start(config.clone(), |_| Telling);
    assert!(!Path::new(&format!("@{name}")).exists());
    // SAFETY: no pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let us = format!("{:?}\n", Some((Some(std::process::id()), uid, gid)));
    for _ in 0..20 {
        let mut client = UnixStream::connect_addr(&address).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, us);
    }
    let mut text = String::new();
    TcpStream::connect(engine.addresses()[0]).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "None\n");
    // The name is taken while the engine listens, and free when its listener has ended.
    let handle = engine.handle();
    let again = || handle.add_listener(&config.listeners[0]);
    let error = again().unwrap_err();
    assert!(matches!(error, ringwright::Error::Listen { .. }), "{error}");
    handle.remove_listener(0, PATIENCE).unwrap();
    assert_eq!(again().unwrap().address.to_string(), format!("unix:@{name}"));
    assert!(UnixStream::connect_addr(&address).is_ok());
    handle.drain(PATIENCE);
    assert!(engine.join().unwrap().balanced());
    let error = UnixStream::connect_addr(&address).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
