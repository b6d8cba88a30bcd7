//! Length-prefixed packets, and files both ways between them: the handler. The protocol is
//! described in `PACKETS.md`.
//!
//! A connection is read from packet by packet, as long as there is room for answers. While a file
//! is being opened, created, filled or named it is not read from: so there is one of these at a
//! time, and what a client sends ahead of the answer finds its file there.

mod conversation;
mod folder;
mod gets;
mod jobs;
mod puts;
mod sum;
mod wire;

pub use conversation::Conversation;
pub use folder::Folder;
pub use wire::BODY_BYTES_MAX;

use conversation::{FileDigest, Patience};
use ringwright::{
    Connection, Deadline, Directory, Framing, Handler, JobDone, NewFile, OpenFile, Origin,
    ReceiveFailed, SlowReaders,
};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use wire::{Answer, Code, Refusal, Request};

/// In a drain a connection ends when nothing has happened on it for so long: an offer that was
/// just made can still be taken.
const DRAIN_QUIET: Duration = Duration::from_millis(500);
/// Broadcasts that a shard takes in a millisecond: each is work for every connection.
const BROADCASTS_MAX: u32 = 32;

/// What clients may do.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of a file that is put.
    pub upload_bytes_max: u64,
    /// Take no files.
    pub read_only: bool,
    /// Replace a file if the client asks for it.
    pub replace: bool,
    /// A file that is stored is on the disk.
    pub sync: bool,
    /// How long an offer stands, and how long a put waits for its next chunk.
    pub offer_timeout: Duration,
}

/// Serves the files of one directory; one per shard.
pub struct Packets {
    framing: Framing,
    directory: Directory,
    folder: Arc<Folder>,
    rules: Rules,
    /// Broadcasts taken at a time, and when that was.
    broadcasts: (Duration, u32),
}

impl Packets {
    /// Serves the files of a directory, which the shard's ring and the workers each have in their
    /// own way.
    #[must_use]
    pub fn new(framing: Framing, directory: Directory, folder: Arc<Folder>, rules: Rules) -> Self {
        Self { framing, directory, folder, rules, broadcasts: (Duration::ZERO, 0) }
    }

    /// False: it is to be shown again when there is room.
    fn request(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        body: &[u8],
    ) -> bool {
        let (id, request) = wire::parse(body);
        match request {
            Ok(Request::Get(_) | Request::Put { .. }) if state.has_transfer(id) => {
                // Nobody could tell what is said about which.
                let taken = Refusal::new(Code::Malformed, "a transfer under way has this id");
                self.refuse(state, connection, id, &taken);
            }
            Ok(Request::Digest(_) | Request::DigestFile(_) | Request::List(_))
                if state.digest.is_some() =>
            {
                state.digest_unread = true;
                return false;
            }
            Ok(Request::Echo(bytes)) => {
                self.answer(state, connection, Answer::Echoed, id, bytes);
            }
            Ok(Request::Digest(bytes)) => return self.digest(state, connection, id, bytes),
            Ok(Request::DigestFile(name)) => return self.digest_file(state, connection, id, name),
            Ok(Request::Broadcast(bytes)) => self.broadcast(state, connection, id, bytes),
            Ok(Request::List(after)) => return self.list(state, connection, id, after),
            Ok(Request::Get(name)) => self.get(state, connection, id, name),
            Ok(Request::Take { offset, length }) => {
                self.take(state, connection, id, offset, length);
            }
            Ok(Request::Put { replace, size, name }) => {
                self.put(state, connection, id, name, size, replace);
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
            let length = self.framing.header(head.len() + bytes.len()).expect("it came as long");
            let packet = [&length[..], &head, bytes].concat();
            connection.local().remote().broadcast(packet.into(), SlowReaders::Skip).is_ok()
        };
        if sent {
            self.answer(state, connection, Answer::BroadcastSent, id, &[]);
        } else {
            let busy = Refusal::new(Code::Busy, "there are too many broadcasts: try again");
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
        state.note(room.expect("no answer is longer than a packet"));
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

    /// When an offer that is made now ends.
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
        // Otherwise this would not have been called.
        state.full = false;
        state.digest_unread = false;
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
        // On a connection that is being closed, the chunk that was under way is the last one: it takes
        // nothing more.
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
        result: Result<NewFile, ReceiveFailed>,
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
            let why = Refusal::new(Code::Failed, "the stream ended before the last byte");
            self.give_up(state, connection, &why);
        }
        // Nobody will take it any more.
        state.get.take_if(|get| get.deadline().is_some());
        self.settle(state, connection);
    }

    fn timer(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.timer_fired();
        let now = connection.local().now();
        let is_late = |deadline: Option<Duration>| deadline.is_some_and(|at| at <= now);
        if let Some(get) = state.get.take_if(|get| is_late(get.deadline())) {
            let why = Refusal::new(Code::Expired, "the offer was not taken in time");
            self.refuse(state, connection, get.id(), &why);
        }
        if state.put.as_ref().is_some_and(|put| is_late(put.deadline())) {
            let why = Refusal::new(Code::Expired, "the next chunk did not come in time");
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
            // The engine closes it, and keeps the deadline as the reason.
            let why = Refusal::new(Code::Expired, "the rest of a packet did not come in time");
            self.refuse(state, connection, 0, &why);
            state.closing = true;
        }
    }

    fn draining(&mut self, state: &mut Conversation, connection: &mut Connection<'_>) {
        state.draining = true;
        self.settle(state, connection);
    }
}
