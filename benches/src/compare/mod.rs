//! The interleaved comparison of two servers, or of two load generators.
//!
//! On a shared machine absolute figures drift by tens of percent within minutes. So the two
//! subjects run in turn, close together, in an order drawn anew for each pair, and only the ratio
//! within a pair is looked at: its median, and how far it spreads.

mod children;
mod generator;
mod generators;
mod oha;
pub mod plot;
mod report;
mod statistics;
mod subject;
mod wrk;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use children::{Process, Scratch};
pub use generator::{Generator, Loaded, Request, Times, Work};
pub use generators::{Generators, GeneratorsReport, run as run_generators};
pub use report::Report;
pub use statistics::Spread;
pub use subject::{PAYLOAD, PROGRAMS, Protocol, Ring, Server, Setting, Subject, locate};

use crate::machine::{self, CpuTime};
use report::{Connections, Pair, Run};

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
    /// Echo: length of a message. HTTP: length of the body.
    pub size_bytes: u32,
    /// The rest.
    pub place: Place,
}

/// Where runs take place, by what, and how long each is.
pub struct Place {
    /// Length of one run.
    pub duration: Duration,
    /// Where programs lie that are not where they are looked for, by name.
    pub programs: HashMap<String, PathBuf>,
    /// Of `ringwrightd` and `ringload`.
    pub ring: Ring,
    /// The CPU of the servers.
    pub server_cpu: usize,
    /// The CPU of the load generator.
    pub load_cpu: usize,
    /// Decides who goes first.
    pub seed: u64,
}

impl Common {
    /// Checks that all programs are there, and prepares what servers need.
    fn setting(&self, scratch: &Scratch, programs: &[&str]) -> io::Result<Setting> {
        for program in programs {
            subject::locate(program, &self.place.programs)?;
        }
        let setting = Setting {
            protocol: self.protocol,
            size_bytes: self.size_bytes,
            programs: self.place.programs.clone(),
            cpu: Some(self.place.server_cpu),
            shards: 1,
            ring: self.place.ring,
            folder: scratch.path().to_owned(),
        };
        setting.prepare(0)?;
        Ok(setting)
    }
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
    let setting = common.setting(&scratch, &[a.program(), b.program(), generator.program()])?;
    let (of_a, of_b) = (setting.start(a)?, setting.start(b)?);
    let measure = |server: &Server, connections, duration| {
        let Spent { loaded, server_cpu, load_cpu } =
            measure(common, &scratch, server, generator, connections, duration)?;
        Run::new(&loaded, server_cpu, load_cpu.sum())
    };
    let mut coin = Coin::new(common.place.seed);
    let mut results = Vec::new();
    for &connections in &common.connections {
        for server in [&of_a, &of_b] {
            measure(server, connections, WARM_UP)?;
        }
        let mut pairs = Vec::new();
        for number in 1..=common.pairs {
            let one = |server| measure(server, connections, common.place.duration);
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
pub struct Spent {
    /// What the generator says.
    pub loaded: Loaded,
    /// Of the server's processes.
    pub server_cpu: Duration,
    /// Of the load generator's process, from its start to its end.
    pub load_cpu: CpuTime,
}

fn measure(
    common: &Common,
    scratch: &Scratch,
    server: &Server,
    generator: Generator,
    connections: u32,
    duration: Duration,
) -> io::Result<Spent> {
    let work = Work::plain(common.protocol, common.size_bytes);
    load(&common.place, scratch, generator, &Request { server, work, connections, duration })
}

/// One run.
pub fn load(
    place: &Place,
    scratch: &Scratch,
    generator: Generator,
    request: &Request<'_>,
) -> io::Result<Spent> {
    let server_cpu_before = request.server.cpu_time()?;
    let load_cpu_before = machine::ended_children_cpu_time()?;
    let loaded = generator.run(request, place, scratch)?;
    let server_cpu = request.server.cpu_time()? - server_cpu_before;
    // Children are counted when they have ended; the servers have not.
    let load_cpu = machine::ended_children_cpu_time()? - load_cpu_before;
    Ok(Spent { loaded, server_cpu, load_cpu })
}

/// xorshift64 (Marsaglia, 2003): enough to toss a coin.
pub struct Coin(u64);

impl Coin {
    /// The same seed draws the same.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn toss(&mut self) -> bool {
        self.draw() >> 63 == 1
    }

    /// Any order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // The high bits: the low ones of a xorshift are weak.
            items.swap(last, ((self.draw() >> 32) % (last as u64 + 1)) as usize);
        }
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
        let mut coin = Coin::new(2026);
        let heads = (0..1000).filter(|_| coin.toss()).count();
        assert!((400..600).contains(&heads), "{heads} of 1000");
    }

    #[test]
    fn everybody_comes_first_sometimes() {
        let mut coin = Coin::new(2026);
        let mut firsts = [0; 5];
        for _ in 0..1000 {
            let mut order = [0, 1, 2, 3, 4];
            coin.shuffle(&mut order);
            firsts[order[0]] += 1;
        }
        assert!(firsts.iter().all(|count| (130..270).contains(count)), "{firsts:?}");
    }
}
