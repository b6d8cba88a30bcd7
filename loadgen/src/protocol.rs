//! What the closed loop needs to know of a protocol.

use std::fmt;

/// What can go wrong, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nobody listens there (ECONNREFUSED).
    ConnectRefused,
    /// A connect failed in any other way.
    ConnectFailed,
    /// The peer reset a connection, or it broke while we sent.
    Reset,
    /// The peer closed a connection that it owed a reply.
    Eof,
    /// No reply within `--timeout`.
    Timeout,
    /// Other bytes came back than must.
    WrongBytes,
    /// Bytes came back that belong to another connection, or to another place of this one.
    ForeignBytes,
    /// A status of 400 or more; a packet server's ERROR.
    BadStatus,
    /// What came back is not the protocol.
    Protocol,
    /// The network or ringload itself failed; the first message says how.
    Other,
}

impl ErrorKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::ConnectRefused,
        Self::ConnectFailed,
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

/// One thing that went wrong, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it counts as.
    pub kind: ErrorKind,
    /// What exactly was seen.
    pub detail: String,
}

impl Fault {
    /// A fault of that kind.
    pub fn new(kind: ErrorKind, detail: impl fmt::Display) -> Self {
        Self { kind, detail: detail.to_string() }
    }
}

/// A complete reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which request it answers: its place among those without a reply, the oldest being 0.
    pub place: usize,
    /// Its status, where the protocol has one.
    pub status: Option<u16>,
    /// What was wrong with it although it was complete: the connection stays usable.
    pub fault: Option<Fault>,
    /// The peer said that it will answer nothing more on this connection.
    pub last: bool,
}

/// What a protocol made of the bytes it was given.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// So many of them were used; the rest must be given again, with more behind it.
    pub used: usize,
    /// The rest need not be given again before it has so many bytes.
    pub need: usize,
    /// The reply that ended there.
    pub answer: Option<Answer>,
}

/// Requests out, replies in and checked. One value per shard.
pub trait Protocol: 'static {
    /// What is kept of one connection.
    type State: Send + 'static;

    /// The peer may send what is no reply to anything. It goes to `receive` too then, whose
    /// business it is to tell what may come.
    const MAY_SPEAK_UNASKED: bool = false;

    /// The state of a new connection; `number` is its own in this run.
    fn open(&self, number: u64) -> Self::State;

    /// Nothing of a reply has come that is not complete.
    fn is_between_replies(&self, state: &Self::State) -> bool;

    /// Hands the bytes of the next `count` requests to `send`; returns how many bytes.
    fn request(&mut self, state: &mut Self::State, count: usize, send: impl FnMut(&[u8])) -> u64;

    /// Uses bytes up to the end of the next reply, or as far as they go.
    ///
    /// # Errors
    /// What makes the connection unusable.
    fn receive(&mut self, state: &mut Self::State, bytes: &[u8]) -> Result<Step, Fault>;

    /// The peer has sent its FIN while it owed a reply: the reply that ends with it, if it is
    /// one.
    ///
    /// # Errors
    /// Why it is none.
    fn end(&mut self, state: &mut Self::State) -> Result<Answer, Fault>;
}
