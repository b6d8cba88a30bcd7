//! The shard's counters, published between two batches.

use super::Shard;
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
            operations_in_flight: 0,
            starved_now: 0,
            ..self.ledger()
        });
    }

    /// The counters as they are.
    pub(crate) fn ledger(&self) -> ShardLedger {
        let core = &self.core;
        let counters = &core.counters;
        let ring = self.ring.counters();
        let pair = |total: u64, free: u64| Pair { total, free };
        ShardLedger {
            opened: counters.opened,
            closed: counters.closed,
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
            descriptors: core.slots.len() as u64
                + self.accepting.waiting() as u64
                + self.accepting.listening() as u64
                + self.pipes.descriptors()
                + self.files_closing,
            operations_in_flight: self.in_flight - u64::from(self.wake_armed),
            waiting: self.accepting.waiting() as u64,
            starved_now: self.starved.len() as u64,
            accepted: counters.accepted,
            rejected: counters.rejected,
            reset_before_accept: counters.reset_before_accept,
            connect_failed: counters.connect_failed,
            accept_backoffs: counters.accept_backoffs,
            bytes_received: counters.bytes_received,
            bytes_sent: counters.bytes_sent,
            starved: counters.starved,
            parked: counters.parked,
            heap_chunks: counters.heap_chunks,
            stale_completions: counters.stale_completions,
            handler_panics: counters.handler_panics,
            pipe_waits: counters.pipe_waits,
            enters: ring.enters,
            submitted: ring.submitted,
            completed: ring.completed,
            overflows: ring.overflows,
            closed_by: counters.closed_by,
        }
    }
}
