//! The jobs and holds of a shard that are not delivered yet, by connection.

use crate::config::Config;
use crate::workers::{JobDone, Port};
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The jobs of a shard. A hold counts as a job.
pub struct Jobs {
    pub(super) port: Port,
    pub(super) per_connection_max: u32,
    pub(super) per_shard_max: u32,
    /// One for each connection that has jobs.
    pub(super) of_connections: Slab<OfConnection>,
    /// Jobs that were offloaded, and are neither delivered nor given up.
    pub(super) under_way: u64,
    /// Those of them that are holds.
    pub(super) holds_under_way: u64,
    /// Those of them that belong to no connection.
    pub(super) of_shard: u32,
    /// The shard delivers no further job without a connection: it has failed, or the deadline of
    /// its drain has passed.
    pub(super) ends: bool,
    /// The connection, with its generation, whose next result in its order has come. The turn, and
    /// the connection, may end before the result is delivered.
    pub(super) ready: Option<(u32, u64)>,
    /// Connections that wait for a place in the queue, oldest first.
    pub(super) waiting: VecDeque<u32>,
}

/// The jobs of a connection; gone when none is under way.
#[derive(Default)]
pub(super) struct OfConnection {
    pub(super) under_way: u32,
    /// The next job's place in the order.
    pub(super) next: u64,
    /// The place of the next job to deliver.
    pub(super) turn: u64,
    /// The results of the jobs from there on, as far as they are known.
    pub(super) known: VecDeque<Option<JobDone>>,
    /// Shared by its holds, which learn from it that the connection has ended.
    abandoned: Option<Arc<AtomicBool>>,
}

impl OfConnection {
    pub(super) fn abandoned(&mut self) -> Arc<AtomicBool> {
        self.abandoned.get_or_insert_default().clone()
    }

    /// The connection ends. Returns the results that wait for their turn.
    pub(super) fn abandon(self) -> impl Iterator<Item = JobDone> {
        self.abandoned.inspect(|abandoned| abandoned.store(true, Ordering::Relaxed));
        self.known.into_iter().flatten()
    }
}

impl Jobs {
    pub fn new(port: Port, config: &Config) -> Self {
        Self {
            port,
            per_connection_max: config.jobs_per_connection_max,
            per_shard_max: config.jobs_per_shard_max,
            of_connections: Slab::new(),
            under_way: 0,
            holds_under_way: 0,
            of_shard: 0,
            ends: false,
            ready: None,
            waiting: VecDeque::new(),
        }
    }

    pub fn under_way(&self) -> u64 {
        self.under_way
    }

    pub fn holds_under_way(&self) -> u64 {
        self.holds_under_way
    }

    /// From now on, the shard waits for no job without a connection, and takes no further one.
    pub fn end(&mut self) {
        self.ends = true;
    }

    /// Returns whether a drain has to wait for jobs that belong to no connection.
    pub fn holds_up_drain(&self) -> bool {
        self.of_shard > 0 && !self.ends && !bug!("drain-leaves-shard-jobs")
    }

    /// A result is about to be delivered or dropped.
    pub(super) fn is_over(&mut self, done: &JobDone) {
        self.under_way -= 1;
        self.holds_under_way -= u64::from(done.is_hold());
    }

    /// Results that have come and were not read.
    pub fn results_waiting(&self) -> usize {
        self.port.results_waiting()
    }

    /// Returns whether a connection waits for a place and there is one. It is called right before
    /// the shard sleeps: if there is no place now, one that comes free wakes the shard.
    pub fn may_be_served(&self) -> bool {
        !self.waiting.is_empty() && self.port.wait_for_room()
    }
}
