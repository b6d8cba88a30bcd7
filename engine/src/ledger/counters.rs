//! The counters of a shard: one table, from which everything that lists them is made.

use super::json::{Json, histogram, object};
use crate::Reason;
use std::mem::offset_of;

/// A number of resources, and how many of them are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// The number of resources.
    pub total: u64,
    /// The number of resources not in use.
    pub free: u64,
}

/// A distribution of values in buckets of powers of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram {
    /// The number of values in each bucket. [`Histogram::upper_bound`] gives the bounds.
    pub counts: [u64; Self::BUCKETS],
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// The number of buckets.
    pub const BUCKETS: usize = 24;

    /// The largest value that `bucket` counts: 2^`bucket` - 1. `None` for the last bucket, which
    /// has no bound.
    #[must_use]
    pub const fn upper_bound(bucket: usize) -> Option<u64> {
        if bucket + 1 < Self::BUCKETS { Some((1 << bucket) - 1) } else { None }
    }

    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bucket of a value.
    #[inline]
    pub(super) fn bucket(value: u64) -> usize {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        bucket.min(Self::BUCKETS - 1)
    }

    #[inline]
    pub(crate) fn add(&mut self, value: u64) {
        self.counts[Self::bucket(value)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }
}

/// A counter of a shard as a monitoring system sees it: name, description, kind and value.
///
/// [`ShardLedger::counters`] lists all of them.
///
/// ```
/// use ringwright::{CounterValue, ShardLedger};
///
/// let ledger = ShardLedger::default(); // or one of EngineHandle::shard_ledgers
/// for counter in ShardLedger::counters() {
///     if let CounterValue::Total(read) | CounterValue::Now(read) = counter.value {
///         println!("# HELP {} {}", counter.name, counter.help);
///         println!("{} {}", counter.name, read(&ledger));
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Counter {
    /// The name by the rules of Prometheus. It ends with the unit, followed by `_total` for a value
    /// that only grows.
    pub name: &'static str,
    /// The description: one or a few sentences of plain text on one line.
    pub help: &'static str,
    /// The kind, and a function that reads the value.
    pub value: CounterValue,
}

/// The kind of a [`Counter`], with a function that reads its value.
///
/// It is exhaustive, so that an exporter does not compile until it knows a new kind.
#[derive(Clone, Copy, Debug)]
pub enum CounterValue {
    /// Only grows.
    Total(fn(&ShardLedger) -> u64),
    /// Grows and falls. It is 0 after the shard has failed.
    Now(fn(&ShardLedger) -> u64),
    /// Only grows, with one value for each [`Reason`].
    ByReason(fn(&ShardLedger, Reason) -> u64),
    /// A distribution.
    Distribution {
        /// Reads the distribution.
        read: fn(&ShardLedger) -> &Histogram,
        /// The divisor that converts the values into the unit of [`Counter::name`].
        per_unit: f64,
    },
}

