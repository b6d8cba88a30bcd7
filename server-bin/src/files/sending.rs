//! Replies with a file: all of it, parts of it, or what the conditions of the request ask for.

use super::contents::Content;
use super::exchange::{Asked, Candidate, Progress};
use super::lines::SentFile;
use super::note::KeptReply;
use super::{Conversation, Files, choice};
use crate::http::conditional::{Outcome, Validators};
use crate::http::fields;
use crate::http::head::{Method, Request};
use crate::http::media::media_type;
use crate::http::range::{self, Multipart, Selected, SelectedParts};
use crate::http::reply::{self, Described};
use crate::http::status::Status;
use crate::site::headers::BuiltIn;
use ringwright::files::{FileStatus, OpenFile};
use ringwright::{Connection, SendStatus};

impl Files {
    pub(super) fn reply_file(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: &Candidate,
        found: &Found<'_>,
    ) -> Progress {
        if let Candidate::ErrorPage(status) = candidate {
            return self.reply_page(state, connection, asked, *status, found);
        }
        let request = asked.request;
        let bytes = found.bytes();
        let persistence = state.persistence(&request);
        let is_plain = !request.is_conditional && !request.has_range;
        if is_plain && let Some(kept) = found.reply.filter(|kept| !kept.is_shared) {
            let Self { common, scratch, .. } = self;
            reply::whole(scratch, kept.common_lines(common), persistence, &kept.lines);
            return self.send_part(state, connection, &asked, found, Status::Ok, (0, bytes));
        }
        let validators = found.validators(self.common.seconds());
        let mut answer = Answer::Whole;
        if !is_plain {
            answer = self.choose_answer(&asked, &validators, bytes);
        }
        let (status, is_file) = match answer {
            Answer::Whole => (Status::Ok, true),
            Answer::Part { .. } | Answer::Parts => (Status::PartialContent, true),
            Answer::NotModified => (Status::NotModified, true),
            Answer::Unsatisfiable => (Status::RangeNotSatisfiable, false),
            Answer::Failed => {
                return self.reply_status(state, connection, asked, Status::PreconditionFailed);
            }
        };
        let mut path = std::mem::take(&mut self.file_path);
        choice::write_path(&asked, candidate, &mut path);
        let sent = is_file.then(|| SentFile::new(&asked, candidate, found));
        let without = self.write_lines(&asked, &path, status, sent);
        if matches!(answer, Answer::Parts) {
            let media_type = media_type(&path);
            self.file_path = path;
            return self.send_parts(state, connection, &asked, found, media_type, without);
        }
        let Self { lines, scratch: out, .. } = self;
        let part = match answer {
            Answer::Part { first, last } => Some((first, last)),
            _ => None,
        };
        let body = match answer {
            Answer::NotModified => {
                reply::not_modified(out, lines, persistence, &validators, without);
                Some(0)
            }
            Answer::Unsatisfiable => Some(reply::unsatisfiable(out, lines, persistence, bytes)),
            _ => {
                let described = Described { path: &path, bytes, validators: &validators, without };
                reply::file(out, lines, persistence, &described, part);
                None
            }
        };
        self.file_path = path;
        if let Some(body) = body {
            self.send_head(state, connection);
            self.finish(state, connection, &asked, persistence, status, body);
            return Progress::Answered;
        }
        let (first, length) = part.map_or((0, bytes), |(first, last)| (first, last - first + 1));
        self.send_part(state, connection, &asked, found, status, (first, length))
    }

    /// Evaluates the preconditions and the range of a request.
    fn choose_answer(
        &mut self,
        asked: &Asked<'_>,
        validators: &Validators,
        file_bytes: u64,
    ) -> Answer {
        let ranges_max = asked.site.spec.max_ranges;
        answer(&asked.request, asked.head, validators, file_bytes, ranges_max, &mut self.parts)
    }

