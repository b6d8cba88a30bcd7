//! A strict parser for the head of a response (RFC 9112 sections 2 to 6).

use std::fmt;

/// Maximum size of a head or of a trailer section. Servers typically stay below 8 KiB; proxies that
/// add policies and cookies do not.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// The framing of a body (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

/// The parts of a head that the client needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code, 100 to 599.
    pub status: u16,
    /// The framing of the body.
    pub framing: Framing,
    /// The server will close the connection after this response.
    pub close: bool,
}

impl Head {
    /// Returns true for a 1xx response; the final response follows.
    #[must_use]
    pub const fn is_interim(self) -> bool {
        self.status < 200
    }
}

/// A violation of RFC 9112 in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

/// Progress in a section of lines that arrives in parts, so that no byte is searched twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Beginning of the current line.
    line: usize,
    /// Number of bytes that contain no further LF.
    seen: usize,
}

impl Scan {
    /// Creates a scan for a new section.
    #[must_use]
    pub const fn new() -> Self {
        Self { line: 0, seen: 0 }
    }

    /// Returns the length of the section including the empty line that ends it, or `None` if it is
    /// incomplete. `bytes` are those of the previous call, followed by more.
    ///
    /// # Errors
    /// A line ends in a bare LF, or the section has more than [`HEAD_BYTES_MAX`] bytes. The result
    /// does not depend on how the section is divided.
    pub fn section_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let bytes = &bytes[..bytes.len().min(HEAD_BYTES_MAX + 1)];
        while let Some(end) = self.line_end(bytes) {
            if end - self.line < 2 || bytes[end - 2] != b'\r' {
                return Err(Malformed("a line ends in a bare LF"));
            }
            if end > HEAD_BYTES_MAX {
                break;
            }
            let is_empty = end - self.line == 2;
            self.line = end;
            if is_empty {
                return Ok(Some(end));
            }
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(Malformed("the head is longer than 64 KiB"));
        }
        Ok(None)
    }

    /// Returns the end of the next line, behind its LF.
    pub fn line_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let found = bytes[self.seen..].iter().position(|byte| *byte == b'\n');
        self.seen = found.map_or(bytes.len(), |at| self.seen + at + 1);
        found.map(|_| self.seen)
    }
}

/// The beginning of every response.
const VERSION: &[u8] = b"HTTP/1.";

/// Rejects bytes of another protocol early: its greeting may never contain the end of a head.
///
/// # Errors
/// The first bytes are not those of a status line.
pub fn check_beginning(bytes: &[u8]) -> Result<(), Malformed> {
    let seen = bytes.len().min(VERSION.len());
    if bytes[..seen] == VERSION[..seen] {
        Ok(())
    } else {
        Err(Malformed("the received data is not an HTTP/1.x response"))
    }
}

/// Parses a complete head: status line, fields, empty line. `to_head` tells that the request was a
/// HEAD.
///
/// # Errors
/// The first violation of RFC 9112, or a response that is not allowed for a plain GET.
pub fn parse(head: &[u8], to_head: bool) -> Result<Head, Malformed> {
    let mut lines = Lines(head);
    let (status, minor) = status_line(lines.next().unwrap_or_default())?;
    if status == 101 {
        return Err(Malformed("the status is 101, but no Upgrade was requested"));
    }
    let mut announced = Announced { minor, length: None, chunked: false, wrong: None };
    let mut close = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            announced.length(value);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            announced.coding(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split(|byte| *byte == b',') {
                match option.trim_ascii() {
                    option if option.eq_ignore_ascii_case(b"close") => close = Some(true),
                    option if option.eq_ignore_ascii_case(b"keep-alive") => {
                        close = close.or(Some(false));
                    }
                    _ => {}
                }
            }
        }
    }
    // These end at the head, whatever they announce (RFC 9112 section 6.3, rule 1).
    let is_bodiless = to_head || status < 200 || status == 204 || status == 304;
    let framing = if is_bodiless { Framing::Length(0) } else { announced.framing()? };
    let close = framing == Framing::UntilClose || close.unwrap_or(minor == 0);
    Ok(Head { status, framing, close })
}

