//! A client of the packet protocol, after `PACKETS.md`.

use crate::PATIENCE;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

pub const ECHO: u8 = 0x01;
pub const DIGEST: u8 = 0x02;
pub const DIGEST_FILE: u8 = 0x03;
pub const BROADCAST: u8 = 0x04;
pub const LIST: u8 = 0x05;
pub const GET: u8 = 0x06;
pub const TAKE: u8 = 0x07;
pub const PUT: u8 = 0x08;
pub const DATA: u8 = 0x09;
pub const ABORT: u8 = 0x0a;
pub const GET_RANGE: u8 = 0x0b;
pub const PUT_RESUMABLE: u8 = 0x0c;

pub const ECHOED: u8 = 0x81;
pub const DIGESTED: u8 = 0x82;
pub const BROADCAST_SENT: u8 = 0x84;
pub const LISTED: u8 = 0x85;
pub const OFFER: u8 = 0x86;
pub const SENT: u8 = 0x87;
pub const ACCEPTED: u8 = 0x88;
pub const STORED: u8 = 0x89;
pub const ABORTED: u8 = 0x8a;
pub const CHUNK: u8 = 0x8b;
pub const RANGE: u8 = 0x8c;
pub const RESUMED: u8 = 0x8d;
pub const ERROR: u8 = 0x8f;
pub const MESSAGE: u8 = 0x90;

pub const MALFORMED: u16 = 1;
pub const TOO_LONG: u16 = 2;
pub const UNKNOWN_TYPE: u16 = 3;
pub const NO_SUCH_FILE: u16 = 4;
pub const BAD_NAME: u16 = 5;
pub const EXISTS: u16 = 6;
pub const TOO_LARGE: u16 = 7;
pub const DISK_FULL: u16 = 8;
pub const FAILED: u16 = 9;
pub const BUSY: u16 = 10;
pub const NO_WORKERS: u16 = 11;
pub const NO_TRANSFER: u16 = 12;
pub const EXPIRED: u16 = 13;
pub const BAD_RANGE: u16 = 14;
pub const READ_ONLY: u16 = 15;
pub const CHANGED: u16 = 16;

/// The length of a GET_RANGE that stands for the rest of the file.
pub const REST: u64 = u64::MAX;
/// Stands for any version.
pub const ANY: [u8; 16] = [0; 16];

/// A packet.
pub fn packet(kind: u8, id: u32, fields: &[u8]) -> Vec<u8> {
    let length = 5 + fields.len() as u32;
    [&length.to_be_bytes()[..], &[kind], &id.to_be_bytes(), fields].concat()
}

/// PUT, asking for nothing else.
pub fn put(id: u32, name: &str, size: u64) -> Vec<u8> {
    packet(PUT, id, &[&[0], &size.to_be_bytes()[..], name.as_bytes()].concat())
}

/// GET_RANGE.
pub fn get_range(id: u32, name: &str, offset: u64, length: u64, version: [u8; 16]) -> Vec<u8> {
    let numbers = [offset.to_be_bytes(), length.to_be_bytes()].concat();
    packet(GET_RANGE, id, &[&numbers[..], &version, name.as_bytes()].concat())
}

/// PUT_RESUMABLE, with a version made of this byte.
pub fn put_resumable(id: u32, name: &str, size: u64, version: u8) -> Vec<u8> {
    let fields = [&[0], &size.to_be_bytes()[..], &[version; 16], name.as_bytes()];
    packet(PUT_RESUMABLE, id, &fields.concat())
}

/// TAKE.
pub fn take(id: u32, offset: u64, length: u64) -> Vec<u8> {
    packet(TAKE, id, &[offset.to_be_bytes(), length.to_be_bytes()].concat())
}

/// DATA, and the bytes behind it.
pub fn data(id: u32, bytes: &[u8]) -> Vec<u8> {
    [packet(DATA, id, &(bytes.len() as u32).to_be_bytes()), bytes.to_vec()].concat()
}

/// An answer as it came; of a CHUNK, its bytes are still to be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub kind: u8,
    pub id: u32,
    pub fields: Vec<u8>,
}

impl Answer {
    /// What it is, and of an ERROR the code.
    pub fn says(&self) -> (u8, u32, u16) {
        let code = match self.kind {
            ERROR => u16::from_be_bytes(self.fields[..2].try_into().unwrap()),
            _ => 0,
        };
        (self.kind, self.id, code)
    }

