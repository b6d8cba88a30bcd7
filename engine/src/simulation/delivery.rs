//! Deadlines and endings go by what the peer has acknowledged.

use super::book::{Begins, Farewell, Mark, Role, Then};
use super::callbacks::Callback;
use super::scenarios::{config, end, go_on, part, world_of};
use super::world::World;
use super::{run::be_quiet, run_until};
use crate::ring::simulated::{Afterwards, Faults, NEVER, Plan, Standing};
use crate::{Config, Reason};
use std::time::Duration;

const REPLY_BYTES: u64 = 40_000;

fn world(seed: u64, config: Config) -> World {
    be_quiet();
    world_of(seed, config, 1)
}

/// A peer whose socket takes the whole reply at once, and which then reads it slowly.
fn add_slow_reader(world: &mut World, role: Role, afterwards: Afterwards, bytes: usize) -> usize {
    let slow = Plan { read_chunk_max: 500, pace_us: 20_000, afterwards, ..Plan::plain() };
    let peer = world.add_peer(slow, part(role, Farewell::CloseLater), bytes);
    let slow = &mut world.ring().peers[peer];
    // A larger receive buffer would acknowledge the reply before it is read.
    slow.unread_capacity = 4096;
    (slow.socket.outbound_capacity, slow.socket.inbound_capacity) = (1 << 20, 1 << 20);
    peer
}

/// Turns the world until the whole reply is acknowledged. The connection must last until then.
fn deliver(world: &mut World, peer: usize) {
    let delivered = |world: &mut World| world.ring().peers[peer].acknowledged() == REPLY_BYTES;
    run_until(world, Duration::from_secs(60), "the whole reply", delivered);
    assert_eq!(world.ring().closes_undelivered, 0, "closed while its peer reads");
}

/// A stalled reader was given twice the time, because the first look always counted as progress.
#[test]
fn a_reader_that_stalls_is_late_at_the_deadline_and_not_much_later() {
    for (seed, deadline_ms) in [200, 1_000, 30_000, 200_000].into_iter().enumerate() {
        let write_timeout = Some(Duration::from_millis(deadline_ms));
        let mut world = world(seed as u64, Config { write_timeout, ..config() });
        // More than the buffers of both ends hold.
        let greeter = part(Role::Greeter(10 * REPLY_BYTES), Farewell::Close);
        let peer = world.add_peer(Plan { stall_us: NEVER, ..Plan::plain() }, greeter, 0);
        let (mut last, mut last_us) = ((0, 0), 0);
        let give_up_us = world.now_us() + 10_000 * deadline_ms;
        while world.ring().peers[peer].standing != Standing::GotReset {
            assert!(world.now_us() < give_up_us, "still open after ten times {deadline_ms} ms");
            world.turn();
            let peer = &world.ring().peers[peer];
            let now = (peer.acknowledged(), peer.socket.outbound.len());
            if now != last && peer.standing == Standing::Connected {
                (last, last_us) = (now, world.now_us());
            }
        }
        let after_ms = (world.now_us() - last_us) / 1000;
        let latest_ms = deadline_ms * 105 / 100 + 8;
        assert!(
            (deadline_ms - 1..=latest_ms).contains(&after_ms),
            "{after_ms} of {deadline_ms} ms"
        );
        end(&mut world);
        assert_eq!(world.ledger().sum.closed_by[Reason::WriteTimeout as usize], 1);
    }
}

/// With both FINs there, the slot and the permit came back although the peer still read.
#[test]
fn a_reply_keeps_its_slot_until_it_is_acknowledged() {
    let ends = [
        (Role::Lecturer(REPLY_BYTES), Afterwards::Fin),
        (Role::Lecturer(REPLY_BYTES), Afterwards::Wait),
        (Role::Greeter(REPLY_BYTES), Afterwards::Fin),
        (Role::Greeter(REPLY_BYTES), Afterwards::Wait),
    ];
    for (seed, (role, afterwards)) in ends.into_iter().enumerate() {
        let write_timeout = Some(Duration::from_millis(500));
        let linger_timeout = Duration::from_millis(10);
        let config = Config { write_timeout, linger_timeout, ..config() };
        let mut world = world(seed as u64, config);
        let peer = add_slow_reader(&mut world, role, afterwards, 0);
        deliver(&mut world, peer);
        let closed = |world: &mut World| world.ledger().sum.closed == 1;
        run_until(&mut world, Duration::from_secs(1), "the end after it", closed);
        end(&mut world);
        assert_eq!(world.ring().peers[peer].received.len() as u64, REPLY_BYTES);
    }
}

/// Sets a marker that waits for the peer behind everything said so far. Returns its place.
fn mark_for_peer(world: &mut World) -> usize {
    let mut book = world.book.borrow_mut();
    let record = &mut book.records[0];
    let bytes = record.said.iter().map(|piece| piece.bytes).sum();
    assert_eq!(bytes, REPLY_BYTES);
    record.markers.push(Mark::new(bytes, true));
    let (id, tag) = (record.id, record.markers.len() as u64);
    drop(book);
    let marks = move |connection: &mut crate::Connection<'_>| connection.mark_acknowledged(tag);
    world.handle.run_on_connection(id, marks).expect("there is room");
    tag as usize - 1
}

