//! What a handler may do with a connection.

use crate::file::{Directory, NewFile, OpenFile, Publish};
use crate::handler::Origin;
use crate::local::Local;
use crate::ring::Ring;
use crate::shard::core::{Core, milliseconds};
use crate::workers::{Job, Refused};
use crate::{ConnectionId, FileKind, Reason};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whether a connection takes more output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a connection whose handler keeps sending while the queue is full ends at output_bytes_max"]
pub enum Room {
    /// Below the high-water mark.
    Free,
    /// Above it: stop, [`Handler::writable`](crate::Handler::writable) will be called. Receiving
    /// is paused meanwhile.
    Full,
}

/// The connection a callback is about. Nothing here blocks: it notes what is wanted, and the shard
/// submits it when the batch is done. None makes a system call but [`Connection::cached_file`] and
/// [`Connection::send_cached`], whose calls wait for nobody.
pub struct Connection<'a> {
    core: &'a mut Core,
    slot: u32,
    /// In `received`: what is open and lies in the page cache can be had at once.
    ring: Option<&'a mut dyn Ring>,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(core: &'a mut Core, slot: u32) -> Self {
        Self { core, slot, ring: None }
    }

    pub(crate) fn with_ring(core: &'a mut Core, ring: &'a mut dyn Ring, slot: u32) -> Self {
        Self { core, slot, ring: Some(ring) }
    }

    /// Its name, never used for another one.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.core.id(self.slot)
    }

    /// The peer's address, read once when the connection came to be.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.core.slots.peer(self.slot)
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.core.slots.origin(self.slot)
    }

    /// Queues a copy of `bytes`. Never fails: on a connection that is ending it does nothing.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> Room {
        if bytes.is_empty() || !self.takes_output() {
            return self.room();
        }
        if !self.core.may_queue(self.slot, bytes.len()) {
            return Room::Full;
        }
        self.core.queue_bytes(self.slot, bytes);
        self.queued()
    }

    /// Queues a reference to `bytes`: one payload for many connections.
    pub fn send_shared(&mut self, bytes: Arc<[u8]>) -> Room {
        if bytes.is_empty() || !self.takes_output() {
            return self.room();
        }
        if !self.core.may_queue(self.slot, bytes.len()) {
            return Room::Full;
        }
        self.core.queue_shared(self.slot, bytes);
        self.queued()
    }

    /// Queues `length` bytes of a file from `offset` on, in order with everything sent; page
    /// cache to socket by splice(2), or together with what was sent before it if it is small.
    /// [`Handler::file_sent`](crate::Handler::file_sent) tells when its last byte has left the
    /// file. A file that turns out shorter ends the connection with [`Reason::FileTruncated`]; one
    /// that is not a regular file, or a range beyond 2^63, with [`Reason::FileFailed`].
    pub fn send_file(&mut self, file: OpenFile, offset: u64, length: u64) -> Room {
        if !self.takes_output() {
            self.core.close_file(file);
            return self.room();
        }
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64);
        if end.is_none() || file.status().kind != FileKind::Regular {
            self.core.close_file(file);
            self.core.end(self.slot, Reason::FileFailed, true);
            return Room::Full;
        }
        self.core.queue_file(self.slot, file, offset, length);
        self.queued()
    }

    /// Opens `path` beneath `directory` on the ring, read-only: openat2(2) with
    /// `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`. Answered by
    /// [`Handler::file_opened`](crate::Handler::file_opened): EXDEV for a path that leads out,
    /// ELOOP for a symbolic link, EINVAL for one with a NUL byte.
    ///
    /// # Panics
    /// If an open of this connection is under way: one at a time.
    pub fn open_file(&mut self, directory: &Directory, path: &[u8]) {
        if !self.core.slots[self.slot].state.is_over() {
            self.core.request_open(self.slot, directory, Some(path));
        }
    }

    /// A file that [`Connection::open_file`] has opened for anybody on this shard, and that is still
    /// what `path` leads to: its status was asked for (statx(2)) since this turn of the loop began,
    /// and is what it was. That shows whatever befalls the file; what befalls a directory above it
    /// is seen after `open_files_valid`.
    ///
    /// `None`: it has to be opened. So it is outside of [`Handler::received`](crate::Handler::received),
    /// for what is no regular file or does not lie on a local file system, and for a file that had
    /// changed within 20 ms before it was opened.
    pub fn cached_file(&mut self, directory: &Directory, path: &[u8]) -> Option<OpenFile> {
        self.core.cached_file(self.ring.as_deref_mut()?, directory, path)
    }

    /// Queues `length` bytes of a file from `offset` on, in order with everything sent, if they can
    /// be read from the page cache at once and fit into a send buffer. There is no
    /// [`Handler::file_sent`](crate::Handler::file_sent) for it. `None`, and nothing is queued: they
    /// cannot, so that it takes [`Connection::send_file`]; so it is outside of
    /// [`Handler::received`](crate::Handler::received).
    pub fn send_cached(&mut self, file: &OpenFile, offset: u64, length: u64) -> Option<Room> {
        let ring = self.ring.as_deref_mut()?;
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64);
        let slot = &self.core.slots[self.slot];
        let takes = slot.state.accepts_output() && !slot.shutdown_wanted;
        let possible = takes
            && length > 0
            && end.is_some()
            && file.status().kind == FileKind::Regular
            && !file.waits();
        if !possible || !self.core.queue_cached(ring, self.slot, file, offset, length) {
            return None;
        }
        Some(self.queued())
    }

    /// Makes a file without a name that is to get one in `directory`: openat2(2) with `O_TMPFILE`.
    /// Answered by [`Handler::file_created`](crate::Handler::file_created).
    ///
    /// # Panics
    /// If an open of this connection is under way: one at a time.
    pub fn create_file(&mut self, directory: &Directory) {
        if !self.core.slots[self.slot].state.is_over() {
            self.core.request_open(self.slot, directory, None);
        }
    }

    /// Lets the next `length` bytes of the stream go into `file`, from `offset` on: those behind what
    /// this call of `received` uses, or, outside of it, behind what was used so far. `received` is
    /// not called meanwhile, and [`Connection::pause`] does not hold them up. Long ranges go from
    /// the socket to the file by splice(2), not through this process's memory. Answered by
    /// [`Handler::file_received`](crate::Handler::file_received); without progress for
    /// `transfer_timeout` the connection ends. On one that is ending the file is gone.
    ///
    /// # Panics
    /// If a file is being received: one at a time. If the range ends beyond 2^63.
    pub fn receive_file(&mut self, file: NewFile, offset: u64, length: u64) {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= i64::MAX as u64), "a file ends before 2^63");
        if self.core.slots[self.slot].state.hears() {
            self.core.request_receive(self.slot, file, offset, length);
        }
    }

    /// Gives a file its name in the directory that it was made for: one component of 1 to 255 bytes,
    /// else EINVAL. Until then nobody sees it. Answered by
    /// [`Handler::file_published`](crate::Handler::file_published): EEXIST where the name is taken and
    /// is not to be replaced; EISDIR where it is a directory's. Once called it is carried out, even
    /// if the connection ends meanwhile.
    ///
    /// # Panics
    /// If a file is being published: one at a time.
    pub fn publish_file(&mut self, file: NewFile, name: &[u8], publish: Publish) {
        if !self.core.slots[self.slot].state.is_over() {
            self.core.request_naming(self.slot, file, name, publish);
        }
    }

    /// Whether a job, a file being received or one being published is under way, so that a callback
    /// will follow.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.core.slots.rare(self.slot).is_at_work()
    }

    /// Has a job done by a worker; [`Handler::job_done`](crate::Handler::job_done) tells what came
    /// of it, unless the connection has gone or was closed by then. Whoever has a job under way is
    /// not at rest for [`Connection::finish`] and for a drain, and is not idle for `idle_timeout`: it
    /// waits for us.
    ///
    /// # Errors
    /// The job comes back. [`Refusal::Full`](crate::Refusal::Full): the connection is paused, as by
    /// [`Connection::pause`], and resumes by itself as soon as there is room: a handler whose
    /// `received` leaves the request unused is shown it again then. One that it has paused
    /// itself, before or after, stays so until it calls [`Connection::resume`].
    pub fn offload(&mut self, job: Job) -> Result<(), Refused> {
        self.core.offload(self.slot, job)
    }

    /// Jobs offloaded that were not told of yet.
    #[must_use]
    pub fn jobs_under_way(&self) -> usize {
        self.core.jobs_under_way(self.slot) as usize
    }

    /// Queued output in bytes, files not counted.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.core.slots[self.slot].output_bytes as usize
    }

    /// Does not call `received` again before `bytes` unread bytes are there. Holds for the next
    /// call only; more than `message_bytes_max` is never there.
    pub fn need(&mut self, bytes: usize) {
        self.core.slots[self.slot].need = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Stops calling `received`, and reading soon after.
    pub fn pause(&mut self) {
        let slot = &mut self.core.slots[self.slot];
        slot.paused = true;
        // Who is not listened to cannot be late.
        self.core.forget_message(self.slot);
        self.not_for_jobs();
        self.core.touch(self.slot);
    }

    /// Undoes [`Connection::pause`]: kept bytes are delivered again after this callback.
    pub fn resume(&mut self) {
        let slot = &mut self.core.slots[self.slot];
        slot.paused = false;
        slot.deliver_owed = true;
        self.not_for_jobs();
        self.core.touch(self.slot);
    }

    /// Whether it is paused has nothing to do with its jobs from here on.
    fn not_for_jobs(&mut self) {
        if let Some(rare) = self.core.slots.rare_if_any(self.slot) {
            rare.paused_for_jobs = false;
        }
    }

    /// Sets the connection's one timer, or clears it.
    pub fn set_timer(&mut self, after: Option<Duration>) {
        if let Some(after) = after {
            let at_ms = self.core.now_ms + milliseconds(after);
            self.core.slots.rare_mut(self.slot).timer_ms = at_ms;
        } else if let Some(rare) = self.core.slots.rare_if_any(self.slot) {
            rare.timer_ms = 0;
        }
        self.core.touch(self.slot);
    }

    /// Sends FIN after everything queued has left, and goes on receiving. Nothing can be sent
    /// after it.
    pub fn shutdown(&mut self) {
        let slot = &mut self.core.slots[self.slot];
        slot.shutdown_wanted = true;
        self.core.touch(self.slot);
    }

    /// Ends it gracefully: queued output leaves, then FIN, then the peer's remaining input is
    /// read and thrown away until its FIN, `linger_timeout` or `linger_bytes_max`, so that no
    /// reset destroys what it has yet to read. `received` is not called any more.
    pub fn close(&mut self) {
        self.core.close(self.slot, Reason::LocalClose);
    }

    /// Ends it as [`Connection::close`] does, because the peer broke the protocol: counted as
    /// [`Reason::ProtocolError`].
    pub fn protocol_error(&mut self) {
        self.core.close(self.slot, Reason::ProtocolError);
    }

    /// Ends it as [`Connection::close`] does, but only when it is at rest: it is not paused, nothing
    /// is queued, no file is being opened, received or published, no job is under way, and nothing has come or gone for
    /// `quiet`; where a message was begun and not completed, for a second at least. What arrives
    /// before the FIN is still received and can be answered. A reply that is being prepared
    /// otherwise than by a job is nothing the engine knows of: call this when it was sent.
    /// Counted as [`Reason::Drained`] in a drain, else as [`Reason::LocalClose`].
    pub fn finish(&mut self, quiet: Duration) {
        let quiet_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        self.core.finish(self.slot, quiet_ms);
    }

    /// Whether the engine drains.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.core.draining
    }

    /// Ends it at once with RST: queued output is lost, no TIME_WAIT is left.
    pub fn abort(&mut self) {
        self.core.end(self.slot, Reason::Aborted, true);
    }

    /// The shard it lives on.
    pub fn local(&mut self) -> Local<'_> {
        Local::new(self.core)
    }

    fn takes_output(&self) -> bool {
        let slot = &self.core.slots[self.slot];
        slot.state.accepts_output() && !slot.shutdown_wanted
    }

    fn room(&self) -> Room {
        if self.core.slots[self.slot].output_full { Room::Full } else { Room::Free }
    }

    fn queued(&mut self) -> Room {
        if self.core.queued(self.slot) { Room::Full } else { Room::Free }
    }
}
