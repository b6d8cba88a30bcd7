//! Runs a server from its start to its exit status: the engine, the signals, the messages.

use crate::access_log::{self, AccessLog, ConnectionLog, Writer};
use crate::admin::{Admin, Condition, Watched, WatchedEngine};
use crate::config::load::{self, Loaded, Source};
use crate::config::plan::{self, Plan};
use crate::daemon::Daemon;
use crate::echo::disconnect::{Disconnecting, Rules};
use crate::echo::ending::Endings;
use crate::echo::fate::Probability;
use crate::files;
use crate::generation::{Current, Opened};
use crate::inherited;
use crate::messages::{self, say_plainly};
use crate::options::{Command, Common, Echo, Options};
use crate::packets;
use crate::reload::Reloader;
use crate::served::Watcher;
use crate::signals::Handlers;
use crate::troubles;
use ringwright::{Engine, Handler, Reason};
use signal_hook::consts::SIGXFSZ;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

/// Time for the engine to stop after the second signal. After that the process exits anyway.
const FORCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason why the program ends without success.
#[derive(Debug)]
pub enum Failure {
    /// It failed: exit status 1.
    Failed(String),
    /// Its options or its configuration are wrong: exit status 2.
    Wrong(String),
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Failed(what)
    }
}

/// Serves until a signal.
///
/// # Errors
/// A message for the user.
pub fn run(options: Options) -> Result<(), Failure> {
    inherited::take()?;
    let source = options.file().map(Source::read).transpose().map_err(Failure::Wrong)?;
    let loaded = load(&options, source.as_ref())?;
    if options.common().is_some_and(|common| common.print_config) {
        say_on_stdout(&loaded.print(source.as_ref()));
        return Ok(());
    }
    let plan = plan_of(&loaded, source.as_ref())?;
    let of_admin = plan.admin.iter().flat_map(|admin| admin.listeners());
    let listeners: Vec<_> = plan.engine.listeners.iter().cloned().chain(of_admin).collect();
    inherited::check_claimed(&listeners).map_err(Failure::Wrong)?;
    messages::set_level(plan.log.level);
    if let Some(path) = &plan.log.error {
        messages::open(path)?;
    }
    match &options.command {
        Command::Echo(Echo { disconnect_rate: Some(rate), disconnect_seed, .. }) => {
            let rules = disconnect_rules(*rate, *disconnect_seed);
            let endings = rules.endings.clone();
            let watched = Watched::with_endings(endings.clone());
            let (log, writer) = open_log(&plan)?;
            let of_shards = log.clone();
            let result = serve(plan, log, watched, move |shard| {
                let log = ConnectionLog::new(of_shards.as_ref(), "echo");
                Disconnecting::new(rules.clone(), shard, log)
            });
            finish_log(writer);
            say_plainly(&format!("disconnected {}", endings.to_json()));
            result?;
        }
        _ => serve_plan(options, loaded, plan)?,
    }
    Ok(())
}

/// Checks a configuration file.
///
/// # Errors
/// Everything that is wrong in it.
pub fn check(file: &Path) -> Result<(), Failure> {
    let source = Source::read(file).map_err(Failure::Wrong)?;
    let loaded = load::load(Some(&source), &[]).map_err(Failure::Wrong)?;
    plan_of(&loaded, Some(&source)).map(drop)
}

/// The configuration of a command line. The paths in it may have any bytes, which TOML cannot have.
pub(crate) fn load(options: &Options, source: Option<&Source>) -> Result<Loaded, Failure> {
    let mut loaded = load::load(source, &options.given).map_err(Failure::Wrong)?;
    match &options.command {
        Command::Http(http) => loaded.file.site[0].root.clone_from(&http.dir),
        Command::Packets(packets) => loaded.file.packets[0].root.clone_from(&packets.dir),
        _ => {}
    }
    if let Some(Common { access_log, error_log, .. }) = options.common() {
        let log = &mut loaded.file.log;
        log.access = access_log.clone().or(log.access.take());
        log.error = error_log.clone().or(log.error.take());
    }
    Ok(loaded)
}

