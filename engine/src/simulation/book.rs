//! What has been promised to whom: the handler writes it down, the world compares it with what
//! the peers have seen.

use super::callbacks::{Callback, Called, Told};
use super::kept::Promises;
use super::messages::Letters;
use super::payloads::Owners;
use crate::admission::Bans;
use crate::ring::simulated::{Birth, Rng, is_stretch, stretch};
use crate::shard::settings::ClientLimits;
use crate::{ConnectionId, Origin, Payload, Peer, Prefix, Reason, SentMarker, Traffic};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The place of a peer that is not known yet.
pub const NOT_FOUND: Birth = (usize::MAX, usize::MAX);

/// A stretch of the endless stream called `key`.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub key: u64,
    pub offset: u64,
    pub bytes: u64,
    pub shape: Shape,
}

/// The kind of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Bytes,
    /// A file in the output queue, which may turn out to be shorter.
    File,
    /// A range of a stream that is forwarded. Blobs may lie anywhere in it.
    Range,
    /// A range whose end is not known. Its `bytes` are 0.
    OpenRange,
}

/// How much of what was said a peer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Whole,
    /// Everything before some file, and a part of that file.
    ToFile,
    /// Any beginning.
    Part,
}

impl Piece {
    /// The number of bytes with which `received` begins like the piece.
    pub(super) fn common(&self, received: &[u8]) -> usize {
        let expected = stretch(self.key, self.offset, received.len());
        expected.iter().zip(received).take_while(|(one, other)| one == other).count()
    }

    fn starts(&self, received: &[u8]) -> bool {
        let most = usize::try_from(self.bytes).unwrap_or(usize::MAX).min(received.len());
        is_stretch(self.key, self.offset, &received[..most])
    }
}

/// How a connection's handler behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "scenarios construct some of them"))]
pub enum Role {
    /// Sends back what comes, now and then only a part of it at once.
    Echo,
    /// The same, and pauses until a timer.
    Pausing,
    /// The same, in messages of so many bytes.
    Whole(usize),
    /// Answers with files.
    Files,
    /// Echoes and closes after so many bytes.
    CloseAfter(u64),
    /// Echoes, and ends its half after so many bytes.
    ShutdownAfter(u64),
    /// Echoes, and aborts after so many bytes.
    AbortAfter(u64),
    /// Echoes, and calls what comes after so many bytes a violation of the protocol.
    ProtocolAfter(u64),
    /// Echoes, and after so many bytes lets the connection end when it is at rest.
    FinishAfter(u64),
    /// Echoes, and panics after so many bytes.
    PanicAfter(u64),
    /// Panics when it is opened, or when it is closed.
    PanicsAtEnds,
    /// Echoes, kicks others, sends to others.
    Meddler,
    /// Sends so many bytes unasked, as fast as it may, then closes.
    Greeter(u64),
    /// Sends so many bytes unasked, then ends its half and goes on listening.
    Lecturer(u64),
    /// Sends as many bytes unasked in small pieces, each when little of the last ones is queued;
    /// then closes.
    Metered(u64),
    /// Forwards ranges of its stream to itself, or to somebody deaf.
    Forwarder,
    /// Never uses a byte.
    Deaf,
    /// Uses what comes, sends nothing, and stays paused for so long, as if it waited for an answer.
    Pending(Duration),
    /// Echoes and connects out.
    Connector,
    /// Echoes and keeps connections up.
    Keeper,
    /// Has jobs on workers, and threads with holds, say what to echo.
    Offloader,
    /// Lets files come.
    Uploads,
    /// Lets so many bytes go into one file.
    Upload(u64),
    /// At the first bytes begins something, and then does something about the connection.
    Ends(Begins, Then),
}

