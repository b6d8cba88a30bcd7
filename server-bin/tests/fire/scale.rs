//! How much of a long test is done.

/// A tenth of `full`, or all of it if `RINGWRIGHT_FULL` is set, as `.ci/full` does.
pub fn scaled(full: usize) -> usize {
    if std::env::var_os("RINGWRIGHT_FULL").is_some() { full } else { full / 10 }
}
