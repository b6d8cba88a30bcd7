//! Parts of a seed that a run leaves out: a failing seed is easier to read with less in it.

use crate::ring::simulated::Faults;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// The name of a ring that breaks, beside the names of [`Faults`].
const BREAK: &str = "ring_breaks";

/// The actions of the world besides the turns of its shards: names, and numbers in `World::act`.
pub const ACTIONS: [(&str, Range<u64>); 26] = [
    ("client", 0..5),
    ("bytes", 5..13),
    ("reset", 13..14),
    ("vanish", 14..15),
    ("order", 15..16),
    ("wake", 16..17),
    ("connect", 17..18),
    ("endpoint", 18..19),
    ("change_faults", 19..20),
    ("bans", 20..21),
    ("drain", 21..22),
    ("add_listener", 22..23),
    ("workers", 23..24),
    ("keep_connected", 24..25),
    ("come_and_go", 25..26),
    ("stop_reconnecting", 26..27),
    ("change_file", 27..28),
    ("pause", 28..29),
    ("remove_listener", 29..30),
    ("pause_listener", 30..31),
    ("change_settings", 31..32),
    ("message", 32..34),
    ("publish", 34..35),
    ("messages_in_bursts", 35..36),
    ("stream", 36..37),
    ("cancel_connect", 37..38),
];

/// The parts that are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Without {
    names: BTreeSet<String>,
    /// Peers of a shard, at most.
    pub peers_max: Option<usize>,
    /// Events after which the world calms down, at most.
    pub events_max: Option<u64>,
}

impl Without {
    /// The names of everything that can be left out: faults and actions.
    pub fn all() -> impl Iterator<Item = &'static str> {
        let actions = ACTIONS.iter().map(|(name, _)| *name);
        Faults::NAMES.iter().copied().chain([BREAK]).chain(actions)
    }

    /// Leaves out a fault or an action too. False: nothing has this name.
    pub fn leave_out(&mut self, name: &str) -> bool {
        Self::all().any(|known| known == name) && {
            self.names.insert(name.to_owned());
            true
        }
    }

    /// Takes the faults that are left out from drawn ones.
    pub(super) fn calm(&self, faults: &mut Faults) {
        let named = self.names.iter();
        for name in named {
            if let Some(probability) = faults.by_name(name) {
                *probability = 0;
            }
        }
    }

    /// Returns whether no ring breaks.
    pub(super) fn breaks_nothing(&self) -> bool {
        self.names.contains(BREAK)
    }

    /// Returns whether the action with this number is left out.
    pub(super) fn skips(&self, action: u64) -> bool {
        let mut actions = ACTIONS.iter();
        let named = actions.find(|(_, numbers)| numbers.contains(&action));
        named.is_some_and(|(name, _)| self.names.contains(*name))
    }
}

/// The options of the simulator that leave this out.
impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options: Vec<String> = Vec::new();
        options.extend(self.events_max.map(|most| format!("--events-max {most}")));
        options.extend(self.peers_max.map(|most| format!("--peers-max {most}")));
        if !self.names.is_empty() {
            let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
            options.push(format!("--without {}", names.join(",")));
        }
        f.write_str(&options.join(" "))
    }
}
