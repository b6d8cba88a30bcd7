//! The daemon's own messages, which are its error log: reloads, listeners, drains, panics, and what
//! goes wrong.
//!
//! By default they go to standard error, as `ringwrightd: MESSAGE`. With `--error-log` a thread
//! writes them, because a disk may stall: one line each, with time and level. If the output is too
//! slow, or writing fails, lines are lost and counted, as those of the access log are. The file is
//! created again after a rename or a removal.

use crate::access_log::{LogFile, Lost, json_time};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Messages that wait for the writer, at most.
const MESSAGES_MAX: usize = 256;
/// The bytes of a message, at most; the rest is cut off.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// The time that the end of the program waits for the last messages, at most.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// The log of this process, once it is open.
static LOG: OnceLock<ErrorLog> = OnceLock::new();
/// The level down to which messages are written.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// The weight of a message.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Deserialize,
    Serialize,
    clap::ValueEnum,
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something works less well than it should, or was refused.
    Warn,
    /// Normal events: reloads, listeners, drains.
    #[default]
    Info,
    /// Details that help to find out why.
    Debug,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Says that something does not work.
pub fn error(what: &(impl Display + ?Sized)) {
    say(Level::Error, what);
}

/// Says that something works less well than it should, or was refused.
pub fn warn(what: &(impl Display + ?Sized)) {
    say(Level::Warn, what);
}

/// Reports a normal event.
pub fn info(what: &(impl Display + ?Sized)) {
    say(Level::Info, what);
}

/// Says a detail.
pub fn debug(what: &(impl Display + ?Sized)) {
    say(Level::Debug, what);
}

fn say(level: Level, what: &(impl Display + ?Sized)) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    match LOG.get() {
        Some(log) => log.add(line(now_s(), level, &what.to_string())),
        None => say_plainly(&format!("ringwrightd: {what}")),
    }
}

/// Says why the program ends without success: in the log, and on standard error in any case.
pub fn fail(what: &str) {
    error(what);
    if LOG.get().is_some_and(|log| log.is_file) {
        say_plainly(&format!("ringwrightd: {what}"));
    }
}

/// Prints a line on standard error.
pub fn say_plainly(line: &str) {
    // eprintln! would panic if standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes messages from this level on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Writes messages to the file at `path` from now on, or to standard error with time and level for
/// `-`. Panics are messages as well.
///
/// # Errors
/// A message for the user.
pub fn open(path: &Path) -> Result<(), String> {
    let is_file = path != Path::new("-");
    let output: Box<dyn Output> = if is_file {
        let file = LogFile::open(path, "--error-log").map_err(|error| {
            format!(
                "--error-log {}: cannot open the file: {error}; give a file that this user may \
                 create or append to",
                path.display()
            )
        })?;
        Box::new(file)
    } else {
        Box::new(io::stderr())
    };
    let log = ErrorLog::start(output, is_file)
        .map_err(|error| format!("--error-log: cannot start the writer thread: {error}"))?;
    if LOG.set(log).is_ok() {
        std::panic::set_hook(Box::new(|info| error(&describe(info))));
    }
    Ok(())
}

/// Opens the file of the log again, if there is one. Returns whether there is one.
pub fn reopen() -> bool {
    let log = LOG.get().filter(|log| log.is_file);
    // If the queue is full, the file is looked at before the next message.
    log.is_some_and(|log| {
        let _ = log.messages.try_send(Message::Reopen);
        true
    })
}

/// The number of messages that were lost so far.
pub fn lines_lost() -> u64 {
    LOG.get().map_or(0, |log| log.lost.lines())
}

/// Waits for the last messages.
pub fn finish() {
    if let Some(log) = LOG.get()
        && let Some(trouble) = log.finish(FINISH_TIMEOUT)
    {
        say_plainly(&format!("ringwrightd: --error-log: {trouble}"));
    }
}

/// An output of whole lines.
trait Output: Send {
    /// Writes a line.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()>;

    /// Opens its file again.
    fn reopen(&mut self) {}
}

impl Output for LogFile {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.write(line).map_err(|(_, error)| error)
    }

    fn reopen(&mut self) {
        self.follow();
    }
}

impl Output for io::Stderr {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.write_all(line)
    }
}

enum Message {
    Line(Vec<u8>),
    Reopen,
    /// Answered when everything before it is written.
    Finish(SyncSender<()>),
}

/// The log and its queue.
struct ErrorLog {
    messages: SyncSender<Message>,
    lost: Lost,
    is_file: bool,
}

impl ErrorLog {
    fn start(output: Box<dyn Output>, is_file: bool) -> io::Result<Self> {
        let (messages, received) = sync_channel(MESSAGES_MAX);
        let lost = Lost::default();
        let of_writer = lost.clone();
        let write = move || write_all(output, &received, &of_writer);
        thread::Builder::new().name("error-log".into()).spawn(write)?;
        Ok(Self { messages, lost, is_file })
    }

