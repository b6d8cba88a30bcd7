//! The progress of a transfer: a bar on a terminal, otherwise one line per second.

use super::client::Shared;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringload_lifecycle::units::show_bytes;
use std::io::IsTerminal;
use std::time::Duration;

/// Interval between two lines.
const LINE: Duration = Duration::from_secs(1);
/// Frame rate of the bar.
const FRAMES_PER_S: u8 = 10;
const BAR: &str = "{percent:>3}% {bar:40} {decimal_bytes} of {decimal_total_bytes}  \
                   {decimal_bytes_per_sec}  {msg}";

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
    pub fn show(&mut self, elapsed: Duration, shared: &Shared) {
        let (moved, size) = (shared.moved_bytes(), shared.size_bytes());
        match &self.shape {
            Shape::Bar(bar) => {
                bar.set_length(size.unwrap_or_default());
                bar.set_position(moved);
                let left = if shared.is_verifying() { "verifying".into() } else { left(bar) };
                bar.set_message(left);
            }
            Shape::Lines if elapsed >= self.next_line => {
                ringload_lifecycle::note!(
                    "{}",
                    line(elapsed, self.last, moved, size, shared.is_verifying())
                );
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
