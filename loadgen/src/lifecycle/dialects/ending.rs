//! What protocols that announce their end judge alike.

use crate::lifecycle::dialect::{Ending, Limits, Sight, Verdict};
use crate::lifecycle::finding::{Finding, Rule};
use crate::lifecycle::oracle;

/// A server that has announced its end, and stays.
pub fn stays(progress: &str, sight: &Sight, limits: &Limits) -> Option<Verdict> {
    if sight.ending != Ending::Silence || !sight.announced_end || sight.deeds.gone {
        return None;
    }
    let detail = format!(
        "the server announced the end of the connection, and did not end it within {:?}",
        limits.patience
    );
    let outcome = format!("{progress}, {}", oracle::ending(sight));
    Some(oracle::wrong(outcome, Finding::new(Rule::NoReaction, detail)))
}
