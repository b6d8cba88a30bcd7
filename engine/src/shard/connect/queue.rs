//! The requested connects of a shard.

use crate::address::Address;
use crate::config::milliseconds;
use crate::connect::{Connect, ConnectError};
use crate::ring::Errno;
use crate::workers::JobDone;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

/// A requested connect: one attempt, with one callback, however many addresses it tries.
pub struct Attempt {
    pub connect: Connect,
    pub tag: u64,
    /// An attempt of the link that has this tag.
    pub kept: bool,
    /// It holds a permit. That of an attempt with a slot belongs to the slot.
    pub(super) permit: bool,
    /// The addresses of the name, once it is resolved.
    found: Vec<SocketAddr>,
    /// The addresses tried so far, and the one to try next.
    failures: Vec<(Address, io::Error)>,
    next: usize,
    /// The attempt has failed with this error, and `connect_failed` is due.
    verdict: Option<io::Error>,
}

impl Attempt {
    pub fn new(connect: Connect, tag: u64, kept: bool) -> Box<Self> {
        Box::new(Self {
            connect,
            tag,
            kept,
            permit: false,
            found: Vec::new(),
            failures: Vec::new(),
            next: 0,
            verdict: None,
        })
    }

    /// Returns whether a name has to be resolved first.
    pub(super) fn needs_addresses(&self) -> bool {
        self.connect.name().is_some() && self.found.is_empty()
    }

    /// The address to try next. `None`: all were tried.
    pub(super) fn address(&self) -> Option<Address> {
        let found = || self.found.get(self.next).map(|address| Address::Ip(*address));
        self.connect.addresses().get(self.next).cloned().or_else(found)
    }

    /// The address has failed.
    pub(super) fn note_failure(&mut self, errno: Errno) {
        if let Some(address) = self.address() {
            self.failures.push((address, errno.into()));
            self.next += 1;
        }
    }

