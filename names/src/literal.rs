//! IP addresses in the forms that getaddrinfo(3) takes for a host.

use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Returns the address if `host` is one: IPv6 with or without brackets and with an optional
/// `%INTERFACE`, IPv4 in the forms of inet_aton(3).
pub fn address(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some((ip, scope)) = bare.unwrap_or(host).split_once('%') {
        let ip: Ipv6Addr = ip.parse().ok()?;
        return Some(SocketAddrV6::new(ip, port, 0, interface(scope)?).into());
    }
    if let Some(ip) = bare {
        return ip.parse::<Ipv6Addr>().ok().map(|ip| SocketAddr::new(ip.into(), port));
    }
    let ip = host.parse::<IpAddr>().ok().or_else(|| inet_aton(host).map(IpAddr::V4))?;
    Some(SocketAddr::new(ip, port))
}

/// The number of an interface that is given by its number or name.
pub fn interface(scope: &str) -> Option<u32> {
    if let Ok(number) = scope.parse() {
        return Some(number);
    }
    let name = CString::new(scope).ok()?;
    // SAFETY: the call reads the name, which ends with NUL.
    let number = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (number != 0).then_some(number)
}

/// One to four numbers, each decimal, octal or hexadecimal. The last one fills the remaining bytes.
fn inet_aton(host: &str) -> Option<Ipv4Addr> {
    let mut numbers = host.split('.').map(number).collect::<Option<Vec<u32>>>()?;
    let last = numbers.pop().filter(|_| numbers.len() <= 3)?;
    let mut address = 0;
    for (at, byte) in numbers.iter().enumerate() {
        address |= u32::from(u8::try_from(*byte).ok()?) << (24 - 8 * at);
    }
    let bits_left = 32 - 8 * numbers.len();
    let fits = u64::from(last) < 1 << bits_left;
    fits.then(|| Ipv4Addr::from(address | last))
}

fn number(text: &str) -> Option<u32> {
    // `from_str_radix` would take a sign.
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.contains(['+', '-']) {
        return None;
    }
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let octal = text.strip_prefix('0').filter(|digits| !digits.is_empty());
    match (hex, octal) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) => u32::from_str_radix(digits, 8).ok(),
        (None, None) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(host: &str) -> Option<String> {
        address(host, 80).map(|address| address.to_string())
    }

    #[test]
    fn addresses_have_many_forms() {
        for (host, expected) in [
            ("192.0.2.1", "192.0.2.1:80"),
            ("127.1", "127.0.0.1:80"),
            ("127.0.258", "127.0.1.2:80"),
            ("0x7f.1", "127.0.0.1:80"),
            ("0177.0.0.01", "127.0.0.1:80"),
            ("2130706433", "127.0.0.1:80"),
            ("0", "0.0.0.0:80"),
            ("::1", "[::1]:80"),
            ("[::1]", "[::1]:80"),
            ("fe80::1%7", "[fe80::1%7]:80"),
            ("[fe80::1%7]", "[fe80::1%7]:80"),
            // The loopback interface always has the number 1.
            ("[fe80::1%lo]", "[fe80::1%1]:80"),
        ] {
            assert_eq!(shown(host).as_deref(), Some(expected), "{host}");
        }
    }

    #[test]
    fn names_are_no_addresses() {
        for host in [
            "",
            ".",
            "a",
            "1.a",
            "127.0.0.1.",
            "256.1",
            "1.2.3.256",
            "1.2.3.4.5",
            "1.2.3.4.0",
            "1..2",
            "08",
            "0x",
            "0x+1",
            "+1",
            "-1",
            "4294967296",
            "1.16777216",
            "[127.0.0.1]",
            "[::1",
            "::1]",
            "fe80::1%",
            "fe80::1%no-such-interface",
            "127.0.0.1%lo",
        ] {
            assert_eq!(shown(host), None, "{host}");
        }
    }
}
