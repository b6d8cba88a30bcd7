//! Tests that cannot run here.

use std::io::Write;
use std::panic::Location;

/// Prints one line on standard error that names the calling test and `need`, which is missing.
/// The line goes past libtest, which captures only the output of the print macros.
///
/// # Panics
/// If the environment variable `RINGWRIGHT_ALL_TESTS` is `required`.
#[track_caller]
pub fn leave_out(need: &str) {
    // libtest names a test's thread after the test, but has no such thread with --test-threads=1.
    let thread = std::thread::current();
    let test = match thread.name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => Location::caller().to_string(),
    };
    let line = format!("left out, needs {need}: {test}\n");
    let is_required = std::env::var_os("RINGWRIGHT_ALL_TESTS").is_some_and(|it| it == "required");
    assert!(!is_required, "{line}");
    // One write, so that lines of several threads do not mix.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
