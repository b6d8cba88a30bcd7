//! Mutated requests: what the daemon reads in them must not depend on how they are split.

use crate::beside_nginx::{site, valid_requests};
use crate::common::{Modes, PATIENCE, Server};
use ringwrightd::http::incoming::{Event, Incoming};
use ringwrightd_test_support::scale::scaled;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Longer requests are left out: every byte of a request is a piece of its own once.
const REQUEST_BYTES_MAX: usize = 400;

/// Bytes that mean something somewhere in a request.
const TOKENS: [&[u8]; 24] = [
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\"",
    b"\\",
    b"/",
    b"%",
    b"\0",
    b"\x80",
    b"0",
    b"5",
    b"f",
    b"..",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"chunked",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.1",
];

/// The xorshift generator of Marsaglia: the same mutations on every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// One request or two, with up to three changes.
    fn mutated(&mut self, requests: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = requests[self.below(requests.len())].clone();
        if self.below(2) == 0 {
            bytes.extend_from_slice(&requests[self.below(requests.len())]);
        }
        for _ in 0..self.below(4) {
            self.mutate(&mut bytes, &TOKENS);
        }
        bytes
    }

    /// Changes something somewhere.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>, tokens: &[&[u8]]) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(9)).min(bytes.len());
        match self.below(5) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            2 => drop(bytes.splice(at..at, tokens[self.below(tokens.len())].to_vec())),
            3 => drop(bytes.splice(at..end, tokens[self.below(tokens.len())].to_vec())),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
        }
    }

    /// Where the pieces of `length` bytes end.
    pub fn cuts(&mut self, length: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = (0..=self.below(4)).map(|_| self.below(length + 1)).collect();
        cuts.sort_unstable();
        cuts
    }
}

fn short_requests() -> Vec<Vec<u8>> {
    let requests = valid_requests().filter(|it| it.len() <= REQUEST_BYTES_MAX).collect::<Vec<_>>();
    assert!(requests.len() > 80, "only {} requests", requests.len());
    requests
}

/// Requests, bodies and refusals, and how many bytes were consumed by then.
fn story(bytes: &[u8], cuts: &[usize]) -> Vec<(usize, Event)> {
    let mut incoming = Incoming::default();
    let mut consumed = 0;
    let mut story = Vec::new();
    for &end in cuts.iter().chain([&bytes.len()]) {
        loop {
            let (count, event) = incoming.advance(&bytes[consumed..end]);
            consumed += count;
            if event == Event::More {
                break;
            }
            // The connection ends here, so the bytes consumed of a refused request do not matter.
            if let Event::Refused(_) = event {
                story.push((usize::from(incoming.is_head()), event));
                return story;
            }
            story.push((consumed, event));
        }
    }
    story
}

#[test]
fn mutated_requests_are_read_alike_whole_and_split() {
    let requests = short_requests();
    let mut random = Random(20_261_129);
    let mut refused = 0;
    let count = scaled(500_000);
    for number in 0..count {
        let bytes = random.mutated(&requests);
        let whole = story(&bytes, &[]);
        let cuts = random.cuts(bytes.len());
        let shown = bytes.escape_ascii();
        assert_eq!(story(&bytes, &cuts), whole, "number {number}, cuts {cuts:?}: {shown}");
        let every: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(story(&bytes, &every), whole, "number {number}, byte by byte: {shown}");
        refused += usize::from(matches!(whole.last(), Some((_, Event::Refused(_)))));
    }
    // The mutations are neither harmless nor hopeless.
    assert!((count / 5..count / 5 * 4).contains(&refused), "{refused} of {count} refused");
}

#[test]
fn mutated_requests_are_answered_alike_whole_and_split() {
    let site = site();
    let server = Server::http_with_admin(site.path(), &[]);
    let address = server.address;
    wait_for_strong_tags(&server);
    let admin = server.admin.unwrap();
    thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || compare_on_the_wire(address, seed, scaled(90_000) / 4));
        }
    });
    compare_on_the_wire(admin, 5, scaled(10_000));
    server.stop().cleanly();
}

/// A file that has just been written has another tag for a moment.
fn wait_for_strong_tags(server: &Server) {
    let give_up = Instant::now() + PATIENCE;
    while !server.get("/next", "").field("etag").starts_with('"') {
        assert!(Instant::now() < give_up, "the tag stays weak");
        thread::sleep(Duration::from_millis(5));
    }
}

fn compare_on_the_wire(address: SocketAddr, seed: u64, count: usize) {
    let requests = short_requests();
    let mut random = Random(seed);
    for number in 0..count {
        let bytes = random.mutated(&requests);
        let whole = exchange(address, &bytes, &[]);
        let cuts = random.cuts(bytes.len());
        let split = exchange(address, &bytes, &cuts);
        let shown = bytes.escape_ascii();
        assert_eq!(split, whole, "seed {seed}, number {number}, cuts {cuts:?}: {shown}");
    }
}

/// Sends `bytes` in pieces that end at `cuts`.
pub fn send_pieces(stream: &mut TcpStream, bytes: &[u8], cuts: &[usize]) -> io::Result<()> {
    let mut start = 0;
    for &end in cuts.iter().chain([&bytes.len()]) {
        if start > 0 {
            // Otherwise the daemon would often receive the pieces together.
            thread::sleep(Duration::from_micros(100));
        }
        stream.write_all(&bytes[start..end])?;
        start = end;
    }
    Ok(())
}

/// All that the daemon sends until its FIN, without the lines that name the time, and without the
/// interim answers, which depend on whether a body has come with its head.
fn exchange(address: SocketAddr, bytes: &[u8], cuts: &[usize]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    send_pieces(&mut stream, bytes, cuts).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    let lines = received.split_inclusive(|&byte| byte == b'\n');
    let kept: Vec<&[u8]> = lines.filter(|line| !line.starts_with(b"Date: ")).collect();
    kept.concat().escape_ascii().to_string().replace(r"HTTP/1.1 100 Continue\r\n\r\n", "")
}
