//! Small servers that behave in one certain way, and the program run against them.

pub mod broken;
pub mod files;
pub mod packets;
pub mod transfers;

use ringwright_test_support::raise_descriptor_limit;
use serde_json::Value;
use socket2::SockRef;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name of a report in its folder.
const REPORT: &str = "report.json";

/// Longer than any run here takes, even on a busy machine.
const RUN_MAX: Duration = Duration::from_secs(120);
/// Until something has begun that takes milliseconds on a quiet machine.
pub const STARTED_MAX: Duration = Duration::from_secs(60);
/// Less than the default of `--timeout`: nothing waited for that.
pub const SOON: Duration = Duration::from_secs(9);
/// Less than `LONG` runs: the run was over before its time.
pub const EARLY: Duration = Duration::from_secs(60);
/// A length that no run here comes to.
pub const LONG: &str = "100s";

/// A port of a loopback address that no other test uses. Nobody else listens there when the
/// listener is closed, and no outgoing connection gets the port.
pub fn address_of_its_own() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let (process, number) = (std::process::id() as u8, NEXT.fetch_add(1, Ordering::Relaxed));
    SocketAddr::from(([127, 101, process, number], 0))
}

/// An address at which nobody listens.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(address_of_its_own()).expect("a free port");
    let address = listener.local_addr().expect("its address");
    stop_listening(listener);
    address
}

/// Refuses connections from here on. A close alone would do so later: a process that another test
/// starts at this moment holds a copy of the descriptor until it calls execve(2).
pub fn stop_listening(listener: TcpListener) {
    SockRef::from(&listener).shutdown(Shutdown::Read).expect("it listens");
}

/// Serves every connection with `serve`, on threads that end with the test process.
pub fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Sends everything back, changed by `change`, which is told its offset, until it answers false.
pub fn echo(mut stream: TcpStream, mut change: impl FnMut(&mut [u8], u64) -> bool) {
    let (mut bytes, mut offset) = ([0; 1 << 14], 0);
    loop {
        let count = match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let bytes = &mut bytes[..count];
        if !change(bytes, offset) || stream.write_all(bytes).is_err() {
            return;
        }
        offset += count as u64;
    }
}

/// Answers each request with what `reply` makes of its head and its number on the connection;
/// closes after a reply that is `None`.
pub fn http(mut stream: TcpStream, mut reply: impl FnMut(&str, u64) -> Option<Vec<u8>>) {
    let (mut unread, mut bytes, mut number) = (Vec::new(), [0; 1 << 12], 0);
    loop {
        while let Some(end) = unread.windows(4).position(|part| part == b"\r\n\r\n") {
            let head: Vec<u8> = unread.drain(..end + 4).collect();
            let Some(answer) = reply(&String::from_utf8_lossy(&head), number) else { return };
            number += 1;
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
        match stream.read(&mut bytes) {
            Ok(count) if count > 0 => unread.extend_from_slice(&bytes[..count]),
            _ => return,
        }
    }
}

/// `200 OK` with a length.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Makes the close of `stream` a reset (socket(7), SO_LINGER).
pub fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the descriptor is open, and the option's value is a linger of its size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_LINGER");
}

/// A terminal: what is shown on it can be read from the first, a program writes to the second.
pub fn terminal() -> (File, File) {
    let (mut ours, mut childs) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptors are written to, the size is read, nothing else is asked for.
    let result = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut childs,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(result, 0, "openpty");
    // SAFETY: openpty(3) has just opened them for us.
    unsafe { (File::from_raw_fd(ours), File::from_raw_fd(childs)) }
}

/// Returns the output on a terminal after all programs have closed it.
pub fn read_terminal(terminal: &mut File) -> String {
    let mut bytes = Vec::new();
    // Its end is EIO (pty(7)).
    let _ = terminal.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Removes the notices that depend on the system: an ordinary user's other rings leave no room
/// within `RLIMIT_MEMLOCK`, or io_uring is forbidden.
pub fn without_notice(said: &str) -> String {
    let notices = [
        "ringload: buffers are not registered with the kernel: ",
        "ringload: epoll replaces io_uring, which is forbidden: ",
    ];
    let is_notice = |line: &str| notices.iter().any(|notice| line.starts_with(notice));
    said.split_inclusive('\n').filter(|line| !is_notice(line)).collect()
}

/// How a run ended.
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    /// The report; null when none was written.
    pub report: Value,
    pub took: Duration,
}

