//! The lock-free parts of admission and of the workers' queue in every interleaving that their
//! memory orders allow, checked with loom on the very sources that the engine is built from.

// Not all of it is used here.
#![allow(dead_code)]

#[path = "../src/admission/addresses.rs"]
mod addresses;
#[path = "../src/admission/evictions.rs"]
mod evictions;
#[path = "../src/admission/permits.rs"]
mod permits;

#[path = "../src/workers/gate.rs"]
mod gate;

use addresses::{Addresses, Cell};
use evictions::{Candidate, Evictions, Verdict};
use gate::{Gate, Shut};
use loom::sync::atomic;
use loom::sync::{Arc, Notify};
use loom::thread;
use permits::{Holder, Permits};

/// A shard that needs a permit, and gives it back. It is asked again only when it was handed one,
/// as a shard is that sleeps until it is woken.
fn visit(permits: &Permits, shard: usize, woken: &[Notify]) {
    while !permits.take_or_wait(shard) {
        woken[shard].wait();
    }
    if permits.stop_waiting(shard) {
        give_back(permits, Holder::Accepted, woken);
    }
    give_back(permits, Holder::Accepted, woken);
}

fn give_back(permits: &Permits, holder: Holder, woken: &[Notify]) {
    if let Some(shard) = permits.give_back(holder) {
        woken[shard].notify();
    }
}

fn visits(total: usize, shards: usize) {
    let permits = Arc::new(Permits::new(total, 0, shards));
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
        let permits = Arc::new(Permits::new(1, 0, 2));
        assert!(permits.try_take(Holder::Accepted));
        let giver = permits.clone();
        let giver = thread::spawn(move || giver.give_back(Holder::Accepted));
        if permits.take_or_wait(1) || permits.stop_waiting(1) {
            permits.give_back(Holder::Accepted);
        }
        giver.join().unwrap();
        assert_eq!((permits.free(), permits.free_for_accepted()), (1, 1));
        assert!(permits.try_take(Holder::Accepted));
    });
}

#[test]
fn a_permit_in_hand_passes_by_whoever_comes_late() {
    loom::model(|| {
        let permits = Permits::new(1, 0, 3);
        assert!(permits.try_take(Holder::Accepted));
        assert!(!permits.take_or_wait(1) && !permits.take_or_wait(2));
        assert_eq!(permits.give_back(Holder::Accepted), Some(1));
        assert!(!permits.try_take(Holder::Accepted), "it belongs to shard 1");
        assert!(!permits.try_take(Holder::Outgoing), "also for outgoing connections");
        assert!(permits.take_or_wait(1));
        assert!(!permits.take_or_wait(1));
        assert_eq!(permits.give_back(Holder::Accepted), Some(2), "in turn");
        assert_eq!(permits.free(), 1);
    });
}

/// Outgoing connections hold more than their reservation. The shard that waits for it is woken as
/// soon as accepting may have one of these permits.
#[test]
fn permits_of_outgoing_connections_reach_a_waiting_shard() {
    for (waiting, preemptions) in [(1, 3), (2, 2)] {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let permits = Arc::new(Permits::new(2, 1, 3));
            assert!(permits.try_take(Holder::Outgoing) && permits.try_take(Holder::Outgoing));
            assert_eq!((permits.free(), permits.free_for_accepted()), (0, 0));
            let woken: Arc<Vec<_>> = Arc::new((0..3).map(|_| Notify::new()).collect());
            let shards: Vec<_> = (1..=waiting)
                .map(|shard| {
                    let (permits, woken) = (permits.clone(), woken.clone());
                    thread::spawn(move || visit(&permits, shard, &woken))
                })
                .collect();
            give_back(&permits, Holder::Outgoing, &woken);
            give_back(&permits, Holder::Outgoing, &woken);
            for shard in shards {
                shard.join().unwrap();
            }
            assert_eq!((permits.free(), permits.free_for_accepted()), (2, 1));
        });
    }
}

/// A permit of an outgoing connection is handed over like any other: nobody who comes late gets it.
#[test]
fn a_permit_of_an_outgoing_connection_passes_by_whoever_comes_late() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(2, 1, 2));
        assert!(permits.try_take(Holder::Outgoing) && permits.try_take(Holder::Outgoing));
        assert!(!permits.take_or_wait(1));
        let late = permits.clone();
        let late = thread::spawn(move || {
            late.try_take(Holder::Accepted) || late.try_take(Holder::Outgoing)
        });
        assert_eq!(permits.give_back(Holder::Outgoing), Some(1));
        assert!(!late.join().unwrap(), "it belongs to shard 1");
        assert!(permits.take_or_wait(1));
    });
}

