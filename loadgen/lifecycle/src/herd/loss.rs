//! Failed connects and lost connections.

use serde::Serialize;
use std::io;
use std::time::Duration;

crate::named! {
    /// The reason why a connect failed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ConnectFailure {
        /// The server refused the connect (ECONNREFUSED).
        Refused = "refused",
        /// No answer within `--timeout`.
        Timeout = "timeout",
        /// The server reset the connection during the connect.
        Reset = "reset",
        /// No local port was free (EADDRNOTAVAIL).
        NoPort = "no_port",
        /// Any other error; the first message describes it.
        Other = "other",
    }
}

impl ConnectFailure {
    /// Classifies an error of connect(2) or of a socket.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::ConnectionReset => Self::Reset,
            io::ErrorKind::AddrNotAvailable => Self::NoPort,
            _ => Self::Other,
        }
    }
}

crate::named! {
    /// The way in which a connection was lost.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
    #[serde(rename_all = "snake_case")]
    pub enum How {
        /// The server closed it with a FIN.
        Fin = "fin",
        /// The server reset it, or a send failed.
        Reset = "reset",
        /// No answer to a probe within `--timeout`.
        Unanswered = "unanswered",
        /// An answer had wrong bytes.
        WrongBytes = "wrong_bytes",
        /// A status of 400 or more, or a packet server's ERROR.
        BadStatus = "bad_status",
        /// The server sent bytes without a probe.
        Unasked = "unasked",
        /// The received bytes violate the protocol.
        Protocol = "protocol",
    }
}

/// One lost connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct Loss {
    pub connection: u64,
    pub how: How,
    pub at_s: f64,
    pub age_s: f64,
    pub silent_s: f64,
    pub answers: u64,
    pub during_probe: bool,
    pub detail: String,
}

/// Maximum number of losses kept with details; further ones are only counted.
const LOSSES_KEPT_MAX: usize = 100;
/// Minimum number of similar losses for a hint.
const ALIKE_MIN: u64 = 3;
/// Tolerance for the resolution of a server's timers.
const TICK_S: f64 = 1.5;

/// All lost connections.
#[derive(Debug, Default)]
pub struct Losses {
    counts: [u64; How::ALL.len()],
    during_probe: u64,
    first: Vec<Loss>,
    /// Number of connections that the server closed while no probe was in flight, and the shortest
    /// and longest silence and age at that time.
    idle: u64,
    silence_s: (f64, f64),
    age_s: (f64, f64),
}

impl Losses {
    /// Counts a loss.
    pub fn count(&mut self, loss: Loss) {
        self.counts[loss.how as usize] += 1;
        self.during_probe += u64::from(loss.during_probe);
        if matches!(loss.how, How::Fin | How::Reset) && !loss.during_probe {
            let widen = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
            if self.idle == 0 {
                self.silence_s = (loss.silent_s, loss.silent_s);
                self.age_s = (loss.age_s, loss.age_s);
            }
            self.silence_s = widen(self.silence_s, loss.silent_s);
            self.age_s = widen(self.age_s, loss.age_s);
            self.idle += 1;
        }
        if self.first.len() < LOSSES_KEPT_MAX {
            self.first.push(loss);
        }
    }

    /// Returns the number of connections lost in that way.
    #[must_use]
    pub const fn of(&self, how: How) -> u64 {
        self.counts[how as usize]
    }

    /// Returns the number of lost connections.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the number of connections lost during a probe.
    #[must_use]
    pub const fn during_probe(&self) -> u64 {
        self.during_probe
    }

    /// Returns the first losses, with details.
    #[must_use]
    pub fn first(&self) -> &[Loss] {
        &self.first
    }