    /// The time that each address gets, ms; `None`: that of the configuration.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.connect.timeout_each().map(milliseconds)
    }

    /// The error with which it has failed as a whole. `None`: it goes on.
    pub(super) fn take_verdict(&mut self) -> Option<io::Error> {
        self.verdict.take()
    }

    /// Returns whether another address may be tried.
    pub(super) fn goes_on(&self) -> bool {
        self.verdict.is_none() && self.address().is_some()
    }

    /// The error of an attempt that has tried its addresses: the errno of the only one, or all.
    pub(super) fn take_error(&mut self) -> io::Error {
        if let Some(verdict) = self.verdict.take() {
            return verdict;
        }
        let mut failures = std::mem::take(&mut self.failures);
        match failures.len() {
            0 => io::Error::new(io::ErrorKind::InvalidInput, "there is no address to connect to"),
            1 => failures.remove(0).1,
            _ => {
                let kind = failures[failures.len() - 1].1.kind();
                io::Error::new(kind, ConnectError::new(failures))
            }
        }
    }

    /// Ends it by `cancel_connect`. False: it has ended already.
    fn cancel(&mut self) -> bool {
        let goes_on = self.verdict.is_none();
        if goes_on {
            self.verdict = Some(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        goes_on
    }

    /// Its name could not be resolved.
    pub(super) fn note_unresolved(&mut self, why: &dyn std::fmt::Display, kind: io::ErrorKind) {
        let text = format!("cannot resolve {}: {why}", self.connect);
        self.verdict = Some(io::Error::new(kind, text));
    }

    fn note_resolved(&mut self, done: JobDone) {
        match done.result::<io::Result<Vec<SocketAddr>>>() {
            Ok(Ok(found)) if found.is_empty() => {
                self.note_unresolved(&"it has no address", io::ErrorKind::NotFound);
            }
            Ok(Ok(found)) => self.found = found,
            Ok(Err(error)) => self.note_unresolved(&error, error.kind()),
            Err(error) => self.note_unresolved(&error, io::ErrorKind::Other),
        }
    }
}

/// A name that is being resolved: when that has taken too long, ms, and a number.
pub type NameKey = (u64, u64);

/// The attempts of a shard to connect out.
pub struct Connects {
    /// The next flush starts these, oldest first. Those in front may hold a permit: an address has
    /// failed, and its slot is free again, or the submission queue was full.
    due: VecDeque<Box<Attempt>>,
    /// The permits that they hold.
    permits: usize,
    /// Each with the time when it becomes due, in this order.
    postponed: VecDeque<(u64, Box<Attempt>)>,
    /// `connect_failed` runs for a connect that failed without any wait. A handler that connects
    /// again there would do so for ever, so its request is postponed until then. Others are not.
    pub(super) postpones_until_ms: Option<u64>,
    /// Those whose name is being resolved.
    resolving: BTreeMap<NameKey, Box<Attempt>>,
    names: u64,
    /// Those that have a slot, by its number. The slot connects, or it is ending.
    pub with_slot: BTreeMap<u32, Box<Attempt>>,
    /// When the first one is postponed no longer, or resolves for too long.
    next_ms: u64,
}

impl Default for Connects {
    fn default() -> Self {
        Self {
            due: VecDeque::new(),
            permits: 0,
            postponed: VecDeque::new(),
            postpones_until_ms: None,
            resolving: BTreeMap::new(),
            names: 0,
            with_slot: BTreeMap::new(),
            next_ms: u64::MAX,
        }
    }
}

impl Connects {
    pub fn ask(&mut self, attempt: Box<Attempt>) {
        match self.postpones_until_ms {
            Some(at_ms) if !bug!("connect-spins") => {
                self.postponed.push_back((at_ms, attempt));
                self.plan();
            }
            _ => self.due.push_back(attempt),
        }
    }

    /// Returns whether no attempt is without a slot.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty() && self.next_ms == u64::MAX
    }

    /// Returns whether the next flush has something to start.
    #[inline]
    pub fn are_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The number of attempts that the next flush starts.
    pub(super) fn count_due(&self) -> usize {
        self.due.len()
    }

    /// Takes the first of them out.
    pub(super) fn pop(&mut self) -> Option<Box<Attempt>> {
        let attempt = self.due.pop_front()?;
        self.permits -= usize::from(attempt.permit);
        Some(attempt)
    }

    /// Puts an attempt with its permit in front of them.
    pub(super) fn put_first(&mut self, attempt: Box<Attempt>) {
        debug_assert!(attempt.permit);
        self.permits += 1;
        self.due.push_front(attempt);
    }

    /// The permits that attempts without a slot hold.
    pub fn permits(&self) -> usize {
        self.permits
    }

    /// When the first attempt becomes due by itself.
    #[inline]
    pub fn next_ms(&self) -> u64 {
        self.next_ms
    }

    fn plan(&mut self) {
        let postponed_ms = self.postponed.front().map_or(u64::MAX, |(at_ms, _)| *at_ms);
        let resolving_ms = self.resolving.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
        self.next_ms = postponed_ms.min(resolving_ms);
    }

    /// The attempts whose time has come are due; in a drain all of them.
    pub(super) fn resume(&mut self, now_ms: u64, draining: bool) {
        if self.next_ms > now_ms && !(draining && self.next_ms != u64::MAX) {
            return;
        }
        while self.postponed.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms || draining) {
            mark!("a postponed connect is due");
            self.due.extend(self.postponed.pop_front().map(|(_, attempt)| attempt));
        }
        while let Some(entry) = self.resolving.first_entry() {
            if entry.key().0 <= now_ms {
                mark!("a name is resolved too late");
                let mut attempt = entry.remove();
                attempt.note_unresolved(&"it took too long", io::ErrorKind::TimedOut);
                self.due.push_back(attempt);
            } else if draining && !bug!("drain-waits-for-names") {
                mark!("a drain while a name is resolved");
                self.due.push_back(entry.remove());
            } else {
                break;
            }
        }
        self.plan();
    }

    /// The key of the next name to resolve, until then at most.
    pub(super) fn next_name(&mut self, until_ms: u64) -> NameKey {
        self.names += 1;
        (until_ms, self.names)
    }

    /// A worker resolves the name of an attempt.
    pub(super) fn resolves(&mut self, key: NameKey, attempt: Box<Attempt>) {
        self.resolving.insert(key, attempt);
        self.plan();
    }

    /// Takes the attempt out whose name was being resolved. `None`: it did not wait for it.
    pub fn take_name(&mut self, key: NameKey) -> Option<Box<Attempt>> {
        let attempt = self.resolving.remove(&key)?;
        self.plan();
        Some(attempt)
    }

    /// The name of an attempt is resolved, or cannot be.
    pub fn is_resolved(&mut self, mut attempt: Box<Attempt>, done: JobDone) {
        attempt.note_resolved(done);
        self.due.push_back(attempt);
    }

    /// Cancels the attempts with a tag that have no slot. Returns whether there was one.
    pub(super) fn cancel(&mut self, tag: u64) -> bool {
        let mut found = false;
        let mut is_cancelled = |attempt: &mut Box<Attempt>| {
            let cancelled = attempt.tag == tag && attempt.cancel();
            found |= cancelled;
            cancelled
        };
        for attempt in &mut self.due {
            if is_cancelled(attempt) {
                mark!("a queued connect is cancelled");
            }
        }
        let (due, postponed) = (&mut self.due, &mut self.postponed);
        for (at_ms, mut attempt) in std::mem::take(postponed) {
            if is_cancelled(&mut attempt) {
                due.push_back(attempt);
            } else {
                postponed.push_back((at_ms, attempt));
            }
        }
        for (_, attempt) in self.resolving.extract_if(.., |_, attempt| is_cancelled(attempt)) {
            mark!("a connect is cancelled while its name is resolved");
            self.due.push_back(attempt);
        }
        self.plan();
        found
    }

    /// The same for those that have a slot. Returns the slots.
    pub(super) fn cancel_with_slot(&mut self, tag: u64) -> Vec<u32> {
        let slots = self.with_slot.iter_mut();
        let cancelled =
            slots.filter_map(|(slot, it)| (it.tag == tag && it.cancel()).then_some(slot));
        cancelled.copied().collect()
    }

    /// The attempts without a slot.
    #[cfg(any(test, feature = "testing"))]
    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        let postponed = self.postponed.iter().map(|(_, attempt)| attempt);
        let resolving = self.resolving.values();
        self.due.iter().chain(postponed).chain(resolving).map(|attempt| &**attempt)
    }

    /// The same, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Attempt> {
        let postponed = self.postponed.iter_mut().map(|(_, attempt)| attempt);
        let resolving = self.resolving.values_mut();
        self.due.iter_mut().chain(postponed).chain(resolving).map(|attempt| &mut **attempt)
    }

    /// All of them, oldest first.
    pub fn take(&mut self) -> impl Iterator<Item = Box<Attempt>> + use<> {
        let Self { due, postponed, resolving, .. } = std::mem::take(self);
        let postponed = postponed.into_iter().map(|(_, attempt)| attempt);
        due.into_iter().chain(postponed).chain(resolving.into_values())
    }

    /// Every attempt holds what its place says, and none waits beyond its time.
    #[cfg(any(test, feature = "testing"))]
    pub fn check(&self, now_ms: u64) {
        let held = self.due.iter().filter(|it| it.permit).count();
        assert_eq!(self.permits, held, "permits of attempts");
        let mut others = self.resolving.values().chain(self.with_slot.values());
        assert!(others.all(|it| !it.permit), "a permit of an attempt is forgotten");
        let first_ms = self.postponed.iter().map(|(at_ms, _)| *at_ms);
        let first_ms = first_ms.chain(self.resolving.keys().map(|key| key.0)).min();
        assert_eq!(self.next_ms, first_ms.unwrap_or(u64::MAX), "the next attempt; it is {now_ms}");
    }
}
