//! The interface between scripts, oracles and protocols.

use super::finding::Finding;
use std::fmt;
use std::time::Duration;

/// The key from which the bytes of a connection are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the connection in the run. A script that connects more than once has a number for
    /// each connection, see [`Key::of_connect`].
    pub number: u64,
}

impl Key {
    /// Numbers of scripts are below `1 << CONNECT_SHIFT`.
    pub const CONNECT_SHIFT: u32 = 40;

    /// Returns the key of the script's connection `at`, counted from 0. Bytes of the script's
    /// earlier connections are foreign to it.
    #[must_use]
    pub const fn of_connect(self, at: u64) -> Self {
        Self { seed: self.seed, number: self.number | (at << Self::CONNECT_SHIFT) }
    }
}

/// Shows `connection 42`, or `connection 42 (connect 2)` if the script connects more than once.
impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.number >> Self::CONNECT_SHIFT;
        write!(out, "connection {}", self.number & ((1 << Self::CONNECT_SHIFT) - 1))?;
        if at > 0 { write!(out, " (connect {})", at + 1) } else { Ok(()) }
    }
}

/// One request in the notation of scripts, without white space, commas and `'`: `64` for an echo,
/// `get:/a/b` for HTTP, `digest:100` for packets.
pub type Phrase = String;

/// The place of one request in the bytes that a connection sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Offset of its first byte.
    pub start: u64,
    /// End of its header, between `start` and `end`; equal to `start` in a protocol without
    /// headers.
    pub head_end: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// Minimum size of its reply; 0 if it has none or if the size is unknown.
    pub reply_bytes_min: u64,
    /// The request or its reply carries a file, so a fault inside it is `in_file`.
    pub is_file: bool,
    /// The request is well formed, so a server answers it.
    pub is_proper: bool,
}

/// Everything that a connection sends if nothing ends it early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The requests in the bytes, in order and without gaps.
    pub requests: Vec<Request>,
}

/// Checks the bytes that one connection receives.
pub trait Checker: Send {
    /// Checks the next received bytes; `sent` is the number of bytes sent so far.
    ///
    /// # Errors
    /// The server must not send these bytes. The checker must not be used after that.
    fn receive(&mut self, bytes: &[u8], sent: u64) -> Result<(), Finding>;

    /// Handles the server's FIN.
    ///
    /// # Errors
    /// The FIN truncates a reply.
    fn fin(&mut self) -> Result<(), Finding>;

    /// Returns the number of complete replies received.
    fn replies(&self) -> u64;

    /// Returns true if the server has announced that it answers nothing more on this connection.
    fn is_last(&self) -> bool;
}

/// The ending of a connection as the client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The connect was refused.
    Refused,
    /// The connect failed with this errno.
    ConnectFailed(i32),
    /// The connect was not answered within the limit.
    ConnectTimeout,
    /// The server sent a FIN.
    Fin,
    /// The server sent a RST, noticed by a receive, a send or a poll.
    Reset,
    /// The client ended the connection, as the script says, before the server did.
    Ours,
    /// The script waited for the server, but nothing was received within the limit.
    Silence,
}

/// The actions of the client that determine what it may expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Bytes handed to the kernel.
    pub sent: u64,
    /// The client has sent its FIN; it may still read.
    pub fin: bool,
    /// The client has reset or closed the connection, or vanished. It can expect nothing more, and
    /// does not see the server's reaction.
    pub gone: bool,
    /// The client read up to the server's FIN or RST, or until nothing was received within the
    /// limit. Otherwise missing data may still be in flight.
    pub read_to_end: bool,
    /// The client stopped reading for a while after it had sent something.
    pub stalled: bool,
    /// Longest time without sending: before the first byte, between two bytes, or after the last
    /// one.
    pub silent: Duration,
}

/// The record of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The actions of the client.
    pub actions: Actions,
    /// Bytes received.
    pub received: u64,
    /// Complete replies received.
    pub replies: u64,
    /// The server had announced the end of the connection.
    pub announced_end: bool,
    /// The finding of the checker, if any.
    pub finding: Option<Finding>,
    /// The ending.
    pub ending: Ending,
    /// Time from the client's FIN, or its last byte, to the server's ending.
    pub reaction: Option<Duration>,
}

/// The judgement of a [`Dialect`] on a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The outcome in a few words, such as `replied, fin` or `no reply, reset`. Equal outcomes have
    /// equal texts, and each cell of the matrix counts them.
    pub outcome: String,
    /// The finding, if any.
    pub finding: Option<Finding>,
}

/// The limits that an oracle applies.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time the server may take for a reply or a reaction.
    pub patience: Duration,
    /// The server's own timeout for silent connections (`--deadline`), if given.
    pub deadline: Option<Duration>,
    /// The server may be full and reject a connection before its first byte.
    pub may_reject: bool,
}

impl Limits {
    /// Returns the longest wait for a connect. The kernel repeats a lost SYN after one second and
    /// after two more (tcp(7), tcp_syn_retries). A SYN right after a reset from the same port may
    /// be lost.
    #[must_use]
    pub fn connect_patience(&self) -> Duration {
        self.patience.max(Duration::from_secs(4))
    }
}

/// One protocol for misbehaving clients. One value per run, shared by all its threads.
pub trait Dialect: Send + Sync {
    /// Returns `echo`, `http` or `packets`.
    fn name(&self) -> &'static str;

    /// Returns the bytes of a connection that sends `phrases`.
    ///
    /// # Errors
    /// Describes an invalid phrase; scripts may come from the command line.
    fn outgoing(&self, key: Key, phrases: &[Phrase]) -> Result<Outgoing, String>;

    /// Returns the checker of a connection that sends `phrases`.
    ///
    /// # Errors
    /// Describes an invalid phrase.
    fn checker(&self, key: Key, phrases: &[Phrase]) -> Result<Box<dyn Checker>, String>;

    /// Draws phrases for a connection. `random` returns a number below its argument. With
    /// `in_file`, at least one phrase transfers a file if the protocol has files.
    fn draw(&self, in_file: bool, random: &mut dyn FnMut(u64) -> u64) -> Vec<Phrase>;

    /// Judges the record of a connection that was to send `outgoing`.
    fn judge(&self, outgoing: &Outgoing, record: &Record, limits: &Limits) -> Verdict;
}
