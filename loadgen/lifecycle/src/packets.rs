//! The packet protocol of `ringwrightd packets`: encoding of requests and decoding of answers.
//! Written from the tables in `server-bin/PACKETS.md`, without code of the server.

use std::fmt;

/// Size of the length field.
pub const LENGTH_BYTES: usize = 4;
/// Maximum size of a body.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Size of the type and id in front of the fields of every body.
pub const PREFIX_BYTES: usize = 5;
/// Size of a SHA-256.
pub const DIGEST_BYTES: usize = 32;
/// Maximum number of bytes after a DATA packet from the client.
pub const CHUNK_SENT_BYTES_MAX: u64 = 4 << 20;
/// Maximum number of bytes after a DATA packet from the server.
pub const CHUNK_RECEIVED_BYTES_MAX: u64 = 1 << 20;
/// Size of a version.
pub const VERSION_BYTES: usize = 16;
/// The length in a GET_RANGE that stands for the rest of the file.
pub const TO_THE_END: u64 = u64::MAX;
/// Maximum length of a name.
pub const NAME_BYTES_MAX: usize = 255;
/// Maximum number of characters that are shown of an error text.
const TEXT_CHARS_MAX: usize = 200;

/// Identifies the content of a file; zeros stand for any.
pub type Version = [u8; VERSION_BYTES];

/// The type of a request on the wire. Any number can be sent; the constants are those that servers
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(pub u8);

#[allow(missing_docs)] // Described in PACKETS.md.
impl Request {
    pub const ECHO: Self = Self(0x01);
    pub const DIGEST: Self = Self(0x02);
    pub const DIGEST_FILE: Self = Self(0x03);
    pub const BROADCAST: Self = Self(0x04);
    pub const LIST: Self = Self(0x05);
    pub const GET: Self = Self(0x06);
    pub const TAKE: Self = Self(0x07);
    pub const PUT: Self = Self(0x08);
    pub const DATA: Self = Self(0x09);
    pub const ABORT: Self = Self(0x0a);
    pub const GET_RANGE: Self = Self(0x0b);
    pub const PUT_RESUMABLE: Self = Self(0x0c);

    /// Returns the length, type and id that precede `field_bytes` bytes of fields.
    #[must_use]
    pub fn head(self, id: u32, field_bytes: usize) -> [u8; LENGTH_BYTES + PREFIX_BYTES] {
        let body_bytes = PREFIX_BYTES + field_bytes;
        assert!(body_bytes <= BODY_BYTES_MAX, "a body of {body_bytes} bytes is refused before");
        let mut head = [0; LENGTH_BYTES + PREFIX_BYTES];
        head[..4].copy_from_slice(&(body_bytes as u32).to_be_bytes());
        head[4] = self.0;
        head[5..].copy_from_slice(&id.to_be_bytes());
        head
    }

    /// Appends a complete packet.
    pub fn append(self, to: &mut Vec<u8>, id: u32, fields: &[&[u8]]) {
        let field_bytes = fields.iter().map(|field| field.len()).sum();
        to.extend_from_slice(&self.head(id, field_bytes));
        fields.iter().for_each(|field| to.extend_from_slice(field));
    }

    /// Returns a complete packet.
    #[must_use]
    pub fn packet(self, id: u32, fields: &[&[u8]]) -> Vec<u8> {
        let mut packet = Vec::new();
        self.append(&mut packet, id, fields);
        packet
    }
}

/// Codes of errors.
#[allow(missing_docs)] // Described in PACKETS.md.
pub mod code {
    macro_rules! codes {
        ($($name:ident = $code:literal,)*) => {
            $(pub const $name: u16 = $code;)*

            /// Returns the name of a code.
            pub(super) const fn name(code: u16) -> Option<&'static str> {
                match code {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        };
    }

    codes! {
        MALFORMED = 1,
        TOO_LONG = 2,
        UNKNOWN_TYPE = 3,
        NO_SUCH_FILE = 4,
        BAD_NAME = 5,
        EXISTS = 6,
        TOO_LARGE = 7,
        DISK_FULL = 8,
        FAILED = 9,
        BUSY = 10,
        NO_WORKERS = 11,
        NO_TRANSFER = 12,
        EXPIRED = 13,
        BAD_RANGE = 14,
        READ_ONLY = 15,
        CHANGED = 16,
    }
}

/// A packet from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The id of the request that it answers; 0 if it answers no particular request.
    pub id: u32,
    /// The content.
    pub answer: Answer<'a>,
}

