//! Questions that only the shards of the watched engine can answer. A separate thread asks them.
//!
//! The thread waits up to a second for each answer of a shard. The admin listener's own shard does
//! not wait, so a shard that hangs does not delay other requests. Questions are queued. Each admin
//! connection asks one at a time.

use super::addresses::Counts;
use super::response::Response;
use super::routes::PAGE_MAX;
use super::watched::{Watched, WatchedEngine};
use super::{bans, connections};
use crate::http::status::Status;
use crate::reload::{Refused, Reloaded};
use ringwright::workers::SetWorkersError;
use ringwright::{ConnectionId, Prefix, QueryShardError, SendCommandError};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum number of queued questions.
const QUESTIONS_MAX: usize = 32;
/// Maximum time that a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

const NO_ANSWER: &str =
    "a shard did not answer in time: it is busy, or a callback hangs; try again later";

/// A question to the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// List connections.
    List {
        /// The last connection of the previous page.
        after: Option<ConnectionId>,
        /// Maximum number of connections.
        limit: usize,
    },
    /// Describe one connection.
    Find(ConnectionId),
    /// Count connections by address.
    Addresses {
        /// Maximum number of addresses.
        limit: usize,
    },
    /// Close one connection.
    End(ConnectionId, Manner),
    /// Close all connections.
    EndAll(Manner),
    /// Change the number of workers.
    Workers(usize),
    /// Begin a drain.
    Drain,
    /// Read the configuration again.
    Reload,
    /// List the banned prefixes.
    Bans,
    /// Check whether exactly this prefix is in the list of bans.
    FindBan(Prefix),
    /// Add this prefix to the list of bans.
    Ban(Prefix),
    /// Remove this prefix from the list of bans.
    Unban(Prefix),
}

/// The way in which connections are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// At once, by a reset.
    Reset,
    /// After requests in progress, as a drain ends them.
    Graceful,
}

/// Sends questions to the thread that asks the shards.
#[derive(Clone)]
pub struct Asker {
    jobs: SyncSender<Job>,
}

struct Job {
    question: Question,
    answer: SyncSender<Response>,
    /// When the client stops waiting.
    until: Instant,
}

/// A pending answer.
#[derive(Debug)]
pub struct Awaited {
    answer: Receiver<Response>,
    /// When the client stops waiting, by the clock of the admin listener's shard.
    until: Duration,
}

