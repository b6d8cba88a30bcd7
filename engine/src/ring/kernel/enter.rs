//! The descriptor that io_uring_enter(2) is called with.

use super::super::Errno;
use super::super::direct::answer;
use io_uring::{EnterFlags, IoUring};
use std::os::fd::AsRawFd;

/// The descriptor for io_uring_enter(2): registered with this thread where that works, which
/// spares a look-up and a reference count on each call.
pub(super) enum EnterDescriptor {
    Registered(u32),
    Plain(i32),
}

impl EnterDescriptor {
    /// Falls back to the plain descriptor: a thread's table has 16 places, and it is a speed-up.
    pub(super) fn of(ring: &IoUring) -> Self {
        match register_ring_descriptor(ring.as_raw_fd()) {
            Ok(index) => Self::Registered(index),
            Err(_) => Self::Plain(ring.as_raw_fd()),
        }
    }

    pub(super) fn number(&self) -> i32 {
        match self {
            Self::Registered(index) => index.cast_signed(),
            Self::Plain(descriptor) => *descriptor,
        }
    }

    pub(super) fn flags(&self) -> EnterFlags {
        match self {
            Self::Registered(_) => EnterFlags::REGISTERED_RING,
            Self::Plain(_) => EnterFlags::empty(),
        }
    }

    pub(super) fn release(&self, ring: &IoUring) {
        if let Self::Registered(index) = self {
            unregister_ring_descriptor(ring.as_raw_fd(), *index);
        }
    }
}

/// `struct io_uring_rsrc_update` of the UAPI, which the crate keeps to itself.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

const IORING_REGISTER_RING_FDS: u32 = 20;
const IORING_UNREGISTER_RING_FDS: u32 = 21;

/// Puts the ring into the calling thread's table; any free place.
fn register_ring_descriptor(ring: i32) -> Result<u32, Errno> {
    let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data: ring as u64 };
    register_one(ring, IORING_REGISTER_RING_FDS, &mut update)?;
    Ok(update.offset)
}

/// Takes it out again. Only the thread that put it there can.
fn unregister_ring_descriptor(ring: i32, index: u32) {
    let mut update = ResourceUpdate { offset: index, reserved: 0, data: 0 };
    let result = register_one(ring, IORING_UNREGISTER_RING_FDS, &mut update);
    debug_assert!(result.is_ok(), "our own place in our own table");
}

fn register_one(ring: i32, operation: u32, update: &mut ResourceUpdate) -> Result<(), Errno> {
    // SAFETY: one update, which the kernel reads and writes during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring, operation, &raw mut *update, 1u32)
    };
    match answer(result)? {
        1 => Ok(()),
        // As many as fitted: none.
        _ => Err(Errno(libc::EBUSY)),
    }
}