impl Ended {
    /// Asserts the exit status, and that `kind` and nothing else is what went wrong.
    pub fn only(&self, kind: &str) -> &Self {
        assert_eq!(self.status, 1, "{self}");
        for (name, count) in self.report["errors"].as_object().expect("errors") {
            assert_eq!(count.as_u64() > Some(0), name == kind, "{name}\n{self}");
        }
        let first = self.report["first_errors"][kind].as_str().unwrap_or_default();
        assert!(!first.is_empty() && self.stdout.contains(first), "{self}");
        self
    }

    /// Asserts that nothing went wrong.
    pub fn passed(&self) -> &Self {
        assert_eq!((self.status, &self.report["errors_total"]), (0, &0.into()), "{self}");
        self
    }

    /// A count of the report.
    pub fn count(&self, name: &str) -> u64 {
        self.report[name].as_u64().unwrap_or_else(|| panic!("{name}\n{self}"))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "status {} after {:?}\n--- standard output\n{}--- standard error\n{}--- report\n{:#}",
            self.status, self.took, self.stdout, self.stderr, self.report
        )
    }
}

/// A run under way.
pub struct Running {
    child: Child,
    /// Where its report is.
    folder: TempDir,
    since: Instant,
}

impl Running {
    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end; kills it, and fails the test, when it takes too long.
    pub fn end(mut self) -> Ended {
        // Read while it runs: a full pipe would stop it.
        let reader = |mut pipe: Box<dyn Read + Send>| {
            thread::spawn(move || {
                let mut text = String::new();
                pipe.read_to_string(&mut text).expect("UTF-8");
                text
            })
        };
        let stdout = reader(Box::new(self.child.stdout.take().expect("piped")));
        let stderr = reader(Box::new(self.child.stderr.take().expect("piped")));
        let mut overdue = false;
        let status = loop {
            match self.child.try_wait().expect("our own child") {
                Some(status) => break status,
                None if self.since.elapsed() > RUN_MAX => {
                    overdue = true;
                    self.child.kill().expect("our own child");
                }
                None => {}
            }
            thread::sleep(Duration::from_millis(2));
        };
        let took = self.since.elapsed();
        let stdout = stdout.join().expect("read");
        let stderr = without_notice(&stderr.join().expect("read"));
        // Not there when the command line was refused.
        let report = std::fs::read_to_string(self.folder.path().join(REPORT)).unwrap_or_default();
        let report = serde_json::from_str(&report).unwrap_or_default();
        let ended = Ended { status: status.code().unwrap_or(-1), stdout, stderr, report, took };
        assert!(!overdue, "it did not end\n{ended}");
        ended
    }
}

/// Starts the program with a JSON report.
pub fn start(protocol: &str, target: &str, options: &str) -> Running {
    start_in(Path::new("."), protocol, target, options)
}

/// The same, in this folder.
pub fn start_in(current: &Path, protocol: &str, target: &str, options: &str) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringload"));
    // SIGHUP is ignored where nohup(1) runs the tests.
    // SAFETY: signal may be called between fork and exec (signal-safety(7)).
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    let child = command
        .args([protocol, target, "--json"])
        .arg(folder.path().join(REPORT))
        .args(options.split_whitespace())
        .current_dir(current)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    Running { child, folder, since: Instant::now() }
}

/// Runs `ringload echo` to its end.
pub fn run_echo(address: SocketAddr, options: &str) -> Ended {
    start("echo", &address.to_string(), options).end()
}

/// Runs `ringload packets` to its end.
pub fn run_packets(address: SocketAddr, options: &str) -> Ended {
    start("packets", &address.to_string(), options).end()
}

/// Runs `ringload http` to its end.
pub fn run_http(address: SocketAddr, options: &str) -> Ended {
    start("http", &format!("http://{address}/"), options).end()
}
