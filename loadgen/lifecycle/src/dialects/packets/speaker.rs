//! Requests as bytes.

use super::phrase::Phrase;
use crate::dialect::{self, Key};
use crate::dialects::learnt::Files;
use crate::packets::{self, Request};
use crate::stream::Stream;

/// Number of DATA packets of a put.
const CHUNKS: u64 = 3;
/// Size of a reply without fields.
const ANSWER_BYTES: u64 = (packets::LENGTH_BYTES + packets::PREFIX_BYTES) as u64;

/// The version of each resumable upload. Their names differ.
const VERSION: [u8; packets::VERSION_BYTES] = [1; packets::VERSION_BYTES];

/// Encodes the phrases of one connection.
pub struct Speaker<'a> {
    key: Key,
    files: &'a Files,
    /// Distinguishes the names of this run's puts from those of another run with the same seed.
    nonce: u32,
    /// Number of packets with an id.
    packets: u32,
    /// Number of GETs.
    gets: u32,
    /// The bytes of the requests.
    pub bytes: Vec<u8>,
    /// The requests in these bytes.
    pub requests: Vec<dialect::Request>,
}

impl<'a> Speaker<'a> {
    /// Creates the state of a new connection.
    pub fn new(key: Key, files: &'a Files, nonce: u32) -> Self {
        Self { key, files, nonce, packets: 0, gets: 0, bytes: Vec::new(), requests: Vec::new() }
    }

    /// Appends a phrase.
    pub fn say(&mut self, phrase: &Phrase) {
        match phrase {
            Phrase::Echo(size) => self.plain(Request::ECHO, *size, ANSWER_BYTES + size),
            Phrase::Digest(size) => self.plain(Request::DIGEST, *size, ANSWER_BYTES + 32),
            Phrase::Broadcast(size) => self.plain(Request::BROADCAST, *size, ANSWER_BYTES),
            Phrase::DigestFile(name) => {
                self.named(Request::DIGEST_FILE, name, ANSWER_BYTES + 32);
            }
            Phrase::List => {
                let start = self.here();
                let id = self.id();
                Request::LIST.append(&mut self.bytes, id, &[]);
                self.asked(start, ANSWER_BYTES + 1, false);
            }
            Phrase::Get(name, range) => {
                let id = self.get(name);
                let whole = self.files.position(name).map_or(0, |at| self.files.0[at].length);
                let (offset, length) = range.unwrap_or((0, whole));
                self.take(name, id, offset, length);
            }
            Phrase::Abort => {
                let id = self.id();
                self.abort(id);
            }
            Phrase::AbortGet(name) => {
                let id = self.get(name);
                self.abort(id);
            }
            Phrase::AbortTake(name) => {
                let id = self.get(name);
                let whole = self.files.position(name).map_or(0, |at| self.files.0[at].length);
                self.take(name, id, 0, whole);
                // The server may stop anywhere.
                self.requests.last_mut().expect("it was asked").reply_bytes_min = ANSWER_BYTES;
                self.abort(id);
            }
            Phrase::Range(name, offset, length) => self.range(name, *offset, *length),
            Phrase::Resume(size) => {
                let (id, name) = self.new_name();
                let start = self.here();
                let fields = [&[0][..], &size.to_be_bytes(), &VERSION, name.as_bytes()];
                Request::PUT_RESUMABLE.append(&mut self.bytes, id, &fields);
                self.asked(start, ANSWER_BYTES, false);
                self.abort(id);
            }
            Phrase::Put(size) => self.put(*size),
            Phrase::AbortPut(size) => {
                let (id, _) = self.begin_put(*size);
                let start = self.here();
                self.data(id, size / 2);
                Request::ABORT.append(&mut self.bytes, id, &[]);
                self.asked(start, ANSWER_BYTES, true);
            }
            Phrase::Lie(..)
            | Phrase::Type(..)
            | Phrase::Data(_)
            | Phrase::Chunk(_)
            | Phrase::Over(_) => self.say_hostile(phrase),
        }
    }

