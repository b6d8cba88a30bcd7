//! The metrics of a shard: name, kind and meaning of each number of its ledger.

use super::exposition::Kind::{self, Counter, Gauge};
use ringwright::{Histogram, ShardLedger};

/// A metric with one sample per shard.
pub struct OfShard {
    /// Counter or gauge.
    pub kind: Kind,
    /// The name. It ends with the unit, and a counter's with `_total` after that.
    pub name: &'static str,
    /// The HELP line.
    pub help: &'static str,
    /// Reads the value.
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

/// All metrics of this kind, in the order of the page.
#[rustfmt::skip]
pub const OF_SHARD: &[OfShard] = &[
    of(Gauge, "ringwright_connections_open", "Open connections.", |s| s.opened - s.closed),
    of(Counter, "ringwright_connections_opened_total", "Connections opened.", |s| s.opened),
    of(Counter, "ringwright_connections_accepted_total",
        "Clients accepted, including those that were closed before they became a connection.",
        |s| s.accepted),
    of(Counter, "ringwright_connections_rejected_total",
        "Clients closed at once because --max-connections were open.", |s| s.rejected),
    of(Counter, "ringwright_connections_reset_before_accept_total",
        "Clients that had already reset when they were accepted.", |s| s.reset_before_accept),
    of(Counter, "ringwright_connections_banned_total",
        "Clients closed after accept because their address is banned.", |s| s.banned),
    of(Counter, "ringwright_connections_over_address_limit_total",
        "Clients closed because their address had --max-per-ip connections.",
        |s| s.over_address_limit),
    of(Counter, "ringwright_connections_over_listener_limit_total",
        "Clients closed because their listener had as many connections as it may have.",
        |s| s.over_listener_limit),
    of(Counter, "ringwright_clients_gone_while_waiting_total",
        "Clients that reset while they waited at --max-connections.", |s| s.gone_while_waiting),
    of(Counter, "ringwright_clients_turned_away_total",
        "Clients that still waited at --max-connections when a drain reached its deadline.",
        |s| s.turned_away),
    of(Counter, "ringwright_handshakes_lost_total",
        "Clients whose handshake was complete but not accepted when a listener was closed.",
        |s| s.handshakes_lost),
    of(Counter, "ringwright_listener_drops_total",
        "Packets that listening sockets with a ban filter dropped: from banned addresses, or \
         because of a full queue.",
        |s| s.listener_drops),
    of(Gauge, "ringwright_listeners", "Open listening sockets.", |s| s.listeners),
    of(Gauge, "ringwright_listener_filters",
        "Listening sockets with a kernel filter that drops packets of banned clients.",
        |s| s.filters_attached),
    of(Counter, "ringwright_connects_total",
        "Outgoing connections that succeeded.", |s| s.connected),
    of(Counter, "ringwright_connects_failed_total",
        "Outgoing connects that failed.", |s| s.connect_failed),
    of(Counter, "ringwright_reconnects_total",
        "Attempts to reconnect an outgoing connection that had failed or ended.", |s| s.reconnects),
    of(Counter, "ringwright_accept_backoffs_total",
        "Pauses in accepting because of missing descriptors or memory.", |s| s.accept_backoffs),
    of(Gauge, "ringwright_clients_waiting",
        "Accepted clients that wait because --max-connections are open.", |s| s.waiting),
    of(Counter, "ringwright_received_bytes_total", "Bytes received.", |s| s.bytes_received),
    of(Counter, "ringwright_sent_bytes_total",
        "Bytes passed to the kernel for sending.", |s| s.bytes_sent),
    of(Gauge, "ringwright_slots", "Connection slots allocated.", |s| s.slots.total),
    of(Gauge, "ringwright_slots_free", "Connection slots not in use.", |s| s.slots.free),
    of(Gauge, "ringwright_receive_buffers", "Receive buffers.", |s| s.receive_buffers.total),
    of(Gauge, "ringwright_receive_buffers_free",
        "Receive buffers that the kernel may fill.", |s| s.receive_buffers.free),
    of(Gauge, "ringwright_send_buffers", "Send buffers.", |s| s.send_buffers.total),
    of(Gauge, "ringwright_send_buffers_free", "Send buffers not in use.", |s| s.send_buffers.free),
    of(Gauge, "ringwright_pipes", "Pipes for file transfers.", |s| s.pipes.total),
    of(Gauge, "ringwright_pipes_free", "Pipes not in use.", |s| s.pipes.free),
    of(Gauge, "ringwright_pipes_open",
        "Open pipes, in use or kept for the next file. Each takes two descriptors.",
        |s| s.pipes_made),
    of(Counter, "ringwright_pipe_waits_total",
        "File transfers that had to wait for a pipe.", |s| s.pipe_waits),
    of(Gauge, "ringwright_connections_starved",
        "Connections that wait for a receive buffer.", |s| s.starved_now),
    of(Gauge, "ringwright_connections_streaming",
        "Connections that use a multishot receive.", |s| s.streaming_now),
    of(Gauge, "ringwright_connections_parked",
        "Idle connections that wait with a poll or a zero-length receive (--probe).",
        |s| s.parked_now),
    of(Gauge, "ringwright_connections_once",
        "Connections that use one single-shot receive at a time.", |s| s.once_now),
    of(Counter, "ringwright_starvations_total",
        "Receives that found no free buffer.", |s| s.starved),
    of(Counter, "ringwright_parks_total",
        "Times that an idle connection was parked.", |s| s.parked),
    of(Counter, "ringwright_heap_chunks_total",
        "Pieces of output stored on the heap, because they were large or no send buffer was free.",
        |s| s.heap_chunks),
    of(Gauge, "ringwright_memory_budget_bytes",
        "Budget for queued output and unprocessed input (--memory-budget).", |s| s.budget_bytes),
    of(Gauge, "ringwright_memory_budget_used_bytes",
        "Memory in use by queued output and unprocessed input.", |s| s.budget_used_bytes),
    of(Counter, "ringwright_memory_budget_pauses_total",
        "Times that the server stopped reading from a connection because of the memory budget.",
        |s| s.budget_pauses),
    of(Counter, "ringwright_broadcasts_skipped_total",
        "Broadcasts not queued for a client that reads too slowly.", |s| s.broadcasts_skipped),
    of(Counter, "ringwright_cut_off_bytes_total",
        "Received bytes still unread right after the server's FIN, when a drain finished a \
         connection.",
        |s| s.cut_off),
    of(Gauge, "ringwright_descriptors_open",
        "Open descriptors: sockets, listeners, pipe ends and files.", |s| s.descriptors),
    of(Gauge, "ringwright_files_open", "Open files.", |s| s.files),
    of(Gauge, "ringwright_file_cache_files",
        "Open files that are kept for further requests (--open-files).", |s| s.files_cached),
    of(Counter, "ringwright_file_cache_hits_total",
        "Requests whose file was already open.", |s| s.file_cache_hits),
    of(Counter, "ringwright_file_cache_misses_total",
        "Requests whose file was not open or had changed.", |s| s.file_cache_misses),
    of(Gauge, "ringwright_operations_in_flight",
        "Submitted operations whose last completion has not arrived.", |s| s.operations_in_flight),
    of(Gauge, "ringwright_ring_submission_entries",
        "Size of the submission queue in entries.", |s| s.submission_entries),
    of(Gauge, "ringwright_ring_completion_entries",
        "Size of the completion queue in entries.", |s| s.completion_entries),
    of(Counter, "ringwright_turns_total", "Turns of the shard's event loop.", |s| s.turns),
    of(Counter, "ringwright_ring_enters_total", "Calls of io_uring_enter(2).", |s| s.enters),
    of(Counter, "ringwright_ring_submissions_total", "Operations submitted.", |s| s.submitted),
    of(Counter, "ringwright_ring_completions_total", "Completions processed.", |s| s.completed),
    of(Counter, "ringwright_ring_overflows_total",
        "Overflows of the completion queue. Expected: 0.", |s| s.overflows),
    of(Counter, "ringwright_stale_completions_total",
        "Completions for a connection that had already ended. Expected: 0.",
        |s| s.stale_completions),
    of(Counter, "ringwright_handler_panics_total",
        "Callbacks that panicked.", |s| s.handler_panics),
    of(Counter, "ringwright_jobs_submitted_total", "Jobs given to workers.", |s| s.jobs_submitted),
    of(Counter, "ringwright_jobs_done_total",
        "Jobs whose result was delivered to their connection.", |s| s.jobs_done),
    of(Counter, "ringwright_jobs_failed_total",
        "Jobs that panicked or never ran, and whose connection was informed.", |s| s.jobs_failed),
    of(Counter, "ringwright_jobs_unclaimed_total",
        "Jobs whose connection had ended before the result could be delivered.",
        |s| s.jobs_unclaimed),
    of(Counter, "ringwright_jobs_refused_total",
        "Jobs refused: no workers, a full queue, or a connection that is ending.",
        |s| s.jobs_refused),
    of(Gauge, "ringwright_jobs_under_way",
        "Jobs given to workers and not yet delivered.", |s| s.jobs_under_way),
];

/// A metric with one histogram per shard.
pub struct Distribution {
    /// The name. It ends with the unit.
    pub name: &'static str,
    /// The HELP line.
    pub help: &'static str,
    /// Divides the ledger's values to get the unit of `name`.
    pub per_unit: f64,
    /// Reads the histogram.
    pub of: fn(&ShardLedger) -> &Histogram,
}

/// All histograms, in the order of the page.
pub const DISTRIBUTIONS: &[Distribution] = &[
    Distribution {
        name: "ringwright_turn_duration_seconds",
        help: "Duration of a turn of the shard's event loop, without waiting.",
        per_unit: 1e6,
        of: |shard| &shard.turn_us,
    },
    Distribution {
        name: "ringwright_turn_completions",
        help: "Completions per turn of the shard's event loop.",
        per_unit: 1.0,
        of: |shard| &shard.batch,
    },
    Distribution {
        name: "ringwright_connection_lifetime_seconds",
        help: "Lifetime of closed connections.",
        per_unit: 1e3,
        of: |shard| &shard.lifetime_ms,
    },
];
