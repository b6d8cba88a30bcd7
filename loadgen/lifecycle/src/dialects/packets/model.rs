//! The answers that PACKETS.md demands for the bytes of a connection: one expectation for each
//! request that must be answered. Malformed bytes are read as the server must read them.

use crate::dialects::learnt::Files;
use crate::packets::{self, Request, code};
use std::ops::Range;

/// One expected answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The id.
    pub id: u32,
    /// Number of sent bytes from which the answer is due.
    pub due: u64,
    /// The answer.
    pub what: What,
}

/// An expected answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// ECHOED with this range of the sent bytes.
    Echoed(Range<usize>),
    /// DIGESTED of this range of the sent bytes.
    Digested(Range<usize>),
    /// DIGESTED of a file.
    DigestedFile(Source),
    /// BROADCAST_SENT.
    BroadcastSent,
    /// LISTED with the names behind this one.
    Listed(Vec<u8>),
    /// OFFER of an existing file.
    Offer {
        /// Its place.
        file: usize,
        /// Other gets may be under way: ERROR 10.
        may_be_busy: bool,
    },
    /// RANGE of an existing file.
    Range {
        /// Its place.
        file: usize,
        /// Other gets may be under way: ERROR 10.
        may_be_busy: bool,
    },
    /// RESUMED.
    Resumed {
        /// Another put may be under way: ERROR 10.
        may_be_busy: bool,
    },
    /// DATA, and then SENT.
    Sent {
        /// The file's place.
        file: usize,
        /// The first byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// ACCEPTED.
    Accepted {
        /// Another put may be under way: ERROR 10.
        may_be_busy: bool,
    },
    /// STORED.
    Stored,
    /// ABORTED; if the transfer has ended by then, ERROR 12.
    Aborted,
    /// ERROR.
    Refusal {
        /// The code.
        code: u16,
        /// A FIN follows.
        is_last: bool,
    },
}

/// The origin of a digested file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file from before the run.
    File(usize),
    /// A put of this connection: its id, and the ranges of its bytes.
    Put(u32, Vec<Range<usize>>),
}

/// The answers to all bytes that a connection may send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// The answers, in the order in which they become due.
    pub expected: Vec<Expected>,
}

struct Get {
    id: u32,
    file: usize,
    is_taken: bool,
}

struct Put {
    id: u32,
    name: Vec<u8>,
    size: u64,
    ranges: Vec<Range<usize>>,
}

impl Put {
    fn received(&self) -> u64 {
        self.ranges.iter().map(|range| range.len() as u64).sum()
    }
}

/// Reads the bytes of a connection.
struct Reader<'a> {
    bytes: &'a [u8],
    files: &'a Files,
    at: usize,
    model: Model,
    gets: Vec<Get>,
    put: Option<Put>,
    /// Transfers that have begun.
    puts: u32,
    /// Transfers that are complete.
    stored: Vec<Put>,
}

impl Model {
    /// Reads `bytes` as a server with `files` must.
    pub fn of(bytes: &[u8], files: &Files) -> Self {
        let mut reader = Reader {
            bytes,
            files,
            at: 0,
            model: Self::default(),
            gets: Vec::new(),
            put: None,
            puts: 0,
            stored: Vec::new(),
        };
        while reader.packet() {}
        reader.model
    }

    /// Returns the number of answers that are due after `sent` bytes.
    pub fn due(&self, sent: u64) -> u64 {
        self.expected.partition_point(|expected| expected.due <= sent) as u64
    }
}

