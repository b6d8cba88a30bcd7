//! The wire format of `PACKETS.md`: parses requests and encodes answers, without any I/O.

use crate::served::Missing;
use std::fmt;
use std::io;

/// Maximum length of a packet's body in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body before its fields: type and id.
pub const HEAD_BYTES: usize = 5;
/// Maximum number of bytes after one DATA packet of a client.
pub const CHUNK_IN_BYTES_MAX: u32 = 4 << 20;
/// Maximum number of bytes after one DATA packet of the server.
pub const CHUNK_OUT_BYTES_MAX: u64 = 1 << 20;
/// Length of a version in bytes.
pub const VERSION_BYTES: usize = 16;
/// The length in a GET_RANGE that stands for the rest of the file.
pub const TO_THE_END: u64 = u64::MAX;
/// Maximum length of a name in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The flag of PUT that asks to replace a file.
const REPLACE: u8 = 1;

/// Identifies the content of a file.
pub type Version = [u8; VERSION_BYTES];

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Return these bytes.
    Echo(&'a [u8]),
    /// Return the SHA-256 of these bytes.
    Digest(&'a [u8]),
    /// Return the SHA-256 of the file with this name.
    DigestFile(&'a [u8]),
    /// Send these bytes to every client.
    Broadcast(&'a [u8]),
    /// List the files whose names sort after this one.
    List(&'a [u8]),
    /// Offer the file with this name.
    Get(&'a [u8]),
    /// Send a range of the offered file.
    Take {
        /// The first byte.
        offset: u64,
        /// The number of bytes.
        length: u64,
    },
    /// Store a file.
    Put {
        /// The client allows to replace a file with this name.
        replace: bool,
        /// The size of the file in bytes.
        size: u64,
        /// The name of the file.
        name: &'a [u8],
    },
    /// This many bytes of an upload follow.
    Data(u32),
    /// Abort a transfer.
    Abort,
    /// Send a range of a file, if it has this version.
    GetRange {
        /// The first byte.
        offset: u64,
        /// The number of bytes, or [`TO_THE_END`].
        length: u64,
        /// The version; zeros for any.
        version: Version,
        /// The name of the file.
        name: &'a [u8],
    },
    /// Store a file, and keep its bytes if the connection ends before the last one.
    PutResumable {
        /// The client allows to replace a file with this name.
        replace: bool,
        /// The size of the file in bytes.
        size: u64,
        /// The client's name for the content.
        version: Version,
        /// The name of the file.
        name: &'a [u8],
    },
}

/// The type of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// The bytes of an ECHO.
    Echoed = 0x81,
    /// The SHA-256 of a DIGEST or DIGEST_FILE.
    Digested = 0x82,
    /// The broadcast was passed to all shards.
    BroadcastSent = 0x84,
    /// Names and sizes of files.
    Listed = 0x85,
    /// The size and time of a file that the client can now TAKE.
    Offer = 0x86,
    /// All requested bytes of the file were sent.
    Sent = 0x87,
    /// The client may send the bytes of the upload.
    Accepted = 0x88,
    /// The uploaded file is complete and has its name.
    Stored = 0x89,
    /// A transfer was aborted.
    Aborted = 0x8a,
    /// Bytes of a file follow.
    Data = 0x8b,
    /// The size, time and version of a file of which a range follows.
    Range = 0x8c,
    /// The client may send the bytes of the upload from this offset.
    Resumed = 0x8d,
    /// The request failed.
    Error = 0x8f,
    /// A broadcast of some client.
    Message = 0x90,
}

/// The code of an ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// A field is missing, too long, or has an invalid value.
    Malformed = 1,
    /// A packet or a chunk is longer than allowed.
    TooLong = 2,
    /// The request type does not exist.
    UnknownType = 3,
    /// There is no such file.
    NoSuchFile = 4,
    /// No file can have this name.
    BadName = 5,
    /// The name is taken.
    Exists = 6,
    /// The upload is larger than allowed.
    TooLarge = 7,
    /// The disk is full.
    DiskFull = 8,
    /// A system call failed.
    Failed = 9,
    /// Too many requests are in progress.
    Busy = 10,
    /// The server has no workers.
    NoWorkers = 11,
    /// There is no such transfer.
    NoTransfer = 12,
    /// A timeout expired.
    Expired = 13,
    /// The range does not lie within the file.
    BadRange = 14,
    /// The server accepts no uploads.
    ReadOnly = 15,
    /// The file does not have the version that the client asked for.
    Changed = 16,
}

/// The content of an ERROR.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// An explanation for people.
    pub text: String,
}

impl Refusal {
    /// An ERROR with this code and text.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The ERROR for a failure to open or read a file.
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

    /// The ERROR for a failure to create, write or name a file.
    pub fn of_writing(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                Self::new(Code::DiskFull, format!("no space is left for the file: {error}"))
            }
            Some(libc::EFBIG) => Self::new(
                Code::TooLarge,
                format!("the system allows no file of this size: {error}"),
            ),
            Some(libc::EEXIST) => Self::exists(),
            Some(libc::ENAMETOOLONG | libc::EINVAL | libc::EILSEQ) => {
                Self::new(Code::BadName, format!("the file system rejects this name: {error}"))
            }
            _ => Self::failed(error),
        }
    }

    /// The ERROR for a file that does not exist.
    pub fn no_such_file() -> Self {
        Self::new(Code::NoSuchFile, "there is no such file")
    }

    /// The ERROR while the served directory itself cannot be opened.
    pub fn folder_missing(missing: Missing) -> Self {
        Self::new(Code::Failed, format!("the served directory cannot be opened: {missing}"))
    }

    /// The ERROR for an upload whose directory is not served any more.
    pub fn folder_replaced() -> Self {
        let why = "the served directory was replaced during the upload: put the file again";
        Self::new(Code::Failed, why)
    }

    /// The ERROR for a name that is taken.
    pub fn exists() -> Self {
        Self::new(Code::Exists, "the name is taken")
    }

    fn failed(error: &io::Error) -> Self {
        Self::new(Code::Failed, error.to_string())
    }

    /// Returns `true` if the connection must end, because the following bytes cannot be parsed.
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

/// Encodes type and id, which precede the fields.
#[must_use]
pub fn head(answer: Answer, id: u32) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = id.to_be_bytes();
    [answer as u8, a, b, c, d]
}

