//! Checks LISTED answers.

use crate::dialects::learnt::Files;
use crate::finding::{Finding, Rule};
use crate::packets;
use std::collections::HashSet;

/// Checks that the names follow `after` in order, and that no learnt file is missing.
///
/// # Errors
/// Describes the first violation.
pub fn check(files: &Files, fields: &[u8], after: &[u8]) -> Result<(), Finding> {
    let wrong = |why: String| Finding::new(Rule::Protocol, format_args!("LISTED: {why}"));
    let (more, mut entries) = match fields.split_first() {
        Some((more @ (0 | 1), entries)) => (*more == 1, entries),
        _ => return Err(wrong("the first byte is not 0 or 1".into())),
    };
    let mut before = after;
    let mut seen = HashSet::new();
    while !entries.is_empty() {
        let (size, name) = packets::next_listed(&mut entries).map_err(|why| wrong(why.into()))?;
        let shown = String::from_utf8_lossy(name);
        if name <= before || !packets::is_name(name) {
            return Err(wrong(format!("{shown:?} is not in order or not a valid name")));
        }
        before = name;
        if let Some(at) = files.position(&shown) {
            let must = files.0[at].length;
            if size != must {
                return Err(wrong(format!("{shown} has {size} bytes, expected {must}")));
            }
            seen.insert(at);
        }
    }
    let missing = files.0.iter().enumerate().find(|(at, file)| {
        let name = file.name.as_bytes();
        name > after && (!more || name <= before) && !seen.contains(at)
    });
    match missing {
        Some((_, file)) => Err(wrong(format!("{} is missing", file.name))),
        None => Ok(()),
    }
}
