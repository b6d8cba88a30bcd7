//! Permits over all shards, without a lock.
//!
//! A permit that comes back while a shard waits is handed to that shard and does not become free
//! in between, so that it is not snatched away, and waiting shards are served in turn. (Where a
//! shard begins to wait at the very moment, somebody else may still get there first.) The
//! interleavings are checked with loom (tests/loom.rs).

use crate::atomic::{AtomicU8, AtomicUsize, Ordering, fence};

/// Wants nothing.
const CONTENT: u8 = 0;
/// Has somebody who needs a permit. Set by the shard itself.
const WAITING: u8 = 1;
/// Has been handed one. Set by whoever gave it back; taken by the shard itself.
const GRANTED: u8 = 2;

/// How many connections may be open, and who waits for one to end.
pub struct Permits {
    total: usize,
    free: AtomicUsize,
    /// Where each shard stands.
    standings: Box<[AtomicU8]>,
    /// The shard that is served next.
    turn: AtomicUsize,
}

impl Permits {
    pub fn new(total: usize, shards: usize) -> Self {
        Self {
            total,
            free: AtomicUsize::new(total),
            standings: (0..shards).map(|_| AtomicU8::new(CONTENT)).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Permits in all.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Permits that no connection has, those handed to a shard and not yet taken included.
    pub fn free(&self) -> usize {
        let granted = |standing: &&AtomicU8| standing.load(Ordering::Acquire) == GRANTED;
        // One on its way from the one to the other may be seen twice.
        let granted = self.standings.iter().filter(granted).count();
        (self.free.load(Ordering::Acquire) + granted).min(self.total)
    }

    /// Takes a permit if one is free.
    pub fn try_take(&self) -> bool {
        self.free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1))
            .is_ok()
    }

    /// For a shard with somebody waiting: takes a permit, or notes that it waits for one. Once
    /// noted it is woken when it has been handed one, and calls this again.
    pub fn take_or_wait(&self, shard: usize) -> bool {
        let standing = &self.standings[shard];
        match standing.load(Ordering::Acquire) {
            WAITING => return false,
            GRANTED => {
                standing.store(CONTENT, Ordering::Release);
                return true;
            }
            _ => {}
        }
        if self.try_take() {
            return true;
        }
        standing.store(WAITING, Ordering::Release);
        // One may have come back between the two: whoever gave it back saw nobody waiting. The
        // fence here and the one there: one of the two sees what the other has done.
        fence(Ordering::SeqCst);
        if !self.try_take() {
            return false;
        }
        // Handed another one meanwhile? It is taken the next time, or given back.
        let _ = standing.compare_exchange(WAITING, CONTENT, Ordering::AcqRel, Ordering::Acquire);
        true
    }

    /// For a shard with nobody waiting any more. True: it had been handed a permit, which it must
    /// give back.
    pub fn stop_waiting(&self, shard: usize) -> bool {
        self.standings[shard].swap(CONTENT, Ordering::AcqRel) == GRANTED
    }

    /// Gives a permit back. Returns the shard that it was handed to, which must be woken.
    ///
    /// # Panics
    /// If more come back than were taken: a bug in the engine.
    pub fn give_back(&self) -> Option<usize> {
        loop {
            if let Some(shard) = self.hand_over() {
                return Some(shard);
            }
            let before = self.free.fetch_add(1, Ordering::AcqRel);
            assert!(before < self.total, "more permits came back than were taken");
            fence(Ordering::SeqCst);
            // Whoever began to wait in between may have looked before it was free.
            if !self.somebody_waits() || !self.try_take() {
                return None;
            }
        }
    }

    /// Hands a permit to the next shard that waits.
    fn hand_over(&self) -> Option<usize> {
        let count = self.standings.len();
        let first = self.turn.load(Ordering::Relaxed);
        for step in 0..count {
            let shard = (first + step) % count;
            let handed = self.standings[shard].compare_exchange(
                WAITING,
                GRANTED,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if handed.is_ok() {
                self.turn.store(shard + 1, Ordering::Relaxed);
                return Some(shard);
            }
        }
        None
    }

    fn somebody_waits(&self) -> bool {
        self.standings.iter().any(|standing| standing.load(Ordering::Acquire) == WAITING)
    }
}
