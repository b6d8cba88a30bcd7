//! Two load generators in turn at one server: how many replies each gets for a second of its own
//! CPU.

use std::fmt;
use std::io;

use serde::Serialize;

use super::children::Scratch;
use super::plot::{self, Row};
use super::statistics::Spread;
use super::{Coin, Common, Generator, Spent, Subject, WARM_UP, measure};
use crate::machine;

/// Which load generators to compare.
pub struct Generators {
    /// Above the line of the ratio.
    pub a: Generator,
    /// Below it.
    pub b: Generator,
    /// Whom both ask.
    pub server: Subject,
    /// How.
    pub common: Common,
}

/// Runs the whole plan.
pub fn run(plan: &Generators) -> io::Result<GeneratorsReport> {
    let Generators { a, b, server, ref common } = *plan;
    let scratch = Scratch::create()?;
    let programs = [a.program(), b.program(), server.program()];
    let server = common.setting(&scratch, &programs)?.start(server)?;
    let cost = |generator, connections, duration| {
        Cost::new(&measure(common, &scratch, &server, generator, connections, duration)?)
    };
    let mut coin = Coin::new(common.place.seed);
    let mut results = Vec::new();
    for &connections in &common.connections {
        for generator in [a, b] {
            cost(generator, connections, WARM_UP)?;
        }
        let mut pairs = Vec::new();
        for number in 1..=common.pairs {
            let one = |generator| cost(generator, connections, common.place.duration);
            let (a_first, a, b) = coin.pair(|| one(a), || one(b))?;
            let pair = Pair { a_first, a, b };
            eprintln!("{connections} connections, pair {number} of {}: {pair}", common.pairs);
            pairs.push(pair);
        }
        results.push(Connections::new(connections, pairs));
    }
    Ok(GeneratorsReport::new(plan, results))
}

/// The whole comparison.
#[derive(Serialize)]
pub struct GeneratorsReport {
    /// Version of this form; fields may be added without a change of it.
    pub schema: u32,
    /// What was spoken.
    pub protocol: String,
    /// The generator above the line of each ratio.
    pub a: &'static str,
    /// Below it.
    pub b: &'static str,
    /// Whom both asked.
    pub server: String,
    /// Of `ringwrightd` and `ringload`.
    pub ring: &'static str,
    /// Length of the file.
    pub size_bytes: u32,
    /// Length of one run.
    pub run_s: f64,
    /// What decided who goes first.
    pub seed: u64,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// CPUs of the machine that this process may use.
    pub cpus: usize,
    /// By count of connections.
    pub results: Vec<Connections>,
}

/// All pairs with one count of connections.
#[derive(Serialize)]
pub struct Connections {
    /// How many.
    pub connections: u32,
    /// Replies per second of the generator's CPU, a/b: above 1, a is cheaper.
    pub replies_per_cpu_s_ratio: Spread,
    /// Replies per second, a/b.
    pub throughput_ratio: Spread,
    /// Medians of a alone.
    pub a: Cost,
    /// Medians of b alone.
    pub b: Cost,
    /// One after the other.
    pub pairs: Vec<Pair>,
}

/// Two runs, one right after the other.
#[derive(Serialize)]
pub struct Pair {
    /// Whether a went first.
    pub a_first: bool,
    /// The run of a.
    pub a: Cost,
    /// The run of b.
    pub b: Cost,
}

/// One run, or the medians of several. CPU time is that of the generator's process from its start
/// to its end.
#[derive(Clone, Serialize)]
pub struct Cost {
    /// Replies per second of CPU time.
    pub replies_per_cpu_s: f64,
    /// CPU time in the program per reply.
    pub user_us_per_reply: f64,
    /// CPU time in the kernel per reply.
    pub system_us_per_reply: f64,
    /// Replies per second of the run.
    pub replies_per_s: f64,
    /// Share of the run that the generator computed.
    pub busy: f64,
    /// Share of the run that the server computed.
    pub server_busy: f64,
}

impl Cost {
    fn new(Spent { loaded, server_cpu, load_cpu }: &Spent) -> io::Result<Self> {
        if loaded.replies == 0 || loaded.elapsed_s <= 0.0 {
            return Err(io::Error::other("a run without a single reply: is the server up to it?"));
        }
        let replies = loaded.replies as f64;
        Ok(Self {
            replies_per_cpu_s: replies / load_cpu.sum().as_secs_f64(),
            user_us_per_reply: load_cpu.user.as_secs_f64() * 1e6 / replies,
            system_us_per_reply: load_cpu.system.as_secs_f64() * 1e6 / replies,
            replies_per_s: replies / loaded.elapsed_s,
            busy: load_cpu.sum().as_secs_f64() / loaded.elapsed_s,
            server_busy: server_cpu.as_secs_f64() / loaded.elapsed_s,
        })
    }

