//! The access log of a server without requests: one line per connection, at its end.

use super::{AccessLog, Ending, ShardLog};
use ringwright::{ConnectionId, Local, Reason};
use std::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// The log of a shard. A handler passes its callbacks of the same names on.
#[derive(Default)]
pub struct ConnectionLog {
    log: Option<ShardLog>,
    protocol: &'static str,
}

impl ConnectionLog {
    /// Creates the log of a shard. Without `log` it writes nothing.
    #[must_use]
    pub fn new(log: Option<&AccessLog>, protocol: &'static str) -> Self {
        Self { log: log.map(AccessLog::shard), protocol }
    }

    /// Begins to pass lines to the writer now and then.
    pub fn started(&self, shard: &mut Local<'_>) {
        if let Some(interval) = self.interval() {
            shard.tick_after(interval);
        }
    }

    /// Passes lines to the writer, at every tick of a handler that has no other use of its ticks.
    pub fn tick(&mut self, shard: &mut Local<'_>) {
        self.hand_over();
        self.started(shard);
    }

    /// Passes lines to the writer.
    pub fn hand_over(&mut self) {
        if let Some(log) = &mut self.log {
            log.hand_over();
        }
    }

    /// The time from one [`hand_over`](Self::hand_over) to the next. `None` without a log.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.log.as_ref().map(|_| super::INTERVAL)
    }

    /// Adds the line of a connection that has ended.
    pub fn closed(&mut self, shard: &Local<'_>, id: ConnectionId, reason: Reason) {
        let Some(log) = &mut self.log else { return };
        let Some(ended) = shard.ended() else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        log.record_end(&Ending {
            seconds: now.as_secs() as i64,
            peer: ended.peer,
            connection: id.get(),
            protocol: self.protocol,
            reason: reason.name(),
            traffic: ended.traffic.unwrap_or_default(),
            duration: ended.lifetime,
        });
    }
}
