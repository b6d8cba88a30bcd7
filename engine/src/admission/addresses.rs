//! How many connections each address has, over all shards, without a lock.
//!
//! An address is known by a keyed 64-bit hash: its bucket and a tag of 48 bits. A connection
//! remembers the cell it was counted in and gives back there, so that no count can go stale. Two
//! shards that meet a new address at the same moment may count it in two cells of its bucket: the
//! limit is held against the sum, and of two such
//! clients who compete for a last place both may be refused. The interleavings are checked with loom (tests/loom.rs).

use crate::atomic::{AtomicU64, Ordering, fence};

/// Cells of a bucket. There are four times as many cells as connections, so that a bucket of
/// different addresses is as good as never full.
const BUCKET: usize = 32;
const COUNT_BITS: u32 = 16;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Counts by address.
pub struct Addresses {
    limit: u64,
    cells: Box<[AtomicU64]>,
}

/// Where a connection is counted.
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

    /// Counts one more for an address; `None` where that would be too many.
    pub fn take(&self, hash: u64) -> Option<Cell> {
        let (first, tag) = self.place(hash);
        let cell = self.count_in_bucket(first, tag)?;
        // The bucket may count the address elsewhere, too. Of two who count it at the same time
        // at least one sees the other.
        fence(Ordering::SeqCst);
        if self.sum(first, tag) > self.limit {
            self.give_back(cell);
            return None;
        }
        Some(cell)
    }

    /// Counts one less.
    ///
    /// # Panics
    /// If nothing is counted there: a bug in the engine.
    pub fn give_back(&self, cell: Cell) {
        if cell != Cell::NONE {
            let before = self.cells[cell.0 as usize].fetch_sub(1, Ordering::AcqRel);
            assert!(before & COUNT_MAX > 0, "more of an address came back than were counted");
        }
    }

    /// Connections of an address now.
    pub fn count(&self, hash: u64) -> u64 {
        let (first, tag) = self.place(hash);
        self.sum(first, tag)
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        let buckets = self.cells.len() / BUCKET;
        // The tag's bits are not the ones that chose the bucket, as far as there are others.
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
            // It has changed meanwhile: somebody else got on, so look again.
            let counted =
                self.cells[at].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
            if counted.is_ok() {
                return Some(Cell(at as u32));
            }
        }
    }

    /// The cell that counts the tag, or one that counts nothing.
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
