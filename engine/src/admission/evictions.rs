//! Which shard ends a connection, so that a waiting client gets its permit.
//!
//! A shard with waiting clients starts a round. Every shard answers with its [`Candidate`]. The
//! last one to answer chooses the shard whose candidate goes first. Without a lock; the
//! interleavings are checked with loom (`tests/loom.rs`).

use crate::atomic::{AtomicBool, AtomicU64, Ordering};

/// The connection that a shard can end: its oldest idle one or, if it has none, its slowest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// Idle for so many milliseconds. The oldest goes first.
    Idle(u64),
    /// Below the floor of rates, with so many bytes in its last window. It goes if no shard has an
    /// idle connection, the slowest first.
    Slow(u32),
}

impl Candidate {
    /// The candidate with the highest rank goes first. No rank is 0.
    fn rank(self) -> u64 {
        match self {
            Self::Slow(bytes) => u64::from(u32::MAX - bytes) + 1,
            Self::Idle(age_ms) => age_ms.saturating_add(1 << 33),
        }
    }
}

/// The result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The shard that ends its candidate.
    Ends(usize),
    /// No shard has a candidate.
    Nobody,
}

/// Rounds, of which one is under way at a time.
pub struct Evictions {
    /// Number of the present round in the upper half, answers that are missing in the lower half.
    round: AtomicU64,
    /// The last round that ended with [`Verdict::Nobody`].
    in_vain: AtomicU64,
    /// By shard: its answer, the rank of its candidate; 0: it has none.
    ranks: Box<[AtomicU64]>,
    /// By shard: the round of that answer.
    answered: Box<[AtomicU64]>,
    /// By shard: it is to end its candidate.
    chosen: Box<[AtomicBool]>,
    /// By shard: it has ended and answers no more.
    gone: Box<[AtomicBool]>,
}

impl Evictions {
    pub fn new(shards: usize) -> Self {
        Self {
            round: AtomicU64::new(0),
            in_vain: AtomicU64::new(0),
            ranks: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            answered: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            chosen: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            gone: (0..shards).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Starts a round if none is under way. Returns the number of the round that is under way then,
    /// and whether it was started here: all shards must be woken.
    pub fn ask(&self) -> (u64, bool) {
        let there = self.gone.iter().filter(|gone| !gone.load(Ordering::Acquire)).count() as u64;
        let started = self.round.fetch_update(Ordering::AcqRel, Ordering::Acquire, |present| {
            let (number, missing) = halves(present);
            (missing == 0).then(|| whole(number + 1, there))
        });
        match started {
            Ok(before) => (halves(before).0 + 1, true),
            Err(present) => (halves(present).0, false),
        }
    }

    /// The round that a shard has to answer, if it has not answered `answered`, the last it did.
    #[inline]
    pub fn question(&self, answered: u64) -> Option<u64> {
        let (number, missing) = halves(self.round.load(Ordering::Acquire));
        (missing > 0 && number != answered).then_some(number)
    }

    /// A shard's answer in a round. The last answer of a round gives the verdict.
    pub fn answer(
        &self,
        shard: usize,
        round: u64,
        candidate: Option<Candidate>,
    ) -> Option<Verdict> {
        self.ranks[shard].store(candidate.map_or(0, Candidate::rank), Ordering::Release);
        self.answered[shard].store(round, Ordering::Release);
        let counted = self.round.fetch_update(Ordering::AcqRel, Ordering::Acquire, |present| {
            let (number, missing) = halves(present);
            // The round may have been concluded meanwhile.
            (number == round && missing > 0).then(|| whole(number, missing - 1))
        });
        counted.is_ok_and(|before| halves(before).1 == 1).then(|| self.verdict(round))
    }

    /// Ends a round with the answers that have come: a shard hangs, or has ended in the middle.
    /// Returns `None` if the round is over.
    pub fn conclude(&self, round: u64) -> Option<Verdict> {
        let concluded = self.round.fetch_update(Ordering::AcqRel, Ordering::Acquire, |present| {
            let (number, missing) = halves(present);
            (number == round && missing > 0).then(|| whole(number, 0))
        });
        concluded.is_ok().then(|| self.verdict(round))
    }

    fn verdict(&self, round: u64) -> Verdict {
        let first = (0..self.ranks.len())
            .filter(|shard| self.answered[*shard].load(Ordering::Acquire) == round)
            .map(|shard| (self.ranks[shard].load(Ordering::Acquire), shard))
            .filter(|(rank, shard)| *rank > 0 && !self.gone[*shard].load(Ordering::Acquire))
            .max();
        match first {
            Some((_, shard)) => {
                self.chosen[shard].store(true, Ordering::Release);
                Verdict::Ends(shard)
            }
            None => {
                self.in_vain.store(round, Ordering::Release);
                Verdict::Nobody
            }
        }
    }

    /// Returns whether a shard is to end its candidate, and clears that.
    pub fn take_choice(&self, shard: usize) -> bool {
        let chosen = &self.chosen[shard];
        chosen.load(Ordering::Relaxed) && chosen.swap(false, Ordering::AcqRel)
    }

    /// Returns whether this round is the last that found nobody. A later one in vain says nothing
    /// about it: the permit that this round made may still be on its way.
    pub fn was_in_vain(&self, round: u64) -> bool {
        self.in_vain.load(Ordering::Acquire) == round
    }

    /// A shard answers no more.
    pub fn leave(&self, shard: usize) {
        self.gone[shard].store(true, Ordering::Release);
    }
}

const fn halves(round: u64) -> (u64, u64) {
    (round >> 32, round & 0xFFFF_FFFF)
}

const fn whole(number: u64, missing: u64) -> u64 {
    number << 32 | missing
}
