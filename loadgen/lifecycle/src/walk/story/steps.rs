//! The steps that say, read or wait.

use super::{Pace, Story};
use crate::script::{Recv, Send, Step};
use crate::walk::life::Moved;
use std::time::{Duration, Instant};

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Reads in a row before others have their turn.
const READS_MAX: usize = 32;
/// A server that never ends, but never is silent either, is waited for so many times as long as
/// one that is silent.
const PATIENCE_FACTOR: u32 = 10;

impl Story {
    pub(super) fn send(&mut self, much: Send) -> Pace {
        let life = self.life.as_mut().expect("step() looked");
        loop {
            let left = match much {
                Send::All => life.unsent(),
                Send::Bytes(bytes) => life.unsent().min(bytes - self.count),
            };
            if left == 0 {
                return Pace::Next;
            }
            match life.say(left) {
                Moved::Bytes(bytes) => {
                    self.count += bytes;
                    self.moved = Instant::now();
                }
                Moved::Nothing => return self.make_room(),
                Moved::Over => return Pace::Ended,
            }
        }
    }

    pub(super) fn dribble(&mut self, bytes: u64, every: Duration) -> Pace {
        let life = self.life.as_mut().expect("step() looked");
        if self.count == bytes || life.unsent() == 0 {
            return Pace::Next;
        }
        let due = self.began + every * u32::try_from(self.count).unwrap_or(u32::MAX);
        if Instant::now() < due {
            return Pace::Until(due);
        }
        match life.say(1) {
            Moved::Bytes(_) => {
                self.count += 1;
                self.moved = Instant::now();
                Pace::Again
            }
            Moved::Nothing => self.make_room(),
            Moved::Over => Pace::Ended,
        }
    }

    /// The kernel takes no more: perhaps the server waits until we read what it says.
    fn make_room(&mut self) -> Pace {
        self.read_on();
        let life = self.life.as_mut().expect("step() looked");
        match life.receive(&mut vec![0; READ_BYTES]) {
            Moved::Bytes(_) => {
                self.moved = Instant::now();
                Pace::Again
            }
            Moved::Nothing => self.patiently(self.stage.limits.patience),
            Moved::Over => Pace::Ended,
        }
    }

    pub(super) fn flood(&mut self, time: Duration) -> Pace {
        let life = self.life.as_mut().expect("step() looked");
        while life.unsent() > 0 && self.began.elapsed() < time {
            match life.say(life.unsent()) {
                Moved::Bytes(bytes) => self.count += bytes,
                Moved::Nothing => break,
                Moved::Over => return Pace::Ended,
            }
        }
        let pace = self.time(time);
        if matches!(pace, Pace::Next) {
            self.read_on();
        }
        pace
    }

    pub(super) fn recv(&mut self, what: Recv) -> Pace {
        let limits = self.stage.limits;
        // The server may let its own deadline pass before it ends what is idle.
        let patience = match what {
            Recv::End => limits.patience + limits.deadline.unwrap_or_default(),
            Recv::Bytes(_) | Recv::Reply => limits.patience,
        } + self.stalled();
        let life = self.life.as_mut().expect("step() looked");
        let mut bytes = vec![0; READ_BYTES];
        for _ in 0..READS_MAX {
            let most = match what {
                Recv::Bytes(_) => self.due_bytes.saturating_sub(life.received()),
                Recv::Reply if life.replies() >= self.due_replies => 0,
                Recv::Reply | Recv::End => u64::MAX,
            };
            if most == 0 {
                return Pace::Next;
            }
            match life.receive(&mut bytes[..most.min(READ_BYTES as u64) as usize]) {
                Moved::Bytes(count) => {
                    self.count += count;
                    self.moved = Instant::now();
                }
                Moved::Nothing => return self.patiently(patience),
                Moved::Over => return Pace::Ended,
            }
        }
        Pace::Again
    }

    /// Waits until the step is so old.
    pub(super) fn time(&self, time: Duration) -> Pace {
        let until = self.began + time;
        if Instant::now() < until { Pace::Until(until) } else { Pace::Next }
    }

    /// Returns how long the script has read nothing on this connection. A window that was closed is
    /// probed at intervals that double (RFC 9293, 3.8.6.1): the next probe may be as far away.
    fn stalled(&self) -> Duration {
        let before = self.script.steps[..self.at].iter().rev();
        before
            .take_while(|step| !matches!(step, Step::Connect(_)))
            .map(|step| match step {
                Step::Wait(time) | Step::Flood(time) => *time,
                _ => Duration::ZERO,
            })
            .sum()
    }

    /// Waits for the server; when nothing has moved for so long, no more.
    pub(super) fn patiently(&mut self, patience: Duration) -> Pace {
        let (now, silent) = (Instant::now(), self.moved + patience);
        let until = silent.min(self.began + patience * PATIENCE_FACTOR);
        if now < until {
            return Pace::Until(until);
        }
        let life = self.life.as_mut().expect("somebody is waited for");
        // Through a tiny window a file can take minutes: who is slow is left, not blamed.
        if now < silent {
            life.close()
        } else {
            life.give_up()
        }
        Pace::Ended
    }
}
