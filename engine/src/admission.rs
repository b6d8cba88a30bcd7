//! Permits: how many connections may be open over all shards.
//!
//! A permit is taken with a descriptor in hand and given back as the very last step of a
//! connection. A shard that holds descriptors without permits says so, and is woken in turn when
//! one comes back.

use crate::mailbox::Waker;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The permits of an engine and the shards that wait for one.
pub struct Admission {
    total: usize,
    free: AtomicUsize,
    waiting: Vec<AtomicBool>,
    waiting_count: AtomicUsize,
    turn: AtomicUsize,
    wakers: OnceLock<Vec<Waker>>,
}

impl Admission {
    pub fn new(total: usize, shards: usize) -> Self {
        Self {
            total,
            free: AtomicUsize::new(total),
            waiting: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            waiting_count: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            wakers: OnceLock::new(),
        }
    }

    /// Tells how shards are woken, once.
    pub fn set_wakers(&self, wakers: Vec<Waker>) {
        assert!(self.wakers.set(wakers).is_ok(), "the wakers are set once");
    }

    /// Takes a permit if one is free.
    pub fn try_take(&self) -> bool {
        self.free
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1))
            .is_ok()
    }

    /// Gives a permit back, and wakes a shard that waits for one.
    pub fn give_back(&self) {
        let before = self.free.fetch_add(1, Ordering::SeqCst);
        assert!(before < self.total, "more permits came back than were taken");
        if self.waiting_count.load(Ordering::SeqCst) > 0 {
            self.wake_one();
        }
    }

    /// Says whether `shard` waits for a permit. After saying so it must try once more: a permit
    /// may have come back in between.
    pub fn set_waiting(&self, shard: usize, waits: bool) {
        if self.waiting[shard].swap(waits, Ordering::SeqCst) != waits {
            if waits {
                self.waiting_count.fetch_add(1, Ordering::SeqCst);
            } else if self.waiting_count.fetch_sub(1, Ordering::SeqCst) > 1 && self.free() > 0 {
                // A wake may just have been spent on this shard, which needs it no more.
                self.wake_one();
            }
        }
    }

    /// Permits in all.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Permits that nobody holds.
    pub fn free(&self) -> usize {
        self.free.load(Ordering::SeqCst)
    }

    fn wake_one(&self) {
        let Some(wakers) = self.wakers.get() else { return };
        for _ in 0..self.waiting.len() {
            let shard = self.turn.fetch_add(1, Ordering::Relaxed) % self.waiting.len();
            if self.waiting[shard].load(Ordering::SeqCst) {
                wakers[shard].wake();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_conserved() {
        let admission = Admission::new(2, 1);
        assert!(admission.try_take() && admission.try_take());
        assert!(!admission.try_take());
        admission.give_back();
        assert_eq!(admission.free(), 1);
        assert!(admission.try_take());
    }

    #[test]
    #[should_panic(expected = "more permits came back")]
    fn a_permit_given_back_twice_is_noticed() {
        Admission::new(1, 1).give_back();
    }
}
