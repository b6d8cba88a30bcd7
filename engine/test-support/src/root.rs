//! Tests that need root.

use crate::left_out::leave_out;

/// Returns true if the test runs as root. For any other user the caller returns at once.
#[must_use]
#[track_caller]
pub fn needs_root(why: &str) -> bool {
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        leave_out(&format!("root ({why})"));
    }
    is_root
}
