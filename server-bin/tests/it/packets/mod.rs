//! `ringwrightd packets`, from outside: the built daemon is a child process, and the client here
//! knows what `PACKETS.md` says, and nothing of the server's code.

mod aborted;
mod answered_aborts;
pub mod client;
mod disk_full;
mod draining;
mod gets;
mod jobs;
mod large;
mod logged;
mod mutated;
mod puts;
mod python;
mod replaced;
mod requests;
mod resumed;
mod several_gets;
mod starting;
mod storm;

use crate::PATIENCE;
use crate::common::PROGRAM;
use client::Client;
use ringwrightd_test_support::daemon::Daemon;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Tests that move many bytes take turns.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A daemon and its directory.
struct Served {
    daemon: Daemon,
    dir: TempDir,
}

impl Served {
    /// An empty directory.
    #[track_caller]
    fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    #[track_caller]
    fn start_in(dir: TempDir, arguments: &[&str]) -> Self {
        let path = dir.path().to_str().unwrap();
        // One shard, unless it is said how many: what one connection has heard of, all have.
        let shards: &[&str] =
            if arguments.contains(&"--shards") { &[] } else { &["--shards", "1"] };
        let all = [&[path], shards, arguments].concat();
        Self { daemon: Daemon::start(PROGRAM, "packets", &all), dir }
    }

    fn client(&self) -> Client {
        Client::connect(self.daemon.address)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).unwrap();
    }

    /// The names in the directory, hidden ones included.
    fn names(&self) -> Vec<String> {
        names_in(self.dir.path())
    }

    /// Everything of all connections has been given back.
    #[track_caller]
    fn comes_to_rest(&self) {
        until(|| {
            let ledger = self.daemon.ledger();
            let in_use = ["permits", "buffers", "send_buffers", "pipes"]
                .map(|pair| ledger.in_use(pair))
                .into_iter()
                .chain([ledger.number("files"), ledger.number("connections.open")]);
            if in_use.sum::<u64>() == 0 { Ok(()) } else { Err(format!("{ledger:?}")) }
        });
    }

    /// So many connections have ended for that reason.
    #[track_caller]
    fn has_closed_by(&self, reason: &str, expected: u64) {
        until(|| same(self.daemon.ledger().number(&format!("closed_by.{reason}")), expected));
    }

    /// SIGTERM; everything was given back, and nothing but these files is there.
    #[track_caller]
    fn stop(self, names: &[&str]) {
        self.comes_to_rest();
        self.daemon.stop();
        assert_eq!(names_in(self.dir.path()), names);
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Looks every few milliseconds until `look` finds nothing amiss.
#[track_caller]
fn until(mut look: impl FnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(amiss) = look() {
        assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?} still: {amiss}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// `Ok` if two figures are the same, else what they are.
fn same<T: PartialEq + std::fmt::Debug>(is: T, expected: T) -> Result<(), String> {
    if is == expected { Ok(()) } else { Err(format!("{is:?} instead of {expected:?}")) }
}
