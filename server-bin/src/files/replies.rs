//! Replies: what is said about a request, queued, noted in the log.

use super::contents::{self, CONTENT_BYTES_MAX, Content, Kept, SharedContent, Unread};
use super::exchange::{Asked, Candidate, Progress};
use super::note::{Missing, Note};
use super::{Conversation, Files, choice};
use crate::access_log::Entry;
use crate::http::conditional::{Outcome, Validators};
use crate::http::date::CommonLines;
use crate::http::fields;
use crate::http::head::{self, Method, Request};
use crate::http::media::media_type;
use crate::http::range::{self, Multipart, Selected, SelectedParts};
use crate::http::reply::{self, Described, Persistence};
use crate::http::status::Status;
use crate::site::auth;
use crate::site::cors;
use crate::site::headers::{BuiltIn, Sent};
use crate::site::listing;
use crate::site::rules::{Facts, Rules};
use crate::site::variants::{self, Coding};
use ringwright::{Connection, FileStatus, Job, OpenFile, Room};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

impl Files {
    /// Answers with a status: with the site's page for it, or in words.
    pub(super) fn reply_status(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        status: Status,
    ) -> Progress {
        if asked.site.spec.errors.contains_key(&status.code()) && status != Status::BadRequest {
            return self.answer_with(state, connection, asked, Candidate::ErrorPage(status));
        }
        self.reply_plain(state, connection, asked, status, None);
        Progress::Answered
    }

    /// Answers with a status in words. `retry_after_s` is for a client that asks too often.
    pub(super) fn reply_plain(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        mut asked: Asked<'_>,
        status: Status,
        retry_after_s: Option<u64>,
    ) {
        if status == Status::BadRequest {
            asked.request.keep_alive = false;
        }
        self.common.refresh(connection.local().now());
        let persistence = state.persistence(&asked.request);
        let is_head = asked.request.method == Method::Head;
        self.write_lines(&asked, asked.path, status, None);
        if let Some(seconds) = retry_after_s {
            reply::number(&mut self.lines, b"Retry-After: ", seconds);
        }
        let body = reply::plain(&mut self.scratch, &self.lines, persistence, status, is_head);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }

    /// Asks for user and password.
    pub(super) fn reply_unauthorized(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        realm: &str,
    ) {
        self.common.refresh(connection.local().now());
        let (persistence, status) = (state.persistence(&asked.request), Status::Unauthorized);
        let is_head = asked.request.method == Method::Head;
        self.write_lines(&asked, asked.path, status, None);
        auth::append_challenge(realm, &mut self.lines);
        let body = reply::plain(&mut self.scratch, &self.lines, persistence, status, is_head);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }

    /// Answers with the listing of a directory.
    pub(super) fn reply_listing(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        page: &Page,
    ) -> Progress {
        self.common.refresh(connection.local().now());
        let (persistence, status) = (state.persistence(&asked.request), Status::Ok);
        self.write_lines(&asked, asked.path, status, None);
        let Self { lines, scratch, .. } = self;
        lines.extend_from_slice(match (page.is_html, page.is_cut) {
            (true, _) => listing::POLICY.as_bytes(),
            (false, true) => listing::CUT_LINE.as_bytes(),
            (false, false) => b"",
        });
        let media_type = if page.is_html { "text/html; charset=utf-8" } else { "application/json" };
        reply::content(scratch, lines, persistence, media_type, page.body.len() as u64);
        self.send_head(state, connection);
        let mut sent = 0;
        if asked.request.method == Method::Get {
            sent = page.body.len() as u64;
            let room = connection.send(&page.body);
            state.full |= room == Room::Full;
            if room == Room::Refused {
                // A head without its body must not be followed by another reply.
                connection.abort();
            }
        }
        self.finish(state, connection, &asked, persistence, status, sent);
        Progress::Answered
    }

    pub(super) fn reply_moved(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        status: Status,
        location: impl FnOnce(&mut Vec<u8>),
    ) {
        self.common.refresh(connection.local().now());
        let persistence = state.persistence(&asked.request);
        let is_head = asked.request.method == Method::Head;
        self.write_lines(&asked, asked.path, status, None);
        let out = &mut self.scratch;
        let body = reply::moved(out, &self.lines, persistence, status, is_head, location);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }

