//! `ringwrightd doctor`: checks the kernel, the container and the resource limits.

use crate::descriptors;
use crate::options::Doctor;
use ringwright::Setup;
use ringwright::cpu;
use ringwright::probe::{Request, examine, memlock_needed};
use std::io::{self, Write};

/// Prints the result of the checks on standard output.
///
/// # Errors
/// The server cannot run on this system.
pub fn run(options: &Doctor) -> Result<(), String> {
    // The server raises its soft limit, too, so only the hard limit matters.
    let _ = descriptors::raise_limit();
    let config = options.capacity.config();
    // The minimum for a start: queues and buffer rings. The server also runs if the arenas cannot
    // be registered.
    let setup = Setup { arena_bytes: 0, arena_registered: false, ..config.setup() };
    let examination = examine(&Request {
        ring: config.ring,
        shards: config.shards.unwrap_or_else(cpu::default_shards),
        max_connections: config.max_connections,
        memlock_needed_bytes: memlock_needed(&setup),
        listeners: 1,
        backlog: config.backlog,
        pipes: config.pipes,
        pipe_bytes: config.pipe_bytes,
    });
    // Scripts use the exit status, which must not depend on a closed standard output.
    let _ = write!(io::stdout(), "{examination}");
    if examination.can_run {
        Ok(())
    } else {
        Err("the server cannot run on this system; the list above says what to change".into())
    }
}
