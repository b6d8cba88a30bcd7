//! A small HTTP server of three files, with one switch per bug.

use super::reset_on_close;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The bug of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesBug {
    /// Nothing.
    None,
    /// Ends the connection in the middle of a large file, from the second request of a connection
    /// on.
    CutsFiles,
    /// Answers with another file, as if it were another connection's, from the second request of a
    /// connection on.
    AnswersAnother,
    /// Takes a client's FIN for its end, and resets instead of answering.
    ResetsOnHalfClose,
    /// Closes with a request's body unread, which destroys what is left of its reply.
    ClosesUnread,
    /// Says `Connection: close`, and does not close.
    ForgetsToClose,
}

/// The paths of its files.
pub const PATHS: [&str; 3] = ["/a", "/b", "/large"];
/// Longest wait for a FIN right behind a request.
const FIN_TIME: Duration = Duration::from_millis(20);

/// Starts it.
pub fn files(bug: FilesBug) -> SocketAddr {
    super::server(move |stream: TcpStream| {
        stream.set_nodelay(true).expect("a TCP socket");
        // Errors are caused by the client.
        let _ = serve(stream, bug);
    })
}

fn content(path: &str) -> Option<Vec<u8>> {
    let (salt, length): (u64, usize) = match path {
        "/a" => (1, 3_000),
        "/b" => (2, 5_000),
        "/large" => (3, 1_500_000),
        _ => return None,
    };
    // Xorshift: no sixteen bytes occur twice.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(salt);
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut word).take(length / 8).flatten().collect();
    bytes.truncate(length);
    Some(bytes)
}

/// Answers one request after the other. The first of a connection is answered well: by that the
/// client has learnt what is right.
fn serve(mut stream: TcpStream, bug: FilesBug) -> std::io::Result<()> {
    let mut unread = Vec::new();
    for number in 0_u64.. {
        let Some(head) = head(&mut stream, &mut unread)? else { return Ok(()) };
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let is_turn = number > 0;
        let path = match path {
            "/a" if bug == FilesBug::AnswersAnother && is_turn && method == "GET" => "/b",
            path => path,
        };
        let is_good = head.contains("\r\nHost: ") && head.matches("\r\nContent-Length").count() < 2;
        let Some(body) = content(path).filter(|_| is_good) else {
            return refuse(stream);
        };
        if bug == FilesBug::ResetsOnHalfClose && unread.is_empty() && has_ended(&stream)? {
            reset_on_close(&stream);
            return Ok(());
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
        let closes = bug == FilesBug::ClosesUnread && length > 0;
        if !closes {
            while unread.len() < length {
                if read(&mut stream, &mut unread)? == 0 {
                    return Ok(());
                }
            }
            unread.drain(..length);
        }
        let says_close = closes || (bug == FilesBug::ForgetsToClose && is_turn);
        let close = if says_close { "Connection: close\r\n" } else { "" };
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{close}\r\n");
        stream.write_all(head.as_bytes())?;
        let body: &[u8] = if method == "HEAD" { &[] } else { &body };
        if bug == FilesBug::CutsFiles && path == "/large" && is_turn && !body.is_empty() {
            stream.write_all(&body[..body.len() / 2])?;
            return end(stream);
        }
        stream.write_all(body)?;
        if closes {
            return Ok(());
        }
        if says_close {
            std::thread::sleep(super::RUN_MAX);
        }
    }
    Ok(())
}

/// The next head; `None` at the client's end.
fn head(stream: &mut TcpStream, unread: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    loop {
        if let Some(end) = unread.windows(4).position(|part| part == b"\r\n\r\n") {
            let head: Vec<u8> = unread.drain(..end + 4).collect();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if unread.first().is_some_and(|byte| !byte.is_ascii_uppercase())
            || (unread.contains(&b'\n') && !unread.contains(&b'\r'))
        {
            return Ok(Some(String::new()));
        }
        if read(stream, unread)? == 0 {
            return Ok(None);
        }
    }
}

fn read(stream: &mut TcpStream, into: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut bytes = [0; 1 << 14];
    let count = loop {
        match stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    into.extend_from_slice(&bytes[..count]);
    Ok(count)
}

/// A FIN that nothing unread turns into a reset.
fn end(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    while read(&mut stream, &mut Vec::new())? > 0 {}
    Ok(())
}

/// 400, and a close that lets it be read.
fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
    end(stream)
}

/// Returns true if the client's FIN is next.
fn has_ended(stream: &TcpStream) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(FIN_TIME))?;
    let ended = matches!(stream.peek(&mut [0]), Ok(0));
    stream.set_read_timeout(None)?;
    Ok(ended)
}
