//! Listeners that are added, removed and paused while the shards run.

#![cfg(test)]

use super::book::{Farewell, Part, Role};
use super::run_until;
use super::scenarios::{config, end, go_on, part, world_of};
use super::world::World;
use crate::admission::SocketKind;
use crate::config::AtCapacity;
use crate::ring::simulated::{Faults, Plan, Standing};
use crate::ring::{Calls, Descriptor};
use crate::{Config, Error, ListenerSettings, ListenerState, Origin, Prefix, Reason};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn stubborn() -> Part {
    Part { stubborn: true, ..part(Role::Echo, Farewell::Close) }
}

/// Peers of a listener that send so many bytes each.
fn add_peers(
    world: &mut World,
    (shard, listener): (usize, Descriptor),
    count: usize,
    part: Part,
) -> Vec<usize> {
    let add = |_| world.add_peer_at(shard, listener, Plan::plain(), part, 100);
    (0..count).map(add).collect()
}

fn are_served(world: &mut World, shard: usize, peers: &[usize]) -> bool {
    let ring = world.lanes[shard].ring();
    peers.iter().all(|peer| ring.peers[*peer].received.len() == 100)
}

fn state_of(world: &World, number: u16) -> Option<(ListenerState, u64)> {
    let listeners = world.handle.listeners();
    let found = listeners.iter().find(|info| info.number == number);
    found.map(|info| (info.state, info.connections))
}

/// Reasons for which the connections of these peers ended.
fn reasons(world: &World, shard: usize, peers: &[usize]) -> Vec<Option<Reason>> {
    let book = world.book.borrow();
    let of = |record: &&super::book::Record| {
        record.id.shard() == shard
            && record.peer.0 == shard
            && peers.contains(&record.peer.1)
            && record.accepted
    };
    book.records.iter().filter(of).map(|record| record.closed).collect()
}

/// Returns whether all of them were let in and got our FIN.
fn ended_well(world: &mut World, shard: usize, peers: &[usize]) -> bool {
    let ended = reasons(world, shard, peers);
    let ring = world.lanes[shard].ring();
    let well = |peer: &usize| {
        let peer = &ring.peers[*peer];
        peer.established && peer.got_fin && peer.standing == Standing::Connected
    };
    // The handler closes some of them itself.
    let by_drain = |it: &Option<Reason>| matches!(it, Some(Reason::Drained | Reason::LocalClose));
    ended.len() == peers.len() && ended.iter().all(by_drain) && peers.iter().all(well)
}

/// Clients that are served, that wait in the backlog, or that come during the last call.
#[test]
fn a_removed_listener_resets_nobody_and_touches_no_other() {
    let kinds = [SocketKind::Tcp, SocketKind::SharedTcp, SocketKind::Unix];
    for (seed, kind) in (0..40).flat_map(|seed| kinds.map(|kind| (seed, kind))) {
        let mut world = world_of(seed, config(), 2);
        let (number, listeners) = match kind {
            SocketKind::Tcp => world.add_listener(16),
            SocketKind::SharedTcp => world.add_inherited_listener(16, None),
            SocketKind::Unix => world.add_unix_listener(16, None),
        };
        let (other, others) = world.add_listener(16);
        go_on(&mut world, Duration::from_millis(5));
        let mut peers = Vec::new();
        for shard in 0..2 {
            let echo = part(Role::Echo, Farewell::Close);
            peers.push(add_peers(&mut world, (shard, listeners[shard]), 6, echo));
            let late = Plan { start_after_us: 3_000, ..Plan::plain() };
            let more = (0..6).map(|_| world.add_peer_at(shard, listeners[shard], late, echo, 100));
            peers[shard].extend(more.collect::<Vec<_>>());
        }
        let stays = add_peers(&mut world, (0, others[0]), 3, part(Role::Echo, Farewell::Close));
        // The backlog is full when the listener ends.
        world.handle.pause_listener(number).expect("there is room");
        go_on(&mut world, Duration::from_millis(4));
        if seed % 2 == 0 {
            world.handle.resume_listener(number).expect("there is room");
        }
        world.remove_listener(number, Duration::from_secs(60));
        assert_eq!(state_of(&world, number).expect("it is there").0, ListenerState::Removed);
        let gone = |world: &mut World| state_of(world, number).is_none();
        run_until(&mut world, 5 * SECOND, "the removed listener's end", gone);
        for (shard, peers) in peers.iter().enumerate() {
            assert!(ended_well(&mut world, shard, peers), "seed {seed}");
        }
        world.turn();
        let sum = world.ledger().sum;
        assert_eq!((sum.handshakes_lost, sum.turned_away, sum.rejected), (0, 0, 0), "seed {seed}");
        assert!(are_served(&mut world, 0, &stays), "seed {seed}");
        assert_eq!(reasons(&world, 0, &stays), [None; 3], "seed {seed}");
        assert_eq!(state_of(&world, other), Some((ListenerState::Open, 3)), "seed {seed}");
        // The number is free again.
        assert_eq!(world.add_listener(16).0, number, "seed {seed}");
        go_on(&mut world, SECOND);
        end(&mut world);
    }
}

