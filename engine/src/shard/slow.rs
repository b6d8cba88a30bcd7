//! Slow peers: a connection below `min_rate` makes room for a waiting client if none is idle. An
//! idle connection of any shard goes before a slow one.
//!
//! Nothing is measured while clients find a permit or an idle connection. The measurement begins
//! when a round finds no idle connection. It ends when no round has done so for 60 s and a permit
//! is free. Every 3 s the shard looks at the sockets that may wait for their peer (`TCP_INFO`,
//! `SIOCOUTQ`), 256 slots per millisecond at most. The kernel counts the bytes of both directions,
//! so receiving and sending do nothing for it, and no timer runs.
//!
//! A window of 30 s goes on while the peer is waited for: output of the last look is still
//! unacknowledged, output waits for room in the socket, or a message or file is incomplete with
//! nothing unread. It begins anew as soon as enough bytes have moved, so a peer is slow only if a
//! whole window has too few. The chosen connection is looked at once more, and stays if it has
//! moved enough since. It ends by a reset if output is unacknowledged: it would linger otherwise
//! and keep its permit.
//!
//! Hazard: a peer with many small exchanges may have something unacknowledged at each look. Only a
//! byte that stays unacknowledged from one look to the next shows that the peer was waited for.

use super::Shard;
use super::settings::WINDOW_MS;
use super::slots::{NONE, Pause, Slot};
use crate::Reason;
use crate::handler::Handler;
use crate::ring::{Delivery, Kind, Ring};
use std::collections::BTreeMap;

/// The time from the beginning of one pass over all slots to the next.
const PASS_MS: u64 = 3_000;
/// A pass continues after this time, so that other connections are served in between.
const STEP_MS: u64 = 1;
/// The slots of one step. A look at a connection takes two system calls, about a microsecond.
const STEP_SLOTS: u32 = 256;
/// While a permit is free, the measurement ends this long after the last round without an idle
/// connection.
const KEPT_MS: u64 = 60_000;
/// The limit on slow connections that are asked again in one round. Most are still slow.
const TRIES_MAX: usize = 16;

/// The measurement of all connections of a shard.
pub(super) struct SlowPeers {
    /// When the pass continues or the next one begins, ms; `u64::MAX`: nothing is measured.
    next_ms: u64,
    /// When the pass began.
    pass_ms: u64,
    /// The next slot of the pass.
    next_slot: u32,
    /// The last round without an idle connection, ms.
    asked_ms: u64,
    /// Connections whose peer is waited for, by slot.
    windows: BTreeMap<u32, Window>,
}

/// The time since which a peer is waited for without interruption, or a part of it.
struct Window {
    generation: u64,
    since_ms: u64,
    /// The looks at the beginning and at last.
    first: Sight,
    last: Sight,
    /// The bytes of the last complete window, if they were too few.
    slow_bytes: Option<u32>,
}

/// A look at a connection whose peer is waited for.
#[derive(Clone, Copy)]
struct Sight {
    delivery: Delivery,
    /// The rest of a message or a file is missing, and nothing of it is unread; or output waits for
    /// room in the socket.
    waits: bool,
    /// A window with fewer bytes is slow.
    bytes_min: u64,
}

impl SlowPeers {
    pub fn new() -> Self {
        Self { next_ms: u64::MAX, pass_ms: 0, next_slot: 0, asked_ms: 0, windows: BTreeMap::new() }
    }

    /// When the shard looks at connections again; `u64::MAX`: not.
    #[inline]
    pub fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Measures from now on, because a client waits and nobody is idle.
    fn begin(&mut self, now_ms: u64) {
        self.asked_ms = now_ms;
        if self.next_ms == u64::MAX {
            mark!("measures peers");
            (self.next_ms, self.next_slot) = (now_ms, 0);
        }
    }

    fn end(&mut self) {
        mark!("measures peers no longer");
        self.next_ms = u64::MAX;
        self.windows = BTreeMap::new();
    }

    fn note(&mut self, slot: u32, generation: u64, sight: Sight, now_ms: u64) {
        match self.windows.get_mut(&slot) {
            Some(window) if window.generation == generation && window.goes_on(sight) => {
                window.note(sight, now_ms);
            }
            _ => drop(self.windows.insert(slot, Window::new(generation, sight, now_ms))),
        }
    }

    /// The slowest connection of the last complete windows, by bytes and slot.
    fn slowest(&self) -> Option<(u32, u32)> {
        let slow = |(slot, window): (&u32, &Window)| Some((window.slow_bytes?, *slot));
        self.windows.iter().filter_map(slow).min()
    }
}

