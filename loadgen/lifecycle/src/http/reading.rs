//! An incremental parser of responses that yields heads, parts of bodies and ends. It stores no
//! bytes.

use super::chunk;
use super::head::{self, Framing, Head, Malformed, Scan};

/// The next event in a stream of responses.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// More bytes are needed, behind those that are not consumed.
    More,
    /// A complete head and its bytes.
    Head(Head, &'a [u8]),
    /// Bytes of a body, without its framing.
    Body(&'a [u8]),
    /// The end of a final response.
    End,
}

/// Cache of the last head on any connection, because most heads repeat.
#[derive(Debug, Default)]
pub struct LastHead {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expecting {
    Head,
    Body { rest: u64 },
    BodyUntilClose,
    ChunkSize,
    Chunk { rest: u64 },
    ChunkEnd,
    Trailers,
    End,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Reading {
    expecting: Expecting,
    /// Progress in an incomplete head, size line or trailer section.
    scan: Scan,
    /// An interim response was received; the final one follows.
    is_interim: bool,
}

impl Reading {
    /// Creates the state of a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { expecting: Expecting::Head, scan: Scan::new(), is_interim: false }
    }

    /// Returns true if no response is partially consumed.
    #[must_use]
    pub fn is_between_replies(&self) -> bool {
        self.expecting == Expecting::Head && !self.is_interim
    }

    /// Forgets the bytes that were passed but not consumed.
    pub const fn skip(&mut self) {
        self.scan = Scan::new();
    }

    /// Parses up to the next event and removes the consumed part from `bytes`. The caller passes
    /// the rest again, followed by more. `to_head` tells that the request was a HEAD, as all of
    /// those whose heads are in `last`.
    ///
    /// # Errors
    /// A violation of RFC 9112. The parser must not be used after that.
    #[inline]
    pub fn advance<'a>(
        &mut self,
        bytes: &mut &'a [u8],
        to_head: bool,
        last: Option<&mut LastHead>,
    ) -> Result<Event<'a>, Malformed> {
        let mut last = last;
        loop {
            let complete = match self.expecting {
                Expecting::End => {
                    self.expecting = Expecting::Head;
                    return Ok(Event::End);
                }
                _ if bytes.is_empty() => return Ok(Event::More),
                Expecting::Head => {
                    let Some((head, length)) = self.head(bytes, to_head, last.take())? else {
                        return Ok(Event::More);
                    };
                    let section = self.consume(bytes, length);
                    self.begin(head);
                    return Ok(Event::Head(head, section));
                }
                Expecting::Body { rest } => {
                    let part = take(bytes, rest);
                    self.expecting = match rest - part.len() as u64 {
                        0 => Expecting::End,
                        rest => Expecting::Body { rest },
                    };
                    return Ok(Event::Body(part));
                }
                Expecting::BodyUntilClose => return Ok(Event::Body(take(bytes, u64::MAX))),
                Expecting::Chunk { rest } => {
                    let part = take(bytes, rest);
                    self.expecting = match rest - part.len() as u64 {
                        0 => Expecting::ChunkEnd,
                        rest => Expecting::Chunk { rest },
                    };
                    return Ok(Event::Body(part));
                }
                Expecting::ChunkSize => {
                    chunk::size(bytes, &mut self.scan)?.map(|(size, length)| match size {
                        0 => (Expecting::Trailers, length),
                        rest => (Expecting::Chunk { rest }, length),
                    })
                }
                Expecting::ChunkEnd => {
                    chunk::end(bytes)?.map(|length| (Expecting::ChunkSize, length))
                }
                Expecting::Trailers => match self.scan.section_end(bytes)? {
                    Some(length) => {
                        head::check_trailers(&bytes[..length])?;
                        Some((Expecting::End, length))
                    }
                    None => None,
                },
            };
            let Some((next, length)) = complete else { return Ok(Event::More) };
            self.consume(bytes, length);
            self.expecting = next;
        }
    }

    /// Handles the server's FIN. Returns true if it ends a response, and `None` if it truncates
    /// one. `unread` tells that bytes are not consumed.
    pub fn fin(&mut self, unread: bool) -> Option<bool> {
        match self.expecting {
            Expecting::BodyUntilClose => {
                self.expecting = Expecting::Head;
                Some(true)
            }
            _ => (self.is_between_replies() && !unread).then_some(false),
        }
    }

    /// Parses the head at the beginning of `bytes`. Returns it with its length.
    fn head(
        &mut self,
        bytes: &[u8],
        to_head: bool,
        last: Option<&mut LastHead>,
    ) -> Result<Option<(Head, usize)>, Malformed> {
        if let Some(LastHead { bytes: known, head: Some(head) }) = &last
            && bytes.starts_with(known)
        {
            return Ok(Some((*head, known.len())));
        }
        head::check_beginning(bytes)?;
        let Some(end) = self.scan.section_end(bytes)? else { return Ok(None) };
        let head = head::parse(&bytes[..end], to_head)?;
        if let Some(last) = last {
            last.bytes.clear();
            last.bytes.extend_from_slice(&bytes[..end]);
            last.head = Some(head);
        }
        Ok(Some((head, end)))
    }

    fn begin(&mut self, head: Head) {
        self.is_interim = head.is_interim();
        self.expecting = match head.framing {
            _ if self.is_interim => Expecting::Head,
            Framing::Length(0) => Expecting::End,
            Framing::Length(rest) => Expecting::Body { rest },
            Framing::Chunked => Expecting::ChunkSize,
            Framing::UntilClose => Expecting::BodyUntilClose,
        };
    }

    /// Consumes a section of the framing: the next bytes begin another one.
    fn consume<'a>(&mut self, bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
        self.scan = Scan::new();
        take(bytes, length as u64)
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self::new()
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
    let (part, rest) = bytes.split_at(most.min(bytes.len() as u64) as usize);
    *bytes = rest;
    part
}