#[test]
fn a_number_is_not_used_again_while_a_connection_of_it_lives() {
    for seed in 0..20 {
        let mut world = world_of(seed, config(), 2);
        let (number, listeners) = world.add_listener(16);
        go_on(&mut world, Duration::from_millis(5));
        let peers = add_peers(&mut world, (0, listeners[0]), 2, stubborn());
        let served = |world: &mut World| are_served(world, 0, &peers);
        run_until(&mut world, SECOND, "two echoes", served);
        world.remove_listener(number, 10 * SECOND);
        go_on(&mut world, SECOND);
        assert_eq!(state_of(&world, number), Some((ListenerState::Removed, 2)), "seed {seed}");
        let (next, _) = world.add_listener(16);
        assert_ne!(next, number, "seed {seed}");
        // A second removal shortens the deadline.
        world.remove_listener(number, SECOND);
        let gone = |world: &mut World| state_of(world, number).is_none();
        run_until(&mut world, 3 * SECOND, "the deadline", gone);
        assert_eq!(reasons(&world, 0, &peers), [Some(Reason::Stopped); 2], "seed {seed}");
        assert_eq!(world.add_listener(16).0, number, "seed {seed}");
        end(&mut world);
    }
}

#[test]
fn numbers_last_for_any_number_of_reloads() {
    let mut world = world_of(1, config(), 1);
    let most = 2 + world.handle.listeners().len();
    for _ in 0..2_000 {
        let (number, listeners) = world.add_listener(4);
        assert!(usize::from(number) < most, "{number}");
        world.turn();
        let echo = part(Role::Echo, Farewell::Close);
        if world.ring().peers.len() < 20 {
            add_peers(&mut world, (0, listeners[0]), 1, echo);
        }
        world.remove_listener(number, Duration::ZERO);
        let gone = |world: &mut World| state_of(world, number).is_none();
        run_until(&mut world, 3 * SECOND, "the removal", gone);
    }
    end(&mut world);
}

#[test]
fn clients_of_a_paused_listener_wait_in_its_backlog() {
    for seed in 0..20 {
        let mut world = world_of(seed, config(), 1);
        let (number, listeners) = world.add_listener(16);
        world.handle.pause_listener(number).expect("there is room");
        go_on(&mut world, Duration::from_millis(5));
        let peers = add_peers(&mut world, (0, listeners[0]), 5, stubborn());
        go_on(&mut world, 3 * SECOND);
        assert_eq!(state_of(&world, number), Some((ListenerState::Paused, 0)), "seed {seed}");
        assert_eq!(world.ring().unaccepted(listeners[0]), Ok(5), "seed {seed}");
        world.handle.resume_listener(number).expect("there is room");
        let served = |world: &mut World| are_served(world, 0, &peers);
        run_until(&mut world, SECOND, "five echoes", served);
        assert_eq!(state_of(&world, number), Some((ListenerState::Open, 5)), "seed {seed}");
        end(&mut world);
    }
}

