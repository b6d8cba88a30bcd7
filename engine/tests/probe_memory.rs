//! Kernel memory per armed probe: what the figures at `IdleOperation` rest on.

use io_uring::{IoUring, opcode, squeue, types};
use ringwright_test_support::needs_io_uring;
use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// Each probe is measured so often, in turns. The median counts: what else the machine does
/// meanwhile comes and goes.
const ROUNDS: usize = 3;
/// Connections on whose one end a probe is armed each time. Both ends are descriptors of this
/// process, 18,000 in all. What a CPU keeps for itself counts as in use; that is little against
/// so many.
const PROBES: usize = 1_500;
const ENTRIES: u32 = 256;

/// Bytes of the objects in use of each slab cache that a request can come from (slabinfo(5)): its
/// own, and those of kmalloc. Sockets and files, which others open and close meanwhile, have
/// theirs. Not the pages: what others have left free in them is taken first.
fn slabs() -> BTreeMap<String, i64> {
    let text = std::fs::read_to_string("/proc/slabinfo").expect("/proc/slabinfo");
    let cache = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| columns[at].parse::<i64>().unwrap();
        // Name, objects in use, objects, bytes of an object, …
        (columns[0].to_owned(), number(1) * number(3))
    };
    let is_of_requests = |name: &str| name == "io_kiocb" || name.starts_with("kmalloc-");
    text.lines().skip(2).map(cache).filter(|(name, _)| is_of_requests(name)).collect()
}

/// What is armed, and bytes that the kernel allocated for each.
fn arm(ends: &[TcpStream], probe: fn(types::Fd) -> squeue::Entry) -> (IoUring, i64) {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(ENTRIES)
        .unwrap();
    let before = slabs();
    for some in ends.chunks(ENTRIES as usize) {
        for end in some {
            let entry = probe(types::Fd(end.as_raw_fd()));
            // SAFETY: the entry has no memory, and its socket outlives the ring.
            unsafe { ring.submission().push(&entry).unwrap() };
        }
        assert_eq!(ring.submit().unwrap(), some.len());
    }
    let after = slabs();
    assert!(ring.completion().next().is_none(), "a probe does not wait on a silent connection");
    let grown: i64 = after.iter().map(|(name, bytes)| bytes - before.get(name).unwrap_or(&0)).sum();
    (ring, grown / ends.len() as i64)
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn a_poll_costs_less_than_half_of_a_receive() {
    if !needs_io_uring() || !ringwright_test_support::needs_root("it reads /proc/slabinfo") {
        return;
    }
    let descriptors = ringwright_test_support::raise_descriptor_limit();
    assert!(descriptors > 4 * ROUNDS * PROBES, "{descriptors} descriptors: raise it (ulimit -Hn)");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ends, _peers): (Vec<TcpStream>, Vec<TcpStream>) = (0..2 * ROUNDS * PROBES)
        .map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0))
        .unzip();
    // The rings stay until the end: what one gives back the next one would take.
    let (mut rings, mut receives, mut polls) = (Vec::new(), Vec::new(), Vec::new());
    for ends in ends.chunks(2 * PROBES) {
        let (ring, bytes) = arm(&ends[..PROBES], |socket| {
            opcode::Recv::new(socket, std::ptr::null_mut(), 0).build()
        });
        rings.push(ring);
        receives.push(bytes);
        let (ring, bytes) = arm(&ends[PROBES..], |socket| {
            opcode::PollAdd::new(socket, (libc::POLLIN | libc::POLLRDHUP) as u32).build()
        });
        rings.push(ring);
        polls.push(bytes);
    }
    eprintln!("each round, bytes: zero-length receive {receives:?}, poll {polls:?}");
    let (receive, poll) = (median(receives), median(polls));
    println!(
        "kernel memory per armed probe: zero-length receive {receive} bytes, poll {poll} bytes"
    );
    assert!(poll > 100, "{poll} bytes are less than the request itself: the count is wrong");
    assert!(2 * poll < receive, "poll {poll} bytes, zero-length receive {receive} bytes");
}
