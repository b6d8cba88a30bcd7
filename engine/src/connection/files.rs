//! Files of a connection: those that it sends, and those that it receives.

use super::Connection;
use crate::Reason;
use crate::files::{
    CachedPlace, Directory, FileKind, NewFile, OpenFile, PublishOptions, StartFileError,
    StartNewFileError,
};
use crate::info::SendStatus;
use crate::ring::Kind;
use crate::shard::slots::NONE;

impl Connection<'_> {
    /// Queues `length` bytes of `file` from `offset`, in order with everything sent before and
    /// after.
    ///
    /// A file that is small enough is read into the send buffer of the preceding output and leaves
    /// with it. A larger file leaves by sendfile(2) as far as it is in the page cache; the rest
    /// goes through a pipe by splice(2). [`Handler::file_sent`](crate::Handler::file_sent) is
    /// called when the last byte has left the file.
    ///
    /// A file that is shorter than `offset + length` closes the connection with
    /// [`Reason::FileTruncated`], and a read error with [`Reason::FileFailed`]. Output queued
    /// before the file and the bytes that could be read still leave, followed by FIN. Output
    /// queued behind the file is dropped, and there is no `file_sent`. After
    /// [`close`](Self::close) the reason is that of the close. The peer gets an ordinary end with
    /// fewer bytes than announced, so the protocol must announce the length.
    ///
    /// A file that is not regular and a range beyond 2^63 close the connection in the same way,
    /// with [`Reason::FileFailed`]. The result is then [`SendStatus::Closed`].
    #[doc(alias("sendfile", "splice", "IORING_OP_SPLICE"))]
    pub fn send_file(&mut self, file: OpenFile, offset: u64, length: u64) -> SendStatus {
        self.queue_file(file, offset, length, false)
    }

    /// Sends as [`send_file`](Self::send_file) does, but keeps the connection if the file is
    /// shorter than announced or cannot be read: zeros replace the missing bytes.
    ///
    /// [`Handler::file_sent`](crate::Handler::file_sent) follows as usual, and
    /// [`OpenFile::failure`] then returns the reason. Use it for protocols that can tell the peer
    /// behind the announced bytes that they are wrong. Keep a clone of `file` to ask.
    pub fn send_file_padded(&mut self, file: OpenFile, offset: u64, length: u64) -> SendStatus {
        self.queue_file(file, offset, length, true)
    }

    fn queue_file(&mut self, file: OpenFile, offset: u64, length: u64, padded: bool) -> SendStatus {
        if !self.takes_output() {
            self.core.close_file(file);
            return self.room();
        }
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64);
        if end.is_none() || file.status().kind != FileKind::Regular {
            self.core.close_file(file);
            self.core.close(self.slot, Reason::FileFailed);
            return SendStatus::Closed;
        }
        self.core.queue_file(self.slot, file, (offset, length), padded);
        self.queued()
    }

    /// Opens `path` beneath `directory` for reading, on the ring. The result comes to
    /// [`Handler::file_opened`](crate::Handler::file_opened).
    ///
    /// The engine uses openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
    /// RESOLVE_NO_MAGICLINKS`. A path that leads out of the directory fails with EXDEV, a symbolic
    /// link with ELOOP, and a path with a NUL byte with EINVAL. Other errors are those of
    /// openat2(2). [`Directory::open_following_links`] allows some links. Where a ring on epoll
    /// must do without openat2(2), because it is missing or forbidden, every path with `..` fails
    /// with EXDEV.
    ///
    /// The engine looks the path up first (`O_PATH`), unless it did so within the last 250 ms, and
    /// opens only a regular file. For anything else the result has a status
    /// ([`FileStatus::kind`](crate::files::FileStatus::kind)) and cannot be read: opening a FIFO
    /// would let its writer go on, and opening a device may have any effect.
    ///
    /// # Errors
    /// [`StartFileError`] if an open or a [`create_file`](Self::create_file) is in progress, or if
    /// the connection is ending.
    #[doc(alias("openat2", "IORING_OP_OPENAT2"))]
    pub fn open_file(&mut self, directory: &Directory, path: &[u8]) -> Result<(), StartFileError> {
        self.request_open(directory, Some(path))
    }

    fn request_open(
        &mut self,
        directory: &Directory,
        path: Option<&[u8]>,
    ) -> Result<(), StartFileError> {
        if self.core.slots[self.slot].state().is_over() {
            return Err(StartFileError::Ending);
        }
        if self.core.slots.rare(self.slot).open() != NONE {
            return Err(StartFileError::InProgress);
        }
        self.core.request_open(self.slot, directory, path);
        Ok(())
    }

    /// Returns a file that the shard keeps open, if `path` beneath `directory` still leads to it.
    ///
    /// [`open_file`](Self::open_file) of any connection of the shard puts files there, see
    /// [`Config::open_files`](crate::Config::open_files). The engine asks for the file's status
    /// (statx(2)) at most once per turn of its loop and compares it with the status at the open.
    /// Any change of the file is therefore noticed at the next request. A change of a directory
    /// above the file is noticed after `open_files_valid`.
    ///
    /// Returns `None` if the file must be opened first, and always outside
    /// [`Handler::received`](crate::Handler::received). The shard keeps only regular files on local
    /// file systems. It keeps no file that changed less than 20 ms before the open.
    pub fn cached_file(&mut self, directory: &Directory, path: &[u8]) -> Option<OpenFile> {
        self.core.cached_file(self.calls.as_deref_mut()?, directory, path)
    }

    /// Returns the file at a place of [`OpenFile::place`], as [`cached_file`](Self::cached_file)
    /// does for its path and with the same checks. A server that knows which file answers a request
    /// needs not write the file's path. `None` if the shard keeps the file open no longer, and for
    /// a place of another shard.
    pub fn cached_file_at(&mut self, place: CachedPlace) -> Option<OpenFile> {
        self.core.cached_file_at(self.calls.as_deref_mut()?, place)
    }

    /// Reads `length` bytes of `file` from `offset` out of the page cache and queues them, in order
    /// with everything sent before. It is the short way for small files: there is no
    /// [`Handler::file_sent`](crate::Handler::file_sent) for it.
    ///
    /// Returns `None` and queues nothing in these cases; use [`send_file`](Self::send_file) then:
    /// * The range is empty, longer than a send buffer, or not completely in the page cache.
    /// * The file is not regular or not on a local file system.
    /// * No send buffer is free, or the queue would become longer than `output_bytes_max`.
    /// * The connection is ending, or the call is made outside
    ///   [`Handler::received`](crate::Handler::received).
    pub fn send_cached(&mut self, file: &OpenFile, offset: u64, length: u64) -> Option<SendStatus> {
        let calls = self.calls.as_deref_mut()?;
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64);
        let slot = &self.core.slots[self.slot];
        let takes = slot.state().accepts_output() && !slot.shutdown_wanted();
        let possible = takes
            && length > 0
            && end.is_some()
            && file.status().kind == FileKind::Regular
            && !file.waits();
        let possible = possible && self.core.fits(self.slot, length as usize);
        if !possible || !self.core.queue_cached(calls, self.slot, file, offset, length) {
            return None;
        }
        Some(self.queued())
    }

    /// Gives up every file in the output queue: nothing more is read from them. Returns the number
    /// of bytes that are not sent because of that.
    ///
    /// The bytes that were read before still leave, and so does the output queued before, between
    /// and behind the files. It is for protocols in which the peer can tell that a file ends early;
    /// with any other, [`abort`](Self::abort) the connection.
    /// [`Handler::file_sent`](crate::Handler::file_sent) is called for each of these files as if it
    /// had been sent.
    #[doc(alias("abandon", "withdraw"))]
    pub fn cancel_files(&mut self) -> u64 {
        let connection = &self.core.slots[self.slot];
        if !connection.state().sends() {
            return 0;
        }
        let head = connection.output_head();
        let flight = connection.in_flight();
        let reads = if flight.has(Kind::Splice) {
            head
        } else if flight.has(Kind::Read) {
            self.core.chunks[head as usize].next
        } else {
            NONE
        };
        self.core.touch(self.slot);
        self.core.cancel_files(self.slot, reads)
    }

    /// Gives up the file that [`receive_file`](Self::receive_file) writes. Returns `false` if there
    /// is none.
    ///
    /// [`Handler::file_received`](crate::Handler::file_received) follows with ECANCELED and the
    /// number of bytes that are still to come on the stream; `received` gets them next. A file that
    /// was already complete is reported as complete.
    #[doc(alias("abandon", "withdraw"))]
    pub fn cancel_receive(&mut self) -> bool {
        let number = self.core.slots.incoming(self.slot);
        if number == NONE || !self.core.slots[self.slot].state().hears() {
            return false;
        }
        mark!("an arriving file is given up");
        self.core.incoming[number as usize].cancel();
        self.core.touch(self.slot);
        true
    }

    /// Creates a file without a name in `directory`: openat2(2) with `O_TMPFILE` and mode 0644 less
    /// the umask. The result comes to [`Handler::file_created`](crate::Handler::file_created).
    ///
    /// # Errors
    /// [`StartFileError`], as for [`open_file`](Self::open_file).
    #[doc(alias = "O_TMPFILE")]
    pub fn create_file(&mut self, directory: &Directory) -> Result<(), StartFileError> {
        self.request_open(directory, None)
    }

    /// Writes the next `length` bytes of the stream into `file`, from `offset` on. The result comes
    /// to [`Handler::file_received`](crate::Handler::file_received).
    ///
    /// Inside `received`, the range begins behind the bytes that this call uses. Elsewhere it
    /// begins behind the bytes used so far. Meanwhile the engine does not call `received`, and
    /// [`pause`](Self::pause) does not stop the transfer. A long range goes from the socket to the
    /// file by splice(2) and never enters this process's memory.
    ///
    /// Without progress for `transfer_timeout` the connection ends with
    /// [`Reason::TransferTimeout`].
    ///
    /// # Errors
    /// The file comes back inside [`StartNewFileError`] if a file is being received already, if the
    /// range ends beyond 2^63, or if the connection is ending.
    #[doc(alias("splice", "recv", "upload"))]
    pub fn receive_file(
        &mut self,
        file: NewFile,
        offset: u64,
        length: u64,
    ) -> Result<(), StartNewFileError> {
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64);
        let error = if !self.core.slots[self.slot].state().hears() {
            StartFileError::Ending
        } else if end.is_none() {
            StartFileError::OutOfRange
        } else if self.core.slots.takes_a_range(&self.core.slots[self.slot]) {
            StartFileError::InProgress
        } else {
            self.core.request_receive(self.slot, file, offset, length);
            return Ok(());
        };
        Err(StartNewFileError { file, error })
    }

    /// Gives `file` its name in the directory for which it was created. The result comes to
    /// [`Handler::file_published`](crate::Handler::file_published).
    ///
    /// `name` is one path component of 1 to 255 bytes; any other name fails with EINVAL. Nobody
    /// sees the file before it has its name. It fails with EEXIST if the name exists and
    /// [`PublishOptions::replace`] is not set, and with EISDIR if the name is a directory. The
    /// engine carries the operation out even if the connection ends meanwhile.
    ///
    /// # Errors
    /// The file comes back inside [`StartNewFileError`] if a file of this connection is being
    /// published already, or if the connection is ending.
    #[doc(alias("linkat", "rename", "IORING_OP_LINKAT"))]
    pub fn publish_file(
        &mut self,
        file: NewFile,
        name: &[u8],
        publish: PublishOptions,
    ) -> Result<(), StartNewFileError> {
        if self.core.slots[self.slot].state().is_over() {
            return Err(StartNewFileError { file, error: StartFileError::Ending });
        }
        if self.core.slots.rare(self.slot).naming() != NONE {
            return Err(StartNewFileError { file, error: StartFileError::InProgress });
        }
        self.core.request_naming(self.slot, file, name, publish);
        Ok(())
    }
}
