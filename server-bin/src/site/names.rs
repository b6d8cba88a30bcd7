//! The choice of the site by the name that a request asks for.

use super::spec::SiteSpec;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of a name at most (RFC 1035, 2.3.4, without the length and the root label).
const NAME_BYTES_MAX: usize = 253;
/// Bytes of a label at most.
const LABEL_BYTES_MAX: usize = 63;
/// Labels of a name at most, so that a bit stands for each number of labels.
const LABELS_MAX: u32 = 128;

// A label has a byte and a dot.
const _: () = assert!(NAME_BYTES_MAX < 2 * LABELS_MAX as usize);

/// The sites of a listener by name. Looking one up takes no longer with more sites, and does not
/// allocate.
#[derive(Clone, Debug, Default)]
pub struct Names {
    exact: Map<Exact>,
    addresses: HashMap<Ipv6Addr, usize>,
    /// Without `*.`.
    suffixes: Map<usize>,
    /// Bit n: there is a suffix with n labels.
    suffix_labels: u128,
    /// The site of requests that name none.
    fallback: usize,
}

type Map<T> = HashMap<Box<[u8]>, T, BuildHasherDefault<Fnv>>;

/// A site, and the name by which it was found.
#[derive(Clone, Debug)]
struct Exact {
    site: usize,
    name: Box<str>,
}

/// FNV-1a: each request has a name, and the usual hash costs five times as much. Nobody but the
/// operator adds names that could collide.
#[derive(Clone, Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The length of a slice, which comes before its bytes.
    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The site of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// The index of the site.
    pub site: usize,
    /// The name in the configuration that was asked for. `None` if a suffix matched or nothing.
    pub name: Option<&'a str>,
}

/// Two sites of a listener that cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambiguous {
    /// The index of the earlier site.
    pub first: usize,
    /// The index of the later site.
    pub second: usize,
    /// The name that both have; `None` if both are the default.
    pub name: Option<String>,
}

impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} is also a name of another site of this listener"),
            None => f.write_str("another site of this listener is the default, too"),
        }
    }
}

impl Names {
    /// Collects the names of a listener's sites, which [`check`] has returned.
    ///
    /// # Errors
    /// Two sites have the same name, or both are the default.
    pub fn new<'a>(sites: impl IntoIterator<Item = &'a SiteSpec>) -> Result<Self, Ambiguous> {
        let mut names = Self {
            exact: Map::default(),
            addresses: HashMap::new(),
            suffixes: Map::default(),
            suffix_labels: 0,
            fallback: 0,
        };
        let mut default = None;
        for (second, site) in sites.into_iter().enumerate() {
            for name in &site.names {
                if let Some(first) = names.insert(name, second).filter(|first| *first != second) {
                    return Err(Ambiguous { first, second, name: Some(name.clone()) });
                }
            }
            if site.is_default
                && let Some(first) = default.replace(second)
            {
                return Err(Ambiguous { first, second, name: None });
            }
        }
        names.fallback = default.unwrap_or(0);
        Ok(names)
    }

    /// Returns the site that had the name.
    fn insert(&mut self, name: &str, site: usize) -> Option<usize> {
        if let Some(suffix) = name.strip_prefix("*.") {
            self.suffix_labels |= 1 << labels(suffix.as_bytes());
            self.suffixes.insert(suffix.as_bytes().into(), site)
        } else if let Some(address) = address_in_brackets(name) {
            self.addresses.insert(address, site)
        } else {
            let exact = Exact { site, name: name.into() };
            self.exact.insert(name.as_bytes().into(), exact).map(|earlier| earlier.site)
        }
    }

    /// Returns the site that a request asks for: the value of Host, or the authority of an
    /// absolute target, which [`authority`] finds and which goes before Host (RFC 9112, 3.2.2).
    /// `None` if there is neither, as HTTP/1.0 allows.
    ///
    /// The exact name decides, then the longest suffix, then `default = true`, then the first site.
    #[must_use]
    pub fn find(&self, host: Option<&[u8]>) -> Named<'_> {
        let fallback = Named { site: self.fallback, name: None };
        let Some(host) = host else { return fallback };
        // Most often the name is written as in the configuration.
        if let Some(Exact { site, name }) = self.exact.get(host) {
            return Named { site: *site, name: Some(name) };
        }
        if host.starts_with(b"[") {
            return self.find_address(host).unwrap_or(fallback);
        }
        let mut lower = [0; NAME_BYTES_MAX];
        let Some(name) = normal(host, &mut lower) else { return fallback };
        if let Some(Exact { site, name }) = self.exact.get(name) {
            return Named { site: *site, name: Some(name) };
        }
        match self.longest_suffix(name) {
            Some(site) => Named { site, name: None },
            None => fallback,
        }
    }

    fn find_address(&self, host: &[u8]) -> Option<Named<'_>> {
        if self.addresses.is_empty() {
            return None;
        }
        let end = memchr::memchr(b']', host)?;
        let address = address_in_brackets(str::from_utf8(&host[..=end]).ok()?)?;
        // An address has many spellings. None of them is the one in the configuration.
        self.addresses.get(&address).map(|&site| Named { site, name: None })
    }

    fn longest_suffix(&self, name: &[u8]) -> Option<usize> {
        let mut suffix = name;
        let mut left = if self.suffix_labels == 0 { 0 } else { labels(name) };
        // Each suffix is looked up only if one with its number of labels exists.
        while left > 1 {
            suffix = &suffix[memchr::memchr(b'.', suffix)? + 1..];
            left -= 1;
            // The host of a request may have more labels, all of them empty.
            if left < LABELS_MAX
                && self.suffix_labels & 1 << left != 0
                && let Some(&site) = self.suffixes.get(suffix)
            {
                return Some(site);
            }
        }
        None
    }
}

