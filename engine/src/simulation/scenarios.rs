//! Bugs that seeds have found, and what no seed can show, each told on its own.

use super::actor::Habits;
use super::book::{Begins, Farewell, Part, Role, Then};
use super::run::be_quiet;
use super::run_until;
use super::world::World;
use crate::mailbox::Command;
use crate::ring::simulated::{Afterwards, Faults, Plan, Rng, Standing, set_interrupts};
use crate::ring::{F_BUFFER, F_MORE, Kind, Ring, Token};
use crate::{Balance, Config, Reason};
use std::time::Duration;

/// No deadline but those that always exist, and room for everything.
pub fn config() -> Config {
    Config {
        max_connections: 64,
        receive_buffers: 64,
        receive_buffer_bytes: 256,
        send_buffers: 64,
        send_buffer_bytes: 512,
        pipes: 2,
        pipe_bytes: 4096,
        sendfile_bytes_max: 0,
        submission_entries: 64,
        idle_timeout: None,
        receive_timeout: None,
        write_timeout: None,
        transfer_timeout: None,
        mailbox_commands_max: 64,
        balance: Balance::Off,
        ..Config::default()
    }
}

fn world(seed: u64, config: Config) -> World {
    world_of(seed, config, 1)
}

/// So many shards that listen.
pub fn world_of(seed: u64, config: Config, shards: usize) -> World {
    be_quiet();
    let mut world = World::with(seed, Rng::new(seed), config, shards, Habits::default());
    let entries = world.config.setup();
    for lane in &mut world.lanes {
        lane.ring().submission_capacity = entries.submission_entries as usize;
        lane.ring().completion_capacity = entries.completion_entries as usize;
    }
    for _ in 0..2 * shards {
        world.turn();
    }
    world
}

pub fn part(role: Role, farewell: Farewell) -> Part {
    Part { role, farewell, reply_bytes_max: 3_000, reads_on: false, stubborn: false }
}

pub fn go_on(world: &mut World, wait: Duration) {
    let until_us = world.now_us() + wait.as_micros() as u64;
    while world.now_us() < until_us {
        world.turn();
    }
}

/// Everybody says good-bye and has what is owed to them.
pub fn end(world: &mut World) {
    world.calm();
    world.farewell();
    let left = |world: &mut World| world.ledger().open() == 0 && world.unsettled().is_none();
    run_until(world, Duration::from_secs(200), "everybody leaving", left);
    world.drain(Duration::from_secs(1));
    run_until(world, Duration::from_secs(60), "the drain", |world| world.is_over());
    world.flow_out();
    world.verdict();
}

/// POLLHUP after our FIN was taken for a reset: the connection was closed with unread input, and
/// the RST destroyed what the peer had yet to read.
#[test]
fn a_hang_up_after_both_fins_is_no_reset() {
    let water = Config { output_high_bytes: 200, output_low_bytes: 100, ..config() };
    // Too few buffers to read everything in one go.
    let config = Config { receive_buffers: 1, ..water };
    for seed in 0..40 {
        let mut world = world(seed, config.clone());
        // Over the high-water mark nothing is read: the poll for a hang-up is armed.
        let greeter = part(Role::Greeter(5_000), Farewell::Close);
        let peer = world.add_peer(Plan::plain(), greeter, 2_000);
        world.ring().peers[peer].socket.inbound_capacity = 0;
        let greeted = move |world: &mut World| world.ring().peers[peer].got_fin;
        run_until(&mut world, Duration::from_secs(1), "the greeting", greeted);
        // Now its bytes come, and its FIN with them.
        world.ring().peers[peer].socket.inbound_capacity = 65_536;
        world.ring().touch(peer);
        end(&mut world);
        let peer = &world.ring().peers[peer];
        assert_eq!(
            (peer.received.len(), peer.got_fin, peer.standing),
            (5_000, true, Standing::Connected)
        );
        assert_eq!(world.ring().closes_with_unread, 0, "seed {seed}");
    }
}

