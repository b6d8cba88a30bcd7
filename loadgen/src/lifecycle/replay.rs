//! `ringload replay`: scripts again, step by step.

use super::dialect::Ending;
use super::dialects::{dialect_at, http};
use super::script::Script;
use super::walk::{Seen, Stage, Walked, walk_together};
use crate::args::{OracleArgs, ReplayArgs};
use crate::delivery::Delivery;
use crate::report::{Environment, SCHEMA};
use crate::run::{Failure, resolve};
use crate::system::{self, Interrupts};
use serde::Serialize;
use std::fmt::Write;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// Most scripts walked at once.
const SCRIPTS_MAX: usize = 10_000;
/// Descriptors for each: a crowd counts for a moment.
const DESCRIPTORS_BESIDE: u64 = 1_064;

/// The report: kind `replay` of `report.schema.json`.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json.
pub struct Report {
    pub schema: u32,
    pub version: &'static str,
    pub kind: &'static str,
    pub outcome: &'static str,
    pub exit_status: u8,
    pub environment: Environment,
    pub times: u64,
    pub company: u64,
    pub walks: u64,
    pub findings_total: u64,
    pub connections: Vec<Connection>,
}

/// A connection of the last walk that was told of.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json.
pub struct Connection {
    pub script: String,
    pub outcome: String,
    pub rule: Option<&'static str>,
    pub detail: Option<String>,
    pub said_bytes: u64,
    pub heard_bytes: u64,
    pub reaction_us: Option<f64>,
}

/// Walks the scripts, all at once, as often as asked for, and tells each step of the first walk
/// with a finding, or of the last one.
///
/// # Errors
/// Why there is nothing to tell.
pub fn perform(args: &ReplayArgs, interrupts: &Interrupts) -> Result<Delivery, Failure> {
    let scripts = read(args).map_err(Failure::Usage)?;
    let limits = args.oracle.limits();
    let stage = stage(&scripts, &args.oracle)?;
    for script in &scripts {
        stage.check(script).map_err(Failure::Usage)?;
    }
    system::allow_descriptors(scripts.len() as u64 + DESCRIPTORS_BESIDE).map_err(Failure::Usage)?;
    let mut told = Told::default();
    if TcpStream::connect_timeout(&stage.address, limits.patience).is_err() {
        let summary = format!("UNREACHABLE: nothing answers at {}\n", stage.address);
        return Ok(deliver(args, told, "unreachable", 3, summary));
    }
    let mut was_interrupted = false;
    while told.walks < args.times && told.findings_total == 0 && !was_interrupted {
        let mut keep_on = || {
            was_interrupted |= interrupts.wait(Duration::ZERO);
            !was_interrupted
        };
        let walked = walk_together(&stage, &scripts, &mut keep_on).map_err(Failure::System)?;
        told.take(&walked, &stage);
    }
    let (outcome, status) = match told.findings_total {
        _ if was_interrupted => ("interrupted", 130),
        0 if told.was_short => ("bottleneck", 4),
        0 => ("passed", 0),
        _ => ("failed", 1),
    };
    let mut text = std::mem::take(&mut told.text);
    let walks = told.walks;
    let _ = match outcome {
        "failed" => writeln!(text, "FAILED in walk {walks} of at most {}", args.times),
        "bottleneck" => writeln!(text, "NOT SAID: we were the limit, not the server; see above"),
        "passed" => writeln!(text, "PASSED: every ending was one that the protocol allows"),
        _ => writeln!(text, "INTERRUPTED"),
    };
    Ok(deliver(args, told, outcome, status, text))
}

fn deliver(
    args: &ReplayArgs,
    told: Told,
    outcome: &'static str,
    exit_status: u8,
    summary: String,
) -> Delivery {
    let report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        kind: "replay",
        outcome,
        exit_status,
        environment: Environment::of_this_process(None),
        times: args.times,
        company: args.company,
        walks: told.walks,
        findings_total: told.findings_total,
        connections: told.connections,
    };
    Delivery::new(&report, summary, exit_status)
}

