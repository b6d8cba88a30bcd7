//! The ledger: the counters of all shards, and the equations that must hold between them.

use crate::Reason;
use crate::admission::Admission;
use crate::ring::RingInUse;
use crate::workers::Pool;
use std::fmt::{Display, Write as _};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A number of resources, and how many of them are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
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
    fn bucket(value: u64) -> usize {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        bucket.min(Self::BUCKETS - 1)
    }

    #[inline]
    pub(crate) fn add(&mut self, value: u64) {
        self.counts[Self::bucket(value)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }
}

/// The counters of one shard, as of the end of a turn of its loop.
///
/// The pairs and the fields described with "now" are current values; they become 0 when the shard
/// fails. All other counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ShardLedger {
    /// Connections for which [`Handler::opened`](crate::Handler::opened) was called.
    pub opened: u64,
    /// Connections of `opened` that have ended.
    pub closed: u64,
    /// Slots made so far. A slot is in use while its connection exists.
    pub slots: Pair,
    /// Receive buffers. A free one is with the kernel.
    pub receive_buffers: Pair,
    /// Send buffers.
    pub send_buffers: Pair,
    /// Pipes for files, at most [`Config::pipes`](crate::Config::pipes).
    pub pipes: Pair,
    /// Open pipes now, in use or kept for the next file. Each takes two descriptors.
    pub pipes_made: u64,
    /// Open descriptors of this shard now: sockets, listeners, pipe ends and files.
    pub descriptors: u64,
    /// Open files now.
    pub files: u64,
    /// Files kept open now for [`Connection::cached_file`](crate::Connection::cached_file).
    pub files_cached: u64,
    /// Calls of `cached_file` that found the file.
    pub file_cache_hits: u64,
    /// Calls of `cached_file` that did not find the file, or found that it had changed.
    pub file_cache_misses: u64,
    /// Operations in flight now: their last completion has not been seen. The poll for wake-ups
    /// does not count.
    pub operations_in_flight: u64,
    /// Clients in the waiting room now: accepted, without a permit.
    pub waiting: u64,
    /// Connections that wait for a receive buffer now.
    pub starved_now: u64,
    /// Accepted clients.
    pub accepted: u64,
    /// Outgoing connections that succeeded.
    pub connected: u64,
    /// Clients closed after accept because no permit was free.
    pub rejected: u64,
    /// Clients that had reset before the shard could look at them.
    pub reset_before_accept: u64,
    /// Clients closed after accept because their address is banned.
    pub banned: u64,
    /// Clients closed after accept because their address had `max_per_address` clients already.
    pub over_address_limit: u64,
    /// Clients closed after accept because their listener had as many connections as
    /// [`ListenerSettings::connections_max`](crate::ListenerSettings::connections_max) allows.
    pub over_listener_limit: u64,
    /// Clients that had reset when a permit became free for them.
    pub gone_while_waiting: u64,
    /// Clients that were accepted but not served, because a drain reached its deadline or the shard
    /// failed.
    pub turned_away: u64,
    /// Clients that were still in the accept queue when a listener was closed.
    pub handshakes_lost: u64,
    /// Packets that listeners dropped while they had a filter (`SK_MEMINFO_DROPS`): packets of
    /// banned addresses and packets that found a full queue.
    pub listener_drops: u64,
    /// Open listeners now.
    pub listeners: u64,
    /// Listeners whose socket filter refuses banned addresses now.
    pub filters_attached: u64,
    /// Outgoing connects that failed.
    pub connect_failed: u64,
    /// Further attempts of [`Local::keep_connected`](crate::Local::keep_connected), after the first
    /// one.
    pub reconnects: u64,
    /// Pauses of accepting after errors such as EMFILE.
    pub accept_backoffs: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes given to the kernel for sending.
    pub bytes_sent: u64,
    /// Receives that found no buffer (ENOBUFS).
    pub starved: u64,
    /// Times that a connection was parked because it was idle.
    pub parked: u64,
    /// Pieces of output that went to the heap or to a spill, because they were long or no send
    /// buffer was free.
    pub heap_chunks: u64,
    /// Completions for a connection that had ended. Expected: 0.
    pub stale_completions: u64,
    /// Bytes of the budget in use now. It can exceed the budget for a while.
    pub budget_used_bytes: u64,
    /// Times that the engine paused reading from a connection because of the budget.
    pub budget_pauses: u64,
    /// Callbacks that panicked.
    pub handler_panics: u64,
    /// Times that a file had to wait for a pipe.
    pub pipe_waits: u64,
    /// Calls of io_uring_enter(2), or of epoll_wait(2).
    pub enters: u64,
    /// Submitted operations.
    pub submitted: u64,
    /// Completions taken.
    pub completed: u64,
    /// Overflows of the completion queue. Expected: 0. The kernel keeps the completions.
    pub overflows: u64,
    /// Connections that use a multishot receive now.
    pub streaming_now: u64,
    /// Connections that receive once at a time now.
    pub once_now: u64,
    /// Connections that are parked on a [`Probe`](crate::Probe) now.
    pub parked_now: u64,
    /// Connections that did not get a broadcast ([`SlowReaders::Skip`](crate::SlowReaders::Skip)).
    pub broadcasts_skipped: u64,
    /// Bytes that arrived between the last check for unread input and the FIN of
    /// [`Connection::finish`](crate::Connection::finish). The handler did not get them.
    pub cut_off: u64,
    /// Jobs accepted by [`Connection::offload`](crate::Connection::offload).
    pub jobs_submitted: u64,
    /// Jobs whose value was given to [`Handler::job_done`](crate::Handler::job_done).
    pub jobs_done: u64,
    /// Jobs whose error was given to `job_done`: they panicked or never ran.
    pub jobs_failed: u64,
    /// Jobs whose connection had ended before `job_done` could be called.
    pub jobs_unclaimed: u64,
    /// Jobs that `offload` refused.
    pub jobs_refused: u64,
    /// Jobs in progress now: accepted, and neither delivered nor unclaimed.
    pub jobs_under_way: u64,
    /// Turns of the loop. Each handles one batch of completions.
    pub turns: u64,
    /// The duration of a turn without its wait, in microseconds.
    pub turn_us: Histogram,
    /// The number of completions in a turn.
    pub batch: Histogram,
    /// Entries of the submission queue.
    pub submission_entries: u64,
    /// Entries of the completion queue.
    pub completion_entries: u64,
    /// The budget for queued output and kept input, in bytes
    /// ([`Config::memory_budget_bytes`](crate::Config::memory_budget_bytes)).
    pub budget_bytes: u64,
    /// The time from `opened` to `closed`, in milliseconds.
    pub lifetime_ms: Histogram,
    /// Ended connections by reason, in the order of [`Reason::ALL`].
    pub closed_by: [u64; Reason::ALL.len()],
}

