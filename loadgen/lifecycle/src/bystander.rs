//! Bystanders: well-behaved connections whose latency is measured before and during the faults.
//!
//! Each sends requests at a constant rate, and latency is measured from the time at which a request
//! was due. A server that stalls therefore cannot hide it.

use super::dialect::{Key, Outgoing, Phrase};
use super::event_loop::{EventLoop, Task, Turn};
use super::finding::{Finding, Rule};
use super::script::{Connect, Recv, Script, Send, Step, Target};
use super::socket::{Socket, ending_of, is_ours};
use super::walk::Stage;
use super::walk::life::{Life, Moved};
use crate::random::Random;
use crate::report::histogram;
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Requests per second of each bystander.
pub const RATE: u32 = 20;
/// Requests on a connection before it is replaced.
const REQUESTS: usize = 40;
/// Number of phrases drawn to find them.
const DRAWS: usize = 400;
/// First connection number, far from those of scripts.
const FIRST_NUMBER: u64 = 1 << (Key::CONNECT_SHIFT - 1);
/// Size of the read buffer.
const READ_BYTES: usize = 64 << 10;
/// Longest sleep of the loop.
const NAP: Duration = Duration::from_millis(20);
/// Maximum size of a request; the time of a larger one would depend mostly on its size.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Maximum number of findings kept with details.
const EXAMPLES_MAX: usize = 5;

/// The measurements of all bystanders.
pub struct Latencies {
    /// Latency before the faults, nanoseconds.
    pub baseline_ns: Histogram<u64>,
    /// Latency during the faults, nanoseconds.
    pub abuse_ns: Histogram<u64>,
    /// Connections they opened.
    pub connections: u64,
    /// Number of findings by rule.
    pub findings: BTreeMap<Rule, u64>,
    /// The first findings, each with a script of the connection.
    pub examples: Vec<(Finding, Script)>,
}

/// Signals between the run and its bystanders.
#[derive(Default)]
pub struct Signals {
    /// The faults have begun.
    pub is_abused: AtomicBool,
    /// The run is over.
    pub stop: AtomicBool,
    /// Findings so far.
    pub findings: AtomicU64,
}

/// The bystanders of a run.
pub struct Group {
    /// The server and the rules.
    pub stage: Arc<Stage>,
    /// The target, for the script of a finding.
    pub target: Target,
    /// Seed of the run.
    pub seed: u64,
    /// Number of bystanders.
    pub count: usize,
}

impl Group {
    /// Runs the bystanders until [`Signals::stop`].
    ///
    /// # Errors
    /// errno of epoll.
    pub fn stand_by(&self, signals: &Signals) -> io::Result<Latencies> {
        let mut events = EventLoop::new()?;
        let mut latencies = Latencies::nothing();
        let every = Duration::from_secs(1) / RATE;
        let start = Instant::now();
        // The starts are spread over one interval.
        let next = |at| start + every * at as u32 / self.count as u32;
        for at in 0..self.count {
            let number = FIRST_NUMBER + at as u64;
            events.start(Bystander::new(self, signals, number, next(at)), &mut latencies);
        }
        while !signals.stop.load(Ordering::Relaxed) {
            events.turn(NAP, &mut latencies)?;
        }
        // Requests without a reply count with the time they have waited so far.
        events.abandon().into_iter().flat_map(|it| it.due).for_each(|due| latencies.record(due));
        Ok(latencies)
    }
}

impl Latencies {
    /// Creates empty measurements.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            baseline_ns: histogram(),
            abuse_ns: histogram(),
            connections: 0,
            findings: BTreeMap::new(),
            examples: Vec::new(),
        }
    }

    /// Records the latency of a request that was due at `due`.
    fn record(&mut self, (due, is_abused): (Instant, bool)) {
        let times = if is_abused { &mut self.abuse_ns } else { &mut self.baseline_ns };
        times.saturating_record(due.elapsed().as_nanos() as u64);
    }

    fn keep(&mut self, finding: Finding, script: Script) {
        *self.findings.entry(finding.rule).or_default() += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push((finding, script));
        }
    }
}

struct Bystander<'a> {
    group: &'a Group,
    signals: &'a Signals,
    /// Number of its connection.
    number: u64,
    say: Vec<Phrase>,
    /// End offsets of its requests.
    ends: Vec<u64>,
    life: Option<Life>,
    /// Due times of the requests without a reply, and true if the faults had begun.
    due: VecDeque<(Instant, bool)>,
    /// Due time of the next request.
    next: Instant,
    /// Start of the current wait for the connect or a reply.
    waits: Option<Instant>,
}

