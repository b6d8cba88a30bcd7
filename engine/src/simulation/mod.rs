//! Whole lives of a shard on a simulated kernel: one seed decides limits, faults, peers, what the
//! handlers do and when; after every turn the invariants are checked, and at the end everything
//! must have come back and everybody have what is owed to them.
//!
//! `RINGWRIGHT_SEEDS=50000 cargo test -p ringwright --lib simulation::seeds` runs more of them,
//! `RINGWRIGHT_SEED=123 cargo test -p ringwright --lib simulation::replay -- --nocapture` one.

mod actor;
mod book;
mod check;
mod handler;
mod scenarios;
mod world;

use crate::ring::simulated::Faults;
use actor::OnPurpose;
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
    let (_, core) = world.shard.parts();
    let slots = core.slots.iter().map(|(slot, it)| {
        format!(
            "slot {slot}: {} {:?} {:?}, in flight {:?}, paused {}, full {}, fin {}, output {}",
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
    if world.rng.below(8) > 0 {
        let faults = Faults::draw(&mut world.rng);
        world.set_faults(faults);
    }
    let descriptors = world.rng.pick(&[16, 24, 60, 4096, 4096]);
    world.ring().set_descriptor_limit(descriptors);
    for _ in 0..CONNECTIONS_MIN + world.rng.below(12) as usize {
        world.add_somebody();
    }
    let target = EVENTS_MIN + world.rng.below(1_000);
    for turn in 0.. {
        assert!(turn < TURNS_MAX, "a storm of {target} events takes too many turns");
        if world.events() >= target {
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
            if world.shard.is_finished() {
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
    let finished = |world: &mut World| world.shard.is_finished();
    run_until(world, Duration::from_secs(300), "the drain", finished);
    world.flow_out();
    world.verdict();
    assert!(world.events() >= EVENTS_MIN);
    assert!(world.ring().peers.len() >= CONNECTIONS_MIN);
}

/// Runs a seed. False: it failed, and has said so.
fn run(seed: u64) -> bool {
    let mut world = World::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    if result.is_err() {
        let trace = world.ring().trace();
        let lines: Vec<&str> = trace.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(TRACE_LINES)..].join("\n"));
        eprintln!("{:?}", world.config);
        eprintln!("{:?}", world.ring().faults);
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
