//! A load run: resolves the target, starts the engine, watches it, stops it and reports.

mod live;
mod watch;

use self::watch::Watch;
use crate::args::{Body, Cli, List, LoadArgs, Target};
use crate::load::{Load, Shared, Task};
use crate::network::Network;
use crate::profile::Profile;
use crate::report::{Plan, Run};
use crate::summary;
use crate::threads::Threads;
use ringload_lifecycle::clients::Protocol;
use ringload_lifecycle::clients::echo::Echo;
use ringload_lifecycle::clients::http::{Http, Learnt, Statuses};
use ringload_lifecycle::clients::packets::Packets;
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::http::head::HEAD_BYTES_MAX;
use ringload_lifecycle::packets::{BODY_BYTES_MAX, LENGTH_BYTES, PREFIX_BYTES};
use ringload_lifecycle::report::Environment;
use ringload_lifecycle::route::{CONNECTING_MAX, ProxyProtocol};
use ringload_lifecycle::system::{self, Interrupts};
use ringwright::{Config, Engine, RingKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time that requests in flight have to finish after the end of a run.
const GRACE: Duration = Duration::from_secs(1);
/// Time that a connection waits for the server's FIN after the last reply. Its successor waits for
/// it, so a server that closes late must not slow the load down (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_millis(1);
/// Descriptors in addition to those of connections: rings, standard streams, the report.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Maximum number of received bytes that a protocol leaves unconsumed. The parser of responses
/// refuses a head only when it has one byte more than allowed.
const MESSAGE_BYTES_MAX: usize = LENGTH_BYTES + BODY_BYTES_MAX;
const _: () = assert!(MESSAGE_BYTES_MAX > HEAD_BYTES_MAX);

/// Only commands with [`LoadArgs`] reach this module.
const NO_LOAD: &str = "only http, echo and packets have load options";

/// Runs the load and makes the report.
///
/// # Errors
/// The run could not start, or the engine failed.
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
    let seed = load.common.seed.unwrap_or_else(ringload_lifecycle::random::seed_of_the_clock);
    let name = match &cli.target {
        Target::Http(http) => &http.url.address,
        Target::Echo { address, .. } | Target::Packets { address, .. } => address,
        _ => unreachable!("{NO_LOAD}"),
    };
    let to = load.route.address_of(name).map_err(Failure::Unresolved)?;
    let plan = plan(cli, load, to);
    let mut environment = Environment::of_this_process(Some(seed));
    let opening = &summary::opening(&plan, seed);
    let run = match &cli.target {
        Target::Http(http) => {
            let (requests, rules) = (http.requests().map_err(Failure::Usage)?, http.rules());
            let learnt = Arc::new(Learnt::new(requests.clone()));
            let (pipeline, bodies) = (load.pipeline as usize, learnt.clone());
            let flight_bytes = requests.bytes_max() as u64 * load.pipeline;
            let run = drive((load, seed, opening), to, flight_bytes, interrupts, move |shard| {
                let sent = (requests.clone(), rules.clone());
                Http::new(sent, pipeline, learnt.clone(), (seed, shard))
            });
            run.map(|(mut run, ring)| {
                let (deviating, faults) = bodies.finish();
                run.stats.deviating_bodies = deviating;
                let faults = faults.into_iter().filter(|_| !http.vary_ok);
                faults.for_each(|fault| run.stats.errors.count(fault));
                (run, ring)
            })
        }
        Target::Echo { size, .. } => {
            let (size, numbers) = (*size, Arc::default());
            drive((load, seed, opening), to, size * load.pipeline, interrupts, move |_| {
                Echo::new(seed, size, Arc::clone(&numbers))
            })
        }
        Target::Packets { size, digest_every, .. } => {
            let (size, digest_every, numbers) = (*size, *digest_every, Arc::default());
            let packet_bytes = (LENGTH_BYTES + PREFIX_BYTES) as u64 + size;
            drive((load, seed, opening), to, packet_bytes * load.pipeline, interrupts, move |_| {
                Packets::new(seed, size as usize, digest_every, Arc::clone(&numbers))
            })
        }
        _ => unreachable!("{NO_LOAD}"),
    };
    let (run, ring) = run.map_err(|error| Failure::Engine(error.into()))?;
    environment.ring = Some(ring.to_string());
    Ok((run, plan, environment))
}

