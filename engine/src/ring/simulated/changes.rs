//! Files change under whoever has them open: replaced, removed, cut off, grown.

use super::SimulatedRing;
use super::files::{Name, SimulatedFile};

/// The wall clock when the simulation's own begins, in microseconds.
const WALL_START_US: i64 = 1_000_000_000_000_000;
/// File systems take their times from a clock that ticks so often.
const TICK_US: i64 = 4_000;

/// What statx(2) says of a file beside its size and kind.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// When its bytes changed last, on the wall clock.
    pub modified_us: i64,
    /// When anything about it changed last.
    pub changed_us: i64,
    /// Names it has.
    pub links: u32,
}

impl Facts {
    /// A file that has always been there.
    pub const OLD: Self = Self { modified_us: 1_000_000, changed_us: 1_000_000, links: 1 };
}

impl SimulatedRing {
    pub(super) fn wall_us(&self) -> i64 {
        (WALL_START_US + self.now_us as i64) / TICK_US * TICK_US
    }

    /// Renames a new file over the one that a path leads to. Its number.
    pub fn replace_file(&mut self, path: &str, file: SimulatedFile) -> usize {
        self.remove_file(path);
        let number = self.add_file(path, file);
        self.facts[number].changed_us = self.wall_us();
        number
    }

    /// Unlinks the file that a path leads to.
    pub fn remove_file(&mut self, path: &str) {
        if let Some(Name::File(number)) = self.names.remove(path.as_bytes()) {
            self.facts[number].changed_us = self.wall_us();
            self.facts[number].links -= 1;
        }
    }

    /// Renames a file away, beneath the same directories.
    pub fn rename_file(&mut self, from: &str, to: &str) {
        if let Some(Name::File(number)) = self.names.remove(from.as_bytes()) {
            self.facts[number].changed_us = self.wall_us();
            self.names.insert(to.as_bytes().to_vec(), Name::File(number));
        }
    }

    /// Lets a path lead to another file without a trace on the one that it has led to: a directory
    /// above it was renamed.
    pub fn redirect(&mut self, path: &str, to: SimulatedFile) -> usize {
        self.add_file(path, to)
    }

    /// Cuts a file off, or lets it grow.
    pub fn resize_file(&mut self, number: usize, bytes: u64) {
        self.files[number].bytes = bytes;
        let now_us = self.wall_us();
        self.facts[number].changed_us = now_us;
        self.facts[number].modified_us = now_us;
        self.show_change(number);
    }
}