impl Window {
    fn new(generation: u64, sight: Sight, now_ms: u64) -> Self {
        Self { generation, since_ms: now_ms, first: sight, last: sight, slow_bytes: None }
    }

    /// Returns whether the peer was waited for ever since the last look. If nothing waits, output
    /// of that time must still be unacknowledged. A peer with many small exchanges is not slow.
    fn goes_on(&self, sight: Sight) -> bool {
        let sent = self.last.delivery.acknowledged + u64::from(self.last.delivery.outstanding);
        let unacknowledged = sight.delivery.acknowledged < sent;
        unacknowledged || (self.last.waits && sight.waits) || bug!("slow-by-chance")
    }

    fn note(&mut self, sight: Sight, now_ms: u64) {
        self.last = sight;
        let (moved, passed_ms) = (self.moved(sight), now_ms - self.since_ms);
        let slow_bytes = if moved >= sight.bytes_min {
            None
        } else if passed_ms >= WINDOW_MS {
            // A look that came late has made the window longer.
            Some((moved * WINDOW_MS / passed_ms) as u32)
        } else {
            return;
        };
        *self = Self { slow_bytes, ..Self::new(self.generation, sight, now_ms) };
    }

    fn moved(&self, sight: Sight) -> u64 {
        sight.bytes().saturating_sub(self.first.bytes())
    }
}

