//! The ledger: the counters of all shards, and the equations that must hold between them.

use crate::Reason;
use crate::admission::Admission;
use crate::workers::Pool;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// How many there are and how many of them are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// All of them.
    pub total: u64,
    /// Those not in use.
    pub free: u64,
}

/// How values are distributed: how many lie in each power of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram {
    /// Values by bucket, see [`Histogram::upper_bound`].
    pub counts: [u64; Self::BUCKETS],
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// How many buckets there are.
    pub const BUCKETS: usize = 24;

    /// The largest value that a bucket counts; `None` for the last one, which has no bound.
    #[must_use]
    pub const fn upper_bound(bucket: usize) -> Option<u64> {
        if bucket + 1 < Self::BUCKETS { Some((1 << bucket) - 1) } else { None }
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Where a value is counted.
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

/// Counters of one shard between two batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ShardLedger {
    /// Connections shown to the application.
    pub opened: u64,
    /// Connections whose end was shown to it.
    pub closed: u64,
    /// Slots made so far.
    pub slots: Pair,
    /// Receive buffers; free ones are with the kernel.
    pub receive_buffers: Pair,
    /// Send buffers.
    pub send_buffers: Pair,
    /// Pipes for files.
    pub pipes: Pair,
    /// Pipes that are open, on loan or kept for the next file: two descriptors each.
    pub pipes_made: u64,
    /// Sockets, listeners, pipe ends and files open.
    pub descriptors: u64,
    /// Files open.
    pub files: u64,
    /// Those of them that stay open for the next one who asks for them.
    pub files_cached: u64,
    /// Times a file was open already.
    pub file_cache_hits: u64,
    /// Times it was not, or was not what the path leads to any more.
    pub file_cache_misses: u64,
    /// Operations submitted whose last completion has not been seen (the wake poll left out).
    pub operations_in_flight: u64,
    /// Clients in the waiting room.
    pub waiting: u64,
    /// Connections queueing for a receive buffer.
    pub starved_now: u64,
    /// Descriptors accepted.
    pub accepted: u64,
    /// Connections that we have opened ourselves.
    pub connected: u64,
    /// Clients closed at once for want of a permit.
    pub rejected: u64,
    /// Clients that had reset before they were looked at.
    pub reset_before_accept: u64,
    /// Clients closed after accept because their address is banned.
    pub banned: u64,
    /// Clients closed after accept because their address had `max_per_address` already.
    pub over_address_limit: u64,
    /// Clients that had reset when there was a permit for them.
    pub gone_while_waiting: u64,
    /// Clients that were accepted and not served when a drain reached its deadline or the shard
    /// failed.
    pub turned_away: u64,
    /// Clients that were connected and not accepted when a listener was closed.
    pub handshakes_lost: u64,
    /// Packets that listeners have dropped while they had a filter: those of banned addresses, and
    /// those that found a full queue.
    pub listener_drops: u64,
    /// Listeners open now.
    pub listeners: u64,
    /// Listeners whose filter refuses banned addresses now.
    pub filters_attached: u64,
    /// Connects that did not come about.
    pub connect_failed: u64,
    /// Attempts to make a connection again that had failed or ended
    /// ([`Local::keep_connected`](crate::Local::keep_connected)).
    pub reconnects: u64,
    /// Pauses of accepting (EMFILE and its like).
    pub accept_backoffs: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes handed to the kernel to send.
    pub bytes_sent: u64,
    /// Times a receive found no buffer.
    pub starved: u64,
    /// Times a connection was parked for being idle.
    pub parked: u64,
    /// Pieces of output that went to the heap, for their size or for want of a send buffer.
    pub heap_chunks: u64,
    /// Completions of a life that was over. Expected: 0.
    pub stale_completions: u64,
    /// Callbacks that panicked.
    pub handler_panics: u64,
    /// Times a file waited for a pipe.
    pub pipe_waits: u64,
    /// Calls of io_uring_enter(2).
    pub enters: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Completions taken.
    pub completed: u64,
    /// Overflows of the completion queue. Expected: 0.
    pub overflows: u64,
    /// Entries of the submission queue.
    pub submission_entries: u64,
    /// Entries of the completion queue.
    pub completion_entries: u64,
    /// Connections on a multishot receive now.
    pub streaming_now: u64,
    /// Connections on one receive at a time now.
    pub once_now: u64,
    /// Connections on a probe now.
    pub parked_now: u64,
    /// Slow readers that did not get a broadcast.
    pub broadcasts_skipped: u64,
    /// Bytes that were there, unread, right after the FIN of a connection that was to finish.
    pub cut_off: u64,
    /// Jobs taken by [`Connection::offload`](crate::Connection::offload).
    pub jobs_submitted: u64,
    /// Jobs whose handler was told that they are done.
    pub jobs_done: u64,
    /// Jobs whose handler was told that they failed: they panicked, or never ran.
    pub jobs_failed: u64,
    /// Jobs that were over, or left, when nobody was there any more to be told.
    pub jobs_unclaimed: u64,
    /// Jobs not taken: no workers, no room, or a connection that is ending.
    pub jobs_refused: u64,
    /// Jobs taken and neither told of nor unclaimed.
    pub jobs_under_way: u64,
    /// Turns of the loop, each with one batch of completions.
    pub turns: u64,
    /// Microseconds a turn took, waiting left out.
    pub turn_us: Histogram,
    /// Completions of a turn.
    pub batch: Histogram,
    /// Milliseconds from `opened` to `closed`.
    pub lifetime_ms: Histogram,
    /// Endings by reason, in the order of [`Reason::ALL`].
    pub closed_by: [u64; Reason::ALL.len()],
}

