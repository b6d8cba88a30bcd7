//! Replies: status line and header lines, written into a buffer that its owner reuses.

use super::conditional::Validators;
use super::date;
use super::media::media_type;
use super::status::Status;
use crate::site::headers::BuiltIn;

/// What a reply says about the connection's future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1 and another request may follow: nothing need be said.
    Implied,
    /// HTTP/1.0 and another request may follow: the client asked, so it is told.
    Stated,
    /// It ends after this reply.
    Close,
}

impl Persistence {
    const fn line(self) -> &'static [u8] {
        match self {
            Self::Implied => b"",
            Self::Stated => b"Connection: keep-alive\r\n",
            Self::Close => b"Connection: close\r\n",
        }
    }
}

/// The answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The methods of a file.
const ALLOW: &[u8] = b"Allow: GET, HEAD, OPTIONS\r\n";

/// A file that a reply describes.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// Its path, for the media type.
    pub path: &'a [u8],
    /// Its size.
    pub bytes: u64,
    /// Its version.
    pub validators: &'a Validators,
    /// The fields that rules replace.
    pub without: BuiltIn,
}

/// Replaces `out` with the head of a reply that sends a file, or the part of it from the first
/// byte of `part` to the last one.
pub fn file(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    file: &Described<'_>,
    part: Option<(u64, u64)>,
) {
    let status = if part.is_some() { Status::PartialContent } else { Status::Ok };
    begin(out, status, common, persistence);
    lines_of_file(out, file, part);
}

/// What [`file()`] ends a head of a whole file with: it can be kept, for [`whole`].
#[must_use]
pub fn lines_of_whole(file: &Described<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    lines_of_file(&mut lines, file, None);
    lines
}

/// Replaces `out` with the head of a reply that sends a whole file, of which the lines have been
/// kept.
pub fn whole(out: &mut Vec<u8>, common: &[u8], persistence: Persistence, about: &[u8]) {
    begin(out, Status::Ok, common, persistence);
    out.extend_from_slice(about);
}

/// Replaces `out` with the head of a reply of this status that sends a file as its page. It has no
/// validators, and no part of it can be asked for.
pub fn page(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    status: Status,
    path: &[u8],
    file_bytes: u64,
    without: BuiltIn,
) {
    begin(out, status, common, persistence);
    out.extend_from_slice(lines_of_status(status));
    if !without.has(BuiltIn::CONTENT_TYPE) {
        line(out, b"Content-Type: ", media_type(path).as_bytes());
    }
    number(out, b"Content-Length: ", file_bytes);
    out.extend_from_slice(b"\r\n");
}

/// Replaces `out` with the head of a reply with a content of its own.
pub fn content(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    media_type: &str,
    bytes: u64,
) {
    begin(out, Status::Ok, common, persistence);
    line(out, b"Content-Type: ", media_type.as_bytes());
    number(out, b"Content-Length: ", bytes);
    out.extend_from_slice(b"\r\n");
}

/// Replaces `out` with the head of a reply with several parts of a file: `length` bytes in all. The
/// lines of `common` name the media type.
pub fn parts(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    length: u64,
    validators: &Validators,
    without: BuiltIn,
) {
    begin(out, Status::PartialContent, common, persistence);
    number(out, b"Content-Length: ", length);
    if !without.has(BuiltIn::ACCEPT_RANGES) {
        out.extend_from_slice(b"Accept-Ranges: bytes\r\n");
    }
    validator_lines(out, validators, without);
    out.extend_from_slice(b"\r\n");
}

/// The lines that belong to a status.
const fn lines_of_status(status: Status) -> &'static [u8] {
    match status {
        Status::MethodNotAllowed => ALLOW,
        Status::Unavailable => b"Retry-After: 1\r\n",
        _ => b"",
    }
}

fn lines_of_file(out: &mut Vec<u8>, file: &Described<'_>, part: Option<(u64, u64)>) {
    let Described { path, bytes: file_bytes, validators, without } = *file;
    if !without.has(BuiltIn::CONTENT_TYPE) {
        line(out, b"Content-Type: ", media_type(path).as_bytes());
    }
    if let Some((first, last)) = part {
        number(out, b"Content-Length: ", last - first + 1);
        out.extend_from_slice(b"Content-Range: bytes ");
        decimal(out, first);
        out.push(b'-');
        decimal(out, last);
        number(out, b"/", file_bytes);
    } else {
        number(out, b"Content-Length: ", file_bytes);
    }
    if !without.has(BuiltIn::ACCEPT_RANGES) {
        out.extend_from_slice(b"Accept-Ranges: bytes\r\n");
    }
    validator_lines(out, validators, without);
    out.extend_from_slice(b"\r\n");
}

