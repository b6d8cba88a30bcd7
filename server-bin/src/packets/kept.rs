//! Resumable uploads whose connection has ended, until a client resumes them or the limits are
//! reached. Their files have no name, so they vanish with the process.

use super::wire::Version;
use crate::served::Identity;
use ringwright::files::NewFile;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of uploads that wait to be resumed. Each needs a descriptor.
const WAITING_MAX: usize = 64;

/// The limits for uploads that wait to be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum time.
    pub timeout: Duration,
    /// Maximum size of all of them together in bytes; 0 keeps none.
    pub bytes_max: u64,
}

/// Identifies an upload. The client chose all of it but the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The served folder in which the upload began: its file gets its name there.
    pub(super) folder: Identity,
    pub(super) name: Box<[u8]>,
    pub(super) size: u64,
    pub(super) version: Version,
}

/// The resumable uploads of all shards, in progress or waiting.
pub struct Kept {
    limits: Limits,
    uploads: Mutex<Vec<Upload>>,
}

/// A resumable upload.
struct Upload {
    key: Key,
    file: NewFile,
    /// Bytes in chunks that arrived completely. A resumed upload continues here.
    received: u64,
    /// Bytes that the file may have, with an incomplete chunk.
    bytes: u64,
    /// The time at which its connection ended; `None` while it has one.
    since: Option<Instant>,
}

/// The result of a lookup.
pub(super) enum Found {
    /// It waited. The connection continues it from this offset.
    Waiting(Claim, NewFile, u64),
    /// Another connection is at it.
    InUse,
    Nothing,
}

/// The right of a connection to continue an upload. Dropping it lets the upload wait to be resumed.
pub(super) struct Claim {
    kept: Arc<Kept>,
    key: Key,
}

impl Kept {
    /// An empty collection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, uploads: Mutex::default() }
    }

    /// Adds an upload that begins.
    pub(super) fn begin(self: &Arc<Self>, key: Key, file: &NewFile) -> Option<Claim> {
        let mut uploads = self.lock();
        if uploads.iter().any(|upload| upload.key == key) {
            return None;
        }
        let (file, claim) = (file.clone(), Claim { kept: self.clone(), key: key.clone() });
        uploads.push(Upload { key, file, received: 0, bytes: 0, since: None });
        Some(claim)
    }

    /// Looks for an upload to continue.
    pub(super) fn resume(self: &Arc<Self>, key: &Key, now: Instant) -> Found {
        self.expire(now);
        let mut uploads = self.lock();
        match uploads.iter_mut().find(|upload| upload.key == *key) {
            Some(upload) if upload.since.is_some() => {
                upload.since = None;
                let claim = Claim { kept: self.clone(), key: key.clone() };
                Found::Waiting(claim, upload.file.clone(), upload.received)
            }
            Some(_) => Found::InUse,
            None => Found::Nothing,
        }
    }

    /// Removes the uploads that have waited too long. Returns the time until the next one has, and
    /// `None` if there is no upload at all.
    pub(super) fn expire(&self, now: Instant) -> Option<Duration> {
        let timeout = self.limits.timeout;
        let left = |since: Instant| timeout.saturating_sub(now.saturating_duration_since(since));
        let mut uploads = self.lock();
        uploads.retain(|upload| upload.since.is_none_or(|since| !left(since).is_zero()));
        uploads.iter().map(|upload| upload.since.map_or(timeout, left)).min()
    }

    /// Removes all uploads that wait, to free their disk space.
    pub(super) fn clear(&self) {
        self.lock().retain(|upload| upload.since.is_none());
    }

    /// Lets an upload wait, and removes those that waited longest until the limits hold.
    fn wait(&self, key: &Key, now: Instant) {
        let mut uploads = self.lock();
        let Some(upload) = uploads.iter_mut().find(|upload| upload.key == *key) else { return };
        upload.since = Some(now);
        loop {
            let waiting = || uploads.iter().filter(|upload| upload.since.is_some());
            let bytes = waiting().fold(0_u64, |sum, upload| sum.saturating_add(upload.bytes));
            if waiting().count() <= WAITING_MAX
                && bytes <= self.limits.bytes_max
                && self.limits.bytes_max > 0
            {
                return;
            }
            let waits = uploads.iter().enumerate().filter_map(|(at, it)| Some((it.since?, at)));
            let Some((_, oldest)) = waits.min() else { return };
            uploads.remove(oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Notes a chunk that arrives or has arrived: complete chunks, and bytes with this one.
    pub(super) fn note(&self, received: u64, bytes: u64) {
        let mut uploads = self.kept.lock();
        if let Some(upload) = uploads.iter_mut().find(|upload| upload.key == self.key) {
            (upload.received, upload.bytes) = (received, bytes);
        }
    }

    /// Ends the upload: it cannot be resumed.
    pub(super) fn discard(self) {
        // Dropping the claim finds nothing to keep.
        self.kept.lock().retain(|upload| upload.key != self.key);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.kept.wait(&self.key, Instant::now());
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("key", &self.key).finish_non_exhaustive()
    }
}
