//! The files of a directory over HTTP/1.1: the handler.
//!
//! One request at a time per connection. While its file is being opened the connection is paused
//! and what the client pipelined behind it stays unread; the reply's head and the file are then
//! queued together, and reading goes on. So replies leave in the order of the requests, and a
//! client that asks without reading is held back.

use crate::access_log::{Entry, ShardLog};
use crate::http::body::Framing;
use crate::http::conditional::{Outcome, Validators};
use crate::http::date::CommonLines;
use crate::http::fields;
use crate::http::head::{Method, Request};
use crate::http::incoming::{Event, Incoming};
use crate::http::range::{self, Selected};
use crate::http::reply::{self, Persistence};
use crate::http::status::Status;
use crate::http::target;
use ringwright::{
    Connection, Deadline, Directory, FileKind, Handler, Local, OpenFile, Origin, Room,
};
use std::io;
use std::time::Duration;

/// Files queued on a connection before more requests are read: each is an open descriptor.
const FILES_QUEUED_MAX: u32 = 8;
/// Exchanges kept for reuse per shard. More are in use only while many files are being opened.
const SPARES_MAX: usize = 256;
/// How often the log's lines are handed over, at latest.
const LOG_INTERVAL: Duration = Duration::from_millis(200);

/// Serves files of one directory; one per shard.
pub struct Files {
    directory: Directory,
    request_timeout: Option<Duration>,
    common: CommonLines,
    /// The head of the reply being written.
    scratch: Vec<u8>,
    spares: Vec<Box<Exchange>>,
    log: Option<ShardLog>,
}

/// One request on its way to its reply. Boxes go round: an established connection allocates none.
#[derive(Debug)]
struct Exchange {
    request: Request,
    head: Vec<u8>,
    path: Vec<u8>,
    /// Decided from the head alone.
    refusal: Option<Status>,
    begun: Duration,
}

/// What is known of a connection between callbacks.
#[derive(Debug, Default)]
pub struct Conversation {
    incoming: Incoming,
    /// The request whose body is being read or whose file is being opened.
    exchange: Option<Box<Exchange>>,
    opening: bool,
    files_queued: u32,
    paused: bool,
    /// The send queue was full when last looked at.
    full: bool,
    /// Bytes were left unread by the last look at them.
    unread: bool,
    half_closed: bool,
    draining: bool,
    closing: bool,
    timer_set: bool,
    requests: u64,
}

impl Conversation {
    fn may_read_on(&self) -> bool {
        !self.opening && !self.full && !self.closing && self.files_queued < FILES_QUEUED_MAX
    }

    /// A request was begun, and its rest is the client's to send.
    fn awaits_rest(&self) -> bool {
        self.may_read_on() && (self.unread || !self.incoming.is_between_requests())
    }

    /// A drain need not wait for it. A file on its way is waited for, so that one which a
    /// drain's deadline cuts off is counted as drained.
    fn is_idle(&self) -> bool {
        self.exchange.is_none()
            && !self.unread
            && self.files_queued == 0
            && self.incoming.is_between_requests()
    }

    const fn persistence(&self, request: &Request) -> Persistence {
        match request {
            _ if self.draining || !request.keep_alive => Persistence::Close,
            Request { is_http_1_1: true, .. } => Persistence::Implied,
            _ => Persistence::Stated,
        }
    }
}

impl Files {
    /// Serves the files beneath `directory`. A request must have arrived whole within
    /// `request_timeout` of its first byte.
    #[must_use]
    pub fn new(
        directory: Directory,
        request_timeout: Option<Duration>,
        log: Option<ShardLog>,
    ) -> Self {
        Self {
            directory,
            request_timeout,
            common: CommonLines::default(),
            scratch: Vec::with_capacity(1024),
            spares: Vec::new(),
            log,
        }
    }

    fn on_head(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        request: Request,
        head: &[u8],
        body_begun: bool,
    ) {
        state.requests += 1;
        let mut exchange = self.exchange(request, head, connection.local().now());
        if request.framing == Framing::None {
            return self.answer(state, connection, exchange);
        }
        if request.expects_continue {
            if exchange.refusal.is_some() {
                // The client may now send the body or not: only an end makes that clear.
                exchange.request.keep_alive = false;
                return self.answer(state, connection, exchange);
            }
            if !body_begun {
                state.full = connection.send(reply::CONTINUE) == Room::Full;
            }
        }
        state.exchange = Some(exchange);
    }

    /// The request is there as a whole.
    fn answer(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        exchange: Box<Exchange>,
    ) {
        if std::mem::take(&mut state.timer_set) {
            connection.set_timer(None);
        }
        if let Some(status) = exchange.refusal {
            return self.reply_status(state, connection, exchange, status);
        }
        connection.open_file(&self.directory, &exchange.path);
        connection.pause();
        state.opening = true;
        state.paused = true;
        state.exchange = Some(exchange);
    }