/// The content of a packet from the server.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Described in PACKETS.md.
pub enum Answer<'a> {
    Echoed(&'a [u8]),
    Digested([u8; DIGEST_BYTES]),
    BroadcastSent,
    Listed(&'a [u8]),
    Offer { size_bytes: u64 },
    Sent,
    Accepted,
    Stored,
    Aborted,
    Data { count_bytes: u64 },
    Range { size_bytes: u64, version: Version },
    Resumed { offset: u64 },
    Error(ServerError),
    Message,
}

impl<'a> Packet<'a> {
    /// Parses a body.
    ///
    /// # Errors
    /// The body is not a valid answer.
    pub fn parse(body: &'a [u8]) -> Result<Self, String> {
        let Some((prefix, fields)) = body.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(format!("a packet with a body of {} bytes has no id", body.len()));
        };
        let [kind, id @ ..] = *prefix;
        let id = u32::from_be_bytes(id);
        let answer = Answer::parse(kind, fields).ok_or_else(|| {
            format!("unexpected packet: type {kind:#04x} with {} bytes of fields", fields.len())
        })?;
        Ok(Self { id, answer })
    }
}

impl<'a> Answer<'a> {
    fn parse(kind: u8, fields: &'a [u8]) -> Option<Self> {
        let nothing = |answer| fields.is_empty().then_some(answer);
        match kind {
            0x81 => Some(Self::Echoed(fields)),
            0x82 => fields.try_into().ok().map(Self::Digested),
            0x84 => nothing(Self::BroadcastSent),
            0x85 => Some(Self::Listed(fields)),
            0x86 => {
                let (size, modified) = fields.split_first_chunk()?;
                let size_bytes = u64::from_be_bytes(*size);
                (modified.len() == size_of::<u64>()).then_some(Self::Offer { size_bytes })
            }
            0x87 => nothing(Self::Sent),
            0x88 => nothing(Self::Accepted),
            0x89 => nothing(Self::Stored),
            0x8a => nothing(Self::Aborted),
            0x8b => {
                let count_bytes = u32::from_be_bytes(fields.try_into().ok()?).into();
                Some(Self::Data { count_bytes })
            }
            0x8c => {
                let (size, rest) = fields.split_first_chunk()?;
                let (_modified, version) = rest.split_at_checked(size_of::<u64>())?;
                let version = version.try_into().ok()?;
                Some(Self::Range { size_bytes: u64::from_be_bytes(*size), version })
            }
            0x8d => Some(Self::Resumed { offset: u64::from_be_bytes(fields.try_into().ok()?) }),
            0x8f => {
                let (code, text) = fields.split_first_chunk()?;
                Some(Self::Error(ServerError::new(u16::from_be_bytes(*code), text)))
            }
            0x90 => Some(Self::Message),
            _ => None,
        }
    }

    /// The name in PACKETS.md.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Echoed(_) => "ECHOED",
            Self::Digested(_) => "DIGESTED",
            Self::BroadcastSent => "BROADCAST_SENT",
            Self::Listed(_) => "LISTED",
            Self::Offer { .. } => "OFFER",
            Self::Sent => "SENT",
            Self::Accepted => "ACCEPTED",
            Self::Stored => "STORED",
            Self::Aborted => "ABORTED",
            Self::Data { .. } => "DATA",
            Self::Range { .. } => "RANGE",
            Self::Resumed { .. } => "RESUMED",
            Self::Error(_) => "ERROR",
            Self::Message => "MESSAGE",
        }
    }
}