    /// Answers a browser that asks if another origin may read what the site sends.
    pub(super) fn reply_preflight(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
    ) {
        self.common.refresh(connection.local().now());
        let (persistence, status) = (state.persistence(&asked.request), Status::NoContent);
        self.lines.clear();
        self.lines.extend_from_slice(self.common.lines());
        let facts = asked.site.rules.facts(asked.path).ok();
        if let Some(sharing) = facts.and_then(|facts| asked.site.rules.cors(&facts)) {
            sharing.append_preflight_lines(cors::origin(asked.head), &mut self.lines);
        }
        let body = reply::plain(&mut self.scratch, &self.lines, persistence, status, false);
        self.send_head(state, connection);
        self.finish(state, connection, &asked, persistence, status, body);
    }

    /// Writes the header lines that come before those of the content. Returns the fields that rules
    /// have replaced.
    fn write_lines(
        &mut self,
        asked: &Asked<'_>,
        path: &[u8],
        status: Status,
        sent: Option<SentFile>,
    ) -> BuiltIn {
        let Self { lines, common, .. } = self;
        lines.clear();
        let without = if asked.site.has_rules {
            write_rule_lines(asked, path, status, sent, common, lines)
        } else {
            lines.extend_from_slice(common.lines());
            BuiltIn::default()
        };
        if let Some(SentFile { coding, .. }) = sent {
            write_coding_lines(asked, coding, lines);
        }
        without
    }

