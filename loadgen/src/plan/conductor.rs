//! Carries a plan out: starts what is due, does what is due, notices what ends.

use super::child::{Child, Ended};
use super::folder::Folder;
use super::progress;
use super::schedule::{Deed, Event, Part, Schedule, Signal};
use super::server::Running;
use crate::system::Interrupts;
use serde_json::Value;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How often it is looked what has happened.
const POLL: Duration = Duration::from_millis(10);
/// Between two lines of output.
const LINE: Duration = Duration::from_secs(1);
/// A part may take so much longer than its length: a ramp, a last round, a wait for a reply.
const OVERDUE: Duration = Duration::from_secs(120);
/// How long a part may take to end after an interrupt.
const GRACE: Duration = Duration::from_secs(15);
/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// This program, even if its file has been replaced since.
const SELF: &str = "/proc/self/exe";

/// A part, before, during and after.
pub struct PartRun {
    /// What it does.
    pub part: Part,
    child: Option<Child>,
    /// When it was started, since the plan was.
    pub started: Option<Duration>,
    /// When it ended, and how.
    pub ended: Option<(Duration, Ended)>,
    /// Why it did not start, or was ended.
    pub error: Option<String>,
    /// Its report; null if it left none.
    pub report: Value,
    /// The last lines it printed.
    pub last_words: Vec<String>,
}

/// An event, before and after.
pub struct EventRun {
    /// What happens.
    pub event: Event,
    child: Option<Child>,
    /// When it was done.
    pub done: Option<Duration>,
    /// How a command ended.
    pub ended: Option<Ended>,
    /// What went wrong.
    pub error: Option<String>,
}

/// A plan being carried out.
pub struct Conductor {
    restarts: bool,
    quiet: bool,
    start: Instant,
    next_line: Duration,
    /// What runs. Declared before the server: it ends first.
    pub parts: Vec<PartRun>,
    /// What happens.
    pub events: Vec<EventRun>,
    /// What it happens to.
    pub server: Option<Running>,
    /// A signal ended it.
    pub interrupted: bool,
    /// Where the parts leave their reports. Goes last, when nobody writes there any more.
    folder: Folder,
}

impl Conductor {
    /// Ready to begin, with a server that is ready.
    ///
    /// # Errors
    /// errno of making a folder.
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

    /// Since the plan started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Until all parts have ended and all events are done, or a signal came and the parts have
    /// ended.
    pub fn conduct(&mut self, interrupts: &Interrupts) {
        self.start = Instant::now();
        while !self.is_over() {
            if interrupts.wait(POLL) {
                return self.interrupt(interrupts);
            }
            self.turn();
        }
    }

    /// Ends the server if it is ours, or waits for it to end if it has been told to. A signal does
    /// not wait.
    pub fn end_server(&mut self, interrupts: &Interrupts) {
        let now = self.elapsed();
        if let Some(server) = &mut self.server
            && server.is_ours()
            && server.is_up()
            && let Err(why) = server.signal(Signal::TERM, now, true)
        {
            server.error.get_or_insert(why);
        }
        // Its own limit ends this: watch() sees to that. What even SIGKILL does not end is left.
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
                crate::note!("{}", progress::line(now, &self.parts));
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

    /// Has the parts report what they have, and ends those that do not. A second signal does not
    /// wait.
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
                run.error.get_or_insert_with(|| "it did not end when interrupted".into());
            }
        }
        self.events.iter_mut().for_each(|run| run.child = None);
    }
}

impl PartRun {
    /// It runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Its last line, under its heading.
    #[must_use]
    pub fn line(&self) -> Option<(String, String)> {
        let said = self.child.as_ref()?.err.lock().unwrap_or_else(PoisonError::into_inner);
        Some((said.heading.clone()?, said.last.back()?.clone()))
    }

    fn begin(&mut self, now: Duration, folder: &Folder) {
        let mut command = Command::new(SELF);
        std::os::unix::process::CommandExt::arg0(&mut command, "ringload");
        command.args(&self.part.words).arg("--json").arg(folder.file(&self.part.name));
        // The command line says it all: then it can be repeated by it.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGLOAD_") {
                command.env_remove(name);
            }
        }
        self.started = Some(now);
        match Child::start(&mut command, libc::SIGKILL, None) {
            Ok(child) => self.child = Some(child),
            Err(error) => self.error = Some(format!("it did not start: {error}")),
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
            self.error = Some(format!("it had not ended {OVERDUE:?} after its time"));
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
            (Deed::Signal(signal), None) => Err(format!("{}: there is no server", signal.name)),
            (Deed::Command(words), _) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                match Child::start(&mut command, libc::SIGKILL, None) {
                    Ok(child) => {
                        self.child = Some(child);
                        Ok(())
                    }
                    Err(error) => Err(format!("{}: {error}", words[0])),
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
            None => Some(format!("it had not ended after {COMMAND_MAX:?}")),
            Some(Ended::Status(0)) => None,
            Some(ended) => {
                Some(format!("it ended with {}; its last words:\n  {words}", ended.show()))
            }
        };
        self.child = None;
    }
}

/// Whether the program of a command can be found, before anything is started.
pub(super) fn is_there(program: &str) -> bool {
    let is_file = |path: &Path| path.is_file();
    if program.contains('/') {
        return is_file(Path::new(program));
    }
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| is_file(&folder.join(program)))
    })
}
