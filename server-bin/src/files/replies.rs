//! Replies: what is said about a request, queued, noted in the log.

use super::contents::{self, CONTENT_BYTES_MAX, Content, Kept, SharedContent, Unread};
use super::exchange::Asked;
use super::{Conversation, Files};
use crate::access_log::Entry;
use crate::http::conditional::{Outcome, Validators};
use crate::http::fields;
use crate::http::head::{self, Method, Request};
use crate::http::range::{self, Selected};
use crate::http::reply::{self, Persistence};
use crate::http::status::Status;
use ringwright::{Connection, FileStatus, Job, OpenFile, Room};
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

    /// Answers with a regular file that has just been opened, or that the engine has kept open.
    /// A small file is read first, by a job if it is not in the page cache.
    pub(super) fn reply_regular(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        file: OpenFile,
        is_settled: bool,
    ) -> Progress {
        self.common.refresh(connection.local().now());
        let about = file.status();
        if Note::of(&file).is_none() {
            if about.bytes <= CONTENT_BYTES_MAX as u64 {
                let mut buffer = std::mem::take(&mut self.content);
                let content = contents::read_cached(&file, &mut buffer);
                let progress = if matches!(content, Err(Unread::Waits)) {
                    self.read_in_job(state, connection, asked, file, is_settled)
                } else {
                    self.reply_read(state, connection, asked, &file, is_settled, content);
                    Progress::Answered
                };
                self.content = buffer;
                return progress;
            }
            if is_settled && self.shared.keeps_files {
                self.note(&file, asked, None);
            }
        }
        let note = Note::of(&file);
        let content = note.and_then(|note| note.kept.as_ref()).map(Kept::content);
        let lines = note.map(|note| &note.lines[..]);
        let found = Found { file: &file, about, is_settled, content, lines };
        self.reply_file(state, connection, asked, &found);
        Progress::Answered
    }

    fn read_in_job(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        file: OpenFile,
        is_settled: bool,
    ) -> Progress {
        let place =
            if file.may_wait() { self.shared.slow_readers.take().map(Some) } else { Some(None) };
        if let Some(place) = place {
            let file = file.clone();
            let job = Job::unordered(0, move || {
                let _place = place;
                let content = contents::read_slowly(&file);
                SlowRead { file, is_settled, content }
            });
            if connection.offload(job).is_ok() {
                return Progress::Reading;
            }
        }
        // All readers wait, or too many files wait for them.
        let about = file.status();
        if about.bytes == 0 && file.may_wait() {
            self.reply_status(state, connection, asked, Status::Unavailable);
        } else {
            let found = Found { file: &file, about, is_settled, content: None, lines: None };
            self.reply_file(state, connection, asked, &found);
        }
        Progress::Answered
    }

    /// Answers with a small file that a job has read.
    pub(super) fn reply_slow_read(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        read: SlowRead,
    ) {
        self.common.refresh(connection.local().now());
        let SlowRead { file, is_settled, content } = read;
        let content = content.as_ref().map(SharedContent::content).map_err(|error| *error);
        self.reply_read(state, connection, asked, &file, is_settled, content);
    }

    /// Answers with a small file that has been read.
    fn reply_read(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        file: &OpenFile,
        is_settled: bool,
        content: Result<Content<'_>, Unread>,
    ) {
        let about = file.status();
        match content {
            Ok(content) => {
                // The engine keeps only settled files open, and returns one only while its status
                // is that of the open. The contents were read after the open: they belong to it.
                let is_kept = is_settled && self.shared.keeps_files && !file.may_wait();
                if is_kept && let Some(kept) = self.shared.contents.keep(content) {
                    self.note(file, asked, Some(kept));
                }
                let content = Some(content);
                let found = Found { file, about, is_settled, content, lines: None };
                self.reply_file(state, connection, asked, &found);
            }
            Err(Unread::TooLong) => match file.status_now() {
                // It has grown since it was opened.
                Ok(about) if about.bytes > CONTENT_BYTES_MAX as u64 => {
                    let (content, lines, is_settled) = (None, None, false);
                    let found = Found { file, about, is_settled, content, lines };
                    self.reply_file(state, connection, asked, &found);
                }
                // Nobody knows its length.
                _ => self.reply_status(state, connection, asked, Status::InternalError),
            },
            Err(Unread::Waits | Unread::Failed) => {
                self.reply_status(state, connection, asked, Status::InternalError);
            }
        }
    }

    /// Keeps what is told about a settled file, for the next request.
    fn note(&self, file: &OpenFile, asked: Asked<'_>, kept: Option<Kept>) {
        let (about, now_s) = (file.status(), self.common.seconds());
        let content = kept.as_ref().map(Kept::content);
        let found = Found { file, about, is_settled: true, content, lines: None };
        let lines = reply::lines_of_whole(asked.path, found.bytes(), &found.validators(now_s));
        let lines = lines.into();
        // Another connection may have done so.
        let _ = file.note().set(Box::new(Note { lines, kept }));
    }

    fn reply_file(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        found: &Found<'_>,
    ) {
        let Asked { request, head, path, .. } = asked;
        let bytes = found.bytes();
        let persistence = state.persistence(&request);
        let lines = self.common.lines();
        let out = &mut self.scratch;
        let (mut status, mut offset, mut length) = (Status::Ok, 0, bytes);
        if !request.is_conditional && !request.has_range {
            match found.lines {
                Some(about) => reply::whole(out, lines, persistence, about),
                None => {
                    let validators = found.validators(self.common.seconds());
                    reply::file(out, lines, persistence, path, bytes, &validators, None);
                }
            }
        } else {
            let validators = found.validators(self.common.seconds());
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
            let part = match select(&request, head, &validators, bytes) {
                Selected::Whole => None,
                Selected::Part { first, last } => {
                    (status, offset, length) = (Status::PartialContent, first, last - first + 1);
                    Some((first, last))
                }
                Selected::Nothing => {
                    let body = reply::unsatisfiable(out, lines, persistence, bytes);
                    self.send_head(state, connection);
                    let status = Status::RangeNotSatisfiable;
                    return self.finish(state, connection, &asked, persistence, status, body);
                }
            };
            reply::file(out, lines, persistence, path, bytes, &validators, part);
        }
        self.send_head(state, connection);
        let sent = if request.method == Method::Get { length } else { 0 };
        if sent > 0 {
            found.send(state, connection, offset, sent);
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
        self.log_reply(state, connection, asked.head, Some(asked.begun), status, bytes);
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
            return self.log_reply(state, connection, &exchange.head, begun, status, body);
        }
        state.requests += 1;
        self.log_reply(state, connection, head::as_far_as_read(unread), None, status, body);
    }

    /// Logs a reply: to this head, which was complete at `begun`.
    fn log_reply(
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

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The reply is queued.
    Answered,
    /// A job reads the file.
    Reading,
}

