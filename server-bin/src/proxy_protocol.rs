//! The header by which a proxy names the client of a connection: the PROXY protocol, versions 1 and
//! 2 (doc/proxy-protocol.txt of HAProxy).
//!
//! There is no I/O here. [`parse`] takes the first bytes of a connection, as many as have arrived.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// Maximum length of a header of version 1 with its CR LF, in bytes (section 2.1).
pub const V1_BYTES_MAX: usize = 107;
/// Maximum length of a header of version 2 with its TLVs, in bytes. The specification allows
/// 64 KiB.
pub const V2_BYTES_MAX: usize = 536;

/// The result of [`parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The bytes are the beginning of a header.
    Incomplete,
    /// The bytes begin with a header.
    Complete {
        /// Length of the header, in bytes. The client's bytes follow.
        length: usize,
        /// The addresses that it names.
        address: Address,
    },
    /// The bytes are not a header and cannot become one, for this reason.
    Malformed(&'static str),
}

/// The addresses that a header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// The addresses of the client's connection. IPv4-mapped IPv6 addresses are IPv4 addresses
    /// here.
    Named {
        /// The client.
        source: SocketAddr,
        /// The address to which the client connected.
        destination: SocketAddr,
    },
    /// None that applies: the addresses of the socket stay. The proxy speaks for itself (`LOCAL`,
    /// as for a health check), or the client does not use TCP over IP (`UNKNOWN`, `AF_UNSPEC`,
    /// `AF_UNIX`, datagrams, and values that the specification does not assign).
    Local,
}

/// Parses the header at the beginning of `bytes`, in time that is bounded by [`V2_BYTES_MAX`].
///
/// Bytes that no further byte can turn into a header are malformed at once. Only the checksum of
/// version 2 is judged at the end. An IPv6 address of version 1 may end with an IPv4 address in
/// decimal, as HAProxy writes IPv4-mapped ones.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let parsed = match bytes.first() {
        None => Err(Stop::Incomplete),
        Some(b'P') => version_1(bytes),
        Some(b'\r') => version_2(bytes),
        Some(_) => malformed("the connection does not begin with a PROXY protocol header"),
    };
    match parsed {
        Ok((length, address)) => Parsed::Complete { length, address },
        Err(Stop::Incomplete) => Parsed::Incomplete,
        Err(Stop::Malformed(reason)) => Parsed::Malformed(reason),
    }
}

