//! The worker threads. They take jobs from one bounded queue (crossbeam-channel), which all shards
//! share. A result goes to its shard through a channel of its own and the shard's event descriptor.
//! That channel is bounded by the jobs and holds in progress, so a full mailbox loses no result. A
//! shard never waits for a worker. The result of a hold takes the same channel, from any thread.
//!
//! # Leaving
//! A caller that shrinks the pool puts one token per surplus worker into a channel that every
//! worker reads first. A caller that grows the pool takes back unread tokens before it starts a
//! thread. Invariant: the number of threads never exceeds the largest size of the pool, even if
//! jobs run long.
//!
//! At zero workers the queue is emptied, and every queued job gets an error. With the last shard
//! the queue is emptied as well, and the workers leave. `Engine::join` waits three seconds for them
//! and then reports the jobs that still run, because a thread cannot be ended from outside. Workers
//! drop values of the application with panics caught.

use super::gate::{Gate, Shut};
use super::{Hold, Job, JobDone, RunJobError, SetWorkersError, WORKERS_MAX};
use crate::cpu;
use crate::panics::discard;
use crate::waker::Waker;
use crossbeam_channel::{Receiver, Sender, bounded, select_biased, unbounded};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The owner of a job or hold.
#[derive(Clone, Copy, Debug)]
pub enum Ticket {
    /// A connection.
    Connection {
        slot: u32,
        generation: u64,
        /// The place in the order of the connection, for an ordered job or hold.
        sequence: Option<u64>,
    },
    /// The shard itself.
    Shard,
    /// An attempt to connect whose name is resolved until then, with a number of the shard.
    Name { until_ms: u64, number: u64 },
}

/// A job that is queued or running.
pub struct Queued {
    shard: usize,
    ticket: Ticket,
    job: Job,
}

/// A job or hold that has finished, with its result.
pub struct Finished {
    pub ticket: Ticket,
    pub done: JobDone,
}

/// The way back to a shard.
pub struct Reply {
    /// Bounded by the jobs and holds that the shard has in progress.
    results: Sender<Finished>,
    waker: Waker,
}

impl Reply {
    /// Sends a result and wakes the shard. It never waits.
    pub fn answer(&self, finished: Finished) {
        match self.results.send(finished) {
            Ok(()) => self.waker.wake(),
            Err(unsent) => discard(unsent.into_inner()),
        }
    }

    /// Returns whether the shard has ended.
    pub fn has_ended(&self) -> bool {
        self.waker.has_ended()
    }
}

struct Shared {
    gate: Gate,
    queue: Sender<Queued>,
    queued: Receiver<Queued>,
    leave: Sender<()>,
    leaving: Receiver<()>,
    replies: Box<[Arc<Reply>]>,
    running: AtomicU64,
    /// Shards that have not ended.
    shards: AtomicUsize,
    /// The CPUs that workers may use. A worker started by a shard would inherit the shard's one
    /// CPU.
    cpus: Vec<usize>,
    /// False in simulations, where the simulation plays the workers.
    starts_threads: bool,
    ended: Sender<usize>,
    endings: Receiver<usize>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    /// The size of the pool.
    count: usize,
    started: usize,
    handles: BTreeMap<usize, JoinHandle<()>>,
    closed: bool,
}

/// The workers of an engine.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

/// A shard's side of the pool. The workers leave when the last port is dropped.
pub struct Port {
    pub pool: Pool,
    shard: usize,
    results: Receiver<Finished>,
}

impl Pool {
    /// A pool without workers, for the shards that `wakers` wake.
    pub fn new(queued_max: usize, wakers: Vec<Waker>, starts_threads: bool) -> (Self, Vec<Port>) {
        let shards = wakers.len();
        let (queue, queued) = bounded(queued_max);
        let (leave, leaving) = unbounded();
        let (ended, endings) = unbounded();
        let (replies, results): (Vec<_>, Vec<_>) = wakers
            .into_iter()
            .map(|waker| {
                let (sender, results) = unbounded();
                (Arc::new(Reply { results: sender, waker }), results)
            })
            .unzip();
        let pool = Self(Arc::new(Shared {
            gate: Gate::new(queued_max, shards),
            queue,
            queued,
            leave,
            leaving,
            replies: replies.into(),
            running: AtomicU64::new(0),
            shards: AtomicUsize::new(shards),
            cpus: cpu::of_process(),
            starts_threads,
            ended,
            endings,
            threads: Mutex::default(),
        }));
        let port = |(shard, results)| Port { pool: pool.clone(), shard, results };
        let ports = results.into_iter().enumerate().map(port).collect();
        (pool, ports)
    }

    /// Workers that may take jobs.
    pub fn workers(&self) -> usize {
        self.0.gate.workers()
    }

    /// Jobs that wait for a worker.
    pub fn queued(&self) -> u64 {
        self.0.gate.queued() as u64
    }

    /// Jobs that run.
    pub fn running(&self) -> u64 {
        self.0.running.load(Ordering::Relaxed)
    }

    /// Changes the number of workers.
    pub fn resize(&self, workers: usize) -> Result<(), SetWorkersError> {
        if workers > WORKERS_MAX {
            return Err(SetWorkersError::TooMany);
        }
        let mut threads = match self.0.threads.try_lock() {
            Ok(threads) => threads,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(SetWorkersError::Changing),
        };
        if threads.closed {
            return Err(SetWorkersError::Ended);
        }
        self.set_count(&mut threads, workers)
    }

