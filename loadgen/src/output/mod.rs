//! What a run shows and leaves behind, beside its summary.

pub mod screen;