/// Replaces `out` with a 416 about a file of that size. Answers the bytes of its body.
pub fn unsatisfiable(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    file_bytes: u64,
) -> u64 {
    begin(out, Status::RangeNotSatisfiable, common, persistence);
    number(out, b"Content-Range: bytes */", file_bytes);
    end_with_text(out, Status::RangeNotSatisfiable, false)
}

/// Replaces `out` with a 304.
pub fn not_modified(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    validators: &Validators,
    without: BuiltIn,
) {
    begin(out, Status::NotModified, common, persistence);
    validator_lines(out, validators, without);
    out.extend_from_slice(b"\r\n");
}

/// Replaces `out` with a reply that has a small body of its own: the status in words. A 204 has
/// none. Answers the bytes of the body; for HEAD they are announced and not there.
pub fn plain(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    status: Status,
    is_head: bool,
) -> u64 {
    begin(out, status, common, persistence);
    if status == Status::NoContent {
        // RFC 9110, 8.6 forbids Content-Length.
        out.extend_from_slice(ALLOW);
        out.extend_from_slice(b"\r\n");
        return 0;
    }
    out.extend_from_slice(lines_of_status(status));
    end_with_text(out, status, is_head)
}

/// Replaces `out` with a redirect of this status; `location` appends where to.
pub fn moved(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    status: Status,
    is_head: bool,
    location: impl FnOnce(&mut Vec<u8>),
) -> u64 {
    begin(out, status, common, persistence);
    out.extend_from_slice(b"Location: ");
    location(out);
    out.extend_from_slice(b"\r\n");
    end_with_text(out, status, is_head)
}

/// A body made for one reply, and what is said about it.
#[derive(Clone, Debug)]
pub struct Made<'a> {
    /// The status.
    pub status: Status,
    /// Its `Content-Type`; `None`: there is no body, not even an empty one (204).
    pub media_type: Option<&'a str>,
    /// More header lines, each with its CRLF.
    pub lines: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// Replaces `out` with a reply that is not to be kept by caches.
pub fn made(
    out: &mut Vec<u8>,
    common: &[u8],
    persistence: Persistence,
    reply: &Made<'_>,
    is_head: bool,
) {
    begin(out, reply.status, common, persistence);
    out.extend_from_slice(b"Cache-Control: no-store\r\n");
    out.extend_from_slice(reply.lines.as_bytes());
    if let Some(media_type) = reply.media_type {
        line(out, b"Content-Type: ", media_type.as_bytes());
        number(out, b"Content-Length: ", reply.body.len() as u64);
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(reply.body);
    }
}

fn begin(out: &mut Vec<u8>, status: Status, common: &[u8], persistence: Persistence) {
    out.clear();
    line(out, b"HTTP/1.1 ", status.text().as_bytes());
    out.extend_from_slice(common);
    out.extend_from_slice(persistence.line());
}

fn end_with_text(out: &mut Vec<u8>, status: Status, is_head: bool) -> u64 {
    let text = status.explained().as_bytes();
    out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
    number(out, b"Content-Length: ", text.len() as u64 + 1);
    out.extend_from_slice(b"\r\n");
    if is_head {
        return 0;
    }
    out.extend_from_slice(text);
    out.push(b'\n');
    text.len() as u64 + 1
}

