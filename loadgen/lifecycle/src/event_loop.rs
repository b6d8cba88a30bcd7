//! The loop of connections on plain sockets: epoll, and tasks with deadlines.

use crate::system;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Maximum number of epoll events per turn.
const EVENTS_MAX: usize = 1_024;

/// The end of a task's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The task waits for its socket, at most until then.
    Until(Instant),
    /// The task has more to do, after the others.
    Again,
    /// The task is over.
    Over,
}

/// Something with one socket at a time.
pub trait Task {
    /// State that all tasks of a loop share.
    type Shared;

    /// Does what can be done without waiting. `register` watches a new socket.
    fn go_on(
        &mut self,
        shared: &mut Self::Shared,
        register: &mut dyn FnMut(RawFd) -> io::Result<()>,
    ) -> Turn;
}

/// Runs many tasks on one thread.
pub struct EventLoop<T> {
    poll: Poll,
    events: Events,
    slots: Vec<Option<Slot<T>>>,
    free: Vec<usize>,
    /// Deadlines of the slots; outdated entries are skipped.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Slots with more to do at once.
    again: Vec<usize>,
    done: Vec<T>,
}

struct Slot<T> {
    task: T,
    /// Time of its next turn.
    wake: Instant,
    /// The earliest of its timers.
    timer: Option<Instant>,
}

impl<T: Task> EventLoop<T> {
    /// Memory of each task, without its timers.
    pub const SLOT_BYTES: usize = size_of::<Option<Slot<T>>>();

    /// Creates a loop without tasks.
    ///
    /// # Errors
    /// errno of `epoll_create1(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            slots: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            again: Vec::new(),
            done: Vec::new(),
        })
    }

    /// Starts a task.
    pub fn start(&mut self, task: T, shared: &mut T::Shared) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(Slot { task, wake: Instant::now(), timer: None });
        self.go_on(at, shared);
    }

    /// Returns the number of running tasks.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Runs the tasks for about `time`, or until one ends. Returns the tasks that have ended.
    ///
    /// # Errors
    /// errno of `epoll_wait(2)`.
    pub fn turn(&mut self, time: Duration, shared: &mut T::Shared) -> io::Result<Vec<T>> {
        for at in std::mem::take(&mut self.again) {
            self.go_on(at, shared);
        }
        let nap = match self.timers.peek() {
            _ if !self.again.is_empty() || !self.done.is_empty() => Duration::ZERO,
            Some(Reverse((next, _))) => next.saturating_duration_since(Instant::now()).min(time),
            None => time,
        };
        for at in self.wait(nap)? {
            self.go_on(at, shared);
        }
        let now = Instant::now();
        while let Some(Reverse((when, at))) = self.timers.peek().copied()
            && when <= now
        {
            self.timers.pop();
            let Some(slot) = &mut self.slots[at] else { continue };
            if slot.timer != Some(when) {
                continue;
            }
            slot.timer = None;
            match slot.wake <= now {
                true => self.go_on(at, shared),
                false => self.arm(at),
            }
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// Sets the time of the next turn of each task.
    pub fn reschedule(&mut self, mut next: impl FnMut(&mut T) -> Instant) {
        for at in 0..self.slots.len() {
            if let Some(slot) = &mut self.slots[at] {
                slot.wake = next(&mut slot.task);
                self.arm(at);
            }
        }
    }

    /// Ends the first task for which `is_wanted` returns true, and returns it.
    pub fn remove(&mut self, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        let wanted = |slot: &Option<Slot<T>>| slot.as_ref().is_some_and(|it| is_wanted(&it.task));
        let at = self.slots.iter().position(wanted)?;
        self.free.push(at);
        self.slots[at].take().map(|slot| slot.task)
    }

    /// Ends the loop at once. Returns all tasks.
    pub fn abandon(&mut self) -> Vec<T> {
        let slots = std::mem::take(&mut self.slots);
        self.free.clear();
        self.timers.clear();
        self.again.clear();
        self.done.extend(slots.into_iter().flatten().map(|slot| slot.task));
        std::mem::take(&mut self.done)
    }

    /// Waits for events, at most `time` and with microsecond resolution. Returns the slots of the
    /// sockets that are ready.
    fn wait(&mut self, time: Duration) -> io::Result<Vec<usize>> {
        if !time.is_zero() {
            system::wait_readable(&self.poll, time);
        }
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(self.events.iter().map(|event| event.token().0).collect()),
        }
    }

    fn go_on(&mut self, at: usize, shared: &mut T::Shared) {
        let Some(slot) = &mut self.slots[at] else { return };
        let poll = &self.poll;
        // Events are edge-triggered, until the socket is closed.
        let mut register = |socket: RawFd| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut SourceFd(&socket), Token(at), interest)
        };
        match slot.task.go_on(shared, &mut register) {
            Turn::Until(until) => {
                slot.wake = until;
                self.arm(at);
            }
            Turn::Again => self.again.push(at),
            Turn::Over => {
                let slot = self.slots[at].take().expect("it was there");
                self.free.push(at);
                self.done.push(slot.task);
            }
        }
    }

    /// Arms the timer of a slot. A deadline that moves with each byte needs no new timer each time:
    /// the existing one expires first and is then armed again.
    fn arm(&mut self, at: usize) {
        let Some(slot) = &mut self.slots[at] else { return };
        if slot.timer.is_none_or(|timer| timer > slot.wake) {
            slot.timer = Some(slot.wake);
            self.timers.push(Reverse((slot.wake, at)));
        }
    }
}
