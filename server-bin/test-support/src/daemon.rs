//! A running `ringwrightd`, seen from outside.

use crate::PATIENCE;
use crate::ledger::Ledger;
use ringwright_test_support::raise_descriptor_limit;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The user and group that own nothing.
const NOBODY: u32 = 65_534;
const CLOSE_ON_EXEC: i32 = libc::CLOSE_RANGE_CLOEXEC as i32;

/// A child process; killed when dropped.
pub struct Daemon {
    child: Child,
    pub address: SocketAddr,
    admin: SocketAddr,
    stderr: Option<JoinHandle<String>>,
}

impl Daemon {
    /// `PROGRAM MODE …` on a free port of 127.0.0.1.
    #[track_caller]
    pub fn start(program: &str, mode: &str, arguments: &[&str]) -> Self {
        Self::with_descriptors(program, None, mode, arguments)
    }

    /// The same with at most `limit` open files.
    #[track_caller]
    pub fn with_descriptors(
        program: &str,
        limit: Option<u64>,
        mode: &str,
        arguments: &[&str],
    ) -> Self {
        Self::run(Command::new(program), limit, mode, arguments)
    }

    /// The same as [`nobody`], which only root can start. The program is copied to `to`, where
    /// that user can reach it.
    #[track_caller]
    pub fn of_nobody(program: &str, to: &Path, mode: &str, arguments: &[&str]) -> Self {
        let copy = to.join("ringwrightd");
        fs::copy(program, &copy).unwrap();
        Self::run(nobody(Command::new(copy)), None, mode, arguments)
    }

    #[track_caller]
    fn run(mut command: Command, limit: Option<u64>, mode: &str, arguments: &[&str]) -> Self {
        raise_descriptor_limit();
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGWRIGHTD_")) {
            command.env_remove(name);
        }
        // The ring that these tests are run for; see engine/tests/real_ring/both.rs.
        if let Some(ring) = std::env::var_os("RINGWRIGHT_TEST_RING") {
            command.env("RINGWRIGHTD_RING", ring);
        }
        command.arg(mode).args(arguments).args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec it only makes system calls, on a number copied before.
        unsafe { command.pre_exec(move || prepare(limit)) };
        let begun = Instant::now();
        loop {
            match Self::try_run(&mut command, mode) {
                Ok(daemon) => return daemon,
                // An ordinary user's other rings may have filled it for a moment.
                Err(said) if said.contains("RLIMIT_MEMLOCK") && begun.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(said) => panic!("it did not start: {said}"),
            }
        }
    }

    /// A daemon that listens, or what it said instead.
    fn try_run(command: &mut Command, mode: &str) -> Result<Self, String> {
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut listening = |scheme: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let address = line.trim_end().strip_prefix(&format!("listening {scheme}://"));
            address.and_then(|address| address.parse().ok()).ok_or(line)
        };
        let (address, admin) = match (listening(mode), listening("admin http")) {
            (Ok(address), Ok(admin)) => (address, admin),
            other => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{other:?} and {}", stderr.join().unwrap()));
            }
        };
        Ok(Self { child, address, admin, stderr: Some(stderr) })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The ledger of now.
    #[track_caller]
    pub fn ledger(&self) -> Ledger {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "GET /ledger HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        match reply.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ledger(body.to_owned()),
            _ => panic!("/ledger answered {reply:?}"),
        }
    }

    /// The number of its descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The number of its descriptors when it does nothing: the answer to a request of the start may
    /// still hold one. The number must stay the same for 50 ms.
    ///
    /// # Panics
    /// If it does not.
    pub fn descriptors_at_rest(&self) -> usize {
        let begun = Instant::now();
        let (mut count, mut same) = (self.descriptors(), 0);
        while same < 5 {
            assert!(begun.elapsed() < PATIENCE, "{count} descriptors, and no rest");
            thread::sleep(Duration::from_millis(10));
            let before = std::mem::replace(&mut count, self.descriptors());
            same = if before == count { same + 1 } else { 0 };
        }
        count
    }

    /// The descriptors that are of such a kind (`socket`, `pipe`).
    pub fn descriptors_of(&self, kind: &str) -> Vec<i32> {
        let all = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let number = |entry: fs::DirEntry| {
            // It may have been closed meanwhile.
            let target = fs::read_link(entry.path()).ok()?;
            let is_of_kind = target.to_str()?.strip_prefix(kind)?.starts_with(':');
            is_of_kind.then(|| entry.file_name().to_str()?.parse().ok())?
        };
        all.filter_map(|entry| number(entry.unwrap())).collect()
    }

    /// The number of its threads, those of the kernel for its rings included.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// One of its descriptors, as one of this process (pidfd_getfd(2)).
    pub fn borrow(&self, descriptor: i32) -> io::Result<OwnedFd> {
        let checked = |result: libc::c_long| match result {
            // SAFETY: the descriptor is new and nobody else's.
            0.. => Ok(unsafe { OwnedFd::from_raw_fd(result as i32) }),
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: neither call has pointers.
        unsafe {
            let process = checked(libc::syscall(libc::SYS_pidfd_open, self.pid(), 0))?;
            checked(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0))
        }
    }

    /// Resident memory in KiB (proc_pid_status(5)).
    pub fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// CPU time it has used so far, that of the kernel's threads for it included
    /// (proc_pid_stat(5)).
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name in parentheses may hold anything; after it comes the third field.
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        // SAFETY: no pointers.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        Duration::from_secs_f64(ticks as f64 / ticks_per_second)
    }

    pub fn terminate(&self) {
        // SAFETY: no memory is involved, and the child has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) }, 0);
    }

    /// SIGTERM, and its last ledger, as of [`Self::wait`].
    #[track_caller]
    pub fn stop(self) -> Ledger {
        self.terminate();
        self.wait()
    }

    /// Its last ledger. It ends with status 0, everything given back, and nothing that is expected
    /// never to happen.
    #[track_caller]
    pub fn wait(mut self) -> Ledger {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(2));
        };
        let stderr = self.stderr.take().unwrap().join().unwrap();
        assert_eq!(status.code(), Some(0), "{stderr}");
        let ledger = stderr.lines().find_map(|line| line.strip_prefix("ledger "));
        let ledger = Ledger(ledger.unwrap_or_else(|| panic!("no ledger in {stderr}")).to_owned());
        assert!(ledger.is_balanced(), "{ledger:?}");
        for pair in ["permits", "slots", "buffers", "send_buffers", "pipes"] {
            assert_eq!(ledger.in_use(pair), 0, "{pair} in {ledger:?}");
        }
        for never in ["ring.stale_completions", "ring.overflows", "handler_panics"] {
            assert_eq!(ledger.number(never), 0, "{never} in {ledger:?}");
        }
        assert_eq!(ledger.number("operations_in_flight"), 0, "{ledger:?}");
        ledger
    }
}

/// A command run by the user who owns nothing and may do nothing.
pub fn nobody(mut command: Command) -> Command {
    command.uid(NOBODY).gid(NOBODY);
    command
}

/// In the child: no descriptors but the standard ones, however this process was started, and at
/// most so many.
fn prepare(limit: Option<u64>) -> io::Result<()> {
    // SAFETY: no memory is involved; exec closes them, until then they serve to report errors.
    let marked = unsafe { libc::close_range(3, libc::c_uint::MAX, CLOSE_ON_EXEC) };
    let limited = limit.map_or(0, |limit| {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: the pointer is to a limit on the stack.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }
    });
    if (marked, limited) == (0, 0) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
