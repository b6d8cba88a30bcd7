//! Outgoing connections: each fails for itself, and a part of the permits may be theirs.

use super::book::{Farewell, Part, Role};
use super::run_until;
use super::scenarios::{config, end, go_on, part, world_of};
use super::world::World;
use crate::ring::simulated::{Afterwards, Endpoint, Faults, Plan};
use crate::shard::state::State;
use crate::{AtCapacity, Config, Connect, Reason};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const ECHO: Part = Part {
    role: Role::Echo,
    farewell: Farewell::Close,
    reply_bytes_max: 100,
    reads_on: false,
    stubborn: false,
};
/// A request that is not postponed is carried out within this time. A postponed one waits 20 ms.
const AT_ONCE: Duration = Duration::from_millis(8);

/// Endpoints that answer. Returns their tags.
fn add_endpoints(world: &mut World, count: usize) -> Vec<u64> {
    let mut book = world.book.borrow_mut();
    book.connects_again = 0;
    let mut tags = Vec::new();
    for _ in 0..count {
        let tag = book.parts.len() as u64;
        let port = 1024 + u16::try_from(tag).expect("few parts");
        let address: SocketAddr = (Ipv4Addr::new(10, 1, 0, 1), port).into();
        for lane in &mut world.lanes {
            let plan = Some(Plan { afterwards: Afterwards::Wait, ..Plan::plain() });
            lane.ring().endpoints.push(Endpoint { address, plan });
        }
        book.parts.insert(address, ECHO);
        book.endpoints.push((address, tag));
        tags.push(tag);
    }
    tags
}

/// Asks the first shard to connect to the last endpoint.
fn connect(world: &mut World) {
    let (address, tag) = world.book.borrow_mut().endpoint(0).expect("there is an endpoint");
    world.handle.connect(0, address, tag).expect("there is room for it");
}

/// Asks the first shard to connect to the last endpoint, in the way that `way` makes of it.
fn connect_by(world: &mut World, way: impl FnOnce(SocketAddr) -> Connect) -> u64 {
    let (address, tag) = world.book.borrow_mut().endpoint(0).expect("there is an endpoint");
    world.handle.connect(0, way(address), tag).expect("there is room for it");
    tag
}

/// A name that leads to an address.
fn name_of(address: SocketAddr) -> Connect {
    Connect::to_name("somebody.test:1").resolver(move |_| Ok(vec![address]))
}

/// The workers begin and end all jobs at once.
fn resume_workers(world: &mut World) {
    let mut shift = world.shift.borrow_mut();
    (shift.rests, shift.hurries) = (false, true);
}

fn silent() -> Faults {
    Faults { connect_silent: 1000, ..Faults::none() }
}

fn failed(world: &World) -> u64 {
    world.ledger().sum.connect_failed
}

/// Runs until `done`, without a turn that waits: the request before does not lie longer than a
/// handler's or another thread's would on a busy shard.
fn at_once(world: &mut World, what: &str, done: impl Fn(&mut World) -> bool) {
    let until_us = world.now_us() + AT_ONCE.as_micros() as u64;
    while !done(world) {
        assert!(world.now_us() < until_us, "{what}: not at once");
        world.ring().wake();
        world.turn();
    }
}

/// Connects with a slot, whatever their state.
fn outgoing(world: &mut World) -> usize {
    let slots = &world.shard(0).parts().1.slots;
    slots.iter().filter(|(slot, _)| slots.rare(*slot).tag().is_some()).count()
}

fn clients_of(world: &mut World, count: usize, role: Role) -> Vec<usize> {
    let client = part(role, Farewell::Close);
    (0..count).map(|_| world.add_peer(Plan::plain(), client, 10)).collect()
}

/// Clients that come together took all permits, and each of their connects failed.
#[test]
fn each_client_of_a_proxy_gets_its_connection_if_half_of_the_permits_are_reserved() {
    for at_capacity in [AtCapacity::Wait, AtCapacity::Reject] {
        for (reserved, served) in [(0, 0), (4, 4)] {
            let limits = Config { max_connections: 8, outgoing_reserved: reserved, ..config() };
            let mut world = world_of(1, Config { at_capacity, ..limits }, 1);
            add_endpoints(&mut world, 16);
            let client = part(Role::Connector, Farewell::Close);
            let listener = world.listen(0, 1);
            let peers: Vec<_> =
                (0..16).map(|_| world.add_peer_at(0, listener, Plan::plain(), client, 0)).collect();
            go_on(&mut world, Duration::from_secs(1));
            // Everybody is there now. Each request leads to a connect.
            peers.iter().for_each(|peer| world.sends((0, *peer), 1));
            go_on(&mut world, Duration::from_secs(1));
            let sum = world.ledger().sum;
            let let_in = 8 - reserved as u64;
            assert_eq!((sum.connected, sum.connect_failed), (served, let_in - served));
            let beyond = if at_capacity == AtCapacity::Wait { sum.waiting } else { sum.rejected };
            assert_eq!((sum.opened, beyond), (let_in + served, 16 - let_in));
            end(&mut world);
            let echoed = |peer: &usize| world.ring().peers[*peer].received.len() == 1;
            let all = if at_capacity == AtCapacity::Wait { 16 } else { let_in as usize };
            assert_eq!(peers.into_iter().filter(echoed).count(), all);
        }
    }
}

