//! The workers: threads that take jobs from one bounded queue and send each shard what came of
//! its own. A shard never waits for them.
//!
//! # Leaving
//! Whoever makes the pool smaller puts a token where every worker looks first; whoever makes it
//! larger takes tokens back that nobody has picked up before it starts a thread. So there are never
//! more threads than the pool was large, however long jobs take.

use super::gate::{Gate, Shut};
use super::{Job, JobDone, JobError, WORKERS_MAX, WorkersFailed, discard};
use crate::cpu;
use crate::mailbox::Waker;
use crossbeam_channel::{Receiver, Sender, bounded, select_biased, unbounded};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whose job it is.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub slot: u32,
    pub generation: u64,
    /// Its place in the connection's order, if it has one.
    pub sequence: Option<u64>,
}

/// A job that is queued or runs.
pub struct Queued {
    shard: usize,
    ticket: Ticket,
    job: Job,
}

/// A job that is over.
pub struct Finished {
    pub ticket: Ticket,
    pub done: JobDone,
}

/// How a shard hears of its jobs.
struct Reply {
    /// Bounded by the jobs that the shard has under way.
    results: Sender<Finished>,
    waker: Waker,
}

struct Shared {
    gate: Gate,
    queue: Sender<Queued>,
    queued: Receiver<Queued>,
    leave: Sender<()>,
    leaving: Receiver<()>,
    replies: Box<[Reply]>,
    running: AtomicU64,
    /// Shards that have not ended.
    shards: AtomicUsize,
    /// Where workers may run: a shard that starts one is pinned.
    cpus: Vec<usize>,
    /// False in simulations, where somebody else plays the workers.
    starts_threads: bool,
    ended: Sender<usize>,
    endings: Receiver<usize>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    /// Workers that are to be.
    count: usize,
    started: usize,
    handles: BTreeMap<usize, JoinHandle<()>>,
    closed: bool,
}

/// The workers of an engine.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

/// A shard's side of the pool. Dropped with the last shard, it lets the workers go.
pub struct Port {
    pub pool: Pool,
    shard: usize,
    results: Receiver<Finished>,
}

impl Pool {
    /// No workers yet, for shards that are woken like that.
    pub fn new(queued_max: usize, wakers: Vec<Waker>, starts_threads: bool) -> (Self, Vec<Port>) {
        let shards = wakers.len();
        let (queue, queued) = bounded(queued_max);
        let (leave, leaving) = unbounded();
        let (ended, endings) = unbounded();
        let (replies, results): (Vec<Reply>, Vec<_>) = wakers
            .into_iter()
            .map(|waker| {
                let (sender, results) = unbounded();
                (Reply { results: sender, waker }, results)
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
            cpus: cpu::allowed(),
            starts_threads,
            ended,
            endings,
            threads: Mutex::default(),
        }));
        let port = |(shard, results)| Port { pool: pool.clone(), shard, results };
        let ports = results.into_iter().enumerate().map(port).collect();
        (pool, ports)
    }

    /// Workers that jobs are given to.
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
    pub fn resize(&self, workers: usize) -> Result<(), WorkersFailed> {
        if workers > WORKERS_MAX {
            return Err(WorkersFailed::TooMany);
        }
        let mut threads = match self.0.threads.try_lock() {
            Ok(threads) => threads,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(WorkersFailed::Changing),
        };
        if threads.closed {
            return Err(WorkersFailed::Ended);
        }
        self.set_count(&mut threads, workers)
    }

    /// The last shard has ended, or is about to: nobody starts a job any more.
    fn close(&self) {
        let mut threads = self.threads();
        threads.closed = true;
        // Fewer never fails.
        let _ = self.set_count(&mut threads, 0);
    }

    /// Waits so long for workers that still run a job. Returns how many of them are left.
    pub fn join(&self, grace: Duration) -> usize {
        let mut handles = std::mem::take(&mut self.threads().handles);
        let until = Instant::now() + grace;
        while !handles.is_empty() {
            let Ok(number) = self.0.endings.recv_deadline(until) else { break };
            // It has said so with its last breath; a job's panic was caught.
            let _ = handles.remove(&number).map(JoinHandle::join);
        }
        handles.len()
    }

    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.0.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_count(&self, threads: &mut Threads, workers: usize) -> Result<(), WorkersFailed> {
        if workers == 0 {
            // First of all, so that nothing is queued behind the last to leave.
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
        result.map_err(WorkersFailed::Thread)
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
                // Not fatal: the set may have changed since it was read.
                let _ = cpu::bind(&pool.0.cpus);
                pool.work();
                let _ = pool.0.ended.send(number);
            })?;
        threads.handles.insert(number, thread);
        Ok(())
    }

    /// The life of a worker's thread.
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

    /// A job has left the queue.
    fn begin(&self) {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.make_room();
    }

    /// Runs a job, and tells its shard. Nobody hears of what a shard that has ended wanted.
    fn run(&self, queued: Queued) {
        let Queued { shard, ticket, job } = queued;
        let done = if self.0.replies[shard].waker.has_ended() {
            job.fail(JobError::NoWorkers)
        } else {
            job.run()
        };
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.answer(shard, Finished { ticket, done });
    }

    fn answer(&self, shard: usize, finished: Finished) {
        let reply = &self.0.replies[shard];
        match reply.results.send(finished) {
            Ok(()) => reply.waker.wake(),
            Err(unsent) => discard(unsent.into_inner()),
        }
    }

    /// There are no workers: what is queued never runs.
    fn refuse_queued(&self) {
        while let Ok(Queued { shard, ticket, job }) = self.0.queued.try_recv() {
            self.make_room();
            self.answer(shard, Finished { ticket, done: job.fail(JobError::NoWorkers) });
        }
    }

    fn make_room(&self) {
        self.0.gate.leave().for_each(|shard| self.0.replies[shard].waker.wake());
    }

    /// Takes a job as a worker does; for whoever plays one.
    #[cfg(test)]
    pub fn take(&self) -> Option<Queued> {
        let queued = self.0.queued.try_recv().ok()?;
        self.begin();
        Some(queued)
    }

    /// Runs what was taken.
    #[cfg(test)]
    pub fn finish(&self, queued: Queued) {
        self.run(queued);
    }
}

impl Port {
    /// Queues a job; never waits.
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

    /// The next job that is over.
    pub fn finished(&self) -> Option<Finished> {
        self.results.try_recv().ok()
    }

    /// Places in the queue now.
    pub fn room(&self) -> usize {
        self.pool.0.gate.free()
    }

    #[cfg(test)]
    pub fn results_waiting(&self) -> usize {
        self.results.len()
    }

    /// Has the shard woken when there is room. True: there is, now.
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