impl Reader<'_> {
    /// Reads the next packet. Returns false if it is incomplete or the last one.
    fn packet(&mut self) -> bool {
        let Some((length, rest)) = self.bytes[self.at..].split_first_chunk() else { return false };
        let length = u32::from_be_bytes(*length);
        self.at += packets::LENGTH_BYTES;
        if length as usize > packets::BODY_BYTES_MAX {
            // Only its length is read.
            return self.refuse(0, code::TOO_LONG);
        }
        let Some(body) = rest.get(..length as usize) else {
            return false;
        };
        let fields_at = self.at + packets::PREFIX_BYTES;
        self.at += length as usize;
        let Some((&[kind, a, b, c, d], fields)) = body.split_first_chunk() else {
            return self.refuse(0, code::MALFORMED);
        };
        self.request(Request(kind), u32::from_be_bytes([a, b, c, d]), fields, fields_at..self.at)
    }

    fn request(&mut self, kind: Request, id: u32, fields: &[u8], place: Range<usize>) -> bool {
        let malformed = code::MALFORMED;
        match kind {
            Request::ECHO => self.expect(id, What::Echoed(place)),
            Request::DIGEST => self.expect(id, What::Digested(place)),
            Request::BROADCAST => self.expect(id, What::BroadcastSent),
            Request::LIST if fields.is_empty() || packets::is_name(fields) => {
                self.expect(id, What::Listed(fields.to_vec()))
            }
            Request::LIST => self.refuse(id, code::BAD_NAME),
            Request::DIGEST_FILE | Request::GET if !packets::is_name(fields) => {
                self.refuse(id, code::BAD_NAME)
            }
            Request::DIGEST_FILE => self.digest_file(id, fields),
            Request::GET_RANGE => self.get_range(id, fields),
            Request::GET if self.has_transfer(id) => self.refuse(id, malformed),
            Request::GET => self.get(id, fields),
            Request::TAKE => match fields.as_chunks::<8>() {
                ([offset, length], []) => {
                    self.take(id, u64::from_be_bytes(*offset), u64::from_be_bytes(*length))
                }
                _ => self.refuse(id, malformed),
            },
            Request::PUT => self.put(id, fields, 0),
            Request::PUT_RESUMABLE => self.put(id, fields, packets::VERSION_BYTES),
            Request::DATA => match fields.split_first_chunk() {
                Some((count, rest)) => self.data(id, u32::from_be_bytes(*count), rest),
                None => self.refuse(id, malformed),
            },
            Request::ABORT if fields.is_empty() => self.abort(id),
            Request::ABORT => self.refuse(id, malformed),
            _ => self.refuse(id, code::UNKNOWN_TYPE),
        }
    }

    fn digest_file(&mut self, id: u32, name: &[u8]) -> bool {
        let named = |file: &str| file.as_bytes() == name;
        let known = self.files.0.iter().position(|file| named(&file.name));
        let put = self.stored.iter().find(|put| put.name == name);
        match (known, put) {
            (Some(file), _) => self.expect(id, What::DigestedFile(Source::File(file))),
            (None, Some(put)) => {
                let source = Source::Put(put.id, put.ranges.clone());
                self.expect(id, What::DigestedFile(source))
            }
            (None, None) => self.refuse(id, code::NO_SUCH_FILE),
        }
    }

    fn get(&mut self, id: u32, name: &[u8]) -> bool {
        let known = self.files.0.iter().position(|file| file.name.as_bytes() == name);
        let Some(file) = known else { return self.refuse(id, code::NO_SUCH_FILE) };
        // The server is short of descriptors, or has too many offers.
        let may_be_busy = !self.gets.is_empty();
        self.gets.push(Get { id, file, is_taken: false });
        self.expect(id, What::Offer { file, may_be_busy })
    }

    fn get_range(&mut self, id: u32, fields: &[u8]) -> bool {
        const NUMBERS_BYTES: usize = 16;
        if fields.len() < NUMBERS_BYTES + packets::VERSION_BYTES {
            return self.refuse(id, code::MALFORMED);
        }
        let (numbers, rest) = fields.split_at(NUMBERS_BYTES);
        let (version, name) = rest.split_at(packets::VERSION_BYTES);
        let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().expect("8"));
        let (offset, length) = (number(0), number(8));
        if !packets::is_name(name) {
            return self.refuse(id, code::BAD_NAME);
        }
        if self.has_transfer(id) {
            return self.refuse(id, code::MALFORMED);
        }
        let known = self.files.0.iter().position(|file| file.name.as_bytes() == name);
        let Some(file) = known else { return self.refuse(id, code::NO_SUCH_FILE) };
        if version.iter().any(|byte| *byte != 0) {
            return self.refuse(id, code::CHANGED);
        }
        let size = self.files.0[file].length;
        let length = match length {
            packets::TO_THE_END => size.saturating_sub(offset),
            length => length,
        };
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return self.refuse(id, code::BAD_RANGE);
        }
        let may_be_busy = !self.gets.is_empty();
        self.gets.push(Get { id, file, is_taken: true });
        self.expect(id, What::Range { file, may_be_busy });
        self.expect(id, What::Sent { file, offset, length })
    }

    fn take(&mut self, id: u32, offset: u64, length: u64) -> bool {
        let is_offer = |get: &&mut Get| get.id == id && !get.is_taken;
        let Some(get) = self.gets.iter_mut().find(is_offer) else {
            return self.refuse(id, code::NO_TRANSFER);
        };
        let file = get.file;
        let size = self.files.0[file].length;
        if offset.checked_add(length).is_none_or(|end| end > size) {
            self.gets.retain(|get| get.id != id);
            return self.refuse(id, code::BAD_RANGE);
        }
        get.is_taken = true;
        self.expect(id, What::Sent { file, offset, length })
    }

    /// Reads a PUT, or a PUT_RESUMABLE, which has a version between size and name.
    fn put(&mut self, id: u32, fields: &[u8], version_bytes: usize) -> bool {
        let Some((flags, rest)) = fields.split_first() else {
            return self.refuse(id, code::MALFORMED);
        };
        let Some((size, name)) = rest.split_first_chunk().filter(|_| *flags <= 1) else {
            return self.refuse(id, code::MALFORMED);
        };
        let Some(name) = name.get(version_bytes..) else {
            return self.refuse(id, code::MALFORMED);
        };
        if !packets::is_name(name) {
            return self.refuse(id, code::BAD_NAME);
        }
        if self.has_transfer(id) {
            return self.refuse(id, code::MALFORMED);
        }
        if self.put.is_some() {
            return self.refuse(id, code::BUSY);
        }
        let may_be_busy = self.puts > 0;
        self.puts += 1;
        let size = u64::from_be_bytes(*size);
        self.expect(
            id,
            match version_bytes {
                0 => What::Accepted { may_be_busy },
                _ => What::Resumed { may_be_busy },
            },
        );
        self.put = Some(Put { id, name: name.to_vec(), size, ranges: Vec::new() });
        self.stored(id)
    }

    fn data(&mut self, id: u32, count: u32, rest: &[u8]) -> bool {
        match count {
            0 => return self.refuse(id, code::MALFORMED),
            count if u64::from(count) > packets::CHUNK_SENT_BYTES_MAX => {
                return self.refuse(id, code::TOO_LONG);
            }
            _ if !rest.is_empty() => return self.refuse(id, code::MALFORMED),
            _ => {}
        }
        let range = self.at..self.at + count as usize;
        if let Some(put) = self.put.as_mut().filter(|put| put.id == id) {
            if u64::from(count) > put.size - put.received() {
                return self.refuse(id, code::MALFORMED);
            }
            put.ranges.push(range.clone());
        }
        if range.end > self.bytes.len() {
            return false;
        }
        self.at = range.end;
        self.stored(id)
    }

    /// Adds STORED if no byte of the put is missing.
    fn stored(&mut self, id: u32) -> bool {
        let is_whole = |put: &mut Put| put.id == id && put.received() == put.size;
        match self.put.take_if(is_whole) {
            Some(put) => {
                self.stored.push(put);
                self.expect(id, What::Stored)
            }
            None => true,
        }
    }

    fn abort(&mut self, id: u32) -> bool {
        let was_put = self.put.take_if(|put| put.id == id).is_some();
        let was_got = self.gets.iter().any(|get| get.id == id);
        self.gets.retain(|get| get.id != id);
        match was_put || was_got {
            true => self.expect(id, What::Aborted),
            false => self.refuse(id, code::NO_TRANSFER),
        }
    }

    fn has_transfer(&self, id: u32) -> bool {
        self.gets.iter().any(|get| get.id == id)
            || self.put.as_ref().is_some_and(|put| put.id == id)
    }

    fn expect(&mut self, id: u32, what: What) -> bool {
        self.model.expected.push(Expected { id, due: self.at as u64, what });
        true
    }

    /// Returns false at the end.
    fn refuse(&mut self, id: u32, code: u16) -> bool {
        let is_last = matches!(code, code::MALFORMED | code::TOO_LONG);
        self.expect(id, What::Refusal { code, is_last });
        !is_last
    }
}

#[cfg(test)]
mod tests;