/// The work that a connection has begun when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "scenarios construct some of them"))]
pub enum Begins {
    Nothing,
    /// The same, and what it does about the connection comes in `opened`.
    AtOnce,
    /// It does not use the bytes.
    Unused,
    /// Its output is stuck.
    Output,
    /// Pauses, and sets the timer.
    Pause,
    /// Sets the timer.
    Timer,
    Job,
    Hold,
    /// Has a file opened.
    Open,
    /// Has a file opened and queues so many bytes of it, between other output.
    Download(&'static str, u64),
    /// The same, padded where the file ends early, and without output before it.
    Padded(&'static str, u64),
    /// Has a file made, and receives so many bytes.
    Receive(u64),
    /// Has a file made, and gives it a name.
    Publish,
}

/// The call with which a handler then ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "scenarios construct some of them"))]
pub enum Then {
    Nothing,
    Close,
    Shutdown,
    Finish,
    Abort,
    Violation,
    Panic,
}

/// What a handler does about the peer's FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    Close,
    ReplyAndClose,
    ReplyAndShutdown,
    CloseLater,
    Finish,
}

/// The part a connection plays.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub role: Role,
    pub farewell: Farewell,
    /// Most bytes of what it says beyond an echo.
    pub reply_bytes_max: usize,
    /// Receives while its output queue is full.
    pub reads_on: bool,
    /// Ignores a drain until its deadline.
    pub stubborn: bool,
}

/// A marker in the output.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The bytes before it.
    pub bytes: u64,
    /// It waits until the peer has acknowledged them.
    pub of_peer: bool,
    /// It was reported.
    pub told: bool,
    /// The bytes before it that were missing then.
    pub missing_bytes: u64,
}

impl Mark {
    pub fn new(bytes: u64, of_peer: bool) -> Self {
        Self { bytes, of_peer, told: false, missing_bytes: 0 }
    }
}

/// What became of a connection.
pub struct Record {
    pub id: ConnectionId,
    /// Its peer has this address; `shown_peer` is what the application sees of it.
    pub address: SocketAddr,
    pub shown_peer: Peer,
    /// The number of its peer, known after the turn in which it was opened.
    pub peer: Birth,
    pub part: Part,
    /// What was queued, in order.
    pub said: Vec<Piece>,
    /// Content that a job or a thread has sent, and then that of the output for its result or
    /// message.
    pub in_order: Vec<[Arc<[u8]>; 2]>,
    /// Files queued whose `file_sent` has not been called.
    pub files_owed: i32,
    pub origin: Origin,
    /// It came to a listener.
    pub accepted: bool,
    /// Bytes of the peer's that were shown.
    pub shown: u64,
    /// `half_closed` was called.
    pub fin_shown: bool,
    /// `close` was called by the handler: nothing is shown any more.
    pub closing: bool,
    /// Something was done to it that may cut it short.
    pub cut: bool,
    pub panicked: bool,
    /// It was reset for a reason that was looked into.
    pub excused: bool,
    /// Its callbacks.
    pub called: Called,
    pub closed: Option<Reason>,
    /// Its limits, if it was still there after the turn in which it was opened.
    pub limits: Option<ClientLimits>,
    /// The limit on its output, by the settings with which it was opened.
    pub output_bytes_max: Option<u32>,
    /// When it was to be reset because its listener was removed, and when it ended, in simulated
    /// µs.
    pub leaves_us: Option<u64>,
    pub ended_us: u64,
    /// The bytes of both directions that `closed` was told.
    pub traffic: Option<Traffic>,
    /// The markers in its output.
    pub markers: Vec<Mark>,
    /// The bytes before them that have not left.
    pub unsent_bytes: u64,
    groups: Vec<u64>,
    /// With those that it has left.
    all_groups: BTreeSet<u64>,
}

impl Record {
    /// The groups that it is in, sorted.
    pub fn groups(&self) -> &[u64] {
        &self.groups
    }

    /// Joins a group or leaves it. False: that changes nothing.
    pub fn change_group(&mut self, group: u64, joins: bool) -> bool {
        let before = self.groups.len();
        self.groups.retain(|other| *other != group);
        let was_in = self.groups.len() < before;
        if joins {
            self.groups.push(group);
            self.groups.sort_unstable();
            self.all_groups.insert(group);
        }
        was_in != joins
    }

    /// Whether every result of a job that has arrived came behind what the job had sent.
    pub fn is_in_order(&self, received: &[u8]) -> bool {
        let at = |what: &[u8]| received.windows(what.len()).position(|it| it == what);
        self.in_order.iter().all(|[sent, then]| match (at(sent), at(then)) {
            (Some(sent), Some(then)) => sent < then,
            (None, Some(_)) => false,
            (_, None) => true,
        })
    }

