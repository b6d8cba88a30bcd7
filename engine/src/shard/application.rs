//! The handler and its states: every callback goes through here, with its panics caught.
//!
//! A callback that panics resets its connection. A panic in the factory, in `started` or in `Drop`
//! of the handler belongs to no connection. It ends the shard and is returned as
//! `Error::HandlerPanicked`. `started` runs before the shard is reported as ready, so that
//! `Engine::start` can return its panic or its error.

use super::core::Core;
use super::turn::Calling;
use crate::connection::{Connection, ConnectionTask, LocalClosure};
use crate::error::BoxError;
use crate::files::{NewFile, OpenFile, ReceiveFileError};
use crate::handler::{Deadline, Handler};
use crate::info::{Forwarded, Origin, SentMarker};
use crate::local::{Local, ShardTask};
use crate::message::Message;
use crate::panics::{Panic, discard};
use crate::ring::Ring;
use crate::workers::JobDone;
use crate::{ConnectionId, Reason};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The application's side of a shard.
pub struct Application<H: Handler> {
    handler: H,
    states: Vec<Option<H::State>>,
    /// `started` has succeeded, and `ended` is still to come.
    owes_end: bool,
}

impl<H: Handler> Application<H> {
    pub fn new(handler: H) -> Self {
        Self { handler, states: Vec::new(), owes_end: false }
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    pub fn opened(&mut self, _call: Calling, core: &mut Core, slot: u32, origin: Origin) {
        let handler = &mut self.handler;
        let mut connection = Connection::new(core, slot);
        // A handler that panicked is used again: what it left half done is the application's
        // own, and the connection it was busy with ends.
        let state = catch_unwind(AssertUnwindSafe(|| handler.opened(&mut connection, origin)));
        if slot as usize >= self.states.len() {
            self.states.resize_with(slot as usize + 1, || None);
        }
        match state {
            Ok(state) => self.states[slot as usize] = Some(state),
            Err(panic) => {
                mark!("opened panicked");
                panicked(core, slot, panic);
            }
        }
        self.run_closures(core);
    }

    /// Returns how many bytes were used.
    #[inline]
    pub fn received<R: Ring>(
        &mut self,
        _call: Calling,
        core: &mut Core,
        ring: &mut R,
        slot: u32,
        bytes: &[u8],
    ) -> usize {
        let connection = Connection::with_calls(core, ring, slot);
        let used = self.call_with(connection, slot, |handler, state, connection| {
            let used = handler.received(state, connection, bytes);
            assert!(used <= bytes.len(), "a handler cannot use more than it was shown");
            used
        });
        let used = match used {
            Some(Ok(used)) => used,
            None => bytes.len(),
            Some(Err(panic)) => {
                panicked(core, slot, panic);
                bytes.len()
            }
        };
        self.run_closures(core);
        used
    }

    pub fn half_closed(&mut self, _call: Calling, core: &mut Core, slot: u32) {
        self.call(core, slot, H::half_closed);
    }

    pub fn writable(&mut self, _call: Calling, core: &mut Core, slot: u32) {
        self.call(core, slot, H::writable);
    }

    pub fn file_opened(
        &mut self,
        _call: Calling,
        core: &mut Core,
        slot: u32,
        result: io::Result<OpenFile>,
    ) {
        self.call(core, slot, |handler, state, connection| {
            handler.file_opened(state, connection, result);
        });
    }

    pub fn file_created(
        &mut self,
        _call: Calling,
        core: &mut Core,
        slot: u32,
        result: io::Result<NewFile>,
    ) {
        self.call(core, slot, |handler, state, connection| {
            handler.file_created(state, connection, result);
        });
    }

    pub fn file_received(
        &mut self,
        _call: Calling,
        core: &mut Core,
        slot: u32,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        self.call(core, slot, |handler, state, connection| {
            handler.file_received(state, connection, result);
        });
    }

    pub fn forwarded(&mut self, _call: Calling, core: &mut Core, slot: u32, forwarded: Forwarded) {
        self.call(core, slot, |handler, state, connection| {
            handler.forwarded(state, connection, forwarded);
        });
    }

    pub fn file_published(
        &mut self,
        _call: Calling,
        core: &mut Core,
        slot: u32,
        result: io::Result<()>,
    ) {
        self.call(core, slot, |handler, state, connection| {
            handler.file_published(state, connection, result);
        });
    }

    pub fn file_sent(&mut self, _call: Calling, core: &mut Core, slot: u32) {
        self.call(core, slot, H::file_sent);
    }

    pub fn job_done(&mut self, _call: Calling, core: &mut Core, slot: u32, done: JobDone) {
        self.call(core, slot, |handler, state, connection| {
            handler.job_done(state, connection, done);
        });
    }

    pub fn message_to(&mut self, _call: Calling, core: &mut Core, slot: u32, message: Message) {
        self.call(core, slot, |handler, state, connection| {
            handler.message_to(state, connection, message);
        });
    }

    pub fn run_on_connection(
        &mut self,
        _call: Calling,
        core: &mut Core,
        slot: u32,
        task: ConnectionTask,
    ) {
        self.call(core, slot, |_, state, connection| (task.0)(state, connection));
    }

    pub fn shard_job_done(&mut self, _call: Calling, core: &mut Core, done: JobDone) {
        self.local(core, |handler, local| handler.shard_job_done(local, done));
    }

    pub fn timer(&mut self, _call: Calling, core: &mut Core, slot: u32, number: u8) {
        self.call(core, slot, |handler, state, connection| {
            handler.timer(state, connection, number);
        });
    }

    pub fn expired(&mut self, _call: Calling, core: &mut Core, slot: u32, deadline: Deadline) {
        self.call(core, slot, |handler, state, connection| {
            handler.expired(state, connection, deadline);
        });
    }

    pub fn draining(&mut self, _call: Calling, core: &mut Core, slot: u32) {
        self.call(core, slot, H::draining);
    }

    pub fn closed(
        &mut self,
        _call: Calling,
        core: &mut Core,
        slot: u32,
        id: ConnectionId,
        reason: Reason,
    ) {
        let state = self.states[slot as usize].take();
        self.local(core, |handler, local| handler.closed(state, local, id, reason));
    }

    /// # Errors
    /// The payload of a panic, or the handler's error inside.
    pub fn started(
        &mut self,
        _call: Calling,
        core: &mut Core,
    ) -> Result<Result<(), BoxError>, Panic> {
        let mut local = Local::new(core);
        let started = catch_unwind(AssertUnwindSafe(|| self.handler.started(&mut local)));
        self.owes_end = matches!(started, Ok(Ok(())));
        started
    }

    pub fn drain_begun(&mut self, _call: Calling, core: &mut Core) {
        self.local(core, H::drain_begun);
    }

    /// Calls `ended`, unless `started` failed.
    pub fn ended(&mut self, _call: Calling, core: &mut Core) {
        if std::mem::take(&mut self.owes_end) {
            self.local(core, H::ended);
        }
    }

    pub fn tick(&mut self, _call: Calling, core: &mut Core) {
        self.local(core, H::tick);
    }

    pub fn sent(&mut self, _call: Calling, core: &mut Core, sent: &[SentMarker]) {
        self.local(core, |handler, local| handler.sent(local, sent));
    }

    pub fn message(&mut self, _call: Calling, core: &mut Core, message: Message) {
        self.local(core, |handler, local| handler.message(local, message));
    }

    pub fn run_on_shard(&mut self, _call: Calling, core: &mut Core, task: ShardTask) {
        self.local(core, |_, local| (task.0)(local));
    }

    pub fn mailbox_room(&mut self, _call: Calling, core: &mut Core) {
        self.local(core, H::mailbox_room);
    }

    pub fn bans_changed(&mut self, _call: Calling, core: &mut Core) {
        self.local(core, H::bans_changed);
    }

    pub fn connect_failed(&mut self, _call: Calling, core: &mut Core, tag: u64, error: io::Error) {
        report!(connect_failed(core.shard, tag, &error));
        self.local(core, |handler, local| handler.connect_failed(local, tag, error));
    }

    fn local(&mut self, core: &mut Core, f: impl FnOnce(&mut H, &mut Local<'_>)) {
        let mut local = Local::new(core);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(&mut self.handler, &mut local))) {
            mark!("a callback of the shard panicked");
            report!(handler_panicked(core.shard, None::<ConnectionId>));
            core.handle.serve(0);
            core.counters.handler_panics += 1;
            discard(panic);
        }
        self.run_closures(core);
    }

