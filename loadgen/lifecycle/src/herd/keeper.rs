//! Opens and holds the connections of a herd through its phases.

use super::clock::{Turns, to_ns};
use super::member::{End, Herd, Member};
use super::order::Order;
use super::tally::{HerdInterval, Phase, Tally};
use crate::clients::Protocol;
use crate::event_loop::EventLoop;
use crate::route::CONNECTING_MAX;
use crate::system::{self, Interrupts};
use std::io;
use std::time::Duration;

/// Longest time between two checks for a signal.
const NAP_MAX_NS: u64 = 10_000_000;
/// Interval between two lines of output.
const LINE_NS: u64 = 1_000_000_000;
/// Maximum number of connects started per turn.
const BURST_MAX: usize = 128;

/// The result of a run.
pub struct Kept {
    /// The counters.
    pub tally: Tally,
    /// Time until the last connect succeeded or failed.
    pub ramp: Duration,
    /// Time from the first connect to the end.
    pub elapsed: Duration,
    /// Growth of resident memory during the ramp; `None` if the ramp did not finish.
    pub memory_bytes: Option<u64>,
    /// A signal ended the run.
    pub interrupted: bool,
}

/// Holds all connections, on one thread.
pub struct Keeper<P: Protocol> {
    events: EventLoop<Member<P>>,
    herd: Herd<P>,
    /// Number of connections whose connect has started.
    begun: u64,
    ramp_ns: u64,
    resident_before: Option<u64>,
    memory_bytes: Option<u64>,
}

impl<P: Protocol> Keeper<P> {
    /// Creates the keeper. The run starts now.
    ///
    /// # Errors
    /// errno of `epoll_create1(2)`.
    pub fn new(order: Order, protocol: P) -> io::Result<Self> {
        Ok(Self {
            events: EventLoop::new()?,
            herd: Herd::new(order, protocol),
            begun: 0,
            ramp_ns: 0,
            resident_before: None,
            memory_bytes: None,
        })
    }

    /// Runs all phases; calls `line` once per second.
    ///
    /// # Errors
    /// errno of `epoll_wait(2)`.
    pub fn keep(
        mut self,
        interrupts: &Interrupts,
        mut line: impl FnMut(&HerdInterval),
    ) -> io::Result<Kept> {
        self.resident_before = system::resident_bytes();
        let mut next_line_ns = LINE_NS;
        let interrupted = loop {
            if interrupts.wait(Duration::ZERO) {
                break true;
            }
            self.begin_connects();
            let now_ns = self.herd.now_ns();
            if now_ns >= next_line_ns {
                line(&self.herd.tally.interval(now_ns, self.herd.phase));
                next_line_ns = now_ns - now_ns % LINE_NS + LINE_NS;
            }
            if self.is_over(now_ns) {
                break false;
            }
            let connect_ns = if self.may_begin() { self.connect_due_ns() } else { u64::MAX };
            let wake_ns = next_line_ns.min(connect_ns).min(now_ns + NAP_MAX_NS);
            let nap = Duration::from_nanos(wake_ns.saturating_sub(now_ns));
            self.events.turn(nap, &mut self.herd)?;
            self.lose_late();
        };
        self.herd.collect_late(true);
        self.lose_late();
        let elapsed_ns = self.herd.now_ns();
        let Herd { mut tally, phase, .. } = self.herd;
        // An interval of less than a tenth of a second is not reported.
        if elapsed_ns + LINE_NS - next_line_ns > LINE_NS / 10 {
            tally.interval(elapsed_ns, phase);
        }
        let ramp_ns = if phase == Phase::Ramp { elapsed_ns } else { self.ramp_ns };
        Ok(Kept {
            tally,
            ramp: Duration::from_nanos(ramp_ns),
            elapsed: Duration::from_nanos(elapsed_ns),
            memory_bytes: self.memory_bytes,
            interrupted,
        })
    }

    /// Moves to the next phase when it is due. Returns true after the last phase.
    fn is_over(&mut self, now_ns: u64) -> bool {
        let herd = &mut self.herd;
        match herd.phase {
            Phase::Ramp => {
                // The server is unreachable; further connects would fail too.
                let failed = herd.tally.failures.total() + herd.tally.refused;
                if herd.tally.connected == 0 && failed >= CONNECTING_MAX as u64 {
                    return true;
                }
                if self.begun == herd.order.connections && herd.connecting == 0 {
                    herd.phase = Phase::Hold;
                    self.ramp_ns = now_ns;
                    self.memory_bytes = system::resident_bytes()
                        .zip(self.resident_before)
                        .map(|(now, before)| now.saturating_sub(before));
                }
            }
            Phase::Hold => {
                if now_ns >= self.ramp_ns + to_ns(herd.order.hold) {
                    herd.phase = Phase::LastRound;
                    let Order { probe_every, connections, .. } = herd.order;
                    herd.turns = Turns::last_round(now_ns, probe_every, connections);
                    herd.last_turns_left = herd.tally.open;
                    self.events.reschedule(|member| member.begin_last_round(herd));
                }
            }
            Phase::LastRound => return herd.last_turns_left == 0 && herd.probing == 0,
        }
        herd.phase != Phase::Ramp && herd.tally.open == 0
    }

    fn may_begin(&self) -> bool {
        self.begun < self.herd.order.connections && self.herd.connecting < CONNECTING_MAX
    }

    /// Returns the scheduled time of the next connect.
    fn connect_due_ns(&self) -> u64 {
        self.herd.order.conn_rate.map_or(0, |rate| rate.due_ns(self.begun))
    }

    fn begin_connects(&mut self) {
        for _ in 0..BURST_MAX {
            let (now_ns, due_ns) = (self.herd.now_ns(), self.connect_due_ns());
            if !self.may_begin() || due_ns > now_ns {
                return;
            }
            // Without a rate, the scheduled time is now.
            let intended_ns = if self.herd.order.conn_rate.is_some() { due_ns } else { now_ns };
            let number = u32::try_from(self.begun).expect("--connections has a far lower limit");
            self.begun += 1;
            self.events.start(Member::new(number, intended_ns), &mut self.herd);
        }
    }

    /// Loses the connections of which an earlier answer turned out to be wrong.
    fn lose_late(&mut self) {
        for (number, wrong) in std::mem::take(&mut self.herd.late) {
            if let Some(mut member) = self.events.remove(|member| member.number() == number) {
                member.end(&mut self.herd, End::Lost(wrong));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::echo::Echo;
    use crate::herd::sources::Sources;
    use crate::route::Route;
    use std::collections::HashSet;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn a_large_herd_leaves_from_several_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("its address");
        let (sender, peers) = mpsc::channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let peer = stream.peer_addr().expect("it is connected");
                sender.send(peer.ip()).expect("the test waits");
                thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        stream.write_all(&bytes[..count]).expect("it is read");
                    }
                });
            }
        });
        let order = Order {
            to,
            sources: Sources::Loopback(3),
            route: Route::default(),
            seed: 7,
            connections: 9,
            hold: Duration::from_millis(20),
            probe_every: Duration::from_millis(10),
            conn_rate: None,
            timeout: Duration::from_secs(10),
            drain_ok: false,
        };
        let keeper = Keeper::new(order, Echo::new(7, 32, Default::default())).expect("epoll");
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let kept = keeper.keep(&interrupts, |_| ()).expect("epoll");
        assert_eq!((kept.tally.connected, kept.tally.answered_last), (9, 9));
        let seen: HashSet<_> = peers.try_iter().map(|peer| peer.to_string()).collect();
        assert_eq!(seen, ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(String::from).into());
    }
}
