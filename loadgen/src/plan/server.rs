//! The server of a plan: starts or finds it, watches it, sends signals and ends it.

use super::child::{Child, Ended};
use super::schedule::{End, Server, Signal, Whose};
use ringload_lifecycle::system::Process;
use std::net::TcpStream;
use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Timeout of a connect that checks if the server is ready.
const TRIAL: Duration = Duration::from_millis(200);

/// The process of the server.
enum Hold {
    Ours(Child),
    Found(u32, Process),
}

/// The signal that ends the server.
#[derive(Clone, Copy, Debug)]
pub struct EndSignal {
    /// The signal.
    pub signal: Signal,
    /// Time, relative to the start of the plan.
    pub at: Duration,
    /// The plan had finished, so the signal may also kill the server.
    pub is_last: bool,
}

/// The server while a plan runs.
pub struct Running {
    hold: Hold,
    drain: Duration,
    /// Time until the server was ready.
    pub ready: Duration,
    /// The signal that ends the server, once sent.
    pub end_signal: Option<EndSignal>,
    /// Time at which its end was noticed and, if the plan started it, the way it ended.
    pub ended: Option<(Duration, Option<Ended>)>,
    /// The first error of the server.
    pub error: Option<String>,
}

impl Running {
    /// Starts or finds the server.
    ///
    /// # Errors
    /// The process cannot be started or found.
    pub fn begin(server: &Server) -> Result<Self, String> {
        let hold = match &server.whose {
            Whose::Ours(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                let child = Child::start(&mut command, libc::SIGTERM, server.ready.clone());
                Hold::Ours(
                    child.map_err(|error| {
                        format!("cannot start the server {}: {error}", words[0])
                    })?,
                )
            }
            Whose::Pid(pid) => found(*pid)?,
            Whose::PidFile(file) => {
                let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", file.display());
                let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
                let pid = text
                    .trim()
                    .parse()
                    .map_err(|_| wrong(&"the file does not contain a process id"))?;
                found(pid)?
            }
        };
        Ok(Self {
            hold,
            drain: server.drain,
            ready: Duration::ZERO,
            end_signal: None,
            ended: None,
            error: None,
        })
    }

    /// Returns true if the server is ready; to be called repeatedly.
    ///
    /// # Errors
    /// The server has ended, or `ready-within` has passed; the message has its last output.
    pub fn is_ready(&mut self, server: &Server, since: Instant) -> Result<bool, String> {
        let is_ready = match &self.hold {
            Hold::Ours(child) if server.ready.is_some() => {
                child.out.lock().unwrap_or_else(PoisonError::into_inner).found
            }
            _ => true,
        };
        if is_ready && server.ready_address.as_deref().is_none_or(answers) {
            self.ready = since.elapsed();
            return Ok(true);
        }
        if let Some(how) = self.look() {
            let how =
                how.map_or_else(|| "ended".into(), |ended| format!("ended with {}", ended.show()));
            return Err(format!("the server {how} before it was ready{}", self.last_words()));
        }
        if since.elapsed() > server.ready_within {
            let within = server.ready_within;
            return Err(format!("the server was not ready within {within:?}{}", self.last_words()));
        }
        Ok(false)
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        match &self.hold {
            Hold::Ours(child) => child.id(),
            Hold::Found(pid, _) => *pid,
        }
    }

