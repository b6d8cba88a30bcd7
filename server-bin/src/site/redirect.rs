//! Targets of redirects.
//!
//! A target is an absolute URL or a path, with placeholders:
//! - `{path}`: the path that was asked for, with its first slash, percent-encoded anew.
//! - `{query}`: the query that was asked for, with `?` or `&` before it as its place needs. Nothing
//!   if there is none. Directly behind `=` it is encoded as one value.
//! - `{name}`: a name of the site, from the configuration.
//!
//! No request changes the host of a target, and no location begins with `//` or `/\`, which
//! browsers take for another host.

use super::spec::Redirect;
use crate::http::fields;
use crate::http::target::push_encoded;

/// Bytes of a target at most.
pub const TARGET_BYTES_MAX: usize = 2048;

/// Plain HTTP answers below here, for the certificates of HTTPS (RFC 8555, 8.3).
const ACME: &[u8] = b".well-known/acme-challenge/";

/// A redirect, checked and prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    parts: Box<[Part]>,
    status: u16,
    /// The target is an `https` URL.
    is_https: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Path,
    /// The query, behind this byte unless there is none.
    Query(u8),
    /// The query as one value.
    QueryValue,
    Name,
}

/// The request that placeholders are filled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// The path: decoded, without its first slash.
    pub path: &'a [u8],
    /// The query as it was sent, without `?`.
    pub query: &'a [u8],
    /// A name of the site from the configuration.
    pub name: &'a str,
}

impl Target {
    /// Reads a redirect.
    ///
    /// # Errors
    /// The reason why this is no target.
    pub fn new(redirect: &Redirect) -> Result<Self, String> {
        let to = redirect.to.as_str();
        if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
            return Err(format!("{} is no redirect: 301, 302, 303, 307 or 308", redirect.status));
        }
        if to.len() > TARGET_BYTES_MAX {
            return Err(format!("it is longer than {TARGET_BYTES_MAX} bytes"));
        }
        let is_allowed = |c: char| c.is_ascii_graphic() && !r#""<>\^`|"#.contains(c);
        if let Some(bad) = to.chars().find(|&c| !is_allowed(c)) {
            return Err(format!("a URL does not contain {bad:?}: percent-encode it"));
        }
        let parts = parts(to)?;
        check_beginning(to)?;
        let is_https = to.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
        Ok(Self { parts: parts.into(), status: redirect.status, is_https })
    }

    /// The status of the reply.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Returns whether the target needs a name of the site.
    #[must_use]
    pub fn has_name(&self) -> bool {
        self.parts.contains(&Part::Name)
    }

    /// Returns whether a request stays where it is: a redirect to HTTPS leaves the challenges of
    /// ACME alone.
    #[must_use]
    pub fn spares(&self, path: &[u8]) -> bool {
        self.is_https && path.starts_with(ACME)
    }

    /// The path of a target on the same host that is the same for all requests, without its first
    /// slash.
    #[must_use]
    pub fn fixed_path(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Text(text)] => {
                let end = text.find(['?', '#']).unwrap_or(text.len());
                text[..end].strip_prefix('/')
            }
            _ => None,
        }
    }

    /// Appends the value of Location.
    pub fn append_location(&self, source: &Source<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Path => {
                    out.push(b'/');
                    encode(source.path, |byte| byte == b'/', out);
                }
                Part::Query(before) if !source.query.is_empty() => {
                    out.push(*before);
                    encode(source.query, is_query_byte, out);
                }
                Part::Query(_) => {}
                Part::QueryValue => encode(source.query, |_| false, out),
                Part::Name => out.extend_from_slice(source.name.as_bytes()),
            }
        }
        let slashes = out[start..].iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
        if slashes > 1 {
            out.drain(start + 1..start + slashes);
        }
    }
}

/// The query of a request target, without `?`.
#[must_use]
pub fn query(target: &[u8]) -> &[u8] {
    memchr::memchr(b'?', target).map_or(&[], |at| &target[at + 1..])
}

