//! `ringwrightd doctor`: what this kernel, container and set of limits allow.

use crate::descriptors;
use crate::options::Doctor;
use ringwright::Setup;
use ringwright::cpu;
use ringwright::probe::{Request, examine, memlock_needed};
use std::io::{self, Write};

/// Prints the examination on standard output.
///
/// # Errors
/// The server cannot run here.
pub fn run(options: &Doctor) -> Result<(), String> {
    // As the server does: the limit that counts is the hard one.
    let _ = descriptors::raise_limit();
    let config = options.capacity.config();
    // The least that will do: queues and buffer rings, the arenas not registered.
    let setup = Setup { arena_bytes: 0, arena_registered: false, ..config.setup() };
    let examination = examine(&Request {
        shards: config.shards.unwrap_or_else(cpu::default_shards),
        max_connections: config.max_connections,
        memlock_needed_bytes: memlock_needed(&setup),
        listeners: 1,
        backlog: config.backlog,
        pipes: config.pipes,
        pipe_bytes: config.pipe_bytes,
    });
    // Nobody reading the screen changes nothing about the exit status.
    let _ = write!(io::stdout(), "{examination}");
    if examination.can_run {
        Ok(())
    } else {
        Err("this server cannot run here; what to change is said above".into())
    }
}