/// Parses the body of a packet. Returns its id (0 if it is too short for one) and its request.
pub fn parse(body: &[u8]) -> (u32, Result<Request<'_>, Refusal>) {
    let Some((&[kind, a, b, c, d], fields)) = body.split_first_chunk() else {
        return (0, Err(malformed("a packet needs at least 5 bytes, for type and id")));
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
            let (replace, rest) = flags(fields)?;
            let (size, rest) = number(rest)?;
            name(rest).map(|name| Request::Put { replace, size, name })
        }
        0x09 => match fields.split_first_chunk() {
            Some((count, rest)) => data(u32::from_be_bytes(*count), rest),
            None => Err(malformed("the count is missing")),
        },
        0x0a => nothing(fields, Request::Abort),
        0x0b => {
            let (offset, rest) = number(fields)?;
            let (length, rest) = number(rest)?;
            let (version, rest) = version(rest)?;
            name(rest).map(|name| Request::GetRange { offset, length, version, name })
        }
        0x0c => {
            let (replace, rest) = flags(fields)?;
            let (size, rest) = number(rest)?;
            let (version, rest) = version(rest)?;
            name(rest).map(|name| Request::PutResumable { replace, size, version, name })
        }
        _ => Err(Refusal::new(Code::UnknownType, format!("unknown request type {kind:#04x}"))),
    }
}

fn data(count: u32, rest: &[u8]) -> Result<Request<'_>, Refusal> {
    match count {
        0 => Err(malformed("the count of a chunk must be at least 1")),
        1..=CHUNK_IN_BYTES_MAX => nothing(rest, Request::Data(count)),
        _ => Err(Refusal::new(
            Code::TooLong,
            format!("a chunk of {count} bytes is too long: {CHUNK_IN_BYTES_MAX} are allowed"),
        )),
    }
}

/// Returns whether the client allows to replace a file.
fn flags(fields: &[u8]) -> Result<(bool, &[u8]), Refusal> {
    let (&flags, rest) = fields.split_first().ok_or_else(|| malformed("the flags are missing"))?;
    if flags & !REPLACE != 0 {
        return Err(malformed("an unknown flag is set; the only flag is 1 (replace)"));
    }
    Ok((flags & REPLACE != 0, rest))
}

fn version(fields: &[u8]) -> Result<(Version, &[u8]), Refusal> {
    let (version, rest) = fields
        .split_first_chunk()
        .ok_or_else(|| malformed("the 16-byte version is missing or incomplete"))?;
    Ok((*version, rest))
}

fn number(fields: &[u8]) -> Result<(u64, &[u8]), Refusal> {
    let (number, rest) = fields
        .split_first_chunk()
        .ok_or_else(|| malformed("an 8-byte number is missing or incomplete"))?;
    Ok((u64::from_be_bytes(*number), rest))
}

fn nothing<'a>(rest: &[u8], request: Request<'a>) -> Result<Request<'a>, Refusal> {
    if rest.is_empty() {
        Ok(request)
    } else {
        Err(malformed("there are extra bytes after the last field"))
    }
}

/// Checks a name: one path component that does not begin with a dot.
fn name(bytes: &[u8]) -> Result<&[u8], Refusal> {
    let refuse = |why| Err(Refusal::new(Code::BadName, why));
    match bytes {
        [] => refuse("a name needs at least one byte"),
        [b'.', ..] => refuse("a name must not begin with a dot"),
        _ if bytes.len() > NAME_BYTES_MAX => refuse("a name has at most 255 bytes"),
        _ if bytes.contains(&b'/') || bytes.contains(&0) => {
            refuse("a name must not contain a slash or a NUL byte")
        }
        _ => Ok(bytes),
    }
}

fn malformed(why: &str) -> Refusal {
    Refusal::new(Code::Malformed, why)
}

#[cfg(test)]
mod tests;