    fn reply_status(
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

    fn reply_moved(
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

    fn reply_file(
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
        let selected = select(request, head, &validators, about.bytes);
        let lines = self.common.lines();
        let (offset, length) = reply::file(
            &mut self.scratch,
            lines,
            persistence,
            path,
            about.bytes,
            &validators,
            selected,
        );
        self.send_head(state, connection);
        let sent = if request.method == Method::Get { length } else { 0 };
        if sent > 0 {
            state.files_queued += 1;
            state.full |= connection.send_file(file, offset, sent) == Room::Full;
        }
        let status = match selected {
            Selected::Whole => Status::Ok,
            Selected::Part { .. } => Status::PartialContent,
            Selected::Nothing => Status::RangeNotSatisfiable,
        };
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
        self.spare(exchange);
        if persistence == Persistence::Close {
            close(state, connection);
        } else {
            go_on(state, connection);
        }
    }

    /// Answers what cannot be read as a request, and ends: where the next one would begin nobody
    /// knows.
    fn refuse(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        status: Status,
    ) {
        self.send_refusal(state, connection, status);
        close(state, connection);
    }

    fn send_refusal(
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

    /// A head that does not end is the engine's to time, because its bytes stay unread; a body is
    /// read as it comes, so that however slowly it trickles in, something always happens.
    fn limit_body_time(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        if !state.timer_set && self.request_timeout.is_some() {
            connection.set_timer(self.request_timeout);
            state.timer_set = true;
        }
    }

    fn exchange(&mut self, request: Request, head: &[u8], begun: Duration) -> Box<Exchange> {
        let mut exchange = self.spares.pop().unwrap_or_else(|| {
            Box::new(Exchange { request, head: Vec::new(), path: Vec::new(), refusal: None, begun })
        });
        exchange.request = request;
        exchange.begun = begun;
        exchange.head.clear();
        exchange.head.extend_from_slice(head);
        exchange.refusal = refusal(&request, head, &mut exchange.path);
        exchange
    }

    fn spare(&mut self, exchange: Box<Exchange>) {
        if self.spares.len() < SPARES_MAX {
            self.spares.push(exchange);
        }
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

impl Handler for Files {
    type State = Conversation;

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> Conversation {
        Conversation::default()
    }

    fn received(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        let mut read = 0;
        while state.may_read_on() {
            let (consumed, event) = state.incoming.advance(&bytes[read..]);
            read += consumed;
            state.unread = read < bytes.len();
            match event {
                Event::More => {
                    if state.half_closed {
                        close(state, connection);
                    } else if state.exchange.is_some() {
                        self.limit_body_time(state, connection);
                    }
                    break;
                }
                Event::Head { request, length } => {
                    let head = &bytes[read - length..read];
                    self.on_head(state, connection, request, head, read < bytes.len());
                }
                Event::Body => {
                    let exchange = state.exchange.take().expect("a body belongs to a request");
                    self.answer(state, connection, exchange);
                }
                Event::Refused(status) => self.refuse(state, connection, status),
            }
        }
        if state.closing { bytes.len() } else { read }
    }

    fn file_opened(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        result: io::Result<OpenFile>,
    ) {
        state.opening = false;
        let exchange = state.exchange.take().expect("a file is opened for a request");
        self.common.refresh(connection.local().now());
        match result {
            Ok(file) => match file.status().kind {
                FileKind::Regular => self.reply_file(state, connection, exchange, file),
                FileKind::Directory => self.reply_moved(state, connection, exchange),
                FileKind::Other => {
                    self.reply_status(state, connection, exchange, Status::NotFound);
                }
            },
            Err(error) => {
                let status = Status::from_open_errno(error.raw_os_error().unwrap_or(libc::EIO));
                self.reply_status(state, connection, exchange, status);
            }
        }
    }

    fn file_sent(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.files_queued -= 1;
        go_on(state, connection);
    }

    fn writable(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.full = false;
        go_on(state, connection);
    }

    fn half_closed(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.half_closed = true;
        if state.awaits_rest() {
            // It will never come.
            close(state, connection);
        } else {
            go_on(state, connection);
        }
    }

    fn timer(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.timer_set = false;
        if state.awaits_rest() {
            self.refuse(state, connection, Status::RequestTimeout);
        }
    }

    fn expired(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        deadline: Deadline,
    ) {
        if deadline == Deadline::Receive && state.awaits_rest() {
            // The engine closes it, and keeps the deadline as the reason.
            self.send_refusal(state, connection, Status::RequestTimeout);
            state.closing = true;
        }
    }

    fn draining(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.draining = true;
        go_on(state, connection);
    }

    fn started(&mut self, shard: &mut Local<'_>) {
        if self.log.is_some() {
            shard.tick_after(LOG_INTERVAL);
        }
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        if let Some(log) = &mut self.log {
            log.hand_over();
            shard.tick_after(LOG_INTERVAL);
        }
    }
}

/// What can be refused from the head alone; otherwise `path` is what to open.
fn refusal(request: &Request, head: &[u8], path: &mut Vec<u8>) -> Option<Status> {
    match request.method {
        Method::Get | Method::Head if request.expects_more => Some(Status::ExpectationFailed),
        Method::Get | Method::Head => target::resolve(request.target(head), path).err(),
        Method::Options | Method::Refused => Some(Status::MethodNotAllowed),
        Method::Unknown => Some(Status::NotImplemented),
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

/// Reads the next request, if there may be one and it may be read; ends the connection if there
/// will be none.
fn go_on(state: &mut Conversation, connection: &mut Connection<'_>) {
    if !state.may_read_on() || state.exchange.is_some() {
        return;
    }
    let over = state.half_closed && !state.unread || state.draining && state.is_idle();
    if over {
        close(state, connection);
    } else if std::mem::take(&mut state.paused) {
        connection.resume();
    }
}

fn close(state: &mut Conversation, connection: &mut Connection<'_>) {
    state.closing = true;
    connection.close();
}
