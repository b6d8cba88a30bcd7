//! Stories of what shards and connections share: permits, buffers, the time after a failure.

use super::book::{Farewell, Role};
use super::lane::Life;
use super::run_until;
use super::scenarios::{config, end, part, world_of};
use super::world::World;
use crate::Config;
use crate::ring::simulated::{Afterwards, Enter, Plan, Standing};
use std::collections::BTreeSet;
use std::time::Duration;

/// A shard that released a permit and took it again at once left the others waiting for ever.
#[test]
fn permits_go_round_among_shards_that_wait() {
    const EACH: usize = 10;
    for seed in 0..20 {
        let shards = 2 + (seed % 3) as usize;
        let mut world = world_of(seed, Config { max_connections: 1, ..config() }, shards);
        let echo = part(Role::Echo, Farewell::Close);
        // All of them wait while one stays.
        let stays = world.add_peer(Plan::plain(), echo, 10);
        let alone = |world: &mut World| world.admission.free() == 0;
        run_until(&mut world, Duration::from_secs(5), "the first", alone);
        for shard in 0..shards {
            let listener = world.listen(shard, 1);
            for _ in 0..EACH {
                let plan = Plan { afterwards: Afterwards::Fin, ..Plan::plain() };
                world.add_peer_at(shard, listener, plan, echo, 10);
            }
        }
        let wait = move |world: &mut World| world.ledger().sum.waiting == (shards * EACH) as u64;
        run_until(&mut world, Duration::from_secs(5), "everybody waiting", wait);
        world.ring().peers[stays].plan.afterwards = Afterwards::Fin;
        world.ring().touch(stays);
        let all = shards * EACH + 1;
        let served = move |world: &mut World| {
            world.book.borrow().records.iter().filter(|it| it.closed.is_some()).count() == all
        };
        run_until(&mut world, Duration::from_secs(60), "everybody served", served);
        let order: Vec<usize> =
            world.book.borrow().records.iter().map(|it| it.id.shard()).collect();
        for round in order[1..].chunks(shards) {
            let served: BTreeSet<usize> = round.iter().copied().collect();
            assert_eq!(served.len(), shards, "seed {seed}: the shards in {order:?}");
        }
        end(&mut world);
    }
}

/// Without a quota everybody in the queue was let read at once, found no buffer, and queued again.
#[test]
fn whoever_is_let_read_finds_a_buffer() {
    for seed in 0..20 {
        let config = Config { receive_buffers: 1, receive_buffer_bytes: 64, ..config() };
        let mut world = world_of(seed, config, 1);
        let echo = part(Role::Echo, Farewell::Close);
        let peers: Vec<usize> =
            (0..12).map(|_| world.add_peer(Plan::plain(), echo, 2_000)).collect();
        let echoed = move |world: &mut World| {
            peers.iter().all(|peer| world.ring().peers[*peer].received.len() == 2_000)
        };
        run_until(&mut world, Duration::from_secs(60), "echoes by one buffer", echoed);
        let sum = world.ledger().sum;
        let receives = sum.bytes_received / 64;
        assert!(sum.starved > 0 && sum.starved < receives / 4, "{} of {receives}", sum.starved);
        end(&mut world);
    }
}

/// What a failed shard had is given back while the other goes on, and its clients find it closed.
#[test]
fn the_others_go_on_when_a_shard_fails() {
    for seed in 0..20 {
        let mut world = world_of(seed, Config { max_connections: 4, ..config() }, 2);
        let echo = part(Role::Echo, Farewell::Close);
        for shard in [0, 0, 0, 0, 0, 1, 1] {
            world.add_peer_to(shard, Plan::plain(), echo, 100);
        }
        let full = |world: &mut World| world.admission.free() == 0;
        run_until(&mut world, Duration::from_secs(1), "all permits taken", full);
        let errno = libc::EBADF;
        let once = seed % 2 == 0;
        world.ring().enter = if once { Enter::FailsOnce(errno) } else { Enter::Fails(errno) };
        // Those of the other shard are let in with what comes back.
        let served = |world: &mut World| {
            let failed = world.lanes[0].life == Life::Failed;
            let peers = &world.lanes[1].ring().peers;
            failed && peers.iter().all(|peer| peer.received.len() == 100)
        };
        run_until(&mut world, Duration::from_secs(3), "the other shard", served);
        assert_eq!(world.lanes[0].at_rest, once);
        assert_eq!(world.ledger().permits.free, 2);
        assert!(world.ledger().balanced(), "{:?}", world.ledger());
        end(&mut world);
    }
}

/// A listener that was closed with clients in its backlog reset them.
#[test]
fn a_drain_lets_in_who_is_in_the_backlog() {
    for seed in 0..20 {
        let mut world = world_of(seed, Config { max_connections: 1, ..config() }, 1);
        let echo = part(Role::Echo, Farewell::Close);
        let listener = world.listen(0, 1);
        // One is in, one waits, so that nothing is accepted; the others stay in the backlog.
        let polite = Plan { afterwards: Afterwards::Fin, ..Plan::plain() };
        let late = Plan { start_after_us: 300_000, ..polite };
        for plan in [Plan::plain(), polite, late, late, late] {
            world.add_peer_at(0, listener, plan, echo, 10);
        }
        let full = |world: &mut World| {
            let ring = world.ring();
            ring.peers.iter().all(|peer| peer.standing == Standing::Connected)
        };
        run_until(&mut world, Duration::from_secs(2), "everybody connected", full);
        assert_eq!(world.ledger().sum.waiting, 1);
        world.drain(Duration::from_secs(2));
        run_until(&mut world, Duration::from_secs(10), "the drain", |world| world.is_over());
        world.flow_out();
        assert_eq!(world.ledger().sum.handshakes_lost, 0);
        for peer in &world.ring().peers {
            // The echo or a word of good-bye, and no reset.
            let got = (peer.received.len(), peer.got_fin, peer.standing);
            assert!(got.0 > 0 && got.1, "seed {seed}: {got:?}");
            assert_eq!(got.2, Standing::Connected, "seed {seed}");
        }
        world.verdict();
    }
}
