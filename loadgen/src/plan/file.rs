//! A plan as it is written: TOML, every key known, every mistake with its line and column.

use crate::units::parse_duration;
use serde::Deserialize;
use std::time::Duration;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // Described by what `ringload plan --help` prints.
pub struct File {
    pub seed: Option<u64>,
    #[serde(default)]
    pub restarts: bool,
    pub server: Option<Spanned<Server>>,
    #[serde(default)]
    pub phase: Vec<Phase>,
    #[serde(default)]
    pub part: Vec<Part>,
    #[serde(default)]
    pub at: Vec<Spanned<At>>,
}

/// The server: one to start, or one that runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs)]
pub struct Server {
    pub command: Option<Spanned<Vec<String>>>,
    pub pid: Option<Spanned<u32>>,
    pub pid_file: Option<Spanned<String>>,
    pub ready: Option<Spanned<String>>,
    pub ready_address: Option<Spanned<String>>,
    pub ready_within: Option<Spanned<String>>,
    pub drain: Option<Spanned<String>>,
    pub ledger: Option<Spanned<String>>,
    #[serde(default)]
    pub check_process: bool,
}

/// A stretch of time with a name; they follow each other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Phase {
    pub name: Spanned<String>,
    pub length: Spanned<String>,
}

/// One run of `ringload`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs)]
pub struct Part {
    pub name: Spanned<String>,
    pub run: Spanned<String>,
    pub phase: Option<Spanned<String>>,
    pub start: Option<Spanned<String>>,
    pub length: Option<Spanned<String>>,
    #[serde(default)]
    pub fail_if: Vec<String>,
}

/// Something that happens at a time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct At {
    pub time: Spanned<String>,
    pub phase: Option<Spanned<String>>,
    pub signal: Option<Spanned<String>>,
    pub command: Option<Spanned<Vec<String>>>,
}

/// A text, to say where in it something is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What to call it.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
}

impl<'a> Source<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// What is no TOML, or no key or value of a plan, with line and column.
    pub fn read(self) -> Result<File, String> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            // What TOML calls a mistake has several lines; the place is ours to say.
            let what = error.message().replace('\n', ", ");
            format!("{}: {what}", self.place(at))
        })
    }

    /// A mistake at a value.
    pub fn wrong<T>(self, at: &Spanned<T>, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.place(at.span().start))
    }

    /// A length of time, or a time.
    ///
    /// # Errors
    /// It is none.
    pub fn duration(self, text: &Spanned<String>) -> Result<Duration, String> {
        match text.get_ref().as_str() {
            "0" | "0s" => Ok(Duration::ZERO),
            other => parse_duration(other)
                .map_err(|wrong| self.wrong(text, format_args!("{other:?}: {wrong}"))),
        }
    }

    fn place(self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}: line {line}, column {column}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<File, String> {
        Source { name: "plan.toml", text }.read()
    }

    #[test]
    fn mistakes_have_a_line_and_a_column() {
        for (text, says) in [
            ("seed = 1\nsed = 2\n", "plan.toml: line 2, column 1: unknown field `sed`"),
            ("[[part]]\nname = 5\n", "line 2, column 8: invalid type: integer `5`"),
            ("[[part]]\nname = \"a\"\n", "line 1, column 1: missing field `run`"),
            ("[[part]\n", "line 1, column 8"),
            ("[server]\n commands = []\n", "line 2, column 2: unknown field `commands`"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_a_plan_or_a_mistake(text: String) {
            let _ = read(&text);
        }
    }
}
