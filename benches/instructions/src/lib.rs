//! Instructions of an operation, counted by callgrind and compared with what is written down.

mod callgrind;
mod figures;

use callgrind::{parse, per_operation};
use figures::Figures;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Operations of the shorter run of each scenario; the longer one does twice as many. A multiple of
/// the connections.
const OPERATIONS: u64 = 32 * 500;

/// The ring's functions, which are not counted. Each must have stayed one of its own.
const RING: &str = "ScriptedRing as ";
const RING_METHODS: [&str; 5] = ["submit_and_wait", "completion", "provide", "now_us", "counters"];
/// Methods of the ring that send.
const RING_SENDS: [&str; 2] = ["push", "send_now"];

/// Instructions of an operation by function, the ring left out.
type Functions = BTreeMap<String, f64>;

/// A scenario that this program plays.
pub struct Scenario<'a> {
    /// The name.
    pub name: &'a str,
    /// Instructions of an operation, whatever compiler built it.
    pub instructions_max: Option<f64>,
}

/// Counts every scenario, prints what came out, and compares it with the figures written down, or
/// writes it there.
///
/// # Errors
/// There is no valgrind; a figure is out of its bounds.
pub fn run(
    path: &Path,
    update: bool,
    top: usize,
    scenarios: &[Scenario<'_>],
) -> Result<(), String> {
    let mut now = Figures {
        rustc: env!("RINGWRIGHT_RUSTC").to_owned(),
        valgrind: valgrind_version()?,
        architecture: env::consts::ARCH.to_owned(),
        instructions: BTreeMap::new(),
    };
    println!("{}, {}, {}", now.rustc, now.valgrind, now.architecture);
    for Scenario { name, .. } in scenarios {
        let functions = count(name)?;
        let sum: f64 = functions.values().sum();
        now.instructions.insert((*name).to_owned(), (10.0 * sum).round() / 10.0);
        print(name, sum, &functions, top);
    }
    let bounded = scenarios.iter().filter_map(|it| Some((it.name, it.instructions_max?)));
    let bounds: BTreeMap<&str, f64> = bounded.collect();
    if update {
        now.write(path)?;
        println!("\nwritten to {}", path.display());
        return Ok(());
    }
    compare(&now, &Figures::read(path)?, &bounds, path)
}

fn compare(
    now: &Figures,
    committed: &Figures,
    bounds: &BTreeMap<&str, f64>,
    path: &Path,
) -> Result<(), String> {
    let comparable = now.is_comparable(committed);
    println!("\n{:<24}{:>12}{:>12}{:>10}", "instructions", "now", "committed", "change");
    for (scenario, count) in &now.instructions {
        match committed.instructions.get(scenario) {
            Some(before) if comparable => {
                let percent = 100.0 * (count / before - 1.0);
                println!("{scenario:<24}{count:>12.1}{before:>12.1}{percent:>+9.1} %");
            }
            _ => println!("{scenario:<24}{count:>12.1}"),
        }
    }
    if !comparable {
        println!(
            "The figures of {} are of {} on {}: only the bounds were checked.",
            path.display(),
            committed.rustc,
            committed.architecture,
        );
    }
    let faults = now.faults(committed, bounds);
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nThe functions above show where. If the change is worth it, or is a saving, write the \
         new figures down: the same command with --update (behind --), and commit {} with a line \
         in benches/JOURNAL.md.",
        faults.join("\n"),
        path.display()
    ))
}

fn print(scenario: &str, sum: f64, functions: &Functions, top: usize) {
    println!("\n{scenario}: {sum:.1} instructions");
    let mut functions: Vec<(&String, &f64)> = functions.iter().collect();
    functions.sort_by(|a, b| b.1.total_cmp(a.1));
    for (name, count) in functions.into_iter().take(top) {
        println!("{count:>10.1}  {name}");
    }
}

/// Counts the instructions of one operation of a scenario.
fn count(scenario: &str) -> Result<Functions, String> {
    let profile = |operations| parse(&watch(scenario, operations)?);
    let (once, twice) = (profile(OPERATIONS)?, profile(2 * OPERATIONS)?);
    let mut functions = per_operation(&once, &twice, OPERATIONS);
    let shows = |method: &str| {
        functions.keys().any(|name| name.contains(RING) && name.ends_with(&format!("::{method}")))
    };
    let sends = RING_SENDS.iter().any(|method| shows(method));
    let missing = RING_METHODS.iter().find(|method| !shows(method));
    if let Some(method) = missing.or((!sends).then_some(&RING_SENDS[0])) {
        return Err(format!(
            "{scenario}: the profile does not show {method} of the scripted ring, so that it \
             cannot be left out; it must not be inlined"
        ));
    }
    functions.retain(|name, _| !name.contains(RING));
    Ok(functions)
}

/// Runs `operations` operations under callgrind and returns its output.
fn watch(scenario: &str, operations: u64) -> Result<String, String> {
    let program = env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let name = format!("ringwright-instructions-{}.out", std::process::id());
    let file = env::temp_dir().join(name);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["play", scenario, &operations.to_string()])
        .output()
        .map_err(missing)?;
    let text = fs::read_to_string(&file);
    let _ = fs::remove_file(&file);
    match text {
        Ok(text) if output.status.success() => Ok(text),
        _ => Err(format!("{scenario}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn valgrind_version() -> Result<String, String> {
    let output = Command::new("valgrind").arg("--version").output().map_err(missing)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn missing(error: std::io::Error) -> String {
    format!("valgrind: {error}; apt-get install valgrind")
}
