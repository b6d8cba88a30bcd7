//! Places in the queue of jobs, shared by all shards without a lock. A shard that found no place is
//! told when there is one; a job that comes as the last worker goes is not forgotten.
//!
//! Both are the same race: one side changes something and looks at the other's word, the other
//! side the reverse. Each looks after a full fence, so that at least one of the two sees.

use crate::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

pub struct Gate {
    /// Workers that jobs may be given to.
    workers: AtomicUsize,
    /// Places in the queue that nobody has.
    free: AtomicUsize,
    places: usize,
    /// By shard: it found no place, and is to be woken.
    waiting: Box<[AtomicBool]>,
}

/// Why there is no way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// There are no workers.
    NoWorkers,
    /// Every place is taken; the shard will be woken.
    Full,
}

impl Gate {
    /// So many places for so many shards, and no workers yet.
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

    /// How many workers jobs may be given to from now on. After 0 the caller empties the queue.
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

    /// After a job was queued: whether the workers have gone meanwhile, and whoever queued it
    /// empties the queue.
    pub fn is_abandoned(&self) -> bool {
        fence(Ordering::SeqCst);
        self.workers.load(Ordering::Relaxed) == 0
    }

    /// Has the shard woken when there is room. True: there is, now.
    pub fn wait(&self, shard: usize) -> bool {
        self.waiting[shard].store(true, Ordering::Relaxed);
        // Whoever gave a place back before it saw that has left it where we see it.
        fence(Ordering::SeqCst);
        self.free() > 0
    }

    /// Places that are free now.
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Gives the place of a job back that left the queue. Returns the shards to wake.
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