/// The beginning of a stream of packets.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A packet, and the bytes behind it.
    Packet {
        /// The body of the packet.
        body: &'a [u8],
        /// The bytes behind the packet.
        rest: &'a [u8],
    },
    /// The packet is incomplete.
    Incomplete {
        /// Number of bytes that the stream must reach.
        need: usize,
    },
}

/// Splits the first packet off a stream.
///
/// # Errors
/// The packet is too long.
pub fn split(bytes: &[u8]) -> Result<Split<'_>, String> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(Split::Incomplete { need: LENGTH_BYTES });
    };
    let body_bytes = u32::from_be_bytes(*length) as usize;
    if body_bytes > BODY_BYTES_MAX {
        return Err(format!(
            "a packet of {body_bytes} bytes is too long: {BODY_BYTES_MAX} are allowed"
        ));
    }
    Ok(match rest.split_at_checked(body_bytes) {
        Some((body, rest)) => Split::Packet { body, rest },
        None => Split::Incomplete { need: LENGTH_BYTES + body_bytes },
    })
}

/// An ERROR packet from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The code.
    pub code: u16,
    /// The text, safe to print on a terminal.
    pub text: String,
}

impl ServerError {
    fn new(code: u16, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let visible = |letter: char| if letter.is_control() { ' ' } else { letter };
        Self { code, text: text.chars().take(TEXT_CHARS_MAX).map(visible).collect() }
    }

    /// Returns true if the server closes the connection after this error.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self.code, code::MALFORMED | code::TOO_LONG)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = code::name(self.code).unwrap_or("(unknown code)");
        write!(f, "error {} {name}: {}", self.code, self.text)
    }
}

/// Size and name of a file in a list.
pub type Listed = (u64, Vec<u8>);

/// Takes the next file off `entries`. Returns its size and name.
///
/// # Errors
/// A field is missing.
pub fn next_listed<'a>(entries: &mut &'a [u8]) -> Result<(u64, &'a [u8]), &'static str> {
    let wrong = "a field of LISTED is missing or wrong";
    let (size, rest) = entries.split_first_chunk().ok_or(wrong)?;
    let (length, rest) = rest.split_first().ok_or(wrong)?;
    let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(wrong)?;
    *entries = rest;
    Ok((u64::from_be_bytes(*size), name))
}

/// Takes a LISTED apart. Returns whether more files follow, and size and name of each file.
///
/// # Errors
/// A field is missing, or a name is not a valid one.
pub fn listed(fields: &[u8]) -> Result<(bool, Vec<Listed>), String> {
    let first = fields.split_first().filter(|(more, _)| **more <= 1);
    let (more, mut entries) = first.ok_or("a field of LISTED is missing or wrong")?;
    let mut files = Vec::new();
    while !entries.is_empty() {
        let (size, name) = next_listed(&mut entries)?;
        check_name(name)?;
        files.push((size, name.to_vec()));
    }
    Ok((*more == 1, files))
}

/// Returns true for a valid name of a file on the server.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    check_name(name).is_ok()
}