/// Without descriptors a removed listener waits for some, until its deadline.
#[test]
fn a_removed_listener_waits_for_descriptors() {
    for (seed, comes) in (0..20).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut world = world_of(seed, config(), 1);
        let (number, listeners) = world.add_listener(16);
        world.handle.pause_listener(number).expect("there is room");
        go_on(&mut world, Duration::from_millis(5));
        let peers = add_peers(&mut world, (0, listeners[0]), 5, stubborn());
        go_on(&mut world, Duration::from_millis(5));
        world.ring().set_descriptor_limit(1);
        world.remove_listener(number, 3 * SECOND);
        go_on(&mut world, SECOND);
        assert_eq!(world.ring().unaccepted(listeners[0]), Ok(5), "seed {seed}");
        if comes {
            world.ring().set_descriptor_limit(4096);
            let served = |world: &mut World| are_served(world, 0, &peers);
            run_until(&mut world, 2 * SECOND, "five echoes", served);
        }
        let gone = |world: &mut World| state_of(world, number).is_none();
        run_until(&mut world, 5 * SECOND, "the deadline", gone);
        world.ring().set_descriptor_limit(4096);
        go_on(&mut world, SECOND);
        let lost = if comes { 0 } else { 5 };
        assert_eq!(world.ledger().sum.handshakes_lost, lost, "seed {seed}");
        end(&mut world);
    }
}

/// The kernel takes no filter: there is no last call, and the backlog is taken at once.
#[test]
fn a_listener_without_a_filter_ends_at_once() {
    for seed in 0..20 {
        let mut world = world_of(seed, config(), 1);
        let (number, listeners) = world.add_listener(16);
        world.handle.pause_listener(number).expect("there is room");
        go_on(&mut world, Duration::from_millis(5));
        let peers = add_peers(&mut world, (0, listeners[0]), 5, stubborn());
        go_on(&mut world, Duration::from_millis(5));
        world.ring().faults = Faults { no_filter_memory: 1000, ..Faults::none() };
        world.remove_listener(number, 60 * SECOND);
        let served = |world: &mut World| are_served(world, 0, &peers);
        run_until(&mut world, Duration::from_millis(50), "five echoes", served);
        assert_eq!(state_of(&world, number), Some((ListenerState::Removed, 5)), "seed {seed}");
        end(&mut world);
    }
}

/// Clients of a removed listener that wait for a permit are let in as others leave, and turned away
/// at its deadline. Accepting goes on for the other listeners.
#[test]
fn waiting_clients_of_a_removed_listener_have_until_its_deadline() {
    let limits = Config { max_connections: 2, at_capacity: AtCapacity::Wait, ..config() };
    for (seed, leaves) in (0..20).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut world = world_of(seed, limits.clone(), 1);
        let (number, listeners) = world.add_listener(16);
        let (_, others) = world.add_listener(16);
        go_on(&mut world, Duration::from_millis(5));
        let first = add_peers(&mut world, (0, others[0]), 2, stubborn());
        let served = |world: &mut World| are_served(world, 0, &first);
        run_until(&mut world, SECOND, "two echoes", served);
        let waiting = add_peers(&mut world, (0, listeners[0]), 2, stubborn());
        go_on(&mut world, Duration::from_millis(100));
        assert_eq!(world.ledger().sum.waiting, 2, "seed {seed}");
        world.remove_listener(number, 5 * SECOND);
        go_on(&mut world, SECOND);
        assert_eq!(state_of(&world, number), Some((ListenerState::Removed, 2)), "seed {seed}");
        if leaves {
            first.iter().for_each(|peer| world.ring().peer_resets(*peer));
            let served = |world: &mut World| are_served(world, 0, &waiting);
            run_until(&mut world, SECOND, "those that waited", served);
        }
        let gone = |world: &mut World| state_of(world, number).is_none();
        run_until(&mut world, 8 * SECOND, "the deadline", gone);
        go_on(&mut world, Duration::from_millis(100));
        let turned_away = if leaves { 0 } else { 2 };
        assert_eq!(world.ledger().sum.turned_away, turned_away, "seed {seed}");
        first.iter().for_each(|peer| world.ring().peer_resets(*peer));
        let later = add_peers(&mut world, (0, others[0]), 1, stubborn());
        let served = |world: &mut World| are_served(world, 0, &later);
        run_until(&mut world, 3 * SECOND, "a client of another listener", served);
        end(&mut world);
    }
}

