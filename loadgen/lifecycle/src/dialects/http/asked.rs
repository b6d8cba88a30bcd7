//! Requests: their notation in scripts and their bytes.

use crate::dialect::Request;
use crate::dialects::learnt::Files;
use crate::stream::Stream;
use std::fmt;

/// Maximum size of a request's body.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// Minimum size of a reply's head: `HTTP/1.1 200 \r\n\r\n`.
const REPLY_HEAD_BYTES_MIN: u64 = 17;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `get:PATH`.
    Get {
        /// Index of the file.
        file: usize,
    },
    /// `head:PATH`.
    Head {
        /// Index of the file.
        file: usize,
    },
    /// `range:PATH:FROM-TO`, including the last byte.
    Range {
        /// Index of the file.
        file: usize,
        /// The first byte.
        from: u64,
        /// The last byte; may be beyond the end of the file.
        to: u64,
    },
    /// `body:PATH:SIZE`: a GET with a body, which has no meaning.
    Body {
        /// Index of the file.
        file: usize,
        /// Size of the body in bytes.
        size: u64,
    },
    /// `bad:NAME`: a malformed request.
    Bad(Bad),
}

crate::named! {
    /// A classic malformed request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Bad {
        /// Lines end in a bare LF.
        BareLf = "bare-lf",
        /// `Host` is missing.
        NoHost = "no-host",
        /// Two different `Content-Length` fields.
        TwoLengths = "two-lengths",
        /// `Content-Length` and chunks together, as in request smuggling.
        LengthAndChunks = "length-and-chunks",
        /// White space between a field name and its colon.
        SpaceInName = "space-in-name",
        /// A head that is longer than servers accept.
        LongHead = "long-head",
        /// A TLS ClientHello.
        Tls = "tls",
    }
}

impl Bad {
    fn bytes(self, host: &str) -> Vec<u8> {
        match self {
            Self::BareLf => format!("GET / HTTP/1.1\nHost: {host}\n\n"),
            Self::NoHost => "GET / HTTP/1.1\r\n\r\n".into(),
            Self::TwoLengths => {
                let lengths = "Content-Length: 5\r\nContent-Length: 6";
                format!("GET / HTTP/1.1\r\nHost: {host}\r\n{lengths}\r\n\r\n")
            }
            Self::LengthAndChunks => {
                let both = "Content-Length: 5\r\nTransfer-Encoding: chunked";
                format!("GET / HTTP/1.1\r\nHost: {host}\r\n{both}\r\n\r\n0\r\n\r\n")
            }
            Self::SpaceInName => format!("GET / HTTP/1.1\r\nHost : {host}\r\n\r\n"),
            Self::LongHead => {
                let long = "x".repeat(70_000);
                format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {long}\r\n\r\n")
            }
            Self::Tls => {
                return [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], &[7; 64]].concat();
            }
        }
        .into_bytes()
    }
}

impl Asked {
    /// Parses a phrase.
    ///
    /// # Errors
    /// The phrase is invalid, or its file was not learnt.
    pub fn read(phrase: &str, files: &Files) -> Result<Self, String> {
        let wrong = |why: &str| format!("{phrase}: {why}");
        let (verb, rest) = phrase.split_once(':').unwrap_or((phrase, ""));
        let file = |path: &str| {
            let not_learnt = format!("the file {path} was not learnt; add --path {path}");
            files.position(path).ok_or_else(|| wrong(&not_learnt))
        };
        match verb {
            "get" => Ok(Self::Get { file: file(rest)? }),
            "head" => Ok(Self::Head { file: file(rest)? }),
            "range" => {
                let range = rest.rsplit_once(':').and_then(|(path, range)| {
                    let (from, to) = range.split_once('-')?;
                    Some((path, from.parse().ok()?, to.parse().ok()?))
                });
                match range {
                    Some((path, from, to)) if from <= to => {
                        Ok(Self::Range { file: file(path)?, from, to })
                    }
                    _ => Err(wrong("expected range:PATH:FIRST-LAST")),
                }
            }
            "body" => {
                let body = rest.rsplit_once(':').map(|(path, size)| (path, size.parse()));
                match body {
                    Some((path, Ok(size))) if (1..=BODY_BYTES_MAX).contains(&size) => {
                        Ok(Self::Body { file: file(path)?, size })
                    }
                    _ => Err(wrong("expected body:PATH:SIZE with a size of 1 to 1048576 bytes")),
                }
            }
            "bad" => match Bad::ALL.into_iter().find(|bad| bad.name() == rest) {
                Some(bad) => Ok(Self::Bad(bad)),
                None => {
                    Err(wrong(&format!("expected one of {}", Bad::ALL.map(Bad::name).join(", "))))
                }
            },
            _ => Err(wrong(
                "expected get:PATH, head:PATH, range:PATH:FIRST-LAST, body:PATH:SIZE or bad:NAME",
            )),
        }
    }

