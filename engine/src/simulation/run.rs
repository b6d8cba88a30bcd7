//! Running seeds: many on all cores, or one again.

use super::actor::OnPurpose;
use super::live;
use super::world::World;
use crate::marks::{self, Reached};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds of an ordinary test run: enough to reach every mark.
const SEEDS: u64 = 4_000;
/// Lines of the trace shown for a seed that fails.
const TRACE_LINES: usize = 80;
/// Time between two lines about the progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Places shown that are rarely reached.
const RAREST: usize = 12;

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
        eprintln!("seed {seed} fails: {}", command(seed));
        // What a failed world left behind is not worth a second panic.
        std::mem::forget(world);
    }
    result.is_ok()
}

fn command(seed: u64) -> String {
    format!(
        "RINGWRIGHT_SEED={seed} cargo test -p ringwright --lib simulation::replay -- --nocapture"
    )
}

/// Panics on purpose are not worth a line.
pub fn be_quiet() {
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

/// A thread's share: seeds from a common counter, until one fails anywhere.
fn work(next: &AtomicU64, end: u64, failed: &AtomicU64) -> Reached {
    marks::record();
    while failed.load(Ordering::Relaxed) == u64::MAX {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        if !run(seed) {
            failed.fetch_min(seed, Ordering::Relaxed);
        }
    }
    marks::take()
}

/// As many seeds as the environment says, on all cores.
pub fn many() {
    be_quiet();
    let asked = number("RINGWRIGHT_SEEDS");
    let from = number("RINGWRIGHT_SEED_FROM").unwrap_or(0);
    let count = asked.unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(u64::MAX));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let mut reached = Reached::default();
    std::thread::scope(|scope| {
        let work = || work(&next, from + count, &failed);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut said = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            // Woken for nothing but the progress, or to see that it is over.
            std::thread::park_timeout(Duration::from_millis(20));
            if asked.is_some() && said.elapsed() >= PROGRESS_EVERY {
                said = Instant::now();
                let done = next.load(Ordering::Relaxed) - from;
                let per_s = done as f64 / began.elapsed().as_secs_f64();
                eprintln!("{done} of {count} seeds, {per_s:.0} per second");
            }
        }
        for worker in workers {
            reached.add(&worker.join().expect("a failing seed is caught"));
        }
    });
    let seed = failed.load(Ordering::Relaxed);
    assert_eq!(seed, u64::MAX, "seed {seed} failed; {}", command(seed));
    let table = reached.table();
    if asked.is_some() {
        let rarest: Vec<_> = table.iter().take(RAREST).collect();
        eprintln!("{count} seeds in {:.0?}; reached most rarely: {rarest:#?}", began.elapsed());
    }
    if count >= SEEDS {
        let missing: Vec<_> = table.iter().filter(|(count, _)| *count == 0).collect();
        assert!(missing.is_empty(), "never reached: {missing:#?}");
    }
}

/// The seed that the environment names.
pub fn one() {
    be_quiet();
    let seed = number("RINGWRIGHT_SEED").unwrap_or(1);
    assert!(run(seed), "seed {seed} fails");
}
