//! The differences of two configurations, by the paths of their keys.

use super::file::File;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;
use toml::Value;

/// A key with another value, or one that only one of the configurations has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path of the key, such as `site[0].root`.
    pub key: String,
    /// The value before, as TOML.
    pub old: Option<String>,
    /// The value after, as TOML.
    pub new: Option<String>,
}

/// Finds the keys whose values differ, in the order of their paths. Only what differs is put into
/// text: a configuration of a thousand sites has 30,000 values.
#[must_use]
pub fn changes(old: &File, new: &File) -> Vec<Change> {
    let mut differences = Differences::default();
    differences.of_key("engine", Some(&old.engine), Some(&new.engine));
    differences.of_key("log", Some(&old.log), Some(&new.log));
    differences.of_key("admin", Some(&old.admin), Some(&new.admin));
    differences.of_array("site", &old.site, &new.site);
    differences.of_array("echo", &old.echo, &new.echo);
    differences.of_array("packets", &old.packets, &new.packets);
    let mut changes = differences.changes;
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    changes
}

#[derive(Default)]
struct Differences {
    /// The path of the values that are being compared.
    path: String,
    changes: Vec<Change>,
}

impl Differences {
    fn of_array<T: PartialEq + Serialize>(&mut self, key: &str, old: &[T], new: &[T]) {
        for index in 0..old.len().max(new.len()) {
            self.of_key(&format!("{key}[{index}]"), old.get(index), new.get(index));
        }
    }

    fn of_key<T: PartialEq + Serialize>(&mut self, key: &str, old: Option<&T>, new: Option<&T>) {
        if old == new {
            return;
        }
        let value = |value: &T| Value::try_from(value).expect("a configuration has a text form");
        let (old, new) = (old.map(value), new.map(value));
        self.path.clear();
        self.path.push_str(key);
        self.of_values(old.as_ref(), new.as_ref());
    }

    fn of_values(&mut self, old: Option<&Value>, new: Option<&Value>) {
        if old == new {
            return;
        }
        let (old_leaf, new_leaf) = (self.leaf(old), self.leaf(new));
        if old_leaf.is_some() || new_leaf.is_some() {
            let text = |value: Option<&Value>| value.map(ToString::to_string);
            let (key, old, new) = (self.path.clone(), text(old_leaf), text(new_leaf));
            self.changes.push(Change { key, old, new });
        }
        let length = self.path.len();
        let tables = [old, new].map(|value| value.and_then(Value::as_table));
        let keys = tables.into_iter().flatten().flat_map(|table| table.keys());
        for key in keys.collect::<BTreeSet<_>>() {
            let _ = write!(self.path, ".{key}");
            let [old, new] = tables.map(|table| table.and_then(|table| table.get(key)));
            self.of_values(old, new);
            self.path.truncate(length);
        }
        let arrays = [old, new].map(|value| value.and_then(tables_of).unwrap_or_default());
        for index in 0..arrays[0].len().max(arrays[1].len()) {
            let _ = write!(self.path, "[{index}]");
            let [old, new] = arrays.map(|array| array.get(index));
            self.of_values(old, new);
            self.path.truncate(length);
        }
    }

    /// The value if it is no table and no array of tables. An array of tables that has none is no
    /// value.
    fn leaf<'a>(&self, value: Option<&'a Value>) -> Option<&'a Value> {
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        let is_rules = self.path.ends_with("].rule");
        value.filter(|value| {
            !value.is_table() && tables_of(value).is_none() && !(is_rules && is_empty(value))
        })
    }
}

/// The elements of an array of tables.
fn tables_of(value: &Value) -> Option<&[Value]> {
    let array = value.as_array()?;
    array.iter().any(Value::is_table).then_some(array)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        toml::from_str(text).unwrap()
    }

    fn keys(old: &str, new: &str) -> Vec<String> {
        changes(&file(old), &file(new)).into_iter().map(|change| change.key).collect()
    }

    const SITE: &str = "[[site]]\nlisten = ['127.0.0.1:80']\nroot = '/a'\n";

    #[test]
    fn changed_keys_are_those_with_another_value_or_none() {
        let none: [&str; 0] = [];
        let rule = format!("{SITE}[[site.rule]]\nmatch = '*'\ncache = 'no-store'\n");
        assert_eq!(keys(&rule, &rule), none);
        let other = rule.replace("no-store", "max-age=1");
        assert_eq!(keys(&rule, &other), ["site[0].rule[0].cache"]);
        assert_eq!(keys(SITE, &SITE.replace("/a", "/b")), ["site[0].root"]);
        // A rule comes and goes with all its keys, and a list of none is no key.
        let added = keys(SITE, &rule);
        assert!(added.contains(&"site[0].rule[0].match".to_owned()), "{added:?}");
        assert!(added.iter().all(|key| key.starts_with("site[0].rule[0].")), "{added:?}");
        assert_eq!(keys(&rule, SITE), added);
        let two = format!("{SITE}{SITE}");
        assert!(keys(SITE, &two).iter().all(|key| key.starts_with("site[1].")));
        assert!(keys(&two, SITE).contains(&"site[1].root".to_owned()));
        let engine = "[engine]\nshards = 2\nbans = ['192.0.2.1']\n[log]\nlevel = 'warn'\n";
        assert_eq!(keys("", engine), ["engine.bans", "engine.shards", "log.level"]);
        let echo = "[[echo]]\nlisten = ['127.0.0.1:7']\n";
        assert!(keys(echo, "").iter().all(|key| key.starts_with("echo[0].")));
    }

    #[test]
    fn a_change_has_both_values() {
        let changes = changes(&file("[engine]\nshards = 2\n"), &file("[engine]\nshards = 3\n"));
        let text = |text: &str| Some(text.to_owned());
        let (old, new) = (text("2"), text("3"));
        assert_eq!(changes, [Change { key: "engine.shards".into(), old, new }]);
    }

    #[test]
    fn a_value_that_becomes_a_table_is_two_keys() {
        let plain = format!("{SITE}[[site.rule]]\nmatch = '*'\nauth = 'users'\n");
        let table = plain.replace("'users'", "{ file = 'users', realm = 'x' }");
        let changed = keys(&plain, &table);
        assert!(changed.iter().any(|key| key.starts_with("site[0].rule[0].auth")), "{changed:?}");
    }
}
