//! The daemon under heavy load: clients connect, reset, vanish and crowd it.
//!
//! The built `ringwrightd` is a child process, this process is all of its clients, and each test
//! judges what can be seen from outside: replies, `/proc/PID`, the live ledger of the admin
//! listener, and the ledger that the daemon prints at its end. These tests measure time, memory and
//! descriptors, so they run one at a time. Each has the name of its module:
//!
//! ```text
//! cargo test -p ringwrightd --test fire at_capacity -- --nocapture
//! ```
//!
//! Most tests make a tenth of their full number of connections, so that the suite stays short.
//! `RINGWRIGHT_FULL=1` asks for the full numbers; `.ci/full` sets it.

mod aborted_downloads;
mod at_capacity;
mod churned_resets;
mod download;
mod fuse;
mod idle_herd;
mod large_file;
mod open_files;
mod out_of_descriptors;
mod sigterm_mid_load;
mod slow_disk;
mod slow_readers;
mod stalled_crowd;
mod stalled_downloads;
mod vanished_peer;

use ringwrightd_test_support::PATIENCE;
use ringwrightd_test_support::scale::scaled;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringwrightd");

/// Tests measure time, memory and descriptors, those of this process among them: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `look` every few milliseconds until it returns `Ok`. Panics with its last error if that
/// takes longer than `patience`.
#[track_caller]
fn until(patience: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(amiss) = look() {
        assert!(begun.elapsed() < patience, "after {patience:?} still: {amiss}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// `Ok` if two figures are equal, otherwise a message that names the figure.
fn same<T: PartialEq + std::fmt::Display>(what: &str, is: T, expected: T) -> Result<(), String> {
    if is == expected { Ok(()) } else { Err(format!("{what}: {is} instead of {expected}")) }
}
