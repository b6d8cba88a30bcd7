//! What happened last, for a seed that fails.

use super::super::{Descriptor, Token};
use std::collections::VecDeque;
use std::fmt;

/// Events kept.
const KEPT: usize = 400;

/// One event; formatted only when somebody asks.
#[derive(Clone, Copy)]
enum Event {
    Submitted(Token, &'static str, Descriptor),
    Completed(Token, i32, u32),
    Called(&'static str, Descriptor, i64),
    Peer(&'static str, usize, u64),
    Moved(&'static str, usize, u64, usize),
}

/// The last events.
#[derive(Default)]
pub struct Trace {
    events: VecDeque<(u64, Event)>,
}

impl Trace {
    fn add(&mut self, now_us: u64, event: Event) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back((now_us, event));
    }

    pub fn submitted(&mut self, now_us: u64, token: Token, what: &'static str, on: Descriptor) {
        self.add(now_us, Event::Submitted(token, what, on));
    }

    pub fn completed(&mut self, now_us: u64, token: Token, result: i32, flags: u32) {
        self.add(now_us, Event::Completed(token, result, flags));
    }

    pub fn called(&mut self, now_us: u64, what: &'static str, on: Descriptor, result: i64) {
        self.add(now_us, Event::Called(what, on, result));
    }

    pub fn moved(&mut self, now_us: u64, what: &'static str, peer: usize, sent: u64, read: usize) {
        self.add(now_us, Event::Moved(what, peer, sent, read));
    }

    pub fn peer(&mut self, now_us: u64, what: &'static str, peer: usize, number: u64) {
        self.add(now_us, Event::Peer(what, peer, number));
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |token: Token| {
            let generation = token.user_data() >> 32 & 0xff_ffff;
            match token.kind() {
                Some(kind) => format!("{kind:?} slot {} generation {generation}", token.slot()),
                None => format!("token {:#x}", token.user_data()),
            }
        };
        for (at_us, event) in &self.events {
            write!(f, "{at_us:>12} us  ")?;
            match *event {
                Event::Submitted(token, what, on) => {
                    writeln!(f, "submitted {what}({}) as {}", on.0, name(token))?;
                }
                Event::Completed(token, result, flags) => {
                    writeln!(f, "completed {}: {result}, flags {flags:#x}", name(token))?;
                }
                Event::Called(what, on, result) => {
                    writeln!(f, "called {what}({}): {result}", on.0)?
                }
                Event::Peer(what, peer, number) => writeln!(f, "peer {peer} {what} {number}")?,
                Event::Moved(what, peer, sent, read) => {
                    writeln!(f, "peer {peer} {what}: has sent {sent}, read {read}")?;
                }
            }
        }
        Ok(())
    }
}
