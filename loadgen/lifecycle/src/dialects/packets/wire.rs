//! Encoding and decoding of packets, written only from the table in PACKETS.md.

/// Maximum size of a body.
pub const BODY_BYTES_MAX: u32 = 64 << 10;
/// Size of the length field.
pub const LENGTH_BYTES: usize = 4;
/// Size of type and id.
pub const PREFIX_BYTES: usize = 5;
/// Maximum number of bytes after a DATA packet from the client.
pub const CHUNK_SENT_BYTES_MAX: u32 = 4 << 20;
/// Maximum number of bytes after a DATA packet from the server.
pub const CHUNK_RECEIVED_BYTES_MAX: u32 = 1 << 20;

/// Size of a version.
pub const VERSION_BYTES: usize = 16;
/// The length in a GET_RANGE that stands for the rest of the file.
pub const TO_THE_END: u64 = u64::MAX;

/// Types of requests.
#[allow(missing_docs)] // Described in PACKETS.md.
pub mod request {
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
}

/// Codes of errors.
#[allow(missing_docs)] // Described in PACKETS.md.
pub mod code {
    pub const MALFORMED: u16 = 1;
    pub const TOO_LONG: u16 = 2;
    pub const UNKNOWN_TYPE: u16 = 3;
    pub const NO_SUCH_FILE: u16 = 4;
    pub const BAD_NAME: u16 = 5;
    pub const EXISTS: u16 = 6;
    pub const FAILED: u16 = 9;
    pub const BUSY: u16 = 10;
    pub const NO_WORKERS: u16 = 11;
    pub const NO_TRANSFER: u16 = 12;
    pub const EXPIRED: u16 = 13;
    pub const BAD_RANGE: u16 = 14;
    pub const READ_ONLY: u16 = 15;
    pub const CHANGED: u16 = 16;
}

/// The content of a packet from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Described in PACKETS.md.
pub enum Answer<'a> {
    Echoed(&'a [u8]),
    Digested([u8; 32]),
    BroadcastSent,
    Listed(&'a [u8]),
    Offer { size_bytes: u64 },
    Sent,
    Accepted,
    Stored,
    Aborted,
    Data { count_bytes: u32 },
    Range { size_bytes: u64 },
    Resumed { offset: u64 },
    Error { code: u16, text: &'a [u8] },
    Message,
}

impl<'a> Answer<'a> {
    /// Parses a body into id and content.
    ///
    /// # Errors
    /// The body is not a valid answer.
    pub fn read(body: &'a [u8]) -> Result<(u32, Self), String> {
        let Some((&[kind, a, b, c, d], fields)) = body.split_first_chunk() else {
            return Err(format!("a packet with a body of {} bytes has no id", body.len()));
        };
        let answer = Self::of_kind(kind, fields);
        let answer = answer.ok_or_else(|| {
            format!("unexpected packet: type {kind:#04x} with {} bytes of fields", fields.len())
        })?;
        Ok((u32::from_be_bytes([a, b, c, d]), answer))
    }

    fn of_kind(kind: u8, fields: &'a [u8]) -> Option<Self> {
        let alone = |answer| fields.is_empty().then_some(answer);
        match kind {
            0x81 => Some(Self::Echoed(fields)),
            0x82 => fields.try_into().ok().map(Self::Digested),
            0x84 => alone(Self::BroadcastSent),
            0x85 => Some(Self::Listed(fields)),
            0x86 => {
                let (size, modified) = fields.split_first_chunk()?;
                let size_bytes = u64::from_be_bytes(*size);
                (modified.len() == 8).then_some(Self::Offer { size_bytes })
            }
            0x87 => alone(Self::Sent),
            0x88 => alone(Self::Accepted),
            0x89 => alone(Self::Stored),
            0x8a => alone(Self::Aborted),
            0x8b => Some(Self::Data { count_bytes: u32::from_be_bytes(fields.try_into().ok()?) }),
            0x8c => {
                let (size, rest) = fields.split_first_chunk()?;
                let size_bytes = u64::from_be_bytes(*size);
                (rest.len() == 8 + VERSION_BYTES).then_some(Self::Range { size_bytes })
            }
            0x8d => Some(Self::Resumed { offset: u64::from_be_bytes(fields.try_into().ok()?) }),
            0x8f => {
                let (code, text) = fields.split_first_chunk()?;
                Some(Self::Error { code: u16::from_be_bytes(*code), text })
            }
            0x90 => Some(Self::Message),
            _ => None,
        }
    }

    /// The name in PACKETS.md.
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
            Self::Error { .. } => "ERROR",
            Self::Message => "MESSAGE",
        }
    }
}

