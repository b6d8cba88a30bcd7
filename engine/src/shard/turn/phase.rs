//! The marks of the phases of a turn. They exist for the compiler only.
//!
//! Nothing is submitted without [`Submitting`], and no callback is made without [`Calling`]. Only
//! the loop makes them; `family.rs` says which function of a family gets which.

/// The mark of the phase that submits operations.
#[derive(Clone, Copy)]
pub struct Submitting(());

/// The mark of the phases that call the handler.
#[derive(Clone, Copy)]
pub struct Calling(());

impl Submitting {
    pub(in crate::shard::turn) fn begin() -> Self {
        Self(())
    }

    /// Lets a read call the handler that is over at once: a small file that lies in the page cache.
    /// If the callback came a turn later, each of several pipelined requests would take a turn.
    pub fn reads_at_once(self) -> Calling {
        Calling(())
    }
}

impl Calling {
    pub(in crate::shard::turn) fn begin() -> Self {
        Self(())
    }
}