const WORDS: usize = size_of::<ShardLedger>() / 8;
/// Positions of fields, in words.
const CLOSED: usize = offset_of!(ShardLedger, closed) / 8;
const TURN_US: usize = offset_of!(ShardLedger, turn_us) / 8;
const BATCH: usize = offset_of!(ShardLedger, batch) / 8;
/// The fields from here on change only together with `closed`, or never.
const ENDINGS: usize = offset_of!(ShardLedger, submission_entries) / 8;
const _: () = assert!(ENDINGS == BATCH + size_of::<Histogram>() / 8);

fn words(ledger: &ShardLedger) -> &[u64; WORDS] {
    // SAFETY: ShardLedger is repr(C) and made of u64 only, so that it is WORDS of them.
    unsafe { &*(&raw const *ledger).cast() }
}

#[inline]
fn store(to: &[AtomicU64], from: &[u64]) {
    for (to, from) in to.iter().zip(from) {
        to.store(*from, Ordering::Relaxed);
    }
}

/// A shard's counters in a place where other threads can read them: a sequence lock whose writer
/// never waits.
#[derive(Debug)]
pub struct Published {
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Default for Published {
    fn default() -> Self {
        Self { sequence: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] }
    }
}

impl Published {
    /// Publishes all counters.
    pub(crate) fn publish(&self, ledger: &ShardLedger) {
        let from = words(ledger);
        self.write(|to| store(to, from));
    }

    /// Publishes the changes of one turn that took `turn_us` microseconds and had `batch`
    /// completions.
    ///
    /// It writes only the changed buckets of the two histograms of turns. It writes the counters of
    /// endings only if a connection has ended.
    #[inline]
    pub(crate) fn publish_turn(&self, ledger: &ShardLedger, turn_us: u64, batch: u64) {
        let from = words(ledger);
        self.write(|to| {
            let ended = to[CLOSED].load(Ordering::Relaxed) != from[CLOSED];
            store(&to[..TURN_US], &from[..TURN_US]);
            for (histogram, value) in [(TURN_US, turn_us), (BATCH, batch)] {
                for at in [Histogram::bucket(value), Histogram::BUCKETS] {
                    to[histogram + at].store(from[histogram + at], Ordering::Relaxed);
                }
            }
            if ended {
                store(&to[ENDINGS..], &from[ENDINGS..]);
            }
        });
    }

