//! The error of an engine as a whole.

use crate::address::Address;
use crate::info::SendStatus;
use crate::memory::Payload;
use crate::ring::Errno;
use crate::ring::probe::CreateRingError;
use std::fmt;
use std::io;

/// An error of the application, of any type. `?` makes one of every error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The error of an engine that could not start, did not end cleanly, or could not change its
/// listeners.
///
/// [`Engine::start`](crate::Engine::start), [`Engine::join`](crate::Engine::join) and
/// [`EngineHandle::add_listener`](crate::EngineHandle::add_listener) return it. Its `Display` text
/// is meant for the operator: it names the value, limit or errno at fault and a remedy.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A field of the configuration has a value that is not allowed.
    Config {
        /// The name of the field of [`Config`](crate::Config).
        key: &'static str,
        /// The field's value.
        value: String,
        /// The values that are allowed.
        remedy: &'static str,
    },
    /// The ring cannot be made: io_uring is forbidden though
    /// [`Config::ring`](crate::Config::ring) demands it, or a limit is too low.
    Ring(CreateRingError),
    /// A listener could not be set up.
    Listen {
        /// The address from [`Config::listeners`](crate::Config::listeners), or the one to add.
        address: Address,
        /// The error of socket(2), setsockopt(2), bind(2) or listen(2).
        source: io::Error,
    },
    /// A socket that the process has from its parent cannot be a listener
    /// ([`inherited_listeners`](crate::inherited_listeners),
    /// [`Listener::inherited`](crate::Listener::inherited)).
    Inherited {
        /// The number of the descriptor. `None`: the environment is wrong, not one descriptor.
        descriptor: Option<i32>,
        /// The reason.
        source: io::Error,
    },
    /// There is no listener of this number, or it was removed and has ended.
    NoSuchListener {
        /// The number.
        number: u16,
    },
    /// Listeners and their connections use 256 different
    /// [`ListenerSettings`](crate::ListenerSettings), which is the limit.
    TooManySettings,
    /// The command queue of a shard is full.
    Busy(SendCommandError),
    /// A thread, a mapping or an event descriptor could not be created.
    Start {
        /// The call or step that failed.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// A shard's ring failed. The shard's connections are lost and its listeners are closed.
    ShardFailed {
        /// The number of the shard, from 0.
        shard: usize,
        /// The call that failed.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// Operations of a shard were still in flight three seconds after the drain deadline, for
    /// example on storage that hangs. Their connections were reported as ended, and their memory is
    /// leaked.
    DrainIncomplete {
        /// The number of the shard, from 0.
        shard: usize,
        /// The number of operations in flight.
        operations: u64,
    },
    /// Jobs were still running three seconds after the last shard had ended. Their threads continue
    /// on their own, and their results are dropped.
    JobsRunning {
        /// The number of running jobs.
        jobs: usize,
    },
    /// Code of the application panicked where it leaves no connection to reset: in the handler
    /// factory, in [`Handler::started`](crate::Handler::started) or in `Drop` of the handler. The
    /// shard has ended.
    HandlerPanicked {
        /// The number of the shard, from 0.
        shard: usize,
        /// The code that panicked: `factory`, `started` or `drop`.
        place: &'static str,
        /// The panic's message, or "no message" for a payload that is not a string.
        message: String,
    },
    /// The handler factory or [`Handler::started`](crate::Handler::started) returned an error. The
    /// engine has not started.
    HandlerFailed {
        /// The number of the shard, from 0.
        shard: usize,
        /// The code that failed: `factory` or `started`.
        place: &'static str,
        /// Its error.
        source: BoxError,
    },
    /// A shard's thread panicked outside the application's code. This is a bug in the engine.
    ShardPanicked {
        /// The number of the shard, from 0.
        shard: usize,
        /// The panic's message, or "no message" for a payload that is not a string.
        message: String,
    },
    /// [`Engine::join`](crate::Engine::join) or [`Engine::wait`](crate::Engine::wait) was called on
    /// one of the engine's own threads, where it would wait for itself.
    JoinFromCallback,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { key, value, remedy } => {
                write!(f, "{key} = {value} is not allowed; expected: {remedy}")
            }
            Self::Ring(source) => source.fmt(f),
            Self::Listen { address, source } => {
                write!(f, "cannot listen on {address}: {source}")?;
                f.write_str(remedy_of_listen(address, source))
            }
            Self::Inherited { descriptor: Some(number), source } => {
                write!(f, "the inherited descriptor {number} cannot be a listener: {source}")
            }
            Self::Inherited { descriptor: None, source } => {
                write!(f, "the inherited sockets (LISTEN_FDS) cannot be taken: {source}")
            }
            Self::NoSuchListener { number } => {
                write!(f, "there is no listener {number}; EngineHandle::listeners lists them")
            }
            Self::TooManySettings => f.write_str(
                "256 different settings of listeners are in use; use fewer, or drain the \
                 connections that still have old ones",
            ),
            Self::Busy(busy) => busy.fmt(f),
            Self::Start { what, source } => {
                write!(f, "cannot start the engine: {what} failed: {source}")?;
                f.write_str(remedy_of_start(source))
            }
            Self::ShardFailed { shard, call, errno } => write!(
                f,
                "shard {shard} failed: {call} returned {errno:?}; its connections are lost and \
                 its listeners are closed"
            ),
            Self::DrainIncomplete { shard, operations } => write!(
                f,
                "shard {shard}: {operations} operation(s) were still in flight 3 seconds after \
                 the drain deadline; check whether the storage behind the files responds"
            ),
            Self::JobsRunning { jobs } => write!(
                f,
                "{jobs} job(s) were still running 3 seconds after the last shard ended; let long \
                 jobs check regularly whether they should stop"
            ),
            Self::ShardPanicked { shard, message } => write!(
                f,
                "shard {shard} panicked ({message}). This is a bug in ringwright; please report it."
            ),
            Self::HandlerPanicked { shard, place, message } => write!(
                f,
                "the application's handler panicked in `{place}` on shard {shard}: {message}"
            ),
            Self::HandlerFailed { shard, place, source } => {
                write!(f, "the application's `{place}` failed on shard {shard}: {source}")
            }
            Self::JoinFromCallback => f.write_str(
                "join or wait was called on a shard's own thread, where it would wait for itself; \
                 call it from another thread (EngineHandle::drain works on every thread)",
            ),
        }
    }
}

