//! The files of a directory over HTTP/1.1: the handler.
//!
//! One request at a time per connection. A file that the engine has open already is answered with
//! at once, and the next request read. Otherwise the connection is paused while its file is being
//! opened, and what the client pipelined behind it stays unread; the reply's head and the file are
//! then queued together, and reading goes on. So replies leave in the order of the requests, and a
//! client that asks without reading is held back.

mod choice;
mod contents;
mod conversation;
mod ending;
mod exchange;
mod lines;
mod links;
mod note;
mod reading;
mod replies;
mod sending;

pub use contents::{Budget, READERS};
pub use conversation::Conversation;

use crate::access_log::ShardLog;
use crate::admin::Leaving;
use crate::generation::{Generation, Site};
use crate::http::body::Framing;
use crate::http::date::CommonLines;
use crate::http::head::{self, Request};
use crate::http::incoming::Event;
use crate::http::range::Boundaries;
use crate::http::reply;
use crate::http::status::Status;
use crate::places::Places;
use crate::proxies::Proxies;
use crate::served::{Folder, Identity, Missing, View};
use crate::site::names::{self, Names};
use crate::site::rate::Rates;
use contents::KEPT_BYTES_MAX;
use exchange::{Asked, Exchange, Progress, Spares};
use replies::Worked;
use ringwright::files::{Directory, OpenFile};
use ringwright::workers::JobDone;
use ringwright::{Connection, Deadline, Handler, Origin, SendStatus, SentMarker};
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

/// Passwords that are checked or wait for that, over all shards. Each takes a worker for up to a
/// second (bcrypt), and files that are not in the page cache wait behind it.
const CHECKS_MAX: usize = 32;
/// In a drain a connection ends when nothing has happened on it for so long.
const DRAIN_QUIET: Duration = Duration::from_millis(500);

/// Serves the files of sites; one per shard.
pub struct Files {
    /// The number of the shard.
    shard: usize,
    generation: Arc<Generation>,
    /// The sites of the generation, by their places in it. `None` before the first request.
    sites: Vec<Option<Box<OpenSite>>>,
    common: CommonLines,
    /// The head of the reply being written.
    scratch: Vec<u8>,
    /// Header lines of the reply being written that not every reply has.
    lines: Vec<u8>,
    /// What the request being answered leads to.
    path: Vec<u8>,
    /// The path of the file that answers it.
    file_path: Vec<u8>,
    /// The ranges of the file that are asked for.
    parts: Vec<(u64, u64)>,
    boundaries: Boundaries,
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
    /// The directories of rules, with the indices of the rules.
    roots: Vec<(u16, View<Directory>)>,
}

impl OpenSite {
    fn new(site: &Arc<Site>) -> Self {
        let roots = site.roots.iter().map(|(rule, root)| (*rule, root.view())).collect();
        Self { site: site.clone(), folder: site.root.view(), roots }
    }
}

/// The limits and settings that all shards share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// On readers of files that may wait.
    pub slow_readers: Arc<Places>,
    /// On passwords that are checked or wait for that.
    pub checks: Arc<Places>,
    /// On contents that stay in memory.
    pub contents: Arc<Budget>,
    /// Files stay open for further requests.
    pub keeps_files: bool,
    /// Each reply ends its connection.
    pub leaving: Leaving,
    /// The requests of addresses under the limits of rules. Without limits it takes no memory.
    pub rates: Arc<LazyLock<Rates>>,
}

impl Shared {
    /// The limits for so many workers: one of them remains for local files.
    #[must_use]
    pub fn new(workers: usize, keeps_files: bool, leaving: Leaving) -> Self {
        Self {
            slow_readers: Arc::new(Places::new(workers.saturating_sub(1))),
            checks: Arc::new(Places::new(CHECKS_MAX)),
            contents: Arc::new(Budget::new(KEPT_BYTES_MAX)),
            keeps_files,
            leaving,
            rates: Arc::new(LazyLock::new(Rates::default)),
        }
    }
}

impl Files {
    /// Serves the sites of this generation.
    #[must_use]
    pub fn new(
        shard: usize,
        shared: Shared,
        log: Option<ShardLog>,
        generation: Arc<Generation>,
    ) -> Self {
        Self {
            shard,
            sites: generation.served.iter().map(|_| None).collect(),
            generation,
            common: CommonLines::default(),
            scratch: Vec::with_capacity(1024),
            lines: Vec::with_capacity(1024),
            path: Vec::with_capacity(256),
            file_path: Vec::with_capacity(256),
            parts: Vec::new(),
            boundaries: Boundaries::default(),
            spares: Spares::default(),
            content: contents::buffer(),
            shared,
            log,
        }
    }

    /// Serves the sites of a generation from the next request on. Nothing is done for a site before
    /// its first request: a reload must not hold up a shard.
    pub fn serve(&mut self, generation: &Arc<Generation>) {
        self.sites.clear();
        self.sites.resize_with(generation.served.len(), || None);
        self.generation = generation.clone();
    }

    /// Writes the lines of replies that have ended.
    pub fn log_ends(&mut self, sent: &[SentMarker]) {
        if let Some(log) = &mut self.log {
            sent.iter().for_each(|sent| log.end(sent));
        }
    }

