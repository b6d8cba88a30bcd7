//! Idle connections make room for clients that wait.

use super::book::{Farewell, Role};
use super::run_until;
use super::scenarios::{config, end, go_on, part, world_of};
use super::world::World;
use crate::ring::simulated::{Afterwards, Plan, Standing};
use crate::{AtCapacity, Config, Reason};
use std::time::Duration;

fn evicting(at_capacity: AtCapacity) -> Config {
    Config { max_connections: 3, evict_idle: true, at_capacity, ..config() }
}

/// A peer that is answered and then stays. The shards' clocks differ by up to a second.
fn add_idle(world: &mut World, shard: usize, bytes: usize) -> usize {
    let peer = world.add_peer_to(shard, Plan::plain(), part(Role::Echo, Farewell::Close), bytes);
    go_on(world, Duration::from_millis(2_500));
    peer
}

fn evicted(world: &World) -> u64 {
    world.ledger().sum.closed_by[Reason::Evicted as usize]
}

#[test]
fn whoever_has_been_idle_for_longest_makes_room_on_whatever_shard() {
    for seed in 0..30 {
        for at_capacity in [AtCapacity::Wait, AtCapacity::Reject] {
            let mut world = world_of(seed, evicting(at_capacity), 2);
            // The second one never says anything. The last one goes last.
            let idle = [(1, 10), (0, 0), (1, 10)]
                .map(|(shard, bytes)| (shard, add_idle(&mut world, shard, bytes)));
            for number in 0..3 {
                let fresh = add_idle(&mut world, 0, 100);
                let served = move |world: &mut World| {
                    world.lanes[0].ring().peers[fresh].received.len() == 100
                };
                run_until(&mut world, Duration::from_millis(2_500), "a fresh client", served);
                let left = |(shard, peer): (usize, usize), world: &mut World| {
                    world.lanes[shard].ring().peers[peer].got_fin
                };
                let left = idle.map(|peer| left(peer, &mut world));
                assert_eq!(left, [true, number > 0, number > 1], "seed {seed}");
            }
            end(&mut world);
            assert_eq!((evicted(&world), world.ledger().sum.rejected), (3, 0));
        }
    }
}

/// Half a message, a reply that is being read, input that nobody has taken and an answer that comes
/// from elsewhere are no idleness.
#[test]
fn whoever_is_at_something_makes_no_room() {
    for seed in 0..50 {
        let config = Config { max_connections: 4, ..evicting(AtCapacity::Reject) };
        let mut world = world_of(seed, config, 2);
        let pending = part(Role::Pending(Duration::from_secs(60)), Farewell::Close);
        world.add_peer_to(0, Plan::plain(), pending, 10);
        world.add_peer_to(0, Plan::plain(), part(Role::Whole(100), Farewell::Close), 50);
        let reader = Plan { read_chunk_max: 10, pace_us: 50_000, ..Plan::plain() };
        let reader = Plan { afterwards: Afterwards::Wait, ..reader };
        let peer = world.add_peer_to(1, reader, part(Role::Echo, Farewell::Close), 200_000);
        let socket = &mut world.lanes[1].ring().peers[peer].socket;
        (socket.outbound_capacity, socket.inbound_capacity) = (1 << 20, 1 << 20);
        world.add_peer_to(1, Plan::plain(), part(Role::Deaf, Farewell::Close), 10);
        go_on(&mut world, Duration::from_millis(2_500));
        let late = world.add_peer_to(0, Plan::plain(), part(Role::Echo, Farewell::Close), 10);
        let refused = move |world: &mut World| {
            world.lanes[0].ring().peers[late].standing != Standing::Connected
                || world.lanes[0].ring().peers[late].got_fin
        };
        go_on(&mut world, Duration::from_millis(1));
        run_until(&mut world, Duration::from_secs(2), "the refusal", refused);
        end(&mut world);
        assert_eq!((evicted(&world), world.ledger().sum.rejected), (0, 1), "seed {seed}");
    }
}

/// Many at once: each gets a permit, and none waits until the idle deadline.
#[test]
fn a_crowd_is_let_in_one_after_the_other() {
    let config = Config { max_connections: 5, ..evicting(AtCapacity::Wait) };
    let mut world = world_of(1, config, 3);
    for shard in [0, 1, 2, 0, 1] {
        add_idle(&mut world, shard, 10);
    }
    go_on(&mut world, Duration::from_millis(200));
    let peers: Vec<_> = (0..30)
        .map(|number| {
            let shard = number % 3;
            let echo = part(Role::Echo, Farewell::Close);
            (shard, world.add_peer_to(shard, Plan::plain(), echo, 100))
        })
        .collect();
    let served = |world: &mut World| {
        let received = |(shard, peer): &(usize, usize)| {
            world.lanes[*shard].ring().peers[*peer].received.len() == 100
        };
        peers.iter().all(received)
    };
    run_until(&mut world, Duration::from_secs(20), "the crowd", served);
    end(&mut world);
}

/// Two clients ask for the room that one idle connection makes. One of them gets it, on whatever
/// shard: a later round in vain belongs to the other one.
#[test]
fn of_two_clients_one_gets_the_room_that_there_is() {
    for seed in 0..300 {
        let config = Config { max_connections: 2, ..evicting(AtCapacity::Reject) };
        let mut world = world_of(seed, config, 3);
        add_idle(&mut world, 2, 10);
        let pending = part(Role::Pending(Duration::from_secs(60)), Farewell::Close);
        world.add_peer_to(2, Plan::plain(), pending, 10);
        go_on(&mut world, Duration::from_millis(2_500));
        // The shards' clocks differ, and the clients are to come at the same time.
        let now_us = world.now_us();
        for shard in [0, 1] {
            let ahead_us = world.lanes[shard].now_us();
            let start_after_us = now_us + 100_000 + seed % 20 * 100 * shard as u64 - ahead_us;
            world.add_peer_to(shard, Plan { start_after_us, ..Plan::plain() }, pending, 10);
        }
        go_on(&mut world, Duration::from_secs(4));
        end(&mut world);
        assert_eq!((evicted(&world), world.ledger().sum.rejected), (1, 1), "seed {seed}");
    }
}

/// A shard that hung in a callback kept all others from making room.
#[test]
fn a_shard_that_hangs_does_not_keep_the_others_from_making_room() {
    for seed in 0..20 {
        let config = Config { max_connections: 1, ..evicting(AtCapacity::Wait) };
        let mut world = world_of(seed, config, 2);
        add_idle(&mut world, 0, 10);
        // Until the other one has caught up with it, it does not act.
        world.lanes[1].ring().pass(Duration::from_secs(20));
        let begun_us = world.lanes[0].now_us();
        let fresh = world.add_peer(Plan::plain(), part(Role::Echo, Farewell::Close), 100);
        let served = |world: &mut World| world.ring().peers[fresh].received.len() == 100;
        while !served(&mut world) {
            world.turn();
            let took_us = world.lanes[0].now_us() - begun_us;
            assert!(took_us < 5_000_000, "seed {seed}: waits for {took_us} us");
        }
        end(&mut world);
    }
}