impl Sight {
    /// Bytes of both directions.
    fn bytes(self) -> u64 {
        self.delivery.acknowledged + self.delivery.received
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Looks at the next connections of a pass.
    #[inline(never)]
    pub(super) fn measure_peers(&mut self) {
        let (now_ms, made) = (self.core.now_ms, self.core.slots.made() as u32);
        let slow = &mut self.eviction.slow;
        let from = slow.next_slot;
        if from == 0 {
            slow.pass_ms = now_ms;
            if now_ms >= slow.asked_ms + KEPT_MS && self.core.admission.free() > 0 {
                return slow.end();
            }
        }
        let to = made.min(from + STEP_SLOTS);
        for slot in from..to {
            match self.sight(slot) {
                Some(sight) => {
                    let generation = self.core.slots.generation(slot);
                    self.eviction.slow.note(slot, generation, sight, now_ms);
                }
                None => drop(self.eviction.slow.windows.remove(&slot)),
            }
        }
        let slow = &mut self.eviction.slow;
        (slow.next_slot, slow.next_ms) =
            if to < made { (to, now_ms + STEP_MS) } else { (0, slow.pass_ms + PASS_MS) };
    }

    /// The slowest connection that is still below the floor: its slot, and the bytes of its last
    /// window. Without an idle connection the shard measures from here on.
    pub(super) fn slowest_peer(&mut self) -> Option<(u32, u32)> {
        if !self.core.settings.has_floor() {
            return None;
        }
        self.eviction.slow.begin(self.core.now_ms);
        for _ in 0..TRIES_MAX {
            let (bytes, slot) = self.eviction.slow.slowest()?;
            let sight = self.sight(slot);
            let generation = self.core.slots.generation(slot);
            let slow = &mut self.eviction.slow;
            let window = slow.windows.get_mut(&slot)?;
            let still = |sight: Sight| {
                window.generation == generation
                    && window.goes_on(sight)
                    && window.moved(sight) < sight.bytes_min
            };
            if sight.is_some_and(still) {
                return Some((slot, bytes));
            }
            mark!("a slow peer is slow no longer");
            window.slow_bytes = None;
        }
        None
    }

    /// Ends a slow connection at once: a reset if the peer has yet to acknowledge output, because
    /// the connection would keep its permit until then.
    pub(super) fn end_slow(&mut self, slot: u32) {
        if bug!("slow-peer-lingers") {
            return self.core.close(slot, Reason::TooSlow);
        }
        let connection = &self.core.slots[slot];
        let cuts = connection.output_head() != NONE
            || self.ring.delivery(connection.descriptor()).is_ok_and(|it| it.outstanding > 0);
        self.core.end(slot, Reason::TooSlow, cuts);
    }

    /// A look at an accepted connection, if its peer is waited for.
    fn sight(&mut self, slot: u32) -> Option<Sight> {
        let connection = self.core.slots.get(slot)?;
        let rare = self.core.slots.rare_of(connection);
        let bytes_min = self.core.limits_of(connection).window_bytes_min;
        let is_left_out = !connection.opened() || rare.tag().is_some() || bytes_min == 0;
        // The kernel does not count the bytes of a Unix socket.
        let is_unix = self.core.slots.identity(slot).is_unix();
        if connection.state().is_over() || is_left_out || is_unix {
            return None;
        }
        let socket = connection.descriptor();
        let sends =
            connection.output_head() != NONE || connection.unasked() > 0 || rare.delivering();
        let receives = self.is_incomplete(connection);
        if !sends && !receives {
            return None;
        }
        let flight = connection.in_flight();
        let is_full = flight.has(Kind::Send) || connection.waits_for_room();
        let delivery = self.ring.delivery(socket).ok()?;
        let unacknowledged = delivery.outstanding > 0;
        let incomplete = receives && self.ring.unread_bytes(socket) == Ok(0);
        let waits = incomplete || (unacknowledged && is_full);
        (unacknowledged || waits).then_some(Sight { delivery, waits, bytes_min })
    }

    /// Returns whether the peer has begun a message or a file, and nothing but the peer keeps it
    /// from being completed.
    fn is_incomplete(&self, connection: &Slot) -> bool {
        let rare = self.core.slots.rare_of(connection);
        let reads = connection.pause() == Pause::No && !connection.is_full_and_paused();
        let incoming = self.core.incoming.get(rare.incoming() as usize);
        connection.state().receives()
            && ((rare.receiving_since_ms() != 0 && reads)
                || incoming.is_some_and(|it| it.waits_for_peer()))
    }

    /// Returns whether a connection was slow in its last window; `None` if it is not measured.
    #[cfg(any(test, feature = "testing"))]
    pub fn is_slow(&self, slot: u32) -> Option<bool> {
        let window = self.eviction.slow.windows.get(&slot)?;
        let lives = window.generation == self.core.slots.generation(slot);
        lives.then_some(window.slow_bytes.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 64;
    const ENOUGH: u64 = 30 * RATE as u64;

    fn sight(acknowledged: u64, outstanding: u32, received: u64) -> Sight {
        let delivery = Delivery { acknowledged, outstanding, received, lost: 0 };
        Sight { delivery, waits: false, bytes_min: ENOUGH }
    }

    /// Takes these looks at a connection, one every three seconds.
    fn slow_bytes(sights: impl Iterator<Item = Sight>) -> Option<u32> {
        let mut slow = SlowPeers::new();
        for (number, sight) in sights.enumerate() {
            slow.note(5, 7, sight, 1_000 + number as u64 * PASS_MS);
        }
        slow.slowest().map(|(bytes, slot)| {
            assert_eq!(slot, 5);
            bytes
        })
    }

    #[test]
    fn a_window_below_the_floor_is_slow_in_either_direction() {
        let looks = WINDOW_MS / PASS_MS;
        let reads = |bytes: u64| (0..=looks).map(move |at| sight(at * bytes / looks, 9_000, 0));
        assert_eq!(slow_bytes(reads(ENOUGH - 1)), Some(ENOUGH as u32 - 1));
        assert_eq!(slow_bytes(reads(ENOUGH)), None);
        assert_eq!(slow_bytes(reads(0).take(looks as usize)), None, "the window is incomplete");
        let sends = |bytes: u64| {
            let sends = (0..=looks).map(move |at| sight(0, 0, at * bytes / looks));
            sends.map(|sight| Sight { waits: true, ..sight })
        };
        assert_eq!(slow_bytes(sends(100)), Some(100));
        assert_eq!(slow_bytes(sends(ENOUGH)), None);
    }

    #[test]
    fn the_slowest_goes_first() {
        let mut slow = SlowPeers::new();
        for (slot, bytes) in [(1, 300), (2, 200), (3, ENOUGH), (4, 250)] {
            slow.note(slot, 7, sight(0, 9_000, 0), 0);
            slow.note(slot, 7, sight(bytes, 9_000, 0), WINDOW_MS);
        }
        assert_eq!(slow.slowest(), Some((200, 2)));
    }

    /// At every look something is unacknowledged, but each time it is something else.
    #[test]
    fn a_peer_that_acknowledges_between_two_looks_is_not_slow() {
        assert_eq!(slow_bytes((0..100).map(|at| sight(at * 10, 10, 0))), None);
        assert_eq!(slow_bytes((0..100).map(|at| sight(at * 10, 11, 0))), Some(100));
    }

    /// A shard that did not run looks late. The longer window is counted as what it is.
    #[test]
    fn a_late_look_does_not_make_a_peer_faster() {
        let mut slow = SlowPeers::new();
        slow.note(5, 7, sight(0, 9_000, 0), 0);
        slow.note(5, 7, sight(600, 8_400, 0), 2 * WINDOW_MS);
        assert_eq!(slow.slowest(), Some((300, 5)));
        // The slot has its next life.
        slow.note(5, 8, sight(0, 9_000, 0), 3 * WINDOW_MS);
        assert_eq!(slow.slowest(), None);
    }
}
