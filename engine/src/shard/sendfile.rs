//! Files in the page cache that do not fit into a send buffer. They leave by sendfile(2), together
//! with the output before them, as far as the socket has room.
//!
//! Each call sends up to `sendfile_bytes_max` bytes and stays inside an aligned stretch of 1 MiB. A
//! turn sends twice `sendfile_bytes_max`. Connections that have sent a piece in this turn queue
//! behind those that have not. Output before a file of 256 KiB or more is a segment of its own (no
//! `MSG_MORE`), so that the reader starts early. A file that has a pipe keeps it to its end.
//!
//! Hazard: pages that are still being read count as cached. Therefore preadv2(2) with `RWF_NOWAIT`
//! looks at one byte every 128 KiB, and a file with a splice in flight is not sent here.
//!
//! Hazard: from Linux 6.13 on, cachestat(2) answers only for files that the caller owns or may
//! write. For other files, and on file systems without `RWF_NOWAIT`, nothing counts as cached.

use super::Shard;
use super::bounds::Full;
use super::file::file_at_head;
use super::looks::STRETCH_BYTES;
use super::output::Body;
use super::pipes::Side;
use super::turn::Submitting;
use crate::Reason;
use crate::handler::Handler;
use crate::ring::Ring;

/// Errnos of sendfile(2) that speak of the file, not of the socket.
const FILE_ERRNOS: [i32; 6] =
    [libc::EIO, libc::ENOMEM, libc::EINTR, libc::EINVAL, libc::EOVERFLOW, libc::ESTALE];

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Whether the chunk behind the first is a file that is to leave by sendfile(2).
    #[inline]
    pub(super) fn sendfile_takes(&self, chunk: u32) -> bool {
        let chunk = self.core.chunks.get(chunk as usize).map(|chunk| &chunk.body);
        self.core.limits.sendfile_bytes_max > 0
            && matches!(chunk, Some(Body::File(file))
                if file.remaining > 0
                    && file.pipe.is_none()
                    && !file.uncached
                    && !file.file.waits())
    }

    /// Sends what lies in the page cache, past any pipe; the rest goes through one.
    pub(super) fn send_cached(&mut self, may: Submitting, slot: u32) -> Result<bool, Full> {
        let socket = self.core.slots[slot].descriptor();
        let now_ms = self.core.now_ms;
        let piece_max = u64::from(self.core.limits.sendfile_bytes_max);
        let file = file_at_head(&mut self.core, slot);
        let stretch_left = STRETCH_BYTES - file.offset % STRETCH_BYTES;
        let length = file.remaining.min(piece_max).min(stretch_left) as u32;
        if length > 0 && self.sendfile_left == 0 {
            mark!("enough files for one turn");
            self.core.touch(slot);
            return Ok(false);
        }
        // Pages that a splice waits for count as cached, and sendfile would wait for them here.
        let waited_for = self.splicing.contains(&file.file.status().inode);
        let pipe = length == 0 || file.file.waits() || file.uncached || waited_for;
        let (status, descriptor) = (file.file.status(), file.file.descriptor());
        let look = |begin, length| self.ring.is_cached(descriptor, begin, length);
        if pipe || !self.looks.find(&status, file.offset, now_ms, look) {
            mark!("a file is not cached");
            return Ok(self.take_pipe(slot, Side::Out));
        }
        match self.ring.send_file(file.file.descriptor(), file.offset, length, socket) {
            Ok(0) => {
                mark!("a cached file was cut off");
                self.end_at_file(slot, Reason::FileTruncated);
                Ok(true)
            }
            Ok(sent) => {
                file.offset += u64::from(sent);
                file.remaining -= u64::from(sent);
                let rest = file.remaining > 0;
                self.sendfile_left = self.sendfile_left.saturating_sub(u64::from(sent));
                self.bounds.leaves_something = true;
                self.note_sent(slot, sent);
                if sent < length {
                    return self.poll_room(may, slot);
                }
                // One piece a turn: others have their turn, too.
                if rest {
                    self.served.push(slot);
                }
                Ok(!rest)
            }
            Err(errno) if errno.0 == libc::EAGAIN => {
                mark!("no room for a cached file");
                self.poll_room(may, slot)
            }
            Err(errno) if FILE_ERRNOS.contains(&errno.0) => {
                self.on_file_error(slot, errno.0);
                self.core.touch(slot);
                Ok(false)
            }
            Err(errno) => {
                mark!("sendfile failed");
                self.core.fail(slot, errno);
                Ok(false)
            }
        }
    }
}