/// The authority of a request target in absolute form (RFC 9112, 3.2.2).
#[must_use]
pub fn authority(target: &[u8]) -> Option<&[u8]> {
    if target.starts_with(b"/") {
        return None;
    }
    let scheme_end = memchr::memmem::find(target, b"://")?;
    let rest = &target[scheme_end + 3..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// Reads a name of the configuration, and returns it in the form that [`Names::new`] expects: in
/// lower case, without the final dot; an IPv6 address in brackets.
///
/// # Errors
/// The reason why this is no name.
pub fn check(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let host = name.strip_prefix("*.").unwrap_or(name);
    if text.contains('/') {
        return Err("expected a host name such as example.org, not a URL".into());
    }
    if host.contains('*') {
        return Err("`*` stands only at the beginning, before a dot: *.example.org".into());
    }
    if host.contains(':') {
        return Err("a name has no port: `listen` names it".into());
    }
    if !host.is_ascii() {
        return Err("write it as browsers send it, in ASCII: xn--…".into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("it is longer than {NAME_BYTES_MAX} bytes"));
    }
    for label in host.split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return Err("each label of a name has 1 to 63 characters".into());
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return Err("a name has letters, digits, hyphens and dots".into());
        }
    }
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = host.parse::<Ipv4Addr>().is_ok() && host == name;
    if host.rsplit('.').next().is_some_and(is_number) && !is_address {
        return Err("expected a name or an IP address".into());
    }
    Ok(name.into())
}

/// The value of a Host field in lower case, without port and final dot. `None` if it is too long
/// for a name, or empty.
fn normal<'a>(host: &[u8], lower: &'a mut [u8; NAME_BYTES_MAX]) -> Option<&'a [u8]> {
    let end = memchr::memchr(b':', host).unwrap_or(host.len());
    let host = host[..end].strip_suffix(b".").unwrap_or(&host[..end]);
    let lower = lower.get_mut(..host.len()).filter(|lower| !lower.is_empty())?;
    lower.copy_from_slice(host);
    lower.make_ascii_lowercase();
    Some(lower)
}

fn address_in_brackets(text: &str) -> Option<Ipv6Addr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn labels(name: &[u8]) -> u32 {
    1 + memchr::memchr_iter(b'.', name).count() as u32
}

#[cfg(test)]
mod tests {
    use super::super::spec::{Listing, Symlinks};
    use super::*;
    use proptest::prelude::*;

    fn site(names: &[&str], is_default: bool) -> SiteSpec {
        SiteSpec {
            names: names.iter().map(|name| check(name).unwrap()).collect(),
            is_default,
            root: "/srv".into(),
            index: Vec::new(),
            spa: None,
            precompressed: false,
            symlinks: Symlinks::Deny,
            listing: Listing::Off,
            errors: Default::default(),
            health: None,
            real_ip: None,
            max_ranges: 1,
            rules: Vec::new(),
        }
    }

    fn names() -> Names {
        let sites = [
            site(&["first.example"], false),
            site(&["Example.ORG.", "www.example.org", "*.example.org"], false),
            site(&["*.deep.example.org", "192.0.2.7", "2001:DB8::1", "[::ffff:192.0.2.9]"], false),
            site(&["localhost"], true),
        ];
        Names::new(&sites).unwrap()
    }

