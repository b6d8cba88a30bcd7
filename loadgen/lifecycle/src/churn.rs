//! `ringload churn`: runs the fault matrix.

mod company;
mod live;
pub mod report;
mod summary;
mod tally;

use super::bystander::{Group, Latencies, Signals};
use super::dialect::Key;
use super::dialects::dialect_at;
use super::draw::Drawer;
use super::script::{Exact, Script};
use super::shrink::shrink;
use super::walk::{Stage, Walked, Walker};
use crate::args::{ChurnArgs, OracleArgs, RunArgs};
use crate::delivery::Delivery;
use crate::failure::Failure;
use crate::random::seed_of_the_clock;
use crate::report::Environment;
use crate::screen::Screen;
use crate::system::{self, Interrupts};
use company::Overlaps;
use live::View;
use report::{Plan, Report, Run};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tally::Tally;

/// Interval at which the watching thread checks the run.
const POLL: Duration = Duration::from_millis(10);
/// Longest sleep of the thread that runs the scripts.
const NAP: Duration = Duration::from_millis(5);
/// Interval between two lines of output.
const LINE: Duration = Duration::from_secs(1);
/// Time that running scripts have to finish after the end of the run, in addition to `--timeout`.
const GRACE: Duration = Duration::from_secs(1);
/// Descriptors in addition to those of scripts: a crowd, standard streams, the report.
const DESCRIPTORS_BESIDE: u64 = 128;
/// Minimum time in which the bystanders are measured without faults.
const BASELINE_MIN: Duration = Duration::from_millis(500);
/// Maximum of that time.
const BASELINE_MAX: Duration = Duration::from_secs(5);
/// That time is this fraction of `--duration`.
const BASELINE_SHARE: u32 = 5;
/// That time in a run with `--count`.
const BASELINE_OF_COUNT: Duration = Duration::from_secs(1);
/// Maximum number of rules of which a finding is shrunk.
const SHRUNK_MAX: usize = 6;
/// Time after which no further finding is shrunk.
const SHRINKING_MAX: Duration = Duration::from_secs(10);

/// Runs `ringload churn` and makes the report.
///
/// # Errors
/// The run could not start, or epoll failed.
pub fn perform(
    args: &ChurnArgs,
    run_args: RunArgs,
    interrupts: &Interrupts,
) -> Result<Delivery, Failure> {
    let target = args.target().map_err(Failure::Usage)?;
    system::allow_descriptors(args.connections + args.bystanders + DESCRIPTORS_BESIDE)
        .map_err(Failure::Usage)?;
    let address = args.oracle.route.address_of(&target.address).map_err(Failure::Unresolved)?;
    let route = args.oracle.route.route();
    route.check(address).map_err(Failure::Usage)?;
    let dialect = dialect_at(&target, address, &args.oracle.hints(Vec::new()))?;
    let seed = run_args.seed.unwrap_or_else(seed_of_the_clock);
    let limits = args.limits();
    let drawer = Drawer::new(dialect.clone(), target.clone(), seed, limits, &args.faults)
        .map_err(Failure::Usage)?;
    let stage = Arc::new(Stage { dialect, address, limits, route });
    let plan = Plan::new(args, &target, address, drawer.cells());
    let environment = Environment::of_this_process(Some(seed));
    let opening = summary::opening(&plan, seed);
    let mut view = View {
        screen: Screen::open(&opening, run_args.quiet),
        is_quiet: run_args.quiet,
        title: &opening,
        cells: drawer.cells(),
        rates: Vec::new(),
    };
    let group = Group { stage: stage.clone(), target, seed, count: args.bystanders as usize };
    let run = match route.open(address, (seed, u64::MAX), limits.patience) {
        Ok(_) => {
            drive(args, &drawer, &stage, &group, &mut view, interrupts).map_err(Failure::System)?
        }
        Err(_) => Run::unreachable(),
    };
    let report = Report::new(run, plan, environment);
    let exit_status = report.exit_status;
    Ok(Delivery::new(&report, summary::summary(&report), exit_status))
}

/// State shared by the threads of a run.
#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    open: AtomicU64,
    /// Start no new scripts; running scripts may finish.
    stop: AtomicBool,
    /// End running scripts at once.
    abandon: AtomicBool,
    finished: AtomicBool,
}