/// The scripts of the command line, of files and of standard input, each with its company.
fn read(args: &ReplayArgs) -> Result<Vec<Arc<Script>>, String> {
    let mut scripts = Vec::new();
    for given in &args.scripts {
        let text = match &**given {
            "-" => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| format!("-: {error}"))?;
                text
            }
            script if script.contains("://") => script.into(),
            path => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        };
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let script: Script = line.parse()?;
            for copy in 0..args.company {
                // Bytes of their own: otherwise nobody could tell whose a byte is.
                let mut script = script.clone();
                script.key.number = script.key.number.wrapping_add(copy * COPY_STEP) % NUMBERS;
                scripts.push(Arc::new(script));
            }
        }
    }
    match scripts.len() {
        0 => Err("there is no script in it".into()),
        count if count > SCRIPTS_MAX => {
            Err(format!("{count} scripts at once; at most {SCRIPTS_MAX}"))
        }
        _ => Ok(scripts),
    }
}

/// Between the numbers of a script and of its copy: far enough from those of the run.
const COPY_STEP: u64 = 1_000_003;
const NUMBERS: u64 = 1 << super::dialect::Key::CONNECT_SHIFT;

/// All of the scripts talk to the same server.
fn stage(scripts: &[Arc<Script>], oracle: &OracleArgs) -> Result<Arc<Stage>, Failure> {
    let target = &scripts[0].target;
    let other = scripts.iter().find(|script| {
        (&script.target.scheme, &script.target.address) != (&target.scheme, &target.address)
    });
    if let Some(other) = other {
        let what = format!("{} and {target}: a replay has one server", other.target);
        return Err(Failure::Usage(what));
    }
    let address = resolve(&target.address).map_err(Failure::Unresolved)?;
    // What the scripts ask for must be known, whatever else is.
    let phrases: Vec<_> = scripts.iter().flat_map(|script| script.say.iter().cloned()).collect();
    let dialect = dialect_at(target, address, &oracle.hints(http::paths(&phrases)))?;
    Ok(Arc::new(Stage { dialect, address, limits: oracle.limits() }))
}

#[derive(Default)]
struct Told {
    walks: u64,
    /// A script could not be walked to its end for want of something on our side.
    was_short: bool,
    findings_total: u64,
    connections: Vec<Connection>,
    text: String,
}

impl Told {
    /// Tells of a walk, instead of the one before it.
    fn take(&mut self, walked: &[Walked], stage: &Stage) {
        self.walks += 1;
        self.was_short |= walked.iter().any(|it| it.short.is_some());
        self.connections.clear();
        self.text.clear();
        let judged: Vec<_> = walked.iter().map(|it| (it, it.judge(stage))).collect();
        let is_wrong = |verdicts: &[super::dialect::Verdict]| {
            verdicts.iter().any(|verdict| verdict.finding.is_some())
        };
        let any_wrong = judged.iter().any(|(_, verdicts)| is_wrong(verdicts));
        for (at, (walked, verdicts)) in judged.iter().enumerate() {
            // Of many, those that went wrong are of interest.
            if is_wrong(verdicts) || (!any_wrong && at == 0) || judged.len() <= 2 {
                // Writing to a String cannot fail.
                let _ = tell(walked, verdicts, &mut self.text);
            }
            for (seen, verdict) in walked.lives.iter().zip(verdicts) {
                self.findings_total += u64::from(verdict.finding.is_some());
                self.connections.push(Connection {
                    script: walked.script.to_string(),
                    outcome: verdict.outcome.clone(),
                    rule: verdict.finding.as_ref().map(|it| it.rule.name()),
                    detail: verdict.finding.as_ref().map(|it| it.detail.clone()),
                    said_bytes: seen.sight.deeds.said,
                    heard_bytes: seen.sight.heard,
                    reaction_us: seen.sight.reaction.map(|it| it.as_secs_f64() * 1e6),
                });
            }
        }
    }
}

