//! New connections are spread over the shards.

use super::book::{Farewell, Role};
use super::lane::{Lane, Life};
use super::run_until;
use super::scenarios::{config, end, part, world_of};
use super::world::World;
use crate::ring::simulated::{Afterwards, Enter, Plan};
use crate::{Balance, Config};
use std::time::Duration;

fn balanced() -> Config {
    Config { balance: Balance::Accept, ..config() }
}

fn connections(world: &mut World) -> Vec<usize> {
    world.lanes.iter_mut().map(Lane::connections).collect()
}

/// All of them come to the listener of one shard, as the kernel's hash may have it.
#[test]
fn clients_that_stay_are_spread_evenly() {
    for (shards, clients) in [(2, 8), (2, 64), (4, 8), (4, 64)] {
        for seed in 0..10 {
            let mut world = world_of(seed, balanced(), shards);
            let (_, listeners) = world.add_listener(64);
            let echo = part(Role::Echo, Farewell::Close);
            for _ in 0..clients {
                world.add_peer_at(0, listeners[0], Plan::plain(), echo, 100);
            }
            let all = |world: &mut World| world.ledger().sum.opened == clients;
            run_until(&mut world, Duration::from_secs(5), "everybody", all);
            let each = connections(&mut world);
            let even = clients as usize / shards;
            assert!(each.iter().all(|count| *count == even), "seed {seed}: {each:?}");
            end(&mut world);
            let sum = world.ledger().sum;
            assert_eq!(sum.handed_over, sum.taken_over);
        }
    }
}

/// A shard that has failed has no connections, and takes no client.
#[test]
fn the_shards_that_are_left_share_the_clients() {
    let mut world = world_of(1, balanced(), 3);
    world.lanes[2].ring().enter = Enter::FailsOnce(libc::EBADF);
    let failed = |world: &mut World| world.lanes[2].life == Life::Failed;
    run_until(&mut world, Duration::from_secs(5), "a failure", failed);
    let (_, listeners) = world.add_listener(64);
    for _ in 0..8 {
        let echo = part(Role::Echo, Farewell::Close);
        world.add_peer_at(0, listeners[0], Plan::plain(), echo, 100);
    }
    let all = |world: &mut World| world.ledger().sum.opened == 8;
    run_until(&mut world, Duration::from_secs(5), "everybody", all);
    assert_eq!(connections(&mut world), [4, 4, 0]);
    end(&mut world);
}

/// Connections that end soon even themselves out: a difference of a few is left alone.
#[test]
fn clients_that_leave_stay_where_they_came() {
    let mut world = world_of(1, Config { max_connections: 16, ..balanced() }, 2);
    let (_, listeners) = world.add_listener(256);
    let come = |world: &mut World, clients: u64| {
        let before = world.ledger().sum.closed;
        let leaves = Plan { afterwards: Afterwards::Fin, ..Plan::plain() };
        for _ in 0..clients {
            let echo = part(Role::Echo, Farewell::Close);
            world.add_peer_at(0, listeners[0], leaves, echo, 100);
        }
        let gone = move |world: &mut World| world.ledger().sum.closed == before + clients;
        run_until(world, Duration::from_secs(5), "everybody leaving", gone);
        world.ledger().sum.handed_over
    };
    let first = come(&mut world, 100);
    let then = come(&mut world, 200);
    assert!(then - first < 20, "{} of 200 are handed over while others leave", then - first);
    end(&mut world);
}

/// A client may be on its way when its listener is removed, or when a drain begins.
#[test]
fn clients_on_their_way_are_let_in_before_an_end() {
    let mut on_their_way = 0;
    for seed in 0..40 {
        let mut world = world_of(seed, balanced(), 2);
        let (number, listeners) = world.add_listener(64);
        let echo = part(Role::Echo, Farewell::Close);
        let plan = Plan { afterwards: Afterwards::Fin, ..Plan::plain() };
        for _ in 0..20 {
            world.add_peer_at(0, listeners[0], plan, echo, 100);
        }
        let some = |world: &mut World| world.transit.on_their_way() > 0;
        run_until(&mut world, Duration::from_secs(5), "a client on its way", some);
        if seed % 2 == 0 {
            let removed = world.handle.remove_listener(number, Duration::from_secs(10));
            removed.expect("the listener is there");
        } else {
            world.drain(Duration::from_secs(10));
        }
        on_their_way += world.transit.on_their_way();
        let answered = |world: &mut World| {
            let sum = world.ledger().sum;
            sum.closed == 20 && sum.turned_away == 0
        };
        run_until(&mut world, Duration::from_secs(10), "all clients answered", answered);
        end(&mut world);
    }
    assert!(on_their_way > 40, "{on_their_way} clients were on their way");
}