    /// Appends the bytes of the request and returns their place. A body contains the bytes of the
    /// stream at that place.
    pub fn say(self, files: &Files, host: &str, stream: Stream, out: &mut Vec<u8>) -> Request {
        let start = out.len() as u64;
        let name = |file: usize| &files.0[file].name;
        let mut head_end = None;
        match self {
            Self::Get { file } => say_head(out, "GET", name(file), host, ""),
            Self::Head { file } => say_head(out, "HEAD", name(file), host, ""),
            Self::Range { file, from, to } => {
                say_head(out, "GET", name(file), host, &format!("Range: bytes={from}-{to}\r\n"));
            }
            Self::Body { file, size } => {
                say_head(out, "GET", name(file), host, &format!("Content-Length: {size}\r\n"));
                let end = out.len();
                head_end = Some(end as u64);
                out.resize(end + size as usize, 0);
                stream.fill(end as u64, &mut out[end..]);
            }
            Self::Bad(bad) => out.extend_from_slice(&bad.bytes(host)),
        }
        let end = out.len() as u64;
        let (reply_bytes_min, is_file) = match self {
            Self::Get { file } | Self::Body { file, .. } => {
                let learnt = &files.0[file];
                let body_bytes_min = if learnt.varies { 0 } else { learnt.length };
                (REPLY_HEAD_BYTES_MIN + body_bytes_min, files.is_large(file))
            }
            Self::Range { file, .. } if files.0[file].varies => (REPLY_HEAD_BYTES_MIN, false),
            Self::Head { .. } => (REPLY_HEAD_BYTES_MIN, false),
            Self::Range { file, from, to } => {
                let part =
                    self.part(files.0[file].length).map_or(0, |(first, last)| last - first + 1);
                (REPLY_HEAD_BYTES_MIN + part, files.is_large(file) && to - from > 1 << 16)
            }
            Self::Bad(_) => (0, false),
        };
        let is_proper = !matches!(self, Self::Bad(_));
        Request {
            start,
            head_end: head_end.unwrap_or(end),
            end,
            reply_bytes_min,
            is_file,
            is_proper,
        }
    }

    /// Returns the requested file, or `None` for a malformed request.
    pub const fn file(self) -> Option<usize> {
        match self {
            Self::Get { file }
            | Self::Head { file }
            | Self::Range { file, .. }
            | Self::Body { file, .. } => Some(file),
            Self::Bad(_) => None,
        }
    }

    /// Returns the first and last byte of a range in a file of `length` bytes, or `None` if the
    /// range is empty.
    pub fn part(self, length: u64) -> Option<(u64, u64)> {
        match self {
            Self::Range { from, to, .. } if from < length => Some((from, to.min(length - 1))),
            _ => None,
        }
    }

    /// Returns the notation in scripts.
    pub fn show(self, files: &Files) -> String {
        struct Shown<'a>(Asked, &'a Files);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = |file: usize| &self.1.0[file].name;
                match self.0 {
                    Asked::Get { file } => write!(out, "get:{}", name(file)),
                    Asked::Head { file } => write!(out, "head:{}", name(file)),
                    Asked::Range { file, from, to } => {
                        write!(out, "range:{}:{from}-{to}", name(file))
                    }
                    Asked::Body { file, size } => write!(out, "body:{}:{size}", name(file)),
                    Asked::Bad(bad) => write!(out, "bad:{}", bad.name()),
                }
            }
        }
        Shown(self, files).to_string()
    }
}

fn say_head(out: &mut Vec<u8>, method: &str, path: &str, host: &str, fields: &str) {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    out.extend_from_slice(head.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::learnt::tests::files;

    fn known() -> Files {
        files(&[("/a:1", vec![1; 10]), ("/large", vec![2; 300_000])], usize::MAX)
    }

    #[test]
    fn phrases_are_read_and_written_as_they_were() {
        for phrase in
            ["get:/a:1", "head:/large", "range:/a:1:2-3", "body:/a:1:100", "bad:two-lengths"]
        {
            assert_eq!(Asked::read(phrase, &known()).expect(phrase).show(&known()), phrase);
        }
    }

    #[test]
    fn what_is_no_phrase_is_named() {
        for (phrase, says) in [
            ("get:/b", "add --path /b"),
            ("put:/a:1", "expected get:PATH"),
            ("range:/a:1:3-2", "FIRST-LAST"),
            ("range:/a:1", "FIRST-LAST"),
            ("body:/a:1:0", "1 to 1048576"),
            ("body:/a:1:2000000", "1 to 1048576"),
            ("bad:luck", "bare-lf, no-host"),
        ] {
            let error = Asked::read(phrase, &known()).expect_err(phrase);
            assert!(error.starts_with(phrase) && error.contains(says), "{error}");
        }
    }

    #[test]
    fn requests_lie_one_behind_the_other() {
        let mut out = Vec::new();
        let stream = Stream::new(1, 2);
        let get = Asked::Get { file: 1 }.say(&known(), "h:1", stream, &mut out);
        assert_eq!(out, b"GET /large HTTP/1.1\r\nHost: h:1\r\n\r\n");
        let end = out.len() as u64;
        assert_eq!((get.start, get.head_end, get.end), (0, end, end));
        assert_eq!((get.reply_bytes_min, get.is_file, get.is_proper), (300_017, true, true));
        let body = Asked::Body { file: 0, size: 5 }.say(&known(), "h:1", stream, &mut out);
        assert_eq!((body.start, body.head_end, body.end), (end, end + 51, end + 56));
        let range = Asked::Range { file: 0, from: 3, to: 99 }.say(&known(), "h", stream, &mut out);
        assert_eq!(range.reply_bytes_min, 17 + 7);
        assert!(out.ends_with(b"Range: bytes=3-99\r\n\r\n"));
        let bad = Asked::Bad(Bad::NoHost).say(&known(), "h", stream, &mut out);
        assert!(!bad.is_proper && bad.end == out.len() as u64);
    }
}
