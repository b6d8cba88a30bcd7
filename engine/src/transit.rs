//! The connections of each shard as a number, and one queue per shard for clients that another
//! shard has accepted for it.
//!
//! A client in such a queue has a descriptor, a permit, and its places of address and listener.
//! * Invariant: a queue takes a client only while its shard takes any, and not of a listener that
//!   was removed there. Both are known under the lock of the queue. A shard that stops looks into
//!   its queue once more, so no client stays in it.

use crate::waker::Waker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The numbers and queues of all shards.
pub struct Transit<T> {
    shards: Box<[OfShard<T>]>,
}

/// Of one shard, in cache lines of its own.
#[repr(align(128))]
struct OfShard<T> {
    /// Its connections, and the clients in its queue.
    connections: AtomicU64,
    /// Its connections that have ended.
    ended: AtomicU64,
    /// It takes no client any more. Changed under the lock of the queue.
    closed: AtomicBool,
    queue: Mutex<Queue<T>>,
    waker: Waker,
}

struct Queue<T> {
    clients: VecDeque<T>,
    /// The listeners that were removed from the shard, by number.
    removed: Vec<bool>,
}

impl<T> Transit<T> {
    /// Empty queues, one for each shard.
    pub fn new(wakers: impl IntoIterator<Item = Waker>) -> Arc<Self> {
        let of_shard = |waker| OfShard {
            connections: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            queue: Mutex::new(Queue { clients: VecDeque::new(), removed: Vec::new() }),
            waker,
        };
        Arc::new(Self { shards: wakers.into_iter().map(of_shard).collect() })
    }

    fn queue(&self, shard: usize) -> MutexGuard<'_, Queue<T>> {
        // A thread that panicked under the lock has left the queue whole.
        self.shards[shard].queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands what `give` makes to a shard and wakes it. Returns false, and does not call `give`, if
    /// the shard takes no client of this listener.
    pub fn hand(&self, to: usize, listener: u16, give: impl FnOnce() -> T) -> bool {
        let shard = &self.shards[to];
        let mut queue = self.queue(to);
        let is_removed = queue.removed.get(usize::from(listener)).is_some_and(|removed| *removed);
        let is_closed = shard.closed.load(Ordering::Relaxed) || shard.waker.has_ended();
        if is_removed || is_closed {
            return false;
        }
        queue.clients.push_back(give());
        shard.connections.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        shard.waker.wake();
        true
    }

    /// The clients in the queue of a shard.
    pub fn waiting(&self, shard: usize) -> usize {
        self.queue(shard).clients.len()
    }

    /// Takes the next client out of the queue of a shard.
    pub fn take(&self, shard: usize) -> Option<T> {
        let client = self.queue(shard).clients.pop_front()?;
        self.shards[shard].connections.fetch_sub(1, Ordering::Relaxed);
        Some(client)
    }

    /// A listener was removed from a shard, which takes no clients of it any more; or the number
    /// has a new listener.
    pub fn set_removed(&self, shard: usize, listener: u16, removed: bool) {
        let (at, mut queue) = (usize::from(listener), self.queue(shard));
        if at >= queue.removed.len() {
            queue.removed.resize(at + 1, false);
        }
        queue.removed[at] = removed;
    }

    /// A shard takes no client any more. Those that are in its queue stay there.
    pub fn close(&self, shard: usize) {
        let _lock = self.queue(shard);
        self.shards[shard].closed.store(true, Ordering::Relaxed);
    }

    /// A connection of a shard begins.
    pub fn note_opened(&self, shard: usize) {
        self.shards[shard].connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection of a shard has ended.
    pub fn note_closed(&self, shard: usize) {
        let shard = &self.shards[shard];
        shard.connections.fetch_sub(1, Ordering::Relaxed);
        shard.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The connections of a shard, with the clients in its queue.
    pub fn connections(&self, shard: usize) -> u64 {
        self.shards[shard].connections.load(Ordering::Relaxed)
    }

    /// The shard with the fewest connections among those that take clients.
    pub fn lightest(&self) -> Option<usize> {
        let takes = |shard: &usize| !self.shards[*shard].closed.load(Ordering::Relaxed);
        (0..self.shards.len()).filter(takes).min_by_key(|shard| self.connections(*shard))
    }

    /// The connections of all shards that have ended so far.
    pub fn ended(&self) -> u64 {
        self.shards.iter().map(|shard| shard.ended.load(Ordering::Relaxed)).sum()
    }

    /// The clients in all queues.
    #[cfg(any(test, feature = "testing"))]
    pub fn on_their_way(&self) -> usize {
        (0..self.shards.len()).map(|shard| self.waiting(shard)).sum()
    }

    /// Calls `look` with each client that is in a queue.
    #[cfg(any(test, feature = "testing"))]
    pub fn each(&self, mut look: impl FnMut(&T)) {
        (0..self.shards.len()).for_each(|at| self.queue(at).clients.iter().for_each(&mut look));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Mailbox;

    #[test]
    fn a_queue_takes_clients_until_their_listener_is_removed_or_it_is_closed() {
        let (sending, mailbox) = Mailbox::new(1).expect("a descriptor");
        let transit = Transit::new([sending.waker().clone()]);
        let hand = |listener, client: u8| transit.hand(0, listener, || client);
        assert!(hand(3, 2) && hand(3, 3));
        assert!(sending.waker().is_signalled());
        transit.set_removed(0, 3, true);
        assert!(!hand(3, 5), "the listener was removed");
        assert_eq!((transit.waiting(0), transit.connections(0)), (2, 2));
        transit.set_removed(0, 3, false);
        transit.close(0);
        assert!(!hand(3, 6), "the shard takes none any more");
        assert_eq!([transit.take(0), transit.take(0), transit.take(0)], [Some(2), Some(3), None]);
        assert_eq!(transit.connections(0), 0);
        drop(mailbox);
    }

    /// A thread that ended without a word leaves its queue open.
    #[test]
    fn a_shard_that_has_ended_takes_none() {
        let (sending, mailbox) = Mailbox::new(1).expect("a descriptor");
        let transit = Transit::new([sending.waker().clone()]);
        drop(mailbox);
        assert!(!transit.hand(0, 0, || ()));
    }
}
