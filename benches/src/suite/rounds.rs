//! Rounds of one cell: every contestant once, in an order drawn anew, until the ratios are known.

use std::io;
use std::time::{Duration, Instant};

use super::Plan;
use super::cells::{Cell, Rate};
use super::results::{CellResult, Sample};
use crate::compare::{Coin, Generator, Loaded, Request, Scratch, Server, Setting, Work, load};

/// Every server is loaded so long by the generator that verifies every byte, before anything is
/// measured.
const VERIFY: Duration = Duration::from_millis(200);
/// To learn what half of saturation is.
const CALIBRATE: Duration = Duration::from_millis(300);
/// The rate is no more than this share of what the slowest can do.
const SLOWEST_SHARE: f64 = 0.8;
/// More connections than these are asked for longer, so that each of them counts.
const MANY: u32 = 4096;
const MANY_TIMES: u32 = 4;
/// Rates are whole thousands, or whole hundreds below.
const RATE_STEP: f64 = 1000.0;

/// Measures one cell.
pub fn run(plan: &Plan, cell: &Cell, scratch: &Scratch) -> io::Result<CellResult> {
    let names: Vec<String> = cell.contestants.iter().map(|it| it.name(cell)).collect();
    let folder = scratch.path().join(&cell.id);
    let mut servers = Vec::new();
    for contestant in &cell.contestants {
        let setting = Setting {
            protocol: cell.work.protocol,
            size_bytes: cell.work.size_bytes,
            programs: plan.place.programs.clone(),
            cpu: (!cell.unpinned).then_some(plan.place.server_cpu),
            shards: contestant.shards,
            ring: plan.place.ring,
            folder: folder.clone(),
        };
        if servers.is_empty() {
            setting.prepare(cell.work.files.unwrap_or(0))?;
        }
        servers.push(setting.start(contestant.subject)?);
    }
    let round = Round { plan, cell, scratch, servers };
    round.verify()?;
    let rate = match cell.rate {
        Some(Rate::Half) => Some(round.half()?),
        Some(Rate::Fixed(rate)) => Some(rate),
        None => None,
    };
    let mut coin = Coin::new(plan.place.seed);
    let mut runs = vec![Vec::new(); names.len()];
    let begun = Instant::now();
    loop {
        let mut order: Vec<usize> = (0..names.len()).collect();
        coin.shuffle(&mut order);
        for index in order {
            runs[index].push(round.sample(index, rate)?);
        }
        let result = CellResult::new(cell, rate, &names, runs.clone());
        eprintln!("{}", progress(cell, &result, begun.elapsed()));
        let enough = result.rounds >= plan.rounds_min && result.precise;
        if enough || result.rounds >= plan.rounds_max {
            return Ok(result);
        }
    }
}

struct Round<'a> {
    plan: &'a Plan,
    cell: &'a Cell,
    scratch: &'a Scratch,
    servers: Vec<Server>,
}

impl Round<'_> {
    /// Nobody is measured whose bytes are wrong.
    fn verify(&self) -> io::Result<()> {
        let work = Work { files: None, ..self.cell.work };
        for server in &self.servers {
            let connections = self.cell.connections.min(512);
            self.load(Generator::Ringload, server, work, connections, VERIFY)?;
        }
        Ok(())
    }

    /// Half of what ours can do, if the others can follow.
    fn half(&self) -> io::Result<u32> {
        let mut saturated = Vec::new();
        for server in &self.servers {
            let connections = self.cell.connections;
            let loaded =
                self.load(Generator::Bare, server, self.cell.work, connections, CALIBRATE)?.0;
            saturated.push(loaded.replies as f64 / loaded.elapsed_s);
        }
        let slowest = saturated.iter().copied().fold(f64::INFINITY, f64::min);
        let rate = (saturated[0] / 2.0).min(slowest * SLOWEST_SHARE);
        let step = if rate < RATE_STEP { RATE_STEP / 10.0 } else { RATE_STEP };
        Ok(((rate / step).floor() * step).max(step) as u32)
    }

    fn sample(&self, index: usize, rate: Option<u32>) -> io::Result<Sample> {
        let Cell { generator, connections, .. } = *self.cell;
        let work = Work { rate, ..self.cell.work };
        let length = self.plan.place.duration * if connections > MANY { MANY_TIMES } else { 1 };
        let (loaded, around, load_cpu) =
            self.load(generator, &self.servers[index], work, connections, length)?;
        if loaded.replies == 0 || loaded.elapsed_s <= 0.0 {
            return Err(io::Error::other(format!("{}: a run without a reply", self.cell.id)));
        }
        let body_bytes = loaded.replies * u64::from(self.cell.work.size_bytes);
        Ok(Sample {
            replies: loaded.replies,
            bytes: loaded.received_bytes.unwrap_or(body_bytes),
            elapsed_s: loaded.elapsed_s,
            server_cpu_s: loaded.server_cpu_s.unwrap_or(around.as_secs_f64()),
            load_cpu_s: load_cpu.as_secs_f64(),
            latency_us: loaded.latency_us,
        })
    }

    fn load(
        &self,
        generator: Generator,
        server: &Server,
        work: Work,
        connections: u32,
        duration: Duration,
    ) -> io::Result<(Loaded, Duration, Duration)> {
        let request = Request { server, work, connections, duration };
        let spent = load(&self.plan.place, self.scratch, generator, &request)?;
        if connections > MANY {
            server.settle()?;
        }
        Ok((spent.loaded, spent.server_cpu, spent.load_cpu.sum()))
    }
}

fn progress(cell: &Cell, result: &CellResult, elapsed: Duration) -> String {
    let ratios = result.contests.iter().filter_map(|of| {
        let ratio = of.ratio.as_ref()?;
        let (low, high) = ratio.interval;
        Some(format!("{} {:.3} ({low:.3} – {high:.3})", of.name, ratio.spread.median))
    });
    let ratios: Vec<String> = ratios.collect();
    format!(
        "{}: round {}, {:.0} s: {}, ours to {}",
        cell.id,
        result.rounds,
        elapsed.as_secs_f64(),
        cell.figure.heading(),
        ratios.join(", ")
    )
}
