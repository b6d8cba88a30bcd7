//! What is known of a connection between callbacks.

use super::gets::Gets;
use super::puts::{Put, Step};
use ringwright::workers::Job;
use ringwright::{Connection, SendStatus};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What is known of a connection between callbacks.
#[derive(Debug, Default)]
pub struct Conversation {
    pub(super) gets: Gets,
    pub(super) put: Option<Box<Put>>,
    /// A file is being digested.
    pub(super) digest: Option<Box<FileDigest>>,
    /// The reason why a packet was left unread.
    pub(super) unread: Option<Unread>,
    /// Bytes of a chunk that nobody wants, still to come.
    pub(super) skip_bytes: u64,
    /// The output was full when something was last sent.
    pub(super) full: bool,
    pub(super) half_closed: bool,
    pub(super) draining: bool,
    pub(super) closing: bool,
    /// It waits for a file, or for a file's digest.
    paused: bool,
    /// When the timer is to fire.
    timer_at: Option<Duration>,
    /// Lives as long as the connection, for jobs that look whether it does.
    alive: Option<Arc<()>>,
}

/// The reason why a packet stays unread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unread {
    /// It is a digest or a list, and a file is being digested.
    Digest,
    /// It has the id of a download that is being stopped.
    Ending,
    /// It is a GET, and `limit` downloads are in progress.
    Get { limit: usize },
}

/// The digest of a file.
#[derive(Debug)]
pub(super) enum FileDigest {
    /// A job has a slice of it.
    UnderWay,
    /// There was no room for the next slice's job; it is to be tried again then.
    Refused { job: Job, again_at: Duration },
}

/// Whether a connection is still there.
#[derive(Clone, Debug)]
pub struct Alive(Weak<()>);

impl Alive {
    /// Whether somebody waits for an answer.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl FileDigest {
    pub(super) fn again_at(&self) -> Option<Duration> {
        if let Self::Refused { again_at, .. } = self { Some(*again_at) } else { None }
    }
}

impl Conversation {
    /// Whether the next packet may be looked at.
    pub(super) fn may_read_on(&self) -> bool {
        let filling = self.put.as_ref().is_some_and(|put| matches!(put.step, Step::Filling));
        !self.full && !self.closing && !filling && !self.waits()
    }

    /// What comes behind on the stream has to wait.
    fn waits(&self) -> bool {
        self.waits_for_file()
            || match self.unread {
                Some(Unread::Digest) => self.digest.is_some(),
                Some(Unread::Ending) => self.gets.is_ending(None),
                Some(Unread::Get { limit }) => self.gets.is_busy(limit),
                None => false,
            }
    }

    /// A file is being opened, created or named.
    fn waits_for_file(&self) -> bool {
        self.gets.is_opening() || self.put.as_ref().is_some_and(|put| put.step.waits())
    }

    /// Whether a transfer has this id.
    pub(super) fn has_transfer(&self, id: u32) -> bool {
        self.gets.has(id) || self.put.as_ref().is_some_and(|put| put.id == id)
    }

    /// What was sent last says whether there is room for more.
    pub(super) fn note(&mut self, room: SendStatus) {
        self.full |= room == SendStatus::Full;
    }

    /// Throws away what nobody wants of these bytes; how many that were.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> usize {
        let skipped = bytes.len().min(usize::try_from(self.skip_bytes).unwrap_or(usize::MAX));
        self.skip_bytes -= skipped as u64;
        skipped
    }

    pub(super) fn alive(&mut self) -> Alive {
        Alive(Arc::downgrade(self.alive.get_or_insert_default()))
    }

    /// After every callback: whether to read on, the timer, and the end of a connection from which
    /// nothing more comes or for which a drain waits.
    pub(super) fn settle(&mut self, connection: &mut Connection<'_>, patience: Patience) {
        if self.closing {
            return;
        }
        if self.half_closed && self.is_at_rest(connection) {
            // What was answered leaves first.
            return self.close(connection);
        }
        let waits = self.waits();
        if waits != std::mem::replace(&mut self.paused, waits) {
            if waits { connection.pause() } else { connection.resume() }
        }
        let next = self.next_deadline();
        if next != self.timer_at {
            // One timer for all: the earliest one.
            let now = connection.local().now();
            connection.set_timer(0, next.map(|at| at.saturating_sub(now)));
            self.timer_at = next;
        }
        if self.draining {
            // A client that is busy putting is waited for as long as between any two chunks.
            let putting = self.put.is_some();
            connection.finish(if putting { patience.transfer } else { patience.idle });
        }
    }

    pub(super) fn close(&mut self, connection: &mut Connection<'_>) {
        self.closing = true;
        connection.close();
    }

    /// The timer has fired and is not set any more.
    pub(super) fn timer_fired(&mut self) {
        self.timer_at = None;
    }

    fn is_at_rest(&self, connection: &Connection<'_>) -> bool {
        self.gets.is_empty()
            && self.put.is_none()
            && self.digest.is_none()
            && connection.jobs_under_way() == 0
    }

    fn next_deadline(&self) -> Option<Duration> {
        let get = self.gets.deadline();
        let put = self.put.as_ref().and_then(|put| put.deadline());
        let digest = self.digest.as_ref().and_then(|digest| digest.again_at());
        get.into_iter().chain(put).chain(digest).min()
    }
}

/// How long a drain waits for a client that says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub(super) idle: Duration,
    pub(super) transfer: Duration,
}
