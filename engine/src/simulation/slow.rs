//! Slow peers make room for clients that wait, if nobody is idle.

use super::book::{Farewell, Role};
use super::run_until;
use super::scenarios::{config, end, go_on, part, world_of};
use super::world::World;
use crate::ring::simulated::{Endpoint, Plan, Standing};
use crate::{AtCapacity, Config, Reason};
use std::net::SocketAddr;
use std::time::Duration;

const REPLY_BYTES: u64 = 40_000;
/// The first pass, a window, and the rest of a pass.
const NOTICED: Duration = Duration::from_secs(40);

fn with_floor(max_connections: usize) -> Config {
    Config { max_connections, evict_idle: true, min_rate: 64, ..config() }
}

/// A peer that reads so many bytes every 5 s on average. Its socket holds no more.
fn add_reader(world: &mut World, shard: usize, role: Role, chunk: usize) -> usize {
    let plan = Plan { read_chunk_max: chunk, pace_us: 10_000_000, ..Plan::plain() };
    let peer = world.add_peer_to(shard, plan, part(role, Farewell::Close), 0);
    let reader = &mut world.lanes[shard].ring().peers[peer];
    (reader.unread_capacity, reader.socket.outbound_capacity) = (chunk, 4_096);
    peer
}

/// A peer that sends so many bytes every 5 s on average, and has 60,000.
fn add_sender(world: &mut World, role: Role, chunk: usize) -> usize {
    let plan = Plan { send_chunk_max: chunk, pace_us: 10_000_000, ..Plan::plain() };
    world.add_peer(plan, part(role, Farewell::Close), 60_000)
}

/// A peer that is answered and then stays.
fn add_fresh(world: &mut World, shard: usize) -> usize {
    world.add_peer_to(shard, Plan::plain(), part(Role::Echo, Farewell::Close), 100)
}

/// Waits until a peer that has just come is answered.
fn serve(world: &mut World, (shard, peer): (usize, usize), limit: Duration) {
    let served =
        move |world: &mut World| world.lanes[shard].ring().peers[peer].received.len() == 100;
    run_until(world, limit, "a client that waits", served);
}

fn standing(world: &mut World, shard: usize, peer: usize) -> Standing {
    world.lanes[shard].ring().peers[peer].standing
}

/// Returns whether no connection of the first shard ends. One that does may be kept by the disk.
fn nobody_ends(world: &mut World) -> bool {
    let closed = world.ledger().sum.closed;
    closed == 0 && world.shard(0).parts().1.slots.iter().all(|(_, it)| !it.state().is_over())
}

fn ended(world: &World, reason: Reason) -> u64 {
    world.ledger().sum.closed_by[reason as usize]
}

/// A full server of peers that take 32 bytes every 5 s served nobody else for hours. Output can be
/// in the queue or all in the socket, and the connection can be open, draining or lingering.
#[test]
fn a_reader_below_the_floor_makes_room() {
    let roles = [Role::Greeter(REPLY_BYTES), Role::Lecturer(REPLY_BYTES)];
    for (seed, (role, room)) in
        roles.into_iter().flat_map(|role| [(role, 16), (role, 1 << 20)]).enumerate()
    {
        let mut world = world_of(seed as u64, with_floor(2), 1);
        let slow = [0, 1].map(|_| add_reader(&mut world, 0, role, 32));
        for peer in slow {
            world.ring().peers[peer].socket.outbound_capacity = room;
        }
        // Alone, they stay.
        go_on(&mut world, Duration::from_secs(120));
        assert_eq!(world.ledger().sum.closed, 0);
        let first = add_fresh(&mut world, 0);
        serve(&mut world, (0, first), NOTICED);
        let reset = slow.map(|peer| standing(&mut world, 0, peer) == Standing::GotReset);
        assert_ne!(reset[0], reset[1], "one of them makes room");
        // The first one is idle by now. With an idle connection there, the second slow one stays.
        go_on(&mut world, Duration::from_millis(200));
        let second = add_fresh(&mut world, 0);
        serve(&mut world, (0, second), Duration::from_secs(2));
        assert_eq!((ended(&world, Reason::Evicted), world.ledger().sum.closed), (1, 2));
        end(&mut world);
        // A connection that was closing keeps its reason.
        let open = matches!(role, Role::Lecturer(_));
        assert_eq!(ended(&world, Reason::TooSlow), u64::from(open));
    }
}