    /// Passes lines of the log on to its writer.
    pub fn hand_over_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.hand_over();
        }
    }

    /// The site of a request.
    fn site(&mut self, listener: u16, request: &Request, head: &[u8]) -> &mut OpenSite {
        let (names, places) = self.sites_of(listener);
        let place = match places {
            [only] => *only,
            _ => places[names.find(host(request, head)).site],
        };
        let site = &self.generation.served[place];
        self.sites[place].get_or_insert_with(|| Box::new(OpenSite::new(site)))
    }

    /// The names of the sites of a listener, and their places.
    fn sites_of(&self, listener: u16) -> (&Arc<Names>, &[usize]) {
        self.generation.sites_of(listener).expect("the listener of a request has sites")
    }

    /// The site of a listener that gets requests without a name.
    fn default_site(&self, listener: u16) -> Option<&Site> {
        let (names, places) = self.generation.sites_of(listener)?;
        let place = places.get(names.find(None).site)?;
        Some(self.generation.served.get(*place)?)
    }

    /// The directory of a rule.
    fn alias(&mut self, site: u32, rule: u16) -> Result<Directory, Missing> {
        let site = self.sites.iter_mut().flatten().find(|open| open.site.id == site);
        let roots = site.map(|site| &mut site.roots);
        let root = roots.and_then(|roots| roots.iter_mut().find(|(index, _)| *index == rule));
        // The generation of the request has gone since it began.
        let (_, root) = root.ok_or(Missing(libc::ENOENT))?;
        root.current().map(|(directory, _)| directory.clone())
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
        let open = self.site(state.listener, &request, head);
        let site = open.site.clone();
        let directory = open.folder.current().map(|(directory, _)| directory.clone());
        let directory = directory.as_ref().map_err(|missing| *missing);
        let mut asked = Asked { request, head, path: &path, begun, site: &site, directory };
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
                state.full = connection.send(reply::CONTINUE) == SendStatus::Full;
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
            connection.set_timer(0, None);
        }
        if self.is_banned(state, connection, &asked) {
            self.reply_plain(state, connection, asked, Status::Forbidden, None);
            return;
        }
        let progress = match decided {
            Some(status) => self.answer_decided(state, connection, asked, status),
            None => self.answer_path(state, connection, asked),
        };
        match progress {
            Progress::Answered => {}
            Progress::Waits(waiting) => {
                connection.pause();
                state.paused = true;
                self.wait(state, connection, waiting);
            }
        }
    }

    /// Returns whether the client of a request is banned, where the engine lets its connection in:
    /// that is one of a proxy, which is trusted itself.
    fn is_banned(
        &self,
        state: &Conversation,
        connection: &mut Connection<'_>,
        asked: &Asked<'_>,
    ) -> bool {
        let listener = self.generation.listeners.get(usize::from(state.listener));
        let Some(listener) = listener.and_then(Option::as_ref) else { return false };
        if !listener.has_proxies && state.peer.is_none() {
            return false;
        }
        let Some(address) = self.address(state, connection, asked) else { return false };
        // As the prefixes of proxies are compared: an IPv4 client of an IPv6 socket is one of IPv4.
        let address = address.to_canonical();
        if !connection.local().is_banned(address) {
            return false;
        }
        let socket = connection.peer().ip().map(|ip| ip.to_canonical());
        let trusts = |proxies: &Proxies| proxies.has(socket);
        let real_ip = asked.site.spec.real_ip.as_ref();
        let is_trusted = trusts(&listener.proxies) || real_ip.is_some_and(|it| trusts(&it.from));
        // A proxy that names nobody asks for itself.
        !(Some(address) == socket && is_trusted)
    }

    /// Waits for the file of a request.
    fn wait(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        mut waiting: Box<Exchange>,
    ) {
        if let Some(directory) = waiting.opening.take() {
            waiting.opening_since = SystemTime::now();
            self.write_path(&waiting.asked(), &waiting.candidate);
            // Refused only on a connection that is ending: one open at a time is asked for.
            let _ = connection.open_file(&directory, &self.file_path);
        }
        state.opening = true;
        state.exchange = Some(waiting);
    }

    /// A head that does not end is the engine's to time, because its bytes stay unread; a body is
    /// read as it comes, so that however slowly it trickles in, something always happens.
    fn limit_body_time(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        if !state.timer_set && state.request_timeout.is_some() {
            connection.set_timer(0, state.request_timeout);
            state.timer_set = true;
        }
    }
}

/// The host that a request asks for: the authority of an absolute target goes before Host
/// (RFC 9112, 3.2.2).
fn host<'a>(request: &Request, head: &'a [u8]) -> Option<&'a [u8]> {
    let host = names::authority(request.target(head)).unwrap_or_else(|| request.host(head));
    (!host.is_empty()).then_some(host)
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
        Conversation::on(listener, None, None)
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
                        connection.set_timer(0, None);
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
        let progress = self.continue_with(state, connection, &exchange, result);
        self.spares.give_back(exchange);
        if let Progress::Waits(waiting) = progress {
            self.wait(state, connection, waiting);
        }
    }

    fn job_done(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        job: JobDone,
    ) {
        state.opening = false;
        let exchange = state.exchange.take().expect("a file is read for a request");
        let (asked, candidate) = (exchange.asked(), &exchange.candidate);
        let progress = match job.result::<Worked>() {
            Ok(Worked::Read(read)) => {
                self.reply_slow_read(state, connection, asked, candidate, read)
            }
            Ok(Worked::Verified { rule, is_right }) => {
                self.continue_verified(state, connection, asked, rule, is_right)
            }
            Ok(Worked::Listed(Ok(page))) => self.reply_listing(state, connection, asked, &page),
            Ok(Worked::Listed(Err(error))) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.reply_status(state, connection, asked, Status::from_open_errno(errno))
            }
            Err(_) => self.reply_status(state, connection, asked, Status::InternalError),
        };
        self.spares.give_back(exchange);
        if let Progress::Waits(waiting) = progress {
            self.wait(state, connection, waiting);
        }
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

    fn timer(&mut self, state: &mut Conversation, connection: &mut Connection<'_>, _: u8) {
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
