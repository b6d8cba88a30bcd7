//! The report of a comparison: text for the terminal, and JSON.

use std::fmt;
use std::io;

use serde::Serialize;

use super::plot::{self, Row};
use super::statistics::Spread;
use super::{Common, Sides, Spent};
use crate::machine;

/// A server below this share of its CPU was not the bottleneck.
const SATURATED: f64 = 0.9;
const BLUE: &str = "#1f6fb2";
const BROWN: &str = "#b2541f";

/// The whole comparison of two servers, or of two load generators.
#[derive(Serialize)]
pub struct Report {
    /// Version of this form; fields may be added without changing it.
    pub schema: u32,
    /// The protocol.
    pub protocol: String,
    /// `servers` or `generators`.
    pub compares: &'static str,
    /// The numerator of each ratio.
    pub a: String,
    /// The denominator.
    pub b: String,
    /// The load generator of both servers, or the server of both generators.
    pub with: String,
    /// Kernel interface of `ringwrightd` and `ringload`.
    pub ring: &'static str,
    /// Size of a message, or of the file.
    pub size_bytes: u32,
    /// Duration of one run.
    pub run_s: f64,
    /// Seed for the order of the runs.
    pub seed: u64,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// CPUs of the machine that this process may use.
    pub cpus: usize,
    /// One entry for each number of connections.
    pub results: Vec<Connections>,
}

/// All pairs with one number of connections.
#[derive(Serialize)]
pub struct Connections {
    /// The number of connections.
    pub connections: u32,
    /// Replies per second, a/b: above 1, a is faster.
    pub throughput_ratio: Spread,
    /// Server CPU time per reply, a/b: below 1, a is cheaper.
    pub cpu_ratio: Spread,
    /// Replies per second of the generator's CPU time, a/b: above 1, a is cheaper.
    pub replies_per_load_cpu_s_ratio: Spread,
    /// Medians of a.
    pub a: Run,
    /// Medians of b.
    pub b: Run,
    /// The pairs, in order.
    pub pairs: Vec<Pair>,
}

/// Two runs, one right after the other.
#[derive(Serialize)]
pub struct Pair {
    /// True if a ran first.
    pub a_first: bool,
    /// The run of a.
    pub a: Run,
    /// The run of b.
    pub b: Run,
}

/// One run, or the medians of several. CPU time of the load generator is that of its process from
/// its start to its end.
#[derive(Clone, Serialize)]
pub struct Run {
    /// Replies per second.
    pub replies_per_s: f64,
    /// Replies per second of the load generator's CPU time.
    pub replies_per_load_cpu_s: f64,
    /// CPU time of the server per reply, connecting included.
    pub server_cpu_us_per_reply: f64,
    /// CPU time of the load generator in its program per reply.
    pub load_user_us_per_reply: f64,
    /// CPU time of the load generator in the kernel per reply.
    pub load_system_us_per_reply: f64,
    /// Share of the run in which the server used its CPU.
    pub server_busy: f64,
    /// Share of the run in which the load generator used its CPU.
    pub load_busy: f64,
}

impl Run {
    /// Makes the figures of a run from its counts and CPU times.
    pub fn new(Spent { loaded, server_cpu, load_cpu }: &Spent) -> io::Result<Self> {
        if loaded.replies == 0 || loaded.elapsed_s <= 0.0 {
            return Err(io::Error::other("a run without a single reply: is the server up to it?"));
        }
        let replies = loaded.replies as f64;
        let load_cpu_s = load_cpu.sum().as_secs_f64();
        Ok(Self {
            replies_per_s: replies / loaded.elapsed_s,
            replies_per_load_cpu_s: replies / load_cpu_s,
            server_cpu_us_per_reply: server_cpu.as_secs_f64() * 1e6 / replies,
            load_user_us_per_reply: load_cpu.user.as_secs_f64() * 1e6 / replies,
            load_system_us_per_reply: load_cpu.system.as_secs_f64() * 1e6 / replies,
            server_busy: server_cpu.as_secs_f64() / loaded.elapsed_s,
            load_busy: load_cpu_s / loaded.elapsed_s,
        })
    }

