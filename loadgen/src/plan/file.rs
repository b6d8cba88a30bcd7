//! The TOML file of a plan. Unknown keys are errors, and every error has a line and a column.

use ringload_lifecycle::units::parse_duration;
use serde::Deserialize;
use std::time::Duration;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // `ringload plan --help` describes the keys.
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

/// The server: one to start, or a running one.
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

/// A phase; phases follow each other.
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

/// An event at a time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct At {
    pub time: Spanned<String>,
    pub phase: Option<Spanned<String>>,
    pub signal: Option<Spanned<String>>,
    pub command: Option<Spanned<Vec<String>>>,
}

/// The text of a plan, to locate errors in it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The name of the file.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
}

impl<'a> Source<'a> {
    /// Parses the text.
    ///
    /// # Errors
    /// The text is not TOML, or a key or value is invalid; the message has line and column.
    pub fn read(self) -> Result<File, String> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            // The parser's message has several lines; ours is one line with the place in front.
            let what = error.message().replace('\n', ", ");
            format!("{}: {what}", self.place(at))
        })
    }

    /// Makes an error message for a value.
    pub fn wrong<T>(self, at: &Spanned<T>, what: impl std::fmt::Display) -> String {
        format!("{}: {what}", self.place(at.span().start))
    }

    /// Parses a duration; `0` is allowed too.
    ///
    /// # Errors
    /// The text is not a duration.
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
