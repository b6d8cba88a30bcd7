//! What is on the wire: requests as they are read, answers as they are written. Nothing here knows
//! a connection.

use std::fmt;
use std::io;

/// Bytes of a packet's body at most.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body in front of its fields: type and id.
pub const HEAD_BYTES: usize = 5;
/// Bytes behind one DATA packet of a client.
pub const CHUNK_IN_BYTES_MAX: u32 = 4 << 20;
/// Bytes behind one DATA packet of ours.
pub const CHUNK_OUT_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;
/// The flag of a put that asks to replace.
const REPLACE: u8 = 1;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The same bytes back.
    Echo(&'a [u8]),
    /// Their SHA-256.
    Digest(&'a [u8]),
    /// The SHA-256 of a file.
    DigestFile(&'a [u8]),
    /// To everybody.
    Broadcast(&'a [u8]),
    /// The files whose names come after this one.
    List(&'a [u8]),
    /// Offer a file.
    Get(&'a [u8]),
    /// Send of what was offered.
    Take {
        /// From this byte on.
        offset: u64,
        /// So many.
        length: u64,
    },
    /// Take a file.
    Put {
        /// One of that name may be replaced.
        replace: bool,
        /// Its bytes.
        size: u64,
        /// Its name.
        name: &'a [u8],
    },
    /// So many bytes of a put follow.
    Data(u32),
    /// Give a transfer up.
    Abort,
}

/// Types of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// The bytes of an ECHO.
    Echoed = 0x81,
    /// A SHA-256.
    Digested = 0x82,
    /// A broadcast is on its way.
    BroadcastSent = 0x84,
    /// Names and sizes.
    Listed = 0x85,
    /// A file can be taken.
    Offer = 0x86,
    /// All that was taken has been sent.
    Sent = 0x87,
    /// The bytes of a put may come.
    Accepted = 0x88,
    /// A put has its name.
    Stored = 0x89,
    /// A transfer was given up.
    Aborted = 0x8a,
    /// Bytes of a file follow.
    Data = 0x8b,
    /// No.
    Error = 0x8f,
    /// Somebody's broadcast.
    Message = 0x90,
}

/// Why a request is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// A field is missing, too long, or has no such value.
    Malformed = 1,
    /// A packet or a chunk above the limit.
    TooLong = 2,
    /// No such request.
    UnknownType = 3,
    /// No such file.
    NoSuchFile = 4,
    /// A name that no file here can have.
    BadName = 5,
    /// The name is taken.
    Exists = 6,
    /// Larger than an upload may be.
    TooLarge = 7,
    /// No room on the disk.
    DiskFull = 8,
    /// The system said no.
    Failed = 9,
    /// Too much is under way.
    Busy = 10,
    /// There are no workers.
    NoWorkers = 11,
    /// There is no such transfer.
    NoTransfer = 12,
    /// Nothing came for too long.
    Expired = 13,
    /// Not within the file.
    BadRange = 14,
    /// No files are taken.
    ReadOnly = 15,
}

/// An ERROR: the code, and what is said to people.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The text.
    pub text: String,
}

impl Refusal {
    /// With a text.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Of an error of reading or opening a file.
    pub fn of_reading(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(
                libc::ENOENT
                | libc::ENOTDIR
                | libc::ELOOP
                | libc::EXDEV
                | libc::ENXIO
                | libc::ENODEV
                | libc::ENAMETOOLONG,
            ) => Self::no_such_file(),
            _ => Self::failed(error),
        }
    }

    /// Of an error of creating, writing or naming a file.
    pub fn of_writing(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                Self::new(Code::DiskFull, format!("there is no room for it: {error}"))
            }
            Some(libc::EFBIG) => {
                Self::new(Code::TooLarge, format!("the system takes no file so large: {error}"))
            }
            Some(libc::EEXIST) => Self::exists(),
            Some(libc::ENAMETOOLONG | libc::EINVAL | libc::EILSEQ) => {
                Self::new(Code::BadName, format!("the system takes no such name: {error}"))
            }
            _ => Self::failed(error),
        }
    }

    /// There is no such file.
    pub fn no_such_file() -> Self {
        Self::new(Code::NoSuchFile, "there is no such file")
    }

    /// The name is taken.
    pub fn exists() -> Self {
        Self::new(Code::Exists, "the name is taken")
    }

    fn failed(error: &io::Error) -> Self {
        Self::new(Code::Failed, error.to_string())
    }

    /// Whether the connection ends with it: nothing that follows can be understood.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        matches!(self.code, Code::Malformed | Code::TooLong)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}: {}", self.code as u16, self.text)
    }
}

