//! The files of a directory over HTTP/1.1: the handler.
//!
//! One request at a time per connection. A file that the engine has open already is answered with
//! at once, and the next request read. Otherwise the connection is paused while its file is being
//! opened, and what the client pipelined behind it stays unread; the reply's head and the file are
//! then queued together, and reading goes on. So replies leave in the order of the requests, and a
//! client that asks without reading is held back.

mod contents;
mod conversation;
mod exchange;
mod replies;

pub use contents::{Budget, READERS};
pub use conversation::Conversation;

use crate::access_log::ShardLog;
use crate::admin::Leaving;
use crate::config::plan::Service;
use crate::generation::{Generation, Site};
use crate::http::body::Framing;
use crate::http::conditional::is_settled;
use crate::http::date::CommonLines;
use crate::http::head::{self, Request};
use crate::http::incoming::Event;
use crate::http::reply;
use crate::http::status::Status;
use crate::http::target;
use crate::places::Places;
use crate::served::{Folder, Identity, View};
use contents::KEPT_BYTES_MAX;
use exchange::{Asked, Spares};
use replies::{Progress, SlowRead};
use ringwright::{
    Connection, Deadline, Directory, FileKind, Handler, JobDone, OpenFile, Origin, Room,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// In a drain a connection ends when nothing has happened on it for so long.
const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// Serves the files of sites; one per shard.
pub struct Files {
    /// The sites of the current generation.
    sites: Vec<OpenSite>,
    /// The sites of each listener, by its number.
    listeners: Vec<Service>,
    request_timeout: Option<Duration>,
    common: CommonLines,
    /// The head of the reply being written.
    scratch: Vec<u8>,
    /// What the request being answered leads to.
    path: Vec<u8>,
    spares: Spares,
    /// The contents of the file being read.
    content: Box<[u8]>,
    shared: Shared,
    log: Option<ShardLog>,
}

/// A site on one shard.
struct OpenSite {
    site: Arc<Site>,
    folder: View<Directory>,
}

/// The limits and settings that all shards share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// On readers of files that may wait.
    pub slow_readers: Arc<Places>,
    /// On contents that stay in memory.
    pub contents: Arc<Budget>,
    /// Files stay open for further requests.
    pub keeps_files: bool,
    /// Each reply ends its connection.
    pub leaving: Leaving,
}

impl Shared {
    /// The limits for so many workers: one of them remains for local files.
    #[must_use]
    pub fn new(workers: usize, keeps_files: bool, leaving: Leaving) -> Self {
        Self {
            slow_readers: Arc::new(Places::new(workers.saturating_sub(1))),
            contents: Arc::new(Budget::new(KEPT_BYTES_MAX)),
            keeps_files,
            leaving,
        }
    }
}

impl Files {
    /// Serves nothing yet. A request must have arrived whole within `request_timeout` of its first
    /// byte.
    #[must_use]
    pub fn new(request_timeout: Option<Duration>, shared: Shared, log: Option<ShardLog>) -> Self {
        Self {
            sites: Vec::new(),
            listeners: Vec::new(),
            request_timeout,
            common: CommonLines::default(),
            scratch: Vec::with_capacity(1024),
            path: Vec::with_capacity(256),
            spares: Spares::default(),
            content: contents::buffer(),
            shared,
            log,
        }
    }

    /// Serves the sites of a generation from the next request on.
    pub fn serve(&mut self, generation: &Generation) {
        let open = |site: &Arc<Site>| OpenSite { site: site.clone(), folder: site.root.view() };
        self.sites = generation.sites.iter().map(open).collect();
        self.listeners.clone_from(&generation.services);
    }

    /// Passes lines of the log on to its writer.
    pub fn hand_over_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.hand_over();
        }
    }

    /// The number of the site for a request on this listener.
    fn site(&self, listener: u16) -> usize {
        match &self.listeners[usize::from(listener)] {
            Service::Sites(sites) => sites[0],
            other => unreachable!("the listener serves {}", other.scheme()),
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
        let mut path = std::mem::take(&mut self.path);
        let decided = exchange::decide(&request, head, &mut path);
        let begun = connection.local().now();
        let mut asked = Asked { request, head, path: &path, begun };
        asked.request.keep_alive &= !self.shared.leaving.is_near();
        if request.framing == Framing::None {
            self.answer(state, connection, asked, decided);
        } else if decided.is_some() {
            // A client that waits for a 100 may now send the body or not: only the end of the
            // connection makes that clear.
            let waits = request.expects_continue || request.expects_more;
            // In a drain no other reply may follow to announce the end.
            asked.request.keep_alive &= !waits && !state.draining;
            state.is_answered = true;
            self.answer(state, connection, asked, decided);
        } else {
            if request.expects_continue && !body_begun {
                state.full = connection.send(reply::CONTINUE) == Room::Full;
            }
            state.exchange = Some(self.spares.take(asked));
        }
        self.path = path;
    }

    /// The request is there as a whole.
    fn answer(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: Asked<'_>,
        decided: Option<Status>,
    ) {
        if std::mem::take(&mut state.timer_set) {
            connection.set_timer(None);
        }
        if decided == Some(Status::MovedPermanently) {
            let target = asked.request.target(asked.head);
            return self.reply_moved(state, connection, asked, |out| target::encode(target, out));
        }
        if let Some(status) = decided {
            return self.reply_status(state, connection, asked, status);
        }
        let site = self.site(state.listener);
        let directory = match self.sites[site].folder.current() {
            Ok((directory, _)) => directory,
            Err(missing) => {
                let status = Status::from_folder_errno(missing.0);
                return self.reply_status(state, connection, asked, status);
            }
        };
        if let Some(file) = connection.cached_file(directory, asked.path) {
            // The engine keeps only settled files.
            if self.reply_regular(state, connection, asked, file, true) == Progress::Reading {
                connection.pause();
                (state.opening, state.paused) = (true, true);
                state.exchange = Some(self.spares.take(asked));
            }
            return;
        }
        let opening_since = SystemTime::now();
        // Refused only on a connection that is ending: one open at a time is asked for.
        let _ = connection.open_file(directory, asked.path);
        connection.pause();
        state.opening = true;
        state.paused = true;
        let mut exchange = self.spares.take(asked);
        exchange.opening_since = opening_since;
        state.exchange = Some(exchange);
    }

    /// A head that does not end is the engine's to time, because its bytes stay unread; a body is
    /// read as it comes, so that however slowly it trickles in, something always happens.
    fn limit_body_time(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        if !state.timer_set && self.request_timeout.is_some() {
            connection.set_timer(self.request_timeout);
            state.timer_set = true;
        }
    }
}

