//! The built daemon as a child process, and a client of plain sockets: nothing here shares code
//! with what is tested.

use crate::PATIENCE;
use ringwright_test_support::raise_descriptor_limit;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running daemon; killed when dropped.
pub struct Server {
    child: Child,
    /// The first address that it listens on.
    pub address: SocketAddr,
    /// All of them.
    pub addresses: Vec<SocketAddr>,
    /// The address of its admin listener, if it was started with one.
    pub admin: Option<SocketAddr>,
    stderr: Option<thread::JoinHandle<String>>,
    stdout: Option<thread::JoinHandle<String>>,
}

/// The end of a daemon: its status and its output.
pub struct Ended {
    pub status: ExitStatus,
    pub stderr: String,
    /// The text after the lines that say where it listens.
    pub stdout: String,
}

impl Ended {
    /// It ended of its own accord, and everything was given back.
    #[track_caller]
    pub fn cleanly(self) -> Self {
        assert_eq!(self.status.code(), Some(0), "{}", self.stderr);
        let ledger = self.stderr.lines().find(|line| line.starts_with("ledger {"));
        let ledger = ledger.unwrap_or_else(|| panic!("no ledger in {}", self.stderr));
        assert!(ledger.contains("\"balanced\":true"), "{ledger}");
        self
    }
}