    fn medians<'a>(runs: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let median = |of: fn(&Self) -> f64| Spread::of(runs.clone().map(of)).median;
        Self {
            replies_per_s: median(|run| run.replies_per_s),
            replies_per_load_cpu_s: median(|run| run.replies_per_load_cpu_s),
            server_cpu_us_per_reply: median(|run| run.server_cpu_us_per_reply),
            load_user_us_per_reply: median(|run| run.load_user_us_per_reply),
            load_system_us_per_reply: median(|run| run.load_system_us_per_reply),
            server_busy: median(|run| run.server_busy),
            load_busy: median(|run| run.load_busy),
        }
    }
}

impl Pair {
    fn throughput_ratio(&self) -> f64 {
        self.a.replies_per_s / self.b.replies_per_s
    }

    fn cpu_ratio(&self) -> f64 {
        self.a.server_cpu_us_per_reply / self.b.server_cpu_us_per_reply
    }

    fn replies_per_load_cpu_s_ratio(&self) -> f64 {
        self.a.replies_per_load_cpu_s / self.b.replies_per_load_cpu_s
    }

    /// Describes the pair in a line of progress.
    pub fn line(&self, sides: Sides) -> String {
        let Self { a, b, .. } = self;
        let rates = format!("{:.0} / {:.0} replies/s", a.replies_per_s, b.replies_per_s);
        let first = if self.a_first { "a" } else { "b" };
        match sides {
            Sides::Servers { .. } => format!(
                "{rates} = {:.3}, CPU {:.2} / {:.2} µs = {:.3}, {first} first",
                self.throughput_ratio(),
                a.server_cpu_us_per_reply,
                b.server_cpu_us_per_reply,
                self.cpu_ratio()
            ),
            Sides::Generators { .. } => format!(
                "{:.0} / {:.0} replies per CPU-second = {:.3}, {rates}, {first} first",
                a.replies_per_load_cpu_s,
                b.replies_per_load_cpu_s,
                self.replies_per_load_cpu_s_ratio()
            ),
        }
    }
}

impl Connections {
    /// Makes the ratios and medians of at least one pair.
    pub fn new(connections: u32, pairs: Vec<Pair>) -> Self {
        Self {
            connections,
            throughput_ratio: Spread::of(pairs.iter().map(Pair::throughput_ratio)),
            cpu_ratio: Spread::of(pairs.iter().map(Pair::cpu_ratio)),
            replies_per_load_cpu_s_ratio: Spread::of(
                pairs.iter().map(Pair::replies_per_load_cpu_s_ratio),
            ),
            a: Run::medians(pairs.iter().map(|pair| &pair.a)),
            b: Run::medians(pairs.iter().map(|pair| &pair.b)),
            pairs,
        }
    }

    fn rows(&self, of_servers: bool) -> Vec<Row<'_>> {
        let row = |name: &str, spread, ratio: fn(&Pair) -> f64, colour| Row {
            name: format!("{} connections, {name}", self.connections),
            spread,
            values: self.pairs.iter().map(ratio).collect(),
            colour,
        };
        let rate = row("replies/s", &self.throughput_ratio, Pair::throughput_ratio, BLUE);
        match of_servers {
            true => vec![rate, row("CPU per reply", &self.cpu_ratio, Pair::cpu_ratio, BROWN)],
            false => {
                let spread = &self.replies_per_load_cpu_s_ratio;
                let ratio = Pair::replies_per_load_cpu_s_ratio;
                vec![row("replies/CPU-s", spread, ratio, BROWN), rate]
            }
        }
    }
}

