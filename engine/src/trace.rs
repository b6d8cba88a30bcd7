//! Events for the crate `tracing`, with the feature of that name. Without it, nothing of this is
//! compiled: the macro `report!` then has no code.
//!
//! The guide lists the events (`guide/events.md`), and `tests/tracing.rs` compares the list.

/// Reports an event: `report!(opened(shard, id, ..))` calls the function of this module.
#[cfg(feature = "tracing")]
macro_rules! report {
    ($event:ident($($argument:expr),* $(,)?)) => {
        crate::trace::$event($($argument),*)
    };
}
#[cfg(not(feature = "tracing"))]
macro_rules! report {
    ($event:ident($($argument:expr),* $(,)?)) => {
        if false {
            $(let _ = &$argument;)*
        }
    };
}

#[cfg(feature = "tracing")]
pub use events::*;

#[cfg(feature = "tracing")]
mod events {
    use crate::ConnectionId;
    use crate::address::Peer;
    use crate::error::Error;
    use crate::info::{EndedConnection, Origin};
    use crate::panics::discard;
    use crate::reason::Reason;
    use crate::ring::RingKind;
    use std::io;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    /// Hands an event to the subscriber. Its code is the application's: a panic of it goes no
    /// further.
    macro_rules! emit {
        ($level:ident, $($event:tt)+) => {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| {
                tracing::event!(target: "ringwright", tracing::Level::$level, $($event)+);
            })) {
                discard(panic);
            }
        };
    }

    /// The number of shards, their ring and the number of listeners, or the error of the start.
    pub fn engine_started(started: Result<(usize, RingKind, usize), &Error>) {
        match started {
            Ok((shards, ring, listeners)) => {
                emit!(INFO, shards, %ring, listeners, "engine started");
            }
            Err(error) => emit!(ERROR, %error, "engine not started"),
        }
    }

    pub fn engine_ended(error: Option<&Error>) {
        emit!(INFO, error = error.map(tracing::field::display), "engine ended");
    }

    pub fn shard_started(shard: usize) {
        emit!(DEBUG, shard, "shard started");
    }

    pub fn shard_ended(shard: usize, ended: &Result<(), Error>) {
        match ended {
            Ok(()) => emit!(DEBUG, shard, "shard ended"),
            Err(error) => emit!(ERROR, shard, %error, "shard failed"),
        }
    }

    pub fn drain_begun(shard: usize, connections: usize, deadline_ms: Option<u64>) {
        emit!(INFO, shard, connections, deadline_ms, "drain begun");
    }

    /// The deadline of a drain has passed, or the engine was stopped.
    pub fn drain_cut_short(shard: usize, connections: usize) {
        emit!(WARN, shard, connections, "drain cut short");
    }

    pub fn drain_ended(shard: usize) {
        emit!(INFO, shard, "drain ended");
    }

    pub fn opened(shard: usize, id: ConnectionId, peer: Peer, origin: Origin) {
        let (listener, tag) = match origin {
            Origin::Listener(number) => (Some(number), None),
            Origin::Connected(tag) => (None, Some(tag)),
        };
        emit!(DEBUG, shard, connection = id.get(), %peer, listener, tag, "connection opened");
    }

    pub fn closed(shard: usize, id: ConnectionId, reason: Reason, ended: Option<EndedConnection>) {
        let Some(ended) = ended else { return };
        let traffic = ended.traffic;
        emit!(
            DEBUG,
            shard,
            connection = id.get(),
            peer = %ended.peer,
            reason = reason.name(),
            errno = ended.error.map(|errno| errno.0),
            received_bytes = traffic.map(|traffic| traffic.received_bytes),
            sent_bytes = traffic.map(|traffic| traffic.sent_bytes),
            lifetime_ms = ended.lifetime.as_millis() as u64,
            "connection closed"
        );
    }

    pub fn handler_panicked(shard: usize, id: Option<ConnectionId>) {
        emit!(ERROR, shard, connection = id.map(ConnectionId::get), "handler panicked");
    }

    pub fn accept_paused(shard: usize, errno: i32, pause_ms: u64) {
        emit!(WARN, shard, errno, pause_ms, "accept paused");
    }

    pub fn client_waits(shard: usize, listener: u16, waiting: usize) {
        emit!(DEBUG, shard, listener, waiting, "client waits for a permit");
    }

    pub fn out_of_buffers(shard: usize, id: ConnectionId) {
        emit!(WARN, shard, connection = id.get(), "out of receive buffers");
    }

    pub fn connect_failed(shard: usize, tag: u64, error: &io::Error) {
        emit!(DEBUG, shard, tag, errno = error.raw_os_error(), %error, "connect failed");
    }

    pub fn reconnect_waits(shard: usize, tag: u64, wait: Option<Duration>) {
        let Some(wait) = wait else { return };
        emit!(DEBUG, shard, tag, wait_ms = wait.as_millis() as u64, "reconnect waits");
    }
}
