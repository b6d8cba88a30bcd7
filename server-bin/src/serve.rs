//! Runs a server from its start to its exit status: the engine, the signals, the messages.

use crate::access_log::{AccessLog, ConnectionLog, Writer};
use crate::admin::{Admin, Condition, Watched, WatchedEngine};
use crate::echo::disconnect::{Disconnecting, Rules};
use crate::echo::ending::Endings;
use crate::options::{Common, Echo, Http, Packets, Switch};
use crate::places::Places;
use crate::served::{Folder, Served};
use crate::signals::Handlers;
use crate::{access_log, echo, files, packets};
use ringwright::{Config, Directory, Engine, Framing, Handler, Reason, Remote};
use signal_hook::consts::SIGXFSZ;
use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

/// Time for the engine to stop after the second signal. After that the process exits anyway.
const FORCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The default of --workers for packets: digests and lists need some.
const PACKETS_WORKERS: usize = 2;

/// The default of --min-rate over HTTP, in bytes per second. No usable connection is slower.
const HTTP_MIN_RATE: u32 = 64;

/// Serves files over HTTP until a signal.
///
/// # Errors
/// A message for the user.
pub fn http(options: &Http) -> Result<(), String> {
    let dir = &options.dir;
    let served = Served::<Directory>::open(dir).map_err(|error| cannot_open(dir, &error))?;
    // Opening the directory with O_PATH does not require search permission; serving files does.
    std::fs::metadata(dir.join(".")).map_err(|error| {
        format!(
            "cannot enter the directory {}: {error}; give this user search permission (chmod +x)",
            dir.display()
        )
    })?;
    let (log, writer) = open_log(&options.common)?;
    let watched = Watched::default();
    let request_timeout = options.common.request_timeout.0;
    watch(&served)?;
    let mut config = options.common.config(&options.listen);
    config.evict_idle = options.common.evict_idle != Some(Switch::Off);
    config.min_rate = options.common.min_rate.unwrap_or(HTTP_MIN_RATE);
    config.workers = options.common.workers.unwrap_or(files::READERS);
    let shared = files::Shared::new(config.workers, options.open_files > 0);
    config.open_files = options.open_files as usize;
    config.open_files_valid = options.open_files_valid;
    let of_shards = log.clone();
    let result = serve("http", config, &options.common, log, watched, move |_| {
        let log = of_shards.as_ref().map(AccessLog::shard);
        files::Files::new(served.view(), request_timeout, shared.clone(), log)
    });
    finish_log(writer);
    result
}

/// Echoes until a signal.
///
/// # Errors
/// A message for the user.
pub fn echo(options: &Echo) -> Result<(), String> {
    let mut config = options.common.config(&options.listen);
    config.count_traffic = options.common.access_log.is_some();
    let (log, writer) = open_log(&options.common)?;
    let of_shards = log.clone();
    let log_of_shard = move || ConnectionLog::new(of_shards.as_ref(), "echo");
    let Some(probability) = options.disconnect_rate else {
        let watched = Watched::default();
        let factory = move |_| echo::Echo { log: log_of_shard() };
        let result = serve("echo", config, &options.common, log, watched, factory);
        finish_log(writer);
        return result;
    };
    let seed = options.disconnect_seed.unwrap_or_else(|| {
        let drawn = RandomState::new().build_hasher().finish();
        say(&format!(
            "--disconnect-rate ends connections at random; add --disconnect-seed {drawn} to \
             repeat this run"
        ));
        drawn
    });
    let endings = Arc::new(Endings::default());
    let watched = Watched::with_endings(endings.clone());
    let rules = Rules { probability, seed, endings: endings.clone() };
    let result = serve("echo", config, &options.common, log, watched, move |shard| {
        Disconnecting::new(rules.clone(), shard, log_of_shard())
    });
    finish_log(writer);
    say_plainly(&format!("disconnected {}", endings.to_json()));
    result
}

