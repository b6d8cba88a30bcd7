//! An incremental parser for HTTP responses.

use super::chunk;
use super::fingerprint::{Fingerprint, Hasher};
use super::head::{self, Framing, Head, Malformed, Scan};

/// Maximum size of a response that is cached for comparison with the next one. Copying a larger one
/// that differs each time would cost more than the comparison saves.
const LEARNT_BYTES_MAX: usize = 4 << 10;

/// A complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Fingerprint of the body.
    pub body: Fingerprint,
    /// The server answers nothing more on this connection.
    pub close: bool,
}

/// The result of [`Parser::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Number of bytes consumed. The caller passes the rest again, followed by more.
    pub used: usize,
    /// The response that ended with the last consumed byte.
    pub reply: Option<Reply>,
}

/// Cache of the last response on any connection. Responses for one URL differ at most in their
/// `Date`, so a `memcmp` with the previous one replaces parsing in most cases.
#[derive(Debug, Default)]
pub struct Last {
    head_bytes: Vec<u8>,
    head: Option<Head>,
    /// A response that arrived in one piece.
    bytes: Vec<u8>,
    reply: Option<Reply>,
}

impl Last {
    /// Returns the response at the beginning of `bytes` and its length if it equals the cached one.
    fn same(&self, bytes: &[u8]) -> Option<(Reply, usize)> {
        self.reply.filter(|_| bytes.starts_with(&self.bytes)).map(|reply| (reply, self.bytes.len()))
    }

    /// Caches a response that arrived in one piece.
    fn learn(&mut self, bytes: &[u8], reply: Reply) {
        if bytes.len() <= LEARNT_BYTES_MAX {
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
            self.reply = Some(reply);
        }
    }

    /// Parses the head at the beginning of `bytes` and returns it with its length.
    fn read_head(
        &mut self,
        bytes: &[u8],
        to_head: bool,
        scan: &mut Scan,
    ) -> Result<Option<(Head, usize)>, Malformed> {
        if let Some(head) = self.head
            && bytes.starts_with(&self.head_bytes)
        {
            return Ok(Some((head, self.head_bytes.len())));
        }
        head::check_beginning(bytes)?;
        let Some(end) = scan.section_end(bytes)? else { return Ok(None) };
        let head = head::parse(&bytes[..end], to_head)?;
        self.head_bytes.clear();
        self.head_bytes.extend_from_slice(&bytes[..end]);
        self.head = Some(head);
        Ok(Some((head, end)))
    }
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
}

/// The parser state of one connection.
#[derive(Debug)]
pub struct Parser {
    expecting: Expecting,
    /// Progress in an incomplete head, size line or trailer section.
    scan: Scan,
    /// An interim response was received; the final one follows.
    is_interim: bool,
    status: u16,
    close: bool,
    body: Hasher,
}

