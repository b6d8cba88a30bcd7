//! One contiguous mapping per shard: the receive buffers, then the send buffers.

use std::io;
use std::ptr::NonNull;

/// The mapping. It is unmapped on drop; a shard that may still have operations in flight calls
/// [`Arena::leak`] instead.
#[derive(Debug)]
pub struct Arena {
    address: NonNull<u8>,
    bytes: usize,
}

impl Arena {
    /// Maps `bytes` of zeroed memory (rounded up to whole pages by the kernel).
    ///
    /// # Errors
    /// ENOMEM, as mmap(2).
    pub fn new(bytes: usize) -> io::Result<Self> {
        assert!(bytes > 0);
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
        // memory that anyone else has.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).expect("mmap does not map address 0");
        Ok(Self { address, bytes })
    }

    /// First byte.
    pub fn address(&self) -> *mut u8 {
        self.address.as_ptr()
    }

    /// Copies `bytes` to `offset`, before anybody else uses the memory.
    #[cfg(feature = "internals")]
    pub fn fill(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.bytes, "it fits");
        // SAFETY: the range was checked, and nobody else uses the memory yet.
        unsafe {
            let target = self.address().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives the memory up without unmapping it, for the kernel may still write there.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: address and length are those of our own mapping, and whoever drops the arena
        // has seen the last completion of everything that used it.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}
