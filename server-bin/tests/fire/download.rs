//! Downloads over HTTP, as far as a client takes them.

use ringwrightd_test_support::socket;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Asks for a file.
pub fn ask(stream: &mut TcpStream, name: &str) -> io::Result<()> {
    stream.write_all(format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

/// A reply whose head has been read.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body_bytes: u64,
    /// What came of the body with the head.
    pub begun: Vec<u8>,
}

/// Reads a reply's head.
#[track_caller]
pub fn head(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let mut more = [0; 1024];
        let read = stream.read(&mut more).unwrap();
        assert!(read > 0, "the end after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&more[..read]);
    };
    let begun = bytes.split_off(end);
    let head = String::from_utf8(bytes).unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
    });
    match (status, length) {
        (Some(status), Some(body_bytes)) => Reply { status, body_bytes, begun },
        _ => panic!("another head: {head:?}"),
    }
}

/// Asks for a file and reads the whole reply.
#[track_caller]
pub fn fetch(stream: &mut TcpStream, name: &str) -> (u16, Vec<u8>) {
    ask(stream, name).unwrap();
    body(stream)
}

/// Reads a reply that was asked for.
#[track_caller]
pub fn body(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let Reply { status, body_bytes, begun: mut body } = head(stream);
    let begun = body.len();
    body.resize(body_bytes as usize, 0);
    stream.read_exact(&mut body[begun..]).unwrap();
    (status, body)
}

/// Takes so many bytes more than are already there.
pub fn widen(stream: &TcpStream, bytes: i32) {
    socket::set(stream, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes).unwrap();
}

/// Bytes that have arrived and were not read.
pub fn unread(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one number.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(result, 0, "FIONREAD: {}", io::Error::last_os_error());
    bytes as usize
}
