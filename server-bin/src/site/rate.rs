//! Limits on requests by address, over all shards.
//!
//! A limit lets requests pass at its rate, and `burst` of them at once: the generic cell rate
//! algorithm, which keeps one time for each address. Addresses are remembered up to a limit. The
//! one that was seen least recently leaves; it then has its whole burst again.

use super::spec::Rate;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Addresses that are remembered at most, for all rules together.
pub const ENTRIES_MAX: usize = 64 << 10;
/// Time that a full burst takes to come back, at most.
const BURST_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Parts of the table with a lock each, because all shards use it.
const SEGMENTS: usize = 64;
const SEGMENT_ENTRIES_MAX: usize = ENTRIES_MAX / SEGMENTS;
/// Chains of a segment, by hash.
const CHAINS: usize = SEGMENT_ENTRIES_MAX;

/// No entry.
const NONE: u16 = u16::MAX;

const _: () = assert!(SEGMENT_ENTRIES_MAX < NONE as usize);
const _: () = assert!(SEGMENTS.is_power_of_two() && CHAINS.is_power_of_two());

/// A limit of a rule, checked and prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The time between two requests at the rate.
    interval_ns: u64,
    /// The time by which requests may be early.
    tolerance_ns: u64,
}

impl Limit {
    /// Reads the settings of a rule.
    ///
    /// # Errors
    /// The reason why they are no limit.
    pub fn new(rate: &Rate) -> Result<Self, &'static str> {
        if rate.requests == 0 || rate.burst == 0 {
            return Err("it lets no request pass; use `deny`");
        }
        let interval_ns = rate.per.as_nanos() / u128::from(rate.requests);
        if interval_ns == 0 {
            return Err("it is more than a request in a nanosecond");
        }
        if interval_ns * u128::from(rate.burst) > BURST_TIME_MAX.as_nanos() {
            return Err("a burst takes longer than a week to come back");
        }
        // Both are shorter than a week.
        let interval_ns = interval_ns as u64;
        Ok(Self { interval_ns, tolerance_ns: interval_ns * u64::from(rate.burst - 1) })
    }
}

/// The addresses that were seen, for all rules and shards.
#[derive(Debug)]
pub struct Rates {
    segments: Box<[Mutex<Segment>]>,
    /// Nobody else can find addresses that share a chain.
    keys: RandomState,
}

impl Default for Rates {
    fn default() -> Self {
        let segments = (0..SEGMENTS).map(|_| Mutex::new(Segment::new())).collect();
        Self { segments, keys: RandomState::new() }
    }
}

impl Rates {
    /// Counts a request under the limit of a rule. `rule` is the same for all requests under the
    /// rule and no others. `now` is the time of one monotonic clock of all shards.
    ///
    /// # Errors
    /// The limit is reached. The value of Retry-After: seconds, at least 1.
    pub fn take(
        &self,
        rule: u32,
        limit: &Limit,
        address: Option<IpAddr>,
        now: Duration,
    ) -> Result<(), u64> {
        let key = Key::new(rule, address);
        let hash = self.keys.hash_one(key);
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let mut segment = self.segment(hash);
        let now_ns = now_ns.max(segment.now_ns);
        segment.now_ns = now_ns;
        let due_ns = segment.due_ns(key, hash);
        let early_ns = due_ns.saturating_sub(now_ns);
        if early_ns > limit.tolerance_ns {
            let wait_ns = early_ns - limit.tolerance_ns;
            return Err(wait_ns.div_ceil(1_000_000_000));
        }
        *due_ns = now_ns.max(*due_ns).saturating_add(limit.interval_ns);
        Ok(())
    }

    fn segment(&self, hash: u64) -> MutexGuard<'_, Segment> {
        let segment = &self.segments[(hash >> 32) as usize % SEGMENTS];
        // A panic cannot leave a segment half changed.
        segment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    rule: u32,
    family: Family,
    /// The IPv4 address, or the first half of the IPv6 address: a customer has a /64.
    prefix: u64,
}

impl Key {
    fn new(rule: u32, address: Option<IpAddr>) -> Self {
        let (family, prefix) = match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(v4)) => (Family::V4, u32::from(v4).into()),
            Some(IpAddr::V6(v6)) => (Family::V6, (u128::from(v6) >> 64) as u64),
            None => (Family::None, 0),
        };
        Self { rule, family, prefix }
    }
}

/// The kind of an address. All clients without one are counted as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Family {
    V4,
    V6,
    None,
}

