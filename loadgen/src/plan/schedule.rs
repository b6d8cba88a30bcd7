//! What runs when: a plan's file made exact, or refused.

use super::file::{self, File, Source};
use super::part::read_part;
use super::words;
use crate::http::Url;
use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Parts at most: each is a process.
const PARTS_MAX: usize = 64;
/// Longest plan.
pub(super) const LENGTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a server may take until it is ready, unless the plan says so.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long a server may take to end, unless the plan says so.
const DRAIN: Duration = Duration::from_secs(30);

/// A signal that a plan can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its name, without SIG.
    pub name: &'static str,
    /// Its number.
    pub number: i32,
    /// What becomes of the server.
    pub end: Option<End>,
}

/// How a server ends on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with status 0.
    Drain,
    /// At once.
    Kill,
}

impl Signal {
    /// TERM, which ends a server.
    pub const TERM: Self = Self::new("TERM", libc::SIGTERM, Some(End::Drain));

    const ALL: [Self; 10] = [
        Self::TERM,
        Self::new("HUP", libc::SIGHUP, None),
        Self::new("INT", libc::SIGINT, Some(End::Drain)),
        Self::new("QUIT", libc::SIGQUIT, Some(End::Drain)),
        Self::new("KILL", libc::SIGKILL, Some(End::Kill)),
        Self::new("USR1", libc::SIGUSR1, None),
        Self::new("USR2", libc::SIGUSR2, None),
        Self::new("WINCH", libc::SIGWINCH, None),
        Self::new("STOP", libc::SIGSTOP, None),
        Self::new("CONT", libc::SIGCONT, None),
    ];

    const fn new(name: &'static str, number: i32, end: Option<End>) -> Self {
        Self { name, number, end }
    }

    fn named(name: &str) -> Result<Self, String> {
        let bare = name.strip_prefix("SIG").unwrap_or(name);
        Self::ALL.into_iter().find(|signal| signal.name == bare).ok_or_else(|| {
            let names = Self::ALL.map(|signal| signal.name).join(", ");
            format!("{name:?} is no signal that a plan sends; those are {names}")
        })
    }
}

/// A run of `ringload`.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// The phase it belongs to.
    pub phase: Option<String>,
    /// When it starts, since the plan did.
    pub start: Duration,
    /// How long it runs; `None`: until it has done what it was told.
    pub length: Option<Duration>,
    /// The words behind `ringload`.
    pub words: Vec<String>,
}

/// What happens to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It is sent a signal.
    Signal(Signal),
    /// A command is run.
    Command(Vec<String>),
}

/// What happens at a time.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, since the plan started.
    pub time: Duration,
    /// What.
    pub deed: Deed,
}

/// Which process is the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// One that the plan starts.
    Ours(Vec<String>),
    /// One that runs, by its number.
    Pid(u32),
    /// One that runs, its number in a file.
    PidFile(PathBuf),
}

/// The server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Which process it is.
    pub whose: Whose,
    /// It is ready when a line of its standard output has this.
    pub ready: Option<String>,
    /// It is ready when this can be connected to.
    pub ready_address: Option<String>,
    /// It must be ready within.
    pub ready_within: Duration,
    /// It must have ended so long after it was told to.
    pub drain: Duration,
    /// Where its ledger is.
    pub ledger: Option<Url>,
    /// Its descriptors, threads and sockets are looked at before and after.
    pub check_process: bool,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The server, if the plan has to do with it.
    pub server: Option<Server>,
    /// What runs, in the order of the file.
    pub parts: Vec<Part>,
    /// What happens, in the order of time.
    pub events: Vec<Event>,
    /// Seed of the first part; the others count on from it.
    pub seed: Option<u64>,
    /// Something starts the server again when it has ended.
    pub restarts: bool,
    /// The server ends, or is ended, while load is on it.
    pub is_drained: bool,
}

