//! The two probes on which `ringwrightd` parks an idle connection (`--probe`): kernel memory of
//! each, and server CPU to wake a parked connection and to park it again.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Plan;
use super::clients::{Clients, MESSAGE_BYTES};
use super::results::Ratio;
use crate::compare::{Coin, Protocol, Scratch, Server, Setting, Spread, Subject, locate};
use crate::machine;

/// Values of `--probe`, in the order of [`Probed::probes`].
const PROBES: [&str; 2] = ["recv", "poll"];
/// `park_after` of the engine (5 s), and half a second for its timers.
const PARK_AFTER: Duration = Duration::from_millis(5_500);
const CASES: [Case; 2] = [
    Case { connections: 4_000, parks_after: PARK_AFTER, wakes: 2 },
    Case { connections: 16_000, parks_after: Duration::from_millis(100), wakes: 8 },
];
const QUICK: Case = Case { connections: 300, parks_after: PARK_AFTER, wakes: 1 };
/// The number of starts of each server. Each start gives one sample of the kernel memory. Other
/// programs allocate meanwhile and disturb some samples.
const STARTS: usize = 5;
/// The kernel frees what closed rings and sockets held after a grace period.
const FREE_WAIT: Duration = Duration::from_secs(1);
/// Both ends of these are held by the bench to learn what sockets alone take.
const SOCKET_PAIRS: usize = 2_000;
const WAIT_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One number of connections. Up to `streaming_connections_max` (8,192) an idle connection parks
/// after `park_after`. Above it, a connection parks as soon as its message is read.
struct Case {
    connections: usize,
    /// The wait after a wake, in which all connections are parked again.
    parks_after: Duration,
    /// The number of wakes of each connection in a round.
    wakes: u32,
}

/// Both probes with one number of connections.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Probed {
    /// Connections of each server. In every round all of them are woken, once or several times.
    pub connections: usize,
    /// Rounds of `cpu_us`.
    pub rounds: usize,
    /// The interval of `cpu_ratio` is within the bound.
    pub precise: bool,
    /// The first is `recv`, the second `poll`.
    pub probes: Vec<ProbeSamples>,
    /// Server CPU per cycle, recv / poll.
    pub cpu_ratio: Ratio,
}

/// One probe.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct ProbeSamples {
    /// Value of `--probe`.
    pub name: String,
    /// Bytes of the slab caches `io_kiocb` and `kmalloc-*` (slabinfo(5)) per parked connection,
    /// less what the sockets alone take from them. One sample of each start.
    pub kernel_bytes: Vec<f64>,
    /// Server CPU, user and system, to wake a connection, to answer 32 bytes and to park it again;
    /// microseconds. One sample of each round.
    pub cpu_us: Vec<f64>,
}

impl ProbeSamples {
    pub fn kernel_bytes(&self) -> f64 {
        Spread::of(self.kernel_bytes.iter().copied()).median
    }

    pub fn cpu_us(&self) -> f64 {
        Spread::of(self.cpu_us.iter().copied()).median
    }
}

/// Measures both probes in each case.
pub fn run(plan: &Plan, scratch: &Scratch) -> io::Result<Vec<Probed>> {
    locate(Subject::Ringwrightd.program(), &plan.place.programs)?;
    let cases = if plan.quick { &[QUICK][..] } else { &CASES };
    cases.iter().map(|case| case.run(plan, scratch)).collect()
}

impl Case {
    fn run(&self, plan: &Plan, scratch: &Scratch) -> io::Result<Probed> {
        let (mut lanes, kernel_bytes) = self.start(plan, scratch)?;
        let mut coin = Coin::new(plan.place.seed);
        let mut cpu_us = [Vec::new(), Vec::new()];
        loop {
            for (samples, cpu) in cpu_us.iter_mut().zip(self.round(&mut lanes, &mut coin)?) {
                let cycles = self.connections as f64 * f64::from(self.wakes);
                samples.push(cpu.as_secs_f64() * 1e6 / cycles);
            }
            let ratios = cpu_us[0].iter().zip(&cpu_us[1]).map(|(recv, poll)| recv / poll);
            let cpu_ratio = Ratio::of(ratios.collect());
            let rounds = cpu_ratio.rounds.len();
            let precise = cpu_ratio.uncertainty() <= super::UNCERTAINTY_MAX;
            if (rounds >= plan.rounds_min && precise) || rounds >= plan.rounds_max {
                let probes = PROBES.iter().zip(kernel_bytes).zip(cpu_us);
                let probes = probes.map(|((name, kernel_bytes), cpu_us)| ProbeSamples {
                    name: (*name).to_owned(),
                    kernel_bytes,
                    cpu_us,
                });
                let probes = probes.collect();
                let probed =
                    Probed { connections: self.connections, rounds, precise, probes, cpu_ratio };
                eprintln!("{}", summary(&probed));
                return Ok(probed);
            }
        }
    }

