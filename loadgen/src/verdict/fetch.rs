//! A minimal HTTP/1.1 client for one GET, with limits on time and size.

use ringload_lifecycle::http::Url;
use ringload_lifecycle::route::{self, Route};
use ringload_lifecycle::units::show_text;
use std::io::{ErrorKind, Read, Write};
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
    let (mut answer, mut part) = (Vec::new(), [0; 1 << 14]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(unreachable(format!("no complete reply within {PATIENCE:?}")));
        }
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The timeout has expired (socket(7), SO_RCVTIMEO).
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
        // Some servers ignore `Connection: close`.
        if is_complete(&answer) {
            break;
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(Refusal::Wrong(format!(
                "http://{address}{path}: the reply is larger than 1 MiB"
            )));
        }
    }
    body(answer).map_err(|what| Refusal::Wrong(format!("http://{address}{path}: {what}")))
}

/// Returns true if the body has reached its announced length.
fn is_complete(answer: &[u8]) -> bool {
    head_end(answer).is_some_and(|end| {
        let head = String::from_utf8_lossy(&answer[..end]);
        let length = field(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
        length.is_some_and(|length| answer.len() - end >= length)
    })
}

fn head_end(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|part| part == b"\r\n\r\n").map(|at| at + 4)
}

fn field(head: &str, name: &str) -> Option<String> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_string())
    })
}

fn body(mut answer: Vec<u8>) -> Result<Vec<u8>, String> {
    let no_http = "the reply is not HTTP";
    let body = answer.split_off(head_end(&answer).ok_or(no_http)?);
    let head = String::from_utf8_lossy(&answer);
    let status = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1."));
    match status.and_then(|rest| rest.get(2..5)) {
        Some("200") => {}
        Some(other) => return Err(format!("status {}", show_text(other))),
        None => return Err(no_http.into()),
    }
    if field(&head, "transfer-encoding").is_some() {
        return Err("the reply is chunked, which is not supported here".into());
    }
    match field(&head, "content-length").map(|length| length.parse::<usize>()) {
        Some(Ok(length)) if body.len() == length => Ok(body),
        Some(_) => Err("the body length differs from Content-Length".into()),
        None => Ok(body),
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
        for (answer, says) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "/ledger: status 404"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", "differs from Content-Length"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "is chunked"),
            ("SSH-2.0-x\r\n\r\n", "not HTTP"),
            ("HTTP/1.1\r\n\r\n", "not HTTP"),
            ("", "not HTTP"),
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
