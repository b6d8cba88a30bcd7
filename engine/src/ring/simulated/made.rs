//! Files that are made, filled and named.

use super::super::{Descriptor, Errno};
use super::descriptors::Object;
use super::files::Name;
use super::operations::Pending;
use super::sockets::take;
use super::{Op, SimulatedRing, failed};
use std::ffi::CStr;

/// A file that was made without a name.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Its names.
    pub names: Vec<Vec<u8>>,
    /// Bytes that would outlive a crash.
    pub synced: usize,
}

fn text(name: *const libc::c_char) -> Vec<u8> {
    // SAFETY: a NUL-terminated string that the submitter keeps until the completion.
    unsafe { CStr::from_ptr(name) }.to_bytes().to_vec()
}

impl SimulatedRing {
    pub(super) fn run_create(&mut self) -> i32 {
        match () {
            () if self.table.is_full() || self.rng.per_mille(self.faults.no_descriptor) => {
                -libc::EMFILE
            }
            () if self.rng.per_mille(self.faults.no_memory) => {
                -self.rng.pick(&[libc::ENOMEM, libc::EOPNOTSUPP])
            }
            () => {
                self.made.push(Made::default());
                self.table.insert(Object::Made(self.made.len() - 1)).0
            }
        }
    }

    fn made_of(&self, holding: Option<usize>, op: &Op) -> usize {
        match self.table.object(holding.expect("resolved when submitted")) {
            Object::Made(made) => made,
            other => self.broken(format_args!("{op:?} on {other:?}")),
        }
    }

    /// How much of `length` can be written now, or a negated errno.
    fn storable(&mut self, length: usize) -> Result<usize, i32> {
        if self.rng.per_mille(self.faults.no_space) {
            return Err(-self.rng.pick(&[libc::ENOSPC, libc::EDQUOT]));
        }
        if self.rng.per_mille(self.faults.file_error) {
            return Err(-libc::EIO);
        }
        if self.rng.per_mille(self.faults.no_send_memory) {
            return Err(-libc::ENOMEM);
        }
        if self.rng.per_mille(self.faults.file_interrupted) {
            // ERESTARTSYS, which never leaves the kernel but here.
            return Err(-self.rng.pick(&[libc::EINTR, libc::EAGAIN, 512]));
        }
        let short = length > 1 && self.rng.per_mille(self.faults.short_file);
        Ok(if short { self.rng.up_to(length) } else { length })
    }

    fn store(&mut self, made: usize, offset: u64, bytes: &[u8]) {
        let file = &mut self.made[made].bytes;
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        file.resize(file.len().max(end), 0);
        file[start..end].copy_from_slice(bytes);
    }

    pub(super) fn run_write(&mut self, pending: &Pending) -> i32 {
        let Op::Write { address, length, offset, .. } = pending.op else { unreachable!() };
        let made = self.made_of(pending.holding, &pending.op);
        match self.storable(length as usize) {
            Ok(count) => {
                // SAFETY: the submitter keeps the bytes until the completion.
                let bytes = unsafe { std::slice::from_raw_parts(address, count) };
                self.store(made, offset, bytes);
                count as i32
            }
            Err(errno) => errno,
        }
    }

    pub(super) fn run_splice_to_file(&mut self, pending: &Pending) -> i32 {
        let Op::SpliceToFile { length, offset, .. } = pending.op else { unreachable!() };
        let pipe = self.table.object(pending.holding.expect("resolved when submitted"));
        let Object::PipeRead(pipe) = pipe else {
            self.broken(format_args!("{:?} from {pipe:?}", pending.op))
        };
        let there = self.pipes[pipe].bytes.len();
        if (length as usize) > there || length == 0 {
            self.broken(format_args!("{:?}, but the pipe holds {there}", pending.op));
        }
        let made = self.made_of(pending.second, &pending.op);
        match self.storable(length as usize) {
            Ok(count) => {
                let mut bytes = Vec::new();
                take(&mut self.pipes[pipe].bytes, count, &mut bytes);
                self.store(made, offset, &bytes);
                count as i32
            }
            Err(errno) => errno,
        }
    }

