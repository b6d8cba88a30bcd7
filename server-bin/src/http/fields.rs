//! Header fields: their values in a head already found valid, and the grammar of the few that
//! decide where a request ends.

/// The values of every field of that name (lower case or not) in a valid head, in order, without
/// the white space around them.
pub fn values<'a>(head: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).filter_map(move |line| {
        let colon = memchr::memchr(b':', line)?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    })
}

/// The value of a field that may appear once; `None` as well if it appears twice.
#[must_use]
pub fn single<'a>(head: &'a [u8], name: &'a str) -> Option<&'a [u8]> {
    let mut values = values(head, name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The elements of a comma-separated list, without the white space around them; empty ones left
/// out (RFC 9110, 5.6.1).
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// A character of a token (RFC 9110, 5.6.2).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
        | b'^' | b'_' | b'`' | b'|' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

/// Digits and nothing else; what does not fit saturates. `None`: no number.
#[must_use]
pub fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// Whether a Host value could be `uri-host [ ":" port ]` (RFC 9110, 7.2). Empty is legal.
#[must_use]
pub fn is_host(value: &[u8]) -> bool {
    value.iter().all(|&byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'[' | b']')
            || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] =
        b"GET /a:b HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"a\"\r\nRange:\tbytes=0-\r\n\
                          if-none-match:\"b\", \"c\" \r\n\r\n";

    #[test]
    fn values_are_found_in_any_case_and_trimmed() {
        let found: Vec<_> = values(HEAD, "If-None-Match").collect();
        assert_eq!(found, [&b"\"a\""[..], b"\"b\", \"c\""]);
        assert_eq!(single(HEAD, "range"), Some(&b"bytes=0-"[..]));
        assert_eq!(single(HEAD, "if-none-match"), None, "twice is not once");
        assert_eq!(single(HEAD, "get /a"), None, "the request line is no field");
    }

    #[test]
    fn lists_numbers_hosts() {
        assert_eq!(elements(b" a ,, b,").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(decimal(b"0120"), Some(120));
        assert_eq!(decimal(b"99999999999999999999999"), Some(u64::MAX));
        for bad in [&b""[..], b"+1", b"-1", b"1 ", b"0x1", b"1,1", b"\xc2\xb2"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
        for good in [&b""[..], b"localhost", b"[::1]:8080", b"a.example:80"] {
            assert!(is_host(good), "{good:?}");
        }
        for bad in [&b"a b"[..], b"a/b", b"u@h", b"a,b", b"a?b", b"a\\b", b"\x80"] {
            assert!(!is_host(bad), "{bad:?}");
        }
    }
}