    #[inline]
    fn write(&self, stores: impl FnOnce(&[AtomicU64; WORDS])) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        stores(&self.words);
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    pub(crate) fn read(&self) -> ShardLedger {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let mut ledger = ShardLedger::default();
            // SAFETY: as in `words`; every bit pattern is a valid u64.
            let words: &mut [u64; WORDS] = unsafe { &mut *(&raw mut ledger).cast() };
            for (to, from) in words.iter_mut().zip(&self.words) {
                *to = from.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return ledger;
            }
            // The writer is almost done, unless it was interrupted.
            std::thread::yield_now();
        }
    }
}

/// The ledger of an engine: what exists, what is free and what has happened.
///
/// [`Remote::ledger`](crate::Remote::ledger) and [`Engine::join`](crate::Engine::join) return it.
/// [`balanced`](Self::balanced) checks its equations; a ledger that does not balance after `join`
/// is a bug in the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The counters of all shards, added up.
    pub sum: ShardLedger,
    /// The kernel interface that the shards use.
    pub ring: RingInUse,
    /// Permits: the places of [`Config::max_connections`](crate::Config::max_connections).
    pub permits: Pair,
    /// The free permits that accepted clients may take. The others are reserved
    /// ([`Config::outgoing_reserved`](crate::Config::outgoing_reserved)).
    pub permits_for_clients: u64,
    /// Descriptors. `total` is the soft `RLIMIT_NOFILE` of the process. `free` is what the engine
    /// leaves of it; descriptors of other parts of the process are not subtracted.
    pub descriptors: Pair,
    /// Workers that take jobs.
    pub workers: u64,
    /// Jobs that wait for a worker.
    pub jobs_queued: u64,
    /// Jobs that run.
    pub jobs_running: u64,
}

