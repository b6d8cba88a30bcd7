//! A server that does what the lines sent to it say, and clients that look closely.

use crate::both::{WITHOUT, features, ring};
use ringwright::files::{Directory, OpenFile, StartFileError};
use ringwright::{
    Config, Connection, ConnectionId, Deadline, Engine, Error, Handler, Ledger, Local, Origin,
    Reason, SendStatus,
};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest wait for anything that must happen. A busy machine takes seconds for what takes
/// milliseconds otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The receive buffer of a narrow client, bytes; the kernel doubles it (socket(7)).
const NARROW_BYTES: usize = 64 << 10;
/// The descriptors that the largest test needs.
const DESCRIPTORS_MIN: usize = 3_000;

/// What the server reports of a connection's end.
pub type Ended = (ConnectionId, Reason);

/// Byte `offset` of the stream that `big` sends.
pub fn stream_byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Doors at which jobs and callbacks wait until a test opens them.
#[derive(Default)]
pub struct Doors {
    open: Mutex<Vec<bool>>,
    changed: Condvar,
    /// Calls of [`Self::pass`].
    begun: AtomicU64,
}

impl Doors {
    pub fn open(&self, door: usize) {
        let mut open = self.open.lock().unwrap();
        let doors = open.len().max(door + 1);
        open.resize(doors, false);
        open[door] = true;
        self.changed.notify_all();
    }

    /// Waits for a door. False: nobody opened it.
    pub fn pass(&self, door: usize) -> bool {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        let shut = |open: &mut Vec<bool>| !open.get(door).copied().unwrap_or(false);
        let (open, _) = self.changed.wait_timeout_while(open, PATIENCE, shut).unwrap();
        open.get(door).copied().unwrap_or(false)
    }

    /// Waits until `count` calls of [`Self::pass`] have begun.
    pub fn has_begun(&self, count: u64) {
        wait_until("a door is reached", || self.begun.load(Ordering::SeqCst) == count);
    }
}

/// Sends every byte back.
pub struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
}

/// Lines: `echo TEXT`, `big BYTES`, `shutdown`, `close`, `abort`, `panic`, `file NAME`,
/// `door NUMBER`, `beyond` and `empty` (ranges of a file that is there), `short PATH` (a range that
/// is longer than the file, between two lines).
pub struct Scripted {
    pub ended: Sender<Ended>,
    pub directory: Option<Directory>,
    pub doors: Arc<Doors>,
}

#[derive(Default)]
pub struct State {
    /// Of a `big`: bytes sent and bytes to send.
    sent: u64,
    total: u64,
}

impl Scripted {
    /// A server without files whose ends nobody looks at.
    pub fn unobserved() -> Self {
        Self { ended: channel().0, directory: None, doors: Arc::default() }
    }

    fn line(&mut self, state: &mut State, connection: &mut Connection<'_>, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "echo" => {
                let _ = connection.send(format!("{rest}\n").as_bytes());
            }
            "big" => {
                state.total += rest.parse::<u64>().expect("a number of bytes");
                self.writable(state, connection);
            }
            "shutdown" => {
                let _ = connection.send(b"bye\n");
                connection.shutdown();
            }
            "close" => {
                let _ = connection.send(b"bye\n");
                connection.close();
            }
            "door" => {
                // A handler must not do this: the whole shard waits.
                assert!(self.doors.pass(rest.parse().expect("a number")), "door {rest} stays shut");
                let _ = connection.send(b"passed\n");
            }
            "beyond" => {
                let directory = std::fs::File::open("/proc/self/exe").expect("this program");
                let file = OpenFile::from_file(directory).expect("a file");
                let _ = connection.send_file(file, u64::MAX - 5, 3);
            }
            "empty" => {
                let _ = connection.send(b"head\n");
                let file = std::fs::File::open("/proc/self/exe").expect("this program");
                let _ = connection.send_file(OpenFile::from_file(file).expect("a file"), 0, 0);
            }
            "short" | "padded" => {
                let _ = connection.send(b"head\n");
                let file = std::fs::File::open(rest).expect("the file is there");
                let file = OpenFile::from_file(file).expect("a file");
                let bytes = file.status().bytes;
                let _ = match word {
                    "short" => connection.send_file(file, 0, bytes + 10),
                    _ => connection.send_file_padded(file, 0, bytes + 10),
                };
                let _ = connection.send(b"behind\n");
            }
            "abort" => connection.abort(),
            "panic" => panic!("a handler that panics"),
            "file" => {
                let directory = self.directory.as_ref().expect("a directory to send from");
                connection.open_file(directory, rest.as_bytes()).expect("the first");
                let again = connection.open_file(directory, rest.as_bytes());
                assert_eq!(again, Err(StartFileError::InProgress));
                connection.pause();
            }
            other => panic!("unknown line {other}"),
        }
    }
}

