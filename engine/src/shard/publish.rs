//! The shard's counters, published between two batches.

use super::Shard;
use super::slots::Mode;
use crate::handler::Handler;
use crate::ledger::{Pair, ShardLedger};
use crate::ring::Ring;

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Lets other threads read what this shard's ledger says now.
    pub(super) fn publish(&mut self) {
        self.published.publish(&self.ledger());
    }

    /// The last word of a shard that failed: what it had is nobody's any more, neither in use nor
    /// free.
    pub(super) fn publish_end(&mut self) {
        let gone = Pair::default();
        self.published.publish(&ShardLedger {
            slots: gone,
            receive_buffers: gone,
            send_buffers: gone,
            pipes: gone,
            descriptors: 0,
            files: 0,
            files_cached: 0,
            listeners: 0,
            filters_attached: 0,
            operations_in_flight: 0,
            waiting: 0,
            starved_now: 0,
            streaming_now: 0,
            once_now: 0,
            parked_now: 0,
            jobs_under_way: 0,
            ..self.ledger()
        });
    }

    /// Counts what was done since the last wait.
    pub(super) fn account(&mut self) {
        let took_us = self.ring.now_us().saturating_sub(self.woke_us);
        let counters = &mut self.core.counters;
        counters.turns += 1;
        counters.batch.add(self.batch);
        counters.turn_us.add(took_us);
    }

    /// The counters as they are.
    pub(crate) fn ledger(&self) -> ShardLedger {
        let core = &self.core;
        let ring = self.ring.counters();
        let files = core.files_open.count() + core.files_closing.len() as u64 + self.files_closing;
        let pair = |total: u64, free: u64| Pair { total, free };
        ShardLedger {
            slots: pair(core.slots.made() as u64, (core.slots.made() - core.slots.len()) as u64),
            receive_buffers: pair(
                u64::from(self.receive_buffers.total()),
                u64::from(self.receive_buffers.free()),
            ),
            send_buffers: pair(
                u64::from(core.send_buffers.total()),
                u64::from(core.send_buffers.free()),
            ),
            pipes: pair(u64::from(self.pipes.total()), u64::from(self.pipes.free())),
            pipes_made: self.pipes.made(),
            descriptors: core.slots.len() as u64
                + self.accepting.waiting() as u64
                + self.listeners_open() as u64
                + 2 * self.pipes.made()
                + files,
            files,
            files_cached: core.file_cache.len() as u64,
            operations_in_flight: self.in_flight - u64::from(self.wake_armed),
            waiting: self.accepting.waiting() as u64,
            starved_now: core.slots.in_mode(Mode::Starved) as u64,
            listeners: self.listeners_open() as u64,
            filters_attached: self.filters_attached() as u64,
            enters: ring.enters,
            submitted: ring.submitted,
            completed: ring.completed,
            overflows: ring.overflows,
            submission_entries: u64::from(self.entries.0),
            completion_entries: u64::from(self.entries.1),
            streaming_now: core.slots.in_mode(Mode::Streaming) as u64,
            once_now: core.slots.in_mode(Mode::Once) as u64,
            parked_now: core.slots.in_mode(Mode::Parked) as u64,
            jobs_under_way: core.jobs.under_way(),
            ..core.counters
        }
    }
}
