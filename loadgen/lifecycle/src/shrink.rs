//! Shortens a failing script: runs shorter ones against the same server until none of them fails in
//! the same way.

mod candidates;

use super::dialect::Limits;
use super::finding::Rule;
use super::script::Script;
use super::walk::{Stage, walk_together};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Maximum number of attempts for one finding.
const TRIES_MAX: u32 = 200;
/// Longest time for one finding.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Longest patience meanwhile. With that of the run, a silent server would take all of the time for
/// an attempt or two. A finding is repeated once more, silence with the full patience.
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// Longest patience for other findings than silence.
const PATIENCE_SHORT: Duration = Duration::from_millis(250);
/// Number of well-behaved connections that fail in a row before a server counts as down.
const CONTROLS: u32 = 3;
/// Pause before the second connection; it is doubled before the third.
const CONTROL_PAUSE: Duration = Duration::from_millis(100);
/// Attempts with a script alone before others are added.
const ALONE: u32 = 2;
/// Attempts with others before the finding counts as not reproduced.
const TOGETHER: u32 = 4;

crate::named! {
    /// The way in which a finding was reproduced.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Again {
        /// With the script alone.
        Alone = "alone",
        /// With others at the same time.
        Together = "together",
        /// Not at all.
        Never = "never",
        /// Well-behaved connections fail now too. The server must be restarted before a replay.
        ServerDown = "server_down",
    }
}

/// A failing script, shortened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The scripts to run at the same time; one if it fails alone.
    pub scripts: Vec<Script>,
    /// The way in which it failed again.
    pub again: Again,
    /// Number of attempts.
    pub tries: u32,
}

/// Shortens `script`, which broke `rule` while the scripts of `company`, itself among them, ran.
/// `control` is a script that every working server passes.
pub fn shrink(
    stage: &Stage,
    script: &Script,
    company: &[Arc<Script>],
    control: &Script,
    rule: Rule,
    keep_on: &mut dyn FnMut() -> bool,
) -> Shrunk {
    let (patience, full) = match rule {
        Rule::NotServed | Rule::NoReaction => (PATIENCE_MAX, Duration::MAX),
        _ => (PATIENCE_SHORT, PATIENCE_MAX),
    };
    let limits = Limits { patience: stage.limits.patience.min(patience), ..stage.limits };
    let mut court = Court {
        stage: of(stage, limits),
        calm: of(stage, Limits { patience: stage.limits.patience.min(PATIENCE_MAX), ..limits }),
        full: of(stage, Limits { patience: stage.limits.patience.min(full), ..limits }),
        control: Arc::new(control.clone()),
        rule,
        tries: 0,
        since: Instant::now(),
        is_down: false,
        keep_on,
    };
    let alone = vec![script.clone()];
    let together: Vec<Script> = company.iter().map(|it| (**it).clone()).collect();
    if !court.is_served() {
        return Shrunk { scripts: together, again: Again::ServerDown, tries: court.tries };
    }
    for (scripts, times, again) in
        [(alone, ALONE, Again::Alone), (together.clone(), TOGETHER, Again::Together)]
    {
        if (0..times).any(|_| court.fails(&scripts)) {
            let small = court.smaller(scripts.clone());
            // A race may need more than one attempt.
            let holds = court.is_down || (0..times).any(|_| court.fails_in_full(&small));
            let again = if court.is_down { Again::ServerDown } else { again };
            return Shrunk {
                scripts: if holds { small } else { scripts },
                again,
                tries: court.tries,
            };
        }
    }
    Shrunk { scripts: together, again: Again::Never, tries: court.tries }
}

fn of(stage: &Stage, limits: Limits) -> Arc<Stage> {
    Arc::new(Stage {
        dialect: stage.dialect.clone(),
        address: stage.address,
        limits,
        route: stage.route,
    })
}

struct Court<'a> {
    stage: Arc<Stage>,
    /// The stage of well-behaved connections.
    calm: Arc<Stage>,
    full: Arc<Stage>,
    control: Arc<Script>,
    rule: Rule,
    tries: u32,
    since: Instant,
    is_down: bool,
    keep_on: &'a mut dyn FnMut() -> bool,
}

