//! Request bodies. Nobody wants them here: they are read to find where the next request begins,
//! and thrown away.

use super::fields::is_token_byte;
use super::status::Status;
use super::{BODY_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// How a request's body is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes, more than zero.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A body being thrown away.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// So many bytes are left.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
}

impl Body {
    /// What the framing announces; `None`: nothing to read.
    #[must_use]
    pub const fn new(framing: Framing) -> Option<Self> {
        match framing {
            Framing::None => None,
            Framing::Length(bytes) => Some(Self::Length(bytes)),
            Framing::Chunked => Some(Self::Chunked(Chunks::NEW)),
        }
    }

    /// Takes what belongs to the body. How many bytes that were, and whether it is at its end.
    ///
    /// # Errors
    /// 400, 413, 431: the connection cannot go on.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), Status> {
        match self {
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok((taken, *left == 0))
            }
            Self::Chunked(chunks) => chunks.advance(bytes),
        }
    }
}

/// A chunked body (RFC 9112, 7.1), read strictly: CRLF only, and white space only where the grammar
/// of the extensions has it.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    expected: Expected,
    /// Bytes left of the chunk, or its size while that is being read.
    chunk_bytes: u64,
    /// Bytes of the chunk line, or of the trailer section, so far.
    line_bytes: u32,
    /// Bytes of the body so far, framing included.
    body_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    FirstDigit,
    Digit,
    /// White space, and then the semicolon of an extension.
    Semicolon,
    NameStart,
    Name,
    /// White space, and then the value of the extension or the next extension.
    EqualsSign,
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    QuotedEnd,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    FinalLineFeed,
    Nothing,
}

impl Chunks {
    const NEW: Self =
        Self { expected: Expected::FirstDigit, chunk_bytes: 0, line_bytes: 0, body_bytes: 0 };

    fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), Status> {
        let mut at = 0;
        while at < bytes.len() && self.expected != Expected::Nothing {
            if self.expected == Expected::Data {
                let left = bytes.len() - at;
                let taken = left.min(usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX));
                self.chunk_bytes -= taken as u64;
                at += taken;
                self.count(taken as u64)?;
                if self.chunk_bytes == 0 {
                    self.expected = Expected::DataReturn;
                }
            } else {
                self.expected = self.next(bytes[at])?;
                at += 1;
                self.count(1)?;
            }
        }
        Ok((at, self.expected == Expected::Nothing))
    }

    const fn count(&mut self, bytes: u64) -> Result<(), Status> {
        self.body_bytes += bytes;
        if self.body_bytes > BODY_BYTES_MAX { Err(Status::ContentTooLarge) } else { Ok(()) }
    }

    fn next(&mut self, byte: u8) -> Result<Expected, Status> {
        use Expected::*;
        self.line_bytes += 1;
        Ok(match (self.expected, byte) {
            (FirstDigit | Digit, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digit(byte)?;
                Digit
            }
            (Digit | Name | Value | QuotedEnd, b'\r') => SizeLineFeed,
            (SizeLineFeed, b'\n') => {
                self.line_bytes = 0;
                if self.chunk_bytes == 0 { TrailerStart } else { Data }
            }
            (DataReturn, b'\r') => DataLineFeed,
            (DataLineFeed, b'\n') => {
                self.line_bytes = 0;
                FirstDigit
            }
            (TrailerStart, b'\r') => FinalLineFeed,
            (TrailerStart | TrailerName, name) if is_token_byte(name) => {
                self.trailer_is_short()?;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => {
                self.trailer_is_short()?;
                TrailerValue
            }
            (TrailerValue, b'\r') => TrailerLineFeed,
            (TrailerLineFeed, b'\n') => TrailerStart,
            (FinalLineFeed, b'\n') => Nothing,
            (_, b'\n') => return Err(Status::BareLineFeed),
            _ => {
                self.line_is_short()?;
                extension(self.expected, byte)?
            }
        })
    }

    /// The size can at once be seen to be too large, and cannot overflow: what overflows is
    /// larger than any limit.
    fn digit(&mut self, byte: u8) -> Result<(), Status> {
        self.line_is_short()?;
        let value = u64::from(char::from(byte).to_digit(16).ok_or(Status::BadRequest)?);
        self.chunk_bytes = self.chunk_bytes << 4 | value;
        if self.chunk_bytes > BODY_BYTES_MAX - self.body_bytes {
            return Err(Status::ContentTooLarge);
        }
        Ok(())
    }

    const fn line_is_short(&self) -> Result<(), Status> {
        if self.line_bytes > CHUNK_LINE_BYTES_MAX { Err(Status::BadRequest) } else { Ok(()) }
    }

    const fn trailer_is_short(&self) -> Result<(), Status> {
        if self.line_bytes > TRAILER_BYTES_MAX { Err(Status::FieldsTooLarge) } else { Ok(()) }
    }
}

/// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )` (RFC 9112, 7.1.1), without the
/// CR behind it. 400 for everything else.
const fn extension(expected: Expected, byte: u8) -> Result<Expected, Status> {
    use Expected::*;
    Ok(match (expected, byte) {
        (Digit | Semicolon | Value | QuotedEnd, b' ' | b'\t') => Semicolon,
        (Name | EqualsSign, b' ' | b'\t') => EqualsSign,
        (NameStart | ValueStart, b' ' | b'\t') => expected,
        (Digit | Semicolon | Name | EqualsSign | Value | QuotedEnd, b';') => NameStart,
        (Name | EqualsSign, b'=') => ValueStart,
        (NameStart | Name, name) if is_token_byte(name) => Name,
        (ValueStart | Value, value) if is_token_byte(value) => Value,
        (ValueStart, b'"') => Quoted,
        (Quoted, b'"') => QuotedEnd,
        (Quoted, b'\\') => QuotedPair,
        (Quoted | QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
        _ => return Err(Status::BadRequest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked(bytes: &[u8]) -> Result<(usize, bool), Status> {
        let whole = Body::new(Framing::Chunked).unwrap().advance(bytes);
        // One byte at a time comes to the same end.
        let mut body = Body::new(Framing::Chunked).unwrap();
        let mut taken = 0;
        let mut stepwise = Ok((0, false));
        for at in 0..bytes.len() {
            match body.advance(&bytes[at..=at]) {
                Ok((count, done)) => {
                    taken += count;
                    stepwise = Ok((taken, done));
                    if done {
                        break;
                    }
                }
                Err(status) => {
                    stepwise = Err(status);
                    break;
                }
            }
        }
        assert_eq!(whole, stepwise, "{:?}", String::from_utf8_lossy(bytes));
        whole
    }

    #[test]
    fn well_formed() {
        for (text, rest) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET / HTTP/1.1"),
            ("00a\r\n0123456789\r\n1\r\nx\r\n000\r\n\r\n", "x"),
            ("3;name=value;x=\"a b\"\r\n\r\n\r\r\n0;last\r\n\r\n", ""),
            ("0\r\nTrailer: value\r\nOther:\r\n\r\n", "more"),
        ] {
            assert_eq!(
                chunked(format!("{text}{rest}").as_bytes()),
                Ok((text.len(), true)),
                "{text:?}"
            );
        }
        assert_eq!(chunked(b"5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn extensions() {
        for good in [
            ";a",
            ";a=b",
            ";a;b=c;d",
            " ;a",
            "\t \t; \ta \t= \tb \t; \tc",
            ";a =b",
            ";a= b",
            ";a ;b",
            ";a=\"\"",
            ";a=\"b c\t;=,\"",
            ";a=\"\\\"\\\\\\a\\\t\"",
            ";a=\"é\\é\" ;b",
            ";!#$%&'*+-.^_`|~09azAZ=!#$%&'*+-.^_`|~09azAZ",
        ] {
            let text = format!("1{good}\r\nx\r\n0{good}\r\n\r\n");
            assert_eq!(chunked(text.as_bytes()), Ok((text.len(), true)), "{good:?}");
        }
        for bad in [
            " ",
            "\t",
            " a",
            ";",
            "; ",
            ";;",
            ";a;",
            ";;a",
            ";a ",
            ";a=",
            ";a= ",
            ";a=;b",
            ";=b",
            ";a=b ",
            ";a=b c",
            ";a b",
            ";a=b=c",
            ";a==b",
            ";a=\"b",
            ";a=\"b\" ",
            ";a=\"b\"c",
            ";a=\"b\\\"",
            ";a=b\"c\"",
            ";\"a\"",
            ";a=\"\x01\"",
            ";a=\"\\\x01\"",
            ";a=\"\x7f\"",
            ";é",
            ";a=é",
            ";a/b",
            ";a(b)",
            ";a\x0b",
            "\x0b;a",
        ] {
            let text = format!("1{bad}\r\nx\r\n0\r\n\r\n");
            assert_eq!(chunked(text.as_bytes()), Err(Status::BadRequest), "{bad:?}");
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            ";a\r\n",
            "1\r\r",
            "1;\x01\r\n",
            "1\r\nab",
            "1\r\na\rb",
            "0\r\n: a\r\n",
            "0\r\n a: b\r\n",
            "0\r\na b\r\n",
            "0\r\na: \0\r\n",
            "0\r\n\rx",
        ] {
            assert_eq!(chunked(bad.as_bytes()), Err(Status::BadRequest), "{bad:?}");
        }
        for bad in [
            "\n",
            "1\n",
            "1;a\n",
            "1;a=\"\n",
            "1\r\na\n",
            "0\r\n\n",
            "0\r\na: b\n",
            "0\r\na: b\r\n\n",
        ] {
            assert_eq!(chunked(bad.as_bytes()), Err(Status::BareLineFeed), "{bad:?}");
        }
    }

    #[test]
    fn bounded() {
        for large in ["100001\r\n", "ffffffffffffffff\r\n", "10000000000000000000000000\r\n"] {
            assert_eq!(chunked(large.as_bytes()), Err(Status::ContentTooLarge), "{large:?}");
        }
        // Many small chunks are one large body.
        assert_eq!(chunked(&b"1\r\na\r\n".repeat(200_000)), Err(Status::ContentTooLarge));
        let extension = format!("1;{}\r\n", "a".repeat(CHUNK_LINE_BYTES_MAX as usize));
        assert_eq!(chunked(extension.as_bytes()), Err(Status::BadRequest));
        for start in [" ", ";a", "; ", ";a ", ";a= ", ";a=b ", ";a=\"", ";a=\"b\" "] {
            let long = format!("1{start}{}", " ".repeat(CHUNK_LINE_BYTES_MAX as usize));
            assert_eq!(chunked(long.as_bytes()), Err(Status::BadRequest), "{start:?}");
        }
        let zeros = "0".repeat(CHUNK_LINE_BYTES_MAX as usize + 1);
        assert_eq!(chunked(zeros.as_bytes()), Err(Status::BadRequest));
        let trailer = format!("0\r\n{}", "a: b\r\n".repeat(TRAILER_BYTES_MAX as usize / 6 + 1));
        assert_eq!(chunked(trailer.as_bytes()), Err(Status::FieldsTooLarge));
    }

    #[test]
    fn lengths() {
        let mut body = Body::new(Framing::Length(5)).unwrap();
        assert_eq!(body.advance(b"abc"), Ok((3, false)));
        assert_eq!(body.advance(b"defg"), Ok((2, true)));
        assert!(Body::new(Framing::None).is_none());
    }
}