impl Schedule {
    /// Of a plan's text.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn read(source: Source<'_>, seed: Option<u64>) -> Result<Self, String> {
        let file = source.read()?;
        let phases = phases(source, &file)?;
        let server = match &file.server {
            None => None,
            Some(server) => Some(read_server(source, server.get_ref(), server)?),
        };
        let mut events = Vec::new();
        for at in &file.at {
            events.push(event(source, &phases, at, server.is_some())?);
        }
        events.sort_by_key(|event| event.time);
        let ends =
            |event: &&Event| matches!(&event.deed, Deed::Signal(signal) if signal.end.is_some());
        if let Some(end) = events.iter().find(ends)
            && let Some(after) = events.iter().find(|event| event.time > end.time)
            && matches!(after.deed, Deed::Signal(_))
            && !file.restarts
        {
            return Err(format!(
                "{}: a signal at {:?}, when the server has been ended at {:?}; restarts = true \
                 says that something starts it again",
                source.name, after.time, end.time
            ));
        }
        let end = events.iter().find(ends).map(|event| event.time);
        let is_drained = file.restarts || end.is_some();
        let seed = seed.or(file.seed);
        let mut parts: Vec<Part> = Vec::new();
        let mut names = HashSet::new();
        for (number, part) in file.part.iter().enumerate() {
            if !names.insert(part.name.get_ref().as_str()) {
                return Err(source.wrong(&part.name, "another part has that name"));
            }
            let seed = seed.map(|seed| seed.wrapping_add(number as u64));
            let from = if file.restarts { Some(Duration::ZERO) } else { end };
            parts.push(read_part(source, &phases, part, seed, from)?);
        }
        match parts.len() {
            0 => return Err(format!("{}: there is no [[part]] in it", source.name)),
            1..=PARTS_MAX => {}
            more => return Err(format!("{}: {more} parts; {PARTS_MAX} are the most", source.name)),
        }
        Ok(Self { server, parts, events, seed, restarts: file.restarts, is_drained })
    }

    /// What is known of its length; parts that end by themselves may take longer.
    #[must_use]
    pub fn length(&self) -> Duration {
        let parts = self.parts.iter().map(|part| part.start + part.length.unwrap_or_default());
        let events = self.events.iter().map(|event| event.time);
        parts.chain(events).max().unwrap_or_default()
    }

    /// For people: what would run when.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = String::new();
        let mut line = |time: Option<Duration>, what: String| {
            let time = time.map_or_else(String::new, |time| format!("{:.1}s", time.as_secs_f64()));
            writeln!(text, "{time:>8}  {what}").expect("writing to a string does not fail");
        };
        if let Some(server) = &self.server {
            line(None, format!("server: {}", server.show()));
        }
        let mut lines = Vec::new();
        for part in &self.parts {
            let length = match part.length {
                Some(length) => format!("for {length:?}"),
                None => "until it is done".into(),
            };
            let phase = part.phase.as_ref().map_or_else(String::new, |phase| format!(" ({phase})"));
            let command = words::join(part.words.iter().map(String::as_str));
            lines.push((part.start, format!("{}{phase}, {length}: ringload {command}", part.name)));
        }
        lines.extend(self.events.iter().map(|event| (event.time, event.deed.show())));
        lines.sort_by_key(|(time, _)| *time);
        for (time, what) in lines {
            line(Some(time), what);
        }
        line(Some(self.length()), "the end".into());
        text
    }
}

impl Deed {
    /// `signal TERM`, `command sh -c …`.
    #[must_use]
    pub fn show(&self) -> String {
        match self {
            Self::Signal(signal) => format!("signal {}", signal.name),
            Self::Command(command) => {
                format!("command {}", words::join(command.iter().map(String::as_str)))
            }
        }
    }
}

impl Server {
    /// The command, or the number.
    #[must_use]
    pub fn show(&self) -> String {
        match &self.whose {
            Whose::Ours(command) => words::join(command.iter().map(String::as_str)),
            Whose::Pid(pid) => format!("process {pid}"),
            Whose::PidFile(file) => format!("the process in {}", file.display()),
        }
    }
}

/// A phase, and when it is.
pub(super) struct Span<'a> {
    name: &'a str,
    start: Duration,
    end: Duration,
}

