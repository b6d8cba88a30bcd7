//! The ledger: the counters of all shards, and the equations that must hold between them.

mod counters;
mod json;
mod published;

pub use counters::{Capacity, Counter, CounterValue, Histogram, ShardLedger};
pub(crate) use published::Published;

use crate::admission::Admission;
use crate::ring::RingInUse;
use crate::workers::Pool;
use counters::{words, words_mut};
use json::{Json, text};

/// The ledger of an engine: what exists, what is free and what has happened.
///
/// [`EngineHandle::ledger`](crate::EngineHandle::ledger) and [`Engine::join`](crate::Engine::join)
/// return it. [`balanced`](Self::balanced) checks its equations; a ledger that does not balance
/// after `join` is a bug in the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledger {
    /// The counters of all shards, added up.
    pub sum: ShardLedger,
    /// The kernel interface that the shards use.
    pub ring: RingInUse,
    /// Permits: the places of [`Config::max_connections`](crate::Config::max_connections).
    pub permits: Capacity,
    /// The free permits that accepted clients may take. The others are reserved
    /// ([`Config::outgoing_reserved`](crate::Config::outgoing_reserved)).
    pub permits_for_clients: u64,
    /// Descriptors. `total` is the soft `RLIMIT_NOFILE` of the process. `free` is what the engine
    /// leaves of it; descriptors of other parts of the process are not subtracted.
    pub descriptors: Capacity,
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
        let permits = Capacity { total: admission.total() as u64, free: admission.free() as u64 };
        let permits_for_clients = admission.free_for_accepted() as u64;
        let total = crate::ring::calls::descriptors_allowed().0;
        let descriptors = Capacity { total, free: total.saturating_sub(sum.descriptors) };
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
    /// * Every client was opened or refused, is waiting, or is on its way to another shard.
    /// * Every slot in use has a permit. The permits free for clients are among the free ones.
    /// * Endings by reason and jobs add up, and every hold is a job.
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
        // No differences of two shards' counters: the later one may have been read first.
        came + sum.taken_over == sum.opened + refused + sum.waiting + sum.handed_over
            && in_use == held
            && self.permits_for_clients <= self.permits.free
            && sum.receive_buffers.free == sum.receive_buffers.total
            && endings == sum.closed
            && jobs == sum.jobs_submitted
            && sum.holds_taken <= sum.jobs_submitted
            && sum.holds_dropped + sum.holds_under_way <= sum.holds_taken
            && sum.holds_dropped <= sum.jobs_failed
            && sum.holds_under_way <= sum.jobs_under_way
            && sum.opened - sum.closed <= in_use
            && at_rest
    }

    /// The ledger as the JSON object that the daemon serves as `/ledger`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = Json::beginning_with("connections");
        json.put("permits.total", self.permits.total);
        json.put("permits.free", self.permits.free);
        json.put("permits_for_clients", self.permits_for_clients);
        json.put("descriptors.total", self.descriptors.total);
        json.put("descriptors.free", self.descriptors.free);
        json.put("ring.kind", text(self.ring.kind));
        json.put("ring.reason", text(&self.ring.reason));
        json.put("jobs.workers", self.workers);
        json.put("jobs.queued", self.jobs_queued);
        json.put("jobs.running", self.jobs_running);
        self.sum.add_to(&mut json);
        json.insert("connections", 2, ("open", self.open()));
        json.put("balanced", self.balanced());
        json.into_text()
    }
}

fn add(sum: &mut ShardLedger, shard: &ShardLedger) {
    for (to, from) in words_mut(sum).iter_mut().zip(words(shard)) {
        *to += from;
    }
}

#[cfg(test)]
mod tests {
    use super::counters::WORDS;
    use super::*;

    /// A ledger whose counters all differ, in an order that lets no difference be negative.
    fn distinct() -> Ledger {
        let mut words = [0; WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            *word = 1_000_000 - 1_000 * at as u64;
        }
        let pair = |total| Capacity { total, free: total - 2 };
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
        *words_mut(&mut ledger) = words;
        ledger
    }

    /// The shards publish at different moments, so a client may be taken over before it was handed
    /// over.
    #[test]
    fn a_client_that_seems_to_arrive_early_is_no_overflow() {
        let mut ledger = Ledger::default();
        assert!(ledger.balanced());
        ledger.sum.taken_over = 1;
        assert!(!ledger.balanced());
        ledger.sum.handed_over = 1;
        assert!(ledger.balanced());
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
        for Capacity { total, free } in [permits, descriptors] {
            assert!(json.contains(&format!("{{\"total\":{total},\"free\":{free}")), "{json}");
        }
    }
}
