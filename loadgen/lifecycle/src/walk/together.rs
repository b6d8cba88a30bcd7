//! Some scripts, all at once, to their end.

use super::{Stage, Walked, Walker};
use crate::script::Script;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Interval of the calls of `keep_on`.
const TURN: Duration = Duration::from_millis(20);

/// Starts all `scripts` in their order, without a pause, and runs them to their end, or until
/// `keep_on` returns false. Returns their records in the same order, with their steps.
///
/// # Errors
/// errno of epoll.
pub fn walk_together(
    stage: &Arc<Stage>,
    scripts: &[Arc<Script>],
    keep_on: &mut dyn FnMut() -> bool,
) -> io::Result<Vec<Walked>> {
    let mut walker = Walker::new(stage.clone(), true)?;
    for (tag, script) in scripts.iter().enumerate() {
        walker.start(script.clone(), tag as u64);
    }
    let mut done = Vec::with_capacity(scripts.len());
    while done.len() < scripts.len() && keep_on() {
        done.extend(walker.turn(TURN)?);
    }
    done.extend(walker.abandon());
    done.sort_by_key(|walked| walked.tag);
    Ok(done)
}
