//! Outgoing connections that the engine makes again when they end.

use std::fmt;
use std::io;
use std::time::Duration;

/// The backoff of [`Local::keep_connected`](crate::Local::keep_connected).
///
/// The first wait is [`first`](Self::first). Each failed attempt in a row doubles the wait, up to
/// [`most`](Self::most). The actual wait is random, between half of this value and all of it.
/// Clients that lost the same server therefore do not return at the same moment.
///
/// An attempt counts as successful if its connection lasted at least as long as the wait before it.
/// A server that accepts and hangs up is therefore retried no faster than one that is down.
///
/// ```
/// use ringwright::{BoxError, Config, Connection, ConnectionId, Engine, Handler, Local, Origin};
/// use ringwright::{Reason, Reconnect};
/// # use std::{io::Write, net::{SocketAddr, TcpListener}, time::Duration};
///
/// struct Uplink(SocketAddr);
///
/// impl Handler for Uplink {
///     type State = ();
///     fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
///         shard.keep_connected(self.0, 1, Reconnect::default()).expect("tag 1 is unused");
///         Ok(())
///     }
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
///     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         if bytes == b"go away" {
///             connection.close(); // no further attempt follows
/// #           connection.local().engine().drain(Duration::ZERO);
///         }
///         bytes.len()
///     }
///     fn closed(
///         &mut self,
///         _: Option<()>,
///         shard: &mut Local<'_>,
///         _: ConnectionId,
///         reason: Reason,
///     ) {
///         println!("{reason:?}; next attempt in {:?}", shard.reconnects_in(1));
///     }
///     fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: std::io::Error) {
///         println!("{error}; next attempt in {:?}", shard.reconnects_in(tag));
///     }
/// }
///
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let address = server.local_addr()?;
/// let engine = Engine::start(Config::default(), move |_| Uplink(address))?;
/// drop(server.accept()?); // the connection is lost and made again about 100 ms later
/// server.accept()?.0.write_all(b"go away")?;
/// # engine.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The first wait, at least 1 ms. Default 100 ms.
    pub first: Duration,
    /// The longest wait, at least `first`. Default 30 s.
    pub most: Duration,
    /// The number of failed attempts in a row after which the engine gives up. Default `None`:
    /// never.
    pub attempts: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), most: Duration::from_secs(30), attempts: None }
    }
}

/// The reason why a connection is not kept up.
///
/// [`Local::keep_connected`](crate::Local::keep_connected) returns it. For
/// [`EngineHandle::keep_connected`](crate::EngineHandle::keep_connected) it is inside the error
/// given to [`Handler::connect_failed`](crate::Handler::connect_failed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepConnectedError {
    /// The engine is draining.
    Draining,
    /// The shard already keeps a connection with this tag.
    TagTaken {
        /// The tag.
        tag: u64,
    },
    /// The shard already keeps as many connections as it may.
    TooMany {
        /// The limit: [`Config::reconnects_max`](crate::Config::reconnects_max).
        most: usize,
    },
}

impl fmt::Display for KeepConnectedError {
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

impl std::error::Error for KeepConnectedError {}

impl From<KeepConnectedError> for io::Error {
    fn from(refused: KeepConnectedError) -> Self {
        Self::other(refused)
    }
}
