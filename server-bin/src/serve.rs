//! From start to exit status: the engine, the signals, the last word.

use crate::admin::{Admin, Condition, Watched};
use crate::echo::disconnect::{Disconnecting, Rules};
use crate::echo::ending::Endings;
use crate::options::{Common, Echo, Http, Packets};
use crate::{access_log, descriptors, echo, files, packets};
use ringwright::{Config, Directory, Engine, Framing, Handler, Reason, Remote};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

/// What is assumed where the limit of open files cannot be read.
const OPEN_FILES_USUAL: u64 = 1024;
/// How long a forced end may take before the process just exits.
const FORCE_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves files until a signal.
///
/// # Errors
/// What went wrong, for the user.
pub fn http(options: &Http) -> Result<(), String> {
    let dir = &options.dir;
    let directory = Directory::open(dir)
        .map_err(|error| format!("cannot serve the directory {}: {error}", dir.display()))?;
    // To open it takes no right to look into it.
    std::fs::metadata(dir.join(".")).map_err(|error| {
        format!(
            "cannot serve the directory {}: {error}; this user needs the right to enter it \
             (chmod +x)",
            dir.display()
        )
    })?;
    let log = match &options.access_log {
        Some(path) => Some(
            access_log::open(path, options.log_format)
                .map_err(|error| format!("--access-log {}: {error}", path.display()))?,
        ),
        None => None,
    };
    let (log, writer) = log.unzip();
    let request_timeout = options.request_timeout.0;
    let mut config = options.common.config(&options.listen);
    config.receive_timeout = request_timeout;
    config.open_files = options.open_files as usize;
    config.open_files_valid = options.open_files_valid;
    let result = serve("http", config, &options.common, Watched::default(), move |_| {
        let log = log.as_ref().map(access_log::AccessLog::shard);
        files::Files::new(directory.clone(), request_timeout, log)
    });
    if let Some(trouble) = writer.and_then(access_log::Writer::finish) {
        say(&trouble);
    }
    result
}

/// Echoes until a signal.
///
/// # Errors
/// What went wrong, for the user.
pub fn echo(options: &Echo) -> Result<(), String> {
    let config = options.common.config(&options.listen);
    let Some(probability) = options.disconnect_rate else {
        return serve("echo", config, &options.common, Watched::default(), |_| echo::Echo);
    };
    let seed = options.disconnect_seed.unwrap_or_else(|| {
        let drawn = RandomState::new().build_hasher().finish();
        say(&format!("connections are ended at random; --disconnect-seed {drawn} repeats it"));
        drawn
    });
    let endings = Arc::new(Endings::default());
    let watched = Watched::with_endings(endings.clone());
    let rules = Rules { probability, seed, endings: endings.clone() };
    let result = serve("echo", config, &options.common, watched, move |shard| {
        Disconnecting::new(rules.clone(), shard)
    });
    say_plainly(&format!("disconnected {}", endings.to_json()));
    result
}

/// Serves packets until a signal.
///
/// # Errors
/// What went wrong, for the user.
pub fn packets(options: &Packets) -> Result<(), String> {
    let dir = &options.dir;
    let cannot =
        |error: io::Error| format!("cannot serve the directory {}: {error}", dir.display());
    let directory = Directory::open_to_create(dir).map_err(cannot)?;
    let folder = Arc::new(packets::Folder::open(dir).map_err(cannot)?);
    if !options.read_only
        && let Err(error) = folder.create_unnamed()
    {
        say(&format!(
            "no file can be put into {}: {error}; it takes the right to write there (chmod +w) \
             and a file system with O_TMPFILE (ext4, XFS, Btrfs, tmpfs); --read-only says so to \
             clients",
            dir.display()
        ));
    }
    if !options.read_only {
        match folder.remove_left_over(SystemTime::now()) {
            Ok(0) => {}
            Ok(removed) => say(&format!(
                "removed {removed} file(s) .ringwright-* from {}: a server was killed while it \
                 replaced others with them",
                dir.display()
            )),
            Err(error) => say(&format!(
                "files that a killed server has left in {} (.ringwright-*) were not all removed: \
                 {error}",
                dir.display()
            )),
        }
    }
    // A file above RLIMIT_FSIZE is an error like any other, and not the end of the process.
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| format!("signals: {error}"))?;
    let mut config = options.common.config(&options.listen);
    config.receive_timeout = options.request_timeout.0;
    config.workers = options.workers;
    config.message_bytes_max = packets::BODY_BYTES_MAX + Framing::HEADER_BYTES;
    let framing =
        Framing::new(packets::BODY_BYTES_MAX, &config).map_err(|error| error.to_string())?;
    let rules = packets::Rules {
        upload_bytes_max: options.upload_max,
        read_only: options.read_only,
        replace: options.replace,
        sync: options.sync,
        offer_timeout: options.offer_timeout,
    };
    serve("packets", config, &options.common, Watched::default(), move |_| {
        packets::Packets::new(framing, directory.clone(), folder.clone(), rules)
    })
}

