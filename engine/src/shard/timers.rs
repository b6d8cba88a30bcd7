//! Deadlines: one per slot, in a hierarchical timing wheel.
//!
//! Four levels of 64 buckets, 4 ms a tick: 256 ms, 16 s, 17 min, 18 h. Arming and disarming are
//! O(1); a deadline never fires early and at most one tick late (plus the wait of the ring).

use super::u48::U48;

/// Milliseconds of one tick.
pub const TICK_MS: u64 = 4;
const LEVELS: usize = 4;
const BITS: u32 = 6;
const BUCKETS: usize = 1 << BITS;
const NONE: u32 = u32::MAX;
const UNARMED: u16 = u16::MAX;

/// Sixteen bytes of every connection.
#[derive(Clone, Copy)]
struct Node {
    next: u32,
    previous: u32,
    at_tick: U48,
    bucket: u16,
}

/// The deadlines of a shard's slots.
pub struct Timers {
    heads: [u32; LEVELS * BUCKETS],
    occupied: [u64; LEVELS],
    nodes: Vec<Node>,
    /// The tick up to which everything has fired.
    tick: u64,
    armed: usize,
}

impl Timers {
    /// A wheel that stands at `now_ms`, with room for `slots` without growing.
    pub fn new(now_ms: u64, slots: usize) -> Self {
        Self {
            heads: [NONE; LEVELS * BUCKETS],
            occupied: [0; LEVELS],
            nodes: Vec::with_capacity(slots),
            tick: now_ms / TICK_MS,
            armed: 0,
        }
    }

    /// Sets the deadline of `slot`, instead of the one it may have.
    pub fn arm(&mut self, slot: u32, at_ms: u64) {
        self.disarm(slot);
        if slot as usize >= self.nodes.len() {
            let unarmed = Node { next: NONE, previous: NONE, at_tick: U48::ZERO, bucket: UNARMED };
            self.nodes.resize(slot as usize + 1, unarmed);
        }
        // Rounded up: never early.
        let at_tick = at_ms.div_ceil(TICK_MS).max(self.tick + 1);
        self.nodes[slot as usize].at_tick = at_tick.into();
        self.link(slot);
        self.armed += 1;
    }

    /// Takes the deadline of `slot` away, if it has one.
    pub fn disarm(&mut self, slot: u32) {
        if self.nodes.get(slot as usize).is_some_and(|node| node.bucket != UNARMED) {
            self.unlink(slot);
            self.armed -= 1;
        }
    }

    /// When `slot` is due, in ms.
    pub fn at_ms(&self, slot: u32) -> Option<u64> {
        let node = self.nodes.get(slot as usize)?;
        (node.bucket != UNARMED).then_some(node.at_tick.get() * TICK_MS)
    }

    /// A time in ms before which nothing is due; `None` when nothing is armed.
    pub fn next_ms(&self) -> Option<u64> {
        let mut earliest: Option<u64> = None;
        for level in 0..LEVELS {
            let shift = BITS * level as u32;
            let position = self.tick >> shift;
            let from = (position as u32 & (BUCKETS as u32 - 1)) + 1;
            // Buckets in the order in which the hand reaches them; its own comes last.
            let turned = self.occupied[level].rotate_right(from % BUCKETS as u32);
            if turned == 0 {
                continue;
            }
            let at = (position + 1 + u64::from(turned.trailing_zeros())) << shift;
            earliest = Some(earliest.map_or(at, |e| e.min(at)));
        }
        earliest.map(|tick| tick * TICK_MS)
    }

    /// Whether a tick has passed since the last call of [`Self::expire`].
    #[inline]
    pub fn is_behind(&self, now_ms: u64) -> bool {
        self.tick < now_ms / TICK_MS
    }

    /// Moves every slot that is due at `now_ms` to the end of `due`, disarmed.
    pub fn expire(&mut self, now_ms: u64, due: &mut Vec<u32>) {
        if self.is_behind(now_ms) {
            self.advance(now_ms / TICK_MS, due);
        }
    }

    fn advance(&mut self, now_tick: u64, due: &mut Vec<u32>) {
        while self.tick < now_tick {
            if self.armed == 0 {
                self.tick = now_tick;
                return;
            }
            // Nothing on the lowest level: up to its next turn nothing can fire.
            let turn = self.tick | (BUCKETS as u64 - 1);
            if self.occupied[0] == 0 && turn > self.tick {
                self.tick = turn.min(now_tick);
                continue;
            }
            self.tick += 1;
            self.cascade();
            self.fire(due);
        }
    }

