//! The choice of an upstream: round robin over those that have not failed lately.

use std::net::SocketAddr;
use std::time::Duration;

/// The time for which an upstream gets no clients after a failed connect.
pub const SKIP: Duration = Duration::from_secs(2);

/// The upstreams as one shard sees them.
pub struct Upstreams {
    all: Vec<Upstream>,
    next: usize,
}

struct Upstream {
    address: SocketAddr,
    /// It gets no clients until this time of the shard's clock.
    skipped_until: Duration,
}

impl Upstreams {
    pub fn new(addresses: &[SocketAddr]) -> Self {
        let upstream =
            |address: &SocketAddr| Upstream { address: *address, skipped_until: Duration::ZERO };
        Self { all: addresses.iter().map(upstream).collect(), next: 0 }
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn address(&self, number: usize) -> SocketAddr {
        self.all[number].address
    }

    /// Returns the next upstream. If all have failed lately, the next one in turn is tried anyway.
    pub fn choose(&mut self, now: Duration) -> usize {
        let count = self.all.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let works = |number: &usize| self.all[*number].skipped_until <= now;
        let number = in_turn.clone().find(works).unwrap_or(self.next);
        self.next = (number + 1) % count;
        number
    }

    pub fn failed(&mut self, number: usize, now: Duration) {
        self.all[number].skipped_until = now + SKIP;
    }

    pub fn works(&mut self, number: usize) {
        self.all[number].skipped_until = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Upstreams {
        Upstreams::new(&[1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port))))
    }

    #[test]
    fn clients_go_round() {
        let mut upstreams = three();
        let chosen: Vec<_> = (0..6).map(|_| upstreams.choose(Duration::ZERO)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
        assert_eq!(upstreams.address(1).port(), 2);
    }

    #[test]
    fn a_failed_upstream_is_left_out_until_its_time_is_over() {
        let mut upstreams = three();
        upstreams.failed(1, Duration::ZERO);
        let chosen: Vec<_> = (0..4).map(|_| upstreams.choose(SKIP / 2)).collect();
        assert_eq!(chosen, [0, 2, 0, 2]);
        let chosen: Vec<_> = (0..3).map(|_| upstreams.choose(SKIP)).collect();
        assert_eq!(chosen, [0, 1, 2]);
        upstreams.failed(0, SKIP);
        upstreams.works(0);
        assert_eq!(upstreams.choose(SKIP), 0);
    }

    #[test]
    fn upstreams_that_have_all_failed_are_tried_in_turn() {
        let mut upstreams = three();
        (0..3).for_each(|number| upstreams.failed(number, Duration::ZERO));
        let chosen: Vec<_> = (0..4).map(|_| upstreams.choose(SKIP / 2)).collect();
        assert_eq!(chosen, [0, 1, 2, 0]);
    }
}
