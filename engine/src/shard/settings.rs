//! The settings that connections of this shard have: those of their listeners when they were
//! accepted.
//!
//! A connection remembers them in one byte of its slot, the number that the registry gave them. A
//! shard keeps the limits in a table by number.

use super::budget::Budget;
use crate::config::{ListenerSettings, SharedSettings, milliseconds};
use crate::ring::calls::TcpOptions;
use std::sync::Arc;

/// A connection below the floor for this time is slow.
pub const WINDOW_MS: u64 = 30_000;
/// The longest time between two looks at what a slow peer has acknowledged.
const LOOK_MAX_MS: u64 = 5_000;

/// The settings of the engine's configuration, which outgoing connections have.
pub const OF_CONFIG: u8 = 0;

/// The values of one settings number that every request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The shortest of the deadlines that run on an open connection that does something.
    soonest_ms: u32,
    /// The present water marks. The memory budget lowers them.
    pub high_bytes: u32,
    pub low_bytes: u32,
    pub output_bytes_max: u32,
}

const _: () = assert!(size_of::<Marks>() == 16, "the marks of a connection lie in one cache line");

/// Settings in the units the loop uses.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// The water marks without the memory budget.
    pub output_high_bytes: usize,
    pub output_low_bytes: usize,
    output_bytes_max: usize,
    pub idle_ms: Option<u64>,
    pub receive_ms: Option<u64>,
    pub write_ms: Option<u64>,
    pub transfer_ms: Option<u64>,
    pub message_bytes_max: usize,
    /// A peer that moves fewer bytes in a window is slow; 0: none is.
    pub window_bytes_min: u64,
    /// An idle connection makes room for waiting clients.
    pub evicts: bool,
    /// The kernel is asked for the bytes of connections that end.
    pub count_traffic: bool,
    pub tcp: TcpOptions,
}

impl ClientLimits {
    fn new(settings: &ListenerSettings) -> Self {
        let min_rate = if settings.evict_idle { settings.min_rate } else { 0 };
        Self {
            output_high_bytes: settings.output_high_bytes,
            output_low_bytes: settings.output_low_bytes,
            output_bytes_max: settings.output_bytes_max,
            idle_ms: settings.idle_timeout.map(milliseconds),
            receive_ms: settings.receive_timeout.map(milliseconds),
            write_ms: settings.write_timeout.map(milliseconds),
            transfer_ms: settings.transfer_timeout.map(milliseconds),
            message_bytes_max: settings.message_bytes_max,
            window_bytes_min: u64::from(min_rate) * WINDOW_MS / 1_000,
            evicts: settings.evict_idle,
            count_traffic: settings.count_traffic,
            tcp: settings.tcp_options(),
        }
    }

    /// The shortest of the deadlines that run on an open connection that does something.
    fn soonest_ms(&self, park_after_ms: u64) -> u32 {
        let timeouts = [self.idle_ms, self.write_ms, self.transfer_ms].into_iter().flatten();
        let soonest_ms = timeouts.map(look_after_ms).fold(park_after_ms, u64::min);
        u32::try_from(soonest_ms).unwrap_or(u32::MAX)
    }

    /// The values that every request needs. The marks are those that the budget leaves.
    fn marks(&self, budget: &Budget, park_after_ms: u64) -> Marks {
        let (high, low) = budget.marks(self.output_high_bytes, self.output_low_bytes);
        let count = |bytes| u32::try_from(bytes).expect("a mark is at most 1 GiB");
        Marks {
            soonest_ms: self.soonest_ms(park_after_ms),
            high_bytes: count(high),
            low_bytes: count(low),
            output_bytes_max: count(self.output_bytes_max),
        }
    }
}

/// Keeps settings from getting another number while a connection has them.
struct Users {
    count: u32,
    _values: Arc<ListenerSettings>,
}

