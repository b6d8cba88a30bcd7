//! Many seeds on several threads, with a line about the progress every few seconds.

use crate::Args;
use ringwright::simulation::{Failed, Reached, Without, record, run, take};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two lines about the progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// The time between two looks at the threads.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the seeds. Returns the first one that was seen to fail.
pub fn run_all(args: &Args, without: &Without) -> Option<(u64, Failed)> {
    let (from, count) = (args.from, args.seeds.get());
    let end = from.saturating_add(count);
    let threads = args.jobs.or_else(|| thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZeroUsize::get);
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let failed = Mutex::new(None);
    let work = || {
        record();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            if let Err(failure) = run(seed, without) {
                stop.store(true, Ordering::Relaxed);
                failed.lock().expect("nobody panics with it").get_or_insert((seed, failure));
            }
        }
        take()
    };
    let began = Instant::now();
    let mut reached = Reached::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut said = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(LOOK_EVERY);
            if said.elapsed() >= PROGRESS_EVERY {
                said = Instant::now();
                let done = next.load(Ordering::Relaxed).min(end) - from;
                let per_s = done as f64 / began.elapsed().as_secs_f64();
                eprintln!("{done} of {count} seeds, {per_s:.0} per second");
            }
        }
        for worker in workers {
            reached.add(&worker.join().expect("a failing seed is caught"));
        }
    });
    if args.marks {
        reached.table().iter().for_each(|(count, place)| println!("{count:>10}  {place}"));
    }
    let failed = failed.into_inner().expect("nobody panicked with it");
    if failed.is_none() {
        println!("{count} seeds from {from} on pass ({:.0?})", began.elapsed());
    }
    failed
}