/// The remedy for a start that failed, or nothing.
fn remedy_of_start(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EMFILE) => {
            "; raise RLIMIT_NOFILE (ulimit -n, systemd: LimitNOFILE=) or use fewer shards"
        }
        Some(libc::EAGAIN) => {
            "; raise the limit on threads (ulimit -u, systemd: TasksMax=) or use fewer shards and \
             workers"
        }
        Some(libc::ENOMEM) => "; use fewer or smaller buffers",
        _ => "",
    }
}

/// The remedy for a listener that could not be set up, or nothing.
fn remedy_of_listen(address: &Address, source: &io::Error) -> &'static str {
    if address.unix().is_some() {
        return remedy_of_unix(source);
    }
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; another process or another listener of this engine has used the port for 1 second \
             (ss -ltnp shows the process): stop it, choose another port, or use port 0 for a free \
             one"
        }
        Some(libc::EACCES) => {
            "; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE: grant it \
             or choose a higher port"
        }
        Some(libc::EADDRNOTAVAIL) => "; no interface of this machine has this address (ip address)",
        _ => "",
    }
}

/// The same for a Unix socket.
fn remedy_of_unix(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; a process listens on the socket, and has done so for 1 second (ss -lxp shows it): \
             stop it or choose another path"
        }
        Some(libc::ENOENT) => "; the folder of the socket must exist: make it",
        Some(libc::EACCES) => {
            "; the user of this process must be able to write in the folder of the socket"
        }
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ring(source) => Some(source),
            Self::Listen { source, .. }
            | Self::Inherited { source, .. }
            | Self::Start { source, .. } => Some(source),
            Self::HandlerFailed { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<CreateRingError> for Error {
    fn from(source: CreateRingError) -> Self {
        Self::Ring(source)
    }
}

/// The error of a command that was not queued: the command queue of the shard is full.
///
/// The queue holds [`Config::mailbox_commands_max`](crate::Config::mailbox_commands_max) commands.
/// The shard empties it in every turn of its loop, so a later attempt can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendCommandError;

impl fmt::Display for SendCommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the shard's command queue is full; try again later or raise mailbox_commands_max",
        )
    }
}

impl std::error::Error for SendCommandError {}

/// The reason why a closure for a connection and its state was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunWithStateError {
    /// The connection is not on this shard, is connecting, is ending or has ended.
    NoSuchConnection,
    /// The handler's `State` is of another type than the closure takes.
    OtherState,
    /// From another thread, the shard's command queue is full. In a callback, 1,024 closures wait
    /// for its end.
    Full,
}

impl fmt::Display for RunWithStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchConnection => {
                f.write_str("the connection is not on this shard, or it is connecting or ending")
            }
            Self::OtherState => {
                f.write_str("the closure takes a state of another type than the handler's `State`")
            }
            Self::Full => f.write_str(
                "the shard's command queue is full, or 1,024 closures wait for the end of a \
                 callback; try again later",
            ),
        }
    }
}

impl std::error::Error for RunWithStateError {}

/// The error of a payload that was not queued. The payload comes back in it.
#[derive(Debug)]
pub struct SendPayloadError {
    /// The payload, whole.
    pub payload: Payload,
    /// The reason: [`SendStatus::Refused`] or [`SendStatus::Closed`].
    pub status: SendStatus,
}

impl fmt::Display for SendPayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.payload.len();
        match self.status {
            SendStatus::Refused => write!(
                f,
                "{bytes} bytes were not queued, because the output would exceed output_bytes_max: \
                 send them after `writable`, in shorter pieces if they are longer than the limit"
            ),
            _ => write!(f, "{bytes} bytes were not queued: the connection takes no more output"),
        }
    }
}

impl std::error::Error for SendPayloadError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_named_with_its_key_and_what_is_allowed() {
        let error = Error::Config { key: "shards", value: "0".to_owned(), remedy: "1 to 256" };
        assert_eq!(error.to_string(), "shards = 0 is not allowed; expected: 1 to 256");
    }

    #[test]
    fn a_failed_start_names_the_call_and_the_limit_to_raise() {
        let error = |what, errno| {
            Error::Start { what, source: io::Error::from_raw_os_error(errno) }.to_string()
        };
        let descriptors = error("eventfd(2)", libc::EMFILE);
        assert!(descriptors.contains("eventfd(2) failed: Too many open files"), "{descriptors}");
        assert!(descriptors.contains("LimitNOFILE="), "{descriptors}");
        let threads = error("starting a shard's thread", libc::EAGAIN);
        assert!(threads.contains("TasksMax="), "{threads}");
    }

    #[test]
    fn a_panic_without_a_message_says_so() {
        let message = crate::panics::message_of(Box::new(7));
        let text = Error::ShardPanicked { shard: 3, message }.to_string();
        assert!(text.starts_with("shard 3 panicked (no message). This is a bug in"), "{text}");
    }
}
