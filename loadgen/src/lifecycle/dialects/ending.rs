//! What protocols that announce their end judge alike.

use crate::lifecycle::dialect::{Ending, Limits, Sight, Verdict};
use crate::lifecycle::finding::{Finding, Rule};
use crate::lifecycle::oracle;

/// After the server has announced its end: it must come, and may be a reset, because what is said
/// behind it is thrown away for a while only. `None`: nothing was announced, or nothing is to be
/// said about it.
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
        "the server announced the end of the connection, and did not end it within {:?}",
        limits.patience
    );
    Some(oracle::wrong(outcome, Finding::new(Rule::NoReaction, detail)))
}
