//! Messages to shards and connections, and waiting for room in a queue.

use super::EngineHandle;
use crate::error::SendCommandError;
use crate::id::ConnectionId;
use crate::mailbox::{Command, Sending};
use crate::message::{Message, PostMessageError, PostMessageErrorKind};

impl EngineHandle {
    /// Posts a message to shard number `shard`, which gives it to
    /// [`Handler::message`](crate::Handler::message). Also for the caller's own shard, where the
    /// message arrives after the current callback.
    ///
    /// # Errors
    /// [`PostMessageError`] has the message, unchanged.
    #[doc(alias("send", "notify", "wake"))]
    pub fn post_to_shard<T: Send + 'static>(
        &self,
        shard: usize,
        message: T,
    ) -> Result<(), PostMessageError<T>> {
        self.post(shard, None, message)
    }

    /// Posts a message to a connection, for
    /// [`Handler::message_to`](crate::Handler::message_to). A message to a connection that is
    /// connecting, is ending or has ended is dropped, and the ledger counts it as
    /// `messages_unclaimed`.
    ///
    /// # Errors
    /// [`PostMessageError`] has the message, unchanged.
    #[doc(alias("send", "notify", "wake"))]
    pub fn post_to_connection<T: Send + 'static>(
        &self,
        id: ConnectionId,
        message: T,
    ) -> Result<(), PostMessageError<T>> {
        self.post(id.shard(), Some(id), message)
    }

    /// Posts a copy of a message to every shard, or to none: if one queue is full, no shard gets
    /// it. Shards that have ended get none.
    ///
    /// # Errors
    /// [`PostMessageError`] has the message, unchanged.
    pub fn post_to_shards<T: Clone + Send + 'static>(
        &self,
        message: T,
    ) -> Result<(), PostMessageError<T>> {
        // The clones first: they are the application's code, which must not run with places taken.
        let copies: Vec<T> = (0..self.shards()).map(|_| message.clone()).collect();
        let places = match self.reserve_all() {
            Ok(places) => places,
            Err(SendCommandError) => return refuse(message, PostMessageErrorKind::Full),
        };
        if places.is_empty() {
            return refuse(message, PostMessageErrorKind::Ended);
        }
        for (place, copy) in places.into_iter().zip(copies) {
            // The shard may have ended meanwhile.
            let _ = place.send(Command::Post(None, Message::new(copy, self.handler())));
        }
        Ok(())
    }

    /// Calls `notify` once the first command queue that is full has room again, at once if none is
    /// full. For a sender that got [`PostMessageErrorKind::Full`] or [`SendCommandError`].
    /// Callbacks use [`Local::notify_of_room`](crate::Local::notify_of_room) instead.
    ///
    /// The closure runs at once, or later on the thread of the shard whose queue was full, when at
    /// most half of its [`mailbox_commands_max`](crate::Config::mailbox_commands_max) places are
    /// taken, or when that shard has ended. It must not block. Other senders may have filled a
    /// queue by the time the caller tries again, and another queue may be full: then ask again. At
    /// most 1,024 closures wait for a queue; further ones are called at once.
    ///
    /// ```
    /// use ringwright::EngineHandle;
    /// use std::sync::mpsc;
    ///
    /// /// Posts a message and waits for room as long as it takes. For threads that are no shard's.
    /// fn post_and_wait(engine: &EngineHandle, shard: usize, mut line: String) {
    ///     use ringwright::PostMessageErrorKind::Full;
    ///     while let Err(error) = engine.post_to_shard(shard, line) {
    ///         if error.kind != Full {
    ///             return; // the engine has ended
    ///         }
    ///         line = error.message;
    ///         let (room, has_room) = mpsc::channel();
    ///         engine.notify_of_room(move || room.send(()).unwrap_or(()));
    ///         let _ = has_room.recv();
    ///     }
    /// }
    /// ```
    pub fn notify_of_room(&self, notify: impl FnOnce() + Send + 'static) {
        match self.mailboxes().iter().find(|mailbox| mailbox.is_full() && !mailbox.has_ended()) {
            Some(full) => full.wait_for_room(Box::new(notify)),
            None => notify(),
        }
    }

    /// Makes shard number `shard` tell its handler once a full queue has room.
    pub(crate) fn notify_shard_of_room(&self, shard: usize) {
        let own = self.mailboxes()[shard].clone();
        self.notify_of_room(move || own.tell_of_room());
    }

    fn post<T: Send + 'static>(
        &self,
        shard: usize,
        connection: Option<ConnectionId>,
        message: T,
    ) -> Result<(), PostMessageError<T>> {
        let Some(mailbox) = self.mailboxes().get(shard) else {
            return refuse(message, PostMessageErrorKind::NoSuchShard);
        };
        match mailbox.reserve() {
            Ok(place) => {
                // An error means that the shard ends at this moment: it drops what it has.
                let _ =
                    place.send(Command::Post(connection, Message::new(message, self.handler())));
                Ok(())
            }
            Err(SendCommandError) => refuse(message, kind_of(mailbox)),
        }
    }
}

fn kind_of(mailbox: &Sending) -> PostMessageErrorKind {
    if mailbox.has_ended() { PostMessageErrorKind::Ended } else { PostMessageErrorKind::Full }
}

fn refuse<T>(message: T, kind: PostMessageErrorKind) -> Result<(), PostMessageError<T>> {
    Err(PostMessageError { message, kind })
}
