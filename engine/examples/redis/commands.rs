//! The commands on data: <https://redis.io/docs/latest/commands/>. `server.rs` has those about
//! connections.

use crate::resp::{BULK_BYTES_MAX, Replies};
use crate::store::{Access, Stripe, Value, now_ms};

const NO_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";

/// The arguments of a command. The first one is its name.
pub type Arguments<'a> = [&'a [u8]];

/// Carries out a command. Returns `false` if there is none of this name.
pub fn run(
    name: &str,
    arguments: &Arguments<'_>,
    data: &mut Access<'_>,
    out: &mut Replies,
) -> bool {
    let Some(is_right) = takes(name, arguments.len()) else { return false };
    if is_right {
        carry_out(name, arguments, data, out);
    } else {
        wrong_number(name, out);
    }
    true
}

/// Returns whether a command takes so many arguments with its name. `None`: there is no such
/// command.
fn takes(name: &str, count: usize) -> Option<bool> {
    Some(match name {
        "DBSIZE" => count == 1,
        "GET" | "STRLEN" | "INCR" | "DECR" | "TTL" | "PTTL" | "PERSIST" | "TYPE" | "GETDEL"
        | "KEYS" => count == 2,
        "GETSET" | "SETNX" | "APPEND" | "INCRBY" | "DECRBY" | "EXPIRE" | "PEXPIRE" => count == 3,
        "SETEX" | "PSETEX" => count == 4,
        "SET" => count >= 3,
        "DEL" | "UNLINK" | "EXISTS" | "MGET" | "TOUCH" => count >= 2,
        "MSET" => count >= 3 && count % 2 == 1,
        "FLUSHALL" | "FLUSHDB" => true,
        _ => return None,
    })
}

fn carry_out(name: &str, arguments: &Arguments<'_>, data: &mut Access<'_>, out: &mut Replies) {
    let key = arguments.get(1).copied().unwrap_or_default();
    match name {
        "GET" => data.of(key, |part| reply_value(part.get(key), out)),
        "SET" => set(arguments, data, out),
        "INCR" => add(key, Some(1), data, out),
        "DECR" => add(key, Some(-1), data, out),
        "INCRBY" => add(key, integer(arguments[2]), data, out),
        "DECRBY" => add(key, integer(arguments[2]).and_then(i64::checked_neg), data, out),
        "APPEND" => append(key, arguments[2], data, out),
        "STRLEN" => data.of(key, |part| {
            out.integer(part.get(key).map_or(0, |value| value.bytes.len() as i64));
        }),
        "MGET" => {
            out.array(arguments.len() - 1);
            for key in &arguments[1..] {
                data.of(key, |part| reply_value(part.get(key), out));
                if out.are_too_long() {
                    return;
                }
            }
        }
        "MSET" => set_all(&arguments[1..], data, out),
        "GETSET" | "GETDEL" => data.of(key, |part| {
            reply_value(part.get(key), out);
            match arguments.get(2) {
                Some(new) => part.set(key, value_of(new, None)),
                None => drop(part.remove(key)),
            }
        }),
        "SETNX" => set_new(key, arguments[2], data, out),
        "SETEX" | "PSETEX" => {
            set_for(arguments, if name == "SETEX" { 1_000 } else { 1 }, data, out)
        }
        "DEL" | "UNLINK" => {
            count_of(&arguments[1..], data, out, |part, key| {
                part.get(key).is_some() && part.remove(key).is_some()
            });
        }
        "EXISTS" | "TOUCH" => {
            count_of(&arguments[1..], data, out, |part, key| part.get(key).is_some())
        }
        "EXPIRE" => expire(key, arguments[2], 1_000, data, out),
        "PEXPIRE" => expire(key, arguments[2], 1, data, out),
        "PERSIST" => data.of(key, |part| {
            let is_mortal = part.get(key).is_some_and(|value| value.expires_ms.is_some());
            out.integer(i64::from(is_mortal && part.set_expiry(key, None)));
        }),
        "TTL" => time_to_live(key, 1_000, data, out),
        "PTTL" => time_to_live(key, 1, data, out),
        "TYPE" => data.of(key, |part| {
            out.simple(if part.get(key).is_some() { "string" } else { "none" });
        }),
        "KEYS" => keys(key, data, out),
        "DBSIZE" => {
            let mut size = 0;
            data.each(|part| size += part.len());
            out.integer(size as i64);
        }
        _ => {
            data.clear();
            out.simple("OK");
        }
    }
}

pub fn wrong_number(name: &str, out: &mut Replies) {
    let name = name.to_ascii_lowercase();
    out.error(&format!("ERR wrong number of arguments for '{name}' command"));
}

fn value_of(bytes: &[u8], expires_ms: Option<u64>) -> Value {
    Value { bytes: bytes.into(), expires_ms }
}

