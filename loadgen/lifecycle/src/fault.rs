//! Errors of connections and replies, each kind with its own counter.

use std::fmt;

/// The kind of an error; each kind has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server refused a connect (ECONNREFUSED).
    ConnectRefused,
    /// A connect failed for any other reason.
    ConnectFailed,
    /// No local port was free for a connect (EADDRNOTAVAIL).
    NoPort,
    /// The peer reset a connection, or a send failed.
    Reset,
    /// The peer closed a connection with a reply outstanding.
    Eof,
    /// No reply within `--timeout`.
    Timeout,
    /// A reply has wrong bytes.
    WrongBytes,
    /// A reply has bytes that belong to another connection, or to another place of this one.
    ForeignBytes,
    /// A status of 400 or more, or a packet server's ERROR.
    BadStatus,
    /// The received bytes violate the protocol.
    Protocol,
    /// The network or ringload itself failed; the message says how.
    Other,
}

impl ErrorKind {
    /// Every kind, in numeric order.
    pub const ALL: [Self; 11] = [
        Self::ConnectRefused,
        Self::ConnectFailed,
        Self::NoPort,
        Self::Reset,
        Self::Eof,
        Self::Timeout,
        Self::WrongBytes,
        Self::ForeignBytes,
        Self::BadStatus,
        Self::Protocol,
        Self::Other,
    ];

    /// The name in JSON: `connect_refused`, `wrong_bytes`, …
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect_refused",
            Self::ConnectFailed => "connect_failed",
            Self::NoPort => "no_port",
            Self::Reset => "reset",
            Self::Eof => "eof",
            Self::Timeout => "timeout",
            Self::WrongBytes => "wrong_bytes",
            Self::ForeignBytes => "foreign_bytes",
            Self::BadStatus => "bad_status",
            Self::Protocol => "protocol",
            Self::Other => "other",
        }
    }
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The counter that it increments.
    pub kind: ErrorKind,
    /// The observation, for people.
    pub detail: String,
}

impl Fault {
    /// Creates an error of a kind.
    pub fn new(kind: ErrorKind, detail: impl fmt::Display) -> Self {
        Self { kind, detail: detail.to_string() }
    }
}
