//! Reading the configuration again: SIGHUP and `POST /reload`.
//!
//! A configuration is checked as a whole before anything changes. On an error the old one stays.

use crate::access_log::Reopening;
use crate::admin::{Watched, WatchedEngine};
use crate::config::changes::{Change, changes};
use crate::config::file::File;
use crate::config::load::{Loaded, Source};
use crate::config::plan::{self, Plan, Service};
use crate::generation::{Current, Generation, Opened};
use crate::messages;
use crate::options::Options;
use crate::quiet;
use crate::serve::{self, Failure};
use crate::served::Watcher;
use ringwright::{Address, Error, Listener, Prefix, PreparedListeners};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The keys that a reload can change, or their beginnings. All others need a restart.
const CHANGEABLE: [&str; 12] = [
    "log.level",
    "engine.bans",
    "engine.workers",
    "engine.min_rate",
    "engine.timeouts.idle",
    "engine.timeouts.request",
    "engine.timeouts.write",
    "engine.timeouts.drain",
    "engine.drain_delay",
    "site",
    "echo",
    "packets",
];

/// The number of attempts to tell busy shards something.
const TRIES: u32 = 100;
/// The time between two of them.
const PAUSE: Duration = Duration::from_millis(10);

/// The time for which a reload gives way to the shards. If the CPUs are full until then, it takes
/// its share of them.
const QUIET_TIMEOUT: Duration = Duration::from_millis(200);

/// Reloads the configuration.
pub struct Reloader {
    reader: Arc<Reader>,
    current: Arc<Current>,
    log: Option<Reopening>,
    /// Locked during a reload.
    present: Mutex<Present>,
    counts: Counts,
}

/// Reads configurations.
struct Reader {
    options: Options,
    /// The number of shards, which does not change.
    shards: usize,
    watcher: Watcher,
}

/// The configuration in use.
struct Present {
    file: Arc<File>,
    /// The listeners as configured, with service and number.
    listeners: Vec<(Listener, Service, u16)>,
}

/// The reloads so far.
#[derive(Debug, Default)]
struct Counts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// The last reload failed.
    last_failed: AtomicU64,
    /// The time of the last success in seconds since 1970-01-01, which is the start without one.
    last_success: AtomicU64,
}

/// The counts of reloads at one time.
#[derive(Clone, Copy, Debug)]
pub struct Reloads {
    /// The number of the current generation, from 1.
    pub generation: u64,
    /// Reloads that succeeded.
    pub succeeded: u64,
    /// Reloads that failed.
    pub failed: u64,
    /// The last reload succeeded, or there was none.
    pub last_succeeded: bool,
    /// The time of the last success, or of the start, in seconds since 1970-01-01 UTC.
    pub last_success: u64,
}

/// A reload that succeeded.
#[derive(Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The number of the new generation.
    pub generation: u64,
    /// The keys whose values changed.
    pub changed: Vec<String>,
}

/// The reason why a reload changed nothing.
#[derive(Debug)]
pub enum Refused {
    /// Another one is under way.
    UnderWay,
    /// The configuration is wrong, or needs a restart. The text is for the user.
    Wrong(String),
}

impl Reloader {
    /// Reloads what `loaded` came from.
    #[must_use]
    pub fn new(
        options: Options,
        loaded: Loaded,
        plan: &Plan,
        current: Arc<Current>,
        watcher: Watcher,
        log: Option<Reopening>,
    ) -> Self {
        let counts = Counts { last_success: AtomicU64::new(now()), ..Counts::default() };
        let addresses = plan.engine.listeners.iter().zip(&plan.services).zip(0..);
        let listeners = addresses
            .map(|((listener, service), number)| (listener.clone(), service.clone(), number))
            .collect();
        let present = Mutex::new(Present { file: Arc::new(loaded.file), listeners });
        let reader = Arc::new(Reader { options, shards: plan.shards(), watcher });
        Self { reader, current, log, present, counts }
    }