/// A drain of the engine, or a stop, comes in every stage of a removal.
#[test]
fn an_engine_ends_while_a_listener_is_being_removed() {
    for seed in 0..40 {
        let mut world = world_of(seed, config(), 2);
        let (number, listeners) = world.add_listener(16);
        go_on(&mut world, Duration::from_millis(5));
        let peers = add_peers(&mut world, (0, listeners[0]), 3, stubborn());
        let echo = part(Role::Echo, Farewell::Close);
        let finishing = add_peers(&mut world, (0, listeners[0]), 3, echo);
        go_on(&mut world, Duration::from_millis(10));
        world.remove_listener(number, 2 * SECOND);
        go_on(&mut world, Duration::from_millis(seed * 10));
        if seed % 4 == 0 {
            world.stop();
        } else {
            world.drain(if seed % 4 == 1 { SECOND } else { 20 * SECOND });
        }
        // The removal's deadline is the earlier one, or the drain's.
        run_until(&mut world, 7 * SECOND, "the end", |world| world.is_over());
        world.flow_out();
        world.verdict();
        assert_eq!(reasons(&world, 0, &peers), [Some(Reason::Stopped); 3], "seed {seed}");
        assert!(seed % 4 == 0 || ended_well(&mut world, 0, &finishing), "seed {seed}");
    }
}

/// An engine without listeners serves the clients of one that is added.
#[test]
fn the_last_listener_goes_and_a_new_one_comes() {
    for seed in 0..20 {
        let mut world = world_of(seed, config(), 2);
        for info in world.handle.listeners() {
            world.remove_listener(info.number, Duration::ZERO);
        }
        run_until(&mut world, 3 * SECOND, "the removals", |world| {
            world.handle.listeners().is_empty()
        });
        assert_eq!(world.ledger().sum.listeners, 0, "seed {seed}");
        go_on(&mut world, SECOND);
        let (number, listeners) = world.add_listener(16);
        assert_eq!(number, 0, "seed {seed}");
        go_on(&mut world, Duration::from_millis(5));
        let peers = add_peers(&mut world, (1, listeners[1]), 3, stubborn());
        let served = |world: &mut World| are_served(world, 1, &peers);
        run_until(&mut world, SECOND, "three echoes", served);
        let refused = Standing::Refused;
        assert!(world.lanes[1].ring().peers.iter().all(|peer| peer.standing != refused));
        end(&mut world);
    }
}

