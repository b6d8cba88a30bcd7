//! Facts of io_uring that another ring need not share.

use super::*;
use crate::ring::facts::ending::read_one;
use crate::ring::facts::files::Tree;
use crate::ring::facts::{
    A_WHILE, PATIENCE, TestedRing, event, pair, poll_readable, ring_of, setup, token,
};
use crate::ring::{Descriptor, Features};

fn ring() -> Option<KernelRing> {
    ring_of(&setup())
}

#[test]
fn waiting_counts_as_io_only_where_the_kernel_lacks_the_feature() {
    assert_eq!(wait_flags(false), EnterFlags::EXT_ARG);
    assert_eq!(wait_flags(true), EnterFlags::EXT_ARG | EnterFlags::NO_IOWAIT);
    let Some(ring) = ring() else { return };
    let has = ring.ring.params().is_feature_no_iowait();
    assert_eq!(ring.enter_flags.contains(EnterFlags::NO_IOWAIT), has);
}

/// A ring without some features of the kernel.
fn ring_without(change: fn(&mut Features)) -> Option<KernelRing> {
    let mut setup = setup();
    change(&mut setup.features);
    ring_of(&setup)
}

/// A feature that is switched off counts as one that the kernel lacks.
#[test]
fn what_is_switched_off_is_not_used() {
    let off = |change| ring_without(change);
    let Some(ring) = off(|features| features.no_iowait = false) else { return };
    assert!(!ring.enter_flags.contains(EnterFlags::NO_IOWAIT));
    let ring = off(|features| features.multishot_receive = false).expect("a ring");
    assert!(!ring.has_multishot_receive());
    let mut ring = off(|features| features.cachestat = false).expect("a ring");
    let tree = Tree::new();
    let file = tree.file(b"cached");
    assert!(!ring.is_cached(file, 0, 6));
    calls::close(file);
}

#[test]
fn without_a_required_feature_there_is_no_ring() {
    if !KernelRing::is_allowed() {
        return;
    }
    let error = |change: fn(&mut Features)| {
        let mut setup = setup();
        change(&mut setup.features);
        KernelRing::new(&setup).map(drop).expect_err("a feature is missing")
    };
    let lacks = |missing| CreateRingError::lacks(missing);
    assert_eq!(error(|features| features.ext_arg = false), lacks("IORING_FEAT_EXT_ARG"));
    assert_eq!(error(|features| features.buffer_ring = false), lacks("IORING_REGISTER_PBUF_RING"));
}

/// The question leaves nothing behind: no completion, no operation in flight, no counter.
#[test]
fn asking_for_multishot_receives_leaves_nothing() {
    let Some(mut ring) = ring() else { return };
    assert!(ring.has_multishot_receive(), "Linux 6.0");
    assert_eq!((ring.counters(), ring.in_flight()), (RingCounters::default(), 0));
    ring.assert_quiet();
}

#[test]
fn a_full_completion_queue_delays_and_is_counted() {
    let setup = Setup { completion_entries: 8, ..setup() };
    let Some(mut ring) = ring_of::<KernelRing>(&setup) else { return };
    let event = event(1);
    let count = 64;
    for number in 0..count {
        ring.submit(number, poll_readable(event));
    }
    let found = ring.collect(count as usize);
    assert!(found.iter().map(|completion| completion.token).eq((0..count).map(token)));
    assert!(ring.counters().overflows > 0);
    calls::close(event);
}

/// One call runs at most 20 completions' work unless more are wanted.
#[test]
fn one_call_brings_as_many_as_are_wanted() {
    let Some(mut ring) = ring() else { return };
    let sleeping: Vec<Descriptor> = (0..48).map(|_| event(0)).collect();
    for (number, event) in (0..).zip(&sleeping) {
        ring.submit(number, poll_readable(*event));
    }
    ring.submit_and_wait(0, Duration::ZERO).expect("a working ring");
    assert!(ring.completion().is_none());
    for event in &sleeping {
        calls::signal_event(*event);
    }
    let enters = ring.counters().enters;
    ring.submit_and_wait(48, PATIENCE).expect("a working ring");
    assert_eq!(std::iter::from_fn(|| ring.completion()).count(), 48);
    assert_eq!(ring.counters().enters, enters + 1);
    sleeping.into_iter().for_each(calls::close);
}

/// A thread's table of registered rings has 16 places, and a ring that kept its place would live
/// on with its thread.
#[test]
fn a_dropped_ring_gives_its_place_in_the_thread_back() {
    for _ in 0..20 {
        let Some(mut ring) = ring() else { return };
        assert!(matches!(ring.enter, EnterDescriptor::Registered(_)));
        let event = event(1);
        ring.submit(0, poll_readable(event));
        assert!(ring.one().result > 0);
        calls::close(event);
    }
}

#[test]
fn rings_beyond_the_thread_s_table_work_with_their_plain_descriptor() {
    let mut rings: Vec<KernelRing> = (0..17).filter_map(|_| ring()).collect();
    let Some(last) = rings.last_mut() else { return };
    assert!(matches!(last.enter, EnterDescriptor::Plain(_)));
    let event = event(1);
    last.submit(0, poll_readable(event));
    assert!(last.one().result > 0);
    calls::close(event);
}

/// The kernel registers at most 1 GiB as one buffer. Small pieces stand for such large ones here.
#[test]
fn reading_works_with_the_arena_registered_in_pieces() {
    let tree = Tree::new();
    let file = tree.file(b"0123456789");
    let setup = setup();
    let Some(mut ring) = ring_of::<KernelRing>(&setup) else { return };
    let piece_bytes = 3 * 4096;
    let arena = ring.register_arena(&setup, piece_bytes).expect("memory can be registered");
    let arena = ring.arena.insert(arena.expect("there is room in RLIMIT_MEMLOCK"));
    let at = |offset: usize| setup.arena_address.wrapping_add(offset);
    let last = setup.arena_bytes - 100;
    assert_eq!(arena.index(at(0), 100), Some(0));
    assert_eq!(arena.index(at(piece_bytes - 100), 100), Some(0));
    assert_eq!(arena.index(at(piece_bytes - 1), 2), None);
    assert_eq!(arena.index(at(piece_bytes), 100), Some(1));
    assert_eq!(arena.index(at(last), 100), Some(5));
    for offset in [0, piece_bytes - 50, piece_bytes, 4 * piece_bytes - 1, last] {
        ring.submit(0, Op::Read { file, address: at(offset), length: 100, offset: 4 });
        assert_eq!(ring.one().result, 6, "at {offset}");
        // SAFETY: the kernel has written there, and is done.
        assert_eq!(unsafe { std::slice::from_raw_parts(at(offset), 6) }, b"456789");
    }
    calls::close(file);
}

/// The armed receive holds the file: no FIN until it ends.
#[test]
fn closing_under_an_armed_receive_tells_the_peer_nothing() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut peer) = pair();
    ring.provide(0);
    ring.submit(0, Op::Receive { socket: ours, multishot: true });
    ring.submit(1, Op::Close { descriptor: ours });
    assert_eq!(ring.one().token, token(1));
    peer.set_read_timeout(Some(A_WHILE)).expect("a timeout");
    let waiting = read_one(&mut peer).expect_err("no end");
    assert_eq!(waiting.raw_os_error(), Some(libc::EAGAIN));
    ring.submit(2, Op::Cancel { target: token(0) });
    ring.collect(2);
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(read_one(&mut peer).expect("an end"), 0);
}
