//! Tests that need a program which is not part of this project.

use crate::left_out::leave_out;

/// Returns true if the program `name` of Debian's `package` is in the `PATH`. Otherwise the caller
/// returns at once.
#[must_use]
#[track_caller]
pub fn needs_program(name: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    if !is_there {
        leave_out(&format!("{name} (Debian package {package})"));
    }
    is_there
}
