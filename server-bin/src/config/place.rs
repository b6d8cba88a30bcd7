//! Places in the configuration file: the path of a key, and where it stands in the text.

use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A step from a table to what it contains.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// The path of a key, such as `site[0].listen`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(Vec<Step>);

impl Place {
    /// The place of a key of the top table.
    #[must_use]
    pub fn top(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The place of a key of the table at this place.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// The place of an element of the array at this place, from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The part of the text that has the value; of the nearest table around it if the text has no
    /// such key.
    #[must_use]
    pub fn span(&self, document: &Spanned<DeTable<'_>>) -> Range<usize> {
        let mut span = 0..0;
        let mut table = Some(document.get_ref());
        let mut value: Option<&Spanned<DeValue<'_>>> = None;
        for step in &self.0 {
            let next = match step {
                Step::Key(key) => table.and_then(|table| table.get(key.as_str())),
                Step::Index(index) => {
                    let array = value.and_then(|value| value.get_ref().as_array());
                    array.and_then(|array| array.get(*index))
                }
            };
            let Some(next) = next else { return span };
            span = next.span();
            table = next.get_ref().as_table();
            value = Some(next);
        }
        span
    }

    /// The deepest place whose key or value contains this position of the text.
    #[must_use]
    pub fn at(document: &Spanned<DeTable<'_>>, span: &Range<usize>) -> Self {
        let mut found = Found { span: span.clone(), length: usize::MAX, place: Self::default() };
        found.in_table(document.get_ref(), &Self::default());
        found.place
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The search for the place of a position.
struct Found {
    span: Range<usize>,
    /// The length of the smallest text so far; of two, the inner one counts.
    length: usize,
    place: Place,
}

impl Found {
    fn in_table(&mut self, table: &DeTable<'_>, place: &Place) {
        for (key, value) in table.iter() {
            let place = place.key(key.get_ref());
            self.consider(&key.span(), &place);
            self.in_value(value, &place);
        }
    }

    fn in_value(&mut self, value: &Spanned<DeValue<'_>>, place: &Place) {
        self.consider(&value.span(), place);
        match value.get_ref() {
            DeValue::Table(table) => self.in_table(table, place),
            DeValue::Array(array) => {
                for (index, value) in array.iter().enumerate() {
                    self.in_value(value, &place.index(index));
                }
            }
            _ => {}
        }
    }

    fn consider(&mut self, span: &Range<usize>, place: &Place) {
        let contains = span.start <= self.span.start && self.span.end <= span.end;
        if contains && span.len() <= self.length {
            self.length = span.len();
            self.place = place.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[engine]\nshards = 2\ntimeouts = { idle = '5s' }\n\n[[site]]\n\
                        listen = ['a', 'b']\n\n[[site.rule]]\nmatch = '*.js'\n\n[[site]]\n\
                        root = 'x'\n";

    #[test]
    fn a_place_is_found_in_the_text_and_the_text_at_its_place() {
        let document = DeTable::parse(TEXT).unwrap();
        let site = Place::top("site");
        for (place, text) in [
            (Place::top("engine").key("shards"), "2"),
            (Place::top("engine").key("timeouts").key("idle"), "'5s'"),
            (site.index(0).key("listen").index(1), "'b'"),
            (site.index(0).key("rule").index(0).key("match"), "'*.js'"),
            (site.index(1).key("root"), "'x'"),
        ] {
            let span = place.span(&document);
            assert_eq!(&TEXT[span.clone()], text, "{place}");
            assert_eq!(Place::at(&document, &span), place);
        }
        assert_eq!(
            site.index(0).key("rule").index(0).key("match").to_string(),
            "site[0].rule[0].match"
        );
    }

    #[test]
    fn a_missing_key_is_at_its_table() {
        let document = DeTable::parse(TEXT).unwrap();
        let span = Place::top("site").index(1).key("listen").span(&document);
        assert_eq!(&TEXT[span], "[[site]]");
        assert_eq!(Place::top("log").key("access").span(&document).start, 0);
    }
}
