//! Why a connection ended.

/// Why a connection ended; given to [`Handler::closed`](crate::Handler::closed) and counted. The
/// first cause counts: what follows from it does not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The peer ended it with FIN, and we had nothing more to say.
    PeerFin,
    /// The peer reset it (ECONNRESET).
    PeerReset,
    /// We sent to a peer that had gone (EPIPE).
    BrokenPipe,
    /// [`Connection::close`](crate::Connection::close) or `shutdown` was called.
    LocalClose,
    /// [`Connection::abort`](crate::Connection::abort) was called.
    Aborted,
    /// Nothing received or sent for `idle_timeout`.
    IdleTimeout,
    /// A message was begun and not finished within `receive_timeout`.
    ReceiveTimeout,
    /// Output made no progress for `write_timeout`.
    WriteTimeout,
    /// A file made no progress for `transfer_timeout`.
    TransferTimeout,
    /// [`Connection::protocol_error`](crate::Connection::protocol_error) was called.
    ProtocolError,
    /// A message longer than `message_bytes_max`.
    MessageTooLong,
    /// More queued output than `output_bytes_max`.
    OutputTooLong,
    /// A file being sent became shorter than announced.
    FileTruncated,
    /// A file being sent could not be read.
    FileFailed,
    /// Ended by [`Remote::kick`](crate::Remote::kick), `kick_all` or `Local::kick`.
    Kicked,
    /// A drain was begun, and it had nothing more to finish.
    Drained,
    /// Reset by [`Remote::stop`](crate::Remote::stop), or because a drain reached its deadline.
    Stopped,
    /// A callback panicked.
    HandlerPanicked,
    /// The network failed: ETIMEDOUT, EHOSTUNREACH, ENETDOWN and their like.
    NetworkError,
    /// The shard it lived on failed.
    ShardFailed,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::PeerFin,
        Self::PeerReset,
        Self::BrokenPipe,
        Self::LocalClose,
        Self::Aborted,
        Self::IdleTimeout,
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

    /// The name used in logs and in the ledger: `peer_fin`, `idle_timeout`, …
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerFin => "peer_fin",
            Self::PeerReset => "peer_reset",
            Self::BrokenPipe => "broken_pipe",
            Self::LocalClose => "local_close",
            Self::Aborted => "aborted",
            Self::IdleTimeout => "idle_timeout",
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

    /// The reason that an errno of a receive, send or connect stands for.
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
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            assert!(names.insert(reason.name()));
        }
    }
}
