//! Reducing a seed that fails: whatever is not needed for the failure is left out.

use ringwright::simulation::{Without, run};
use std::panic;

/// More events than any seed has.
const EVENTS_MAX: u64 = 2_000;
/// More peers than any shard has.
const PEERS_MAX: usize = 128;

/// Leaves out faults, actions, peers and events while the seed still fails.
pub fn reduce(seed: u64, mut without: Without) -> Without {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut runs = 0;
    let mut attempt = |change: &dyn Fn(&mut Without)| {
        let mut fewer = without.clone();
        change(&mut fewer);
        runs += 1;
        let fails = run(seed, &fewer).is_err();
        if fails {
            without = fewer;
        }
        fails
    };
    for name in Without::all() {
        attempt(&|fewer| assert!(fewer.leave_out(name), "{name} is one of the names"));
    }
    let (mut events, mut step) = (EVENTS_MAX, EVENTS_MAX / 2);
    while step > 0 {
        if attempt(&|fewer| fewer.events_max = Some(events - step)) {
            events -= step;
        }
        step /= 2;
    }
    let (mut peers, mut step) = (PEERS_MAX, PEERS_MAX / 2);
    while step > 0 {
        if attempt(&|fewer| fewer.peers_max = Some(peers - step)) {
            peers -= step;
        }
        step /= 2;
    }
    panic::set_hook(loud);
    eprintln!("reduced in {runs} runs");
    without
}