    /// Bytes that follow a CHUNK.
    pub fn count(&self) -> usize {
        assert_eq!(self.kind, CHUNK);
        u32::from_be_bytes(self.fields[..].try_into().unwrap()) as usize
    }
}

/// A connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    pub fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    #[track_caller]
    pub fn send(&mut self, kind: u8, id: u32, fields: &[u8]) {
        self.write(&packet(kind, id, fields));
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).unwrap();
        let [a, b, c, d, kind, id @ ..] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        assert!((5..=65_536).contains(&length), "a packet of {length} bytes");
        let mut fields = vec![0; length - 5];
        self.stream.read_exact(&mut fields).unwrap();
        Answer { kind, id: u32::from_be_bytes(id), fields }
    }

    /// The fields of the next answer, which is this one.
    #[track_caller]
    pub fn expect(&mut self, kind: u8, id: u32) -> Vec<u8> {
        let answer = self.answer();
        let text = String::from_utf8_lossy(&answer.fields);
        assert_eq!((answer.kind, answer.id), (kind, id), "{text}");
        answer.fields
    }

    /// The next answer is an ERROR; what it says to people.
    #[track_caller]
    pub fn error(&mut self, id: u32, code: u16) -> String {
        let answer = self.answer();
        let text = String::from_utf8_lossy(answer.fields.get(2..).unwrap_or_default()).into_owned();
        assert_eq!(answer.says(), (ERROR, id, code), "{text}");
        assert!(!text.is_empty());
        text
    }

    #[track_caller]
    pub fn ask(&mut self, kind: u8, id: u32, fields: &[u8], answer: u8) -> Vec<u8> {
        self.send(kind, id, fields);
        self.expect(answer, id)
    }

    /// It is in step, and everything before has been answered.
    #[track_caller]
    pub fn echoes(&mut self) {
        assert_eq!(self.ask(ECHO, 0xec40, b"still here", ECHOED), b"still here");
    }

    /// The size of an offer.
    #[track_caller]
    pub fn get(&mut self, id: u32, name: &str) -> u64 {
        let fields = self.ask(GET, id, name.as_bytes(), OFFER);
        u64::from_be_bytes(fields[..8].try_into().unwrap())
    }

    /// The size and the version in the next answer, a RANGE.
    #[track_caller]
    pub fn range(&mut self, id: u32) -> (u64, [u8; 16]) {
        let fields = self.expect(RANGE, id);
        assert_eq!(fields.len(), 8 + 8 + 16);
        let size = u64::from_be_bytes(fields[..8].try_into().unwrap());
        (size, fields[16..].try_into().unwrap())
    }

    /// The offset in the next answer, a RESUMED.
    #[track_caller]
    pub fn resumed(&mut self, id: u32) -> u64 {
        u64::from_be_bytes(self.expect(RESUMED, id).try_into().unwrap())
    }

    /// The bytes of a chunk.
    #[track_caller]
    pub fn chunk(&mut self, answer: &Answer) -> Vec<u8> {
        let mut bytes = vec![0; answer.count()];
        assert!((1..=1 << 20).contains(&bytes.len()), "a chunk of {} bytes", bytes.len());
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to SENT.
    #[track_caller]
    pub fn taken(&mut self, id: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let answer = self.answer();
            if answer.says() == (SENT, id, 0) {
                return all;
            }
            assert_eq!(answer.says(), (CHUNK, id, 0));
            all.extend(self.chunk(&answer));
        }
    }

    /// A whole file.
    #[track_caller]
    pub fn download(&mut self, id: u32, name: &str) -> Vec<u8> {
        let size = self.get(id, name);
        self.write(&take(id, 0, size));
        self.taken(id)
    }

    /// A whole file, in chunks.
    #[track_caller]
    pub fn upload(&mut self, id: u32, name: &str, bytes: &[u8], chunk: usize) {
        self.write(&put(id, name, bytes.len() as u64));
        self.expect(ACCEPTED, id);
        for bytes in bytes.chunks(chunk) {
            self.write(&data(id, bytes));
        }
        self.expect(STORED, id);
    }

    /// The server's FIN, and nothing before it.
    #[track_caller]
    pub fn is_at_its_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }

    /// Our FIN.
    pub fn half_close(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }
}
