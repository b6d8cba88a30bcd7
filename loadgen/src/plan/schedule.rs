//! The schedule of a plan, made from its file and validated.

use super::file::{self, File, Source};
use super::part::{LENGTH_MAX, Part, Span, read_part, span};
use super::words;
use ringload_lifecycle::http::Url;
use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Maximum number of parts; each is a process.
const PARTS_MAX: usize = 64;
/// Default of `ready-within`.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Default of `drain`.
const DRAIN: Duration = Duration::from_secs(30);

/// A signal that a plan can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The name without SIG.
    pub name: &'static str,
    /// The number.
    pub number: i32,
    /// The expected end of the server, if the signal ends it.
    pub end: Option<End>,
}

/// The way in which a signal ends a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server drains and exits with status 0.
    Drain,
    /// The kernel ends the server at once.
    Kill,
}

impl Signal {
    /// TERM, which makes a server drain.
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
            format!("{name:?} is not a signal that a plan can send; expected one of {names}")
        })
    }
}

/// An action on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Send a signal.
    Signal(Signal),
    /// Run a command.
    Command(Vec<String>),
}

/// An action at a time.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time, relative to the start of the plan.
    pub time: Duration,
    /// The action.
    pub deed: Deed,
}

/// The process of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A process that the plan starts.
    Ours(Vec<String>),
    /// A running process, by id.
    Pid(u32),
    /// A running process whose id is in a file.
    PidFile(PathBuf),
}

/// The server.
#[derive(Clone, Debug)]
pub struct Server {
    /// The process.
    pub whose: Whose,
    /// The server is ready when a line of its standard output contains this.
    pub ready: Option<String>,
    /// The server is ready when this address accepts a connection.
    pub ready_address: Option<String>,
    /// Longest time until the server is ready.
    pub ready_within: Duration,
    /// Longest time from the signal that ends the server to its end.
    pub drain: Duration,
    /// Address of the ledger.
    pub ledger: Option<Url>,
    /// Compare its descriptors, threads and sockets before and after the plan.
    pub check_process: bool,
}

/// The schedule of a plan.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The server, if the plan names it.
    pub server: Option<Server>,
    /// The parts in the order of the file.
    pub parts: Vec<Part>,
    /// The events in the order of time.
    pub events: Vec<Event>,
    /// Seed of the first part; each further part adds 1.
    pub seed: Option<u64>,
    /// Something else restarts the server when it ends.
    pub restarts: bool,
    /// The server ends or may be restarted during the plan.
    pub is_drained: bool,
}

impl Schedule {
    /// Reads a plan.
    ///
    /// # Errors
    /// The first mistake, with file, line and column.
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
                "{}: a signal at {:?} follows one that ends the server at {:?}; set restarts = \
                 true if something else restarts the server",
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
                return Err(source.wrong(&part.name, "another part has this name"));
            }
            let seed = seed.map(|seed| seed.wrapping_add(number as u64));
            let from = if file.restarts { Some(Duration::ZERO) } else { end };
            parts.push(read_part(source, &phases, part, seed, from)?);
        }
        match parts.len() {
            0 => return Err(format!("{}: the plan has no [[part]]", source.name)),
            1..=PARTS_MAX => {}
            more => {
                return Err(format!(
                    "{}: {more} parts are too many; the maximum is {PARTS_MAX}",
                    source.name
                ));
            }
        }
        Ok(Self { server, parts, events, seed, restarts: file.restarts, is_drained })
    }

    /// Returns the known duration; parts that end by themselves may take longer.
    #[must_use]
    pub fn length(&self) -> Duration {
        let parts = self.parts.iter().map(|part| part.start + part.length.unwrap_or_default());
        let events = self.events.iter().map(|event| event.time);
        parts.chain(events).max().unwrap_or_default()
    }

    /// Returns the schedule as text.
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
                None => "until it ends".into(),
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
        line(Some(self.length()), "end".into());
        text
    }
}

impl Deed {
    /// Returns `signal TERM` or `command sh -c …`.
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
    /// Returns the command or the process id.
    #[must_use]
    pub fn show(&self) -> String {
        match &self.whose {
            Whose::Ours(command) => words::join(command.iter().map(String::as_str)),
            Whose::Pid(pid) => format!("process {pid}"),
            Whose::PidFile(file) => format!("process in {}", file.display()),
        }
    }
}

fn phases<'a>(source: Source<'_>, file: &'a File) -> Result<Vec<Span<'a>>, String> {
    let mut spans: Vec<Span<'a>> = Vec::new();
    for phase in &file.phase {
        let name = phase.name.get_ref().as_str();
        if spans.iter().any(|span| span.name == name) {
            return Err(source.wrong(&phase.name, "another phase has this name"));
        }
        let start = spans.last().map_or(Duration::ZERO, |span| span.end);
        let end = start + source.duration(&phase.length)?;
        if end > LENGTH_MAX {
            return Err(source.wrong(&phase.length, "a plan must take at most 24h"));
        }
        spans.push(Span { name, start, end });
    }
    Ok(spans)
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
                let why = "signal needs a [server] with command, pid or pid-file";
                return Err(source.wrong(signal, why));
            }
            let named = Signal::named(signal.get_ref());
            Deed::Signal(named.map_err(|wrong| source.wrong(signal, wrong))?)
        }
        (None, Some(command)) => Deed::Command(some_words(source, command)?),
        _ => return Err(source.wrong(at, "give either signal or command")),
    };
    Ok(Event { time, deed })
}

fn some_words(
    source: Source<'_>,
    command: &toml::Spanned<Vec<String>>,
) -> Result<Vec<String>, String> {
    let words = command.get_ref();
    if words.first().is_none_or(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
        return Err(
            source.wrong(command, "a command must begin with a program and must not contain NUL")
        );
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
        _ => return Err(source.wrong(at, "give exactly one of command, pid and pid-file")),
    };
    if let (Some(ready), false) = (&server.ready, matches!(whose, Whose::Ours(_))) {
        let why = "ready needs command, because the plan reads only the output of a server that it \
                   starts; use ready-address";
        return Err(source.wrong(ready, why));
    }
    let time = |text: &Option<toml::Spanned<String>>, default| {
        text.as_ref().map_or(Ok(default), |text| source.duration(text))
    };
    let text =
        |text: &Option<toml::Spanned<String>>| text.as_ref().map(|text| text.get_ref().clone());
    if let Some(address) = &server.ready_address {
        ringload_lifecycle::args::parse_address(address.get_ref())
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