/// Type and id, in front of the fields.
#[must_use]
pub fn head(answer: Answer, id: u32) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = id.to_be_bytes();
    [answer as u8, a, b, c, d]
}

/// The id that a packet carries, if it has room for one, and what it asks for.
pub fn parse(body: &[u8]) -> (u32, Result<Request<'_>, Refusal>) {
    let Some((&[kind, a, b, c, d], fields)) = body.split_first_chunk() else {
        return (0, Err(malformed("a packet has at least 5 bytes: type and id")));
    };
    (u32::from_be_bytes([a, b, c, d]), request(kind, fields))
}

fn request(kind: u8, fields: &[u8]) -> Result<Request<'_>, Refusal> {
    match kind {
        0x01 => Ok(Request::Echo(fields)),
        0x02 => Ok(Request::Digest(fields)),
        0x03 => name(fields).map(Request::DigestFile),
        0x04 => Ok(Request::Broadcast(fields)),
        0x05 if fields.is_empty() => Ok(Request::List(fields)),
        0x05 => name(fields).map(Request::List),
        0x06 => name(fields).map(Request::Get),
        0x07 => {
            let (offset, length) = number(fields)?;
            let (length, rest) = number(length)?;
            nothing(rest, Request::Take { offset, length })
        }
        0x08 => {
            let (&flags, rest) =
                fields.split_first().ok_or_else(|| malformed("the flags are missing"))?;
            if flags & !REPLACE != 0 {
                return Err(malformed("there is no such flag"));
            }
            let (size, rest) = number(rest)?;
            name(rest).map(|name| Request::Put { replace: flags & REPLACE != 0, size, name })
        }
        0x09 => match fields.split_first_chunk() {
            Some((count, rest)) => data(u32::from_be_bytes(*count), rest),
            None => Err(malformed("the count is missing")),
        },
        0x0a => nothing(fields, Request::Abort),
        _ => {
            Err(Refusal::new(Code::UnknownType, format!("there is no request of type {kind:#04x}")))
        }
    }
}

fn data(count: u32, rest: &[u8]) -> Result<Request<'_>, Refusal> {
    match count {
        0 => Err(malformed("a chunk has at least one byte")),
        1..=CHUNK_IN_BYTES_MAX => nothing(rest, Request::Data(count)),
        _ => Err(Refusal::new(
            Code::TooLong,
            format!("a chunk of {count} bytes: {CHUNK_IN_BYTES_MAX} are allowed"),
        )),
    }
}

fn number(fields: &[u8]) -> Result<(u64, &[u8]), Refusal> {
    let (number, rest) =
        fields.split_first_chunk().ok_or_else(|| malformed("a number of 8 bytes is missing"))?;
    Ok((u64::from_be_bytes(*number), rest))
}

fn nothing<'a>(rest: &[u8], request: Request<'a>) -> Result<Request<'a>, Refusal> {
    if rest.is_empty() { Ok(request) } else { Err(malformed("there are bytes behind the fields")) }
}

/// One component of a path, and not a hidden one.
fn name(bytes: &[u8]) -> Result<&[u8], Refusal> {
    let refuse = |why| Err(Refusal::new(Code::BadName, why));
    match bytes {
        [] => refuse("a name has at least one byte"),
        [b'.', ..] => refuse("a name does not begin with a dot"),
        _ if bytes.len() > NAME_BYTES_MAX => refuse("a name has at most 255 bytes"),
        _ if bytes.contains(&b'/') || bytes.contains(&0) => {
            refuse("a name has neither a slash nor a NUL")
        }
        _ => Ok(bytes),
    }
}

fn malformed(why: &str) -> Refusal {
    Refusal::new(Code::Malformed, why)
}

#[cfg(test)]
mod tests;