/// The engine goes on while some of its connections are drained.
#[test]
fn connections_are_drained_one_by_one_or_all_at_once() {
    for seed in 0..20 {
        let mut world = world(seed, config());
        let add = |world: &mut World| {
            world.add_peer(Plan::plain(), part(Role::Echo, Farewell::Close), 100);
        };
        let has_closed = |world: &mut World, count| {
            run_until(world, Duration::from_secs(20), "some ends", |world| {
                world.ledger().sum.closed == count
            });
        };
        (0..3).for_each(|_| add(&mut world));
        let opened = |world: &mut World| world.ledger().sum.bytes_received == 300;
        run_until(&mut world, Duration::from_secs(20), "three clients", opened);
        let second = world.book.borrow().records[1].id;
        world.book.borrow_mut().drains_some = true;
        world.handle.drain_connection(second).expect("there is room");
        has_closed(&mut world, 1);
        go_on(&mut world, Duration::from_secs(2));
        assert_eq!(world.book.borrow().records[1].closed, Some(Reason::LocalClose), "seed {seed}");
        // Of one that has gone, nothing happens.
        world.handle.drain_connection(second).expect("there is room");
        world.handle.drain_connections().expect("there is room");
        has_closed(&mut world, 3);
        add(&mut world);
        go_on(&mut world, Duration::from_secs(2));
        assert_eq!((world.ledger().open(), world.ledger().sum.closed), (1, 3), "seed {seed}");
        end(&mut world);
    }
}

/// Receives armed in turn for connections with nothing to read waited, and kept the turn of those
/// whose bytes were there.
#[test]
fn whoever_has_nothing_to_read_does_not_queue_for_a_buffer() {
    let mut starved = 0;
    for seed in 0..20 {
        let mut world = world(seed, Config { receive_buffers: 1, ..config() });
        // What is late keeps its buffer meanwhile.
        world.ring().faults = Faults { late_completion: 500, ..Faults::none() };
        let echo = part(Role::Echo, Farewell::Close);
        let talker = world.add_peer(Plan::plain(), echo, 20_000);
        for after_us in 0..6 {
            let plan = Plan { start_after_us: after_us * 300, ..Plan::plain() };
            world.add_peer(plan, echo, 0);
        }
        let echoed = move |world: &mut World| world.ring().peers[talker].received.len() == 20_000;
        run_until(&mut world, Duration::from_secs(5), "an echo among idle connections", echoed);
        starved += world.ledger().sum.starved;
        end(&mut world);
    }
    assert!(starved > 0, "buffers were never short");
}

/// Each open of a file took a lookup and an open, and with them a turn more of the loop.
#[test]
fn a_path_is_looked_up_once_in_a_while() {
    let mut world = world(3, config());
    let download = Role::Ends(Begins::Download("large", 1_000), Then::Close);
    let peers = [0, 50, 100, 150, 500].map(|after_ms| {
        let plan = Plan { start_after_us: after_ms * 1_000, ..Plan::plain() };
        world.add_peer(plan, part(download, Farewell::Close), 10)
    });
    let all = |world: &mut World| peers.iter().all(|peer| world.ring().peers[*peer].got_fin);
    run_until(&mut world, Duration::from_secs(2), "the file for everybody", all);
    assert_eq!(world.ring().lookups, 2);
    end(&mut world);
}

/// The bytes of a small file are read into the first send buffer, also behind a queue of
/// `output_bytes_max`. The check of the limit did not allow for them.
#[test]
fn a_small_file_is_read_although_the_queue_is_full() {
    let marks =
        Config { output_low_bytes: 100, output_high_bytes: 200, output_bytes_max: 200, ..config() };
    let download = Role::Ends(Begins::Download("small", 400), Then::Close);
    for seed in 0..20 {
        let mut world = world(seed, marks.clone());
        let peer = world.add_peer(Plan::plain(), part(download, Farewell::Close), 1);
        let whole = |world: &mut World| world.ring().peers[peer].got_fin;
        run_until(&mut world, Duration::from_secs(2), "the file between other output", whole);
        assert_eq!(world.ring().peers[peer].received.len(), 600);
        end(&mut world);
    }
}

/// An upload that began while buffers were short left a one-shot receive behind, with nothing to
/// read. It kept the turn of the connections that waited for a buffer.
#[test]
fn a_receive_that_waits_for_its_peer_keeps_nobodys_turn() {
    let limits = Config { receive_buffers: 1, splice_from_bytes: 1, ..config() };
    let mut starved = 0;
    for seed in 0..20 {
        let mut world = world(seed, limits.clone());
        // A late completion keeps its buffer meanwhile.
        world.ring().faults = Faults { late_completion: 500, ..Faults::none() };
        let uploads = part(Role::Upload(5_000), Farewell::Close);
        for _ in 0..6 {
            world.add_peer(Plan::plain(), uploads, 5_000);
        }
        go_on(&mut world, Duration::from_secs(1));
        let echo = part(Role::Echo, Farewell::Close);
        let talkers: Vec<usize> =
            (0..4).map(|_| world.add_peer(Plan::plain(), echo, 5_000)).collect();
        let echoed = |world: &mut World| {
            talkers.iter().all(|peer| world.ring().peers[*peer].received.len() == 5_000)
        };
        run_until(&mut world, Duration::from_secs(5), "echoes beside silent uploads", echoed);
        starved += world.ledger().sum.starved;
        end(&mut world);
    }
    assert!(starved > 0, "buffers were never short");
}

