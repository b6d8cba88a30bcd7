//! The counters of a site: requests by method and status, their duration, and bytes.
//!
//! Each shard has its own, so that no two write to the same cache line. They stay when the settings
//! of the site change at a reload.

use crate::http::head::Method;
use crate::http::status::Status;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The names of methods in metrics. All others are `other`, because a label never comes from a
/// request.
pub const METHODS: [&str; 4] = ["GET", "HEAD", "OPTIONS", "other"];

/// The upper bounds of the durations, in microseconds. A last bucket has the longer ones.
pub const BOUNDS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
    10_000_000,
];

/// The counters of a site.
#[derive(Debug)]
pub struct Counters {
    /// By shard. A shard without a request takes no memory.
    shards: Box<[OnceLock<Box<OfShard>>]>,
}

#[derive(Debug)]
struct OfShard {
    replies: [[AtomicU64; Status::ALL.len()]; METHODS.len()],
    durations: [AtomicU64; BOUNDS_US.len() + 1],
    duration_us: AtomicU64,
    bytes: AtomicU64,
}

/// The sums over all shards at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Replies by method and status, without zeros.
    pub replies: Vec<(&'static str, u16, u64)>,
    /// Replies by duration, not cumulated.
    pub durations: [u64; BOUNDS_US.len() + 1],
    /// The sum of all durations in microseconds.
    pub duration_us: u64,
    /// The bytes of all contents that were queued.
    pub bytes: u64,
}

impl Counters {
    /// Counters for so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { shards: (0..shards).map(|_| OnceLock::new()).collect() }
    }

    /// Counts a reply of a shard.
    pub fn count(
        &self,
        shard: usize,
        method: Method,
        status: Status,
        duration: Duration,
        bytes: u64,
    ) {
        let Some(counters) = self.shards.get(shard) else { return };
        let counters = counters.get_or_init(|| Box::new(OfShard::new()));
        let duration_us = duration.as_micros() as u64;
        let bucket = BOUNDS_US.partition_point(|bound| *bound < duration_us);
        add(&counters.replies[index_of(method)][status as usize], 1);
        add(&counters.durations[bucket], 1);
        add(&counters.duration_us, duration_us);
        add(&counters.bytes, bytes);
    }

    /// Counts the reply to a request whose head could not be read. It has no method and no
    /// duration.
    pub fn count_unread(&self, shard: usize, status: Status, bytes: u64) {
        let Some(counters) = self.shards.get(shard) else { return };
        let counters = counters.get_or_init(|| Box::new(OfShard::new()));
        add(&counters.replies[index_of(Method::Unknown)][status as usize], 1);
        add(&counters.bytes, bytes);
    }

    /// The sums over all shards.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let shards: Vec<&OfShard> =
            self.shards.iter().filter_map(|shard| shard.get().map(|shard| &**shard)).collect();
        let sum = |of: &dyn Fn(&OfShard) -> u64| shards.iter().map(|shard| of(shard)).sum::<u64>();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut sums = Sums {
            duration_us: sum(&|shard| load(&shard.duration_us)),
            bytes: sum(&|shard| load(&shard.bytes)),
            ..Sums::default()
        };
        for (at, total) in sums.durations.iter_mut().enumerate() {
            *total = sum(&|shard| load(&shard.durations[at]));
        }
        for (at, method) in METHODS.into_iter().enumerate() {
            for status in Status::ALL {
                let replies = sum(&|shard| load(&shard.replies[at][status as usize]));
                // Two statuses may have the same number.
                match sums.replies.last_mut() {
                    _ if replies == 0 => {}
                    Some((last, code, count)) if *last == method && *code == status.code() => {
                        *count += replies;
                    }
                    _ => sums.replies.push((method, status.code(), replies)),
                }
            }
        }
        sums
    }
}

/// Only the shard of a counter writes it.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

impl OfShard {
    fn new() -> Self {
        Self {
            replies: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            durations: std::array::from_fn(|_| AtomicU64::new(0)),
            duration_us: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

const fn index_of(method: Method) -> usize {
    match method {
        Method::Get => 0,
        Method::Head => 1,
        Method::Options => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reply_is_counted_once_over_all_shards() {
        let counters = Counters::new(2);
        let us = Duration::from_micros;
        counters.count(0, Method::Get, Status::Ok, us(50), 10);
        counters.count(1, Method::Get, Status::Ok, us(51), 20);
        counters.count(1, Method::Post, Status::MethodNotAllowed, us(11_000_000), 0);
        counters.count(0, Method::Head, Status::BadRequest, us(1), 0);
        counters.count(0, Method::Head, Status::BareLineFeed, us(1), 0);
        // There is no such shard.
        counters.count(2, Method::Get, Status::Ok, us(1), 1);
        let sums = counters.sums();
        assert_eq!(sums.replies, [("GET", 200, 2), ("HEAD", 400, 2), ("other", 405, 1)]);
        assert_eq!((sums.durations[0], sums.durations[1], sums.durations[14]), (3, 1, 1));
        assert_eq!((sums.duration_us, sums.bytes), (11_000_103, 30));
    }
}