/// A waiting client gets a permit of an outgoing connection, but none that is reserved.
#[test]
fn a_permit_of_an_outgoing_connection_serves_a_client_only_beyond_the_reservation() {
    let limits = Config { max_connections: 4, outgoing_reserved: 1, ..config() };
    let mut world = world_of(2, limits, 1);
    let tags = add_endpoints(&mut world, 4);
    for _ in 0..2 {
        connect(&mut world);
    }
    run_until(&mut world, AT_ONCE * 10, "two connections", |world| {
        world.ledger().sum.connected == 2
    });
    clients_of(&mut world, 4, Role::Echo);
    // The second one that waits may do so in the backlog of its listener.
    run_until(&mut world, Duration::from_secs(5), "two of four", |world| {
        let sum = world.ledger().sum;
        sum.opened == 4 && sum.waiting > 0
    });
    let permits = |world: &World| (world.ledger().permits.free, world.ledger().permits_for_clients);
    assert_eq!(permits(&world), (0, 0));
    world.book.borrow_mut().kicks_all = true;
    for (closed, waiting, free) in [(1, 1, 0), (2, 1, 1)] {
        let tag = tags[4 - closed as usize];
        let id = {
            let slots = &world.shard(0).parts().1.slots;
            let of_tag = |slot: u32| slots.rare(slot).tag() == Some(tag);
            let slot = slots.iter().map(|(slot, _)| slot).find(|slot| of_tag(*slot));
            world.shard(0).parts().1.id(slot.expect("it is open"))
        };
        assert!(world.handle.kick(id).is_ok());
        go_on(&mut world, Duration::from_secs(2));
        let sum = world.ledger().sum;
        assert_eq!((sum.closed_by[Reason::Kicked as usize], sum.waiting), (closed, waiting));
        assert_eq!(permits(&world), (free, 0));
    }
    connect(&mut world);
    run_until(&mut world, AT_ONCE, "the reserved one", |world| outgoing(world) == 1);
    end(&mut world);
    assert_eq!(failed(&world), 0);
}

/// Reserved permits are free, and still an idle connection has to make room for the next client.
#[test]
fn an_idle_client_makes_room_while_only_reserved_permits_are_free() {
    let limits = Config { max_connections: 4, outgoing_reserved: 2, ..config() };
    let mut world = world_of(3, Config { evict_idle: true, ..limits }, 1);
    clients_of(&mut world, 2, Role::Echo);
    go_on(&mut world, Duration::from_secs(1));
    let next = clients_of(&mut world, 1, Role::Echo)[0];
    let served = move |world: &mut World| world.ring().peers[next].received.len() == 10;
    run_until(&mut world, Duration::from_secs(1), "the next client", served);
    assert_eq!(world.ledger().sum.closed_by[Reason::Evicted as usize], 1);
    end(&mut world);
}

/// A connect that found no descriptor held up all connects of the next 20 ms.
#[test]
fn a_connect_without_a_descriptor_fails_alone() {
    let mut world = world_of(4, config(), 1);
    add_endpoints(&mut world, 3);
    world.ring().faults = Faults { no_descriptor: 1000, ..Faults::none() };
    for so_far in 1..=2 {
        connect(&mut world);
        let fails = move |world: &mut World| failed(world) == so_far;
        at_once(&mut world, "the failure", fails);
    }
    world.ring().faults = Faults::none();
    connect(&mut world);
    at_once(&mut world, "the next connect", |world| outgoing(world) == 1);
    end(&mut world);
}

/// The same for a connect that found no permit.
#[test]
fn a_connect_without_a_permit_fails_alone() {
    let mut world = world_of(5, Config { max_connections: 1, ..config() }, 1);
    add_endpoints(&mut world, 3);
    connect(&mut world);
    run_until(&mut world, AT_ONCE * 10, "the first", |world| world.ledger().sum.connected == 1);
    connect(&mut world);
    at_once(&mut world, "the failure", |world| failed(world) == 1);
    world.book.borrow_mut().kicks_all = true;
    world.handle.kick_all().expect("there is room for it");
    at_once(&mut world, "its end", |world| world.admission.free() == 1);
    connect(&mut world);
    at_once(&mut world, "the next connect", |world| outgoing(world) == 1);
    end(&mut world);
}