impl Ledger {
    /// The ledger of an engine whose ring is not known here.
    pub(crate) fn of<'a>(
        published: impl Iterator<Item = &'a Published>,
        admission: &Admission,
        pool: &Pool,
    ) -> Self {
        let mut sum = ShardLedger::default();
        for shard in published {
            add(&mut sum, &shard.read());
        }
        let permits = Pair { total: admission.total() as u64, free: admission.free() as u64 };
        let permits_for_clients = admission.free_for_accepted() as u64;
        let total = crate::ring::calls::descriptors_allowed().0;
        let descriptors = Pair { total, free: total.saturating_sub(sum.descriptors) };
        let (workers, jobs_queued, jobs_running) =
            (pool.workers() as u64, pool.queued(), pool.running());
        Self {
            sum,
            ring: RingInUse::default(),
            permits,
            permits_for_clients,
            descriptors,
            workers,
            jobs_queued,
            jobs_running,
        }
    }

    /// The number of open connections.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.sum.opened - self.sum.closed
    }

    /// Returns whether the counters satisfy the engine's equations:
    /// * Every client was opened or refused, or is waiting.
    /// * Every slot in use has a permit. The permits free for clients are among the free ones.
    /// * Endings by reason and jobs add up.
    /// * All receive buffers are with the kernel between two turns.
    /// * Without connections, all send buffers and pipes are free.
    ///
    /// The shards publish at different moments. The result is therefore reliable only while no
    /// connections open or close.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let sum = &self.sum;
        let in_use = sum.slots.total - sum.slots.free;
        let held = self.permits.total - self.permits.free;
        let endings: u64 = sum.closed_by.iter().sum();
        let at_rest = in_use > 0
            || (sum.send_buffers.free == sum.send_buffers.total
                && sum.pipes.free == sum.pipes.total
                && sum.opened == sum.closed);
        let refused = sum.rejected
            + sum.reset_before_accept
            + sum.banned
            + sum.over_address_limit
            + sum.over_listener_limit
            + sum.gone_while_waiting
            + sum.turned_away;
        let came = sum.accepted + sum.connected;
        let jobs = sum.jobs_done + sum.jobs_failed + sum.jobs_unclaimed + sum.jobs_under_way;
        came == sum.opened + refused + sum.waiting
            && in_use == held
            && self.permits_for_clients <= self.permits.free
            && sum.receive_buffers.free == sum.receive_buffers.total
            && endings == sum.closed
            && jobs == sum.jobs_submitted
            && sum.opened - sum.closed <= in_use
            && at_rest
    }

    /// The ledger as the JSON object that the daemon serves as `/ledger`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let sum = &self.sum;
        let pair = |pair: Pair| object(&[("total", &pair.total), ("free", &pair.free)]);
        let pipes = [
            ("total", &sum.pipes.total as &dyn Display),
            ("free", &sum.pipes.free),
            ("made", &sum.pipes_made),
        ];
        let file_cache = [
            ("open", &sum.files_cached as &dyn Display),
            ("hits", &sum.file_cache_hits),
            ("misses", &sum.file_cache_misses),
        ];
        let budget = [
            ("bytes", &sum.budget_bytes as &dyn Display),
            ("used", &sum.budget_used_bytes),
            ("pauses", &sum.budget_pauses),
        ];
        let bytes = [("received", &sum.bytes_received as &dyn Display), ("sent", &sum.bytes_sent)];
        let closed_by =
            Reason::ALL.map(|it| (it.name(), &sum.closed_by[it as usize] as &dyn Display));
        object(&[
            ("connections", &self.connections_json()),
            ("permits", &pair(self.permits)),
            ("permits_for_clients", &self.permits_for_clients),
            ("slots", &pair(sum.slots)),
            ("buffers", &pair(sum.receive_buffers)),
            ("send_buffers", &pair(sum.send_buffers)),
            ("pipes", &object(&pipes)),
            ("descriptors", &self.descriptors_json()),
            ("listeners", &self.listeners_json()),
            ("files", &sum.files),
            ("file_cache", &object(&file_cache)),
            ("operations_in_flight", &sum.operations_in_flight),
            ("bytes", &object(&bytes)),
            ("ring", &self.ring_json()),
            ("receiving", &self.receiving_json()),
            ("starved", &sum.starved),
            ("parked", &sum.parked),
            ("heap_chunks", &sum.heap_chunks),
            ("memory_budget", &object(&budget)),
            ("pipe_waits", &sum.pipe_waits),
            ("jobs", &self.jobs_json()),
            ("accept_backoffs", &sum.accept_backoffs),
            ("handler_panics", &sum.handler_panics),
            ("broadcasts_skipped", &sum.broadcasts_skipped),
            ("cut_off", &sum.cut_off),
            ("turns", &sum.turns),
            ("turn_us", &histogram(&sum.turn_us)),
            ("batch", &histogram(&sum.batch)),
            ("lifetime_ms", &histogram(&sum.lifetime_ms)),
            ("closed_by", &object(&closed_by)),
            ("balanced", &self.balanced()),
        ])
    }

    fn connections_json(&self) -> String {
        let sum = &self.sum;
        object(&[
            ("opened", &sum.opened),
            ("closed", &sum.closed),
            ("open", &self.open()),
            ("accepted", &sum.accepted),
            ("connected", &sum.connected),
            ("waiting", &sum.waiting),
            ("rejected", &sum.rejected),
            ("reset_before_accept", &sum.reset_before_accept),
            ("connect_failed", &sum.connect_failed),
            ("reconnects", &sum.reconnects),
            ("banned", &sum.banned),
            ("over_address_limit", &sum.over_address_limit),
            ("over_listener_limit", &sum.over_listener_limit),
            ("gone_while_waiting", &sum.gone_while_waiting),
            ("turned_away", &sum.turned_away),
            ("handshakes_lost", &sum.handshakes_lost),
        ])
    }

    fn descriptors_json(&self) -> String {
        let sum = &self.sum;
        object(&[
            ("total", &self.descriptors.total),
            ("free", &self.descriptors.free),
            ("open", &sum.descriptors),
        ])
    }

    fn listeners_json(&self) -> String {
        let sum = &self.sum;
        object(&[
            ("open", &sum.listeners),
            ("filters", &sum.filters_attached),
            ("drops", &sum.listener_drops),
        ])
    }

    fn receiving_json(&self) -> String {
        let sum = &self.sum;
        object(&[
            ("streaming", &sum.streaming_now),
            ("parked", &sum.parked_now),
            ("once", &sum.once_now),
            ("starved", &sum.starved_now),
        ])
    }

    fn ring_json(&self) -> String {
        let sum = &self.sum;
        object(&[
            ("kind", &text(self.ring.kind)),
            ("reason", &text(&self.ring.reason)),
            ("enters", &sum.enters),
            ("submitted", &sum.submitted),
            ("completed", &sum.completed),
            ("overflows", &sum.overflows),
            ("stale_completions", &sum.stale_completions),
            ("submission_entries", &sum.submission_entries),
            ("completion_entries", &sum.completion_entries),
        ])
    }

    fn jobs_json(&self) -> String {
        let sum = &self.sum;
        object(&[
            ("workers", &self.workers),
            ("queued", &self.jobs_queued),
            ("running", &self.jobs_running),
            ("submitted", &sum.jobs_submitted),
            ("done", &sum.jobs_done),
            ("failed", &sum.jobs_failed),
            ("unclaimed", &sum.jobs_unclaimed),
            ("refused", &sum.jobs_refused),
            ("under_way", &sum.jobs_under_way),
        ])
    }
}

