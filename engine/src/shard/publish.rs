//! The shard's counters, published between two batches.

use super::Shard;
use super::slots::Mode;
use crate::handler::Handler;
use crate::ledger::Capacity;
use crate::ring::Ring;

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Lets other threads read what this shard's ledger says now.
    pub(super) fn publish(&mut self) {
        self.note_holdings();
        self.published.publish(&self.core.counters);
    }

    /// The last word of a shard that failed: what it had is nobody's any more, neither in use nor
    /// free.
    pub(super) fn publish_end(&mut self) {
        self.note_holdings();
        self.published.publish(&self.core.counters.after_failure());
    }

    /// Counts what was done since the last wait, and publishes it: what is in flight during the
    /// next one is in the ledger then.
    pub(super) fn account(&mut self) {
        let took_us = self.ring.now_us().saturating_sub(self.woke_us);
        let counters = &mut self.core.counters;
        counters.turns += 1;
        counters.batch.add(self.batch);
        counters.turn_us.add(took_us);
        self.note_holdings();
        self.published.publish_turn(&self.core.counters, took_us, self.batch);
    }

    /// Fills in what is not counted as it happens.
    fn note_holdings(&mut self) {
        let core = &mut self.core;
        let ring = self.ring.counters();
        let files = core.files_open.count() + core.files_closing.len() as u64 + self.files_closing;
        let pair = |total: u64, free: u64| Capacity { total, free };
        let listeners = self.accepting.open_now as u64;
        let pipes_made = self.pipes.made();
        let (made, connections) = (core.slots.made() as u64, core.slots.len() as u64);
        let waiting = self.accepting.waiting() as u64;
        let files_cached = core.file_cache.len() as u64;
        let counters = &mut core.counters;
        counters.slots = pair(made, made - connections);
        counters.receive_buffers =
            pair(u64::from(self.receive_buffers.total()), u64::from(self.receive_buffers.free()));
        counters.send_buffers =
            pair(u64::from(core.send_buffers.total()), u64::from(core.send_buffers.free()));
        counters.pipes = pair(u64::from(self.pipes.total()), u64::from(self.pipes.free()));
        counters.pipes_made = pipes_made;
        counters.descriptors = connections + waiting + listeners + 2 * pipes_made + files;
        counters.files = files;
        counters.files_cached = files_cached;
        counters.operations_in_flight = self.in_flight - u64::from(self.wake_armed);
        counters.waiting = waiting;
        counters.starved_now = core.slots.in_mode(Mode::Starved) as u64;
        counters.listeners = listeners;
        counters.filters_attached = self.accepting.filters_attached as u64;
        counters.enters = ring.enters;
        counters.submitted = ring.submitted;
        counters.completed = ring.completed;
        counters.overflows = ring.overflows;
        counters.streaming_now =
            (core.slots.in_mode(Mode::Streaming) + core.slots.in_mode(Mode::Long)) as u64;
        counters.once_now = core.slots.in_mode(Mode::Once) as u64;
        counters.parked_now = core.slots.in_mode(Mode::Parked) as u64;
        counters.jobs_under_way = core.jobs.under_way();
        counters.holds_under_way = core.jobs.holds_under_way();
    }

    /// The counters as they are.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn ledger(&mut self) -> crate::ShardLedger {
        self.note_holdings();
        self.core.counters
    }
}
