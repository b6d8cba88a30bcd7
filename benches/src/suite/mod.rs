//! All speed measurements of one `compare` run: every server beside its peers and the bare ring,
//! interleaved, until the ratios are known.

mod bounds;
mod calls;
mod cells;
mod clients;
mod document;
mod idle;
mod plots;
mod probe;
mod results;
mod rounds;
mod stalled;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::compare::{Place, Ring, Scratch, locate};
use crate::machine;
use bounds::Verdict;
use calls::Calls;
pub use clients::{SUBCOMMAND as HOLD_CLIENTS, hold as hold_clients};
use idle::Idle;
use probe::Probed;
use results::{CellResult, Ratio};
use stalled::Stalled;

/// Rounds go on until every ratio's 95 % interval is within this share of its median.
pub const UNCERTAINTY_MAX: f64 = 0.03;

/// The measurements to run.
pub struct Plan {
    /// Cells, parts and counts that were named; empty: all.
    pub only: Vec<String>,
    /// Only to see that it works.
    pub quick: bool,
    /// Rounds of each cell at least.
    pub rounds_min: usize,
    /// Rounds of each cell at most.
    pub rounds_max: usize,
    /// Where, by what, how long.
    pub place: Place,
    /// Where the results go.
    pub out: PathBuf,
}

/// All that was measured.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Results {
    /// Version of this form (`results.schema.json`); fields may be added without a change of it.
    pub schema: u32,
    /// Quick runs say nothing of speed.
    pub quick: bool,
    /// UTC.
    pub date: String,
    /// The machine.
    pub machine: machine::Description,
    /// Names and versions of what was measured or built with.
    pub programs: Vec<(String, String)>,
    /// Length of one run.
    pub run_s: f64,
    /// Seed for the order of the runs.
    pub seed: u64,
    /// The kernel interface of `ringwrightd` and `ringload`.
    #[serde(default)]
    pub ring: Ring,
    /// The verdicts on the bounds.
    pub verdicts: Vec<Verdict>,
    /// The measurements in rounds.
    pub cells: Vec<CellResult>,
    /// Memory of idle connections.
    pub idle: Vec<Idle>,
    /// Readers that stall.
    pub stalled: Vec<Stalled>,
    /// System calls.
    pub calls: Vec<Calls>,
    /// Parked connections on either probe.
    #[serde(default)]
    pub probe: Vec<Probed>,
    /// Cells that were left out, because their load generator was not there.
    #[serde(default)]
    pub absent: Vec<String>,
}

impl Results {
    fn ratio(&self, id: &str, other: &str) -> Option<&Ratio> {
        let cell = self.cells.iter().find(|cell| cell.id == id)?;
        cell.of(other)?.ratio.as_ref()
    }

    /// Instead of an earlier one, in the order in which cells are measured.
    fn put(&mut self, result: CellResult) {
        self.cells.retain(|cell| cell.id != result.id);
        self.absent.retain(|id| *id != result.id);
        self.cells.push(result);
        let order: Vec<String> = cells::all().into_iter().map(|cell| cell.id).collect();
        self.cells.sort_by_key(|cell| order.iter().position(|id| *id == cell.id));
    }

    /// Those of one part.
    fn part(&self, name: &str) -> impl Iterator<Item = &CellResult> {
        self.cells.iter().filter(move |cell| cell.part == name)
    }
}

/// Counts that are no cells.
const COUNTS: [&str; 4] = ["idle", "probe", "stalled", "calls"];

/// Every name that [`Plan::only`] may hold.
pub fn names() -> Vec<String> {
    let parts = cells::PARTS.iter().map(|part| part.name.to_owned());
    let mut names: Vec<String> = parts.chain(COUNTS.map(str::to_owned)).collect();
    for cell in cells::all() {
        if !names.contains(&cell.id) {
            names.push(cell.id);
        }
    }
    names
}

/// Measures what was asked for, and writes `RESULTS.md`, `results.json` and the plots. Whatever was
/// measured is written, also when something fails later.
pub fn run(plan: &Plan) -> io::Result<Results> {
    let cells: Vec<_> = cells::all()
        .into_iter()
        .filter(|cell| plan.wants(&cell.id) || plan.wants(cell.part.name))
        .collect();
    let (cells, absent): (Vec<_>, Vec<_>) = cells.into_iter().partition(|cell| plan.can(cell));
    for cell in &cells {
        locate(cell.generator.program(), &plan.place.programs)?;
        for contestant in &cell.contestants {
            locate(contestant.subject.program(), &plan.place.programs)?;
        }
    }
    for cell in &absent {
        eprintln!("{}: skipped because {} is not installed", cell.id, cell.generator.name());
    }
    let scratch = Scratch::create()?;
    let mut results = Results {
        schema: 1,
        quick: plan.quick,
        date: date(),
        machine: machine::Description::read(),
        programs: versions(plan),
        run_s: plan.place.duration.as_secs_f64(),
        seed: plan.place.seed,
        ring: plan.place.ring,
        verdicts: Vec::new(),
        cells: Vec::new(),
        idle: Vec::new(),
        stalled: Vec::new(),
        calls: Vec::new(),
        probe: Vec::new(),
        absent: absent.into_iter().map(|cell| cell.id).collect(),
    };
    if let Some(earlier) = plan.earlier()? {
        if earlier.ring != results.ring {
            let ring = earlier.ring.name();
            let mixed = format!("measured with --ring {ring}; give another --out");
            return Err(named(&plan.out.join("results.json"), io::Error::other(mixed)));
        }
        results.cells = earlier.cells;
        results.idle = earlier.idle;
        results.stalled = earlier.stalled;
        results.calls = earlier.calls;
        results.probe = earlier.probe;
        results.absent = earlier.absent;
    }
    let measured = measure(plan, cells, &scratch, &mut results);
    // The bounds are those of io_uring.
    if results.ring == Ring::IoUring {
        results.verdicts = bounds::verdicts(&results);
    }
    write(plan, &results)?;
    measured.map(|()| results)
}

