//! The jobs of a shard that are not delivered yet, by connection.

use crate::config::Config;
use crate::workers::{JobDone, Port};
use slab::Slab;
use std::collections::VecDeque;

/// The jobs of a shard.
pub struct Jobs {
    pub(super) port: Port,
    pub(super) per_connection_max: u32,
    /// One for each connection that has jobs.
    pub(super) of_connections: Slab<OfConnection>,
    /// Jobs that were offloaded, and are neither delivered nor given up.
    pub(super) under_way: u64,
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
}

impl Jobs {
    pub fn new(port: Port, config: &Config) -> Self {
        Self {
            port,
            per_connection_max: config.jobs_per_connection_max,
            of_connections: Slab::new(),
            under_way: 0,
            waiting: VecDeque::new(),
        }
    }

    pub fn under_way(&self) -> u64 {
        self.under_way
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
