//! Draws scripts for the cells of the matrix. A script depends only on the seed and its number, so
//! a run can be repeated.

use super::cell::{Cell, Faults, Kind, Point};
use super::dialect::{Dialect, Key, Limits, Outgoing, Phrase, Request};
use super::script::{Connect, Kind as Leave, Recv, Script, Send, Step, Target};
use crate::random::Random;
use std::sync::Arc;
use std::time::Duration;

/// Number of attempts to draw requests for a cell before it counts as impossible in the protocol.
const TRIES: u64 = 64;
/// Minimum reply size for a stalled reader, if the protocol has it. The kernel's buffers would hold
/// less.
const STALL_BYTES: u64 = 16 << 10;
/// Maximum number of replies that a script awaits one by one.
const REPLIES_MAX: usize = 32;
/// Range around the server's own timeout.
const DEADLINE_WIDTH_US: u64 = 2_000;
/// One in `LONG_STALLS` stalled readers stalls for longer than the patience of other connections.
/// If it holds resources that they need, they are not served.
const LONG_STALLS: u64 = 32;

/// Draws scripts.
pub struct Drawer {
    dialect: Arc<dyn Dialect>,
    target: Target,
    seed: u64,
    limits: Limits,
    cells: Vec<Cell>,
}

impl Drawer {
    /// Creates a drawer for a run.
    ///
    /// # Errors
    /// The protocol has none of the faults.
    pub fn new(
        dialect: Arc<dyn Dialect>,
        target: Target,
        seed: u64,
        limits: Limits,
        faults: &Faults,
    ) -> Result<Self, String> {
        let mut drawer = Self { dialect, target, seed, limits, cells: Vec::new() };
        let can = |cell: &Cell| drawer.try_cell(*cell, 0).is_some();
        let cells: Vec<Cell> = faults.cells().iter().copied().filter(can).collect();
        if cells.is_empty() {
            let deadline = match drawer.limits.deadline {
                None => "; the point deadline needs --deadline, the server's own timeout",
                Some(_) => "",
            };
            return Err(format!(
                "--faults: the protocol {} has none of these faults{deadline}",
                drawer.target.scheme
            ));
        }
        drawer.cells = cells;
        Ok(drawer)
    }

    /// Returns the cells of the run, row by row.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Returns the script `number` and its cell. The numbers cycle through all cells.
    #[must_use]
    pub fn draw(&self, number: u64) -> (Cell, Script) {
        let count = self.cells.len() as u64;
        // Each cycle has a different order, so that no cell always follows the same other one.
        let mut random = Random::of_number(self.seed, number / count + (1 << Key::CONNECT_SHIFT));
        let cell = self.cells[((number + random.below(count)) % count) as usize];
        let script = self.try_cell(cell, number).or_else(|| self.try_cell(cell, 0));
        (cell, script.expect("cells that cannot be drawn are not there"))
    }

    /// Returns the script of a well-behaved connection.
    #[must_use]
    pub fn control(&self) -> Script {
        let well = Cell { point: Point::Connected, kind: Kind::None };
        self.try_cell(well, 0).expect("every protocol has a well-behaved script")
    }

    fn try_cell(&self, cell: Cell, number: u64) -> Option<Script> {
        let key = Key { seed: self.seed, number };
        let mut random = Random::of_number(self.seed, number);
        for tried in 0..TRIES {
            let say =
                self.dialect.draw(cell.point == Point::InFile, &mut |most| random.below(most));
            let Ok(outgoing) = self.dialect.outgoing(key, &say) else { continue };
            let missing: u64 =
                outgoing.requests.iter().map(|request| request.reply_bytes_min).sum();
            if cell.kind == Kind::StopReading && missing < STALL_BYTES && tried < TRIES / 2 {
                continue;
            }
            let mut tale = Tale { cell, outgoing, limits: self.limits, random: &mut random };
            if let Some(steps) = tale.steps() {
                return Some(self.script(key, say, steps));
            }
        }
        None
    }

    fn script(&self, key: Key, say: Vec<Phrase>, steps: Vec<Step>) -> Script {
        let script = Script { target: self.target.clone(), key, say, steps };
        debug_assert_eq!(script.check(), Ok(()), "{script}");
        script
    }
}

/// The state while the steps of one script are made.
struct Tale<'a> {
    cell: Cell,
    outgoing: Outgoing,
    limits: Limits,
    random: &'a mut Random,
}

