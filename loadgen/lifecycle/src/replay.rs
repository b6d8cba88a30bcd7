//! `ringload replay`: runs scripts and prints each step.

use super::dialect::Ending;
use super::dialects::{dialect_at, http};
use super::script::Script;
use super::walk::{Seen, Stage, Walked, unplayed_text, walk_together};
use crate::args::{OracleArgs, ReplayArgs};
use crate::delivery::Delivery;
use crate::failure::Failure;
use crate::report::{Environment, SCHEMA};
use crate::system::{self, Interrupts};
use serde::Serialize;
use std::fmt::Write;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of scripts at the same time.
const SCRIPTS_MAX: usize = 10_000;
/// Descriptors in addition to one per script; a crowd needs up to 1,000 for a moment.
const DESCRIPTORS_BESIDE: u64 = 1_064;

/// The report: kind `replay` in `report.schema.json`.
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

/// A connection of the run that the report describes.
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

/// Runs all scripts at the same time, `--times` times or until a finding. Prints the steps of the
/// last repetition.
///
/// # Errors
/// A script is invalid, or the server's files cannot be learnt.
pub fn perform(args: &ReplayArgs, interrupts: &Interrupts) -> Result<Delivery, Failure> {
    let scripts = read_scripts(args).map_err(Failure::Usage)?;
    let limits = args.oracle.limits();
    let stage = stage(&scripts, &args.oracle)?;
    for script in &scripts {
        stage.check(script).map_err(Failure::Usage)?;
    }
    system::allow_descriptors(scripts.len() as u64 + DESCRIPTORS_BESIDE).map_err(Failure::Usage)?;
    let mut told = Told::default();
    if stage.route.open(stage.address, (0, u64::MAX), limits.patience).is_err() {
        let summary = format!("UNREACHABLE: no server answers at {}\n", stage.address);
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
        "failed" => writeln!(text, "FAILED in repetition {walks} of at most {}", args.times),
        "bottleneck" => {
            writeln!(text, "INVALID: ringload ran out of ports or descriptors; see above")
        }
        "passed" => writeln!(text, "PASSED: the protocol allows every outcome"),
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

/// Reads the scripts from the command line, files and standard input, and makes the copies.
fn read_scripts(args: &ReplayArgs) -> Result<Vec<Arc<Script>>, String> {
    let mut scripts = Vec::new();
    for given in &args.scripts {
        let text = match &**given {
            "-" => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| format!("cannot read standard input: {error}"))?;
                text
            }
            script if script.contains("://") => script.into(),
            path => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {path}: {error}; a script contains ://"))?,
        };
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let script: Script = line.parse()?;
            for copy in 0..args.company {
                // Each copy has its own bytes, so that wrong bytes can be attributed.
                let mut script = script.clone();
                script.key.number = script.key.number.wrapping_add(copy * COPY_STEP) % NUMBERS;
                scripts.push(Arc::new(script));
            }
        }
    }
    match scripts.len() {
        0 => Err("no script given: all lines are empty or comments".into()),
        count if count > SCRIPTS_MAX => Err(format!(
            "{count} scripts at the same time are too many; the maximum is {SCRIPTS_MAX}"
        )),
        _ => Ok(scripts),
    }
}

/// Distance between the numbers of a script and its copies, so that they do not collide with
/// others.
const COPY_STEP: u64 = 1_000_003;
const NUMBERS: u64 = 1 << super::dialect::Key::CONNECT_SHIFT;

/// Prepares the run; all scripts must have the same server.
fn stage(scripts: &[Arc<Script>], oracle: &OracleArgs) -> Result<Arc<Stage>, Failure> {
    let target = &scripts[0].target;
    let other = scripts.iter().find(|script| {
        (&script.target.scheme, &script.target.address) != (&target.scheme, &target.address)
    });
    if let Some(other) = other {
        let what = format!(
            "the scripts have different servers, {target} and {}; use one server per replay",
            other.target
        );
        return Err(Failure::Usage(what));
    }
    let address = oracle.route.address_of(&target.address).map_err(Failure::Unresolved)?;
    let route = oracle.route.route();
    route.check(address).map_err(Failure::Usage)?;
    // All paths that the scripts request must be learnt.
    let phrases: Vec<_> = scripts.iter().flat_map(|script| script.say.iter().cloned()).collect();
    let dialect = dialect_at(target, address, &oracle.hints(http::paths(&phrases)))?;
    Ok(Arc::new(Stage { dialect, address, limits: oracle.limits(), route }))
}

