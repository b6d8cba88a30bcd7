//! Tests that need root. Every test program includes this file with `#[path]`.

use std::io::Write;
use std::panic::Location;

/// Returns true if the test runs as root.
///
/// For any other user the caller returns at once, and one line on standard error names the test.
/// The line goes past libtest, which captures only the output of the print macros.
///
/// # Panics
/// For any other user if the environment variable `RINGWRIGHT_ROOT_TESTS` is `required`.
#[must_use]
#[track_caller]
pub fn needs_root(why: &str) -> bool {
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return true;
    }
    // libtest names a test's thread after the test, but has no such thread with --test-threads=1.
    let thread = std::thread::current();
    let test = match thread.name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => Location::caller().to_string(),
    };
    let line = format!("left out, needs root: {test}: {why}\n");
    let is_required = std::env::var_os("RINGWRIGHT_ROOT_TESTS").is_some_and(|it| it == "required");
    assert!(!is_required, "{line}");
    // One write, so that lines of several threads do not mix.
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}
