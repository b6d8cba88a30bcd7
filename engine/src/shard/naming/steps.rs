//! The steps by which a file gets its name.

use crate::files::{NewFile, PublishOptions};
use crate::ring::Op;
use std::ffi::CString;

/// The limit on bytes of a name (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// The next operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// fsync(2) of the file.
    Sync,
    /// linkat(2): its name, or the temporary one.
    Link,
    /// renameat(2) from the temporary name to the right one.
    Rename,
    /// unlinkat(2) of the temporary name, after this errno.
    Unlink(i32),
    /// fsync(2) of the directory.
    SyncDirectory,
    /// Only the callback is pending, with an errno or 0.
    Over(i32),
}

/// A file on its way to its name. Its strings stay where they are until the ring is done with them.
pub struct Naming {
    pub(super) file: NewFile,
    pub(super) publish: PublishOptions,
    pub(super) step: Step,
    /// The open file, by a path.
    pub(super) source: CString,
    pub(super) name: CString,
    /// It collides with no other: it is hidden and has the inode's number.
    pub(super) temporary: CString,
}

impl Naming {
    pub fn new(file: NewFile, name: &[u8], publish: PublishOptions) -> Self {
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

    pub(super) fn op(&self) -> Option<Op> {
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

    pub(super) fn after(&self, errno: i32) -> Step {
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

/// Returns whether the name is an entry of a directory, and not the directory or its parent.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
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
