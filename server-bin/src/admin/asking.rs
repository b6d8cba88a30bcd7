//! Questions that only the shards of the watched engine can answer, asked on a thread of its own.
//!
//! A shard that hangs does not answer; the thread then waits for it (a second at most each time),
//! and the admin listener's own shard does not. Questions queue, and a visitor has one at a time.

use super::response::Response;
use super::watched::{Served, Watched};
use ringwright::{Busy, ConnectionId};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Questions that wait at most.
const QUESTIONS_MAX: usize = 32;
/// How long a visitor waits for an answer at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

const NO_ANSWER: &str = "a shard does not answer: it is busy, or hangs in a callback";

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The connections after this one, so many at most.
    List {
        /// Where the last page ended.
        after: Option<ConnectionId>,
        /// Connections at most.
        limit: usize,
    },
    /// One connection.
    Find(ConnectionId),
    /// To end one connection.
    Kick(ConnectionId),
}

/// Asks.
#[derive(Clone)]
pub struct Asker {
    jobs: SyncSender<Job>,
}

struct Job {
    question: Question,
    answer: SyncSender<Response>,
    /// From then on nobody waits for it.
    until: Instant,
}

/// An answer to come.
#[derive(Debug)]
pub struct Awaited {
    answer: Receiver<Response>,
    /// By the shard's clock.
    until: Duration,
}

impl Asker {
    /// Starts the thread, which ends with the last asker.
    ///
    /// # Errors
    /// As starting a thread.
    pub fn start(watched: &Arc<Watched>) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(QUESTIONS_MAX);
        let watched = watched.clone();
        thread::Builder::new().name("admin-ask".into()).spawn(move || {
            for job in waiting {
                if Instant::now() < job.until {
                    // Nobody waiting any more is no trouble.
                    let _ = job.answer.try_send(answer(&watched, &job.question));
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Asks; `None`: too many questions wait.
    pub fn ask(&self, question: Question, now: Duration) -> Option<Awaited> {
        let (answer, receiver) = sync_channel(1);
        let until = Instant::now() + ANSWER_TIMEOUT;
        self.jobs.try_send(Job { question, answer, until }).ok()?;
        Some(Awaited { answer: receiver, until: now + ANSWER_TIMEOUT })
    }
}

impl Awaited {
    /// The answer, once it is there or will not come any more.
    pub fn look(&self, now: Duration) -> Option<Response> {
        match self.answer.try_recv() {
            Ok(response) => Some(response),
            Err(TryRecvError::Empty) if now < self.until => None,
            Err(_) => Some(Response::unavailable(NO_ANSWER)),
        }
    }
}

fn answer(watched: &Watched, question: &Question) -> Response {
    let Some(served) = watched.served() else {
        return Response::unavailable(watched.condition().name());
    };
    ask(served, question).unwrap_or_else(|_| Response::unavailable(NO_ANSWER))
}

fn ask(served: &Served, question: &Question) -> Result<Response, Busy> {
    Ok(match question {
        Question::List { .. } | Question::Find(_) => Response::unavailable("not yet"),
        Question::Kick(id) => {
            served.remote.kick(*id)?;
            Response::nothing()
        }
    })
}