fn validator_lines(out: &mut Vec<u8>, validators: &Validators, without: BuiltIn) {
    if !without.has(BuiltIn::ETAG) {
        line(out, b"ETag: ", validators.tag());
    }
    let told = validators.modified_s().filter(|_| !without.has(BuiltIn::LAST_MODIFIED));
    let Some(modified_s) = told else { return };
    let start = out.len();
    out.extend_from_slice(b"Last-Modified: ");
    if date::append(modified_s, out) {
        out.extend_from_slice(b"\r\n");
    } else {
        out.truncate(start);
    }
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a header line with a number.
pub fn number(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    decimal(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal, without the machinery of `write!`.
pub fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringwright::files::{FileKind, FileStatus};

    const COMMON: &[u8] = b"Server: ringwright\r\n";

    fn file_reply(part: Option<(u64, u64)>) -> String {
        let kind = FileKind::Regular;
        let (modified_s, changed_s) = (784_111_777, 784_111_777);
        let (bytes, links, device, inode) = (100, 1, 1, 7);
        let (modified_ns, changed_ns) = (0, 0);
        let status = FileStatus {
            bytes,
            modified_s,
            modified_ns,
            changed_s,
            changed_ns,
            links,
            device,
            inode,
            kind,
        };
        let validators = Validators::of(&status, 784_111_778, true);
        let mut out = b"left over".to_vec();
        let without = BuiltIn::default();
        let described = Described { path: b"a.txt", bytes: 100, validators: &validators, without };
        file(&mut out, COMMON, Persistence::Close, &described, part);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_whole_file_a_part_and_nothing() {
        assert_eq!(
            file_reply(None),
            "HTTP/1.1 200 OK\r\nServer: ringwright\r\nConnection: close\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 100\r\n\
             Accept-Ranges: bytes\r\n\
             ETag: \"000000002ebc98a100000000-0000000000000064-0000000000000007\"\r\n\
             Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
        );
        let head = file_reply(Some((10, 19)));
        assert!(head.starts_with("HTTP/1.1 206 Partial Content\r\n"));
        assert!(head.contains("\r\nContent-Length: 10\r\nContent-Range: bytes 10-19/100\r\n"));
        let mut out = Vec::new();
        let body = unsatisfiable(&mut out, COMMON, Persistence::Implied, 100);
        let text = String::from_utf8(out).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 416 "));
        assert!(head.contains("\r\nContent-Range: bytes */100\r\n"));
        assert_eq!((rest, body), ("416 Range Not Satisfiable\n", rest.len() as u64));
    }

    #[test]
    fn replies_with_a_text() {
        for status in Status::ALL.into_iter().filter(|status| *status != Status::NoContent) {
            let mut out = Vec::new();
            let body = plain(&mut out, COMMON, Persistence::Implied, status, false);
            let text = String::from_utf8(out.clone()).unwrap();
            let (head, rest) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(rest, format!("{}\n", status.explained()));
            assert_eq!(rest.len() as u64, body);
            assert!(head.contains(&format!("\r\nContent-Length: {}", rest.len())));
            let allows = head.contains("\r\nAllow: GET, HEAD, OPTIONS");
            assert_eq!(allows, status == Status::MethodNotAllowed);
            assert_eq!(head.contains("Retry-After: "), status == Status::Unavailable);
            assert_eq!(plain(&mut out, COMMON, Persistence::Implied, status, true), 0);
            assert_eq!(
                out,
                format!("{head}\r\n\r\n").as_bytes(),
                "HEAD: the same without the body"
            );
        }
    }

    #[test]
    fn no_content_is_not_even_announced() {
        for is_head in [false, true] {
            let mut out = b"left over".to_vec();
            let status = Status::NoContent;
            assert_eq!(plain(&mut out, COMMON, Persistence::Implied, status, is_head), 0);
            let expected = "HTTP/1.1 204 No Content\r\nServer: ringwright\r\n\
                            Allow: GET, HEAD, OPTIONS\r\n\r\n";
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn replies_made_for_the_moment() {
        let page = Made {
            status: Status::Ok,
            media_type: Some("text/html"),
            lines: "X: y\r\n",
            body: b"<p>",
        };
        let mut out = b"left over".to_vec();
        made(&mut out, COMMON, Persistence::Close, &page, false);
        let head = "HTTP/1.1 200 OK\r\nServer: ringwright\r\nConnection: close\r\n\
                    Cache-Control: no-store\r\nX: y\r\nContent-Type: text/html\r\n\
                    Content-Length: 3\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), format!("{head}<p>"));
        made(&mut out, COMMON, Persistence::Close, &page, true);
        assert_eq!(String::from_utf8_lossy(&out), head);
        let nothing = Made { status: Status::NoContent, media_type: None, lines: "", body: b"" };
        made(&mut out, COMMON, Persistence::Implied, &nothing, false);
        let text = String::from_utf8_lossy(&out);
        assert!(text.ends_with("Cache-Control: no-store\r\n\r\n"), "RFC 9110, 8.6: {text}");
    }

    #[test]
    fn persistence_is_said_where_it_is_not_implied() {
        for (persistence, said) in [
            (Persistence::Implied, None),
            (Persistence::Stated, Some("Connection: keep-alive")),
            (Persistence::Close, Some("Connection: close")),
        ] {
            let mut out = Vec::new();
            let status = Status::MovedPermanently;
            moved(&mut out, COMMON, persistence, status, true, |out| out.extend_from_slice(b"/a/"));
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().find(|line| line.starts_with("Connection")), said);
            assert!(text.contains("\r\nLocation: /a/\r\n"));
        }
    }

    proptest! {
        #[test]
        fn decimals(value: u64) {
            let mut out = Vec::new();
            decimal(&mut out, value);
            prop_assert_eq!(out, value.to_string().into_bytes());
        }
    }
}