impl Handler for Scripted {
    type State = State;

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> State {
        State::default()
    }

    fn received(
        &mut self,
        state: &mut State,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        // One line a call: what follows comes again.
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return 0 };
        let line = std::str::from_utf8(&bytes[..end]).expect("lines are text").to_owned();
        self.line(state, connection, &line);
        connection.resume_unless_paused(&line);
        end + 1
    }

    fn half_closed(&mut self, _: &mut State, connection: &mut Connection<'_>) {
        let _ = connection.send(b"half\n");
        connection.close();
    }

    fn writable(&mut self, state: &mut State, connection: &mut Connection<'_>) {
        let mut piece = [0; 8192];
        while state.sent < state.total {
            let length = piece.len().min((state.total - state.sent) as usize);
            for (at, byte) in piece[..length].iter_mut().enumerate() {
                *byte = stream_byte(state.sent + at as u64);
            }
            state.sent += length as u64;
            if connection.send(&piece[..length]) == SendStatus::Full {
                return;
            }
        }
    }

    fn file_opened(
        &mut self,
        _: &mut State,
        connection: &mut Connection<'_>,
        result: io::Result<OpenFile>,
    ) {
        match result {
            Ok(file) => {
                let bytes = file.status().bytes;
                let _ = connection.send(format!("{bytes}\n").as_bytes());
                let _ = connection.send_file(file, 0, bytes);
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                let _ = connection.send(format!("error {errno}\n").as_bytes());
            }
        }
        connection.resume();
    }

    fn expired(&mut self, _: &mut State, connection: &mut Connection<'_>, deadline: Deadline) {
        if deadline == Deadline::Receive {
            let late = [b"late ", connection.unused(), b"\n"].concat();
            let _ = connection.send(&late);
        }
    }

    fn closed(&mut self, _: Option<State>, _: &mut Local<'_>, id: ConnectionId, reason: Reason) {
        // A test that does not look has dropped its end.
        let _ = self.ended.send((id, reason));
    }
}

/// `resume` after every line but those that wait for something.
trait ResumeUnlessPaused {
    fn resume_unless_paused(&mut self, line: &str);
}

impl ResumeUnlessPaused for Connection<'_> {
    fn resume_unless_paused(&mut self, line: &str) {
        if !line.starts_with("file") {
            self.resume();
        }
    }
}

/// A running server.
pub struct Server {
    pub engine: Engine,
    pub address: SocketAddr,
    pub ended: Receiver<Ended>,
    pub doors: Arc<Doors>,
}

/// Starts an engine, and raises the limit of open files.
///
/// All rings of an ordinary user share `RLIMIT_MEMLOCK`, and the kernel gives back what a closed
/// ring had locked some time later: this waits until there is room.
#[track_caller]
pub fn start<H: Handler>(
    config: Config,
    factory: impl Fn(usize) -> H + Send + Sync + 'static,
) -> Engine {
    let descriptors = ringwright_test_support::raise_descriptor_limit();
    assert!(descriptors >= DESCRIPTORS_MIN, "{descriptors} descriptors: raise it (ulimit -Hn)");
    let factory = Arc::new(factory);
    let begun = Instant::now();
    loop {
        let factory = factory.clone();
        match try_start(config.clone(), move |shard| factory(shard)) {
            Ok(engine) => return engine,
            Err(error) if error.to_string().contains("RLIMIT_MEMLOCK") => {
                assert!(begun.elapsed() < PATIENCE, "{error}");
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("the engine does not start: {error}"),
        }
    }
}

/// Starts an engine on the ring that this run tests.
pub fn try_start<H: Handler>(
    mut config: Config,
    factory: impl Fn(usize) -> H + Send + Sync + 'static,
) -> Result<Engine, Error> {
    config.ring = ring();
    if std::env::var_os(WITHOUT).is_some() {
        config.features = features();
    }
    Engine::start(config, factory)
}

/// Tests with thousands of descriptors take turns: all tests share the process's limit.
pub fn many_descriptors() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port of a loopback address that no other test uses. Nobody else listens there when the test
/// has closed its listener, and no outgoing connection gets the port.
pub fn address_of_its_own() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let process = std::process::id() as u8;
    let address = Ipv4Addr::new(127, 100, process, NEXT.fetch_add(1, Ordering::Relaxed));
    SocketAddr::from((address, 0))
}

