//! Several handlers in one engine, each with listeners of its own.
//!
//! The number of the handler whose callback runs is in the shard's `EngineHandle`. Tags of
//! connects, markers, jobs and holds carry it in their upper 8 bits on their way through the shard;
//! `shard/core.rs` and `local.rs` add it, and the callbacks here take it off.

use crate::files::{NewFile, OpenFile, ReceiveFileError};
use crate::handler::{Deadline, Handler};
use crate::info::{Forwarded, Origin, SentMarker};
use crate::local::Local;
use crate::message::Message;
use crate::scope::{number_of, plain};
use crate::workers::JobDone;
use crate::{BoxError, Connection, ConnectionId, Reason};
use std::fmt;
use std::io;

/// Several handlers of different types in one engine. [`Listener::handler`] names the one that
/// serves the connections of a listener, by its number: 0 for the first one.
///
/// ```
/// use ringwright::{Config, Connection, Engine, Handler, Handlers, Listener, Origin};
/// # use std::io::{Read, Write};
/// # use std::net::TcpStream;
///
/// /// Sends everything back.
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
///     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         let _ = connection.send(bytes);
///         bytes.len()
///     }
/// }
///
/// /// Tells how many connections the engine has.
/// struct Status;
///
/// impl Handler for Status {
///     type State = String;
///     fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) -> String {
///         let open = connection.local().connections();
///         let _ = connection.send(format!("{open}\n").as_bytes());
///         connection.close();
///         String::new()
///     }
///     fn received(&mut self, _: &mut String, _: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         bytes.len()
///     }
/// }
///
/// let echo: Listener = "127.0.0.1:0".parse()?;
/// let status = Listener { handler: 1, ..("127.0.0.1:0".parse()?) };
/// let config = Config { listeners: vec![echo, status], shards: Some(1), ..Config::default() };
/// let engine = Engine::start(config, |_shard| Handlers::new(Echo, Status))?;
/// # let mut client = TcpStream::connect(engine.addresses()[0])?;
/// # client.write_all(b"a")?;
/// # client.read_exact(&mut [0])?;
/// # let mut text = String::new();
/// # TcpStream::connect(engine.addresses()[1])?.read_to_string(&mut text)?;
/// # assert_eq!(text, "2\n");
/// # drop(client);
/// # engine.handle().drain(std::time::Duration::from_secs(5));
/// # engine.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`and`](Self::and) adds a third one and further ones, up to 255. Each shard has all of them.
///
/// # Callbacks
/// | callback | handlers that get it |
/// |---|---|
/// | those of a connection, `closed` too | the one that serves the connection |
/// | `opened` of a connect, `connect_failed` | the one that asked for the connect |
/// | `sent`, `shard_job_done` | the one that set the marker, offloaded the job or took the hold |
/// | `tick` | the one that asked for it; each has a tick of its own |
/// | `message` | the one for which the message is |
/// | `started`, `mailbox_room`, `bans_changed`, `drain_begun`, `ended` | all, the first one first |
///
/// An [`EngineHandle`] belongs to one handler, which gets its messages and connects. That of
/// [`Engine::handle`] belongs to the first handler, and that of [`Local::engine`], with its clones,
/// to the handler whose callback runs. [`EngineHandle::for_handler`] makes one for any other.
/// Closures of [`EngineHandle::run_on_shard`] and [`run_on_connection`] run for the first handler.
/// Closures that get the state of a connection get a [`OneOf`].
///
/// # Tags
/// Each handler has tags of its own: two handlers can use the same ones for different connects,
/// markers and jobs. The upper 8 bits of a tag are the engine's here.
///
/// # Panics
/// Methods of [`Local`] and [`Connection`] that take a tag panic if it is 2^56 or more. A
/// connection of a listener whose `handler` does not exist panics in `opened`.
///
/// # Cost
/// The handler of a connection is found by a comparison per callback, without allocation. The state
/// of a connection is as large as the largest of all, and a few bytes more. An engine with one
/// handler pays nothing.
///
/// [`EngineHandle`]: crate::EngineHandle
/// [`EngineHandle::for_handler`]: crate::EngineHandle::for_handler
/// [`EngineHandle::run_on_shard`]: crate::EngineHandle::run_on_shard
/// [`run_on_connection`]: crate::EngineHandle::run_on_connection
/// [`Engine::handle`]: crate::Engine::handle
/// [`Listener::handler`]: crate::Listener::handler
#[doc(alias("router", "dispatch", "multiple handlers"))]
pub struct Handlers<A, B> {
    first: A,
    last: B,
}

