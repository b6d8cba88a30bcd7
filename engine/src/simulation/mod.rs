//! Whole lives of a shard on a simulated kernel: one seed decides limits, faults, peers, what the
//! handlers do and when; after every turn the invariants are checked, and at the end everything
//! must have come back and everybody have what is owed to them.
//!
//! More seeds, with a line about the progress every few seconds, from any seed on; and one seed:
//! ```text
//! RINGWRIGHT_SEEDS=2000000 RINGWRIGHT_SEED_FROM=1000000 cargo test --profile seeds -p ringwright \
//!     --lib simulation::seeds -- --nocapture
//! RINGWRIGHT_SEED=123 cargo test -p ringwright --lib simulation::replay -- --nocapture
//! ```
//! The seeds run by default must reach every mark (`marks.rs`), every transition and every reason.

mod actor;
mod book;
mod bounds;
mod budget;
mod callbacks;
mod changes;
mod check;
mod delivery;
mod draw;
mod endings;
mod eviction;
mod handler;
mod kept;
mod lane;
mod listening;
mod orders;
mod outgoing;
mod relay;
mod run;
mod scenarios;
mod sharing;
mod slow;
mod uploads;
mod verdict;
mod workers;
mod world;

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
            it.state,
            it.mode(),
            it.armed,
            it.in_flight,
            it.pause,
            it.fill,
            it.fin_seen,
            it.output_bytes
        )
    });
    std::iter::once(unsettled).chain(slots).collect()
}

/// The life of a seed.
fn live(world: &mut World) {
    let shards = world.lanes.len();
    let faults = draw_faults(&mut world.rng, shards);
    world.set_faults(&faults);
    let descriptors = world.rng.pick(&[16, 24, 60, 4096, 4096]);
    for lane in &mut world.lanes {
        lane.ring().set_descriptor_limit(descriptors);
    }
    if world.rng.below(8) == 0 {
        let at = world.rng.below(shards as u64) as usize;
        world.lanes[at].breaks_after = world.rng.below(EVENTS_MIN);
    }
    for _ in 0..CONNECTIONS_MIN + world.rng.below(12) as usize {
        world.add_somebody();
    }
    let target = EVENTS_MIN + world.rng.below(1_000);
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

#[test]
fn seeds() {
    run::many();
}

#[test]
fn replay() {
    run::one();
}
