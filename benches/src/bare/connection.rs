//! The state of one connection of the limit server, and its replies.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// Bytes of prepared replies at most, so that pipelined requests are answered by one send.
const REPLIES_BYTES_MAX: usize = 256 * 1024;
const REPLIES_MAX: usize = 32;

/// One accepted connection.
pub struct Connection {
    /// Dropping it closes the connection: only when nothing is in flight.
    pub socket: OwnedFd,
    /// A receive is armed.
    pub receiving: bool,
    /// The send in flight.
    pub sending: Option<Sending>,
    /// Nothing more will be received.
    pub ended: bool,
    /// Echo: chunks that wait for the send in flight.
    pub chunks: VecDeque<Chunk>,
    /// HTTP: requests not answered yet, and how far into a blank line the input is.
    pub requests: RequestCounter,
}

/// A received piece of the stream, still in its buffer.
#[derive(Clone, Copy)]
pub struct Chunk {
    pub buffer: u16,
    pub length: u32,
}

/// A send in flight.
#[derive(Clone, Copy)]
pub struct Sending {
    pub length: u32,
    /// The receive buffer that it is sent from, to be given back afterwards.
    pub buffer: Option<u16>,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        let (chunks, requests) = (VecDeque::new(), RequestCounter::default());
        Self { socket, receiving: false, sending: None, ended: false, chunks, requests }
    }

    /// Nothing is in flight, nothing is owed, and nothing more will come.
    pub fn is_over(&self) -> bool {
        let idle = !self.receiving && self.sending.is_none();
        self.ended && idle && self.chunks.is_empty() && self.requests.owed == 0
    }
}

/// Counts requests by the blank line that ends each, also across chunks. Requests have no body.
#[derive(Default)]
pub struct RequestCounter {
    pub owed: u32,
    matched: u8,
}

impl RequestCounter {
    /// Looks through received bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.matched = match (self.matched, byte) {
                (0 | 2, b'\r') => self.matched + 1,
                (1, b'\n') => 2,
                (3, b'\n') => {
                    self.owed += 1;
                    0
                }
                (_, b'\r') => 1,
                _ => 0,
            };
        }
    }
}

/// Fixed replies, one after the other in memory that is never freed: the kernel sends from it.
pub struct Replies {
    bytes: &'static [u8],
    reply_bytes: usize,
}

impl Replies {
    /// A `200` with a body of so many bytes, as often as [`REPLIES_BYTES_MAX`] allows.
    pub fn new(body_bytes: usize) -> Self {
        let mut reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {body_bytes}\r\n\r\n"
        )
        .into_bytes();
        reply.resize(reply.len() + body_bytes, b'x');
        let copies = (REPLIES_BYTES_MAX / reply.len()).clamp(1, REPLIES_MAX);
        Self { bytes: reply.repeat(copies).leak(), reply_bytes: reply.len() }
    }

    /// The bytes that answer `owed` requests, or as many as are prepared, and how many that is.
    pub fn answer(&self, owed: u32) -> (&'static [u8], u32) {
        let count = (owed as usize).min(self.bytes.len() / self.reply_bytes);
        (&self.bytes[..count * self.reply_bytes], count as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_across_any_cut() {
        let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n\r\r\n\r\n";
        for cut in 0..=stream.len() {
            let mut counter = RequestCounter::default();
            counter.feed(&stream[..cut]);
            counter.feed(&stream[cut..]);
            assert_eq!(counter.owed, 3, "cut at {cut}");
        }
    }

    #[test]
    fn a_lone_line_end_is_no_request() {
        let mut counter = RequestCounter::default();
        counter.feed(b"GET / HTTP/1.1\r\nHost: a\r\n");
        assert_eq!(counter.owed, 0);
    }

    #[test]
    fn replies_are_whole_and_bounded() {
        let replies = Replies::new(1024);
        let (one, count) = replies.answer(1);
        assert_eq!(count, 1);
        assert!(one.starts_with(b"HTTP/1.1 200 OK\r\n") && one.ends_with(&[b'x'; 1024]));
        let (many, count) = replies.answer(1_000_000);
        assert_eq!(many.len(), count as usize * one.len());
        assert!(many.len() <= REPLIES_BYTES_MAX);
        assert_eq!(Replies::new(1024 * 1024).answer(2).1, 1);
    }
}
