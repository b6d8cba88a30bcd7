//! At most three connections, and clients that open four at a time and leave at once.
//!
//! That no more than three are ever open is seen in three ways. Strictly, by the clients: whoever
//! has been answered and has not begun to leave is open, and is counted. Exactly, when a round of
//! clients is over and eight hold still: the ledger's open ones, and the descriptors less the
//! waiting ones. And all the time the same two are sampled: the shards and the descriptors are
//! seen at different moments then, so that a sample may show more, but not one after the other.
//!
//! With `RINGWRIGHT_FULL` each setting makes 200,000 connections, which takes about two minutes for
//! all settings on two cores; otherwise a tenth.

use crate::{PATIENCE, PROGRAM, alone, same, scaled, until};
use ringwrightd_test_support::daemon::Daemon;
use ringwrightd_test_support::socket::{self, Sources};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PERMITS: usize = 3;
/// Threads of clients, with four connections each.
const CLIENTS: u8 = 4;
const AT_A_TIME: usize = 4;
/// Every so many times a client asks before it leaves. It shows that those before it did not get
/// lost, and keeps the clients from getting ahead of the server by more than its backlog.
const ASK_EVERY: usize = 8;
/// Whoever was answered stays so long: long enough to meet a fourth one, if one is let in.
const STAY: Duration = Duration::from_micros(100);
/// Connections between two looks at eight that hold still.
const ROUND: usize = 10_000;
/// Connections per setting.
const CONNECTIONS: usize = 200_000;
const STILL: usize = 8;
/// A round takes half a second. One where each permit waits for a clock instead of being handed
/// on at once takes minutes.
const ROUND_MAX: Duration = Duration::from_secs(30);
/// So many samples in a row, 0.3 s of a round, must not show more than there are permits; every
/// second one may.
const BEYOND_MAX: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// FIN at once.
    AtOnce,
    /// RST at once.
    Reset,
    /// FIN after some bytes, whose echo is read to the end.
    HalfClose,
    /// All of these, where the fourth is turned away.
    Rejected,
}

/// What the clients of one setting share.
struct Crowd<'a> {
    daemon: &'a Daemon,
    /// Descriptors before anybody came.
    at_rest: usize,
    shards: usize,
    leaving: Leaving,
    made: AtomicU64,
    turned_away: AtomicU64,
    /// Answered, and not yet leaving.
    held: AtomicUsize,
    held_max: AtomicUsize,
}

#[test]
fn at_capacity_one_shard() {
    at_capacity(1);
}

#[test]
fn at_capacity_two_shards() {
    at_capacity(2);
}

#[test]
fn at_capacity_four_shards() {
    at_capacity(4);
}

fn at_capacity(shards: usize) {
    let _alone = alone();
    let leavings = [Leaving::AtOnce, Leaving::Reset, Leaving::HalfClose, Leaving::Rejected];
    for leaving in leavings {
        let connections = scaled(CONNECTIONS);
        let begun = Instant::now();
        setting(shards, leaving, connections);
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("{shards} shards, {leaving:?}: {connections} connections in {seconds:.1} s");
    }
}

