//! Whole responses, of whose bodies only fingerprints are kept.

use super::fingerprint::{Fingerprint, Hasher};
use super::head::Malformed;
use super::reading::{Event, LastHead, Reading};

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
    head: LastHead,
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
}

/// The parser state of one connection.
#[derive(Debug, Default)]
pub struct Parser {
    reading: Reading,
    status: u16,
    close: bool,
    body: Hasher,
}

impl Parser {
    /// Creates a parser for a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { reading: Reading::new(), status: 0, close: false, body: Hasher::new() }
    }

    /// Returns true if no response is partially consumed.
    #[must_use]
    pub fn is_between_replies(&self) -> bool {
        self.reading.is_between_replies()
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
            self.reading.skip();
            return Ok(Step { used, reply: Some(reply) });
        }
        let mut rest = bytes;
        loop {
            match self.reading.advance(&mut rest, to_head, Some(&mut last.head))? {
                Event::More => return Ok(Step { used: bytes.len() - rest.len(), reply: None }),
                Event::Head(head, _) => {
                    (self.status, self.close) = (head.status, head.close);
                    self.body = Hasher::new();
                }
                Event::Body(part) => self.body.update(part),
                Event::End => {
                    let (used, reply) = (bytes.len() - rest.len(), self.finish());
                    if from_its_beginning {
                        last.learn(&bytes[..used], reply);
                    }
                    return Ok(Step { used, reply: Some(reply) });
                }
            }
        }
    }

    /// Handles the server's FIN. Returns the response if the FIN ends one.
    pub fn end(&mut self) -> Option<Reply> {
        (self.reading.fin(false) == Some(true)).then(|| self.finish())
    }

    fn finish(&self) -> Reply {
        Reply { status: self.status, body: self.body.finish(), close: self.close }
    }
}

#[cfg(test)]
mod tests {
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
