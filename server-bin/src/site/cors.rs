//! Cross-origin requests (CORS, of the Fetch standard).
//!
//! Pages of allowed origins may read replies to GET and HEAD, with any request header fields, but
//! without credentials of the browser: there is no Access-Control-Allow-Credentials.

use super::spec::Cors;
use crate::http::fields::single;
use crate::http::head::Method;
use crate::http::reply::decimal;

/// Origins of a rule at most.
pub const ORIGINS_MAX: usize = 256;

const ALLOW_ALL: &[u8] = b"Access-Control-Allow-Origin: *\r\n";
const ALLOW: &[u8] = b"Access-Control-Allow-Origin: ";
/// Caches keep the replies for different origins apart, also those without the fields.
const VARY: &[u8] = b"Vary: Origin\r\n";
/// All fields of a reply may be read, such as ETag and Content-Range.
const EXPOSE: &[u8] = b"Access-Control-Expose-Headers: *\r\n";
/// `*` does not include Authorization.
const PREFLIGHT: &[u8] = b"Access-Control-Allow-Methods: GET, HEAD\r\n\
    Access-Control-Allow-Headers: *, Authorization\r\n\
    Access-Control-Max-Age: ";

/// The origins that may read replies, checked and prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Sorted. `None`: all origins.
    origins: Option<Box<[Box<[u8]>]>>,
    max_age_s: u64,
}

impl Sharing {
    /// Reads the settings of a rule.
    ///
    /// # Errors
    /// The reason why a browser would send no such origin.
    pub fn new(cors: &Cors) -> Result<Self, String> {
        let max_age_s = cors.max_age.as_secs();
        if cors.origins == ["*"] {
            return Ok(Self { origins: None, max_age_s });
        }
        if cors.origins.is_empty() {
            return Err("no origin is listed".into());
        }
        if cors.origins.len() > ORIGINS_MAX {
            return Err(format!("more than {ORIGINS_MAX} origins are listed"));
        }
        for origin in &cors.origins {
            check(origin).map_err(|reason| format!("{origin:?}: {reason}"))?;
        }
        let mut origins: Vec<Box<[u8]>> =
            cors.origins.iter().map(|origin| origin.as_bytes().into()).collect();
        origins.sort_unstable();
        Ok(Self { origins: Some(origins.into()), max_age_s })
    }

    /// Appends the header lines of a reply to a request with this Origin. They belong to each reply
    /// for a path of the rule, errors included.
    pub fn append_lines(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) {
        if self.append_origin(origin, out) {
            out.extend_from_slice(EXPOSE);
        }
    }

