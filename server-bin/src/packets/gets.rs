//! Downloads. A file is offered and then sent in chunks, so that either side can stop between two
//! chunks and keep the connection. The downloads of a connection take turns, chunk by chunk.
//!
//! One chunk is in the output queue at a time. Other answers therefore wait for at most one chunk.

use super::Packets;
use super::conversation::{Conversation, Unread};
use super::wire::{Answer, CHUNK_OUT_BYTES_MAX, Code, Refusal, TO_THE_END, VERSION_BYTES, Version};
use crate::http::conditional::is_settled;
use ringwright::Connection;
use ringwright::files::{FileKind, FileStatus, OpenFile};
use std::io;
use std::time::{Duration, SystemTime};

/// Maximum number of downloads in progress on a connection. Each needs a descriptor.
pub(super) const GETS_MAX: usize = 16;
/// Maximum length of a chunk while other downloads of the connection wait for their turn.
const SHARED_CHUNK_BYTES_MAX: u64 = 256 << 10;

/// The downloads of a connection, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct Gets(Vec<Get>);

#[derive(Debug)]
struct Get {
    id: u32,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The file is being opened. `range` is sent without an offer.
    Opening { range: Option<Range>, since: SystemTime },
    /// The client knows the size and may take the file until `until`.
    Offered { file: OpenFile, until: Duration },
    /// The next chunk waits for its turn.
    Waiting(Rest),
    /// A chunk is being sent. `ending` follows it instead of the next chunk.
    Leaving { rest: Rest, ending: Option<Ending> },
}

/// The bytes of a file that no chunk contains yet.
#[derive(Debug)]
struct Rest {
    file: OpenFile,
    offset: u64,
    left: u64,
}

/// The last answer of a download that is stopped.
type Ending = Result<Answer, Refusal>;

/// The fields of a GET_RANGE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) version: Version,
}

impl Gets {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, id: u32) -> bool {
        self.0.iter().any(|get| get.id == id)
    }

    pub(super) fn is_opening(&self) -> bool {
        self.0.iter().any(|get| matches!(get.step, Step::Opening { .. }))
    }

    /// Returns true if `limit` downloads are in progress and one of them is being sent, so that
    /// a place becomes free without the client.
    pub(super) fn is_busy(&self, limit: usize) -> bool {
        let is_sending = |get: &Get| matches!(get.step, Step::Waiting(_) | Step::Leaving { .. });
        self.0.len() >= limit && self.0.iter().any(is_sending)
    }

    /// Returns true if a download that is being stopped has this id, or any id for `None`.
    pub(super) fn is_ending(&self, id: Option<u32>) -> bool {
        self.0.iter().any(|get| {
            matches!(get.step, Step::Leaving { ending: Some(_), .. })
                && id.is_none_or(|id| get.id == id)
        })
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.iter().filter_map(Get::deadline).min()
    }

    /// Removes an offer that expired, and returns its id.
    pub(super) fn take_expired(&mut self, now: Duration) -> Option<u32> {
        let is_late = |get: &Get| get.deadline().is_some_and(|at| at <= now);
        let at = self.0.iter().position(is_late)?;
        Some(self.remove(at).id)
    }

    /// Removes the offers: no TAKE can arrive any more.
    pub(super) fn drop_offers(&mut self) {
        self.0.retain(|get| get.deadline().is_none());
    }

    fn find(&mut self, id: u32) -> Option<(usize, &mut Step)> {
        let at = self.0.iter().position(|get| get.id == id)?;
        Some((at, &mut self.0[at].step))
    }

    fn take_opening(&mut self) -> (u32, Option<Range>, SystemTime) {
        let at = self.0.iter().position(|get| matches!(get.step, Step::Opening { .. }));
        let get = self.remove(at.expect("only a GET or a PUT opens a file"));
        let Step::Opening { range, since } = get.step else { unreachable!("just looked") };
        (get.id, range, since)
    }

    fn take_leaving(&mut self) -> (u32, Rest, Option<Ending>) {
        let at = self.0.iter().position(|get| matches!(get.step, Step::Leaving { .. }));
        let get = self.remove(at.expect("only a chunk of a download is sent"));
        let Step::Leaving { rest, ending } = get.step else { unreachable!("just looked") };
        (get.id, rest, ending)
    }

    /// Removes the download whose turn it is.
    fn take_next(&mut self) -> Option<(u32, Rest)> {
        if self.0.iter().any(|get| matches!(get.step, Step::Leaving { .. })) {
            return None;
        }
        let at = self.0.iter().position(|get| matches!(get.step, Step::Waiting(_)))?;
        let get = self.remove(at);
        let Step::Waiting(rest) = get.step else { unreachable!("just looked") };
        Some((get.id, rest))
    }

    fn any_waits(&self) -> bool {
        self.0.iter().any(|get| matches!(get.step, Step::Waiting(_)))
    }

    fn add(&mut self, id: u32, step: Step) {
        self.0.push(Get { id, step });
    }

    fn remove(&mut self, at: usize) -> Get {
        let get = self.0.remove(at);
        if self.0.is_empty() {
            // An idle connection keeps no memory.
            self.0 = Vec::new();
        }
        get
    }
}

