//! Places in the job queue, shared by all shards without a lock.
//!
//! Two races must not lose a wake-up. A shard that finds no place must be woken when one becomes
//! free. A job that is queued while the last worker leaves must be found. In both, each side
//! changes its own word and then reads the other's, with a full fence in between. At least one of
//! the two therefore sees the other's change. `tests/loom.rs` checks the interleavings.

use crate::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

pub struct Gate {
    /// Workers that may take jobs.
    workers: AtomicUsize,
    /// Free places in the queue.
    free: AtomicUsize,
    places: usize,
    /// By shard: the shard found no place and must be woken.
    waiting: Box<[AtomicBool]>,
}

/// The reason why a job gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// There are no workers.
    NoWorkers,
    /// Every place is taken. The shard will be woken when one becomes free.
    Full,
}

impl Gate {
    /// A gate with `places` places for `shards` shards, and no workers yet.
    pub fn new(places: usize, shards: usize) -> Self {
        Self {
            workers: AtomicUsize::new(0),
            free: AtomicUsize::new(places),
            places,
            waiting: (0..shards).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    pub fn workers(&self) -> usize {
        self.workers.load(Ordering::SeqCst)
    }

    /// Places taken.
    pub fn queued(&self) -> usize {
        self.places - self.free.load(Ordering::Relaxed)
    }

    /// Sets the number of workers that may take jobs. After 0 the caller empties the queue.
    pub fn set_workers(&self, workers: usize) {
        self.workers.store(workers, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Takes a place for a job.
    pub fn enter(&self, shard: usize) -> Result<(), Shut> {
        if self.workers() == 0 {
            return Err(Shut::NoWorkers);
        }
        if self.take_place() || (self.wait(shard) && self.take_place()) {
            return Ok(());
        }
        Err(Shut::Full)
    }

    /// Returns whether the workers left while a job was queued. The caller then empties the queue.
    pub fn is_abandoned(&self) -> bool {
        fence(Ordering::SeqCst);
        self.workers.load(Ordering::Relaxed) == 0
    }

    /// Asks for a wake-up of the shard when a place becomes free. Returns whether a place is free
    /// now.
    pub fn wait(&self, shard: usize) -> bool {
        self.waiting[shard].store(true, Ordering::Relaxed);
        // A place given back before the store above is visible after this fence.
        fence(Ordering::SeqCst);
        self.free() > 0
    }

    /// Free places now.
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Gives back the place of a job that left the queue. Returns the shards to wake.
    pub fn leave(&self) -> impl Iterator<Item = usize> + '_ {
        self.free.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        let waits = |waiting: &AtomicBool| {
            waiting.load(Ordering::Relaxed) && waiting.swap(false, Ordering::Relaxed)
        };
        self.waiting.iter().enumerate().filter_map(move |(shard, it)| waits(it).then_some(shard))
    }

    fn take_place(&self) -> bool {
        let less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less).is_ok()
    }
}