#[derive(Default)]
struct Told {
    walks: u64,
    /// A script could not finish because ringload lacked ports or descriptors.
    was_short: bool,
    findings_total: u64,
    connections: Vec<Connection>,
    text: String,
}

impl Told {
    /// Records a repetition and drops the previous one.
    fn take(&mut self, walked: &[Walked], stage: &Stage) {
        self.walks += 1;
        self.was_short |= walked.iter().any(|it| it.short.is_some());
        self.connections.clear();
        self.text.clear();
        if let Some(error) = walked.iter().find_map(|it| it.unplayed.as_ref()) {
            let _ = writeln!(self.text, "vanish was not played: {}", unplayed_text(error));
        }
        let judged: Vec<_> = walked.iter().map(|it| (it, it.judge(stage))).collect();
        let is_wrong = |verdicts: &[super::dialect::Verdict]| {
            verdicts.iter().any(|verdict| verdict.finding.is_some())
        };
        let any_wrong = judged.iter().any(|(_, verdicts)| is_wrong(verdicts));
        for (at, (walked, verdicts)) in judged.iter().enumerate() {
            // With more than two scripts, only those with findings are printed.
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
                    said_bytes: seen.record.actions.sent,
                    heard_bytes: seen.record.received,
                    reaction_us: seen.record.reaction.map(|it| it.as_secs_f64() * 1e6),
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
    writeln!(out, "{:>12} {:>12}  {:>10} {:>10}  step", "at", "took", "sent", "received")?;
    for trace in &walked.trace {
        writeln!(
            out,
            "{:>12} {:>12}  {:>10} {:>10}  {}{}",
            format!("{:.1?}", trace.began),
            format!("{:.1?}", trace.took),
            trace.sent,
            trace.received,
            trace.step,
            ending(trace.ending)
        )?;
    }
    if let Some(short) = &walked.short {
        writeln!(out, "  the script could not finish because ringload lacked a resource: {short}")?;
    }
    for (seen, verdict) in walked.lives.iter().zip(verdicts) {
        let Seen { record, local, .. } = seen;
        let from = local.map_or_else(String::new, |it| format!(" from {it}"));
        writeln!(out, "  connection{from}: {}", verdict.outcome)?;
        if let Some(reaction) = record.reaction {
            writeln!(
                out,
                "  the server closed or reset {reaction:.1?} after the client's last byte or FIN"
            )?;
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
        Some(Ending::Ours) => "  <- ended by the client".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::read;
    use crate::schema::check_against_schema;
    use socket2::SockRef;
    use std::io::Write as _;
    use std::net::{Shutdown, TcpListener};

    fn args(address: &str, steps: &str, options: &[&str]) -> ReplayArgs {
        let script = format!("echo://{address} seed=7 number=1 {steps}");
        read(&[&[&*script], options].concat())
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
            ["send=all", "<- the server's FIN", "lost_reply: ", "number=1000004", "repetition 1 of"]
        {
            assert!(told.summary.contains(part), "{part:?} is not in\n{}", told.summary);
        }
    }

    #[test]
    fn nobody_there_and_what_is_no_script_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        // A close would not do: a process of another test may hold a copy of the descriptor.
        SockRef::from(&listener).shutdown(Shutdown::Read).expect("it listens");
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let told = perform(&args(&address, "connect", &[]), &interrupts).expect("a replay");
        assert_eq!((told.exit_status, told.summary.starts_with("UNREACHABLE")), (3, true));
        for (steps, says) in
            [("say=x connect", "number of bytes"), ("connect jump", "unknown step")]
        {
            match perform(&args(&address, steps, &[]), &interrupts) {
                Err(Failure::Usage(what)) => assert!(what.contains(says), "{what}"),
                other => panic!("{other:?}"),
            }
        }
        let two = args(&address, "connect", &["echo://127.0.0.1:1 connect"]);
        let refused = perform(&two, &interrupts);
        assert!(matches!(refused, Err(Failure::Usage(what)) if what.contains("servers")));
    }
}