/// A file that was read, or not.
pub struct SlowRead {
    file: OpenFile,
    is_settled: bool,
    content: Result<SharedContent, Unread>,
}

/// The part of replies that is kept with a file while it is open.
struct Note {
    /// The lines of a reply that sends all of it.
    lines: Box<[u8]>,
    /// The contents of a small file.
    kept: Option<Kept>,
}

impl Note {
    fn of(file: &OpenFile) -> Option<&Self> {
        file.note().get().and_then(|note| note.downcast_ref())
    }
}

/// A file to send.
struct Found<'a> {
    file: &'a OpenFile,
    about: FileStatus,
    is_settled: bool,
    /// Everything that is in it, if it is small.
    content: Option<Content<'a>>,
    lines: Option<&'a [u8]>,
}

impl Found<'_> {
    fn bytes(&self) -> u64 {
        self.content.map_or(self.about.bytes, |content| content.length())
    }

    fn send(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        offset: u64,
        length: u64,
    ) {
        let room = match &self.content {
            Some(content) => content.send(connection, offset, length),
            None => {
                state.note_file(connection);
                connection.send_file(self.file.clone(), offset, length)
            }
        };
        state.full |= room == Room::Full;
        if room == Room::Refused {
            // The next reply must not follow a head without its body.
            connection.abort();
        }
    }

    fn validators(&self, now_s: i64) -> Validators {
        match &self.content {
            Some(content) => {
                Validators::of_content(&self.about, now_s, content.length(), content.digest())
            }
            None => Validators::of(&self.about, now_s, self.is_settled),
        }
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