impl Court<'_> {
    /// Returns true if the rule is broken again.
    fn fails(&mut self, scripts: &[Script]) -> bool {
        let stage = self.stage.clone();
        let fails = self.has_time() && self.breaks(&stage, scripts);
        // The remains of this attempt must not affect the next one.
        if fails && !self.is_served() {
            self.is_down = true;
        }
        fails
    }

    fn fails_in_full(&mut self, scripts: &[Script]) -> bool {
        let full = self.full.clone();
        self.breaks(&full, scripts)
    }

    fn breaks(&mut self, stage: &Arc<Stage>, scripts: &[Script]) -> bool {
        self.tries += 1;
        let scripts: Vec<Arc<Script>> = scripts.iter().cloned().map(Arc::new).collect();
        let walked = walk_together(stage, &scripts, self.keep_on).unwrap_or_default();
        let broken = walked.iter().flat_map(|walked| walked.judge(stage));
        broken.filter_map(|verdict| verdict.finding).any(|finding| finding.rule == self.rule)
    }

    /// Returns true if a well-behaved connection is served. The remains of earlier attempts have
    /// time to go before the last try.
    fn is_served(&mut self) -> bool {
        for attempt in 0..CONTROLS {
            std::thread::sleep(CONTROL_PAUSE * attempt);
            let control = [self.control.clone()];
            let walked = walk_together(&self.calm, &control, self.keep_on).unwrap_or_default();
            let mut verdicts = walked.iter().flat_map(|it| it.judge(&self.calm));
            if verdicts.all(|verdict| verdict.finding.is_none()) {
                return true;
            }
        }
        false
    }

    fn has_time(&mut self) -> bool {
        !self.is_down
            && self.tries < TRIES_MAX
            && self.since.elapsed() < TIME_MAX
            && (self.keep_on)()
    }

    /// Continues as long as a shorter variant fails too.
    fn smaller(&mut self, mut scripts: Vec<Script>) -> Vec<Script> {
        let mut is_smaller = true;
        while is_smaller && self.has_time() {
            is_smaller = self.without_some(&mut scripts);
            for at in 0..scripts.len() {
                is_smaller |= self.shorter(&mut scripts, at);
            }
        }
        scripts
    }

    /// Leaves scripts out: halves first, then single ones.
    fn without_some(&mut self, scripts: &mut Vec<Script>) -> bool {
        let before = scripts.len();
        let mut count = scripts.len() / 2;
        while count > 0 {
            let mut at = 0;
            while at < scripts.len() && scripts.len() > 1 {
                let end = (at + count).min(scripts.len());
                let rest = [&scripts[..at], &scripts[end..]].concat();
                match !rest.is_empty() && self.fails(&rest) {
                    true => *scripts = rest,
                    false => at += count,
                }
            }
            count /= 2;
        }
        scripts.len() < before
    }

    /// Makes one script shorter.
    fn shorter(&mut self, scripts: &mut [Script], at: usize) -> bool {
        let mut is_shorter = false;
        'again: loop {
            for candidate in candidates::of(&scripts[at]) {
                if !self.has_time() {
                    return is_shorter;
                }
                if candidate.check().is_err() || self.stage.check(&candidate).is_err() {
                    continue;
                }
                let mut tried = scripts.to_vec();
                tried[at] = candidate;
                if self.fails(&tried) {
                    scripts.clone_from_slice(&tried);
                    is_shorter = true;
                    continue 'again;
                }
            }
            return is_shorter;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::dialect;
    use crate::oracle::tests::LIMITS;
    use crate::route::Route;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;

    fn stage(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> (Stage, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
        let target = format!("echo://{address}").parse().expect("a target");
        (
            Stage {
                dialect: dialect(&target).expect("a dialect"),
                address,
                limits: LIMITS,
                route: Route::default(),
            },
            address,
        )
    }

    fn script(address: SocketAddr, steps: &str) -> Script {
        format!("echo://{address} seed=7 number=1 {steps}").parse().expect(steps)
    }

    /// Echoes; ends after a client's FIN without an echo of what came with it, if that was more
    /// than 40 bytes.
    fn forgetful(mut stream: TcpStream) {
        let mut bytes = [0; 4_096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if count <= 40 && stream.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    }

    #[test]
    fn a_script_is_as_short_as_it_can_be_and_still_fails() {
        let (stage, address) = stage(forgetful);
        let long = "say=30,500,64 connect:rcvbuf=4096 wait=2ms send=30 recv=reply wait=3ms \
                    send=all fin recv=end";
        let control = script(address, "say=4 connect send=all recv=reply fin recv=end");
        let long = script(address, long);
        let company = [Arc::new(long.clone())];
        let shrunk = shrink(&stage, &long, &company, &control, Rule::LostReply, &mut || true);
        assert_eq!(shrunk.again, Again::Alone, "{shrunk:?}");
        let [short] = &shrunk.scripts[..] else { panic!("{shrunk:?}") };
        assert!(short.steps.len() <= 5 && short.to_string().ends_with("fin recv=end"), "{short}");
        let sent: u64 = short.say.iter().map(|size| size.parse::<u64>().expect("a size")).sum();
        assert!((41..300).contains(&sent), "{short}");
        assert!(shrunk.tries > 5, "{shrunk:?}");
    }

    #[test]
    fn what_does_not_fail_again_is_kept_as_it_was() {
        let (stage, address) = stage(forgetful);
        let good = script(address, "say=30 connect send=all fin recv=end");
        let company = [Arc::new(good.clone())];
        let shrunk = shrink(&stage, &good, &company, &good, Rule::LostReply, &mut || true);
        assert_eq!((shrunk.again, &shrunk.scripts), (Again::Never, &vec![good]));
        assert_eq!(shrunk.tries, ALONE + TOGETHER);
    }
}
