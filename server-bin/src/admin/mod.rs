//! The admin listener: metrics, health, the ledger, who is connected, and the end of a
//! connection on request.
//!
//! It runs on an engine of its own, with one small shard, so that it answers when the engine it
//! watches is full, out of descriptors, or hangs in a callback. What it can read without asking
//! (metrics, health, ledger) it answers at once. What only the other engine's shards know is
//! asked for on a thread of its own (`asking`), because a shard that hangs does not answer.
//!
//! # Descriptors
//! A process that has none left accepts nobody. io_uring's accept samples `RLIMIT_NOFILE` when it
//! is armed, and a multishot accept keeps what it has sampled. So the admin listener is armed
//! first, then the limit is lowered by a reserve: what is above is for the admin listener's
//! accept alone. The accept must never end, or it is armed anew with the lower limit: see
//! `config`.

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

/// Admin connections at most. A browser opens six, a scraper one.
const CONNECTIONS_MAX: u64 = 16;
/// How long the accept may take to be armed.
const ARMED_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the end waits for replies under way.
const END_TIMEOUT: Duration = Duration::from_millis(100);

/// The admin listener, running.
pub struct Admin {
    engine: Engine,
    notices: Vec<String>,
}

impl Admin {
    /// Listens on `address`, and keeps descriptors free for itself: `open_files_max` is the soft
    /// `RLIMIT_NOFILE`, which is lower afterwards. To be called before the engine that is watched
    /// starts.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub fn start(
        address: SocketAddr,
        watched: &Arc<Watched>,
        open_files_max: u64,
    ) -> Result<Self, String> {
        let reserved = reserve(open_files_max);
        let asker =
            Asker::start(watched).map_err(|error| format!("--admin: no thread to ask: {error}"))?;
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
                "no descriptors are kept for --admin: it will not answer while there are none \
                 (setrlimit(2) of RLIMIT_NOFILE failed, or its accept was not armed in time)"
                    .into(),
            );
        }
        if !address.ip().is_loopback() {
            notices.push(format!(
                "--admin {address} asks nobody for a password: whoever can reach it sees who is \
                 connected and can end connections; 127.0.0.1 is for this machine only"
            ));
        }
        Ok(Self { engine, notices })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.engine.addresses()[0]
    }

    /// What the operator should know.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Ends it, giving replies under way a moment.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub fn end(self) -> Result<(), String> {
        let remote = self.engine.remote();
        // Its queue has room for more than visitors can have asked.
        let _ = remote.drain(END_TIMEOUT);
        let ledger = self.engine.join().map_err(|error| format!("--admin: {error}"))?;
        if ledger.balanced() {
            Ok(())
        } else {
            Err(format!("--admin: its own ledger does not balance: {}", ledger.to_json()))
        }
    }
}

/// Whether the accept is armed, before long.
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

/// Descriptors kept for the admin listener of so many.
#[must_use]
const fn reserve(open_files_max: u64) -> u64 {
    let quarter = open_files_max / 4;
    if quarter < 2 * CONNECTIONS_MAX { quarter } else { 2 * CONNECTIONS_MAX }
}

/// An engine that its visitors cannot make large. Its accept must never stop: armed anew it would
/// have the lower limit of descriptors. Hence whoever comes when it is full is closed at once
/// instead of waited with, and the visitors and a whole backlog together fit into the reserve.
fn config(address: SocketAddr, reserved: u64) -> Config {
    let half = reserved / 2;
    Config {
        listeners: vec![address],
        shards: Some(1),
        pin: false,
        max_connections: half.clamp(1, CONNECTIONS_MAX) as usize,
        at_capacity: AtCapacity::Reject,
        // listen(2) lets one more wait.
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
    fn visitors_and_a_backlog_fit_into_the_reserve() {
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
