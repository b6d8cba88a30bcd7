//! Bounds of the work of one turn. The clock of these worlds always says that a turn has lasted
//! long, so that each part of a turn ends as soon as it may.

use super::book::{Begins, Farewell, Role, Then};
use super::run_until;
use super::scenarios::{config, end, go_on, part, world_of};
use super::world::World;
use crate::mailbox::Command;
use crate::ring::simulated::{Endpoint, Plan};
use crate::{Audience, Config, SlowReaders};
use crossbeam_channel::bounded;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const CROWD: usize = 40;
/// Bounds of one turn under test, as in `shard/bounds.rs`. Served are three before the sweeps and
/// three with them.
const DISPATCHED: u64 = 16;
const FLUSHED: u64 = 11;
const SERVED: usize = 2 * 3;
/// The poll for wake-ups and an accept.
const OF_SHARD: u64 = 2;

/// A world with a crowd that has nothing to do.
fn crowd(config: Config) -> (World, Vec<usize>) {
    let mut world = world_of(7, config, 1);
    let echo = part(Role::Echo, Farewell::Close);
    let peers = (0..CROWD).map(|at| world.add_peer(one_of_many(at), echo, 0)).collect();
    let all = |world: &mut World| world.ledger().sum.opened == CROWD as u64;
    run_until(&mut world, Duration::from_secs(5), "the crowd", all);
    go_on(&mut world, Duration::from_millis(50));
    (world, peers)
}

/// Comes after those before it, so that the backlog has room.
fn one_of_many(at: usize) -> Plan {
    Plan { start_after_us: 500 * at as u64, ..Plan::plain() }
}

fn received(world: &mut World, peers: &[usize]) -> usize {
    peers.iter().map(|peer| world.ring().peers[*peer].received.len()).sum()
}

#[test]
fn a_crowd_that_speaks_at_once_is_served_in_several_turns() {
    let (mut world, peers) = crowd(config());
    for peer in &peers {
        world.sends((0, *peer), 100);
    }
    go_on(&mut world, Duration::from_millis(1));
    let (mut most_completed, mut most_submitted, mut turns) = (0, 0, 0);
    while received(&mut world, &peers) < 100 * CROWD {
        let before = world.ledger().sum;
        world.turn();
        let after = world.ledger().sum;
        most_completed = most_completed.max(after.completed - before.completed);
        most_submitted = most_submitted.max(after.submitted - before.submitted);
        turns += 1;
        assert!(turns < 40, "a few turns are enough");
    }
    assert!(most_completed <= DISPATCHED, "{most_completed} completions in one turn");
    assert!(most_submitted <= FLUSHED + OF_SHARD, "{most_submitted} operations in one turn");
    end(&mut world);
}

#[test]
fn results_that_waited_for_one_another_come_in_several_turns() {
    const JOBS: u64 = 16;
    let config = Config { workers: 4, jobs_per_connection_max: JOBS as u32, ..config() };
    let mut world = world_of(7, config, 1);
    let peer = world.add_peer(Plan::plain(), part(Role::Offloader, Farewell::Close), 0);
    world.rest(true);
    for jobs in 1..=JOBS {
        world.sends((0, peer), 1);
        let taken = |world: &mut World| world.ledger().sum.jobs_submitted == jobs;
        run_until(&mut world, Duration::from_secs(1), "a job", taken);
    }
    world.rest(false);
    let told = |world: &mut World| {
        let counters = &world.shard(0).parts().1.counters;
        counters.jobs_done + counters.jobs_failed
    };
    let mut most = 0;
    while told(&mut world) < JOBS {
        let before = told(&mut world);
        world.turn();
        most = most.max(told(&mut world) - before);
    }
    assert!(most <= SERVED as u64, "{most} results in one turn");
    end(&mut world);
}

#[test]
fn a_broadcast_comes_to_everybody_in_several_turns() {
    let (mut world, peers) = crowd(config());
    let bytes: Arc<[u8]> = world.book.borrow_mut().blob(600).into();
    let queued = |world: &mut World| {
        let core = world.shard(0).parts().1;
        let output: u32 = core.slots.iter().map(|(_, it)| it.output_bytes()).sum();
        u64::from(output) + core.counters.bytes_sent
    };
    world.handle.broadcast(bytes, &Audience::All, SlowReaders::Queue).expect("there is room");
    let mut turns = 0;
    while received(&mut world, &peers) < 600 * CROWD {
        let (before, submitted) = (queued(&mut world), world.ledger().sum.submitted);
        world.turn();
        let more = queued(&mut world) - before;
        // Three slots at a time, before the sweeps and with them.
        assert!(more <= 2 * 3 * 3 * 600, "{more} bytes in one turn");
        let submitted = world.ledger().sum.submitted - submitted;
        assert!(submitted <= FLUSHED + OF_SHARD, "{submitted} operations in one turn");
        turns += 1;
        assert!(turns < 60, "a few turns are enough");
    }
    end(&mut world);
}