    /// The lanes of the last start, and for each probe the kernel memory of all starts.
    fn start(&self, plan: &Plan, scratch: &Scratch) -> io::Result<(Vec<Lane>, [Vec<f64>; 2])> {
        let socket_bytes = socket_bytes()?;
        let mut lanes = Vec::new();
        let mut kernel_bytes = [Vec::new(), Vec::new()];
        for _ in 0..if plan.quick { 1 } else { STARTS } {
            lanes.clear();
            thread::sleep(FREE_WAIT);
            for (probe, bytes) in PROBES.iter().zip(&mut kernel_bytes) {
                let lane = Lane::start(plan, scratch, probe, self.connections)?;
                bytes.push(lane.kernel_bytes - socket_bytes);
                lanes.push(lane);
            }
        }
        Ok((lanes, kernel_bytes))
    }

    /// Server CPU of each lane. All wait together, since waiting takes the longest.
    fn round(&self, lanes: &mut [Lane], coin: &mut Coin) -> io::Result<[Duration; 2]> {
        let mut cpu = [Duration::ZERO; 2];
        for _ in 0..self.wakes {
            let mut order = [0, 1];
            coin.shuffle(&mut order);
            let woken = order.map(|index| (index, lanes[index].wake()));
            thread::sleep(self.parks_after);
            for (index, before) in woken {
                cpu[index] += lanes[index].cycle(&before?)?;
            }
        }
        Ok(cpu)
    }
}

fn summary(probed: &Probed) -> String {
    let of = |samples: &ProbeSamples| {
        let (bytes, cpu_us) = (samples.kernel_bytes(), samples.cpu_us());
        format!("{} {bytes:.0} bytes, {cpu_us:.2} µs", samples.name)
    };
    let probes: Vec<String> = probed.probes.iter().map(of).collect();
    let (low, high) = probed.cpu_ratio.interval;
    format!(
        "probe: {} connections, {} rounds: {}; CPU, recv / poll {:.3} ({low:.3} – {high:.3})",
        probed.connections,
        probed.rounds,
        probes.join(", "),
        probed.cpu_ratio.spread.median
    )
}

/// A server with one of the probes, and its clients.
struct Lane {
    /// Dropped before the server, which then ends without clients.
    clients: Clients,
    server: Server,
    admin: SocketAddr,
    connections: u64,
    /// Growth of [`slab_bytes`] per connection until all connections were parked.
    kernel_bytes: f64,
}

/// A lane with every connection parked, before a wake.
struct Before {
    cpu: Duration,
    counts: Counts,
}

/// Three figures of the server's `/metrics`.
struct Counts {
    parked_now: u64,
    starvations: u64,
    received_bytes: u64,
}

impl Lane {
    /// Starts the server and waits until all connections are parked.
    fn start(plan: &Plan, scratch: &Scratch, probe: &str, connections: usize) -> io::Result<Self> {
        let setting = Setting {
            protocol: Protocol::Echo,
            size_bytes: MESSAGE_BYTES as u32,
            programs: plan.place.programs.clone(),
            cpu: Some(plan.place.server_cpu),
            shards: 1,
            ring: plan.place.ring,
            folder: scratch.path().join(format!("probe-{probe}")),
        };
        setting.prepare(0)?;
        let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let arguments = ["--probe", probe, "--admin", &admin.to_string()];
        let server = setting.start_with(Subject::Ringwrightd, &arguments)?;
        let before = slab_bytes()?;
        let clients = Clients::connect(server.address, connections, plan.place.load_cpu)?;
        let connections = connections as u64;
        let mut lane = Self { clients, server, admin, connections, kernel_bytes: 0.0 };
        thread::sleep(PARK_AFTER);
        lane.parked()?;
        lane.kernel_bytes = (slab_bytes()? - before) / connections as f64;
        Ok(lane)
    }

