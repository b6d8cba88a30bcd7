//! A child process of a plan; it never outlives the plan.

use ringload_lifecycle::system;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Maximum number of output lines kept.
const LINES_MAX: usize = 20;
/// Maximum number of bytes kept of a line.
const LINE_BYTES_MAX: usize = 500;
/// Size of the read buffer.
const READ_BYTES: usize = 4 << 10;

/// The way in which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Exited with this status.
    Status(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Status(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }

    /// Returns the status as a shell shows it: 128 plus the number for a signal.
    #[must_use]
    pub const fn status(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Returns `status 1` or `signal 15`.
    #[must_use]
    pub fn show(self) -> String {
        match self {
            Self::Status(status) => format!("status {status}"),
            Self::Signal(signal) => format!("signal {signal}"),
        }
    }
}

/// The output of a process, line by line.
#[derive(Debug, Default)]
pub struct Output {
    /// The first line that begins with `elapsed`: the heading of the following lines.
    pub heading: Option<String>,
    /// The last lines.
    pub last: VecDeque<String>,
    /// The text to look for.
    wanted: Option<String>,
    /// The text was found.
    pub found: bool,
    line: Vec<u8>,
}

impl Output {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < LINE_BYTES_MAX => self.line.push(*byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        self.found |= self.wanted.as_ref().is_some_and(|wanted| line.contains(wanted));
        if self.heading.is_none() && line.trim_start().starts_with("elapsed") {
            self.heading = Some(line);
            // Lines before the heading contain no figures.
            self.last.clear();
            return;
        }
        if self.last.len() == LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

/// A child process and its output.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    ended: Option<Ended>,
    /// Standard output.
    pub out: Arc<Mutex<Output>>,
    /// Standard error.
    pub err: Arc<Mutex<Output>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Child {
    /// Starts `command` in its own process group, so that it does not receive a terminal's Ctrl-C
    /// directly. The kernel sends it `at_death` when the thread that started it ends.
    ///
    /// # Errors
    /// errno of fork(2) or execve(2).
    pub fn start(command: &mut Command, at_death: i32, wanted: Option<String>) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        system::prepare_child(command, at_death);
        let mut process = command.spawn()?;
        let out = Arc::new(Mutex::new(Output { wanted, ..Output::default() }));
        let err = Arc::default();
        let readers = vec![
            read(process.stdout.take().expect("it is a pipe"), &out),
            read(process.stderr.take().expect("it is a pipe"), &err),
        ];
        Ok(Self { process, ended: None, out, err, readers })
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the way in which it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().ok().flatten().map(Ended::of);
        }
        self.ended
    }

    /// Sends a signal unless the process has ended.
    pub fn signal(&mut self, signal: i32) {
        if self.ended().is_none() {
            // The process has not been waited for, so its id cannot have been reused.
            system::signal(self.process.id(), signal);
        }
    }

    /// Waits until all output has been read, for a limited time: descendants may hold the pipes
    /// open.
    pub fn finish_reading(&mut self) {
        for _ in 0..100 {
            if self.readers.iter().all(thread::JoinHandle::is_finished) {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Returns the last lines of standard error or, if there are none, of standard output.
    #[must_use]
    pub fn last_words(&self) -> Vec<String> {
        Self::output([&self.err, &self.out])
    }

    /// Returns the last lines of standard output or, if there are none, of standard error.
    #[must_use]
    pub fn last_output(&self) -> Vec<String> {
        Self::output([&self.out, &self.err])
    }

    fn output(output: [&Mutex<Output>; 2]) -> Vec<String> {
        for output in output {
            let output = output.lock().unwrap_or_else(PoisonError::into_inner);
            if !output.last.is_empty() {
                return output.last.iter().cloned().collect();
            }
        }
        Vec::new()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // Also ends its descendants, which are in the same process group.
            system::signal_group(self.process.id(), libc::SIGKILL);
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn read(
    mut pipe: impl Read + Send + 'static,
    output: &Arc<Mutex<Output>>,
) -> thread::JoinHandle<()> {
    let output = output.clone();
    thread::spawn(move || {
        let mut bytes = [0; READ_BYTES];
        loop {
            let count = match pipe.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            output.lock().unwrap_or_else(PoisonError::into_inner).take(&bytes[..count]);
        }
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        if !output.line.is_empty() {
            output.end_line();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn sh(script: &str, wanted: Option<&str>) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::start(&mut command, libc::SIGKILL, wanted.map(String::from)).expect("sh starts")
    }

    fn wait(what: impl Fn() -> bool) {
        let since = Instant::now();
        while !what() {
            assert!(since.elapsed() < Duration::from_secs(10), "it never came");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_end_and_the_last_words_are_known() {
        let mut child = sh("echo first; echo elapsed x >&2; echo last >&2; exit 7", Some("rst"));
        let ended = (0..2_000).find_map(|_| {
            thread::sleep(Duration::from_millis(5));
            child.ended()
        });
        assert_eq!(ended, Some(Ended::Status(7)));
        child.finish_reading();
        assert_eq!(child.last_words(), ["last"]);
        assert!(child.out.lock().expect("no panic").found);
        assert_eq!(child.err.lock().expect("no panic").heading.as_deref(), Some("elapsed x"));
    }

    #[test]
    fn what_is_dropped_ends_with_what_it_has_started() {
        // The shell prints the process id of its child.
        let child = sh("sleep 60 & echo pid $!; wait", Some("pid"));
        wait(|| child.out.lock().expect("no panic").found);
        let line = child.out.lock().expect("no panic").last[0].clone();
        let pid = line.strip_prefix("pid ").expect("a number").to_string();
        let stat = format!("/proc/{pid}/stat");
        let lives = || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            !text.is_empty() && !text.contains(") Z ")
        };
        assert!(lives());
        drop(child);
        wait(|| !lives());
    }

    #[test]
    fn signals_that_are_kept_from_this_process_reach_its_children() {
        let interrupts = system::Interrupts::block().expect("blocking signals needs no right");
        let mut child = sh("echo here; exec sleep 60", Some("here"));
        wait(|| child.out.lock().expect("no panic").found);
        child.signal(libc::SIGTERM);
        let ended = (0..2_000).find_map(|_| {
            thread::sleep(Duration::from_millis(5));
            child.ended()
        });
        assert_eq!(ended, Some(Ended::Signal(libc::SIGTERM)));
        assert!(!interrupts.wait(Duration::ZERO));
    }

    #[test]
    fn what_has_no_lines_is_bounded() {
        let mut output = Output::default();
        (0..10_000).for_each(|_| output.take(b"0123456789"));
        assert_eq!(output.line.len(), LINE_BYTES_MAX);
        (0..100).for_each(|_| output.take(b"x\n"));
        assert_eq!(output.last.len(), LINES_MAX);
    }

    #[test]
    fn a_signal_is_told_from_a_status() {
        assert_eq!((Ended::Status(3).status(), Ended::Signal(9).status()), (3, 137));
        assert_eq!(Ended::Signal(15).show(), "signal 15");
    }
}
