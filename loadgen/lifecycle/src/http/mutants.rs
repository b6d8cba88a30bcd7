//! Mutated replies: the verdict must not depend on the delivery, nor on the cache of replies.

use super::fingerprint::{Fingerprint, Hasher};
use super::reading::{Event, Reading};
use super::reply::{Last, Parser};
use crate::random::Random;

/// Mutants per run unless `RINGLOAD_MUTANTS` says otherwise.
const MUTANTS: u64 = 20_000;
/// Calls of a parser that may neither consume a byte nor yield an event, in a row.
const IDLE_CALLS_MAX: u32 = 2;

/// Replies as servers send them, good and bad.
const CORPUS: [&str; 22] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
     5;ext=1\r\nhello\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
     0000000000000000000000005 ;a=\"b c\"\r\nhello\r\n000\r\nA: b\r\nC: d\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 78\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\nContent-Range: bytes 2-4/9\r\n\r\nabc",
    "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: foo, CLOSE\r\n\r\nnot found",
    "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 4\r\n\r\nidle",
    "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nRetry-After: 1\r\n\r\nbusy",
    "HTTP/1.1 200\r\ncontent-length:5\r\nServer: ringwright\r\n\r\nhello",
    "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "SSH-2.0-OpenSSH_9.2\r\n",
];

/// Bytes and texts with a meaning in HTTP.
const PIECES: [&str; 24] = [
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ";",
    "0",
    "00",
    "f",
    "ffffffffffffffff",
    "18446744073709551616",
    "HTTP/1.1 ",
    "HTTP/1.1 204 X\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: -1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
];

fn below(random: &mut Random, below: usize) -> usize {
    random.below(below as u64) as usize
}

/// Everything that a parser tells of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// Status, body and persistence of each complete reply.
    replies: Vec<(u16, Fingerprint, bool)>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The stream ends between two replies.
    Between,
    /// The stream ends within a reply.
    Cut,
    Malformed(&'static str),
}

/// The verdict of the load's parser on a stream that is delivered in pieces up to `ends`.
fn of_load(stream: &[u8], ends: &[usize]) -> Verdict {
    let (mut parser, mut last) = (Parser::new(), Last::default());
    let (mut replies, mut used, mut idle) = (Vec::new(), 0, 0);
    for end in ends {
        loop {
            let step = match parser.advance(&stream[used..*end], false, &mut last) {
                Ok(step) => step,
                Err(wrong) => return Verdict { replies, end: End::Malformed(wrong.0) },
            };
            used += step.used;
            idle = if step.used == 0 { idle + 1 } else { 0 };
            assert!(step.reply.is_none() || step.used > 0, "a reply of no bytes");
            assert!(idle <= ends.len() as u32 + IDLE_CALLS_MAX, "it makes no progress");
            match step.reply {
                Some(reply) => replies.push((reply.status, reply.body, reply.close)),
                None => break,
            }
        }
    }
    let is_all_used = used == stream.len();
    replies.extend(parser.end().map(|reply| (reply.status, reply.body, reply.close)));
    let is_between = parser.is_between_replies() && is_all_used;
    Verdict { replies, end: if is_between { End::Between } else { End::Cut } }
}

/// The verdict of the parser of `churn`, which has no cache.
fn of_churn(stream: &[u8], ends: &[usize]) -> Verdict {
    let mut reading = Reading::new();
    let (mut replies, mut used) = (Vec::new(), 0);
    let (mut head, mut body) = (None, Hasher::new());
    for end in ends {
        let mut bytes = &stream[used..*end];
        let mut idle = 0;
        loop {
            let before = bytes.len();
            match reading.advance(&mut bytes, false, None) {
                Err(wrong) => return Verdict { replies, end: End::Malformed(wrong.0) },
                Ok(Event::More) => break,
                Ok(Event::Head(seen, _)) => head = Some(seen),
                Ok(Event::Body(part)) => body.update(part),
                Ok(Event::End) => {
                    let head = head.expect("a head precedes the end");
                    replies.push((head.status, std::mem::take(&mut body).finish(), head.close));
                }
            }
            idle = if bytes.len() == before { idle + 1 } else { 0 };
            assert!(idle <= IDLE_CALLS_MAX, "it makes no progress");
        }
        used = end - bytes.len();
    }
    let end = match reading.fin(used < stream.len()) {
        Some(false) => End::Between,
        Some(true) => {
            let head = head.expect("a head precedes the end");
            replies.push((head.status, body.finish(), head.close));
            End::Between
        }
        None => End::Cut,
    };
    Verdict { replies, end }
}

