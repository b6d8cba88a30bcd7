//! Files, pipes and names. A file's bytes are computed, so that one of many gigabytes costs
//! nothing and a byte out of place shows.

use super::super::{Descriptor, Errno, FileKind, FileStatus, Op, Pipe};
use super::changes::Facts;
use super::descriptors::Object;
use super::operations::Pending;
use super::rng::stretch;
use super::sockets::take;
use super::{SimulatedRing, failed};
use std::collections::VecDeque;

/// Opens that follow a link and that a rename disturbs, of 1,000.
const DISTURBED_PER_MILLE: u16 = 100;

/// A file: its bytes are the stream called `key`.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedFile {
    /// Names its bytes.
    pub key: u64,
    /// Its size now; a fault may lower it.
    pub bytes: u64,
    /// What it is.
    pub kind: FileKind,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// A file, by its number.
    File(usize),
    /// A file that was made, by its number.
    Made(usize),
    /// An errno.
    Error(i32),
}

/// What is in a pipe.
#[derive(Debug)]
pub struct PipeBytes {
    /// Spliced in and not out again.
    pub bytes: VecDeque<u8>,
    /// How many may be.
    pub capacity: usize,
}

impl SimulatedRing {
    /// Adds a file beneath every directory. Returns its number.
    pub fn add_file(&mut self, path: &str, file: SimulatedFile) -> usize {
        self.files.push(file);
        self.facts.push(Facts::OLD);
        self.names.insert(path.as_bytes().to_vec(), Name::File(self.files.len() - 1));
        self.files.len() - 1
    }

    /// Makes a path lead to another file system.
    pub fn move_elsewhere(&mut self, path: &str) {
        self.elsewhere.insert(path.as_bytes().to_vec());
    }

    /// Makes a path lead across a symbolic link.
    pub fn make_link(&mut self, path: &str) {
        self.links.insert(path.as_bytes().to_vec());
    }

    /// Makes a path lead to an errno.
    pub fn add_error(&mut self, path: &str, errno: i32) {
        self.names.insert(path.as_bytes().to_vec(), Name::Error(errno));
    }

    /// Bytes left in pipes that are still open: a pool keeps only empty ones.
    pub fn bytes_in_pipes(&self) -> usize {
        self.pipes.iter().map(|pipe| pipe.bytes.len()).sum()
    }

    pub(super) fn file_of(&self, pending: &Pending) -> usize {
        match self.table.object(pending.holding.expect("resolved when submitted")) {
            Object::File(file) => file,
            other => self.broken(format_args!("{:?} on {other:?}", pending.op)),
        }
    }

    /// How many of `length` bytes at `offset` can be moved at this moment, or an errno.
    fn file_bytes(&mut self, file: usize, offset: u64, length: usize) -> Result<usize, i32> {
        if self.files[file].kind != FileKind::Regular {
            return Err(-libc::EINVAL);
        }
        if self.rng.per_mille(self.faults.file_error) {
            self.file_failures += 1;
            return Err(-libc::EIO);
        }
        if self.rng.per_mille(self.faults.no_send_memory) {
            return Err(-libc::ENOMEM);
        }
        if self.rng.per_mille(self.faults.truncate) {
            let kept = self.rng.below(self.files[file].bytes + 1);
            self.resize_file(file, kept);
            self.trace.peer(self.now_us, "none: truncated file to", file, kept);
        }
        let there = self.files[file].bytes.saturating_sub(offset);
        let count = length.min(usize::try_from(there).unwrap_or(usize::MAX));
        self.file_failures += u64::from(count == 0);
        Ok(if count > 1 && self.rng.per_mille(self.faults.short_file) {
            self.rng.up_to(count)
        } else {
            count
        })
    }

    pub(super) fn run_read(&mut self, pending: &Pending) -> i32 {
        let Op::Read { address, length, offset, .. } = pending.op else { unreachable!() };
        let file = self.file_of(pending);
        let count = match self.file_bytes(file, offset, length as usize) {
            Ok(count) => count,
            Err(errno) => return errno,
        };
        let bytes = stretch(self.files[file].key, offset, count);
        // SAFETY: the range was checked to lie in the arena when it was submitted, and the
        // submitter keeps it until the completion.
        unsafe { address.copy_from_nonoverlapping(bytes.as_ptr(), count) };
        count as i32
    }