const WORDS: usize = size_of::<ShardLedger>() / 8;
/// Places of fields among the words. Behind `turn_us` lie histograms and nothing else.
const CLOSED: usize = offset_of!(ShardLedger, closed) / 8;
const TURN_US: usize = offset_of!(ShardLedger, turn_us) / 8;
const BATCH: usize = offset_of!(ShardLedger, batch) / 8;
/// What changes only with `closed`.
const ENDINGS: usize = offset_of!(ShardLedger, lifetime_ms) / 8;
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

/// A shard's counters where other threads can read them: a sequence lock, written without waiting.
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
    /// Publishes everything.
    pub(crate) fn publish(&self, ledger: &ShardLedger) {
        let from = words(ledger);
        self.write(|to| store(to, from));
    }

    /// Publishes what a turn of so many microseconds with so many completions has changed since the one
    /// before: of the histograms of turns where it was counted, of those of ends nothing if there
    /// was none.
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
            // Whoever writes is almost done, unless it was interrupted.
            std::thread::yield_now();
        }
    }
}

/// The ledger of an engine at a moment between batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The shards' counters, added up.
    pub sum: ShardLedger,
    /// Permits.
    pub permits: Pair,
    /// Descriptors: the process may have `total` (the soft `RLIMIT_NOFILE`); what the engine has
    /// open, and nobody else, is not `free`.
    pub descriptors: Pair,
    /// Workers that jobs are given to.
    pub workers: u64,
    /// Jobs that wait for a worker.
    pub jobs_queued: u64,
    /// Jobs that run.
    pub jobs_running: u64,
}

