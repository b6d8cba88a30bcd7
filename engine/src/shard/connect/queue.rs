//! The requested connects of a shard.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// A requested connect.
pub struct Connect {
    pub to: SocketAddr,
    pub tag: u64,
    /// An attempt of the link that has this tag.
    pub kept: bool,
}

/// The requested connects that have no slot yet.
#[derive(Default)]
pub struct Connects {
    /// The next flush starts these, oldest first.
    pub(super) due: VecDeque<Connect>,
    /// Each with the time when it becomes due, in this order.
    pub(super) postponed: VecDeque<(u64, Connect)>,
    /// `connect_failed` runs for a connect that failed without any wait. A handler that connects
    /// again there would do so for ever, so its request is postponed until then. Others are not.
    pub(super) postpones_until_ms: Option<u64>,
}

impl Connects {
    pub fn ask(&mut self, connect: Connect) {
        match self.postpones_until_ms {
            Some(at_ms) if !bug!("connect-spins") => self.postponed.push_back((at_ms, connect)),
            _ => self.due.push_back(connect),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty() && self.postponed.is_empty()
    }

    /// Returns whether the next flush has something to start.
    pub fn are_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When the first postponed connect becomes due.
    #[inline]
    pub fn next_ms(&self) -> Option<u64> {
        self.postponed.front().map(|(at_ms, _)| *at_ms)
    }

    /// The postponed connects whose time has come are due; in a drain all of them.
    pub(super) fn resume(&mut self, now_ms: u64, draining: bool) {
        while self.next_ms().is_some_and(|at_ms| at_ms <= now_ms || draining) {
            mark!("a postponed connect is due");
            self.due.extend(self.postponed.pop_front().map(|(_, connect)| connect));
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn iter(&self) -> impl Iterator<Item = &Connect> {
        self.due.iter().chain(self.postponed.iter().map(|(_, connect)| connect))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connect> {
        self.due.iter_mut().chain(self.postponed.iter_mut().map(|(_, connect)| connect))
    }

    /// All of them, oldest first.
    pub fn take(&mut self) -> impl Iterator<Item = Connect> + use<> {
        let Self { due, postponed, .. } = std::mem::take(self);
        due.into_iter().chain(postponed.into_iter().map(|(_, connect)| connect))
    }
}