impl Task for Bystander<'_> {
    type Shared = Latencies;

    fn go_on(
        &mut self,
        latencies: &mut Latencies,
        register: &mut dyn FnMut(RawFd) -> io::Result<()>,
    ) -> Turn {
        let is_abused = self.signals.is_abused.load(Ordering::Relaxed);
        while self.next <= Instant::now() {
            self.due.push_back((self.next, is_abused));
            self.next += Duration::from_secs(1) / RATE;
        }
        if let Some(finding) = self.exchange(latencies, register) {
            self.signals.findings.fetch_add(1, Ordering::Relaxed);
            latencies.keep(finding, self.script());
        }
        // Only the next request has a time of its own; a wait is checked now and then.
        Turn::Until(self.next.min(Instant::now() + NAP))
    }
}

impl<'a> Bystander<'a> {
    const fn new(group: &'a Group, signals: &'a Signals, number: u64, next: Instant) -> Self {
        Self {
            group,
            signals,
            number,
            say: Vec::new(),
            ends: Vec::new(),
            life: None,
            due: VecDeque::new(),
            next,
            waits: None,
        }
    }

    /// Sends and receives. Returns the finding of a connection that has ended, if any.
    fn exchange(
        &mut self,
        latencies: &mut Latencies,
        register: &mut dyn FnMut(RawFd) -> io::Result<()>,
    ) -> Option<Finding> {
        let mut bytes = vec![0; READ_BYTES];
        while !self.due.is_empty() {
            if self.life.is_none() && !self.connect(latencies, register) {
                return None;
            }
            let life = self.life.as_mut().expect("it is there");
            let replies = life.replies();
            if life.connected() && !life.is_over() {
                let end = self.ends[replies as usize];
                let _ = life.say(end - life.sent().min(end));
                while let Moved::Bytes(_) = life.receive(&mut bytes) {}
            }
            if life.replies() > replies {
                latencies.record(self.due.pop_front().expect("one was asked for"));
                self.waits = Some(Instant::now());
                // A request may have several replies.
                if life.replies() as usize >= self.ends.len() || life.announced_end() {
                    return self.part();
                }
                continue;
            }
            if life.is_over() {
                return self.part();
            }
            // The wait for a reply starts when its request is due.
            let since = self.waits?.max(self.due[0].0);
            if since.elapsed() > self.group.stage.limits.patience {
                life.give_up();
                let finding = self.part();
                // The wait counts for this request only, not for the next one.
                if let Some(due) = self.due.pop_front() {
                    latencies.record(due);
                }
                return finding;
            }
            return None;
        }
        None
    }

    /// Opens a new connection. Returns false for lack of a local resource.
    fn connect(
        &mut self,
        latencies: &mut Latencies,
        register: &mut dyn FnMut(RawFd) -> io::Result<()>,
    ) -> bool {
        let group = self.group;
        let Stage { dialect, address, .. } = &*group.stage;
        self.number += group.count as u64;
        let key = Key { seed: group.seed, number: self.number };
        let mut random = Random::of_number(group.seed, self.number);
        let is_proper = |outgoing: &Outgoing| {
            outgoing.requests.iter().all(|it| it.is_proper && it.reply_bytes_min > 0)
        };
        self.say = (0..DRAWS)
            .flat_map(|_| dialect.draw(false, &mut |most| random.below(most)))
            .filter(|phrase| {
                let outgoing = dialect.outgoing(key, std::slice::from_ref(phrase));
                outgoing.is_ok_and(|it| it.bytes.len() <= REQUEST_BYTES_MAX && is_proper(&it))
            })
            .take(REQUESTS)
            .collect();
        let (Ok(outgoing), Ok(checker)) =
            (dialect.outgoing(key, &self.say), dialect.checker(key, &self.say))
        else {
            return false;
        };
        self.ends = outgoing.requests.iter().map(|request| request.end).collect();
        if self.ends.is_empty() {
            return false;
        }
        let socket =
            Socket::connect(*address, group.stage.route.source((key.seed, key.number)), None)
                .and_then(|socket| {
                    register(socket.as_raw_fd())?;
                    Ok(socket)
                });
        let life = match socket {
            Ok(socket) => Life::new(socket, group.stage.header(key), outgoing, checker),
            Err(error) if is_ours(&error) => return false,
            Err(error) => Life::unborn(outgoing, checker, ending_of(&error)),
        };
        latencies.connections += 1;
        self.life = Some(life);
        self.waits = Some(Instant::now());
        true
    }

    /// Ends the connection and judges it.
    fn part(&mut self) -> Option<Finding> {
        let (outgoing, record) = self.life.take()?.record();
        let stage = &self.group.stage;
        stage.dialect.judge(&outgoing, &record, &stage.limits).finding
    }