    /// Bytes of its own stream that were queued.
    pub fn said_of_its_own(&self) -> u64 {
        self.said.iter().filter(|piece| piece.key >= 1 << 45).map(|piece| piece.bytes).sum()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, address, part, shown, fin_shown, closing, cut, excused, files_owed, .. } =
            self;
        let said: u64 = self.said.iter().map(|piece| piece.bytes).sum();
        write!(
            f,
            "{id:?} with {address} ({:?}, {:?}): said {said} bytes in {} pieces, was shown {shown}, \
             FIN {fin_shown}; closing {closing}, cut {cut}, excused {excused}, files owed {files_owed}, closed {:?}",
            part.role,
            part.farewell,
            self.said.len(),
            self.closed
        )
    }
}

/// Everything written down.
#[derive(Default)]
pub struct Book {
    pub records: Vec<Record>,
    /// Clients that may come in though they are banned.
    pub exempt: Vec<Prefix>,
    by_id: BTreeMap<u64, usize>,
    /// What was sent past the handler: by broadcasts, or to an id.
    pub blobs: Vec<Piece>,
    /// Those of them that only the clients of one listener may get, by their number.
    listener_of: BTreeMap<usize, u16>,
    /// Those that only the members of a group may get.
    group_of: BTreeMap<usize, u64>,
    pub letters: Letters,
    /// Shards whose handler waits for room in a queue.
    pub waits_for_room: BTreeSet<usize>,
    /// Files that were to get a name.
    pub published: Vec<super::uploads::Published>,
    /// What paths lead to.
    pub paths: super::changes::Paths,
    /// Parts by the address of the peer.
    pub parts: BTreeMap<SocketAddr, Part>,
    /// Addresses nobody has been connected to yet, with their tags.
    pub endpoints: Vec<(SocketAddr, u64)>,
    /// Connects asked for: of which shard, and are they answered?
    pub connects: BTreeMap<u64, (usize, bool)>,
    /// Connects go out in all ways, not only to an address as it is.
    pub draws_ways: bool,
    /// Connects that a shard has cancelled.
    pub cancelled: BTreeSet<u64>,
    /// One of this number of failed connects leads to the next one. 0: none does.
    pub connects_again: u64,
    /// Connections that shards were asked to keep up.
    pub kept: Promises,
    /// Slots in use of each shard when it last acted.
    pub slots: Vec<usize>,
    /// Everybody was kicked.
    pub kicks_all: bool,
    /// Connections were drained while the engine went on.
    pub drains_some: bool,
    /// A broadcast has ended those who read slowly.
    pub disconnects: bool,
    /// The shard that is being torn down.
    pub failing: Option<usize>,
    /// What callbacks found wrong: a panic there would only end a connection.
    pub failures: Vec<String>,
    pub panics: u64,
    /// Connects that came to nothing.
    pub connects_failed: u64,
    /// How far each shard has told its handler of its life.
    pub told: Vec<Told>,
    /// Callbacks altogether.
    pub callbacks: u64,
    /// Jobs and holds that belong to no connection: those made, and those under way, by shard and
    /// tag.
    pub shard_jobs_made: u64,
    pub shard_jobs: BTreeSet<(usize, u64)>,
    /// Shards that have refused one of them because they end.
    pub shards_that_end: Vec<usize>,
    /// Owners of payloads that have not been dropped.
    pub owners: Owners,
    /// Markers that were reached since the last look, by connection and place.
    pub reached: Vec<(ConnectionId, usize)>,
}

impl Book {
    pub fn new(shards: usize) -> Self {
        Self {
            slots: vec![0; shards],
            told: vec![Told::Nothing; shards],
            connects_again: 4,
            ..Self::default()
        }
    }

