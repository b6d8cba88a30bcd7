//! How much of a long test is done.

/// `RINGWRIGHT_FULL` asks for the full counts. `.ci/full` sets it.
pub fn is_full() -> bool {
    std::env::var_os("RINGWRIGHT_FULL").is_some()
}

/// A tenth of `full`, or all of it if [`is_full`].
pub fn scaled(full: usize) -> usize {
    if is_full() { full } else { full / 10 }
}