    /// Reloads for a SIGHUP, after a reload that is under way.
    pub fn reload(&self, watched: &Watched) {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        report("SIGHUP", &self.reload_with(present, watched));
    }

    /// Reloads, unless a reload is under way.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn try_reload(&self, watched: &Watched) -> Result<Reloaded, Refused> {
        let present = match self.present.try_lock() {
            Ok(present) => present,
            Err(TryLockError::Poisoned(present)) => present.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Refused::UnderWay),
        };
        let result = self.reload_with(present, watched);
        report("POST /reload", &result);
        result.map_err(Refused::Wrong)
    }

    /// The generation in use.
    #[must_use]
    pub fn generation(&self) -> Arc<Generation> {
        self.current.get()
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Reloads {
        let of = |count: &AtomicU64| count.load(Relaxed);
        Reloads {
            generation: self.current.number(),
            succeeded: of(&self.counts.succeeded),
            failed: of(&self.counts.failed),
            last_succeeded: of(&self.counts.last_failed) == 0,
            last_success: of(&self.counts.last_success),
        }
    }

    fn reload_with(
        &self,
        mut present: MutexGuard<'_, Present>,
        watched: &Watched,
    ) -> Result<Reloaded, String> {
        if let Some(log) = &self.log {
            log.reopen();
        }
        messages::reopen();
        let before = self.current.get();
        let prepared = self.read_quietly(&present.file, &before);
        let result = prepared.and_then(|Prepared { new, changed, plan, opened }| {
            let served = watched.served().ok_or("the server is still starting")?;
            let (listeners, prepared) = Listeners::prepare(&present, &plan, served)?;
            apply(&present.file, &new, &plan, served, watched)?;
            watched.set_drain(plan.drain);
            messages::set_level(plan.log.level);
            let generation = opened.next(&before, &listeners.numbers());
            let number = generation.number;
            self.current.replace(generation);
            // Only now: a shard that accepts a client must know the site.
            prepared.accept();
            listeners.set(&plan, served);
            listeners.remove_others(&mut present, &plan, served);
            let old = std::mem::replace(&mut present.file, Arc::new(new));
            self.reader.watcher.retire(before);
            quiet::free((old, plan));
            Ok(Reloaded { generation: number, changed })
        });
        let counts = &self.counts;
        let count = if result.is_ok() { &counts.succeeded } else { &counts.failed };
        count.fetch_add(1, Relaxed);
        counts.last_failed.store(u64::from(result.is_err()), Relaxed);
        if result.is_ok() {
            counts.last_success.store(now(), Relaxed);
        }
        result
    }

    /// Reads the configuration on a thread that gives way to the shards, unless they leave it no
    /// time.
    fn read_quietly(&self, file: &Arc<File>, before: &Arc<Generation>) -> Result<Prepared, String> {
        let (sender, receiver) = sync_channel(1);
        let (reader, old, generation) = (self.reader.clone(), file.clone(), before.clone());
        let read = move || {
            let result = reader.read(&old, &generation);
            // This thread must not be the last to hold them.
            drop((old, generation));
            // Nobody waits for it any more.
            let _ = sender.try_send(result);
        };
        if quiet::run(read)
            && let Ok(result) = receiver.recv_timeout(QUIET_TIMEOUT)
        {
            return result;
        }
        self.reader.read(file, before)
    }
}