#[test]
fn commands_are_carried_out_in_order_in_several_turns() {
    let (mut world, _) = crowd(config());
    let id = world.shard(0).parts().1.id(0);
    let questions: Vec<_> = (0..20)
        .map(|_| {
            let (answer, question) = bounded(1);
            world.handle.to(0, Command::Find(id, answer)).expect("there is room");
            question
        })
        .collect();
    let mut answered = 0;
    for _ in 0..20 {
        world.turn();
        let now = questions.iter().take_while(|it| !it.is_empty()).count();
        assert!(questions[now..].iter().all(|it| it.is_empty()), "in order");
        assert!(now - answered <= SERVED, "{} commands in one turn", now - answered);
        answered = now;
    }
    assert_eq!(answered, questions.len());
    end(&mut world);
}

#[test]
fn deadlines_of_a_crowd_pass_in_several_turns() {
    let idle = Config { idle_timeout: Some(Duration::from_secs(1)), ..config() };
    let (mut world, peers) = crowd(idle);
    // All deadlines begin anew with these bytes.
    for peer in peers {
        world.sends((0, peer), 10);
    }
    go_on(&mut world, Duration::from_millis(50));
    let ending = |world: &mut World| {
        let core = world.shard(0).parts().1;
        let over = core.slots.iter().filter(|(_, it)| it.opened() && it.state().is_over());
        core.counters.closed as usize + over.count()
    };
    let mut most = 0;
    let until_us = world.now_us() + 3_000_000;
    while ending(&mut world) < CROWD {
        assert!(world.now_us() < until_us, "nobody is forgotten");
        let before = ending(&mut world);
        world.turn();
        most = most.max(ending(&mut world) - before);
    }
    assert!((2..=SERVED).contains(&most), "{most} deadlines in one turn");
    end(&mut world);
}

#[test]
fn files_of_a_crowd_are_closed_in_several_turns() {
    let mut world = world_of(7, config(), 1);
    let role = Role::Ends(Begins::Download("large", 50_000), Then::Nothing);
    for at in 0..20 {
        let peer = world.add_peer(one_of_many(at), part(role, Farewell::Close), 10);
        world.ring().peers[peer].socket.outbound_capacity = 0;
    }
    let open = |world: &mut World| world.ledger().sum.files;
    run_until(&mut world, Duration::from_millis(2_900), "all files", |world| open(world) == 20);
    for slot in 0..20 {
        let id = world.shard(0).parts().1.id(slot);
        world.book.borrow_mut().record(id).expect("it is open").cut = true;
        world.handle.kick(id).expect("there is room");
    }
    let waiting = |world: &mut World| world.shard(0).parts().1.files_closing.len();
    let mut most = 0;
    let until_us = world.now_us() + 5_000_000;
    while open(&mut world) > 0 {
        assert!(world.now_us() < until_us, "all files are closed");
        let before = waiting(&mut world);
        world.turn();
        most = most.max(before.saturating_sub(waiting(&mut world)));
    }
    assert!((2..=3).contains(&most), "{most} closes of files in one turn");
    end(&mut world);
}

#[test]
fn connects_begin_in_several_turns() {
    let (mut world, _) = crowd(config());
    for port in 0..12 {
        let address: SocketAddr = (Ipv4Addr::new(10, 1, 0, 1), 1024 + port).into();
        world.ring().endpoints.push(Endpoint { address, plan: None });
        world.book.borrow_mut().connects.insert(u64::from(port), (0, false));
        world.handle.connect(0, address, u64::from(port)).expect("there is room");
    }
    let begun = |world: &mut World| {
        let core = world.shard(0).parts().1;
        let connecting = core.slots.iter().filter(|(_, it)| !it.opened() && !it.state().is_over());
        core.counters.connect_failed as usize + connecting.count()
    };
    let mut most = 0;
    for _ in 0..200 {
        let before = begun(&mut world);
        world.turn();
        most = most.max(begun(&mut world).saturating_sub(before));
    }
    assert!(begun(&mut world) == 12, "all begin");
    assert!((2..=3).contains(&most), "{most} connects in one turn");
    end(&mut world);
}
