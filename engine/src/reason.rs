//! The reason for which a connection ended.

/// The reason for which a connection ended.
///
/// [`Handler::closed`](crate::Handler::closed) receives it, and the ledger counts it in
/// [`closed_by`](crate::ShardLedger::closed_by). The first cause counts: its consequences do not
/// replace it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// The peer sent its FIN, and the connection ended normally after it.
    PeerFin,
    /// The peer reset the connection (ECONNRESET, ENOTCONN, or a hang-up).
    PeerReset,
    /// A send found that the peer had gone (EPIPE).
    BrokenPipe,
    /// The handler called [`Connection::close`](crate::Connection::close) or
    /// [`finish`](crate::Connection::finish).
    LocalClose,
    /// The handler called [`Connection::abort`](crate::Connection::abort).
    Aborted,
    /// No byte was received or sent for [`idle_timeout`](crate::Config::idle_timeout).
    IdleTimeout,
    /// The connection was idle for longest when a client waited for a permit
    /// ([`evict_idle`](crate::Config::evict_idle)).
    Evicted,
    /// The connection was slower than [`min_rate`](crate::Config::min_rate) when a client waited
    /// for a permit and no connection was idle.
    TooSlow,
    /// A message stayed incomplete for [`receive_timeout`](crate::Config::receive_timeout).
    ReceiveTimeout,
    /// Queued output made no progress for [`write_timeout`](crate::Config::write_timeout).
    WriteTimeout,
    /// A file made no progress for [`transfer_timeout`](crate::Config::transfer_timeout).
    TransferTimeout,
    /// The handler called [`Connection::protocol_error`](crate::Connection::protocol_error).
    ProtocolError,
    /// An incomplete message was longer than
    /// [`message_bytes_max`](crate::Config::message_bytes_max).
    MessageTooLong,
    /// More output was queued than [`output_bytes_max`](crate::Config::output_bytes_max).
    OutputTooLong,
    /// A file being sent was shorter than the range given to
    /// [`send_file`](crate::Connection::send_file). The connection ended with a FIN after the bytes
    /// that could be read.
    FileTruncated,
    /// A file being sent could not be read, or was not a regular file. The connection ended with a
    /// FIN after the bytes that could be read.
    FileFailed,
    /// [`EngineHandle::kick`](crate::EngineHandle::kick), [`Local::kick`](crate::Local::kick) or
    /// `kick_all` ended the connection.
    Kicked,
    /// The engine drained, and the connection had no work in progress.
    Drained,
    /// [`EngineHandle::stop`](crate::EngineHandle::stop) or the drain deadline reset the
    /// connection.
    Stopped,
    /// A callback of the connection panicked.
    HandlerPanicked,
    /// The network failed, for example with ETIMEDOUT, EHOSTUNREACH or ENETDOWN.
    NetworkError,
    /// The connection's shard failed.
    ShardFailed,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: &'static [Self] = &Self::EACH;

    pub(crate) const EACH: [Self; 22] = [
        Self::PeerFin,
        Self::PeerReset,
        Self::BrokenPipe,
        Self::LocalClose,
        Self::Aborted,
        Self::IdleTimeout,
        Self::Evicted,
        Self::TooSlow,
        Self::ReceiveTimeout,
        Self::WriteTimeout,
        Self::TransferTimeout,
        Self::ProtocolError,
        Self::MessageTooLong,
        Self::OutputTooLong,
        Self::FileTruncated,
        Self::FileFailed,
        Self::Kicked,
        Self::Drained,
        Self::Stopped,
        Self::HandlerPanicked,
        Self::NetworkError,
        Self::ShardFailed,
    ];

    /// The reason's name in logs and in the ledger: `peer_fin`, `idle_timeout` and so on.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerFin => "peer_fin",
            Self::PeerReset => "peer_reset",
            Self::BrokenPipe => "broken_pipe",
            Self::LocalClose => "local_close",
            Self::Aborted => "aborted",
            Self::IdleTimeout => "idle_timeout",
            Self::Evicted => "evicted",
            Self::TooSlow => "too_slow",
            Self::ReceiveTimeout => "receive_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::TransferTimeout => "transfer_timeout",
            Self::ProtocolError => "protocol_error",
            Self::MessageTooLong => "message_too_long",
            Self::OutputTooLong => "output_too_long",
            Self::FileTruncated => "file_truncated",
            Self::FileFailed => "file_failed",
            Self::Kicked => "kicked",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
            Self::HandlerPanicked => "handler_panicked",
            Self::NetworkError => "network_error",
            Self::ShardFailed => "shard_failed",
        }
    }

    /// The reason that belongs to an errno of a receive, send or connect: [`Self::PeerReset`] for
    /// ECONNRESET and ENOTCONN, [`Self::BrokenPipe`] for EPIPE, [`Self::NetworkError`] for all
    /// others.
    #[must_use]
    pub const fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ECONNRESET | libc::ENOTCONN => Self::PeerReset,
            libc::EPIPE => Self::BrokenPipe,
            _ => Self::NetworkError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_named_apart() {
        let mut names = std::collections::HashSet::new();
        for (at, reason) in Reason::EACH.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert!(names.insert(reason.name()));
        }
    }
}
