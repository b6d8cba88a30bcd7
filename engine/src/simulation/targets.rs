//! The ways to connect to an endpoint, and attempts that are cancelled.

use super::actor::Actor;
use super::book::Book;
use super::world::World;
use crate::connect::{Connect, ConnectError};
use crate::ring::simulated::{Rng, SOURCE};
use crate::{Address, Local, SocketPath};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nobody ever answers there.
fn draw_decoy(rng: &mut Rng) -> Address {
    let address = SocketAddr::from(([10, 9, 0, 1], 1 + rng.below(9) as u16));
    match rng.below(4) {
        0 => unix(address),
        1 => Address::Unix(SocketPath { path: "/run/nobody".into(), mode: None }),
        _ => address.into(),
    }
}

fn unix(address: SocketAddr) -> Address {
    Address::Unix(SocketPath { path: format!("/{address}").into(), mode: None })
}

/// The endpoint among other addresses, or only those.
fn draw_list(address: SocketAddr, rng: &mut Rng) -> Vec<Address> {
    let mut list: Vec<Address> = (0..rng.below(4)).map(|_| draw_decoy(rng)).collect();
    if rng.below(8) > 0 {
        let at = rng.below(list.len() as u64 + 1) as usize;
        let endpoint = if rng.below(4) == 0 { unix(address) } else { address.into() };
        list.insert(at, endpoint);
    }
    list
}

/// A name that leads to the endpoint, at least now and then.
fn draw_name(address: SocketAddr, rng: &mut Rng) -> Connect {
    let list = draw_list(address, rng);
    let list: Vec<SocketAddr> = list.iter().filter_map(Address::ip).collect();
    let (fails, panics) = (rng.below(4) == 0, rng.below(16) == 0);
    let calls = AtomicU64::new(0);
    Connect::to_name("somebody.test:1").resolver(move |name| {
        assert_eq!(name, "somebody.test:1");
        match calls.fetch_add(1, Ordering::Relaxed) % 2 {
            0 if panics => std::panic::panic_any(super::actor::OnPurpose),
            0 if fails => Err(io::Error::from(io::ErrorKind::NotFound)),
            _ => Ok(list.clone()),
        }
    })
}

/// A way to an endpoint.
fn draw_way(address: SocketAddr, rng: &mut Rng) -> Connect {
    let ms = Duration::from_millis;
    let mut connect = match rng.below(10) {
        0 | 1 => Connect::to_any(draw_list(address, rng)),
        2 => Connect::to(unix(address)),
        3 | 4 => draw_name(address, rng),
        _ => Connect::from(address),
    };
    if rng.below(6) == 0 {
        let others = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), SOURCE, SOURCE, SOURCE];
        connect = connect.source_ip(rng.pick(&others));
    }
    if rng.below(4) == 0 {
        connect = connect.timeout(ms(rng.pick(&[2, 20, 5_000])));
    }
    connect
}

impl Book {
    /// An endpoint for a shard to connect to, and the way to it, noted as asked for.
    pub fn target(&mut self, shard: usize, rng: &mut Rng) -> Option<(Connect, u64)> {
        let (address, tag) = self.endpoint(shard)?;
        Some((self.way(address, rng), tag))
    }

    /// The way to an endpoint.
    pub fn way(&self, address: SocketAddr, rng: &mut Rng) -> Connect {
        if self.draws_ways { draw_way(address, rng) } else { address.into() }
    }

    /// Some connect of a shard that is not answered.
    fn unanswered(&self, shard: usize, rng: &mut Rng) -> Option<u64> {
        let open = self.connects.iter().filter(|(_, (at, answered))| *at == shard && !answered);
        let tags: Vec<u64> = open.map(|(tag, _)| *tag).collect();
        if tags.is_empty() { None } else { Some(rng.pick(&tags)) }
    }

    /// A connect was cancelled: it must not come about.
    fn note_cancelled(&mut self, tag: u64) {
        if !self.cancelled.insert(tag) {
            self.failures.push(format!("connect {tag} is cancelled twice"));
        }
    }

    /// A connect has failed with that error.
    pub fn check_error(&mut self, tag: u64, error: &io::Error, ending: bool) {
        let cancelled = error.raw_os_error() == Some(libc::ECANCELED);
        if self.cancelled.contains(&tag) && !cancelled && !ending {
            self.failures.push(format!("connect {tag} was cancelled and says: {error}"));
        }
        let several = error.get_ref().and_then(|inside| inside.downcast_ref::<ConnectError>());
        if several.is_some_and(|several| several.failures().len() < 2) {
            self.failures.push(format!("connect {tag} names too few addresses: {error}"));
        }
    }
}

impl Actor {
    /// Connects out.
    pub(super) fn connect_out(&mut self, local: &mut Local<'_>) {
        let shard = local.shard();
        let target = self.book.borrow_mut().target(shard, &mut self.rng);
        let Some((to, tag)) = target else { return };
        // While it drains, nothing comes of it.
        if !local.connect(to, tag) {
            return self.book.borrow_mut().not_asked(tag);
        }
        let cancels = self.book.borrow().draws_ways && self.rng.below(8) == 0;
        if cancels {
            let found = local.cancel_connect(tag);
            let mut book = self.book.borrow_mut();
            book.note_cancelled(tag);
            if !found || local.cancel_connect(tag) {
                book.failures.push(format!("connect {tag}, just requested, is not cancelled once"));
            }
        }
    }

    /// Ends some attempt.
    pub(super) fn cancel_some_connect(&mut self, local: &mut Local<'_>) {
        let mut book = self.book.borrow_mut();
        if !book.draws_ways {
            return;
        }
        let Some(tag) = book.unanswered(local.shard(), &mut self.rng) else { return };
        if local.cancel_connect(tag) {
            book.note_cancelled(tag);
        }
    }
}

impl World {
    /// Somebody outside ends some attempt of a shard.
    pub(super) fn cancel_connect(&mut self, shard: usize) {
        let tag = self.book.borrow().unanswered(shard, &mut self.rng);
        if let Some(tag) = tag {
            // The attempt may succeed before the shard learns of this.
            let _ = self.handle.cancel_connect(shard, tag);
        }
    }
}
