//! The values of the configuration file: written as on the command line, with units.

use crate::proxies::Proxy;
use crate::units;
use ringwright::Prefix;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// A string, a whole number or a boolean, as text.
pub(super) struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsText;
        impl Visitor<'_> for AsText {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_bool<E: Error>(self, on: bool) -> Result<Scalar, E> {
                Ok(Scalar(if on { "on" } else { "off" }.to_owned()))
            }
        }
        deserializer.deserialize_any(AsText)
    }
}

/// Defines a value that has a text form.
macro_rules! text_value {
    ($(#[$about:meta])* $name:ident($inner:ty), $parse:expr, $show:expr) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[cfg_attr(test, schemars(transparent))]
        pub struct $name(#[cfg_attr(test, schemars(with = "TextOrNumber"))] pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let Scalar(text) = Scalar::deserialize(deserializer)?;
                $parse(&text).map(Self).map_err(D::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text = $show(&self.0);
                match text.parse() {
                    Ok(number) => serializer.serialize_u64(number),
                    Err(_) => serializer.serialize_str(&text),
                }
            }
        }
    };
}

/// The JSON type of a value with a unit.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum TextOrNumber {
    Text(String),
    Number(u64),
    Switch(bool),
}

text_value!(
    /// A duration above zero: `500ms`, `5s`, `2m`.
    Time(Duration), units::duration, |time: &Duration| show_time(*time)
);
text_value!(
    /// A duration that may be zero: `0s`, `5s`.
    Delay(Duration), units::delay, |time: &Duration| show_time(*time)
);
text_value!(
    /// A duration, or `never`.
    Timeout(Option<Duration>), |text: &str| units::timeout(text).map(|timeout| timeout.0),
    |time: &Option<Duration>| time.map_or_else(|| "never".to_owned(), show_time)
);
text_value!(
    /// A whole number from 1: `500`, `10k`.
    Count(usize), units::count, usize::to_string
);
text_value!(
    /// A whole number from 0.
    Number(usize), number, usize::to_string
);
text_value!(
    /// A size in bytes: `4096`, `64KiB`.
    Size(u64), units::size, |bytes: &u64| show_size(*bytes)
);
text_value!(
    /// A size in bytes that may be 0.
    SizeOrZero(u64), |text: &str| if text == "0" { Ok(0) } else { units::size(text) },
    |bytes: &u64| show_size(*bytes)
);
text_value!(
    /// A number of shards, or `auto`.
    Shards(Option<usize>), |text: &str| word_or("auto", text, units::count),
    |shards: &Option<usize>| shards.map_or_else(|| "auto".to_owned(), |shards| shards.to_string())
);
text_value!(
    /// A whole number from 1, or `none`.
    LimitOrNone(Option<usize>), |text: &str| word_or("none", text, units::count),
    |limit: &Option<usize>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
);
text_value!(
    /// A whole number from 0, or `auto`.
    NumberOrAuto(Option<usize>), |text: &str| word_or("auto", text, number),
    |number: &Option<usize>| number.map_or_else(|| "auto".to_owned(), |number| number.to_string())
);
text_value!(
    /// A size in bytes, or `auto`.
    SizeOrAuto(Option<u64>), |text: &str| word_or("auto", text, units::size),
    |bytes: &Option<u64>| bytes.map_or_else(|| "auto".to_owned(), show_size)
);
text_value!(
    /// Bytes per second: a size, `0`, or `auto`.
    RateOrAuto(Option<u32>), |text: &str| word_or("auto", text, rate),
    |rate: &Option<u32>| rate.map_or_else(|| "auto".to_owned(), |rate| show_size(rate.into()))
);
text_value!(
    /// `on`, `off`, `true`, `false`, or `auto`.
    SwitchOrAuto(Option<bool>), |text: &str| word_or("auto", text, switch),
    |on: &Option<bool>| match on {
        None => "auto".to_owned(),
        Some(true) => "on".to_owned(),
        Some(false) => "off".to_owned(),
    }
);
text_value!(
    /// An address or a prefix: `192.0.2.7`, `2001:db8::/32`.
    Network(Prefix), |text: &str| text.parse::<Prefix>().map_err(|error| error.to_string()),
    Prefix::to_string
);