#[test]
fn a_marker_for_the_peer_is_reached_when_the_peer_has_the_bytes() {
    for seed in 0..10 {
        let mut world = world(seed, config());
        let peer = add_slow_reader(&mut world, Role::Echo, Afterwards::Wait, REPLY_BYTES as usize);
        let left = |world: &mut World| world.ledger().sum.bytes_sent == REPLY_BYTES;
        run_until(&mut world, Duration::from_secs(10), "the whole echo", left);
        assert!(world.ring().peers[peer].taken < REPLY_BYTES / 2);
        let at = mark_for_peer(&mut world);
        let told = move |world: &mut World| world.book.borrow().records[0].markers[at].told;
        let taken = move |world: &mut World| {
            let taken = world.ring().peers[peer].taken;
            assert!(taken == REPLY_BYTES || !told(world), "{taken} bytes at the marker");
            taken == REPLY_BYTES
        };
        run_until(&mut world, Duration::from_secs(60), "the last acknowledgement", taken);
        run_until(&mut world, Duration::from_millis(300), "the marker", told);
        end(&mut world);
    }
}

#[test]
fn markers_for_the_peer_tell_what_a_reset_has_destroyed() {
    for (seed, role) in [Role::Echo, Role::Lecturer(REPLY_BYTES)].into_iter().cycle().enumerate() {
        if seed == 10 {
            break;
        }
        let mut world = world(seed as u64, config());
        let bytes = if role == Role::Echo { REPLY_BYTES as usize } else { 0 };
        let peer = add_slow_reader(&mut world, role, Afterwards::Wait, bytes);
        let left = |world: &mut World| world.ledger().sum.bytes_sent == REPLY_BYTES;
        run_until(&mut world, Duration::from_secs(10), "the whole reply", left);
        mark_for_peer(&mut world);
        go_on(&mut world, Duration::from_millis(100));
        world.ring().peer_resets(peer);
        let closed = |world: &mut World| world.ledger().sum.closed == 1;
        run_until(&mut world, Duration::from_secs(5), "the end", closed);
        end(&mut world);
        let taken = world.ring().peers[peer].taken;
        let book = world.book.borrow();
        let of_peer = book.records[0].markers.iter().filter(|mark| mark.of_peer);
        let missing_bytes: u64 = of_peer.map(|mark| mark.missing_bytes).sum();
        assert_eq!((missing_bytes, taken < REPLY_BYTES), (REPLY_BYTES - taken, true));
    }
}

/// A peer that stops reading the end of a reply is not waited for longer than elsewhere.
#[test]
fn a_reply_that_is_not_read_to_its_end_gives_its_slot_up() {
    let write_timeout = Some(Duration::from_millis(500));
    let mut world = world(1, Config { write_timeout, ..config() });
    let lecturer = part(Role::Lecturer(REPLY_BYTES), Farewell::Close);
    let stalls = Plan { stall_us: NEVER, afterwards: Afterwards::Fin, ..Plan::plain() };
    let peer = world.add_peer(stalls, lecturer, 0);
    world.ring().peers[peer].socket.outbound_capacity = 1 << 20;
    let closed = |world: &mut World| world.ledger().sum.closed == 1;
    run_until(&mut world, Duration::from_secs(1), "the end of a stalled reader", closed);
    end(&mut world);
}

/// A reset behind the peer's FIN makes a send fail with EPIPE. That ended accepting for everybody.
#[test]
fn a_broken_pipe_ends_one_connection_and_not_the_listener() {
    let mut world = world(7, config());
    let lecturer = part(Role::Lecturer(REPLY_BYTES), Farewell::Close);
    let (stall_us, reset_us) = (NEVER, 50_000);
    let leaves = Plan { stall_us, reset_us, afterwards: Afterwards::Fin, ..Plan::plain() };
    let peer = world.add_peer(leaves, lecturer, 0);
    world.ring().peers[peer].socket.outbound_capacity = 4096;
    let closed = |world: &mut World| world.ledger().sum.closed == 1;
    run_until(&mut world, Duration::from_secs(1), "the end of the first client", closed);
    let next = world.add_peer(Plan::plain(), part(Role::Echo, Farewell::Close), 10);
    let echoed = |world: &mut World| world.ring().peers[next].received.len() == 10;
    run_until(&mut world, Duration::from_secs(1), "the echo of the next client", echoed);
    end(&mut world);
}

