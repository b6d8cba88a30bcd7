//! From the file, the flags and the environment to one configuration, with the origin of each
//! value.

use super::fault::{Fault, Text};
use super::file::File;
use super::place::Place;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue, Deserializer};
use toml::{Spanned, Table, Value};

/// The largest configuration file that is read, in bytes: a thousand sites take 0.1 MB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A configuration file that has been read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name of the file, as it was given.
    pub name: String,
    /// Everything in it.
    pub text: String,
    /// The folder in which the file was named: relative paths begin here.
    pub folder: PathBuf,
}

/// A value of the command line or of the environment.
#[derive(Clone, Debug)]
pub struct Given {
    /// The path of its key, such as `engine.shards` or `site[0].listen`.
    pub key: &'static str,
    /// The value: a string, or an array of strings.
    pub value: Value,
    /// Where it was given. `None`: it is a default.
    pub origin: Option<Origin>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// A line of the file.
    File(String, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(variable) => f.write_str(variable),
            Self::File(name, line) => write!(f, "{name}:{line}"),
        }
    }
}

/// A configuration, complete.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Every value.
    pub file: File,
    /// The keys of the command line and the environment, and the origins of their values.
    given: Vec<(&'static str, Option<Origin>)>,
}

impl Source {
    /// Reads a file. The folder of a relative path begins at the current one.
    ///
    /// # Errors
    /// A message for the user.
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let mut text = Vec::new();
        let read =
            |text: &mut Vec<u8>| fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(text);
        read(&mut text).map_err(|error| {
            format!("cannot read the configuration file {name}: {error}; give a readable file")
        })?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("{name}: the file is larger than {FILE_BYTES_MAX} bytes"));
        }
        let text = String::from_utf8(text).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("{name}:{line}:1: the file is not UTF-8; save it as UTF-8")
        })?;
        let absolute = std::path::absolute(path)
            .map_err(|error| format!("cannot find the current folder: {error}"))?;
        let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { name, text, folder })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(Path::new(&self.name).file_name().unwrap_or_default())
    }

    /// The text with its name.
    #[must_use]
    pub fn text(&self) -> Text<'_> {
        Text { name: &self.name, text: &self.text }
    }
}

/// Puts the values of the command line and the environment over those of the file.
///
/// # Errors
/// A description of what is wrong in the file.
pub fn load(source: Option<&Source>, given: &[Given]) -> Result<Loaded, String> {
    let keys_given = given.iter().map(|given| (given.key, given.origin.clone())).collect();
    let mut table = Table::new();
    if let Some(source) = source {
        let described = |error: toml::de::Error| source.text().describe_error(&error);
        let document = DeTable::parse(&source.text).map_err(described)?;
        // The parser would take a date for a table.
        if let Some(span) = document.get_ref().values().find_map(date) {
            let fault = Fault::new(Place::at(&document, &span), "no key has a date");
            return Err(source.text().describe(&[fault]));
        }
        // These errors have their place in the text.
        let file = File::deserialize(Deserializer::from(document)).map_err(described)?;
        if given.is_empty() {
            return Ok(Loaded { file, given: keys_given });
        }
        table = toml::from_str(&source.text).map_err(described)?;
    }
    for Given { key, value, .. } in given {
        put(&mut table, key, value.clone());
    }
    let file = File::deserialize(table)
        .map_err(|error| format!("the options do not fit together: {}", error.message()))?;
    Ok(Loaded { file, given: keys_given })
}

/// The part of the text that has the first date.
fn date(value: &Spanned<DeValue<'_>>) -> Option<Range<usize>> {
    match value.get_ref() {
        DeValue::Datetime(_) => Some(value.span()),
        DeValue::Array(array) => array.iter().find_map(date),
        DeValue::Table(table) => table.iter().find_map(|(_, value)| date(value)),
        _ => None,
    }
}

/// The paths of all keys with a value, and their positions.
fn keys(table: &DeTable<'_>, prefix: &str) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    for (key, value) in table.iter() {
        let path = format!("{prefix}{}", key.get_ref());
        if let Some(table) = value.get_ref().as_table() {
            all.extend(keys(table, &format!("{path}.")));
            continue;
        }
        let tables = value.get_ref().as_array().filter(|array| {
            !array.is_empty() && array.iter().all(|element| element.get_ref().is_table())
        });
        for (index, element) in tables.into_iter().flatten().enumerate() {
            let Some(table) = element.get_ref().as_table() else { continue };
            all.extend(keys(table, &format!("{path}[{index}].")));
        }
        if tables.is_none() {
            all.push((path, key.span().start));
        }
    }
    all
}

