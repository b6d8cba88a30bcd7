//! A server that does what the lines sent to it say, and clients that look closely.

use ringwright::{
    Config, Connection, ConnectionId, Deadline, Directory, Engine, Handler, Ledger, Local,
    OpenFile, Origin, Reason, Room,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// What the server reports of a connection's end.
pub type Ended = (ConnectionId, Reason);

/// Byte `offset` of the stream that `big` sends.
pub fn stream_byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Lines: `echo TEXT`, `big BYTES`, `shutdown`, `close`, `abort`, `panic`, `file NAME`,
/// `sleep MILLISECONDS`, `beyond` and `empty` (ranges of a file that is there).
pub struct Scripted {
    pub ended: Sender<Ended>,
    pub directory: Option<Directory>,
}

#[derive(Default)]
pub struct State {
    /// Of a `big`: bytes sent and bytes to send.
    sent: u64,
    total: u64,
}

impl Scripted {
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
            "sleep" => {
                // What a handler must not do: the whole shard waits.
                std::thread::sleep(Duration::from_millis(rest.parse().expect("milliseconds")));
                let _ = connection.send(b"slept\n");
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
            "abort" => connection.abort(),
            "panic" => panic!("a handler that panics"),
            "file" => {
                let directory = self.directory.as_ref().expect("a directory to send from");
                connection.open_file(directory, rest.as_bytes());
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
            if connection.send(&piece[..length]) == Room::Full {
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
            let _ = connection.send(b"late\n");
        }
    }

    fn closed(&mut self, _: State, _: &mut Local<'_>, id: ConnectionId, reason: Reason) {
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
    let engine = Engine::start(config, move |_| Scripted {
        ended: sender.clone(),
        directory: directory.clone(),
    })
    .expect("the engine starts");
    let address = engine.addresses()[0];
    Server { engine, address, ended }
}

impl Server {
    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("the server accepts");
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    /// The next end of a connection.
    pub fn next_end(&self) -> Reason {
        self.ended.recv_timeout(Duration::from_secs(10)).expect("a connection ends").1
    }

    /// A new client is answered.
    pub fn still_serves(&self) {
        assert_eq!(ask(&mut self.connect(), "echo still here"), "still here");
    }

    /// Drains, and everything is back.
    pub fn finish(self) -> Ledger {
        self.engine.remote().drain(Duration::from_secs(5)).expect("the shard listens");
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

/// Waits until `done` holds, at most ten seconds.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
