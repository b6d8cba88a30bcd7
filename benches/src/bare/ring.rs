//! The ring itself: set-up, submitting, and the adaptive wait.

use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, squeue};

/// Operations that fit into the ring between two calls of the kernel.
const SUBMISSIONS_MAX: u32 = 4096;
/// Completions that fit: as many as there may be buffers and sends, so that none overflows.
const COMPLETIONS_MAX: u32 = 65536;
/// Longest wait of all: how soon a termination is seen that came just before the wait.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Longest wait for more than one completion, in microseconds.
const BATCH_WAIT_US: u32 = 100;
/// Most completions to wait for.
const BATCH_MAX: usize = 256;

/// Creates a ring for the calling thread. With `SINGLE_ISSUER | DEFER_TASKRUN` only that thread may
/// enter it, and completions are posted only when it does; `SUBMIT_ALL` lets a batch go on past an
/// operation that fails; without the index array there is one indirection less.
pub fn create() -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_no_sqarray()
        .setup_cqsize(COMPLETIONS_MAX)
        .build(SUBMISSIONS_MAX)
        .map_err(explain)
}

fn explain(error: io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "allow io_uring with sysctl kernel.io_uring_disabled=0 and in the container's seccomp \
             profile"
        }
        Some(libc::EINVAL) => "Linux 6.6 or newer is required (IORING_SETUP_NO_SQARRAY)",
        Some(libc::ENOMEM) => "raise the limit of locked memory (ulimit -l)",
        _ => "see io_uring_setup(2)",
    };
    io::Error::new(error.kind(), format!("io_uring_setup: {error}; {remedy}"))
}

/// The two queues, and the submitter that they go with.
///
/// The submitter is kept, because the registered ring descriptor lives in that one value: a fresh
/// one from [`IoUring::submitter`] would enter by the ordinary descriptor again.
pub struct Queues<'a> {
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
    completions: CompletionQueue<'a>,
    /// Requests per batch of late, times 8: what the next wait is sized by.
    requests_average_by_8: usize,
}

impl<'a> Queues<'a> {
    /// Takes the ring's queues and registers its descriptor with the calling thread.
    pub fn new(ring: &'a mut IoUring) -> io::Result<Self> {
        let (mut submitter, submissions, completions) = ring.split();
        submitter.register_ring_fd()?;
        Ok(Self { submitter, submissions, completions, requests_average_by_8: 8 })
    }

    /// The submitter, to register buffers with.
    pub fn submitter(&self) -> &Submitter<'a> {
        &self.submitter
    }

    /// Queues an operation, and makes room by submitting when the queue is full.
    ///
    /// # Safety
    ///
    /// Memory that the operation points to must stay valid until its last completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller answers for what the operation points to.
        while unsafe { self.submissions.push(entry) }.is_err() {
            self.submissions.sync();
            pass(self.submitter.submit())?;
            self.submissions.sync();
        }
        Ok(())
    }

    /// The next completion that is already there.
    pub fn next(&mut self) -> Option<cqueue::Entry> {
        self.completions.next()
    }

    /// Submits everything queued and waits.
    ///
    /// `requests` is how many requests the last batch brought, `immediate` how many of the
    /// operations now submitted will complete at once (sends). A kernel since 6.13 runs at most
    /// max(20, wanted) pieces of work in one call, so under load it pays to want more than one;
    /// three quarters of what came lately is there soon, and [`BATCH_WAIT_US`] bounds the guess.
    pub fn submit_and_wait(&mut self, requests: usize, immediate: usize) -> io::Result<()> {
        self.requests_average_by_8 += requests;
        self.requests_average_by_8 -= self.requests_average_by_8 / 8;
        let wanted = (self.requests_average_by_8 * 3 / 32).clamp(1, BATCH_MAX);
        let longest = Timespec::from(WAIT_MAX);
        let batch_wait_us = if wanted > 1 { BATCH_WAIT_US } else { 0 };
        let arguments = SubmitArgs::new().timespec(&longest).min_wait_usec(batch_wait_us);
        self.submissions.sync();
        pass(self.submitter.submit_with_args(wanted + immediate, &arguments))?;
        self.submissions.sync();
        self.completions.sync();
        debug_assert_eq!(self.completions.overflow(), 0, "the completion queue is too small");
        Ok(())
    }
}

/// Lets pass what is no failure of io_uring_enter(2): interrupted, timed out, completions to reap
/// first.
fn pass(entered: io::Result<usize>) -> io::Result<()> {
    match entered.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) | Err((Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}