fn tell(
    walked: &Walked,
    verdicts: &[super::dialect::Verdict],
    out: &mut String,
) -> std::fmt::Result {
    writeln!(out, "{}", walked.script)?;
    writeln!(out, "{:>12} {:>12}  {:>10} {:>10}  step", "at", "took", "said", "heard")?;
    for trace in &walked.trace {
        writeln!(
            out,
            "{:>12} {:>12}  {:>10} {:>10}  {}{}",
            format!("{:.1?}", trace.began),
            format!("{:.1?}", trace.took),
            trace.said,
            trace.heard,
            trace.step,
            ending(trace.ending)
        )?;
    }
    if let Some(short) = &walked.short {
        writeln!(out, "  it could not be walked to its end for want of something here: {short}")?;
    }
    for (seen, verdict) in walked.lives.iter().zip(verdicts) {
        let Seen { sight, local, .. } = seen;
        let from = local.map_or_else(String::new, |it| format!(" from {it}"));
        writeln!(out, "  connection{from}: {}", verdict.outcome)?;
        if let Some(reaction) = sight.reaction {
            writeln!(out, "  the server's ending came {reaction:.1?} after our last deed")?;
        }
        if let Some(finding) = &verdict.finding {
            writeln!(out, "  {}: {}", finding.rule.name(), finding.detail)?;
        }
    }
    out.push('\n');
    Ok(())
}

fn ending(ending: Option<Ending>) -> String {
    match ending {
        None => String::new(),
        Some(Ending::Fin) => "  <- the server's FIN".into(),
        Some(Ending::Reset) => "  <- the server's RST".into(),
        Some(Ending::Silence) => "  <- silence".into(),
        Some(Ending::Refused) => "  <- refused".into(),
        Some(Ending::ConnectTimeout) => "  <- no answer".into(),
        Some(Ending::ConnectFailed(errno)) => {
            format!("  <- {}", std::io::Error::from_raw_os_error(errno))
        }
        Some(Ending::Ours) => "  <- we ended it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Target};
    use crate::report::tests::check_against_schema;
    use std::io::Write as _;
    use std::net::TcpListener;

    fn args(address: &str, steps: &str, options: &[&str]) -> ReplayArgs {
        let script = format!("echo://{address} seed=7 number=1 {steps}");
        let line = ["ringload", "replay", &script].into_iter().chain(options.iter().copied());
        match Cli::read(line).expect("a command").target {
            Target::Replay(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_step_is_told_with_what_was_wrong() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut bytes = [0; 64];
                let _ = stream.read_exact(&mut bytes);
                let _ = stream.write_all(&bytes[..60]);
            }
        });
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let args = args(&address, "say=64 connect send=all recv=reply", &["--company", "3"]);
        let told = perform(&args, &interrupts).expect("a replay");
        check_against_schema("replay", &told.report);
        assert_eq!((told.exit_status, &told.report["findings_total"]), (1, &3.into()));
        for part in
            ["send=all", "<- the server's FIN", "lost_reply: ", "number=1000004", "walk 1 of"]
        {
            assert!(told.summary.contains(part), "{part:?} is not in\n{}", told.summary);
        }
    }

    #[test]
    fn nobody_there_and_what_is_no_script_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        drop(listener);
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let told = perform(&args(&address, "connect", &[]), &interrupts).expect("a replay");
        assert_eq!((told.exit_status, told.summary.starts_with("UNREACHABLE")), (3, true));
        for (steps, says) in
            [("say=x connect", "number of bytes"), ("connect jump", "no such step")]
        {
            match perform(&args(&address, steps, &[]), &interrupts) {
                Err(Failure::Usage(what)) => assert!(what.contains(says), "{what}"),
                other => panic!("{other:?}"),
            }
        }
        let two = args(&address, "connect", &["echo://127.0.0.1:1 connect"]);
        assert!(
            matches!(perform(&two, &interrupts), Err(Failure::Usage(what)) if what.contains("one server"))
        );
    }
}