    /// Answers with a regular file that has just been opened, or that the engine has kept open.
    /// A small file is read first, by a job if it is not in the page cache.
    pub(super) fn reply_regular(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: Candidate,
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
                    self.read_in_job(state, connection, asked, candidate, file, is_settled)
                } else {
                    let read = Read { file: &file, is_settled, content };
                    self.reply_read(state, connection, asked, &candidate, read)
                };
                self.content = buffer;
                return progress;
            }
            if is_settled && self.shared.keeps_files {
                self.note(&file, &asked, &candidate, None);
            }
        }
        let note = Note::of(&file);
        let content = note.and_then(|note| note.kept.as_ref()).map(Kept::content);
        let found = Found { file: &file, about, is_settled, content, note };
        self.reply_file(state, connection, asked, &candidate, &found)
    }

    fn read_in_job(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: Candidate,
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
                Worked::Read(SlowRead { file, is_settled, content })
            });
            if connection.offload(job).is_ok() {
                return self.spares.wait_for(asked, candidate, None);
            }
        }
        // All readers wait, or too many files wait for them.
        let about = file.status();
        if about.bytes == 0 && file.may_wait() {
            return self.reply_status(state, connection, asked, Status::Unavailable);
        }
        let found = Found { file: &file, about, is_settled, content: None, note: None };
        self.reply_file(state, connection, asked, &candidate, &found)
    }

    /// Answers with a small file that a job has read.
    pub(super) fn reply_slow_read(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: &Candidate,
        read: SlowRead,
    ) -> Progress {
        self.common.refresh(connection.local().now());
        let SlowRead { file, is_settled, content } = read;
        let content = content.as_ref().map(SharedContent::content).map_err(|error| *error);
        let read = Read { file: &file, is_settled, content };
        self.reply_read(state, connection, asked, candidate, read)
    }

    /// Answers with a small file that has been read.
    fn reply_read(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: &Candidate,
        read: Read<'_>,
    ) -> Progress {
        let Read { file, is_settled, content } = read;
        let about = file.status();
        match content {
            Ok(content) => {
                // The engine keeps only settled files open, and returns one only while its status
                // is that of the open. The contents were read after the open: they belong to it.
                let is_kept = is_settled && self.shared.keeps_files && !file.may_wait();
                if is_kept && let Some(kept) = self.shared.contents.keep(content) {
                    self.note(file, &asked, candidate, Some(kept));
                }
                let content = Some(content);
                let found = Found { file, about, is_settled, content, note: None };
                self.reply_file(state, connection, asked, candidate, &found)
            }
            Err(Unread::TooLong) => match file.status_now() {
                // It has grown since it was opened.
                Ok(about) if about.bytes > CONTENT_BYTES_MAX as u64 => {
                    let (content, note, is_settled) = (None, None, false);
                    let found = Found { file, about, is_settled, content, note };
                    self.reply_file(state, connection, asked, candidate, &found)
                }
                // Nobody knows its length.
                _ => self.reply_unread(state, connection, asked, candidate),
            },
            Err(Unread::Waits | Unread::Failed) => {
                self.reply_unread(state, connection, asked, candidate)
            }
        }
    }

    /// The file cannot be read.
    fn reply_unread(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        candidate: &Candidate,
    ) -> Progress {
        if let Candidate::ErrorPage(status) = candidate {
            self.reply_plain(state, connection, asked, *status, None);
            return Progress::Answered;
        }
        self.reply_status(state, connection, asked, Status::InternalError)
    }

    /// Keeps what is told about a settled file, for the next request.
    fn note(
        &mut self,
        file: &OpenFile,
        asked: &Asked<'_>,
        candidate: &Candidate,
        kept: Option<Kept>,
    ) {
        let (about, now_s) = (file.status(), self.common.seconds());
        let content = kept.as_ref().map(Kept::content);
        let found = Found { file, about, is_settled: true, content, note: None };
        // It was asked for before the file was sent, and the file was not hidden.
        let Ok(target) = Self::target(asked, candidate, file) else { return };
        let mut path = std::mem::take(&mut self.file_path);
        choice::write_path(asked, candidate, &mut path);
        let coding = candidate.coding();
        let mut lines = Vec::new();
        let (mut facts, mut without) = (None, BuiltIn::default());
        let mut is_shared = false;
        if asked.site.has_rules {
            facts = asked.site.rules.facts(&path).ok();
            let rules = &asked.site.rules;
            let file = SentFile { coding, is_private: is_private(asked, target.as_ref()) };
            let sent = sent(rules, facts.as_ref(), &path, Status::Ok, Some(file));
            without = rules.headers().append_lines(&sent, &mut lines);
            let sharing = facts.as_ref().and_then(|facts| rules.cors(facts));
            if let Some(sharing) = sharing.filter(|_| !without.has(BuiltIn::SHARING)) {
                let for_all = sharing.lines_for_all();
                is_shared = for_all.is_none();
                lines.extend(for_all.unwrap_or_default());
            }
        }
        write_coding_lines(asked, coding, &mut lines);
        let (bytes, validators) = (found.bytes(), &found.validators(now_s));
        let described = Described { path: &path, bytes, validators, without };
        lines.extend(reply::lines_of_whole(&described));
        self.file_path = path;
        let (lines, variants) = (lines.into(), Missing::default());
        // Another connection may have done so.
        let note = Note { lines, coding, without, is_shared, facts, target, variants, kept };
        let _ = file.note().set(Box::new(note));
    }

    fn reply_file(
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
        if is_plain && let Some(note) = found.note.filter(|note| note.holds_for(candidate)) {
            let Self { common, scratch, .. } = self;
            reply::whole(scratch, note.common_lines(common), persistence, &note.lines);
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
        let duration = connection.local().now() - asked.begun;
        asked.site.counters.count(self.shard, asked.request.method, status, duration, bytes);
        if self.log.is_some() {
            let socket = state.peer_of(connection);
            let real = self.address(state, connection, asked);
            let peer = if real == socket.ip() { socket } else { SocketAddr::new(real, 0) };
            let site = asked.site.spec.names.first().map_or("", String::as_str);
            let logged = Logged { head: asked.head, begun: Some(asked.begun), peer, site };
            self.log_reply(state, connection, logged, status, bytes);
        }
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
            let Asked { request, begun, site, .. } = exchange.asked();
            let duration = connection.local().now() - begun;
            site.counters.count(self.shard, request.method, status, duration, body);
            let (begun, peer) = (Some(exchange.begun), state.peer_of(connection));
            let logged = Logged { head: &exchange.head, begun, peer, site: "" };
            return self.log_reply(state, connection, logged, status, body);
        }
        state.requests += 1;
        if let Some(site) = self.default_site(state.listener) {
            site.counters.count_unread(self.shard, status, body);
        }
        let (head, peer) = (head::as_far_as_read(unread), state.peer_of(connection));
        let logged = Logged { head, begun: None, peer, site: "" };
        self.log_reply(state, connection, logged, status, body);
    }

    fn log_reply(
        &mut self,
        state: &Conversation,
        connection: &mut Connection<'_>,
        logged: Logged<'_>,
        status: Status,
        bytes: u64,
    ) {
        let Some(log) = &mut self.log else { return };
        let Logged { head, begun, peer, site } = logged;
        let now = connection.local().now();
        log.record(&Entry {
            seconds: self.common.seconds(),
            peer,
            socket: connection.peer(),
            site,
            connection: connection.id().get(),
            request: state.requests,
            head,
            status: status.code(),
            bytes,
            duration: begun.map_or(Duration::ZERO, |begun| now - begun),
        });
    }
}