/// A client that read slowly what had left long before was closed as idle.
#[test]
fn whoever_reads_is_not_idle() {
    let idle_timeout = Some(Duration::from_millis(200));
    let mut world = world(2, Config { idle_timeout, ..config() });
    let peer = add_slow_reader(&mut world, Role::Echo, Afterwards::Wait, REPLY_BYTES as usize);
    let closed = |world: &mut World| world.ledger().sum.closed == 1;
    run_until(&mut world, Duration::from_secs(60), "the end of an idle connection", closed);
    assert!(world.ring().peers[peer].acknowledged() >= REPLY_BYTES);
    assert_eq!(world.ledger().sum.closed_by[Reason::IdleTimeout as usize], 1);
    end(&mut world);
}

/// The same for a connection that is to finish, when quiet for a while or once it is at rest.
/// In that case our FIN comes first, and the slot is kept.
#[test]
fn whoever_reads_has_not_finished() {
    for seed in 0..10 {
        let mut world = world(seed, config());
        let finish = Role::FinishAfter(REPLY_BYTES);
        let peer = add_slow_reader(&mut world, finish, Afterwards::Wait, REPLY_BYTES as usize);
        deliver(&mut world, peer);
        let fin = |world: &mut World| world.ring().peers[peer].socket.shut_write;
        run_until(&mut world, Duration::from_secs(10), "our FIN", fin);
        end(&mut world);
        assert_eq!(world.ring().peers[peer].received.len() as u64, REPLY_BYTES);
    }
}

/// Input that came while the process was stopped lay in the sockets, and deadlines fired first.
#[test]
fn what_came_during_a_pause_precedes_the_deadlines() {
    for seed in 0..60 {
        let receive_timeout = Some(Duration::from_millis(500));
        let mut world = world(seed, Config { receive_timeout, receive_buffers: 2, ..config() });
        let whole = part(Role::Whole(100), Farewell::Close);
        let peers: Vec<_> = (0..6).map(|_| world.add_peer(Plan::plain(), whole, 50)).collect();
        go_on(&mut world, Duration::from_millis(100));
        world.ring().faults = Faults { delay: 700, ..Faults::none() };
        for peer in &peers {
            world.sends((0, *peer), 50);
        }
        world.ring().pass(Duration::from_secs(3));
        go_on(&mut world, Duration::from_secs(1));
        world.ring().faults = Faults::none();
        let late = world.ledger().sum.closed_by[Reason::ReceiveTimeout as usize];
        assert_eq!(late, 0, "seed {seed}");
        end(&mut world);
    }
}

/// The same holds for the application's timer: a handler takes it for a deadline of the peer's.
#[test]
fn what_came_during_a_pause_precedes_the_timer() {
    for seed in 0..20 {
        let mut world = world(seed, config());
        let timer = part(Role::Ends(Begins::Timer, Then::Nothing), Farewell::Close);
        let peer = world.add_peer(Plan::plain(), timer, 10);
        let shown = |world: &mut World| world.book.borrow().records.first().map(|it| it.shown);
        let fired = |world: &mut World| {
            world.book.borrow().records[0].called.list.contains(&Callback::Timer)
        };
        run_until(&mut world, Duration::from_secs(2), "the timer", |world| shown(world) > Some(0));
        // The first looks into the ring bring nothing.
        world.ring().faults = Faults { delay: 1000, ..Faults::none() };
        world.sends((0, peer), 10);
        world.ring().pass(Duration::from_secs(3));
        for _ in 0..3 {
            world.turn();
            assert!(!fired(&mut world), "seed {seed}: before {:?} bytes", shown(&mut world));
        }
        world.ring().faults = Faults::none();
        run_until(&mut world, Duration::from_secs(1), "the timer", fired);
        assert_eq!(shown(&mut world), Some(20), "seed {seed}");
        end(&mut world);
    }
}

/// A peer that sends on after our close took a buffer for every piece, and beyond a megabyte nobody
/// read on: it hung in its send.
#[test]
fn what_is_thrown_away_takes_no_buffer_and_has_an_end() {
    let times = Config {
        linger_timeout: Duration::from_secs(1),
        linger_total: Duration::from_secs(3),
        ..config()
    };
    let mut world = world(4, Config { receive_buffers: 1, ..times });
    let close = part(Role::CloseAfter(1), Farewell::Close);
    let sender = world.add_peer(Plan { send_chunk_max: 1000, ..Plan::plain() }, close, 3_000_000);
    let fin = |world: &mut World| world.ring().peers[sender].got_fin;
    run_until(&mut world, Duration::from_secs(1), "the refusal", fin);
    let starved = world.ledger().sum.starved;
    let sent = |world: &mut World| world.ring().peers[sender].to_send.is_empty();
    run_until(&mut world, Duration::from_secs(3), "all that it has to send", sent);
    assert_eq!(world.ledger().sum.starved, starved);

    let endless = world.add_peer(Plan { send_chunk_max: 10, ..Plan::plain() }, close, 3_000_000);
    let reset = |world: &mut World| world.ring().peers[endless].standing == Standing::GotReset;
    let begun_us = world.now_us();
    run_until(&mut world, Duration::from_secs(5), "the end of an endless upload", reset);
    let took_us = world.now_us() - begun_us;
    assert!(took_us >= 2_990_000, "it took {took_us} us");
    end(&mut world);
}
