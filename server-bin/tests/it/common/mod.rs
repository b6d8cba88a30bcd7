//! The daemon that Cargo built for these tests.

pub use ringwrightd_test_support::PATIENCE;
pub use ringwrightd_test_support::server::*;

use std::path::Path;
use std::process::Command;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringwrightd");

pub fn command(arguments: &[&str]) -> Command {
    let mut command = without_settings(PROGRAM);
    command.args(arguments);
    command
}

/// The daemon below a limit of the shell's `ulimit`, such as `-n 64`.
pub fn command_below(limit: &str, arguments: &[&str]) -> Command {
    let mut command = without_settings("sh");
    command
        .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")])
        .arg(PROGRAM)
        .args(arguments);
    command
}

/// Servers of one listener.
pub trait Modes {
    /// `ringwrightd http DIR` with more arguments.
    #[track_caller]
    fn http(dir: &Path, arguments: &[&str]) -> Self;

    /// The same with an admin listener.
    #[track_caller]
    fn http_with_admin(dir: &Path, arguments: &[&str]) -> Self;

    /// `ringwrightd echo` with an admin listener and more arguments.
    #[track_caller]
    fn echo_with_admin(arguments: &[&str]) -> Self;
}

impl Modes for Server {
    #[track_caller]
    fn http(dir: &Path, arguments: &[&str]) -> Self {
        let mut all = vec!["http", dir.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        all.extend_from_slice(arguments);
        Self::start(&mut command(&all), "http")
    }

    #[track_caller]
    fn http_with_admin(dir: &Path, arguments: &[&str]) -> Self {
        let any = "127.0.0.1:0";
        let mut all = vec!["http", dir.to_str().unwrap(), "--listen", any, "--admin", any];
        all.extend_from_slice(arguments);
        Self::start_with_admin(&mut command(&all), "http")
    }

    #[track_caller]
    fn echo_with_admin(arguments: &[&str]) -> Self {
        let mut all = vec!["echo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        all.extend_from_slice(arguments);
        Self::start_with_admin(&mut command(&all), "echo")
    }
}
