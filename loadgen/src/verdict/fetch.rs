//! A minimal HTTP/1.1 client for one GET, with limits on time and size.

use ringload_lifecycle::http::reading::Event;
use ringload_lifecycle::http::{Url, blocking};
use ringload_lifecycle::route::{self, Route};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Timeout of the connect, and of the whole answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum size of an answer; a ledger has a few thousand bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The reason why nothing could be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No server answers at the address.
    Unreachable(String),
    /// The answer is not the expected one.
    Wrong(String),
}

impl Refusal {
    /// Returns the message.
    #[must_use]
    pub fn text(&self) -> &str {
        let (Self::Unreachable(text) | Self::Wrong(text)) = self;
        text
    }
}

/// Requests `path` from the server of `url` and returns the body of a 200.
///
/// # Errors
/// The server is unreachable, or answers differently.
pub fn get(url: &Url, path: &str) -> Result<Vec<u8>, Refusal> {
    let address = &url.address;
    let unreachable = |what: String| Refusal::Unreachable(format!("http://{address}: {what}"));
    let to = route::resolve(address, Route::default()).map_err(Refusal::Unreachable)?;
    let deadline = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)
        .map_err(|error| unreachable(error.to_string()))?;
    let failed = |error: std::io::Error| unreachable(error.to_string());
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.host);
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut body = Vec::new();
    let received = blocking::receive(&mut Deadline { stream, deadline }, |event| match event {
        Event::Head(head, _) if head.status != 200 => Err(format!("status {}", head.status)),
        Event::Body(part) if body.len() + part.len() > ANSWER_BYTES_MAX => {
            Err("the reply is larger than 1 MiB".into())
        }
        Event::Body(part) => {
            body.extend_from_slice(part);
            Ok(())
        }
        Event::Head(..) | Event::More | Event::End => Ok(()),
    });
    match received {
        Ok(()) => Ok(body),
        Err(blocking::Failure::Stream(error)) => Err(failed(error)),
        Err(blocking::Failure::Response(what)) => {
            Err(Refusal::Wrong(format!("http://{address}{path}: {what}")))
        }
    }
}

/// A stream that must be read before a deadline.
struct Deadline {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Deadline {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("no complete reply within {PATIENCE:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, what));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(into) {
                // The timeout has expired (socket(7), SO_RCVTIMEO).
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::{Shutdown, TcpListener};

    fn answered(answer: &'static str) -> Result<Vec<u8>, Refusal> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut head = [0; 1 << 10];
            let count = stream.read(&mut head).expect("a request");
            stream.write_all(answer.as_bytes()).expect("it is small");
            String::from_utf8_lossy(&head[..count]).into_owned()
        });
        let got = get(&url.parse().expect("a URL"), "/ledger");
        let request = server.join().expect("no panic");
        assert!(request.starts_with("GET /ledger HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        got
    }

    #[test]
    fn a_body_is_fetched_and_anything_else_is_named() {
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(answered(good), Ok(b"{}".to_vec()));
        assert_eq!(answered("HTTP/1.0 200 OK\r\n\r\n{}"), Ok(b"{}".to_vec()));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert_eq!(answered(chunked), Ok(b"{}".to_vec()));
        for (answer, says) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "/ledger: status 404"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", "before the reply was complete"),
            ("SSH-2.0-x\r\n\r\n", "HTTP"),
            ("HTTP/1.1\r\n\r\n", "status"),
            ("", "before the reply was complete"),
        ] {
            let error = answered(answer).expect_err(answer);
            assert!(matches!(&error, Refusal::Wrong(text) if text.contains(says)), "{error:?}");
        }
    }

    #[test]
    fn nobody_there_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        // A close would not do: a process of another test may hold a copy of the descriptor.
        SockRef::from(&listener).shutdown(Shutdown::Read).expect("it listens");
        let error = get(&url.parse().expect("a URL"), "/ledger").expect_err("nobody listens");
        assert!(matches!(error, Refusal::Unreachable(_)), "{error:?}");
    }
}
