//! What can go wrong with an engine as a whole.

use crate::ring::Errno;
use crate::ring::probe::SetupError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// An engine that could not start, or did not end well.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A value of the configuration that cannot work.
    Config {
        /// The field of [`Config`](crate::Config).
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        remedy: &'static str,
    },
    /// io_uring is missing, forbidden, or short of a limit; it says which and what to do.
    Ring(SetupError),
    /// A listener could not be set up.
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of socket(2), bind(2) or listen(2).
        source: io::Error,
    },
    /// A thread, mapping or event descriptor could not be made.
    Start {
        /// Which call failed.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// A shard's ring broke: its connections are lost, its listener is closed.
    ShardFailed {
        /// Which shard.
        shard: usize,
        /// The errno of io_uring_enter(2).
        errno: Errno,
    },
    /// Operations that did not end within three seconds after a drain's deadline, on hung storage
    /// for instance; their connections were reported as ended, their memory is given up.
    DrainIncomplete {
        /// Which shard.
        shard: usize,
        /// How many.
        operations: u64,
    },
    /// Jobs that still ran three seconds after the last shard had ended: their threads are left to
    /// themselves. What they return is dropped.
    JobsRunning {
        /// How many.
        jobs: usize,
    },
    /// A shard's thread panicked outside of any callback: a bug in the engine.
    ShardPanicked {
        /// Which shard.
        shard: usize,
        /// What it said.
        message: String,
    },
    /// `join` or `wait` was called from one of the engine's own threads, where it would wait for itself.
    JoinFromCallback,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { key, value, remedy } => write!(f, "{key} = {value}: {remedy}"),
            Self::Ring(source) => source.fmt(f),
            Self::Listen { address, source } => {
                write!(f, "cannot listen on {address}: {source}")?;
                match source.raw_os_error() {
                    Some(libc::EADDRINUSE) => f.write_str(
                        "; another process has this port (ss -ltnp shows which), or another \
                         listener of this one: stop it, or take another port, or port 0 for a \
                         free one",
                    ),
                    Some(libc::EACCES) => f.write_str(
                        "; ports below net.ipv4.ip_unprivileged_port_start need \
                         CAP_NET_BIND_SERVICE",
                    ),
                    Some(libc::EADDRNOTAVAIL) => {
                        f.write_str("; no interface of this machine has that address")
                    }
                    _ => Ok(()),
                }
            }
            Self::Start { what, source } => write!(f, "{what}: {source}"),
            Self::ShardFailed { shard, errno } => write!(
                f,
                "shard {shard} ended: io_uring_enter(2) failed with {errno:?}; its connections \
                 are lost and its listener is closed"
            ),
            Self::DrainIncomplete { shard, operations } => write!(
                f,
                "shard {shard}: {operations} operation(s) did not end with the drain; is the \
                 storage that files are read from hung?"
            ),
            Self::JobsRunning { jobs } => write!(
                f,
                "{jobs} job(s) did not end with the engine: let a job look from time to time \
                 whether it is still wanted"
            ),
            Self::ShardPanicked { shard, message } => {
                write!(f, "shard {shard} panicked: {message}; please report this")
            }
            Self::JoinFromCallback => f.write_str(
                "join or wait was called on a shard's own thread: call Remote::drain there, and join \
                 from another thread",
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ring(source) => Some(source),
            Self::Listen { source, .. } | Self::Start { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<SetupError> for Error {
    fn from(source: SetupError) -> Self {
        Self::Ring(source)
    }
}
