//! Admission of clients: permits, connections per address, bans.
//!
//! A permit is taken when a client has been accepted, and given back as the very last step of a
//! connection. A shard with clients but without permits waits for one. Waiting shards are served in
//! turn.

mod addresses;
mod bans;
mod evictions;
mod filter;
#[cfg(any(test, feature = "testing"))]
pub mod filter_machine;
mod listening;
mod permits;

pub use addresses::{Addresses, Cell};
pub use bans::{BANS_MAX, Bans, ParsePrefixError, Prefix};
pub use evictions::{Candidate, Evictions, Verdict};
pub use filter::{no_new_handshakes, program};
pub use listening::{Listening, SocketKind};
pub use permits::{Holder, Permits};

use crate::waker::Waker;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;

/// The admission state that all shards of an engine share.
pub struct Admission {
    permits: Permits,
    evictions: Evictions,
    addresses: Option<Addresses>,
    /// A keyed hash, so that nobody can choose addresses that meet in one bucket.
    hasher: RandomState,
    wakers: OnceLock<Vec<Waker>>,
}

impl Admission {
    /// `reserved` of the permits are for outgoing connections only. `waiting_max` is the limit on
    /// waiting clients of all shards. They are counted by address, too.
    pub fn new(
        total: usize,
        reserved: usize,
        shards: usize,
        max_per_address: Option<u16>,
        waiting_max: usize,
    ) -> Self {
        let reserved = if bug!("reservation-ignored") { 0 } else { reserved };
        Self {
            permits: Permits::new(total, reserved, shards),
            evictions: Evictions::new(shards),
            addresses: max_per_address.map(|limit| Addresses::new(limit, total + waiting_max)),
            hasher: RandomState::new(),
            wakers: OnceLock::new(),
        }
    }

    /// Sets the wakers of the shards. Called once.
    pub fn set_wakers(&self, wakers: Vec<Waker>) {
        assert!(self.wakers.set(wakers).is_ok(), "the wakers are set once");
    }

    /// Takes a permit if one is free for such a connection.
    pub fn try_take(&self, holder: Holder) -> bool {
        self.permits.try_take(holder)
    }

    /// Takes a permit for a shard with waiting clients, or notes that the shard waits. The shard is
    /// woken when it is handed a permit.
    pub fn take_or_wait(&self, shard: usize) -> bool {
        self.permits.take_or_wait(shard)
    }

    /// Ends the wait of a shard that has no waiting clients any more.
    pub fn stop_waiting(&self, shard: usize) {
        if self.permits.stop_waiting(shard) {
            self.give_back(Holder::Accepted);
        }
    }

    /// Gives a permit back. A waiting shard gets it, if there is one and it may have it.
    pub fn give_back(&self, holder: Holder) {
        if let Some(shard) = self.permits.give_back(holder) {
            self.wake(shard);
        }
    }

    /// The rounds in which shards agree on a connection that makes room.
    pub fn evictions(&self) -> &Evictions {
        &self.evictions
    }

    /// Wakes a shard.
    pub fn wake(&self, shard: usize) {
        if let Some(wakers) = self.wakers.get() {
            wakers[shard].wake();
        }
    }

    /// Wakes all shards but one.
    pub fn wake_others(&self, shard: usize) {
        let wakers = self.wakers.get().into_iter().flatten().enumerate();
        wakers.filter(|(other, _)| *other != shard).for_each(|(_, waker)| waker.wake());
    }

    /// All permits.
    pub fn total(&self) -> usize {
        self.permits.total()
    }

    /// Permits that no connection holds.
    pub fn free(&self) -> usize {
        self.permits.free()
    }

    /// The part of the free permits that accepted connections may take.
    pub fn free_for_accepted(&self) -> usize {
        self.permits.free_for_accepted()
    }

    /// Counts a client of an address. `None` if the address has reached its limit.
    pub fn count_address(&self, address: IpAddr) -> Option<Cell> {
        match &self.addresses {
            None => Some(Cell::NONE),
            Some(addresses) => addresses.take(self.hash(address)),
        }
    }

    /// Ends the count of a client.
    pub fn forget_address(&self, cell: Cell) {
        if let Some(addresses) = &self.addresses {
            addresses.give_back(cell);
        }
    }

    /// The counted clients of an address.
    pub fn count_of(&self, address: IpAddr) -> u64 {
        self.addresses.as_ref().map_or(0, |addresses| addresses.count(self.hash(address)))
    }

    /// One IPv4 address is one client. For IPv6 the /64 prefix counts, because every client has at
    /// least one.
    fn hash(&self, address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.hasher.hash_one(v4.octets()),
            IpAddr::V6(v6) => self.hasher.hash_one(u128::from(v6) >> 64),
        }
    }
}
