//! What a comparison says: on the terminal, and as JSON.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;

use super::Plan;
use super::generator::Loaded;
use super::plot::{self, Row};
use super::statistics::Spread;
use crate::machine;

/// Below this share of its CPU a server was not the bottleneck.
const SATURATED: f64 = 0.9;

/// The whole comparison.
#[derive(Serialize)]
pub struct Report {
    /// Version of this form; fields may be added without a change of it.
    pub schema: u32,
    /// What was spoken.
    pub protocol: String,
    /// Above the line of each ratio.
    pub a: String,
    /// Below it.
    pub b: String,
    /// The load generator.
    pub load: &'static str,
    /// Of `ringwrightd` and `ringload`.
    pub ring: &'static str,
    /// Length of a message, or of the file.
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
    /// Replies per second, a/b: above 1, a is faster.
    pub throughput_ratio: Spread,
    /// Server CPU time per reply, a/b: below 1, a is cheaper.
    pub cpu_ratio: Spread,
    /// Medians of a alone.
    pub a: Run,
    /// Medians of b alone.
    pub b: Run,
    /// One after the other.
    pub pairs: Vec<Pair>,
}

/// Two runs, one right after the other.
#[derive(Serialize)]
pub struct Pair {
    /// Whether a went first.
    pub a_first: bool,
    /// The run of a.
    pub a: Run,
    /// The run of b.
    pub b: Run,
}

/// One run, or the medians of several.
#[derive(Clone, Serialize)]
pub struct Run {
    /// Replies per second.
    pub replies_per_s: f64,
    /// CPU time of the server per reply, connecting included.
    pub server_cpu_us_per_reply: f64,
    /// CPU time of the load generator per reply, connecting included.
    pub load_cpu_us_per_reply: f64,
    /// Share of the run that the server computed.
    pub server_busy: f64,
    /// Share of the run that the load generator computed.
    pub load_busy: f64,
}

impl Run {
    /// From what the generator counted, and the CPU times spent meanwhile.
    pub fn new(loaded: &Loaded, server_cpu: Duration, load_cpu: Duration) -> io::Result<Self> {
        if loaded.replies == 0 || loaded.elapsed_s <= 0.0 {
            return Err(io::Error::other("a run without a single reply: is the server up to it?"));
        }
        let replies = loaded.replies as f64;
        Ok(Self {
            replies_per_s: replies / loaded.elapsed_s,
            server_cpu_us_per_reply: server_cpu.as_secs_f64() * 1e6 / replies,
            load_cpu_us_per_reply: load_cpu.as_secs_f64() * 1e6 / replies,
            server_busy: server_cpu.as_secs_f64() / loaded.elapsed_s,
            load_busy: load_cpu.as_secs_f64() / loaded.elapsed_s,
        })
    }

    fn medians<'a>(runs: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let median = |of: fn(&Self) -> f64| Spread::of(runs.clone().map(of)).median;
        Self {
            replies_per_s: median(|run| run.replies_per_s),
            server_cpu_us_per_reply: median(|run| run.server_cpu_us_per_reply),
            load_cpu_us_per_reply: median(|run| run.load_cpu_us_per_reply),
            server_busy: median(|run| run.server_busy),
            load_busy: median(|run| run.load_busy),
        }
    }
}

impl Pair {
    /// Replies per second, a/b.
    pub fn throughput_ratio(&self) -> f64 {
        self.a.replies_per_s / self.b.replies_per_s
    }

    /// Server CPU time per reply, a/b.
    pub fn cpu_ratio(&self) -> f64 {
        self.a.server_cpu_us_per_reply / self.b.server_cpu_us_per_reply
    }
}

impl Connections {
    /// Sums up at least one pair.
    pub fn new(connections: u32, pairs: Vec<Pair>) -> Self {
        Self {
            connections,
            throughput_ratio: Spread::of(pairs.iter().map(Pair::throughput_ratio)),
            cpu_ratio: Spread::of(pairs.iter().map(Pair::cpu_ratio)),
            a: Run::medians(pairs.iter().map(|pair| &pair.a)),
            b: Run::medians(pairs.iter().map(|pair| &pair.b)),
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
            row("replies/s", &self.throughput_ratio, Pair::throughput_ratio, "#1f6fb2"),
            row("CPU per reply", &self.cpu_ratio, Pair::cpu_ratio, "#b2541f"),
        ]
    }
}

impl Report {
    /// Adds what it was measured with.
    pub fn new(plan: &Plan, results: Vec<Connections>) -> Self {
        let Plan { a, b, generator, ref common } = *plan;
        Self {
            schema: 1,
            protocol: common.protocol.to_string(),
            a: a.to_string(),
            b: b.to_string(),
            load: generator.name(),
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
        let title = format!(
            "{} / {}: {}, {} bytes, loaded by {}",
            self.a, self.b, self.protocol, self.size_bytes, self.load
        );
        let groups: Vec<_> = self.results.iter().map(Connections::rows).collect();
        plot::svg(&title, &groups)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} / {:.0} replies/s = {:.3}, CPU {:.2} / {:.2} µs = {:.3}, {} first",
            self.a.replies_per_s,
            self.b.replies_per_s,
            self.throughput_ratio(),
            self.a.server_cpu_us_per_reply,
            self.b.server_cpu_us_per_reply,
            self.cpu_ratio(),
            if self.a_first { "a" } else { "b" },
        )
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, q1, median, q3, max } = self;
        write!(f, "{median:.3}  ({min:.3} | {q1:.3} – {q3:.3} | {max:.3})")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, a, b, load, ring, size_bytes, run_s, seed, .. } = self;
        writeln!(
            f,
            "{protocol}: a = {a}, b = {b}; {size_bytes} bytes, loaded by {load}, --ring {ring}, \
             {run_s} s each, seed {seed}"
        )?;
        writeln!(f, "ratios a/b: median  (min | quartiles | max)")?;
        for of in &self.results {
            writeln!(f, "\n{} connections, {} pairs", of.connections, of.pairs.len())?;
            writeln!(f, "  replies per second   {}", of.throughput_ratio)?;
            writeln!(f, "  server CPU per reply {}", of.cpu_ratio)?;
            for (name, run) in [(a, &of.a), (b, &of.b)] {
                let Run {
                    replies_per_s,
                    server_cpu_us_per_reply: cpu_us,
                    server_busy,
                    load_busy,
                    ..
                } = run;
                let (server_busy, load_busy) = (server_busy * 100.0, load_busy * 100.0);
                writeln!(
                    f,
                    "  {name:<12} {replies_per_s:>8.0} replies/s  {cpu_us:>6.2} µs server CPU per reply  \
                     busy: server {server_busy:.0} %, load {load_busy:.0} %",
                )?;
            }
            if [&of.a, &of.b].iter().any(|run| run.server_busy < SATURATED) {
                writeln!(
                    f,
                    "  A server below {:.0} % was not the bottleneck: \
                     go by CPU per reply.",
                    SATURATED * 100.0
                )?;
            }
        }
        Ok(())
    }
}
