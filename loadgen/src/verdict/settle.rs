//! Looking at a server again and again until it is at rest.

use crate::system::Interrupts;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Something that there is more of after the run than before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stays {
    /// What: `connections.open`, `descriptors.socket`, …
    pub name: String,
    /// How much of it there was before the run.
    pub before: u64,
    /// How much there still was in the end.
    pub after: u64,
}

impl Stays {
    /// Nothing, if there is no more of it than before.
    #[must_use]
    pub fn new(name: impl Into<String>, before: u64, after: u64) -> Option<Self> {
        (after > before).then(|| Self { name: name.into(), before, after })
    }

    /// `connections.open: 3, before the run 0`
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}: {}, before the run {}", self.name, self.after, self.before)
    }
}

/// The last look, and what stayed at it.
pub struct Settled<T> {
    /// What was seen.
    pub last: T,
    /// What there is more of.
    pub stays: Vec<Stays>,
    /// How long it took, or how long was waited.
    pub took: Duration,
}

/// Looks until nothing stays, for `settle` at most, or until a signal comes.
///
/// # Errors
/// Those of the last look.
pub fn wait<T>(
    settle: Duration,
    interrupts: &Interrupts,
    mut look: impl FnMut() -> Result<(T, Vec<Stays>), String>,
) -> Result<Settled<T>, String> {
    let start = Instant::now();
    loop {
        let seen = look();
        let is_last = start.elapsed() >= settle;
        match seen {
            Ok((last, stays)) if stays.is_empty() || is_last => {
                return Ok(Settled { last, stays, took: start.elapsed() });
            }
            Err(why) if is_last => return Err(why),
            Ok(_) | Err(_) => {}
        }
        if interrupts.wait(LOOK.min(settle)) {
            let (last, stays) = look()?;
            return Ok(Settled { last, stays, took: start.elapsed() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_late_has_not_stayed() {
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let mut looks = 0;
        let settled = wait(Duration::from_secs(60), &interrupts, || {
            looks += 1;
            let stays = Stays::new("x", 1, if looks < 3 { 2 } else { 1 });
            Ok((looks, stays.into_iter().collect()))
        })
        .expect("it can be looked at");
        assert_eq!((settled.last, settled.stays), (3, vec![]));
    }

    #[test]
    fn what_never_comes_back_is_told_when_the_time_is_over() {
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let stays = Stays::new("x", 1, 2).expect("it is more");
        assert_eq!(stays.text(), "x: 2, before the run 1");
        let look = || Ok(((), vec![stays.clone()]));
        let settled = wait(Duration::from_millis(150), &interrupts, look).expect("a look");
        assert_eq!(settled.stays, [stays]);
        assert!(settled.took >= Duration::from_millis(150));
        let look = || Err::<((), _), _>("gone".to_string());
        assert_eq!(wait(Duration::ZERO, &interrupts, look).err().as_deref(), Some("gone"));
    }
}
