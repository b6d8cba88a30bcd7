//! The connections of a shard that are kept up, by tag.

use crate::ConnectionId;
use crate::connect::Connect;
use std::collections::{BTreeMap, BTreeSet};

/// The stage that a link has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing is under way until then.
    Waits { at_ms: u64 },
    /// Among the connects asked for.
    Asked,
    /// It has a slot: it connects, is open or is ending.
    Lives(ConnectionId),
}

/// A connection that is kept up.
pub(super) struct Link {
    pub(super) connect: Connect,
    pub(super) first_ms: u64,
    pub(super) most_ms: u64,
    pub(super) attempts_max: Option<u32>,
    pub(super) stage: Stage,
    /// Attempts in a row without success.
    pub(super) failures: u32,
    /// The present or last wait, before the random part is subtracted. A connection that lasts for
    /// this time is a success.
    pub(super) wait_ms: u64,
}

/// The links of a shard, by tag.
pub struct Links {
    pub(super) links: BTreeMap<u64, Link>,
    /// The ends of the waits, with the tags.
    pub(super) waiting: BTreeSet<(u64, u64)>,
    pub(super) most: usize,
    pub(super) random: u64,
}

impl Links {
    pub fn new(most: usize, shard: usize, now_ms: u64) -> Self {
        let random = now_ms ^ (shard as u64) << 56;
        Self { links: BTreeMap::new(), waiting: BTreeSet::new(), most, random }
    }

    /// The time of the next attempt.
    pub fn next_ms(&self) -> Option<u64> {
        self.waiting.first().map(|(at_ms, _)| *at_ms)
    }

    /// A drain: there are no further attempts.
    pub fn end(&mut self) {
        if !self.waiting.is_empty() {
            mark!("a drain while a link waits");
        }
        self.links.clear();
        self.waiting.clear();
    }

    /// An attempt has a slot now.
    pub fn lives(&mut self, tag: u64, id: ConnectionId) {
        match self.links.get_mut(&tag) {
            Some(link) if link.stage == Stage::Asked => link.stage = Stage::Lives(id),
            // A drain has ended it.
            _ => {}
        }
    }

    /// One more failure, unless `lasted`; then the wait for the next attempt, if there is one.
    pub(super) fn wait(&mut self, tag: u64, lasted: bool, now_ms: u64) {
        let link = self.links.get_mut(&tag).expect("who waits is known");
        link.failures = if lasted { 0 } else { link.failures.saturating_add(1) };
        if link.attempts_max.is_some_and(|most| link.failures >= most) {
            mark!("attempts are used up");
            self.links.remove(&tag);
            return;
        }
        let doubled = 1 << link.failures.saturating_sub(1).min(40);
        link.wait_ms = link.first_ms.saturating_mul(doubled).min(link.most_ms);
        if bug!("reconnect-no-backoff") {
            link.wait_ms = link.first_ms;
        }
        let half_ms = link.wait_ms.div_ceil(2);
        let span_ms = link.wait_ms - half_ms + 1;
        // Shards that began in the same moment go apart with the times of their draws.
        let random = next_random(&mut self.random, now_ms);
        let at_ms = now_ms + half_ms + ((u128::from(random) * u128::from(span_ms)) >> 64) as u64;
        link.stage = Stage::Waits { at_ms };
        if !(bug!("reconnect-forgotten") && link.failures >= 2) {
            self.waiting.insert((at_ms, tag));
        }
    }
}

/// splitmix64, with the time mixed in.
fn next_random(state: &mut u64, now_ms: u64) -> u64 {
    *state = (*state ^ now_ms.rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