/// Checks a configuration as a whole.
pub(crate) fn plan_of(loaded: &Loaded, source: Option<&Source>) -> Result<Plan, Failure> {
    let folder = match source {
        Some(source) => source.folder.clone(),
        None => std::env::current_dir()
            .map_err(|error| format!("cannot find the current folder: {error}"))?,
    };
    let plan = plan::plan(&loaded.file, &folder).and_then(|plan| match source {
        Some(source) => plan::check_exposure(&plan, &source.path()).map(|()| plan),
        None => Ok(plan),
    });
    plan.map_err(|faults| match source {
        Some(source) => Failure::Wrong(source.text().describe(&faults).trim_end().to_owned()),
        None => {
            let described = faults.iter().map(|fault| loaded.describe(fault));
            Failure::Failed(described.collect::<Vec<_>>().join("\n"))
        }
    })
}

/// Serves sites and services.
fn serve_plan(options: Options, loaded: Loaded, plan: Plan) -> Result<(), String> {
    let watcher = Watcher::start()
        .map_err(|error| format!("cannot start the thread that watches directories: {error}"))?;
    let opened = Opened::open(&plan, plan.shards(), None, &watcher)?;
    for service in opened.packets() {
        if let (false, Ok((root, _))) =
            (service.plan.rules.read_only, service.root.view().current())
        {
            prepare_uploads(&service.plan.root, &root.folder);
        }
    }
    // SIGXFSZ would kill the process when an upload exceeds RLIMIT_FSIZE. With a handler, the write
    // fails with EFBIG instead.
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| format!("cannot install a handler for SIGXFSZ: {error}"))?;
    let (log, writer) = open_log(&plan)?;
    let (of_shards, current) = (log.clone(), Current::new(opened.first()));
    let reopening = log.as_ref().and_then(AccessLog::reopening);
    let reloader = Reloader::new(options, loaded, &plan, current.clone(), watcher, reopening);
    let watched = Watched::default().with_reloader(reloader);
    let (leaving, clients) = (watched.leaving(), watched.clients().clone());
    let shared = files::Shared::new(plan.engine.workers, plan.engine.open_files > 0, leaving);
    let result = serve(plan, log, watched, move |shard| {
        let shared = shared.clone();
        Daemon::new(current.clone(), shard, shared, of_shards.clone(), clients.clone())
    });
    finish_log(writer);
    result
}

/// The rules of `--disconnect-rate`.
fn disconnect_rules(probability: Probability, seed: Option<u64>) -> Rules {
    let seed = seed.unwrap_or_else(|| {
        let drawn = RandomState::new().build_hasher().finish();
        messages::info(&format!(
            "--disconnect-rate ends connections at random; add --disconnect-seed {drawn} to \
             repeat this run"
        ));
        drawn
    });
    Rules { probability, seed, endings: Arc::new(Endings::default()) }
}

/// Starts the access log, if there is to be one.
fn open_log(plan: &Plan) -> Result<(Option<AccessLog>, Option<Writer>), String> {
    let Some(path) = &plan.log.access else { return Ok((None, None)) };
    access_log::open(path, plan.log.format)
        .map(|(log, writer)| (Some(log), Some(writer)))
        .map_err(|error| format!("--access-log {}: {error}", path.display()))
}

/// Waits for the last lines of the log, after the engine has ended.
fn finish_log(writer: Option<Writer>) {
    if let Some(trouble) = writer.and_then(Writer::finish) {
        messages::error(&trouble);
    }
}

/// Reports if the directory takes no uploads, and removes what a killed server left there.
fn prepare_uploads(dir: &Path, folder: &packets::Folder) {
    let dir = dir.display();
    if let Err(error) = folder.create_unnamed() {
        messages::warn(&format!(
            "uploads to {dir} will fail: {error}; they need write permission (chmod +w), a \
             file system that supports O_TMPFILE (ext4, XFS, Btrfs, tmpfs), and /proc or Linux \
             6.10; with --read-only the server refuses them at once"
        ));
    }
    match folder.remove_left_over(SystemTime::now()) {
        Ok(0) => {}
        Ok(removed) => messages::info(&format!(
            "removed {removed} temporary file(s) .ringwright-* from {dir}: a server was killed \
             while it replaced files"
        )),
        Err(error) => messages::warn(&format!(
            "cannot remove all temporary files .ringwright-* of a killed server from {dir}: \
             {error}; remove them by hand"
        )),
    }
}

