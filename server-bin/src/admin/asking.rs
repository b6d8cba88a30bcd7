//! Questions that only the shards of the watched engine can answer, asked on a thread of its own.
//!
//! A shard that hangs does not answer; the thread then waits for it (a second at most each time),
//! and the admin listener's own shard does not. Questions queue, and a visitor has one at a time.

use super::response::Response;
use super::watched::{Served, Watched};
use super::{bans, connections};
use crate::http::status::Status;
use ringwright::{Ask, ConnectionId, Prefix};
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
    /// What is banned.
    Bans,
    /// Whether that is banned.
    FindBan(Prefix),
    /// To ban that.
    Ban(Prefix),
    /// To ban that no more.
    Unban(Prefix),
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

fn ask(served: &Served, question: &Question) -> Result<Response, Ask> {
    Ok(match question {
        Question::List { after, limit } => {
            let found = served.remote.list(*after, *limit)?;
            Response::json(connections::page(&found, *limit, &served.listeners))
        }
        Question::Find(id) => match served.remote.find(*id)? {
            Some(found) => Response::json(connections::one(&found, &served.listeners)),
            None => gone(*id),
        },
        Question::Kick(id) => {
            if served.remote.find(*id)?.is_none() {
                return Ok(gone(*id));
            }
            served.remote.kick(*id).map_err(|_| Ask::Busy)?;
            Response::nothing()
        }
        Question::Bans => Response::json(bans::list(&served.remote.bans())),
        Question::FindBan(prefix) if served.remote.bans().binary_search(prefix).is_ok() => {
            Response::json(bans::one(prefix))
        }
        Question::FindBan(prefix) => not_banned(prefix),
        Question::Ban(prefix) => match served.remote.ban(*prefix) {
            Ok(_) => Response::nothing(),
            Err(error) => Response::unavailable(&error.to_string()),
        },
        Question::Unban(prefix) => match served.remote.unban(*prefix) {
            Ok(true) => Response::nothing(),
            Ok(false) => not_banned(prefix),
            Err(error) => Response::unavailable(&error.to_string()),
        },
    })
}

fn gone(id: ConnectionId) -> Response {
    Response::text(Status::NotFound, &format!("connection {id} is gone, or never was"))
}

fn not_banned(prefix: &Prefix) -> Response {
    let what = format!("{prefix} is not on the list, though a wider prefix may be");
    Response::text(Status::NotFound, &what)
}
