//! The id of a connection.

use std::fmt;

/// The limit on slots of one shard: a slot number has 20 bits in a [`ConnectionId`].
pub const SLOTS_MAX: usize = 1 << 20;

/// The largest generation, which has 36 bits in a [`ConnectionId`].
pub const GENERATION_MAX: u64 = (1 << 36) - 1;

/// The id of a connection. No other connection of the process ever gets the same id, whichever
/// engine it belongs to. Only after a million engines ids may repeat.
///
/// An id stays valid as a name after its connection has ended: methods that take it then find
/// nothing, and so does another engine. Bits 56 to 63 are the shard, bits 36 to 55 the slot, bits 0
/// to 35 the generation of the slot. An engine leases generations from the process, 65,536 at a
/// time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) fn new(shard: usize, slot: u32, generation: u64) -> Self {
        debug_assert!(shard < 256 && (slot as usize) < SLOTS_MAX && generation <= GENERATION_MAX);
        Self((shard as u64) << 56 | u64::from(slot) << 36 | generation)
    }

    /// The number of the shard that has the connection.
    #[must_use]
    pub fn shard(self) -> usize {
        (self.0 >> 56) as usize
    }

    pub(crate) fn slot(self) -> u32 {
        (self.0 >> 36) as u32 & (SLOTS_MAX as u32 - 1)
    }

    pub(crate) fn generation(self) -> u64 {
        self.0 & GENERATION_MAX
    }

    /// The id as a number, for logs and for [`ConnectionId::from_number`].
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The id for a number from [`ConnectionId::get`]. A number that names no connection is
    /// harmless.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.shard(), self.slot(), self.generation())
    }
}
