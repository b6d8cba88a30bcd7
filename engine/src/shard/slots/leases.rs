//! Generations that no other engine of the process gives out.
//!
//! A shard leases ranges of generations. All slots of the shard share its leases: the n-th range of
//! a slot is the n-th lease. A shard therefore takes another lease only when one of its slots has
//! used a whole range.

use crate::id::GENERATION_MAX;
use std::sync::atomic::{AtomicU32, Ordering};

/// The generations of a lease.
const GENERATIONS: u64 = 1 << 16;
/// The leases that exist for each shard number.
const LEASES_MAX: u32 = ((GENERATION_MAX + 1) / GENERATIONS) as u32;
const SHARDS_MAX: usize = 256;

/// The leases taken in this process, by the number of the shard.
static TAKEN: [AtomicU32; SHARDS_MAX] = [const { AtomicU32::new(0) }; SHARDS_MAX];

/// The leases of one shard, in the order in which it took them.
pub struct Leases {
    shard: usize,
    mine: Vec<u32>,
}

impl Leases {
    /// The leases of a new shard of this number. Beyond the last lease the process begins again.
    pub fn new(shard: usize) -> Self {
        Self { shard, mine: vec![take(shard) % LEASES_MAX] }
    }

    /// The generation of a slot's first life.
    pub fn first(&self) -> u64 {
        u64::from(self.mine[0]) * GENERATIONS
    }

    /// The generation of the life that follows `generation`. `None` if there is no further lease.
    pub fn after(&mut self, generation: u64) -> Option<u64> {
        let next = generation + 1;
        if next.is_multiple_of(GENERATIONS) { self.next_range(generation) } else { Some(next) }
    }

    #[cold]
    fn next_range(&mut self, generation: u64) -> Option<u64> {
        let lease = (generation / GENERATIONS) as u32;
        let at = self.mine.iter().position(|it| *it == lease)? + 1;
        if at == self.mine.len() {
            self.mine.push(Some(take(self.shard)).filter(|lease| *lease < LEASES_MAX)?);
        }
        Some(u64::from(self.mine[at]) * GENERATIONS)
    }
}

fn take(shard: usize) -> u32 {
    TAKEN[shard].fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_shards_of_a_process_give_out_the_same_generation() {
        // No other test has a shard of this number.
        const SHARD: usize = SHARDS_MAX - 1;
        let mut shards: Vec<Leases> = (0..10_000).map(|_| Leases::new(SHARD)).collect();
        let firsts: HashSet<u64> = shards.iter().map(Leases::first).collect();
        assert_eq!(firsts.len(), 10_000);
        // A slot of the first shard uses up its range: it goes on where nobody is.
        let first = shards[0].first();
        let mut seen = HashSet::new();
        let mut generation = first;
        for _ in 0..3 * GENERATIONS {
            assert!(seen.insert(generation) && generation <= GENERATION_MAX);
            generation = shards[0].after(generation).expect("there are more leases");
        }
        assert!(firsts.iter().all(|it| *it == first || !seen.contains(it)));
        // Another slot of the same shard has the same generations, and no lease of its own.
        let last = first + GENERATIONS - 1;
        assert!(seen.contains(&shards[0].after(last).expect("it is there already")));
        assert_eq!(shards[0].mine.len(), 4);
        // Without a lease the slot ends its last life.
        TAKEN[SHARD].store(LEASES_MAX, Ordering::Relaxed);
        let last = shards[1].first() + GENERATIONS - 1;
        assert_eq!(shards[1].after(last), None);
        TAKEN[SHARD].store(0, Ordering::Relaxed);
    }
}