impl Reader {
    /// Reads and checks the configuration, and opens its directories.
    fn read(&self, old: &File, before: &Generation) -> Result<Prepared, String> {
        let wrong = |failure| match failure {
            Failure::Failed(what) | Failure::Wrong(what) => what,
        };
        let source = self.options.file().map(Source::read).transpose()?;
        let loaded = serve::load(&self.options, source.as_ref()).map_err(wrong)?;
        let plan = serve::plan_of(&loaded, source.as_ref()).map_err(wrong)?;
        let changes = changes(old, &loaded.file);
        let needs_restart: Vec<String> = changes
            .iter()
            .filter(|Change { key, .. }| !CHANGEABLE.iter().any(|it| is_beneath(key, it)))
            .map(|Change { key, old, new }| {
                let value = |value: &Option<String>| value.clone().unwrap_or("nothing".into());
                let (old, new) = (value(old), value(new));
                format!("{key} cannot change from {old} to {new} while the server runs; restart it")
            })
            .collect();
        if !needs_restart.is_empty() {
            return Err(needs_restart.join("\n"));
        }
        let opened = Opened::open(&plan, self.shards, Some(before), &self.watcher)?;
        let changed = changes.into_iter().map(|change| change.key).collect();
        Ok(Prepared { new: loaded.file, changed, plan, opened })
    }
}

/// A configuration that has been read and checked.
struct Prepared {
    new: File,
    /// The keys whose values differ from the present ones.
    changed: Vec<String>,
    plan: Plan,
    opened: Opened,
}

/// A listener of a new configuration.
struct NewListener {
    number: u16,
    /// The address listened on, if the configuration before did not have the listener.
    added: Option<Address>,
}

/// The listeners of a new configuration, in its order.
struct Listeners(Vec<NewListener>);

/// Says what a reload has come to.
fn report(by: &str, result: &Result<Reloaded, String>) {
    match result {
        Ok(Reloaded { generation, changed }) if changed.is_empty() => {
            messages::info(&format!(
                "{by}: reloaded: generation {generation}, no value has changed"
            ));
        }
        Ok(Reloaded { generation, changed }) => messages::info(&format!(
            "{by}: reloaded: generation {generation}, changed: {}",
            changed.join(", ")
        )),
        Err(what) => {
            messages::error(&format!("{by}: the reload failed, and nothing has changed:\n{what}"));
        }
    }
}

impl Listeners {
    /// Finds the listeners that stay, and opens the sockets of the new ones. Clients wait in their
    /// backlogs. On an error nothing stays of it.
    fn prepare<'a>(
        present: &Present,
        plan: &Plan,
        served: &'a WatchedEngine,
    ) -> Result<(Self, PreparedListeners<'a>), String> {
        let mut left = present.listeners.clone();
        let stays =
            |(listener, service): (&Listener, &Service)| stays(&mut left, listener, service);
        let numbers = plan.engine.listeners.iter().zip(&plan.services).map(stays);
        let numbers: Vec<Option<u16>> = numbers.collect::<Result<_, _>>()?;
        let listeners = || plan.engine.listeners.iter().zip(&numbers);
        let new = listeners().filter(|(_, number)| number.is_none());
        let new: Vec<Listener> = new.map(|(listener, _)| listener.clone()).collect();
        let prepared = served.handle.prepare_listeners(&new).map_err(|error| error.to_string())?;
        let mut opened = prepared.list().into_iter();
        let of_plan = numbers.iter().zip(&plan.services).map(|(number, service)| {
            let (number, added) = number.map_or_else(
                || {
                    let (number, address) = opened.next().expect("each new listener is open");
                    served.set_listener(number, service.url(&address));
                    (number, Some(address))
                },
                |number| (number, None),
            );
            NewListener { number, added }
        });
        Ok((Self(of_plan.collect()), prepared))
    }

    fn numbers(&self) -> Vec<u16> {
        self.0.iter().map(|listener| listener.number).collect()
    }

    /// Changes the settings of the listeners that stay, for connections that come from now on.
    fn set(&self, plan: &Plan, served: &WatchedEngine) {
        for (new, listener) in self.0.iter().zip(&plan.engine.listeners) {
            let set = || served.handle.set_listener(new.number, listener.settings.clone());
            if let Err(error) = insist(set) {
                messages::warn(&format!(
                    "cannot change the settings of {}: {error}",
                    listener.address
                ));
            }
        }
    }

    /// Announces the new listeners, and drains those that the plan does not have.
    fn remove_others(self, present: &mut Present, plan: &Plan, served: &WatchedEngine) {
        let all = self.0.iter().zip(&plan.services);
        let added =
            all.filter_map(|(listener, service)| Some(service.url(listener.added.as_ref()?)));
        let added: Vec<String> = added.collect();
        added.iter().for_each(|url| messages::info(&format!("listening on {url}")));
        serve::announce(&added);
        let numbers = self.numbers();
        let names = served.listeners();
        for (_, _, number) in present.listeners.iter().filter(|(_, _, old)| !numbers.contains(old))
        {
            let name = names.get(usize::from(*number)).map_or("", String::as_str);
            messages::info(&format!("no longer listening on {name}"));
            remove(*number, plan.drain.timeout, served);
        }
        let all = plan.engine.listeners.iter().zip(&plan.services).zip(&numbers);
        present.listeners = all
            .map(|((listener, service), number)| (listener.clone(), service.clone(), *number))
            .collect();
    }
}