fn phases<'a>(source: Source<'_>, file: &'a File) -> Result<Vec<Span<'a>>, String> {
    let mut spans: Vec<Span<'a>> = Vec::new();
    for phase in &file.phase {
        let name = phase.name.get_ref().as_str();
        if spans.iter().any(|span| span.name == name) {
            return Err(source.wrong(&phase.name, "another phase has that name"));
        }
        let start = spans.last().map_or(Duration::ZERO, |span| span.end);
        let end = start + source.duration(&phase.length)?;
        if end > LENGTH_MAX {
            return Err(source.wrong(&phase.length, "a plan takes 24h at most"));
        }
        spans.push(Span { name, start, end });
    }
    Ok(spans)
}

/// When the phase begins and ends; without one: the plan.
pub(super) fn span(
    source: Source<'_>,
    phases: &[Span<'_>],
    name: Option<&toml::Spanned<String>>,
) -> Result<(Duration, Option<Duration>), String> {
    match name {
        None => Ok((Duration::ZERO, phases.last().map(|last| last.end))),
        Some(name) => phases
            .iter()
            .find(|span| span.name == name.get_ref())
            .map(|span| (span.start, Some(span.end)))
            .ok_or_else(|| {
                source.wrong(
                    name,
                    format_args!("no [[phase]] is called {name:?}", name = name.get_ref()),
                )
            }),
    }
}

fn event(
    source: Source<'_>,
    phases: &[Span<'_>],
    at: &toml::Spanned<file::At>,
    has_server: bool,
) -> Result<Event, String> {
    let file::At { time, phase, signal, command } = at.get_ref();
    let (start, _) = span(source, phases, phase.as_ref())?;
    let since = source.duration(time)?;
    let time = start + since.min(LENGTH_MAX);
    let deed = match (signal, command) {
        (Some(signal), None) => {
            if !has_server {
                let why = "a signal needs a [server] with command, pid or pid-file";
                return Err(source.wrong(signal, why));
            }
            let named = Signal::named(signal.get_ref());
            Deed::Signal(named.map_err(|wrong| source.wrong(signal, wrong))?)
        }
        (None, Some(command)) => Deed::Command(some_words(source, command)?),
        _ => return Err(source.wrong(at, "either signal or command says what happens")),
    };
    Ok(Event { time, deed })
}

fn some_words(
    source: Source<'_>,
    command: &toml::Spanned<Vec<String>>,
) -> Result<Vec<String>, String> {
    let words = command.get_ref();
    if words.first().is_none_or(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
        return Err(source.wrong(command, "a command begins with a program"));
    }
    Ok(words.clone())
}

fn read_server(
    source: Source<'_>,
    server: &file::Server,
    at: &toml::Spanned<file::Server>,
) -> Result<Server, String> {
    let whose = match (&server.command, &server.pid, &server.pid_file) {
        (Some(command), None, None) => Whose::Ours(some_words(source, command)?),
        (None, Some(pid), None) => Whose::Pid(*pid.get_ref()),
        (None, None, Some(file)) => Whose::PidFile(file.get_ref().into()),
        _ => return Err(source.wrong(at, "one of command, pid and pid-file says which it is")),
    };
    if let (Some(ready), false) = (&server.ready, matches!(whose, Whose::Ours(_))) {
        let why = "only a server that the plan starts is listened to; take ready-address";
        return Err(source.wrong(ready, why));
    }
    let time = |text: &Option<toml::Spanned<String>>, default| {
        text.as_ref().map_or(Ok(default), |text| source.duration(text))
    };
    let text =
        |text: &Option<toml::Spanned<String>>| text.as_ref().map(|text| text.get_ref().clone());
    if let Some(address) = &server.ready_address {
        crate::args::parse_address(address.get_ref())
            .map_err(|wrong| source.wrong(address, wrong))?;
    }
    let ledger = match &server.ledger {
        None => None,
        Some(url) => Some(url.get_ref().parse::<Url>().map_err(|wrong| source.wrong(url, wrong))?),
    };
    Ok(Server {
        whose,
        ready: text(&server.ready),
        ready_address: text(&server.ready_address),
        ready_within: time(&server.ready_within, READY_WITHIN)?,
        drain: time(&server.drain, DRAIN)?,
        ledger,
        check_process: server.check_process,
    })
}

#[cfg(test)]
mod tests;
