//! Files that lie in the page cache: whether they do, and how they leave without a pipe.

use super::{answer, page_bytes};
use crate::ring::{Descriptor, Errno};

/// Number of cachestat(2), the same on every architecture; Linux 6.5.
pub const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` of <linux/mman.h>.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat` of <linux/mman.h>.
#[repr(C)]
#[derive(Default)]
struct Counts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Between two bytes of a range that are looked at: what read-ahead has under way is mostly larger.
const STRIDE_BYTES: u64 = 128 << 10;

/// Returns whether all pages of the range are there and can be read without waiting. False where
/// the kernel does not tell: from 6.13 on it tells only whoever may write the file or owns it.
pub fn is_cached(file: Descriptor, offset: u64, length: u32) -> bool {
    assert!(length > 0, "an empty range has no pages");
    let (last, page_bytes) = (offset + u64::from(length) - 1, page_bytes());
    let range = Range { offset, length: u64::from(length) };
    let mut counts = Counts::default();
    // SAFETY: the kernel reads one structure and writes the other during the call.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, file.0, &raw const range, &raw mut counts, 0u32) };
    let pages = last / page_bytes - offset / page_bytes + 1;
    // Pages that are still being read count as cached: those are looked for.
    let mut looks = (offset..last).step_by(STRIDE_BYTES as usize).chain([last]);
    result == 0 && counts.cached >= pages && looks.all(|at| is_read(file, at))
}

/// Returns whether a byte can be read without waiting.
fn is_read(file: Descriptor, offset: u64) -> bool {
    let mut byte = 0u8;
    read(file, &raw mut byte, 1, offset) == Ok(1)
}

/// preadv2(2) with `RWF_NOWAIT` to memory that the caller keeps.
pub fn read(file: Descriptor, address: *mut u8, length: u32, offset: u64) -> Result<u32, Errno> {
    let vector = libc::iovec { iov_base: address.cast(), iov_len: length as usize };
    let offset = super::position(offset);
    // SAFETY: one vector of memory that the caller has for this, which the kernel writes during the
    // call.
    let read = unsafe { libc::preadv2(file.0, &raw const vector, 1, offset, libc::RWF_NOWAIT) };
    answer(read as i64).map(|read| read as u32)
}

/// sendfile(2) to a non-blocking socket.
pub fn send_file(
    file: Descriptor,
    offset: u64,
    length: u32,
    socket: Descriptor,
) -> Result<u32, Errno> {
    let mut offset = super::position(offset);
    // SAFETY: the kernel reads and writes the offset during the call.
    let sent = unsafe { libc::sendfile(socket.0, file.0, &raw mut offset, length as usize) };
    answer(sent as i64).map(|sent| sent as u32)
}
