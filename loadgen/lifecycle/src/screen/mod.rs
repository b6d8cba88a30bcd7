//! The progress display of a run: a live view on a terminal, otherwise one line per second.
//!
//! A run opens a [`Screen`], passes a line per second to [`Screen::line`] and any number of
//! [`Picture`]s to [`Screen::show`], and closes it before it prints anything else. Code that ends
//! the process without closing the screen must call [`restore`] first.

mod picture;
mod terminal;

pub use picture::{Cell, Matrix, Picture};
pub use terminal::restore;

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use terminal::Live;

/// Minimum interval between two pictures.
const FRAME: Duration = Duration::from_millis(200);
/// Number of lines that a live view shows, and that remain on the terminal after it.
const LINES_KEPT: usize = 12;

/// The progress display on standard error.
pub struct Screen {
    shape: Shape,
    /// The last lines.
    lines: VecDeque<String>,
    opening: String,
    heading: Option<String>,
}

enum Shape {
    Live { live: Live, drawn: Option<Instant> },
    Lines,
    Nothing,
}

impl Screen {
    /// Chooses the display: nothing if `quiet`, a live view on a terminal unless `TERM` is `dumb`,
    /// and lines otherwise. The first line is `opening`.
    #[must_use]
    pub fn open(opening: &str, quiet: bool) -> Self {
        let shape = if quiet {
            Shape::Nothing
        } else {
            let live = if is_able() { Live::start().ok() } else { None };
            live.map_or(Shape::Lines, |live| Shape::Live { live, drawn: None })
        };
        if matches!(shape, Shape::Lines) {
            crate::note!("{opening}");
        }
        Self { shape, lines: VecDeque::new(), opening: opening.into(), heading: None }
    }

    /// Shows a picture if there is a live view and the last picture is older than `FRAME`.
    pub fn show(&mut self, picture: impl FnOnce() -> Picture) {
        self.give_up_if_restored();
        let Shape::Live { live, drawn } = &mut self.shape else { return };
        if drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return;
        }
        *drawn = Some(Instant::now());
        let (heading, lines) = (self.heading.as_deref().unwrap_or_default(), &self.lines);
        // The run continues if the terminal is gone.
        let _ = live.draw(|frame| picture::draw(frame, &picture(), heading, lines));
    }

    /// Shows the line of one second; `heading` precedes the first line.
    pub fn line(&mut self, heading: &str, line: String) {
        self.give_up_if_restored();
        let is_first = self.heading.is_none();
        if is_first {
            self.heading = Some(heading.into());
        }
        match self.shape {
            Shape::Nothing => {}
            Shape::Lines => {
                if is_first {
                    crate::note!("{heading}");
                }
                crate::note!("{line}");
            }
            Shape::Live { .. } => {
                self.lines.push_back(line);
                if self.lines.len() > LINES_KEPT {
                    self.lines.pop_front();
                }
            }
        }
    }

    /// Restores the terminal, prints the opening and the last lines, and ends the display.
    pub fn close(&mut self) {
        if matches!(self.shape, Shape::Live { .. }) {
            self.leave();
        }
        self.shape = Shape::Nothing;
    }

    /// Switches to lines after a panic has restored the terminal to print its message.
    fn give_up_if_restored(&mut self) {
        if matches!(self.shape, Shape::Live { .. }) && !terminal::is_taken() {
            self.leave();
            self.shape = Shape::Lines;
        }
    }

    fn leave(&mut self) {
        restore();
        crate::note!("{}", self.opening);
        if let Some(heading) = &self.heading {
            crate::note!("{heading}");
        }
        for line in self.lines.drain(..) {
            crate::note!("{line}");
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

fn is_able() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    std::io::stderr().is_terminal() && !is_dumb
}
