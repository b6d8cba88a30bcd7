//! The configuration file: what `check` refuses, and what goes over it.

mod checked;
mod complete;
mod mutated;
mod precedence;

use crate::common::command;
use std::process::Output;

/// Runs the daemon to its end with these environment variables.
pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(arguments);
    command.env_remove("RINGWRIGHTD_SHARDS").env_remove("RINGWRIGHTD_RING");
    command.envs(variables.iter().copied());
    command.output().unwrap()
}