/// Connections keep the settings of their accept while those of the listener change.
#[test]
fn each_connection_has_the_settings_of_its_accept() {
    let ms = |ms| Some(Duration::from_millis(ms));
    for seed in 0..20 {
        let idle = |ms| {
            let settings = ListenerSettings::of(&config());
            Some(ListenerSettings { idle_timeout: ms, ..settings })
        };
        let mut world = world_of(seed, config(), 1);
        let (first, listeners) = world.add_listener_with(16, idle(ms(3_000)));
        let (_, others) = world.add_listener(16);
        go_on(&mut world, Duration::from_millis(5));
        let echo = part(Role::Echo, Farewell::Close);
        let early = add_peers(&mut world, (0, listeners[0]), 2, echo);
        let other = add_peers(&mut world, (0, others[0]), 2, echo);
        let served = |world: &mut World| are_served(world, 0, &[&early[..], &other].concat());
        run_until(&mut world, SECOND, "four echoes", served);
        world.handle.set_listener(first, idle(ms(30_000))).expect("there is room");
        go_on(&mut world, SECOND);
        let late = add_peers(&mut world, (0, listeners[0]), 2, echo);
        go_on(&mut world, 7 * SECOND);
        assert_eq!(reasons(&world, 0, &early), [Some(Reason::IdleTimeout); 2], "seed {seed}");
        assert_eq!(reasons(&world, 0, &late), [None; 2], "seed {seed}");
        go_on(&mut world, 30 * SECOND);
        assert_eq!(reasons(&world, 0, &late), [Some(Reason::IdleTimeout); 2], "seed {seed}");
        assert_eq!(reasons(&world, 0, &other), [None; 2], "seed {seed}");
        let listeners = world.handle.listeners();
        let info = listeners.iter().find(|info| info.number == first).expect("it is there");
        assert_eq!(info.settings.idle_timeout, ms(30_000), "seed {seed}");
        end(&mut world);
    }
}

#[test]
fn a_listener_has_as_many_connections_as_it_may() {
    let limit = |connections_max| {
        Some(ListenerSettings { connections_max, ..ListenerSettings::of(&config()) })
    };
    for seed in 0..20 {
        let mut world = world_of(seed, config(), 2);
        let (number, listeners) = world.add_listener_with(16, limit(Some(3)));
        let (_, others) = world.add_listener(16);
        go_on(&mut world, Duration::from_millis(5));
        let mut all = Vec::new();
        for shard in 0..2 {
            all.extend(add_peers(&mut world, (shard, listeners[shard]), 4, stubborn()));
            add_peers(&mut world, (shard, others[shard]), 4, stubborn());
        }
        go_on(&mut world, SECOND);
        assert_eq!(state_of(&world, number), Some((ListenerState::Open, 3)), "seed {seed}");
        let sum = world.ledger().sum;
        assert_eq!((sum.over_listener_limit, sum.opened), (5, 11), "seed {seed}");
        // One goes, one may come. A lower limit ends nobody.
        let open = world
            .book
            .borrow()
            .records
            .iter()
            .find_map(|it| (it.origin == Origin::Listener(number)).then_some(it.id));
        world.handle.set_listener(number, limit(Some(2))).expect("there is room");
        let shard = open.expect("there are three").shard();
        let more = add_peers(&mut world, (shard, listeners[shard]), 1, stubborn());
        go_on(&mut world, SECOND);
        assert_eq!(state_of(&world, number), Some((ListenerState::Open, 3)), "seed {seed}");
        world.handle.set_listener(number, None).expect("there is room");
        go_on(&mut world, SECOND);
        add_peers(&mut world, (shard, listeners[shard]), 1, stubborn());
        go_on(&mut world, SECOND);
        assert_eq!(state_of(&world, number), Some((ListenerState::Open, 4)), "seed {seed}");
        assert_eq!(world.ledger().sum.over_listener_limit, 5 + more.len() as u64, "seed {seed}");
        end(&mut world);
    }
}