    /// Appends the header lines of the reply to a preflight, which has status 204 and no content.
    /// A browser refuses the request if the lines do not allow it.
    pub fn append_preflight_lines(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) {
        if self.append_origin(origin, out) {
            out.extend_from_slice(PREFLIGHT);
            decimal(out, self.max_age_s);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The header lines of all replies, if they do not depend on the Origin. They can be kept.
    #[must_use]
    pub fn lines_for_all(&self) -> Option<Vec<u8>> {
        self.origins.is_none().then(|| [ALLOW_ALL, EXPOSE].concat())
    }

    /// Returns whether the origin is allowed.
    fn append_origin(&self, origin: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        let Some(origins) = &self.origins else {
            out.extend_from_slice(ALLOW_ALL);
            return true;
        };
        out.extend_from_slice(VARY);
        let Some(origin) = origin else { return false };
        let Ok(at) = origins.binary_search_by(|known| known[..].cmp(origin)) else { return false };
        out.extend_from_slice(ALLOW);
        out.extend_from_slice(&origins[at]);
        out.extend_from_slice(b"\r\n");
        true
    }
}

/// Returns whether a request asks if another one may be sent. It carries no credentials, so that
/// authentication does not stop it.
#[must_use]
pub fn is_preflight(method: Method, head: &[u8]) -> bool {
    method == Method::Options
        && origin(head).is_some()
        && single(head, "access-control-request-method").is_some()
}

/// The origin of the page that made the request.
#[must_use]
pub fn origin(head: &[u8]) -> Option<&[u8]> {
    single(head, "origin")
}

fn check(origin: &str) -> Result<(), &'static str> {
    if origin == "*" {
        return Err("`*` allows all origins and stands alone");
    }
    if origin == "null" {
        return Err("every page can have this origin, in a sandboxed frame");
    }
    let (scheme, host) =
        origin.split_once("://").ok_or("expected an origin such as https://example.org")?;
    if scheme.is_empty()
        || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+'))
    {
        return Err("expected an origin such as https://example.org");
    }
    if host.contains('*') {
        return Err("`*` is no part of an origin: list each one");
    }
    if host.contains(['/', '?', '#']) {
        return Err("an origin has no path, not even a slash at the end");
    }
    if !crate::http::fields::is_authority(host.as_bytes()) || host.ends_with([':', '.']) {
        return Err("expected a host behind ://, and maybe a port");
    }
    if origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("browsers send origins in lower case");
    }
    if matches!((scheme, host.rsplit_once(':')), ("http", Some((_, "80"))))
        || matches!((scheme, host.rsplit_once(':')), ("https", Some((_, "443"))))
    {
        return Err("browsers leave out the port of the scheme");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sharing(origins: &[&str]) -> Result<Sharing, String> {
        let origins = origins.iter().map(|&origin| origin.into()).collect();
        Sharing::new(&Cors { origins, max_age: Duration::from_secs(600) })
    }

    fn lines(sharing: &Sharing, origin: Option<&str>) -> (String, String) {
        let (mut lines, mut preflight) = (Vec::new(), Vec::new());
        sharing.append_lines(origin.map(str::as_bytes), &mut lines);
        sharing.append_preflight_lines(origin.map(str::as_bytes), &mut preflight);
        (String::from_utf8(lines).unwrap(), String::from_utf8(preflight).unwrap())
    }

    #[test]
    fn listed_origins_are_named_and_others_are_not() {
        let sharing = sharing(&["https://b.example", "http://a.example:8080"]).unwrap();
        for origin in ["https://b.example", "http://a.example:8080"] {
            let allowed = format!("Vary: Origin\r\nAccess-Control-Allow-Origin: {origin}\r\n");
            let (lines, preflight) = lines(&sharing, Some(origin));
            assert_eq!(lines, format!("{allowed}Access-Control-Expose-Headers: *\r\n"));
            assert_eq!(
                preflight,
                format!(
                    "{allowed}Access-Control-Allow-Methods: GET, HEAD\r\n\
                     Access-Control-Allow-Headers: *, Authorization\r\n\
                     Access-Control-Max-Age: 600\r\n"
                )
            );
        }
        let vary = String::from("Vary: Origin\r\n");
        for origin in [
            None,
            Some("null"),
            Some("https://c.example"),
            Some("https://b.example.evil"),
            Some("https://b.example:443"),
            Some("http://b.example"),
            Some("HTTPS://B.EXAMPLE"),
            Some("https://b.exampl"),
            Some(""),
        ] {
            assert_eq!(lines(&sharing, origin), (vary.clone(), vary.clone()), "{origin:?}");
        }
        assert_eq!(sharing.lines_for_all(), None);
    }

    #[test]
    fn all_origins_get_the_same_lines() {
        let sharing = sharing(&["*"]).unwrap();
        let all = lines(&sharing, None);
        assert_eq!(all, lines(&sharing, Some("https://a.example")));
        assert!(all.0.starts_with("Access-Control-Allow-Origin: *\r\n"));
        assert!(!all.0.contains("Vary") && all.1.contains("Access-Control-Max-Age: 600\r\n"));
        assert_eq!(sharing.lines_for_all(), Some(all.0.into_bytes()));
    }

    #[test]
    fn preflights() {
        let is = |method, fields: &str| {
            is_preflight(method, format!("X / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes())
        };
        let fields = "Origin: https://a\r\nAccess-Control-Request-Method: PUT\r\n";
        assert!(is(Method::Options, fields));
        assert!(!is(Method::Get, fields), "only OPTIONS passes authentication");
        assert!(!is(Method::Options, "Origin: https://a\r\n"));
        assert!(!is(Method::Options, "Access-Control-Request-Method: GET\r\n"));
    }

    #[test]
    fn origins_that_no_browser_sends() {
        for (origins, reason) in [
            (&[][..], "no origin"),
            (&["*", "https://a"], "alone"),
            (&["null"], "sandboxed"),
            (&["a.example"], "https://example.org"),
            (&["://a.example"], "https://example.org"),
            (&["https://*.a.example"], "each one"),
            (&["https://a.example/"], "no path"),
            (&["https://A.example"], "lower case"),
            (&["https://a.example:443"], "leave out"),
            (&["http://a.example:80"], "leave out"),
            (&["https://"], "expected a host"),
            (&["https://a\r\nX: y"], "expected a host"),
            (&["https://a.example:"], "expected a host"),
        ] {
            let error = sharing(origins).unwrap_err();
            assert!(error.contains(reason), "{origins:?}: {error}");
        }
        assert!(sharing(&["http://[::1]:3000", "https://a:80", "moz-extension://a-1"]).is_ok());
        assert!(sharing(&["https://a"; ORIGINS_MAX + 1]).unwrap_err().contains("256"));
    }
}
