//! The judgement that protocols with an announced end share.

use crate::dialect::{Ending, Limits, Sight, Verdict};
use crate::finding::{Finding, Rule};
use crate::oracle;

/// Judges a connection whose end the server has announced. The end must come. It may be a reset,
/// because the server discards further data only for a limited time. Returns `None` if no end was
/// announced or if other rules apply.
pub fn announced(progress: &str, sight: &Sight, limits: &Limits) -> Option<Verdict> {
    if !sight.announced_end || sight.deeds.gone {
        return None;
    }
    let outcome = format!("{progress}, {}", oracle::ending(sight));
    match sight.ending {
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