/// Puts a value at a path of keys; `[0]` stands for the only element of an array of tables.
fn put(table: &mut Table, path: &str, value: Value) {
    let Some((step, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return;
    };
    let inner = match step.strip_suffix("[0]") {
        Some(name) => {
            let array = table.entry(name).or_insert_with(|| Value::Array(vec![]));
            let Value::Array(array) = array else { unreachable!("{name} is an array of tables") };
            if array.is_empty() {
                array.push(Value::Table(Table::new()));
            }
            &mut array[0]
        }
        None => table.entry(step).or_insert_with(|| Value::Table(Table::new())),
    };
    let Value::Table(inner) = inner else { unreachable!("{step} is a table") };
    put(inner, rest, value);
}

impl Loaded {
    /// Describes a fault of a configuration that has no file.
    #[must_use]
    pub fn describe(&self, fault: &Fault) -> String {
        let key = fault.place.to_string();
        // The flag sets the whole list.
        let key = key
            .strip_suffix(']')
            .and_then(|key| key.rsplit_once('['))
            .map_or(&key[..], |split| split.0);
        let mut given = self.given.iter();
        match given.find(|(given, _)| *given == key).and_then(|(_, origin)| origin.as_ref()) {
            Some(origin) => format!("{origin}: {}", fault.reason),
            None => fault.reason.clone(),
        }
    }

    /// The effective configuration as TOML. A comment after each value tells its origin. `source`
    /// is the file that was loaded.
    #[must_use]
    pub fn print(&self, source: Option<&Source>) -> String {
        let table = Table::try_from(&self.file).expect("the configuration has a text form");
        let mut out = String::new();
        print_table(&self.origins(source), &table, "", "", &mut out);
        out
    }

    /// The origin of each value that is not a default, by the path of its key.
    fn origins(&self, source: Option<&Source>) -> BTreeMap<String, Origin> {
        let mut origins = BTreeMap::new();
        if let Some(source) = source
            && let Ok(document) = DeTable::parse(&source.text)
        {
            let line_ends: Vec<usize> = source.text.match_indices('\n').map(|(at, _)| at).collect();
            for (key, at) in keys(document.get_ref(), "") {
                let line = line_ends.partition_point(|end| *end < at) + 1;
                origins.insert(key, Origin::File(source.name.clone(), line));
            }
        }
        for (key, origin) in &self.given {
            // A list replaces the list of the file.
            let is_of_list =
                |known: &str| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('['));
            origins.retain(|known, _| !is_of_list(known));
            origins.extend(origin.clone().map(|origin| ((*key).to_owned(), origin)));
        }
        origins
    }
}

fn print_table(
    origins: &BTreeMap<String, Origin>,
    table: &Table,
    header: &str,
    path: &str,
    out: &mut String,
) {
    let is_tables =
        |value: &Value| value.as_array().is_some_and(|array| array.iter().any(Value::is_table));
    let prefix = |key: &str| {
        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
    };
    for (key, value) in table {
        if value.is_table() || is_tables(value) {
            continue;
        }
        // `[[site]]` without any is an empty array.
        if path.is_empty() && value.as_array().is_some_and(Vec::is_empty) {
            continue;
        }
        let origin = origins.get(&prefix(key));
        let origin = origin.map_or_else(|| "default".to_owned(), ToString::to_string);
        out.push_str(&format!("{} = {value}  # {origin}\n", quoted(key)));
    }
    for (key, value) in table {
        let name =
            if header.is_empty() { quoted(key) } else { format!("{header}.{}", quoted(key)) };
        if let Value::Table(inner) = value {
            let gap = if out.is_empty() { "" } else { "\n" };
            out.push_str(&format!("{gap}[{name}]\n"));
            print_table(origins, inner, &name, &prefix(key), out);
        } else if is_tables(value) {
            let Some(array) = value.as_array() else { continue };
            for (index, element) in array.iter().enumerate() {
                let Value::Table(inner) = element else { continue };
                let gap = if out.is_empty() { "" } else { "\n" };
                out.push_str(&format!("{gap}[[{name}]]\n"));
                print_table(origins, inner, &name, &format!("{}[{index}]", prefix(key)), out);
            }
        }
    }
}

