//! Giving files their names: a file that was received becomes visible, at once and as a whole.
//!
//! Once begun it is carried to its end, whatever becomes of the connection: a temporary name, which
//! replacing another file takes for a moment, must not stay behind.

mod steps;

pub use steps::Naming;

use super::Shard;
use super::bounds::Full;
use super::slots::NONE;
use crate::handler::Handler;
use crate::ring::{Kind, Ring};
use std::io;
use steps::Step;

impl<R: Ring, H: Handler> Shard<R, H> {
    pub(super) fn flush_naming(&mut self, slot: u32) -> Result<(), Full> {
        let connection = &self.core.slots[slot];
        let number = self.core.slots.rare(slot).naming;
        if number == NONE || connection.in_flight.has(Kind::Publish) {
            return Ok(());
        }
        if bug!("temporary-name-left") && connection.state.is_over() {
            drop(self.take_naming(slot));
            return Ok(());
        }
        match self.core.namings[number as usize].op() {
            Some(op) => self.submit(slot, Kind::Publish, op),
            None => {
                // Told when the batch is settled.
                self.core.touch(slot);
                Ok(())
            }
        }
    }

    pub(super) fn on_naming(&mut self, slot: u32, result: i32) {
        let naming = &mut self.core.namings[self.core.slots.rare(slot).naming as usize];
        naming.step = naming.after(-result.min(0));
    }

    /// Tells what came of it, if anybody is there to be told.
    pub(super) fn settle_naming(&mut self, slot: u32) {
        let connection = &self.core.slots[slot];
        let number = self.core.slots.rare(slot).naming;
        if number == NONE {
            return;
        }
        let Step::Over(errno) = self.core.namings[number as usize].step else { return };
        let state = connection.state;
        drop(self.take_naming(slot));
        // Who waited for us was not idle.
        self.core.slots[slot].active_ms = self.core.now_ms;
        if state.hears() {
            let result = match errno {
                0 => Ok(()),
                _ => Err(io::Error::from_raw_os_error(errno)),
            };
            self.application.file_published(&mut self.core, slot, result);
        }
        self.core.touch(slot);
    }

    fn take_naming(&mut self, slot: u32) -> Naming {
        let naming = std::mem::replace(&mut self.core.slots.rare_mut(slot).naming, NONE);
        self.core.namings.remove(naming as usize)
    }
}
