//! The counters of a shard where other threads can read them.

use super::counters::{BATCH, CLOSED, ENDINGS, TURN_US, WORDS, words, words_mut};
use super::{Histogram, ShardLedger};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A shard's counters in a place where other threads can read them: a sequence lock whose writer
/// never waits.
#[derive(Debug)]
pub(crate) struct Published {
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
            for (to, from) in words_mut(&mut ledger).iter_mut().zip(&self.words) {
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

#[inline]
fn store(to: &[AtomicU64], from: &[u64]) {
    for (to, from) in to.iter().zip(from) {
        to.store(*from, Ordering::Relaxed);
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
