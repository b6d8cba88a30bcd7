//! The lock-free parts of admission in every interleaving that their memory orders allow, checked
//! with loom on the very sources that the engine is built from.

// Not all of it is used here.
#![allow(dead_code)]

#[path = "../src/admission/addresses.rs"]
mod addresses;
#[path = "../src/admission/permits.rs"]
mod permits;

use addresses::{Addresses, Cell};
use loom::sync::atomic;
use loom::sync::{Arc, Notify};
use loom::thread;
use permits::Permits;

/// A shard that needs a permit, and gives it back. It is asked again only when it was handed one,
/// as a shard is that sleeps until it is woken.
fn visit(permits: &Permits, shard: usize, woken: &[Notify]) {
    while !permits.take_or_wait(shard) {
        woken[shard].wait();
    }
    if permits.stop_waiting(shard) {
        give_back(permits, woken);
    }
    give_back(permits, woken);
}

fn give_back(permits: &Permits, woken: &[Notify]) {
    if let Some(shard) = permits.give_back() {
        woken[shard].notify();
    }
}

fn visits(total: usize, shards: usize) {
    let permits = Arc::new(Permits::new(total, shards));
    let woken: Arc<Vec<_>> = Arc::new((0..shards).map(|_| Notify::new()).collect());
    let others: Vec<_> = (1..shards)
        .map(|shard| {
            let (permits, woken) = (permits.clone(), woken.clone());
            thread::spawn(move || visit(&permits, shard, &woken))
        })
        .collect();
    visit(&permits, 0, &woken);
    for other in others {
        // Who waits for ever is a deadlock, which loom reports.
        other.join().unwrap();
    }
    assert_eq!(permits.free(), total);
}

#[test]
fn two_shards_and_one_permit_nobody_waits_for_ever() {
    loom::model(|| visits(1, 2));
}

#[test]
fn three_shards_and_one_permit_nobody_waits_for_ever() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| visits(1, 3));
}

#[test]
fn a_shard_that_stops_waiting_loses_no_permit() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(1, 2));
        assert!(permits.try_take());
        let giver = permits.clone();
        let giver = thread::spawn(move || giver.give_back());
        if permits.take_or_wait(1) || permits.stop_waiting(1) {
            permits.give_back();
        }
        giver.join().unwrap();
        assert_eq!(permits.free(), 1);
        assert!(permits.try_take());
    });
}

#[test]
fn a_permit_in_hand_passes_by_whoever_comes_late() {
    loom::model(|| {
        let permits = Permits::new(1, 3);
        assert!(permits.try_take());
        assert!(!permits.take_or_wait(1) && !permits.take_or_wait(2));
        assert_eq!(permits.give_back(), Some(1));
        assert!(!permits.try_take(), "it belongs to shard 1");
        assert!(permits.take_or_wait(1));
        assert!(!permits.take_or_wait(1));
        assert_eq!(permits.give_back(), Some(2), "in turn");
        assert_eq!(permits.free(), 1);
    });
}

#[test]
fn never_more_of_an_address_than_the_limit_and_all_come_back() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let addresses = Arc::new(Addresses::new(1, 1));
        // The same bucket, so that the second finds a cell just left by the first.
        let (one, other) = (7 << 16, 9 << 16);
        let first = addresses.take(other).unwrap();
        let inside = Arc::new(atomic::AtomicUsize::new(0));
        let visitors: Vec<_> = (0..2)
            .map(|_| {
                let (addresses, inside) = (addresses.clone(), inside.clone());
                thread::spawn(move || {
                    if let Some(cell) = addresses.take(one) {
                        let others = inside.fetch_add(1, atomic::Ordering::SeqCst);
                        assert_eq!(others, 0, "two at a time");
                        inside.fetch_sub(1, atomic::Ordering::SeqCst);
                        addresses.give_back(cell);
                    }
                })
            })
            .collect();
        addresses.give_back(first);
        for visitor in visitors {
            visitor.join().unwrap();
        }
        assert_eq!((addresses.count(one), addresses.count(other)), (0, 0));
        assert!(addresses.take(one).is_some_and(|cell| cell != Cell::NONE));
    });
}
