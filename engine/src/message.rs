//! Values of the application that threads post to shards and connections.

use crate::panics::discard;
use std::any::Any;
use std::fmt;

/// A value of any type that a thread posted to a shard or a connection.
///
/// [`EngineHandle::post_to_shard`], [`EngineHandle::post_to_connection`] and
/// [`EngineHandle::post_to_shards`] post it. [`Handler::message`] and [`Handler::message_to`]
/// receive it. Most applications post one enum; [`Message::downcast`] takes it out.
///
/// ```
/// use ringwright::{Connection, ConnectionId, EngineHandle, Handler, Local, Message, Origin};
///
/// /// A line for one user, or for everybody on a shard.
/// enum Notice {
///     Private(String),
///     Everybody(String),
/// }
///
/// /// Can be called on every thread. The notice comes back while the shard's queue is full.
/// fn whisper(engine: &EngineHandle, to: ConnectionId, line: String) -> Result<(), Notice> {
///     engine.post_to_connection(to, Notice::Private(line)).map_err(|error| error.message)
/// }
///
/// struct Chat;
///
/// impl Handler for Chat {
///     type State = ();
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
///     fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         bytes.len()
///     }
///     fn message_to(&mut self, _: &mut (), connection: &mut Connection<'_>, message: Message) {
///         if let Ok(Notice::Private(line)) = message.downcast() {
///             let _ = connection.send(line.as_bytes());
///         }
///     }
///     fn message(&mut self, _: &mut Local<'_>, message: Message) {
///         if let Ok(Notice::Everybody(line)) = message.downcast() {
///             println!("{line}");
///         }
///     }
/// }
/// ```
///
/// # Cost
/// A message takes one allocation, unless its type has no size. Bytes for many connections need no
/// message: see [`Audience::Group`](crate::Audience::Group).
///
/// [`EngineHandle::post_to_shard`]: crate::EngineHandle::post_to_shard
/// [`EngineHandle::post_to_connection`]: crate::EngineHandle::post_to_connection
/// [`EngineHandle::post_to_shards`]: crate::EngineHandle::post_to_shards
/// [`Handler::message`]: crate::Handler::message
/// [`Handler::message_to`]: crate::Handler::message_to
pub struct Message {
    value: Box<dyn Any + Send>,
    handler: u8,
}

impl Message {
    pub(crate) fn new<T: Send + 'static>(value: T, handler: u8) -> Self {
        Self { value: Box::new(value), handler }
    }

    /// The number of the handler for which it is.
    pub(crate) fn handler(&self) -> u8 {
        self.handler
    }

    /// Takes the value out.
    ///
    /// # Errors
    /// The message, unchanged, if its value is no `T`.
    pub fn downcast<T: 'static>(self) -> Result<T, Self> {
        let handler = self.handler;
        self.value.downcast().map(|value| *value).map_err(|value| Self { value, handler })
    }

    /// Returns whether the value is a `T`.
    #[must_use]
    pub fn is<T: 'static>(&self) -> bool {
        self.value.is::<T>()
    }

    /// Drops the value of a message that nobody gets.
    pub(crate) fn discard(self) {
        discard(self.value);
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").finish_non_exhaustive()
    }
}

/// A message that was not posted, and the reason.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PostMessageError<T> {
    /// The message, unchanged.
    pub message: T,
    /// The reason.
    pub kind: PostMessageErrorKind,
}

/// The reason why a message was not posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PostMessageErrorKind {
    /// A shard's queue is full.
    /// [`EngineHandle::notify_of_room`](crate::EngineHandle::notify_of_room) tells when it has room
    /// again.
    Full,
    /// The shard, or every shard, has ended.
    Ended,
    /// The engine has no shard of this number.
    NoSuchShard,
}

impl<T> fmt::Debug for PostMessageError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostMessageError").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PostMessageError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            PostMessageErrorKind::Full => {
                "a shard's command queue is full; wait with EngineHandle::notify_of_room, or raise \
                 mailbox_commands_max"
            }
            PostMessageErrorKind::Ended => "the shard has ended",
            PostMessageErrorKind::NoSuchShard => {
                "the engine has no shard of this number; EngineHandle::shards counts them"
            }
        })
    }
}

impl<T> std::error::Error for PostMessageError<T> {}
