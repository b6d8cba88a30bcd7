//! An incremental response parser that yields heads, parts of bodies and ends. It never stores
//! bodies.

use crate::http::chunk;
use crate::http::head::{self, Framing, HEAD_BYTES_MAX, Malformed, Scan};

/// Length of the line end behind a chunk's data.
const CRLF_BYTES: usize = 2;

/// The next event in a stream of responses.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// All bytes are consumed, and more are needed.
    More,
    /// A complete head.
    Head(Head),
    /// Bytes of a body, without its framing.
    Body(&'a [u8]),
    /// The end of a final response.
    End,
}

/// The parts of a head that the oracle needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// `Content-Range: bytes FIRST-LAST/SIZE`.
    pub range: Option<(u64, u64, u64)>,
    /// The server has announced that it answers nothing more on this connection.
    pub close: bool,
    /// The `Server` field is `ringwright`.
    pub is_ours: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expecting {
    Head,
    Body {
        rest: u64,
    },
    BodyUntilClose,
    ChunkSize,
    Chunk {
        rest: u64,
    },
    ChunkEnd,
    Trailers,
    /// The end event is pending.
    End,
}

/// The parser state of one connection.
#[derive(Debug)]
pub struct Reading {
    expecting: Expecting,
    /// The incomplete head, chunk line or trailers.
    kept: Vec<u8>,
    /// Progress in `kept`.
    scan: Scan,
    /// An interim response was received; the final one follows.
    is_interim: bool,
}

impl Reading {
    /// Creates a parser for a new connection.
    pub const fn new() -> Self {
        let expecting = Expecting::Head;
        Self { expecting, kept: Vec::new(), scan: Scan::new(), is_interim: false }
    }

    /// Parses `bytes` up to the next event and removes the consumed part. `to_head` tells that the
    /// request was a HEAD, whose response has no body.
    ///
    /// # Errors
    /// A violation of RFC 9112. The parser must not be used after that.
    pub fn advance<'a>(
        &mut self,
        bytes: &mut &'a [u8],
        to_head: bool,
    ) -> Result<Event<'a>, Malformed> {
        loop {
            match self.expecting {
                Expecting::End => {
                    self.expecting = Expecting::Head;
                    return Ok(Event::End);
                }
                _ if bytes.is_empty() => return Ok(Event::More),
                Expecting::Head => {
                    let Some(section) = self.section(bytes, HEAD_BYTES_MAX, read_head)? else {
                        return Ok(Event::More);
                    };
                    return self.begin(&section, to_head).map(Event::Head);
                }
                Expecting::Body { rest } => {
                    let part = take(bytes, rest);
                    let rest = rest - part.len() as u64;
                    self.expecting =
                        if rest == 0 { Expecting::End } else { Expecting::Body { rest } };
                    return Ok(Event::Body(part));
                }
                Expecting::BodyUntilClose => return Ok(Event::Body(take(bytes, u64::MAX))),
                Expecting::ChunkSize => {
                    let mut size = 0;
                    let read = |kept: &[u8], scan: &mut Scan| {
                        let Some((read, length)) = chunk::size(kept, scan)? else {
                            return Ok(None);
                        };
                        size = read;
                        Ok(Some(length))
                    };
                    let Some(_) = self.section(bytes, chunk::LINE_BYTES_MAX, read)? else {
                        return Ok(Event::More);
                    };
                    self.expecting = match size {
                        0 => Expecting::Trailers,
                        rest => Expecting::Chunk { rest },
                    };
                }
                Expecting::Chunk { rest } => {
                    let part = take(bytes, rest);
                    let rest = rest - part.len() as u64;
                    self.expecting =
                        if rest == 0 { Expecting::ChunkEnd } else { Expecting::Chunk { rest } };
                    return Ok(Event::Body(part));
                }
                Expecting::ChunkEnd => {
                    let read = |kept: &[u8], _: &mut Scan| chunk::end(kept);
                    let Some(_) = self.section(bytes, CRLF_BYTES, read)? else {
                        return Ok(Event::More);
                    };
                    self.expecting = Expecting::ChunkSize;
                }
                Expecting::Trailers => {
                    let read = |kept: &[u8], scan: &mut Scan| scan.section_end(kept);
                    let Some(section) = self.section(bytes, HEAD_BYTES_MAX, read)? else {
                        return Ok(Event::More);
                    };
                    head::check_trailers(&section)?;
                    self.expecting = Expecting::End;
                }
            }
        }
    }

    /// Handles the server's FIN. Returns true if it ends a response, and `None` if it truncates
    /// one.
    pub fn fin(&mut self) -> Option<bool> {
        match self.expecting {
            Expecting::BodyUntilClose => {
                self.expecting = Expecting::Head;
                Some(true)
            }
            Expecting::Head if self.kept.is_empty() && !self.is_interim => Some(false),
            _ => None,
        }
    }

    fn begin(&mut self, section: &[u8], to_head: bool) -> Result<Head, Malformed> {
        let parsed = head::parse(section, to_head)?;
        let mut seen = Head {
            status: parsed.status,
            length: None,
            range: None,
            close: parsed.close,
            is_ours: false,
        };
        for (name, value) in fields(section) {
            if name.eq_ignore_ascii_case(b"content-length") {
                seen.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            } else if name.eq_ignore_ascii_case(b"content-range") {
                seen.range = content_range(value);
            } else if name.eq_ignore_ascii_case(b"server") {
                seen.is_ours = value == b"ringwright";
            }
        }
        self.is_interim = parsed.is_interim();
        self.expecting = match parsed.framing {
            _ if parsed.is_interim() => Expecting::Head,
            Framing::Length(0) => Expecting::End,
            Framing::Length(rest) => Expecting::Body { rest },
            Framing::Chunked => Expecting::ChunkSize,
            Framing::UntilClose => Expecting::BodyUntilClose,
        };
        Ok(seen)
    }

    /// Returns the bytes up to the end that `read` finds, once they are complete. `read` gets all
    /// bytes since the beginning of the section. It fails if there are more than `most`.
    fn section(
        &mut self,
        bytes: &mut &[u8],
        most: usize,
        read: impl FnOnce(&[u8], &mut Scan) -> Result<Option<usize>, Malformed>,
    ) -> Result<Option<Vec<u8>>, Malformed> {
        let before = self.kept.len();
        let (seen, rest) = bytes.split_at(bytes.len().min(most + 1 - before));
        // A section that arrives in one piece is copied only up to its end.
        let end = if before == 0 {
            read(seen, &mut self.scan)?
        } else {
            self.kept.extend_from_slice(seen);
            read(&self.kept, &mut self.scan)?
        };
        let Some(end) = end else {
            if before == 0 {
                self.kept.extend_from_slice(seen);
            }
            *bytes = rest;
            return Ok(None);
        };
        self.scan = Scan::new();
        let section = if before == 0 {
            seen[..end].to_vec()
        } else {
            self.kept.truncate(end);
            std::mem::take(&mut self.kept)
        };
        *bytes = &bytes[end - before..];
        Ok(Some(section))
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
    let (part, rest) = bytes.split_at(most.min(bytes.len() as u64) as usize);
    *bytes = rest;
    part
}