/// A handler that connects again in `connect_failed` would do so for ever, without a wait.
#[test]
fn a_connect_requested_in_connect_failed_is_postponed_and_no_other() {
    let mut world = world_of(6, config(), 1);
    add_endpoints(&mut world, 1_000);
    world.book.borrow_mut().connects_again = 1;
    world.ring().faults = Faults { no_descriptor: 1000, ..Faults::none() };
    connect(&mut world);
    go_on(&mut world, Duration::from_secs(2));
    let tries = failed(&world);
    assert!((80..=101).contains(&tries), "{tries} connects in two seconds");
    // In the middle of the pause: this one is tried at once.
    while failed(&world) == tries {
        world.ring().wake();
        world.turn();
    }
    connect(&mut world);
    at_once(&mut world, "the other connect", |world| failed(world) == tries + 2);
    // A drain answers those that are postponed.
    world.drain(Duration::from_secs(1));
    run_until(&mut world, Duration::from_secs(3), "the drain", |world| world.is_over());
    world.flow_out();
    world.verdict();
}

/// Connects that a drain finds in flight end with it, and each is answered.
#[test]
fn a_drain_answers_connects_that_nobody_answers() {
    let mut world = world_of(7, config(), 1);
    add_endpoints(&mut world, 5);
    world.ring().faults = Faults { connect_silent: 1000, ..Faults::none() };
    (0..5).for_each(|_| connect(&mut world));
    run_until(&mut world, AT_ONCE, "five connects", |world| outgoing(world) == 5);
    world.drain(Duration::from_secs(1));
    run_until(&mut world, Duration::from_secs(3), "the drain", |world| world.is_over());
    assert_eq!(failed(&world), 5);
    world.flow_out();
    world.verdict();
}

/// io_uring_enter(2) was interrupted, so a connect is still in the queue when its end is requested.
/// An abort before its submission ends nothing, and the connect would wait for 127 s.
#[test]
fn a_connect_that_the_kernel_has_not_taken_ends_like_any_other() {
    let mut world = world_of(9, config(), 1);
    add_endpoints(&mut world, 1);
    go_on(&mut world, Duration::from_millis(1));
    connect(&mut world);
    at_once(&mut world, "a request", |world| world.shard(0).parts().1.connects.are_due());
    let silent = Faults { connect_silent: 1000, ..Faults::none() };
    world.ring().faults = Faults { enter_interrupted: 1000, ..silent };
    world.turn();
    world.book.borrow_mut().kicks_all = true;
    let core = world.shard(0).parts().1;
    let (slot, connection) = core.slots.iter().next().expect("the connect has its slot");
    assert_eq!(connection.state(), State::Connecting);
    // As `Local::stop_reconnecting` does in a callback of another connection.
    core.end(slot, Reason::Kicked, true);
    // The end waits while the kernel takes nothing.
    (0..5).for_each(|_| world.turn());
    assert_eq!((failed(&world), outgoing(&mut world)), (0, 1));
    world.ring().faults = silent;
    at_once(&mut world, "the answer", |world| failed(world) == 1);
    end(&mut world);
}

/// Addresses that never answer keep their slots until `connect_timeout` and nobody from connecting.
#[test]
fn silent_addresses_do_not_hold_up_the_others() {
    let connect_timeout = Duration::from_millis(500);
    let mut world = world_of(8, Config { connect_timeout, ..config() }, 1);
    add_endpoints(&mut world, 20);
    world.ring().faults = Faults { connect_silent: 1000, ..Faults::none() };
    (0..10).for_each(|_| connect(&mut world));
    run_until(&mut world, AT_ONCE, "ten connects", |world| outgoing(world) == 10);
    world.ring().faults = Faults::none();
    (0..10).for_each(|_| connect(&mut world));
    let open = |world: &mut World| {
        let slots = &world.shard(0).parts().1.slots;
        slots.iter().filter(|(_, it)| it.state() == State::Open).count() == 10
    };
    run_until(&mut world, Duration::from_millis(60), "the others", open);
    assert_eq!(failed(&world), 0);
    run_until(&mut world, Duration::from_millis(600), "the silent ones", |world| {
        failed(world) == 10
    });
    end(&mut world);
}

