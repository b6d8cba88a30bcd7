//! The address of the client that a reverse proxy names in a field of the request.
//!
//! Each proxy appends the address of its own client. Only the end of the list is therefore
//! reliable: it is read from the right, and as far as the proxies that wrote it are trusted. Text
//! that a client has sent stands further to the left and cannot change how the end is read.

use super::fields::is_token_byte;
use crate::proxies::Proxies;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Maximum number of entries that are read, over all lines of the field.
pub const ENTRIES_MAX: usize = 64;
/// Maximum length of an address with its port, in bytes.
const NODE_BYTES_MAX: usize = 64;

/// The field that names the client. Exactly one of them is read: a client can send the other one
/// through a proxy that does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `X-Forwarded-For`: addresses with commas between them.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Field {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::XForwardedFor => b"x-forwarded-for",
            Self::Forwarded => b"forwarded",
        }
    }

    /// Returns the place of the comma before the last element of a line.
    fn last_comma(self, line: &[u8]) -> Option<usize> {
        match self {
            Self::XForwardedFor => memchr::memrchr(b',', line),
            Self::Forwarded => last_comma_outside_quotes(line),
        }
    }

    /// Returns the address in an element. `None` if it has none, or is malformed.
    fn address(self, element: &[u8]) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => address(element),
            Self::Forwarded => node(parameter_for(element)?),
        }
    }
}

/// Returns the address of the client of a request: the last one in `field` that is not `trusted`,
/// or the first one if all are trusted. `head` is a valid head, `socket` the address of the peer, or
/// `None` for a client of a Unix socket.
///
/// Returns `socket` if it is not trusted itself, if the field is missing, and if an entry that has
/// to be read is malformed, `unknown` or obfuscated, or is beyond [`ENTRIES_MAX`]. IPv4-mapped IPv6
/// addresses are returned as IPv4 addresses.
#[must_use]
pub fn real_address(
    head: &[u8],
    socket: Option<IpAddr>,
    trusted: &Proxies,
    field: Field,
) -> Option<IpAddr> {
    let socket = socket.map(|ip| ip.to_canonical());
    let is_trusted = |address| trusted.has(Some(address));
    if !trusted.has(socket) {
        return socket;
    }
    let mut first = socket;
    for (place, element) in elements_from_the_right(head, field).enumerate() {
        if place == ENTRIES_MAX {
            return socket;
        }
        // A list may have empty elements (RFC 9110, 5.6.1).
        if element.is_empty() {
            continue;
        }
        match field.address(element).map(|address| address.to_canonical()) {
            None => return socket,
            Some(address) if !is_trusted(address) => return Some(address),
            Some(address) => first = Some(address),
        }
    }
    first
}

/// The elements of all lines of a field, the last one of the last line first.
fn elements_from_the_right(head: &[u8], field: Field) -> impl Iterator<Item = &[u8]> {
    let request_line = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    let lines = head[request_line..].rsplit(|&byte| byte == b'\n').filter_map(move |line| {
        let colon = memchr::memchr(b':', line)?;
        line[..colon].eq_ignore_ascii_case(field.name()).then(|| line[colon + 1..].trim_ascii())
    });
    lines.flat_map(move |line| {
        let mut left = Some(line);
        std::iter::from_fn(move || {
            let line = left?;
            let comma = field.last_comma(line);
            left = comma.map(|comma| &line[..comma]);
            Some(line[comma.map_or(0, |comma| comma + 1)..].trim_ascii())
        })
    })
}

/// Skips quoted strings. Inside of one, each quote is escaped; the one that opens it is not.
fn last_comma_outside_quotes(line: &[u8]) -> Option<usize> {
    let mut end = line.len();
    loop {
        let at = memchr::memrchr2(b',', b'"', &line[..end])?;
        if line[at] == b',' {
            return Some(at);
        }
        end = at;
        // A quote that nothing opens makes all that is left one malformed element.
        loop {
            end = memchr::memrchr(b'"', &line[..end])?;
            if !line[..end].ends_with(b"\\") {
                break;
            }
        }
    }
}

/// An IP address, with a port if there is one: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let bare = str::from_utf8(text).ok()?.parse::<Ipv6Addr>();
    bare.ok().map(IpAddr::V6).or_else(|| node(Node::of(text)?))
}

