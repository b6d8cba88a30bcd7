//! Workers without threads: jobs are begun and ended in any order, between the turns of shards.

use crate::ring::simulated::Rng;
use crate::workers::{Pool, Queued};

/// Plays the workers.
pub struct Shift {
    pool: Pool,
    rng: Rng,
    /// Jobs that run.
    taken: Vec<Queued>,
    /// Nobody dawdles any more.
    pub hurries: bool,
    /// Nobody works.
    pub rests: bool,
}

impl Shift {
    /// Workers for the jobs of a pool without threads.
    pub fn new(pool: Pool, rng: Rng) -> Self {
        Self { pool, rng, taken: Vec::new(), hurries: false, rests: false }
    }

    /// Works between two turns of shards.
    pub fn work(&mut self) {
        let steps = match self.hurries {
            _ if self.rests => 0,
            true => 50,
            false => self.rng.below(3),
        };
        (0..steps).for_each(|_| self.step());
    }

    /// Begins a job, or ends one.
    pub fn step(&mut self) {
        if self.rng.below(2) == 0 && self.taken.len() < self.pool.workers() {
            self.taken.extend(self.pool.take());
        } else if !self.taken.is_empty() {
            let at = self.rng.below(self.taken.len() as u64) as usize;
            self.pool.finish(self.taken.swap_remove(at));
        }
    }

    /// Another number of workers.
    pub fn resize(&mut self) {
        let workers = self.rng.pick(&[0, 1, 1, 2, 5]);
        self.pool.resize(workers).ok();
    }

    /// The number of jobs that are queued or run.
    pub fn unfinished(&self) -> u64 {
        assert_eq!(self.taken.len() as u64, self.pool.running(), "jobs that run");
        self.pool.queued() + self.pool.running()
    }

    /// Ends the jobs that run. Every shard has ended.
    pub fn end(&mut self) {
        assert!(self.pool.resize(1).is_err(), "nobody starts a worker any more");
        for queued in std::mem::take(&mut self.taken) {
            self.pool.finish(queued);
        }
        assert_eq!((self.unfinished(), self.pool.workers()), (0, 0), "jobs and workers left");
    }
}