    fn medians<'a>(costs: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let median = |of: fn(&Self) -> f64| Spread::of(costs.clone().map(of)).median;
        Self {
            replies_per_cpu_s: median(|cost| cost.replies_per_cpu_s),
            user_us_per_reply: median(|cost| cost.user_us_per_reply),
            system_us_per_reply: median(|cost| cost.system_us_per_reply),
            replies_per_s: median(|cost| cost.replies_per_s),
            busy: median(|cost| cost.busy),
            server_busy: median(|cost| cost.server_busy),
        }
    }
}

impl Pair {
    /// Replies per second of CPU time, a/b.
    pub fn cpu_ratio(&self) -> f64 {
        self.a.replies_per_cpu_s / self.b.replies_per_cpu_s
    }

    /// Replies per second, a/b.
    pub fn throughput_ratio(&self) -> f64 {
        self.a.replies_per_s / self.b.replies_per_s
    }
}

impl Connections {
    fn new(connections: u32, pairs: Vec<Pair>) -> Self {
        Self {
            connections,
            replies_per_cpu_s_ratio: Spread::of(pairs.iter().map(Pair::cpu_ratio)),
            throughput_ratio: Spread::of(pairs.iter().map(Pair::throughput_ratio)),
            a: Cost::medians(pairs.iter().map(|pair| &pair.a)),
            b: Cost::medians(pairs.iter().map(|pair| &pair.b)),
            pairs,
        }
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let row = |name: &str, spread, ratio: fn(&Pair) -> f64, colour| Row {
            name: format!("{} connections, {name}", self.connections),
            spread,
            values: self.pairs.iter().map(ratio).collect(),
            colour,
        };
        vec![
            row("replies/CPU-s", &self.replies_per_cpu_s_ratio, Pair::cpu_ratio, "#b2541f"),
            row("replies/s", &self.throughput_ratio, Pair::throughput_ratio, "#1f6fb2"),
        ]
    }
}

impl GeneratorsReport {
    fn new(plan: &Generators, results: Vec<Connections>) -> Self {
        let Generators { a, b, server, common } = plan;
        Self {
            schema: 1,
            protocol: common.protocol.to_string(),
            a: a.name(),
            b: b.name(),
            server: server.to_string(),
            ring: common.place.ring.name(),
            size_bytes: common.size_bytes,
            run_s: common.place.duration.as_secs_f64(),
            seed: common.place.seed,
            kernel: machine::kernel(),
            cpus: machine::cpus(),
            results,
        }
    }

    /// The ratios as a picture.
    pub fn svg(&self) -> String {
        let Self { a, b, protocol, size_bytes, server, .. } = self;
        let title = format!("{a} / {b}: {protocol}, {size_bytes} bytes from {server}");
        let groups: Vec<_> = self.results.iter().map(Connections::rows).collect();
        plot::svg(&title, &groups)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} / {:.0} replies per CPU-second = {:.3}, {:.0} / {:.0} replies/s, {} first",
            self.a.replies_per_cpu_s,
            self.b.replies_per_cpu_s,
            self.cpu_ratio(),
            self.a.replies_per_s,
            self.b.replies_per_s,
            if self.a_first { "a" } else { "b" },
        )
    }
}

impl fmt::Display for GeneratorsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, a, b, server, ring, size_bytes, run_s, seed, .. } = self;
        writeln!(
            f,
            "generators: a = {a}, b = {b}; {protocol}, {size_bytes} bytes from {server}, --ring \
             {ring}, {run_s} s each, seed {seed}"
        )?;
        writeln!(f, "ratios a/b: median  (min | quartiles | max)")?;
        for of in &self.results {
            writeln!(f, "\n{} connections, {} pairs", of.connections, of.pairs.len())?;
            writeln!(f, "  replies per CPU-second {}", of.replies_per_cpu_s_ratio)?;
            writeln!(f, "  replies per second     {}", of.throughput_ratio)?;
            for (name, cost) in [(a, &of.a), (b, &of.b)] {
                let Cost { user_us_per_reply: user, system_us_per_reply: system, .. } = cost;
                writeln!(
                    f,
                    "  {name:<9} {:>8.0} replies per CPU-second  {user:.2} µs user + {system:.2} µs \
                     system per reply  {:.0} replies/s  busy: generator {:.0} %, server {:.0} %",
                    cost.replies_per_cpu_s,
                    cost.replies_per_s,
                    cost.busy * 100.0,
                    cost.server_busy * 100.0,
                )?;
            }
        }
        Ok(())
    }
}
