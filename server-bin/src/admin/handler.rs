//! The handler of the admin listener. It answers the requests of a connection in order.

use super::asking::{Asker, Awaited};
use super::metrics;
use super::response::Response;
use super::routes::{self, Access, Route};
use super::visit::{Manner, Visit};
use super::watched::{Condition, Watched};
use crate::http::body::Framing;
use crate::http::date::CommonLines;
use crate::http::head::{Method, Request};
use crate::http::incoming::Event;
use crate::http::reply::{self, Made, Persistence};
use crate::http::status::Status;
use crate::messages;
use ringwright::{Connection, Deadline, Handler, Origin, SendStatus};
use std::sync::Arc;
use std::time::Duration;

/// The page at `/`.
const PAGE: &str = include_str!("page.html");
/// The page is self-contained: it may load nothing else, and no page may show it in a frame.
const PAGE_LINES: &str = "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; \
    style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\n";
/// Interval between checks for a pending answer.
const LOOK_AGAIN: Duration = Duration::from_millis(4);

/// Answers the clients of the admin listener. There is one, because there is one shard.
pub struct Visitors {
    watched: Arc<Watched>,
    asker: Asker,
    access: Access,
    /// The number of the first listener that answers only probes and scrapes.
    read_only_from: u16,
    /// Maximum number of connections that may stay open.
    visitors_max: usize,
    common: CommonLines,
    /// Buffer for a reply.
    scratch: Vec<u8>,
    process: metrics::Process,
}

impl Visitors {
    /// Answers questions about the engine in `watched`.
    pub fn new(
        watched: Arc<Watched>,
        asker: Asker,
        access: Access,
        read_only_from: u16,
        visitors_max: usize,
    ) -> Self {
        Self {
            watched,
            asker,
            access,
            read_only_from,
            visitors_max,
            common: CommonLines::default(),
            scratch: Vec::new(),
            process: metrics::Process::new(),
        }
    }

    fn on_head(
        &mut self,
        visit: &mut Visit,
        connection: &mut Connection<'_>,
        request: &Request,
        head: &[u8],
    ) {
        let mut manner = manner_of(visit, request);
        if !matches!(request.method, Method::Get | Method::Head) {
            let target = String::from_utf8_lossy(request.target(head));
            let from = connection.peer();
            messages::debug(&format!("admin listener: {:?} {target} from {from}", request.method));
        }
        let answered = if request.framing != Framing::None {
            // Closing avoids reading the body to find the next request.
            manner.persistence = Persistence::Close;
            Err(Response::text(Status::ContentTooLarge, "requests must not have a body"))
        } else {
            routes::route(request, head, &self.access, visit.is_read_only)
        };
        match answered.map(|route| self.answer(connection, route)) {
            Err(response) | Ok(Reached::Answer(response)) => {
                self.reply(visit, connection, &response, manner);
            }
            Ok(Reached::Awaited(awaited)) => {
                visit.awaited = Some((awaited, manner));
                connection.set_timer(0, Some(LOOK_AGAIN));
                connection.pause();
            }
        }
    }

    fn answer(&mut self, connection: &mut Connection<'_>, route: Route) -> Reached {
        let response = match route {
            Route::Page => Response {
                lines: PAGE_LINES.into(),
                ..Response::of("text/html; charset=utf-8", PAGE.as_bytes())
            },
            Route::Live => Response::text(Status::Ok, "live"),
            Route::Ready => match self.watched.condition() {
                condition @ Condition::Ready => Response::text(Status::Ok, condition.name()),
                condition => Response::unavailable(condition.name()),
            },
            Route::Metrics => Response::of(
                "text/plain; version=0.0.4; charset=utf-8",
                metrics::page(&self.watched, &self.process).into_bytes(),
            ),
            Route::Ledger => match self.watched.served() {
                Some(served) => Response::json(self.watched.ledger_json(&served.handle.ledger())),
                None => Response::unavailable(Condition::Starting.name()),
            },
            Route::Ask(question) => {
                let now = connection.local().now();
                match self.asker.ask(question, now) {
                    Some(awaited) => return Reached::Awaited(awaited),
                    None => Response::unavailable("too many requests are waiting for a shard"),
                }
            }
        };
        Reached::Answer(response)
    }

