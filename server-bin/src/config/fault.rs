//! The faults of a configuration, with their places.

use super::place::Place;
use std::fmt::Write;
use std::ops::Range;
use toml::Spanned;
use toml::de::DeTable;

/// The similarity from which a key is worth proposing, from 0 to 1.
const SIMILARITY_MIN: f64 = 0.7;
/// The part of a value that is shown, in characters.
const SHOWN_MAX: usize = 60;

/// Something wrong with a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The key.
    pub place: Place,
    /// The mistake, and the values that are allowed.
    pub reason: String,
}

impl Fault {
    /// A fault of the value at a place.
    pub fn new(place: Place, reason: impl Into<String>) -> Self {
        Self { place, reason: reason.into() }
    }
}

/// A configuration file with its text.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The name of the file, as it was given.
    pub name: &'a str,
    /// Everything in it.
    pub text: &'a str,
}

impl Text<'_> {
    /// Describes faults for the user: each with file, line, column, key, value and reason, and the
    /// line of the file.
    #[must_use]
    pub fn describe(&self, faults: &[Fault]) -> String {
        let document = DeTable::parse(self.text).ok();
        let mut out = String::new();
        for Fault { place, reason } in faults {
            let span = document.as_ref().map_or(0..0, |document| place.span(document));
            let value = document.as_ref().and_then(|document| self.shown(document, place));
            let value = value.map_or_else(String::new, |value| format!(" = {value}"));
            self.describe_one(&span, &format!("{place}{value}: {reason}"), &mut out);
        }
        out
    }

    /// Describes an error of the parser.
    #[must_use]
    pub fn describe_error(&self, error: &toml::de::Error) -> String {
        let span = error.span().unwrap_or(0..0);
        let place = DeTable::parse(self.text).ok().map(|document| {
            let place = Place::at(&document, &span);
            let value = self.shown(&document, &place).filter(|_| !is_about_keys(error.message()));
            let value = value.map_or_else(String::new, |value| format!(" = {value}"));
            format!("{place}{value}")
        });
        let place = place.or_else(|| self.second_key(&span));
        let place = place.filter(|place| !place.is_empty()).unwrap_or_else(|| "TOML".into());
        let mut out = String::new();
        self.describe_one(&span, &format!("{place}: {}", reason(error.message())), &mut out);
        out.truncate(out.trim_end().len());
        out
    }

    /// The path of a key that is given twice: under another name the text has a structure.
    fn second_key(&self, span: &Range<usize>) -> Option<String> {
        const OTHER: &str = "ringwright-second-key";
        let key = self.text.get(span.clone())?;
        let text = format!("{}{OTHER}{}", &self.text[..span.start], &self.text[span.end..]);
        let document = DeTable::parse(&text).ok()?;
        let place = Place::at(&document, &(span.start..span.start + OTHER.len())).to_string();
        place.contains(OTHER).then(|| place.replace(OTHER, key))
    }

    fn describe_one(&self, span: &Range<usize>, what: &str, out: &mut String) {
        let start = span.start.min(self.text.len());
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let number = self.text[..start].matches('\n').count() + 1;
        let column = self.text[line_start..start].chars().count() + 1;
        let length = self.text[start..span.end.clamp(start, line_start + line.len()).max(start)]
            .chars()
            .count()
            .max(1);
        let margin = " ".repeat(number.to_string().len());
        let _ = writeln!(out, "{}:{number}:{column}: {what}", self.name);
        let _ = writeln!(out, "  {number} | {line}");
        let _ = writeln!(out, "  {margin} | {}{}", " ".repeat(column - 1), "^".repeat(length));
    }

    /// The value at a place, if it is short and not a table.
    fn shown(&self, document: &Spanned<DeTable<'_>>, place: &Place) -> Option<String> {
        let value = self.text.get(place.span(document))?;
        let is_value = !value.is_empty() && !value.starts_with('[') && !value.contains('\n');
        (is_value && value.chars().count() <= SHOWN_MAX).then(|| value.to_owned())
    }
}

/// The error is about a key, not about its value.
fn is_about_keys(message: &str) -> bool {
    message.starts_with("unknown field") || message.starts_with("missing field")
}

/// The parser's message in words of the file, with a proposal for a misspelled key.
fn reason(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let Some(missing) = message.strip_prefix("missing field ") {
        return format!("the key {missing} is missing");
    }
    if !message.starts_with("unknown field") || names.is_empty() {
        return message.trim().replace('\n', "; ");
    }
    let (unknown, known) = (names[0], &names[1..]);
    let similar = known
        .iter()
        .map(|name| (strsim::jaro_winkler(unknown, name), *name))
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN);
    match similar {
        Some((_, name)) => format!("unknown key; did you mean `{name}`?"),
        None => format!("unknown key; the keys here are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::File;

    fn described(text: &str) -> String {
        let error = toml::from_str::<File>(text).unwrap_err();
        Text { name: "a.toml", text }.describe_error(&error)
    }

    #[test]
    fn errors_have_file_line_column_key_value_and_reason() {
        for (text, expected) in [
            ("[engine]\nshards = 'many'\n", "a.toml:2:10: engine.shards = 'many': expected"),
            (
                "[engine]\nshard = 2\n",
                "a.toml:2:1: engine.shard: unknown key; did you mean `shards`?",
            ),
            ("[engin]\n", "a.toml:1:2: engin: unknown key; did you mean `engine`?"),
            ("[[site]]\nroot = 'x'\n", "a.toml:1:1: site[0]: the key `listen` is missing"),
            ("[[site]]\nlisten = 5\nroot = 'x'", "a.toml:2:10: site[0].listen = 5: invalid type"),
            ("[engine]\ntimeouts = { idel = '5s' }", "engine.timeouts.idel: unknown key; did you"),
            ("[engine]\nxyz = 2\n", "engine.xyz: unknown key; the keys here are shards, ring, "),
            ("[engine\n", "a.toml:1:8: TOML: "),
            ("[engine]\nring = 'auto'\nring = 'auto'", "a.toml:3:1: engine.ring: duplicate key"),
            ("[log]\n[engine]\n[log]\n", "a.toml:3:2: log: duplicate key"),
            ("[[echo]]\n[[echo]]\na = { b = 1, b = 2 }", "a.toml:3:14: echo[1].a.b: duplicate"),
        ] {
            let described = described(text);
            assert!(described.contains(expected), "{text:?}: {described}");
        }
    }

    #[test]
    fn the_line_is_shown_with_a_mark() {
        let text = "# ä\n[engine]\nring = 'uring'\n";
        assert!(described(text).contains("  3 | ring = 'uring'\n    |        ^^^^^^^"));
    }
}
