//! The handler of the packet protocol, which `PACKETS.md` specifies.
//!
//! The handler reads packet by packet while there is space for answers. It stops reading while a
//! file is being opened, created, filled or named. A connection has one such operation at a time,
//! and packets that a client sends without waiting for an answer find their file ready.

mod conversation;
mod folder;
mod gets;
mod jobs;
mod kept;
mod puts;
mod sum;
mod wire;

pub use conversation::Conversation;
pub use folder::Folder;
pub use kept::{Kept, Limits};
pub use sum::SUMS_MAX;
pub use wire::BODY_BYTES_MAX;

use crate::access_log::ConnectionLog;
use crate::generation::PacketService;
use crate::places::Places;
use crate::served::{self, Identity, View};
use conversation::{FileDigest, Patience, Unread};
use gets::Range;
use puts::Wanted;
use ringwright::files::{Directory, NewFile, OpenFile, ReceiveFileError};
use ringwright::packets::Framing;
use ringwright::workers::JobDone;
use ringwright::{
    Audience, Connection, ConnectionId, Deadline, Handler, Local, Origin, Reason, SendStatus,
    SlowReaders,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Answer, Code, Refusal, Request};

/// Idle time after which a drain ends a connection. It lets a client take a recent offer.
const DRAIN_QUIET: Duration = Duration::from_millis(500);
/// Maximum number of broadcasts per shard and millisecond, because each costs work for every
/// connection.
const BROADCASTS_MAX: u32 = 32;

/// The limits and permissions of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Maximum size of an upload in bytes.
    pub upload_bytes_max: u64,
    /// Refuse uploads.
    pub read_only: bool,
    /// Allow uploads to replace a file.
    pub replace: bool,
    /// Call fsync(2) before an upload is reported as stored.
    pub sync: bool,
    /// Maximum time until an offer is taken, and until the next chunk of an upload arrives.
    pub offer_timeout: Duration,
}

/// The served directory, opened twice.
#[derive(Clone, Debug)]
pub struct Root {
    /// For the shards' rings.
    pub directory: Directory,
    /// For the workers.
    pub folder: Arc<Folder>,
}

impl served::Folder for Root {
    /// EAGAIN: another directory took its place between the two opens.
    fn open(path: &Path) -> io::Result<Self> {
        let folder = Arc::new(Folder::open(path)?);
        let root = Self { directory: Directory::open_to_create(path)?, folder };
        if root.identity()? != root.directory.identity()? {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        Ok(root)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.folder.identity()
    }
}

/// Serves the files of one directory. Each shard has one.
pub struct Packets {
    framing: Framing,
    root: View<Root>,
    places: Arc<Places>,
    kept: Arc<Kept>,
    rules: Rules,
    /// Time of the current millisecond, and the number of broadcasts in it.
    broadcasts: (Duration, u32),
    log: ConnectionLog,
}

impl Packets {
    /// The handler of a shard for a service.
    #[must_use]
    pub fn new(service: &PacketService, log: ConnectionLog) -> Self {
        Self {
            framing: service.framing,
            root: service.root.view(),
            places: service.places.clone(),
            kept: service.kept.clone(),
            rules: service.plan.rules,
            broadcasts: (Duration::ZERO, 0),
            log,
        }
    }

