//! What is told of every shard: name, kind and meaning of each number of its ledger.

use super::exposition::Kind::{self, Counter, Gauge};
use ringwright::ShardLedger;

/// One sample per shard.
pub struct OfShard {
    /// Counter or gauge.
    pub kind: Kind,
    /// With its unit last, and `_total` after that for a counter.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// From where.
    pub value: fn(&ShardLedger) -> u64,
}

const fn of(
    kind: Kind,
    name: &'static str,
    help: &'static str,
    value: fn(&ShardLedger) -> u64,
) -> OfShard {
    OfShard { kind, name, help, value }
}

/// In the order of the page.
#[rustfmt::skip]
pub const OF_SHARD: &[OfShard] = &[
    of(Gauge, "ringwright_connections_open", "Connections open.", |s| s.opened - s.closed),
    of(Counter, "ringwright_connections_opened_total", "Connections opened.", |s| s.opened),
    of(Counter, "ringwright_connections_accepted_total",
        "Clients accepted, those that never became a connection included.", |s| s.accepted),
    of(Counter, "ringwright_connections_rejected_total",
        "Clients closed at once for want of a permit.", |s| s.rejected),
    of(Counter, "ringwright_connections_reset_before_accept_total",
        "Clients that had reset before they were looked at.", |s| s.reset_before_accept),
    of(Counter, "ringwright_connects_failed_total",
        "Outgoing connects that did not come about.", |s| s.connect_failed),
    of(Counter, "ringwright_accept_backoffs_total",
        "Pauses of accepting, for want of descriptors or memory.", |s| s.accept_backoffs),
    of(Gauge, "ringwright_clients_waiting", "Accepted clients that wait for a permit.", |s| s.waiting),
    of(Counter, "ringwright_received_bytes_total", "Bytes received.", |s| s.bytes_received),
    of(Counter, "ringwright_sent_bytes_total", "Bytes handed to the kernel to send.", |s| s.bytes_sent),
    of(Gauge, "ringwright_slots", "Slots for connections made so far.", |s| s.slots.total),
    of(Gauge, "ringwright_slots_free", "Slots not in use.", |s| s.slots.free),
    of(Gauge, "ringwright_receive_buffers", "Receive buffers.", |s| s.receive_buffers.total),
    of(Gauge, "ringwright_receive_buffers_free",
        "Receive buffers that the kernel may fill.", |s| s.receive_buffers.free),
    of(Gauge, "ringwright_send_buffers", "Send buffers.", |s| s.send_buffers.total),
    of(Gauge, "ringwright_send_buffers_free", "Send buffers not in use.", |s| s.send_buffers.free),
    of(Gauge, "ringwright_pipes", "Pipes for files on their way.", |s| s.pipes.total),
    of(Gauge, "ringwright_pipes_free", "Pipes not on loan.", |s| s.pipes.free),
    of(Counter, "ringwright_pipe_waits_total", "Times a file waited for a pipe.", |s| s.pipe_waits),
    of(Gauge, "ringwright_connections_starved",
        "Connections that queue for a receive buffer.", |s| s.starved_now),
    of(Counter, "ringwright_starvations_total", "Times a receive found no buffer.", |s| s.starved),
    of(Counter, "ringwright_parks_total", "Times a connection was parked for being idle.", |s| s.parked),
    of(Counter, "ringwright_heap_chunks_total",
        "Pieces of output that went to the heap, for their size or for want of a send buffer.",
        |s| s.heap_chunks),
    of(Gauge, "ringwright_operations_in_flight",
        "Operations submitted whose last completion has not been seen.", |s| s.operations_in_flight),
    of(Counter, "ringwright_ring_enters_total", "Calls of io_uring_enter(2).", |s| s.enters),
    of(Counter, "ringwright_ring_submissions_total", "Operations submitted.", |s| s.submitted),
    of(Counter, "ringwright_ring_completions_total", "Completions taken.", |s| s.completed),
    of(Counter, "ringwright_ring_overflows_total",
        "Overflows of the completion queue; 0 is expected.", |s| s.overflows),
    of(Counter, "ringwright_stale_completions_total",
        "Completions of a life that was over; 0 is expected.", |s| s.stale_completions),
    of(Counter, "ringwright_handler_panics_total", "Callbacks that panicked.", |s| s.handler_panics),
];
