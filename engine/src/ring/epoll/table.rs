//! The registered descriptors, and the operations that wait for them.

use super::super::{Descriptor, Errno, Token, direct};
use super::calls;
use slab::Slab;
use std::collections::HashMap;
use std::ops::{Index, IndexMut};

/// Bits after which a read does not wait.
pub const READABLE: u32 =
    (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
/// Bits after which a write does not wait.
const WRITABLE: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32;
/// Bits after which a receive that leaves a buffer partly empty need not have read everything.
const UNUSUAL: u32 = (libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
/// The key of the events of the threads' event descriptor.
pub const OF_FILES: u64 = u64::MAX;

/// No entry or operation.
const NONE: u32 = u32::MAX;

/// An operation that waits for its descriptor.
#[derive(Debug)]
pub enum Wait {
    Accept { multishot: bool },
    Receive { multishot: bool },
    Probe,
    Poll { wanted: u32 },
    Send(Send),
    Connect,
}

impl Wait {
    /// The result of an operation that is cancelled, or whose descriptor is closed.
    pub fn cut_short(&self) -> i32 {
        match self {
            Self::Send(Send { done: done @ 1.., .. }) => done.cast_signed(),
            _ => -libc::ECANCELED,
        }
    }
}

/// A stream send, and how much of it has left.
#[derive(Clone, Copy, Debug)]
pub struct Send {
    pub address: *const u8,
    pub length: u32,
    pub done: u32,
    pub more: bool,
}

impl Send {
    /// Sends until everything has left, and returns the result then. `None`: there is no room.
    pub fn go_on(&mut self, socket: Descriptor) -> Option<i32> {
        loop {
            let piece = libc::iovec {
                iov_base: self.address.wrapping_add(self.done as usize).cast_mut().cast(),
                iov_len: (self.length - self.done) as usize,
            };
            match direct::send(socket, &[piece], self.more) {
                Ok(sent) => self.done += sent,
                Err(Errno(libc::EAGAIN)) => return None,
                // The bytes that have left count; the next send fails then.
                Err(errno) if self.done == 0 => return Some(-errno.0),
                Err(_) => return Some(self.done.cast_signed()),
            }
            if self.done == self.length {
                return Some(self.done.cast_signed());
            }
        }
    }
}

/// A registered descriptor.
#[derive(Debug)]
pub struct Entry {
    pub descriptor: Descriptor,
    /// Distinguishes events of this registration from those of an earlier one.
    generation: u32,
    /// The first operation that waits; the others are linked to it, oldest first.
    first: u32,
    /// The events that the kernel reported last, without those that are known to be over.
    pub seen: u32,
    /// A send found no room, and no event has told of room since.
    pub blocked: bool,
    /// Is in the queue of entries that are looked at.
    pub queued: bool,
}

impl Entry {
    /// An event has come: it tells the whole state.
    pub fn note(&mut self, events: u32) {
        // Urgent data stay between other bytes, whatever the kernel says once they were reported.
        self.seen = events | self.seen & libc::EPOLLPRI as u32;
        self.blocked &= events & WRITABLE == 0;
    }

    /// The state as far as it is known, with everything set that is not known.
    pub fn may_be_ready(&self) -> u32 {
        let room = if self.blocked { 0 } else { libc::EPOLLOUT as u32 };
        self.seen & !(libc::EPOLLOUT as u32) | room
    }

    /// Notes a read that left room in its buffer.
    pub fn note_short_read(&mut self) {
        if self.seen & UNUSUAL == 0 {
            self.seen &= !(libc::EPOLLIN as u32);
        }
    }

    pub fn is_waited_for(&self) -> bool {
        self.first != NONE
    }
}

struct Operation {
    token: Token,
    wait: Wait,
    entry: u32,
    next: u32,
}

/// Entries by descriptor; operations by entry and by token.
#[derive(Default)]
pub struct Table {
    by_descriptor: Vec<u32>,
    entries: Slab<Entry>,
    operations: Slab<Operation>,
    by_token: HashMap<Token, u32>,
    registrations: u32,
}

impl Index<u32> for Table {
    type Output = Entry;
    fn index(&self, entry: u32) -> &Entry {
        &self.entries[entry as usize]
    }
}

impl IndexMut<u32> for Table {
    fn index_mut(&mut self, entry: u32) -> &mut Entry {
        &mut self.entries[entry as usize]
    }
}

impl Table {
    /// The entry of a descriptor, if it is registered.
    pub fn find(&self, descriptor: Descriptor) -> Option<u32> {
        let place = usize::try_from(descriptor.0).ok()?;
        self.by_descriptor.get(place).copied().filter(|entry| *entry != NONE)
    }

    /// The entry of a descriptor, which is registered if it is not yet.
    ///
    /// # Errors
    /// ENOMEM: there is no memory, or `fs.epoll.max_user_watches` is reached (epoll(7)). Others as
    /// epoll_ctl(2).
    pub fn entry(&mut self, poller: Descriptor, descriptor: Descriptor) -> Result<u32, Errno> {
        if let Some(entry) = self.find(descriptor) {
            return Ok(entry);
        }
        let place = usize::try_from(descriptor.0).map_err(|_| Errno(libc::EBADF))?;
        let generation = self.registrations;
        let vacant = self.entries.vacant_entry();
        let entry = vacant.key() as u32;
        match calls::add(poller, descriptor, key(entry, generation)) {
            Ok(()) => {}
            Err(Errno(libc::ENOSPC)) => return Err(Errno(libc::ENOMEM)),
            Err(errno) => return Err(errno),
        }
        // A new registration is reported at once, in whichever state it is.
        let (seen, blocked, queued) = (0, false, false);
        vacant.insert(Entry { descriptor, generation, first: NONE, seen, blocked, queued });
        self.registrations = self.registrations.wrapping_add(1);
        if self.by_descriptor.len() <= place {
            self.by_descriptor.resize(place + 1, NONE);
        }
        self.by_descriptor[place] = entry;
        Ok(entry)
    }

    /// The entry that an event belongs to, if it still exists.
    pub fn of_event(&self, key: u64) -> Option<u32> {
        let (generation, entry) = ((key >> 32) as u32, key as u32);
        let found = self.entries.get(entry as usize)?;
        (found.generation == generation).then_some(entry)
    }

    /// Returns whether an entry exists. The queue of ready ones may name one that is gone.
    pub fn has(&self, entry: u32) -> bool {
        self.entries.contains(entry as usize)
    }

    /// Forgets a descriptor that is about to be closed, and for which no operation waits.
    pub fn forget(&mut self, entry: u32) {
        let removed = self.entries.remove(entry as usize);
        debug_assert_eq!(removed.first, NONE, "operations that wait for a closed descriptor");
        self.by_descriptor[removed.descriptor.0 as usize] = NONE;
    }

    /// Asks poll(2) for the present state of a descriptor.
    pub fn look(&mut self, entry: u32) -> u32 {
        let found = &mut self.entries[entry as usize];
        let mask = calls::poll_now(found.descriptor);
        found.note(mask);
        mask
    }

    pub fn insert(&mut self, entry: u32, token: Token, wait: Wait) {
        let number = self.operations.insert(Operation { token, wait, entry, next: NONE }) as u32;
        self.by_token.insert(token, number);
        match self.last(entry) {
            Some(last) => self.operations[last as usize].next = number,
            None => self[entry].first = number,
        }
    }

    /// The first operation that waits for a descriptor.
    pub fn first(&self, entry: u32) -> Option<u32> {
        Some(self[entry].first).filter(|number| *number != NONE)
    }

    /// The operation after another one.
    pub fn next(&self, number: u32) -> Option<u32> {
        Some(self.operations[number as usize].next).filter(|number| *number != NONE)
    }

    /// An operation: its token and its state.
    pub fn operation(&mut self, number: u32) -> (Token, &mut Wait) {
        let operation = &mut self.operations[number as usize];
        (operation.token, &mut operation.wait)
    }

    /// Removes an operation.
    pub fn remove(&mut self, number: u32) -> (Token, Wait) {
        let Operation { token, wait, entry, next } = self.operations.remove(number as usize);
        self.by_token.remove(&token);
        if self[entry].first == number {
            self[entry].first = next;
        } else {
            let before = self.find_operation(entry, |it| it.next == number);
            let before = before.expect("an operation is in the list of its entry");
            self.operations[before as usize].next = next;
        }
        (token, wait)
    }

    pub fn remove_token(&mut self, token: Token) -> Option<Wait> {
        let number = *self.by_token.get(&token)?;
        Some(self.remove(number).1)
    }

    /// Removes the first operation that waits for a descriptor.
    pub fn take_first(&mut self, entry: u32) -> Option<(Token, Wait)> {
        self.first(entry).map(|number| self.remove(number))
    }

    /// Removes a poll that these events end, and returns its mask.
    pub fn take_poll(&mut self, entry: u32, events: u32) -> Option<(Token, u32)> {
        let mask = |it: &Operation| match it.wait {
            Wait::Poll { wanted } => wanted & events,
            _ => 0,
        };
        let number = self.find_operation(entry, |it| mask(it) != 0)?;
        let mask = mask(&self.operations[number as usize]);
        Some((self.remove(number).0, mask))
    }

    fn last(&self, entry: u32) -> Option<u32> {
        self.find_operation(entry, |it| it.next == NONE)
    }

    fn find_operation(&self, entry: u32, is: impl Fn(&Operation) -> bool) -> Option<u32> {
        let mut number = self.first(entry);
        while let Some(at) = number {
            if is(&self.operations[at as usize]) {
                break;
            }
            number = self.next(at);
        }
        number
    }
}

/// The key of the events of an entry. Hazard: `OF_FILES` is no key of an entry, because no slab has
/// that many.
fn key(entry: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(entry)
}
