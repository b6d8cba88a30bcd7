//! Well-behaved clients: their requests, and the check of each reply.
//!
//! Load and herds send the requests of a [`Protocol`]: `ringload` on connections of the engine, and
//! [`herd`](crate::herd) on plain sockets.

pub mod echo;
pub mod http;
pub mod packets;

use crate::fault::Fault;

/// A complete reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Position of the answered request among those in flight; 0 is the oldest.
    pub place: usize,
    /// The status, if the protocol has one.
    pub status: Option<u16>,
    /// An error in a complete reply; the connection stays usable.
    pub fault: Option<Fault>,
    /// The peer has announced that it answers nothing more on this connection.
    pub last: bool,
}

/// The result of parsing received bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Number of bytes consumed. The caller passes the rest again, followed by more.
    pub used: usize,
    /// Number of bytes that the rest must reach before it is passed again.
    pub need: usize,
    /// The reply that ended with the last consumed byte.
    pub answer: Option<Answer>,
}

/// A protocol: makes requests and checks replies. One value per shard.
pub trait Protocol: 'static {
    /// The state of one connection.
    type State: Send + 'static;

    /// True if the peer may send data without a request. `receive` gets it too and must validate
    /// it.
    const MAY_SPEAK_UNASKED: bool = false;

    /// True if a reply without a request may announce the end of the connection, see
    /// [`is_goodbye`](Self::is_goodbye).
    const MAY_SAY_GOODBYE: bool = false;

    /// Returns true if this reply, which no request asked for, only announces the end of an idle
    /// connection.
    fn is_goodbye(_answer: &Answer) -> bool {
        false
    }

    /// Creates the state of a new connection; `number` is unique in this run.
    fn open(&self, number: u64) -> Self::State {
        self.resume(number, 0)
    }

    /// Creates the state of connection `number` after `requests` requests and their replies, so
    /// that an idle connection needs none.
    fn resume(&self, number: u64, requests: u64) -> Self::State;

    /// Returns true if no reply is partially received.
    fn is_between_replies(&self, state: &Self::State) -> bool;

    /// Returns true if the requests in flight may be repeated on a new connection when the server
    /// has ended a kept one before any byte of their replies: to execute them twice has the effect
    /// of executing them once.
    fn may_repeat(&self, _state: &Self::State) -> bool {
        false
    }

    /// Takes the requests in flight back, to send the same ones on other connections.
    fn take_back(&mut self, _state: &mut Self::State) {}

    /// Passes the bytes of the next `count` requests to `send` and returns their number.
    fn request(&mut self, state: &mut Self::State, count: usize, send: impl FnMut(&[u8])) -> u64;

    /// Consumes bytes up to the end of the next reply, or all of them.
    ///
    /// # Errors
    /// An error that makes the connection unusable.
    fn receive(&mut self, state: &mut Self::State, bytes: &[u8]) -> Result<Step, Fault>;

    /// Handles the peer's FIN while a reply is outstanding. Returns the reply if the FIN ends one.
    ///
    /// # Errors
    /// The FIN does not end a reply.
    fn end(&mut self, state: &mut Self::State) -> Result<Answer, Fault>;

    /// Takes accepted replies that turned out to be wrong when later replies arrived: the number of
    /// the connection, and the error. At the end of the run (`is_over`) no further reply can
    /// decide.
    fn late(&mut self, _is_over: bool) -> Vec<(u64, Fault)> {
        Vec::new()
    }
}