/// Declares `ShardLedger` and everything that lists its fields.
///
/// A row is `KIND FIELD "PATH IN THE JSON" { /// DESCRIPTION "METRIC NAME" }`. A pair has a second
/// description and name for the free ones. A row without a name is in no metric. `see ITEM` at the
/// end adds a link to the documentation of the field. Kinds:
/// * `total`: only grows.
/// * `now`: a current value. It becomes 0 when the shard fails.
/// * `pair`: resources and the free ones now. Both become 0 when the shard fails.
/// * `histogram`; `histogram_us` and `histogram_ms` for times, whose metrics are in seconds.
/// * `by_reason`: one `total` for each reason.
///
/// The three sections are those of `Published::publish_turn`.
macro_rules! counters {
    (
        each_turn { $($each:tt)* }
        histograms_of_turns { $($turns:tt)* }
        endings { $($endings:tt)* }
    ) => {
        counters! { @struct $($each)* $($turns)* $($endings)* }
        counters! { @rows $($each)* $($turns)* $($endings)* }
        const EACH_TURN_WORDS: usize = counters! { @words $($each)* };
        const HISTOGRAMS_WORDS: usize = counters! { @words $($turns)* };
        const ENDINGS_WORDS: usize = counters! { @words $($endings)* };
    };
    (@struct $(
        $kind:ident $field:ident $path:literal {
            $(#[doc = $help:literal])+
            $($name:literal $($(#[doc = $free_help:literal])+ $free_name:literal)?)?
            $(see $($see:ident)::+)?
        }
    )*) => {
        /// The counters of one shard, as of the end of a turn of its loop.
        ///
        /// Pairs and current values become 0 when the shard fails. All other counters only grow.
        /// [`counters`](Self::counters) lists the counters for export.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        #[repr(C)]
        pub struct ShardLedger {
            $(
                $(#[doc = $help])+
                $($(
                    #[doc = "Free:"]
                    $(#[doc = $free_help])+
                )?)?
                $(#[doc = concat!(
                    "\nSee [`", stringify!($($see)::+), "`](crate::", stringify!($($see)::+), ")."
                )])?
                #[doc = counters!(@doc $kind)]
                pub $field: counters!(@type $kind),
            )*
        }

        impl ShardLedger {
            /// The ledger of a shard that has failed: it has nothing any more, neither in use nor
            /// free.
            pub(crate) fn after_failure(&self) -> Self {
                Self { $($field: counters!(@after_failure $kind self.$field),)* }
            }

            /// Adds all counters to a JSON object.
            pub(super) fn add_to(&self, json: &mut Json) {
                $(counters!(@json $kind json, $path, self.$field);)*
            }
        }
    };

    (@rows $($kind:ident $field:ident $path:literal { $($metrics:tt)* })*) => {
        /// The metrics of each row of the table.
        const ROWS: &[&[Counter]] = &[$(counters!(@row $kind $field $($metrics)*),)*];
    };
    (@row $kind:ident $field:ident
        $(#[doc = $help:literal])+
        $name:literal $($(#[doc = $free_help:literal])+ $free_name:literal)?
        $(see $($see:ident)::+)?
    ) => {
        &[
            Counter {
                name: $name,
                help: concat!($($help),+).trim_ascii(),
                value: counters!(@value $kind $field),
            },
            $(Counter {
                name: $free_name,
                help: concat!($($free_help),+).trim_ascii(),
                value: CounterValue::Now(|shard| shard.$field.free),
            },)?
        ]
    };
    (@row $kind:ident $field:ident
        $(#[doc = $help:literal])+
        $(see $($see:ident)::+)?
    ) => { &[] };

    (@words $($kind:ident $field:ident $path:literal { $($metrics:tt)* })*) => {
        0 $(+ size_of::<counters!(@type $kind)>() / 8)*
    };

    (@doc now) => { "\nA current value." };
    (@doc histogram_us) => { "\nIn microseconds." };
    (@doc histogram_ms) => { "\nIn milliseconds." };
    (@doc $kind:ident) => { "" };

    (@type total) => { u64 };
    (@type now) => { u64 };
    (@type pair) => { Capacity };
    (@type histogram) => { Histogram };
    (@type histogram_us) => { Histogram };
    (@type histogram_ms) => { Histogram };
    (@type by_reason) => { [u64; Reason::ALL.len()] };

    (@value total $field:ident) => { CounterValue::Total(|shard| shard.$field) };
    (@value now $field:ident) => { CounterValue::Now(|shard| shard.$field) };
    (@value pair $field:ident) => { CounterValue::Now(|shard| shard.$field.total) };
    (@value histogram $field:ident) => { counters!(@distribution $field 1.0) };
    (@value histogram_us $field:ident) => { counters!(@distribution $field 1e6) };
    (@value histogram_ms $field:ident) => { counters!(@distribution $field 1e3) };
    (@distribution $field:ident $per_unit:literal) => {
        CounterValue::Distribution { read: |shard| &shard.$field, per_unit: $per_unit }
    };
    (@value by_reason $field:ident) => {
        CounterValue::ByReason(|shard, reason| shard.$field[reason as usize])
    };

    (@after_failure now $value:expr) => { 0 };
    (@after_failure pair $value:expr) => { Capacity::default() };
    (@after_failure $kind:ident $value:expr) => { $value };

    (@json pair $json:ident, $path:literal, $value:expr) => {
        $json.put(concat!($path, ".total"), $value.total);
        $json.put(concat!($path, ".free"), $value.free);
    };
    (@json histogram $json:ident, $path:literal, $value:expr) => {
        $json.put($path, histogram(&$value))
    };
    (@json histogram_us $($rest:tt)*) => { counters!(@json histogram $($rest)*) };
    (@json histogram_ms $($rest:tt)*) => { counters!(@json histogram $($rest)*) };
    (@json by_reason $json:ident, $path:literal, $value:expr) => {
        $json.put(
            $path,
            object(Reason::EACH.map(|reason| (reason.name(), $value[reason as usize]))),
        )
    };
    (@json $kind:ident $json:ident, $path:literal, $value:expr) => { $json.put($path, $value) };
}

counters! {
    // Written to the published words in every turn.
    each_turn {
        total opened "connections.opened" {
            /// Connections opened.
            "ringwright_connections_opened_total"
            see Handler::opened
        }
        total closed "connections.closed" {
            /// Connections closed: the sum of `closed_by`.
            see Handler::closed
        }
        pair slots "slots" {
            /// Connection slots allocated. A slot is in use while its connection exists.
            "ringwright_slots"
            /// Connection slots not in use.
            "ringwright_slots_free"
        }
        pair receive_buffers "buffers" {
            /// Receive buffers.
            "ringwright_receive_buffers"
            /// Receive buffers that the kernel may fill.
            "ringwright_receive_buffers_free"
        }
        pair send_buffers "send_buffers" {
            /// Send buffers.
            "ringwright_send_buffers"
            /// Send buffers not in use.
            "ringwright_send_buffers_free"
        }
        pair pipes "pipes" {
            /// Pipes for file transfers, open or not.
            "ringwright_pipes"
            /// Pipes not in use.
            "ringwright_pipes_free"
            see Config::pipes
        }
        now pipes_made "pipes.made" {
            /// Open pipes, in use or kept for the next file. Each takes two descriptors.
            "ringwright_pipes_open"
        }
        now descriptors "descriptors.open" {
            /// Open descriptors: sockets, listeners, pipe ends and files.
            "ringwright_descriptors_open"
        }
        now files "files" {
            /// Open files.
            "ringwright_files_open"
        }
        now files_cached "file_cache.open" {
            /// Files in the file cache, which keeps them open for further use.
            "ringwright_file_cache_files"
            see Connection::cached_file
        }
        total file_cache_hits "file_cache.hits" {
            /// Lookups in the file cache that found the file.
            "ringwright_file_cache_hits_total"
            see Connection::cached_file
        }
        total file_cache_misses "file_cache.misses" {
            /// Lookups in the file cache that did not find the file, or found that it had changed.
            "ringwright_file_cache_misses_total"
            see Connection::cached_file
        }
        now operations_in_flight "operations_in_flight" {
            /// Operations in flight: submitted, and the last completion has not arrived. The
            /// poll for wake-ups does not count.
            "ringwright_operations_in_flight"
        }
        now waiting "connections.waiting" {
            /// Accepted clients that wait because the maximum number of connections is open.
            "ringwright_clients_waiting"
            see AtCapacity::Wait
        }
        now starved_now "receiving.starved" {
            /// Connections that wait for a receive buffer.
            "ringwright_connections_starved"
        }
        total accepted "connections.accepted" {
            /// Clients accepted, including those that were closed before they became a connection.
            "ringwright_connections_accepted_total"
        }
        total connected "connections.connected" {
            /// Outgoing connections that succeeded.
            "ringwright_connects_total"
        }
        total rejected "connections.rejected" {
            /// Clients closed after accept because the maximum number of connections was open.
            "ringwright_connections_rejected_total"
            see AtCapacity::Reject
        }
        total reset_before_accept "connections.reset_before_accept" {
            /// Clients that had already reset when they were accepted.
            "ringwright_connections_reset_before_accept_total"
        }
        total banned "connections.banned" {
            /// Clients closed after accept because their address is banned.
            "ringwright_connections_banned_total"
            see EngineHandle::ban
        }
        total over_address_limit "connections.over_address_limit" {
            /// Clients closed after accept because their address had the maximum number of clients.
            "ringwright_connections_over_address_limit_total"
            see Config::max_per_address
        }
        total over_listener_limit "connections.over_listener_limit" {
            /// Clients closed after accept because their listener had its maximum number of
            /// connections.
            "ringwright_connections_over_listener_limit_total"
            see ListenerSettings::connections_max
        }
        total gone_while_waiting "connections.gone_while_waiting" {
            /// Clients that had reset when, after a wait, a place became free for them.
            "ringwright_clients_gone_while_waiting_total"
        }
        total turned_away "connections.turned_away" {
            /// Clients that were accepted but not served, because a drain reached its deadline or
            /// the shard failed.
            "ringwright_clients_turned_away_total"
        }
        total handed_over "connections.handed_over" {
            /// Clients that a shard has accepted and handed to one with fewer connections.
            "ringwright_clients_handed_over_total"
            see Config::balance
        }
        total taken_over "connections.taken_over" {
            /// Clients that a shard has taken over from the one that accepted them.
            "ringwright_clients_taken_over_total"
        }
        total handshakes_lost "connections.handshakes_lost" {
            /// Clients that were still in the accept queue when a listener was closed.
            "ringwright_handshakes_lost_total"
        }
        total listener_drops "listeners.drops" {
            /// Packets that listeners with a ban filter dropped (SK_MEMINFO_DROPS): from banned
            /// addresses, or because of a full queue.
            "ringwright_listener_drops_total"
        }
        now listeners "listeners.open" {
            /// Open listeners.
            "ringwright_listeners"
        }
        now filters_attached "listeners.filters" {
            /// Listeners whose kernel filter drops packets of banned addresses.
            "ringwright_listener_filters"
        }
        total connect_failed "connections.connect_failed" {
            /// Outgoing connects that failed.
            "ringwright_connects_failed_total"
        }
        total reconnects "connections.reconnects" {
            /// Attempts to reconnect an outgoing connection that had failed or ended.
            "ringwright_reconnects_total"
            see Local::keep_connected
        }
        total accept_backoffs "accept_backoffs" {
            /// Pauses of accepting after errors such as EMFILE.
            "ringwright_accept_backoffs_total"
        }
        total bytes_received "bytes.received" {
            /// Bytes received.
            "ringwright_received_bytes_total"
        }
        total bytes_sent "bytes.sent" {
            /// Bytes given to the kernel for sending.
            "ringwright_sent_bytes_total"
        }
        total starved "starved" {
            /// Receives that found no free buffer (ENOBUFS).
            "ringwright_starvations_total"
        }
        total parked "parked" {
            /// Times that a connection was parked because it was idle.
            "ringwright_parks_total"
        }
        total heap_chunks "heap_chunks" {
            /// Pieces of output that went to the heap or to a spill, because they were long or no
            /// send buffer was free.
            "ringwright_heap_chunks_total"
        }
        total stale_completions "ring.stale_completions" {
            /// Completions for a connection that had already ended. Expected: 0.
            "ringwright_stale_completions_total"
        }
        now budget_used_bytes "memory_budget.used" {
            /// Bytes that queued output and kept input take. They can exceed the budget for a
            /// while.
            "ringwright_memory_budget_used_bytes"
        }
        total budget_pauses "memory_budget.pauses" {
            /// Times that reading from a connection was paused because of the memory budget.
            "ringwright_memory_budget_pauses_total"
        }
        total handler_panics "handler_panics" {
            /// Callbacks that panicked.
            "ringwright_handler_panics_total"
        }
        total pipe_waits "pipe_waits" {
            /// File transfers that had to wait for a pipe.
            "ringwright_pipe_waits_total"
        }
        total enters "ring.enters" {
            /// Calls of io_uring_enter(2), or of epoll_wait(2).
            "ringwright_ring_enters_total"
        }
        total submitted "ring.submitted" {
            /// Operations submitted.
            "ringwright_ring_submissions_total"
        }
        total completed "ring.completed" {
            /// Completions taken.
            "ringwright_ring_completions_total"
        }
        total overflows "ring.overflows" {
            /// Overflows of the completion queue. Expected: 0. The kernel keeps the completions.
            "ringwright_ring_overflows_total"
        }
        now streaming_now "receiving.streaming" {
            /// Connections that use a multishot receive, or a poll for long messages.
            "ringwright_connections_streaming"
        }
        now once_now "receiving.once" {
            /// Connections that receive once at a time.
            "ringwright_connections_once"
        }
        now parked_now "receiving.parked" {
            /// Idle connections that wait with a poll or a zero-length receive.
            "ringwright_connections_parked"
            see IdleOperation
        }
        total broadcasts_skipped "broadcasts_skipped" {
            /// Broadcasts that a connection did not get because its peer reads too slowly.
            "ringwright_broadcasts_skipped_total"
            see SlowReaders::Skip
        }
        total messages_delivered "messages.delivered" {
            /// Messages given to the handler.
            "ringwright_messages_delivered_total"
            see Handler::message
        }
        total messages_unclaimed "messages.unclaimed" {
            /// Messages and closures for a connection that was connecting or had ended, or for a
            /// shard that ends.
            "ringwright_messages_unclaimed_total"
            see EngineHandle::post_to_connection
        }
        total cut_off "cut_off" {
            /// Bytes that arrived between the last check for unread input and our FIN. The handler
            /// did not get them.
            "ringwright_cut_off_bytes_total"
            see Connection::finish
        }
        total jobs_submitted "jobs.submitted" {
            /// Jobs given to the workers, and holds taken.
            "ringwright_jobs_submitted_total"
            see Connection::offload
        }
        total jobs_done "jobs.done" {
            /// Jobs and holds whose value was delivered to their connection or shard.
            "ringwright_jobs_done_total"
            see Handler::job_done
        }
        total jobs_failed "jobs.failed" {
            /// Jobs that panicked or never ran and holds that were dropped, whose error was
            /// delivered to their connection or shard.
            "ringwright_jobs_failed_total"
            see Handler::job_done
        }
        total jobs_unclaimed "jobs.unclaimed" {
            /// Jobs and holds whose connection or shard had ended before their result could be
            /// delivered.
            "ringwright_jobs_unclaimed_total"
        }
        total jobs_refused "jobs.refused" {
            /// Jobs and holds refused: no workers, a full queue, a limit, or a connection or shard
            /// that is ending.
            "ringwright_jobs_refused_total"
            see workers::OffloadJobErrorKind
        }
        now jobs_under_way "jobs.under_way" {
            /// Jobs and holds in progress: submitted, and neither delivered nor unclaimed.
            "ringwright_jobs_under_way"
        }
        total holds_taken "holds.taken" {
            /// Holds taken. They are among the submitted jobs.
            "ringwright_holds_taken_total"
            see Connection::hold
        }
        total holds_dropped "holds.dropped" {
            /// Holds that were dropped without a value. They are among the failed jobs.
            "ringwright_holds_dropped_total"
            see workers::RunJobError::Dropped
        }
        now holds_under_way "holds.under_way" {
            /// Holds among the jobs in progress.
            "ringwright_holds_under_way"
        }
        total turns "turns" {
            /// Turns of the shard's loop. Each handles one batch of completions.
            "ringwright_turns_total"
        }
    }
    // Only the bucket of the turn's value and the sum are written.
    histograms_of_turns {
        histogram_us turn_us "turn_us" {
            /// The duration of a turn of the shard's loop, without its wait.
            "ringwright_turn_duration_seconds"
        }
        histogram batch "batch" {
            /// The number of completions in a turn of the shard's loop.
            "ringwright_turn_completions"
        }
    }
    // Written only if `closed` has changed. These change only with it, or never.
    endings {
        now submission_entries "ring.submission_entries" {
            /// The size of the submission queue, in entries.
            "ringwright_ring_submission_entries"
        }
        now completion_entries "ring.completion_entries" {
            /// The size of the completion queue, in entries.
            "ringwright_ring_completion_entries"
        }
        now budget_bytes "memory_budget.bytes" {
            /// The budget for queued output and kept input, in bytes.
            "ringwright_memory_budget_bytes"
            see Config::memory_budget_bytes
        }
        histogram_ms lifetime_ms "lifetime_ms" {
            /// The lifetime of closed connections.
            "ringwright_connection_lifetime_seconds"
        }
        by_reason closed_by "closed_by" {
            /// Connections closed, by reason.
            "ringwright_connections_closed_total"
            see Reason::ALL
        }
    }
}

/// The size and the positions of fields, in words.
pub(super) const WORDS: usize = size_of::<ShardLedger>() / 8;
pub(super) const CLOSED: usize = offset_of!(ShardLedger, closed) / 8;
pub(super) const TURN_US: usize = offset_of!(ShardLedger, turn_us) / 8;
pub(super) const BATCH: usize = offset_of!(ShardLedger, batch) / 8;
pub(super) const ENDINGS: usize = EACH_TURN_WORDS + HISTOGRAMS_WORDS;
const _: () = assert!(CLOSED < EACH_TURN_WORDS && TURN_US == EACH_TURN_WORDS);
const _: () = assert!(BATCH == TURN_US + size_of::<Histogram>() / 8);
const _: () = assert!(ENDINGS == BATCH + size_of::<Histogram>() / 8);
const _: () = assert!(ENDINGS + ENDINGS_WORDS == WORDS);

const OPEN: Counter = Counter {
    name: "ringwright_connections_open",
    help: "Open connections.",
    value: CounterValue::Now(|shard| shard.opened - shard.closed),
};

impl ShardLedger {
    /// Lists all counters with name, description, kind and value.
    ///
    /// `closed` is the sum of [`closed_by`](Self::closed_by) and not listed. The number of open
    /// connections, `opened` less `closed`, is.
    pub fn counters() -> impl Iterator<Item = &'static Counter> {
        std::iter::once(&OPEN).chain(ROWS.iter().copied().flatten())
    }
}

pub(super) fn words(ledger: &ShardLedger) -> &[u64; WORDS] {
    // SAFETY: ShardLedger is repr(C) and made of u64 only, so that it is WORDS of them.
    unsafe { &*(&raw const *ledger).cast() }
}

pub(super) fn words_mut(ledger: &mut ShardLedger) -> &mut [u64; WORDS] {
    // SAFETY: as in `words`; every bit pattern is a valid u64.
    unsafe { &mut *(&raw mut *ledger).cast() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A ledger in which every word differs.
    fn distinct() -> ShardLedger {
        let mut ledger = ShardLedger::default();
        for (at, word) in words_mut(&mut ledger).iter_mut().enumerate() {
            *word = (WORDS - at) as u64;
        }
        ledger
    }

    /// Everything that the counters say of a ledger.
    fn readings(ledger: &ShardLedger) -> Vec<u64> {
        let of = |counter: &Counter| match counter.value {
            CounterValue::Total(read) | CounterValue::Now(read) => vec![read(ledger)],
            CounterValue::ByReason(read) => Reason::EACH.map(|it| read(ledger, it)).to_vec(),
            CounterValue::Distribution { read, .. } => {
                [&read(ledger).counts[..], &[read(ledger).sum]].concat()
            }
        };
        ShardLedger::counters().flat_map(of).collect()
    }

    #[test]
    fn every_word_of_a_ledger_is_in_a_counter() {
        let before = distinct();
        for at in 0..WORDS {
            let mut after = before;
            words_mut(&mut after)[at] += 1;
            assert_ne!(readings(&after), readings(&before), "word {at} of ShardLedger");
        }
    }

    #[test]
    fn names_and_descriptions_follow_the_rules_of_prometheus() {
        let mut names = BTreeSet::new();
        for Counter { name, help, value } in ShardLedger::counters() {
            assert!(names.insert(name), "{name} twice");
            let of_name = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.starts_with("ringwright_") && name.chars().all(of_name), "{name}");
            let grows = matches!(value, CounterValue::Total(_) | CounterValue::ByReason(_));
            assert_eq!(name.ends_with("_total"), grows, "{name}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\', '`', '[']), "{help}");
        }
    }

    #[test]
    fn a_failed_shard_keeps_what_only_grows() {
        let (before, after) = (distinct(), distinct().after_failure());
        for Counter { name, value, .. } in ShardLedger::counters().skip(1) {
            if let CounterValue::Now(read) = value {
                assert_eq!(read(&after), 0, "{name}");
            }
            if let CounterValue::Total(read) = value {
                assert_eq!(read(&after), read(&before), "{name}");
            }
        }
        assert_eq!((after.closed, after.closed_by), (before.closed, before.closed_by));
        assert_eq!(after.turn_us, before.turn_us);
    }
}
