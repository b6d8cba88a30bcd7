//! Whole lives of a shard on a simulated kernel: one seed decides limits, faults, peers, what the
//! handlers do and when; after every turn the invariants are checked, and at the end everything
//! must have come back and everybody have what is owed to them.
//!
//! The package `ringwright-simulator` runs any seeds, and one seed with less in it:
//! ```text
//! cargo run --profile seeds -p ringwright-simulator -- --seeds 2000000 --from 1000000
//! cargo run --profile seeds -p ringwright-simulator -- --seed 123
//! ```
//! The seeds run by default must reach every mark (`marks.rs`), every transition and every reason.

mod actor;
#[cfg(test)]
mod balancing;
mod book;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod budget;
mod callbacks;
mod changes;
mod check;
#[cfg(test)]
mod delivery;
mod draw;
mod elsewhere;
mod endings;
#[cfg(test)]
mod eviction;
mod forwards;
mod handler;
mod kept;
mod lane;
#[cfg(test)]
mod listening;
mod messages;
mod orders;
#[cfg(test)]
mod outgoing;
mod payloads;
#[cfg(test)]
mod relay;
mod run;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod slow;
mod streams;
mod targets;
mod uploads;
mod verdict;
mod whims;
mod without;
mod workers;
mod world;

pub use crate::marks::{Reached, record, take};
pub use run::{Failed, Outcome, be_quiet, run};
pub use without::Without;

use draw::draw_faults;
use std::time::Duration;
use world::World;

const EVENTS_MIN: u64 = 500;
const CONNECTIONS_MIN: usize = 5;
/// Turns of a phase at most: more is a simulation that goes round in circles.
const TURNS_MAX: u32 = 300_000;

/// Runs until `done`, for so long of simulated time at most.
fn run_until(world: &mut World, limit: Duration, what: &str, done: impl Fn(&mut World) -> bool) {
    let until_us = world.now_us() + limit.as_micros() as u64;
    for _ in 0..TURNS_MAX {
        if done(world) {
            return;
        }
        if world.now_us() > until_us {
            let left: Vec<String> = describe(world);
            panic!("{what}: not within {limit:?} of simulated time; left are {left:#?}");
        }
        world.turn();
    }
    panic!("{what}: not within {TURNS_MAX} turns");
}

fn describe(world: &mut World) -> Vec<String> {
    let unsettled = world.unsettled().unwrap_or_default();
    let shards = world.lanes.iter_mut().filter_map(|lane| Some((lane.number, lane.shard()?)));
    let slots = shards.flat_map(|(number, shard)| {
        let slots: Vec<_> = shard.parts().1.slots.iter().collect();
        slots.into_iter().map(move |it| (number, it))
    });
    let slots = slots.map(|(number, (slot, it))| {
        format!(
            "slot {number}/{slot}: {} {:?} {:?}, {:?}, pause {:?}, {:?}, fin {}, output {}",
            it.state(),
            it.mode(),
            it.armed(),
            it.in_flight(),
            it.pause(),
            it.fill(),
            it.fin_seen(),
            it.output_bytes()
        )
    });
    std::iter::once(unsettled).chain(slots).collect()
}

/// The life of a seed.
fn live(world: &mut World) {
    let shards = world.lanes.len();
    let mut faults = draw_faults(&mut world.rng, shards);
    faults.iter_mut().for_each(|faults| world.without.calm(faults));
    world.set_faults(&faults);
    let descriptors = world.rng.pick(&[16, 24, 60, 4096, 4096]);
    for lane in &mut world.lanes {
        lane.ring().set_descriptor_limit(descriptors);
    }
    if world.rng.below(8) == 0 {
        let at = world.rng.below(shards as u64) as usize;
        let after = world.rng.below(EVENTS_MIN);
        if !world.without.breaks_nothing() {
            world.lanes[at].breaks_after = after;
        }
    }
    for _ in 0..CONNECTIONS_MIN + world.rng.below(12) as usize {
        world.add_somebody();
    }
    let target = EVENTS_MIN + world.rng.below(1_000);
    let target = world.without.events_max.unwrap_or(target);
    for turn in 0.. {
        assert!(turn < TURNS_MAX, "a storm of {target} events takes too many turns");
        if world.events() >= target || world.is_over() {
            break;
        }
        world.turn();
        while world.rng.below(4) == 0 {
            world.act();
        }
    }
    if world.may_hang_for_good() || world.is_draining() || world.rng.below(5) == 0 {
        // A drain in the middle of it all.
        let deadline = Duration::from_millis(world.rng.pick(&[0, 10, 500, 5_000]));
        world.drain(deadline);
        let turns = world.rng.below(200);
        for _ in 0..turns {
            if world.is_over() {
                break;
            }
            world.turn();
        }
        world.calm();
    } else {
        world.calm();
        let settled = |world: &mut World| world.unsettled().is_none();
        run_until(world, Duration::from_secs(600), "coming to rest", settled);
        world.farewell();
        let nobody = |world: &mut World| {
            let ledger = world.ledger();
            ledger.sum.opened == ledger.sum.closed
                && ledger.permits.free == ledger.permits.total
                && world.unsettled().is_none()
        };
        run_until(world, Duration::from_secs(3_000), "everybody leaving", nobody);
        world.drain(Duration::from_secs(1));
    }
    run_until(world, Duration::from_secs(300), "the drain", |world| world.is_over());
    world.flow_out();
    world.verdict();
}