/// The addresses of proxies are neither banned nor counted, while they wait for a permit as well.
#[test]
fn exempt_clients_are_neither_banned_nor_counted() {
    let exempt: Vec<Prefix> = vec!["10.0.0.0/8".parse().expect("a prefix")];
    let limits = Config { max_per_address: Some(1), max_connections: 4, ..config() };
    let settings = ListenerSettings { exempt: exempt.clone(), ..ListenerSettings::of(&limits) };
    for seed in 0..20 {
        let mut world = world_of(seed, limits.clone(), 1);
        world.book.borrow_mut().exempt.clone_from(&exempt);
        let (number, listeners) = world.add_listener_with(16, Some(settings.clone()));
        let (_, others) = world.add_listener(16);
        assert!(world.handle.ban("10.0.0.0/8".parse().expect("a prefix")).expect("there is room"));
        go_on(&mut world, Duration::from_millis(5));
        let refused = add_peers(&mut world, (0, others[0]), 2, stubborn());
        go_on(&mut world, SECOND);
        assert_eq!((refused.len(), world.ledger().sum.opened), (2, 0), "seed {seed}");
        let proxies = add_peers(&mut world, (0, listeners[0]), 5, stubborn());
        go_on(&mut world, SECOND);
        let sum = world.ledger().sum;
        let counts = (sum.opened, sum.waiting, sum.over_address_limit);
        assert_eq!(counts, (4, 1, 0), "seed {seed}");
        assert!(world.handle.ban("10.1.0.0/16".parse().expect("a prefix")).expect("there is room"));
        go_on(&mut world, SECOND);
        assert_eq!(world.ledger().sum.waiting, 1, "seed {seed}");
        // Without the exemption, the waiting one is turned away.
        world.handle.set_listener(number, None).expect("there is room");
        go_on(&mut world, SECOND);
        assert_eq!(world.ledger().sum.waiting, 0, "seed {seed}");
        assert_eq!(reasons(&world, 0, &proxies), [None; 4], "seed {seed}");
        world.handle.set_bans(&[]).expect("there is room");
        end(&mut world);
    }
}

/// Settings get their numbers back when the last connection with them has ended.
#[test]
fn a_limited_number_of_settings_is_enough_for_any_number_of_changes() {
    let mut world = world_of(1, config(), 1);
    let settings = |s| {
        let idle_timeout = Some(Duration::from_secs(1_000 + s));
        Some(ListenerSettings { idle_timeout, ..ListenerSettings::of(&config()) })
    };
    let (number, listeners) = world.add_listener_with(16, settings(0));
    world.turn();
    let echo = part(Role::Echo, Farewell::Close);
    let kept = add_peers(&mut world, (0, listeners[0]), 1, echo);
    go_on(&mut world, SECOND);
    for change in 1..2_000 {
        world.handle.set_listener(number, settings(change)).expect("a number is free");
        world.turn();
    }
    assert_eq!(reasons(&world, 0, &kept), [None]);
    // Each of these has settings of its own.
    let mut held = Vec::new();
    let full = loop {
        let settings = settings(10_000 + held.len() as u64);
        match world.handle.registry().settings(settings.as_ref()) {
            Ok(settings) => held.push(settings),
            Err(error) => break error,
        }
    };
    // Those of the configuration, of the listener and of the connection are in use.
    assert!(matches!(full, Error::TooManySettings) && held.len() == 253, "{}", held.len());
    drop(held);
    world.handle.set_listener(number, settings(7)).expect("a number is free");
    end(&mut world);
}

/// Idle connections of a listener that does not let them go stay, those of others make room.
#[test]
fn connections_make_room_only_if_their_listener_lets_them() {
    let limits = Config { max_connections: 4, evict_idle: true, ..config() };
    let stays = ListenerSettings { evict_idle: false, ..ListenerSettings::of(&limits) };
    for seed in 0..20 {
        let mut world = world_of(seed, limits.clone(), 1);
        let (_, kept) = world.add_listener_with(16, Some(stays.clone()));
        let (_, others) = world.add_listener(16);
        go_on(&mut world, Duration::from_millis(5));
        let keeps = add_peers(&mut world, (0, kept[0]), 2, stubborn());
        go_on(&mut world, SECOND);
        let goes = add_peers(&mut world, (0, others[0]), 2, stubborn());
        go_on(&mut world, SECOND);
        add_peers(&mut world, (0, others[0]), 2, stubborn());
        go_on(&mut world, 3 * SECOND);
        assert_eq!(reasons(&world, 0, &keeps), [None; 2], "seed {seed}");
        assert_eq!(reasons(&world, 0, &goes), [Some(Reason::Evicted); 2], "seed {seed}");
        end(&mut world);
    }
}