    /// Returns a script with its actions, without the pauses.
    fn script(&self) -> Script {
        Script {
            target: self.group.target.clone(),
            key: Key { seed: self.group.seed, number: self.number },
            say: self.say.clone(),
            steps: vec![
                Step::Connect(Connect::default()),
                Step::Send(Send::All),
                Step::Fin,
                Step::Recv(Recv::End),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Checker, Dialect, Limits, Record, Verdict};
    use crate::dialects::dialect;
    use crate::oracle::tests::LIMITS;
    use crate::route::Route;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    /// Runs four bystanders, with faults in the second half of the time.
    fn latencies(
        serve: impl Fn(TcpStream) + Clone + std::marker::Send + 'static,
        time: Duration,
    ) -> Latencies {
        let echo = dialect(&"echo://127.0.0.1:1".parse().expect("a target")).expect("a dialect");
        felt_in(echo, serve, time)
    }

    fn felt_in(
        dialect: Arc<dyn Dialect>,
        serve: impl Fn(TcpStream) + Clone + std::marker::Send + 'static,
        time: Duration,
    ) -> Latencies {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
        let target: Target = format!("echo://{address}").parse().expect("a target");
        let stage = Arc::new(Stage { dialect, address, limits: LIMITS, route: Route::default() });
        let group = Group { stage, target, seed: 7, count: 4 };
        let signals = Signals::default();
        thread::scope(|scope| {
            let told = scope.spawn(|| group.stand_by(&signals).expect("an epoll"));
            thread::sleep(time / 2);
            signals.is_abused.store(true, Ordering::Relaxed);
            thread::sleep(time / 2);
            signals.stop.store(true, Ordering::Relaxed);
            told.join().expect("no panic")
        })
    }

    #[test]
    fn their_times_count_from_when_they_were_due() {
        let slow = |mut stream: TcpStream| {
            let mut bytes = [0; 1 << 14];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                // Slower than they ask: each waits for all before it.
                thread::sleep(Duration::from_millis(100));
                if stream.write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
        };
        let latencies = latencies(slow, Duration::from_secs(2));
        assert!(latencies.findings.is_empty(), "{:?}", latencies.examples);
        let [count, longest] = [latencies.baseline_ns.len(), latencies.baseline_ns.max()];
        assert!(count > 4 && longest > 300_000_000, "{count} up to {longest} ns");
    }

    #[test]
    fn what_is_due_and_never_answered_is_in_their_times() {
        let mute = |mut stream: TcpStream| while let Ok(1..) = stream.read(&mut [0; 64]) {};
        let latencies = latencies(mute, Duration::from_secs(1));
        // Four of them, twenty times a second, half of it before the abuse.
        let (before, beside) = (latencies.baseline_ns.len(), latencies.abuse_ns.len());
        assert!(before >= 30 && beside >= 30, "{before} before, {beside} beside");
        assert!(latencies.baseline_ns.max() > 900_000_000, "{}", latencies.baseline_ns.max());
    }

    /// Echo, of which each message counts as three replies.
    struct Thrice(Arc<dyn Dialect>);
    struct ThriceChecker(Box<dyn Checker>);

    impl Dialect for Thrice {
        fn name(&self) -> &'static str {
            self.0.name()
        }
        fn outgoing(&self, key: Key, phrases: &[Phrase]) -> Result<Outgoing, String> {
            self.0.outgoing(key, phrases)
        }
        fn checker(&self, key: Key, phrases: &[Phrase]) -> Result<Box<dyn Checker>, String> {
            Ok(Box::new(ThriceChecker(self.0.checker(key, phrases)?)))
        }
        fn draw(&self, in_file: bool, random: &mut dyn FnMut(u64) -> u64) -> Vec<Phrase> {
            self.0.draw(in_file, random)
        }
        fn judge(&self, outgoing: &Outgoing, record: &Record, limits: &Limits) -> Verdict {
            self.0.judge(outgoing, record, limits)
        }
    }

    impl Checker for ThriceChecker {
        fn receive(&mut self, bytes: &[u8], sent: u64) -> Result<(), Finding> {
            self.0.receive(bytes, sent)
        }
        fn fin(&mut self) -> Result<(), Finding> {
            self.0.fin()
        }
        fn replies(&self) -> u64 {
            3 * self.0.replies()
        }
        fn is_last(&self) -> bool {
            self.0.is_last()
        }
    }

    #[test]
    fn a_request_may_have_several_replies() {
        let echo = |mut stream: TcpStream| {
            let mut bytes = [0; 1 << 14];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
        };
        let dialect = dialect(&"echo://127.0.0.1:1".parse().expect("a target"));
        let thrice = Arc::new(Thrice(dialect.expect("a dialect")));
        let latencies = felt_in(thrice, echo, Duration::from_secs(1));
        assert!(latencies.findings.is_empty(), "{:?}", latencies.examples);
        // Each is over after some requests, and the next one comes.
        assert!(latencies.connections > 4, "{}", latencies.connections);
    }

    #[test]
    fn one_that_is_treated_badly_is_a_finding() {
        let rude = |mut stream: TcpStream| drop(stream.read(&mut [0]));
        let latencies = latencies(rude, Duration::from_millis(500));
        assert!(!latencies.findings.is_empty() && latencies.connections > 0);
        let (finding, script) = &latencies.examples[0];
        assert!(matches!(finding.rule, Rule::LostReply | Rule::ResetInsteadOfReply), "{finding:?}");
        assert_eq!(script.check(), Ok(()));
    }
}