/// Bytes that fill everything between the server and a narrow client that does not read: the
/// largest send buffer (tcp(7), `tcp_wmem`), and 1 MiB for the client's buffer and the queue.
pub fn stalling_bytes() -> u64 {
    let sizes = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").expect("/proc is there");
    let largest = sizes.split_whitespace().nth(2).expect("three sizes");
    largest.parse::<u64>().expect("a number") + (1 << 20)
}

/// An abstract name of a Unix listener, for the test of this thread.
pub fn abstract_name() -> String {
    let thread = std::thread::current();
    let test = thread.name().expect("the test's name").replace("::", "-");
    format!("ringwright-{}-{test}", std::process::id())
}

/// A client with a small receive buffer.
pub fn connect_narrow(address: SocketAddr) -> TcpStream {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(NARROW_BYTES).unwrap();
    socket.connect(&address.into()).expect("the server accepts");
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

/// One shard on a free port; `change` adjusts the rest.
pub fn serve(change: impl FnOnce(&mut Config)) -> Server {
    serve_files(None, change)
}

pub fn serve_files(directory: Option<Directory>, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(1),
        pin: false,
        ..Config::default()
    };
    change(&mut config);
    let (sender, ended) = channel();
    let doors: Arc<Doors> = Arc::default();
    let of_handler = doors.clone();
    let engine = start(config, move |_| Scripted {
        ended: sender.clone(),
        directory: directory.clone(),
        doors: of_handler.clone(),
    });
    let address = engine.addresses()[0];
    Server { engine, address, ended, doors }
}

impl Server {
    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("the server accepts");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    /// A client whose receive buffer does not grow: [`stalling_bytes`] fill what is on the way.
    pub fn connect_narrow(&self) -> TcpStream {
        connect_narrow(self.address)
    }

    /// Asks for more than the connection takes: the client is a slow reader from now on.
    pub fn stall(&self) -> TcpStream {
        let mut client = self.connect_narrow();
        client.write_all(format!("big {}\n", stalling_bytes()).as_bytes()).unwrap();
        client
    }

    /// The next end of a connection.
    pub fn next_end(&self) -> Reason {
        self.ended.recv_timeout(PATIENCE).expect("a connection ends").1
    }

    /// A new client is answered.
    pub fn still_serves(&self) {
        assert_eq!(ask(&mut self.connect(), "echo still here"), "still here");
    }

    /// Drains, and everything is back.
    pub fn finish(self) -> Ledger {
        self.engine.handle().drain(PATIENCE);
        let ledger = self.engine.join().expect("the shard ends well");
        assert!(ledger.balanced(), "{}", ledger.to_json());
        assert_eq!(ledger.open(), 0, "{}", ledger.to_json());
        assert_eq!(ledger.permits.free, ledger.permits.total, "{}", ledger.to_json());
        assert_eq!(ledger.sum.stale_completions, 0, "{}", ledger.to_json());
        ledger
    }
}

/// Sends a line and reads one.
pub fn ask(client: &mut TcpStream, line: &str) -> String {
    client.write_all(format!("{line}\n").as_bytes()).expect("the line leaves");
    read_line(client).expect("an answer")
}

pub fn read_line(client: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        if client.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if byte[0] == b'\n' {
            return Ok(String::from_utf8(line).expect("text"));
        }
        line.push(byte[0]);
    }
}

/// Closing this client resets the connection.
pub fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}

/// Whether a peer that reset its connection is the cause.
///
/// The kernel reports ECONNRESET once, to a receive or to a send, and EPIPE to every later send.
pub fn is_reset(reason: Reason) -> bool {
    matches!(reason, Reason::PeerReset | Reason::BrokenPipe)
}

/// Waits until `done` holds, at most [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