    /// Handles one packet. Returns `false` if the packet must stay unread until there is space.
    fn request(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        body: &[u8],
    ) -> bool {
        let (id, request) = wire::parse(body);
        match request {
            Ok(
                Request::Get(_)
                | Request::GetRange { .. }
                | Request::Take { .. }
                | Request::Put { .. }
                | Request::PutResumable { .. }
                | Request::Abort,
            ) if state.gets.is_ending(Some(id)) => {
                // The last answer of that transfer comes first.
                state.unread = Some(Unread::Ending);
                return false;
            }
            Ok(
                Request::Get(_)
                | Request::GetRange { .. }
                | Request::Put { .. }
                | Request::PutResumable { .. },
            ) if state.has_transfer(id) => {
                // The client could not tell to which transfer an answer belongs.
                let taken = Refusal::new(Code::Malformed, "another transfer has this id");
                self.refuse(state, connection, id, &taken);
            }
            Ok(Request::Digest(_) | Request::DigestFile(_) | Request::List(_))
                if state.digest.is_some() =>
            {
                state.unread = Some(Unread::Digest);
                return false;
            }
            Ok(Request::Echo(bytes)) => {
                self.answer(state, connection, Answer::Echoed, id, bytes);
            }
            Ok(Request::Digest(bytes)) => return self.digest(state, connection, id, bytes),
            Ok(Request::DigestFile(name)) => return self.digest_file(state, connection, id, name),
            Ok(Request::Broadcast(bytes)) => self.broadcast(state, connection, id, bytes),
            Ok(Request::List(after)) => return self.list(state, connection, id, after),
            Ok(Request::Get(name)) => return self.get(state, connection, id, name, None),
            Ok(Request::GetRange { offset, length, version, name }) => {
                let range = Some(Range { offset, length, version });
                return self.get(state, connection, id, name, range);
            }
            Ok(Request::Take { offset, length }) => {
                self.take(state, connection, id, (offset, length));
            }
            Ok(Request::Put { replace, size, name }) => {
                self.put(state, connection, id, Wanted { replace, size, version: None, name });
            }
            Ok(Request::PutResumable { replace, size, version, name }) => {
                let version = Some(version);
                self.put(state, connection, id, Wanted { replace, size, version, name });
            }
            Ok(Request::Data(count)) => self.data(state, connection, id, count),
            Ok(Request::Abort) => self.abort(state, connection, id),
            Err(refusal) => self.refuse(state, connection, id, &refusal),
        }
        true
    }

    fn broadcast(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        bytes: &[u8],
    ) {
        let now = connection.local().now();
        let (at, count) = &mut self.broadcasts;
        if *at != now {
            (*at, *count) = (now, 0);
        }
        *count += 1;
        let sent = *count <= BROADCASTS_MAX && {
            let head = wire::head(Answer::Message, 0);
            let length = head.len() + bytes.len();
            let length = self.framing.header(length).expect("the request was as long");
            let packet = [&length[..], &head, bytes].concat();
            connection
                .local()
                .engine()
                .broadcast(packet.into(), &Audience::All, SlowReaders::Skip)
                .is_ok()
        };
        if sent {
            self.answer(state, connection, Answer::BroadcastSent, id, &[]);
        } else {
            let busy = Refusal::new(Code::Busy, "too many broadcasts: try again");
            self.refuse(state, connection, id, &busy);
        }
    }

    fn answer(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        answer: Answer,
        id: u32,
        fields: &[u8],
    ) {
        let room = self.framing.send(connection, &[&wire::head(answer, id), fields]);
        let room = room.expect("no answer is longer than a packet");
        if room == SendStatus::Refused {
            // A client must not wait for an answer that is left out.
            connection.abort();
        }
        state.note(room);
    }

    fn refuse(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        why: &Refusal,
    ) {
        let fields = [&(why.code as u16).to_be_bytes()[..], why.text.as_bytes()].concat();
        self.answer(state, connection, Answer::Error, id, &fields);
        if why.ends_connection() {
            state.closing = true;
            connection.protocol_error();
        }
    }

    /// Passes lines of the log on, and removes the uploads that have waited too long to be resumed.
    /// Returns the time until it is to be called again.
    pub fn upkeep(&mut self) -> Option<Duration> {
        self.log.hand_over();
        let kept = self.kept.expire(Instant::now());
        kept.into_iter().chain(self.log.interval()).min()
    }

    /// The time at which an offer made now expires.
    fn offer_ends(&self, connection: &mut Connection<'_>) -> Duration {
        connection.local().now().saturating_add(self.rules.offer_timeout)
    }