/// A file that was the last thing to leave before the end was never reported.
#[test]
fn file_sent_comes_before_the_end() {
    for seed in 0..20 {
        let mut world = world(seed, config());
        for _ in 0..5 {
            let files = part(Role::Files, Farewell::CloseLater);
            let slow = Plan { read_chunk_max: 300, pace_us: 20_000, ..Plan::plain() };
            let peer = world.add_peer(Plan { afterwards: Afterwards::Fin, ..slow }, files, 1);
            world.ring().peers[peer].socket.outbound_capacity = 200;
        }
        go_on(&mut world, Duration::from_secs(3));
        end(&mut world);
    }
}

/// What did not fit into the submission queue waited until something else happened, up to a
/// second.
#[test]
fn a_full_queue_delays_by_no_more_than_a_turn() {
    let mut world = world(3, config());
    world.ring().submission_capacity = 4;
    world.ring().faults = Faults { submission_refused: 1000, ..Faults::none() };
    let last = world.listen(0, 12);
    go_on(&mut world, Duration::from_millis(20));
    let peer = world.add_peer_at(0, last, Plan::plain(), part(Role::Echo, Farewell::Close), 10);
    let served = move |world: &mut World| world.ring().peers[peer].received.len() == 10;
    run_until(&mut world, Duration::from_millis(50), "the last of many listeners", served);
    end(&mut world);
}

/// A send that failed for want of memory was tried again at once, over and over.
#[test]
fn a_send_without_memory_rests_before_it_is_tried_again() {
    let mut world = world(4, config());
    world.ring().faults = Faults { no_send_memory: 1000, ..Faults::none() };
    let peer = world.add_peer(Plan::plain(), part(Role::Lecturer(3_000), Farewell::Close), 0);
    let before = world.ring().counters().submitted;
    go_on(&mut world, Duration::from_secs(2));
    let tries = world.ring().counters().submitted - before + world.ring().sends_at_once;
    assert!((40..200).contains(&tries), "{tries} operations and calls in two seconds");
    world.ring().faults = Faults::none();
    go_on(&mut world, Duration::from_millis(100));
    assert_eq!(world.ring().peers[peer].received.len(), 3_000);
    end(&mut world);
}

/// Each buffer of a reply was a send and a turn of its own, and what was longer than a buffer went
/// to the heap.
#[test]
fn what_lies_in_several_buffers_leaves_in_one_call() {
    let mut world = world(10, config());
    let lecturer = part(Role::Lecturer(3_000), Farewell::Close);
    let peers: Vec<_> = (0..5).map(|_| world.add_peer(Plan::plain(), lecturer, 0)).collect();
    for peer in &peers {
        world.ring().peers[*peer].socket.outbound_capacity = 65_536;
    }
    let told = |world: &mut World| {
        peers.iter().all(|peer| world.ring().peers[*peer].received.len() == 3_000)
    };
    run_until(&mut world, Duration::from_secs(5), "all of it", told);
    assert_eq!((world.ring().sends_at_once, world.ledger().sum.heap_chunks), (5, 0));
    end(&mut world);
}

/// What does not leave with one call is a send of the ring, which others need not wait for.
#[test]
fn one_call_takes_so_many_buffers_and_no_more() {
    const BYTES: usize = 40 * 64;
    let mut world = world(10, Config { send_buffers: 256, send_buffer_bytes: 64, ..config() });
    let lecturer = part(Role::Lecturer(BYTES as u64), Farewell::Close);
    let peers: Vec<_> = (0..3).map(|_| world.add_peer(Plan::plain(), lecturer, 0)).collect();
    for peer in &peers {
        world.ring().peers[*peer].socket.outbound_capacity = 65_536;
    }
    let told = |world: &mut World| {
        peers.iter().all(|peer| world.ring().peers[*peer].received.len() == BYTES)
    };
    run_until(&mut world, Duration::from_secs(5), "all of it", told);
    // 32 buffers at once, one by the ring, seven at once.
    assert_eq!((world.ring().sends_at_once, world.ledger().sum.heap_chunks), (6, 0));
    end(&mut world);
}