/// A request to be logged.
struct Logged<'a> {
    head: &'a [u8],
    /// The time at which the head was complete, if it was.
    begun: Option<Duration>,
    /// The client.
    peer: SocketAddr,
    /// The first name of the site.
    site: &'a str,
}

/// The result of a job.
pub(super) enum Worked {
    /// A file was read.
    Read(SlowRead),
    /// A password was checked for this rule.
    Verified { rule: u16, is_right: bool },
    /// A directory was listed.
    Listed(io::Result<Page>),
}

/// A listing.
pub(super) struct Page {
    pub(super) body: Vec<u8>,
    pub(super) is_html: bool,
    /// It is not complete.
    pub(super) is_cut: bool,
}

/// A file that was read, or not.
pub struct SlowRead {
    file: OpenFile,
    is_settled: bool,
    content: Result<SharedContent, Unread>,
}

/// A small file and what was read of it.
struct Read<'a> {
    file: &'a OpenFile,
    is_settled: bool,
    content: Result<Content<'a>, Unread>,
}

/// The content of a reply is that of a file.
#[derive(Clone, Copy)]
struct SentFile {
    /// The coding of a variant.
    coding: Option<Coding>,
    /// A link has led to a file for which a user is asked.
    is_private: bool,
}

impl SentFile {
    fn new(asked: &Asked<'_>, candidate: &Candidate, found: &Found<'_>) -> Self {
        let target = Files::target(asked, candidate, found.file).ok().flatten();
        Self { coding: candidate.coding(), is_private: is_private(asked, target.as_ref()) }
    }
}

fn is_private(asked: &Asked<'_>, facts: Option<&Facts>) -> bool {
    facts.is_some_and(|facts| asked.site.rules.auth(facts).is_some())
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

impl Candidate {
    /// The coding of a variant.
    pub(super) fn coding(&self) -> Option<Coding> {
        if let Self::Variant(_, coding) = self { Some(*coding) } else { None }
    }
}

pub(super) fn common_lines(common: &CommonLines, without: BuiltIn) -> &[u8] {
    common.lines_without(without.has(BuiltIn::SERVER), without.has(BuiltIn::NO_SNIFF))
}

/// The reply as rules see it.
fn sent<'a>(
    rules: &Rules,
    facts: Option<&Facts>,
    path: &'a [u8],
    status: Status,
    file: Option<SentFile>,
) -> Sent<'a> {
    let is_private = facts.is_some_and(|facts| rules.auth(facts).is_some())
        || file.is_some_and(|file| file.is_private);
    Sent { path, status: status.code(), is_file: file.is_some(), is_private }
}

/// Writes the lines of all replies and those of rules. Returns the fields that rules have replaced.
fn write_rule_lines(
    asked: &Asked<'_>,
    path: &[u8],
    status: Status,
    file: Option<SentFile>,
    common: &CommonLines,
    lines: &mut Vec<u8>,
) -> BuiltIn {
    let rules = &asked.site.rules;
    let facts = rules.facts(path).ok();
    let sent = sent(rules, facts.as_ref(), path, status, file);
    let without = rules.headers().append_lines(&sent, lines);
    lines.splice(0..0, common_lines(common, without).iter().copied());
    if let Some(sharing) = facts.as_ref().and_then(|facts| rules.cors(facts))
        && !without.has(BuiltIn::SHARING)
    {
        sharing.append_lines(cors::origin(asked.head), lines);
    }
    without
}

fn write_coding_lines(asked: &Asked<'_>, coding: Option<Coding>, lines: &mut Vec<u8>) {
    if asked.site.spec.precompressed {
        lines.extend_from_slice(variants::VARY_LINE);
    }
    if let Some(coding) = coding {
        lines.extend_from_slice(coding.line());
    }
}

/// A file to send.
struct Found<'a> {
    file: &'a OpenFile,
    about: FileStatus,
    is_settled: bool,
    /// Everything that is in it, if it is small.
    content: Option<Content<'a>>,
    note: Option<&'a Note>,
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
