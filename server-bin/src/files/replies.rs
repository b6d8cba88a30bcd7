//! Replies: what is said about a request, queued, noted in the log.

use super::exchange::Asked;
use super::{Conversation, Files};
use crate::access_log::Entry;
use crate::http::conditional::{Outcome, Validators};
use crate::http::fields;
use crate::http::head::{self, Method, Request};
use crate::http::range::{self, Selected};
use crate::http::reply::{self, Persistence};
use crate::http::status::Status;
use ringwright::{Connection, OpenFile, Room};
use std::time::Duration;

impl Files {
    pub(super) fn reply_status(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        mut asked: Asked<'_>,
        status: Status,
    ) {
        if status == Status::BadRequest {
            asked.request.keep_alive = false;
        }
        self.common.refresh(connection.local().now());
        let persistence = state.persistence(&asked.request);
        let is_head = asked.request.method == Method::Head;
        let lines = self.common.lines();
        let body = reply::plain(&mut self.scratch, lines, persistence, status, is_head);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }

    pub(super) fn reply_moved(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        location: impl FnOnce(&mut Vec<u8>),
    ) {
        self.common.refresh(connection.local().now());
        let persistence = state.persistence(&asked.request);
        let is_head = asked.request.method == Method::Head;
        let lines = self.common.lines();
        let body = reply::moved(&mut self.scratch, lines, persistence, is_head, location);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, Status::MovedPermanently, body);
    }

    /// Answers with a file that has just been opened, or that the engine has kept open.
    pub(super) fn reply_file(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        file: OpenFile,
        is_settled: bool,
    ) {
        self.common.refresh(connection.local().now());
        let Asked { request, head, path, .. } = asked;
        let about = file.status();
        let persistence = state.persistence(&request);
        let lines = self.common.lines();
        let out = &mut self.scratch;
        let (mut status, mut offset, mut length) = (Status::Ok, 0, about.bytes);
        if !request.is_conditional && !request.has_range {
            match file.note().get() {
                Some(about) => reply::whole(out, lines, persistence, about),
                None => {
                    let validators = Validators::of(&about, self.common.seconds(), is_settled);
                    reply::file(out, lines, persistence, path, about.bytes, &validators, None);
                }
            }
        } else {
            let validators = Validators::of(&about, self.common.seconds(), is_settled);
            let outcome =
                if request.is_conditional { validators.evaluate(head) } else { Outcome::Proceed };
            match outcome {
                Outcome::Proceed => {}
                Outcome::Failed => {
                    let status = Status::PreconditionFailed;
                    return self.reply_status(state, connection, asked, status);
                }
                Outcome::NotModified => {
                    reply::not_modified(out, lines, persistence, &validators);
                    self.send_head(state, connection);
                    let status = Status::NotModified;
                    return self.finish(state, connection, &asked, persistence, status, 0);
                }
            }
            let part = match select(&request, head, &validators, about.bytes) {
                Selected::Whole => None,
                Selected::Part { first, last } => {
                    (status, offset, length) = (Status::PartialContent, first, last - first + 1);
                    Some((first, last))
                }
                Selected::Nothing => {
                    let body = reply::unsatisfiable(out, lines, persistence, about.bytes);
                    self.send_head(state, connection);
                    let status = Status::RangeNotSatisfiable;
                    return self.finish(state, connection, &asked, persistence, status, body);
                }
            };
            reply::file(out, lines, persistence, path, about.bytes, &validators, part);
        }
        self.send_head(state, connection);
        let sent = if request.method == Method::Get { length } else { 0 };
        if sent > 0 {
            let room = connection.send_cached(&file, offset, sent).unwrap_or_else(|| {
                state.note_file(connection);
                connection.send_file(file, offset, sent)
            });
            state.full |= room == Room::Full;
        }
        self.finish(state, connection, &asked, persistence, status, sent);
    }

    fn send_head(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        let room = connection.send(&self.scratch);
        state.full = room == Room::Full;
        if room == Room::Refused {
            // A body without its head must not follow.
            connection.abort();
        }
    }

    /// The reply is queued: on to the next request, or to the end.
    fn finish(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: &Asked<'_>,
        persistence: Persistence,
        status: Status,
        bytes: u64,
    ) {
        self.note(state, connection, asked.head, Some(asked.begun), status, bytes);
        if persistence == Persistence::Close {
            state.close(connection);
        } else {
            state.go_on(connection);
        }
    }

    /// Sends the last reply of a connection, unless the request that cannot be read to its end has
    /// its reply. `unread` begins with the head of that request if the head was not read.
    pub(super) fn send_refusal(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        status: Status,
        unread: &[u8],
    ) {
        if state.is_answered {
            return;
        }
        self.common.refresh(connection.local().now());
        let lines = self.common.lines();
        let is_head = state.incoming.is_head();
        let body = reply::plain(&mut self.scratch, lines, Persistence::Close, status, is_head);
        self.send_head(state, connection);
        if let Some(exchange) = state.exchange.take() {
            let begun = Some(exchange.begun);
            return self.note(state, connection, &exchange.head, begun, status, body);
        }
        state.requests += 1;
        self.note(state, connection, head::as_far_as_read(unread), None, status, body);
    }

    /// Notes a reply in the log: to this head, which was complete at `begun`.
    fn note(
        &mut self,
        state: &Conversation,
        connection: &mut Connection<'_>,
        head: &[u8],
        begun: Option<Duration>,
        status: Status,
        bytes: u64,
    ) {
        let Some(log) = &mut self.log else { return };
        let now = connection.local().now();
        log.record(&Entry {
            seconds: self.common.seconds(),
            peer: connection.peer(),
            connection: connection.id().get(),
            request: state.requests,
            head,
            status: status.code(),
            bytes,
            duration: begun.map_or(Duration::ZERO, |begun| now - begun),
        });
    }
}

/// Ranges are defined for GET alone (RFC 9110, 14.2).
fn select(request: &Request, head: &[u8], validators: &Validators, file_bytes: u64) -> Selected {
    if !request.has_range || request.method != Method::Get || !validators.range_holds(head) {
        return Selected::Whole;
    }
    match fields::single(head, "range") {
        Some(value) => range::select(value, file_bytes),
        None => Selected::Whole,
    }
}
