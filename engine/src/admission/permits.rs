//! Permits over all shards, without a lock.
//!
//! A permit that comes back while a shard waits is handed to that shard and never becomes free in
//! between. Other shards and new clients therefore cannot take it, and waiting shards are served in
//! turn. (A shard that begins to wait at the same moment may still lose it to another one.) The
//! interleavings are checked with loom (`tests/loom.rs`).
//!
//! A part of the permits may be reserved for outgoing connections. The others are the share of
//! accepted connections. An accepted connection needs a permit and a place in this share; an
//! outgoing one needs only a permit. Shards wait for accepted clients only.
//!
//! Both counts are halves of one word, so that both are taken in one step. A permit of an outgoing
//! connection is handed to a waiting shard only together with a place. A place is taken for that
//! only while a shard waits, because new clients miss it for a moment.
//!
//! Invariant: while fewer outgoing connections than reserved permits exist, a connect finds a
//! permit. An outgoing connection that goes after its client can leave the next client's connect
//! without one. A proxy therefore ends the outgoing connection first.
//!
//! Hazard: a shard may begin to wait at the moment when a permit comes back. Each side looks once
//! more after a full fence; loom finds the deadlock as soon as either fence is removed.

use crate::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};

/// The shard needs no permit.
const CONTENT: u8 = 0;
/// The shard has a client that needs a permit. Set by the shard itself.
const WAITING: u8 = 1;
/// The shard was handed a permit. Set by the thread that gave it back, cleared by the shard.
const GRANTED: u8 = 2;

/// One free permit, and one place in the share of accepted connections, in [`Permits::free`].
const PERMIT: u64 = 1;
const PLACE: u64 = 1 << 32;

/// The kind of connection that a permit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Accepted,
    Outgoing,
}

impl Holder {
    /// The amount of [`Permits::free`] that such a connection takes.
    const fn needs(self) -> u64 {
        match self {
            Self::Accepted => PERMIT + PLACE,
            Self::Outgoing => PERMIT,
        }
    }
}

/// The number of connections that may open, and the shards that wait for one to end.
pub struct Permits {
    total: usize,
    reserved: usize,
    /// Free permits in the lower half, free places of accepted connections in the upper half. They
    /// are one word because an accepted connection takes both at once.
    free: AtomicU64,
    /// By shard: `CONTENT`, `WAITING` or `GRANTED`.
    standings: Box<[AtomicU8]>,
    /// The shard to serve next.
    turn: AtomicUsize,
}

impl Permits {
    /// `reserved` of the permits are for outgoing connections only.
    pub fn new(total: usize, reserved: usize, shards: usize) -> Self {
        assert!(reserved <= total, "no more are reserved than there are");
        let share = (total - reserved) as u64;
        Self {
            total,
            reserved,
            free: AtomicU64::new(total as u64 * PERMIT + share * PLACE),
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
        let (permits, _) = halves(self.free.load(Ordering::Acquire));
        // A permit on its way from one count to the other may be seen twice.
        (permits as usize + self.granted()).min(self.total)
    }

    /// The part of [`free`](Self::free) that accepted connections may take.
    pub fn free_for_accepted(&self) -> usize {
        let (permits, places) = halves(self.free.load(Ordering::Acquire));
        (permits.min(places) as usize + self.granted()).min(self.total - self.reserved)
    }

    fn granted(&self) -> usize {
        let granted = |standing: &&AtomicU8| standing.load(Ordering::Acquire) == GRANTED;
        self.standings.iter().filter(granted).count()
    }

    /// Takes a permit if one is free for such a connection.
    pub fn try_take(&self, holder: Holder) -> bool {
        self.take(holder.needs())
    }

    fn take(&self, needs: u64) -> bool {
        let (permits, places) = halves(needs);
        let taken = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
            let (free_permits, free_places) = halves(free);
            (free_permits >= permits && free_places >= places).then(|| free - needs)
        });
        taken.is_ok()
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
        if self.try_take(Holder::Accepted) {
            return true;
        }
        standing.store(WAITING, Ordering::Release);
        // A permit may have come back between the two steps, given back by a thread that saw nobody
        // waiting. The fence here and the one in `give_back` make sure that one of the two sees the
        // other's change.
        fence(Ordering::SeqCst);
        if !self.try_take(Holder::Accepted) {
            return false;
        }
        // A second permit may have been handed over meanwhile. It is taken the next time or given
        // back.
        let _ = standing.compare_exchange(WAITING, CONTENT, Ordering::AcqRel, Ordering::Acquire);
        true
    }

    /// Ends the wait of a shard. Returns whether it was handed a permit, which it must give back
    /// as [`Holder::Accepted`].
    pub fn stop_waiting(&self, shard: usize) -> bool {
        self.standings[shard].swap(CONTENT, Ordering::AcqRel) == GRANTED
    }

    /// Gives a permit back. Returns the shard that got it, which must be woken.
    ///
    /// # Panics
    /// If more permits come back than were taken, which is a bug in the engine.
    pub fn give_back(&self, mut holder: Holder) -> Option<usize> {
        loop {
            // A place is taken only for a shard that waits: a new client would miss it meanwhile.
            if holder == Holder::Outgoing && self.somebody_waits() && self.take(PLACE) {
                holder = Holder::Accepted;
            }
            if holder == Holder::Accepted
                && let Some(shard) = self.hand_over()
            {
                return Some(shard);
            }
            let before = self.free.fetch_add(holder.needs(), Ordering::AcqRel);
            let (permits, _) = halves(before);
            assert!(permits < self.total as u64, "more permits came back than were taken");
            fence(Ordering::SeqCst);
            // A shard that began to wait in between may have looked before the permit was free.
            holder = Holder::Accepted;
            if !self.somebody_waits() || !self.try_take(holder) {
                return None;
            }
        }
    }

    /// Hands a permit with its place to the next waiting shard.
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

/// Permits and places.
const fn halves(free: u64) -> (u64, u64) {
    (free & 0xFFFF_FFFF, free >> 32)
}
