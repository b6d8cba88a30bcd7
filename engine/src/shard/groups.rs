//! The groups of a shard: sets of connections that get what is sent to the group.

use crate::info::JoinGroupError;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The limit on groups of one connection.
pub const GROUPS_MAX: usize = 4_096;

/// The members of each group.
///
/// Nothing is kept for a connection without groups, or for a group without members.
#[derive(Default)]
pub struct Groups {
    members: BTreeSet<(u64, u32)>,
    /// The groups of each slot, sorted.
    of_slots: BTreeMap<u32, Vec<u64>>,
}

impl Groups {
    /// Makes a slot a member. Returns `false` if it was one.
    pub fn join(&mut self, slot: u32, group: u64) -> Result<bool, JoinGroupError> {
        let groups = self.of_slots.entry(slot).or_default();
        let Err(at) = groups.binary_search(&group) else { return Ok(false) };
        if groups.len() >= GROUPS_MAX {
            return Err(JoinGroupError::TooMany);
        }
        groups.insert(at, group);
        self.members.insert((group, slot));
        Ok(true)
    }

    /// Ends a membership. Returns `false` if there was none.
    pub fn leave(&mut self, slot: u32, group: u64) -> bool {
        let was_member = self.members.remove(&(group, slot));
        if was_member {
            let groups = self.of_slots.get_mut(&slot).expect("a member has groups");
            let at = groups.binary_search(&group).expect("it is one of them");
            groups.remove(at);
            if groups.is_empty() {
                self.of_slots.remove(&slot);
            }
        }
        was_member
    }

    /// Ends all memberships of a slot whose connection has ended.
    #[inline]
    pub fn forget(&mut self, slot: u32) {
        if !self.of_slots.is_empty() {
            self.forget_groups(slot);
        }
    }

    #[cold]
    fn forget_groups(&mut self, slot: u32) {
        for group in self.of_slots.remove(&slot).unwrap_or_default() {
            self.members.remove(&(group, slot));
        }
    }

    /// The groups of a slot, sorted.
    pub fn of(&self, slot: u32) -> &[u64] {
        self.of_slots.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// The number of members of a group.
    pub fn count(&self, group: u64) -> usize {
        self.members.range((group, 0)..=(group, u32::MAX)).count()
    }

    /// Up to `most` members of a group among these slots, in order.
    pub fn members(&self, group: u64, slots: Range<u32>, most: usize) -> Vec<u32> {
        let members = self.members.range((group, slots.start)..(group, slots.end));
        members.take(most).map(|(_, slot)| *slot).collect()
    }

    /// # Panics
    /// If the two sides differ, or a member is none of `slots`.
    #[cfg(any(test, feature = "testing"))]
    pub fn check(&self, has_slot: impl Fn(u32) -> bool) {
        let pairs = self.of_slots.iter().flat_map(|(slot, groups)| {
            groups.iter().map(|group| (*group, *slot)).collect::<Vec<_>>()
        });
        assert_eq!(pairs.collect::<BTreeSet<_>>(), self.members, "members of groups");
        assert!(self.of_slots.values().all(|groups| !groups.is_empty()), "no groups are kept");
        assert!(self.of_slots.keys().all(|slot| has_slot(*slot)), "a member has gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_group_and_leave_with_their_slot() {
        let mut groups = Groups::default();
        for (slot, group) in [(3, 7), (1, 7), (2, 7), (1, u64::MAX), (1, 0)] {
            assert_eq!(groups.join(slot, group), Ok(true));
            assert_eq!(groups.join(slot, group), Ok(false));
        }
        assert_eq!(groups.members(7, 0..9, 9), [1, 2, 3]);
        assert_eq!(groups.members(7, 2..9, 1), [2]);
        assert_eq!(groups.members(7, 2..3, 9), [2]);
        assert_eq!((groups.count(7), groups.count(0), groups.count(1)), (3, 1, 0));
        assert_eq!(groups.of(1), [0, 7, u64::MAX]);
        assert!(groups.leave(2, 7) && !groups.leave(2, 7) && !groups.leave(2, 8));
        groups.forget(1);
        groups.check(|slot| slot == 3);
        assert_eq!((groups.members(7, 0..9, 9), groups.of(1)), (vec![3], &[][..]));
        groups.forget(3);
        assert!(groups.members.is_empty() && groups.of_slots.is_empty());
    }

    #[test]
    fn a_connection_has_a_limit_of_groups() {
        let mut groups = Groups::default();
        assert!((0..GROUPS_MAX as u64).all(|group| groups.join(1, group) == Ok(true)));
        assert_eq!(groups.join(1, u64::MAX), Err(JoinGroupError::TooMany));
        assert_eq!(groups.join(1, 5), Ok(false));
        assert_eq!(groups.join(2, u64::MAX), Ok(true));
    }
}
