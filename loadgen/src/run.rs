//! One run: resolve, start the engine, watch it, stop it, report.

use crate::args::{Cli, LoadArgs, Target};
use crate::delivery::Delivery;
use crate::echo::Echo;
use crate::http::Http;
use crate::load::{CONNECTING_MAX, Load, Shared, Task};
use crate::network::Network;
use crate::output::live;
use crate::output::screen::Screen;
use crate::packets::Packets;
use crate::packets::wire::{BODY_BYTES_MAX, PREFIX_BYTES};
use crate::protocol::{ErrorKind, Fault, Protocol};
use crate::report::{Environment, Interval, Pacing, Plan, Run};
use crate::stats::Stats;
use crate::summary;
use crate::system::{self, Interrupts};
use crate::threads::Threads;
use crate::timeline::Timeline;
use ringwright::{Config, Engine, Framing};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What is in flight at the end of a run may finish within.
const GRACE: Duration = Duration::from_secs(1);
/// How often the watching thread looks up.
const POLL: Duration = Duration::from_millis(10);
/// Between two lines of output.
const LINE: Duration = Duration::from_secs(1);
/// Descriptors beside those of connections: rings, standard streams, the report.
const DESCRIPTORS_BESIDE: u64 = 64;
/// How long an address of several that a name has may take to answer.
const TRIAL: Duration = Duration::from_secs(1);

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
        _ => unreachable!("what is no load is performed elsewhere"),
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
        _ => unreachable!("what is no load is performed elsewhere"),
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
        eprintln!("ringload: {notice}");
    }
    // From here, so that setting up the rings is not taken for load.
    let cpu_before = system::cpu_time();
    let (network_before, threads_before) = (Network::now(), Threads::now());
    let mut watch = Watch::new(load, opening, shared);
    watch.until_over(interrupts);
    // Before they end. From here on they only wait for replies.
    let threads = Threads::now().since(&threads_before);
    watch.stop(&engine.remote(), interrupts);
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

/// The thread that waits for the end of a run and prints what happens meanwhile.
struct Watch<'a> {
    load: &'a LoadArgs,
    title: &'a str,
    screen: Screen,
    pacing: Pacing,
    shared: Arc<Shared>,
    start: Instant,
    last_line: Duration,
    next_line: Duration,
    stopped_at: Duration,
    run: Run,
}

impl<'a> Watch<'a> {
    fn new(load: &'a LoadArgs, title: &'a str, shared: Arc<Shared>) -> Self {
        let start = *shared.started.get_or_init(Instant::now);
        let run = Run {
            stats: Stats::new(),
            intervals: Vec::new(),
            timeline: Timeline::default(),
            elapsed: Duration::ZERO,
            cpu: system::CpuTime::default(),
            threads: Vec::new(),
            network: Network::default(),
            interrupted: false,
        };
        Self {
            load,
            title,
            screen: Screen::open(title, load.common.quiet),
            pacing: load.pacing(),
            shared,
            start,
            last_line: Duration::ZERO,
            next_line: LINE,
            stopped_at: Duration::ZERO,
            run,
        }
    }

    /// Returns when the time is over, the requests are sent, nothing answers, or a signal comes.
    fn until_over(&mut self, interrupts: &Interrupts) {
        let end = if self.load.requests.is_some() { Duration::MAX } else { self.load.duration };
        loop {
            let elapsed = self.start.elapsed();
            self.stopped_at = elapsed;
            if elapsed >= self.next_line {
                self.line(elapsed);
            }
            self.show(elapsed);
            if elapsed >= end || self.is_over() {
                return;
            }
            let nap = POLL.min(end - elapsed).min(self.next_line.saturating_sub(elapsed));
            if interrupts.wait(nap) {
                self.run.interrupted = true;
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        let shards = self.load.threads as usize;
        let all = |count: usize| count == shards;
        all(self.shared.finished.load(Ordering::Relaxed))
            || (all(self.shared.hopeless.load(Ordering::Relaxed))
                && !self.shared.connected.load(Ordering::Relaxed))
    }

    /// Takes what the shards have published since the last time, and prints it.
    fn line(&mut self, elapsed: Duration) {
        let mut part = Stats::new();
        part.absorb(&mut self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner));
        let (start, length) = (self.last_line, elapsed - self.last_line);
        let interval = Interval::of(&part, self.pacing, elapsed, length);
        self.keep_histograms(&part, start, length);
        self.run.stats.absorb(&mut part);
        let line = summary::line(&interval, self.run.stats.replies);
        self.screen.line(&summary::heading(), line);
        self.run.keep(interval);
        self.last_line = elapsed;
        while self.next_line <= elapsed {
            self.next_line += LINE;
        }
    }

    /// The live view, where there is one.
    fn show(&mut self, elapsed: Duration) {
        let Self { load, title, screen, pacing, run, .. } = self;
        let done = match load.requests {
            Some(requests) => run.stats.requests as f64 / requests as f64,
            None => elapsed.as_secs_f64() / load.duration.as_secs_f64(),
        };
        screen.show(|| live::picture(title, *pacing, run, elapsed, Some(done)));
    }

    fn keep_histograms(&mut self, part: &Stats, start: Duration, length: Duration) {
        for (tag, times) in [
            ("latency", &part.latency_ns),
            ("session", &part.session_ns),
            ("service", &part.service_ns),
            ("connect", &part.connect_ns),
            ("lag", &part.lag_ns),
        ] {
            self.run.timeline.keep(tag, start, length, times);
        }
    }

    /// Lets what is in flight finish: as long as a reply may take, so that a server that hangs
    /// does not pass because the time was up; after a signal only for a moment. A second signal
    /// does not wait at all.
    fn stop(&mut self, remote: &ringwright::Remote, interrupts: &Interrupts) {
        self.shared.interrupted.store(self.run.interrupted, Ordering::Relaxed);
        self.shared.ended_ns.store(self.stopped_at.as_nanos() as u64, Ordering::Relaxed);
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut wait = if self.run.interrupted { GRACE } else { self.load.timeout + GRACE };
        let since = Instant::now();
        // Busy is no shard with so few commands as ours; but then it is asked again.
        while (remote.drain(wait).is_err() || remote.connections() > 0) && since.elapsed() < wait {
            if interrupts.wait(Duration::from_millis(1)) {
                if self.run.interrupted {
                    self.screen.close();
                    eprintln!("ringload: interrupted again; no report");
                    std::process::exit(130);
                }
                self.run.interrupted = true;
                self.shared.interrupted.store(true, Ordering::Relaxed);
                wait = Duration::ZERO;
                let _ = remote.drain(wait);
            }
        }
    }

    /// After the shards have ended.
    fn result(mut self) -> Run {
        let mut rest = Stats::new();
        rest.absorb(&mut self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner));
        let length = self.start.elapsed().saturating_sub(self.last_line);
        self.keep_histograms(&rest, self.last_line, length);
        self.run.stats.absorb(&mut rest);
        let last_reply = Duration::from_nanos(self.run.stats.last_reply_ns);
        // A run of so many requests ends with the last reply, not when that was noticed.
        let all_sent = self.load.requests.is_some() && !self.run.interrupted;
        self.run.elapsed = match all_sent && !last_reply.is_zero() {
            true => last_reply,
            false => last_reply.max(self.stopped_at),
        };
        self.run
    }
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
        requests_per_connection: load.requests_per_connection.unwrap_or(match load.pacing() {
            Pacing::Connections => 1,
            _ => u64::MAX,
        }),
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
        _ => unreachable!("what is no load is performed elsewhere"),
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
        requests_per_connection: load.requests_per_connection,
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