/// All settings in use, by their number.
pub struct Settings {
    /// Each request asks for one of these, so they lie here and not behind a pointer.
    marks: [Marks; 256],
    limits: Box<[ClientLimits; 256]>,
    users: Vec<Option<Users>>,
    park_after_ms: u64,
}

impl Settings {
    pub fn new(of_config: &ListenerSettings, park_after_ms: u64, budget: &Budget) -> Self {
        let first = ClientLimits::new(of_config);
        let marks = [first.marks(budget, park_after_ms); 256];
        let limits = vec![first; 256].into_boxed_slice().try_into().expect("these are 256");
        Self { marks, limits, users: Vec::new(), park_after_ms }
    }

    /// The marks of a connection with these settings.
    #[inline]
    pub fn marks_of(&self, number: u8) -> &Marks {
        &self.marks[usize::from(number)]
    }

    /// The budget lets the water marks fall or rise.
    #[cold]
    pub fn adapt(&mut self, budget: &Budget) {
        for (marks, limits) in self.marks.iter_mut().zip(self.limits.iter()) {
            *marks = limits.marks(budget, self.park_after_ms);
        }
    }

    /// The shortest of the deadlines that run on an open connection that does something.
    #[inline]
    pub fn soonest_ms(&self, number: u8) -> u64 {
        self.marks[usize::from(number)].soonest_ms.into()
    }

    /// The limits of a connection with these settings.
    #[inline]
    pub fn of(&self, number: u8) -> &ClientLimits {
        &self.limits[usize::from(number)]
    }

    /// A connection gets these settings.
    pub fn take(&mut self, settings: &SharedSettings, budget: &mut Budget) -> u8 {
        let at = usize::from(settings.number);
        if at >= self.users.len() {
            self.users.resize_with(at + 1, || None);
        }
        if let Some(users) = &mut self.users[at] {
            users.count += 1;
        } else {
            let limits = ClientLimits::new(&settings.values);
            budget.know_mark(limits.output_high_bytes);
            self.marks[at] = limits.marks(budget, self.park_after_ms);
            self.limits[at] = limits;
            self.users[at] = Some(Users { count: 1, _values: settings.values.clone() });
        }
        settings.number
    }

    /// A connection with these settings has ended.
    pub fn give_back(&mut self, number: u8) {
        let users = &mut self.users[usize::from(number)];
        let count = &mut users.as_mut().expect("a connection has them").count;
        *count -= 1;
        if *count == 0 {
            *users = None;
        }
    }

    /// Returns whether slow peers may have to make room.
    pub fn has_floor(&self) -> bool {
        let in_use = self.users.iter().zip(self.limits.iter());
        in_use.filter(|(users, _)| users.is_some()).any(|(_, it)| it.window_bytes_min > 0)
    }

    /// The largest limit on queued output that a connection has, or has had.
    #[cfg(any(test, feature = "testing"))]
    pub fn output_bytes_max(&self) -> usize {
        self.limits.iter().map(|limits| limits.output_bytes_max).max().unwrap_or(0)
    }

    /// # Panics
    /// If water marks do not follow the budget.
    #[cfg(any(test, feature = "testing"))]
    pub fn check_marks(&self, budget: &Budget) {
        let in_use = self.users().into_iter().map(|(number, _)| number);
        for number in in_use.chain([OF_CONFIG]) {
            let expected = self.of(number).marks(budget, self.park_after_ms);
            assert_eq!(*self.marks_of(number), expected, "the marks follow the budget");
        }
    }

    /// Connections by the number of their settings.
    #[cfg(any(test, feature = "testing"))]
    pub fn users(&self) -> Vec<(u8, u32)> {
        let users = self.users.iter().enumerate();
        users.filter_map(|(at, users)| Some((at as u8, users.as_ref()?.count))).collect()
    }
}

/// The time between two looks for progress against a deadline, which is late by no more.
pub fn look_after_ms(deadline_ms: u64) -> u64 {
    (deadline_ms / 20).clamp(1, LOOK_MAX_MS)
}