impl Tale<'_> {
    /// Returns the steps, or `None` if the requests have no such point.
    fn steps(&mut self) -> Option<Vec<Step>> {
        let mut steps = self.opening();
        steps.extend(self.approach()?);
        let sent = steps.iter().map(sent).sum();
        let read = steps.iter().filter(|step| **step == Step::Recv(Recv::Reply)).count();
        steps.extend(self.fault(sent, read)?);
        Some(steps)
    }

    fn opening(&mut self) -> Vec<Step> {
        let rcvbuf = (self.cell.kind == Kind::StopReading).then_some(2_304);
        let nowait = self.cell.point == Point::BeforeAccept;
        let connect = Step::Connect(Connect { rcvbuf, nowait, ..Connect::default() });
        let crowd = match (self.cell.point, self.cell.kind) {
            (Point::Capacity, Kind::Rst) => Leave::Rst,
            (Point::Capacity, _) => Leave::Fin,
            _ => return vec![connect],
        };
        vec![Step::Crowd(2 + self.random.below(30), crowd), connect]
    }

    /// Returns the steps up to the point.
    fn approach(&mut self) -> Option<Vec<Step>> {
        let requests = self.outgoing.requests.clone();
        let sent = |bytes: u64| Step::Send(Send::Bytes(bytes));
        let inside = |random: &mut Random, from: u64, to: u64| {
            (to > from + 1).then(|| from + 1 + random.below(to - from - 1))
        };
        Some(match self.cell.point {
            Point::BeforeAccept | Point::Connected | Point::Capacity => Vec::new(),
            Point::InHeader => {
                let of = self.pick(&requests, |it| it.head_end > it.start + 1)?;
                vec![sent(inside(self.random, of.start, of.head_end)?)]
            }
            Point::Boundary => {
                let of =
                    self.pick(&requests, |it| it.start < it.head_end && it.head_end < it.end)?;
                vec![sent(of.head_end)]
            }
            Point::InBody => {
                let of = self.pick(&requests, |it| it.end > it.head_end + 1)?;
                vec![sent(inside(self.random, of.head_end, of.end)?)]
            }
            Point::Asked => vec![sent(self.pick(&requests, |it| it.is_proper)?.end)],
            Point::InReply => {
                let of = self.pick(&requests, |it| it.is_proper && it.reply_bytes_min > 1)?;
                vec![sent(of.end), self.inside_reply(&requests, &of)]
            }
            Point::BetweenReplies => {
                let proper = requests.iter().take_while(|it| it.is_proper).count();
                let before = inside(self.random, 0, proper as u64)?.min(REPLIES_MAX as u64);
                let mut steps = vec![Step::Send(Send::All)];
                steps.extend((0..before).map(|_| Step::Recv(Recv::Reply)));
                steps
            }
            Point::InFile => {
                let of = self.pick(&requests, |it| it.is_file)?;
                let body = inside(self.random, of.head_end, of.end);
                match body {
                    Some(at) if of.reply_bytes_min <= 1 || self.random.below(2) == 0 => {
                        vec![sent(at)]
                    }
                    _ if of.reply_bytes_min > 1 => {
                        vec![sent(of.end), self.inside_reply(&requests, &of)]
                    }
                    _ => return None,
                }
            }
            Point::Idle => {
                let mut steps = self.exchange(&requests)?;
                steps.push(Step::Wait(self.ms(1, 30)));
                steps
            }
            Point::Deadline => {
                let mut steps = self.exchange(&requests)?;
                let early = Duration::from_micros(self.random.below(2 * DEADLINE_WIDTH_US));
                let late = self.limits.deadline? + Duration::from_micros(DEADLINE_WIDTH_US);
                steps.push(Step::Wait(late.saturating_sub(early)));
                steps
            }
        })
    }

    /// Returns the steps of the fault, after `sent` bytes were sent and `read` replies awaited.
    fn fault(&mut self, sent: u64, read: usize) -> Option<Vec<Step>> {
        let left = (self.outgoing.bytes.len() as u64).saturating_sub(sent);
        let end = [Step::Fin, Step::Recv(Recv::End)];
        Some(match self.cell.kind {
            _ if self.cell.point == Point::Capacity => self.behave(read),
            Kind::None if self.cell.point == Point::Deadline && self.random.below(2) == 0 => {
                vec![Step::Recv(Recv::End)]
            }
            Kind::None => self.behave(read),
            Kind::Fin => vec![Step::Fin, Step::Close],
            Kind::HalfClose => end.to_vec(),
            Kind::Rst => vec![Step::Rst],
            Kind::CloseUnread => vec![Step::Wait(self.ms(1, 5)), Step::Close],
            Kind::StopReading => {
                let stall = match self.random.below(LONG_STALLS) {
                    0 => self.limits.patience + self.limits.patience / 2,
                    _ => self.ms(10, 150),
                };
                [&[Step::Flood(stall), Step::Send(Send::All)], &end[..]].concat()
            }
            Kind::Dribble => {
                let bytes = left.min(1 + self.random.below(60));
                if bytes == 0 {
                    return None;
                }
                let every = Duration::from_micros(50 + self.random.below(1_000));
                let slow = Step::Dribble { bytes, every };
                [&[slow, Step::Send(Send::All)], &end[..]].concat()
            }
            Kind::Vanish => vec![Step::Vanish(self.ms(1, 50))],
            Kind::Reconnect => {
                let again = Step::Connect(Connect { again: true, ..Connect::default() });
                [vec![Step::Rst, again], self.behave(0)].concat()
            }
        })
    }

    /// Returns steps that send the rest, read the remaining replies and end cleanly.
    fn behave(&self, read: usize) -> Vec<Step> {
        let proper = self.outgoing.requests.iter().take_while(|it| it.is_proper).count();
        let mut steps = vec![Step::Send(Send::All)];
        steps.extend((read..proper.min(REPLIES_MAX)).map(|_| Step::Recv(Recv::Reply)));
        steps.extend([Step::Fin, Step::Recv(Recv::End)]);
        steps
    }

    /// Returns steps that send some requests and read their replies.
    fn exchange(&mut self, requests: &[Request]) -> Option<Vec<Step>> {
        let proper = requests.iter().take_while(|it| it.is_proper).count().min(REPLIES_MAX);
        let count = 1 + self.random.below((proper as u64).checked_sub(1)? + 1);
        let mut steps = vec![Step::Send(Send::Bytes(requests[count as usize - 1].end))];
        steps.extend((0..count).map(|_| Step::Recv(Recv::Reply)));
        Some(steps)
    }

    /// Returns a step that reads up to a point inside the reply to `of`.
    fn inside_reply(&mut self, requests: &[Request], of: &Request) -> Step {
        let before: u64 =
            requests.iter().take_while(|it| it.end < of.end).map(|it| it.reply_bytes_min).sum();
        Step::Recv(Recv::Bytes(before + 1 + self.random.below(of.reply_bytes_min - 1)))
    }

    fn pick(
        &mut self,
        requests: &[Request],
        is_right: impl Fn(&Request) -> bool,
    ) -> Option<Request> {
        let right: Vec<&Request> = requests.iter().filter(|it| is_right(it)).collect();
        if right.is_empty() {
            return None;
        }
        Some(right[self.random.below(right.len() as u64) as usize].clone())
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.random.below(most - least + 1))
    }
}