/// A drain or a stop that found no place in the queue of commands was lost, and `join` waited for
/// ever. It may come at any moment, in the middle of the shard's reading too.
#[test]
fn an_end_needs_no_room_in_the_queue_of_commands() {
    for seed in 0..200 {
        let mut world = world(seed, Config { mailbox_commands_max: 16, ..config() });
        let stubborn = Part { stubborn: true, ..part(Role::Echo, Farewell::Close) };
        for _ in 0..3 {
            world.add_peer(Plan::plain(), stubborn, 100);
        }
        go_on(&mut world, Duration::from_millis(50));
        let handle = world.handle.clone();
        let fill = move || while handle.to(0, Command::StopReconnecting(0)).is_ok() {};
        fill();
        let (stops, mut after) = (seed % 2 == 0, seed % 9);
        let handle = world.handle.clone();
        set_interrupts(Some(Box::new(move || {
            fill();
            if after == 0 {
                // Again and again: they take no more than one place.
                if stops { handle.stop() } else { handle.drain(Duration::from_millis(5)) }
            }
            after = after.saturating_sub(1);
        })));
        // The queue of commands is never empty when the shard has read it.
        for lane in &mut world.lanes {
            lane.drain_deadline_us = Some(lane.now_us());
        }
        run_until(&mut world, Duration::from_secs(5), "the end", |world| world.is_over());
        set_interrupts(None);
        world.flow_out();
        world.verdict();
    }
}

/// Each small send beyond the send buffers was an allocation and a chunk of its own: 6.7 MB for
/// 256 KiB of output.
#[test]
fn small_sends_share_their_memory() {
    const SENDS: usize = 30_000;
    let mut world = world(11, Config { send_buffers: 1, ..config() });
    let echo = part(Role::Echo, Farewell::Close);
    world.add_peer(Plan::plain(), echo, 0);
    go_on(&mut world, Duration::from_millis(20));
    let (_, core) = world.shard(0).parts();
    let chunks = core.chunks.len();
    let shared: std::sync::Arc<[u8]> = b"the same".as_slice().into();
    for _ in 0..SENDS {
        core.queue_bytes(0, b"nine byte");
        core.queue_payload(0, shared.clone().into());
    }
    let most = SENDS * 17 / core.send_buffers.bytes_each() + 8;
    let made = core.chunks.len() - chunks;
    assert!(made <= most, "{made} chunks, at most {most}");
    assert_eq!(core.slots[0].output_bytes() as usize, SENDS * 17);
}

/// EMFILE fails an accept even with nobody connecting: armed again at once, it would spin.
#[test]
fn accepting_pauses_when_descriptors_are_out() {
    let mut world = world(5, config());
    let open = world.ring().open_counts();
    let limit = 1 + open.listeners;
    world.ring().set_descriptor_limit(limit);
    let echo = part(Role::Echo, Farewell::Close);
    let peer = world.add_peer(Plan::plain(), echo, 100);
    let before = world.ring().counters().submitted;
    go_on(&mut world, Duration::from_secs(10));
    let tries = world.ring().counters().submitted - before;
    let backoffs = world.ledger().sum.accept_backoffs;
    assert!((5..40).contains(&backoffs) && tries < 80, "{backoffs} pauses, {tries} operations");
    world.ring().set_descriptor_limit(100);
    let served = move |world: &mut World| world.ring().peers[peer].received.len() == 100;
    run_until(&mut world, Duration::from_secs(3), "accepting again", served);
    end(&mut world);
}

