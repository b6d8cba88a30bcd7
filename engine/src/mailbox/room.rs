//! Threads that wait until a command queue has room again.

use crate::panics::call;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The limit on waiters of one queue. Those beyond it are called at once.
const WAITERS_MAX: usize = 1_024;

/// A closure that is called once there is room.
pub type Waiter = Box<dyn FnOnce() + Send>;

/// The waiters of one queue.
///
/// Invariant: no waiter sleeps while the queue is at most half full. A waiter looks at the queue
/// after it has set `waits`, and the shard looks at `waits` after it has taken a command. A sender
/// that gives a place back without a command wakes the shard.
#[derive(Default)]
pub struct Room {
    waits: AtomicBool,
    waiters: Mutex<Vec<Waiter>>,
}

impl Room {
    /// Calls `waiter` once at most half of `commands_max` commands are `queued`, or `ended` holds.
    pub fn wait(
        &self,
        waiter: Waiter,
        queued: &AtomicUsize,
        commands_max: usize,
        ended: impl Fn() -> bool,
    ) {
        {
            let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            if waiters.len() >= WAITERS_MAX {
                drop(waiters);
                return call(waiter);
            }
            waiters.push(waiter);
            self.waits.store(true, Ordering::SeqCst);
        }
        if has_room(queued.load(Ordering::SeqCst), commands_max) || ended() {
            self.call_all();
        }
    }

    /// Returns whether somebody waits.
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::SeqCst)
    }

    /// The shard has taken a command or was woken, and `queued` are left.
    #[inline]
    pub fn look(&self, queued: usize, commands_max: usize) {
        if self.waits() && has_room(queued, commands_max) {
            self.call_all();
        }
    }

    /// Calls all waiters.
    #[cold]
    pub fn call_all(&self) {
        let waiters = {
            let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            self.waits.store(false, Ordering::SeqCst);
            std::mem::take(&mut *waiters)
        };
        // The lock is free by now: a waiter may wait again.
        waiters.into_iter().for_each(call);
    }
}

fn has_room(queued: usize, commands_max: usize) -> bool {
    queued <= commands_max / 2
}
