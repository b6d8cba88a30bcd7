//! A packet server, good but for what its `twist` does to an answer.

use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

/// Files by name.
pub type Files = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

/// Bytes of a chunk of the server's.
const CHUNK_BYTES: usize = 1 << 20;

pub const ECHO: u8 = 0x01;
pub const DIGEST: u8 = 0x02;
pub const DIGEST_FILE: u8 = 0x03;
pub const LIST: u8 = 0x05;
pub const GET: u8 = 0x06;
pub const TAKE: u8 = 0x07;
pub const PUT: u8 = 0x08;
pub const DATA: u8 = 0x09;
pub const ABORT: u8 = 0x0a;
pub const GET_RANGE: u8 = 0x0b;
pub const PUT_RESUMABLE: u8 = 0x0c;
/// Before the names of uploads that wait to be resumed.
pub const KEPT: &[u8] = b"\0kept ";

/// A request, with what followed it.
pub struct Request {
    pub kind: u8,
    pub id: [u8; 4],
    pub fields: Vec<u8>,
}

/// A packet of the server.
pub fn packet(kind: u8, id: [u8; 4], fields: &[u8]) -> Vec<u8> {
    let length = (5 + fields.len()) as u32;
    [&length.to_be_bytes()[..], &[kind], &id, fields].concat()
}

/// An ERROR.
pub fn error(id: [u8; 4], code: u8, text: &str) -> Vec<u8> {
    packet(0x8f, id, &[&[0, code], text.as_bytes()].concat())
}

/// Files, one of which is there.
pub fn files(name: &str, bytes: &[u8]) -> Files {
    Arc::new(Mutex::new(HashMap::from([(name.as_bytes().to_vec(), bytes.to_vec())])))
}

