//! Carries out a plan: starts parts and events when they are due, and waits for their end.

use super::child::{Child, Ended};
use super::folder::Folder;
use super::part::Part;
use super::progress;
use super::schedule::{Deed, Event, Schedule, Signal};
use super::server::Running;
use ringload_lifecycle::system::Interrupts;
use serde_json::Value;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Interval at which processes are checked.
const POLL: Duration = Duration::from_millis(10);
/// Interval between two lines of output.
const LINE: Duration = Duration::from_secs(1);
/// Time that a part may take beyond its length, for a ramp, a last round or a wait for replies.
const OVERDUE: Duration = Duration::from_secs(120);
/// Time that a part has to end after an interrupt.
const GRACE: Duration = Duration::from_secs(15);
/// Time that a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// The running program, even if its file has been replaced.
const SELF: &str = "/proc/self/exe";

/// A part and the state of its process.
pub struct PartRun {
    /// The part.
    pub part: Part,
    child: Option<Child>,
    /// Time of its start, relative to the start of the plan.
    pub started: Option<Duration>,
    /// Time and way of its end.
    pub ended: Option<(Duration, Ended)>,
    /// The reason why it did not start or was ended.
    pub error: Option<String>,
    /// Its report; null if it wrote none.
    pub report: Value,
    /// The last lines of its output.
    pub last_words: Vec<String>,
}

/// An event and its result.
pub struct EventRun {
    /// The event.
    pub event: Event,
    child: Option<Child>,
    /// Time at which it was done.
    pub done: Option<Duration>,
    /// The way in which the command ended.
    pub ended: Option<Ended>,
    /// The error, if any.
    pub error: Option<String>,
}

/// A plan being carried out.
pub struct Conductor {
    restarts: bool,
    quiet: bool,
    start: Instant,
    next_line: Duration,
    /// The parts. Declared before the server so that they are dropped first.
    pub parts: Vec<PartRun>,
    /// The events.
    pub events: Vec<EventRun>,
    /// The server.
    pub server: Option<Running>,
    /// A signal ended the plan.
    pub interrupted: bool,
    /// Folder for the reports of the parts. Declared last: it is removed after the parts have
    /// ended.
    folder: Folder,
}

impl Conductor {
    /// Creates a conductor for a server that is ready.
    ///
    /// # Errors
    /// errno of `mkdir(2)`.
    pub fn new(schedule: &Schedule, server: Option<Running>, quiet: bool) -> io::Result<Self> {
        let part = |part: &Part| PartRun {
            part: part.clone(),
            child: None,
            started: None,
            ended: None,
            error: None,
            report: Value::Null,
            last_words: Vec::new(),
        };
        let event = |event: &Event| EventRun {
            event: event.clone(),
            child: None,
            done: None,
            ended: None,
            error: None,
        };
        Ok(Self {
            folder: Folder::new()?,
            restarts: schedule.restarts,
            quiet,
            start: Instant::now(),
            next_line: LINE,
            parts: schedule.parts.iter().map(part).collect(),
            events: schedule.events.iter().map(event).collect(),
            server,
            interrupted: false,
        })
    }

    /// Returns the time since the start of the plan.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Runs until all parts have ended and all events are done, or until a signal arrives and the
    /// parts have ended.
    pub fn conduct(&mut self, interrupts: &Interrupts) {
        self.start = Instant::now();
        while !self.is_over() {
            if interrupts.wait(POLL) {
                return self.interrupt(interrupts);
            }
            self.turn();
        }
    }

