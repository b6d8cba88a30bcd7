//! Turns a part of a plan into a complete command line.

use super::file::{self, Source};
use super::words;
use crate::args::Cli;
use std::time::Duration;

/// Maximum duration of a plan.
pub(super) const LENGTH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// One run of `ringload`.
#[derive(Clone, Debug)]
pub struct Part {
    /// The name.
    pub name: String,
    /// The phase to which it belongs.
    pub phase: Option<String>,
    /// Start, relative to the start of the plan.
    pub start: Duration,
    /// Duration; `None` if the run ends by itself.
    pub length: Option<Duration>,
    /// The command line without `ringload`.
    pub words: Vec<String>,
}

/// A phase with its start and end.
pub(super) struct Span<'a> {
    pub(super) name: &'a str,
    pub(super) start: Duration,
    pub(super) end: Duration,
}

/// Returns the start and end of a phase, or of the plan if `name` is `None`.
pub(super) fn span(
    source: Source<'_>,
    phases: &[Span<'_>],
    name: Option<&toml::Spanned<String>>,
) -> Result<(Duration, Option<Duration>), String> {
    match name {
        None => Ok((Duration::ZERO, phases.last().map(|last| last.end))),
        Some(name) => phases
            .iter()
            .find(|span| span.name == name.get_ref())
            .map(|span| (span.start, Some(span.end)))
            .ok_or_else(|| {
                source.wrong(
                    name,
                    format_args!(
                        "there is no [[phase]] with the name {name:?}",
                        name = name.get_ref()
                    ),
                )
            }),
    }
}

/// Reads a part. The server may be gone from `gone_from` on.
pub(super) fn read_part(
    source: Source<'_>,
    phases: &[Span<'_>],
    part: &file::Part,
    seed: Option<u64>,
    gone_from: Option<Duration>,
) -> Result<Part, String> {
    let name = part.name.get_ref();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.starts_with('.') || name.len() > 40 || !name.chars().all(is_plain) {
        let why =
            "a name has 1 to 40 letters, digits, '-', '_' or '.', and does not begin with a dot";
        return Err(source.wrong(&part.name, why));
    }
    let mut words = words::split(part.run.get_ref()).map_err(|e| source.wrong(&part.run, e))?;
    let kind = Kind::of(&words).map_err(|wrong| source.wrong(&part.run, wrong))?;
    let (base, limit) = span(source, phases, part.phase.as_ref())?;
    let start = base + part.start.as_ref().map_or(Ok(Duration::ZERO), |at| source.duration(at))?;
    let length = match (&part.length, kind.length_option()) {
        (Some(length), Some(_)) => Some(source.duration(length)?),
        (Some(length), None) => {
            return Err(source.wrong(
                length,
                "length does not apply to a run with -n, or to put and get; remove it",
            ));
        }
        (None, None) => None,
        (None, Some(_)) => match limit.and_then(|limit| limit.checked_sub(start)) {
            Some(rest) if !rest.is_zero() => Some(rest),
            _ => {
                return Err(source.wrong(
                    &part.name,
                    "length is missing; it is optional only within the [[phase]]s",
                ));
            }
        },
    };
    if start + length.unwrap_or_default() > LENGTH_MAX {
        return Err(source.wrong(&part.name, "a plan must take at most 24h"));
    }
    if let (Some(option), Some(length)) = (kind.length_option(), length) {
        words.extend([option.into(), format!("{}ms", length.as_millis())]);
    }
    if let (Some(seed), false) = (seed, has_option(&words, "--seed")) {
        words.extend(["--seed".into(), seed.to_string()]);
    }
    for demand in &part.fail_if {
        words.extend(["--fail-if".into(), demand.clone()]);
    }
    let survives = gone_from.is_some_and(|gone| length.is_none_or(|length| start + length > gone));
    if survives && kind.can_drain() && !has_option(&words, "--drain-ok") {
        words.push("--drain-ok".into());
    } else if survives && !kind.can_drain() {
        let why = "this part would still run when the server ends, and it has no --drain-ok; let \
                   it end earlier";
        return Err(source.wrong(&part.run, why));
    }
    let line = ["ringload".to_string()].into_iter().chain(words.iter().cloned());
    Cli::read(line).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        source.wrong(&part.run, first.strip_prefix("error: ").unwrap_or(first))
    })?;
    let phase = part.phase.as_ref().map(|phase| phase.get_ref().clone());
    Ok(Part { name: name.clone(), phase, start, length, words })
}

/// The kind of run of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load { counted: bool },
    Transfer,
    Churn { counted: bool },
    Idle,
}

impl Kind {
    fn of(words: &[String]) -> Result<Self, String> {
        let counted = ["-n", "--requests", "--count"].iter().any(|it| has_option(words, it));
        for option in ["-d", "--duration", "--hold"] {
            if has_option(words, option) {
                return Err(format!("{option} is not allowed in run; use the key length"));
            }
        }
        for option in ["--json", "--hlog", "--html"] {
            if has_option(words, option) {
                return Err(format!(
                    "{option} is not allowed in run; the plan's own report contains those of its \
                     parts"
                ));
            }
        }
        let is_transfer = words.iter().skip(2).any(|word| word == "put" || word == "get");
        match words.first().map(String::as_str) {
            Some("packets") if is_transfer => Ok(Self::Transfer),
            Some("http" | "echo" | "packets") => Ok(Self::Load { counted }),
            Some("churn") => Ok(Self::Churn { counted }),
            Some("idle") => Ok(Self::Idle),
            _ => Err("run must begin with http, echo, packets, churn or idle".into()),
        }
    }

    const fn length_option(self) -> Option<&'static str> {
        match self {
            Self::Load { counted: false } | Self::Churn { counted: false } => Some("-d"),
            Self::Idle => Some("--hold"),
            Self::Load { counted: true } | Self::Churn { counted: true } | Self::Transfer => None,
        }
    }

    const fn can_drain(self) -> bool {
        matches!(self, Self::Load { .. } | Self::Idle)
    }
}

/// Returns true if an option is given, as in `-n 5`, `-n5`, `--count 5` or `--count=5`.
fn has_option(words: &[String], option: &str) -> bool {
    words.iter().any(|word| match word.strip_prefix(option) {
        Some("") => true,
        Some(rest) if option.starts_with("--") => rest.starts_with('='),
        Some(rest) => rest.starts_with(|letter: char| letter.is_ascii_digit() || letter == '='),
        None => false,
    })
}
