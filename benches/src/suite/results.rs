//! The results as data: the content of `results.json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cells::{Cell, Figure};
use crate::compare::{Spread, Times};

/// One run of one server.
#[derive(Clone, Copy, Deserialize, JsonSchema, Serialize)]
pub struct Sample {
    /// Requests answered in full.
    pub replies: u64,
    /// Received; of `ringload` also of replies that the end of the run cut off, of the bare client
    /// those of bodies.
    pub bytes: u64,
    /// Length of the run.
    pub elapsed_s: f64,
    /// CPU time of all processes of the server.
    pub server_cpu_s: f64,
    /// CPU time of the load generator, from its start to its end.
    pub load_cpu_s: f64,
    /// From when a request was to be sent; null in a closed loop.
    pub latency_us: Option<Times>,
}

impl Sample {
    pub fn replies_per_s(&self) -> f64 {
        self.replies as f64 / self.elapsed_s
    }

    pub fn cpu_us_per_reply(&self) -> f64 {
        self.server_cpu_s * 1e6 / self.replies as f64
    }

    pub fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::RepliesPerSecond => self.replies_per_s(),
            Figure::CpuPerReply => self.cpu_us_per_reply(),
            Figure::RepliesPerCpuSecond => self.replies as f64 / self.server_cpu_s,
            Figure::BytesPerCpuSecond => self.bytes as f64 / self.server_cpu_s,
        }
    }
}

/// Ours to another's, round by round.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Ratio {
    /// Over all rounds.
    pub spread: Spread,
    /// 95 % confidence interval of the median.
    pub interval: (f64, f64),
    /// The ratio of each round.
    pub rounds: Vec<f64>,
}

impl Ratio {
    pub fn of(rounds: Vec<f64>) -> Self {
        let spread = Spread::of(rounds.iter().copied());
        Self { spread, interval: Spread::median_interval(&rounds), rounds }
    }

    /// How far the interval reaches from the median, as a part of it.
    pub fn uncertainty(&self) -> f64 {
        let median = self.spread.median;
        (self.interval.1 - median).max(median - self.interval.0) / median
    }
}

/// One server in a cell.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Contest {
    /// The server.
    pub name: String,
    /// One of each round.
    pub samples: Vec<Sample>,
    /// Ratio of the cell's figure, ringwrightd / this server; null for ringwrightd itself.
    pub ratio: Option<Ratio>,
    /// Ratio of CPU per reply, ringwrightd / this server.
    pub cpu_ratio: Option<Ratio>,
}

impl Contest {
    /// Median over all rounds.
    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        Spread::of(self.samples.iter().map(of)).median
    }

    /// Share of the time that the server computed.
    pub fn server_busy(&self) -> f64 {
        self.median(|sample| sample.server_cpu_s / sample.elapsed_s)
    }

    /// Share of the time that the load generator computed.
    pub fn load_busy(&self) -> f64 {
        self.median(|sample| sample.load_cpu_s / sample.elapsed_s)
    }
}

/// One cell, measured.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct CellResult {
    /// Its name on the command line.
    pub id: String,
    /// The part it is in, a name on the command line, too.
    pub part: String,
    /// echo or http.
    pub protocol: String,
    /// Length of a message, or of a body.
    pub size_bytes: u32,
    /// Connections, all the time.
    pub connections: u32,
    /// Requests in flight on each.
    pub pipeline: u32,
    /// Distinct files asked for in turn; null: one.
    pub files: Option<u32>,
    /// Requests per second; null: as many as come.
    pub rate: Option<u32>,
    /// The load generator.
    pub load: String,
    /// The figure of the ratios.
    pub figure: String,
    /// Number of rounds.
    pub rounds: usize,
    /// Every ratio's interval is within the bound.
    pub precise: bool,
    pub contests: Vec<Contest>,
}

impl CellResult {
    /// Sums up what each contestant did in each round.
    pub fn new(cell: &Cell, rate: Option<u32>, names: &[String], runs: Vec<Vec<Sample>>) -> Self {
        let ratio = |own: &[Sample], other: &[Sample], figure: Figure| {
            let pairs = own.iter().zip(other);
            Ratio::of(pairs.map(|(a, b)| a.figure(figure) / b.figure(figure)).collect())
        };
        let ours = runs[0].clone();
        let contests = names.iter().zip(runs).enumerate().map(|(index, (name, samples))| Contest {
            name: name.clone(),
            ratio: (index > 0).then(|| ratio(&ours, &samples, cell.figure)),
            cpu_ratio: (index > 0).then(|| ratio(&ours, &samples, Figure::CpuPerReply)),
            samples,
        });
        let contests: Vec<Contest> = contests.collect();
        Self {
            id: cell.id.clone(),
            part: cell.part.name.to_owned(),
            protocol: cell.work.protocol.to_string(),
            size_bytes: cell.work.size_bytes,
            connections: cell.connections,
            pipeline: cell.work.pipeline,
            files: cell.work.files,
            rate,
            load: cell.generator.name().to_owned(),
            figure: cell.figure.heading().to_owned(),
            rounds: ours.len(),
            precise: contests.iter().all(|of| {
                of.ratio.as_ref().is_none_or(|it| it.uncertainty() <= super::UNCERTAINTY_MAX)
            }),
            contests,
        }
    }

    /// Returns the results of the contestant with this name.
    pub fn of(&self, name: &str) -> Option<&Contest> {
        self.contests.iter().find(|contest| contest.name == name)
    }
}
