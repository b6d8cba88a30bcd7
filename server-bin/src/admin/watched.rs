//! What the admin listener looks at.

use super::bans::OfAdmin;
use crate::access_log::Lost;
use crate::clients::Clients;
use crate::echo::ending::Endings;
use crate::messages;
use crate::reload::Reloader;
use ringwright::{EngineHandle, Ledger};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// How the engine that serves is, from starting on. It only ever moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Condition {
    /// Not yet there.
    Starting,
    /// It takes connections.
    Ready,
    /// It takes no more connections and finishes those it has.
    Draining,
    /// A shard has ended, though nobody asked it to.
    Failed,
}

impl Condition {
    const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Draining, Self::Failed];

    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed => "a shard has failed",
        }
    }
}

/// The engine that serves, once there is one, and how it is.
#[derive(Default)]
pub struct Watched {
    served: OnceLock<WatchedEngine>,
    condition: AtomicU8,
    endings: Option<Arc<Endings>>,
    lost: Lost,
    drain: Mutex<DrainTimes>,
    leaving: Leaving,
    reloader: Option<Reloader>,
    bans_of_admin: OfAdmin,
    clients: Arc<Clients>,
}

/// The durations of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainTimes {
    /// The time until no more clients are accepted. Meanwhile each reply ends its connection.
    pub delay: Duration,
    /// The time after that for requests in progress.
    pub timeout: Duration,
}

/// Tells the shards that the server is about to leave: each reply ends its connection.
#[derive(Clone, Debug, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// Returns whether the server is about to leave.
    #[inline]
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A running engine and what it listens on.
pub struct WatchedEngine {
    /// The engine.
    pub handle: EngineHandle,
    /// Its listeners by number, as `http://127.0.0.1:8080`.
    pub listeners: Mutex<Vec<String>>,
}

impl WatchedEngine {
    /// Its listeners by number.
    #[must_use]
    pub fn listeners(&self) -> Vec<String> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names a listener.
    pub fn set_listener(&self, number: u16, name: String) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let number = usize::from(number);
        let length = listeners.len().max(number + 1);
        listeners.resize(length, String::new());
        listeners[number] = name;
    }
}

impl Watched {
    /// One that ends connections at random and counts them there.
    #[must_use]
    pub fn with_endings(endings: Arc<Endings>) -> Self {
        Self { endings: Some(endings), ..Self::default() }
    }

    /// The same with an access log that counts its lost lines there.
    #[must_use]
    pub fn with_log(self, lost: Lost) -> Self {
        Self { lost, ..self }
    }

    /// It is there, and takes connections.
    ///
    /// # Panics
    /// If told twice.
    pub fn serves(&self, served: WatchedEngine) {
        assert!(self.served.set(served).is_ok(), "one engine is watched");
        self.moves_on(Condition::Ready);
    }

    /// It has got so far. Never back: what failed while it drained has failed.
    pub fn moves_on(&self, condition: Condition) {
        self.condition.fetch_max(condition as u8, Ordering::SeqCst);
    }

    /// One whose configuration can be read again.
    #[must_use]
    pub fn with_reloader(self, reloader: Reloader) -> Self {
        Self { reloader: Some(reloader), ..self }
    }

    /// Reloads the configuration.
    #[must_use]
    pub fn reloader(&self) -> Option<&Reloader> {
        self.reloader.as_ref()
    }

    /// The bans that the admin listener has added.
    #[must_use]
    pub const fn bans_of_admin(&self) -> &OfAdmin {
        &self.bans_of_admin
    }

    /// The clients that proxies have named.
    #[must_use]
    pub const fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// The flag for the shards.
    #[must_use]
    pub fn leaving(&self) -> Leaving {
        self.leaving.clone()
    }

    /// Sets the durations of a drain that begins later.
    pub fn set_drain(&self, times: DrainTimes) {
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    /// Begins a drain, unless one has begun. `by` and `hint` complete the message about it.
    pub fn begin_drain(&self, by: &str, hint: &str) {
        let Some(served) = self.served() else { return };
        let before = self.condition.fetch_max(Condition::Draining as u8, Ordering::SeqCst);
        if before >= Condition::Draining as u8 {
            return;
        }
        let DrainTimes { delay, timeout } =
            *self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        self.leaving.0.store(true, Ordering::Relaxed);
        let wait = format!("waiting up to {timeout:?} for requests in progress{hint}");
        let handle = served.handle.clone();
        if delay.is_zero() {
            messages::info(&format!("draining{by}: {wait}"));
            return handle.drain(timeout);
        }
        messages::info(&format!("draining{by}: accepting for {delay:?} more, then {wait}"));
        let later = move || {
            thread::sleep(delay);
            handle.drain(timeout);
        };
        if let Err(error) = thread::Builder::new().name("drain".into()).spawn(later) {
            messages::warn(&format!(
                "draining at once: cannot start a thread for the delay: {error}"
            ));
            served.handle.drain(timeout);
        }
    }

    /// How it is.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition::ALL[usize::from(self.condition.load(Ordering::SeqCst))]
    }

    /// How connections were ended at random; `None` where they are not.
    #[must_use]
    pub fn endings(&self) -> Option<&Endings> {
        self.endings.as_deref()
    }

    /// Lines that the access log has lost. 0 without a log.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.lost.lines()
    }

    /// The ledger of the engine and of the daemon as JSON: `/ledger`.
    #[must_use]
    pub fn ledger_json(&self, ledger: &Ledger) -> String {
        let log = format!(
            ",\"access_log\":{{\"lines_lost\":{}}},\"error_log\":{{\"lines_lost\":{}}}",
            self.lines_lost(),
            messages::lines_lost()
        );
        let generation = self.reloader().map_or(1, |reloader| reloader.counts().generation);
        let log = format!("{log},\"generation\":{generation}");
        let mut json = ledger.to_json();
        // The verdict of the ledger stays last.
        json.insert_str(json.rfind(",\"balanced\"").unwrap_or(1), &log);
        json
    }

    /// The engine; `None` while it starts.
    #[must_use]
    pub fn served(&self) -> Option<&WatchedEngine> {
        self.served.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_only_move_on() {
        let watched = Watched::default();
        assert_eq!(watched.condition(), Condition::Starting);
        for (at, condition) in Condition::ALL.into_iter().enumerate() {
            assert_eq!(condition as usize, at);
            watched.moves_on(condition);
            watched.moves_on(Condition::Ready);
            assert_eq!(watched.condition(), condition.max(Condition::Ready));
        }
        assert!(watched.served().is_none());
    }
}
