//! Who is let in: permits, connections per address, bans.
//!
//! A permit is taken with a descriptor in hand and given back as the very last step of a
//! connection. A shard that holds descriptors without permits says so, and is handed one in turn.

mod addresses;
mod bans;
mod filter;
#[cfg(test)]
pub mod filter_machine;
mod permits;

pub use addresses::{Addresses, Cell};
pub use bans::{Bans, NoPrefix, Prefix};
pub use filter::{Instruction, no_new_handshakes, program};
pub use permits::Permits;

use crate::mailbox::Waker;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;

/// What the shards of an engine share of admission.
pub struct Admission {
    permits: Permits,
    addresses: Option<Addresses>,
    /// Keyed: nobody can choose addresses that meet in one bucket.
    hasher: RandomState,
    wakers: OnceLock<Vec<Waker>>,
}

impl Admission {
    /// `waiting_max`: clients that may wait in all, who are counted by address, too.
    pub fn new(
        total: usize,
        shards: usize,
        max_per_address: Option<u16>,
        waiting_max: usize,
    ) -> Self {
        Self {
            permits: Permits::new(total, shards),
            addresses: max_per_address.map(|limit| Addresses::new(limit, total + waiting_max)),
            hasher: RandomState::new(),
            wakers: OnceLock::new(),
        }
    }

    /// Tells how shards are woken, once.
    pub fn set_wakers(&self, wakers: Vec<Waker>) {
        assert!(self.wakers.set(wakers).is_ok(), "the wakers are set once");
    }

    /// Takes a permit if one is free.
    pub fn try_take(&self) -> bool {
        self.permits.try_take()
    }

    /// For a shard with somebody waiting: takes a permit, or is woken when it was handed one.
    pub fn take_or_wait(&self, shard: usize) -> bool {
        self.permits.take_or_wait(shard)
    }

    /// For a shard with nobody waiting any more.
    pub fn stop_waiting(&self, shard: usize) {
        if self.permits.stop_waiting(shard) {
            self.give_back();
        }
    }

    /// Gives a permit back, to a shard that waits for one if there is any.
    pub fn give_back(&self) {
        if let (Some(shard), Some(wakers)) = (self.permits.give_back(), self.wakers.get()) {
            wakers[shard].wake();
        }
    }

    /// Permits in all.
    pub fn total(&self) -> usize {
        self.permits.total()
    }

    /// Permits that no connection holds.
    pub fn free(&self) -> usize {
        self.permits.free()
    }

    /// Counts a client of an address. `None`: there are too many of it.
    pub fn count_address(&self, address: IpAddr) -> Option<Cell> {
        match &self.addresses {
            None => Some(Cell::NONE),
            Some(addresses) => addresses.take(self.hash(address)),
        }
    }

    /// Counts it no more.
    pub fn forget_address(&self, cell: Cell) {
        if let Some(addresses) = &self.addresses {
            addresses.give_back(cell);
        }
    }

    /// Clients of an address now, as far as they are counted.
    pub fn count_of(&self, address: IpAddr) -> u64 {
        self.addresses.as_ref().map_or(0, |addresses| addresses.count(self.hash(address)))
    }

    /// One IPv4 address is one client; of IPv6 everybody has at least a /64.
    fn hash(&self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.hasher.hash_one(v4.octets()),
            IpAddr::V6(v6) => self.hasher.hash_one(u128::from(v6) >> 64),
        }
    }
}
