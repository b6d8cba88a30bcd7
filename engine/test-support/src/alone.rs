//! Tests that change their whole process.

use std::process::Command;

const VARIABLE: &str = "RINGWRIGHT_TEST_ALONE";

/// Runs the test `name` of this program again, in a process of its own. Returns true in that
/// process. The other one waits for it, and its test passes or fails as that one does.
#[must_use]
pub fn alone(name: &str) -> bool {
    if std::env::var_os(VARIABLE).is_some_and(|it| it == *name) {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args([name, "--exact", "--nocapture"])
        .env(VARIABLE, name)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{}\n{said}\n{errors}", output.status);
    false
}
