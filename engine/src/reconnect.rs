//! Connections that are made again when they end: how long is waited, and why one is not taken.

use std::fmt;
use std::io;
use std::time::Duration;

/// How a connection of [`Local::keep_connected`](crate::Local::keep_connected) is made again.
///
/// The first wait is [`first`](Self::first); each attempt in a row without success doubles it, up
/// to [`most`](Self::most). What is waited is anything between half of that and all of it, so that
/// clients that lost the same server do not come back in step. Success is a connection that lasted
/// for at least as long as the wait before it: a server that accepts and hangs up is not pressed
/// harder than one that is away.
///
/// ```
/// use ringwright::{Config, Connection, ConnectionId, Engine, Handler, Local, Origin};
/// use ringwright::{Reason, Reconnect};
/// # use std::{io::Write, net::{SocketAddr, TcpListener}, time::Duration};
///
/// struct Uplink(SocketAddr);
///
/// impl Handler for Uplink {
///     type State = ();
///     fn started(&mut self, shard: &mut Local<'_>) {
///         shard.keep_connected(self.0, 1, Reconnect::default()).expect("the first of this shard");
///     }
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
///     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         if bytes == b"go away" {
///             connection.close(); // our own doing: not made again
/// #           let _ = connection.local().remote().drain(Duration::ZERO);
///         }
///         bytes.len()
///     }
///     fn closed(&mut self, _: (), shard: &mut Local<'_>, _: ConnectionId, reason: Reason) {
///         println!("{reason:?}; again in {:?}", shard.reconnects_in(1));
///     }
///     fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: std::io::Error) {
///         println!("{error}; again in {:?}", shard.reconnects_in(tag));
///     }
/// }
///
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let address = server.local_addr()?;
/// let engine = Engine::start(Config::default(), move |_| Uplink(address))?;
/// drop(server.accept()?); // lost, and made again about 100 ms later
/// server.accept()?.0.write_all(b"go away")?;
/// # engine.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The first wait. Default 100 ms; a millisecond at least.
    pub first: Duration,
    /// The longest wait. Default 30 s; `first` at least.
    pub most: Duration,
    /// Attempts in a row without success after which none follows; one at least. Default `None`:
    /// they never end.
    pub attempts: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), most: Duration::from_secs(30), attempts: None }
    }
}

/// Why a connection is not kept up. From [`Remote::keep_connected`](crate::Remote::keep_connected)
/// it comes to [`Handler::connect_failed`](crate::Handler::connect_failed), inside of the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepRefused {
    /// The engine drains.
    Draining,
    /// The shard keeps one up with this tag already.
    TagTaken {
        /// The tag.
        tag: u64,
    },
    /// The shard keeps as many up as it may.
    TooMany {
        /// [`Config::reconnects_max`](crate::Config::reconnects_max).
        most: usize,
    },
}

impl fmt::Display for KeepRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => f.write_str("the engine is draining and makes no more connections"),
            Self::TagTaken { tag } => write!(
                f,
                "this shard already keeps a connection with tag {tag}; use another tag or call \
                 stop_reconnecting first"
            ),
            Self::TooMany { most } => write!(
                f,
                "this shard already keeps reconnects_max = {most} connections; raise it or use \
                 more shards"
            ),
        }
    }
}

impl std::error::Error for KeepRefused {}

impl From<KeepRefused> for io::Error {
    fn from(refused: KeepRefused) -> Self {
        Self::other(refused)
    }
}
