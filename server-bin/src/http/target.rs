//! From a request target to a path beneath the served directory.

use super::status::Status;

/// The folder for files that programs look for, such as `acme-challenge` (RFC 8615).
pub const WELL_KNOWN: &[u8] = b".well-known";

/// Writes the path that a target of a GET or HEAD names into `path`, which is emptied first:
/// relative, percent-decoded once, without dot segments and empty ones. The path of a directory
/// ends with a slash, and that of the top is empty.
///
/// # Errors
/// 400 for what is no target, for a NUL and an encoded slash; 404 for a segment that begins with a
/// dot, because hidden files stay hidden. [`WELL_KNOWN`] at the top is not hidden.
pub fn resolve(target: &[u8], path: &mut Vec<u8>) -> Result<(), Status> {
    path.clear();
    if is_simple(target) {
        path.extend_from_slice(&target[1..]);
        return Ok(());
    }
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    if !target.iter().all(|byte| is_plain(byte) || !byte.is_ascii())
        || str::from_utf8(target).is_err()
    {
        return Err(Status::BadRequest);
    }
    let target = without_authority(target)?;
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    append_segments(&target[..end], path)?;
    path.dedup_by(|next, byte| *next == b'/' && *byte == b'/');
    if path.first() == Some(&b'/') {
        path.remove(0);
    }
    if is_hidden(path) { Err(Status::NotFound) } else { Ok(()) }
}

/// Returns whether a segment of a path begins with a dot. [`WELL_KNOWN`] at the top is not hidden.
#[must_use]
pub fn is_hidden(path: &[u8]) -> bool {
    let mut segments = path.split(|&byte| byte == b'/').enumerate();
    segments.any(|(at, segment)| segment.starts_with(b".") && (at > 0 || segment != WELL_KNOWN))
}

/// Returns whether the path is the target without its first slash, as most targets are: letters,
/// digits, and no empty segment or one that begins with a dot.
fn is_simple(target: &[u8]) -> bool {
    let mut before = b'/';
    let Some((b'/', rest)) = target.split_first() else { return false };
    rest.iter().all(|&byte| {
        let begins = std::mem::replace(&mut before, byte) == b'/';
        match byte {
            b'/' | b'.' => !begins,
            _ => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
        }
    })
}

/// Appends each segment with a slash behind it, except the name of a file. `.` and `..` are
/// resolved as RFC 3986, 5.2.4 does it: empty segments count, and nothing lies above the root.
fn append_segments(target: &[u8], path: &mut Vec<u8>) -> Result<(), Status> {
    let mut is_directory = true;
    // The first segment is the nothing before the first slash.
    for segment in target.split(|&byte| byte == b'/').skip(1) {
        let start = path.len();
        decode(segment, path)?;
        is_directory = matches!(&path[start..], b"" | b"." | b"..");
        match &path[start..] {
            b"." => path.truncate(start),
            b".." => {
                let above = path[..start.saturating_sub(1)].iter().rposition(|&byte| byte == b'/');
                path.truncate(above.map_or(0, |slash| slash + 1));
            }
            _ => path.push(b'/'),
        }
    }
    if !is_directory {
        path.pop();
    }
    Ok(())
}

/// Appends where a directory that was asked for without its final slash is: `path` as
/// [`resolve`] wrote it, encoded anew, with the slash and the target's query.
///
/// It begins with exactly one slash, whatever the client wrote: two would name another host.
pub fn redirect(path: &[u8], target: &[u8], out: &mut Vec<u8>) {
    out.push(b'/');
    for &byte in path {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(byte);
        } else {
            push_encoded(byte, out);
        }
    }
    out.push(b'/');
    if let Some(query) = memchr::memchr(b'?', target) {
        out.extend_from_slice(&target[query..]);
    }
}

/// Appends the location that a target with raw UTF-8 stands for: its path and query, with the
/// characters percent-encoded that no URI contains (RFC 3986, 3.3). `resolve` accepts the target.
///
/// It begins with exactly one slash, as that of [`redirect`] does.
pub fn encode(target: &[u8], out: &mut Vec<u8>) {
    let target = without_authority(target).unwrap_or_default();
    let start = target.iter().position(|&byte| byte != b'/').unwrap_or(target.len());
    let path_and_query = &target[start..];
    let end = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    out.push(b'/');
    for (at, &byte) in path_and_query.iter().enumerate() {
        let is_allowed = match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            b'[' | b']' => at > end,
            _ => byte.is_ascii_graphic(),
        };
        if is_allowed {
            out.push(byte);
        } else {
            push_encoded(byte, out);
        }
    }
}

/// Appends a byte percent-encoded.
pub fn push_encoded(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
    out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
}