    /// Appends a phrase that violates the protocol.
    fn say_hostile(&mut self, phrase: &Phrase) {
        match phrase {
            Phrase::Lie(length, actual) => {
                let start = self.here();
                let id = self.id();
                self.bytes.extend_from_slice(&length.to_be_bytes());
                let mut body = vec![Request::ECHO.0];
                body.extend_from_slice(&id.to_be_bytes());
                body.truncate(*actual as usize);
                self.bytes.extend_from_slice(&body);
                self.stream(actual - body.len() as u64);
                self.hostile(start);
            }
            Phrase::Type(kind, size) => {
                let start = self.here();
                let id = self.id();
                self.head(Request(*kind), id, *size);
                self.stream(*size);
                match (Request::ECHO.0..=Request::PUT_RESUMABLE.0).contains(kind) {
                    true => self.hostile(start),
                    false => self.asked(start, ANSWER_BYTES, false),
                }
            }
            Phrase::Data(count) => {
                let start = self.here();
                let id = self.id();
                self.data(id, *count);
                self.hostile(start);
            }
            Phrase::Chunk(count) => {
                let start = self.here();
                let id = self.id();
                Request::DATA.append(&mut self.bytes, id, &[&count.to_be_bytes()]);
                self.hostile(start);
            }
            Phrase::Over(size) => {
                let (id, _) = self.begin_put(*size);
                let start = self.here();
                self.data(id, size + 1);
                self.hostile(start);
            }
            _ => unreachable!("the other phrases keep to the protocol"),
        }
    }

    /// Appends a GET. Only the first of a connection is certainly not refused (ERROR 10).
    fn get(&mut self, name: &str) -> u32 {
        self.gets += 1;
        let offer_bytes = if self.gets == 1 { 16 } else { 2 };
        self.named(Request::GET, name, ANSWER_BYTES + offer_bytes)
    }

    /// Appends a GET_RANGE of any version.
    fn range(&mut self, name: &str, offset: u64, length: u64) {
        self.gets += 1;
        let start = self.here();
        let id = self.id();
        let numbers = [offset.to_be_bytes(), length.to_be_bytes()].concat();
        let fields = [&numbers[..], &[0; packets::VERSION_BYTES], name.as_bytes()];
        Request::GET_RANGE.append(&mut self.bytes, id, &fields);
        let at = self.files.position(name);
        let size = at.map_or(0, |at| self.files.0[at].length);
        let length = match length {
            packets::TO_THE_END => size.saturating_sub(offset),
            length => length,
        };
        let is_right = offset.checked_add(length).is_some_and(|end| end <= size);
        let is_large = at.is_some_and(|at| self.files.is_large(at));
        match self.gets {
            1 if is_right => self.asked(start, 2 * ANSWER_BYTES + 32 + length, is_large),
            _ => self.asked(start, ANSWER_BYTES + 2, false),
        }
    }

    /// Appends a PUT, all of its DATA, and a digest request for the file.
    fn put(&mut self, size: u64) {
        let (id, name) = self.begin_put(size);
        let start = self.here();
        let mut rest = size;
        while rest > 0 {
            let most = (size / CHUNKS + 1).min(packets::CHUNK_SENT_BYTES_MAX);
            let count = rest.min(most);
            self.data(id, count);
            rest -= count;
        }
        if size > 0 {
            self.asked(start, ANSWER_BYTES, true);
        }
        self.named(Request::DIGEST_FILE, &name, ANSWER_BYTES + 32);
    }

    fn begin_put(&mut self, size: u64) -> (u32, String) {
        let start = self.here();
        let (id, name) = self.new_name();
        let fields = [&[0][..], &size.to_be_bytes(), name.as_bytes()];
        Request::PUT.append(&mut self.bytes, id, &fields);
        self.asked(start, ANSWER_BYTES, false);
        (id, name)
    }

    /// Returns an id, and the name of the file of its put.
    fn new_name(&mut self) -> (u32, String) {
        let id = self.id();
        let name = format!(
            "ringload-{:016x}-{:x}-{}-{:08x}",
            self.key.seed, self.key.number, self.packets, self.nonce
        );
        (id, name)
    }

    fn data(&mut self, id: u32, count: u64) {
        Request::DATA.append(&mut self.bytes, id, &[&(count as u32).to_be_bytes()]);
        self.stream(count);
    }