/// Checks the name of a file on the server, which is one path component.
///
/// # Errors
/// Describes what a valid name is.
pub fn check_name(name: &[u8]) -> Result<(), String> {
    let wrong = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        "it must have 1 to 255 bytes"
    } else if name.contains(&b'/') || name.contains(&0) {
        "it must be one path component without slashes"
    } else if name.starts_with(b".") {
        "it must not begin with a dot"
    } else {
        return Ok(());
    };
    Err(format!(
        "{:?} is not a valid file name on the server: {wrong}",
        String::from_utf8_lossy(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_laid_out_as_described() {
        let put = Request::PUT.packet(0x0102_0304, &[&[1], &5_u64.to_be_bytes(), b"ab"]);
        assert_eq!(
            put,
            [0, 0, 0, 16, 8, 1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0, 0, 5, b'a', b'b'],
            "length, type, id, flags, size, name"
        );
        assert_eq!(Request::DATA.head(7, 4), [0, 0, 0, 9, 9, 0, 0, 0, 7]);
    }

    #[test]
    fn answers_are_read() {
        for (body, answer) in [
            (&b"\x81\0\0\0\x07hello"[..], Answer::Echoed(b"hello")),
            (b"\x86\0\0\0\x07\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0", Answer::Offer { size_bytes: 5 }),
            (b"\x84\0\0\0\x07", Answer::BroadcastSent),
            (b"\x87\0\0\0\x07", Answer::Sent),
            (b"\x88\0\0\0\x07", Answer::Accepted),
            (b"\x89\0\0\0\x07", Answer::Stored),
            (b"\x8b\0\0\0\x07\0\x01\0\0", Answer::Data { count_bytes: 65_536 }),
            (b"\x85\0\0\0\x07\0", Answer::Listed(b"\0")),
            (b"\x8a\0\0\0\x07", Answer::Aborted),
            (
                b"\x8c\0\0\0\x07\0\0\0\0\0\0\0\x05ttttttttvvvvvvvvvvvvvvvv",
                Answer::Range { size_bytes: 5, version: [b'v'; 16] },
            ),
            (b"\x8d\0\0\0\x07\0\0\0\0\0\0\0\x05", Answer::Resumed { offset: 5 }),
            (b"\x90\0\0\0\x07hello", Answer::Message),
        ] {
            assert_eq!(Packet::parse(body), Ok(Packet { id: 7, answer }));
        }
        let body = [&[0x82, 0, 0, 1, 0][..], &[9; 32]].concat();
        let digested = Packet { id: 256, answer: Answer::Digested([9; 32]) };
        assert_eq!(Packet::parse(&body), Ok(digested));
    }

    #[test]
    fn an_error_is_shown_by_code_name_and_text() {
        let shown = |body: &[u8]| match Packet::parse(body).expect("an answer").answer {
            Answer::Error(error) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(b"\x8f\0\0\0\0\0\x04no \x1b[2Jx"), "error 4 NO_SUCH_FILE: no  [2Jx");
        assert_eq!(shown(b"\x8f\0\0\0\0\0\x0f\xff"), "error 15 READ_ONLY: \u{fffd}");
        assert_eq!(shown(b"\x8f\0\0\0\0\0\0"), "error 0 (unknown code): ");
        assert_eq!(shown(b"\x8f\0\0\0\0\0\x10"), "error 16 CHANGED: ");
        assert_eq!(shown(b"\x8f\0\0\0\0\0\x11"), "error 17 (unknown code): ");
        assert_eq!(shown(&[&b"\x8f\0\0\0\0\0\x09"[..], &[b'x'; 5_000]].concat()).len(), 216);
    }

    #[test]
    fn what_has_other_fields_is_no_answer() {
        for body in [
            &b""[..],
            b"\x81\0\0\0",
            b"\x82\0\0\0\x01short",
            b"\x86\0\0\0\x01\0\0\0\0\0\0\0\x05\0\0\0\0",
            b"\x87\0\0\0\x01!",
            b"\x8b\0\0\0\x01\0\0\0",
            b"\x8f\0\0\0\x01\0",
            b"\x01\0\0\0\x01hello",
            b"\x8c\0\0\0\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0v",
            b"\x8d\0\0\0\x01\0",
        ] {
            assert!(Packet::parse(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_list_is_taken_apart() {
        let fields = b"\x01\0\0\0\0\0\0\0\x05\x01a\0\0\0\0\0\0\0\0\x02bc";
        assert_eq!(listed(fields), Ok((true, vec![(5, b"a".to_vec()), (0, b"bc".to_vec())])));
        assert_eq!(listed(b"\0"), Ok((false, Vec::new())));
        for wrong in [&b""[..], b"\x02", &fields[..fields.len() - 1], &fields[..9]] {
            assert!(listed(wrong).is_err(), "{wrong:?}");
        }
        // A name that could lead out of the folder.
        assert!(listed(b"\0\0\0\0\0\0\0\0\x05\x04../a").is_err());
    }

    #[test]
    fn names_are_one_component() {
        for good in [&b"a"[..], b"a.b", b"\xff", &[b'x'; 255]] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in [&b""[..], b".", b"..", b".x", b"a/b", b"/", b"a\0", &[b'x'; 256]] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