    /// Returns true if the plan started the server, and therefore ends it.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self.hold, Hold::Ours(_))
    }

    /// Returns true if the server runs and has not been asked to end.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.ended.is_none() && self.end_signal.is_none()
    }

    /// Returns true if the server has been asked to end and still runs.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        self.ended.is_none() && self.end_signal.is_some()
    }

    /// Returns true if the server still runs `by` after its `drain` time.
    #[must_use]
    pub fn is_overdue(&self, now: Duration, by: Duration) -> bool {
        self.end_signal.is_some_and(|end_signal| now > end_signal.at + self.drain + by)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The server has ended, or errno of the system call.
    pub fn signal(&mut self, signal: Signal, at: Duration, is_last: bool) -> Result<(), String> {
        if self.ended.is_some() || self.look().is_some() {
            return Err(format!("cannot send {}: the server has ended", signal.name));
        }
        match &mut self.hold {
            Hold::Ours(child) => child.signal(signal.number),
            Hold::Found(pid, process) => process.signal(signal.number).map_err(|error| {
                format!("cannot send {} to process {pid}: {error}", signal.name)
            })?,
        }
        if signal.end.is_some() && self.end_signal.is_none() {
            self.end_signal = Some(EndSignal { signal, at, is_last });
        }
        Ok(())
    }

    /// Checks that the server runs as long as it should, and not longer.
    pub fn watch(&mut self, now: Duration, may_restart: bool) {
        if self.ended.is_some() {
            return;
        }
        if let Some(ended) = self.look() {
            self.ended = Some((now, ended));
            if self.error.is_none() {
                self.error = self.judge(ended, may_restart);
            }
        } else if let Some(end_signal) = self.end_signal
            && now > end_signal.at + self.drain
            && self.error.is_none()
        {
            self.error = Some(format!(
                "the server had not ended {:?} after {}{}",
                self.drain,
                end_signal.signal.name,
                self.last_words()
            ));
            self.kill();
        }
    }

    /// Returns the time from the signal that ends the server to its end.
    #[must_use]
    pub fn drained_in(&self) -> Option<Duration> {
        Some(self.ended?.0.saturating_sub(self.end_signal?.at))
    }

    /// Returns an error if the server ended in a wrong way.
    fn judge(&self, ended: Option<Ended>, may_restart: bool) -> Option<String> {
        let Some(end_signal) = self.end_signal else {
            let how = ended.map_or_else(String::new, |ended| format!(" with {}", ended.show()));
            let why = format!("the server ended by itself{how}{}", self.last_words());
            return (!may_restart).then_some(why);
        };
        let is_good = match (ended, end_signal.signal.end) {
            (None | Some(Ended::Status(0)), _) | (_, Some(End::Kill)) => true,
            (Some(Ended::Signal(signal)), _) => {
                end_signal.is_last && signal == end_signal.signal.number
            }
            (Some(Ended::Status(_)), _) => false,
        };
        if is_good {
            return None;
        }
        let how = ended.map_or_else(String::new, Ended::show);
        let name = end_signal.signal.name;
        Some(format!(
            "after {name} the server ended with {how} instead of status 0{}",
            self.last_words()
        ))
    }

    /// Returns `None` while the server runs.
    fn look(&mut self) -> Option<Option<Ended>> {
        match &mut self.hold {
            Hold::Ours(child) => {
                let ended = child.ended()?;
                // The pipe may still hold the last lines of its output.
                child.finish_reading();
                Some(Some(ended))
            }
            Hold::Found(_, process) => process.has_ended().then_some(None),
        }
    }

    fn kill(&mut self) {
        if let Hold::Ours(child) = &mut self.hold {
            child.signal(libc::SIGKILL);
        } else {
            // A process that the plan did not start is not killed; it is no longer watched.
            self.ended = self.end_signal.map(|end_signal| (end_signal.at + self.drain, None));
        }
    }

    fn last_words(&self) -> String {
        let Hold::Ours(child) = &self.hold else { return String::new() };
        let words = child.last_words();
        match words.is_empty() {
            true => String::new(),
            false => format!("; its last output:\n  {}", words.join("\n  ")),
        }
    }
}

fn found(pid: u32) -> Result<Hold, String> {
    match Process::open(pid) {
        Ok(process) => Ok(Hold::Found(pid, process)),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            Err(format!("process {pid} does not exist"))
        }
        Err(error) => Err(format!("process {pid}: {error}")),
    }
}

fn answers(address: &str) -> bool {
    let to = ringwright_names::resolve(address).unwrap_or_default();
    to.iter().any(|to| TcpStream::connect_timeout(to, TRIAL).is_ok())
}
