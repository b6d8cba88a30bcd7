//! The notation of requests in scripts.

use crate::dialects::learnt::Files;
use crate::packets;

/// Maximum size in a phrase.
const SIZE_MAX: u64 = 16 << 20;

/// One phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phrase {
    /// `echo:SIZE`.
    Echo(u64),
    /// `digest:SIZE`.
    Digest(u64),
    /// `digest-file:NAME`.
    DigestFile(String),
    /// `broadcast:SIZE`.
    Broadcast(u64),
    /// `list`.
    List,
    /// `get:NAME` or `get:NAME:OFFSET:LENGTH`: GET and TAKE.
    Get(String, Option<(u64, u64)>),
    /// `range:NAME:OFFSET:LENGTH`: GET_RANGE.
    Range(String, u64, u64),
    /// `resume:SIZE`: PUT_RESUMABLE and ABORT.
    Resume(u64),
    /// `put:SIZE`: PUT, DATA and DIGEST_FILE.
    Put(u64),
    /// `abort`: ABORT without a transfer.
    Abort,
    /// `abort-get:NAME`: GET and ABORT.
    AbortGet(String),
    /// `abort-take:NAME`: GET, TAKE and ABORT.
    AbortTake(String),
    /// `abort-put:SIZE`: PUT, half of the DATA, and ABORT.
    AbortPut(u64),
    /// `lie:LENGTH:ACTUAL`: an ECHO of ACTUAL bytes that announces LENGTH.
    Lie(u32, u64),
    /// `type:HH:SIZE`: a packet of a hexadecimal type with SIZE bytes of fields.
    Type(u8, u64),
    /// `data:COUNT`: DATA with its bytes, but without a put.
    Data(u64),
    /// `chunk:COUNT`: DATA without its bytes.
    Chunk(u32),
    /// `over:SIZE`: PUT, and DATA with one byte too many.
    Over(u64),
}

impl Phrase {
    /// Parses a phrase.
    ///
    /// # Errors
    /// The phrase is invalid, or its file was not learnt.
    pub fn read(text: &str, files: &Files) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text}: {why}");
        let (verb, rest) = text.split_once(':').unwrap_or((text, ""));
        let size = |least: u64, most: u64| {
            let size = rest.parse().ok().filter(|size| (least..=most).contains(size));
            size.ok_or_else(|| {
                wrong(&format!("expected {verb}:SIZE with a size of {least} to {most} bytes"))
            })
        };
        let fields_max = packets::BODY_BYTES_MAX as u64 - packets::PREFIX_BYTES as u64;
        let name = |name: &str| match files.position(name) {
            Some(_) => Ok(name.to_owned()),
            None => Err(wrong("the server had no such file before the run")),
        };
        Ok(match verb {
            "echo" => Self::Echo(size(0, fields_max)?),
            "digest" => Self::Digest(size(0, fields_max)?),
            "digest-file" => Self::DigestFile(name(rest)?),
            "broadcast" => Self::Broadcast(size(0, fields_max)?),
            "list" if rest.is_empty() => Self::List,
            "get" | "range" => {
                let mut parts = rest.split(':');
                let file = name(parts.next().unwrap_or_default())?;
                let mut number = || parts.next().map(str::parse);
                match (verb, number(), number(), number()) {
                    ("get", None, ..) => Self::Get(file, None),
                    ("get", Some(Ok(offset)), Some(Ok(length)), None) => {
                        Self::Get(file, Some((offset, length)))
                    }
                    ("range", Some(Ok(offset)), Some(Ok(length)), None) => {
                        Self::Range(file, offset, length)
                    }
                    ("get", ..) => {
                        return Err(wrong("expected get:NAME or get:NAME:OFFSET:LENGTH"));
                    }
                    _ => return Err(wrong("expected range:NAME:OFFSET:LENGTH")),
                }
            }
            "resume" => Self::Resume(size(1, SIZE_MAX)?),
            "put" => Self::Put(size(0, SIZE_MAX)?),
            "abort" if rest.is_empty() => Self::Abort,
            "abort-get" => Self::AbortGet(name(rest)?),
            "abort-take" => Self::AbortTake(name(rest)?),
            "abort-put" => Self::AbortPut(size(2, SIZE_MAX)?),
            "lie" => {
                let lie = rest.split_once(':').and_then(|(length, actual)| {
                    let actual = actual.parse().ok().filter(|actual| *actual <= SIZE_MAX)?;
                    Some(Self::Lie(length.parse().ok()?, actual))
                });
                lie.ok_or_else(|| wrong("expected lie:LENGTH:ACTUAL in bytes"))?
            }
            "type" => {
                let typed = rest.split_once(':').and_then(|(kind, size)| {
                    let size = size.parse().ok().filter(|size| *size <= fields_max)?;
                    Some(Self::Type(u8::from_str_radix(kind, 16).ok()?, size))
                });
                typed.ok_or_else(|| wrong("expected type:HH:SIZE with a hexadecimal type"))?
            }
            "data" => Self::Data(size(1, packets::CHUNK_SENT_BYTES_MAX)?),
            "chunk" => Self::Chunk(size(0, u64::from(u32::MAX))? as u32),
            "over" => Self::Over(size(1, packets::CHUNK_SENT_BYTES_MAX - 1)?),
            _ => {
                return Err(wrong(
                    "expected echo, digest, digest-file, broadcast, list, get, range, put, resume, \
                     abort, abort-get, abort-take, abort-put, lie, type, data, chunk or over",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::learnt::tests::files;

    fn known() -> Files {
        files(&[("small", vec![1; 10]), ("large", vec![2; 300_000])], usize::MAX)
    }

    #[test]
    fn what_is_no_phrase_is_named() {
        for (text, says) in [
            ("get:nothing", "no such file"),
            ("get:small:1", "OFFSET:LENGTH"),
            ("get:small:1:x", "OFFSET:LENGTH"),
            ("range:small:1", "OFFSET:LENGTH"),
            ("resume:0", "1 to 16777216"),
            ("echo:70000", "0 to 65531"),
            ("echo", "expected echo:SIZE"),
            ("put:99999999", "0 to 16777216"),
            ("lie:5", "LENGTH:ACTUAL"),
            ("lie:4294967296:5", "LENGTH:ACTUAL"),
            ("type:100:5", "hexadecimal"),
            ("over:4194304", "1 to 4194303"),
            ("list:x", "expected echo, digest"),
        ] {
            let error = Phrase::read(text, &known()).expect_err(text);
            assert!(error.starts_with(text) && error.contains(says), "{error}");
        }
    }
}