    /// Ends a server that the plan started, and waits for a server that has been asked to end. A
    /// signal stops the wait.
    pub fn end_server(&mut self, interrupts: &Interrupts) {
        let now = self.elapsed();
        if let Some(server) = &mut self.server
            && server.is_ours()
            && server.is_up()
            && let Err(why) = server.signal(Signal::TERM, now, true)
        {
            server.error.get_or_insert(why);
        }
        // `watch_server` enforces the limit. A process that survives even SIGKILL is abandoned.
        while self.server.as_ref().is_some_and(Running::is_ending) {
            if interrupts.wait(POLL) {
                self.interrupted = true;
                return;
            }
            self.watch_server();
            let overdue = |server: &Running| server.is_overdue(self.elapsed(), GRACE);
            if self.server.as_ref().is_some_and(overdue) {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.parts.iter().all(|run| run.started.is_some() && !run.is_running())
            && self.events.iter().all(|run| run.done.is_some() && run.child.is_none())
    }

    fn turn(&mut self) {
        let now = self.elapsed();
        for run in &mut self.parts {
            if run.started.is_none() && run.part.start <= now {
                run.begin(now, &self.folder);
            }
        }
        for run in &mut self.events {
            if run.done.is_none() && run.event.time <= now {
                run.begin(now, self.server.as_mut());
            }
            run.look(now);
        }
        self.look(now);
        self.watch_server();
        if now >= self.next_line {
            self.next_line += LINE;
            if !self.quiet {
                ringload_lifecycle::note!("{}", line(now, &self.parts));
            }
        }
    }

    fn look(&mut self, now: Duration) {
        for run in &mut self.parts {
            run.look(now, &self.folder);
        }
    }

    fn watch_server(&mut self) {
        let now = self.elapsed();
        if let Some(server) = &mut self.server {
            server.watch(now, self.restarts);
        }
    }

    /// Interrupts the parts, so that they write partial reports, and kills those that do not end. A
    /// second signal stops the wait.
    fn interrupt(&mut self, interrupts: &Interrupts) {
        self.interrupted = true;
        for run in &mut self.parts {
            run.signal(libc::SIGINT);
        }
        let since = Instant::now();
        while self.parts.iter().any(|run| run.child.is_some()) && since.elapsed() < GRACE {
            if interrupts.wait(POLL) {
                break;
            }
            let now = self.elapsed();
            self.look(now);
            self.watch_server();
        }
        for run in &mut self.parts {
            if run.child.take().is_some() {
                run.error.get_or_insert_with(|| {
                    "the part did not end when interrupted and was killed".into()
                });
            }
        }
        self.events.iter_mut().for_each(|run| run.child = None);
    }
}

impl PartRun {
    /// Returns true while the part runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Returns its heading and its last line.
    #[must_use]
    pub fn line(&self) -> Option<(String, String)> {
        let said = self.child.as_ref()?.err.lock().unwrap_or_else(PoisonError::into_inner);
        Some((said.heading.clone()?, said.last.back()?.clone()))
    }

    fn begin(&mut self, now: Duration, folder: &Folder) {
        let mut command = Command::new(SELF);
        std::os::unix::process::CommandExt::arg0(&mut command, "ringload");
        command.args(&self.part.words).arg("--json").arg(folder.file(&self.part.name));
        // Without the environment, the command line alone repeats the part.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGLOAD_") {
                command.env_remove(name);
            }
        }
        self.started = Some(now);
        match Child::start(&mut command, libc::SIGKILL, None) {
            Ok(child) => self.child = Some(child),
            Err(error) => self.error = Some(format!("the part did not start: {SELF}: {error}")),
        }
    }

    fn look(&mut self, now: Duration, folder: &Folder) {
        let Some(child) = &mut self.child else { return };
        if let Some(ended) = child.ended() {
            child.finish_reading();
            self.last_words = child.last_output();
            self.ended = Some((now, ended));
            self.report = folder.report(&self.part.name);
            self.child = None;
            return;
        }
        let Some(length) = self.part.length else { return };
        let end = self.part.start + length + OVERDUE;
        if now > end + GRACE {
            self.last_words = child.last_output();
            self.child = None;
        } else if now > end && self.error.is_none() {
            self.error = Some(format!("the part was still running {OVERDUE:?} after its length"));
            child.signal(libc::SIGINT);
        }
    }

    fn signal(&mut self, signal: i32) {
        if let Some(child) = &mut self.child {
            child.signal(signal);
        }
    }
}

impl EventRun {
    fn begin(&mut self, now: Duration, server: Option<&mut Running>) {
        self.done = Some(now);
        let result = match (&self.event.deed, server) {
            (Deed::Signal(signal), Some(server)) => server.signal(*signal, now, false),
            (Deed::Signal(signal), None) => {
                Err(format!("cannot send {}: the plan has no [server]", signal.name))
            }
            (Deed::Command(words), _) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                match Child::start(&mut command, libc::SIGKILL, None) {
                    Ok(child) => {
                        self.child = Some(child);
                        Ok(())
                    }
                    Err(error) => Err(format!("cannot start {}: {error}", words[0])),
                }
            }
        };
        self.error = result.err();
    }

    fn look(&mut self, now: Duration) {
        let Some(child) = &mut self.child else { return };
        let is_late = now > self.event.time + COMMAND_MAX;
        let ended = child.ended();
        if ended.is_none() && !is_late {
            return;
        }
        child.finish_reading();
        let words = child.last_words().join("\n  ");
        self.ended = ended;
        self.error = match ended {
            None => {
                Some(format!("the command was still running after {COMMAND_MAX:?} and was killed"))
            }
            Some(Ended::Status(0)) => None,
            Some(ended) => Some(format!(
                "the command ended with {}; its last output:\n  {words}",
                ended.show()
            )),
        };
        self.child = None;
    }
}

/// Returns true if a program exists, directly or in PATH.
pub(super) fn is_there(program: &str) -> bool {
    let is_file = |path: &Path| path.is_file();
    if program.contains('/') {
        return is_file(Path::new(program));
    }
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| is_file(&folder.join(program)))
    })
}

/// Returns the line of one second: the progress of the plan, and the last line of each part.
fn line(elapsed: Duration, parts: &[PartRun]) -> String {
    let running = parts.iter().filter(|run| run.is_running()).count();
    let mut text = format!("{:>7.1}s  {running} of {} running", elapsed.as_secs_f64(), parts.len());
    for run in parts {
        if let Some((heading, last)) = run.line() {
            text += &format!(" | {}: {}", run.part.name, progress::compact(&heading, &last));
        }
    }
    text
}