    pub fn open(
        &mut self,
        id: ConnectionId,
        (address, shown_peer): (SocketAddr, Peer),
        origin: Origin,
    ) -> usize {
        let part = self.parts[&address];
        if self.by_id.insert(id.get(), self.records.len()).is_some() {
            self.failures.push(format!("{id:?} is opened a second time"));
        }
        self.records.push(Record {
            id,
            address,
            shown_peer,
            peer: NOT_FOUND,
            part,
            origin,
            accepted: matches!(origin, Origin::Listener(_)),
            said: Vec::new(),
            in_order: Vec::new(),
            files_owed: 0,
            shown: 0,
            fin_shown: false,
            closing: false,
            cut: false,
            panicked: false,
            excused: false,
            called: Called::default(),
            closed: None,
            limits: None,
            output_bytes_max: None,
            leaves_us: None,
            ended_us: 0,
            traffic: None,
            markers: Vec::new(),
            unsent_bytes: 0,
            groups: Vec::new(),
            all_groups: BTreeSet::new(),
        });
        let record = self.records.len() - 1;
        self.note_call(record, Callback::Opened);
        record
    }

    /// A marker was reported: in the order of its kind, once, and with an end only after it.
    pub fn note_sent(&mut self, sent: &SentMarker) {
        let Some(record) = self.record(sent.connection) else {
            self.failures.push(format!("a marker of nobody: {sent:?}"));
            return;
        };
        let at = sent.tag as usize - 1;
        let Mark { of_peer, .. } = record.markers[at];
        let next = record.markers.iter().position(|it| it.of_peer == of_peer && !it.told);
        let ends = sent.unsent_bytes == 0 || sent.reason.is_some();
        let ended = sent.reason.is_none() || sent.reason == record.closed;
        (record.markers[at].told, record.markers[at].missing_bytes) = (true, sent.unsent_bytes);
        if !of_peer {
            record.unsent_bytes = record.unsent_bytes.saturating_add(sent.unsent_bytes);
        }
        if next != Some(at) || !ends || !ended {
            let wrong = format!("{sent:?} where marker {next:?} is next: {record:?}");
            self.failures.push(wrong);
        }
        if sent.reason.is_none() {
            self.reached.push((sent.connection, at));
        }
    }

    /// A callback of a record's connection.
    pub fn note_call(&mut self, record: usize, callback: Callback) {
        let wrong = self.records[record].note_call(callback);
        self.failures.extend(wrong);
    }

    /// Those opened last by a shard, from number `first` on, are not banned.
    pub fn check_bans(&mut self, first: usize, shard: usize, bans: &Bans) {
        for record in &self.records[first..] {
            let is_exempt = |ip| self.exempt.iter().any(|prefix| prefix.contains(ip));
            let is_new = record.accepted && record.id.shard() == shard;
            let is_banned = |ip| bans.contains(ip) && !is_exempt(ip);
            if is_new && record.shown_peer.ip().is_some_and(is_banned) {
                self.failures.push(format!("banned: {record:?}"));
            }
        }
    }

    /// A shard fails: what its connections were owed may be lost.
    pub fn fail(&mut self, shard: usize) {
        self.failing = Some(shard);
        let open = |record: &&mut Record| record.id.shard() == shard && record.closed.is_none();
        self.records.iter_mut().filter(open).for_each(|record| record.excused = true);
    }

    /// They ended for the reason they had, or for their shard's failure.
    pub fn check_reasons(&mut self, reasons: &[(ConnectionId, Option<Reason>)]) {
        for (id, reason) in reasons {
            let expected = reason.unwrap_or(Reason::ShardFailed);
            let closed = self.record(*id).expect("it was opened").closed;
            if closed.is_some_and(|closed| closed != expected) {
                self.failures.push(format!("{id:?} ends with {closed:?}, not {expected:?}"));
            }
        }
    }

    /// It has failed: all of them have been told of their end.
    pub fn has_failed(&mut self, shard: usize) {
        self.failing = None;
        for record in self.records.iter().filter(|record| record.id.shard() == shard) {
            if record.closed.is_none() {
                self.failures.push(format!("shard {shard} has failed, not closed: {record:?}"));
            }
        }
    }

    pub fn record(&mut self, id: ConnectionId) -> Option<&mut Record> {
        self.by_id.get(&id.get()).map(|at| &mut self.records[*at])
    }

    /// Some connection, open or not.
    pub fn anybody(&self, rng: &mut Rng) -> Option<ConnectionId> {
        let count = self.records.len() as u64;
        // The latest are more likely to be there still.
        let back = rng.below(count.min(8));
        (count > 0).then(|| self.records[(count - 1 - back) as usize].id)
    }