impl Ledger {
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
        let total = crate::ring::calls::descriptors_allowed();
        let descriptors = Pair { total, free: total.saturating_sub(sum.descriptors) };
        let (workers, jobs_queued, jobs_running) =
            (pool.workers() as u64, pool.queued(), pool.running());
        Self { sum, permits, descriptors, workers, jobs_queued, jobs_running }
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.sum.opened - self.sum.closed
    }

    /// Whether the equations hold: whoever came was opened, refused or waits; every slot in use has
    /// its permit; endings and jobs add up; nothing is free that was never made; and with nothing
    /// open everything is back. While connections come and go the shards' snapshots are of different moments; at rest it must be true.
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
            + sum.gone_while_waiting
            + sum.turned_away;
        let came = sum.accepted + sum.connected;
        let jobs = sum.jobs_done + sum.jobs_failed + sum.jobs_unclaimed + sum.jobs_under_way;
        came == sum.opened + refused + sum.waiting
            && in_use == held
            && sum.receive_buffers.free == sum.receive_buffers.total
            && endings == sum.closed
            && jobs == sum.jobs_submitted
            && sum.opened - sum.closed <= in_use
            && at_rest
    }

    /// As the JSON object that `/ledger` serves.
    #[must_use]
    pub fn to_json(&self) -> String {
        let sum = &self.sum;
        let pair = |pair: Pair| format!("{{\"total\":{},\"free\":{}}}", pair.total, pair.free);
        let mut closed_by = String::new();
        for reason in Reason::ALL {
            let count = sum.closed_by[reason as usize];
            let comma = if closed_by.is_empty() { "" } else { "," };
            let _ = write!(closed_by, "{comma}\"{}\":{count}", reason.name());
        }
        let jobs = format!(
            "\"jobs\":{{\"workers\":{},\"queued\":{},\"running\":{},\"submitted\":{},\"done\":{},\
             \"failed\":{},\"unclaimed\":{},\"refused\":{},\"under_way\":{}}}",
            self.workers,
            self.jobs_queued,
            self.jobs_running,
            sum.jobs_submitted,
            sum.jobs_done,
            sum.jobs_failed,
            sum.jobs_unclaimed,
            sum.jobs_refused,
            sum.jobs_under_way,
        );
        format!(
            "{{\"connections\":{{\"opened\":{},\"closed\":{},\"open\":{},\"accepted\":{},\"connected\":{},\
             \"waiting\":{},\"rejected\":{},\"reset_before_accept\":{},\"connect_failed\":{},\"reconnects\":{},\
             \"banned\":{},\"over_address_limit\":{},\"gone_while_waiting\":{},\
             \"turned_away\":{},\"handshakes_lost\":{}}},\
             \"permits\":{},\"slots\":{},\"buffers\":{},\"send_buffers\":{},\
             \"pipes\":{{\"total\":{},\"free\":{},\"made\":{}}},\
             \"descriptors\":{},\"files\":{},\
             \"file_cache\":{{\"open\":{},\"hits\":{},\"misses\":{}}},\"operations_in_flight\":{},\
             \"bytes\":{{\"received\":{},\"sent\":{}}},\
             \"ring\":{{\"enters\":{},\"submitted\":{},\"completed\":{},\"overflows\":{},\
             \"stale_completions\":{}}},\"starved\":{},\"parked\":{},\"heap_chunks\":{},\
             \"pipe_waits\":{},{jobs},\"accept_backoffs\":{},\"handler_panics\":{},\
             \"closed_by\":{{{closed_by}}},\"balanced\":{}}}",
            sum.opened,
            sum.closed,
            self.open(),
            sum.accepted,
            sum.connected,
            sum.waiting,
            sum.rejected,
            sum.reset_before_accept,
            sum.connect_failed,
            sum.reconnects,
            sum.banned,
            sum.over_address_limit,
            sum.gone_while_waiting,
            sum.turned_away,
            sum.handshakes_lost,
            pair(self.permits),
            pair(sum.slots),
            pair(sum.receive_buffers),
            pair(sum.send_buffers),
            sum.pipes.total,
            sum.pipes.free,
            sum.pipes_made,
            pair(self.descriptors),
            sum.files,
            sum.files_cached,
            sum.file_cache_hits,
            sum.file_cache_misses,
            sum.operations_in_flight,
            sum.bytes_received,
            sum.bytes_sent,
            sum.enters,
            sum.submitted,
            sum.completed,
            sum.overflows,
            sum.stale_completions,
            sum.starved,
            sum.parked,
            sum.heap_chunks,
            sum.pipe_waits,
            sum.accept_backoffs,
            sum.handler_panics,
            self.balanced(),
        )
    }
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
