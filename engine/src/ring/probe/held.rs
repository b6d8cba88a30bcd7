//! The locked memory of the rings of this process. `RLIMIT_MEMLOCK` counts all of them together.

use super::super::Setup;
use super::memlock_needed;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static RINGS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Rings, and the locked memory that they take together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub rings: u64,
    pub bytes: u64,
}

impl Held {
    /// The rings that exist in this process.
    pub fn of_process() -> Self {
        Self { rings: RINGS.load(Relaxed), bytes: BYTES.load(Relaxed) }
    }

    /// These and a number of rings of the same setup.
    pub fn and(self, rings: usize, setup: &Setup) -> Self {
        let rings = rings as u64;
        Self { rings: self.rings + rings, bytes: self.bytes + rings * memlock_needed(setup) }
    }
}

/// Counts one ring until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: u64,
}

impl Share {
    pub fn of(setup: &Setup) -> Self {
        let bytes = memlock_needed(setup);
        RINGS.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes, Relaxed);
        Self { bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        RINGS.fetch_sub(1, Relaxed);
        BYTES.fetch_sub(self.bytes, Relaxed);
    }
}
