//! Standard error as a terminal that is drawn on, and given back however the process ends.
//!
//! Signals are left alone: Ctrl-C stays SIGINT, and whoever waits for it sees it. Only Ctrl-Z is
//! switched off meanwhile, which would leave the shell on our screen.

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use std::io::{self, BufWriter, Stderr, stderr};
use std::mem::MaybeUninit;
use std::sync::{Mutex, Once, PoisonError};

/// How the terminal was set before it was taken; `None` when it is not taken.
static TAKEN: Mutex<Option<libc::termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Buffered: a picture is one write, or it would flicker.
type Backend = CrosstermBackend<BufWriter<Stderr>>;

/// A terminal that we draw on.
pub struct Live {
    terminal: Terminal<Backend>,
    area: Rect,
}

impl Live {
    /// Takes the terminal that standard error is.
    ///
    /// # Errors
    /// errno of ioctl(2): it is none, or has no size.
    pub fn start() -> io::Result<Self> {
        let area = area()?;
        let before = settings()?;
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let mut ours = before;
        ours.c_lflag &= !libc::ECHO;
        // _POSIX_VDISABLE of Linux (termios(3)).
        ours.c_cc[libc::VSUSP] = 0;
        set(&ours);
        let made = execute!(stderr(), EnterAlternateScreen, Hide).and_then(|()| canvas(area));
        made.map(|terminal| Self { terminal, area }).inspect_err(|_| restore())
    }

    /// Draws a picture on all of it.
    ///
    /// # Errors
    /// errno of write(2), or of asking for its size.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let area = area()?;
        if area != self.area {
            self.terminal = canvas(area)?;
            self.area = area;
        }
        self.terminal.draw(draw).map(|_| ())
    }
}

/// An empty screen. It is cleared by us: ratatui would ask the terminal where its cursor is, and
/// wait for an answer that not every terminal gives.
fn canvas(area: Rect) -> io::Result<Terminal<Backend>> {
    execute!(stderr(), Clear(ClearType::All))?;
    let options = TerminalOptions { viewport: Viewport::Fixed(area) };
    Terminal::with_options(CrosstermBackend::new(BufWriter::new(stderr())), options)
}

/// Returns true while this process controls the terminal.
pub fn is_taken() -> bool {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Gives the terminal back as it was, if it was taken. To be called before `exit`.
pub fn restore() {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = taken {
        // There is nobody to tell that it failed.
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
        set(&before);
    }
}

/// All of the terminal, as large as it is now.
fn area() -> io::Result<Rect> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: `size` is valid for writes of a winsize, and zeroed is a valid one.
    let size = unsafe {
        if libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        size.assume_init()
    };
    match (size.ws_col, size.ws_row) {
        // A terminal that was never told its size: nothing can be laid out on it.
        (0, _) | (_, 0) => Err(io::ErrorKind::Unsupported.into()),
        (columns, rows) => Ok(Rect::new(0, 0, columns, rows)),
    }
}

fn settings() -> io::Result<libc::termios> {
    let mut settings = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: `settings` is valid for writes of a termios, and zeroed is a valid one.
    unsafe {
        match libc::tcgetattr(libc::STDERR_FILENO, settings.as_mut_ptr()) {
            0 => Ok(settings.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn set(settings: &libc::termios) {
    // SAFETY: `settings` is a valid termios, read only. That it fails changes nothing that counts.
    unsafe { libc::tcsetattr(libc::STDERR_FILENO, libc::TCSADRAIN, settings) };
}
