//! The order in which the callbacks of a connection and of a shard may come.

use super::book::{Book, Record};
use crate::Deadline;

/// A callback of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    Opened,
    Received,
    Writable,
    FileOpened,
    FileCreated,
    FileSent,
    FileReceived,
    Forwarded,
    FilePublished,
    JobDone,
    MessageTo,
    Timer,
    HalfClosed,
    Draining,
    Expired(Deadline),
    Closed,
}

impl Callback {
    /// Its name in the trait.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Received => "received",
            Self::Writable => "writable",
            Self::FileOpened => "file_opened",
            Self::FileCreated => "file_created",
            Self::FileSent => "file_sent",
            Self::FileReceived => "file_received",
            Self::Forwarded => "forwarded",
            Self::FilePublished => "file_published",
            Self::JobDone => "job_done",
            Self::MessageTo => "message_to",
            Self::Timer => "timer",
            Self::HalfClosed => "half_closed",
            Self::Draining => "draining",
            Self::Expired(_) => "expired",
            Self::Closed => "closed",
        }
    }
}

/// The callbacks of a connection so far. One that comes several times in a row is listed once.
#[derive(Debug, Default)]
pub struct Called {
    pub list: Vec<Callback>,
    /// The handler called `shutdown`.
    pub shut: bool,
    /// The handler called `close` or `protocol_error`, or a deadline has passed.
    pub closing: bool,
    /// The handler called `abort` or panicked, it was kicked, or a stalled output is too late.
    pub over: bool,
}

impl Called {
    pub fn has(&self, callback: Callback) -> bool {
        self.list.contains(&callback)
    }

    /// Why this callback may not come now (the rules in the documentation of `Handler`).
    fn objection(&self, next: Callback) -> Option<&'static str> {
        let first = self.list.is_empty();
        match next {
            _ if first != (next == Callback::Opened) => Some("opened is not the first and only"),
            _ if self.has(Callback::Closed) => Some("it was closed before"),
            Callback::Closed => None,
            _ if self.over => Some("only closed may follow an abort"),
            Callback::HalfClosed | Callback::Draining if self.has(next) => Some("it came before"),
            Callback::FileSent | Callback::Draining => None,
            Callback::Expired(Deadline::Write | Deadline::Transfer) => None,
            _ if self.closing => Some("it may not follow a close"),
            Callback::Writable if self.shut => Some("it may not follow shutdown"),
            _ => None,
        }
    }
}

/// The last of the callbacks about the life of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    #[default]
    Nothing,
    Started,
    DrainBegun,
    Ended,
}

impl Book {
    /// Notes a callback about the life of a shard.
    pub fn note_life(&mut self, shard: usize, next: Told) {
        let before = self.told[shard];
        let in_order = match next {
            Told::Nothing => false,
            Told::Started => before == Told::Nothing,
            Told::DrainBegun => before == Told::Started,
            // A shard that fails may end without a drain.
            Told::Ended if self.failing == Some(shard) => {
                matches!(before, Told::Started | Told::DrainBegun)
            }
            Told::Ended => before == Told::DrainBegun,
        };
        if !in_order {
            self.failures.push(format!("shard {shard}: {next:?} after {before:?}"));
        }
        self.told[shard] = next;
    }

    /// Notes another callback on a shard: it comes between `started` and `ended`. One that tells a
    /// connection of the drain of the engine comes after `drain_begun`.
    pub fn note_callback(&mut self, shard: usize, drains: bool) {
        let told = self.told[shard];
        let began = told == Told::DrainBegun || (told == Told::Started && !drains);
        if !began {
            self.failures.push(format!("shard {shard}: a callback after {told:?}"));
        }
        if self.letters.has_closures(shard) {
            self.failures.push(format!("shard {shard}: a callback before closures of another"));
        }
    }
}

impl Record {
    /// Notes a callback. Returns what is wrong with it.
    pub fn note_call(&mut self, callback: Callback) -> Option<String> {
        let called = &mut self.called;
        called.closing |= self.closing;
        let wrong = called.objection(callback);
        if called.list.last() != Some(&callback) {
            called.list.push(callback);
        }
        match callback {
            Callback::Expired(Deadline::Write | Deadline::Transfer) => called.over = true,
            Callback::Expired(_) => called.closing = true,
            _ => {}
        }
        wrong.map(|wrong| format!("{:?}: {}: {wrong}: {:?}", self.id, callback.name(), called.list))
    }
}
