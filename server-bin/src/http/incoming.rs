//! A connection's incoming bytes, cut into requests. Where the cuts fall must not depend on how
//! the bytes were split on their way.

use super::body::Body;
use super::head::{self, Request, Search};
use super::status::Status;

/// What is being read. The bytes themselves are kept by whoever calls; this keeps only how far
/// they were looked at.
#[derive(Debug, Default)]
pub struct Incoming {
    reading: Reading,
    /// The empty line that RFC 9112, 2.2 lets a client send before its request was seen.
    blank_seen: bool,
    /// The request being read, or refused, is a HEAD, as far as its bytes have come.
    is_head: bool,
}

#[derive(Debug)]
enum Reading {
    Head(Search),
    Body(Body),
}

impl Default for Reading {
    fn default() -> Self {
        Self::Head(Search::default())
    }
}

/// What [`Incoming::advance`] came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// More bytes are needed.
    More,
    /// A whole head: the last `length` of the bytes consumed. If the request has a body, `Body`
    /// follows once that was read.
    Head {
        /// What it says.
        request: Request,
        /// Bytes of the head.
        length: usize,
    },
    /// The body has been read to its end.
    Body,
    /// This cannot be answered but with that status, and nothing after it can be trusted.
    Refused(Status),
}

impl Incoming {
    /// Goes on with `bytes`: those not consumed by the last call, and what followed. How many are
    /// consumed now, and what was found. Call again at once unless it is [`Event::More`].
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Event) {
        match self.reading {
            Reading::Head(_) => self.head(bytes),
            Reading::Body(ref mut body) => match body.advance(bytes) {
                Ok((consumed, true)) => {
                    *self = Self::default();
                    (consumed, Event::Body)
                }
                Ok((consumed, false)) => (consumed, Event::More),
                Err(status) => (0, Event::Refused(status)),
            },
        }
    }

    /// Whether nothing of a request has been seen, given that no byte is left unconsumed.
    #[must_use]
    pub const fn is_between_requests(&self) -> bool {
        matches!(self.reading, Reading::Head(_))
    }

    /// The reply to the request being read has no content, whatever its status (RFC 9110, 9.3.2).
    #[must_use]
    pub const fn is_head(&self) -> bool {
        self.is_head
    }

    fn head(&mut self, bytes: &[u8]) -> (usize, Event) {
        let blank = match bytes {
            [b'\r', b'\n', ..] if !self.blank_seen => 2,
            [b'\r'] if !self.blank_seen => return (0, Event::More),
            _ => 0,
        };
        self.blank_seen |= blank > 0;
        self.is_head = bytes[blank..].starts_with(b"HEAD ");
        let Reading::Head(search) = &mut self.reading else {
            unreachable!("called for a head only")
        };
        let found = search.end(&bytes[blank..]).and_then(|length| match length {
            Some(length) => Ok(Some((head::parse(&bytes[blank..blank + length])?, length))),
            None => Ok(None),
        });
        match found {
            Ok(None) => (blank, Event::More),
            Ok(Some((request, length))) => {
                let body = Body::new(request.framing);
                *self = Self {
                    is_head: self.is_head && body.is_some(),
                    reading: body.map_or_else(Reading::default, Reading::Body),
                    blank_seen: false,
                };
                (blank + length, Event::Head { request, length })
            }
            Err(status) => (blank, Event::Refused(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a connection made of these bytes: heads as text, bodies, the refusal.
    fn replay(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<String> {
        cuts.push(bytes.len());
        let mut incoming = Incoming::default();
        let mut consumed = 0;
        let mut story = Vec::new();
        for end in cuts {
            loop {
                let (count, event) = incoming.advance(&bytes[consumed..end]);
                consumed += count;
                assert!(consumed <= end, "consumed what was not there");
                match event {
                    Event::More => break,
                    Event::Head { request, length } => {
                        let head = &bytes[consumed - length..consumed];
                        story.push(format!("{request:?} {:?}", String::from_utf8_lossy(head)));
                    }
                    Event::Body => story.push(format!("body until {consumed}")),
                    Event::Refused(status) => {
                        let head = if incoming.is_head() { " without content" } else { "" };
                        story.push(format!("{status:?}{head}"));
                        return story;
                    }
                }
            }
        }
        story.push(format!("unread {:?}", &bytes[consumed..]));
        story
    }

    const SAMPLES: [&[u8]; 12] = [
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nHEAD /b HTTP/1.0\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\nGET /",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\
          helloGET / HTTP/1.1\r\nHost: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
          3 ;\te = \"\\\"\"; f\r\nabc\r\n0\r\nT: u\r\n\r\nGET",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc",
        b"\r\rGET",
        b"\r\nHEAD / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ];

    #[test]
    fn every_single_cut_and_all_cuts_at_once_change_nothing() {
        for sample in SAMPLES {
            let whole = replay(sample, Vec::new());
            for cut in 0..sample.len() {
                assert_eq!(replay(sample, vec![cut]), whole, "cut at {cut} of {sample:?}");
            }
            assert_eq!(replay(sample, (0..sample.len()).collect()), whole, "{sample:?}");
        }
    }

    #[test]
    fn the_samples_are_read_as_meant() {
        let outcome = |sample: &[u8]| replay(sample, Vec::new()).pop().unwrap();
        let outcomes: Vec<String> = SAMPLES.into_iter().map(outcome).collect();
        assert_eq!(outcomes[0], "unread []");
        assert_eq!(outcomes[1], "BadRequest", "two empty lines are one too many");
        assert_eq!(outcomes[2], "unread []");
        assert_eq!(outcomes[3], "unread [71, 69, 84]");
        assert_eq!(outcomes[4], "BareLineFeed");
        assert_eq!(outcomes[5], "BadRequest");
        assert_eq!(outcomes[6], "VersionNotSupported");
        assert_eq!(outcomes[7], "BareLineFeed");
        assert_eq!(outcomes[8], "BadRequest");
        assert_eq!(outcomes[9], "BadRequest without content");
        assert_eq!(outcomes[10], "BadRequest without content");
        assert_eq!(outcomes[11], "BadRequest", "the GET after a HEAD");
    }

    #[test]
    fn limits_do_not_depend_on_cuts() {
        for (prefix, filler) in
            [("", "A"), ("GET /", "a"), ("GET / HTTP/1.1\r\nHost: x\r\n", "a: b\r\n")]
        {
            for trailing in ["", "\n", "\r\n\r\n"] {
                let text = format!("{prefix}{}{trailing}", filler.repeat(17_000 / filler.len()));
                let whole = replay(text.as_bytes(), Vec::new());
                let cuts = (1..text.len()).step_by(7).collect();
                assert_eq!(replay(text.as_bytes(), cuts), whole, "{prefix:?} … {trailing:?}");
            }
        }
    }

    /// Pieces from which both good and bad requests are put together.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let known: Vec<&[u8]> = vec![
            b"GET / HTTP/1.1\r\n",
            b"HEAD /a%20b HTTP/1.0\r\n",
            b"POST /p HTTP/1.1\r\n",
            b"GET",
            b" ",
            b"Host: x\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b"3\r\nabc\r\n",
            b"3 ; a = \"\\\"b\"",
            b";c",
            b"HEAD / HTTP/1.7\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"0\r\n",
            b"Expect: 100-continue\r\n",
            b"abc",
            b": ",
            b"\0",
        ];
        prop_oneof![
            9 => proptest::sample::select(known).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 0..8),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_read_alike(
            pieces in proptest::collection::vec(piece(), 0..24),
            seeds in proptest::collection::vec(any::<u16>(), 0..12),
        ) {
            let bytes = pieces.concat();
            let mut cuts: Vec<usize> =
                seeds.into_iter().map(|seed| usize::from(seed) % (bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = replay(&bytes, Vec::new());
            prop_assert_eq!(&replay(&bytes, cuts), &whole);
            prop_assert_eq!(&replay(&bytes, (0..bytes.len()).collect()), &whole);
        }
    }
}