/// What follows the authority of an absolute form (RFC 9112, 3.2.2); other targets as they are.
fn without_authority(target: &[u8]) -> Result<&[u8], Status> {
    if target.first() == Some(&b'/') {
        return Ok(target);
    }
    for scheme in [&b"http://"[..], b"https://"] {
        let Some((start, rest)) = target.split_at_checked(scheme.len()) else { continue };
        if !start.eq_ignore_ascii_case(scheme) {
            continue;
        }
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        if !super::fields::is_authority(&rest[..end]) {
            return Err(Status::BadRequest);
        }
        return Ok(&rest[end..]);
    }
    Err(Status::BadRequest)
}

fn decode(segment: &[u8], path: &mut Vec<u8>) -> Result<(), Status> {
    let start = path.len();
    percent_decode(segment, path)?;
    if path[start..].iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(Status::BadRequest);
    }
    Ok(())
}

/// Appends `text` with what is percent-encoded decoded, once.
///
/// # Errors
/// 400 for a percent sign without two hexadecimal digits behind it.
pub fn percent_decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = if *first == b'%' {
            let [high, low, after @ ..] = tail else { return Err(Status::BadRequest) };
            rest = after;
            hexadecimal(*high)? << 4 | hexadecimal(*low)?
        } else {
            *first
        };
        out.push(byte);
    }
    Ok(())
}

