//! A relay receives while its output queues are full. `writable` comes at a level of its own.

use super::book::{Farewell, Part, Role};
use super::run_until;
use super::scenarios::{config, end, go_on, part, world_of};
use super::world::World;
use crate::Config;
use crate::ring::simulated::{NEVER, Plan};
use std::time::Duration;

const STREAM_BYTES: usize = 100_000;

/// A peer that reads nothing before it has sent everything.
fn add_uploader(world: &mut World, reads_on: bool) -> usize {
    let plan = Plan { stall_us: NEVER, ..Plan::plain() };
    let echo = Part { reads_on, ..part(Role::Echo, Farewell::Close) };
    let peer = world.add_peer(plan, echo, STREAM_BYTES);
    let its = &mut world.ring().peers[peer];
    its.unread_capacity = 4096;
    (its.socket.outbound_capacity, its.socket.inbound_capacity) = (4096, 4096);
    peer
}

/// A full output queue paused receiving, so an echo to a client that sends first stopped for good.
#[test]
fn a_connection_can_receive_while_its_output_is_full() {
    let marks = Config { output_high_bytes: 2_000, output_low_bytes: 1_000, ..config() };
    for seed in 0..20 {
        let mut world = world_of(seed, marks.clone(), 1);
        let paused = add_uploader(&mut world, false);
        let reading = add_uploader(&mut world, true);
        let sent = |world: &mut World| world.ring().peers[reading].sent == STREAM_BYTES as u64;
        run_until(&mut world, Duration::from_secs(10), "the whole upload", sent);
        go_on(&mut world, Duration::from_secs(1));
        assert!(world.ring().peers[paused].sent < STREAM_BYTES as u64, "the default pauses");
        end(&mut world);
        for peer in [paused, reading] {
            assert_eq!(world.ring().peers[peer].received.len(), STREAM_BYTES, "seed {seed}");
        }
    }
}

/// The queue never comes near its high-water mark, so nothing but the level calls `writable`.
#[test]
fn a_level_below_the_marks_calls_writable() {
    for seed in 0..20 {
        let mut world = world_of(seed, config(), 1);
        let metered = part(Role::Metered(20_000), Farewell::Close);
        let slow = Plan { read_chunk_max: 500, pace_us: 5_000, ..Plan::plain() };
        let peer = world.add_peer(slow, metered, 0);
        let its = &mut world.ring().peers[peer];
        its.unread_capacity = 600;
        its.socket.outbound_capacity = 600;
        let all = |world: &mut World| world.ring().peers[peer].received.len() == 20_000;
        run_until(&mut world, Duration::from_secs(60), "the whole stream", all);
        end(&mut world);
    }
}
