//! Values of rules that are a string or a table.

use super::values::Time;
use crate::site::spec;
use crate::units;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor, value};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `redirect`
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(with = "TextOr<RedirectTable>"))]
pub struct Redirect(RedirectTable);

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RedirectTable {
    /// The target.
    to: String,
    /// The status: 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    status: u16,
}

const fn found() -> u16 {
    302
}

/// `rate`
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(with = "TextOr<RateTable>"))]
pub struct Rate(pub spec::Rate);

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RateTable {
    /// The number of requests in a time: `10/s`, `100/m`, `1000/h`.
    per_address: String,
    /// The number of requests that may come at once. Default: those of one second, or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
}

/// `auth`
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(with = "TextOr<AuthTable>"))]
pub struct Auth(AuthTable);

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct AuthTable {
    /// The password file.
    file: PathBuf,
    /// The realm that browsers show.
    #[serde(default = "realm")]
    realm: String,
}

fn realm() -> String {
    "restricted".to_owned()
}

impl Auth {
    /// The settings, with the path beneath this folder.
    #[must_use]
    pub fn beneath(self, folder: &Path) -> spec::Auth {
        spec::Auth { file: folder.join(self.0.file), realm: self.0.realm }
    }
}

/// `cors`
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(with = "TextOr<CorsTable>"))]
pub struct Cors(CorsTable);

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct CorsTable {
    /// The origins, such as `https://example.org`, or `*` alone.
    origins: Vec<String>,
    /// The time for which browsers may remember the answer to a preflight.
    #[serde(default = "max_age")]
    max_age: Time,
}

const fn max_age() -> Time {
    Time(Duration::from_mins(10))
}

impl From<Redirect> for spec::Redirect {
    fn from(Redirect(RedirectTable { to, status }): Redirect) -> Self {
        Self { to, status }
    }
}

impl From<Cors> for spec::Cors {
    fn from(Cors(CorsTable { origins, max_age }): Cors) -> Self {
        Self { origins, max_age: max_age.0 }
    }
}

impl<'de> Deserialize<'de> for Redirect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = |to: &str| Ok(RedirectTable { to: to.to_owned(), status: found() });
        text_or_table(deserializer, table).map(Self)
    }
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = |file: &str| Ok(AuthTable { file: file.into(), realm: realm() });
        text_or_table(deserializer, table).map(Self)
    }
}

impl<'de> Deserialize<'de> for Cors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table =
            |origin: &str| Ok(CorsTable { origins: vec![origin.to_owned()], max_age: max_age() });
        text_or_table(deserializer, table).map(Self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = |text: &str| Ok(RateTable { per_address: text.to_owned(), burst: None });
        let table = text_or_table(deserializer, table)?;
        let (requests, per) = parse_rate(&table.per_address).map_err(D::Error::custom)?;
        let per_second = f64::from(requests) / per.as_secs_f64();
        let burst = table.burst.unwrap_or((per_second as u32).max(1));
        Ok(Self(spec::Rate { requests, per, burst }))
    }
}

impl Serialize for Redirect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Serialize for Auth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Serialize for Cors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let spec::Rate { requests, per, burst } = self.0;
        let unit = match per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        let per_address = format!("{requests}/{unit}");
        RateTable { per_address, burst: Some(burst) }.serialize(serializer)
    }
}

/// Parses `10/s`.
fn parse_rate(text: &str) -> Result<(u32, Duration), String> {
    let expected = "expected a number of requests in a time, such as 10/s, 100/m or 1000/h";
    let (requests, unit) = text.split_once('/').ok_or(expected)?;
    let per = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        _ => return Err(expected.into()),
    };
    let requests = units::count(requests).ok().and_then(|count| u32::try_from(count).ok());
    Ok((requests.ok_or(expected)?, per))
}

/// The schema of a value that is a string or a table.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum TextOr<T> {
    Text(String),
    Table(T),
}

/// Reads a table, or the string that is its short form.
fn text_or_table<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
    of_text: impl Fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct TextOrTable<T, F>(F, PhantomData<T>);
    impl<'de, T: DeserializeOwned, F: Fn(&str) -> Result<T, String>> Visitor<'de>
        for TextOrTable<T, F>
    {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a table")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            self.0(text).map_err(E::custom)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(value::MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(TextOrTable(of_text, PhantomData))
}