/// Serves packets until a signal.
///
/// # Errors
/// A message for the user.
pub fn packets(options: &Packets) -> Result<(), String> {
    let dir = &options.dir;
    let served = Served::<packets::Root>::open(dir).map_err(|error| cannot_open(dir, &error))?;
    if let (false, Ok((root, _))) = (options.read_only, served.view().current()) {
        prepare_uploads(dir, &root.folder);
    }
    watch(&served)?;
    let places = Arc::new(Places::new(packets::SUMS_MAX));
    // SIGXFSZ would kill the process when an upload exceeds RLIMIT_FSIZE. With a handler, the write
    // fails with EFBIG instead.
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| format!("cannot install a handler for SIGXFSZ: {error}"))?;
    let mut config = options.common.config(&options.listen);
    config.count_traffic = options.common.access_log.is_some();
    config.workers = options.common.workers.unwrap_or(PACKETS_WORKERS);
    config.message_bytes_max = packets::BODY_BYTES_MAX + Framing::HEADER_BYTES;
    let framing =
        Framing::new(packets::BODY_BYTES_MAX, &config).map_err(|error| error.to_string())?;
    let kept = Arc::new(packets::Kept::new(packets::Limits {
        timeout: options.resume_timeout,
        bytes_max: options.resume_max,
    }));
    let rules = packets::Rules {
        upload_bytes_max: options.upload_max,
        read_only: options.read_only,
        replace: options.replace,
        sync: options.sync,
        offer_timeout: options.offer_timeout,
    };
    let (log, writer) = open_log(&options.common)?;
    let of_shards = log.clone();
    let result = serve("packets", config, &options.common, log, Watched::default(), move |_| {
        let log = ConnectionLog::new(of_shards.as_ref(), "packets");
        let (root, places, kept) = (served.view(), places.clone(), kept.clone());
        packets::Packets::new(framing, root, places, kept, rules, log)
    });
    finish_log(writer);
    result
}

/// Starts the access log, if there is to be one.
fn open_log(options: &Common) -> Result<(Option<AccessLog>, Option<Writer>), String> {
    let Some(path) = &options.access_log else { return Ok((None, None)) };
    access_log::open(path, options.log_format)
        .map(|(log, writer)| (Some(log), Some(writer)))
        .map_err(|error| format!("--access-log {}: {error}", path.display()))
}

/// Waits for the last lines of the log, after the engine has ended.
fn finish_log(writer: Option<Writer>) {
    if let Some(trouble) = writer.and_then(Writer::finish) {
        say(&trouble);
    }
}

fn watch<F: Folder>(served: &Arc<Served<F>>) -> Result<(), String> {
    served.watch().map_err(|error| format!("cannot start the thread that watches DIR: {error}"))
}

fn cannot_open(dir: &Path, error: &io::Error) -> String {
    format!(
        "cannot open the directory {}: {error}; give a directory that exists and that this user \
         may read",
        dir.display()
    )
}

/// Reports if the directory takes no uploads, and removes what a killed server left there.
fn prepare_uploads(dir: &Path, folder: &packets::Folder) {
    let dir = dir.display();
    if let Err(error) = folder.create_unnamed() {
        say(&format!(
            "uploads to {dir} will fail: {error}; they need write permission (chmod +w), a \
             file system that supports O_TMPFILE (ext4, XFS, Btrfs, tmpfs), and /proc or Linux \
             6.10; with --read-only the server refuses them at once"
        ));
    }
    match folder.remove_left_over(SystemTime::now()) {
        Ok(0) => {}
        Ok(removed) => say(&format!(
            "removed {removed} temporary file(s) .ringwright-* from {dir}: a server was killed \
             while it replaced files"
        )),
        Err(error) => say(&format!(
            "cannot remove all temporary files .ringwright-* of a killed server from {dir}: \
             {error}; remove them by hand"
        )),
    }
}

