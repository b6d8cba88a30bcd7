//! The provided buffer ring (`IORING_REGISTER_PBUF_RING`): where receives find their buffers.

use super::super::Setup;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

/// Our side of the ring. Only the kernel knows its head: that is told by completions.
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    /// Entries, a power of two.
    count: u16,
    /// Next place to write, wrapping.
    tail: u16,
    /// Where buffer 0 lies; the others follow.
    arena_address: u64,
    buffer_bytes: u32,
}

impl BufferRing {
    /// Maps an empty ring: page-aligned, as the kernel asks.
    pub(super) fn new(setup: &Setup) -> io::Result<Self> {
        let count = setup.receive_buffers;
        assert!(count.is_power_of_two(), "receive buffers: a power of two");
        assert!(setup.receive_buffer_bytes > 0, "a receive buffer holds something");
        // SAFETY: a fresh anonymous mapping touches no memory of anybody.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes(count),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            entries: NonNull::new(address.cast()).expect("mmap(2) never answers null by itself"),
            count,
            tail: 0,
            arena_address: setup.arena_address as u64,
            buffer_bytes: setup.receive_buffer_bytes,
        })
    }

    pub(super) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    pub(super) fn entries(&self) -> u16 {
        self.count
    }

    /// Writes a whole descriptor: the kernel may have rewritten address and length of the last one.
    #[inline]
    pub(super) fn provide(&mut self, buffer: u16) {
        assert!(buffer < self.count, "a receive buffer that exists");
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` is inside the mapping, and the kernel does not read it before the tail
        // has passed it. The fields are written one by one because the fourth field of place 0 is
        // the tail itself.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.arena_address + u64::from(buffer) * u64::from(self.buffer_bytes));
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, inside the mapping, aligned to two bytes; the
        // kernel reads it with acquire.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Gives the mapping back. Not in `Drop`: when the kernel may still use it, it must stay.
    ///
    /// # Safety
    /// The ring is no longer registered, and nothing is called afterwards.
    pub(super) unsafe fn unmap(&mut self) {
        // SAFETY: mapped in `new` with this length, and nobody uses it any more.
        let result = unsafe { libc::munmap(self.entries.as_ptr().cast(), bytes(self.count)) };
        debug_assert_eq!(result, 0, "munmap(2) of our own mapping");
    }
}

fn bytes(count: u16) -> usize {
    usize::from(count) * size_of::<BufRingEntry>()
}
