//! Banned addresses. The list is replaced as a whole and sent to each shard. It becomes a socket
//! filter on the listeners (`filter.rs`), so that a banned client gets no SYN-ACK. A listener gets
//! none if the filter would be too long, the kernel refuses it, or an address of the list is exempt
//! there (`ListenerSettings::exempt`). Then the check after accept does the work alone. The
//! counters `filters_attached`, `listener_drops` and `banned` tell which of the two works.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The limit on banned prefixes.
pub const BANS_MAX: usize = 1 << 16;

/// An IP address, or all addresses that share its first bits: `192.0.2.7`, `192.0.2.0/24`,
/// `2001:db8::/32`.
///
/// [`EngineHandle::ban`](crate::EngineHandle::ban) and [`Config::bans`](crate::Config::bans) take
/// it.
///
/// ```
/// use ringwright::Prefix;
///
/// let network: Prefix = "192.0.2.0/24".parse()?;
/// assert!(network.contains("192.0.2.7".parse().unwrap()));
/// assert_eq!("2001:db8::1/32".parse::<Prefix>()?.to_string(), "2001:db8::/32");
/// # Ok::<(), ringwright::ParsePrefixError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    first: IpAddr,
    bits: u8,
}

impl Prefix {
    /// The addresses that share the first `bits` bits of `address`. `None` if the address has fewer
    /// bits.
    ///
    /// An IPv4-mapped IPv6 address (`::ffff:192.0.2.7/128`, RFC 4291) becomes the IPv4 address
    /// (`192.0.2.7/32`). Its `bits` must be at least 96.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) => {
                bits.checked_sub(96).and_then(|bits| Self::new(v4, bits))
            }
            (IpAddr::V4(_), IpAddr::V4(v4)) if bits <= 32 => {
                let first = Ipv4Addr::from(u32::from(v4) & mask_v4(bits));
                Some(Self { first: first.into(), bits })
            }
            (IpAddr::V6(_), IpAddr::V6(v6)) if bits <= 128 => {
                let first = Ipv6Addr::from(u128::from(v6) & mask_v6(bits));
                Some(Self { first: first.into(), bits })
            }
            _ => None,
        }
    }

    /// Returns whether the prefix contains an address. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(v4)) => {
                u32::from(v4) & mask_v4(self.bits) == u32::from(first)
            }
            (IpAddr::V6(first), IpAddr::V6(v6)) => {
                u128::from(v6) & mask_v6(self.bits) == u128::from(first)
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { first: address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// The error of a text that is not a [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePrefixError(String);

impl fmt::Display for ParsePrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an IP address or prefix; expected for example 192.0.2.7, 192.0.2.0/24 \
             or 2001:db8::/32",
            self.0
        )
    }
}

impl std::error::Error for ParsePrefixError {}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, ParsePrefixError> {
        let prefix = match text.split_once('/') {
            None => text.parse().ok().map(|address: IpAddr| Self::from(address)),
            Some((address, bits)) => address
                .parse()
                .ok()
                .zip(bits.parse().ok())
                .and_then(|(address, bits)| Self::new(address, bits)),
        };
        prefix.ok_or_else(|| ParsePrefixError(text.to_owned()))
    }
}

/// A list of prefixes, merged for lookups. It never changes: a new list replaces it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bans {
    /// First and last address of each range, sorted. No range touches another.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Bans {
    pub fn new(prefixes: &[Prefix]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix.first {
                IpAddr::V4(first) => {
                    let first = u32::from(first);
                    v4.push((first, first | !mask_v4(prefix.bits)));
                }
                IpAddr::V6(first) => {
                    let first = u128::from(first);
                    v6.push((first, first | !mask_v6(prefix.bits)));
                }
            }
        }
        merge(&mut v4, |last, first| last.checked_add(1).is_none_or(|next| first <= next));
        merge(&mut v6, |last, first| last.checked_add(1).is_none_or(|next| first <= next));
        Self { v4, v6 }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => within(&self.v4, u32::from(v4)),
            IpAddr::V6(v6) => within(&self.v6, u128::from(v6)),
        }
    }

    /// Returns whether an address of the list has one of these prefixes.
    pub fn meets(&self, prefixes: &[Prefix]) -> bool {
        prefixes.iter().any(|prefix| match prefix.first {
            IpAddr::V4(first) => {
                let first = u32::from(first);
                overlaps(&self.v4, first, first | !mask_v4(prefix.bits))
            }
            IpAddr::V6(first) => {
                let first = u128::from(first);
                overlaps(&self.v6, first, first | !mask_v6(prefix.bits))
            }
        })
    }

    /// First and last IPv4 address of each range, sorted. No range touches another.
    pub fn ranges_v4(&self) -> &[(u32, u32)] {
        &self.v4
    }

    /// First and last IPv6 address of each range, sorted. No range touches another.
    pub fn ranges_v6(&self) -> &[(u128, u128)] {
        &self.v6
    }
}

/// Sorts ranges and joins those that `meet`.
fn merge<T: Copy + Ord>(ranges: &mut Vec<(T, T)>, meet: impl Fn(T, T) -> bool) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let joined = meet(kept.1, next.0);
        if joined {
            kept.1 = kept.1.max(next.1);
        }
        joined
    });
}

fn within<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && address <= ranges[after - 1].1
}

fn overlaps<T: Copy + Ord>(ranges: &[(T, T)], first: T, last: T) -> bool {
    let after = ranges.partition_point(|(begin, _)| *begin <= last);
    after > 0 && first <= ranges[after - 1].1
}

fn mask_v4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_back_and_forth() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1/128"),
            ("2001:db8:ffff::1/33", "2001:db8:8000::/33"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for text in
            ["", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1", "::ffff:1.2.3.4/90"]
        {
            let error = text.parse::<Prefix>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    /// Addresses that are close enough to each other for their prefixes to touch.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0..64u32).prop_map(|low| Ipv4Addr::from(0x0a00_0000 | low).into()),
            Just(Ipv4Addr::UNSPECIFIED.into()),
            Just(Ipv4Addr::BROADCAST.into()),
            (0..64u128).prop_map(|low| Ipv6Addr::from(low << 64 | low).into()),
            Just(Ipv6Addr::from(u128::MAX).into()),
        ]
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (address(), 0..=128u8).prop_map(|(address, bits)| {
            let bits = if address.is_ipv4() { bits % 33 } else { bits };
            Prefix::new(address, bits).unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_list_contains_what_its_prefixes_contain(
            prefixes in prop::collection::vec(prefix(), 0..12),
            addresses in prop::collection::vec(address(), 1..20),
        ) {
            let bans = Bans::new(&prefixes);
            prop_assert_eq!(bans.is_empty(), prefixes.is_empty());
            for address in addresses {
                let expected = prefixes.iter().any(|prefix| prefix.contains(address));
                prop_assert_eq!(bans.contains(address), expected, "{}", address);
                prop_assert_eq!(bans.meets(&[address.into()]), expected, "{}", address);
            }
        }

        #[test]
        fn prefixes_meet_if_they_share_an_address(one in prefix(), other in prefix()) {
            let share = one.contains(other.first) || other.contains(one.first);
            prop_assert_eq!(Bans::new(&[one]).meets(&[other]), share, "{} {}", one, other);
        }
    }
}
