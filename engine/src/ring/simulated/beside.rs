//! Calls on a simulated descriptor by something that has no ring at hand: a file that is dropped or
//! read, another shard that wakes this one. Changes reach the ring before its next call.

use super::super::{Descriptor, Errno, FileStatus};
use super::descriptors::Object;
use super::peers::Birth;
use super::rng::stretch;
use super::{SimulatedFile, SimulatedRing};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

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
    /// The files that are open on the rings of this thread.
    static FILES: RefCell<BTreeMap<i32, FileBeside>> = const { RefCell::new(BTreeMap::new()) };
    /// The peer of each Unix socket: the address that the simulation gave it, which the socket
    /// itself does not show, and the ring that it came to first, with its number there.
    static UNIX_PEERS: RefCell<BTreeMap<i32, (SocketAddr, Birth)>> =
        const { RefCell::new(BTreeMap::new()) };
    static INTERRUPTS: Cell<Option<Box<dyn FnMut()>>> = const { Cell::new(None) };
}

/// An open file, as a thread without its ring sees it.
#[derive(Clone, Copy)]
pub(super) struct FileBeside {
    pub number: usize,
    pub file: SimulatedFile,
    pub status: FileStatus,
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

/// preadv2(2). Everything is in the page cache.
pub fn read_beside(
    file: Descriptor,
    buffer: &mut [u8],
    offset: u64,
    _flags: i32,
) -> io::Result<usize> {
    let Some(found) = FILES.with_borrow(|files| files.get(&file.0).copied()) else {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    };
    let there = found.file.bytes.saturating_sub(offset);
    let count = buffer.len().min(usize::try_from(there).unwrap_or(usize::MAX));
    buffer[..count].copy_from_slice(&stretch(found.file.key, offset, count));
    Ok(count)
}

/// statx(2).
pub fn status_beside(file: Descriptor) -> Result<FileStatus, Errno> {
    let found = FILES.with_borrow(|files| files.get(&file.0).map(|found| found.status));
    found.ok_or(Errno(libc::EBADF))
}

pub(super) fn note_unix(descriptor: Descriptor, address: SocketAddr, birth: Birth) {
    UNIX_PEERS.with_borrow_mut(|peers| peers.insert(descriptor.0, (address, birth)));
}

/// The address that the simulation gave to the peer of a Unix socket, and the ring that it came to
/// first, with its number there.
pub fn unix_peer(descriptor: Descriptor) -> (SocketAddr, Birth) {
    UNIX_PEERS.with_borrow(|peers| peers[&descriptor.0])
}

/// A file of this thread was closed.
pub(super) fn forget_file(file: Descriptor) {
    FILES.with_borrow_mut(|files| files.remove(&file.0));
}

pub(super) fn set_now_us(now_us: u64) {
    NOW_US.set(now_us);
}

/// Another thread may do something at this very moment.
pub fn interrupt() {
    let Some(mut interrupts) = INTERRUPTS.take() else { return };
    interrupts();
    INTERRUPTS.set(Some(interrupts));
}

/// What another thread may do in the middle of a shard's work, from now on.
pub fn set_interrupts(interrupts: Option<Box<dyn FnMut()>>) {
    INTERRUPTS.set(interrupts);
}

/// The time of the ring that ran last.
pub fn present_us() -> u64 {
    NOW_US.get()
}

impl SimulatedRing {
    /// Forgets what was done to descriptors of an earlier ring of this number.
    pub(super) fn forget_beside(&self) {
        ACTS.with_borrow_mut(|acts| acts.retain(|(on, _)| !self.table.numbers_it(*on)));
        let of_others = |number: &i32| !self.table.numbers_it(Descriptor(*number));
        FILES.with_borrow_mut(|files| files.retain(|number, _| of_others(number)));
    }

    /// Tells threads without the ring of a file that was opened.
    pub(super) fn show_file(&self, file: Descriptor, number: usize) {
        let status = self.status_of(file);
        let shown = FileBeside { number, file: self.files[number], status };
        FILES.with_borrow_mut(|files| files.insert(file.0, shown));
    }

    /// Tells them that a file has changed.
    pub(super) fn show_change(&self, number: usize) {
        FILES.with_borrow_mut(|files| {
            let mine = |(descriptor, shown): &(&i32, &mut FileBeside)| {
                shown.number == number && self.table.numbers_it(Descriptor(**descriptor))
            };
            for (descriptor, shown) in files.iter_mut().filter(mine) {
                shown.file = self.files[number];
                shown.status = self.status_of(Descriptor(*descriptor));
            }
        });
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
