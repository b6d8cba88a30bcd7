//! What workers do for clients: digests and lists.

use super::Packets;
use super::conversation::Conversation;
use super::folder::Sum;
use super::wire::{Answer, Code, Refusal};
use ringwright::{Connection, Job, JobDone, JobError};
use sha2::{Digest, Sha256};

/// What comes of a job.
enum Done {
    Digested(Sum),
    Listed(Vec<u8>),
}

type Outcome = Result<Done, Refusal>;

impl Packets {
    /// False: the request is to be shown again when there is room for a job.
    pub(super) fn digest(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        bytes: &[u8],
    ) -> bool {
        let bytes: Box<[u8]> = bytes.into();
        let work = move || Outcome::Ok(Done::Digested(Sha256::digest(&bytes).into()));
        self.offload(state, connection, id, Job::new(u64::from(id), work))
    }

    /// False: as of [`Self::digest`].
    pub(super) fn digest_file(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        name: &[u8],
    ) -> bool {
        let (folder, alive, name) = (self.folder.clone(), state.alive(), Box::<[u8]>::from(name));
        let work = move || folder.digest(&name, || alive.is_alive()).map(Done::Digested);
        self.offload(state, connection, id, Job::new(u64::from(id), work))
    }

    /// False: as of [`Self::digest`]. It waits for no digest.
    pub(super) fn list(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        after: &[u8],
    ) -> bool {
        let (folder, alive, after) = (self.folder.clone(), state.alive(), Box::<[u8]>::from(after));
        let work = move || folder.list(&after, || alive.is_alive()).map(Done::Listed);
        self.offload(state, connection, id, Job::unordered(u64::from(id), work))
    }

    fn offload(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        job: Job,
    ) -> bool {
        match connection.offload(job).map_err(|refused| refused.why) {
            Err(ringwright::Refusal::Full) => return false,
            Err(ringwright::Refusal::NoWorkers) => {
                self.refuse(state, connection, id, &no_workers());
            }
            // Taken; or the connection ends, and nobody waits for it.
            Ok(()) | Err(_) => {}
        }
        true
    }

    pub(super) fn tell(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        job: JobDone,
    ) {
        let id = job.tag() as u32;
        let refusal = match job.result::<Outcome>() {
            Ok(Ok(Done::Digested(sum))) => {
                return self.answer(state, connection, Answer::Digested, id, &sum);
            }
            Ok(Ok(Done::Listed(fields))) => {
                return self.answer(state, connection, Answer::Listed, id, &fields);
            }
            Ok(Err(refusal)) => refusal,
            Err(JobError::NoWorkers) => no_workers(),
            Err(error) => Refusal::new(Code::Failed, error.to_string()),
        };
        self.refuse(state, connection, id, &refusal);
    }
}

fn no_workers() -> Refusal {
    Refusal::new(Code::NoWorkers, "this server runs without workers")
}
