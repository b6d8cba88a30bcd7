//! A provided buffer ring: the kernel takes a buffer when there is something to put in it.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The one buffer group there is.
pub const GROUP: u16 = 0;
/// Length of one buffer.
pub const BUFFER_BYTES: usize = 4096;
/// From one buffer to the next: a cache line more than a page, because buffers a whole page apart
/// would all compete for the same few sets of the cache.
const STRIDE_BYTES: usize = BUFFER_BYTES + 64;
const PAGE_BYTES: usize = 4096;

/// The descriptors that the kernel reads, and the memory they point to.
///
/// Neither is ever freed: a ring's tear-down goes on in the kernel after its descriptor is closed,
/// and these programs end with their ring.
pub struct Buffers {
    descriptors: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    free: u16,
    tail: u16,
}

impl Buffers {
    /// Allocates `count` buffers (a power of two, 32,768 at most) and registers them all.
    pub fn register(submitter: &Submitter<'_>, count: u16) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let descriptors = allocate(usize::from(count) * mem::size_of::<BufRingEntry>());
        let memory = allocate(usize::from(count) * STRIDE_BYTES);
        let mut buffers = Self { descriptors: descriptors.cast(), memory, count, free: 0, tail: 0 };
        // SAFETY: the descriptors are page-aligned, zeroed, as many as announced, and never freed.
        unsafe {
            submitter.register_buf_ring_with_flags(descriptors.as_ptr() as u64, count, GROUP, 0)?;
        }
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// Buffers that the kernel has, as far as the completions seen so far tell.
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Notes that the kernel has handed out a buffer.
    pub fn take(&mut self, id: u16) {
        assert!(id < self.count && self.free > 0, "buffer {id} of {}", self.count);
        self.free -= 1;
    }

    /// Gives a buffer (back) to the kernel.
    pub fn give(&mut self, id: u16) {
        assert!(self.free < self.count, "buffer {id} was given twice");
        self.free += 1;
        let index = self.tail & (self.count - 1);
        // SAFETY: the index is masked to the ring's length, and the kernel does not read this
        // entry before the tail passes it.
        let entry = unsafe { &mut *self.descriptors.as_ptr().add(usize::from(index)) };
        entry.set_addr(self.address(id) as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the reserved field of the ring's first entry (linux/io_uring.h,
        // struct io_uring_buf_ring): an aligned u16 that the kernel only reads.
        let tail = unsafe {
            AtomicU16::from_ptr(BufRingEntry::tail(self.descriptors.as_ptr()).cast_mut())
        };
        tail.store(self.tail, Ordering::Release);
    }

    /// Where a buffer begins.
    pub fn address(&self, id: u16) -> *const u8 {
        assert!(id < self.count, "buffer {id} of {}", self.count);
        // SAFETY: the id is below the count, so the offset stays inside the memory.
        unsafe { self.memory.as_ptr().add(usize::from(id) * STRIDE_BYTES) }
    }

    /// The first `length` bytes of a buffer that the kernel has handed out and that was not given
    /// back yet.
    pub fn bytes(&self, id: u16, length: usize) -> &[u8] {
        assert!(length <= BUFFER_BYTES);
        // SAFETY: the range lies inside one buffer, was zeroed at first, and is not written while
        // the buffer is ours.
        unsafe { std::slice::from_raw_parts(self.address(id), length) }
    }
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("128 MiB at most");
    assert!(bytes > 0);
    // SAFETY: the length was just checked not to be 0.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