/// Finds the end of a head.
fn read_head(kept: &[u8], scan: &mut Scan) -> Result<Option<usize>, Malformed> {
    head::check_beginning(kept)?;
    scan.section_end(kept)
}

/// Returns the fields of a well-formed head.
fn fields(section: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    section.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Parses `Content-Range` with a size (RFC 9110 section 14.4).
fn content_range(value: &[u8]) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(value).ok()?.strip_prefix("bytes ")?;
    let (range, size) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod mutants;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIXED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: ringwright\r\n\r\nhello\
        HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 2-4/9\r\n\r\n\
        5;ext=1\r\nhello\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n\
        HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n\
        HTTP/1.1 200 OK\r\n\r\nuntil the end";

    /// Returns the events as text.
    fn story(stream: &[u8], cuts: &[usize], to_head: bool) -> Result<String, Malformed> {
        let (mut reading, mut story, mut start) = (Reading::new(), String::new(), 0);
        let mut ends: Vec<usize> = cuts.to_vec();
        ends.push(stream.len());
        ends.sort_unstable();
        for end in ends {
            let mut bytes = &stream[start..end];
            start = end;
            loop {
                match reading.advance(&mut bytes, to_head)? {
                    Event::More => break,
                    Event::Head(head) => {
                        let Head { status, length, range, close, is_ours } = head;
                        story += &format!("[{status} {length:?} {range:?} {close} {is_ours}]");
                    }
                    Event::Body(part) => story += &String::from_utf8_lossy(part),
                    Event::End => story += "$",
                }
            }
        }
        Ok(story + &format!("{:?}", reading.fin()))
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(cuts in prop::collection::vec(0..MIXED.len(), 0..40)) {
            let expected = "[200 Some(5) None false true]hello$\
                [100 None None false false]\
                [206 None Some((2, 4, 9)) false false]hello0123456789$\
                [404 Some(0) None true false]$\
                [200 None None true false]until the endSome(true)";
            prop_assert_eq!(story(MIXED, &cuts, false).expect("responses"), expected);
        }

        #[test]
        fn noise_neither_panics_nor_is_kept_without_bound(
            start in 0..MIXED.len(), noise in prop::collection::vec(any::<u8>(), 0..80_000),
        ) {
            let stream = [&MIXED[..start], &noise].concat();
            let mut reading = Reading::new();
            let mut bytes = &stream[..];
            while let Ok(event) = reading.advance(&mut bytes, false) {
                prop_assert!(reading.kept.len() <= HEAD_BYTES_MAX);
                if event == Event::More {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_byte_at_a_time_is_the_same() {
        let cuts: Vec<usize> = (0..MIXED.len()).collect();
        assert_eq!(story(MIXED, &cuts, false), story(MIXED, &[], false));
    }

    #[test]
    fn answers_to_head_have_no_body() {
        let answers = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\
            HTTP/1.1 200 OK\r\nConnection: closed, Close\r\n\r\n\
            HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: closed\r\n\r\n";
        let expected = "[200 Some(5) None false false]$[200 None None false false]$\
            [200 None None true false]$[200 None None true false]$Some(false)";
        assert_eq!(story(answers, &[], true).expect("responses"), expected);
    }

    #[test]
    fn an_end_in_the_middle_cuts_a_reply() {
        for half in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"[..],
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ] {
            assert!(story(half, &[], false).expect("a beginning").ends_with("None"));
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        for chunks in
            ["\r\n", "g\r\n", "5\nhello", "5\r\nhello!\r\n", "12345678123456781\r\n", "5x\r\n"]
        {
            let stream = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            assert!(story(stream.as_bytes(), &[], false).is_err(), "{chunks:?}");
        }
    }
}
