//! Values that describe a connection.

use crate::address::Peer;
use crate::id::ConnectionId;
use crate::reason::Reason;
use crate::ring::{Errno, Traffic};
use std::fmt;
use std::io;
use std::time::Duration;

/// A snapshot of one open connection, taken by its shard.
///
/// [`EngineHandle::find`](crate::EngineHandle::find),
/// [`EngineHandle::list`](crate::EngineHandle::list) and the same methods of
/// [`Local`](crate::Local) return it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The connection's id.
    pub id: ConnectionId,
    /// The peer's address, if it has one.
    pub peer: Peer,
    /// The way the connection came to the engine: a listener or a connect.
    pub origin: Origin,
    /// The connection's state: `open`, `half_closed_by_peer`, `half_closed_by_us`, `draining`
    /// (`close` was called and output is still queued) or `lingering` (our FIN has left and the
    /// peer's is awaited). The file `ARCHITECTURE.md` of this crate has the table of states.
    pub state: &'static str,
    /// The time since the connection was opened, with a resolution of 1 ms.
    pub age: Duration,
    /// The time since bytes were last received or sent, with a resolution of 1 ms.
    pub idle: Duration,
    /// The queued output in bytes. Files do not count.
    pub queued_bytes: usize,
    /// The number given to [`Connection::set_user_data`](crate::Connection::set_user_data). Default
    /// 0.
    pub user_data: u64,
}

impl ConnectionInfo {
    /// A snapshot of a connection that was opened just now, for tests of code that shows
    /// connections. It is `open`, and the other fields are 0.
    #[must_use]
    pub fn new(id: ConnectionId, peer: Peer, origin: Origin) -> Self {
        Self {
            id,
            peer,
            origin,
            state: "open",
            age: Duration::ZERO,
            idle: Duration::ZERO,
            queued_bytes: 0,
            user_data: 0,
        }
    }
}

/// A connection that has ended, as [`Local::ended`](crate::Local::ended) describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedConnection {
    /// The peer's address, if it has one.
    pub peer: Peer,
    /// The way the connection came to the engine: a listener or a connect.
    pub origin: Origin,
    /// The time from `opened` to `closed`, with a resolution of 1 ms.
    pub lifetime: Duration,
    /// The bytes of the connection. `None` if
    /// [`Config::count_traffic`](crate::Config::count_traffic) is off, if the kernel gave no
    /// answer, or if it is a connection of a Unix socket, whose bytes the kernel does not count.
    pub traffic: Option<Traffic>,
    /// The errno of the operation whose failure ended the connection, for
    /// [`Reason::PeerReset`](crate::Reason::PeerReset) and
    /// [`Reason::NetworkError`](crate::Reason::NetworkError). `None` if a poll reported the end
    /// without an errno, or if the connection ended otherwise.
    pub error: Option<Errno>,
    /// The number given to [`Connection::set_user_data`](crate::Connection::set_user_data).
    pub user_data: u64,
}

/// The reason why a connection did not become a member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JoinGroupError {
    /// The connection is a member of 4,096 groups.
    TooMany,
}

impl fmt::Display for JoinGroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is a member of 4,096 groups, which is the limit")
    }
}

impl std::error::Error for JoinGroupError {}

/// A range of the stream that was forwarded, whole or not
/// ([`Handler::forwarded`](crate::Handler::forwarded)).
#[derive(Debug)]
#[non_exhaustive]
pub struct Forwarded {
    /// The bytes that were taken off the stream. [`Handler::received`](crate::Handler::received)
    /// gets those behind them next.
    pub bytes: u64,
    /// `None` if the range is whole. `UnexpectedEof`: the peer's FIN came before the end of the
    /// range. EPIPE: the other connection takes no more output. ECANCELED:
    /// [`Connection::cancel_forward`](crate::Connection::cancel_forward) was called.
    pub error: Option<io::Error>,
}

/// The reason why no range of a stream is forwarded
/// ([`Connection::forward`](crate::Connection::forward)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartForwardError {
    /// The connection is ending.
    Ending,
    /// A range of the connection goes to a file or to another connection already.
    InProgress,
    /// A range of another connection goes to the other connection already.
    TargetTaken,
    /// The other connection is not on this shard, or takes no more output.
    NoTarget,
}

impl fmt::Display for StartForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ending => "the connection is ending",
            Self::InProgress => "a range of the connection goes somewhere else already",
            Self::TargetTaken => "a range of another connection goes to the target already",
            Self::NoTarget => "the target is not on this shard, or takes no more output",
        })
    }
}

impl std::error::Error for StartForwardError {}

/// A marker that was reached ([`Connection::mark_output`](crate::Connection::mark_output),
/// [`mark_acknowledged`](crate::Connection::mark_acknowledged)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentMarker {
    /// The marker's tag.
    pub tag: u64,
    /// The connection, which may have ended meanwhile.
    pub connection: ConnectionId,
    /// The time at which the last byte left, was found to be acknowledged, or the connection ended,
    /// as [`Local::now`](crate::Local::now) tells it.
    pub at: Duration,
    /// The bytes between this marker and the one before of the same kind that have not left, or
    /// were not acknowledged. 0 unless the connection has ended. [`u64::MAX`] if the connection was
    /// being cut when the marker was set.
    pub unsent_bytes: u64,
    /// The reason for the end of the connection, if it came before all bytes before the marker had
    /// left, or were acknowledged.
    pub reason: Option<Reason>,
}

/// The way a connection came to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The engine accepted the connection. The number is the listener's: its position in
    /// [`Config::listeners`](crate::Config::listeners), from 0, or the one that
    /// [`EngineHandle::add_listener`](crate::EngineHandle::add_listener) has returned.
    Listener(u16),
    /// The engine connected out, with the tag given to [`Local::connect`](crate::Local::connect) or
    /// [`Local::keep_connected`](crate::Local::keep_connected), or to the same methods of
    /// [`EngineHandle`](crate::EngineHandle).
    Connected(u64),
}

/// The state of a connection's output queue: whether the handler should go on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "stop sending when the queue is full; at output_bytes_max nothing is queued"]
pub enum SendStatus {
    /// The queue is not full: more output is welcome.
    Ready,
    /// The queue rose above `output_high_bytes`: the handler should stop sending.
    ///
    /// The engine calls [`Handler::writable`](crate::Handler::writable) when the queue is below
    /// `output_low_bytes`. Until then it delivers no more input, so that a handler that only
    /// answers requests needs no code for backpressure.
    Full,
    /// Nothing was queued, because the queue would have become longer than `output_bytes_max`. The
    /// connection goes on, and its stream has no gap yet: send the bytes later, or reset the
    /// connection.
    ///
    /// [`Handler::writable`](crate::Handler::writable) follows if the queue is not below
    /// `output_low_bytes`. Otherwise the bytes are too long for the queue: send them in pieces.
    Refused,
    /// Nothing was queued, and nothing will be:
    /// [`Connection::shutdown`](crate::Connection::shutdown) was called, or the connection is
    /// ending. There is no [`Handler::writable`](crate::Handler::writable) any more.
    Closed,
}