/// A part of the table: a hash table with chains, whose entries are also in a list by the time they
/// were seen. It allocates only while it grows.
#[derive(Debug)]
struct Segment {
    entries: Vec<Entry>,
    /// The first entry of each chain.
    chains: Box<[u16; CHAINS]>,
    newest: u16,
    oldest: u16,
    /// The latest time that a shard has brought. The clocks of shards differ a little, and the time
    /// must not go back.
    now_ns: u64,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    /// The next request comes at this time if all keep to the rate; from the clock's start.
    due_ns: u64,
    chain: u16,
    chain_next: u16,
    newer: u16,
    older: u16,
}

impl Segment {
    fn new() -> Self {
        let chains = Box::new([NONE; CHAINS]);
        Self { entries: Vec::new(), chains, newest: NONE, oldest: NONE, now_ns: 0 }
    }

    /// The time in the entry of a key, which becomes the newest one; 0 for a new entry.
    fn due_ns(&mut self, key: Key, hash: u64) -> &mut u64 {
        let chain = (hash as usize % CHAINS) as u16;
        let found = match self.find(key, chain) {
            Some(found) => {
                self.leave_list(found);
                found
            }
            None => self.insert(key, chain),
        };
        self.enter_list(found);
        &mut self.entries[usize::from(found)].due_ns
    }

    fn find(&self, key: Key, chain: u16) -> Option<u16> {
        let mut at = self.chains[usize::from(chain)];
        while at != NONE {
            let entry = &self.entries[usize::from(at)];
            if entry.key == key {
                return Some(at);
            }
            at = entry.chain_next;
        }
        None
    }

    /// Makes an entry, in place of the oldest one if there are enough.
    fn insert(&mut self, key: Key, chain: u16) -> u16 {
        let chain_next = self.chains[usize::from(chain)];
        let mut entry = Entry { key, due_ns: 0, chain, chain_next, newer: NONE, older: NONE };
        let at = if self.entries.len() < SEGMENT_ENTRIES_MAX {
            self.entries.push(entry);
            (self.entries.len() - 1) as u16
        } else {
            let oldest = self.oldest;
            self.leave_list(oldest);
            self.leave_chain(oldest);
            // The oldest one may have been the first of the same chain.
            entry.chain_next = self.chains[usize::from(chain)];
            self.entries[usize::from(oldest)] = entry;
            oldest
        };
        self.chains[usize::from(chain)] = at;
        at
    }

    fn leave_chain(&mut self, leaving: u16) {
        let Entry { chain, chain_next, .. } = self.entries[usize::from(leaving)];
        let mut at = self.chains[usize::from(chain)];
        if at == leaving {
            self.chains[usize::from(chain)] = chain_next;
            return;
        }
        while self.entries[usize::from(at)].chain_next != leaving {
            at = self.entries[usize::from(at)].chain_next;
        }
        self.entries[usize::from(at)].chain_next = chain_next;
    }

