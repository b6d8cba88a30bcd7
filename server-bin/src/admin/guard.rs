//! What a web page that somebody here looks at must not do through their browser.
//!
//! # DNS rebinding
//! A page of `evil.example` can make that name stand for 127.0.0.1 and then read what this
//! listener says, as if it were its own. The name is in `Host`, so only addresses and `localhost`
//! are answered.
//!
//! # Requests forged across sites
//! A page may send requests anywhere; it just cannot read the replies. Browsers say where a
//! request comes from in `Origin` and `Sec-Fetch-Site`; other clients send neither.

use crate::http::fields::values;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether the name a request was sent to cannot have been somebody else's. `authority`: that of
/// a target in absolute form, which goes before Host (RFC 9112, 3.2.2). A request without either
/// is of no browser. `names`: names that the operator trusts.
#[must_use]
pub fn is_addressed_directly(head: &[u8], authority: Option<&[u8]>, names: &[String]) -> bool {
    let is_trusted = |host: &[u8]| is_address_or_localhost(host) || is_named(host, names);
    authority.into_iter().chain(values(head, "host")).all(is_trusted)
}

/// Returns whether a request has this token (RFC 6750, 2.1). A wrong one takes as long, wherever
/// it differs.
#[must_use]
pub fn has_token(head: &[u8], token: &[u8]) -> bool {
    let mut given = values(head, "authorization");
    let (Some(value), None) = (given.next(), given.next()) else { return false };
    let Some((scheme, value)) = value.split_at_checked(b"Bearer ".len()) else { return false };
    let differs = value.iter().zip(token).fold(0, |differs, (one, other)| differs | (one ^ other));
    scheme.eq_ignore_ascii_case(b"Bearer ") && value.len() == token.len() && differs == 0
}

fn is_named(host: &[u8], names: &[String]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    is_port(port) && names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a request that changes something comes from a page of this listener, or of no page.
#[must_use]
pub fn is_of_this_site(head: &[u8]) -> bool {
    let host = values(head, "host").next().unwrap_or_default();
    let own = |origin: &[u8]| {
        let rest = origin.strip_prefix(b"http://");
        rest.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    values(head, "origin").all(own)
        && values(head, "sec-fetch-site").all(|site| site == b"same-origin")
}

fn is_address_or_localhost(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && is_port(port);
    }
    let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
    is_port(port) && (name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok())
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> Vec<u8> {
        format!("DELETE /connections/1 HTTP/1.1\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn names_that_could_be_rebound_are_refused() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "10.1.2.3:1",
            "localhost",
            "LocalHost:9000",
            "[::1]:9000",
            "[fe80::1]",
        ] {
            let head = head(&format!("Host: {good}\r\n"));
            assert!(is_addressed_directly(&head, None, &[]), "{good}");
            assert!(is_addressed_directly(&head, Some(good.as_bytes()), &[]), "{good}");
            assert!(!is_addressed_directly(&head, Some(b"evil.example"), &[]), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:80:80",
            "127.0.0.1:port",
            "[::1",
            "[::1]evil",
            "[evil.example]",
            "::1",
            "0x7f.1",
        ] {
            let head = head(&format!("Host: {bad}\r\n"));
            assert!(!is_addressed_directly(&head, None, &[]), "{bad}");
        }
        assert!(is_addressed_directly(&head(""), None, &[]), "HTTP/1.0 has no Host");
    }

    #[test]
    fn names_of_the_configuration_are_trusted() {
        let names = ["admin.example".to_owned()];
        for (host, is_trusted) in [
            ("admin.example", true),
            ("Admin.Example:9000", true),
            ("localhost", true),
            ("evil.example", false),
            ("admin.example.evil.example", false),
            ("admin.example:port", false),
        ] {
            let head = head(&format!("Host: {host}\r\n"));
            assert_eq!(is_addressed_directly(&head, None, &names), is_trusted, "{host}");
        }
    }

    #[test]
    fn a_token_is_compared_as_a_whole() {
        for (fields, has) in [
            ("Authorization: Bearer secret\r\n", true),
            ("Authorization: bearer secret\r\n", true),
            ("Authorization: Bearer secre\r\n", false),
            ("Authorization: Bearer secrets\r\n", false),
            ("Authorization: Bearer Secret\r\n", false),
            ("Authorization: Basic secret\r\n", false),
            ("Authorization: secret\r\n", false),
            ("Authorization: Bearer secret\r\nAuthorization: Bearer secret\r\n", false),
            ("", false),
        ] {
            assert_eq!(has_token(&head(fields), b"secret"), has, "{fields}");
        }
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        for good in [
            "Host: localhost:1\r\n",
            "Host: localhost:1\r\nOrigin: http://localhost:1\r\n",
            "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n",
        ] {
            assert!(is_of_this_site(&head(good)), "{good}");
        }
        for bad in [
            "Host: localhost:1\r\nOrigin: http://localhost:2\r\n",
            "Host: localhost:1\r\nOrigin: https://localhost:1\r\n",
            "Host: localhost:1\r\nOrigin: null\r\n",
            "Host: localhost:1\r\nOrigin: http://localhost:1\r\nOrigin: http://evil.example\r\n",
            "Host: localhost:1\r\nSec-Fetch-Site: cross-site\r\n",
            "Host: localhost:1\r\nSec-Fetch-Site: same-site\r\n",
            "Host: localhost:1\r\nSec-Fetch-Site: none\r\n",
            "Origin: http://\r\nSec-Fetch-Site: cross-site\r\n",
        ] {
            assert!(!is_of_this_site(&head(bad)), "{bad}");
        }
    }
}
