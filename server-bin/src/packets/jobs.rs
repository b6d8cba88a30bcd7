//! The jobs of the workers: digests and lists.
//!
//! A file is digested in slices. Each slice is a separate job, so that the jobs of all connections
//! take turns. While a file is being digested, the next digest or list of its connection stays
//! unread, because digests are answered in the order of their requests.

use super::Packets;
use super::conversation::{Alive, Conversation, FileDigest};
use super::sum::{FileSum, Sum, Summed};
use super::wire::{Answer, Code, Refusal};
use ringwright::Connection;
use ringwright::workers::{Job, JobDone, OffloadJobError, OffloadJobErrorKind, RunJobError};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Marks the tag of a job that digests a file. The lower 32 bits are the id.
const OF_FILE: u64 = 1 << 32;
/// Delay before a slice that found the job queue full is tried again. The engine signals free space
/// only for an unread request, not for a slice.
const AGAIN: Duration = Duration::from_millis(10);

/// The result of a job.
enum Done {
    Digested(Sum),
    /// One slice of a file is done, and more follow.
    Part(FileSum),
    Listed(Vec<u8>),
}

type Outcome = Result<Done, Refusal>;

impl Packets {
    /// Returns `false` if the request must stay unread until there is space for a job.
    pub(super) fn digest(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        bytes: &[u8],
    ) -> bool {
        let bytes: Box<[u8]> = bytes.into();
        let work = move || Outcome::Ok(Done::Digested(Sha256::digest(&bytes).into()));
        self.offload(state, connection, Job::new(u64::from(id), work)).is_none()
    }

    /// Returns `false` under the same condition as [`Self::digest`].
    pub(super) fn digest_file(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        name: &[u8],
    ) -> bool {
        let folder = match self.root.current() {
            Ok((root, _)) => root.folder.clone(),
            Err(missing) => {
                self.refuse(state, connection, id, &Refusal::folder_missing(missing));
                return true;
            }
        };
        let Some(place) = self.places.take() else {
            let busy = Refusal::new(Code::Busy, "too many files are being digested: try again");
            self.refuse(state, connection, id, &busy);
            return true;
        };
        let (alive, name) = (state.alive(), Box::<[u8]>::from(name));
        let work = move || slice(FileSum::new(folder.open_file(&name)?, place)?, &alive);
        self.offload(state, connection, Job::new(u64::from(id) | OF_FILE, work)).is_none()
    }

    /// Returns `false` under the same condition as [`Self::digest`]. The answer does not wait for
    /// earlier digests.
    pub(super) fn list(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        after: &[u8],
    ) -> bool {
        let folder = match self.root.current() {
            Ok((root, _)) => root.folder.clone(),
            Err(missing) => {
                self.refuse(state, connection, id, &Refusal::folder_missing(missing));
                return true;
            }
        };
        let (alive, after) = (state.alive(), Box::<[u8]>::from(after));
        let work = move || folder.list(&after, || alive.is_alive()).map(Done::Listed);
        self.offload(state, connection, Job::unordered(u64::from(id), work)).is_none()
    }

    /// Queues the next slice of a file, or sets a time for another attempt.
    pub(super) fn digest_on(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        job: Job,
    ) {
        if let Some(job) = self.offload(state, connection, job) {
            let again_at = connection.local().now().saturating_add(AGAIN);
            state.digest = Some(Box::new(FileDigest::Refused { job, again_at }));
        }
    }

    /// Queues a job. Returns the job if the queue is full.
    fn offload(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        job: Job,
    ) -> Option<Job> {
        let tag = job.tag();
        match connection.offload(job) {
            Ok(()) if tag & OF_FILE != 0 => state.digest = Some(Box::new(FileDigest::UnderWay)),
            Err(OffloadJobError { job, kind: OffloadJobErrorKind::Full }) => return Some(job),
            Err(OffloadJobError { kind: OffloadJobErrorKind::NoWorkers, .. }) => {
                self.refuse(state, connection, tag as u32, &no_workers());
            }
            // The job is queued, or the connection is ending and needs no answer.
            Ok(()) | Err(_) => {}
        }
        None
    }

    pub(super) fn tell(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        job: JobDone,
    ) {
        let (tag, id) = (job.tag(), job.tag() as u32);
        if tag & OF_FILE != 0 {
            state.digest = None;
        }
        let refusal = match job.result::<Outcome>() {
            Ok(Ok(Done::Part(rest))) => {
                let alive = state.alive();
                let job = Job::new(tag, move || slice(rest, &alive));
                return self.digest_on(state, connection, job);
            }
            Ok(Ok(Done::Digested(sum))) => {
                return self.answer(state, connection, Answer::Digested, id, &sum);
            }
            Ok(Ok(Done::Listed(fields))) => {
                return self.answer(state, connection, Answer::Listed, id, &fields);
            }
            Ok(Err(refusal)) => refusal,
            Err(RunJobError::NoWorkers) => no_workers(),
            Err(error) => Refusal::new(Code::Failed, error.to_string()),
        };
        self.refuse(state, connection, id, &refusal);
    }
}

fn slice(sum: FileSum, alive: &Alive) -> Outcome {
    sum.go_on(|| alive.is_alive()).map(|summed| match summed {
        Summed::Whole(sum) => Done::Digested(sum),
        Summed::Part(rest) => Done::Part(rest),
    })
}

fn no_workers() -> Refusal {
    Refusal::new(Code::NoWorkers, "this server runs without workers")
}
