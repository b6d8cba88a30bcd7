//! One run: resolve, start the engine, watch it, stop it, report.

mod watch;

use self::watch::Watch;
use crate::args::{Cli, LoadArgs, Target};
use crate::delivery::Delivery;
use crate::echo::Echo;
use crate::http::Http;
use crate::load::{CONNECTING_MAX, Load, Shared, Task};
use crate::network::Network;
use crate::packets::Packets;
use crate::packets::wire::{BODY_BYTES_MAX, PREFIX_BYTES};
use crate::protocol::{ErrorKind, Fault, Protocol};
use crate::report::{Environment, Plan, Run};
use crate::summary;
use crate::system::{self, Interrupts};
use crate::threads::Threads;
use ringwright::{Config, Engine, Framing};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// What is in flight at the end of a run may finish within.
const GRACE: Duration = Duration::from_secs(1);
/// Descriptors beside those of connections: rings, standard streams, the report.
const DESCRIPTORS_BESIDE: u64 = 64;
/// How long an address of several that a name has may take to answer.
const TRIAL: Duration = Duration::from_secs(1);

/// Commands without [`LoadArgs`] do not come here.
const NO_LOAD: &str = "this is no load";

/// Why a run did not come about.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for cannot be done.
    Usage(String),
    /// The name of the target has no address.
    Unresolved(String),
    /// The engine did not start, or ended by itself.
    Engine(ringwright::Error),
    /// A system call failed that never should.
    System(std::io::Error),
    /// The server answers what it must not, so that nothing could be learnt of it.
    Server(String),
    /// A signal came before anything had begun.
    Interrupted(String),
}

/// Loads the target, and makes the report of it.
///
/// # Errors
/// Why there is no report.
pub fn perform(cli: &Cli, load: &LoadArgs, interrupts: &Interrupts) -> Result<Delivery, Failure> {
    let (mut run, plan, environment) = run(cli, load, interrupts)?;
    let timeline = std::mem::take(&mut run.timeline);
    let report = run.report(plan, environment);
    let summary = summary::summary(&report);
    Ok(Delivery { timeline, ..Delivery::new(&report, summary, report.exit_status) })
}

fn run(
    cli: &Cli,
    load: &LoadArgs,
    interrupts: &Interrupts,
) -> Result<(Run, Plan, Environment), Failure> {
    system::allow_descriptors(load.connections + DESCRIPTORS_BESIDE + 16 * load.threads)
        .map_err(Failure::Usage)?;
    system::check_cpu(load.pin_from.unwrap_or_default()).map_err(Failure::Usage)?;
    let seed = load.common.seed.unwrap_or_else(seed_of_the_clock);
    let name = match &cli.target {
        Target::Http { url, .. } => &url.address,
        Target::Echo { address, .. } | Target::Packets { address, .. } => address,
        _ => unreachable!("{NO_LOAD}"),
    };
    let to = resolve(name).map_err(Failure::Unresolved)?;
    let plan = plan(cli, load, to);
    let environment = Environment::of_this_process(Some(seed));
    let opening = &summary::opening(&plan, seed);
    let run = match &cli.target {
        Target::Http { url, fields, .. } => {
            let (url, fields) = (url.clone(), fields.clone());
            let (pipeline, learnt) = (load.pipeline as usize, Arc::new(OnceLock::new()));
            drive((load, seed, opening), to, 0, interrupts, move || {
                Http::new(&url, &fields, pipeline, learnt.clone())
            })
        }
        Target::Echo { size, .. } => {
            let (size, numbers) = (*size, Arc::default());
            drive((load, seed, opening), to, size * load.pipeline, interrupts, move || {
                Echo::new(seed, size, Arc::clone(&numbers))
            })
        }
        Target::Packets { size, digest_every, .. } => {
            let (size, digest_every, numbers) = (*size, *digest_every, Arc::default());
            let framing = Framing::new(BODY_BYTES_MAX, &config(load, 0))
                .expect("message_bytes_max has room for it");
            let packet_bytes = (Framing::HEADER_BYTES + PREFIX_BYTES) as u64 + size;
            drive((load, seed, opening), to, packet_bytes * load.pipeline, interrupts, move || {
                Packets::new(seed, size as usize, digest_every, framing, Arc::clone(&numbers))
            })
        }
        _ => unreachable!("{NO_LOAD}"),
    };
    Ok((run.map_err(Failure::Engine)?, plan, environment))
}

/// Runs the engine with one [`Load`] per shard until the run is over.
fn drive<P: Protocol>(
    (load, seed, opening): (&LoadArgs, u64, &str),
    to: SocketAddr,
    flight_bytes: u64,
    interrupts: &Interrupts,
    protocol: impl Fn() -> P + Send + Sync + 'static,
) -> Result<Run, ringwright::Error> {
    let shared = Arc::new(Shared::default());
    let shards = load.threads as usize;
    let tasks: Vec<Task> = (0..load.threads).map(|shard| task(load, seed, to, shard)).collect();
    let engine = Engine::start(config(load, flight_bytes as usize), {
        let shared = shared.clone();
        move |shard| Load::new(tasks[shard].clone(), shared.clone(), protocol(), shard, shards)
    })?;
    for notice in engine.notices() {
        crate::note!("ringload: {notice}");
    }
    // From here, so that setting up the rings is not taken for load.
    let cpu_before = system::cpu_time();
    let (network_before, threads_before) = (Network::now(), Threads::now());
    let mut watch = Watch::new(load, opening, shared);
    watch.until_over(interrupts);
    // Before they end. From here on they only wait for replies.
    let threads = Threads::now().since(&threads_before);
    watch.stop(&engine, interrupts);
    let cpu = system::cpu_time();
    let ledger = engine.join()?;
    let mut run = watch.result();
    (run.threads, run.network) = (threads, Network::now().since(&network_before));
    if !ledger.balanced() {
        let detail = format_args!("the engine's ledger does not balance: {}", ledger.to_json());
        run.stats.errors.count(Fault::new(ErrorKind::Other, detail));
    }
    run.cpu = system::CpuTime {
        user: cpu.user.saturating_sub(cpu_before.user),
        system: cpu.system.saturating_sub(cpu_before.system),
    };
    Ok(run)
}