    /// Runs the closures that a callback has left for connections.
    #[inline]
    fn run_closures(&mut self, core: &mut Core) {
        if !core.closures.is_empty() {
            self.run_each_closure(core);
        }
    }

    #[cold]
    #[inline(never)]
    fn run_each_closure(&mut self, core: &mut Core) {
        while let Some((id, closure)) = core.closures.pop_front() {
            let hears = |slot: &u32| core.slots[*slot].state().hears();
            let Some(slot) = core.slots.find(id).filter(hears) else {
                mark!("a connection ends before a closure of its shard runs");
                core.counters.messages_unclaimed += 1;
                discard(closure);
                continue;
            };
            let closure = closure.downcast::<LocalClosure>().expect("`connection.rs` makes it");
            let connection = Connection::new(core, slot);
            let run = |_: &mut H, state: &mut H::State, connection: &mut Connection<'_>| {
                (closure.0)(state, connection);
            };
            if let Some(Err(panic)) = self.call_with(connection, slot, run) {
                panicked(core, slot, panic);
            }
            core.touch(slot);
        }
    }

    #[inline]
    fn call<T>(
        &mut self,
        core: &mut Core,
        slot: u32,
        f: impl FnOnce(&mut H, &mut H::State, &mut Connection<'_>) -> T,
    ) -> Option<T> {
        let value = match self.call_with(Connection::new(core, slot), slot, f)? {
            Ok(value) => Some(value),
            Err(panic) => {
                panicked(core, slot, panic);
                None
            }
        };
        self.run_closures(core);
        value
    }

    /// `None` after a panic in `opened`, until the end has been carried out.
    #[inline]
    fn call_with<T>(
        &mut self,
        mut connection: Connection<'_>,
        slot: u32,
        f: impl FnOnce(&mut H, &mut H::State, &mut Connection<'_>) -> T,
    ) -> Option<std::thread::Result<T>> {
        let state = self.states[slot as usize].as_mut()?;
        let handler = &mut self.handler;
        Some(catch_unwind(AssertUnwindSafe(|| f(handler, state, &mut connection))))
    }
}

#[cold]
fn panicked(core: &mut Core, slot: u32, panic: Panic) {
    report!(handler_panicked(core.shard, Some(core.id(slot))));
    core.handle.serve(0);
    core.counters.handler_panics += 1;
    core.end(slot, Reason::HandlerPanicked, true);
    discard(panic);
}