    /// Called when the last shard ends: no queued job starts any more.
    fn close(&self) {
        let mut threads = self.threads();
        threads.closed = true;
        // Shrinking cannot fail.
        let _ = self.set_count(&mut threads, 0);
    }

    /// Waits up to `grace` for running jobs. Returns the number of threads that are left.
    pub fn join(&self, grace: Duration) -> usize {
        let mut handles = std::mem::take(&mut self.threads().handles);
        let until = Instant::now() + grace;
        while !handles.is_empty() {
            let Ok(number) = self.0.endings.recv_deadline(until) else { break };
            // The thread reported its end as its last action, and panics of jobs were caught.
            let _ = handles.remove(&number).map(JoinHandle::join);
        }
        handles.len()
    }

    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_count(&self, threads: &mut Threads, workers: usize) -> Result<(), SetWorkersError> {
        if workers == 0 {
            // Before everything else, so that no job is queued behind the last worker to leave.
            self.0.gate.set_workers(0);
        }
        while let Ok(number) = self.0.endings.try_recv() {
            let _ = threads.handles.remove(&number).map(JoinHandle::join);
        }
        let mut result = Ok(());
        while threads.count < workers && result.is_ok() {
            if self.0.leaving.try_recv().is_err() {
                result = self.start_thread(threads);
            }
            threads.count += usize::from(result.is_ok());
        }
        while threads.count > workers {
            threads.count -= 1;
            let _ = self.0.leave.send(());
        }
        self.0.gate.set_workers(threads.count);
        if threads.count == 0 {
            self.refuse_queued();
        }
        result.map_err(SetWorkersError::Thread)
    }

    fn start_thread(&self, threads: &mut Threads) -> std::io::Result<()> {
        let number = threads.started;
        threads.started += 1;
        if !self.0.starts_threads {
            return Ok(());
        }
        let pool = self.clone();
        let thread =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                // Not fatal: the affinity mask may have changed since it was read.
                let _ = cpu::bind(&pool.0.cpus);
                pool.work();
                let _ = pool.0.ended.send(number);
            })?;
        threads.handles.insert(number, thread);
        Ok(())
    }

    /// Runs a worker on the current thread until it gets a token.
    fn work(&self) {
        loop {
            select_biased! {
                recv(self.0.leaving) -> _ => return,
                recv(self.0.queued) -> queued => {
                    let queued = queued.expect("the pool holds a sender itself");
                    self.begin();
                    self.run(queued);
                }
            }
        }
    }

    /// Notes that a job has left the queue and runs.
    fn begin(&self) {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.make_room();
    }

    /// Runs a job and reports its result. Jobs of a shard that has ended are not run.
    fn run(&self, queued: Queued) {
        let Queued { shard, ticket, job } = queued;
        let done = if self.0.replies[shard].has_ended() {
            job.fail(RunJobError::NoWorkers)
        } else {
            job.run()
        };
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.replies[shard].answer(Finished { ticket, done });
    }

    /// Fails every queued job, because there are no workers.
    fn refuse_queued(&self) {
        while let Ok(Queued { shard, ticket, job }) = self.0.queued.try_recv() {
            self.make_room();
            let done = job.fail(RunJobError::NoWorkers);
            self.0.replies[shard].answer(Finished { ticket, done });
        }
    }

    fn make_room(&self) {
        self.0.gate.leave().for_each(|shard| self.0.replies[shard].waker.wake());
    }

    /// Takes a job as a worker does, for a simulation.
    #[cfg(any(test, feature = "testing"))]
    pub fn take(&self) -> Option<Queued> {
        let queued = self.0.queued.try_recv().ok()?;
        self.begin();
        Some(queued)
    }

    /// Runs a job that was taken.
    #[cfg(any(test, feature = "testing"))]
    pub fn finish(&self, queued: Queued) {
        self.run(queued);
    }
}

impl Port {
    /// Queues a job. Never waits.
    pub fn offload(&self, ticket: Ticket, job: Job) -> Result<(), (Job, Shut)> {
        let shared = &self.pool.0;
        if let Err(shut) = shared.gate.enter(self.shard) {
            return Err((job, shut));
        }
        let queued = shared.queue.try_send(Queued { shard: self.shard, ticket, job });
        assert!(queued.is_ok(), "whoever has a place finds it in the queue");
        if shared.gate.is_abandoned() {
            self.pool.refuse_queued();
        }
        Ok(())
    }

    /// A hold, whose result comes as that of a job does.
    pub fn hold(&self, tag: u64, ticket: Ticket, abandoned: Option<Arc<AtomicBool>>) -> Hold {
        Hold::new(tag, ticket, self.pool.0.replies[self.shard].clone(), abandoned)
    }

    /// Takes the next finished job of this shard.
    pub fn finished(&self) -> Option<Finished> {
        self.results.try_recv().ok()
    }

    /// Free places in the queue.
    pub fn room(&self) -> usize {
        self.pool.0.gate.free()
    }

    /// Finished jobs of this shard that were not taken.
    pub fn results_waiting(&self) -> usize {
        self.results.len()
    }

    /// Asks for a wake-up of the shard when there is room. Returns whether there is room now.
    pub fn wait_for_room(&self) -> bool {
        self.pool.0.gate.wait(self.shard)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        while let Some(finished) = self.finished() {
            discard(finished);
        }
        if self.pool.0.shards.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pool.close();
        }
    }
}
