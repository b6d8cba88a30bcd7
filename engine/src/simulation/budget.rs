//! The memory budget: the connections that hold most pause first, and nobody waits for ever.

use super::book::{Farewell, Role};
use super::run_until;
use super::scenarios::{config, end, go_on, part, world_of};
use super::world::World;
use crate::Config;
use crate::ring::simulated::{Faults, Plan};
use std::time::Duration;

/// Nearly no send buffers, so that as good as all output counts.
fn small(memory_budget_bytes: usize) -> Config {
    Config {
        send_buffers: 1,
        output_high_bytes: 16_000,
        output_low_bytes: 4_000,
        memory_budget_bytes: Some(memory_budget_bytes),
        ..config()
    }
}

/// A peer whose socket takes nothing for now.
fn add_stalled(world: &mut World, role: Role, bytes: usize) -> usize {
    let peer = world.add_peer(Plan::plain(), part(role, Farewell::Close), bytes);
    let socket = &mut world.ring().peers[peer].socket;
    (socket.outbound_capacity, socket.inbound_capacity) = (0, 1 << 20);
    let open = world.ledger().sum.opened;
    let opened = |world: &mut World| world.ledger().sum.opened > open;
    run_until(world, Duration::from_secs(5), "a client", opened);
    peer
}

/// From now on it reads.
fn read(world: &mut World, peer: usize) {
    world.ring().peers[peer].socket.outbound_capacity = 1 << 20;
}

/// Queued bytes and whether reading is paused because of them, by peer number.
fn outputs(world: &mut World) -> Vec<(usize, bool)> {
    let shard = world.lanes[0].shard().expect("it runs");
    let slots = shard.parts().1.slots.iter();
    slots.map(|(_, it)| (it.output_bytes() as usize, it.is_full())).collect()
}

fn pauses(world: &World) -> u64 {
    world.ledger().sum.budget_pauses
}

fn received(peer: usize, bytes: usize) -> impl Fn(&mut World) -> bool {
    move |world: &mut World| world.ring().peers[peer].received.len() == bytes
}

/// A queue that takes no more bytes than fit was counted among the pauses of the budget.
#[test]
fn a_refused_send_is_no_pause_of_the_budget() {
    for seed in 0..20 {
        let marks = Config { output_low_bytes: 100, output_bytes_max: 16_000, ..small(1 << 30) };
        let mut world = world_of(seed, marks, 1);
        let peer = add_stalled(&mut world, Role::Greeter(40_000), 0);
        go_on(&mut world, Duration::from_millis(50));
        let (bytes, full) = outputs(&mut world)[peer];
        assert!(bytes >= 100 && full, "{bytes} bytes are queued");
        assert_eq!(pauses(&world), 0, "seed {seed}");
        read(&mut world, peer);
        run_until(&mut world, Duration::from_secs(5), "the stream", received(peer, 40_000));
        end(&mut world);
    }
}

#[test]
fn the_largest_pause_first_and_all_go_on_when_there_is_room() {
    for seed in 0..20 {
        let mut world = world_of(seed, small(20_000), 1);
        let large = add_stalled(&mut world, Role::Greeter(40_000), 0);
        go_on(&mut world, Duration::from_millis(50));
        assert_eq!(pauses(&world), 0, "one alone has the configured mark");
        let others: Vec<usize> =
            (0..4).map(|_| add_stalled(&mut world, Role::Greeter(40_000), 0)).collect();
        go_on(&mut world, Duration::from_millis(50));
        let third = add_stalled(&mut world, Role::Echo, 40_000);
        go_on(&mut world, Duration::from_millis(200));
        assert!(pauses(&world) > 0, "seed {seed}");
        let all = outputs(&mut world);
        assert!(all[5].0 < 12_000 && all[5].1, "the marks have fallen: {all:?}");
        let quick = part(Role::Echo, Farewell::Close);
        let fresh = world.add_peer(Plan::plain(), quick, 5_000);
        run_until(&mut world, Duration::from_secs(1), "a reader", received(fresh, 5_000));
        let stalled: Vec<usize> = [large, third].into_iter().chain(others).collect();
        for peer in &stalled {
            read(&mut world, *peer);
        }
        for peer in stalled {
            run_until(&mut world, Duration::from_secs(5), "the rest", received(peer, 40_000));
        }
        end(&mut world);
        assert_eq!(world.ledger().sum.budget_used_bytes, 0);
    }
}

