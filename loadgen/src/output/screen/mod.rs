//! What is shown while a run is under way: a live view on a terminal, otherwise a line per second.
//!
//! A run opens a [`Screen`], hands it a line per second ([`Screen::line`]) and as often as it
//! likes a [`Picture`] ([`Screen::show`]), and closes it before it prints anything else. Whoever
//! ends the process without closing it calls [`restore`] first.

mod picture;
mod terminal;

pub use picture::{Cell, Matrix, Picture};
pub use terminal::restore;

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use terminal::Live;

/// Between two pictures: more often nobody can read.
const FRAME: Duration = Duration::from_millis(200);
/// Lines kept of a live view, to be shown in it and to stay after it.
const LINES_KEPT: usize = 12;

/// Standard error, as a run shows itself on it.
pub struct Screen {
    shape: Shape,
    /// The last lines, and whether there was any.
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
    /// What suits standard error: nothing if `quiet`, a live view on a terminal that can do more
    /// than print (`TERM` is not `dumb`), otherwise lines, beginning with `opening`.
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

    /// Shows a picture, if there is a live view and the last picture is old enough.
    pub fn show(&mut self, picture: impl FnOnce() -> Picture) {
        self.give_up_if_restored();
        let Shape::Live { live, drawn } = &mut self.shape else { return };
        if drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return;
        }
        *drawn = Some(Instant::now());
        let (heading, lines) = (self.heading.as_deref().unwrap_or_default(), &self.lines);
        // A terminal that is gone ends no run.
        let _ = live.draw(|frame| picture::draw(frame, &picture(), heading, lines));
    }

    /// One line, once a second; `heading` stands above the first.
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

    /// Leaves the terminal as it was, with the opening and the last lines on it; nothing is shown
    /// after that.
    pub fn close(&mut self) {
        if matches!(self.shape, Shape::Live { .. }) {
            self.leave();
        }
        self.shape = Shape::Nothing;
    }

    /// A panic anywhere has given the terminal back, to print what it has to say: from here on it
    /// is lines.
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
