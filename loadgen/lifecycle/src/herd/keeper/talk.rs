//! The part of the keeper that handles one connection: probes, answers and its end.

use super::super::clock::to_ns;
use super::super::loss::{How, Loss, seconds};
use super::super::member::{Member, State};
use super::super::tongue::{Heard, Wrong};
use super::Keeper;
use crate::event_loop::Ready;
use std::io;

/// Maximum number of reads from one connection per turn.
const READS_MAX: usize = 16;

impl Keeper {
    /// Sends a probe that was scheduled for `intended_ns`.
    pub(super) fn ask(&mut self, number: usize, intended_ns: u64) {
        let now_ns = self.now_ns();
        let member = &mut self.members[number];
        assert_eq!(member.asked, member.answered, "one at a time");
        member.asked += 1;
        (member.intended_ns, member.sent_ns) = (intended_ns, now_ns);
        let probe = member.probe(number).expect("it has just been counted");
        // The header of the connection may still be there.
        member.unsent.extend(self.tongue.question(probe));
        self.tally.probes += 1;
        self.asking += 1;
        let deadline_ns = now_ns + to_ns(self.order.timeout);
        self.probes.push_back((deadline_ns, number, member.asked));
        self.send(number);
    }

    /// Sends unsent bytes until the socket is full.
    fn send(&mut self, number: usize) {
        let now_ns = self.now_ns();
        let member = &mut self.members[number];
        let State::Open(stream) = &member.state else { return };
        while !member.unsent.is_empty() {
            match stream.send(&member.unsent) {
                Ok(count) => {
                    member.spoke_ns = now_ns;
                    member.unsent.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Data received before the failure may explain it.
                    self.read(number);
                    return self.lose(number, How::Reset, format!("send failed: {error}"));
                }
            }
        }
        member.unsent = Vec::new();
    }

    /// Handles an event of a socket.
    pub(super) fn wake(&mut self, ready: Ready) {
        let Ready { token: number, is_writable, is_error } = ready;
        let member = &mut self.members[number];
        if let State::Connecting(stream) = &member.state {
            if !is_writable && !is_error {
                return;
            }
            self.connecting -= 1;
            if let Ok(Some(error)) | Err(error) = stream.take_error() {
                return self.never_was(number, &error);
            }
            self.born(number);
        } else if is_writable {
            self.send(number);
        }
        self.read(number);
    }

    fn born(&mut self, number: usize) {
        let now_ns = self.now_ns();
        let member = &mut self.members[number];
        if let State::Connecting(stream) = std::mem::replace(&mut member.state, State::Gone) {
            self.tally.connect_ns.saturating_record(now_ns - member.born_ns);
            (member.born_ns, member.spoke_ns) = (now_ns, now_ns);
            member.state = State::Open(stream);
            self.tally.connected += 1;
            self.tally.open += 1;
            let key = (self.order.seed, number as u64);
            if let Some(header) = self.order.route.header(self.order.to, key) {
                member.unsent = header.to_vec();
                self.send(number);
            }
        }
    }

    /// Reads until the socket is empty or the connection is lost.
    pub(super) fn read(&mut self, number: usize) {
        for _ in 0..READS_MAX {
            let member = &mut self.members[number];
            let State::Open(stream) = &member.state else { return };
            match stream.recv(&mut self.bytes) {
                Ok(0) => return self.end(number),
                Ok(count) => {
                    if let Err(wrong) = self.hear(number, count) {
                        return self.lose(number, wrong.how, wrong.detail);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return self.lose(number, How::Reset, format!("receive failed: {error}"));
                }
            }
        }
        self.again.push(number);
    }

    fn hear(&mut self, number: usize, count: usize) -> Result<(), Wrong> {
        let now_ns = self.now_ns();
        let member = &mut self.members[number];
        member.spoke_ns = now_ns;
        let probe = member.probe(number);
        let ear = member.ear.get_or_insert_default();
        let heard = self.tongue.hear(ear, probe, &self.bytes[..count])?;
        if ear.is_idle() {
            member.ear = None;
        }
        match heard {
            Heard::Part => return Ok(()),
            Heard::Answer => self.answered(number, now_ns),
            Heard::LastAnswer => {
                member.waiting = 0;
                self.answered(number, now_ns);
                if self.order.drain_ok {
                    self.drained(number);
                }
                self.lose(
                    number,
                    How::Fin,
                    "the server announced the end of the connection (Connection: close)".into(),
                );
            }
        }
        self.lose_late(false);
        Ok(())
    }

    /// Loses the connections of which an earlier answer turns out to be wrong.
    pub(super) fn lose_late(&mut self, is_over: bool) {
        for (number, wrong) in self.tongue.late(is_over) {
            self.lose(number, wrong.how, wrong.detail);
        }
    }

    fn answered(&mut self, number: usize, now_ns: u64) {
        let member = &mut self.members[number];
        member.answered += 1;
        self.asking -= 1;
        self.tally.answer(now_ns - member.intended_ns, member.is_last);
        if !member.is_last
            && let Some(waiting) = member.waiting.checked_sub(1)
        {
            member.waiting = waiting;
            let intended_ns = member.intended_ns + to_ns(self.order.probe_every);
            self.ask(number, intended_ns);
        }
    }

    /// Handles the server's FIN.
    fn end(&mut self, number: usize) {
        let now_ns = self.now_ns();
        let member = &mut self.members[number];
        let probe = member.probe(number);
        let under_way = probe.is_some();
        let ended = match (&mut member.ear, probe) {
            (Some(ear), Some(probe)) => self.tongue.end(ear, probe),
            _ => Ok(false),
        };
        match ended {
            Err(wrong) => self.lose(number, wrong.how, wrong.detail),
            Ok(true) => {
                member.waiting = 0;
                self.answered(number, now_ns);
                self.lose(number, How::Fin, "closed by the server at the end of an answer".into());
            }
            // No part of an answer was received.
            Ok(false) if self.order.drain_ok && member.ear.is_none() => self.drained(number),
            Ok(false) => {
                let when = if under_way { "before an answer" } else { "while idle" };
                self.lose(number, How::Fin, format!("closed by the server {when}"));
            }
        }
    }

    /// Counts a clean close that `--drain-ok` allows.
    fn drained(&mut self, number: usize) {
        let member = &mut self.members[number];
        if member.probe(number).is_some() {
            self.asking -= 1;
            self.tally.unanswered_at_close += 1;
        } else if member.is_last && member.answered > 0 {
            // The member was counted in the last round; take it back.
            self.tally.answered_last -= 1;
        }
        self.tally.open -= 1;
        self.tally.drained += 1;
        *member = Member { state: State::Gone, ..Member::new() };
    }

    /// Counts a lost connection. Later calls for the same connection have no effect.
    pub(super) fn lose(&mut self, number: usize, how: How, detail: String) {
        let now_ns = self.now_ns();
        let member = &mut self.members[number];
        if !matches!(member.state, State::Open(_)) {
            return;
        }
        let during_probe = member.probe(number).is_some();
        self.asking -= usize::from(during_probe);
        self.tally.open -= 1;
        self.tally.losses.count(Loss {
            connection: number as u64,
            how,
            at_s: seconds(now_ns),
            age_s: seconds(now_ns - member.born_ns),
            silent_s: seconds(now_ns - member.spoke_ns),
            answers: member.answered,
            during_probe,
            detail,
        });
        *member = Member { state: State::Gone, ..Member::new() };
    }
}
