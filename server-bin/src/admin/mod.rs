//! The admin listener: metrics, health, the ledger, connections and bans.
//!
//! It runs on its own engine with one small shard, and therefore answers when the watched engine is
//! full, has no descriptors left, or hangs in a callback. Metrics, health and the ledger are
//! readable without the shards of the watched engine and are answered at once. A separate thread
//! (`asking`) asks the shards for everything else, because a shard that hangs does not answer.
//!
//! # Descriptors
//! A process without free descriptors cannot accept. io_uring reads `RLIMIT_NOFILE` when an accept
//! is armed, and a multishot accept keeps that value. The admin listener arms its accept first and
//! then lowers the limit by a reserve. Only the armed accept can use the descriptors above the
//! lower limit. The accept must never end, because it would be armed again with the lower limit:
//! see `config`.

mod asking;
mod bans;
mod connections;
mod exposition;
mod guard;
mod handler;
mod metrics;
mod response;
mod routes;
mod samples;
mod visit;
mod watched;

pub use watched::{Condition, Watched};

use crate::descriptors;
use asking::Asker;
use handler::Visitors;
use ringwright::{AtCapacity, Config, Engine, Remote};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum number of admin connections. A browser opens six, a scraper one.
const CONNECTIONS_MAX: u64 = 16;
/// Maximum time until the accept is armed.
const ARMED_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time that the end waits for pending replies.
const END_TIMEOUT: Duration = Duration::from_millis(100);

/// A running admin listener.
pub struct Admin {
    engine: Engine,
    notices: Vec<String>,
}

impl Admin {
    /// Listens on `address` and reserves descriptors for itself. `open_files_max` is the current
    /// soft `RLIMIT_NOFILE`, which this lowers. Call it before the watched engine starts.
    ///
    /// # Errors
    /// A message for the user.
    pub fn start(
        address: SocketAddr,
        watched: &Arc<Watched>,
        open_files_max: u64,
    ) -> Result<Self, String> {
        let reserved = reserve(open_files_max);
        let asker = Asker::start(watched)
            .map_err(|error| format!("--admin: cannot start the query thread: {error}"))?;
        let armed = Arc::new(AtomicBool::new(false));
        let (of_handler, watched) = (armed.clone(), watched.clone());
        let config = config(address, reserved);
        let visitors_max = config.max_connections - 1;
        let engine = Engine::start(config, move |_| {
            Visitors::new(watched.clone(), asker.clone(), visitors_max, of_handler.clone())
        })
        .map_err(|error| format!("--admin: {error}"))?;
        let mut notices = engine.notices().to_vec();
        let kept = is_armed(&engine.remote())
            && descriptors::lower_limit(open_files_max.saturating_sub(reserved)).is_ok();
        armed.store(true, Ordering::Relaxed);
        if !kept {
            notices.push(
                "--admin: no descriptors are reserved, so the admin listener cannot accept while \
                 the process has none left (setrlimit(2) failed for RLIMIT_NOFILE, or the accept \
                 was not armed in time)"
                    .into(),
            );
        }
        if !address.ip().is_loopback() {
            notices.push(format!(
                "--admin {address} has no password: anyone who can connect to it sees all \
                 clients, and can close connections and ban addresses; use 127.0.0.1 to allow \
                 only this machine"
            ));
        }
        Ok(Self { engine, notices })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.engine.addresses()[0]
    }

    /// Notices for the operator.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Ends the listener. Waits briefly for pending replies.
    ///
    /// # Errors
    /// A message for the user.
    pub fn end(self) -> Result<(), String> {
        let remote = self.engine.remote();
        // Cannot fail: the command queue has more room than the connections can fill.
        let _ = remote.drain(END_TIMEOUT);
        let ledger = self.engine.join().map_err(|error| format!("--admin: {error}"))?;
        if ledger.balanced() {
            Ok(())
        } else {
            Err(format!(
                "--admin: the admin listener's own ledger does not balance: {}; please report this",
                ledger.to_json()
            ))
        }
    }
}

/// Waits until the accept is armed. Returns `false` after [`ARMED_TIMEOUT`].
fn is_armed(remote: &Remote) -> bool {
    let give_up = Instant::now() + ARMED_TIMEOUT;
    while Instant::now() < give_up {
        if remote.ledger().sum.operations_in_flight > 0 {
            return true;
        }
        thread::sleep(Duration::from_micros(200));
    }
    false
}

/// The number of descriptors to reserve for the admin listener.
#[must_use]
const fn reserve(open_files_max: u64) -> u64 {
    let quarter = open_files_max / 4;
    if quarter < 2 * CONNECTIONS_MAX { quarter } else { 2 * CONNECTIONS_MAX }
}

/// Configures a small engine. Its accept must never stop, because it would be armed again with the
/// lower descriptor limit. A client beyond the maximum is closed at once instead of waiting, and
/// the reserve holds all connections plus a full backlog.
fn config(address: SocketAddr, reserved: u64) -> Config {
    let half = reserved / 2;
    Config {
        listeners: vec![address],
        shards: Some(1),
        pin: false,
        max_connections: half.clamp(1, CONNECTIONS_MAX) as usize,
        at_capacity: AtCapacity::Reject,
        // The kernel queues one connection more than the backlog.
        backlog: half.saturating_sub(1).clamp(1, CONNECTIONS_MAX) as u32,
        receive_buffers: 16,
        receive_buffer_bytes: 2 << 10,
        send_buffers: 16,
        send_buffer_bytes: 2 << 10,
        pipes: 1,
        io_workers_max: 1,
        submission_entries: 64,
        output_bytes_max: 8 << 20,
        idle_timeout: Some(Duration::from_secs(20)),
        receive_timeout: Some(Duration::from_secs(5)),
        write_timeout: Some(Duration::from_secs(5)),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_a_backlog_fit_into_the_reserve() {
        for open_files_max in [24, 64, 100, 256, 1024, 20_000, 1 << 20] {
            let reserved = reserve(open_files_max);
            let config = config("127.0.0.1:0".parse().unwrap(), reserved);
            let most = config.max_connections as u64 + u64::from(config.backlog) + 1;
            assert!(most <= reserved, "{most} of {reserved} with {open_files_max}");
            assert!(reserved <= open_files_max / 4);
            assert!(config.max_connections >= 3);
        }
        assert_eq!(reserve(20_000), 32);
    }
}
