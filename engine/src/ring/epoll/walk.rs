//! Opening a path where openat2(2) is missing or forbidden: one segment after the other, none of
//! which may be a symbolic link.
//!
//! Every segment is looked up (`O_PATH | O_NOFOLLOW`) in the directory that the one before has led
//! to, so that no link and no renamed directory leads out of the tree. A path with `..` fails with
//! EXDEV wherever it leads, because a directory that is moved meanwhile has another parent.

use super::super::direct::answer;
use super::super::{Descriptor, Errno};
use super::calls::FIND_FLAGS;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

/// Opens a relative path beneath a directory. `here`: on the file system of that directory.
///
/// # Errors
/// Those of openat2(2) with the `RESOLVE_*` flags of [`Op::Open`](crate::ring::Op::Open).
pub fn open(directory: Descriptor, path: &[u8], flags: i32, here: bool) -> Result<i64, Errno> {
    if path.is_empty() {
        return Err(Errno(libc::ENOENT));
    }
    if path[0] == b'/' {
        return Err(Errno(libc::EXDEV));
    }
    let mut segments: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|it| !it.is_empty() && *it != b".").collect();
    let ends_as_directory = matches!(path.rsplit(|byte| *byte == b'/').next(), Some(b"" | b"."));
    let last = segments.pop().unwrap_or(b".");
    let device = if here { Some(kind_and_device(directory)?.1) } else { None };
    let mut above: Option<OwnedFd> = None;
    for segment in segments {
        let at = above.as_ref().map_or(directory, |it| Descriptor(it.as_raw_fd()));
        above = Some(find(at, segment, true, device)?);
    }
    let at = above.as_ref().map_or(directory, |it| Descriptor(it.as_raw_fd()));
    let found = find(at, last, ends_as_directory, device)?;
    if flags & libc::O_PATH != 0 {
        return Ok(found.into_raw_fd().into());
    }
    open_segment(at, last, flags)
}

/// Looks a segment up.
fn find(
    at: Descriptor,
    segment: &[u8],
    is_directory: bool,
    device: Option<(u32, u32)>,
) -> Result<OwnedFd, Errno> {
    if segment == b".." {
        return Err(Errno(libc::EXDEV));
    }
    let found = open_segment(at, segment, FIND_FLAGS)? as i32;
    // SAFETY: the descriptor is new and owned by nobody else.
    let found = unsafe { OwnedFd::from_raw_fd(found) };
    match kind_and_device(Descriptor(found.as_raw_fd()))? {
        (libc::S_IFLNK, _) => Err(Errno(libc::ELOOP)),
        (_, other) if device.is_some_and(|device| device != other) => Err(Errno(libc::EXDEV)),
        (kind, _) if is_directory && kind != libc::S_IFDIR => Err(Errno(libc::ENOTDIR)),
        _ => Ok(found),
    }
}

/// openat(2) of one segment, which is not followed if it is a link.
fn open_segment(at: Descriptor, segment: &[u8], flags: i32) -> Result<i64, Errno> {
    let name = CString::new(segment).expect("a path of the kernel has no NUL inside");
    // SAFETY: the name lives during the call.
    answer(unsafe { libc::openat(at.0, name.as_ptr(), flags | libc::O_NOFOLLOW) })
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
