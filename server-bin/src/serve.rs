//! From start to exit status: the engine, the signals, the last word.

use crate::options::{Echo, Http};
use crate::{access_log, descriptors, echo, files};
use ringwright::{Config, Directory, Engine, Handler, Remote};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

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
    let result = serve("http", config, options.common.drain_timeout, move |_| {
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
    serve("echo", config, options.common.drain_timeout, |_| echo::Echo)
}

fn serve<H: Handler>(
    scheme: &str,
    config: Config,
    drain_timeout: Duration,
    factory: impl Fn(usize) -> H + Send + Sync + 'static,
) -> Result<(), String> {
    match descriptors::raise_limit() {
        Ok(limit) if limit <= config.max_connections as u64 => say(&format!(
            "--max-connections is {}, but the hard limit of open files is {limit}: clients beyond \
             it will wait; raise it (ulimit -Hn, systemd: LimitNOFILE=)",
            config.max_connections
        )),
        Ok(_) => {}
        Err(error) => say(&format!("the limit of open files cannot be raised: {error}")),
    }
    // Before the engine starts: a signal that comes early must not be lost.
    let signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| format!("signals: {error}"))?;
    let engine = Engine::start(config, factory).map_err(|error| error.to_string())?;
    for notice in engine.notices() {
        say(notice);
    }
    announce(scheme, engine.addresses());
    let remote = engine.remote();
    let signalled = remote.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || drain_on(signals, &signalled, drain_timeout))
        .map_err(|error| format!("no thread for signals: {error}"))?;
    engine.wait().map_err(|error| error.to_string())?;
    // After a drain this changes nothing. After a shard has failed the others finish what they
    // have, and the exit status tells the supervisor to start anew.
    begin_drain(&remote, drain_timeout);
    let ledger = engine.join().map_err(|error| error.to_string())?;
    say_plainly(&format!("ledger {}", ledger.to_json()));
    if ledger.balanced() {
        Ok(())
    } else {
        Err("the ledger does not balance: something was not given back".into())
    }
}

/// Scripts wait for these lines and take the ports from them. Nobody may be reading: no reason
/// not to serve.
fn announce(scheme: &str, addresses: &[SocketAddr]) {
    let mut stdout = io::stdout().lock();
    for address in addresses {
        let _ = writeln!(stdout, "listening {scheme}://{address}");
    }
    let _ = stdout.flush();
}

fn drain_on(mut signals: Signals, remote: &Remote, drain_timeout: Duration) {
    let mut signals = signals.forever();
    if signals.next().is_none() {
        return;
    }
    say(&format!("draining for at most {drain_timeout:?}; signal again to end at once"));
    begin_drain(remote, drain_timeout);
    if signals.next().is_none() {
        return;
    }
    begin_drain(remote, Duration::ZERO);
    thread::sleep(FORCE_TIMEOUT);
    say("forced to exit: the engine did not end");
    std::process::exit(1);
}

fn begin_drain(remote: &Remote, drain_timeout: Duration) {
    // Nobody else sends commands here, so a shard that is busy now will take one soon; if it
    // does not, it is stuck, and the second signal is for that.
    for _ in 0..100 {
        if remote.drain(drain_timeout).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    say("a shard takes no commands: it is stuck");
}

/// Tells the operator something.
pub fn say(what: &(impl Display + ?Sized)) {
    say_plainly(&format!("ringwrightd: {what}"));
}

fn say_plainly(line: &str) {
    // Not eprintln, which panics when standard error is closed.
    let _ = writeln!(io::stderr(), "{line}");
}