impl Parser {
    /// Creates a parser for a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            expecting: Expecting::Head,
            scan: Scan::new(),
            is_interim: false,
            status: 0,
            close: false,
            body: Hasher::new(),
        }
    }

    /// Returns true if no response is partially consumed.
    #[must_use]
    pub fn is_between_replies(&self) -> bool {
        self.expecting == Expecting::Head && !self.is_interim
    }

    /// Consumes bytes up to the end of the next response, or all of them. `to_head` tells that the
    /// request was a HEAD, as all of those whose responses are in `last`.
    ///
    /// # Errors
    /// A violation of RFC 9112. The parser must not be used after that.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        to_head: bool,
        last: &mut Last,
    ) -> Result<Step, Malformed> {
        let from_its_beginning = self.is_between_replies();
        if from_its_beginning && let Some((reply, used)) = last.same(bytes) {
            self.scan = Scan::new();
            return Ok(Step { used, reply: Some(reply) });
        }
        let mut used = 0;
        loop {
            let before = (used, self.expecting);
            if self.one(bytes, &mut used, to_head, last)? {
                let reply = self.finish();
                if from_its_beginning {
                    last.learn(&bytes[..used], reply);
                }
                return Ok(Step { used, reply: Some(reply) });
            }
            if before == (used, self.expecting) {
                return Ok(Step { used, reply: None });
            }
        }
    }

    /// Handles the server's FIN. Returns the response if the FIN ends one.
    pub fn end(&mut self) -> Option<Reply> {
        (self.expecting == Expecting::BodyUntilClose).then(|| self.finish())
    }

    /// Makes one step. Returns true if it ends a response.
    fn one(
        &mut self,
        bytes: &[u8],
        used: &mut usize,
        to_head: bool,
        last: &mut Last,
    ) -> Result<bool, Malformed> {
        let rest = &bytes[*used..];
        match self.expecting {
            Expecting::Head => {
                let read = last.read_head(rest, to_head, &mut self.scan)?;
                let Some((head, length)) = read else { return Ok(false) };
                self.consume(length, used);
                return Ok(self.begin(head));
            }
            Expecting::Body { rest: missing } => {
                let missing = missing - self.take(rest, missing, used);
                self.expecting = Expecting::Body { rest: missing };
                return Ok(missing == 0);
            }
            Expecting::BodyUntilClose => {
                self.take(rest, u64::MAX, used);
            }
            Expecting::ChunkSize => {
                let size = chunk::size(rest, &mut self.scan)?;
                let Some((size, length)) = size else { return Ok(false) };
                self.consume(length, used);
                self.expecting =
                    if size == 0 { Expecting::Trailers } else { Expecting::Chunk { rest: size } };
            }
            Expecting::Chunk { rest: missing } => {
                let missing = missing - self.take(rest, missing, used);
                self.expecting = match missing {
                    0 => Expecting::ChunkEnd,
                    rest => Expecting::Chunk { rest },
                };
            }
            Expecting::ChunkEnd => {
                let Some(length) = chunk::end(rest)? else { return Ok(false) };
                self.consume(length, used);
                self.expecting = Expecting::ChunkSize;
            }
            Expecting::Trailers => {
                let Some(length) = self.scan.section_end(rest)? else { return Ok(false) };
                head::check_trailers(&rest[..length])?;
                self.consume(length, used);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Consumes framing: the next bytes begin another section.
    fn consume(&mut self, length: usize, used: &mut usize) {
        *used += length;
        self.scan = Scan::new();
    }

    /// Starts the body after a head. Returns true if the response has no body.
    fn begin(&mut self, head: Head) -> bool {
        self.is_interim = head.is_interim();
        if self.is_interim {
            return false;
        }
        self.status = head.status;
        self.close = head.close;
        self.body = Hasher::new();
        self.expecting = match head.framing {
            Framing::Length(rest) => Expecting::Body { rest },
            Framing::Chunked => Expecting::ChunkSize,
            Framing::UntilClose => Expecting::BodyUntilClose,
        };
        head.framing == Framing::Length(0)
    }

    /// Consumes up to `most` of `bytes` as body and returns their number.
    fn take(&mut self, bytes: &[u8], most: u64, used: &mut usize) -> u64 {
        let count = most.min(bytes.len() as u64);
        self.body.update(&bytes[..count as usize]);
        *used += count as usize;
        count
    }

    fn finish(&mut self) -> Reply {
        self.expecting = Expecting::Head;
        Reply { status: self.status, body: self.body.finish(), close: self.close }
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::HEAD_BYTES_MAX;
    use super::*;
    use proptest::prelude::*;

    fn body(bytes: &[u8]) -> Fingerprint {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns the replies in `stream` if it arrives in pieces that end at `cuts`.
    fn replies(stream: &[u8], cuts: &[usize]) -> Result<Vec<Reply>, Malformed> {
        let (mut parser, mut last) = (Parser::new(), Last::default());
        let (mut replies, mut used) = (Vec::new(), 0);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| (*cut).min(stream.len())).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        for end in ends {
            while used < end {
                let step = parser.advance(&stream[used..end], false, &mut last)?;
                used += step.used;
                replies.extend(step.reply);
                if step.reply.is_none() {
                    break;
                }
            }
        }
        replies.extend(parser.end());
        assert!(parser.is_between_replies() && used == stream.len(), "{used} bytes used");
        Ok(replies)
    }

    const MIXED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;ext=1\r\nhello\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n\
        HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 200 OK\r\n\r\nuntil the end";

    proptest! {
        #[test]
        fn splits_do_not_matter(cuts in prop::collection::vec(0..MIXED.len(), 0..40)) {
            let expected = [
                (200, body(b"hello"), false),
                (200, body(b"hello0123456789"), false),
                (404, body(b""), false),
                (200, body(b"hello"), false),
                (200, body(b"until the end"), true),
            ];
            let seen: Vec<_> = replies(MIXED, &cuts)
                .map_err(|wrong| TestCaseError::fail(wrong.0))?
                .into_iter()
                .map(|reply| (reply.status, reply.body, reply.close))
                .collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn noise_is_never_waited_for_beyond_the_bounds(
            start in 0..MIXED.len(),
            noise in prop::collection::vec(any::<u8>(), HEAD_BYTES_MAX + 1..HEAD_BYTES_MAX + 50),
        ) {
            let mut stream = MIXED[..start].to_vec();
            stream.extend_from_slice(&noise);
            let (mut parser, mut last) = (Parser::new(), Last::default());
            let mut used = 0;
            while let Ok(step) = parser.advance(&stream[used..], false, &mut last) {
                used += step.used;
                if step.reply.is_none() {
                    prop_assert!(stream.len() - used <= HEAD_BYTES_MAX);
                    break;
                }
            }
        }
    }

    /// Includes an interim response before the reply and bytes after it.
    #[test]
    fn the_same_again_is_the_same_and_one_byte_less_is_not() {
        let whole =
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let (mut parser, mut last) = (Parser::new(), Last::default());
        let mut step = |bytes: &[u8]| parser.advance(bytes, false, &mut last).expect("it is one");
        let reply = Reply { status: 200, body: body(b"hello"), close: false };
        let (used, reply) = (whole.len(), Some(reply));
        for _ in 0..3 {
            assert_eq!(step(&[whole, &b"HTTP"[..]].concat()), Step { used, reply });
            assert_eq!(step(whole), Step { used, reply });
            // In the middle of a response the same bytes are something else.
            assert_eq!(step(&whole[..used - 1]), Step { used: used - 1, reply: None });
            assert_eq!(step(&[b"o", &whole[..]].concat()), Step { used: 1, reply });
        }
        let other = [&whole[..used - 1], b"p"].concat();
        let seen = step(&other).reply.expect("a whole one");
        assert_eq!(seen.body, body(b"hellp"));
    }

    #[test]
    fn a_byte_at_a_time_is_the_same() {
        let cuts: Vec<usize> = (0..MIXED.len()).collect();
        assert_eq!(replies(MIXED, &cuts), replies(MIXED, &[]));
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
            assert!(replies(stream.as_bytes(), &[]).is_err(), "{chunks:?}");
        }
    }

    #[test]
    fn an_end_in_the_middle_is_no_reply() {
        let (mut parser, mut last) = (Parser::new(), Last::default());
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
        assert_eq!(
            parser.advance(half, false, &mut last),
            Ok(Step { used: half.len(), reply: None })
        );
        assert_eq!(parser.end(), None);
        assert!(!parser.is_between_replies());
    }
}