/// Two shards pass one place among them. The reserved permit is free for a connect at any moment,
/// and no two accepted connections exist at once.
#[test]
fn a_connect_always_finds_the_reserved_permit() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let permits = Arc::new(Permits::new(2, 1, 2));
        let woken: Arc<Vec<_>> = Arc::new((0..2).map(|_| Notify::new()).collect());
        let inside = Arc::new(atomic::AtomicUsize::new(0));
        let others: Vec<_> = (0..2)
            .map(|shard| {
                let (permits, woken, inside) = (permits.clone(), woken.clone(), inside.clone());
                thread::spawn(move || {
                    while !permits.take_or_wait(shard) {
                        woken[shard].wait();
                    }
                    let others = inside.fetch_add(1, atomic::Ordering::SeqCst);
                    assert_eq!(others, 0, "accepting took the reserved permit");
                    inside.fetch_sub(1, atomic::Ordering::SeqCst);
                    if permits.stop_waiting(shard) {
                        give_back(&permits, Holder::Accepted, &woken);
                    }
                    give_back(&permits, Holder::Accepted, &woken);
                })
            })
            .collect();
        assert!(permits.try_take(Holder::Outgoing), "it is reserved");
        give_back(&permits, Holder::Outgoing, &woken);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!((permits.free(), permits.free_for_accepted()), (2, 1));
    });
}

#[test]
fn reserved_permits_are_for_outgoing_connections_only() {
    loom::model(|| {
        let permits = Permits::new(3, 2, 1);
        assert!(permits.try_take(Holder::Accepted) && !permits.try_take(Holder::Accepted));
        assert!(permits.try_take(Holder::Outgoing) && permits.try_take(Holder::Outgoing));
        assert!(!permits.try_take(Holder::Outgoing));
        assert!(!permits.take_or_wait(0));
        assert_eq!(permits.give_back(Holder::Outgoing), None, "it is not for clients");
        assert_eq!((permits.free(), permits.free_for_accepted()), (1, 0));
        assert_eq!(permits.give_back(Holder::Accepted), Some(0));
        assert!(permits.take_or_wait(0));
        assert!(permits.try_take(Holder::Outgoing));
        // An outgoing connection may take what accepting may, and its permit serves a client next.
        assert_eq!(permits.give_back(Holder::Accepted), None);
        assert!(permits.try_take(Holder::Outgoing));
        assert!(!permits.take_or_wait(0));
        assert_eq!(permits.give_back(Holder::Outgoing), Some(0));
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

/// Two shards ask at once and answer. Each round has one verdict, and the older connection goes.
#[test]
fn a_round_ends_with_one_verdict() {
    loom::model(|| {
        let evictions = Arc::new(Evictions::new(2));
        let verdicts = Arc::new(atomic::AtomicUsize::new(0));
        let shard =
            |shard: usize, evictions: Arc<Evictions>, verdicts: Arc<atomic::AtomicUsize>| {
                let (round, _) = evictions.ask();
                assert_eq!(round, 1, "one round is under way");
                assert_eq!(evictions.question(0), Some(1));
                if let Some(verdict) =
                    evictions.answer(shard, 1, Some(Candidate::Idle(5 + shard as u64)))
                {
                    assert_eq!(verdict, Verdict::Ends(1));
                    verdicts.fetch_add(1, atomic::Ordering::SeqCst);
                }
            };
        let other = {
            let (evictions, verdicts) = (evictions.clone(), verdicts.clone());
            thread::spawn(move || {
                if evictions.question(0).is_some() {
                    shard(1, evictions, verdicts);
                    return true;
                }
                false
            })
        };
        shard(0, evictions.clone(), verdicts.clone());
        if !other.join().unwrap() {
            shard(1, evictions.clone(), verdicts.clone());
        }
        assert_eq!(verdicts.load(atomic::Ordering::SeqCst), 1);
        assert!(evictions.take_choice(1) && !evictions.take_choice(1) && !evictions.take_choice(0));
        assert_eq!(evictions.question(0), None);
    });
}

/// The order of answers does not matter: any idle connection goes before any slow one, and among
/// slow ones the slowest goes.
#[test]
fn an_idle_connection_goes_before_a_slow_one() {
    let pairs =
        [(Candidate::Slow(0), Candidate::Idle(0)), (Candidate::Slow(u32::MAX), Candidate::Slow(7))];
    for (stays, goes) in pairs {
        loom::model(move || {
            let evictions = Arc::new(Evictions::new(2));
            assert_eq!(evictions.ask(), (1, true));
            let other = evictions.clone();
            let other = thread::spawn(move || other.answer(1, 1, Some(goes)));
            let verdicts = [evictions.answer(0, 1, Some(stays)), other.join().unwrap()];
            assert_eq!(verdicts.into_iter().flatten().collect::<Vec<_>>(), [Verdict::Ends(1)]);
            assert!(evictions.take_choice(1) && !evictions.take_choice(0));
        });
    }
}

/// A round that a shard does not answer ends with the other answers; a late answer changes nothing.
#[test]
fn a_round_without_an_answer_can_be_concluded() {
    loom::model(|| {
        let evictions = Arc::new(Evictions::new(2));
        assert_eq!(evictions.ask(), (1, true));
        let late = evictions.clone();
        let late = thread::spawn(move || late.answer(1, 1, Some(Candidate::Idle(9))));
        let first = evictions.answer(0, 1, Some(Candidate::Idle(5)));
        let concluded = evictions.conclude(1);
        let verdicts = [first, concluded, late.join().unwrap()];
        let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
        assert!(matches!(verdicts[..], [Verdict::Ends(_)]), "{verdicts:?}");
        assert_eq!((evictions.conclude(1), evictions.ask()), (None, (2, true)));
        // The answers of the last round do not count in this one.
        assert_eq!(evictions.conclude(2), Some(Verdict::Nobody));
    });
}

/// A client was rejected for a later round in vain although its own round had made room.
#[test]
fn a_later_round_in_vain_says_nothing_about_an_earlier_one() {
    loom::model(|| {
        let evictions = Evictions::new(1);
        assert_eq!(evictions.ask(), (1, true));
        assert_eq!(evictions.answer(0, 1, Some(Candidate::Idle(9))), Some(Verdict::Ends(0)));
        assert_eq!(evictions.ask(), (2, true));
        assert_eq!(evictions.answer(0, 2, None), Some(Verdict::Nobody));
        assert!(evictions.was_in_vain(2) && !evictions.was_in_vain(1));
    });
}

/// Places of a queue; whoever has no place waits until it is woken.
#[test]
fn who_found_no_place_in_the_queue_is_woken_when_there_is_one() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let gate = Arc::new(Gate::new(1, 2));
        gate.set_workers(1);
        assert_eq!(gate.enter(0), Ok(()));
        let woken = Arc::new(Notify::new());
        let worker = {
            let (gate, woken) = (gate.clone(), woken.clone());
            thread::spawn(move || gate.leave().for_each(|shard| woken_one(shard, &woken)))
        };
        // A shard goes to sleep only when it was not let in.
        while gate.enter(1) == Err(Shut::Full) {
            woken.wait();
        }
        worker.join().unwrap();
        assert_eq!((gate.queued(), gate.free()), (1, 0));
    });
}

