//! Flow control of a stream from another thread: the bytes that are under way.
//!
//! Each payload of a stream has a [`Credit`], which goes with it through the mailbox and then with
//! a marker of the output. It comes back when the bytes before the marker have left. A credit that
//! is dropped belongs to bytes that will not leave, so its stream ends.

use crate::panics::{call, discard};
use crate::reason::Reason;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Notice = Box<dyn FnOnce() + Send>;

/// The window of a stream. Its lock is held only while a few fields change.
pub struct Window {
    bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    under_way_bytes: usize,
    /// The window was used up, and more than half of it still is.
    full: bool,
    ended: bool,
    /// The reason for the end of the connection, if it is known.
    reason: Option<Reason>,
    /// Called once when there is room, or at the end.
    notice: Option<Notice>,
}

/// The reason why a window has no credit.
#[derive(Debug, PartialEq, Eq)]
pub enum NoCredit {
    Full,
    Ended(Option<Reason>),
}

impl Window {
    /// A window of so many bytes, at least one.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.max(1), state: Mutex::default(), changed: Condvar::new() })
    }

    /// Takes credit for a payload. The last one before the window is full may exceed it.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Result<Credit, NoCredit> {
        let mut state = self.lock();
        if state.ended {
            return Err(NoCredit::Ended(state.reason));
        }
        if state.full {
            return Err(NoCredit::Full);
        }
        state.under_way_bytes += bytes;
        state.full = state.under_way_bytes >= self.bytes;
        drop(state);
        Ok(Credit { window: self.clone(), bytes, settled: false })
    }

    /// Waits until there is room or the stream has ended, but no longer than `most`.
    pub fn wait(&self, most: Duration) {
        let begun = Instant::now();
        let mut state = self.lock();
        while state.full && !state.ended {
            let left = most.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Calls `notice` once when there is room or the stream has ended, at once if that is so.
    pub fn notify(&self, notice: Notice) {
        let mut state = self.lock();
        let waits = state.full && !state.ended;
        let before = state.notice.take();
        let now = if waits {
            state.notice = Some(notice);
            None
        } else {
            Some(notice)
        };
        drop(state);
        drop(before);
        if let Some(notice) = now {
            notice();
        }
    }

    pub fn under_way_bytes(&self) -> usize {
        self.lock().under_way_bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, bytes: usize, ended: Option<Option<Reason>>) {
        let mut state = self.lock();
        state.under_way_bytes -= bytes;
        if let Some(reason) = ended {
            state.ended = true;
            state.reason = state.reason.or(reason);
        }
        let has_room = state.full && state.under_way_bytes <= self.bytes / 2;
        state.full &= !has_room;
        if !has_room && ended.is_none() {
            return;
        }
        let notice = state.notice.take();
        drop(state);
        self.changed.notify_all();
        // It is called on the shard's thread.
        notice.into_iter().for_each(call);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // A notice that was not called is a value of the application.
        discard(self.lock().notice.take());
    }
}

/// The part of a window that a payload uses.
pub struct Credit {
    window: Arc<Window>,
    bytes: usize,
    settled: bool,
}

impl Credit {
    /// The bytes have left.
    pub fn give_back(mut self) {
        self.settled = true;
        self.window.settle(self.bytes, None);
    }

    /// The connection has ended before they had left.
    pub fn end(mut self, reason: Reason) {
        self.settled = true;
        self.window.settle(self.bytes, Some(Some(reason)));
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if !self.settled {
            self.window.settle(self.bytes, Some(None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_window_is_full_until_half_of_it_has_left() {
        let window = Window::new(100);
        let first = window.take(99).expect("it is empty");
        let second = window.take(50).expect("the last one may exceed it");
        assert_eq!(window.take(1).err(), Some(NoCredit::Full));
        let calls = Arc::new(AtomicUsize::new(0));
        let called = calls.clone();
        window.notify(Box::new(move || {
            called.fetch_add(1, Ordering::SeqCst);
            panic!("a notice panics on purpose");
        }));
        first.give_back();
        assert_eq!((window.under_way_bytes(), calls.load(Ordering::SeqCst)), (50, 1));
        let third = window.take(50).expect("half of it has left");
        assert_eq!(window.take(1).err(), Some(NoCredit::Full));
        let waiting = window.clone();
        let waiter = std::thread::spawn(move || {
            waiting.wait(Duration::from_secs(10));
            waiting.take(1).map(Credit::give_back)
        });
        second.give_back();
        assert_eq!(waiter.join().expect("it does not panic"), Ok(()));
        third.end(Reason::Kicked);
        assert_eq!(window.take(1).err(), Some(NoCredit::Ended(Some(Reason::Kicked))));
    }

    #[test]
    fn a_credit_that_is_dropped_ends_the_stream() {
        let window = Window::new(1);
        let (credit, calls) = (window.take(5).expect("it is empty"), Arc::new(()));
        let held = calls.clone();
        window.notify(Box::new(move || drop(held)));
        assert_eq!(Arc::strong_count(&calls), 2);
        window.wait(Duration::ZERO);
        drop(credit);
        assert_eq!((window.under_way_bytes(), Arc::strong_count(&calls)), (0, 1));
        window.wait(Duration::from_secs(100));
        assert_eq!(window.take(0).err(), Some(NoCredit::Ended(None)));
        let held = calls.clone();
        window.notify(Box::new(move || drop(held)));
        assert_eq!(Arc::strong_count(&calls), 1, "it is called at once");
    }
}