/// A `node` of RFC 7239, section 6. `None` if it is not an IP address.
fn node(node: Node) -> Option<IpAddr> {
    let text = str::from_utf8(&node.bytes[..node.length]).ok()?;
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address.parse::<Ipv6Addr>().ok()?.into(), port)
        }
        None => {
            let (address, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (IpAddr::from(address.parse::<Ipv4Addr>().ok()?), port)
        }
    };
    let is_right = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    is_right.then_some(address)
}

/// `node-port` of RFC 7239, section 6.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        None => matches!(text.len(), 1..=5) && text.bytes().all(|byte| byte.is_ascii_digit()),
        Some(name) => {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !name.is_empty() && name.bytes().all(is_name)
        }
    }
}

/// The value of a `for`, without quotes.
struct Node {
    bytes: [u8; NODE_BYTES_MAX],
    length: usize,
}

impl Node {
    fn of(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; NODE_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { bytes, length: text.len() })
    }

    /// Takes the inside of a quoted string: each backslash is left out.
    fn unquoted(inside: &[u8]) -> Option<Self> {
        let mut node = Self::of(b"")?;
        let mut is_escaped = false;
        for &byte in inside {
            is_escaped = byte == b'\\' && !is_escaped;
            if !is_escaped {
                *node.bytes.get_mut(node.length)? = byte;
                node.length += 1;
            }
        }
        Some(node)
    }
}

/// Returns the value of the one parameter `for` of a `forwarded-element` (RFC 7239, section 4).
/// `None` if there is none, or if the element is malformed. White space around a semicolon is
/// accepted.
fn parameter_for(element: &[u8]) -> Option<Node> {
    let mut found = None;
    let mut rest = element;
    loop {
        rest = rest.trim_ascii_start();
        if !matches!(rest, [] | [b';', ..]) {
            let (name, after) = token(rest)?;
            let after = after.strip_prefix(b"=")?;
            let (value, after) = match after.strip_prefix(b"\"") {
                Some(quoted) => {
                    let (inside, after) = quoted_string(quoted)?;
                    (Node::unquoted(inside), after)
                }
                None => {
                    let (value, after) = token(after)?;
                    (Node::of(value), after)
                }
            };
            if name.eq_ignore_ascii_case(b"for") {
                if found.is_some() {
                    return None;
                }
                found = Some(value?);
            }
            rest = after.trim_ascii_start();
        }
        match rest {
            [] => return found,
            [b';', more @ ..] => rest = more,
            _ => return None,
        }
    }
}

/// Splits the token off with which the bytes begin.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.iter().take_while(|&&byte| is_token_byte(byte)).count();
    (length > 0).then(|| bytes.split_at(length))
}