fn serve<H: Handler>(
    scheme: &str,
    config: Config,
    options: &Common,
    log: Option<AccessLog>,
    watched: Watched,
    factory: impl Fn(usize) -> H + Send + Sync + 'static,
) -> Result<(), String> {
    // Installed before the engine starts, so that an early signal is not lost.
    let signals = Handlers::install(log.as_ref().and_then(AccessLog::reopening))?;
    let lost = log.as_ref().map(AccessLog::lost).unwrap_or_default();
    let watched = Arc::new(watched.with_log(lost));
    // The writer ends after the last handle to it.
    drop(log);
    // Started before the engine, so that it can report that the engine starts.
    let admin = match &options.admin {
        Some(addresses) => Some(Admin::start(&addresses.0, config.ring, &watched)?),
        None => None,
    };
    let engine = Engine::start(config, factory).map_err(|error| error.to_string())?;
    say_notices(&engine, admin.as_ref());
    let mut listeners: Vec<String> =
        engine.addresses().iter().map(|address| format!("{scheme}://{address}")).collect();
    let drain_timeout = options.drain_timeout;
    watched.serves(WatchedEngine {
        remote: engine.remote(),
        listeners: listeners.clone(),
        drain_timeout,
    });
    let of_admin = admin.iter().flat_map(Admin::addresses);
    listeners.extend(of_admin.map(|address| format!("admin http://{address}")));
    announce(&listeners);
    let drain = Drain { remote: engine.remote(), watched, timeout: drain_timeout };
    let on_signal = drain.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || drain_on(signals, &on_signal))
        .map_err(|error| format!("cannot start the thread that handles signals: {error}"))?;
    engine.wait().map_err(|error| error.to_string())?;
    // After a drain this changes nothing. After a failed shard the other shards finish their
    // requests, and the exit status tells the supervisor to restart the program.
    if drain.watched.condition() < Condition::Draining {
        drain.watched.moves_on(Condition::Failed);
    }
    drain.begin(drain.timeout);
    let ledger = engine.join().map_err(|error| error.to_string());
    // The admin listener ends last, so that it can report the progress of the drain.
    if let Some(Err(error)) = admin.map(Admin::end) {
        say(&error);
    }
    let ledger = ledger?;
    let cut_off = ledger.sum.closed_by[Reason::Stopped as usize];
    if cut_off > 0 || ledger.sum.turned_away > 0 {
        say(&format!(
            "the drain ended before all clients had finished: {cut_off} connection(s) were reset \
             and {} waiting client(s) were closed; a longer --drain-timeout gives them more time",
            ledger.sum.turned_away
        ));
    }
    say_plainly(&format!("ledger {}", drain.watched.ledger_json(&ledger)));
    if ledger.balanced() {
        Ok(())
    } else {
        Err("the ledger does not balance: a connection, buffer, pipe or descriptor was not \
             released; please report this with the ledger line above"
            .into())
    }
}

/// Prints the notices of both engines, each once.
fn say_notices(engine: &Engine, admin: Option<&Admin>) {
    let of_admin = admin.into_iter().flat_map(Admin::notices);
    let of_admin = of_admin.filter(|notice| !engine.notices().contains(notice));
    for notice in engine.notices().iter().chain(of_admin) {
        say(notice);
    }
}

/// Prints one line per listener. Scripts wait for these lines and read the ports from them. Errors
/// are ignored, because the server also runs with a closed standard output.
fn announce(listeners: &[String]) {
    let mut stdout = io::stdout().lock();
    for listener in listeners {
        let _ = writeln!(stdout, "listening {listener}");
    }
    let _ = stdout.flush();
}

/// Starts a drain.
#[derive(Clone)]
struct Drain {
    remote: Remote,
    watched: Arc<Watched>,
    timeout: Duration,
}

impl Drain {
    /// Starts a drain; `/readyz` reports it from now on.
    fn begin(&self, timeout: Duration) {
        self.watched.moves_on(Condition::Draining);
        self.remote.drain(timeout);
    }
}

fn drain_on(mut signals: Handlers, drain: &Drain) {
    if !signals.wait_for_drain() {
        return;
    }
    say(&format!(
        "draining: waiting up to {:?} for requests in progress; send a second signal to end at \
         once",
        drain.timeout
    ));
    drain.begin(drain.timeout);
    if !signals.wait_for_end() {
        return;
    }
    drain.begin(Duration::ZERO);
    thread::sleep(FORCE_TIMEOUT);
    say(&format!(
        "exiting without a clean end: the engine did not stop within {FORCE_TIMEOUT:?} of the \
         second signal"
    ));
    std::process::exit(1);
}

/// Prints a message on standard error.
pub fn say(what: &(impl Display + ?Sized)) {
    say_plainly(&format!("ringwrightd: {what}"));
}

fn say_plainly(line: &str) {
    // eprintln! would panic if standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}