const fn sent(step: &Step) -> u64 {
    match step {
        Step::Send(Send::Bytes(bytes)) => *bytes,
        Step::Send(Send::All) => u64::MAX >> 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::dialect;
    use crate::oracle::tests::LIMITS;
    use std::collections::BTreeSet;

    fn drawer(seed: u64, faults: &str, deadline: Option<u64>) -> Result<Drawer, String> {
        let target: Target = "echo://127.0.0.1:7000".parse().expect("a target");
        let limits = Limits { deadline: deadline.map(Duration::from_secs), ..LIMITS };
        let dialect = dialect(&target).expect("a dialect");
        Drawer::new(dialect, target, seed, limits, &faults.parse().expect("faults"))
    }

    #[test]
    fn the_same_seed_draws_the_same_scripts_and_another_one_others() {
        let all = |seed| {
            let drawer = drawer(seed, "all", Some(1)).expect("cells");
            (0..300).map(|number| drawer.draw(number).1.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        assert_eq!(all(7).into_iter().collect::<BTreeSet<_>>().len(), 300);
    }

    #[test]
    fn every_cell_has_its_turn_and_every_script_is_printable() {
        let drawer = drawer(3, "all", Some(1)).expect("cells");
        let count = drawer.cells().len() as u64;
        let mut seen = BTreeSet::new();
        for number in 0..20 * count {
            let (cell, script) = drawer.draw(number);
            assert_eq!(script.to_string().parse::<Script>(), Ok(script.clone()));
            assert_eq!(script.key, Key { seed: 3, number });
            seen.insert(cell);
            let replies = |steps: &[Step]| {
                steps.iter().filter(|step| **step == Step::Recv(Recv::Reply)).count()
            };
            let is_connect = |step: &Step| matches!(step, Step::Connect(_));
            for part in script.steps.split(is_connect) {
                assert!(replies(part) <= script.say.len(), "more replies than requests: {script}");
            }
        }
        assert_eq!(seen.len() as u64, count);
        let has = |point| drawer.cells().iter().any(|cell| cell.point == point);
        assert!(has(Point::InBody) && has(Point::Deadline) && has(Point::BetweenReplies));
        assert!(!has(Point::InHeader) && !has(Point::InFile), "an echo has neither");
    }

    #[test]
    fn what_the_protocol_does_not_have_is_refused() {
        let error = drawer(1, "in_header,in_file", None).err().expect("an echo has neither");
        assert!(error.contains("echo has none of these"), "{error}");
        let error = drawer(1, "deadline", None).err().expect("there is no deadline");
        assert!(error.contains("--deadline"), "{error}");
        let drawn = drawer(1, "deadline/rst", Some(1)).expect("a cell").draw(5).1.to_string();
        let wait = drawn.split(' ').find_map(|word| word.strip_prefix("wait=")).expect("a wait");
        let wait = crate::units::parse_duration(wait).expect("a time").as_micros();
        assert!((998_000..=1_002_000).contains(&wait), "{drawn}");
    }

    #[test]
    fn numbers_are_spread_over_what_is_asked_for() {
        let mut random = Random::of_number(1, 2);
        let mut counts = [0; 10];
        (0..10_000).for_each(|_| counts[random.below(10) as usize] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
        assert_eq!(random.below(0), 0);
    }
}
