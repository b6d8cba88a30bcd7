//! Tests that need io_uring. A test program includes this file with `#[path]`, beside left_out.rs.

use super::left_out::leave_out;
use ringwright::RingChoice;
use ringwright::probe::{Request, examine};

/// Returns true if io_uring is allowed here. Otherwise the caller returns at once.
#[must_use]
#[track_caller]
pub fn needs_io_uring() -> bool {
    let small = Request {
        ring: RingChoice::IoUring,
        shards: 1,
        max_connections: 1,
        memlock_needed_bytes: 0,
        listeners: 1,
        backlog: 1,
        pipes: 1,
        pipe_bytes: 4096,
    };
    let is_allowed = examine(&small).io_uring.is_ok();
    if !is_allowed {
        leave_out("io_uring");
    }
    is_allowed
}