#[cfg(test)]
mod tests {
    use super::super::head::HEAD_BYTES_MAX;
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
        let (mut reading, mut story, mut used) = (Reading::new(), String::new(), 0);
        let mut ends: Vec<usize> = cuts.to_vec();
        ends.push(stream.len());
        ends.sort_unstable();
        for end in ends {
            let mut bytes = &stream[used..end];
            loop {
                match reading.advance(&mut bytes, to_head, None)? {
                    Event::More => break,
                    Event::Head(Head { status, framing, close }, section) => {
                        story += &format!("[{status} {framing:?} {close} {}]", section.len());
                    }
                    Event::Body(part) => story += &String::from_utf8_lossy(part),
                    Event::End => story += "$",
                }
            }
            used = end - bytes.len();
        }
        Ok(story + &format!("{:?}", reading.fin(used < stream.len())))
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(cuts in prop::collection::vec(0..MIXED.len(), 0..40)) {
            let expected = "[200 Length(5) false 58]hello$\
                [100 Length(0) false 25]\
                [206 Chunked false 80]hello0123456789$\
                [404 Length(0) true 64]$\
                [200 UntilClose true 19]until the endSome(true)";
            prop_assert_eq!(story(MIXED, &cuts, false).expect("responses"), expected);
        }

        #[test]
        fn noise_is_never_waited_for_beyond_the_bounds(
            start in 0..MIXED.len(), noise in prop::collection::vec(any::<u8>(), 0..80_000),
        ) {
            let stream = [&MIXED[..start], &noise].concat();
            let mut reading = Reading::new();
            let mut bytes = &stream[..];
            while let Ok(event) = reading.advance(&mut bytes, false, None) {
                if event == Event::More {
                    prop_assert!(bytes.len() <= HEAD_BYTES_MAX);
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
        let expected = "[200 Length(0) false 38]$[200 Length(0) false 19]$\
            [200 Length(0) true 46]$[200 Length(0) true 67]$Some(false)";
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
        for chunks in [
            "\r\n",
            "g\r\n",
            "5\nhello",
            "5\r\nhello!\r\n",
            "12345678123456781\r\n",
            "5x\r\nhello\r\n",
            "0\r\nTrailer: x\n\r\n",
            "0\r\nno field\r\n\r\n",
        ] {
            let stream = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            assert!(story(stream.as_bytes(), &[], false).is_err(), "{chunks:?}");
        }
    }
}