    fn leave_list(&mut self, leaving: u16) {
        let Entry { newer, older, .. } = self.entries[usize::from(leaving)];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[usize::from(newer)].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[usize::from(older)].newer = newer,
        }
    }

    fn enter_list(&mut self, entering: u16) {
        let older = std::mem::replace(&mut self.newest, entering);
        let entry = &mut self.entries[usize::from(entering)];
        (entry.newer, entry.older) = (NONE, older);
        match older {
            NONE => self.oldest = entering,
            older => self.entries[usize::from(older)].newer = entering,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    const ONE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

    fn limit(requests: u32, per_s: u64, burst: u32) -> Limit {
        let per = Duration::from_secs(per_s);
        Limit::new(&Rate { requests, per, burst }).unwrap()
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn entries(rates: &Rates) -> usize {
        rates.segments.iter().map(|segment| segment.lock().unwrap().entries.len()).sum()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (rates, limit) = (Rates::default(), limit(2, 1, 3));
        let take = |now| rates.take(0, &limit, ONE, now);
        for _ in 0..3 {
            assert_eq!(take(at(10_000)), Ok(()));
        }
        assert_eq!(take(at(10_000)), Err(1));
        assert_eq!(take(at(10_499)), Err(1), "refused requests do not count");
        assert_eq!(take(at(10_500)), Ok(()));
        assert_eq!(take(at(10_500)), Err(1));
        for _ in 0..3 {
            assert_eq!(take(at(60_000)), Ok(()), "time does not add up to more than the burst");
        }
        assert_eq!(take(at(60_000)), Err(1));
    }

    #[test]
    fn retry_after_is_the_time_until_a_request_passes() {
        let (rates, limit) = (Rates::default(), limit(1, 60, 2));
        let take = |now| rates.take(0, &limit, ONE, now);
        assert_eq!((take(at(0)), take(at(0))), (Ok(()), Ok(())));
        assert_eq!(take(at(0)), Err(60));
        assert_eq!(take(at(58_001)), Err(2));
        assert_eq!(take(at(59_999)), Err(1));
        assert_eq!(take(at(60_000)), Ok(()));
    }

    #[test]
    fn addresses_and_rules_are_counted_apart() {
        let (rates, limit) = (Rates::default(), limit(1, 60, 1));
        let take = |rule, address: &str| rates.take(rule, &limit, address.parse().ok(), at(0));
        assert!(take(0, "192.0.2.1").is_ok());
        assert!(take(0, "192.0.2.2").is_ok() && take(1, "192.0.2.1").is_ok());
        assert!(take(0, "::ffff:192.0.2.1").is_err(), "it is the IPv4 address");
        assert!(take(0, "2001:db8::1").is_ok());
        assert!(take(0, "2001:db8::ffff:0:0:2").is_err(), "the same /64");
        assert!(take(0, "2001:db8:0:1::1").is_ok());
        assert!(take(0, "0:0:c000:203::").is_ok());
        assert!(take(0, "192.0.2.3").is_ok(), "the digits of an IPv6 prefix are no IPv4 address");
        // Clients without an address are one client.
        assert!(take(0, "").is_ok() && take(0, "").is_err() && take(1, "").is_ok());
        assert!(take(0, "0.0.0.0").is_ok() && take(0, "::").is_ok());
    }

    #[test]
    fn all_shards_share_a_limit() {
        let (rates, limit) = (Rates::default(), limit(1000, 1, 50));
        let passed = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for ms in 0..=1000 {
                        for _ in 0..4 {
                            let is_passed = rates.take(7, &limit, ONE, at(ms)).is_ok();
                            passed.fetch_add(u64::from(is_passed), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // One thread may be at its end while others are at the start: the clock then runs once.
        assert_eq!(passed.into_inner(), 1050);
    }

    #[test]
    fn the_least_recently_seen_address_leaves() {
        let (rates, limit) = (Rates::default(), limit(1, 3600, 1));
        let address = |n: u32| Some(IpAddr::V6(Ipv6Addr::from(u128::from(n) << 64)));
        let (kept, forgotten) = (address(1 << 31), address(1 << 30));
        let seen = |address| rates.take(0, &limit, address, at(0)).is_err();
        assert!(!seen(kept) && !seen(forgotten));
        for n in 0..4 * ENTRIES_MAX as u32 {
            assert!(!seen(address(n)), "each address is new");
            if n % 64 == 0 {
                assert!(seen(kept), "it is seen all the time");
            }
        }
        assert_eq!(entries(&rates), ENTRIES_MAX);
        assert!(!seen(forgotten));
        for segment in &rates.segments {
            let segment = segment.lock().unwrap();
            assert_eq!(segment.entries.capacity(), SEGMENT_ENTRIES_MAX);
            let chained: usize = segment.chains.iter().map(|&first| chain(&segment, first)).sum();
            assert_eq!(chained, SEGMENT_ENTRIES_MAX, "each entry is in one chain");
        }
    }

    fn chain(segment: &Segment, first: u16) -> usize {
        let next = |&at: &u16| Some(segment.entries[usize::from(at)].chain_next);
        let links = std::iter::successors(Some(first).filter(|at| *at != NONE), |at| {
            next(at).filter(|at| *at != NONE)
        });
        links.count()
    }

    #[test]
    fn settings_that_are_no_limit() {
        let second = Duration::from_secs(1);
        for (requests, per, burst, reason) in [
            (0, second, 1, "no request"),
            (1, second, 0, "no request"),
            (1, Duration::ZERO, 1, "nanosecond"),
            (u32::MAX, Duration::from_nanos(7), 1, "nanosecond"),
            (1, Duration::from_secs(3600), 1000, "week"),
            (1, Duration::MAX, u32::MAX, "week"),
        ] {
            let error = Limit::new(&Rate { requests, per, burst }).unwrap_err();
            assert!(error.contains(reason), "{requests}/{per:?}, {burst}: {error}");
        }
    }
}
