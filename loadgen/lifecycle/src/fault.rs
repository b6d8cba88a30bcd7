//! Errors of connections and replies, each kind with its own counter.

use std::fmt;

crate::named! {
    /// The kind of an error; each kind has its own counter.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ErrorKind {
        /// The server refused a connect (ECONNREFUSED).
        ConnectRefused = "connect_refused",
        /// A connect failed for any other reason.
        ConnectFailed = "connect_failed",
        /// No local port was free for a connect (EADDRNOTAVAIL).
        NoPort = "no_port",
        /// The peer reset a connection, or a send failed.
        Reset = "reset",
        /// The peer closed a connection with a reply outstanding.
        Eof = "eof",
        /// No reply within `--timeout`.
        Timeout = "timeout",
        /// A reply has wrong bytes.
        WrongBytes = "wrong_bytes",
        /// A reply has bytes that belong to another connection, or to another place of this one.
        ForeignBytes = "foreign_bytes",
        /// A status of 400 or more, or a packet server's ERROR.
        BadStatus = "bad_status",
        /// The received bytes violate the protocol.
        Protocol = "protocol",
        /// The network or ringload itself failed; the message says how.
        Other = "other",
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
