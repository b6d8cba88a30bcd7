//! Giving files their names: a file that was received becomes visible, at once and as a whole.
//!
//! Once begun it is carried to its end, whatever becomes of the connection: a temporary name, which
//! replacing another file takes for a moment, must not stay behind.

use super::slots::NONE;
use super::{Full, Shard};
use crate::file::{NewFile, Publish};
use crate::handler::Handler;
use crate::ring::{Kind, Op, Ring};
use std::ffi::CString;
use std::io;

/// Bytes of a name at most (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// fsync(2) of the file.
    Sync,
    /// Its name, or the temporary one.
    Link,
    /// From the temporary name to the right one.
    Rename,
    /// The temporary name goes, for this errno.
    Unlink(i32),
    /// fsync(2) of the directory.
    SyncDirectory,
    /// Nothing but to tell: an errno, or 0.
    Over(i32),
}

/// A file on its way to its name. Its strings stay where they are until the ring is done with them.
pub struct Naming {
    file: NewFile,
    publish: Publish,
    step: Step,
    /// The open file, by a path.
    source: CString,
    name: CString,
    /// In the way of nobody: hidden, and with the inode's number.
    temporary: CString,
}

impl Naming {
    pub fn new(file: NewFile, name: &[u8], publish: Publish) -> Self {
        let step = match is_name(name) {
            false => Step::Over(libc::EINVAL),
            true if publish.sync && !file.directory().can_sync() => Step::Over(libc::EBADF),
            true if publish.sync => Step::Sync,
            true => Step::Link,
        };
        let c_string = |text: Vec<u8>| CString::new(text).unwrap_or_default();
        Self {
            source: c_string(format!("/proc/self/fd/{}", file.descriptor().0).into()),
            name: c_string(name.to_vec()),
            temporary: c_string(format!(".ringwright-{:x}", file.inode()).into()),
            file,
            publish,
            step,
        }
    }

    fn op(&self) -> Option<Op> {
        let directory = self.file.directory().descriptor();
        let (name, temporary) = (self.name.as_ptr(), self.temporary.as_ptr());
        Some(match self.step {
            Step::Sync => Op::Sync { descriptor: self.file.descriptor() },
            Step::Link => {
                let name = if self.publish.replace { temporary } else { name };
                let (file, source) = (self.file.descriptor(), self.source.as_ptr());
                Op::Link { file, source, directory, name }
            }
            Step::Rename => Op::Rename { directory, from: temporary, to: name },
            Step::Unlink(_) => Op::Unlink { directory, name: temporary },
            Step::SyncDirectory => Op::Sync { descriptor: directory },
            Step::Over(_) => return None,
        })
    }

    fn after(&self, errno: i32) -> Step {
        let named = if self.publish.sync { Step::SyncDirectory } else { Step::Over(0) };
        match self.step {
            // Interrupted: the same again.
            step if matches!(errno, libc::EINTR | libc::EAGAIN | libc::ECANCELED) => step,
            Step::Sync if errno == 0 => Step::Link,
            Step::Link if errno == 0 && self.publish.replace => Step::Rename,
            Step::Link | Step::Rename if errno == 0 => named,
            Step::Rename => Step::Unlink(errno),
            Step::Unlink(why) => Step::Over(why),
            Step::Sync | Step::Link | Step::SyncDirectory => Step::Over(errno),
            Step::Over(_) => unreachable!("nothing is in flight then"),
        }
    }
}

/// Whether it names something in a directory, and not the directory or its parent.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl<R: Ring, H: Handler> Shard<R, H> {
    pub(super) fn flush_naming(&mut self, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        let number = self.core.slots.rare(slot).naming;
        if number == NONE || connection.in_flight.has(Kind::Publish) {
            return Ok(());
        }
        if bug!("temporary-name-left") && connection.state.is_over() {
            drop(self.take_naming(slot));
            return Ok(());
        }
        match self.core.namings[number as usize].op() {
            Some(op) => self.submit(slot, Kind::Publish, op),
            None => {
                // Told when the batch is settled.
                self.core.touch(slot);
                Ok(())
            }
        }
    }

    pub(super) fn on_naming(&mut self, slot: u32, result: i32) {
        let naming = &mut self.core.namings[self.core.slots.rare(slot).naming as usize];
        naming.step = naming.after(-result.min(0));
    }

    /// Tells what came of it, if anybody is there to be told.
    pub(super) fn settle_naming(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        let number = self.core.slots.rare(slot).naming;
        if number == NONE {
            return;
        }
        let Step::Over(errno) = self.core.namings[number as usize].step else { return };
        let state = connection.state;
        drop(self.take_naming(slot));
        // Who waited for us was not idle.
        self.core.slots[slot].active_ms = self.core.now_ms;
        if state.hears() {
            let result = match errno {
                0 => Ok(()),
                _ => Err(io::Error::from_raw_os_error(errno)),
            };
            self.application.file_published(&mut self.core, slot, result);
        }
        self.core.touch(slot);
    }

    fn take_naming(&mut self, slot: u32) -> Naming {
        let naming = std::mem::replace(&mut self.core.slots.rare_mut(slot).naming, NONE);
        self.core.namings.remove(naming as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_is_one_component() {
        for name in ["a", "a.b", ".a", "...", "-", " ", "\u{e4}"] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/a", "a/", "a\0b", "\0"] {
            assert!(!is_name(name.as_bytes()), "{name:?}");
        }
        assert!(is_name(&[b'a'; 255]) && !is_name(&[b'a'; 256]));
    }
}
