//! Files that lie in the page cache and do not fit into a send buffer: what precedes them and they
//! themselves leave past the ring, in one go, as far as there is room.

use super::file::file_at_head;
use super::output::Body;
use super::pipes::Side;
use super::{Full, Shard};
use crate::Reason;
use crate::handler::Handler;
use crate::ring::{Descriptor, Errno, Ring};

/// Bytes of a cached file that are tried at least.
const WINDOW_BYTES_MIN: u32 = 64 << 10;
/// Errnos of sendfile(2) that speak of the file, not of the socket.
const FILE_ERRNOS: [i32; 6] =
    [libc::EIO, libc::ENOMEM, libc::EINTR, libc::EINVAL, libc::EOVERFLOW, libc::ESTALE];

/// A range of a file that was found in the page cache: in a turn many may ask for the same one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    file: Descriptor,
    offset: u64,
    length: u32,
    turn: u64,
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Whether what follows the first chunk's bytes is a file that may leave by sendfile(2) now.
    pub(super) fn cached_file_follows(&self, slot: u32) -> bool {
        let head = &self.core.chunks[self.core.slots[slot].output_head as usize];
        let Body::Pooled { .. } = &head.body else { return false };
        match self.core.chunks.get(head.next as usize).map(|chunk| &chunk.body) {
            Some(Body::File(file)) => {
                let pipe = file.pipe.is_some() || file.uncached || file.file.waits();
                file.remaining > 0 && file.window_bytes > 0 && !pipe
            }
            _ => false,
        }
    }

    /// Sends the bytes before a file past the ring, so that the file follows without a turn of the
    /// loop between them. True: all have left.
    pub(super) fn send_before_file(&mut self, slot: u32) -> Result<bool, Full> {
        let connection = &self.core.slots[slot];
        let socket = connection.descriptor;
        let Body::Pooled { buffer, start, end } =
            &self.core.chunks[connection.output_head as usize].body
        else {
            unreachable!("just looked at")
        };
        let length = end - start;
        let address = self.core.send_buffers.address(buffer).wrapping_add(*start as usize);
        match self.ring.send_now(socket, address, length) {
            Ok(sent) => {
                self.note_sent(slot, sent);
                self.core.advance_output(slot, sent);
                if sent < length { self.poll_room(slot) } else { Ok(true) }
            }
            Err(Errno(libc::EAGAIN)) => {
                mark!("no room before a cached file");
                self.poll_room(slot)
            }
            Err(Errno(libc::ENOBUFS | libc::ENOMEM)) => {
                mark!("no memory before a cached file");
                self.rest(slot);
                self.core.touch(slot);
                Ok(false)
            }
            Err(errno) => {
                self.core.end(slot, Reason::from_errno(errno.0), false);
                Ok(false)
            }
        }
    }

    /// Sends what lies in the page cache, past any pipe; the rest goes through one.
    pub(super) fn send_cached(&mut self, slot: u32) -> Result<bool, Full> {
        let socket = self.core.slots[slot].descriptor;
        let window_max = self.core.limits.sendfile_bytes_max;
        let turn = self.core.counters.turns;
        let file = file_at_head(&mut self.core, slot);
        let length = file.remaining.min(u64::from(file.window_bytes)) as u32;
        if length > 0 && self.sendfile_left == 0 {
            mark!("enough files for one turn");
            self.core.touch(slot);
            return Ok(false);
        }
        // Pages that a splice waits for count as cached, and sendfile would wait for them here.
        let waited_for = self.splicing.contains(&file.file.status().inode);
        let pipe = length == 0 || file.file.waits() || file.uncached || waited_for;
        let look = Look { file: file.file.descriptor(), offset: file.offset, length, turn };
        let cached = !pipe
            && (self.looked == Some(look) || self.ring.is_cached(look.file, look.offset, length));
        self.looked = cached.then_some(look).or(self.looked);
        if !cached {
            mark!("a file is not cached");
            return Ok(self.take_pipe(slot, Side::Out));
        }
        match self.ring.send_file(file.file.descriptor(), file.offset, length, socket) {
            Ok(0) => {
                mark!("a cached file was cut off");
                self.core.end(slot, Reason::FileTruncated, true);
                Ok(false)
            }
            Ok(sent) => {
                file.offset += u64::from(sent);
                file.remaining -= u64::from(sent);
                // What is not sent is looked for in vain.
                file.window_bytes = sent.saturating_mul(2).max(WINDOW_BYTES_MIN).min(window_max);
                let rest = file.remaining > 0;
                self.sendfile_left = self.sendfile_left.saturating_sub(u64::from(sent));
                self.note_sent(slot, sent);
                if sent < length {
                    return self.poll_room(slot);
                }
                // One window a turn: others have their turn, too.
                if rest {
                    self.served.push(slot);
                }
                Ok(!rest)
            }
            Err(errno) if errno.0 == libc::EAGAIN => {
                mark!("no room for a cached file");
                self.poll_room(slot)
            }
            Err(errno) if FILE_ERRNOS.contains(&errno.0) => {
                self.on_file_error(slot, errno.0);
                self.core.touch(slot);
                Ok(false)
            }
            Err(errno) => {
                mark!("sendfile failed");
                self.core.end(slot, Reason::from_errno(errno.0), false);
                Ok(false)
            }
        }
    }
}