/// Splits the inside of a quoted string off. `bytes` follow the quote that opens it.
fn quoted_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut is_escaped = false;
    let length = bytes.iter().position(|&byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    Some((&bytes[..length], &bytes[length + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROXY: &str = "10.0.0.1";

    fn proxies(texts: &[&str]) -> Proxies {
        texts.iter().map(|text| text.parse().expect("a proxy")).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The address of a request with these field lines from [`PROXY`].
    fn of_lines(field: Field, lines: &[&str]) -> String {
        let head = format!("GET /a:b HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", lines.join("\r\n"));
        let trusted = proxies(&["10.0.0.0/8", "2001:db8:1::/48"]);
        let client = real_address(head.as_bytes(), Some(ip(PROXY)), &trusted, field);
        client.expect("the proxy has an address").to_string()
    }

    fn of_x(value: &str) -> String {
        of_lines(Field::XForwardedFor, &[&format!("X-Forwarded-For: {value}")])
    }

    fn of_forwarded(value: &str) -> String {
        of_lines(Field::Forwarded, &[&format!("Forwarded: {value}")])
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_client() {
        for (value, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, 10.0.0.2", "192.0.2.7"),
            ("192.0.2.7 ,\t10.0.0.2,10.1.0.3", "192.0.2.7"),
            // The client has sent the first one itself.
            ("10.9.9.9, 192.0.2.7", "192.0.2.7"),
            ("127.0.0.1, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
            ("nonsense, 192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, , 10.0.0.2,", "192.0.2.7"),
            // All are trusted.
            ("10.0.0.3", "10.0.0.3"),
            ("10.0.0.4, 10.0.0.3", "10.0.0.4"),
            ("", PROXY),
            (",", PROXY),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711, 2001:db8:1::2", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, ::ffff:10.0.0.2", "192.0.2.7"),
            ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
        ] {
            assert_eq!(of_x(value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_malformed_entry_leaves_the_address_of_the_socket() {
        for entry in [
            "nonsense",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.07",
            "192.0.2.7:",
            "192.0.2.7:x",
            "192.0.2.7:123456",
            "192.0.2.7 10.0.0.2",
            "192.0.2.0/24",
            "\"192.0.2.7\"",
            "for=192.0.2.7",
            "[192.0.2.7]",
            "[2001:db8::7",
            "2001:db8::7]",
            "[2001:db8::7]80",
            "[2001:db8::7]:",
            "fe80::1%eth0",
            "\u{e9}",
            &"1".repeat(10_000),
        ] {
            for value in [entry, &format!("192.0.2.1, {entry}"), &format!("{entry}, 10.0.0.2")] {
                assert_eq!(of_x(value), PROXY, "{value:?}");
            }
            assert_eq!(of_x(&format!("{entry}, 192.0.2.9")), "192.0.2.9", "{entry:?}");
        }
    }

    #[test]
    fn forwarded_is_read_by_its_grammar() {
        for (value, expected) in [
            // The examples of RFC 7239.
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
            ("for=_hidden, for=_SEVKISEK", PROXY),
            ("for=\"_gazonk\"", PROXY),
            ("for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown", PROXY),
            ("for=192.0.2.43, for=\"10.0.0.2:_x.y-z\"", "192.0.2.43"),
            // A comma, a semicolon or a quote in quotes does not end anything.
            ("for=192.0.2.7;host=\"a,b\"", "192.0.2.7"),
            ("host=\"a;for=6.6.6.6\";for=192.0.2.7", "192.0.2.7"),
            ("for=192.0.2.7;host=\"a\\\", for=6.6.6.6, \\\"b\"", "192.0.2.7"),
            ("for=192.0.2.7;ext=\"\\\\\", for=10.0.0.2;ext=\"\"", "192.0.2.7"),
            ("for=\"192.0.2.1, 192.0.2.7\"", PROXY),
            ("for=\"192.0.2.1\", for=\"a, b\"", PROXY),
            ("for=\"\\1\\92.0.2.7\"", "192.0.2.7"),
            ("for=\"[::ffff:192.0.2.7]\"", "192.0.2.7"),
            ("proto=http ; for=192.0.2.7 ; by=_x", "192.0.2.7"),
            (";;for=192.0.2.7;", "192.0.2.7"),
            ("for=192.0.2.7, ,", "192.0.2.7"),
            // Malformed.
            ("192.0.2.7", PROXY),
            ("for", PROXY),
            ("for=", PROXY),
            ("for =192.0.2.7", PROXY),
            ("for= 192.0.2.7", PROXY),
            ("for=192.0.2.7:80", PROXY),
            ("for=[2001:db8::7]", PROXY),
            ("for=\"2001:db8::7\"", PROXY),
            ("for=\"192.0.2.7", PROXY),
            ("for=192.0.2.7\"", PROXY),
            ("for=\"192.0.2.7\"x", PROXY),
            ("for=192.0.2.7;for=192.0.2.8", PROXY),
            ("for=192.0.2.7;proto=", PROXY),
            ("for=192.0.2.7;=http", PROXY),
            ("for=192.0.2.7 proto=http", PROXY),
            ("proto=http;by=192.0.2.7", PROXY),
            ("for=\"192.0.2.7:123456\"", PROXY),
            ("for=\"192.0.2.7:_\"", PROXY),
        ] {
            assert_eq!(of_forwarded(value), expected, "{value:?}");
        }
    }

    #[test]
    fn all_lines_of_one_field_are_one_list() {
        let all = [
            "x-forwarded-for: 6.6.6.6",
            "Forwarded: for=192.0.2.8, for=10.0.0.2",
            "X-FORWARDED-FOR:192.0.2.7",
            "X-Forwarded-For:",
            "X-Forwarded-For-: 6.6.6.6",
            "Forwarded: for=10.0.0.3",
            "X-Forwarded-For: 10.0.0.2",
            "Other: 6.6.6.6",
        ];
        assert_eq!(of_lines(Field::XForwardedFor, &all), "192.0.2.7");
        assert_eq!(of_lines(Field::Forwarded, &all), "192.0.2.8");
        // A quoted string ends with its line.
        let cut = ["Forwarded: for=192.0.2.7;a=\"", "Forwarded: \";for=10.0.0.2"];
        assert_eq!(of_lines(Field::Forwarded, &cut), PROXY);
        assert_eq!(of_lines(Field::Forwarded, &["Other: x"]), PROXY);
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let head = b"GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n";
        let trusted = proxies(&["10.0.0.0/8"]);
        let of = |socket, trusted: &Proxies| {
            let client = real_address(head, Some(ip(socket)), trusted, Field::XForwardedFor);
            client.expect("an address").to_string()
        };
        assert_eq!(of("10.0.0.1", &trusted), "192.0.2.7");
        assert_eq!(of("::ffff:10.0.0.1", &trusted), "192.0.2.7");
        assert_eq!(of("11.0.0.1", &trusted), "11.0.0.1");
        assert_eq!(of("::ffff:11.0.0.1", &trusted), "11.0.0.1");
        assert_eq!(of("10.0.0.1", &Proxies::default()), "10.0.0.1");
        // A client of a Unix socket has no address of its own.
        let unix = |trusted| real_address(head, None, trusted, Field::XForwardedFor);
        assert_eq!(unix(&trusted), None);
        assert_eq!(unix(&proxies(&["unix"])), Some(ip("192.0.2.7")));
        let without =
            real_address(b"GET / HTTP/1.1\r\n\r\n", None, &proxies(&["unix"]), Field::Forwarded);
        assert_eq!(without, None);
    }

    #[test]
    fn a_long_chain_is_not_followed_to_its_end() {
        for (proxies, expected) in [(ENTRIES_MAX - 1, "192.0.2.7"), (ENTRIES_MAX, PROXY)] {
            let value = format!("192.0.2.7{}", ",10.0.0.2".repeat(proxies));
            assert_eq!(of_x(&value), expected);
            let value = format!("for=192.0.2.7{}", ",for=10.0.0.2".repeat(proxies));
            assert_eq!(of_forwarded(&value), expected);
        }
        assert_eq!(of_x(&format!("192.0.2.7{}", ",".repeat(ENTRIES_MAX))), PROXY);
        let lines = vec!["X-Forwarded-For:"; ENTRIES_MAX];
        let lines = [&["X-Forwarded-For: 192.0.2.7"], &lines[..]].concat();
        assert_eq!(of_lines(Field::XForwardedFor, &lines), PROXY);
    }

    proptest! {
        /// A proxy appends an element, on the same line or on a new one.
        #[test]
        fn no_text_of_a_client_hides_what_the_proxy_appends(
            text in r#"([ -~\t\x80-\xff]|[",;=\\]|for=|10\.0\.0\.2){0,40}"#,
            on_new_line: bool,
            v6: bool,
        ) {
            let client = if v6 { "2001:db8::7" } else { "192.0.2.7" };
            for (field, name, appended) in [
                (Field::XForwardedFor, "X-Forwarded-For", client.to_owned()),
                (Field::Forwarded, "Forwarded", match v6 {
                    true => format!("for=\"[{client}]\";proto=http"),
                    false => format!("for={client}"),
                }),
            ] {
                let line = match on_new_line {
                    true => format!("{name}: {text}\r\n{name}: {appended}"),
                    false => format!("{name}: {text}, {appended}"),
                };
                prop_assert_eq!(of_lines(field, &[&line]), client, "{}", line);
            }
        }

        #[test]
        fn a_valid_list_is_read_as_it_was_written(
            nodes in prop::collection::vec(
                (any::<[u8; 4]>(), any::<bool>(), r#"[ -~]{0,8}"#), 1..8,
            ),
        ) {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let elements: Vec<String> = nodes.iter().map(|(bytes, is_trusted, host)| {
                let [a, b, c, d] = *bytes;
                let a = if *is_trusted { 10 } else { a };
                format!("host=\"{}\";for=\"{a}.{b}.{c}.{d}\"", quoted(host))
            }).collect();
            let address = |(bytes, is_trusted, _): &([u8; 4], bool, String)| {
                let [a, b, c, d] = *bytes;
                Ipv4Addr::from([if *is_trusted { 10 } else { a }, b, c, d])
            };
            let addresses: Vec<_> = nodes.iter().map(address).collect();
            let expected = addresses.iter().rfind(|address| address.octets()[0] != 10);
            let expected = expected.unwrap_or(&addresses[0]).to_string();
            prop_assert_eq!(of_forwarded(&elements.join(", ")), expected);
        }
    }
}
