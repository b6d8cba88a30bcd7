//! The signals of the daemon.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM, SIGINT, SIGQUIT | drain; a second one ends the process at once |
//! | SIGHUP | drain if the controlling terminal has hung up, else read the configuration again |
//! | SIGUSR1 | open the logs again |
//! | SIGUSR2 | not supported yet |

use crate::access_log::Reopening;
use crate::messages;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::fs::File;

/// The installed handlers.
pub struct Handlers {
    signals: Signals,
    /// The process had a controlling terminal when it started.
    had_terminal: bool,
    log: Option<Reopening>,
    /// Reads the configuration again.
    reload: Box<dyn Fn() + Send>,
}

impl Handlers {
    /// Installs the handlers. SIGHUP stays ignored if it is, as nohup(1) asks for.
    ///
    /// # Errors
    /// A message for the user.
    pub fn install(
        log: Option<Reopening>,
        reload: impl Fn() + Send + 'static,
    ) -> Result<Self, String> {
        let mut handled = vec![SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2];
        if !is_ignored(SIGHUP) {
            handled.push(SIGHUP);
        }
        let signals = Signals::new(handled)
            .map_err(|error| format!("cannot install the handlers of signals: {error}"))?;
        Ok(Self { signals, had_terminal: has_terminal(), log, reload: Box::new(reload) })
    }

    /// Waits for a signal that starts a drain, and obeys the others meanwhile. Returns `false` if
    /// no further signal can come.
    pub fn wait_for_drain(&mut self) -> bool {
        self.wait(true)
    }

    /// The same for a second signal, which ends the process at once. The hang-up of a terminal is
    /// none: the kernel and the shell may both report it.
    pub fn wait_for_end(&mut self) -> bool {
        self.wait(false)
    }

    fn wait(&mut self, for_hang_up: bool) -> bool {
        for signal in self.signals.forever() {
            match signal {
                SIGHUP if self.had_terminal && !has_terminal() => {
                    if for_hang_up {
                        return true;
                    }
                }
                SIGHUP => (self.reload)(),
                SIGUSR1 => reopen_logs(self.log.as_ref()),
                SIGUSR2 => {
                    messages::warn("SIGUSR2: handing over to a new binary is not supported yet");
                }
                _ => return true,
            }
        }
        false
    }
}

fn reopen_logs(access: Option<&Reopening>) {
    if let Some(log) = access {
        log.reopen();
    }
    if messages::reopen() || access.is_some() {
        messages::debug("SIGUSR1: the logs were opened again");
    } else {
        messages::warn("SIGUSR1: no file is written that could be opened again");
    }
}

/// Returns whether the process has a controlling terminal that has not hung up (tty(4)).
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Returns whether the process ignores a signal (proc(5), `SigIgn`).
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