fn serve<H: Handler>(
    plan: Plan,
    log: Option<AccessLog>,
    watched: Watched,
    factory: impl Fn(usize) -> H + Send + Sync + 'static,
) -> Result<(), String> {
    let lost = log.as_ref().map(AccessLog::lost).unwrap_or_default();
    let watched = Arc::new(watched.with_log(lost));
    watched.set_drain(plan.drain);
    // Installed before the engine starts, so that an early signal is not lost.
    let on_reload = watched.clone();
    let signals = Handlers::install(log.as_ref().and_then(AccessLog::reopening), move || {
        match on_reload.reloader() {
            Some(reloader) => reloader.reload(&on_reload),
            None => {
                messages::warn("SIGHUP: this mode has no configuration that could be read again")
            }
        }
    })?;
    // The writer ends after the last handle to it.
    drop(log);
    // Started before the engine, so that it can report that the engine starts.
    let admin = match &plan.admin {
        Some(admin) => Some(Admin::start(admin, plan.engine.ring, &watched)?),
        None => None,
    };
    let engine = Engine::start(plan.engine, factory).map_err(|error| error.to_string())?;
    say_notices(&engine, admin.as_ref());
    let listening = engine.handle().listeners();
    let mut listeners: Vec<String> = listening
        .iter()
        .zip(&plan.services)
        .map(|(listener, service)| service.url(&listener.address))
        .collect();
    watched.serves(WatchedEngine {
        handle: engine.handle(),
        listeners: Mutex::new(listeners.clone()),
    });
    let of_admin = admin.iter().flat_map(Admin::addresses);
    listeners.extend(of_admin.map(|address| format!("admin {}", plan::url("http", address))));
    if let Err(error) = troubles::watch(&watched) {
        messages::warn(&format!("cannot start the thread that looks at counters: {error}"));
    }
    announce(&listeners);
    let on_signal = watched.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || drain_on(signals, &on_signal))
        .map_err(|error| format!("cannot start the thread that handles signals: {error}"))?;
    engine.wait().map_err(|error| error.to_string())?;
    // After a drain this changes nothing. After a failed shard the other shards finish their
    // requests, and the exit status tells the supervisor to restart the program.
    if watched.condition() < Condition::Draining {
        watched.moves_on(Condition::Failed);
    }
    engine.handle().drain(plan.drain.timeout);
    report(engine, admin, &watched)
}

/// Waits for the end of both engines, and prints the ledger.
fn report(engine: Engine, admin: Option<Admin>, watched: &Watched) -> Result<(), String> {
    let ledger = engine.join().map_err(|error| error.to_string());
    // The admin listener ends last, so that it can report the progress of the drain.
    if let Some(Err(error)) = admin.map(Admin::end) {
        messages::error(&error);
    }
    let ledger = ledger?;
    let cut_off = ledger.sum.closed_by[Reason::Stopped as usize];
    if cut_off > 0 || ledger.sum.turned_away > 0 {
        messages::warn(&format!(
            "the drain ended before all clients had finished: {cut_off} connection(s) were reset \
             and {} waiting client(s) were closed; a longer --drain-timeout gives them more time",
            ledger.sum.turned_away
        ));
    }
    say_plainly(&format!("ledger {}", watched.ledger_json(&ledger)));
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
        messages::warn(notice);
    }
}

/// Prints one line per listener. Scripts wait for these lines and read the ports from them. Errors
/// are ignored, because the server also runs with a closed standard output.
pub(crate) fn announce(listeners: &[String]) {
    let mut stdout = io::stdout().lock();
    for listener in listeners {
        let _ = writeln!(stdout, "listening {listener}");
    }
    let _ = stdout.flush();
}

fn drain_on(mut signals: Handlers, watched: &Watched) {
    if !signals.wait_for_drain() {
        return;
    }
    watched.begin_drain("", "; send a second signal to end at once");
    if !signals.wait_for_end() {
        return;
    }
    if let Some(served) = watched.served() {
        served.handle.drain(Duration::ZERO);
    }
    thread::sleep(FORCE_TIMEOUT);
    messages::error(&format!(
        "exiting without a clean end: the engine did not stop within {FORCE_TIMEOUT:?} of the \
         second signal"
    ));
    messages::finish();
    std::process::exit(1);
}

/// Prints a text on standard output. Errors are ignored: a reader that wants no more may leave.
fn say_on_stdout(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