/// Serves a connection. Each answer, which is empty where there is none, passes through `twist`;
/// `None` of it closes the connection.
pub fn packets(
    mut stream: TcpStream,
    files: &Files,
    mut twist: impl FnMut(&Request, Vec<u8>) -> Option<Vec<u8>>,
) {
    let mut transfer = Transfer::default();
    while let Some(request) = read(&mut stream) {
        let answer = transfer.answer(&request, &mut files.lock().expect("no panic"));
        let Some(answer) = twist(&request, answer) else {
            // With something unread the close would be a reset.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
            return;
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    let (kind, id) = (body[0], body[1..5].try_into().expect("four bytes"));
    let mut fields = body.split_off(5);
    if kind == DATA {
        let count = u32::from_be_bytes(fields.try_into().expect("a count"));
        assert!((1..=4 << 20).contains(&count), "a chunk of {count} bytes");
        fields = vec![0; count as usize];
        stream.read_exact(&mut fields).ok()?;
    }
    Some(Request { kind, id, fields })
}

/// The put and the get of a connection.
#[derive(Default)]
struct Transfer {
    name: Vec<u8>,
    missing: usize,
    bytes: Vec<u8>,
    is_resumable: bool,
}

/// DATA and SENT.
pub fn chunks(id: [u8; 4], bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    for chunk in bytes.chunks(CHUNK_BYTES) {
        answer.extend(packet(0x8b, id, &(chunk.len() as u32).to_be_bytes()));
        answer.extend(chunk);
    }
    answer.extend(packet(0x87, id, b""));
    answer
}

/// RANGE; the version is a part of the digest.
pub fn range(id: [u8; 4], bytes: &[u8]) -> Vec<u8> {
    let size = (bytes.len() as u64).to_be_bytes();
    packet(0x8c, id, &[&size[..], &[0; 8], &Sha256::digest(bytes)[..16]].concat())
}

impl Transfer {
    fn answer(&mut self, request: &Request, files: &mut HashMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
        let Request { kind, id, fields } = request;
        let size = |bytes: &[u8]| (bytes.len() as u64).to_be_bytes();
        match *kind {
            ECHO => packet(0x81, *id, fields),
            DIGEST => packet(0x82, *id, &Sha256::digest(fields)),
            DIGEST_FILE => match files.get(fields) {
                Some(bytes) => packet(0x82, *id, &Sha256::digest(bytes)),
                None => error(*id, 4, "there is no such file"),
            },
            GET => match files.get(fields) {
                Some(bytes) => {
                    self.bytes.clone_from(bytes);
                    packet(0x86, *id, &[size(bytes), [0; 8]].concat())
                }
                None => error(*id, 4, "there is no such file"),
            },
            TAKE => {
                assert_eq!(*fields, [[0; 8], size(&self.bytes)].concat(), "all of it");
                chunks(*id, &self.bytes)
            }
            GET_RANGE => get_range(*id, fields, files),
            PUT_RESUMABLE => self.put_resumable(*id, fields, files),
            ABORT => packet(0x8a, *id, b""),
            LIST => {
                let mut names: Vec<_> = files.keys().filter(|name| *name > fields).collect();
                names.sort();
                // A file a page.
                let more = u8::from(names.len() > 1);
                let entry = |name: &&Vec<u8>| {
                    [&size(&files[*name])[..], &[name.len() as u8], name].concat()
                };
                let entry = names.first().map(entry).unwrap_or_default();
                packet(0x85, *id, &[&[more][..], &entry].concat())
            }
            PUT => {
                let (flags, rest) = fields.split_first().expect("flags");
                let (size, name) = rest.split_first_chunk().expect("a size");
                if files.contains_key(name) && *flags != 1 {
                    return error(*id, 6, "the name is taken");
                }
                (self.name, self.bytes) = (name.to_vec(), Vec::new());
                self.is_resumable = false;
                self.missing = u64::from_be_bytes(*size) as usize;
                let mut answer = packet(0x88, *id, b"");
                answer.extend(self.store(*id, files));
                answer
            }
            DATA => {
                self.missing = self.missing.checked_sub(fields.len()).expect("no more than that");
                self.bytes.extend(fields);
                if self.is_resumable {
                    files.insert([KEPT, &self.name].concat(), self.bytes.clone());
                }
                self.store(*id, files)
            }
            other => error(*id, 3, &format!("no such request: {other}")),
        }
    }

    fn put_resumable(
        &mut self,
        id: [u8; 4],
        fields: &[u8],
        files: &mut HashMap<Vec<u8>, Vec<u8>>,
    ) -> Vec<u8> {
        let (size, name) = fields[1..].split_first_chunk().expect("a size");
        self.name = name[16..].to_vec();
        self.bytes = files.get(&[KEPT, &self.name].concat()).cloned().unwrap_or_default();
        self.missing = u64::from_be_bytes(*size) as usize - self.bytes.len();
        self.is_resumable = true;
        let mut answer = packet(0x8d, id, &(self.bytes.len() as u64).to_be_bytes());
        answer.extend(self.store(id, files));
        answer
    }

    /// STORED, when nothing is missing.
    fn store(&mut self, id: [u8; 4], files: &mut HashMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
        if self.missing > 0 {
            return Vec::new();
        }
        files.insert(self.name.clone(), self.bytes.clone());
        packet(0x89, id, b"")
    }
}

fn get_range(id: [u8; 4], fields: &[u8], files: &HashMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let number = |at: usize| u64::from_be_bytes(fields[at..at + 8].try_into().expect("8 bytes"));
    let (offset, length) = (number(0) as usize, number(8));
    let Some(bytes) = files.get(&fields[32..]) else {
        return error(id, 4, "there is no such file");
    };
    let version = &fields[16..32];
    if version != [0; 16] && *version != Sha256::digest(bytes)[..16] {
        return error(id, 16, "another version");
    }
    let end = usize::try_from(length).map_or(bytes.len(), |length| offset.saturating_add(length));
    [range(id, bytes), chunks(id, &bytes[offset..end.min(bytes.len())])].concat()
}