fn serve<H: Handler>(
    scheme: &str,
    config: Config,
    options: &Common,
    watched: Watched,
    factory: impl Fn(usize) -> H + Send + Sync + 'static,
) -> Result<(), String> {
    let open_files_max = open_files_max(&config);
    // Before the engine starts: a signal that comes early must not be lost.
    let signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| format!("signals: {error}"))?;
    let watched = Arc::new(watched);
    // Before the engine as well: it keeps descriptors for itself.
    let admin = match options.admin {
        Some(address) => Some(Admin::start(address, &watched, open_files_max)?),
        None => None,
    };
    let engine = Engine::start(config, factory).map_err(|error| error.to_string())?;
    for notice in engine.notices().iter().chain(admin.iter().flat_map(Admin::notices)) {
        say(notice);
    }
    let mut listeners: Vec<String> =
        engine.addresses().iter().map(|address| format!("{scheme}://{address}")).collect();
    watched.serves(engine.remote(), listeners.clone());
    listeners.extend(admin.iter().map(|admin| format!("admin http://{}", admin.address())));
    announce(&listeners);
    let drain = Drain { remote: engine.remote(), watched, timeout: options.drain_timeout };
    let on_signal = drain.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || drain_on(signals, &on_signal))
        .map_err(|error| format!("no thread for signals: {error}"))?;
    engine.wait().map_err(|error| error.to_string())?;
    // After a drain this changes nothing. After a shard has failed the others finish what they
    // have, and the exit status tells the supervisor to start anew.
    if drain.watched.condition() < Condition::Draining {
        drain.watched.moves_on(Condition::Failed);
    }
    drain.begin(drain.timeout);
    let ledger = engine.join().map_err(|error| error.to_string());
    // It was to be seen how the drain went on.
    if let Some(Err(error)) = admin.map(Admin::end) {
        say(&error);
    }
    let ledger = ledger?;
    let cut_off = ledger.sum.closed_by[Reason::Stopped as usize];
    if cut_off > 0 || ledger.sum.turned_away > 0 {
        say(&format!(
            "{cut_off} connection(s) were reset before they had finished, {} that waited were \
             turned away: a longer --drain-timeout gives them time",
            ledger.sum.turned_away
        ));
    }
    say_plainly(&format!("ledger {}", ledger.to_json()));
    if ledger.balanced() {
        Ok(())
    } else {
        Err("the ledger does not balance: something was not given back".into())
    }
}

/// Every connection is a descriptor: as many as can be had.
fn open_files_max(config: &Config) -> u64 {
    match descriptors::raise_limit() {
        Ok(limit) => {
            if limit <= config.max_connections as u64 {
                say(&format!(
                    "--max-connections is {}, but the hard limit of open files is {limit}: \
                     clients beyond it will wait; raise it (ulimit -Hn, systemd: LimitNOFILE=)",
                    config.max_connections
                ));
            }
            limit
        }
        Err(error) => {
            say(&format!("the limit of open files cannot be raised: {error}"));
            OPEN_FILES_USUAL
        }
    }
}

/// Scripts wait for these lines and take the ports from them. Nobody may be reading: no reason
/// not to serve.
fn announce(listeners: &[String]) {
    let mut stdout = io::stdout().lock();
    for listener in listeners {
        let _ = writeln!(stdout, "listening {listener}");
    }
    let _ = stdout.flush();
}

/// What a signal does.
#[derive(Clone)]
struct Drain {
    remote: Remote,
    watched: Arc<Watched>,
    timeout: Duration,
}

impl Drain {
    /// Begins to drain, and tells whoever asks `/readyz` before it.
    fn begin(&self, timeout: Duration) {
        self.watched.moves_on(Condition::Draining);
        // Hardly anybody else sends commands here, so a shard that is busy now will take one soon;
        // if it does not, it is stuck, and the second signal is for that.
        for _ in 0..100 {
            if self.remote.drain(timeout).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        say("a shard takes no commands: it is stuck");
    }
}

fn drain_on(mut signals: Signals, drain: &Drain) {
    let mut signals = signals.forever();
    if signals.next().is_none() {
        return;
    }
    say(&format!("draining for at most {:?}; signal again to end at once", drain.timeout));
    drain.begin(drain.timeout);
    if signals.next().is_none() {
        return;
    }
    drain.begin(Duration::ZERO);
    thread::sleep(FORCE_TIMEOUT);
    say("forced to exit: the engine did not end");
    std::process::exit(1);
}

/// Tells the operator something.
pub fn say(what: &(impl Display + ?Sized)) {
    say_plainly(&format!("ringwrightd: {what}"));
}

fn say_plainly(line: &str) {
    // Not eprintln, which panics when standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}