    #[test]
    fn exact_names_then_suffixes_then_the_default() {
        let names = names();
        for (host, site, name) in [
            ("example.org", 1, Some("example.org")),
            ("EXAMPLE.org:8080", 1, Some("example.org")),
            ("example.org.", 1, Some("example.org")),
            ("example.org.:443", 1, Some("example.org")),
            ("www.example.org", 1, Some("www.example.org")),
            ("a.example.org", 1, None),
            ("a.b.c.Example.Org", 1, None),
            ("deep.example.org", 1, None),
            ("a.deep.example.org", 2, None),
            ("a.b.deep.example.org:1", 2, None),
            ("xdeep.example.org", 1, None),
            ("192.0.2.7:80", 2, Some("192.0.2.7")),
            ("[2001:db8:0:0::1]:80", 2, None),
            ("[2001:db8::1]", 2, None),
            ("[::ffff:c000:209]", 2, None),
            ("[2001:db8::2]", 3, None),
            ("[v1.a]", 3, None),
            ("[", 3, None),
            ("first.example", 0, Some("first.example")),
            ("other.example", 3, None),
            ("org", 3, None),
            ("xexample.org", 3, None),
            ("", 3, None),
            (":80", 3, None),
            (".", 3, None),
            ("localhost", 3, Some("localhost")),
        ] {
            assert_eq!(names.find(Some(host.as_bytes())), Named { site, name }, "{host}");
        }
        assert_eq!(names.find(None), Named { site: 3, name: None });
        let long = format!("{}example.org", "a.".repeat(200));
        assert_eq!(names.find(Some(long.as_bytes())).site, 3, "no name is so long");
        assert_eq!(names.find(Some(&[b'.'; 250])).site, 3);
    }

    #[test]
    fn the_first_site_answers_if_none_is_the_default() {
        let sites = [site(&["a.example"], false), site(&["b.example"], false)];
        let names = Names::new(&sites).unwrap();
        assert_eq!(names.find(Some(b"c.example")).site, 0);
        assert_eq!(names.find(None).site, 0);
        assert_eq!(names.find(Some(b"b.example")).site, 1);
    }

    #[test]
    fn sites_that_cannot_be_told_apart() {
        for (one, other) in [
            ("a.example", "A.example."),
            ("*.a.example", "*.A.example"),
            ("[::1]", "0:0:0:0:0:0:0:1"),
        ] {
            let sites = [site(&[one], false), site(&["x"], false), site(&[other], false)];
            let error = Names::new(&sites).unwrap_err();
            assert_eq!((error.first, error.second), (0, 2));
            assert!(error.to_string().contains("another site"), "{error}");
        }
        let sites = [site(&["a"], true), site(&["b"], true)];
        assert_eq!(Names::new(&sites).unwrap_err(), Ambiguous { first: 0, second: 1, name: None });
        assert!(Names::new(&[site(&["a.example", "*.a.example"], true)]).is_ok());
        assert!(Names::new(&[site(&["a", "a"], false)]).is_ok(), "twice the same site");
    }

    #[test]
    fn names_of_the_configuration() {
        for (text, name) in [
            ("Example.ORG.", "example.org"),
            ("*.example.org", "*.example.org"),
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[2001:DB8:0::1]", "[2001:db8::1]"),
            ("a_b.example", "a_b.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(check(text).as_deref(), Ok(name), "{text}");
        }
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(127);
        for (text, reason) in [
            ("", "1 to 63"),
            (".", "1 to 63"),
            ("a..b", "1 to 63"),
            ("*", "`*`"),
            ("*.*.a", "`*`"),
            ("a.*.b", "`*`"),
            ("a*.b", "`*`"),
            ("example.org:80", "port"),
            ("http://example.org", "URL"),
            ("example.org/a", "URL"),
            ("bücher.example", "xn--"),
            ("a b", "letters"),
            ("1.2.3.4.5", "IP address"),
            ("256.1.1.1", "IP address"),
            ("*.1.2.3.4", "IP address"),
            (&long_label, "1 to 63"),
            (&(long_name + "a"), "253"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn authorities_of_absolute_targets() {
        for (target, authority) in [
            ("http://a.example:80/x", Some("a.example:80")),
            ("HTTPS://a?x", Some("a")),
            ("http://[::1]", Some("[::1]")),
            ("/a://b", None),
            ("*", None),
        ] {
            let found = super::authority(target.as_bytes());
            assert_eq!(found, authority.map(str::as_bytes), "{target}");
        }
    }
    proptest! {
        #[test]
        fn any_host_has_a_site(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            host in "(\\[|\\.|a|:|\\]|example.org){0,300}",
        ) {
            let names = names();
            prop_assert!(names.find(Some(&bytes)).site < 4);
            prop_assert!(names.find(Some(host.as_bytes())).site < 4);
            let _ = check(&host);
        }
    }
}