/// A key, in quotes if it needs them.
fn quoted(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(is_bare) {
        return key.to_owned();
    }
    Value::String(key.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn source(text: &str) -> Source {
        Source { name: "a.toml".into(), text: text.into(), folder: "/etc".into() }
    }

    fn flag(key: &'static str, name: &str, value: impl Into<Value>) -> Given {
        Given { key, value: value.into(), origin: Some(Origin::Flag(name.into())) }
    }

    const TEXT: &str = "[engine]\nshards = 2\nbans = ['192.0.2.1', '192.0.2.2']\n\
                        [[site]]\nlisten = ['127.0.0.1:80']\nroot = 'www'\n";

    #[test]
    fn a_flag_goes_over_the_file_and_its_list_replaces_the_files() {
        let given = [
            flag("engine.shards", "--shards", "3"),
            flag("engine.bans", "--ban", vec!["192.0.2.9"]),
            flag("engine.timeouts.idle", "--idle-timeout", "5s"),
        ];
        let loaded = load(Some(&source(TEXT)), &given).unwrap();
        assert_eq!(loaded.file.engine.shards.0, Some(3));
        assert_eq!(loaded.file.engine.bans.len(), 1);
        assert_eq!(loaded.file.engine.timeouts.idle.0.unwrap().as_secs(), 5);
        assert_eq!(loaded.file.site.len(), 1);
    }

    #[test]
    fn each_value_is_printed_with_its_origin() {
        let given = [flag("engine.shards", "--shards", "3")];
        let printed = load(Some(&source(TEXT)), &given).unwrap().print(Some(&source(TEXT)));
        for line in [
            "shards = 3  # --shards",
            "bans = [\"192.0.2.1/32\", \"192.0.2.2/32\"]  # a.toml:3",
            "ring = \"auto\"  # default",
            "listen = [\"127.0.0.1:80\"]  # a.toml:5",
            "[[site]]",
            "[engine.timeouts]",
            "idle = \"75s\"  # default",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
        }
    }

    #[test]
    fn what_is_printed_is_a_configuration_and_the_same() {
        let loaded = load(Some(&source(TEXT)), &[]).unwrap();
        let again = load(Some(&source(&loaded.print(None))), &[]).unwrap();
        assert_eq!(again.file, loaded.file);
    }

    #[test]
    fn a_date_is_refused_at_its_place() {
        let text = format!("{TEXT}errors = 1979-05-27\n");
        let error = load(Some(&source(&text)), &[]).unwrap_err();
        assert!(error.starts_with("a.toml:7:10: site[0].errors = 1979-05-27: no key "), "{error}");
    }

    #[test]
    fn a_file_without_an_end_is_refused() {
        let error = Source::read(Path::new("/dev/zero")).unwrap_err();
        assert!(error.starts_with("/dev/zero: the file is larger than "), "{error}");
    }

    #[test]
    fn a_path_with_any_bytes_is_printed() {
        let given = [
            flag("site[0].listen", "--listen", vec!["127.0.0.1:80"]),
            flag("site[0].root", "DIR", "x"),
        ];
        let mut loaded = load(None, &given).unwrap();
        let path = PathBuf::from(std::ffi::OsString::from_vec(b"/srv/\xff".to_vec()));
        loaded.file.log.access = Some(path.clone());
        loaded.file.site[0].root = path;
        assert!(loaded.print(None).contains("root = \"/srv/\u{fffd}\"  # DIR\n"));
        assert!(loaded.print(None).contains("access = \"/srv/\u{fffd}\"  # default\n"));
    }

    #[test]
    fn flags_alone_make_a_configuration() {
        let given = [
            flag("site[0].listen", "--listen", vec!["127.0.0.1:80"]),
            flag("site[0].root", "DIR", "/srv"),
        ];
        let loaded = load(None, &given).unwrap();
        assert_eq!(loaded.file.site[0].root, Path::new("/srv"));
        assert!(loaded.print(None).contains("root = \"/srv\"  # DIR\n"));
    }
}