/// A program without the environment's settings for the daemon.
pub fn without_settings(program: &str) -> Command {
    let mut command = Command::new(program);
    // SIGHUP is ignored where nohup(1) runs the tests.
    // SAFETY: signal may be called between fork and exec (signal-safety(7)).
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGWRIGHTD_")) {
        command.env_remove(name);
    }
    // The ring that these tests are run for; see engine/tests/real_ring/both.rs.
    if let Some(ring) = std::env::var_os("RINGWRIGHT_TEST_RING") {
        command.env("RINGWRIGHTD_RING", ring);
    }
    // However many CPUs there are: the rings of all shards must fit into RLIMIT_MEMLOCK.
    command.env("RINGWRIGHTD_SHARDS", "2");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    #[track_caller]
    pub fn start(command: &mut Command, scheme: &str) -> Self {
        Self::start_listening(command, &[scheme])
    }

    #[track_caller]
    pub fn start_with_admin(command: &mut Command, scheme: &str) -> Self {
        Self::start_listening(command, &[scheme, "admin http"])
    }

    /// Starts a daemon that announces listeners of these schemes, in this order. One that ends with
    /// `+unix` has no address.
    #[track_caller]
    pub fn start_listening(command: &mut Command, schemes: &[&str]) -> Self {
        raise_descriptor_limit();
        let give_up = Instant::now() + PATIENCE;
        loop {
            match Self::try_start(command, schemes) {
                Ok(server) => return server,
                // An ordinary user's other rings may have filled it for a moment.
                Err(said) if said.contains("RLIMIT_MEMLOCK") && Instant::now() < give_up => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(said) => panic!("it did not start: {said}"),
            }
        }
    }

    /// A server that listens, or what it said instead.
    fn try_start(command: &mut Command, schemes: &[&str]) -> Result<Self, String> {
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut addresses = Vec::new();
        for scheme in schemes {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let is_unix = scheme.ends_with("+unix");
            if is_unix && line.starts_with(&format!("listening {scheme}:/")) {
                continue;
            }
            let address = line
                .trim_end()
                .strip_prefix(&format!("listening {scheme}://"))
                .and_then(|address| address.parse().ok());
            let Some(address) = address else {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{line:?} and {}", stderr.join().unwrap()));
            };
            addresses.push(address);
        }
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        });
        Ok(Self {
            child,
            address: addresses.first().copied().unwrap_or(([0, 0, 0, 0], 0).into()),
            admin: addresses.last().copied().filter(|_| schemes.last() == Some(&"admin http")),
            addresses,
            stderr: Some(stderr),
            stdout: Some(stdout),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no memory is involved, and the child has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// SIGTERM, and how it ended.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let give_up = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < give_up, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        Ended {
            status,
            stderr: self.stderr.take().unwrap().join().unwrap(),
            stdout: self.stdout.take().unwrap().join().unwrap(),
        }
    }

    /// Threads of the process, those of the kernel for its rings included.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// The threads whose names begin like this.
    pub fn threads_named(&self, prefix: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // A thread that ends meanwhile has no name.
        let name = |task: io::Result<fs::DirEntry>| fs::read_to_string(task?.path().join("comm"));
        tasks.filter_map(|task| name(task).ok()).filter(|it| it.starts_with(prefix)).count()
    }

    /// Open descriptors, without those of the admin listener, which has a table of its own.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A connection to its admin listener.
    pub fn admin(&self) -> Client {
        Client::new(self.admin.expect("it was started with one"))
    }

    /// Waits until its admin listener says that the ledger is as expected.
    #[track_caller]
    pub fn ledger_once(&self, expected: impl Fn(&Value) -> bool) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let reply = self.admin().request("GET", "/ledger");
            let ledger: Value = serde_json::from_slice(&reply.body).unwrap();
            if expected(&ledger) {
                return ledger;
            }
            assert!(Instant::now() < give_up, "it stays {ledger}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str, fields: &str) -> Reply {
        self.client().ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

/// A reply as it came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    #[track_caller]
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(text.as_ref()).unwrap();
    }

    #[track_caller]
    pub fn ask(&mut self, request: &str) -> Reply {
        self.send(request);
        self.reply(request.starts_with("HEAD "))
    }

    /// A request without a body, as a program would make it.
    #[track_caller]
    pub fn request(&mut self, method: &str, target: &str) -> Reply {
        self.ask(&format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
    }

    /// Reads a reply to its announced end.
    #[track_caller]
    pub fn reply(&mut self, is_head: bool) -> Reply {
        let mut reply = self.head();
        if !is_head && ![100, 204, 304].contains(&reply.status) {
            let length = reply.field("content-length").parse().unwrap();
            reply.body.resize(length, 0);
            self.stream.read_exact(&mut reply.body).unwrap();
        }
        reply
    }

    /// Reads a reply's head.
    #[track_caller]
    pub fn head(&mut self) -> Reply {
        let line = self.line();
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut fields = HashMap::<String, String>::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Reply { status, fields, body: Vec::new() };
            }
            let (name, value) = line.split_once(": ").unwrap();
            let name = name.to_ascii_lowercase();
            match fields.get_mut(&name) {
                // Its lines are one list (RFC 9110, 5.3).
                Some(before) if name == "vary" => *before = format!("{before}, {value}"),
                Some(_) => panic!("{name} twice"),
                None => {
                    fields.insert(name, value.to_owned());
                }
            }
        }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("not a line: {line:?}")).to_owned()
    }

    /// The server ends the connection, gracefully, with nothing more said.
    #[track_caller]
    pub fn is_at_its_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Our FIN.
    pub fn half_close(&mut self) {
        self.stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    }
}

/// Waits until `act` takes less than `limit`. On a busy machine that is not so each time; if
/// `act` waits for something each time, it is never so.
#[track_caller]
pub fn takes_less_than(limit: Duration, mut act: impl FnMut()) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let begun = Instant::now();
        act();
        let taken = begun.elapsed();
        if taken < limit {
            return;
        }
        assert!(Instant::now() < give_up, "it takes {taken:?}");
    }
}

/// A small tree to serve.
pub fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::write(root.join("index.html"), "<h1>root</h1>").unwrap();
    fs::write(root.join("ten.txt"), "0123456789").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("a b é.txt"), "spaces").unwrap();
    fs::write(root.join(".hidden"), "secret").unwrap();
    fs::create_dir_all(root.join("sub/.git")).unwrap();
    fs::write(root.join("sub/index.html"), "<h1>sub</h1>").unwrap();
    fs::write(root.join("sub/.git/config"), "secret").unwrap();
    fs::create_dir(root.join("bare")).unwrap();
    fs::write(root.join("middle.bin"), pattern(200_000)).unwrap();
    // A file that has just changed has no strong entity tag.
    thread::sleep(Duration::from_millis(25));
    dir
}

/// Bytes that show where they belong.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| ((at / 251) ^ at) as u8).collect()
}
