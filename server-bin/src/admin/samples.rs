//! What is told of every shard: name, kind and meaning of each number of its ledger.

use super::exposition::Kind::{self, Counter, Gauge};
use ringwright::{Histogram, ShardLedger};

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
    of(Counter, "ringwright_connections_banned_total",
        "Clients closed after accept for being banned.", |s| s.banned),
    of(Counter, "ringwright_connections_over_address_limit_total",
        "Clients closed for having as many connections from their address as are allowed.",
        |s| s.over_address_limit),
    of(Counter, "ringwright_clients_gone_while_waiting_total",
        "Clients that had reset when there was a permit for them.", |s| s.gone_while_waiting),
    of(Counter, "ringwright_clients_turned_away_total",
        "Clients that still waited for a permit when a drain reached its deadline.", |s| s.turned_away),
    of(Counter, "ringwright_handshakes_lost_total",
        "Clients that were connected and not accepted when a listener was closed.", |s| s.handshakes_lost),
    of(Counter, "ringwright_listener_drops_total",
        "Packets that listeners have dropped while they had a filter: of banned addresses, and \
         those that found a full queue.",
        |s| s.listener_drops),
    of(Gauge, "ringwright_listeners", "Listening sockets open.", |s| s.listeners),
    of(Gauge, "ringwright_listener_filters",
        "Listening sockets whose filter keeps banned clients away in the kernel.",
        |s| s.filters_attached),
    of(Counter, "ringwright_connects_failed_total",
        "Outgoing connects that did not come about.", |s| s.connect_failed),
    of(Counter, "ringwright_reconnects_total",
        "Attempts to make an outgoing connection again that had failed or ended.", |s| s.reconnects),
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
    of(Gauge, "ringwright_connections_streaming",
        "Connections with a multishot receive.", |s| s.streaming_now),
    of(Gauge, "ringwright_connections_parked", "Connections that wait on a probe.", |s| s.parked_now),
    of(Gauge, "ringwright_connections_once", "Connections that receive once at a time.", |s| s.once_now),
    of(Counter, "ringwright_starvations_total", "Times a receive found no buffer.", |s| s.starved),
    of(Counter, "ringwright_parks_total", "Times a connection was parked for being idle.", |s| s.parked),
    of(Counter, "ringwright_heap_chunks_total",
        "Pieces of output that went to the heap, for their size or for want of a send buffer.",
        |s| s.heap_chunks),
    of(Counter, "ringwright_broadcasts_skipped_total",
        "Broadcasts not queued for a reader that is too slow.", |s| s.broadcasts_skipped),
    of(Counter, "ringwright_cut_off_bytes_total",
        "Bytes that were there, unread, right after the FIN of a connection that was to finish.", |s| s.cut_off),
    of(Gauge, "ringwright_descriptors_open",
        "Sockets, listeners, pipe ends and files open.", |s| s.descriptors),
    of(Gauge, "ringwright_files_open", "Files open.", |s| s.files),
    of(Gauge, "ringwright_file_cache_files",
        "Those of them that stay open for the next request.", |s| s.files_cached),
    of(Counter, "ringwright_file_cache_hits_total",
        "Requests for a file that was open already.", |s| s.file_cache_hits),
    of(Counter, "ringwright_file_cache_misses_total",
        "Requests for a file that was not, or had changed.", |s| s.file_cache_misses),
    of(Gauge, "ringwright_operations_in_flight",
        "Operations submitted whose last completion has not been seen.", |s| s.operations_in_flight),
    of(Gauge, "ringwright_ring_submission_entries", "Entries of the submission queue.",
        |s| s.submission_entries),
    of(Gauge, "ringwright_ring_completion_entries", "Entries of the completion queue.",
        |s| s.completion_entries),
    of(Counter, "ringwright_turns_total", "Turns of the shard's loop.", |s| s.turns),
    of(Counter, "ringwright_ring_enters_total", "Calls of io_uring_enter(2).", |s| s.enters),
    of(Counter, "ringwright_ring_submissions_total", "Operations submitted.", |s| s.submitted),
    of(Counter, "ringwright_ring_completions_total", "Completions taken.", |s| s.completed),
    of(Counter, "ringwright_ring_overflows_total",
        "Overflows of the completion queue; 0 is expected.", |s| s.overflows),
    of(Counter, "ringwright_stale_completions_total",
        "Completions of a life that was over; 0 is expected.", |s| s.stale_completions),
    of(Counter, "ringwright_handler_panics_total", "Callbacks that panicked.", |s| s.handler_panics),
    of(Counter, "ringwright_jobs_submitted_total", "Jobs given to workers.", |s| s.jobs_submitted),
    of(Counter, "ringwright_jobs_done_total", "Jobs whose connection was told that they are done.", |s| s.jobs_done),
    of(Counter, "ringwright_jobs_failed_total",
        "Jobs whose connection was told that they panicked or never ran.", |s| s.jobs_failed),
    of(Counter, "ringwright_jobs_unclaimed_total",
        "Jobs that were over, or left, when their connection had gone.", |s| s.jobs_unclaimed),
    of(Counter, "ringwright_jobs_refused_total",
        "Jobs not taken: no workers, no room, or a connection that is ending.", |s| s.jobs_refused),
    of(Gauge, "ringwright_jobs_under_way",
        "Jobs given to workers that no connection was told of yet.", |s| s.jobs_under_way),
];

/// A histogram per shard.
pub struct Distribution {
    /// With its unit last.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// What the ledger counts in, as parts of the name's unit.
    pub per_unit: f64,
    /// From where.
    pub of: fn(&ShardLedger) -> &Histogram,
}

/// In the order of the page.
pub const DISTRIBUTIONS: &[Distribution] = &[
    Distribution {
        name: "ringwright_turn_duration_seconds",
        help: "What a turn of the shard's loop took, waiting left out.",
        per_unit: 1e6,
        of: |shard| &shard.turn_us,
    },
    Distribution {
        name: "ringwright_turn_completions",
        help: "Completions per turn.",
        per_unit: 1.0,
        of: |shard| &shard.batch,
    },
    Distribution {
        name: "ringwright_connection_lifetime_seconds",
        help: "How long connections that have ended had been open.",
        per_unit: 1e3,
        of: |shard| &shard.lifetime_ms,
    },
];
