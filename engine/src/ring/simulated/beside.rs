//! What is done to a simulated descriptor by something that has no ring at hand: a file that is
//! dropped, another shard that wakes this one. It reaches the ring before its next call.

use super::super::Descriptor;
use super::SimulatedRing;
use super::descriptors::Object;
use std::cell::{Cell, RefCell};

/// A wake is late by so much at most: the thread that writes may be preempted before it does.
const LATE_US_MAX: u64 = 20_000;

#[derive(Clone, Copy)]
enum Act {
    Close,
    Signal { at_us: u64 },
}

thread_local! {
    static ACTS: RefCell<Vec<(Descriptor, Act)>> = const { RefCell::new(Vec::new()) };
    /// The time of the ring that ran last: now, for whoever acts beside the rings.
    static NOW_US: Cell<u64> = const { Cell::new(0) };
}

/// close(2).
pub fn close_beside(descriptor: Descriptor) {
    ACTS.with_borrow_mut(|acts| acts.push((descriptor, Act::Close)));
}

/// write(2) to an event descriptor, by another thread.
pub fn signal_beside(event: Descriptor) {
    let at_us = NOW_US.get();
    ACTS.with_borrow_mut(|acts| acts.push((event, Act::Signal { at_us })));
}

pub(super) fn set_now_us(now_us: u64) {
    NOW_US.set(now_us);
}

impl SimulatedRing {
    /// Forgets what was done to descriptors of an earlier ring of this number.
    pub(super) fn forget_beside(&self) {
        ACTS.with_borrow_mut(|acts| acts.retain(|(on, _)| !self.table.numbers_it(*on)));
    }

    /// What was done beside the ring since the last call.
    pub fn catch_up(&mut self) {
        let mine = ACTS.with_borrow_mut(|acts| {
            if acts.is_empty() {
                return Vec::new();
            }
            let table = &self.table;
            acts.extract_if(.., |(on, _)| table.numbers_it(*on)).collect()
        });
        for (descriptor, act) in mine {
            match act {
                Act::Close => self.close(descriptor),
                Act::Signal { at_us } => self.signal(descriptor, at_us),
            }
        }
    }

    fn signal(&mut self, event: Descriptor, at_us: u64) {
        let object = self.object(event, "write(2)");
        if object != Object::Event {
            self.broken(format_args!("{object:?} is signalled like an event"));
        }
        let late = self.rng.per_mille(self.faults.late_wake);
        let late_us = if late { self.rng.below(LATE_US_MAX) } else { 0 };
        self.wakes_us.push(at_us + late_us);
        self.trace.called(self.now_us, "signalled", event, (at_us + late_us) as i64);
    }

    /// Opens the event descriptor that wakes whoever polls it on this ring.
    pub fn add_event(&mut self) -> Descriptor {
        self.table.insert(Object::Event)
    }

    /// Somebody writes to the event descriptor for no reason.
    pub fn wake(&mut self) {
        self.wakes_us.push(self.now_us);
    }

    pub(super) fn is_woken(&self) -> bool {
        self.wakes_us.iter().any(|at_us| *at_us <= self.now_us)
    }

    /// What is still to be written: one that was is seen by the poll.
    pub(super) fn next_wake_us(&self) -> Option<u64> {
        self.wakes_us.iter().copied().filter(|at_us| *at_us > self.now_us).min()
    }

    /// read(2) of the event descriptor: what was written is gone, what is still to be written
    /// comes.
    pub(super) fn clear_event(&mut self) {
        self.wakes_us.retain(|at_us| *at_us > self.now_us);
    }
}