/// A completion of an earlier life gives its buffer back, closes what it brings, and does nothing
/// else. Slots are not freed early, so none ever comes: these are made up.
#[test]
fn stale_completions_are_harmless() {
    let mut world = world(6, config());
    let echo = part(Role::Echo, Farewell::Close);
    let first = world.add_peer(Plan { afterwards: Afterwards::Fin, ..Plan::plain() }, echo, 10);
    let gone = move |world: &mut World| world.ring().peers[first].got_fin;
    run_until(&mut world, Duration::from_secs(1), "the first life", gone);
    let second = world.add_peer(Plan::plain(), echo, 10);
    let echoed = move |world: &mut World| world.ring().peers[second].received.len() == 10;
    run_until(&mut world, Duration::from_secs(1), "the second life", echoed);
    let ring = world.ring();
    let files = ring.open_counts().files;
    let buffer = ring.take_provided();
    let bytes = F_MORE | F_BUFFER | u32::from(buffer) << 16;
    let file = ring.open_beside();
    ring.inject(Token::new(Kind::Receive, 0, 0), 5, bytes);
    ring.inject(Token::new(Kind::Send, 0, 0), -libc::EPIPE, F_MORE);
    ring.inject(Token::new(Kind::Open, 0, 0), file.0, F_MORE);
    ring.inject(Token::new(Kind::Receive, 7, 40), -libc::ECONNRESET, F_MORE);
    ring.inject(Token::from_user_data(u64::MAX), 0, F_MORE);
    // Not `World::turn`: it expects that there are none.
    world.shard(0).turn().expect("a simulated ring does not break");
    world.shard(0).turn().expect("a simulated ring does not break"); // published before the next wait
    assert_eq!(world.ledger().sum.stale_completions, 5);
    let ring = world.ring();
    assert_eq!(ring.buffers_provided(), 64, "the buffer is back");
    assert_eq!(ring.open_counts().files, files, "the file is closed");
    world.sends((0, second), 10);
    for _ in 0..100 {
        world.shard(0).turn().expect("a simulated ring does not break");
    }
    assert_eq!(world.ring().peers[second].received.len(), 20, "the present life goes on");
}

/// A stalled download gives its pipe up to whoever waits for one, and loses no byte by it.
#[test]
fn a_pipe_that_is_taken_back_costs_no_byte() {
    let mut waited = 0;
    for seed in 0..20 {
        let mut world = world(seed, Config { pipes: 1, ..config() });
        let files = Part { reply_bytes_max: 90_000, ..part(Role::Files, Farewell::Close) };
        for stall_us in [0, 300_000, 600_000, 900_000] {
            let plan = Plan { stall_us, ..Plan::plain() };
            let peer = world.add_peer(plan, files, 1);
            world.ring().peers[peer].socket.outbound_capacity = 4096;
        }
        go_on(&mut world, Duration::from_secs(3));
        waited += world.ledger().sum.pipe_waits;
        end(&mut world);
    }
    assert!(waited > 0, "nobody waited for a pipe");
}

/// A send that waits for all of its bytes hides the progress of a slow reader.
#[test]
fn a_reader_that_is_slow_but_reads_is_not_late() {
    let config = Config { write_timeout: Some(Duration::from_millis(100)), ..config() };
    let mut world = world(7, config);
    let greeter = part(Role::Greeter(40_000), Farewell::Close);
    let slow = Plan { read_chunk_max: 500, pace_us: 20_000, ..Plan::plain() };
    let peer = world.add_peer(slow, greeter, 0);
    world.ring().peers[peer].socket.outbound_capacity = 512;
    let greeted = move |world: &mut World| world.ring().peers[peer].got_fin;
    run_until(&mut world, Duration::from_secs(10), "a slow reader", greeted);
    assert_eq!(world.ring().peers[peer].received.len(), 40_000);
    end(&mut world);
}

/// A client pipelines requests, sends FIN, and waits: its handler is busy and has paused it. A poll
/// for its reset reports the FIN again and again.
#[test]
fn a_fin_that_is_not_read_keeps_no_shard_busy_and_hides_no_reset() {
    for seed in 0..20 {
        let mut world = world_of(seed, config(), 1);
        let pending = part(Role::Pending(Duration::from_secs(60)), Farewell::Close);
        let plan = Plan { afterwards: Afterwards::Fin, ..Plan::plain() };
        let peer = world.add_peer(plan, pending, 10);
        go_on(&mut world, Duration::from_secs(5));
        let turns = |world: &mut World| world.shard(0).parts().1.counters.turns;
        let before = turns(&mut world);
        go_on(&mut world, Duration::from_secs(10));
        let took = turns(&mut world) - before;
        assert!(took < 200, "seed {seed}: {took} turns in 10 s");
        assert_eq!(world.book.borrow().records[0].closed, None, "seed {seed}");
        world.ring().peer_resets(peer);
        go_on(&mut world, Duration::from_secs(3));
        assert_eq!(world.book.borrow().records[0].closed, Some(Reason::PeerReset), "seed {seed}");
        end(&mut world);
    }
}