    /// Bytes that no other blob has.
    pub fn blob(&mut self, bytes: usize) -> Vec<u8> {
        let key = (1 << 50) + self.blobs.len() as u64;
        self.blobs.push(Piece { key, offset: 0, bytes: bytes as u64, shape: Shape::Bytes });
        stretch(key, 0, bytes)
    }

    /// These bytes, as a payload of any kind.
    pub fn payload(&self, bytes: &[u8]) -> Payload {
        self.owners.payload(bytes)
    }

    /// The last blob is for the clients of one listener.
    pub fn meant_for(&mut self, listener: u16) {
        self.listener_of.insert(self.blobs.len() - 1, listener);
    }

    /// The last blob is for the members of a group.
    pub fn meant_for_group(&mut self, group: u64) {
        self.group_of.insert(self.blobs.len() - 1, group);
    }

    /// An address for a shard to connect to, noted as asked for.
    pub fn endpoint(&mut self, shard: usize) -> Option<(SocketAddr, u64)> {
        let (address, tag) = self.endpoints.pop()?;
        self.connects.insert(tag, (shard, false));
        Some((address, tag))
    }

    /// Nothing comes of a connect: it was refused.
    pub fn not_asked(&mut self, tag: u64) {
        self.connects.remove(&tag);
    }

    pub fn answered(&mut self, tag: u64) {
        let connect = self.connects.get_mut(&tag);
        if connect.is_none_or(|(_, answered)| std::mem::replace(answered, true)) {
            self.failures.push(format!("connect {tag} is answered twice, or was never asked for"));
        }
    }

    /// Whether `received` is what was said, in order and once, with blobs anywhere between two
    /// pieces, to that extent.
    pub fn agrees(&self, record: &Record, received: &[u8], extent: Extent) -> bool {
        let is_for_others = |blob| {
            let listener = self.listener_of.get(&blob);
            let group = self.group_of.get(&blob);
            listener.is_some_and(|number| record.origin != Origin::Listener(*number))
                || group.is_some_and(|group| !record.all_groups.contains(group))
        };
        let used = (0..self.blobs.len()).map(is_for_others).collect();
        self.agrees_from(&record.said, received, used, extent)
    }

    /// The blobs that `received` may begin with.
    pub(super) fn blobs_at(&self, received: &[u8], used: &[bool]) -> Vec<usize> {
        let fits = |at: &usize| !used[*at] && self.blobs[*at].starts(received);
        (0..used.len()).filter(fits).collect()
    }

    pub(super) fn agrees_from(
        &self,
        mut said: &[Piece],
        mut received: &[u8],
        used: Vec<bool>,
        extent: Extent,
    ) -> bool {
        loop {
            let ranges = [Shape::Range, Shape::OpenRange];
            if let [piece, said @ ..] = said
                && ranges.contains(&piece.shape)
            {
                return self.agrees_with_range((*piece, said), received, &used, extent);
            }
            if received.is_empty() {
                return match extent {
                    Extent::Whole => said.iter().all(|piece| piece.bytes == 0),
                    Extent::ToFile => said.first().is_some_and(|piece| piece.shape == Shape::File),
                    Extent::Part => true,
                };
            }
            let blobs = self.blobs_at(received, &used);
            let next = said.first().filter(|piece| piece.starts(received));
            // Short ones may look alike, so every way is tried.
            for at in blobs {
                let mut used = used.clone();
                used[at] = true;
                match received.get(self.blobs[at].bytes as usize..) {
                    Some(rest) if self.agrees_from(said, rest, used, extent) => return true,
                    None if extent == Extent::Part => return true,
                    _ => {}
                }
            }
            let Some(piece) = next else { return false };
            let Some(rest) = received.get(piece.bytes as usize..) else {
                return match extent {
                    Extent::Whole => false,
                    Extent::ToFile => piece.shape == Shape::File,
                    Extent::Part => true,
                };
            };
            received = rest;
            said = &said[1..];
        }
    }
}

/// The stream that the peer at an address sends.
pub fn key_of(address: SocketAddr) -> u64 {
    match address {
        SocketAddr::V4(v4) => u64::from(v4.ip().octets()[1]) << 20 | u64::from(v4.port()),
        SocketAddr::V6(_) => unreachable!("simulated peers have IPv4 addresses"),
    }
}
