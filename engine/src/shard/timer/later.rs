//! The timers of connections that have several.

use slab::Slab;

/// A timer: when it is due, in milliseconds, and its number.
pub type Entry = (u64, u8);

/// The timers of connections beyond the earliest of each, which is in the connection's record.
#[derive(Default)]
pub struct LaterTimers(Slab<Vec<Entry>>);

impl LaterTimers {
    /// Adds a timer to list `list`, or to a new one. Returns the list's number.
    pub fn add(&mut self, list: Option<u32>, entry: Entry) -> u32 {
        let list = list.unwrap_or_else(|| self.0.insert(Vec::new()) as u32);
        self.0[list as usize].push(entry);
        list
    }

    /// Removes a timer by its number. Returns whether the list is empty now, and so is gone.
    pub fn remove(&mut self, list: u32, number: u8) -> bool {
        self.0[list as usize].retain(|(_, other)| *other != number);
        self.drop_if_empty(list)
    }

    /// Takes the earliest timer out. Returns with it whether the list is gone.
    pub fn take_earliest(&mut self, list: u32) -> (Entry, bool) {
        let entries = &mut self.0[list as usize];
        let earliest = (0..entries.len()).min_by_key(|at| entries[*at]);
        let earliest = entries.swap_remove(earliest.expect("no list is empty"));
        (earliest, self.drop_if_empty(list))
    }

    /// Removes the list of a connection that ends.
    pub fn drop_list(&mut self, list: u32) {
        self.0.remove(list as usize);
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn entries(&self, list: u32) -> &[Entry] {
        &self.0[list as usize]
    }

    fn drop_if_empty(&mut self, list: u32) -> bool {
        let is_empty = self.0[list as usize].is_empty();
        if is_empty {
            self.0.remove(list as usize);
        }
        is_empty
    }
}
