//! The progress of a transfer: a bar on a terminal, otherwise one line per second.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringload_lifecycle::units::show_bytes;
use std::io::IsTerminal;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Interval between two lines.
const LINE: Duration = Duration::from_secs(1);
/// Frame rate of the bar.
const FRAMES_PER_S: u8 = 10;
const BAR: &str = "{percent:>3}% {bar:40} {decimal_bytes} of {decimal_total_bytes}  \
                   {decimal_bytes_per_sec}  {msg}";

/// Marks an unknown size.
const UNKNOWN: u64 = u64::MAX;

/// State shared by the thread of the transfers and the watching thread.
pub struct Shared {
    began: Instant,
    /// Total size of the files.
    size_bytes: AtomicU64,
    moved_bytes: AtomicU64,
    /// The time of the last byte; `None` while bytes are missing.
    completed: Mutex<Option<Instant>>,
    socket: OnceLock<TcpStream>,
    is_interrupted: AtomicBool,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            size_bytes: AtomicU64::new(UNKNOWN),
            moved_bytes: AtomicU64::new(0),
            completed: Mutex::new(None),
            socket: OnceLock::new(),
            is_interrupted: AtomicBool::new(false),
        }
    }
}

impl Shared {
    /// Sets the total size of the files.
    pub fn set_size(&self, bytes: u64) {
        self.size_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Sets the number of bytes transferred.
    pub fn set_moved(&self, bytes: u64) {
        self.moved_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Marks that only digests are pending, or that bytes are missing.
    pub fn set_verifying(&self, is_verifying: bool) {
        let mut completed = self.completed.lock().unwrap_or_else(PoisonError::into_inner);
        *completed = is_verifying.then(|| completed.unwrap_or_else(Instant::now));
    }

    fn completed(&self) -> Option<Instant> {
        *self.completed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the total size of the files, if known.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        Some(self.size_bytes.load(Ordering::Relaxed)).filter(|size| *size != UNKNOWN)
    }

    /// Returns the number of bytes transferred.
    #[must_use]
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    /// Describes how many bytes were transferred.
    #[must_use]
    pub fn progress(&self) -> String {
        let moved = self.moved_bytes();
        match self.size_bytes() {
            Some(size) => format!("after {moved} of {size} bytes"),
            None => "before the size was known".into(),
        }
    }

    /// Returns the time from the start to the last byte, or until now.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.completed().unwrap_or_else(Instant::now).saturating_duration_since(self.began)
    }

    /// Returns the time since the start.
    #[must_use]
    pub fn elapsed_with_digests(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sets the socket that a signal shuts down.
    pub fn opened(&self, socket: TcpStream) {
        let _ = self.socket.set(socket);
        if self.is_interrupted() {
            self.interrupt();
        }
    }

    /// Shuts the connection down. The thread notices it at its next call.
    pub fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::SeqCst);
        if let Some(socket) = self.socket.get() {
            // An error means that the connection has ended.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Returns true after a signal.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::SeqCst)
    }
}

/// The progress display on standard error.
pub struct Progress {
    shape: Shape,
    next_line: Duration,
    last: (Duration, u64),
}

enum Shape {
    Bar(ProgressBar),
    Lines,
    Nothing,
}

impl Progress {
    /// Chooses the display that suits standard error.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let shape = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Shape::Nothing,
            (false, false) => Shape::Lines,
            (false, true) => Shape::Bar(bar()),
        };
        Self { shape, next_line: LINE, last: (Duration::ZERO, 0) }
    }

    /// Updates the display.
    pub fn show(&mut self, shared: &Shared) {
        let (moved, size) = (shared.moved_bytes(), shared.size_bytes());
        let (elapsed, is_verifying) = (shared.elapsed_with_digests(), shared.completed().is_some());
        match &self.shape {
            Shape::Bar(bar) => {
                bar.set_length(size.unwrap_or_default());
                bar.set_position(moved);
                let left = if is_verifying { "verifying".into() } else { left(bar) };
                bar.set_message(left);
            }
            Shape::Lines if elapsed >= self.next_line => {
                let line = line(elapsed, self.last, moved, size, is_verifying);
                ringload_lifecycle::note!("{line}");
                self.last = (elapsed, moved);
                while self.next_line <= elapsed {
                    self.next_line += LINE;
                }
            }
            Shape::Lines | Shape::Nothing => {}
        }
    }

    /// Removes the display from the terminal.
    pub fn clear(self) {
        if let Shape::Bar(bar) = self.shape {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(FRAMES_PER_S);
    let style = ProgressStyle::with_template(BAR).expect("the template is a constant");
    ProgressBar::with_draw_target(Some(0), target).with_style(style)
}

fn left(bar: &ProgressBar) -> String {
    format!("{} s left", bar.eta().as_secs())
}

fn line(
    elapsed: Duration,
    (last_elapsed, last_moved): (Duration, u64),
    moved: u64,
    size: Option<u64>,
    is_verifying: bool,
) -> String {
    let time = format!("{:>7.1}s", elapsed.as_secs_f64());
    match size {
        None => format!("{time}  waiting for the server"),
        Some(_) if is_verifying => format!("{time}  waiting for the server's SHA-256"),
        Some(size) => {
            let seconds = (elapsed - last_elapsed).as_secs_f64().max(f64::MIN_POSITIVE);
            format!(
                "{time}  {:>8} of {:>8}  {:>4.0}%  {:>8}/s",
                show_bytes(moved as f64),
                show_bytes(size as f64),
                100.0 * moved as f64 / size.max(1) as f64,
                show_bytes((moved - last_moved) as f64 / seconds)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let seconds = Duration::from_secs;
        let last = (seconds(1), 1_000_000);
        assert_eq!(
            line(seconds(2), last, 2_500_000, Some(10_000_000), false),
            "    2.0s   2.50 MB of  10.0 MB    25%   1.50 MB/s"
        );
        assert!(line(seconds(2), last, 0, None, false).contains("waiting for the server"));
        assert!(line(seconds(2), last, 5, Some(5), true).contains("SHA-256"));
        assert!(line(seconds(1), (seconds(0), 0), 0, Some(0), false).contains("0%"));
    }
}