    fn add(&self, line: Vec<u8>) {
        if self.messages.try_send(Message::Line(line)).is_err() {
            self.lost.add(1);
        }
    }

    /// Waits until everything is written. Returns the trouble if that takes too long, or if lines
    /// were lost.
    fn finish(&self, timeout: Duration) -> Option<String> {
        let (done, finished) = sync_channel(1);
        let end = std::time::Instant::now() + timeout;
        while self.messages.try_send(Message::Finish(done.clone())).is_err() {
            if std::time::Instant::now() > end {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let left = end.saturating_duration_since(std::time::Instant::now());
        let in_time = finished.recv_timeout(left).is_ok();
        match (in_time, self.lost.lines()) {
            (true, 0) => None,
            (true, lost) => Some(format!("{lost} line(s) were lost")),
            (false, _) => Some("the output has not taken the last lines in time".into()),
        }
    }
}

/// The writer. It goes on after an error, because the disk may have space again later.
fn write_all(mut output: Box<dyn Output>, messages: &Receiver<Message>, lost: &Lost) {
    let mut reported = false;
    for message in messages {
        match message {
            Message::Line(line) => match output.write_line(&line) {
                Ok(()) => reported = false,
                Err(error) => {
                    lost.add(1);
                    if !std::mem::replace(&mut reported, true) {
                        say_plainly(&format!(
                            "ringwrightd: --error-log: writing failed, and lines are lost: {error}"
                        ));
                    }
                }
            },
            Message::Reopen => output.reopen(),
            Message::Finish(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// A message as a line of the log. The lines of a message become one.
fn line(seconds: i64, level: Level, what: &str) -> Vec<u8> {
    let mut text = String::new();
    for part in what.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if !text.is_empty() {
            text.push(' ');
        }
        for char in part.chars() {
            if char.is_control() {
                text.extend(char.escape_default());
            } else {
                text.push(char);
            }
        }
    }
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
    text.truncate(end);
    format!("{} {} {text}\n", json_time(seconds), level.name()).into_bytes()
}

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A panic as a message.
fn describe(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
    let what = info.payload_as_str().unwrap_or("(no message)");
    format!(
        "the thread {name} panicked{place}: {what}. This is a bug in ringwrightd; please report it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn text(seconds: i64, level: Level, what: &str) -> String {
        String::from_utf8(line(seconds, level, what)).unwrap()
    }

    #[test]
    fn a_message_is_one_line_with_time_and_level() {
        assert_eq!(
            text(784_111_777, Level::Warn, "reload failed:\nc.toml:7:1: x\n  7 | rot\n    | ^\n"),
            "1994-11-06T08:49:37Z warn reload failed: c.toml:7:1: x 7 | rot | ^\n"
        );
        let escaped = text(0, Level::Error, "a\u{1b}[31m\tb\r\nc");
        assert_eq!(escaped, "1970-01-01T00:00:00Z error a\\u{1b}[31m\\tb c\n");
        let long = text(0, Level::Debug, &"ü".repeat(MESSAGE_BYTES_MAX));
        assert!(long.len() < MESSAGE_BYTES_MAX + 40 && long.ends_with("ü\n"));
        let names = [Level::Error, Level::Warn, Level::Info, Level::Debug].map(Level::name);
        assert_eq!(names, ["error", "warn", "info", "debug"]);
        assert!(Level::Error < Level::Warn && Level::Info < Level::Debug);
    }

    /// Waits before each line, and fails to write some.
    struct Slow {
        gate: Receiver<bool>,
        lines: SyncSender<Vec<u8>>,
    }

    impl Output for Slow {
        fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
            if self.gate.recv() == Ok(false) {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            self.lines.send(line.to_vec()).map_err(io::Error::other)
        }
    }

    #[test]
    fn lines_for_which_there_is_no_room_are_lost_and_counted() {
        let (open, gate) = channel();
        let (lines, written) = sync_channel(2 * MESSAGES_MAX);
        let log = ErrorLog::start(Box::new(Slow { gate, lines }), true).unwrap();
        let count = MESSAGES_MAX + 10;
        (0..count).for_each(|at| log.add(line(0, Level::Info, &at.to_string())));
        // The writer may have taken one.
        let lost = log.lost.lines();
        assert!((9..=10).contains(&lost), "{lost}");
        assert!(log.finish(Duration::from_millis(1)).unwrap().contains("not taken"));
        // One cannot be written.
        open.send(false).unwrap();
        (1..count).for_each(|_| open.send(true).unwrap());
        let trouble = log.finish(FINISH_TIMEOUT).unwrap();
        assert_eq!(trouble, format!("{} line(s) were lost", lost + 1));
        assert_eq!(written.try_iter().count() as u64, count as u64 - lost - 1);
    }
}
