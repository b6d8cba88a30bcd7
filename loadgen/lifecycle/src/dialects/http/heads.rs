//! The fields of a response that the oracle needs.

use crate::http::head;

/// A head, with the fields that do not determine its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// `Content-Range: bytes FIRST-LAST/SIZE`.
    pub range: Option<(u64, u64, u64)>,
    /// The server has announced that it answers nothing more on this connection.
    pub close: bool,
    /// The `Server` field is `ringwright`.
    pub is_ours: bool,
}

impl Head {
    /// Reads the further fields of a parsed head from its bytes.
    pub fn new(parsed: head::Head, section: &[u8]) -> Self {
        let head::Head { status, close, .. } = parsed;
        let mut head = Self { status, length: None, range: None, close, is_ours: false };
        for (name, value) in fields(section) {
            if name.eq_ignore_ascii_case(b"content-length") {
                head.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            } else if name.eq_ignore_ascii_case(b"content-range") {
                head.range = content_range(value);
            } else if name.eq_ignore_ascii_case(b"server") {
                head.is_ours = value == b"ringwright";
            }
        }
        head
    }
}

/// Returns the fields of a well-formed head.
fn fields(section: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    section.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Parses `Content-Range` with a size (RFC 9110 section 14.4).
fn content_range(value: &[u8]) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(value).ok()?.strip_prefix("bytes ")?;
    let (range, size) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_fields_are_read() {
        let read = |section: &str| {
            let parsed = head::parse(section.as_bytes(), false).expect("a head");
            let Head { status, length, range, close, is_ours } =
                Head::new(parsed, section.as_bytes());
            format!("{status} {length:?} {range:?} {close} {is_ours}")
        };
        for (section, fields) in [
            ("200 OK\r\nContent-Length: 5\r\nServer: ringwright", "200 Some(5) None false true"),
            ("206 Part\r\ncontent-range: bytes 2-4/9", "206 None Some((2, 4, 9)) true false"),
            ("404 No\r\nContent-Length: 0\r\nConnection: close", "404 Some(0) None true false"),
            ("200 OK\r\nServer: ringwright/2", "200 None None true false"),
        ] {
            assert_eq!(read(&format!("HTTP/1.1 {section}\r\n\r\n")), fields, "{section}");
        }
    }
}
