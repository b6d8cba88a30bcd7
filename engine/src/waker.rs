//! Waking a shard from any thread, with an event descriptor (eventfd(2)) that it polls on its ring.

use crate::ring::{Descriptor, Outside};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

struct Shared {
    /// Closed with the last handle, so that no waker writes to a number that was reused.
    event: Descriptor,
    outside: Outside,
    signalled: AtomicBool,
    ended: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        (self.outside.close)(self.event);
    }
}

/// Wakes a shard from any thread.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

impl Waker {
    pub fn new(event: Descriptor, outside: Outside) -> Self {
        let (signalled, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Shared { event, outside, signalled, ended }))
    }

    /// Makes the shard look at its mailbox. All calls until it has looked cost one write(2)
    /// together.
    pub fn wake(&self) {
        if !self.0.signalled.swap(true, Ordering::SeqCst) {
            (self.0.outside.signal)(self.0.event);
        }
    }

    /// Returns whether the shard was woken and has not looked.
    #[cfg(test)]
    pub fn is_signalled(&self) -> bool {
        self.0.signalled.load(Ordering::SeqCst)
    }

    /// Returns whether the shard has ended.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// The descriptor that the shard polls.
    pub fn event(&self) -> Descriptor {
        self.0.event
    }

    /// The shard has woken: from now on, a waker writes again.
    pub fn acknowledge(&self) {
        self.0.signalled.store(false, Ordering::SeqCst);
        // State that other threads change, such as permits handed over, must be read after this
        // point.
        fence(Ordering::SeqCst);
    }

    /// The shard ends.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }
}
