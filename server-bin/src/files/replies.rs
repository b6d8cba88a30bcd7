//! Replies: what is said about a request, queued, noted in the log.

use super::exchange::Exchange;
use super::{Conversation, Files};
use crate::access_log::Entry;
use crate::http::conditional::{Outcome, Validators};
use crate::http::fields;
use crate::http::head::{Method, Request};
use crate::http::range::{self, Selected};
use crate::http::reply::{self, Persistence};
use crate::http::status::Status;
use crate::http::target;
use ringwright::{Connection, OpenFile, Room};
use std::time::Duration;

impl Files {
    pub(super) fn reply_status(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        mut exchange: Box<Exchange>,
        status: Status,
    ) {
        if status == Status::BadRequest {
            exchange.request.keep_alive = false;
        }
        self.common.refresh(connection.local().now());
        let persistence = state.persistence(&exchange.request);
        let is_head = exchange.request.method == Method::Head;
        let lines = self.common.lines();
        let body = reply::plain(&mut self.scratch, lines, persistence, status, is_head);
        self.send_head(state, connection);
        self.finish(state, connection, exchange, persistence, status, body);
    }

    pub(super) fn reply_moved(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        exchange: Box<Exchange>,
    ) {
        let persistence = state.persistence(&exchange.request);
        let is_head = exchange.request.method == Method::Head;
        let lines = self.common.lines();
        let body = reply::moved(&mut self.scratch, lines, persistence, is_head, |out| {
            target::redirect(&exchange.path, exchange.request.target(&exchange.head), out);
        });
        self.send_head(state, connection);
        self.finish(state, connection, exchange, persistence, Status::MovedPermanently, body);
    }

    pub(super) fn reply_file(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        exchange: Box<Exchange>,
        file: OpenFile,
    ) {
        let Exchange { request, head, path, .. } = &*exchange;
        let about = file.status();
        let validators = Validators::of(&about, self.common.seconds());
        let persistence = state.persistence(request);
        let outcome =
            if request.is_conditional { validators.evaluate(head) } else { Outcome::Proceed };
        match outcome {
            Outcome::Proceed => {}
            Outcome::Failed => {
                return self.reply_status(state, connection, exchange, Status::PreconditionFailed);
            }
            Outcome::NotModified => {
                let lines = self.common.lines();
                reply::not_modified(&mut self.scratch, lines, persistence, &validators);
                self.send_head(state, connection);
                let status = Status::NotModified;
                return self.finish(state, connection, exchange, persistence, status, 0);
            }
        }
        let lines = self.common.lines();
        let part = match select(request, head, &validators, about.bytes) {
            Selected::Whole => None,
            Selected::Part { first, last } => Some((first, last)),
            Selected::Nothing => {
                let out = &mut self.scratch;
                let body = reply::unsatisfiable(out, lines, persistence, about.bytes);
                self.send_head(state, connection);
                let status = Status::RangeNotSatisfiable;
                return self.finish(state, connection, exchange, persistence, status, body);
            }
        };
        let (status, offset, length) = match part {
            None => (Status::Ok, 0, about.bytes),
            Some((first, last)) => (Status::PartialContent, first, last - first + 1),
        };
        let out = &mut self.scratch;
        reply::file(out, lines, persistence, path, about.bytes, &validators, part);
        self.send_head(state, connection);
        let sent = if request.method == Method::Get { length } else { 0 };
        if sent > 0 {
            state.files_queued += 1;
            state.full |= connection.send_file(file, offset, sent) == Room::Full;
        }
        self.finish(state, connection, exchange, persistence, status, sent);
    }

    fn send_head(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.full = connection.send(&self.scratch) == Room::Full;
    }

    /// The reply is queued: on to the next request, or to the end.
    fn finish(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        exchange: Box<Exchange>,
        persistence: Persistence,
        status: Status,
        bytes: u64,
    ) {
        self.note(state, connection, Some(&exchange), status, bytes);
        self.spares.give_back(exchange);
        if persistence == Persistence::Close {
            state.close(connection);
        } else {
            state.go_on(connection);
        }
    }

    pub(super) fn send_refusal(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        status: Status,
    ) {
        self.common.refresh(connection.local().now());
        let lines = self.common.lines();
        let body = reply::plain(&mut self.scratch, lines, Persistence::Close, status, false);
        self.send_head(state, connection);
        let exchange = state.exchange.take();
        self.note(state, connection, exchange.as_deref(), status, body);
    }

    fn note(
        &mut self,
        state: &Conversation,
        connection: &mut Connection<'_>,
        exchange: Option<&Exchange>,
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
            head: exchange.map_or(&[], |exchange| &exchange.head),
            status: status.code(),
            bytes,
            duration: exchange.map_or(Duration::ZERO, |exchange| now - exchange.begun),
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
