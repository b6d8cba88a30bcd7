//! The header lines of replies that come before those of the content.

use super::Files;
use super::exchange::{Asked, Candidate};
use super::sending::Found;
use crate::http::date::CommonLines;
use crate::http::status::Status;
use crate::site::cors;
use crate::site::headers::{BuiltIn, Sent};
use crate::site::rules::{Facts, Rules};
use crate::site::variants::{self, Coding};

impl Files {
    /// Writes the header lines that come before those of the content. Returns the fields that rules
    /// have replaced.
    pub(super) fn write_lines(
        &mut self,
        asked: &Asked<'_>,
        path: &[u8],
        status: Status,
        sent: Option<SentFile>,
    ) -> BuiltIn {
        let Self { lines, common, .. } = self;
        lines.clear();
        let without = if asked.site.has_rules {
            write_rule_lines(asked, path, status, sent, common, lines)
        } else {
            lines.extend_from_slice(common.lines());
            BuiltIn::default()
        };
        if let Some(SentFile { coding, .. }) = sent {
            write_coding_lines(asked, coding, lines);
        }
        without
    }
}

/// The content of a reply is that of a file.
#[derive(Clone, Copy)]
pub(super) struct SentFile {
    /// The coding of a variant.
    pub(super) coding: Option<Coding>,
    /// A link has led to a file for which a user is asked.
    pub(super) is_private: bool,
}

impl SentFile {
    pub(super) fn new(asked: &Asked<'_>, candidate: &Candidate, found: &Found<'_>) -> Self {
        let target = Files::target(asked, candidate, found.file).ok().flatten();
        Self { coding: candidate.coding(), is_private: is_private(asked, target.as_ref()) }
    }
}

pub(super) fn is_private(asked: &Asked<'_>, facts: Option<&Facts>) -> bool {
    facts.is_some_and(|facts| asked.site.rules.auth(facts).is_some())
}

pub(super) fn common_lines(common: &CommonLines, without: BuiltIn) -> &[u8] {
    common.lines_without(without.has(BuiltIn::SERVER), without.has(BuiltIn::NO_SNIFF))
}

/// The reply as rules see it.
pub(super) fn sent<'a>(
    rules: &Rules,
    facts: Option<&Facts>,
    path: &'a [u8],
    status: Status,
    file: Option<SentFile>,
) -> Sent<'a> {
    let is_private = facts.is_some_and(|facts| rules.auth(facts).is_some())
        || file.is_some_and(|file| file.is_private);
    Sent { path, status: status.code(), is_file: file.is_some(), is_private }
}

/// Writes the lines of all replies and those of rules. Returns the fields that rules have replaced.
fn write_rule_lines(
    asked: &Asked<'_>,
    path: &[u8],
    status: Status,
    file: Option<SentFile>,
    common: &CommonLines,
    lines: &mut Vec<u8>,
) -> BuiltIn {
    let rules = &asked.site.rules;
    let facts = rules.facts(path).ok();
    let sent = sent(rules, facts.as_ref(), path, status, file);
    let without = rules.headers().append_lines(&sent, lines);
    lines.splice(0..0, common_lines(common, without).iter().copied());
    if let Some(sharing) = facts.as_ref().and_then(|facts| rules.cors(facts))
        && !without.has(BuiltIn::SHARING)
    {
        sharing.append_lines(cors::origin(asked.head), lines);
    }
    without
}

pub(super) fn write_coding_lines(asked: &Asked<'_>, coding: Option<Coding>, lines: &mut Vec<u8>) {
    if asked.site.spec.precompressed {
        lines.extend_from_slice(variants::VARY_LINE);
    }
    if let Some(coding) = coding {
        lines.extend_from_slice(coding.line());
    }
}