/// A JSON string of one line.
fn text(value: impl Display) -> String {
    let plain = value.to_string().replace(['"', '\\'], "'");
    format!("\"{plain}\"")
}

/// A JSON object. The values print as JSON: numbers, booleans, or other objects.
fn object(fields: &[(&str, &dyn Display)]) -> String {
    let mut text = String::from("{");
    for (name, value) in fields {
        let comma = if text.len() == 1 { "" } else { "," };
        let _ = write!(text, "{comma}\"{name}\":{value}");
    }
    text.push('}');
    text
}

fn histogram(histogram: &Histogram) -> String {
    let counts = histogram.counts.map(|count| count.to_string()).join(",");
    object(&[("counts", &format!("[{counts}]")), ("sum", &histogram.sum)])
}

fn add(sum: &mut ShardLedger, shard: &ShardLedger) {
    // SAFETY: as in `words`.
    let (to, from): (&mut [u64; WORDS], &[u64; WORDS]) =
        unsafe { (&mut *(&raw mut *sum).cast(), &*(&raw const *shard).cast()) };
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger whose counters all differ, in an order that lets no difference be negative.
    fn distinct() -> Ledger {
        let mut words = [0; WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            *word = 1_000_000 - 1_000 * at as u64;
        }
        let pair = |total| Pair { total, free: total - 2 };
        Ledger {
            sum: of_words(words),
            permits: pair(10),
            permits_for_clients: 20,
            descriptors: pair(30),
            workers: 40,
            jobs_queued: 50,
            jobs_running: 60,
            ring: RingInUse::default(),
        }
    }

    fn of_words(words: [u64; WORDS]) -> ShardLedger {
        let mut ledger = ShardLedger::default();
        // SAFETY: as in `words`; every bit pattern is a valid u64.
        unsafe { *(&raw mut ledger).cast() = words };
        ledger
    }

    #[test]
    fn every_counter_is_in_the_json() {
        let before = distinct();
        let json = before.to_json();
        for at in 0..WORDS {
            let mut changed = *words(&before.sum);
            changed[at] += 1;
            let after = Ledger { sum: of_words(changed), ..before.clone() };
            assert_ne!(after.to_json(), json, "word {at} of ShardLedger is not in the JSON");
        }
        let Ledger {
            sum: _,
            permits,
            permits_for_clients,
            descriptors,
            workers,
            jobs_queued,
            jobs_running,
            ring: _,
        } = before;
        for value in [permits_for_clients, workers, jobs_queued, jobs_running] {
            assert!(json.contains(&format!(":{value},")), "{value} is not in {json}");
        }
        for Pair { total, free } in [permits, descriptors] {
            assert!(json.contains(&format!("{{\"total\":{total},\"free\":{free}")), "{json}");
        }
    }

    #[test]
    fn what_each_turn_changes_is_what_others_read() {
        let (published, mut ledger) = (Published::default(), ShardLedger::default());
        for turn in 0..200_u64 {
            let (turn_us, batch) = (turn * turn * 7_919, turn % 5);
            ledger.turns += 1;
            ledger.bytes_sent += turn;
            ledger.send_buffers.free = batch;
            ledger.turn_us.add(turn_us);
            ledger.batch.add(batch);
            for reason in 0..(turn % 3) as usize {
                ledger.closed += 1;
                ledger.lifetime_ms.add(turn << reason);
                ledger.closed_by[reason] += 1;
            }
            published.publish_turn(&ledger, turn_us, batch);
            assert_eq!(published.read(), ledger);
        }
    }
}