impl Get {
    fn deadline(&self) -> Option<Duration> {
        if let Step::Offered { until, .. } = &self.step { Some(*until) } else { None }
    }
}

impl Packets {
    /// Opens a file, to offer it or to send `range` of it. Returns `false` if the request must stay
    /// unread until another download has ended.
    pub(super) fn get(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        name: &[u8],
        range: Option<Range>,
    ) -> bool {
        let limit = if connection.local().is_short_of_files() { 1 } else { GETS_MAX };
        if state.gets.is_busy(limit) {
            state.unread = Some(Unread::Get { limit });
            return false;
        }
        if state.gets.0.len() >= limit {
            // The TAKE of an offer could be behind this request.
            let why = format!("this connection has {limit} offers; take or abort one first");
            self.refuse(state, connection, id, &Refusal::new(Code::Busy, why));
            return true;
        }
        match self.root.current() {
            Ok((root, _)) => {
                // Refused only on a connection that is ending: one open at a time is asked for.
                let _ = connection.open_file(&root.directory, name);
                state.gets.add(id, Step::Opening { range, since: SystemTime::now() });
            }
            Err(missing) => {
                self.refuse(state, connection, id, &Refusal::folder_missing(missing));
            }
        }
        true
    }

    /// The file is open: offers it, or begins to send it.
    pub(super) fn offer(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        opened: io::Result<OpenFile>,
    ) {
        let (id, range, since) = state.gets.take_opening();
        let file = match opened {
            Ok(file) if file.status().kind == FileKind::Regular => file,
            Ok(_) => return self.refuse(state, connection, id, &Refusal::no_such_file()),
            Err(error) => {
                return self.refuse(state, connection, id, &Refusal::of_reading(&error));
            }
        };
        let status = file.status();
        let modified_s = u64::try_from(status.modified_s).unwrap_or(0);
        let fields = [status.bytes.to_be_bytes(), modified_s.to_be_bytes()].concat();
        let Some(range) = range else {
            self.answer(state, connection, Answer::Offer, id, &fields);
            let until = self.offer_ends(connection);
            return state.gets.add(id, Step::Offered { file, until });
        };
        let version = version_of(&status, since);
        if range.version != NO_VERSION && range.version != version {
            let changed = Refusal::new(Code::Changed, "the file is not the version asked for");
            return self.refuse(state, connection, id, &changed);
        }
        let length = match range.length {
            TO_THE_END => status.bytes.saturating_sub(range.offset),
            length => length,
        };
        if let Some(refusal) = out_of_range(range.offset, length, status.bytes) {
            return self.refuse(state, connection, id, &refusal);
        }
        let fields = [&fields[..], &version].concat();
        self.answer(state, connection, Answer::Range, id, &fields);
        let rest = Rest { file, offset: range.offset, left: length };
        self.begin(state, connection, id, rest);
    }

    pub(super) fn take(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        (offset, length): (u64, u64),
    ) {
        let Some((at, step)) = state.gets.find(id) else {
            return self.refuse(state, connection, id, &no_transfer());
        };
        if !matches!(step, Step::Offered { .. }) {
            // After a second TAKE the client could not tell which range follows.
            let twice = Refusal::new(Code::NoTransfer, "this offer was taken before");
            return self.stop(state, connection, id, Err(twice));
        }
        let Step::Offered { file, .. } = state.gets.remove(at).step else {
            unreachable!("just looked")
        };
        if let Some(refusal) = out_of_range(offset, length, file.status().bytes) {
            return self.refuse(state, connection, id, &refusal);
        }
        self.begin(state, connection, id, Rest { file, offset, left: length });
    }