/// Runs the engine with one [`Load`] per shard until the end of the run. Returns the ring, too.
fn drive<P: Protocol>(
    (load, seed, opening): (&LoadArgs, u64, &str),
    to: SocketAddr,
    flight_bytes: u64,
    interrupts: &Interrupts,
    protocol: impl Fn(usize) -> P + Send + Sync + 'static,
) -> Result<(Run, RingKind), ringwright::Error> {
    let shared = Arc::new(Shared::default());
    let shards = load.threads as usize;
    let tasks: Vec<Task> = (0..load.threads).map(|shard| task(load, seed, to, shard)).collect();
    let engine = Engine::start(config(load, flight_bytes as usize), {
        let shared = shared.clone();
        move |shard| Load::new(tasks[shard].clone(), shared.clone(), protocol(shard), shard, shards)
    })?;
    for notice in engine.notices() {
        ringload_lifecycle::note!("ringload: {notice}");
    }
    // Measured from here, so that setting up the rings does not count.
    let cpu_before = system::cpu_time();
    let (network_before, threads_before) = (Network::now(), Threads::now());
    let mut watch = Watch::new(load, opening, shared);
    watch.until_over(interrupts);
    // Read before the threads end. From here on they only wait for replies.
    let threads = Threads::now().since(&threads_before);
    watch.stop(&engine, interrupts);
    let cpu = system::cpu_time();
    let ledger = engine.join()?;
    let mut run = watch.result();
    (run.threads, run.network) = (threads, Network::now().since(&network_before));
    if !ledger.balanced() {
        let detail = format_args!(
            "the ledger of ringload's own engine does not balance (this is a bug in ringwright; \
             please report it): {}",
            ledger.to_json()
        );
        run.stats.errors.count(Fault::new(ErrorKind::Other, detail));
    }
    run.cpu = cpu.since(cpu_before);
    Ok((run, ledger.ring.kind))
}

fn config(load: &LoadArgs, flight_bytes: usize) -> Config {
    let defaults = Config::default();
    Config {
        shards: Some(load.threads as usize),
        ring: load.ring.choice(),
        pin: load.pin_from.is_some(),
        pin_from: load.pin_from.unwrap_or_default(),
        max_connections: load.connections as usize + CONNECTING_MAX * load.threads as usize,
        // All bytes in flight must fit below the high-water mark. Above it the engine pauses
        // receiving, and an echo server that cannot send stops reading: a deadlock.
        output_high_bytes: defaults.output_high_bytes + 2 * flight_bytes,
        output_bytes_max: defaults.output_bytes_max + 4 * flight_bytes,
        // Requests are small. With 8 KiB the locked memory of an unprivileged user would not
        // suffice.
        send_buffer_bytes: 4 << 10,
        message_bytes_max: MESSAGE_BYTES_MAX,
        // The only deadline is --timeout, which the load driver enforces.
        idle_timeout: None,
        receive_timeout: None,
        write_timeout: None,
        transfer_timeout: None,
        connect_timeout: load.timeout,
        linger_timeout: LINGER,
        ..defaults
    }
}

/// Returns the share of a shard.
fn task(load: &LoadArgs, seed: u64, to: SocketAddr, shard: u64) -> Task {
    let share = |total: u64| total / load.threads + u64::from(shard < total % load.threads);
    Task {
        to,
        connections: share(load.connections) as usize,
        requests: load.requests.map(share),
        pipeline: load.pipeline as usize,
        requests_per_connection: load.quota().unwrap_or(u64::MAX),
        think: load.think,
        timeout: load.timeout,
        pacing: load.pacing(),
        rate: load.constant_rate().or(load.conn_rate),
        profile: load.stages().map(|stages| Arc::new(Profile::new(&stages))),
        arrivals: load.arrivals,
        duration: load.requests.is_none().then_some(load.duration),
        seed,
        route: load.route.route(),
        drain_ok: load.drain_ok,
        expect_disconnects: load.expect_disconnects,
    }
}

fn plan(cli: &Cli, load: &LoadArgs, to: SocketAddr) -> Plan {
    let (protocol, target, size_bytes, digest_every) = match &cli.target {
        Target::Http(http) => ("http", http.url.to_string(), None, None),
        Target::Echo { address, size, .. } => ("echo", address.clone(), Some(*size), None),
        Target::Packets { address, size, digest_every, .. } => {
            ("packets", address.clone(), Some(*size), Some(*digest_every))
        }
        _ => unreachable!("{NO_LOAD}"),
    };
    let http = match &cli.target {
        Target::Http(http) => Some(http),
        _ => None,
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
        think_s: load.think.map(|think| think.as_secs_f64()),
        timeout_s: load.timeout.as_secs_f64(),
        pacing: load.pacing(),
        rate: load.constant_rate(),
        stages: load.stages(),
        conn_rate: load.conn_rate,
        arrivals: load.is_on_schedule().then(|| load.arrivals.name()),
        drain_ok: load.drain_ok,
        expect_disconnects: load.expect_disconnects,
        vary_ok: http.is_some_and(|http| http.vary_ok),
        proxy_protocol: load.route.proxy_protocol.map(ProxyProtocol::name),
        clients: load.route.clients,
        method: http.filter(|http| http.urls.is_none()).map(|http| http.method().into()),
        body_bytes: http.and_then(|http| http.body.as_ref()).map(|Body(bytes)| bytes.len() as u64),
        urls: http.and_then(|http| http.urls.as_ref()).map(|List(list)| list.len() as u64),
        expect_status: http.and_then(|http| http.expect_status.as_ref()).map(Statuses::to_string),
    }
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
}
