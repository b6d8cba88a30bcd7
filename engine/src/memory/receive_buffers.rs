//! Accounting of the provided receive buffers: each is either with the kernel or held by the
//! shard while it looks at the bytes.

use crate::ring::Ring;
use std::ptr::NonNull;

/// The size of the long buffer: one receive of a connection whose messages are long.
pub const LONG_BYTES: usize = 64 << 10;

/// The receive buffers of a shard, at the start of its arena.
#[derive(Debug)]
pub struct ReceiveBuffers {
    address: NonNull<u8>,
    bytes_each: usize,
    total: u16,
    held: Vec<bool>,
    held_count: u16,
    /// The long buffer: recv(2) fills it, and the bytes are used before the next recv(2).
    long: Box<[u8]>,
}

/// The place of received bytes.
#[derive(Clone, Copy, Debug)]
pub enum Received<'a> {
    /// A provided buffer.
    Provided(&'a HeldBuffer),
    /// The long buffer.
    Long,
}

/// A buffer that a completion brought; it must go back by [`ReceiveBuffers::give_back`].
#[derive(Debug)]
#[must_use = "a buffer that is not given back is lost to the shard"]
pub struct HeldBuffer(u16);

impl ReceiveBuffers {
    /// `total` buffers of `bytes_each` from `address` on, all given to the kernel.
    pub fn new<R: Ring>(address: *mut u8, total: u16, bytes_each: u32, ring: &mut R) -> Self {
        for buffer in 0..total {
            ring.provide(buffer);
        }
        Self {
            address: NonNull::new(address).expect("an arena has an address"),
            bytes_each: bytes_each as usize,
            total,
            held: vec![false; usize::from(total)],
            held_count: 0,
            long: vec![0; LONG_BYTES].into_boxed_slice(),
        }
    }

    /// Takes the buffer of this number over from the kernel; `None` if the number is none of
    /// ours or the buffer is not with the kernel: then the completion lies and is not believed.
    pub fn take(&mut self, number: u16) -> Option<HeldBuffer> {
        let held = self.held.get_mut(usize::from(number))?;
        if std::mem::replace(held, true) {
            return None;
        }
        self.held_count += 1;
        Some(HeldBuffer(number))
    }

    /// The long buffer.
    pub fn long(&self) -> &[u8] {
        &self.long
    }

    /// The long buffer, to be filled.
    pub fn long_mut(&mut self) -> &mut [u8] {
        &mut self.long
    }

    /// The first `length` bytes of a place.
    #[inline(always)]
    pub fn bytes(&self, place: Received<'_>, length: usize) -> &[u8] {
        let Received::Provided(buffer) = place else { return &self.long[..length] };
        assert!(length <= self.bytes_each, "a receive buffer holds {} bytes", self.bytes_each);
        let offset = usize::from(buffer.0) * self.bytes_each;
        // SAFETY: the number was bounds-checked by `take`, the arena outlives this value (the
        // shard owns both), and while the buffer is held the kernel does not write to it.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().add(offset), length) }
    }

    /// Gives a buffer back to the kernel.
    pub fn give_back<R: Ring>(&mut self, buffer: HeldBuffer, ring: &mut R) {
        let held = &mut self.held[usize::from(buffer.0)];
        assert!(std::mem::replace(held, false), "a buffer is given back once");
        self.held_count -= 1;
        ring.provide(buffer.0);
    }

    /// Buffers in all.
    pub fn total(&self) -> u16 {
        self.total
    }

    /// Buffers with the kernel, as far as completions have been looked at.
    pub fn free(&self) -> u16 {
        self.total - self.held_count
    }
}
