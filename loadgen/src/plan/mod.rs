//! `ringload plan`: several runs at once, in phases, and events on the server.
//!
//! A plan is read from a [`mod@file`] into a [`schedule`], which the [`conductor`] carries out.
//! Each part is a child process of this program with its own descriptors, CPU time and command
//! line, so that it can be repeated alone. The parts and the [`server`] end with the plan.

pub mod child;
pub mod conductor;
pub mod file;
mod folder;
mod part;
mod progress;
pub mod report;
pub mod schedule;
pub mod server;
pub mod summary;
pub mod words;

use crate::args::{CommonArgs, PlanArgs};
use crate::verdict::Witness;
use conductor::Conductor;
use file::Source;
use report::PlanReport;
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::report::Environment;
use ringload_lifecycle::system::Interrupts;
use ringload_lifecycle::units::show_path;
use schedule::{Deed, Schedule, Server, Whose};
use server::Running;
use std::io;
use std::time::{Duration, Instant};

/// Maximum size of a plan file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Interval at which the server is checked until it is ready.
const POLL: Duration = Duration::from_millis(10);

/// Carries out a plan and makes the report, or, with `--check`, only prints the schedule.
///
/// # Errors
/// The plan is invalid, or the server did not start.
pub fn perform(plan: &PlanArgs, interrupts: &Interrupts) -> Result<Delivery, Failure> {
    let name = show_path(&plan.file);
    let schedule = read(plan, &name).map_err(Failure::Usage)?;
    if plan.check {
        return Ok(Delivery::new(&(), schedule.show(), 0));
    }
    let environment = Environment::of_this_process(schedule.seed);
    if !plan.common.quiet {
        eprint!("ringload plan {name}\n{}", schedule.show());
    }
    let server = match &schedule.server {
        None => None,
        Some(server) => Some(begin_server(server, interrupts)?),
    };
    let witness = match schedule.server.as_ref().zip(server.as_ref()) {
        None => None,
        Some((server, running)) => Some(Witness::before(&watched(plan, server, running))?),
    };
    let mut conductor =
        Conductor::new(&schedule, server, plan.common.quiet).map_err(Failure::System)?;
    conductor.conduct(interrupts);
    let elapsed = conductor.elapsed();
    // A server that has ended can no longer be inspected.
    let witness = witness.filter(|_| conductor.server.as_ref().is_some_and(Running::is_up));
    let parts: Vec<_> =
        conductor.parts.iter().map(|run| serde_json::json!({ "report": run.report })).collect();
    let mut seen = Delivery::new(&serde_json::json!({ "parts": parts }), String::new(), 0);
    if let Some(witness) = witness {
        witness.after(&mut seen, interrupts);
    }
    conductor.end_server(interrupts);
    let mut report = PlanReport::new((name, &schedule), environment, elapsed, &conductor);
    report.settled(&seen);
    let summary = summary::summary(&report) + &seen.summary;
    let mut delivery = Delivery::new(&report, summary, report.exit_status);
    if let (Some(into), Some(from)) = (delivery.report.as_object_mut(), seen.report.as_object()) {
        let added = from.iter().filter(|(name, _)| ["ledger", "process"].contains(&name.as_str()));
        into.extend(added.map(|(name, value)| (name.clone(), value.clone())));
    }
    Ok(delivery)
}

fn read(plan: &PlanArgs, name: &str) -> Result<Schedule, String> {
    let about = std::fs::metadata(&plan.file).map_err(|error| format!("{name}: {error}"))?;
    if about.len() > FILE_BYTES_MAX {
        return Err(format!(
            "{name}: the file is too large; a plan has at most {FILE_BYTES_MAX} bytes"
        ));
    }
    let text = std::fs::read_to_string(&plan.file).map_err(|error| format!("{name}: {error}"))?;
    let schedule = Schedule::read(Source { name, text: &text }, plan.common.seed)?;
    let mut commands = schedule.events.iter().filter_map(|event| match &event.deed {
        Deed::Command(command) => Some(command),
        Deed::Signal(_) => None,
    });
    let started = schedule.server.iter().filter_map(|server| match &server.whose {
        Whose::Ours(command) => Some(command),
        Whose::Pid(_) | Whose::PidFile(_) => None,
    });
    match started.chain(&mut commands).find(|command| !conductor::is_there(&command[0])) {
        None => Ok(schedule),
        Some(command) => Err(format!("{name}: program {:?} not found", command[0])),
    }
}

fn begin_server(server: &Server, interrupts: &Interrupts) -> Result<Running, Failure> {
    let wrong = |what: String| Failure::System(io::Error::other(what));
    let since = Instant::now();
    let mut running = Running::begin(server).map_err(wrong)?;
    while !running.is_ready(server, since).map_err(wrong)? {
        if interrupts.wait(POLL) {
            return Err(Failure::Interrupted("interrupted before the server was ready".into()));
        }
    }
    Ok(running)
}

/// Returns the options with `--ledger` and `--pid` for the server of the plan.
fn watched(plan: &PlanArgs, server: &Server, running: &Running) -> CommonArgs {
    let ledger = server.ledger.clone();
    let pid = server.check_process.then(|| running.id());
    CommonArgs { ledger, pid, ..plan.common.clone() }
}