    fn settle(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state
            .settle(connection, Patience { idle: DRAIN_QUIET, transfer: self.rules.offer_timeout });
    }
}

impl Handler for Packets {
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
        // The engine calls this only while there is output space and the connection is not paused.
        state.full = false;
        state.unread = None;
        let mut used = 0;
        while state.may_read_on() {
            used += state.skip(&bytes[used..]);
            if state.skip_bytes > 0 {
                break;
            }
            let mut packets = self.framing.packets(&bytes[used..]);
            match packets.next() {
                Some(Ok(body)) => {
                    if !self.request(state, connection, body) {
                        break;
                    }
                    used += packets.used();
                }
                Some(Err(too_long)) => {
                    let refusal = Refusal::new(Code::TooLong, too_long.to_string());
                    self.refuse(state, connection, 0, &refusal);
                }
                None => {
                    connection.need(packets.need());
                    break;
                }
            }
        }
        self.settle(state, connection);
        if state.closing { bytes.len() } else { used }
    }

    fn file_opened(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        result: io::Result<OpenFile>,
    ) {
        if state.put.as_ref().is_some_and(|put| put.is_looking()) {
            self.looked(state, connection, result);
        } else {
            self.offer(state, connection, result);
        }
        self.settle(state, connection);
    }

    fn file_sent(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        // On a closing connection this chunk is the last one: it accepts no more output.
        self.chunk_sent(state, connection);
        self.settle(state, connection);
    }

    fn file_created(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        result: io::Result<NewFile>,
    ) {
        self.created(state, connection, result);
        self.settle(state, connection);
    }

    fn file_received(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        self.filled(state, connection, result);
        self.settle(state, connection);
    }

    fn file_published(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        result: io::Result<()>,
    ) {
        self.named(state, connection, result);
        self.settle(state, connection);
    }

    fn job_done(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        job: JobDone,
    ) {
        self.tell(state, connection, job);
        self.settle(state, connection);
    }

    fn half_closed(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.half_closed = true;
        if state.put.as_ref().is_some_and(|put| put.deadline().is_some()) {
            let why = "the stream ended before the last byte of the file";
            let why = Refusal::new(Code::Failed, why);
            self.give_up(state, connection, &why);
        }
        // No TAKE can arrive any more.
        state.gets.drop_offers();
        self.settle(state, connection);
    }

    fn timer(&mut self, state: &mut Conversation, connection: &mut Connection<'_>, _: u8) {
        state.timer_fired();
        let now = connection.local().now();
        let is_late = |deadline: Option<Duration>| deadline.is_some_and(|at| at <= now);
        while let Some(id) = state.gets.take_expired(now) {
            let why = Refusal::new(Code::Expired, "the offer expired: no TAKE arrived in time");
            self.refuse(state, connection, id, &why);
        }
        if state.put.as_ref().is_some_and(|put| is_late(put.deadline())) {
            let why = Refusal::new(Code::Expired, "the upload expired: no DATA arrived in time");
            self.give_up(state, connection, &why);
        }
        let refused = state.digest.take_if(|digest| is_late(digest.again_at()));
        if let Some(FileDigest::Refused { job, .. }) = refused.map(|digest| *digest) {
            self.digest_on(state, connection, job);
        }
        self.settle(state, connection);
    }

    fn expired(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        deadline: Deadline,
    ) {
        if deadline == Deadline::Receive && !state.closing {
            // The engine closes the connection and records the deadline as the reason.
            let why = Refusal::new(Code::Expired, "a packet was not complete in time");
            self.refuse(state, connection, 0, &why);
            state.closing = true;
        }
    }

    fn draining(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.draining = true;
        self.settle(state, connection);
    }

    fn closed(
        &mut self,
        _: Option<Conversation>,
        shard: &mut Local<'_>,
        id: ConnectionId,
        reason: Reason,
    ) {
        self.log.closed(shard, id, reason);
    }
}