    /// Sends several parts of the file.
    fn send_parts(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: &Asked<'_>,
        found: &Found<'_>,
        media_type: &str,
        without: BuiltIn,
    ) -> Progress {
        let persistence = state.persistence(&asked.request);
        let status = Status::PartialContent;
        let boundary = self.boundaries.make();
        let (file_bytes, media_type) = (found.bytes(), media_type.as_bytes());
        let multipart = Multipart { boundary: &boundary, media_type, file_bytes };
        let length = multipart.length(&self.parts);
        let validators = found.validators(self.common.seconds());
        let Self { lines, scratch, .. } = self;
        multipart.append_type_line(lines);
        reply::parts(scratch, lines, persistence, length, &validators, without);
        self.send_head(state, connection);
        let parts = std::mem::take(&mut self.parts);
        for (at, &(first, last)) in parts.iter().enumerate() {
            self.scratch.clear();
            multipart.append_part_head(at == 0, (first, last), &mut self.scratch);
            self.send_head(state, connection);
            found.send(state, connection, first, last - first + 1);
        }
        self.parts = parts;
        self.scratch.clear();
        multipart.append_end(&mut self.scratch);
        self.send_head(state, connection);
        self.finish(state, connection, asked, persistence, status, length);
        Progress::Answered
    }

    /// Sends the head that has been written, and this part of the file: offset and length.
    fn send_part(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: &Asked<'_>,
        found: &Found<'_>,
        status: Status,
        (offset, length): (u64, u64),
    ) -> Progress {
        let persistence = state.persistence(&asked.request);
        self.send_head(state, connection);
        let sent = if asked.request.method == Method::Head { 0 } else { length };
        if sent > 0 {
            found.send(state, connection, offset, sent);
        }
        self.finish(state, connection, asked, persistence, status, sent);
        Progress::Answered
    }

    /// Answers with an error page. It has the error's status, and no validators of its own.
    fn reply_page(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        status: Status,
        found: &Found<'_>,
    ) -> Progress {
        let persistence = state.persistence(&asked.request);
        let mut path = std::mem::take(&mut self.file_path);
        let candidate = Candidate::ErrorPage(status);
        choice::write_path(&asked, &candidate, &mut path);
        let sent = SentFile::new(&asked, &candidate, found);
        let without = self.write_lines(&asked, &path, status, Some(sent));
        let Self { lines, scratch, .. } = self;
        reply::page(scratch, lines, persistence, status, &path, found.bytes(), without);
        self.file_path = path;
        self.send_part(state, connection, &asked, found, status, (0, found.bytes()))
    }
}

/// A file to send.
pub(super) struct Found<'a> {
    pub(super) file: &'a OpenFile,
    pub(super) about: FileStatus,
    pub(super) is_settled: bool,
    /// Everything that is in it, if it is small.
    pub(super) content: Option<Content<'a>>,
    /// The part of the reply that is kept.
    pub(super) reply: Option<&'a KeptReply>,
}

impl Found<'_> {
    pub(super) fn bytes(&self) -> u64 {
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
        state.full |= room == SendStatus::Full;
        if room == SendStatus::Refused {
            // The next reply must not follow a head without its body.
            connection.abort();
        }
    }

    pub(super) fn validators(&self, now_s: i64) -> Validators {
        match &self.content {
            Some(content) => {
                Validators::of_content(&self.about, now_s, content.length(), content.digest())
            }
            None => Validators::of(&self.about, now_s, self.is_settled),
        }
    }
}

/// The answer to a GET of a file.
#[derive(Clone, Copy)]
enum Answer {
    Whole,
    Part { first: u64, last: u64 },
    Parts,
    NotModified,
    Unsatisfiable,
    Failed,
}

/// Evaluates the preconditions and the range of a request.
fn answer(
    request: &Request,
    head: &[u8],
    validators: &Validators,
    file_bytes: u64,
    ranges_max: u16,
    parts: &mut Vec<(u64, u64)>,
) -> Answer {
    let outcome = if request.is_conditional { validators.evaluate(head) } else { Outcome::Proceed };
    match outcome {
        Outcome::Failed => return Answer::Failed,
        Outcome::NotModified => return Answer::NotModified,
        Outcome::Proceed => {}
    }
    // Ranges are defined for GET alone (RFC 9110, 14.2).
    if !request.has_range || request.method != Method::Get || !validators.range_holds(head) {
        return Answer::Whole;
    }
    let Some(value) = fields::single(head, "range") else { return Answer::Whole };
    match range::select_several(value, file_bytes, ranges_max, parts) {
        SelectedParts::Several => Answer::Parts,
        SelectedParts::One(Selected::Part { first, last }) => Answer::Part { first, last },
        SelectedParts::One(Selected::Nothing) => Answer::Unsatisfiable,
        SelectedParts::One(Selected::Whole) => Answer::Whole,
    }
}
