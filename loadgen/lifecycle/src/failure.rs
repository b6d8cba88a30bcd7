//! The failure of a command.

use std::error::Error;

/// The reason why a command has no result.
#[derive(Debug)]
pub enum Failure {
    /// The options are wrong, or the system cannot fulfil them.
    Usage(String),
    /// The target has no address, or nothing answers there.
    Unresolved(String),
    /// The engine did not start, or it failed.
    Engine(Box<dyn Error>),
    /// A system call failed unexpectedly.
    System(std::io::Error),
    /// The server's answers are wrong, so its files could not be learnt.
    Server(String),
    /// A signal arrived before the run started.
    Interrupted(String),
}