impl Report {
    /// Adds the conditions of the measurement to the results.
    pub fn new(sides: Sides, common: &Common, results: Vec<Connections>) -> Self {
        let (compares, a, b, with) = match sides {
            Sides::Servers { a, b, generator } => {
                ("servers", a.to_string(), b.to_string(), generator.name().to_owned())
            }
            Sides::Generators { a, b, server } => {
                ("generators", a.name().to_owned(), b.name().to_owned(), server.to_string())
            }
        };
        Self {
            schema: 2,
            protocol: common.protocol.to_string(),
            compares,
            a,
            b,
            with,
            ring: common.place.ring.name(),
            size_bytes: common.size_bytes,
            run_s: common.place.duration.as_secs_f64(),
            seed: common.place.seed,
            kernel: machine::kernel(),
            cpus: machine::cpus(),
            results,
        }
    }

    fn of_servers(&self) -> bool {
        self.compares == "servers"
    }

    fn conditions(&self) -> String {
        let Self { size_bytes, with, .. } = self;
        match self.of_servers() {
            true => format!("{size_bytes} bytes, loaded by {with}"),
            false => format!("{size_bytes} bytes from {with}"),
        }
    }

    /// Draws the ratios.
    pub fn svg(&self) -> String {
        let Self { a, b, protocol, .. } = self;
        let title = format!("{a} / {b}: {protocol}, {}", self.conditions());
        let groups: Vec<_> =
            self.results.iter().map(|connections| connections.rows(self.of_servers())).collect();
        plot::svg(&title, &groups)
    }

    fn write_servers(&self, f: &mut fmt::Formatter<'_>, of: &Connections) -> fmt::Result {
        writeln!(f, "  replies per second   {}", of.throughput_ratio)?;
        writeln!(f, "  server CPU per reply {}", of.cpu_ratio)?;
        for (name, run) in [(&self.a, &of.a), (&self.b, &of.b)] {
            writeln!(
                f,
                "  {name:<12} {:>8.0} replies/s  {:>6.2} µs server CPU per reply  busy: server \
                 {:.0} %, load {:.0} %",
                run.replies_per_s,
                run.server_cpu_us_per_reply,
                run.server_busy * 100.0,
                run.load_busy * 100.0
            )?;
        }
        if [&of.a, &of.b].iter().any(|run| run.server_busy < SATURATED) {
            let percent = SATURATED * 100.0;
            writeln!(
                f,
                "  A server below {percent:.0} % was not the bottleneck: go by CPU per reply."
            )?;
        }
        Ok(())
    }

    fn write_generators(&self, f: &mut fmt::Formatter<'_>, of: &Connections) -> fmt::Result {
        writeln!(f, "  replies per CPU-second {}", of.replies_per_load_cpu_s_ratio)?;
        writeln!(f, "  replies per second     {}", of.throughput_ratio)?;
        for (name, run) in [(&self.a, &of.a), (&self.b, &of.b)] {
            writeln!(
                f,
                "  {name:<9} {:>8.0} replies per CPU-second  {:.2} µs user + {:.2} µs system per \
                 reply  {:.0} replies/s  busy: generator {:.0} %, server {:.0} %",
                run.replies_per_load_cpu_s,
                run.load_user_us_per_reply,
                run.load_system_us_per_reply,
                run.replies_per_s,
                run.load_busy * 100.0,
                run.server_busy * 100.0
            )?;
        }
        Ok(())
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
        let Self { protocol, compares, a, b, ring, run_s, seed, .. } = self;
        let conditions = self.conditions();
        writeln!(
            f,
            "{compares}: a = {a}, b = {b}; {protocol}, {conditions}, --ring {ring}, {run_s} s \
             each, seed {seed}"
        )?;
        writeln!(f, "ratios a/b: median  (min | quartiles | max)")?;
        for of in &self.results {
            writeln!(f, "\n{} connections, {} pairs", of.connections, of.pairs.len())?;
            match self.of_servers() {
                true => self.write_servers(f, of)?,
                false => self.write_generators(f, of)?,
            }
        }
        Ok(())
    }
}