/// The same for a message, or a file, of which a few bytes come now and then.
#[test]
fn a_sender_below_the_floor_makes_room() {
    let splices = Config { splice_from_bytes: 1, ..with_floor(1) };
    for (seed, (role, config)) in [
        (Role::Whole(8_000), with_floor(1)),
        (Role::Upload(8_000), with_floor(1)),
        (Role::Upload(8_000), splices),
    ]
    .into_iter()
    .enumerate()
    {
        let mut world = world_of(seed as u64, config, 1);
        let slow = add_sender(&mut world, role, 32);
        go_on(&mut world, Duration::from_secs(120));
        assert_eq!(world.ledger().sum.closed, 0);
        let fresh = add_fresh(&mut world, 0);
        serve(&mut world, (0, fresh), NOTICED);
        // Nothing was unacknowledged: an ordinary end, without the wait for the peer's FIN.
        assert_eq!((ended(&world, Reason::TooSlow), world.ring().closes_undelivered), (1, 0));
        let sent = world.ring().peers[slow].sent;
        assert!((100..3_000).contains(&sent), "after {sent} bytes");
        end(&mut world);
    }
}

/// An outgoing connection whose peer takes 32 bytes every 5 s.
fn connect_to_reader(world: &mut World) {
    let address = SocketAddr::from(([10, 1, 0, 1], 1_024));
    let plan = Plan { read_chunk_max: 32, pace_us: 10_000_000, ..Plan::plain() };
    world.ring().endpoints.push(Endpoint { address, plan: Some(plan) });
    let mut book = world.book.borrow_mut();
    book.parts.insert(address, part(Role::Lecturer(10 * REPLY_BYTES), Farewell::Close));
    book.endpoints.push((address, 0));
    let (address, tag) = book.endpoint(0).expect("it was just added");
    drop(book);
    world.handle.connect(0, address, tag).expect("the mailbox is empty");
}

/// Peers above the floor stay, and connections that wait for the server, not for the peer.
#[test]
fn nobody_else_makes_room() {
    for at_capacity in [AtCapacity::Wait, AtCapacity::Reject] {
        let mut world = world_of(1, Config { at_capacity, ..with_floor(6) }, 1);
        // 200 bytes a second.
        add_reader(&mut world, 0, Role::Lecturer(300_000), 1_000);
        add_sender(&mut world, Role::Whole(60_000), 1_000);
        let reader = Plan { read_chunk_max: 1_000, pace_us: 1_000_000, ..Plan::plain() };
        world.add_peer(reader, part(Role::Lecturer(800_000), Farewell::Close), 0);
        let pending = part(Role::Pending(Duration::from_secs(150)), Farewell::Close);
        world.add_peer(Plan::plain(), pending, 1);
        connect_to_reader(&mut world);
        // The disk hangs while the rest of a file is missing.
        let uploads = part(Role::Upload(8_000), Farewell::Close);
        let upload = world.add_peer(Plan::plain(), uploads, 2_000);
        go_on(&mut world, Duration::from_secs(30));
        world.ring().faults.hung_storage = 1_000;
        world.sends((0, upload), 2_000);
        for _ in 0..9 {
            add_fresh(&mut world, 0);
            go_on(&mut world, Duration::from_secs(10));
        }
        assert_eq!(world.shard(0).is_slow(0), Some(false), "it is measured");
        let ledger = world.ledger().sum;
        let refused = if at_capacity == AtCapacity::Reject { 9 } else { 0 };
        assert_eq!((ledger.opened, ledger.closed, ledger.rejected), (6, 0, refused));
        assert!(nobody_ends(&mut world));
        end(&mut world);
    }
}

/// The rest of a message has come, but the server cannot read it.
#[test]
fn a_peer_whose_bytes_are_unread_is_not_slow() {
    let mut world = world_of(4, with_floor(1), 1);
    let whole = part(Role::Whole(100), Farewell::Close);
    let peer = world.add_peer(Plan::plain(), whole, 50);
    go_on(&mut world, Duration::from_secs(5));
    world.ring().faults.no_receive_memory = 1_000;
    world.sends((0, peer), 50);
    add_fresh(&mut world, 0);
    go_on(&mut world, Duration::from_secs(100));
    assert!(nobody_ends(&mut world));
    end(&mut world);
}