text_value!(
    /// An address, a prefix, or `unix` for the clients of Unix sockets.
    ProxyAddress(Proxy), |text: &str| text.parse::<Proxy>(), Proxy::to_string
);

fn word_or<T>(
    word: &str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == word {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|error| format!("{error}, or {word}"))
}

fn number(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { units::count(text).map_err(|error| format!("{error}, or 0")) }
}

fn rate(text: &str) -> Result<u32, String> {
    if text == "0" {
        return Ok(0);
    }
    let bytes = units::size(text).map_err(|error| format!("{error}, or 0"))?;
    u32::try_from(bytes).map_err(|_| format!("expected 0 to {} bytes, not {bytes}", u32::MAX))
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".into()),
    }
}

/// The shortest exact form.
fn show_time(time: Duration) -> String {
    let us = time.as_micros();
    for (unit, us_of_unit) in
        [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)]
    {
        // 60s reads better than 1m, 90m better than 5400s.
        if us >= 2 * us_of_unit && us.is_multiple_of(us_of_unit) {
            return format!("{}{unit}", us / us_of_unit);
        }
        if us == us_of_unit && unit != "m" {
            return format!("1{unit}");
        }
    }
    if us == 0 { "0s".to_owned() } else { format!("{us}us") }
}

fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back_and_forth<T: for<'a> Deserialize<'a> + Serialize>(text: &str) -> String {
        #[derive(Deserialize, Serialize)]
        struct Holder<T> {
            key: T,
        }
        let holder: Holder<T> = toml::from_str(&format!("key = {text}")).unwrap();
        let table = toml::Table::try_from(holder).unwrap();
        match &table["key"] {
            toml::Value::String(text) => text.clone(),
            number => number.to_string(),
        }
    }

    #[test]
    fn each_value_is_shown_as_it_may_be_written() {
        for (text, shown) in [
            ("'90s'", "90s"),
            ("'60s'", "60s"),
            ("'2m'", "2m"),
            ("'1h'", "1h"),
            ("'1500ms'", "1500ms"),
            ("'500us'", "500us"),
        ] {
            assert_eq!(back_and_forth::<Time>(text), shown);
            assert_eq!(back_and_forth::<Time>(&format!("'{shown}'")), shown);
        }
        assert_eq!(back_and_forth::<Timeout>("'never'"), "never");
        assert_eq!(back_and_forth::<Delay>("'0s'"), "0s");
        assert_eq!(back_and_forth::<Count>("10000"), "10000");
        assert_eq!(back_and_forth::<Count>("'10k'"), "10000");
        assert_eq!(back_and_forth::<Number>("0"), "0");
        assert_eq!(back_and_forth::<Size>("4096"), "4KiB");
        assert_eq!(back_and_forth::<Size>("'1500'"), "1500");
        assert_eq!(back_and_forth::<SizeOrZero>("0"), "0");
        assert_eq!(back_and_forth::<Shards>("'auto'"), "auto");
        assert_eq!(back_and_forth::<Shards>("2"), "2");
        assert_eq!(back_and_forth::<SwitchOrAuto>("true"), "on");
        assert_eq!(back_and_forth::<SwitchOrAuto>("'off'"), "off");
        assert_eq!(back_and_forth::<RateOrAuto>("'64'"), "64");
        assert_eq!(back_and_forth::<Network>("'192.0.2.7'"), "192.0.2.7/32");
        assert_eq!(back_and_forth::<ProxyAddress>("'192.0.2.7'"), "192.0.2.7/32");
        assert_eq!(back_and_forth::<ProxyAddress>("'unix'"), "unix");
    }
}
