//! One shard with its simulated ring, and which of several acts next.

use crate::handler::Handler;
use crate::memory::Arena;
use crate::ring::Ring;
use crate::ring::simulated::{NEVER, Rng, SimulatedRing};
use crate::shard::Shard;

/// Shards whose times are so close act in any order.
const CLOSE_US: u64 = 300;

/// A shard and its ring; when the shard is gone, the ring alone.
enum Inside<H: Handler> {
    Shard(Box<Shard<SimulatedRing, H>>),
    Ring(Box<SimulatedRing>),
}

/// A shard on a simulated kernel.
pub struct Machine<H: Handler> {
    inside: Option<Inside<H>>,
    /// Behind the shard: it is unmapped last.
    _arena: Arena,
}

impl<H: Handler> Machine<H> {
    /// A shard that has not been started, with its memory.
    pub fn new(shard: Shard<SimulatedRing, H>, arena: Arena) -> Self {
        Self { inside: Some(Inside::Shard(Box::new(shard))), _arena: arena }
    }

    /// The simulated kernel.
    pub fn ring(&mut self) -> &mut SimulatedRing {
        match self.inside.as_mut().expect("it is taken out for a moment only") {
            Inside::Shard(shard) => shard.parts().0,
            Inside::Ring(ring) => ring,
        }
    }

    /// The shard, if it runs.
    pub fn shard(&mut self) -> Option<&mut Shard<SimulatedRing, H>> {
        match self.inside.as_mut().expect("it is taken out for a moment only") {
            Inside::Shard(shard) => Some(shard),
            Inside::Ring(_) => None,
        }
    }

    /// Simulated time in µs.
    pub fn now_us(&mut self) -> u64 {
        self.ring().now_us()
    }

    /// Slots in use, and attempts to connect that hold a permit without one.
    pub fn connections(&mut self) -> usize {
        self.shard().map_or(0, |shard| shard.parts().1.permits())
    }

    /// When the shard does something, unless somebody makes it do so earlier.
    pub fn next_us(&mut self) -> u64 {
        let Some(shard) = self.shard() else { return NEVER };
        let Some(wait) = shard.would_wait() else { return self.now_us() };
        let ring = self.ring();
        ring.next_event_us().min(ring.now_us() + wait.as_micros() as u64)
    }

    /// The shard is dropped, with everything it holds. Its ring stays.
    pub fn leave_ring(&mut self) {
        if let Some(Inside::Shard(shard)) = self.inside.take() {
            self.inside = Some(Inside::Ring(Box::new(shard.into_ring())));
        }
    }
}

/// Chooses the machine that acts next, and the time until which it may wait.
///
/// A shard acts only when no other can do so much earlier, and waits no longer than until another
/// does: all of them live in one time. Machines at [`NEVER`] have ended.
pub fn choose(next_us: &[u64], rng: &mut Rng) -> Option<(usize, u64)> {
    let first_us = *next_us.iter().min()?;
    if first_us == NEVER {
        return None;
    }
    let is_close = |at: &usize| next_us[*at] <= first_us.saturating_add(CLOSE_US);
    let close: Vec<usize> = (0..next_us.len()).filter(is_close).collect();
    let at = if close.len() == 1 { close[0] } else { rng.pick(&close) };
    let others = next_us.iter().enumerate().filter(|(other, _)| *other != at);
    let horizon_us = others.map(|(_, next_us)| *next_us).min().unwrap_or(NEVER);
    let slack_us = if horizon_us == NEVER { 0 } else { rng.pick(&[0, 100, 2_000]) };
    Some((at, horizon_us.saturating_add(slack_us)))
}