impl Folder for Directory {
    fn open(path: &Path) -> io::Result<Self> {
        Self::open(path)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.status().map(|about| Identity { device: about.device, inode: about.inode })
    }
}

impl Handler for Files {
    type State = Conversation;

    fn opened(&mut self, _: &mut Connection<'_>, origin: Origin) -> Conversation {
        let Origin::Listener(listener) = origin else { unreachable!("sites open no connection") };
        Conversation::on(listener)
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
                        state.close(connection);
                    } else if !state.incoming.is_between_requests() {
                        self.limit_body_time(state, connection);
                    }
                    break;
                }
                Event::Head { request, length } => {
                    let head = &bytes[read - length..read];
                    self.on_head(state, connection, request, head, read < bytes.len());
                }
                Event::Body if state.is_answered => {
                    state.is_answered = false;
                    if std::mem::take(&mut state.timer_set) {
                        connection.set_timer(None);
                    }
                }
                Event::Body => {
                    let exchange = state.exchange.take().expect("a body belongs to a request");
                    self.answer(state, connection, exchange.asked(), None);
                    self.spares.give_back(exchange);
                }
                Event::Refused(status) => {
                    // Where the next request would begin nobody knows.
                    self.send_refusal(state, connection, status, &bytes[read..]);
                    state.closing = true;
                    connection.protocol_error();
                }
            }
        }
        if !state.may_read_on() {
            state.hold(connection);
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
        let asked = exchange.asked();
        match result {
            Ok(file) => match file.status().kind {
                FileKind::Regular => {
                    let is_settled = is_settled(&file.status(), exchange.opening_since);
                    let progress = self.reply_regular(state, connection, asked, file, is_settled);
                    if progress == Progress::Reading {
                        state.opening = true;
                        state.exchange = Some(exchange);
                        return;
                    }
                }
                FileKind::Directory => {
                    let target = asked.request.target(asked.head);
                    self.reply_moved(state, connection, asked, |out| {
                        target::redirect(asked.path, target, out);
                    });
                }
                FileKind::Other => {
                    self.reply_status(state, connection, asked, Status::NotFound);
                }
            },
            Err(error) => {
                let status = Status::from_open_errno(error.raw_os_error().unwrap_or(libc::EIO));
                self.reply_status(state, connection, asked, status);
            }
        }
        self.spares.give_back(exchange);
    }

    fn job_done(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        job: JobDone,
    ) {
        state.opening = false;
        let exchange = state.exchange.take().expect("a file is read for a request");
        match job.result::<SlowRead>() {
            Ok(read) => self.reply_slow_read(state, connection, exchange.asked(), read),
            Err(_) => {
                let status = Status::InternalError;
                self.reply_status(state, connection, exchange.asked(), status);
            }
        }
        self.spares.give_back(exchange);
    }

    fn file_sent(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.files_queued -= 1;
        state.go_on(connection);
    }

    fn writable(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.full = false;
        state.go_on(connection);
    }

    fn half_closed(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.half_closed = true;
        if state.awaits_rest() {
            // It will never come.
            state.close(connection);
        } else {
            state.go_on(connection);
        }
    }

    fn timer(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.timer_set = false;
        if state.awaits_rest() {
            // The timer runs for bodies only, so the head was read.
            self.send_refusal(state, connection, Status::RequestTimeout, &[]);
            state.close(connection);
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
            let unread = head::as_far_as_read(connection.unused()).to_vec();
            self.send_refusal(state, connection, Status::RequestTimeout, &unread);
            state.closing = true;
        }
    }

    fn draining(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        // The next reply says that it is the last one: a client that is busy gets it before it
        // asks in vain, and one that is not busy is not waited for.
        state.draining = true;
        connection.finish(DRAIN_QUIET);
    }
}