/// The reason for which there is no value.
enum Stop {
    Incomplete,
    Malformed(&'static str),
}

const fn malformed<T>(reason: &'static str) -> Result<T, Stop> {
    Err(Stop::Malformed(reason))
}

fn named(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Address {
    let of = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    Address::Named { source: of(source), destination: of(destination) }
}

// Version 1.

const TOO_LONG: &str = "the PROXY line has more than 107 bytes";
/// Maximum length of an address, in bytes: six groups of an IPv6 address and an IPv4 address.
const ADDRESS_BYTES_MAX: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();
/// Each beginning of a field becomes a valid field with one of these endings, if with any at all.
/// The shorter ones come first.
const V4_ENDINGS: &[&str] = &["", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"];
const V6_ENDINGS: &[&str] = &["", "0", ":", "::", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0"];
const PORT_ENDINGS: &[&str] = &["", "0"];
const ENDING_BYTES_MAX: usize = "0.0.0.0".len();

fn version_1(bytes: &[u8]) -> Result<(usize, Address), Stop> {
    let mut line = Line { bytes: &bytes[..bytes.len().min(V1_BYTES_MAX)], at: 0 };
    line.expect(b"PROXY ")?;
    if line.rest().first() == Some(&b'U') {
        line.expect(b"UNKNOWN")?;
        line.skip_to_end()?;
        return Ok((line.at, Address::Local));
    }
    line.expect(b"TCP")?;
    let (source, destination) = match line.rest().first() {
        None => return Err(Stop::Incomplete),
        Some(b'4') => line.addresses(ipv4, V4_ENDINGS)?,
        Some(b'6') => line.addresses(ipv6, V6_ENDINGS)?,
        Some(_) => return malformed("the protocol is not TCP4, TCP6 or UNKNOWN"),
    };
    let source_port = line.field(b' ', port, PORT_ENDINGS, "0\r\n".len())?;
    let destination_port = line.field(b'\r', port, PORT_ENDINGS, "\n".len())?;
    line.expect(b"\n")?;
    Ok((line.at, named((source, source_port), (destination, destination_port))))
}

fn ipv4(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn ipv6(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn port(text: &str) -> Option<u16> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let has_zero_in_front = text.len() > 1 && text.starts_with('0');
    (is_decimal && !has_zero_in_front).then(|| text.parse().ok())?
}

/// The first bytes of a line, and the position up to which it is parsed.
struct Line<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Line<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn expect(&mut self, text: &[u8]) -> Result<(), Stop> {
        let there = text.len().min(self.rest().len());
        if self.rest()[..there] != text[..there] {
            return malformed("the PROXY line is not as the specification says");
        }
        if there < text.len() {
            return Err(Stop::Incomplete);
        }
        self.at += there;
        Ok(())
    }

    /// Takes the digit of the protocol, and both addresses.
    fn addresses(
        &mut self,
        parse: fn(&str) -> Option<IpAddr>,
        endings: &[&str],
    ) -> Result<(IpAddr, IpAddr), Stop> {
        self.at += 1;
        self.expect(b" ")?;
        let source = self.field(b' ', parse, endings, ":: 0 0\r\n".len())?;
        let destination = self.field(b' ', parse, endings, "0 0\r\n".len())?;
        Ok((source, destination))
    }

    /// Takes a field and the `end` behind it. At least `behind_min` bytes follow them.
    fn field<T>(
        &mut self,
        end: u8,
        parse: fn(&str) -> Option<T>,
        endings: &[&str],
        behind_min: usize,
    ) -> Result<T, Stop> {
        let wrong = "an address or a port of the PROXY line is invalid";
        let rest = self.rest();
        let length = memchr::memchr(end, rest);
        let text = &rest[..length.unwrap_or(rest.len())];
        if text.len() > ADDRESS_BYTES_MAX {
            return malformed(wrong);
        }
        let mut whole = [0; ADDRESS_BYTES_MAX + ENDING_BYTES_MAX];
        whole[..text.len()].copy_from_slice(text);
        // A field that its end follows is whole.
        let endings = if length.is_some() { &[""] } else { endings };
        let found = endings.iter().find_map(|ending| {
            let bytes = text.len() + ending.len();
            whole[text.len()..bytes].copy_from_slice(ending.as_bytes());
            let value = str::from_utf8(&whole[..bytes]).ok().and_then(parse)?;
            Some((value, bytes))
        });
        let Some((value, bytes)) = found else { return malformed(wrong) };
        if self.at + bytes + 1 + behind_min > V1_BYTES_MAX {
            return malformed(TOO_LONG);
        }
        if length.is_none() {
            return Err(Stop::Incomplete);
        }
        self.at += bytes + 1;
        Ok(value)
    }

    /// Skips the rest of an UNKNOWN line. Its content is to be ignored.
    fn skip_to_end(&mut self) -> Result<(), Stop> {
        if self.rest().first().is_some_and(|next| !matches!(next, b' ' | b'\r')) {
            return malformed("the protocol is not TCP4, TCP6 or UNKNOWN");
        }
        let rest = self.rest();
        let length = memchr::memchr2(b'\r', b'\n', rest);
        self.at += length.unwrap_or(rest.len());
        if self.at + "\r\n".len() > V1_BYTES_MAX {
            return malformed(TOO_LONG);
        }
        self.expect(b"\r\n")
    }
}

// Version 2.

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of the signature, of version, command, family and protocol, and of the length.
const PREFIX_BYTES: usize = 16;
/// Length of a TLV without its value.
const TLV_PREFIX_BYTES: usize = 3;
const TLV_CRC32C: u8 = 0x03;
const CRC32C_BYTES: usize = 4;

const _: () = assert!(PREFIX_BYTES == SIGNATURE.len() + 4);

fn version_2(bytes: &[u8]) -> Result<(usize, Address), Stop> {
    let there = bytes.len().min(SIGNATURE.len());
    if bytes[..there] != SIGNATURE[..there] {
        return malformed("the signature of the PROXY protocol is wrong");
    }
    let at = |place: usize| bytes.get(place).copied();
    let is_local = match at(12) {
        None => return Err(Stop::Incomplete),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(0x22..=0x2f) => return malformed("the command is neither LOCAL nor PROXY"),
        Some(_) => return malformed("the version of the binary PROXY protocol is not 2"),
    };
    let address_bytes = match at(13) {
        None => return Err(Stop::Incomplete),
        Some(0x11) if !is_local => Some(12),
        Some(0x21) if !is_local => Some(36),
        Some(_) => None,
    };
    // The first byte of the length may already show that the header is too long.
    let length = PREFIX_BYTES
        + usize::from(u16::from_be_bytes([at(14).unwrap_or_default(), at(15).unwrap_or_default()]));
    if length > V2_BYTES_MAX {
        return malformed("the PROXY header has more than 536 bytes");
    }
    if bytes.len() < PREFIX_BYTES {
        return Err(Stop::Incomplete);
    }
    let there = &bytes[..bytes.len().min(length)];
    let Some(address_bytes) = address_bytes else {
        return match there.len() == length {
            true => Ok((length, Address::Local)),
            false => Err(Stop::Incomplete),
        };
    };
    let tlvs = PREFIX_BYTES + address_bytes;
    if length < tlvs {
        return malformed("the length of the PROXY header is too small for its addresses");
    }
    let checksum = check_tlvs(there, tlvs, length)?;
    if there.len() < length {
        return Err(Stop::Incomplete);
    }
    if checksum.is_some_and(|checksum| !is_checksum(there, checksum)) {
        return malformed("the checksum of the PROXY header is wrong");
    }
    Ok((length, addresses(&there[PREFIX_BYTES..tlvs])))
}

/// The addresses of a block of 12 bytes (IPv4) or 36 (IPv6).
fn addresses(block: &[u8]) -> Address {
    let (ips, ports) = block.split_at(block.len() - 4);
    let (source, destination) = ips.split_at(ips.len() / 2);
    let ip = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("4 or 16 bytes")),
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    named((ip(source), port(0)), (ip(destination), port(2)))
}

/// Checks that the TLVs from `at` on end with the header. `there` is as much of it as has arrived.
/// Returns the place of the checksum.
fn check_tlvs(there: &[u8], mut at: usize, length: usize) -> Result<Option<Range<usize>>, Stop> {
    let wrong = "a TLV of the PROXY header is longer than the header";
    let mut checksum = None;
    while at < length {
        let value = at + TLV_PREFIX_BYTES;
        if value > length {
            return malformed(wrong);
        }
        let byte = |place: usize| there.get(place).copied();
        let high = byte(at + 1).unwrap_or_default();
        let low = byte(at + 2);
        let end = value + usize::from(u16::from_be_bytes([high, low.unwrap_or_default()]));
        if end > length {
            return malformed(wrong);
        }
        if byte(at) == Some(TLV_CRC32C) {
            if checksum.is_some() {
                return malformed("the PROXY header has two checksums");
            }
            let is_wrong = high != 0 || low.is_some_and(|low| usize::from(low) != CRC32C_BYTES);
            if is_wrong || value + CRC32C_BYTES > length {
                return malformed("the checksum of the PROXY header does not have 4 bytes");
            }
            checksum = Some(value..value + CRC32C_BYTES);
        }
        if low.is_none() {
            break;
        }
        at = end;
    }
    Ok(checksum)
}

fn is_checksum(header: &[u8], place: Range<usize>) -> bool {
    let zeros = [0; CRC32C_BYTES];
    let parts = [&header[..place.start], &zeros, &header[place.end..]];
    crc32c(parts.into_iter().flatten()).to_be_bytes() == header[place]
}

/// The CRC of RFC 4960, appendix B.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const POLYNOMIAL_REFLECTED: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL_REFLECTED } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The header of version 2 with this fifth and these further bytes.
    fn binary(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("a short block").to_be_bytes();
        [SIGNATURE, &[version_command, family], &length, block].concat()
    }

    /// Addresses 192.168.0.1:56324 and 192.168.0.11:443, and `tlvs`.
    fn tcp4(tlvs: &[u8]) -> Vec<u8> {
        let block = [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb];
        binary(0x21, 0x11, &[&block, tlvs].concat())
    }

    /// [`tcp4`] with `before`, a checksum and `after`.
    fn with_checksum(before: &[u8], after: &[u8]) -> Vec<u8> {
        let mut header = tcp4(&[before, &[TLV_CRC32C, 0, 4, 0, 0, 0, 0], after].concat());
        let checksum = crc32c(header.iter()).to_be_bytes();
        let place = header.len() - after.len() - 4;
        header[place..place + 4].copy_from_slice(&checksum);
        header
    }

    fn names(source: &str, destination: &str) -> Address {
        let of = |text: &str| text.parse().expect("an address");
        Address::Named { source: of(source), destination: of(destination) }
    }

    /// Headers of both versions, with the address that each one names.
    fn valid() -> Vec<(Vec<u8>, Address)> {
        let v4 = names("192.168.0.1:56324", "192.168.0.11:443");
        let v6 = names("[2001:db8::1]:0", "[fe80::aB]:65535");
        let long = "ffff:".repeat(7) + "ffff";
        let text = |line: &str| line.as_bytes().to_vec();
        let v6_block = {
            let (one, two) = ([0x20, 1, 0xd, 0xb8], [0xfe, 0x80, 0, 0]);
            let (zeros, ends) = ([0; 11], ([1], [0, 0xab]));
            [&one[..], &zeros, &ends.0, &two, &zeros[..10], &ends.1, &[0, 0, 255, 255]].concat()
        };
        let mut mapped = vec![0; 36];
        mapped[10..16].copy_from_slice(&[255, 255, 10, 0, 0, 9]);
        vec![
            // Section 2.1.
            (text("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"), v4),
            (
                text("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
                names("255.255.255.255:65535", "255.255.255.255:65535"),
            ),
            (
                text(&format!("PROXY TCP6 {long} {long} 65535 65535\r\n")),
                names(&format!("[{long}]:65535"), &format!("[{long}]:65535")),
            ),
            (text("PROXY UNKNOWN\r\n"), Address::Local),
            (text(&format!("PROXY UNKNOWN {long} {long} 65535 65535\r\n")), Address::Local),
            (text("PROXY UNKNOWN whatever \0 it is\r\n"), Address::Local),
            (text("PROXY TCP6 2001:db8::1 fe80::00aB 0 65535\r\n"), v6),
            (
                text("PROXY TCP6 1:2:3:4:5:6:7:: ::2 1 2\r\n"),
                names("[1:2:3:4:5:6:7:0]:1", "[::2]:2"),
            ),
            (
                text("PROXY TCP6 ::ffff:10.0.0.9 ::1.2.3.4 1 2\r\n"),
                names("10.0.0.9:1", "[::102:304]:2"),
            ),
            (tcp4(b""), v4),
            (binary(0x21, 0x21, &v6_block), v6),
            (binary(0x21, 0x21, &mapped), names("10.0.0.9:0", "[::]:0")),
            (binary(0x20, 0, b""), Address::Local),
            (binary(0x20, 0x11, b"a block to skip"), Address::Local),
            (binary(0x21, 0, b"\x01\xff\xffx"), Address::Local),
            (binary(0x21, 0x12, &[7; 12]), Address::Local),
            (binary(0x21, 0x31, &[b'/'; 216]), Address::Local),
            (binary(0x21, 0x41, b"x"), Address::Local),
            (binary(0x21, 0x13, b"x"), Address::Local),
            (tcp4(b"\x04\0\0\x01\0\x02h2\xe0\0\x01x"), v4),
            (with_checksum(b"\x04\0\x01\0", b"\x20\0\x03tls"), v4),
            (tcp4(&[&[4, 1, 0xf9][..], &[0; 505]].concat()), v4),
            (binary(0x20, 0, &[0; V2_BYTES_MAX - PREFIX_BYTES]), Address::Local),
        ]
    }

    #[test]
    fn every_header_is_recognized_at_its_last_byte_and_none_before() {
        for (header, address) in valid() {
            for end in 0..header.len() {
                let shown = header[..end].escape_ascii().to_string();
                assert_eq!(parse(&header[..end]), Parsed::Incomplete, "{shown}");
            }
            let whole = Parsed::Complete { length: header.len(), address };
            assert_eq!(parse(&header), whole);
            let behind = [&header, &b"\r\nPROXY GET / HTTP/1.1\r\n"[..]].concat();
            assert_eq!(parse(&behind), whole);
        }
    }

    /// Each of these is the beginning of a header without its last byte.
    #[test]
    fn the_first_impossible_byte_is_refused() {
        let mut malformed: Vec<Vec<u8>> = [
            "G",
            "PU",
            "PROXy",
            "PROXY  ",
            "PROXY TCP5",
            "PROXY UD",
            "PROXY TCP4  ",
            "PROXY TCP4 256",
            "PROXY TCP4 01",
            "PROXY TCP4 1.2.3.4.",
            "PROXY TCP4 1.2..",
            "PROXY TCP4 1.2.3 ",
            "PROXY TCP4 0x",
            "PROXY TCP4 :",
            "PROXY TCP4 1.2.3.4 5.6.7.8\r",
            "PROXY TCP4 1.2.3.4 5.6.7.8  ",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01",
            "PROXY TCP4 1.2.3.4 5.6.7.8 65536",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1  ",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r",
            "PROXY TCP4 \u{e9}",
            "PROXY TCP6 1.",
            "PROXY TCP6 12345",
            "PROXY TCP6 1::2::",
            "PROXY TCP6 :::",
            "PROXY TCP6 g",
            "PROXY TCP6 [",
            "PROXY TCP6 1:2:3:4:5:6:7:8:",
            "PROXY TCP6 fe80::1%",
            "PROXY TCP6 1:2:3:4:5:6:7:1.",
            "PROXY UNKNOWNS",
            "PROXY UNKNOWN\n",
            "PROXY UNKNOWN \n",
            "PROXY UNKNOWN\r ",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into();
        // The first byte of a character of two is refused already.
        malformed.iter_mut().filter(|text| text.ends_with(&[0xa9])).for_each(|text| {
            text.pop();
        });
        // Line and header are limited.
        let mapped = "ffff:".repeat(6) + "255.255.255.255";
        malformed.push(format!("PROXY UNKNOWN {}", "x".repeat(92)).into());
        malformed.push(format!("PROXY TCP6 {mapped} {mapped}").into());
        malformed.push([SIGNATURE, &[0x20, 0, 3]].concat());
        malformed.push([SIGNATURE, &[0x20, 0, 2, 9]].concat());
        malformed.push(b"\r\n\r\n\0\r\nQUIT\r".to_vec());
        for version_command in [0x10, 0x31, 0x22, 0x2f, 0x00, 0xff] {
            malformed.push([SIGNATURE, &[version_command]].concat());
        }
        // The lengths of addresses and TLVs.
        malformed.push([SIGNATURE, &[0x21, 0x11, 0, 11]].concat());
        malformed.push([SIGNATURE, &[0x21, 0x21, 0, 35]].concat());
        malformed.push([SIGNATURE, &[0x21, 0x11, 0, 14]].concat());
        let cut = |header: Vec<u8>, by: usize| header[..header.len() - by].to_vec();
        malformed.push(cut(tcp4(b"\x04\0\x03ab"), 2));
        malformed.push(cut(tcp4(b"\x04\x01\0ab"), 3));
        malformed.push(cut(tcp4(b"\x04\0\x01abc"), 3));
        malformed.push(cut(tcp4(b"\x03\0\x03abc"), 3));
        malformed.push(cut(tcp4(b"\x03\0\x05abcde"), 5));
        malformed.push(cut(tcp4(b"\x03\0\x02ab"), 4));
        malformed.push(cut(tcp4(b"\x03\0\x04abcd\x03\0\x04abcd"), 6));
        malformed.push(cut(tcp4(&[&b"\x03\x01\x04"[..], &[0; 260]].concat()), 261));
        let mut checksum = with_checksum(b"", b"\x04\0\x01x");
        *checksum.last_mut().expect("a byte") ^= 1;
        malformed.push(checksum);
        for bytes in malformed {
            let shown = bytes.escape_ascii().to_string();
            let is_malformed =
                |length: &usize| matches!(parse(&bytes[..*length]), Parsed::Malformed(_));
            let first = (1..=bytes.len()).find(is_malformed);
            let first = first.unwrap_or_else(|| panic!("{shown}: {:?}", parse(&bytes)));
            assert_eq!(parse(&bytes[..first - 1]), Parsed::Incomplete, "{shown}");
            assert!((first..=bytes.len()).all(|length| is_malformed(&length)), "{shown}");
        }
    }

    #[test]
    fn a_wrong_bit_anywhere_fails_the_checksum() {
        let header = with_checksum(b"\x04\0\x01x", b"\x01\0\x02h2");
        assert!(matches!(parse(&header), Parsed::Complete { .. }));
        let tlvs = PREFIX_BYTES + 12;
        // Without those bits that make another header of it.
        let values = [tlvs + 3, tlvs + 7, tlvs + 8, tlvs + 9, tlvs + 10, tlvs + 14, tlvs + 15];
        for place in (PREFIX_BYTES..tlvs).chain(values) {
            for bit in 0..8 {
                let mut wrong = header.clone();
                wrong[place] ^= 1 << bit;
                let expected = Parsed::Malformed("the checksum of the PROXY header is wrong");
                assert_eq!(parse(&wrong), expected, "bit {bit} of byte {place}");
            }
        }
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Once the bytes are a header or malformed, further bytes change nothing.
        #[test]
        fn damaged_headers_are_judged_alike_whole_and_in_pieces(
            which in any::<prop::sample::Index>(),
            damage in prop::collection::vec(
                (any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4,
            ),
        ) {
            let all = valid();
            let mut bytes = which.get(&all).0.clone();
            for (place, byte, how) in damage {
                match how {
                    _ if bytes.is_empty() => bytes.push(byte),
                    0 => *place.get_mut(&mut bytes) = byte,
                    1 => bytes.insert(place.index(bytes.len()), byte),
                    _ => drop(bytes.remove(place.index(bytes.len()))),
                }
            }
            let mut decided = None;
            for end in 0..=bytes.len() {
                let parsed = parse(&bytes[..end]);
                match (decided, parsed) {
                    (None, Parsed::Incomplete) => prop_assert!(end < V2_BYTES_MAX),
                    (None, Parsed::Complete { length, .. }) => {
                        prop_assert_eq!(length, end);
                        decided = Some(parsed);
                    }
                    (Some(Parsed::Malformed(_)), Parsed::Malformed(_))
                    | (None, Parsed::Malformed(_)) => decided = Some(parsed),
                    (Some(before), _) => prop_assert_eq!(parsed, before),
                }
            }
        }

        #[test]
        fn the_beginning_of_a_valid_line_is_incomplete(
            ips in prop_oneof![
                any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
                // Few groups are not zero, so that many addresses have a double colon.
                any::<([u8; 16], [u8; 16], [u8; 2])>().prop_map(|(a, b, zeros)| {
                    let of = |mut bytes: [u8; 16], zeros: u8| {
                        let zero = |group: &usize| zeros >> group & 1 == 1;
                        (0..8).filter(zero).for_each(|at| bytes[2 * at..][..2].fill(0));
                        IpAddr::from(bytes)
                    };
                    (of(a, zeros[0]), of(b, zeros[1]))
                }),
            ],
            ports: (u16, u16),
        ) {
            let protocol = if ips.0.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {protocol} {} {} {} {}\r\n", ips.0, ips.1, ports.0, ports.1);
            for end in 0..line.len() {
                prop_assert_eq!(parse(&line.as_bytes()[..end]), Parsed::Incomplete);
            }
            let address = named((ips.0, ports.0), (ips.1, ports.1));
            let whole = Parsed::Complete { length: line.len(), address };
            prop_assert_eq!(parse(line.as_bytes()), whole);
        }
    }
}