fn measure(
    plan: &Plan,
    cells: Vec<cells::Cell>,
    scratch: &Scratch,
    results: &mut Results,
) -> io::Result<()> {
    let count = cells.len();
    for (index, mut cell) in cells.into_iter().enumerate() {
        if plan.quick {
            cell.connections = cell.connections.min(QUICK_CONNECTIONS_MAX);
            cell.work.files = cell.work.files.map(|files| files.min(QUICK_FILES_MAX));
        }
        eprintln!("{} ({} of {count})", cell.id, index + 1);
        let result = rounds::run(plan, &cell, scratch)?;
        results.put(result);
        fs::remove_dir_all(scratch.path().join(&cell.id))?;
    }
    if plan.wants("idle") {
        results.idle = idle::run(plan, scratch)?;
    }
    if plan.wants("probe") {
        results.probe = probe::run(plan, scratch)?;
    }
    if plan.wants("stalled") {
        results.stalled = stalled::run(plan, scratch)?;
    }
    if plan.wants("calls") {
        results.calls = calls::run(plan, scratch)?;
    }
    Ok(())
}

const QUICK_CONNECTIONS_MAX: u32 = 64;
const QUICK_FILES_MAX: u32 = 100;

impl Plan {
    /// A tenth of it, to see that something works.
    fn shortened(&self, time: Duration) -> Duration {
        if self.quick { time / 10 } else { time }
    }

    /// Returns the earlier results, to which a run of some parts adds its own. A quick run has
    /// none.
    fn earlier(&self) -> io::Result<Option<Results>> {
        let path = self.out.join("results.json");
        if self.only.is_empty() || self.quick || !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(|error| named(&path, error))?;
        let results: Results = serde_json::from_str(&text)
            .map_err(|error| named(&path, io::Error::other(format!("{error}; remove the file"))))?;
        Ok((!results.quick).then_some(results))
    }

    /// True if the cell is measured: its generator is installed, or the cell was asked for by name
    /// and the missing program is then an error.
    fn can(&self, cell: &cells::Cell) -> bool {
        let generator = cell.generator;
        !self.only.is_empty()
            || !generator.is_foreign()
            || locate(generator.program(), &self.place.programs).is_ok()
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn write(plan: &Plan, results: &Results) -> io::Result<()> {
    fs::create_dir_all(&plan.out).map_err(|error| named(&plan.out, error))?;
    let put = |name: &str, text: &str| {
        let path = plan.out.join(name);
        fs::write(&path, text).map_err(|error| named(&path, error))
    };
    put("results.json", &serde_json::to_string(results)?)?;
    let plots = plots::all(results);
    for (name, svg) in &plots {
        put(name, svg)?;
    }
    put("RESULTS.md", &document::markdown(results, &plots))?;
    eprintln!("written: {}", plan.out.join("RESULTS.md").display());
    Ok(())
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Returns the version of each program that is not built here.
fn versions(plan: &Plan) -> Vec<(String, String)> {
    let mut versions = vec![("rustc".to_owned(), version_of("rustc", "rustc", "--version"))];
    // A program that no measurement needs may be missing.
    for (name, flag) in [("nginx", "-v"), ("wrk", "-v"), ("oha", "--version")] {
        if let Ok(program) = locate(name, &plan.place.programs) {
            versions.push((name.into(), version_of(name, program, flag)));
        }
    }
    for (name, version) in dependencies() {
        versions.push((name, version));
    }
    versions
}

/// The runtimes, as locked.
fn dependencies() -> Vec<(String, String)> {
    let lock = include_str!("../../../Cargo.lock");
    let mut lines = lock.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("name = \"").and_then(|it| it.strip_suffix('"')) else {
            continue;
        };
        if ["tokio", "hyper", "monoio", "compio", "glommio"].contains(&name) {
            let version = lines.next().and_then(|it| it.strip_prefix("version = \""));
            found.push((name.to_owned(), version.unwrap_or("?\"").trim_end_matches('"').into()));
        }
    }
    found
}

/// Returns the version that a program prints, without its name.
fn version_of(name: &str, program: impl AsRef<std::ffi::OsStr>, flag: &str) -> String {
    let line = first_line(program, &[flag]);
    let version = line.strip_prefix(name).unwrap_or(&line);
    version.trim_start_matches(" version:").trim().to_owned()
}

fn first_line(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return "?".into() };
    // nginx says it on standard error.
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).lines().next().unwrap_or("?").to_owned()
}

/// `2026-11-27`.
fn date() -> String {
    first_line("date", &["-u", "+%F"])
}

#[cfg(test)]
mod tests {
    use super::Results;

    #[test]
    fn the_schema_is_what_is_written() {
        let schema = serde_json::to_value(schemars::schema_for!(Results)).unwrap();
        let committed: serde_json::Value =
            serde_json::from_str(include_str!("../../results.schema.json")).unwrap();
        let text = serde_json::to_string_pretty(&schema).unwrap();
        assert!(schema == committed, "results.schema.json is to be:\n{text}");
    }
}