    /// Where a higher level's hand moves on, its bucket is dealt out to the levels below.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            if self.tick & ((1 << (BITS * level as u32)) - 1) != 0 {
                return;
            }
            let index = (self.tick >> (BITS * level as u32)) as usize & (BUCKETS - 1);
            self.each_of(level * BUCKETS + index, |timers, slot| timers.link(slot));
        }
    }

    fn fire(&mut self, due: &mut Vec<u32>) {
        let bucket = self.tick as usize & (BUCKETS - 1);
        self.each_of(bucket, |timers, slot| {
            if timers.nodes[slot as usize].at_tick.get() > timers.tick {
                timers.link(slot);
            } else {
                timers.armed -= 1;
                due.push(slot);
            }
        });
    }

    /// Empties a bucket, handing each slot to `f`.
    fn each_of(&mut self, bucket: usize, mut f: impl FnMut(&mut Self, u32)) {
        let mut slot = std::mem::replace(&mut self.heads[bucket], NONE);
        self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
        while slot != NONE {
            let node = &mut self.nodes[slot as usize];
            node.bucket = UNARMED;
            let next = node.next;
            f(self, slot);
            slot = next;
        }
    }

    fn link(&mut self, slot: u32) {
        let at = self.nodes[slot as usize].at_tick.get().max(self.tick);
        let distance = at - self.tick;
        let level = (0..LEVELS - 1)
            .find(|level| distance < 1 << (BITS * (*level as u32 + 1)))
            .unwrap_or(LEVELS - 1);
        let shift = BITS * level as u32;
        // Beyond the wheel's reach: into the furthest bucket, from where it is dealt out again.
        let reach = (1u64 << (BITS * LEVELS as u32)) - (1 << shift);
        let at = at.min(self.tick + reach);
        let bucket = level * BUCKETS + ((at >> shift) as usize & (BUCKETS - 1));
        let head = std::mem::replace(&mut self.heads[bucket], slot);
        if head != NONE {
            self.nodes[head as usize].previous = slot;
        }
        self.occupied[level] |= 1 << (bucket % BUCKETS);
        let node = &mut self.nodes[slot as usize];
        (node.next, node.previous, node.bucket) = (head, NONE, bucket as u16);
    }

    fn unlink(&mut self, slot: u32) {
        let Node { next, previous, bucket, .. } = self.nodes[slot as usize];
        let bucket = usize::from(bucket);
        match previous {
            NONE => self.heads[bucket] = next,
            previous => self.nodes[previous as usize].next = next,
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if self.heads[bucket] == NONE {
            self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
        }
        self.nodes[slot as usize].bucket = UNARMED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map: nothing fires early, nothing later than a tick, nothing is lost.
        #[test]
        fn fires_like_a_sorted_map(
            start in 0u64..1 << 40,
            steps in prop::collection::vec((0u32..40, 0u64..200_000, 0u64..40_000, 0u8..4), 1..120),
        ) {
            let mut now = start;
            let mut timers = Timers::new(now, 0);
            let mut expected = BTreeMap::new();
            let mut due = Vec::new();
            for (slot, after, advance, what) in steps {
                match what {
                    0 => { timers.disarm(slot); expected.remove(&slot); }
                    _ => { timers.arm(slot, now + after); expected.insert(slot, now + after); }
                }
                prop_assert_eq!(timers.next_ms().is_some(), !expected.is_empty());
                if let (Some(next), Some(first)) = (timers.next_ms(), expected.values().min()) {
                    prop_assert!(next <= (*first).max(now) + 2 * TICK_MS);
                }
                now += advance;
                timers.expire(now, &mut due);
                for slot in due.drain(..) {
                    let at = expected.remove(&slot);
                    prop_assert!(at.is_some_and(|at| at <= now), "{slot} was not due");
                }
                for (slot, at) in &expected {
                    prop_assert!(*at + 2 * TICK_MS > now, "{slot} is overdue");
                }
            }
        }
    }

    #[test]
    fn a_node_stays_small() {
        assert_eq!(size_of::<Node>(), 16);
    }

    #[test]
    fn sleeping_until_next_reaches_every_deadline() {
        let mut timers = Timers::new(1_000_003, 0);
        let ats = [1_000_004, 1_000_300, 1_020_000, 3_000_000, 90_000_000, 900_000_000];
        for (slot, at) in ats.iter().enumerate() {
            timers.arm(slot as u32, *at);
        }
        let (mut now, mut due, mut waits) = (1_000_003, Vec::new(), 0);
        while let Some(next) = timers.next_ms() {
            now = next.max(now);
            timers.expire(now, &mut due);
            waits += 1;
        }
        assert_eq!(due, (0..ats.len() as u32).collect::<Vec<_>>());
        assert!(waits < 100, "{waits} wake-ups for {} deadlines", ats.len());
    }
}