    pub(super) fn read_now(
        &mut self,
        file: Descriptor,
        address: *mut u8,
        length: u32,
        offset: u64,
    ) -> Result<u32, Errno> {
        let Object::File(file) = self.object(file, "preadv2(2)") else {
            self.broken(format_args!("preadv2(2) of what is no file"))
        };
        self.prepare_read(address, length as usize);
        if self.rng.per_mille(self.faults.not_cached) {
            return Err(Errno(self.rng.pick(&[libc::EAGAIN, libc::EAGAIN, libc::EOPNOTSUPP])));
        }
        let count = self.file_bytes(file, offset, length as usize).map_err(failed)?;
        let bytes = stretch(self.files[file].key, offset, count);
        // SAFETY: the range was just checked to lie in the arena, and is the caller's.
        unsafe { address.copy_from_nonoverlapping(bytes.as_ptr(), count) };
        Ok(count as u32)
    }

    pub(super) fn send_direct(
        &mut self,
        socket: Descriptor,
        pieces: &[libc::iovec],
    ) -> Result<u32, Errno> {
        let peer = self.socket_number(socket, "sendmsg(2)");
        let mut bytes = Vec::new();
        for piece in pieces {
            // SAFETY: the caller keeps the bytes during the call.
            bytes.extend(unsafe {
                std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len)
            });
        }
        if let Some(errno) = self.peers[peer].socket.send_failure() {
            return Err(failed(errno));
        }
        if self.rng.per_mille(self.faults.no_send_memory) {
            return Err(Errno(self.rng.pick(&[libc::ENOBUFS, libc::ENOMEM])));
        }
        let most = bytes.len().min(self.peers[peer].socket.room());
        if most == 0 || self.rng.per_mille(self.faults.splice_again) {
            return Err(Errno(libc::EAGAIN));
        }
        let short = self.rng.per_mille(self.faults.short_send);
        let count = if short { self.rng.up_to(most) } else { most };
        self.peers[peer].socket.outbound.extend(&bytes[..count]);
        self.touch(peer);
        Ok(count as u32)
    }

    pub(super) fn send_out(
        &mut self,
        file: Descriptor,
        offset: u64,
        length: usize,
        socket: Descriptor,
    ) -> Result<u32, Errno> {
        let Object::File(file) = self.object(file, "sendfile(2)") else {
            self.broken(format_args!("sendfile(2) of what is no file"))
        };
        let peer = self.socket_number(socket, "sendfile(2)");
        if let Some(errno) = self.peers[peer].socket.send_failure() {
            return Err(failed(errno));
        }
        let room = self.peers[peer].socket.room();
        if room == 0 || self.rng.per_mille(self.faults.splice_again) {
            return Err(Errno(libc::EAGAIN));
        }
        let there = self.file_bytes(file, offset, length.min(room)).map_err(failed)?;
        let bytes = stretch(self.files[file].key, offset, there);
        self.peers[peer].socket.outbound.extend(&bytes);
        self.touch(peer);
        Ok(there as u32)
    }

    pub(super) fn run_splice(&mut self, pending: &Pending) -> i32 {
        let Op::Splice { length, offset, .. } = pending.op else { unreachable!() };
        if pending.interrupted {
            // ERESTARTSYS, which never leaves the kernel but here.
            return -512;
        }
        if self.rng.per_mille(self.faults.file_interrupted) {
            return -libc::EINTR;
        }
        let pipe = self.table.object(pending.second.expect("resolved when submitted"));
        let Object::PipeWrite(pipe) = pipe else {
            self.broken(format_args!("{:?} into {pipe:?}", pending.op))
        };
        let room = self.pipes[pipe].capacity - self.pipes[pipe].bytes.len();
        if length as usize > room {
            self.broken(format_args!("{:?}, but the pipe has room for {room}", pending.op));
        }
        let file = self.file_of(pending);
        match self.file_bytes(file, offset, length as usize) {
            Ok(count) => {
                let bytes = stretch(self.files[file].key, offset, count);
                self.pipes[pipe].bytes.extend(&bytes);
                count as i32
            }
            Err(errno) => errno,
        }
    }

    pub(super) fn run_open(&mut self, pending: &Pending) -> i32 {
        match pending.name {
            _ if self.table.is_full() || self.rng.per_mille(self.faults.no_descriptor) => {
                -libc::EMFILE
            }
            _ if self.rng.per_mille(self.faults.no_memory) => {
                -self.rng.pick(&[libc::ENFILE, libc::ENOMEM])
            }
            Name::Error(errno) => -errno,
            _ if matches!(pending.op, Op::Open { follows: true, .. })
                && self.rng.per_mille(DISTURBED_PER_MILLE) =>
            {
                -libc::EAGAIN
            }
            Name::Made(made) => self.table.insert(Object::Made(made)).0,
            Name::File(file) => {
                let path_only = matches!(pending.op, Op::Open { path_only: true, .. });
                self.lookups += u64::from(path_only);
                if !path_only && self.files[file].kind != FileKind::Regular {
                    self.broken(format_args!("open of what may be a FIFO or a device"));
                }
                let descriptor = self.table.insert(Object::File(file));
                self.show_file(descriptor, file);
                descriptor.0
            }
        }
    }

    pub(super) fn make_pipe(&mut self, capacity_bytes: u32) -> Result<Pipe, Errno> {
        if self.table.is_full() || self.rng.per_mille(self.faults.no_descriptor) {
            return Err(Errno(libc::EMFILE));
        }
        // pipe-user-pages-soft: one page, past so many.
        let capacity = if self.rng.below(8) == 0 { 4096 } else { capacity_bytes.max(4096) };
        let pipe = PipeBytes { bytes: VecDeque::new(), capacity: capacity as usize };
        self.pipes.push(pipe);
        let number = self.pipes.len() - 1;
        let read = self.table.insert(Object::PipeRead(number));
        if self.table.is_full() {
            self.close(read);
            return Err(Errno(libc::EMFILE));
        }
        let write = self.table.insert(Object::PipeWrite(number));
        Ok(Pipe { read, write, capacity_bytes: capacity })
    }

    /// read(2) of a pipe. A broken rule if it is empty.
    pub(super) fn read_out(&mut self, pipe: Descriptor, bytes: &mut [u8]) -> u32 {
        let object = self.object(pipe, "read(2)");
        let Object::PipeRead(pipe) = object else {
            self.broken(format_args!("read(2) from {object:?}"))
        };
        let there = self.pipes[pipe].bytes.len();
        if there == 0 {
            self.broken(format_args!("read(2) from an empty pipe"));
        }
        let count = self.rng.up_to(there.min(bytes.len()));
        for (to, from) in bytes.iter_mut().zip(self.pipes[pipe].bytes.drain(..count)) {
            *to = from;
        }
        count as u32
    }

    pub(super) fn splice_out(
        &mut self,
        pipe: Descriptor,
        socket: Descriptor,
        length: usize,
    ) -> Result<u32, Errno> {
        let object = self.object(pipe, "splice(2)");
        let Object::PipeRead(pipe) = object else {
            self.broken(format_args!("splice(2) from {object:?}"))
        };
        let peer = self.socket_number(socket, "splice(2)");
        let socket = &mut self.peers[peer].socket;
        if let Some(errno) = socket.send_failure() {
            return Err(failed(errno));
        }
        let there = self.pipes[pipe].bytes.len();
        if there == 0 {
            self.broken(format_args!("splice(2) from an empty pipe to peer {peer}"));
        }
        let most = length.min(there).min(socket.room());
        if most == 0 || self.rng.per_mille(self.faults.splice_again) {
            return Err(Errno(libc::EAGAIN));
        }
        let short = self.rng.per_mille(self.faults.short_file);
        let count = if short { self.rng.up_to(most) } else { most };
        take(&mut self.pipes[pipe].bytes, count, &mut socket.outbound);
        self.touch(peer);
        Ok(count as u32)
    }

    pub(super) fn status_of(&self, file: Descriptor) -> FileStatus {
        let object = self.object(file, "fstat(2)");
        let (bytes, kind, inode, facts) = match object {
            Object::File(number) => {
                let SimulatedFile { bytes, kind, .. } = self.files[number];
                (bytes, kind, number as u64 + 1, self.facts[number])
            }
            Object::Made(made) => {
                let bytes = self.made[made].bytes.len() as u64;
                (bytes, FileKind::Regular, made as u64 + (1 << 32), Facts::OLD)
            }
            _ => self.broken(format_args!("fstat(2) of {object:?}")),
        };
        let Facts { modified_us, changed_us, links } = facts;
        let split = |us: i64| (us / 1_000_000, (us % 1_000_000 * 1000) as u32);
        let (modified_s, modified_ns) = split(modified_us);
        let (changed_s, changed_ns) = split(changed_us);
        let device = 1;
        FileStatus {
            bytes,
            modified_s,
            modified_ns,
            changed_s,
            changed_ns,
            links,
            device,
            inode,
            kind,
        }
    }
}