    /// Returns a hint if the losses look like a timeout of the server.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let alike = |(low, high): (f64, f64)| high - low <= TICK_S.max(high / 20.0);
        let seconds = |(low, high): (f64, f64)| match high - low < 0.1 {
            true => format!("{high:.1} s"),
            false => format!("{low:.1} to {high:.1} s"),
        };
        if self.idle < ALIKE_MIN || self.idle * 10 < self.total() * 9 {
            return None;
        }
        let idle = self.idle;
        if alike(self.silence_s) && self.silence_s.0 >= TICK_S / 2.0 {
            Some(format!(
                "{idle} connections were closed after {} without data, which looks like the \
                 server's idle timeout; set --probe-every below it or raise the timeout",
                seconds(self.silence_s)
            ))
        } else if alike(self.age_s) && self.age_s.0 >= TICK_S / 2.0 {
            Some(format!(
                "{idle} connections were closed at an age of {}, regardless of the last probe, \
                 which looks like the server's limit for the age of a connection",
                seconds(self.age_s)
            ))
        } else {
            None
        }
    }
}

/// Failed connects by kind, with the first message of each kind.
#[derive(Debug, Default)]
pub struct Failures {
    counts: [u64; ConnectFailure::ALL.len()],
    first: [Option<String>; ConnectFailure::ALL.len()],
}

impl Failures {
    /// Counts a failed connect.
    pub fn count(&mut self, kind: ConnectFailure, detail: impl FnOnce() -> String) {
        self.counts[kind as usize] += 1;
        self.first[kind as usize].get_or_insert_with(detail);
    }

    /// Returns the number of failures of a kind.
    #[must_use]
    pub const fn of(&self, kind: ConnectFailure) -> u64 {
        self.counts[kind as usize]
    }

    /// Returns the first message of a kind.
    #[must_use]
    pub fn first(&self, kind: ConnectFailure) -> Option<&str> {
        self.first[kind as usize].as_deref()
    }

    /// Returns the number of failures.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Converts nanoseconds to seconds, the unit in reports.
pub(super) const fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(how: How, age_s: f64, silent_s: f64) -> Loss {
        Loss {
            connection: 1,
            how,
            at_s: age_s,
            age_s,
            silent_s,
            answers: 0,
            during_probe: false,
            detail: String::new(),
        }
    }

    fn hint(losses: impl IntoIterator<Item = Loss>) -> String {
        let mut all = Losses::default();
        losses.into_iter().for_each(|loss| all.count(loss));
        all.hint().unwrap_or_default()
    }

    #[test]
    fn kinds_are_numbered_in_order_and_named_apart() {
        let mut names = std::collections::HashSet::new();
        for (at, how) in How::ALL.into_iter().enumerate() {
            assert_eq!(how as usize, at);
            assert!(names.insert(how.name()));
            assert_eq!(serde_json::to_value(how).expect("a name"), how.name());
        }
        names.clear();
        for (at, kind) in ConnectFailure::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
            assert!(names.insert(kind.name()));
        }
    }

    #[test]
    fn an_idle_timeout_of_the_servers_is_recognised() {
        let text = hint((0..50).map(|n| loss(How::Fin, f64::from(n), 60.0 + f64::from(n) / 100.0)));
        assert!(
            text.contains("50 connections were closed after 60.0 to 60.5 s without data"),
            "{text}"
        );
        assert!(text.contains("idle timeout"), "{text}");
    }

    #[test]
    fn a_limit_to_the_age_is_recognised() {
        let text = hint((0..50).map(|n| loss(How::Reset, 30.0, f64::from(n) / 5.0)));
        assert!(text.contains("50 connections were closed at an age of 30.0 s"), "{text}");
    }

    #[test]
    fn what_has_no_pattern_is_given_none() {
        assert_eq!(hint([]), "");
        assert_eq!(hint([loss(How::Fin, 9.0, 9.0)]), "", "one is none");
        assert_eq!(hint((0..50).map(|n| loss(How::Fin, f64::from(n), f64::from(n)))), "");
        assert_eq!(hint((0..50).map(|_| loss(How::Unanswered, 60.0, 60.0))), "");
        let mixed = (0..50).map(|n| loss([How::Fin, How::WrongBytes][n % 2], 60.0, 60.0));
        assert_eq!(hint(mixed), "");
    }

    #[test]
    fn losses_beyond_the_first_are_counted() {
        let mut all = Losses::default();
        (0..1_000).for_each(|_| all.count(loss(How::Reset, 1.0, 1.0)));
        assert_eq!((all.first().len(), all.total(), all.of(How::Reset)), (100, 1_000, 1_000));
    }
}