/// Appends a packet.
pub fn packet(out: &mut Vec<u8>, kind: u8, id: u32, fields: &[&[u8]]) {
    let length: usize = PREFIX_BYTES + fields.iter().map(|field| field.len()).sum::<usize>();
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.push(kind);
    out.extend_from_slice(&id.to_be_bytes());
    fields.iter().for_each(|field| out.extend_from_slice(field));
}

/// Parses the next entry of a LISTED into size and name, and removes it from `entries`.
///
/// # Errors
/// The entry is truncated.
pub fn listed<'a>(entries: &mut &'a [u8]) -> Result<(u64, &'a [u8]), &'static str> {
    let wrong = "an entry is truncated";
    let (size, rest) = entries.split_first_chunk::<8>().ok_or(wrong)?;
    let (length, rest) = rest.split_first().ok_or(wrong)?;
    let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(wrong)?;
    *entries = rest;
    Ok((u64::from_be_bytes(*size), name))
}

/// Returns true for one path component without a leading dot.
pub fn is_name(name: &[u8]) -> bool {
    (1..=255).contains(&name.len())
        && name[0] != b'.'
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_laid_out_as_in_the_description() {
        let mut out = Vec::new();
        packet(&mut out, request::ECHO, 42, &[b"h", b"i"]);
        assert_eq!(out, [0, 0, 0, 7, 1, 0, 0, 0, 0x2a, 0x68, 0x69]);
    }

    #[test]
    fn answers_are_read_and_what_has_other_fields_is_none() {
        for (body, answer) in [
            (&b"\x81\0\0\0\x07hi"[..], Answer::Echoed(b"hi")),
            (b"\x84\0\0\0\x07", Answer::BroadcastSent),
            (b"\x85\0\0\0\x07\0", Answer::Listed(b"\0")),
            (b"\x86\0\0\0\x07\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0", Answer::Offer { size_bytes: 5 }),
            (b"\x8a\0\0\0\x07", Answer::Aborted),
            (b"\x8b\0\0\0\x07\0\x01\0\0", Answer::Data { count_bytes: 65_536 }),
            (
                b"\x8c\0\0\0\x07\0\0\0\0\0\0\0\x05ttttttttvvvvvvvvvvvvvvvv",
                Answer::Range { size_bytes: 5 },
            ),
            (b"\x8d\0\0\0\x07\0\0\0\0\0\0\0\x05", Answer::Resumed { offset: 5 }),
            (b"\x8f\0\0\0\x07\0\x03why", Answer::Error { code: 3, text: b"why" }),
            (b"\x90\0\0\0\x07hello", Answer::Message),
        ] {
            assert_eq!(Answer::read(body), Ok((7, answer)));
        }
        for body in [&b"\x81\0\0\0"[..], b"\x82\0\0\0\x07x", b"\x87\0\0\0\x07x", b"\x01\0\0\0\x07"]
        {
            assert!(Answer::read(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_list_is_taken_apart() {
        let mut entries = &b"\0\0\0\0\0\0\0\x05\x01a\0\0\0\0\0\0\0\0\x02bc\0\0"[..];
        assert_eq!(listed(&mut entries), Ok((5, &b"a"[..])));
        assert_eq!(listed(&mut entries), Ok((0, &b"bc"[..])));
        assert!(listed(&mut entries).is_err());
    }
}