fn reply_value(value: Option<&mut Value>, out: &mut Replies) {
    out.bulk_or_null(value.map(|value| &*value.bytes));
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time to live, as the end of the life.
fn end_of_life(text: &[u8], unit_ms: i64) -> Option<u64> {
    let life_ms = integer(text).filter(|life| *life > 0)?.checked_mul(unit_ms)?;
    now_ms().checked_add(life_ms as u64)
}

fn set(arguments: &Arguments<'_>, data: &mut Access<'_>, out: &mut Replies) {
    let (key, bytes) = (arguments[1], arguments[2]);
    let (mut expires_ms, mut only_if, mut replies_old, mut keeps_life) = (None, None, false, false);
    let mut options = arguments[3..].iter();
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" if only_if.is_none() => only_if = Some(false),
            b"XX" if only_if.is_none() => only_if = Some(true),
            b"GET" => replies_old = true,
            b"KEEPTTL" if expires_ms.is_none() => keeps_life = true,
            unit @ (b"EX" | b"PX") if expires_ms.is_none() && !keeps_life => {
                let unit_ms = if unit == b"EX" { 1_000 } else { 1 };
                expires_ms = options.next().and_then(|life| end_of_life(life, unit_ms));
                if expires_ms.is_none() {
                    return out.error("ERR invalid expire time in 'set' command");
                }
            }
            _ => return out.error(SYNTAX),
        }
    }
    data.of(key, |part| {
        let old = part.get(key);
        let allowed = only_if.is_none_or(|exists| exists == old.is_some());
        if keeps_life {
            expires_ms = old.as_ref().and_then(|value| value.expires_ms);
        }
        match (replies_old, allowed) {
            (true, _) => reply_value(old, out),
            (false, true) => out.simple("OK"),
            (false, false) => out.null(),
        }
        if allowed {
            part.set(key, value_of(bytes, expires_ms));
        }
    });
}

fn set_all(pairs: &[&[u8]], data: &mut Access<'_>, out: &mut Replies) {
    for pair in pairs.chunks(2) {
        data.of(pair[0], |part| part.set(pair[0], value_of(pair[1], None)));
    }
    out.simple("OK");
}

fn set_new(key: &[u8], bytes: &[u8], data: &mut Access<'_>, out: &mut Replies) {
    data.of(key, |part| {
        let is_new = part.get(key).is_none();
        if is_new {
            part.set(key, value_of(bytes, None));
        }
        out.integer(i64::from(is_new));
    });
}

fn set_for(arguments: &Arguments<'_>, unit_ms: i64, data: &mut Access<'_>, out: &mut Replies) {
    let Some(expires_ms) = end_of_life(arguments[2], unit_ms) else {
        return out.error("ERR invalid expire time");
    };
    let key = arguments[1];
    data.of(key, |part| part.set(key, value_of(arguments[3], Some(expires_ms))));
    out.simple("OK");
}

fn add(key: &[u8], by: Option<i64>, data: &mut Access<'_>, out: &mut Replies) {
    let Some(by) = by else { return out.error(NO_INTEGER) };
    data.of(key, |part| {
        let (old, expires_ms) = match part.get(key) {
            Some(value) => (integer(&value.bytes), value.expires_ms),
            None => (Some(0), None),
        };
        match old.and_then(|old| old.checked_add(by)) {
            Some(new) => {
                part.set(key, value_of(new.to_string().as_bytes(), expires_ms));
                out.integer(new);
            }
            None => out.error(NO_INTEGER),
        }
    });
}

fn append(key: &[u8], bytes: &[u8], data: &mut Access<'_>, out: &mut Replies) {
    data.of(key, |part| {
        let (old, expires_ms) = match part.get(key) {
            Some(value) => (value.bytes.clone(), value.expires_ms),
            None => ([].into(), None),
        };
        if old.len() + bytes.len() > BULK_BYTES_MAX {
            return out.error("ERR string exceeds maximum allowed size");
        }
        let new = [&*old, bytes].concat();
        out.integer(new.len() as i64);
        part.set(key, Value { bytes: new.into(), expires_ms });
    });
}

fn count_of(
    keys: &[&[u8]],
    data: &mut Access<'_>,
    out: &mut Replies,
    mut counts: impl FnMut(&mut Stripe, &[u8]) -> bool,
) {
    let count = keys.iter().filter(|key| data.of(key, |part| counts(part, key))).count();
    out.integer(count as i64);
}

fn expire(key: &[u8], life: &[u8], unit_ms: i64, data: &mut Access<'_>, out: &mut Replies) {
    let Some(life_ms) = integer(life).and_then(|life| life.checked_mul(unit_ms)) else {
        return out.error(NO_INTEGER);
    };
    // A life that is over already removes the key.
    let expires_ms = now_ms().saturating_add_signed(life_ms);
    let found = data.of(key, |part| part.set_expiry(key, Some(expires_ms)));
    out.integer(i64::from(found));
}

fn time_to_live(key: &[u8], unit_ms: u64, data: &mut Access<'_>, out: &mut Replies) {
    let left = data.of(key, |part| match part.get(key) {
        None => -2,
        Some(Value { expires_ms: None, .. }) => -1,
        Some(Value { expires_ms: Some(at_ms), .. }) => {
            at_ms.saturating_sub(now_ms()).div_ceil(unit_ms) as i64
        }
    });
    out.integer(left);
}

/// All keys, or those with a prefix: `*` and `PREFIX*` are the patterns.
fn keys(pattern: &[u8], data: &mut Access<'_>, out: &mut Replies) {
    let (prefix, is_exact) = match pattern.strip_suffix(b"*") {
        Some(prefix) => (prefix, false),
        None => (pattern, true),
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    data.each(|part| {
        let fits = |key: &&[u8]| if is_exact { *key == prefix } else { key.starts_with(prefix) };
        found.extend(part.keys().filter(fits).map(<[u8]>::to_vec));
    });
    out.array(found.len());
    found.iter().for_each(|key| out.bulk(key));
}