fn woken_one(shard: usize, woken: &Notify) {
    assert_eq!(shard, 1);
    woken.notify();
}

/// The same for a shard that looks right before it sleeps.
#[test]
fn who_sleeps_because_there_is_no_place_is_woken_when_there_is_one() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(1, 1));
        gate.set_workers(1);
        assert_eq!(gate.enter(0), Ok(()));
        let woken = Arc::new(Notify::new());
        let worker = {
            let (gate, woken) = (gate.clone(), woken.clone());
            thread::spawn(move || gate.leave().for_each(|_| woken.notify()))
        };
        if !gate.wait(0) {
            woken.wait();
        }
        worker.join().unwrap();
        assert_eq!(gate.free(), 1);
    });
}

/// A job that is queued while the last worker goes: the shard, or whoever made it go, takes it out
/// again. The queue is the weakest there is: a word, written and read without an order.
#[test]
fn a_job_queued_as_the_last_worker_goes_is_found() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(2, 1));
        gate.set_workers(1);
        let queue = Arc::new(atomic::AtomicUsize::new(0));
        let resizer = {
            let (gate, queue) = (gate.clone(), queue.clone());
            thread::spawn(move || {
                gate.set_workers(0);
                queue.load(atomic::Ordering::Relaxed) == 1
            })
        };
        let refused = gate.enter(0).is_err();
        if !refused {
            queue.store(1, atomic::Ordering::Relaxed);
        }
        let found = refused || gate.is_abandoned();
        assert!(resizer.join().unwrap() || found, "it stays in the queue for ever");
    });
}