fn hexadecimal(digit: u8) -> Result<u8, Status> {
    char::from(digit).to_digit(16).map(|value| value as u8).ok_or(Status::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolved(target: &str) -> Result<String, Status> {
        let mut path = b"left over".to_vec();
        resolve(target.as_bytes(), &mut path)?;
        if path.is_empty() || path.ends_with(b"/") {
            path.extend_from_slice(b"index.html");
        }
        Ok(String::from_utf8_lossy(&path).into_owned())
    }

    #[test]
    fn paths() {
        for (target, path) in [
            ("/", "index.html"),
            ("/?q=/..", "index.html"),
            ("/a", "a"),
            ("/a/b.txt?x#y".trim_end_matches("#y"), "a/b.txt"),
            ("/a/", "a/index.html"),
            ("//a///b//", "a/b/index.html"),
            ("/a%20b%C3%A9", "a bé"),
            ("/a%2520", "a%20"),
            ("/a..b/c.", "a..b/c."),
            ("/.", "index.html"),
            ("/..", "index.html"),
            ("/../../a", "a"),
            ("/a/../b", "b"),
            ("/a/./b", "a/b"),
            ("/a/b/.", "a/b/index.html"),
            ("/a/b/..", "a/index.html"),
            ("/a/b/../", "a/index.html"),
            ("/a/b/../c", "a/c"),
            ("/a//../b", "a/b"),
            ("/..//..//a", "a"),
            ("/a/%2e%2E/b", "b"),
            ("/a/.%2e/%2e/b", "b"),
            ("/.git/../a", "a"),
            ("/a/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "etc/passwd"),
            ("/a?/../b", "a"),
            ("/.well-known", ".well-known"),
            ("/.well-known/", ".well-known/index.html"),
            ("//.well-known/acme-challenge/x", ".well-known/acme-challenge/x"),
            ("/a/../%2Ewell-known/x", ".well-known/x"),
            ("/\\evil", "\\evil"),
            ("http://example.com", "index.html"),
            ("HTTP://example.com:80/a?b", "a"),
            ("https://[::1]/a/", "a/index.html"),
            ("http://example.com?x", "index.html"),
            ("http://a,b:/a", "a"),
            ("http://a%20b/a", "a"),
        ] {
            assert_eq!(resolved(target).as_deref(), Ok(path), "{target:?}");
        }
    }

    #[test]
    fn refused() {
        use Status::{BadRequest, NotFound};
        for (target, status) in [
            ("", BadRequest),
            ("*", BadRequest),
            ("a", BadRequest),
            ("example.com:80", BadRequest),
            ("ftp://example.com/", BadRequest),
            ("http:///a", BadRequest),
            ("http://:80/a", BadRequest),
            ("http://a:b:c/", BadRequest),
            ("http://[::1/", BadRequest),
            ("http://a%zz/", BadRequest),
            ("http://[::1]a/", BadRequest),
            ("http://user@host/", BadRequest),
            ("/a%2f../b", BadRequest),
            ("/a%00/../b", BadRequest),
            ("/a%/../b", BadRequest),
            ("/a%00", BadRequest),
            ("/a%2fb", BadRequest),
            ("/a%", BadRequest),
            ("/a%2", BadRequest),
            ("/a%zz", BadRequest),
            ("/a%+1", BadRequest),
            ("/a#b", BadRequest),
            ("/a\tb", BadRequest),
            ("http://é/", BadRequest),
            ("é", BadRequest),
            ("/é/.git", NotFound),
            ("/.git/config", NotFound),
            ("/a/.htaccess", NotFound),
            ("/%2egit", NotFound),
            ("/...", NotFound),
            ("/a/../.git/config", NotFound),
            ("/./.git", NotFound),
            ("/..git", NotFound),
            ("/.well-known/.git", NotFound),
            ("/.well-known/../.git", NotFound),
            ("/a/.well-known/x", NotFound),
            ("/.well-knowns/x", NotFound),
            ("/.Well-Known/x", NotFound),
            ("/.well-known%20/x", NotFound),
        ] {
            assert_eq!(resolved(target), Err(status), "{target:?}");
        }
    }

    #[test]
    fn raw_utf8_is_redirected_to_its_encoded_form() {
        for (target, location) in [
            ("/é", "/%C3%A9"),
            ("/a%20b/é/?x=é&%20+[", "/a%20b/%C3%A9/?x=%C3%A9&%20+["),
            ("/日本", "/%E6%97%A5%E6%9C%AC"),
            ("http://x/é?y", "/%C3%A9?y"),
            ("http://x?é", "/?%C3%A9"),
            ("//evil.example/é", "/evil.example/%C3%A9"),
            ("/\\evil.example/é", "/%5Cevil.example/%C3%A9"),
            ("/é[]^", "/%C3%A9%5B%5D%5E"),
            ("/./é", "/./%C3%A9"),
        ] {
            let mut out = Vec::new();
            resolved(target).unwrap();
            encode(target.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), location, "{target:?}");
            // It names the same file.
            assert_eq!(resolved(location), resolved(target), "{target:?}");
        }
        for bad in [&b"/\xff"[..], b"/\xc3", b"/\xed\xa0\x80", b"/\xc3\xa9\xc0\xaf", b"/\xc3\xa9 "]
        {
            assert_eq!(resolve(bad, &mut Vec::new()), Err(Status::BadRequest), "{bad:?}");
        }
    }

    #[test]
    fn redirects_stay_on_this_host() {
        for (target, location) in [
            ("/a", "/a/"),
            ("/a?x=1&y", "/a/?x=1&y"),
            ("//evil.example", "/evil.example/"),
            ("/\\evil.example", "/%5Cevil.example/"),
            ("/a%0d%0ab%20c", "/a%0D%0Ab%20c/"),
        ] {
            let (mut path, mut out) = (Vec::new(), Vec::new());
            resolve(target.as_bytes(), &mut path).unwrap();
            redirect(&path, target.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), location, "{target:?}");
        }
    }

    /// The algorithm of RFC 3986, 5.2.4, word for word.
    fn remove_dot_segments(path: &str) -> String {
        let (mut input, mut output) = (path.to_owned(), String::new());
        while !input.is_empty() {
            let keeps_slash = |prefix: &str, input: &str| {
                (input.strip_prefix(prefix))
                    .filter(|rest| rest.is_empty() || rest.starts_with('/'))
                    .map(|rest| if rest.is_empty() { "/".to_owned() } else { rest.to_owned() })
            };
            if let Some(rest) = keeps_slash("/.", &input) {
                input = rest;
            } else if let Some(rest) = keeps_slash("/..", &input) {
                input = rest;
                output.truncate(output.rfind('/').unwrap_or(0));
            } else {
                let end = input[1..].find('/').map_or(input.len(), |slash| slash + 1);
                output.push_str(&input[..end]);
                input.drain(..end);
            }
        }
        output
    }

    proptest! {
        #[test]
        fn dot_segments_are_resolved_as_rfc_3986_does_it(target in "(/(|a|b|\\.|\\.\\.)){1,8}") {
            let expected = remove_dot_segments(&target);
            prop_assert_eq!(resolved(&target), resolved(&expected), "{}", expected);
        }

        #[test]
        fn what_is_resolved_stays_beneath(target in "/[ -~]{0,40}|[/.%2eEfF05cC\\\\]{0,20}") {
            let mut path = Vec::new();
            if resolve(target.as_bytes(), &mut path).is_ok() {
                prop_assert!(!path.contains(&0));
                let path = path.strip_suffix(b"/").unwrap_or(&path);
                if path.is_empty() {
                    return Ok(());
                }
                for (at, segment) in path.split(|&byte| byte == b'/').enumerate() {
                    let is_known = at == 0 && segment == WELL_KNOWN;
                    let is_shown = !segment.is_empty() && segment[0] != b'.';
                    prop_assert!(is_shown || is_known, "{:?}", path);
                }
            }
        }
    }
}
