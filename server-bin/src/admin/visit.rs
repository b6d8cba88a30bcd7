//! What is known of a visitor between callbacks.

use super::asking::Awaited;
use crate::http::incoming::Incoming;
use crate::http::reply::Persistence;
use ringwright::Connection;

/// A visitor's connection.
#[derive(Debug, Default)]
pub struct Visit {
    pub(super) incoming: Incoming,
    /// The listener answers only probes and scrapes.
    pub(super) is_read_only: bool,
    /// The answer that is being waited for. Nothing more is read until it was given.
    pub(super) awaited: Option<(Awaited, Manner)>,
    /// The send queue was full when last looked at.
    pub(super) full: bool,
    /// Bytes were left unread by the last look at them.
    pub(super) unread: bool,
    pub(super) draining: bool,
    pub(super) closing: bool,
}

/// How a request wants its answer.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The head of it only.
    pub(super) is_head: bool,
    /// And then.
    pub(super) persistence: Persistence,
}

impl Visit {
    pub(super) const fn may_read_on(&self) -> bool {
        self.awaited.is_none() && !self.full && !self.closing
    }

    /// Whether a drain need not wait for it.
    pub(super) const fn is_over(&self) -> bool {
        self.draining && self.may_read_on() && !self.unread
    }

    /// What is queued leaves, then the connection ends.
    pub(super) fn close(&mut self, connection: &mut Connection<'_>) {
        self.closing = true;
        connection.close();
    }
}
