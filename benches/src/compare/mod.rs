//! The interleaved comparison of two servers, or of two load generators.
//!
//! On a shared machine absolute figures drift by tens of percent within minutes. So the two
//! subjects run in turn, close together, in an order drawn anew for each pair, and only the ratio
//! within a pair is looked at: its median, and how far it spreads.

mod children;
mod generator;
mod generators;
mod plot;
mod report;
mod statistics;
mod subject;
mod wrk;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use generator::Generator;
pub use generators::{Generators, GeneratorsReport, run as run_generators};
pub use report::Report;
pub use subject::{PROGRAMS, Protocol, Subject};

use crate::machine::{self, CpuTime};
use children::Scratch;
use generator::{Loaded, Request};
use report::{Connections, Pair, Run};
use subject::{Server, Setting};

/// How long each subject is loaded before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// What comparisons of every kind have in common.
pub struct Common {
    /// What is spoken.
    pub protocol: Protocol,
    /// Pairs of runs, per count of connections.
    pub pairs: usize,
    /// Counts of connections.
    pub connections: Vec<u32>,
    /// Length of one run.
    pub duration: Duration,
    /// Echo: length of a message. HTTP: length of the body.
    pub size_bytes: u32,
    /// Where programs lie that are not where they are looked for, by name.
    pub programs: HashMap<String, PathBuf>,
    /// The CPU of the servers.
    pub server_cpu: usize,
    /// The CPU of the load generator.
    pub load_cpu: usize,
    /// Decides which goes first in each pair.
    pub seed: u64,
}

/// Which servers to compare.
pub struct Plan {
    /// Above the line of the ratio.
    pub a: Subject,
    /// Below it.
    pub b: Subject,
    /// Who asks.
    pub generator: Generator,
    /// How.
    pub common: Common,
}

/// Runs the whole plan. Both servers are kept alive throughout and loaded in turn; the idle one
/// sleeps.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let Plan { a, b, generator, ref common } = *plan;
    let scratch = Scratch::create()?;
    let setting =
        Setting::prepare(common, &scratch, &[a.program(), b.program(), generator.program()])?;
    let (of_a, of_b) = (setting.start(a)?, setting.start(b)?);
    let measure = |server: &Server, connections, duration| {
        let Spent { loaded, server_cpu, load_cpu } =
            measure(common, &scratch, server, generator, connections, duration)?;
        Run::new(&loaded, server_cpu, load_cpu.sum())
    };
    let mut coin = Coin(common.seed | 1);
    let mut results = Vec::new();
    for &connections in &common.connections {
        for server in [&of_a, &of_b] {
            measure(server, connections, WARM_UP)?;
        }
        let mut pairs = Vec::new();
        for number in 1..=common.pairs {
            let one = |server| measure(server, connections, common.duration);
            let (a_first, a, b) = coin.pair(|| one(&of_a), || one(&of_b))?;
            let pair = Pair { a_first, a, b };
            eprintln!("{connections} connections, pair {number} of {}: {pair}", common.pairs);
            pairs.push(pair);
        }
        results.push(Connections::new(connections, pairs));
    }
    Ok(Report::new(plan, results))
}

/// What one run came to.
struct Spent {
    loaded: Loaded,
    /// Of the server's processes.
    server_cpu: Duration,
    /// Of the load generator's process, from its start to its end.
    load_cpu: CpuTime,
}

fn measure(
    common: &Common,
    scratch: &Scratch,
    server: &Server,
    generator: Generator,
    connections: u32,
    duration: Duration,
) -> io::Result<Spent> {
    let request = Request {
        protocol: common.protocol,
        address: server.address,
        connections,
        duration,
        size_bytes: common.size_bytes,
        cpu: common.load_cpu,
    };
    let server_cpu_before = server.cpu_time()?;
    let load_cpu_before = machine::ended_children_cpu_time()?;
    let loaded = generator.run(&request, common, scratch)?;
    let server_cpu = server.cpu_time()? - server_cpu_before;
    // Children are counted when they have ended; the servers have not.
    let load_cpu = machine::ended_children_cpu_time()? - load_cpu_before;
    Ok(Spent { loaded, server_cpu, load_cpu })
}

/// xorshift64 (Marsaglia, 2003): enough to toss a coin.
struct Coin(u64);

impl Coin {
    fn toss(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 63 == 1
    }

    /// Does both, in an order that it draws, and tells whether `a` went first.
    fn pair<T>(
        &mut self,
        a: impl FnOnce() -> io::Result<T>,
        b: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<(bool, T, T)> {
        if self.toss() {
            let a = a()?;
            Ok((true, a, b()?))
        } else {
            let b = b()?;
            Ok((false, a()?, b))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Coin;

    #[test]
    fn both_sides_come_up() {
        let mut coin = Coin(2026);
        let heads = (0..1000).filter(|_| coin.toss()).count();
        assert!((400..600).contains(&heads), "{heads} of 1000");
    }
}
