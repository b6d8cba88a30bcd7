//! Header fields: their values in a head already found valid, and the grammar of the few that
//! decide where a request ends.

use std::net::Ipv6Addr;

/// The values of every field of that name (lower case or not) in a valid head, in order, without
/// the white space around them.
pub fn values<'a>(head: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(head);
    let mut next_line = move || {
        let lines = rest?;
        let end = memchr::memchr(b'\n', lines);
        rest = end.map(|end| &lines[end + 1..]);
        Some(&lines[..end.unwrap_or(lines.len())])
    };
    // The request line.
    next_line();
    std::iter::from_fn(next_line).filter_map(move |line| {
        let (found, rest) = line.split_at_checked(name.len())?;
        let [b':', value @ ..] = rest else { return None };
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// The value of a field that may appear once; `None` as well if it appears twice.
#[must_use]
pub fn single<'a>(head: &'a [u8], name: &'a str) -> Option<&'a [u8]> {
    let mut values = values(head, name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The values of several fields, each as [`single`] has it. Reads the head once.
#[must_use]
pub fn singles<'a, const N: usize>(head: &'a [u8], names: [&str; N]) -> [Option<&'a [u8]>; N] {
    let mut found = [None; N];
    let mut count = [0_u32; N];
    let mut ends = memchr::memchr_iter(b'\n', head).chain([head.len()]);
    // The request line.
    let mut begin = ends.next().unwrap_or_default() + 1;
    for end in ends {
        let line = &head[begin..end];
        begin = end + 1;
        for ((name, found), count) in names.iter().zip(&mut found).zip(&mut count) {
            if line.get(name.len()) == Some(&b':')
                && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
            {
                *found = Some(line[name.len() + 1..].trim_ascii());
                *count += 1;
            }
        }
    }
    found.iter_mut().zip(count).filter(|it| it.1 > 1).for_each(|(found, _)| *found = None);
    found
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

/// Returns whether this is the authority of an `http` URI: a host that is not empty, and maybe a
/// port (RFC 9110, 4.2.1).
#[must_use]
pub fn is_authority(value: &[u8]) -> bool {
    !matches!(value, [] | [b':', ..]) && is_host(value)
}

/// Returns whether the value is `uri-host [ ":" port ]` (RFC 9110, 7.2). An empty host is legal in
/// a Host field.
#[must_use]
pub fn is_host(value: &[u8]) -> bool {
    let port = if value.first() == Some(&b'[') {
        let Some(end) = memchr::memchr(b']', value) else { return false };
        if !is_ip_literal(&value[1..end]) {
            return false;
        }
        &value[end + 1..]
    } else {
        let end = memchr::memchr(b':', value).unwrap_or(value.len());
        if !is_registered_name(&value[..end]) {
            return false;
        }
        &value[end..]
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The inside of the brackets of an `IP-literal` (RFC 3986, 3.2.2).
fn is_ip_literal(text: &[u8]) -> bool {
    let [b'v' | b'V', future @ ..] = text else {
        return str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    };
    let Some(dot) = memchr::memchr(b'.', future) else { return false };
    let (version, address) = (&future[..dot], &future[dot + 1..]);
    !version.is_empty()
        && version.iter().all(u8::is_ascii_hexdigit)
        && !address.is_empty()
        && address.iter().all(|&byte| byte == b':' || is_name_byte(byte))
}

/// `reg-name` (RFC 3986, 3.2.2), which includes every IPv4 address.
fn is_registered_name(text: &[u8]) -> bool {
    let plain = text.iter().take_while(|byte| is_name_byte(**byte)).count();
    let mut rest = &text[plain..];
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                after
            }
            [byte, after @ ..] if is_name_byte(*byte) => after,
            _ => return false,
        };
    }
}

/// `unreserved` or `sub-delims` (RFC 3986, 2.2 and 2.3).
#[inline]
const fn is_name_byte(byte: u8) -> bool {
    NAME_BYTES[byte as usize]
}

/// Each request has a host, so its bytes are looked up.
const NAME_BYTES: [bool; 256] = {
    let mut all = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        all[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        all[others[at] as usize] = true;
        at += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    #[test]
    fn several_fields_are_read_at_once() {
        let names = ["host", "referer", "user-agent"];
        for head in [
            &b""[..],
            b"GET / HTTP/1.1",
            b"host: line\r\nHost:  x \r\nUSER-AGENT: a: b\r\nRefererx: no\r\n\r\n",
            b"GET / HTTP/1.1\r\nReferer: 1\r\nreferer: 2\r\nHost:\r\nUser-Agent: cut",
            b"GET / HTTP/1.1\n\nhost",
        ] {
            let each = names.map(|name| super::single(head, name));
            assert_eq!(super::singles(head, names), each, "{}", head.escape_ascii());
        }
    }

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
        assert_eq!(single(HEAD, "hos"), None, "a part of a name");
        assert_eq!(single(b"GET / HTTP/1.1\r\nA: b", "a"), Some(&b"b"[..]), "not read to its end");
        assert_eq!(values(b"", "a").count(), 0);
    }

    #[test]
    fn lists_and_numbers() {
        assert_eq!(elements(b" a ,, b,").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(decimal(b"0120"), Some(120));
        assert_eq!(decimal(b"99999999999999999999999"), Some(u64::MAX));
        for bad in [&b""[..], b"+1", b"-1", b"1 ", b"0x1", b"1,1", b"\xc2\xb2"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn hosts() {
        for good in [
            "",
            "localhost",
            "a.example:80",
            "a:",
            ":80",
            "a_b~c-d.e",
            "a%C3%a9",
            "%41",
            "a,b",
            "!$&'()*+,;=",
            "127.0.0.1:65536",
            "256.1.1.1",
            "[::1]",
            "[::1]:8080",
            "[::]:",
            "[2001:DB8::a:1]",
            "[1:2:3:4:5:6:7:8]",
            "[1:2:3:4:5:6:7::]",
            "[::ffff:1.2.3.4]",
            "[v1.a]",
            "[VfF.a:b,c~]:1",
        ] {
            assert!(is_host(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "a b",
            "a/b",
            "u@h",
            "a?b",
            "a#b",
            "a\\b",
            "a\"b",
            "é",
            "a:b:c",
            "a:b",
            "a:1:2",
            "a:+1",
            "::1",
            "a%",
            "a%z",
            "a%zz",
            "a%4",
            "a[",
            "a]",
            "[",
            "[]",
            "[]:1",
            "[::1",
            "[::1]a",
            "[::1]]",
            "[::1]:a",
            "[[::1]]",
            "[1.2.3.4]",
            "[a.example]",
            "[:::1]",
            "[1:2:3:4:5:6:7]",
            "[1:2:3:4:5:6:7:8:9]",
            "[::12345]",
            "[::ffff:1.2.3.256]",
            "[fe80::1%25eth0]",
            "[fe80::1%eth0]",
            "[v.a]",
            "[v1.]",
            "[v1a]",
            "[vg.a]",
            "[v1.a b]",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad:?}");
        }
    }
}
