//! The ends of the shards, for threads and for tasks that wait for them.

use crate::panics;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The shards of an engine that have not ended, and those who wait for that.
#[derive(Clone)]
pub struct Ends(Arc<Shared>);

struct Shared {
    shards: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    running: usize,
    /// The tasks that wait, by number.
    waiting: Vec<(u64, Waker)>,
    next: u64,
}

/// The event that a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The first shard has ended.
    First,
    /// All shards have ended.
    Last,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of the application runs with the lock held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_come(&self, state: &State, until: Until) -> bool {
        match until {
            Until::First => state.running < self.shards,
            Until::Last => state.running == 0,
        }
    }
}

impl Ends {
    pub fn new(shards: usize) -> Self {
        let state = State { running: shards, waiting: Vec::new(), next: 0 };
        Self(Arc::new(Shared { shards, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Makes the value whose drop is the end of a shard.
    pub fn of_shard(&self) -> Ending {
        Ending(self.0.clone())
    }

    /// Waits on this thread, for so long at most. `None` is for ever.
    pub fn wait(&self, until: Until, longest: Option<Duration>) {
        let shared = &*self.0;
        let (state, waits) = (shared.lock(), |state: &mut State| !shared.has_come(state, until));
        match longest {
            None => drop(shared.changed.wait_while(state, waits)),
            Some(longest) => drop(shared.changed.wait_timeout_while(state, longest, waits)),
        }
    }

    /// A future that is ready from then on.
    pub fn future(&self, until: Until) -> Ended {
        Ended { shared: self.0.clone(), until, number: None }
    }
}

/// The end of a shard, when it is dropped, after a panic as well.
pub struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        // Those that wait for another end ask again.
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        self.0.changed.notify_all();
        for (_, waker) in waiting {
            panics::call(Box::new(|| waker.wake()));
        }
    }
}

/// The wait of a task for an end.
pub struct Ended {
    shared: Arc<Shared>,
    until: Until,
    /// Its number among those that wait.
    number: Option<u64>,
}

impl Ended {
    /// Takes back the waker that was left, if it is still there.
    fn withdraw(state: &mut State, number: Option<u64>) -> Option<Waker> {
        let at = state.waiting.iter().position(|(waiting, _)| Some(*waiting) == number)?;
        Some(state.waiting.swap_remove(at).1)
    }
}

impl Future for Ended {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Cloned and dropped without the lock: a waker is code of somebody else.
        let waker = context.waker().clone();
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let before = Self::withdraw(&mut state, self.number.take());
        let come = shared.has_come(&state, self.until);
        if !come {
            self.number = Some(state.next);
            let number = state.next;
            state.next += 1;
            state.waiting.push((number, waker));
        }
        drop(state);
        drop(before);
        if come { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let before = Self::withdraw(&mut self.shared.lock(), self.number.take());
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::thread;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll(future: &mut Ended, count: &Arc<Count>) -> bool {
        let waker = Waker::from(count.clone());
        Pin::new(future).poll(&mut Context::from_waker(&waker)).is_ready()
    }

    #[test]
    fn each_task_is_woken_by_the_end_that_it_waits_for_and_holds_one_waker() {
        let ends = Ends::new(2);
        let shards = [ends.of_shard(), ends.of_shard()];
        let counts: [Arc<Count>; 3] = Default::default();
        let woken = || counts.each_ref().map(|count| count.0.load(Ordering::SeqCst));
        let mut first = ends.future(Until::First);
        let mut last = ends.future(Until::Last);
        let mut cancelled = ends.future(Until::Last);
        for (future, count) in [&mut first, &mut last, &mut cancelled].into_iter().zip(&counts) {
            // A later poll replaces the waker.
            assert!(!poll(future, &Arc::default()) && !poll(future, count) && !poll(future, count));
        }
        assert_eq!(ends.0.lock().waiting.len(), 3);
        drop(cancelled);
        assert_eq!(Arc::strong_count(&counts[2]), 1, "its waker has gone with it");
        let [one, other] = shards;
        drop(one);
        assert_eq!(woken(), [1, 1, 0]);
        assert!(poll(&mut first, &counts[0]) && !poll(&mut last, &counts[1]));
        ends.wait(Until::First, None);
        ends.wait(Until::Last, Some(Duration::from_millis(1)));
        drop(other);
        assert_eq!(woken(), [1, 2, 0]);
        assert!(poll(&mut last, &counts[1]));
        assert!(poll(&mut ends.future(Until::Last), &counts[2]), "it has ended before");
        ends.wait(Until::Last, None);
        drop((first, last));
        assert!(ends.0.lock().waiting.is_empty());
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_from_being_woken() {
        struct Careless;
        impl Wake for Careless {
            fn wake(self: Arc<Self>) {
                std::panic::panic_any("a careless waker");
            }
        }
        let ends = Ends::new(1);
        let shard = ends.of_shard();
        let (mut one, mut other) = (ends.future(Until::Last), ends.future(Until::Last));
        let waker = Waker::from(Arc::new(Careless));
        assert!(Pin::new(&mut one).poll(&mut Context::from_waker(&waker)).is_pending());
        let count = Arc::default();
        assert!(!poll(&mut other, &count));
        thread::spawn(move || drop(shard)).join().expect("the panic goes no further");
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