impl<A: Handler, B: Handler> Handlers<A, B> {
    /// The number of the last handler.
    const LAST: u8 = A::HANDLERS;

    /// Two handlers: number 0 and number 1. `first` may have several already.
    pub fn new(first: A, last: B) -> Self {
        const { assert!(B::HANDLERS == 1, "only the first of both may have several handlers") };
        Self { first, last }
    }

    /// Adds a handler, with the next number.
    pub fn and<C: Handler>(self, next: C) -> Handlers<Self, C> {
        Handlers::new(self, next)
    }

    /// The last handler.
    pub fn last(&self) -> &B {
        &self.last
    }

    /// The handlers before the last one.
    pub fn first(&self) -> &A {
        &self.first
    }

    fn is_last(number: u8) -> bool {
        assert!(number <= Self::LAST, "there is no handler number {number}");
        number == Self::LAST
    }

    /// Calls the last handler for the shard.
    fn for_last<T>(
        &mut self,
        shard: &mut Local<'_>,
        call: impl FnOnce(&mut B, &mut Local<'_>) -> T,
    ) -> T {
        shard.core.handle.serve(Self::LAST);
        let result = call(&mut self.last, shard);
        shard.core.handle.serve(0);
        result
    }

    /// Calls the last handler for one of its connections.
    #[inline]
    fn with_last<T>(
        &mut self,
        connection: &mut Connection<'_>,
        call: impl FnOnce(&mut B, &mut Connection<'_>) -> T,
    ) -> T {
        connection.core_mut().handle.serve(Self::LAST);
        let result = call(&mut self.last, connection);
        connection.core_mut().handle.serve(0);
        result
    }
}

impl<A: fmt::Debug, B: fmt::Debug> fmt::Debug for Handlers<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entry(&self.first).entry(&self.last).finish()
    }
}

/// The state of a connection that one of several handlers serves.
#[derive(Debug)]
pub enum OneOf<A, B> {
    /// The last handler does not serve it.
    First(A),
    /// The last handler serves it.
    Last(B),
}

/// Passes a callback of a connection on to its handler.
macro_rules! pass_on {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $name(
            &mut self,
            state: &mut Self::State,
            connection: &mut Connection<'_>
            $(, $argument: $type)*
        ) {
            match state {
                OneOf::First(state) => self.first.$name(state, connection $(, $argument)*),
                OneOf::Last(state) => self.with_last(connection, |handler, connection| {
                    handler.$name(state, connection $(, $argument)*)
                }),
            }
        }
    )*};
}

impl<A: Handler, B: Handler> Handler for Handlers<A, B> {
    type State = OneOf<A::State, B::State>;

    const HANDLERS: u8 = A::HANDLERS + B::HANDLERS;

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> Self::State {
        let number = connection.core_mut().handler_of(origin);
        if !Self::is_last(number) {
            return OneOf::First(self.first.opened(connection, origin));
        }
        let origin = match origin {
            Origin::Connected(tag) => Origin::Connected(plain(tag)),
            Origin::Listener(_) => origin,
        };
        OneOf::Last(self.with_last(connection, |handler, it| handler.opened(it, origin)))
    }