impl Shared {
    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drive(
    args: &ChurnArgs,
    drawer: &Drawer,
    stage: &Arc<Stage>,
    group: &Group,
    view: &mut View<'_>,
    interrupts: &Interrupts,
) -> io::Result<Run> {
    let (shared, signals) = (Shared::default(), Signals::default());
    let cpu_before = system::cpu_time();
    let start = Instant::now();
    let mut was_interrupted = false;
    let (latencies, walked) = std::thread::scope(|scope| {
        let bystanders = (group.count > 0).then(|| scope.spawn(|| group.stand_by(&signals)));
        if bystanders.is_some() {
            was_interrupted = interrupts.wait(baseline(args));
        }
        signals.is_abused.store(true, Ordering::Relaxed);
        let walking = scope.spawn(|| {
            let walked = walk(args, drawer, stage, &shared);
            shared.finished.store(true, Ordering::Relaxed);
            walked
        });
        shared.stop.store(was_interrupted, Ordering::Relaxed);
        shared.abandon.store(was_interrupted, Ordering::Relaxed);
        was_interrupted |= watch(args, start, &shared, &signals, view, interrupts);
        let walked = walking.join().expect("it does not panic");
        signals.stop.store(true, Ordering::Relaxed);
        (bystanders.map(|it| it.join().expect("they do not panic")), walked)
    });
    let (elapsed, cpu) = (start.elapsed(), system::cpu_time());
    let mut tally = std::mem::take(&mut *shared.tally());
    let latencies: Option<Latencies> = latencies.transpose()?;
    if let Some(latencies) = &latencies {
        tally.add_bystanders(latencies);
    }
    let mut run = Run {
        tally,
        latencies,
        elapsed,
        cpu: cpu.since(cpu_before),
        shortage: walked?,
        is_there: true,
        was_interrupted,
    };
    if !was_interrupted {
        run.was_interrupted =
            shrink_examples(&mut run.tally, drawer, stage, view.is_quiet, interrupts);
    }
    Ok(run)
}

fn baseline(args: &ChurnArgs) -> Duration {
    match args.count {
        Some(_) => BASELINE_OF_COUNT,
        None => (args.duration / BASELINE_SHARE).clamp(BASELINE_MIN, BASELINE_MAX),
    }
}

/// Prints a line per second until the end of the run. Returns true if a signal ended it.
fn watch(
    args: &ChurnArgs,
    start: Instant,
    shared: &Shared,
    signals: &Signals,
    view: &mut View<'_>,
    interrupts: &Interrupts,
) -> bool {
    let (mut next_line, mut before, mut was_interrupted) = (start.elapsed() + LINE, 0, false);
    let mut last = start.elapsed();
    while !shared.finished.load(Ordering::Relaxed) {
        let elapsed = start.elapsed();
        if args.count.is_none() && elapsed >= args.duration {
            shared.stop.store(true, Ordering::Relaxed);
        }
        if elapsed >= next_line {
            let (connections, findings) = {
                let tally = shared.tally();
                (tally.connections, tally.findings_total())
            };
            let findings = findings + signals.findings.load(Ordering::Relaxed);
            let per_s = (connections - before) as f64 / (elapsed - last).as_secs_f64();
            let open = shared.open.load(Ordering::Relaxed);
            let line = summary::line(elapsed, connections, per_s, open, findings);
            view.screen.line(&summary::heading(), line);
            view.rates.push(per_s as u64);
            (before, last) = (connections, elapsed);
            next_line = elapsed + LINE;
        }
        view.show(args, elapsed, &shared.tally());
        if interrupts.wait(POLL) {
            was_interrupted = true;
            shared.stop.store(true, Ordering::Relaxed);
            shared.abandon.store(true, Ordering::Relaxed);
        }
    }
    view.screen.close();
    was_interrupted
}

/// Runs scripts until the end of the run. Returns the first lack of a local resource.
fn walk(
    args: &ChurnArgs,
    drawer: &Drawer,
    stage: &Arc<Stage>,
    shared: &Shared,
) -> io::Result<Option<String>> {
    let mut walker = Walker::new(stage.clone(), false)?;
    let mut company = Overlaps::default();
    let (start, mut number) = (Instant::now(), 0);
    let most = args.count.unwrap_or(u64::MAX).min(1 << (Key::CONNECT_SHIFT - 1));
    let due = |number: u64| match args.conn_rate {
        None => start,
        Some(rate) => start + Duration::from_nanos(rate.due_ns(number)),
    };
    let mut stopped: Option<Instant> = None;
    loop {
        let is_going = stopped.is_none() && number < most;
        if is_going && shared.stop.load(Ordering::Relaxed) {
            stopped = Some(Instant::now());
            continue;
        }
        let now = Instant::now();
        while is_going
            && number < most
            && walker.walking() < args.connections as usize
            && due(number) <= now
        {
            let (cell, script) = drawer.draw(number);
            let script = Arc::new(script);
            company.begin(number, cell, script.clone());
            walker.start(script, number);
            number += 1;
        }
        // At the limit of connections, a due script does not shorten the sleep.
        let nap = match is_going && walker.walking() < args.connections as usize {
            true => due(number).saturating_duration_since(now).min(NAP),
            false => NAP,
        };
        for walked in walker.turn(nap)? {
            count(&walked, stage, shared, &mut company);
        }
        shared.open.store(walker.walking() as u64, Ordering::Relaxed);
        let is_late = |since: Instant| since.elapsed() > stage.limits.patience + GRACE;
        let is_abandoned = shared.abandon.load(Ordering::Relaxed) || stopped.is_some_and(is_late);
        if is_abandoned || (!is_going && walker.walking() == 0) {
            break;
        }
    }
    let unfinished = walker.abandon();
    shared.tally().unfinished += unfinished.len() as u64;
    for walked in unfinished {
        count(&walked, stage, shared, &mut company);
    }
    Ok(walker.shortage().map(Into::into))
}

fn count(walked: &Walked, stage: &Stage, shared: &Shared, company: &mut Overlaps) {
    let verdicts = walked.judge(stage);
    let cell = company.end(walked.tag);
    let fails = verdicts.iter().any(|verdict| verdict.finding.is_some());
    // The search for concurrent scripts is slow and needed only for a finding.
    let others = if fails { company.of(walked.tag) } else { Vec::new() };
    shared.tally().take(cell, walked, &verdicts, others);
}

/// Shrinks the first finding of each rule. Returns true if a signal arrived.
fn shrink_examples(
    tally: &mut Tally,
    drawer: &Drawer,
    stage: &Stage,
    quiet: bool,
    interrupts: &Interrupts,
) -> bool {
    let control: Script = drawer.control();
    let (mut was_interrupted, mut rules, since) = (false, Vec::new(), Instant::now());
    for example in &mut tally.examples {
        let is_enough = rules.len() == SHRUNK_MAX || since.elapsed() > SHRINKING_MAX;
        if is_enough || was_interrupted || rules.contains(&example.rule) {
            continue;
        }
        rules.push(example.rule);
        if !quiet {
            crate::note!("shrinking the script of the first finding: {}", example.rule.name());
        }
        let mut keep_on = || {
            was_interrupted |= interrupts.wait(Duration::ZERO);
            !was_interrupted
        };
        let shrunk =
            shrink(stage, &example.script, &example.company, &control, example.rule, &mut keep_on);
        example.shrunk = Some(shrunk);
    }
    was_interrupted
}

/// Returns the options with which a replay judges like this run.
fn replay_options(oracle: &OracleArgs) -> String {
    let (mut options, limits) = (String::new(), oracle.limits());
    if limits.patience != crate::args::PATIENCE {
        options += &format!(" --timeout {}", Exact(limits.patience));
    }
    if let Some(deadline) = limits.deadline {
        options += &format!(" --deadline {}", Exact(deadline));
    }
    if limits.may_reject {
        options += " --may-reject";
    }
    if let Some(strictness) = oracle.oracle {
        options += &format!(" --oracle {}", strictness.name());
    }
    if oracle.vary_ok {
        options += " --vary-ok";
    }
    let route = &oracle.route;
    if let Some(version) = route.proxy_protocol {
        options += &format!(" --proxy-protocol {}", version.name());
    }
    if let Some(clients) = route.clients {
        options += &format!(" --clients {clients}");
    }
    for resolved in &route.resolve {
        options += &format!(" --resolve {resolved}");
    }
    // Bytes can be attributed to learnt files only.
    for path in &oracle.paths {
        options += &format!(" --path '{path}'");
    }
    options
}
