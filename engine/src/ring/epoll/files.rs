//! Operations that may wait for a disk, and the threads that run them.
//!
//! Files on their way out have threads of their own. While a disk does not answer, these are busy
//! with its files, and the other threads still open files of other disks and store received bytes.
//! io_uring has two classes of threads with the same effect: a splice into a pipe is unbounded
//! work, the others are bounded work.

use super::super::calls::{close, event, signal_event};
use super::super::{Descriptor, Errno, Op, Token};
use super::calls;
use crossbeam_channel::{Receiver, Sender, unbounded};
use slab::Slab;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// The operations that threads have, and the threads.
pub struct Files {
    shared: Arc<Shared>,
    in_flight: Slab<InFlight>,
    /// Closed here while a thread still used them.
    closed: Vec<Descriptor>,
    /// By class.
    crews: [Crew; CLASSES],
    results: Receiver<Done>,
    done: Sender<Done>,
    /// The limit of each class.
    threads_max: usize,
}

/// Classes of operations with threads of their own.
const CLASSES: usize = 2;

/// The class of an operation.
fn class(op: &Op) -> usize {
    usize::from(matches!(op, Op::Splice { .. }))
}

/// The threads of a class, and their queue.
struct Crew {
    jobs: Option<Sender<Job>>,
    queued: Receiver<Job>,
    in_flight: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    fn new() -> Self {
        let (jobs, queued) = unbounded();
        Self { jobs: Some(jobs), queued, in_flight: 0, threads: Vec::new() }
    }
}

struct InFlight {
    token: Token,
    class: usize,
    uses: [Descriptor; 2],
}

struct Job {
    number: usize,
    op: Op,
}

// SAFETY: the addresses in an operation are of memory that its submitter keeps until the
// completion, and that no other thread writes to meanwhile.
unsafe impl Send for Job {}

struct Done {
    number: usize,
    result: i32,
    /// The result is a new descriptor.
    opens: bool,
}

impl Done {
    /// Closes the descriptor that this result brings and nobody takes.
    fn discard(&self) {
        if self.opens && self.result >= 0 {
            close(Descriptor(self.result));
        }
    }
}

struct Shared {
    event: Descriptor,
    /// openat2(2) can be called.
    openat2: bool,
    /// The ring is gone: no further operation begins.
    ended: AtomicBool,
    /// Descriptors that the last thread closes, because the ring has gone before.
    left: Mutex<Vec<Descriptor>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let left = self.left.get_mut().unwrap_or_else(PoisonError::into_inner);
        left.drain(..).for_each(close);
        close(self.event);
    }
}

impl Files {
    pub fn new(threads_max: u32, openat2: bool) -> io::Result<Self> {
        let event = event()?;
        let (ended, left) = (AtomicBool::new(false), Mutex::default());
        let shared = Shared { event, openat2, ended, left };
        let (done, results) = unbounded();
        Ok(Self {
            shared: Arc::new(shared),
            in_flight: Slab::new(),
            closed: Vec::new(),
            crews: [Crew::new(), Crew::new()],
            results,
            done,
            threads_max: threads_max as usize,
        })
    }

    /// Becomes readable when there is a result. Every signal is an edge, so nobody reads it.
    pub fn event(&self) -> Descriptor {
        self.shared.event
    }

    /// Gives an operation to a thread.
    ///
    /// # Errors
    /// ENOMEM: not one thread can be started.
    pub fn push(&mut self, token: Token, op: Op) -> Result<(), Errno> {
        let class = class(&op);
        let (crew, threads) = (&self.crews[class], self.crews[class].threads.len());
        if crew.in_flight >= threads && threads < self.threads_max {
            let started = self.start(class);
            if started.is_err() && threads == 0 {
                return Err(Errno(libc::ENOMEM));
            }
        }
        let number = self.in_flight.insert(InFlight { token, class, uses: descriptors(&op) });
        let crew = &mut self.crews[class];
        crew.in_flight += 1;
        let jobs = crew.jobs.as_ref().expect("the ring has not ended");
        jobs.send(Job { number, op }).expect("the other end is ours, too");
        Ok(())
    }

    fn start(&mut self, class: usize) -> io::Result<()> {
        let crew = &mut self.crews[class];
        let (shared, queued) = (self.shared.clone(), crew.queued.clone());
        let done = self.done.clone();
        let run = move || work(&shared, &queued, &done);
        // After the thread of the ring, as the kernel names those of io_uring.
        let name = format!("file-{}", calls::thread_id());
        crew.threads.push(thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// The result of an operation that has ended.
    pub fn next_result(&mut self) -> Option<(Token, i32)> {
        if self.in_flight.is_empty() {
            return None;
        }
        let Done { number, result, .. } = self.results.try_recv().ok()?;
        let InFlight { token, class, .. } = self.in_flight.remove(number);
        self.crews[class].in_flight -= 1;
        let closed = std::mem::take(&mut self.closed);
        closed.into_iter().for_each(|descriptor| self.close(descriptor));
        Some((token, result))
    }

    /// Returns whether a thread has the operation.
    pub fn has(&self, token: Token) -> bool {
        self.in_flight.iter().any(|(_, it)| it.token == token)
    }

    /// The number of threads.
    #[cfg(test)]
    pub fn threads(&self) -> usize {
        self.crews.iter().map(|crew| crew.threads.len()).sum()
    }

    /// Closes a descriptor as soon as no thread uses it.
    pub fn close(&mut self, descriptor: Descriptor) {
        if self.in_flight.iter().any(|(_, it)| it.uses.contains(&descriptor)) {
            self.closed.push(descriptor);
        } else {
            close(descriptor);
        }
    }
}

impl Drop for Files {
    /// Waits for the threads if they have nothing to do. Otherwise they end on their own, when the
    /// disk has answered.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        for crew in &mut self.crews {
            crew.jobs = None;
            if crew.in_flight == 0 {
                for thread in crew.threads.drain(..) {
                    let _ = thread.join();
                }
            }
        }
        self.results.try_iter().for_each(|done| done.discard());
        let mut left = self.shared.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.append(&mut self.closed);
    }
}

/// A thread that runs operations until the ring ends.
fn work(shared: &Shared, queued: &Receiver<Job>, done: &Sender<Done>) {
    calls::block_signals();
    while let Ok(Job { number, op }) = queued.recv() {
        if shared.ended.load(Ordering::Acquire) {
            return;
        }
        let opens = matches!(op, Op::Open { .. } | Op::Create { .. });
        let result = Done { number, result: calls::run(&op, shared.openat2), opens };
        if let Err(unsent) = done.send(result) {
            unsent.0.discard();
        }
        signal_event(shared.event);
    }
}

/// The descriptors that an operation uses. Closing one is not counted: its number is free as soon
/// as the thread has begun.
fn descriptors(op: &Op) -> [Descriptor; 2] {
    match *op {
        Op::Read { file, .. } | Op::Write { file, .. } => [file, Descriptor::NONE],
        Op::Splice { file, pipe, .. } | Op::SpliceToFile { pipe, file, .. } => [file, pipe],
        Op::Sync { descriptor } => [descriptor, Descriptor::NONE],
        Op::Link { file, directory, .. } => [file, directory],
        Op::Create { directory }
        | Op::Rename { directory, .. }
        | Op::Unlink { directory, .. }
        | Op::Open { directory, .. } => [directory, Descriptor::NONE],
        _ => [Descriptor::NONE; 2],
    }
}