fn config(load: &LoadArgs, flight_bytes: usize) -> Config {
    let defaults = Config::default();
    Config {
        shards: Some(load.threads as usize),
        pin: load.pin_from.is_some(),
        pin_from: load.pin_from.unwrap_or_default(),
        max_connections: load.connections as usize + CONNECTING_MAX * load.threads as usize,
        // All that may be in flight fits below the high-water mark: above it receiving pauses, and
        // an echo server that cannot send stops reading.
        output_high_bytes: defaults.output_high_bytes + 2 * flight_bytes,
        output_bytes_max: defaults.output_bytes_max + 4 * flight_bytes,
        // A request is small; with 8 KiB an ordinary user's locked memory would not be enough.
        send_buffer_bytes: 4 << 10,
        message_bytes_max: Framing::HEADER_BYTES + BODY_BYTES_MAX,
        // The one deadline is --timeout; the loop keeps it.
        idle_timeout: None,
        receive_timeout: None,
        write_timeout: None,
        transfer_timeout: None,
        connect_timeout: load.timeout,
        linger_timeout: GRACE,
        ..defaults
    }
}

/// A shard's share.
fn task(load: &LoadArgs, seed: u64, to: SocketAddr, shard: u64) -> Task {
    let share = |total: u64| total / load.threads + u64::from(shard < total % load.threads);
    Task {
        to,
        connections: share(load.connections) as usize,
        requests: load.requests.map(share),
        pipeline: load.pipeline as usize,
        requests_per_connection: load.quota().unwrap_or(u64::MAX),
        timeout: load.timeout,
        pacing: load.pacing(),
        rate: load.rate.or(load.conn_rate).unwrap_or_default(),
        arrivals: load.arrivals,
        duration: load.requests.is_none().then_some(load.duration),
        seed,
        drain_ok: load.drain_ok,
    }
}

fn plan(cli: &Cli, load: &LoadArgs, to: SocketAddr) -> Plan {
    let (protocol, target, size_bytes, digest_every) = match &cli.target {
        Target::Http { url, .. } => ("http", url.to_string(), None, None),
        Target::Echo { address, size, .. } => ("echo", address.clone(), Some(*size), None),
        Target::Packets { address, size, digest_every, .. } => {
            ("packets", address.clone(), Some(*size), Some(*digest_every))
        }
        _ => unreachable!("{NO_LOAD}"),
    };
    Plan {
        protocol,
        target,
        address: to.to_string(),
        connections: load.connections,
        threads: load.threads,
        duration_s: load.requests.is_none().then_some(load.duration.as_secs_f64()),
        requests: load.requests,
        pipeline: load.pipeline,
        requests_per_connection: load.quota(),
        size_bytes,
        digest_every,
        timeout_s: load.timeout.as_secs_f64(),
        pacing: load.pacing(),
        rate: load.rate,
        conn_rate: load.conn_rate,
        arrivals: load.is_on_schedule().then(|| load.arrivals.name()),
        drain_ok: load.drain_ok,
    }
}

/// The address of the server. Of several (`localhost` has two), the first that answers.
///
/// # Errors
/// The name has none.
pub fn resolve(name: &str) -> Result<SocketAddr, String> {
    let addresses: Vec<SocketAddr> =
        name.to_socket_addrs().map_err(|error| format!("{name}: {error}"))?.collect();
    let answers = |to: &&SocketAddr| TcpStream::connect_timeout(to, TRIAL).is_ok();
    match &addresses[..] {
        [] => Err(format!("{name}: the name has no address")),
        [only] => Ok(*only),
        [first, ..] => Ok(*addresses.iter().find(answers).unwrap_or(first)),
    }
}

/// A seed when none is given: short enough to be typed again.
#[must_use]
pub fn seed_of_the_clock() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| u64::from(since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        let cli = Cli::read("ringload echo a:1 -c 10 -t 3 -n 2".split(' ')).expect("a command");
        let to = SocketAddr::from(([127, 0, 0, 1], 1));
        let load = cli.load().expect("it is load");
        let tasks: Vec<Task> = (0..3).map(|shard| task(load, 7, to, shard)).collect();
        assert_eq!(tasks.iter().map(|task| task.connections).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(
            tasks.iter().map(|task| task.requests).collect::<Vec<_>>(),
            [Some(1), Some(1), Some(0)]
        );
    }

    #[test]
    fn an_address_that_answers_is_preferred() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("its address");
        assert_eq!(resolve(&to.to_string()), Ok(to));
        assert_eq!(resolve(&format!("localhost:{}", to.port())), Ok(to));
        assert!(resolve("no port").is_err());
    }
}