    fn take(&mut self, name: &str, id: u32, offset: u64, length: u64) {
        let start = self.here();
        let range = [&offset.to_be_bytes()[..], &length.to_be_bytes()];
        Request::TAKE.append(&mut self.bytes, id, &range);
        let is_large = self.files.position(name).is_some_and(|at| self.files.is_large(at));
        match self.gets {
            1 => self.asked(start, ANSWER_BYTES + length, is_large),
            _ => self.asked(start, ANSWER_BYTES + 2, false),
        }
    }

    fn abort(&mut self, id: u32) {
        let start = self.here();
        Request::ABORT.append(&mut self.bytes, id, &[]);
        self.asked(start, ANSWER_BYTES, false);
    }

    fn plain(&mut self, kind: Request, size: u64, reply_bytes_min: u64) {
        let start = self.here();
        let id = self.id();
        self.head(kind, id, size);
        self.stream(size);
        self.asked(start, reply_bytes_min, false);
    }

    fn named(&mut self, kind: Request, name: &str, reply_bytes_min: u64) -> u32 {
        let start = self.here();
        let id = self.id();
        kind.append(&mut self.bytes, id, &[name.as_bytes()]);
        self.asked(start, reply_bytes_min, false);
        id
    }

    fn head(&mut self, kind: Request, id: u32, field_bytes: u64) {
        let length = packets::PREFIX_BYTES as u64 + field_bytes;
        self.bytes.extend_from_slice(&(length as u32).to_be_bytes());
        self.bytes.push(kind.0);
        self.bytes.extend_from_slice(&id.to_be_bytes());
    }

    /// Appends the next bytes of the stream.
    fn stream(&mut self, count: u64) {
        let start = self.bytes.len();
        self.bytes.resize(start + count as usize, 0);
        Stream::new(self.key.seed, self.key.number).fill(start as u64, &mut self.bytes[start..]);
    }

    fn here(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn id(&mut self) -> u32 {
        self.packets += 1;
        id(self.key, self.packets)
    }

    fn asked(&mut self, start: u64, reply_bytes_min: u64, is_file: bool) {
        let end = self.here();
        let head_end = (start + ANSWER_BYTES).min(end);
        self.requests.push(dialect::Request {
            start,
            head_end,
            end,
            reply_bytes_min,
            is_file,
            is_proper: true,
        });
    }

    fn hostile(&mut self, start: u64) {
        self.asked(start, 0, false);
        if let Some(request) = self.requests.last_mut() {
            request.is_proper = false;
        }
    }
}

/// Returns the id of a connection's packet, counted from 1. It contains the connection.
fn id(key: Key, packet: u32) -> u32 {
    (whose(key) << 8) | ((packet - 1) % 255 + 1)
}

/// Returns the common part of a connection's ids: its number modulo 2^20 and, above that, the place
/// among the script's connects.
pub fn whose(key: Key) -> u32 {
    let connect = key.number >> Key::CONNECT_SHIFT;
    ((connect as u32 & 0xf) << 20) | (key.number as u32 & 0xf_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::learnt::tests::files;

    #[test]
    fn requests_lie_one_behind_the_other_without_gaps() {
        let files = files(&[("small", vec![1; 10]), ("large", vec![2; 300_000])], usize::MAX);
        let mut speaker = Speaker::new(Key { seed: 1, number: 0x12_3456 }, &files, 9);
        for text in [
            "echo:2",
            "digest:3",
            "digest-file:small",
            "broadcast:1",
            "list",
            "get:small",
            "get:large:5:6",
            "range:large:5:6",
            "resume:9",
            "put:0",
            "put:100",
            "abort",
            "abort-get:small",
            "abort-take:large",
            "abort-put:9",
            "lie:0:3",
            "lie:65537:20",
            "type:ff:2",
            "data:7",
            "chunk:0",
            "over:3",
        ] {
            speaker.say(&Phrase::read(text, &files).expect(text));
        }
        let mut end = 0;
        for request in &speaker.requests {
            assert_eq!(request.start, end);
            assert!(request.start < request.head_end && request.head_end <= request.end);
            end = request.end;
        }
        assert_eq!(end, speaker.bytes.len() as u64);
        assert_eq!(speaker.bytes[..9], [0, 0, 0, 7, 1, 0x02, 0x34, 0x56, 1]);
        assert_eq!(speaker.requests.iter().filter(|request| request.is_file).count(), 2);
    }
}