fn parts(to: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = to;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, from) = rest.split_at(at);
        let before = &to[..to.len() - from.len()];
        if before.contains('#') {
            return Err("a placeholder stands behind `#`".into());
        }
        let expected = "expected {path}, {query} or {name}";
        let (placeholder, after) = from.split_once('}').ok_or(expected)?;
        let has_query = before.trim_end_matches(['?', '&']).contains('?');
        let (text, part) = match placeholder {
            "{path" => (text, Part::Path),
            "{name" => (text, Part::Name),
            "{query" if has_query && text.ends_with('=') => (text, Part::QueryValue),
            "{query" if !matches!(after.as_bytes(), [] | [b'#', ..]) => {
                return Err("{query} stands at the end, or as a value behind `?` and `=`".into());
            }
            "{query" => {
                let separator = if has_query { b'&' } else { b'?' };
                (text.trim_end_matches(['?', '&']), Part::Query(separator))
            }
            other => return Err(format!("{other}}} is unknown: {expected}")),
        };
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        parts.push(part);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    Ok(parts)
}

/// Checks that the target itself names the host.
fn check_beginning(to: &str) -> Result<(), &'static str> {
    if to.starts_with("{path}") || (to.starts_with('/') && !to.starts_with("//")) {
        return Ok(());
    }
    let (scheme, rest) = to.split_once("://").unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err("expected a path that begins with one slash, or an http or https URL");
    }
    let host = rest.replace("{name}", "name");
    let end = host.find(['/', '?', '#', '{']).unwrap_or(host.len());
    if !fields::is_authority(&host.as_bytes()[..end]) {
        return Err("expected a host behind ://, and maybe a port");
    }
    Ok(())
}

/// Appends `text` percent-encoded, except unreserved characters (RFC 3986, 2.3) and the others that
/// are allowed.
fn encode(text: &[u8], is_allowed: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    for &byte in text {
        let is_unreserved =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if is_unreserved || is_allowed(byte) {
            out.push(byte);
        } else {
            push_encoded(byte, out);
        }
    }
}