    #[inline]
    fn received(
        &mut self,
        state: &mut Self::State,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        match state {
            OneOf::First(state) => self.first.received(state, connection, bytes),
            OneOf::Last(state) => {
                self.with_last(connection, |handler, it| handler.received(state, it, bytes))
            }
        }
    }

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        shard.core.has_handlers = true;
        self.first.started(shard)?;
        self.for_last(shard, B::started)
    }

    fn drain_begun(&mut self, shard: &mut Local<'_>) {
        self.first.drain_begun(shard);
        self.for_last(shard, B::drain_begun);
    }

    fn ended(&mut self, shard: &mut Local<'_>) {
        self.first.ended(shard);
        self.for_last(shard, B::ended);
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        if A::HANDLERS > 1 || shard.core.take_tick(0) {
            self.first.tick(shard);
        }
        if shard.core.take_tick(Self::LAST) {
            self.for_last(shard, B::tick);
        }
    }

    fn message(&mut self, shard: &mut Local<'_>, message: Message) {
        if Self::is_last(message.handler()) {
            self.for_last(shard, |handler, shard| handler.message(shard, message));
        } else {
            self.first.message(shard, message);
        }
    }

    fn mailbox_room(&mut self, shard: &mut Local<'_>) {
        self.first.mailbox_room(shard);
        self.for_last(shard, B::mailbox_room);
    }

    fn bans_changed(&mut self, shard: &mut Local<'_>) {
        self.first.bans_changed(shard);
        self.for_last(shard, B::bans_changed);
    }

    fn sent(&mut self, shard: &mut Local<'_>, sent: &[SentMarker]) {
        let is_last = |marker: &&SentMarker| number_of(marker.tag) == Self::LAST;
        let of_last: Vec<SentMarker> = sent
            .iter()
            .filter(is_last)
            .map(|marker| SentMarker { tag: plain(marker.tag), ..*marker })
            .collect();
        if of_last.is_empty() {
            return self.first.sent(shard, sent);
        }
        if of_last.len() < sent.len() {
            let others: Vec<SentMarker> =
                sent.iter().filter(|marker| !is_last(marker)).copied().collect();
            self.first.sent(shard, &others);
        }
        self.for_last(shard, |handler, shard| handler.sent(shard, &of_last));
    }

    fn shard_job_done(&mut self, shard: &mut Local<'_>, job: JobDone) {
        if Self::is_last(number_of(job.tag())) {
            let job = job.with_tag(plain);
            self.for_last(shard, |handler, shard| handler.shard_job_done(shard, job));
        } else {
            self.first.shard_job_done(shard, job);
        }
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: io::Error) {
        if Self::is_last(number_of(tag)) {
            let tag = plain(tag);
            self.for_last(shard, |handler, shard| handler.connect_failed(shard, tag, error));
        } else {
            self.first.connect_failed(shard, tag, error);
        }
    }

    fn closed(
        &mut self,
        state: Option<Self::State>,
        shard: &mut Local<'_>,
        id: ConnectionId,
        reason: Reason,
    ) {
        let (first, last) = match state {
            Some(OneOf::First(state)) => (Some(Some(state)), None),
            Some(OneOf::Last(state)) => (None, Some(Some(state))),
            // `opened` panicked. If no handler has the number, the last handler gets the call.
            None if shard.core.handler_of_reported() < Self::LAST => (Some(None), None),
            None => (None, Some(None)),
        };
        if let Some(state) = first {
            self.first.closed(state, shard, id, reason);
        }
        if let Some(state) = last {
            self.for_last(shard, |handler, shard| handler.closed(state, shard, id, reason));
        }
    }

    pass_on! {
        message_to(message: Message);
        half_closed();
        writable();
        file_opened(result: io::Result<OpenFile>);
        file_sent();
        file_created(result: io::Result<NewFile>);
        file_received(result: Result<NewFile, ReceiveFileError>);
        file_published(result: io::Result<()>);
        job_done(job: JobDone);
        timer(timer: u8);
        forwarded(forwarded: Forwarded);
        expired(deadline: Deadline);
        draining();
    }
}

#[cfg(test)]
mod tests;
