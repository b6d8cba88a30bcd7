//! Whole lives of a shard on a simulated kernel: one seed decides limits, faults, peers, what the
//! handlers do and when; after every turn the invariants are checked, and at the end everything
//! must have come back and everybody have what is owed to them.
//!
//! `RINGWRIGHT_SEEDS=50000 cargo test -p ringwright --lib simulation::seeds` runs more of them,
//! `RINGWRIGHT_SEED=123 cargo test -p ringwright --lib simulation::replay -- --nocapture` one.

mod actor;
mod book;
mod check;
mod draw;
mod handler;
mod lane;
mod scenarios;
mod verdict;
mod world;

use actor::OnPurpose;
use draw::draw_faults;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use world::World;

const SEEDS: u64 = 4_000;
const EVENTS_MIN: u64 = 500;
const CONNECTIONS_MIN: usize = 5;
/// Lines of the trace shown for a seed that fails.
const TRACE_LINES: usize = 80;
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
            "slot {number}/{slot}: {} {:?} {:?}, in flight {:?}, paused {}, full {}, fin {}, output {}",
            it.state,
            it.mode(),
            it.armed,
            it.in_flight,
            it.paused,
            it.output_full,
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
    if world.rng.below(4) == 0 {
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

/// Runs a seed. False: it failed, and has said so.
fn run(seed: u64) -> bool {
    let mut world = World::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    if result.is_err() {
        for lane in &mut world.lanes {
            let (number, life) = (lane.number, lane.life);
            let trace = lane.ring().trace();
            let lines: Vec<&str> = trace.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(TRACE_LINES)..].join("\n"));
            eprintln!("shard {number} {life:?}, {:?}", lane.ring().faults);
        }
        eprintln!("{:?}\n{:?}", world.config, world.swarm);
        eprintln!(
            "seed {seed} fails: RINGWRIGHT_SEED={seed} cargo test -p ringwright --lib \
             simulation::replay -- --nocapture"
        );
        // What a failed world left behind is not worth a second panic.
        std::mem::forget(world);
    }
    result.is_ok()
}

/// Panics on purpose are not worth a line.
fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.payload().is::<OnPurpose>() {
                loud(panic);
            }
        }));
    });
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a number")))
}

#[test]
fn seeds() {
    be_quiet();
    let count = number("RINGWRIGHT_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) == 0 {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    if !run(seed) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0, "a seed failed; what replays it is said above");
    assert!(next.load(Ordering::Relaxed) >= count);
}

#[test]
fn replay() {
    be_quiet();
    let seed = number("RINGWRIGHT_SEED").unwrap_or(1);
    assert!(run(seed), "seed {seed} fails");
}
