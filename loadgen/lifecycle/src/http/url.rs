//! URLs of requests.

use std::fmt;
use std::str::FromStr;

/// Port of a URL that names none.
pub const PORT: u16 = 80;

/// `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host and port in the form that name resolution takes: `127.0.0.1:8080`, `[::1]:80`,
    /// `localhost:80`.
    pub address: String,
    /// Value of the `Host` field: without the port if it is 80.
    pub host: String,
    /// Path and query, beginning with `/`.
    pub path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                return Err(format!(
                    "{scheme}:// is not supported; expected http://HOST[:PORT][/PATH]"
                ));
            }
            None => return Err("expected http://HOST[:PORT][/PATH]".into()),
        };
        if let Some(bad) = rest.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("{bad:?} is not allowed in a URL and must be percent-encoded"));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a user name in the URL is not supported; use -H 'Authorization: …'".into());
        }
        // Colons in brackets belong to an IPv6 address.
        let port_at = match authority.rfind(':') {
            Some(colon) if !authority[colon..].contains(']') => Some(colon),
            _ => None,
        };
        let (name, port) = match port_at {
            None => (authority, PORT),
            // An empty port is the default one (RFC 3986 section 3.2.3).
            Some(colon) if colon + 1 == authority.len() => (&authority[..colon], PORT),
            Some(colon) => {
                let port = authority[colon + 1..].parse::<u16>().ok().filter(|port| *port > 0);
                (&authority[..colon], port.ok_or("the port must be a number from 1 to 65535")?)
            }
        };
        if name.is_empty() {
            return Err("the URL has no host; expected http://HOST[:PORT][/PATH]".into());
        }
        Ok(Self {
            address: format!("{name}:{port}"),
            host: if port == PORT { name.into() } else { format!("{name}:{port}") },
            path: if path.starts_with('/') { path.into() } else { format!("/{path}") },
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, address, host, path) in [
            ("http://127.0.0.1:8080/a/b?c=d", "127.0.0.1:8080", "127.0.0.1:8080", "/a/b?c=d"),
            ("HTTP://localhost", "localhost:80", "localhost", "/"),
            ("http://localhost?x", "localhost:80", "localhost", "/?x"),
            ("http://[::1]:81/#top", "[::1]:81", "[::1]:81", "/"),
            ("http://[::1]/", "[::1]:80", "[::1]", "/"),
            ("http://localhost:/a", "localhost:80", "localhost", "/a"),
            ("http://[::1]:", "[::1]:80", "[::1]", "/"),
        ] {
            let url: Url = text.parse().expect(text);
            assert_eq!((&*url.address, &*url.host, &*url.path), (address, host, path), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        for (text, says) in [
            ("127.0.0.1:8080", "expected http://"),
            ("https://localhost/", "https:// is not supported"),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http://:/", "no host"),
            ("http://a:0/", "port"),
            ("http://a:x/", "port"),
            ("http://a:70000/", "port"),
            ("http://a/b c", "percent-encoded"),
            ("http://a/\r\nX: y", "percent-encoded"),
            ("http://user@a/", "Authorization"),
        ] {
            let error = text.parse::<Url>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
