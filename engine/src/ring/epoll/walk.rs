//! Opening a path where openat2(2) is missing or forbidden: one segment after the other.
//!
//! Every segment is looked up (`O_PATH | O_NOFOLLOW`) in the directory that the one before has led
//! to, so that no link and no renamed directory leads out of the tree. A path with `..` fails with
//! EXDEV wherever it leads, because a directory that is moved meanwhile has another parent. `..` in
//! a link leads back to the directory that was opened before, and no parent is looked up.

use super::super::direct::answer;
use super::super::{Descriptor, Errno};
use super::calls::FIND_FLAGS;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

/// Links in one path at most, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// The bytes of a path that is still to be walked, at most. Links make it longer.
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;

/// The limits of a walk.
#[derive(Clone, Copy)]
pub struct Limits {
    /// It stays on the file system of its directory.
    pub here: bool,
    /// It follows symbolic links.
    pub follows: bool,
}

/// Opens a relative path beneath a directory.
///
/// # Errors
/// Those of openat2(2) with the `RESOLVE_*` flags of [`Op::Open`](crate::ring::Op::Open).
pub fn open(directory: Descriptor, path: &[u8], flags: i32, limits: Limits) -> Result<i64, Errno> {
    if path.is_empty() {
        return Err(Errno(libc::ENOENT));
    }
    if path.split(|byte| *byte == b'/').any(|segment| segment == b"..") {
        return Err(Errno(libc::EXDEV));
    }
    let device = if limits.here { Some(kind_and_device(directory)?.1) } else { None };
    let mut walk = Walk { directory, above: Vec::new(), device, links: 0 };
    let mut path = path.to_vec();
    loop {
        if path.first() == Some(&b'/') {
            return Err(Errno(libc::EXDEV));
        }
        match walk.go(&path, flags)? {
            Step::Opened(file) => return Ok(file),
            Step::Link(next) if limits.follows => path = next,
            Step::Link(_) => return Err(Errno(libc::ELOOP)),
        }
    }
}

/// The result of a walk.
enum Step {
    /// The file at the end of the path.
    Opened(i64),
    /// There was a link. This is the path to be walked from its directory on.
    Link(Vec<u8>),
}

/// A walk beneath a directory.
struct Walk {
    directory: Descriptor,
    /// The directories on the way down.
    above: Vec<OwnedFd>,
    device: Option<(u32, u32)>,
    links: usize,
}

impl Walk {
    /// Walks to the end of a path, or to the next link.
    fn go(&mut self, path: &[u8], flags: i32) -> Result<Step, Errno> {
        let mut rest = path;
        loop {
            let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let (segment, behind) = rest.split_at(end);
            let is_last = behind.iter().all(|byte| *byte == b'/');
            match segment {
                b"" | b"." if !is_last => {}
                b".." => {
                    // Out of the directory.
                    self.above.pop().ok_or(Errno(libc::EXDEV))?;
                    if is_last {
                        return self.open_last(b".", true, b"", flags);
                    }
                }
                _ if is_last => {
                    let name = if segment.is_empty() { b"." } else { segment };
                    return self.open_last(name, !behind.is_empty() || name == b".", behind, flags);
                }
                _ => match self.find(segment, true)? {
                    Found::File(found) => self.above.push(found),
                    Found::Link(target) => return self.link(target, behind),
                },
            }
            rest = behind.strip_prefix(b"/").unwrap_or(behind);
        }
    }

    fn open_last(
        &mut self,
        name: &[u8],
        is_directory: bool,
        behind: &[u8],
        flags: i32,
    ) -> Result<Step, Errno> {
        let found = match self.find(name, is_directory)? {
            Found::File(found) => found,
            Found::Link(target) => return self.link(target, behind),
        };
        if flags & libc::O_PATH != 0 {
            return Ok(Step::Opened(found.into_raw_fd().into()));
        }
        open_segment(self.at(), name, flags).map(Step::Opened)
    }

    /// The path to go on with after a link.
    fn link(&mut self, mut target: Vec<u8>, behind: &[u8]) -> Result<Step, Errno> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno(libc::ELOOP));
        }
        target.extend_from_slice(behind);
        if target.len() >= PATH_BYTES_MAX {
            return Err(Errno(libc::ENAMETOOLONG));
        }
        Ok(Step::Link(target))
    }

    fn at(&self) -> Descriptor {
        self.above.last().map_or(self.directory, |it| Descriptor(it.as_raw_fd()))
    }

    /// Looks a segment up.
    fn find(&self, segment: &[u8], is_directory: bool) -> Result<Found, Errno> {
        let found = open_segment(self.at(), segment, FIND_FLAGS)? as i32;
        // SAFETY: the descriptor is new and owned by nobody else.
        let found = unsafe { OwnedFd::from_raw_fd(found) };
        match kind_and_device(Descriptor(found.as_raw_fd()))? {
            (libc::S_IFLNK, _) => read_link(Descriptor(found.as_raw_fd())).map(Found::Link),
            (_, other) if self.device.is_some_and(|device| device != other) => {
                Err(Errno(libc::EXDEV))
            }
            (kind, _) if is_directory && kind != libc::S_IFDIR => Err(Errno(libc::ENOTDIR)),
            _ => Ok(Found::File(found)),
        }
    }
}

/// A segment that was looked up.
enum Found {
    File(OwnedFd),
    /// A link, with its target.
    Link(Vec<u8>),
}

/// openat(2) of one segment, which is not followed if it is a link.
fn open_segment(at: Descriptor, segment: &[u8], flags: i32) -> Result<i64, Errno> {
    let name = CString::new(segment).expect("a path of the kernel has no NUL inside");
    // SAFETY: the name lives during the call.
    answer(unsafe { libc::openat(at.0, name.as_ptr(), flags | libc::O_NOFOLLOW) })
}

/// The target of a link that was looked up.
fn read_link(link: Descriptor) -> Result<Vec<u8>, Errno> {
    let mut target = vec![0; PATH_BYTES_MAX];
    // SAFETY: the kernel writes at most the length given.
    let length = answer(unsafe {
        let (path, buffer) = (c"".as_ptr(), target.as_mut_ptr());
        libc::readlinkat(link.0, path, buffer.cast(), target.len()) as i64
    })?;
    target.truncate(length as usize);
    Ok(target)
}

/// The type bits of the mode (`S_IFMT`), and the device. No server of files is asked.
fn kind_and_device(file: Descriptor) -> Result<(libc::mode_t, (u32, u32)), Errno> {
    let mut status = MaybeUninit::<libc::statx>::uninit();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let (path, mask) = (c"".as_ptr(), libc::STATX_TYPE);
    // SAFETY: the kernel fills the structure if the call succeeds.
    let status = unsafe {
        answer(libc::statx(file.0, path, flags, mask, status.as_mut_ptr()))?;
        status.assume_init()
    };
    let kind = libc::mode_t::from(status.stx_mode) & libc::S_IFMT;
    Ok((kind, (status.stx_dev_major, status.stx_dev_minor)))
}