impl Asker {
    /// Starts the thread. It ends after the last `Asker` is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(watched: &Arc<Watched>) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(QUESTIONS_MAX);
        let watched = watched.clone();
        thread::Builder::new().name("admin-ask".into()).spawn(move || {
            for job in waiting {
                if Instant::now() < job.until {
                    // Fails if the client is gone, which is fine.
                    let _ = job.answer.try_send(answer(&watched, &job.question));
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Queues a question. Returns `None` if the queue is full.
    pub fn ask(&self, question: Question, now: Duration) -> Option<Awaited> {
        let (answer, receiver) = sync_channel(1);
        let until = Instant::now() + ANSWER_TIMEOUT;
        self.jobs.try_send(Job { question, answer, until }).ok()?;
        Some(Awaited { answer: receiver, until: now + ANSWER_TIMEOUT })
    }
}

impl Awaited {
    /// Returns the answer, or an error reply if the time for it is over.
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
    ask(watched, served, question).unwrap_or_else(|_| Response::unavailable(NO_ANSWER))
}

fn ask(
    watched: &Watched,
    served: &WatchedEngine,
    question: &Question,
) -> Result<Response, QueryShardError> {
    Ok(match question {
        Question::List { after, limit } => {
            let found = served.handle.list(*after, *limit)?;
            let (listeners, clients) = (served.listeners(), watched.clients());
            Response::json(connections::page(&found, *limit, &listeners, clients))
        }
        Question::Find(id) => match served.handle.find(*id)? {
            Some(found) => {
                let (listeners, clients) = (served.listeners(), watched.clients());
                Response::json(connections::one(&found, &listeners, clients))
            }
            None => gone(*id),
        },
        Question::Addresses { limit } => addresses(watched, served, *limit)?,
        Question::End(id, manner) => {
            if served.handle.find(*id)?.is_none() {
                return Ok(gone(*id));
            }
            done(match manner {
                Manner::Reset => served.handle.kick(*id),
                Manner::Graceful => served.handle.drain_connection(*id),
            })?
        }
        Question::EndAll(Manner::Reset) => done(served.handle.kick_all())?,
        Question::EndAll(Manner::Graceful) => done(served.handle.drain_connections())?,
        Question::Workers(workers) => match served.handle.set_workers(*workers) {
            Ok(()) => Response::nothing(),
            Err(error @ SetWorkersError::TooMany) => Response::bad(&error.to_string()),
            Err(error) => Response::unavailable(&error.to_string()),
        },
        Question::Drain => {
            watched.begin_drain(" for the admin listener", "");
            Response::nothing()
        }
        Question::Reload => reload(watched),
        Question::Bans => {
            Response::json(bans::list(&served.handle.bans(), watched.bans_of_admin()))
        }
        Question::FindBan(prefix) if served.handle.bans().binary_search(prefix).is_ok() => {
            Response::json(bans::one(prefix, watched.bans_of_admin()))
        }
        Question::FindBan(prefix) => not_banned(prefix),
        Question::Ban(prefix) => match served.handle.ban(*prefix) {
            Ok(true) => {
                watched.bans_of_admin().add(*prefix);
                Response::nothing()
            }
            Ok(false) => Response::nothing(),
            Err(error) => Response::unavailable(&error.to_string()),
        },
        Question::Unban(prefix) => match served.handle.unban(*prefix) {
            Ok(true) => {
                watched.bans_of_admin().forget(prefix);
                Response::nothing()
            }
            Ok(false) => not_banned(prefix),
            Err(error) => Response::unavailable(&error.to_string()),
        },
    })
}

fn reload(watched: &Watched) -> Response {
    let Some(reloader) = watched.reloader() else {
        return Response::bad("this mode has no configuration that could be read again");
    };
    match reloader.try_reload(watched) {
        Ok(Reloaded { generation, changed }) => {
            let changed: Vec<String> = changed.iter().map(|key| format!("\"{key}\"")).collect();
            let changed = changed.join(",");
            Response::json(format!("{{\"generation\":{generation},\"changed\":[{changed}]}}"))
        }
        Err(Refused::UnderWay) => Response::text(
            Status::Conflict,
            "another reload is under way; ask again when it has ended",
        ),
        Err(Refused::Wrong(what)) => Response::text(Status::Unprocessable, &what),
    }
}

fn done(taken: Result<(), SendCommandError>) -> Result<Response, QueryShardError> {
    taken.map(|()| Response::nothing()).map_err(|SendCommandError| QueryShardError::Busy)
}

/// Counts all connections, some at a time, so that no shard is held up.
fn addresses(
    watched: &Watched,
    served: &WatchedEngine,
    limit: usize,
) -> Result<Response, QueryShardError> {
    let until = Instant::now() + ANSWER_TIMEOUT;
    let (mut counts, mut after) = (Counts::default(), None);
    loop {
        let page = served.handle.list(after, PAGE_MAX)?;
        counts.add(&page, watched.clients());
        match page.last() {
            Some(last) if page.len() == PAGE_MAX => after = Some(last.id),
            _ => return Ok(Response::json(counts.to_json(limit))),
        }
        if Instant::now() >= until {
            return Err(QueryShardError::NoAnswer);
        }
    }
}

fn gone(id: ConnectionId) -> Response {
    Response::text(Status::NotFound, &format!("there is no open connection with the id {id}"))
}

fn not_banned(prefix: &Prefix) -> Response {
    let text = format!(
        "{prefix} is not in the list of bans; GET /bans shows whether a wider prefix covers it"
    );
    Response::text(Status::NotFound, &text)
}