/// With the policy that rejects, the first clients are rejected, and the time that passes between
/// them counts.
#[test]
fn a_slow_peer_makes_room_for_clients_that_do_not_wait() {
    let config = Config { at_capacity: AtCapacity::Reject, ..with_floor(1) };
    let mut world = world_of(2, config, 1);
    let slow = add_reader(&mut world, 0, Role::Lecturer(REPLY_BYTES), 32);
    go_on(&mut world, Duration::from_secs(10));
    add_fresh(&mut world, 0);
    go_on(&mut world, Duration::from_secs(500));
    assert_eq!((world.ledger().sum.rejected, world.ledger().sum.closed), (1, 0));
    let fresh = add_fresh(&mut world, 0);
    serve(&mut world, (0, fresh), Duration::from_secs(1));
    assert_eq!(standing(&mut world, 0, slow), Standing::GotReset);
    end(&mut world);
}

/// The shard with an idle connection makes room first, then the one with the slower peer, and then
/// the other one.
#[test]
fn idle_connections_go_first_and_then_the_slowest() {
    for seed in 0..10 {
        let mut world = world_of(seed, with_floor(4), 2);
        let lecturer = Role::Lecturer(REPLY_BYTES);
        let slower = add_reader(&mut world, 1, lecturer, 16);
        let slow = add_reader(&mut world, 0, lecturer, 100);
        let fast = add_reader(&mut world, 1, Role::Lecturer(400_000), 2_000);
        let idle = add_fresh(&mut world, 0);
        go_on(&mut world, Duration::from_secs(60));
        let peers = [(0, idle), (1, slower), (0, slow), (1, fast)];
        let stays = part(Role::Pending(Duration::from_secs(150)), Farewell::Close);
        for gone in 1..4 {
            world.add_peer_to(gone % 2, Plan::plain(), stays, 1);
            let limit = if gone == 2 { NOTICED } else { Duration::from_secs(3) };
            let all = move |world: &mut World| world.ledger().sum.opened == 4 + gone as u64;
            run_until(&mut world, limit, "a client that waits", all);
            go_on(&mut world, Duration::from_secs(2));
            let left = peers.map(|(shard, peer)| {
                let peer = &world.lanes[shard].ring().peers[peer];
                peer.got_fin || peer.standing == Standing::GotReset
            });
            assert_eq!(left, [true, gone > 1, gone > 2, false], "seed {seed}");
        }
        go_on(&mut world, Duration::from_secs(60));
        assert_eq!((ended(&world, Reason::Evicted), ended(&world, Reason::TooSlow)), (1, 2));
        end(&mut world);
    }
}

/// A peer that was slow in the last window and has read enough since then stays.
#[test]
fn a_peer_that_reads_again_is_not_slow() {
    let config = Config { at_capacity: AtCapacity::Reject, ..with_floor(1) };
    let mut world = world_of(3, config, 1);
    let peer = add_reader(&mut world, 0, Role::Lecturer(400_000), 32);
    go_on(&mut world, Duration::from_secs(10));
    assert_eq!(world.shard(0).is_slow(0), None, "nothing is measured while nobody waits");
    add_fresh(&mut world, 0);
    let slow = |world: &mut World| world.shard(0).is_slow(0) == Some(true);
    run_until(&mut world, NOTICED, "the end of a window", slow);
    let reader = &mut world.ring().peers[peer];
    (reader.plan.read_chunk_max, reader.plan.pace_us) = (1_000, 50_000);
    reader.unread_capacity = 1_000;
    world.ring().touch(peer);
    go_on(&mut world, Duration::from_secs(1));
    add_fresh(&mut world, 0);
    go_on(&mut world, Duration::from_secs(1));
    assert_eq!((world.ledger().sum.rejected, world.ledger().sum.closed), (2, 0));
    assert_eq!(world.shard(0).is_slow(0), Some(false));
    end(&mut world);
}
