//! JSON of numbers in groups.

use super::Histogram;
use std::fmt::{Display, Write as _};

/// An object whose values may be objects. Groups are in the order in which they were first named.
pub(super) struct Json {
    groups: Vec<(&'static str, Value)>,
}

enum Value {
    Plain(String),
    Group(Vec<(&'static str, String)>),
}

impl Json {
    pub(super) fn beginning_with(group: &'static str) -> Self {
        Self { groups: vec![(group, Value::Group(Vec::new()))] }
    }

    /// Adds a value that prints as JSON. The path is a name, or the name of a group, a dot and the
    /// name in it.
    pub(super) fn put(&mut self, path: &'static str, value: impl Display) {
        let value = value.to_string();
        let (group, name) = path.split_once('.').map_or((path, None), |(at, of)| (at, Some(of)));
        let there = self.groups.iter_mut().find(|(name, _)| *name == group);
        match (there, name) {
            (None, None) => self.groups.push((path, Value::Plain(value))),
            (None, Some(name)) => self.groups.push((group, Value::Group(vec![(name, value)]))),
            (Some((_, Value::Group(fields))), Some(name)) => {
                debug_assert!(fields.iter().all(|(field, _)| *field != name), "{path} again");
                fields.push((name, value));
            }
            _ => debug_assert!(false, "{path} is a value and a group, or is there already"),
        }
    }

    /// Inserts a number into a group that is there, as its `at`-th value, counted from 0.
    pub(super) fn insert(&mut self, group: &str, at: usize, (name, value): (&'static str, u64)) {
        let found = self.groups.iter_mut().find(|(name, _)| *name == group);
        if let Some((_, Value::Group(fields))) = found {
            fields.insert(at.min(fields.len()), (name, value.to_string()));
        }
    }

    pub(super) fn into_text(self) -> String {
        object(self.groups.into_iter().map(|(name, value)| match value {
            Value::Plain(text) => (name, text),
            Value::Group(fields) => (name, object(fields)),
        }))
    }
}

/// An object. The values print as JSON: numbers, booleans, or other objects.
pub(super) fn object(fields: impl IntoIterator<Item = (&'static str, impl Display)>) -> String {
    let mut text = String::from("{");
    for (name, value) in fields {
        let comma = if text.len() == 1 { "" } else { "," };
        let _ = write!(text, "{comma}\"{name}\":{value}");
    }
    text.push('}');
    text
}

/// A string of one line.
pub(super) fn text(value: impl Display) -> String {
    let plain = value.to_string().replace(['"', '\\'], "'");
    format!("\"{plain}\"")
}

pub(super) fn histogram(histogram: &Histogram) -> String {
    let counts = histogram.counts.map(|count| count.to_string()).join(",");
    object([("counts", format!("[{counts}]")), ("sum", histogram.sum.to_string())])
}