/// With a budget of one byte every connection is above it, and all of them still go on.
#[test]
fn the_smallest_budget_delays_and_stops_nobody() {
    for seed in 0..20 {
        let config = Config { receive_buffers: 2, output_high_bytes: 2_000, ..small(1) };
        let mut world = world_of(seed, Config { output_low_bytes: 2_000, ..config }, 1);
        let roles = [Role::Echo, Role::Whole(5_000), Role::Pausing, Role::Echo];
        let slow = Plan { read_chunk_max: 300, ..Plan::plain() };
        let peers: Vec<usize> = (0..16)
            .map(|number| {
                let plan = if number % 3 == 0 { slow } else { Plan::plain() };
                world.add_peer(plan, part(roles[number % 4], Farewell::Close), 20_000)
            })
            .collect();
        for peer in peers {
            run_until(&mut world, Duration::from_secs(60), "an echo", received(peer, 20_000));
        }
        assert!(pauses(&world) > 0, "seed {seed}");
        end(&mut world);
    }
}

/// Incomplete messages hold memory that only their ends give back: one at a time goes on.
#[test]
fn long_messages_take_turns_and_a_silent_one_does_not_keep_its_turn() {
    for seed in 0..20 {
        let config = Config { output_high_bytes: 1_000, output_low_bytes: 1_000, ..small(1_000) };
        let mut world = world_of(seed, config, 1);
        // The middle of their messages has come, and the rest comes much later.
        let whole = part(Role::Whole(8_000), Farewell::Close);
        let silent: Vec<usize> =
            (0..4).map(|_| world.add_peer(Plan::plain(), whole, 7_000)).collect();
        go_on(&mut world, Duration::from_millis(50));
        let talkers: Vec<usize> =
            (0..4).map(|_| world.add_peer(Plan::plain(), whole, 8_000)).collect();
        for peer in talkers {
            run_until(&mut world, Duration::from_secs(5), "a message", received(peer, 8_000));
        }
        let most = outputs(&mut world).len() * 7_500;
        assert!(world.ledger().sum.budget_used_bytes < most as u64, "seed {seed}");
        assert!(pauses(&world) > 0, "seed {seed}");
        for peer in &silent {
            world.sends((0, *peer), 1_000);
        }
        for peer in silent {
            run_until(&mut world, Duration::from_secs(5), "the late end", received(peer, 8_000));
        }
        end(&mut world);
    }
}

/// A message that waits for the budget has its deadline: it may be what takes the memory.
#[test]
fn a_held_message_ends_at_its_deadline() {
    let receive_timeout = Some(Duration::from_millis(500));
    let config = Config { output_high_bytes: 1_000, output_low_bytes: 1_000, ..small(1_000) };
    let mut world = world_of(1, Config { receive_timeout, ..config }, 1);
    for _ in 0..4 {
        world.add_peer(Plan::plain(), part(Role::Whole(8_000), Farewell::Close), 7_000);
    }
    go_on(&mut world, Duration::from_secs(2));
    assert_eq!(world.ledger().open(), 0, "{:?}", world.ledger().sum.closed_by);
    end(&mut world);
}

/// The turn of a connection ended at the moment when its file was made. The connection was paused
/// in the middle of a message, but what it kept went to the file, and nobody resumed it.
#[test]
fn what_is_kept_for_a_file_is_no_message() {
    for seed in 0..200 {
        let marks = Config { receive_buffer_bytes: 64, send_buffer_bytes: 64, ..config() };
        let marks = Config { output_high_bytes: 400, output_low_bytes: 100, ..marks };
        let mut world = world_of(seed, Config { memory_budget_bytes: Some(1), ..marks }, 1);
        // The file takes a while.
        world.ring().faults = Faults { delay: 800, ..Faults::none() };
        let uploads = part(Role::Uploads, Farewell::Close);
        for _ in 0..3 {
            world.add_peer(Plan::plain(), uploads, 5_000);
        }
        for turn in 0..120 {
            world.turn();
            if turn % (3 + seed % 5) == 0 {
                // The turn of whoever has it is over.
                world.ring().pass(Duration::from_millis(150));
            }
        }
        go_on(&mut world, Duration::from_secs(1));
        end(&mut world);
    }
}
