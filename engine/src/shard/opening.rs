//! Opens: files beneath a directory, opened on the ring.
//!
//! A lookup (openat2(2) with `O_PATH`) must lead to a regular file first. Opening a FIFO would let
//! its writer go on, which then gets EPIPE, and opening a device may have any effect. A lookup is
//! valid for 250 ms (`regular_paths.rs`). Files that are kept open need none, and a directory needs
//! nothing else.
//!
//! Hazard: the path is resolved again for the open, so it may lead to something else by then. The
//! status of the open descriptor decides what is sent.
//!
//! Opens fail at a symbolic link with ELOOP. Beneath `Directory::open_following_links` the open is
//! then repeated and follows links. An open that follows links ends with EAGAIN if a rename
//! anywhere has disturbed it. It is repeated at most [`DISTURBED_MAX`] times.
//!
//! # Storage that can block
//! io-wq threads wait for disks. If the name is cached, however, openat2(2) calls the open of the
//! file system inline. A FUSE or NFS server may then take any time to answer. Each directory is
//! therefore asked once for its file system (fstatfs(2)).
//!
//! * The list of local file systems does not contain it: every open and every write of received
//!   bytes runs on an io-wq thread from the start (`IOSQE_ASYNC`). Files always go through a pipe.
//! * The file system is local: opens carry `RESOLVE_NO_XDEV`. EXDEV means a path onto another
//!   mount, and the open is repeated on a thread.
//!
//! At most `io_workers_max - 1` such opens are in flight, and at least one. A thread is thus left
//! for names that are merely not cached. statx(2) is called with `AT_STATX_DONT_SYNC`. Files of
//! more than 1 MiB and files without a name are closed on a thread.

use super::Shard;
use super::bounds::Full;
use super::family::{After, Family, Outcome, Vetoes};
use super::rare::Rare;
use super::slots::NONE;
#[cfg(any(test, feature = "testing"))]
use super::slots::Slot;
use super::turn::{Calling, Submitting};
use crate::files::{Closing, Found, NewFile, OpenFile};
use crate::handler::Handler;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Descriptor, FileKind, Kind, Op, Ring};
use std::convert::Infallible;
use std::io;

/// Repetitions of an open that a rename has disturbed. The time in which one can do so is some
/// microseconds.
const DISTURBED_MAX: u8 = 16;

/// The family of opens.
pub(super) struct Opening;

impl Family for Opening {
    type Due = Infallible;

    #[inline]
    fn is_record_quiet(rare: &Rare) -> bool {
        rare.open() == NONE
    }

