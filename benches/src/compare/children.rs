//! Child processes that always end, and a folder that always goes.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine;

/// How often an awaited child is looked at: seldom, for it costs the measured CPUs.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// From the polite signal to the one that cannot be refused.
const END_WAIT_MAX: Duration = Duration::from_secs(5);

/// A child, mostly pinned to one CPU. It is ended when this is dropped, and by the kernel should
/// this process vanish.
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command` on `cpu`, or on any.
    pub fn start(mut command: Command, cpu: Option<usize>) -> io::Result<Self> {
        let name = Path::new(command.get_program()).display().to_string();
        let prepare = move || {
            machine::end_with_parent()?;
            cpu.map_or(Ok(()), machine::pin_to_cpu)
        };
        // SAFETY: between fork and exec it makes two system calls on values of its own stack, and
        // allocates nothing.
        unsafe { command.pre_exec(prepare) };
        // Neither RINGLOAD_… nor RINGWRIGHTD_… of the caller is to change what is measured.
        let child = command.env_clear().stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| {
            let place = cpu.map(|cpu| format!(" on CPU {cpu}")).unwrap_or_default();
            io::Error::new(error.kind(), format!("cannot start {name}{place}: {error}"))
        })?;
        Ok(Self { name, child })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its first line of standard output, which was piped; the rest goes nowhere.
    pub fn first_line(&mut self, wait_max: Duration) -> io::Result<String> {
        let output = self.child.stdout.take().expect("standard output was piped");
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            let read = output.read_line(&mut line).map(|_| line);
            let _ = sender.send(read);
            // Until its end, so that the child never finds the pipe full or closed.
            let _ = io::copy(&mut output, &mut io::sink());
        });
        match receiver.recv_timeout(wait_max) {
            Ok(Ok(line)) if !line.is_empty() => Ok(line),
            Ok(Err(error)) => Err(error),
            _ => {
                Err(self
                    .failure(&format!("printed nothing on standard output within {wait_max:?}")))
            }
        }
    }

    /// Waits for its end, or until this process is told to end itself.
    pub fn wait(&mut self, wait_max: Duration) -> io::Result<ExitStatus> {
        match self.wait_unless(wait_max, machine::terminated)? {
            Some(status) => Ok(status),
            None if machine::terminated() => Err(io::Error::other("interrupted")),
            None => Err(self.failure(&format!("did not end within {wait_max:?}"))),
        }
    }

    /// Ends it politely and waits until it has.
    pub fn end(&mut self) -> io::Result<()> {
        machine::terminate(self.pid());
        match self.wait_unless(END_WAIT_MAX, || false)? {
            Some(_) => Ok(()),
            None => {
                Err(self.failure(&format!("did not end within {END_WAIT_MAX:?} after SIGTERM")))
            }
        }
    }

    fn wait_unless(
        &mut self,
        wait_max: Duration,
        give_up: fn() -> bool,
    ) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        while start.elapsed() < wait_max && !give_up() {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(None)
    }

    /// An error about this child.
    pub fn failure(&self, what: &str) -> io::Error {
        io::Error::other(format!("{} (pid {}) {what}", self.name, self.pid()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Err(error) = self.end() {
            eprintln!("{error}; killing it");
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The direct children of a process, by the parent field of /proc/PID/stat (proc_pid_stat(5)).
pub fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(candidate) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{candidate}/stat")) else { continue };
        // The name, in parentheses, may itself hold blanks and parentheses.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if after_name.split_whitespace().nth(1) == Some(pid.to_string().as_str()) {
            children.push(candidate);
        }
    }
    Ok(children)
}

/// A folder of our own under the system's temporary one.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates it, readable for all: nginx's worker runs as another user.
    pub fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("ringwright-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot create {}: {error}", path.display()))
        })?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_child_is_gone() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let child = Process::start(command, Some(0)).unwrap();
        let pid = child.pid();
        assert!(children_of(std::process::id()).unwrap().contains(&pid));
        drop(child);
        assert!(!children_of(std::process::id()).unwrap().contains(&pid));
    }

    #[test]
    fn a_silent_child_is_an_error_in_time() {
        let mut command = Command::new("sleep");
        command.arg("60").stdout(Stdio::piped());
        let mut child = Process::start(command, Some(0)).unwrap();
        assert!(child.first_line(Duration::from_millis(50)).is_err());
        assert!(child.wait(Duration::from_millis(50)).is_err());
    }
}