    fn begin(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        rest: Rest,
    ) {
        if rest.left == 0 {
            return self.answer(state, connection, Answer::Sent, id, &[]);
        }
        state.gets.add(id, Step::Waiting(rest));
        self.send_chunk(state, connection);
    }

    /// Sends a chunk of the download whose turn it is, unless a chunk is being sent.
    fn send_chunk(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        let Some((id, Rest { file, offset, left })) = state.gets.take_next() else { return };
        let longest = match state.gets.any_waits() {
            true => SHARED_CHUNK_BYTES_MAX,
            false => CHUNK_OUT_BYTES_MAX,
        };
        let count = left.min(longest);
        self.answer(state, connection, Answer::Data, id, &(count as u32).to_be_bytes());
        let room = connection.send_file_padded(file.clone(), offset, count);
        let rest = Rest { file, offset: offset + count, left: left - count };
        state.gets.add(id, Step::Leaving { rest, ending: None });
        state.note(room);
    }

    /// A chunk was sent: sends the final answer, or the next chunk of the next download.
    pub(super) fn chunk_sent(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        let (id, rest, ending) = state.gets.take_leaving();
        match ending {
            Some(Ok(answer)) => self.answer(state, connection, answer, id, &[]),
            Some(Err(refusal)) => self.refuse(state, connection, id, &refusal),
            None if rest.file.failure().is_some() => {
                let why = "the file became shorter or unreadable while it was sent; the last \
                           chunk is not its content";
                self.refuse(state, connection, id, &Refusal::new(Code::Failed, why));
            }
            None if rest.left == 0 => self.answer(state, connection, Answer::Sent, id, &[]),
            None => state.gets.add(id, Step::Waiting(rest)),
        }
        self.send_chunk(state, connection);
    }

    /// Stops a download that was taken: `last` is its last answer, behind the current chunk.
    fn stop(
        &self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        id: u32,
        last: Ending,
    ) {
        let (at, step) = state.gets.find(id).expect("the caller has found it");
        if let Step::Leaving { ending, .. } = step {
            assert!(ending.is_none(), "what follows the end of a download waits for it");
            *ending = Some(last);
            return;
        }
        state.gets.remove(at);
        match last {
            Ok(answer) => self.answer(state, connection, answer, id, &[]),
            Err(refusal) => self.refuse(state, connection, id, &refusal),
        }
    }

    /// The client aborts a transfer.
    pub(super) fn abort(&self, state: &mut Conversation, connection: &mut Connection<'_>, id: u32) {
        if state.gets.has(id) {
            return self.stop(state, connection, id, Ok(Answer::Aborted));
        }
        match state.put.take_if(|put| put.id == id) {
            Some(put) => {
                put.discard();
                self.answer(state, connection, Answer::Aborted, id, &[]);
            }
            None => self.refuse(state, connection, id, &no_transfer()),
        }
    }
}

/// The version of a file whose next change might not show.
const NO_VERSION: Version = [0; VERSION_BYTES];

/// Identifies the content of a file: the time of the last change, which nobody can set, and the
/// inode number. `since` is a time before the file was opened.
fn version_of(status: &FileStatus, since: SystemTime) -> Version {
    if !is_settled(status, since) {
        return NO_VERSION;
    }
    let changed_ns =
        status.changed_s.wrapping_mul(1_000_000_000).wrapping_add(i64::from(status.changed_ns));
    let mut version = NO_VERSION;
    version[..8].copy_from_slice(&changed_ns.to_be_bytes());
    version[8..].copy_from_slice(&status.inode.to_be_bytes());
    version
}

fn out_of_range(offset: u64, length: u64, size: u64) -> Option<Refusal> {
    let fits = offset.checked_add(length).is_some_and(|end| end <= size);
    (!fits).then(|| {
        let why = format!("offset {offset} + length {length} exceeds the size {size}");
        Refusal::new(Code::BadRange, why)
    })
}

fn no_transfer() -> Refusal {
    Refusal::new(Code::NoTransfer, "no transfer in progress has this id")
}
