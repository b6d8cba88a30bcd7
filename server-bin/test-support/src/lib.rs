//! The built daemon as a child process, and its clients, for the test programs of `ringwrightd`.
//!
//! Only a test program of that package knows the path of the program (`CARGO_BIN_EXE_ringwrightd`),
//! so that it passes the path, or a command.
#![allow(missing_docs, reason = "the names say what these helpers do")]

pub mod daemon;
pub mod ledger;
pub mod scale;
pub mod server;
pub mod socket;

use std::time::Duration;

/// The longest wait for anything that must happen. A busy machine takes seconds for what takes
/// milliseconds otherwise.
pub const PATIENCE: Duration = Duration::from_secs(60);
