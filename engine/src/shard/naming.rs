//! Giving files their names: a file that was received becomes visible, at once and as a whole.
//!
//! 1. fsync(2) of the file, if asked for.
//! 2. LINKAT of `/proc/self/fd/N` to the name. It fails if the name exists. To replace a file,
//!    LINKAT to a hidden name made of the inode number, then RENAMEAT to the name. Without /proc,
//!    `AT_EMPTY_PATH` stands for the descriptor; that needs Linux 6.10 or root.
//! 3. fsync(2) of the directory, if asked for.
//!
//! Invariant: a naming that has begun is carried to its end even if the connection ends, and the
//! slot waits for it. Otherwise the hidden name would remain. A process that is killed between
//! LINKAT and RENAMEAT leaves it; `ringwrightd packets` removes such names when it starts.
//!
//! A dropped file returns to its shard, which closes it on the ring. The last close of a file
//! without a name frees its blocks and can take long.

mod steps;

pub use steps::Naming;

use super::Shard;
use super::bounds::Full;
use super::family::{After, Family, Outcome, Vetoes};
use super::rare::Rare;
use super::slots::NONE;
#[cfg(any(test, feature = "testing"))]
use super::slots::Slot;
use super::turn::{Calling, Submitting};
use crate::handler::Handler;
#[cfg(any(test, feature = "testing"))]
use crate::ring::simulated::SimulatedRing;
use crate::ring::{Kind, Ring};
use std::convert::Infallible;
use std::io;
use steps::Step;

/// The family of files that get their names.
pub(super) struct Names;

impl Family for Names {
    type Due = Infallible;

    #[inline]
    fn is_record_quiet(rare: &Rare) -> bool {
        rare.naming() == NONE
    }

    #[inline]
    fn record_vetoes(rare: &Rare) -> Vetoes {
        Vetoes::ALL.when(rare.naming() != NONE)
    }

    fn completed<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        outcome: Outcome,
        _call: Calling,
    ) -> After {
        shard.on_naming(slot, outcome.completion.result);
        After::Walk
    }

    fn report<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32, call: Calling) {
        shard.settle_naming(call, slot);
    }

    fn submit<R: Ring, H: Handler>(
        shard: &mut Shard<R, H>,
        slot: u32,
        may: Submitting,
    ) -> Result<(), Full> {
        shard.flush_naming(may, slot)
    }

    #[cfg(any(test, feature = "testing"))]
    fn check<H: Handler>(
        shard: &Shard<SimulatedRing, H>,
        slot: u32,
        connection: &Slot,
        fail: &dyn Fn(&str),
    ) {
        let named = shard.core.slots.rare(slot).naming() == NONE;
        if !named && !connection.in_flight().has(Kind::Publish) {
            fail("does not give its file a name");
        }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    fn flush_naming(&mut self, may: Submitting, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        let number = self.core.slots.rare(slot).naming();
        if number == NONE || connection.in_flight().has(Kind::Publish) {
            return Ok(());
        }
        if bug!("temporary-name-left") && connection.state().is_over() {
            drop(self.take_naming(slot));
            return Ok(());
        }
        match self.core.namings[number as usize].op() {
            Some(op) => self.submit(may, slot, Kind::Publish, op),
            None => {
                // Told when the batch is settled.
                self.core.touch(slot);
                Ok(())
            }
        }
    }

    fn on_naming(&mut self, slot: u32, result: i32) {
        let naming = &mut self.core.namings[self.core.slots.rare(slot).naming() as usize];
        naming.step = naming.after(-result.min(0));
    }

    /// Tells what came of it, if anybody is there to be told.
    fn settle_naming(&mut self, call: Calling, slot: u32) {
        let connection = &self.core.slots[slot];
        let number = self.core.slots.rare(slot).naming();
        if number == NONE {
            return;
        }
        let Step::Over(errno) = self.core.namings[number as usize].step else { return };
        let state = connection.state();
        drop(self.take_naming(slot));
        // Who waited for us was not idle.
        self.core.slots[slot].note_activity(self.core.now_ms);
        if state.hears() {
            let result = match errno {
                0 => Ok(()),
                _ => Err(io::Error::from_raw_os_error(errno)),
            };
            self.application.file_published(call, &mut self.core, slot, result);
        }
        self.core.touch(slot);
    }

    fn take_naming(&mut self, slot: u32) -> Naming {
        let naming = self.core.slots.rare_mut(slot).take_naming();
        self.core.namings.remove(naming as usize)
    }
}
