//! The number of connections of each address over all shards, without a lock.
//!
//! An address is known by a keyed 64-bit hash, which gives its bucket and a tag of 48 bits. A
//! connection remembers the cell in which it was counted and gives back there, so no count can go
//! stale. Two shards that count a new address at the same moment may use two cells of its bucket.
//! The limit therefore applies to the sum of the cells, and of two clients that compete for the
//! last place both may be refused. The interleavings are checked with loom (`tests/loom.rs`).
//!
//! A word holds a tag of 48 bits and a count of 16. A bucket has 32 words, and there are four times
//! as many words as connections and waiting clients: 32 bytes for each. IPv6 clients are counted by
//! their /64.

use crate::atomic::{AtomicU64, Ordering, fence};

/// Cells of a bucket. There are four times as many cells as connections, so that a bucket of
/// different addresses practically never fills up.
const BUCKET: usize = 32;
const COUNT_BITS: u32 = 16;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Connection counts by address.
pub struct Addresses {
    limit: u64,
    cells: Box<[AtomicU64]>,
}

/// The cell in which a connection is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell(u32);

impl Cell {
    /// Counted nowhere.
    pub const NONE: Self = Self(u32::MAX);
}

impl Addresses {
    /// Counts up to `limit` for each of at most `connections` addresses at a time.
    pub fn new(limit: u16, connections: usize) -> Self {
        let buckets = (4 * connections / BUCKET).next_power_of_two();
        let cells = (0..buckets * BUCKET).map(|_| AtomicU64::new(0)).collect();
        Self { limit: u64::from(limit), cells }
    }

    /// Counts a connection of an address. `None` if the address has reached the limit.
    pub fn take(&self, hash: u64) -> Option<Cell> {
        let (first, tag) = self.place(hash);
        let cell = self.count_in_bucket(first, tag)?;
        // The bucket may count the address in another cell as well. If two threads count it at the
        // same time, at least one of them sees the other's count.
        fence(Ordering::SeqCst);
        if self.sum(first, tag) > self.limit {
            self.give_back(cell);
            return None;
        }
        Some(cell)
    }

    /// Ends the count of a connection.
    ///
    /// # Panics
    /// If the cell counts nothing, which is a bug in the engine.
    pub fn give_back(&self, cell: Cell) {
        if cell != Cell::NONE {
            let before = self.cells[cell.0 as usize].fetch_sub(1, Ordering::AcqRel);
            assert!(before & COUNT_MAX > 0, "more of an address came back than were counted");
        }
    }

    /// The connections of an address.
    pub fn count(&self, hash: u64) -> u64 {
        let (first, tag) = self.place(hash);
        self.sum(first, tag)
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        let buckets = self.cells.len() / BUCKET;
        // The tag uses other bits than the choice of the bucket, as far as there are others.
        ((hash as usize & (buckets - 1)) * BUCKET, hash >> COUNT_BITS)
    }

    fn count_in_bucket(&self, first: usize, tag: u64) -> Option<Cell> {
        loop {
            let (at, old) = self.find(first, tag)?;
            let count = if old >> COUNT_BITS == tag { old & COUNT_MAX } else { 0 };
            if count >= self.limit {
                return None;
            }
            let new = tag << COUNT_BITS | (count + 1);
            // A changed cell means that another thread has succeeded, so the loop ends.
            let counted =
                self.cells[at].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
            if counted.is_ok() {
                return Some(Cell(at as u32));
            }
        }
    }

    /// The cell that counts the tag, or an unused one.
    fn find(&self, first: usize, tag: u64) -> Option<(usize, u64)> {
        let mut unused = None;
        for at in first..first + BUCKET {
            let value = self.cells[at].load(Ordering::Acquire);
            if value & COUNT_MAX == 0 {
                unused = unused.or(Some((at, value)));
            } else if value >> COUNT_BITS == tag {
                return Some((at, value));
            }
        }
        unused
    }

    fn sum(&self, first: usize, tag: u64) -> u64 {
        let cells = self.cells[first..first + BUCKET].iter();
        let values = cells.map(|cell| cell.load(Ordering::Acquire));
        values.filter(|value| value >> COUNT_BITS == tag).map(|value| value & COUNT_MAX).sum()
    }
}