/// A client has the TCP options of its settings, also if its handshake was complete before the
/// listener got these.
#[test]
fn clients_of_before_a_change_get_the_options_of_tcp() {
    let options = |seconds| {
        let tcp_keepalive = Some(Duration::from_secs(seconds));
        Some(ListenerSettings { tcp_keepalive, ..ListenerSettings::of(&config()) })
    };
    for seed in 0..20 {
        let limits = Config { max_connections: 2, ..config() };
        let mut world = world_of(seed, limits, 1);
        let (number, listeners) = world.add_listener_with(16, options(100));
        let (unix, of_unix) = world.add_unix_listener(16, options(100));
        go_on(&mut world, Duration::from_millis(5));
        let at = (0, listeners[0]);
        // Two are served, others wait in the room, and the last ones in the backlog.
        let served = add_peers(&mut world, at, 2, stubborn());
        go_on(&mut world, SECOND);
        let waiting = add_peers(&mut world, at, 2, stubborn());
        go_on(&mut world, SECOND);
        let queued = add_peers(&mut world, at, 2, stubborn());
        add_peers(&mut world, (0, of_unix[0]), 1, stubborn());
        go_on(&mut world, SECOND);
        world.handle.set_listener(number, options(200)).expect("there is room");
        world.handle.set_listener(unix, options(200)).expect("there is room");
        go_on(&mut world, SECOND);
        let late = add_peers(&mut world, at, 1, stubborn());
        for peers in [&served, &waiting, &queued] {
            go_on(&mut world, 3 * SECOND);
            let ring = world.lanes[0].ring();
            peers.iter().for_each(|peer| ring.peer_resets(*peer));
        }
        go_on(&mut world, 3 * SECOND);
        let keepalive = |world: &mut World, peer: &usize| {
            let options = world.lanes[0].ring().peers[*peer].socket.options;
            options.map(|options| options.keepalive_s)
        };
        for peer in &served {
            assert_eq!(keepalive(&mut world, peer), None, "seed {seed}: it was there before");
        }
        for peer in waiting.iter().chain(&queued).chain(&late) {
            assert_eq!(keepalive(&mut world, peer), Some(Some(200)), "seed {seed}: peer {peer}");
        }
        end(&mut world);
    }
}

/// Connections of one shard have the water marks of their listeners, and the budget halves both.
#[test]
fn each_listener_has_water_marks_of_its_own() {
    let marks = |high, low, most| {
        let settings = ListenerSettings::of(&config());
        Some(ListenerSettings {
            output_high_bytes: high,
            output_low_bytes: low,
            output_bytes_max: most,
            ..settings
        })
    };
    for seed in 0..20 {
        let mut world = world_of(seed, config(), 1);
        let (small, of_small) = world.add_listener_with(16, marks(100, 10, 200));
        let (large, of_large) = world.add_listener_with(16, marks(100_000, 50_000, 200_000));
        go_on(&mut world, Duration::from_millis(5));
        let one = add_peers(&mut world, (0, of_small[0]), 1, stubborn());
        add_peers(&mut world, (0, of_large[0]), 1, stubborn());
        go_on(&mut world, SECOND);
        let core = world.shard(0).parts().1;
        let of = |number| {
            let found = |(slot, _): &(u32, _)| core.slots.origin(*slot) == Origin::Listener(number);
            let (slot, connection) = core.slots.iter().find(found).expect("it is open");
            let marks = core.marks_of(connection);
            let fits = |bytes| core.fits(slot, bytes);
            (marks.high_bytes, marks.low_bytes, fits(200), fits(201), fits(200_001))
        };
        assert_eq!(of(small), (100, 10, true, false, false), "seed {seed}");
        assert_eq!(of(large), (100_000, 50_000, true, true, false), "seed {seed}");
        world.handle.set_listener(small, marks(300, 20, 400)).expect("there is room");
        go_on(&mut world, SECOND);
        assert_eq!(reasons(&world, 0, &one), [None], "seed {seed}: it keeps its marks");
        end(&mut world);
    }
}
