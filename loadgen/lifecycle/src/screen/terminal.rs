//! Drawing on the terminal of standard error, which is restored at every end of the process.
//!
//! Signals are unchanged: Ctrl-C stays SIGINT. Only Ctrl-Z is disabled meanwhile, because it would
//! leave the shell on our screen.

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use std::io::{self, BufWriter, Stderr, stderr};
use std::mem::MaybeUninit;
use std::sync::{Mutex, Once, PoisonError};

/// The former settings of the terminal; `None` while it is not taken.
static TAKEN: Mutex<Option<libc::termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Buffers a picture into one write, to avoid flicker.
type Backend = CrosstermBackend<BufWriter<Stderr>>;

/// A terminal that we draw on.
pub struct Live {
    terminal: Terminal<Backend>,
    area: Rect,
}

impl Live {
    /// Takes the terminal of standard error.
    ///
    /// # Errors
    /// errno of ioctl(2): standard error is no terminal, or has no size.
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

/// Returns an empty screen. ratatui would clear it by asking the terminal for its cursor, and not
/// every terminal answers.
fn canvas(area: Rect) -> io::Result<Terminal<Backend>> {
    execute!(stderr(), Clear(ClearType::All))?;
    let options = TerminalOptions { viewport: Viewport::Fixed(area) };
    Terminal::with_options(CrosstermBackend::new(BufWriter::new(stderr())), options)
}

/// Returns true while this process controls the terminal.
pub fn is_taken() -> bool {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Restores the terminal if it was taken. Must be called before `exit`.
pub fn restore() {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = taken {
        // A failure cannot be reported.
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
        set(&before);
    }
}

/// Returns the current size of the terminal.
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
        // The size of the terminal was never set.
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
    // SAFETY: `settings` is a valid termios, read only. A failure has no effect on the run.
    unsafe { libc::tcsetattr(libc::STDERR_FILENO, libc::TCSADRAIN, settings) };
}