    fn reply(
        &mut self,
        visit: &mut Visit,
        connection: &mut Connection<'_>,
        response: &Response,
        manner: Manner,
    ) {
        self.common.refresh(connection.local().now());
        let made = Made {
            status: response.status,
            media_type: response.media_type,
            lines: &response.lines,
            body: &response.body,
        };
        let common = self.common.lines();
        reply::made(&mut self.scratch, common, manner.persistence, &made, manner.is_head);
        let room = connection.send(&self.scratch);
        visit.full = room == SendStatus::Full;
        if room == SendStatus::Refused {
            // Longer than the queue: a client that gets nothing must not wait for it.
            connection.abort();
        }
        if manner.persistence == Persistence::Close {
            visit.close(connection);
        }
    }

    /// Answers bytes that are not a valid request. Nothing after them is read.
    fn refuse(&mut self, visit: &mut Visit, connection: &mut Connection<'_>, status: Status) {
        let is_head = visit.incoming.is_head();
        let manner = Manner { is_head, persistence: Persistence::Close };
        self.reply(visit, connection, &Response::text(status, status.explained()), manner);
    }
}

impl Handler for Visitors {
    type State = Visit;

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> Visit {
        let id = connection.id();
        let mut shard = connection.local();
        // Closes the connection that has been idle longest, so that one place stays free for the
        // next client, such as a health check.
        if shard.connections() >= self.visitors_max {
            let others = shard.list(None, self.visitors_max).into_iter();
            let silent = others.filter(|other| other.id != id).max_by_key(|other| other.idle);
            if let Some(silent) = silent {
                shard.kick(silent.id);
            }
        }
        let read_only_from = self.read_only_from;
        let is_read_only = |number| number >= read_only_from;
        Visit {
            is_read_only: matches!(origin, Origin::Listener(number) if is_read_only(number)),
            ..Visit::default()
        }
    }

    fn received(
        &mut self,
        visit: &mut Visit,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        let mut read = 0;
        while visit.may_read_on() {
            let (consumed, event) = visit.incoming.advance(&bytes[read..]);
            read += consumed;
            visit.unread = read < bytes.len();
            match event {
                Event::More => break,
                Event::Head { request, length } => {
                    let head = &bytes[read - length..read];
                    self.on_head(visit, connection, &request, head);
                }
                Event::Body => unreachable!("a request with a body closes the connection"),
                Event::Refused(status) => self.refuse(visit, connection, status),
            }
        }
        if visit.closing { bytes.len() } else { read }
    }

    fn timer(&mut self, visit: &mut Visit, connection: &mut Connection<'_>, _: u8) {
        let Some((awaited, manner)) = &visit.awaited else { return };
        let Some(response) = awaited.look(connection.local().now()) else {
            return connection.set_timer(0, Some(LOOK_AGAIN));
        };
        let mut manner = *manner;
        if visit.draining {
            manner.persistence = Persistence::Close;
        }
        visit.awaited = None;
        self.reply(visit, connection, &response, manner);
        connection.resume();
    }

    fn writable(&mut self, visit: &mut Visit, connection: &mut Connection<'_>) {
        visit.full = false;
        if visit.is_over() {
            visit.close(connection);
        }
    }

    fn expired(&mut self, visit: &mut Visit, connection: &mut Connection<'_>, deadline: Deadline) {
        if deadline == Deadline::Receive && visit.may_read_on() {
            self.refuse(visit, connection, Status::RequestTimeout);
        }
    }

    fn draining(&mut self, visit: &mut Visit, connection: &mut Connection<'_>) {
        visit.draining = true;
        if visit.is_over() {
            visit.close(connection);
        }
    }
}

enum Reached {
    Answer(Response),
    Awaited(Awaited),
}

fn manner_of(visit: &Visit, request: &Request) -> Manner {
    let persistence = match request {
        _ if visit.draining || !request.keep_alive => Persistence::Close,
        Request { is_http_1_1: true, .. } => Persistence::Implied,
        _ => Persistence::Stated,
    };
    Manner { is_head: request.method == Method::Head, persistence }
}