/// Asserts that all deliveries of a stream have the same verdict.
fn check(stream: &[u8], random: &mut Random, what: &str) {
    let whole = [stream.len()];
    let bytes: Vec<usize> = (1..=stream.len()).collect();
    let mut ends: Vec<usize> =
        (0..below(random, 8)).map(|_| below(random, stream.len() + 1)).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let must = of_load(stream, &whole);
    for ends in [&whole[..], &bytes, &ends] {
        let shown = || format!("{what}, up to {ends:?}: {}", stream.escape_ascii());
        assert_eq!(of_load(stream, ends), must, "load: {}", shown());
        assert_eq!(of_churn(stream, ends), must, "churn: {}", shown());
    }
}

/// Makes a stream of one to four replies and damages it.
fn mutant(random: &mut Random) -> Vec<u8> {
    let replies = 1 + below(random, 4);
    let mut stream: Vec<u8> =
        (0..replies).flat_map(|_| CORPUS[below(random, CORPUS.len())].bytes()).collect();
    for _ in 0..below(random, 5) {
        let at = below(random, stream.len() + 1);
        let to = (at + below(random, 12)).min(stream.len());
        match below(random, 6) {
            0 if at < stream.len() => stream[at] ^= 1 << below(random, 8),
            1 => stream.insert(at, below(random, 256) as u8),
            2 => drop(stream.drain(at..to)),
            3 => stream.truncate(at),
            4 => {
                let part = stream[at..to].to_vec();
                stream.splice(at..at, part);
            }
            _ => {
                let piece = PIECES[below(random, PIECES.len())];
                stream.splice(at..at, piece.bytes());
            }
        }
    }
    stream
}

#[test]
fn the_corpus_has_one_verdict() {
    for reply in CORPUS {
        check(reply.as_bytes(), &mut Random::new(1, 0), "corpus");
    }
}

/// The seed of each failure is printed; `RINGLOAD_MUTANTS_FROM` begins with another one.
#[test]
fn mutants_have_one_verdict() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name);
        text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    };
    let (first, count) = (number("RINGLOAD_MUTANTS_FROM", 0), number("RINGLOAD_MUTANTS", MUTANTS));
    println!("seeds {first} to {}", first + count);
    for seed in first..first + count {
        let mut random = Random::new(seed, 0);
        let stream = mutant(&mut random);
        check(&stream, &mut random, &format!("seed {seed}"));
    }
}

/// Heads, size lines and trailers around their limits.
#[test]
fn long_sections_have_one_verdict() {
    use crate::http::{chunk::LINE_BYTES_MAX, head::HEAD_BYTES_MAX};
    for more in [0, 1, 2, 3, 4, 5] {
        let filled = |prefix: &str, suffix: &str, length: usize| {
            let filling = "x".repeat(length + more - 2 - prefix.len() - suffix.len());
            format!("{prefix}{filling}{suffix}")
        };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long =
            filled("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", "\r\n\r\n", HEAD_BYTES_MAX);
        let line = filled("0;a=", "\r\n", LINE_BYTES_MAX);
        let trailers = filled("X: ", "\r\n\r\n", HEAD_BYTES_MAX);
        for stream in [long, format!("{head}{line}\r\n"), format!("{head}0\r\n{trailers}")] {
            check(stream.as_bytes(), &mut Random::new(more as u64, 0), "long");
            let is_good = of_load(stream.as_bytes(), &[stream.len()]).end == End::Between;
            assert_eq!(is_good, more <= 2, "{more}");
        }
    }
}
