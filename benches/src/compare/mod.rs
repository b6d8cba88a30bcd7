//! The interleaved comparison of two servers.
//!
//! On a shared machine absolute figures drift by tens of percent within minutes. So the two
//! subjects run in turn, close together, in an order drawn anew for each pair, and only the ratio
//! within a pair is looked at: its median, and how far it spreads.

mod children;
mod generator;
mod plot;
mod report;
mod statistics;
mod subject;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use generator::Generator;
pub use report::Report;
pub use subject::{PROGRAMS, Protocol, Subject};

use crate::machine;
use children::Scratch;
use generator::Request;
use report::{Connections, Pair, Run};
use subject::{Server, Setting};

/// How long each subject is loaded before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// What to compare.
pub struct Plan {
    /// What both speak.
    pub protocol: Protocol,
    /// Above the line of the ratio.
    pub a: Subject,
    /// Below it.
    pub b: Subject,
    /// Pairs of runs, per count of connections.
    pub pairs: usize,
    /// Counts of connections.
    pub connections: Vec<u32>,
    /// Length of one run.
    pub duration: Duration,
    /// Echo: length of a message. HTTP: length of the body.
    pub size_bytes: u32,
    /// Who asks.
    pub generator: Generator,
    /// Where programs lie that are not beside this one, by name.
    pub programs: HashMap<String, PathBuf>,
    /// The CPU of the servers.
    pub server_cpu: usize,
    /// The CPU of the load generator.
    pub load_cpu: usize,
    /// Decides which goes first in each pair.
    pub seed: u64,
}

/// Runs the whole plan. Both servers are kept alive throughout and loaded in turn; the idle one
/// sleeps.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let scratch = Scratch::create()?;
    let setting = Setting::prepare(plan, &scratch)?;
    let a = setting.start(plan.a)?;
    let b = setting.start(plan.b)?;
    let mut coin = Coin(plan.seed | 1);
    let mut results = Vec::new();
    for &connections in &plan.connections {
        for server in [&a, &b] {
            measure(plan, &scratch, server, connections, WARM_UP)?;
        }
        let mut pairs = Vec::new();
        for number in 1..=plan.pairs {
            let a_first = coin.toss();
            let one = |server| measure(plan, &scratch, server, connections, plan.duration);
            let (of_a, of_b) = if a_first {
                let of_a = one(&a)?;
                (of_a, one(&b)?)
            } else {
                let of_b = one(&b)?;
                (one(&a)?, of_b)
            };
            let pair = Pair { a_first, a: of_a, b: of_b };
            eprintln!("{connections} connections, pair {number} of {}: {pair}", plan.pairs);
            pairs.push(pair);
        }
        results.push(Connections::new(connections, pairs));
    }
    Ok(Report::new(plan, results))
}

fn measure(
    plan: &Plan,
    scratch: &Scratch,
    server: &Server,
    connections: u32,
    duration: Duration,
) -> io::Result<Run> {
    let request = Request {
        protocol: plan.protocol,
        address: server.address,
        connections,
        duration,
        size_bytes: plan.size_bytes,
        cpu: plan.load_cpu,
    };
    let server_cpu_before = server.cpu_time()?;
    let load_cpu_before = machine::ended_children_cpu_time()?;
    let loaded = plan.generator.run(&request, plan, scratch)?;
    let server_cpu = server.cpu_time()? - server_cpu_before;
    // Children are counted when they have ended; the servers have not.
    let load_cpu = machine::ended_children_cpu_time()? - load_cpu_before;
    Run::new(&loaded, server_cpu, load_cpu)
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