/// A byte of a query (RFC 3986, 3.4), or one that browsers send in it. Encoded bytes stay encoded
/// once.
const fn is_query_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b'/'
            | b':'
            | b';'
            | b'='
            | b'?'
            | b'@'
            | b'['
            | b']'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(to: &str) -> Target {
        let redirect = Redirect { to: to.into(), status: 308 };
        Target::new(&redirect).unwrap_or_else(|reason| panic!("{to:?}: {reason}"))
    }

    fn location(to: &str, path: &[u8], query: &[u8]) -> String {
        let mut out = b"Location: ".to_vec();
        target(to).append_location(&Source { path, query, name: "example.org" }, &mut out);
        String::from_utf8(out).unwrap().strip_prefix("Location: ").unwrap().into()
    }

    #[test]
    fn placeholders_are_filled() {
        for (to, path, query, expected) in [
            ("/new", "a", "q", "/new"),
            ("https://{name}{path}{query}", "a/b", "x=1&y=2", "https://example.org/a/b?x=1&y=2"),
            ("https://{name}{path}?{query}", "", "", "https://example.org/"),
            ("https://{name}:8443{path}", "a", "", "https://example.org:8443/a"),
            ("https://www.{name}/", "a", "", "https://www.example.org/"),
            ("/new{path}", "a/", "", "/new/a/"),
            ("/s?lang=en{query}", "a", "q=1", "/s?lang=en&q=1"),
            ("/s?lang=en&{query}", "a", "", "/s?lang=en"),
            ("/login?to={path}", "a b&c", "", "/login?to=/a%20b%26c"),
            ("/login?to={path}&with={query}#top", "a", "x=1&y", "/login?to=/a&with=x%3D1%26y#top"),
            ("/s{query}#top", "a", "q", "/s?q#top"),
            ("{path}/", "a", "", "/a/"),
            ("{path}{query}", "caf\u{e9}", "\u{e9}=%C3%A9", "/caf%C3%A9?%C3%A9=%C3%A9"),
            ("/x{query}", "", "a<\"b>\\`{|}^c#", "/x?a%3C%22b%3E%5C%60%7B%7C%7D%5Ec%23"),
            ("/x{query}", "", "a=/../?b:c@d", "/x?a=/../?b:c@d"),
        ] {
            assert_eq!(location(to, path.as_bytes(), query.as_bytes()), expected, "{to}");
        }
    }

    #[test]
    fn no_location_names_another_host() {
        for (to, path, expected) in [
            ("{path}/", "", "/"),
            ("/{path}", "evil.example", "/evil.example"),
            ("/{path}", "/evil.example", "/evil.example"),
            ("{path}", "\\evil.example", "/%5Cevil.example"),
            ("{path}", "\r\nSet-Cookie: a", "/%0D%0ASet-Cookie%3A%20a"),
            ("https://{name}{path}", "@evil.example", "https://example.org/%40evil.example"),
            ("https://{name}{path}", ".evil.example", "https://example.org/.evil.example"),
        ] {
            assert_eq!(location(to, path.as_bytes(), b""), expected, "{to} and {path:?}");
        }
    }

    #[test]
    fn wrong_targets_have_a_reason() {
        let long = format!("/{}", "a".repeat(TARGET_BYTES_MAX));
        for (to, reason) in [
            ("", "expected a path"),
            ("new", "expected a path"),
            ("//evil.example", "expected a path"),
            ("ftp://a/", "expected a path"),
            ("javascript:alert(1)", "expected a path"),
            ("{query}", "expected a path"),
            ("{name}/a", "expected a path"),
            ("https://{path}", "expected a host"),
            ("https://", "expected a host"),
            ("https://:80/", "expected a host"),
            ("https://user@a/", "expected a host"),
            ("https:///a", "expected a host"),
            ("/\\evil", "percent-encode"),
            ("/a b", "percent-encode"),
            ("/a\r\nb", "percent-encode"),
            ("/é", "percent-encode"),
            ("/{host}", "unknown"),
            ("/{path", "expected {path}"),
            ("/a}", "expected {path}"),
            ("/}{path}", "unknown"),
            ("/a#{path}", "`#`"),
            ("/a?{query}&b", "at the end"),
            ("/a={query}&b", "at the end"),
            (&long, "longer"),
        ] {
            let redirect = Redirect { to: to.into(), status: 302 };
            let error = Target::new(&redirect).unwrap_err();
            assert!(error.contains(reason), "{to:?}: {error}");
        }
        for status in [200, 300, 304, 305, 306, 309, 404] {
            let redirect = Redirect { to: "/".into(), status };
            assert!(Target::new(&redirect).unwrap_err().contains("308"), "{status}");
        }
    }

    #[test]
    fn challenges_of_acme_stay_on_plain_http() {
        let challenge = b".well-known/acme-challenge/token";
        assert!(target("https://{name}{path}").spares(challenge));
        assert!(target("HTTPS://a").spares(challenge));
        assert!(!target("https://{name}{path}").spares(b".well-known/security.txt"));
        assert!(!target("http://a{path}").spares(challenge));
        assert!(!target("/new").spares(challenge));
    }

    #[test]
    fn facts_about_targets() {
        assert!(target("https://{name}/").has_name() && !target("/a").has_name());
        assert_eq!(target("/a/b?c#d").fixed_path(), Some("a/b"));
        assert_eq!(target("/a{query}").fixed_path(), None);
        assert_eq!(target("https://a/b").fixed_path(), None);
        assert_eq!(target("/").status(), 308);
        assert_eq!((query(b"/a?b?c"), query(b"/a")), (&b"b?c"[..], &b""[..]));
    }

    proptest! {
        #[test]
        fn a_location_is_one_line_and_keeps_its_host(
            to in "/|/a/|/?\\{path\\}|\\{path\\}\\{query\\}|/a\\?b=\\{query\\}&c=\\{path\\}",
            path in proptest::collection::vec(any::<u8>(), 0..20),
            query in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let location = location(&to, &path, &query);
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(location.starts_with('/') && !location.contains('\\'));
            prop_assert!(!location.starts_with("//"), "{}", location);
        }
    }
}
