//! Streams: output of another thread, with flow control.

use crate::credit::{NoCredit, Window};
use crate::handle::EngineHandle;
use crate::id::ConnectionId;
use crate::mailbox::Command;
use crate::memory::Payload;
use crate::reason::Reason;
use crossbeam_channel::bounded;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The memory that a payload takes beside its bytes. The window counts it, so that many short
/// payloads do not take more than few long ones.
const PAYLOAD_BYTES: usize = 64;

/// Output of another thread to one connection, no faster than the peer takes it.
///
/// [`EngineHandle::stream`] opens it. The bytes that were sent and have not left the engine are
/// *under way*. A payload is taken while fewer than `window_bytes` are. The stream is full from
/// then on until at most half of the window is under way. Each payload counts as 64 bytes more than
/// it has. The memory of a slow reader is therefore bounded by the window and one payload.
///
/// ```no_run
/// use ringwright::{ConnectionId, EngineHandle, SendStreamError};
/// use std::time::Duration;
///
/// /// Sends a long report from a thread of the application.
/// fn report(engine: &EngineHandle, to: ConnectionId) -> Result<(), SendStreamError> {
///     let stream = engine.stream(to, 256 << 10);
///     for line in 0..10_000_000 {
///         stream.send(format!("line {line}\n"), Duration::from_secs(30))?;
///     }
///     Ok(())
/// }
/// ```
///
/// # Order
/// Payloads leave in the order in which one thread sends them, and in order with its other commands
/// to this connection. Other output of the connection may come between two of them.
///
/// # Limits
/// The window should be below [`output_high_bytes`], or the connection stops receiving whenever the
/// window is full. A payload that does not fit into [`output_bytes_max`] beside all other output
/// ends the connection with [`Reason::OutputTooLong`], as [`EngineHandle::send`] does.
///
/// On a simulated kernel ([`testing`](crate::guide::testing)) nothing happens while a thread waits:
/// tests use [`try_send`](OutputStream::try_send) and run the shards in between.
///
/// # The end
/// A stream ends with its connection, or as soon as the connection takes no more output. Payloads
/// under way are lost then. Dropping the stream loses nothing and ends nothing.
///
/// [`output_high_bytes`]: crate::Config::output_high_bytes
/// [`output_bytes_max`]: crate::Config::output_bytes_max
pub struct OutputStream {
    id: ConnectionId,
    engine: EngineHandle,
    window: Arc<Window>,
}

/// The error of a payload that a stream did not take. The payload comes back in it.
#[derive(Debug)]
pub struct SendStreamError {
    /// The payload, whole.
    pub payload: Payload,
    /// The reason.
    pub kind: SendStreamErrorKind,
}

/// The reason why a stream did not take a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendStreamErrorKind {
    /// The window is full, or stayed full for the timeout: the peer reads slowly.
    Full,
    /// The command queue of the shard is full. [`EngineHandle::notify_of_room`] tells when it has
    /// room; [`OutputStream::notify`] looks at the window only.
    Busy,
    /// The stream has ended. The reason is that of the connection, if the stream knows it.
    Ended(Option<Reason>),
    /// [`OutputStream::send`] was called on a shard's own thread, which would wait for itself.
    FromCallback,
}

impl fmt::Display for SendStreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            SendStreamErrorKind::Full => f.write_str("the window of the stream is full"),
            SendStreamErrorKind::Busy => f.write_str("the shard's command queue is full"),
            SendStreamErrorKind::Ended(None) => f.write_str("the stream has ended"),
            SendStreamErrorKind::Ended(Some(reason)) => {
                write!(f, "the stream has ended with its connection ({})", reason.name())
            }
            SendStreamErrorKind::FromCallback => f.write_str(
                "called on a shard's own thread, which would wait for itself; use try_send there",
            ),
        }
    }
}

impl std::error::Error for SendStreamError {}

impl fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputStream")
            .field("id", &self.id)
            .field("under_way_bytes", &self.under_way_bytes())
            .finish_non_exhaustive()
    }
}

