//! The judgement that protocols with an announced end share.

use crate::dialect::{Ending, Limits, Record, Verdict};
use crate::finding::{Finding, Rule};
use crate::oracle;

/// Judges a connection whose end the server has announced. The end must come. It may be a reset,
/// because the server discards further data only for a limited time. Returns `None` if no end was
/// announced or if other rules apply.
pub fn announced(progress: &str, record: &Record, limits: &Limits) -> Option<Verdict> {
    if !record.announced_end || record.actions.gone {
        return None;
    }
    let outcome = format!("{progress}, {}", oracle::ending(record));
    match record.ending {
        Ending::Silence => {}
        Ending::Reset => return Some(oracle::fine(outcome)),
        _ => return None,
    }
    let detail = format!(
        "the server announced the end of the connection but did not close it within {:?}",
        limits.patience
    );
    Some(oracle::wrong(outcome, Finding::new(Rule::NoReaction, detail)))
}
