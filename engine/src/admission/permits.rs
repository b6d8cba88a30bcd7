//! Permits over all shards, without a lock.
//!
//! A permit that comes back while a shard waits is handed to that shard and never becomes free in
//! between. Other shards and new clients therefore cannot take it, and waiting shards are served in
//! turn. (A shard that begins to wait at the same moment may still lose it to another one.) The
//! interleavings are checked with loom (`tests/loom.rs`).

use crate::atomic::{AtomicU8, AtomicUsize, Ordering, fence};

/// The shard needs no permit.
const CONTENT: u8 = 0;
/// The shard has a client that needs a permit. Set by the shard itself.
const WAITING: u8 = 1;
/// The shard was handed a permit. Set by the thread that gave it back, cleared by the shard.
const GRANTED: u8 = 2;

/// The number of connections that may open, and the shards that wait for one to end.
pub struct Permits {
    total: usize,
    free: AtomicUsize,
    /// By shard: `CONTENT`, `WAITING` or `GRANTED`.
    standings: Box<[AtomicU8]>,
    /// The shard to serve next.
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

    /// All permits.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Permits that no connection has, including those handed to a shard and not yet taken.
    pub fn free(&self) -> usize {
        let granted = |standing: &&AtomicU8| standing.load(Ordering::Acquire) == GRANTED;
        // A permit on its way from one count to the other may be seen twice.
        let granted = self.standings.iter().filter(granted).count();
        (self.free.load(Ordering::Acquire) + granted).min(self.total)
    }

    /// Takes a permit if one is free.
    pub fn try_take(&self) -> bool {
        self.free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1))
            .is_ok()
    }

    /// Takes a permit for a shard with waiting clients, or notes that the shard waits. A waiting
    /// shard is woken when it was handed a permit, and calls this again.
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
        // A permit may have come back between the two steps, given back by a thread that saw nobody
        // waiting. The fence here and the one in `give_back` make sure that one of the two sees the
        // other's change.
        fence(Ordering::SeqCst);
        if !self.try_take() {
            return false;
        }
        // A second permit may have been handed over meanwhile. It is taken the next time or given
        // back.
        let _ = standing.compare_exchange(WAITING, CONTENT, Ordering::AcqRel, Ordering::Acquire);
        true
    }

    /// Ends the wait of a shard. Returns whether it was handed a permit, which it must give back.
    pub fn stop_waiting(&self, shard: usize) -> bool {
        self.standings[shard].swap(CONTENT, Ordering::AcqRel) == GRANTED
    }

    /// Gives a permit back. Returns the shard that got it, which must be woken.
    ///
    /// # Panics
    /// If more permits come back than were taken, which is a bug in the engine.
    pub fn give_back(&self) -> Option<usize> {
        loop {
            if let Some(shard) = self.hand_over() {
                return Some(shard);
            }
            let before = self.free.fetch_add(1, Ordering::AcqRel);
            assert!(before < self.total, "more permits came back than were taken");
            fence(Ordering::SeqCst);
            // A shard that began to wait in between may have looked before the permit was free.
            if !self.somebody_waits() || !self.try_take() {
                return None;
            }
        }
    }

    /// Hands a permit to the next waiting shard.
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
