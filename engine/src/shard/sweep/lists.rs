//! The connections that a sweep has still to reach.

use crate::Reason;

/// The connections that existed when a sweep was asked for, with their generations.
#[derive(Default)]
pub struct Sweeps {
    /// `draining` is called for these.
    pub(super) draining: Vec<(u32, u64)>,
    /// These are reset, for a reason.
    pub(super) ending: Vec<(u32, u64, Reason)>,
}

impl Sweeps {
    pub fn is_empty(&self) -> bool {
        self.draining.is_empty() && self.ending.is_empty()
    }
}
