//! The framing of chunks (RFC 9112 section 7.1).

use super::head::{self, Malformed, Scan};

/// Maximum length of a chunk's size line with its extensions.
pub const LINE_BYTES_MAX: usize = 4 << 10;
/// Maximum number of digits of a size without leading zeros, so that it fits in 64 bits.
const DIGITS_MAX: usize = 16;

/// Parses a size line. Returns the size and the length of the line, or `None` if it is incomplete.
/// `scan` is new at the beginning of the line.
///
/// # Errors
/// The line is not a size with extensions, or it has more than [`LINE_BYTES_MAX`] bytes.
pub fn size(bytes: &[u8], scan: &mut Scan) -> Result<Option<(u64, usize)>, Malformed> {
    let wrong = Malformed("a chunk does not begin with a valid size line");
    if bytes.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(wrong);
    }
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = scan.line_end(seen) else {
        return if bytes.len() > LINE_BYTES_MAX { Err(wrong) } else { Ok(None) };
    };
    let line = seen[..end].strip_suffix(b"\r\n").ok_or(wrong)?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    // White space before a semicolon is bad, but must be accepted. Some servers pad sizes with it.
    let is_extension = match extension.trim_ascii_start() {
        [] | [b';', ..] => extension.iter().copied().all(head::is_text),
        _ => false,
    };
    let zeros = size.iter().take_while(|digit| **digit == b'0').count();
    if digits == 0 || digits - zeros > DIGITS_MAX || !is_extension {
        return Err(wrong);
    }
    let size = size.iter().fold(0, |size, digit| {
        size << 4 | u64::from((*digit as char).to_digit(16).unwrap_or_default())
    });
    Ok(Some((size, end)))
}

/// Returns the length of the CR LF behind a chunk's data, or `None` if it is incomplete.
///
/// # Errors
/// Other bytes follow.
pub fn end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    match bytes {
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [] | [b'\r'] => Ok(None),
        _ => Err(Malformed("a chunk is longer than its announced size")),
    }
}

// The limits bound the unconsumed bytes, which the engine buffers.
const _: () = assert!(LINE_BYTES_MAX < head::HEAD_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of(line: &str) -> Option<(u64, usize)> {
        super::size(line.as_bytes(), &mut Scan::new()).unwrap_or(None)
    }

    #[test]
    fn sizes_have_zeros_in_front_and_extensions_behind() {
        let zeros = "0".repeat(LINE_BYTES_MAX - 3);
        let long = format!("5;a={}\r\n", "x".repeat(LINE_BYTES_MAX - 6));
        for (line, must) in [
            ("5\r\n", 5),
            ("0\r\n", 0),
            ("00000000000000000000000a\r\n", 10),
            ("FFFFffffFFFFffff\r\n", u64::MAX),
            ("5;a;b=c;d=\"e f\"\r\n", 5),
            ("5 ; a\r\n", 5),
            ("5  \r\n", 5),
            (&format!("{zeros}7\r\n"), 7),
            (&long, 5),
        ] {
            assert_eq!(size_of(line), Some((must, line.len())), "{line:?}");
        }
    }

    #[test]
    fn lines_are_bounded_however_they_arrive() {
        let zeros = "0".repeat(LINE_BYTES_MAX);
        for line in [
            "\r\n",
            "g\r\n",
            ";a\r\n",
            "5\n",
            "5x\r\n",
            "5 x\r\n",
            "5;a\rb\r\n",
            "10000000000000000\r\n",
            &format!("{zeros}\r\n"),
            &zeros.repeat(2),
        ] {
            let bytes = line.as_bytes();
            assert!(super::size(bytes, &mut Scan::new()).is_err(), "{line:?}");
            let mut scan = Scan::new();
            let split =
                (0..=bytes.len()).find_map(|end| super::size(&bytes[..end], &mut scan).err());
            assert!(split.is_some(), "{line:?}");
        }
        assert_eq!(super::size(b"", &mut Scan::new()), Ok(None));
        assert_eq!(super::size(b"5;a", &mut Scan::new()), Ok(None));
    }
}