    #[inline]
    fn record_vetoes(rare: &Rare) -> Vetoes {
        (Vetoes::FINISH | Vetoes::EVICTION).when(rare.open() != NONE)
    }

    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        outcome: Outcome,
        call: Calling,
    ) -> After {
        shard.on_open(call, slot, outcome.completion.result);
        After::Walk
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, call: Calling) {
        shard.refuse_open(call, slot);
    }

    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        shard.flush_open(may, slot)
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        shard.core.forget_open(slot);
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        let open = shard.core.slots.rare(slot).open();
        let queued = shard.core.opens.get(open as usize).is_some_and(|it| it.queued);
        if open != NONE && !connection.in_flight().has(Kind::Open) && !queued {
            fail("does not open its file");
        }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Returns whether the path of an open has a NUL, so that no system call would take it.
    fn has_nul(&self, open: u32) -> bool {
        let path = &self.core.opens[open as usize].path;
        path[..path.len() - 1].contains(&0)
    }

    /// Refuses a path with a NUL.
    fn refuse_open(&mut self, call: Calling, slot: u32) {
        let connection = &self.core.slots[slot];
        let (state, open) = (connection.state(), self.core.slots.rare(slot).open());
        let begun = open == NONE || connection.in_flight().has(Kind::Open);
        if begun || state.is_over() || !self.has_nul(open) {
            return;
        }
        mark!("open of a path with NUL");
        self.core.forget_open(slot);
        if !state.discards() {
            let error = io::Error::from_raw_os_error(libc::EINVAL);
            self.application.file_opened(call, &mut self.core, slot, Err(error));
            self.core.touch(slot);
        }
    }

    fn flush_open(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        let open = self.core.slots.rare(slot).open();
        if open == NONE || connection.in_flight().has(Kind::Open) {
            return Ok(());
        }
        if connection.state().is_over() {
            mark!("open of a connection that is over");
            self.core.forget_open(slot);
            // It may have been its turn.
            self.next_slow_open();
            return Ok(());
        }
        if self.has_nul(open) {
            // A callback of this walk has asked for it: it is refused in the next one.
            self.core.touch(slot);
            return Ok(());
        }
        let request = &self.core.opens[open as usize];
        let waits = request.waits;
        // An open in the queue begins only when the queue lets it. Otherwise it would begin now and
        // take its turn in the queue as well, and the next open would wait for ever.
        if waits && (request.queued || self.slow_opens >= self.slow_opens_max) {
            return self.queue_open(slot);
        }
        let directory = request.directory.descriptor();
        if !waits && !request.creates && !self.core.file_cache.is_off() {
            let request = &mut self.core.opens[open as usize];
            (request.begun_ms, request.begun_wall_ms) = (self.core.now_ms, self.ring.wall_ms());
        }
        let request = &self.core.opens[open as usize];
        let op = match request.creates {
            true => Op::Create { directory },
            false => {
                let (path, follows) = (request.path.as_ptr().cast(), request.follows);
                Op::Open { directory, path, waits, path_only: !request.found, follows }
            }
        };
        self.submit(may, slot, Kind::Open, op)?;
        self.slow_opens += u32::from(waits);
        Ok(())
    }

    /// Puts an open in the queue, once.
    fn queue_open(&mut self, slot: u32) -> Result<(), Full> {
        let request = &mut self.core.opens[self.core.slots.rare(slot).open() as usize];
        if !std::mem::replace(&mut request.queued, true) {
            mark!("an open waits for slow ones");
            self.open_queue.push_back((slot, self.core.slots.generation(slot)));
        }
        Ok(())
    }

    /// Lets the next of those begin that wait for one that may wait to end.
    fn next_slow_open(&mut self) {
        while let Some((slot, generation)) = self.open_queue.pop_front() {
            if self.core.slots.of_life(slot, generation).is_none() {
                continue;
            }
            let request = self.core.opens.get_mut(self.core.slots.rare(slot).open() as usize);
            if let Some(request) = request.filter(|it| it.queued) {
                request.queued = false;
                return self.core.touch(slot);
            }
        }
    }

    fn on_open(&mut self, call: Calling, slot: u32, result: i32) {
        let request = &mut self.core.opens[self.core.slots.rare(slot).open() as usize];
        if result == -libc::EXDEV && !request.waits {
            // Out of the directory, or only onto another file system.
            mark!("an open that may wait");
            request.waits = true;
            return self.core.touch(slot);
        }
        let waits = request.waits;
        if waits {
            self.slow_opens -= 1;
            self.next_slow_open();
        }
        if result < 0 && self.is_opened_again(slot, -result) {
            return self.core.touch(slot);
        }
        if result < 0 && self.core.give_way(-result) {
            mark!("an open takes the place of files that were kept open");
            return self.core.touch(slot);
        }
        if result >= 0 && self.is_to_be_opened(slot, Descriptor(result)) {
            return self.core.touch(slot);
        }
        let request = self.core.finish_open(slot).expect("an open was in flight");
        let opened = if result >= 0 {
            let file = Descriptor(result);
            self.ring.file_status(file).map(|status| (file, status)).map_err(|errno| {
                mark!("fstat failed");
                self.ring.close_now(file);
                errno.into()
            })
        } else {
            Err(io::Error::from_raw_os_error(-result))
        };
        let connection = &self.core.slots[slot];
        if connection.state().is_over() || connection.state().discards() {
            mark!("opened too late");
            let closing = |(descriptor, _)| Closing { descriptor, waits };
            self.core.files_closing.extend(opened.ok().map(closing));
            return self.core.spare_path(request.path);
        }
        let files = &self.core.files_open;
        if request.creates {
            let directory = request.directory.clone();
            let made = opened.map(|(file, status)| NewFile::new(file, status, directory, files));
            self.application.file_created(call, &mut self.core, slot, made);
        } else {
            let how = Found { waits, crossed_link: request.follows };
            let opened = opened.map(|(file, status)| OpenFile::new(file, status, how, files));
            if let Ok(file) = &opened {
                self.core.keep_open(&request, file);
            }
            self.application.file_opened(call, &mut self.core, slot, opened);
        }
        self.core.spare_path(request.path);
    }

    /// Returns whether an open is repeated that a link or a rename has ended.
    fn is_opened_again(&mut self, slot: u32, errno: i32) -> bool {
        let request = &mut self.core.opens[self.core.slots.rare(slot).open() as usize];
        match errno {
            libc::ELOOP if request.directory.follows_links() && !request.follows => {
                mark!("an open follows a link");
                request.follows = true;
                true
            }
            // A link with `..` was followed while something was renamed, anywhere in the system.
            libc::EAGAIN if request.follows && request.disturbed < DISTURBED_MAX => {
                request.disturbed += 1;
                true
            }
            _ => false,
        }
    }

    /// Returns whether a path that was looked up leads to a regular file, to be opened next.
    /// The descriptor of the lookup is closed then. Anything else is not opened: an open FIFO lets
    /// its writer go on, which then gets EPIPE, and opening a device may have any effect.
    fn is_to_be_opened(&mut self, slot: u32, found: Descriptor) -> bool {
        let request = &mut self.core.opens[self.core.slots.rare(slot).open() as usize];
        if request.creates || request.found {
            return false;
        }
        let Ok(status) = self.ring.file_status(found) else { return false };
        request.found = status.kind == FileKind::Regular;
        if request.found {
            self.core.regular_paths.insert(request.hash, self.core.now_ms);
        }
        if request.found && status.links > 0 {
            self.ring.close_now(found);
        } else if request.found {
            // The last descriptor of it may free its blocks.
            self.core.files_closing.push(Closing { descriptor: found, waits: request.waits });
        }
        request.found
    }
}
