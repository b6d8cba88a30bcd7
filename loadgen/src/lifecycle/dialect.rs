//! What scripts and oracles need to know of a protocol.

use super::finding::Finding;
use std::fmt;
use std::time::Duration;

/// What the bytes of a connection are a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Of the run.
    pub seed: u64,
    /// Of the connection in it. A script that connects more than once has a number for each: see
    /// [`Key::of_connect`].
    pub number: u64,
}

impl Key {
    /// Numbers of scripts are below `1 << CONNECT_SHIFT`.
    pub const CONNECT_SHIFT: u32 = 40;

    /// Of the script's connect `at`, counted from 0: bytes of the connection before it are foreign
    /// to it.
    #[must_use]
    pub const fn of_connect(self, at: u64) -> Self {
        Self { seed: self.seed, number: self.number | (at << Self::CONNECT_SHIFT) }
    }
}

/// `connection 42`, or `connection 42's connect 2` of a script that connects more than once.
impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.number >> Self::CONNECT_SHIFT;
        write!(out, "connection {}", self.number & ((1 << Self::CONNECT_SHIFT) - 1))?;
        if at > 0 { write!(out, "'s connect {}", at + 1) } else { Ok(()) }
    }
}

/// One request as a script writes it, without white space, commas and `'`: `64` of an echo,
/// `get:/a/b` of HTTP, `digest:100` of packets.
pub type Phrase = String;

/// One request's place in the stream of bytes that a connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its first byte.
    pub start: u64,
    /// Behind its header: between `start` and `end`. A protocol without headers has it at `start`.
    pub head_end: u64,
    /// Behind its last byte.
    pub end: u64,
    /// Its reply has at least so many bytes; 0: it has none, or nothing is known of it.
    pub reply_bytes_min: u64,
    /// The reply is, or the request carries, a file: what is cut in it is cut in a file.
    pub is_file: bool,
    /// It is well formed: a server that serves answers it.
    pub is_proper: bool,
}

/// All that a connection says if nothing cuts it short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speech {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The requests in them, in order, without gaps.
    pub requests: Vec<Request>,
}

/// Listens to one connection, and checks each byte as it comes.
pub trait Ear: Send {
    /// Takes the next bytes heard, when `said` bytes of the speech had been handed to the kernel.
    ///
    /// # Errors
    /// What no server may say here. The ear is of no use after that.
    fn hear(&mut self, bytes: &[u8], said: u64) -> Result<(), Finding>;

    /// The server's FIN came behind what was heard.
    ///
    /// # Errors
    /// It cut a reply in two, whatever the client did before.
    fn fin(&mut self) -> Result<(), Finding>;

    /// Whole replies heard so far.
    fn replies(&self) -> u64;

    /// The server has announced that it answers nothing more on this connection.
    fn is_last(&self) -> bool;
}

/// How a connection ended, as seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The connect was refused.
    Refused,
    /// The connect failed otherwise: errno.
    ConnectFailed(i32),
    /// The connect got no answer within the limit.
    ConnectTimeout,
    /// The server's FIN.
    Fin,
    /// The server's RST, seen by a receive, a send, or a poll.
    Reset,
    /// The script had the client end it, and the server had not ended it before.
    Ours,
    /// The script waited for the server, and nothing came within the limit.
    Silence,
}

/// What the client did, of all that matters for what it may expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Bytes of the speech handed to the kernel.
    pub said: u64,
    /// It has sent its FIN (and perhaps goes on reading).
    pub fin: bool,
    /// It has reset the connection, closed it, or vanished: nothing is owed any more, and nothing
    /// that the server does then is seen.
    pub gone: bool,
    /// It read to the end: the server's FIN or RST, or until nothing came for the whole limit.
    /// Where it did not, what is missing may be on its way.
    pub read_to_end: bool,
    /// It read nothing for a while although it had said something: a stalled reader.
    pub stalled: bool,
    /// The longest it said nothing: from the connect to the first byte, between two, or behind the
    /// last one to the ending.
    pub silent: Duration,
}

/// What was seen of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What we did.
    pub deeds: Deeds,
    /// Bytes heard.
    pub heard: u64,
    /// Whole replies among them.
    pub replies: u64,
    /// The server had announced its end.
    pub announced_end: bool,
    /// What an ear found.
    pub finding: Option<Finding>,
    /// How it ended.
    pub ending: Ending,
    /// From the deed that asks for a reaction (FIN, or the last byte said) to the server's ending.
    pub reaction: Option<Duration>,
}

/// What a [`Dialect`] makes of a [`Sight`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happened, in a few words that are the same for all that went alike: a cell of the
    /// matrix counts them. `replied, fin`, `no reply, reset`.
    pub outcome: String,
    /// What was wrong with it.
    pub finding: Option<Finding>,
}

/// The limits by which an oracle judges.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time the server may take for a reply or a reaction.
    pub patience: Duration,
    /// The server ends connections that are silent for so long (`--deadline`), if it was told.
    pub deadline: Option<Duration>,
    /// The server may be full, and then turn a connection away before its first byte.
    pub may_reject: bool,
}

impl Limits {
    /// Longest wait for a connect: a SYN that is lost, be it for a reset from the same port just
    /// before it, is sent again after one second and after two more (tcp(7), tcp_syn_retries).
    #[must_use]
    pub fn connect_patience(&self) -> Duration {
        self.patience.max(Duration::from_secs(4))
    }
}

/// One protocol, as spoken by clients that misbehave. One value per run, shared by all its threads.
pub trait Dialect: Send + Sync {
    /// `echo`, `http`, `packets`.
    fn name(&self) -> &'static str;

    /// What a connection says that says `phrases`.
    ///
    /// # Errors
    /// A phrase that is none, in words: scripts come from command lines.
    fn speech(&self, key: Key, phrases: &[Phrase]) -> Result<Speech, String>;

    /// Who listens to such a connection.
    ///
    /// # Errors
    /// A phrase that is none.
    fn ear(&self, key: Key, phrases: &[Phrase]) -> Result<Box<dyn Ear>, String>;

    /// Phrases for a connection, drawn with `random`, which answers a number below its argument.
    /// Of a connection to be cut `in_file`, at least one is of a file, if the protocol has files.
    fn draw(&self, in_file: bool, random: &mut dyn FnMut(u64) -> u64) -> Vec<Phrase>;

    /// Whether what was seen of a connection that was to say `speech` is allowed.
    fn judge(&self, speech: &Speech, sight: &Sight, limits: &Limits) -> Verdict;
}