/// Checks a complete trailer section.
///
/// # Errors
/// A line is not a field.
pub fn check_trailers(section: &[u8]) -> Result<(), Malformed> {
    Lines(section).take_while(|line| !line.is_empty()).try_for_each(|line| field(line).map(|_| ()))
}

/// The fields of a head that determine the framing of a body.
struct Announced {
    minor: u8,
    length: Option<u64>,
    chunked: bool,
    /// The first violation. A response without a body ignores it.
    wrong: Option<Malformed>,
}

impl Announced {
    fn length(&mut self, value: &[u8]) {
        match decimal(value) {
            Ok(length) => {
                if self.length.replace(length).is_some() {
                    let more = Malformed("the response has more than one Content-Length");
                    self.wrong.get_or_insert(more);
                }
            }
            Err(wrong) => {
                self.wrong.get_or_insert(wrong);
            }
        }
    }

    fn coding(&mut self, value: &[u8]) {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            let other = Malformed("the response has a transfer coding other than chunked");
            self.wrong.get_or_insert(other);
        }
        self.chunked = true;
    }

    /// Determines the framing of the body (RFC 9112 section 6.3).
    fn framing(self) -> Result<Framing, Malformed> {
        match (self.wrong, self.length, self.chunked) {
            (Some(wrong), ..) => Err(wrong),
            (_, Some(_), true) => {
                Err(Malformed("the response has both Content-Length and Transfer-Encoding"))
            }
            (_, None, true) if self.minor == 0 => {
                Err(Malformed("an HTTP/1.0 response has Transfer-Encoding"))
            }
            (_, Some(length), false) => Ok(Framing::Length(length)),
            (_, None, true) => Ok(Framing::Chunked),
            (_, None, false) => Ok(Framing::UntilClose),
        }
    }
}

/// Iterates over lines and removes the CR LF at their end.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        Some(line.strip_suffix(b"\r\n").unwrap_or(line))
    }
}

/// Parses a status line: `HTTP/1.1 200 OK` becomes (200, 1).
fn status_line(line: &[u8]) -> Result<(u16, u8), Malformed> {
    let wrong = Malformed("the status line does not consist of HTTP/1.x, a code and a reason");
    let rest = line.strip_prefix(VERSION).ok_or(wrong)?;
    let [minor @ (b'0' | b'1'), b' ', a @ b'1'..=b'5', b, c, rest @ ..] = rest else {
        return Err(wrong);
    };
    if !b.is_ascii_digit() || !c.is_ascii_digit() {
        return Err(wrong);
    }
    // RFC 9112 section 4 requires the space before an empty reason, but many servers omit it.
    if !rest.is_empty() && (rest[0] != b' ' || !rest.iter().copied().all(is_text)) {
        return Err(wrong);
    }
    let digit = |byte: u8| u16::from(byte - b'0');
    Ok((digit(*a) * 100 + digit(*b) * 10 + digit(*c), minor - b'0'))
}

/// Splits `Name: value` and trims the white space around the value.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if matches!(line[0], b' ' | b'\t') {
        return Err(Malformed("a header field is folded over two lines"));
    }
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(Malformed("a header field has no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Malformed("a header field has an invalid name"));
    }
    if !value.iter().copied().all(is_text) {
        return Err(Malformed("a header field contains a control character"));
    }
    Ok((name, value.trim_ascii()))
}

/// Parses 1*DIGIT into 64 bits.
fn decimal(value: &[u8]) -> Result<u64, Malformed> {
    let wrong = Malformed("Content-Length is not a number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(wrong)
}

/// Returns true if a byte may be part of a token, such as a field name (RFC 9110 section 5.6.2).
#[must_use]
pub const fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        || byte.is_ascii_alphanumeric()
}

