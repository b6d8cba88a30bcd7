//! The interleaved comparison of two servers, or of two load generators.
//!
//! On a shared machine absolute figures drift by tens of percent within minutes. Therefore the two
//! subjects run in turn, close together, in random order. Only the ratios within pairs count: their
//! median and their spread.

mod children;
mod generator;
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
pub use report::Report;
pub use statistics::Spread;
pub use subject::{PAYLOAD, PROGRAMS, Protocol, Ring, Server, Setting, Subject, locate};

use crate::machine::{self, CpuTime};
use report::{Connections, Pair, Run};

/// Time for which each subject is loaded before the measurement.
const WARM_UP: Duration = Duration::from_millis(300);

/// The options that comparisons of every kind share.
pub struct Common {
    /// The protocol.
    pub protocol: Protocol,
    /// Pairs of runs for each number of connections.
    pub pairs: usize,
    /// Numbers of connections.
    pub connections: Vec<u32>,
    /// Echo: length of a message. HTTP: length of the body.
    pub size_bytes: u32,
    /// Programs, CPUs and durations.
    pub place: Place,
}

/// The programs, CPUs and durations of runs.
pub struct Place {
    /// Duration of one run.
    pub duration: Duration,
    /// Paths of programs in unusual places, by name.
    pub programs: HashMap<String, PathBuf>,
    /// Kernel interface of `ringwrightd` and `ringload`.
    pub ring: Ring,
    /// The CPU of the servers.
    pub server_cpu: usize,
    /// The CPU of the load generator.
    pub load_cpu: usize,
    /// Seed for the order of the runs.
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

/// The two programs to compare.
#[derive(Clone, Copy)]
pub enum Sides {
    /// Two servers, loaded by one generator.
    Servers {
        /// The numerator of the ratio.
        a: Subject,
        /// The denominator.
        b: Subject,
        /// The load generator.
        generator: Generator,
    },
    /// Two load generators of one server.
    Generators {
        /// The numerator of the ratio.
        a: Generator,
        /// The denominator.
        b: Generator,
        /// The server.
        server: Subject,
    },
}

/// Runs all pairs. The servers stay alive and are loaded in turn; an idle one sleeps.
pub fn run(sides: Sides, common: &Common) -> io::Result<Report> {
    let scratch = Scratch::create()?;
    let (subjects, generators, programs) = match sides {
        Sides::Servers { a, b, generator: of } => {
            ([a, b], [of, of], [a.program(), b.program(), of.program()])
        }
        Sides::Generators { a, b, server: of } => {
            ([of, of], [a, b], [a.program(), b.program(), of.program()])
        }
    };
    let setting = common.setting(&scratch, &programs)?;
    let first = setting.start(subjects[0])?;
    let second = match sides {
        Sides::Servers { .. } => Some(setting.start(subjects[1])?),
        Sides::Generators { .. } => None,
    };
    let servers = [&first, second.as_ref().unwrap_or(&first)];
    let one = |side: usize, connections, duration| {
        let (server, generator) = (servers[side], generators[side]);
        Run::new(&measure(common, &scratch, server, generator, connections, duration)?)
    };
    let mut coin = Coin::new(common.place.seed);
    let mut results = Vec::new();
    for &connections in &common.connections {
        for side in [0, 1] {
            one(side, connections, WARM_UP)?;
        }
        let mut pairs = Vec::new();
        for number in 1..=common.pairs {
            let one = |side| one(side, connections, common.place.duration);
            let (a_first, a, b) = coin.pair(|| one(0), || one(1))?;
            let pair = Pair { a_first, a, b };
            let (of, line) = (common.pairs, pair.line(sides));
            eprintln!("{connections} connections, pair {number} of {of}: {line}");
            pairs.push(pair);
        }
        results.push(Connections::new(connections, pairs));
    }
    Ok(Report::new(sides, common, results))
}

/// The results of one run.
pub struct Spent {
    /// The counts of the generator.
    pub loaded: Loaded,
    /// CPU time of the server's processes.
    pub server_cpu: Duration,
    /// CPU time of the load generator's process, from its start to its end.
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

/// Runs one load and measures the CPU time.
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
    /// Equal seeds draw equal orders.
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

    /// Shuffles the items (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // The high bits: the low ones of a xorshift are weak.
            items.swap(last, ((self.draw() >> 32) % (last as u64 + 1)) as usize);
        }
    }

    /// Runs both in random order. Returns true if `a` ran first, and the results.
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