    pub(super) fn splice_in(
        &mut self,
        socket: Descriptor,
        pipe: Descriptor,
        length: usize,
    ) -> Result<u32, Errno> {
        let object = self.object(pipe, "splice(2)");
        let Object::PipeWrite(pipe) = object else {
            self.broken(format_args!("splice(2) into {object:?}"))
        };
        if !self.pipes[pipe].bytes.is_empty() {
            self.broken(format_args!("splice(2) into a pipe that holds bytes"));
        }
        let peer = self.socket_number(socket, "splice(2)");
        let socket = &mut self.peers[peer].socket;
        if socket.inbound.is_empty() {
            if !socket.is_readable() {
                return Err(Errno(libc::EAGAIN));
            }
            let end = socket.end_of_input();
            return if end == 0 { Ok(0) } else { Err(failed(end)) };
        }
        if self.rng.per_mille(self.faults.splice_again) {
            return Err(Errno(libc::EAGAIN));
        }
        // Places, not bytes: now and then more than the pipe says.
        let room = self.pipes[pipe].capacity * self.rng.pick(&[1, 1, 8]);
        let most = length.min(room).min(socket.inbound.len());
        let short = self.rng.per_mille(self.faults.short_file);
        let count = if short { self.rng.up_to(most) } else { most };
        take(&mut self.peers[peer].socket.inbound, count, &mut self.pipes[pipe].bytes);
        self.touch(peer);
        Ok(count as u32)
    }

    pub(super) fn run_sync(&mut self, pending: &Pending) -> i32 {
        if self.rng.per_mille(self.faults.file_error) {
            return -libc::EIO;
        }
        match self.table.object(pending.holding.expect("resolved when submitted")) {
            Object::Made(made) => self.made[made].synced = self.made[made].bytes.len(),
            Object::Directory => {}
            other => self.broken(format_args!("fsync of {other:?}")),
        }
        0
    }

    pub(super) fn run_link(
        &mut self,
        source: *const libc::c_char,
        name: *const libc::c_char,
    ) -> i32 {
        let (source, name) = (text(source), text(name));
        let number = std::str::from_utf8(&source).ok().and_then(|it| it.rsplit('/').next());
        let Some(number) = number.and_then(|it| it.parse().ok()) else {
            self.broken(format_args!("link of {source:?}"))
        };
        let Object::Made(made) = self.object(Descriptor(number), "link") else {
            self.broken(format_args!("link of {number}, which was not made"))
        };
        if self.rng.per_mille(self.faults.no_space) {
            return -libc::ENOSPC;
        }
        if self.names.contains_key(&name) {
            return -libc::EEXIST;
        }
        self.made[made].names.push(name.clone());
        self.names.insert(name, Name::Made(made));
        0
    }

    pub(super) fn run_rename(&mut self, from: *const libc::c_char, to: *const libc::c_char) -> i32 {
        let (from, to) = (text(from), text(to));
        if self.rng.per_mille(self.faults.file_error) {
            return -libc::EIO;
        }
        if matches!(self.names.get(&to), Some(Name::File(_))) {
            return -libc::EISDIR;
        }
        let Some(Name::Made(made)) = self.names.remove(&from) else {
            self.broken(format_args!("rename of {from:?}, which is not there"))
        };
        self.made[made].names.retain(|name| *name != from);
        if let Some(Name::Made(before)) = self.names.insert(to.clone(), Name::Made(made)) {
            self.made[before].names.retain(|name| *name != to);
        }
        self.made[made].names.push(to);
        0
    }

    pub(super) fn run_unlink(&mut self, name: *const libc::c_char) -> i32 {
        let name = text(name);
        match self.names.remove(&name) {
            Some(Name::Made(made)) => self.made[made].names.retain(|it| *it != name),
            _ => self.broken(format_args!("unlink of {name:?}, which is not there")),
        }
        0
    }
}