/// Returns true if a byte may be part of a field value or a reason (RFC 9110 section 5.5).
#[must_use]
pub const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section_end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        Scan::new().section_end(bytes)
    }

    fn read(head: &str) -> Result<Head, Malformed> {
        assert_eq!(section_end(head.as_bytes()), Ok(Some(head.len())), "{head:?}");
        parse(head.as_bytes(), false)
    }

    #[test]
    fn framing_and_persistence_follow_the_fields() {
        for (head, status, framing, close) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, Framing::Length(5), false),
            ("HTTP/1.1 200\r\ncontent-length:0\r\n\r\n", 200, Framing::Length(0), false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", 200, Framing::Chunked, false),
            ("HTTP/1.1 200 OK\r\n\r\n", 200, Framing::UntilClose, true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", 200, Framing::Length(5), true),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n",
                200,
                Framing::Length(5),
                false,
            ),
            (
                "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: foo, CLOSE\r\n\r\n",
                404,
                Framing::Length(9),
                true,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, Framing::Length(0), false),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 78\r\n\r\n",
                304,
                Framing::Length(0),
                false,
            ),
            ("HTTP/1.1 100 Continue\r\n\r\n", 100, Framing::Length(0), false),
        ] {
            assert_eq!(read(head), Ok(Head { status, framing, close }), "{head:?}");
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        for head in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        ] {
            assert!(read(head).is_err(), "{head:?}");
        }
    }

    #[test]
    fn a_response_without_a_body_ends_at_its_head_whatever_it_announces() {
        for announced in [
            "",
            "Content-Length: 0\r\n",
            "Content-Length: 78\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: gzip\r\n",
            "Content-Length: x\r\nContent-Length: y\r\n",
        ] {
            for (status, to_head) in
                [(100, false), (103, false), (204, false), (304, false), (200, true), (404, true)]
            {
                let head = format!("HTTP/1.1 {status} X\r\n{announced}\r\n");
                let must = Head { status, framing: Framing::Length(0), close: false };
                assert_eq!(parse(head.as_bytes(), to_head), Ok(must), "{head:?}");
            }
        }
        let close = b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n";
        assert!(parse(close, false).is_ok_and(|head| head.close));
    }

    #[test]
    fn trailers_are_fields() {
        assert_eq!(check_trailers(b"\r\n"), Ok(()));
        assert_eq!(check_trailers(b"A: b\r\nC:\r\n\r\n"), Ok(()));
        for section in [&b"no colon\r\n\r\n"[..], b"A : b\r\n\r\n", b"A: b\r\n c\r\n\r\n"] {
            assert!(check_trailers(section).is_err());
        }
    }

    /// Finds the end of a section that arrives one byte at a time.
    #[test]
    fn the_limit_of_a_head_does_not_depend_on_its_parts() {
        for more in [-1_isize, 0, 1, 2, 3] {
            let length = HEAD_BYTES_MAX.strict_add_signed(more);
            let mut head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
            head.resize(length - 4, b'x');
            head.extend_from_slice(b"\r\n\r\n");
            let mut scan = Scan::new();
            let parts = (1..=length).map(|end| scan.section_end(&head[..end]));
            let end = parts.take_while(|part| part.is_ok()).last().expect("a part");
            let must = if more > 0 { None } else { Some(length) };
            assert_eq!(section_end(&head).unwrap_or(None), must, "{more}");
            assert_eq!(end, Ok(must), "{more}");
        }
    }

    #[test]
    fn another_protocol_is_known_by_its_first_byte() {
        for bytes in [&b""[..], b"H", b"HTTP/1.", b"HTTP/1.1 200 OK\r\n"] {
            assert_eq!(check_beginning(bytes), Ok(()));
        }
        for bytes in [&b"2"[..], b"HX", b"HTTP/2 200\r\n", b"\r\n", b"SSH-2.0-x\r\n"] {
            assert!(check_beginning(bytes).is_err());
        }
    }

    #[test]
    fn a_section_ends_at_its_empty_line_and_nowhere_else() {
        assert_eq!(section_end(b"a: b\r\n\r\nrest"), Ok(Some(8)));
        assert_eq!(section_end(b"\r\nrest"), Ok(Some(2)));
        assert_eq!(section_end(b"a: b\r\n\r"), Ok(None));
        assert_eq!(section_end(b""), Ok(None));
        assert!(section_end(b"a: b\n\n").is_err());
        assert!(section_end(b"\n").is_err());
        assert_eq!(section_end(&[b'a'; HEAD_BYTES_MAX]), Ok(None));
        assert!(section_end(&[b'a'; HEAD_BYTES_MAX + 1]).is_err());
    }
}