/// The only permit stays with the attempt while its first address is silent and its second one
/// answers. A client that waits meanwhile would get it otherwise.
#[test]
fn an_attempt_keeps_its_permit_from_one_address_to_the_next() {
    let mut world = world_of(10, Config { max_connections: 1, ..config() }, 1);
    add_endpoints(&mut world, 1);
    world.ring().faults = silent();
    let first: SocketAddr = ([10, 9, 0, 1], 1).into();
    let timeout = Duration::from_millis(50);
    let both = |second| Connect::from(vec![first, second]).timeout(timeout);
    connect_by(&mut world, both);
    run_until(&mut world, AT_ONCE, "the first address", |world| outgoing(world) == 1);
    world.ring().faults = Faults::none();
    clients_of(&mut world, 1, Role::Echo);
    let begun_us = world.now_us();
    run_until(&mut world, Duration::from_millis(150), "the second address", |world| {
        world.ledger().sum.connected == 1
    });
    assert!(world.now_us() > begun_us + 40_000, "the first address had {timeout:?}");
    assert_eq!((failed(&world), world.ledger().permits.free), (0, 0));
    assert_eq!(world.ledger().sum.opened, 1, "the client waits");
    end(&mut world);
}

/// Each address gets the whole time, and the callback comes once.
#[test]
fn silent_addresses_are_tried_one_after_another() {
    let connect_timeout = Duration::from_millis(300);
    let mut world = world_of(11, Config { connect_timeout, ..config() }, 1);
    add_endpoints(&mut world, 1);
    world.ring().faults = silent();
    connect_by(&mut world, |address| Connect::from(vec![address; 3]));
    let begun_us = world.now_us();
    run_until(&mut world, Duration::from_secs(1), "the failure", |world| failed(world) == 1);
    let took_us = world.now_us() - begun_us;
    assert!(took_us >= 890_000, "three addresses in {took_us} us");
    end(&mut world);
}

/// It ends wherever the attempt stands, and tries no other address.
#[test]
fn a_cancelled_connect_ends_at_once() {
    let mut world = world_of(12, Config { workers: 1, ..config() }, 1);
    add_endpoints(&mut world, 3);
    world.ring().faults = silent();
    world.shift.borrow_mut().rests = true;
    let in_flight = connect_by(&mut world, |address| Connect::from(vec![address; 2]));
    let resolving = connect_by(&mut world, name_of);
    let other = connect_by(&mut world, Connect::from);
    run_until(&mut world, AT_ONCE, "two connects", |world| outgoing(world) == 2);
    for (tag, so_far) in [(in_flight, 1), (resolving, 2)] {
        world.handle.cancel_connect(0, tag).expect("there is room for it");
        at_once(&mut world, "the failure", move |world| failed(world) == so_far);
        // A second time it finds nothing.
        world.handle.cancel_connect(0, tag).expect("there is room for it");
    }
    run_until(&mut world, AT_ONCE, "the slot", |world| outgoing(world) == 1);
    // Nobody waits for the address any more.
    resume_workers(&mut world);
    run_until(&mut world, Duration::from_secs(3), "the address", |world| {
        world.ledger().sum.jobs_unclaimed == 1
    });
    assert_eq!((failed(&world), outgoing(&mut world)), (2, 1), "{other} goes on");
    end(&mut world);
}

#[test]
fn a_name_is_resolved_by_a_worker_within_the_time_of_an_address() {
    let mut world = world_of(13, Config { workers: 1, ..config() }, 1);
    add_endpoints(&mut world, 2);
    resume_workers(&mut world);
    connect_by(&mut world, name_of);
    run_until(&mut world, Duration::from_secs(3), "the name", |world| {
        world.ledger().sum.connected == 1
    });
    world.shift.borrow_mut().rests = true;
    let begun_us = world.now_us();
    connect_by(&mut world, |address| name_of(address).timeout(Duration::from_millis(300)));
    run_until(&mut world, Duration::from_millis(400), "the failure", |world| failed(world) == 1);
    let took_us = world.now_us() - begun_us;
    assert!(took_us >= 290_000, "the name had {took_us} us");
    resume_workers(&mut world);
    end(&mut world);
}

/// A drain does not wait for a resolver that hangs.
#[test]
fn a_drain_ends_a_connect_whose_name_is_being_resolved() {
    let mut world = world_of(14, Config { workers: 1, ..config() }, 1);
    add_endpoints(&mut world, 1);
    world.shift.borrow_mut().rests = true;
    connect_by(&mut world, name_of);
    run_until(&mut world, AT_ONCE, "the job", |world| world.ledger().sum.jobs_submitted == 1);
    world.drain(Duration::from_secs(60));
    run_until(&mut world, Duration::from_secs(1), "the drain", |world| world.is_over());
    assert_eq!(failed(&world), 1);
    resume_workers(&mut world);
    world.flow_out();
    world.verdict();
}
