//! The values of flags.
//!
//! The engine checks the same limits, but its errors name its own keys instead of flags. A test
//! compares these constants with the engine's checks.

use super::given::split_header;
use super::{Addresses, Shards};
use crate::inherited;
use crate::units::{count, size};
use ringwright::{Address, ParseAddressError};
use std::ops::RangeInclusive;

/// Maximum number of shards.
pub(super) const SHARDS_MAX: usize = 256;
/// Maximum number of open connections over all shards.
pub(super) const CONNECTIONS_MAX: usize = 1 << 20;
/// Minimum of the memory budget: less would pause ordinary clients for nothing.
const MEMORY_BUDGET_MIN: usize = 1 << 20;
/// Maximum number of receive buffers of a shard.
pub(super) const BUFFERS_MAX: u16 = 1 << 15;
/// Size of a receive buffer in bytes.
pub(super) const BUFFER_BYTES: RangeInclusive<u32> = 64..=1 << 20;

pub(super) fn shards(text: &str) -> Result<Shards, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Shards(None)),
        (_, Ok(shards @ 1..=SHARDS_MAX)) => Ok(Shards(Some(shards))),
        _ => Err(format!("expected a number from 1 to {SHARDS_MAX}, or auto")),
    }
}

pub(super) fn connections(text: &str) -> Result<usize, String> {
    let connections = count(text)?;
    if connections <= CONNECTIONS_MAX {
        Ok(connections)
    } else {
        Err(format!("expected 1 to {CONNECTIONS_MAX}, not {connections}"))
    }
}

pub(super) fn per_ip(text: &str) -> Result<u16, String> {
    let connections = count(text)?;
    u16::try_from(connections).map_err(|_| format!("expected 1 to {}, not {connections}", u16::MAX))
}

pub(super) fn rate(text: &str) -> Result<u32, String> {
    if text == "0" {
        return Ok(0);
    }
    let bytes = size(text).map_err(|error| format!("{error}, or 0"))?;
    u32::try_from(bytes).map_err(|_| format!("expected 0 to {} bytes, not {bytes}", u32::MAX))
}

pub(super) fn size_or_zero(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { size(text).map_err(|error| format!("{error}, or 0")) }
}

pub(super) fn buffers(text: &str) -> Result<u16, String> {
    let buffers = count(text)?;
    u16::try_from(buffers)
        .ok()
        .filter(|buffers| buffers.is_power_of_two() && *buffers <= BUFFERS_MAX)
        .ok_or_else(|| format!("expected a power of two from 1 to {BUFFERS_MAX}, not {buffers}"))
}

pub(super) fn buffer_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    u32::try_from(bytes).ok().filter(|bytes| BUFFER_BYTES.contains(bytes)).ok_or_else(|| {
        let (least, most) = (BUFFER_BYTES.start(), BUFFER_BYTES.end());
        format!("expected {least} to {most} bytes, not {bytes}")
    })
}

pub(super) fn memory_budget(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes >= MEMORY_BUDGET_MIN)
        .ok_or_else(|| format!("expected 1MiB or more, not {bytes} bytes"))
}

pub(super) fn addresses(text: &str) -> Result<Addresses, String> {
    if text.starts_with(inherited::PREFIX) {
        return inherited::addresses(text).map(Addresses);
    }
    if text.starts_with("unix:") {
        let address: Address =
            text.parse().map_err(|error: ParseAddressError| error.to_string())?;
        return Ok(Addresses(vec![address]));
    }
    let all = ringwright_names::resolve(text).map_err(|error| error.to_string())?;
    Ok(Addresses(all.into_iter().map(Address::Ip).collect()))
}

pub(super) fn pair(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => Ok(text.to_owned()),
        _ => Err("expected two texts with = between them".into()),
    }
}

pub(super) fn header(text: &str) -> Result<String, String> {
    match split_header(text) {
        Some((pattern, (name, _))) if !pattern.is_empty() && !name.is_empty() => {
            Ok(text.to_owned())
        }
        _ => Err("expected a pattern, a name and a value, such as '*.js: X-A: b'".into()),
    }
}