impl EngineHandle {
    /// Opens a stream to a connection: output with flow control, for long responses that are made
    /// on another thread. It sends nothing, and a connection that has ended is noticed with the
    /// first payloads.
    #[must_use]
    pub fn stream(&self, id: ConnectionId, window_bytes: usize) -> OutputStream {
        OutputStream { id, engine: self.clone(), window: Window::new(window_bytes) }
    }
}

impl OutputStream {
    /// The connection.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Sends a payload if the window is not full. Returns at once.
    ///
    /// # Errors
    /// [`SendStreamError`] with the payload.
    pub fn try_send(&self, payload: impl Into<Payload>) -> Result<(), SendStreamError> {
        self.send_at_once(payload.into())
    }

    fn send_at_once(&self, payload: Payload) -> Result<(), SendStreamError> {
        let Some(mailbox) = self.engine.mailboxes().get(self.id.shard()) else {
            let kind = SendStreamErrorKind::Ended(None);
            return Err(SendStreamError { payload, kind });
        };
        let credit = self.window.take(payload.len() + PAYLOAD_BYTES).map_err(|none| match none {
            NoCredit::Full => SendStreamErrorKind::Full,
            NoCredit::Ended(reason) => SendStreamErrorKind::Ended(reason),
        });
        let credit = match credit {
            Ok(credit) => credit,
            Err(kind) => return Err(SendStreamError { payload, kind }),
        };
        let Ok(place) = mailbox.reserve() else {
            let kind = if mailbox.has_ended() {
                SendStreamErrorKind::Ended(None)
            } else {
                credit.give_back();
                SendStreamErrorKind::Busy
            };
            return Err(SendStreamError { payload, kind });
        };
        // A shard that has ended meanwhile drops the command, which ends the stream.
        let _ = place.send(Command::Send(self.id, payload, Some(credit)));
        Ok(())
    }

    /// Sends a payload, and waits for at most `timeout` while the window or the shard's command
    /// queue is full.
    ///
    /// # Errors
    /// [`SendStreamError`] with the payload.
    pub fn send(
        &self,
        payload: impl Into<Payload>,
        timeout: Duration,
    ) -> Result<(), SendStreamError> {
        let (mut payload, begun) = (payload.into(), Instant::now());
        if self.engine.refuse_in_callback().is_err() {
            return Err(SendStreamError { payload, kind: SendStreamErrorKind::FromCallback });
        }
        loop {
            let refused = match self.send_at_once(payload) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let left = timeout.saturating_sub(begun.elapsed());
            match refused.kind {
                _ if left.is_zero() => return Err(refused),
                SendStreamErrorKind::Full => self.window.wait(left),
                SendStreamErrorKind::Busy => self.wait_for_queue(left),
                _ => return Err(refused),
            }
            payload = refused.payload;
        }
    }

    /// Waits until the command queue of the shard has room, but no longer than `most`.
    fn wait_for_queue(&self, most: Duration) {
        let Some(mailbox) = self.engine.mailboxes().get(self.id.shard()) else { return };
        let (room, has_room) = bounded(1);
        mailbox.wait_for_room(Box::new(move || room.try_send(()).unwrap_or(())));
        let _ = has_room.recv_timeout(most);
    }

    /// Calls `notice` once: when the stream is not full, or when it has ended. If that is already
    /// so, the call comes at once. Otherwise it comes on the shard's thread, so it must not block.
    /// A new notice replaces one that was not called.
    ///
    /// A task of an asynchronous runtime wakes itself with it, and then calls
    /// [`try_send`](Self::try_send).
    #[doc(alias("waker", "poll_ready"))]
    pub fn notify(&self, notice: impl FnOnce() + Send + 'static) {
        self.window.notify(Box::new(notice));
    }

    /// The bytes that were sent and have not left.
    #[must_use]
    pub fn under_way_bytes(&self) -> usize {
        self.window.under_way_bytes()
    }
}