    /// Sends a message on every connection, all of which are parked.
    fn wake(&mut self) -> io::Result<Before> {
        let (_, counts) = self.parked()?;
        // Once more: the CPU time of the question is not the cycle's.
        let before = Before { cpu: self.server.cpu_time()?, counts };
        self.clients.ask_all()?;
        Ok(before)
    }

    /// CPU time since `before`, after which every connection was woken and parked again.
    fn cycle(&self, before: &Before) -> io::Result<Duration> {
        let (cpu, counts) = self.parked()?;
        let received = counts.received_bytes - before.counts.received_bytes;
        let starvations = counts.starvations - before.counts.starvations;
        if received != self.connections * MESSAGE_BYTES as u64 || starvations > 0 {
            return Err(io::Error::other(format!(
                "probe: {received} bytes and {starvations} starved receives in a round, expected \
                 {MESSAGE_BYTES} bytes for each of {} connections and none",
                self.connections
            )));
        }
        Ok(cpu - before.cpu)
    }

    /// Waits until every connection is parked. The CPU time is read before the server is asked, so
    /// that the last question is not in it.
    fn parked(&self) -> io::Result<(Duration, Counts)> {
        let start = Instant::now();
        loop {
            let cpu = self.server.cpu_time()?;
            let counts = Counts::read(self.admin)?;
            if counts.parked_now == self.connections {
                return Ok((cpu, counts));
            }
            if start.elapsed() > WAIT_MAX {
                return Err(io::Error::other(format!(
                    "probe: {} of {} connections are parked after {WAIT_MAX:?}",
                    counts.parked_now, self.connections
                )));
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Counts {
    fn read(admin: SocketAddr) -> io::Result<Self> {
        let mut client = TcpStream::connect_timeout(&admin, WAIT_MAX)?;
        client.set_read_timeout(Some(WAIT_MAX))?;
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        client.read_to_string(&mut page)?;
        Self::parse(&page).ok_or_else(|| io::Error::other(format!("metrics missing in:\n{page}")))
    }

    /// Reads the metrics page of a server with one shard.
    fn parse(page: &str) -> Option<Self> {
        let number = |name: &str| {
            let of_shard = format!("{name}{{shard=\"0\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&of_shard)?.parse().ok())
        };
        Some(Self {
            parked_now: number("ringwright_connections_parked")?,
            starvations: number("ringwright_starvations_total")?,
            received_bytes: number("ringwright_received_bytes_total")?,
        })
    }
}

/// Bytes in use in the slab caches of requests and their parts. For root only.
fn slab_bytes() -> io::Result<f64> {
    let path = "/proc/slabinfo";
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}: run as root")))?;
    let bytes = |line: &str| {
        let mut columns = line.split_whitespace();
        let name = columns.next()?;
        let in_use: f64 = columns.next()?.parse().ok()?;
        let object_bytes: f64 = columns.nth(1)?.parse().ok()?;
        (name == "io_kiocb" || name.starts_with("kmalloc-")).then_some(in_use * object_bytes)
    };
    Ok(text.lines().filter_map(bytes).sum())
}

/// Bytes that both ends of a connection take from the caches of [`slab_bytes`] without any ring.
fn socket_bytes() -> io::Result<f64> {
    machine::need_descriptors(2 * SOCKET_PAIRS as u64 + 100)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let before = slab_bytes()?;
    let pair = |_| Ok((TcpStream::connect(address)?, listener.accept()?));
    let _pairs = (0..SOCKET_PAIRS).map(pair).collect::<io::Result<Vec<_>>>()?;
    Ok((slab_bytes()? - before) / SOCKET_PAIRS as f64)
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn metrics_of_the_shard_are_read() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# HELP ringwright_connections_parked …\n\
            ringwright_connections_parked{shard=\"0\"} 3\n\
            ringwright_starvations_total{shard=\"0\"} 1\n\
            ringwright_received_bytes_total{shard=\"0\"} 96\n";
        let counts = Counts::parse(page).unwrap();
        assert_eq!((counts.parked_now, counts.starvations, counts.received_bytes), (3, 1, 96));
        assert!(Counts::parse("HTTP/1.1 503 Service Unavailable\r\n\r\n").is_none());
    }
}