fn setting(shards: usize, leaving: Leaving, connections: usize) {
    let policy = if leaving == Leaving::Rejected { "reject" } else { "wait" };
    let daemon = Daemon::start(
        PROGRAM,
        "echo",
        &["--max-connections", "3", "--shards", &shards.to_string(), "--at-capacity", policy],
    );
    let crowd = Crowd {
        at_rest: daemon.descriptors_at_rest(),
        daemon: &daemon,
        shards,
        leaving,
        made: AtomicU64::new(0),
        turned_away: AtomicU64::new(0),
        held: AtomicUsize::new(0),
        held_max: AtomicUsize::new(0),
    };
    let mut sources: Vec<Sources> = (0..=CLIENTS).map(Sources::new).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| crowd.watch(&over));
        let _over = SetOnDrop(&over);
        let (rounds, last) = (connections.div_ceil(ROUND), CLIENTS as usize);
        for round in 0..rounds {
            crowd.round(&mut sources[..last], ROUND.min(connections - round * ROUND));
            assert!(!watch.is_finished(), "what watched the ledger has failed");
            crowd.hold_still(&mut sources[last]);
        }
    });
    crowd.is_exactly(0, 0);
    let made = crowd.made.load(Ordering::Relaxed);
    let turned_away = crowd.turned_away.load(Ordering::Relaxed);
    let held_max = crowd.held_max.load(Ordering::Relaxed);
    let ledger = daemon.stop();
    eprintln!(
        "  {turned_away} saw that they were turned away, {held_max} were held at most; {:?}, {:?}",
        ledger.nonzero("connections"),
        ledger.nonzero("closed_by"),
    );
    let count = |name: &str| ledger.number(&format!("connections.{name}"));
    assert_eq!(count("accepted"), made, "{ledger:?}");
    let met = ["opened", "rejected", "reset_before_accept", "gone_while_waiting"];
    assert_eq!(count("accepted"), met.map(count).iter().sum::<u64>(), "{ledger:?}");
    assert_eq!(count("rejected") > 0, leaving == Leaving::Rejected, "{ledger:?}");
    assert!(held_max > 1, "they were never there together, which shows nothing");
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Crowd<'_> {
    /// So many connections, four at a time from each client.
    fn round(&self, sources: &mut [Sources], connections: usize) {
        let (begun, batches) = (Instant::now(), AtomicUsize::new(connections.div_ceil(AT_A_TIME)));
        thread::scope(|scope| {
            for sources in sources {
                scope.spawn(|| {
                    let more = |left: usize| left.checked_sub(1);
                    let (order, batches) = (Ordering::Relaxed, &batches);
                    while let Ok(left) = batches.fetch_update(order, order, more) {
                        self.batch(sources, left.is_multiple_of(ASK_EVERY));
                        assert!(
                            begun.elapsed() < ROUND_MAX,
                            "{left} times {AT_A_TIME} of {connections} to go"
                        );
                    }
                });
            }
        });
    }

    fn connect(&self, sources: &mut Sources) -> TcpStream {
        self.made.fetch_add(1, Ordering::Relaxed);
        sources.connect(self.daemon.address).unwrap_or_else(|error| panic!("connect: {error}"))
    }

    fn batch(&self, sources: &mut Sources, asks: bool) {
        let streams: Vec<TcpStream> = (0..AT_A_TIME).map(|_| self.connect(sources)).collect();
        match self.leaving {
            _ if asks => self.ask_and_leave(streams),
            Leaving::AtOnce => drop(streams),
            Leaving::Reset => streams.into_iter().for_each(socket::reset),
            Leaving::HalfClose => self.half_close(streams),
            Leaving::Rejected => {
                let mut streams = streams.into_iter();
                drop(streams.next());
                streams.next().into_iter().for_each(socket::reset);
                self.half_close(streams.collect());
            }
        }
    }

    fn is_reject(&self) -> bool {
        self.leaving == Leaving::Rejected
    }

    /// Each says something and hears it again, in whatever order they are let in.
    fn ask_and_leave(&self, mut streams: Vec<TcpStream>) {
        for stream in &mut streams {
            self.write(stream, b"?");
        }
        while !streams.is_empty() {
            let ready = socket::readable(&streams, PATIENCE);
            assert!(!ready.is_empty(), "{} of a batch wait for ever", streams.len());
            for at in ready.into_iter().rev() {
                let mut stream = streams.swap_remove(at);
                if !self.is_answered(&mut stream) {
                    continue;
                }
                self.hold();
                thread::sleep(STAY);
                self.held.fetch_sub(1, Ordering::SeqCst);
                match self.leaving {
                    Leaving::Reset => socket::reset(stream),
                    _ => drop(stream),
                }
            }
        }
    }

    fn hold(&self) {
        let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        self.held_max.fetch_max(held, Ordering::SeqCst);
        assert!(held <= PERMITS, "{held} clients were answered and are still there");
    }

    /// Whether a byte came back; not: it was turned away.
    fn is_answered(&self, stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => {
                assert_eq!(&byte, b"?");
                true
            }
            Ok(_) | Err(_) if self.is_reject() => {
                self.turned_away.fetch_add(1, Ordering::Relaxed);
                false
            }
            other => panic!("instead of an answer: {other:?}"),
        }
    }

    fn write(&self, stream: &mut TcpStream, bytes: &[u8]) {
        match stream.write_all(bytes) {
            Err(_) if self.is_reject() => {}
            result => result.unwrap_or_else(|error| panic!("write: {error}")),
        }
    }

    fn half_close(&self, mut streams: Vec<TcpStream>) {
        let text = b"all of it, and then the end";
        for stream in &mut streams {
            self.write(stream, text);
            // ENOTCONN: it was turned away with RST.
            let result = stream.shutdown(Shutdown::Write);
            assert!(result.is_ok() || self.is_reject(), "shutdown: {result:?}");
        }
        for mut stream in streams {
            let mut back = Vec::new();
            match stream.read_to_end(&mut back) {
                Ok(_) if back == text => {}
                Ok(_) | Err(_) if self.is_reject() && back.is_empty() => {
                    self.turned_away.fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("{} bytes came back, then {other:?}", back.len()),
            }
        }
    }

    /// Eight that stay: exactly three are let in, and each that leaves lets in another.
    fn hold_still(&self, sources: &mut Sources) {
        // Those of the round have left, but some may still wait to be let in and looked at.
        self.is_exactly(0, 0);
        let mut streams: Vec<TcpStream> = (0..STILL).map(|_| self.connect(sources)).collect();
        for stream in &mut streams {
            self.write(stream, b"?");
        }
        let (mut inside, mut outside) = (Vec::new(), streams);
        while inside.len() < PERMITS || (self.is_reject() && !outside.is_empty()) {
            let ready = socket::readable(&outside, PATIENCE);
            assert!(!ready.is_empty(), "{} of {PERMITS} are let in", inside.len());
            for at in ready.into_iter().rev() {
                let mut stream = outside.swap_remove(at);
                if self.is_answered(&mut stream) {
                    self.hold();
                    inside.push(stream);
                }
            }
        }
        self.is_exactly(inside.len(), outside.len());
        for _ in 0..STILL {
            let Some(stream) = inside.pop() else { break };
            self.held.fetch_sub(1, Ordering::SeqCst);
            drop(stream);
            if outside.is_empty() {
                continue;
            }
            let ready = socket::readable(&outside, PATIENCE);
            let at = *ready.first().unwrap_or_else(|| panic!("nobody is let in when one leaves"));
            let mut stream = outside.swap_remove(at);
            assert!(self.is_answered(&mut stream));
            self.hold();
            inside.push(stream);
        }
        self.is_exactly(0, 0);
    }

    /// `open` are inside, and nobody else is but those in the waiting room, `outside` at most.
    fn is_exactly(&self, open: usize, outside: usize) {
        until(PATIENCE, || {
            // Before the ledger is asked for, which takes a descriptor for a moment.
            let descriptors = self.daemon.descriptors();
            let ledger = self.daemon.ledger();
            let waiting = ledger.number("connections.waiting") as usize;
            same("open", ledger.number("connections.open"), open as u64)?;
            same("permits in use", ledger.in_use("permits"), open as u64)?;
            same("balanced", ledger.is_balanced(), true)?;
            if waiting > outside {
                return Err(format!("{waiting} wait and {outside} are outside"));
            }
            // A listener per shard, and theirs.
            let known = (self.shards + open + waiting) as u64;
            same("descriptors in the ledger", ledger.in_use("descriptors"), known)?;
            same("descriptors", descriptors, self.at_rest + open + waiting)
        });
    }

    /// Samples the ledger and the descriptors until it is over.
    fn watch(&self, over: &AtomicBool) {
        let (mut samples, mut beyond, mut in_a_row) = (0, 0, 0);
        while !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
            let descriptors = self.daemon.descriptors();
            let ledger = self.daemon.ledger();
            let permits = ledger.in_use("permits");
            assert!(permits <= PERMITS as u64, "{permits} permits are taken");
            let open = ledger.number("connections.open") as usize;
            assert!(self.shards > 1 || open <= PERMITS, "{open} are open: {ledger:?}");
            let waiting = ledger.number("connections.waiting") as usize;
            let not_waiting = (descriptors - self.at_rest).saturating_sub(waiting);
            in_a_row = if open.max(not_waiting) > PERMITS { in_a_row + 1 } else { 0 };
            assert!(
                in_a_row < BEYOND_MAX,
                "{open} are open and {not_waiting} descriptors are theirs, and stay: {ledger:?}"
            );
            samples += 1;
            beyond += usize::from(in_a_row > 0);
        }
        eprintln!("  {samples} samples, in {beyond} of them the moments differ");
    }
}