/// The number of the listener on this address, if there is one. It is taken out of `left`.
fn stays(
    left: &mut Vec<(Listener, Service, u16)>,
    listener: &Listener,
    service: &Service,
) -> Result<Option<u16>, String> {
    let address = &listener.address;
    let Some(at) = left.iter().position(|(known, ..)| plan::is_same(&known.address, address))
    else {
        return Ok(None);
    };
    let (known, before, number) = left.remove(at);
    let is_changed = [
        ("mode", known.address != *address),
        ("backlog", known.backlog != listener.backlog),
        ("v6_only", known.v6_only != listener.v6_only),
    ];
    if let Some((what, _)) = is_changed.into_iter().find(|(_, is_changed)| *is_changed) {
        return Err(format!(
            "{address} cannot change its {what} while the server runs; restart it"
        ));
    }
    if before.scheme() != service.scheme() {
        return Err(format!(
            "{address} cannot change from {} to {} while the server runs; take another address, \
             or restart it",
            before.scheme(),
            service.scheme()
        ));
    }
    Ok(Some(number))
}

fn remove(number: u16, deadline: Duration, served: &WatchedEngine) {
    if let Err(error) = insist(|| served.handle.remove_listener(number, deadline)) {
        messages::warn(&format!("cannot remove listener {number}: {error}; reload again later"));
    }
}

/// Calls again while the queue of a shard is full, which soon has room again.
fn insist(mut call: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    for _ in 0..TRIES {
        match call() {
            Err(Error::Busy(_)) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    call()
}

/// The key is that one, or lies beneath it.
fn is_beneath(key: &str, prefix: &str) -> bool {
    let rest = key.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Changes what belongs to the engine. Bans and workers that were set while it runs stay.
fn apply(
    old: &File,
    new: &File,
    plan: &Plan,
    served: &WatchedEngine,
    watched: &Watched,
) -> Result<(), String> {
    let handle = &served.handle;
    let bans =
        |file: &File| -> Vec<Prefix> { file.engine.bans.iter().map(|network| network.0).collect() };
    let (before, after) = (bans(old), bans(new));
    for ban in after.iter().filter(|ban| !before.contains(ban)) {
        handle.ban(*ban).map_err(|error| format!("cannot ban {ban}: {error}"))?;
        watched.bans_of_admin().forget(ban);
    }
    for ban in before.iter().filter(|ban| !after.contains(ban)) {
        handle.unban(*ban).map_err(|error| format!("cannot remove the ban of {ban}: {error}"))?;
        watched.bans_of_admin().forget(ban);
    }
    if old.engine.workers != new.engine.workers {
        let workers = plan.engine.workers;
        handle.set_workers(workers).map_err(|error| {
            format!("cannot change the number of workers to {workers}: {error}")
        })?;
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_beneath_its_table() {
        assert!(is_beneath("site[0].root", "site"));
        assert!(is_beneath("engine.bans", "engine.bans"));
        assert!(!is_beneath("engine.shards", "engine.bans"));
        assert!(!is_beneath("sitemap", "site"));
    }
}
