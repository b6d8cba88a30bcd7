//! The pool of send buffers, behind the receive buffers in the arena.

use std::ptr::NonNull;

/// Number of a send buffer.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is not given back is lost to the shard"]
pub struct SendBuffer(u32);

/// The send buffers of a shard. Taken last in, first out: the warmest first.
#[derive(Debug)]
pub struct SendBuffers {
    address: NonNull<u8>,
    bytes_each: usize,
    total: u32,
    free: Vec<u32>,
}

impl SendBuffers {
    /// `total` buffers of `bytes_each` from `address` on.
    pub fn new(address: *mut u8, total: u32, bytes_each: u32) -> Self {
        Self {
            address: NonNull::new(address).expect("an arena has an address"),
            bytes_each: bytes_each as usize,
            total,
            free: (0..total).rev().collect(),
        }
    }

    /// Takes a buffer; `None` when all are in use.
    pub fn take(&mut self) -> Option<SendBuffer> {
        self.free.pop().map(SendBuffer)
    }

    /// Gives a buffer back that no operation uses any more.
    pub fn give_back(&mut self, buffer: SendBuffer) {
        assert!(self.free.len() < self.total as usize, "more buffers came back than were taken");
        debug_assert!(!self.free.contains(&buffer.0), "a buffer is given back once");
        self.free.push(buffer.0);
    }

    /// First byte of a buffer: what the kernel is told.
    pub fn address(&self, buffer: &SendBuffer) -> *mut u8 {
        assert!(buffer.0 < self.total);
        // SAFETY: the number is in range, so the sum stays inside the arena's mapping.
        unsafe { self.address.as_ptr().add(buffer.0 as usize * self.bytes_each) }
    }

    /// Bytes that were written or read there and that no operation writes.
    pub fn bytes(&self, buffer: &SendBuffer, offset: usize, length: usize) -> &[u8] {
        assert!(offset + length <= self.bytes_each, "a view stays inside its buffer");
        // SAFETY: the range lies inside this buffer, the arena outlives this value, its memory was
        // zeroed when it was mapped, and who has the buffer is whose bytes are written: this value
        // is borrowed meanwhile.
        unsafe { std::slice::from_raw_parts(self.address(buffer).add(offset), length) }
    }

    /// Copies `bytes` to `offset`. Bytes before `offset` may be in flight: they are only read.
    pub fn write(&mut self, buffer: &SendBuffer, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.bytes_each, "a write stays inside its buffer");
        // SAFETY: the range lies inside this buffer, the arena outlives this value, and nobody
        // else (the kernel reads only what was submitted, which ends at `offset`) uses it.
        unsafe {
            let target = self.address(buffer).add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    /// Bytes of each buffer.
    pub fn bytes_each(&self) -> usize {
        self.bytes_each
    }

    /// Buffers in all.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Buffers not in use.
    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }
}
