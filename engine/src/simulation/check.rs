//! What must be true of a world beyond the invariants of its shard: connections end for a reason
//! that exists, bytes arrive, and in quiet times nobody waits for nothing.

use super::book::{Farewell, Record, Role};
use super::world::World;
use crate::Reason;
use crate::ring::Kind;
use crate::ring::simulated::{OpenCounts, Peer, Standing};
use crate::shard::state::State;
use std::net::SocketAddr;

/// A drain waits so long for a peer that sends nothing.
const DRAIN_LINGER_MS: u64 = 500;
/// Reasons after which what was queued has left.
const GRACEFUL: [Reason; 5] = [
    Reason::LocalClose,
    Reason::PeerFin,
    Reason::IdleTimeout,
    Reason::ReceiveTimeout,
    Reason::Drained,
];

impl World {
    fn peer(&mut self, address: SocketAddr) -> &Peer {
        let peers = &self.shard.parts().0.peers;
        peers.iter().rev().find(|peer| peer.address == address).expect("every address has a peer")
    }

    /// Looks at connections whose graceful end was cut short: something must justify it.
    pub(super) fn excuse(&mut self) {
        let (_, core) = self.shard.parts();
        let (now_ms, limits, draining) = (core.now_ms, core.limits.clone(), core.draining);
        let mut cut_short = Vec::new();
        for (slot, connection) in core.slots.iter() {
            let graceful = connection.reason.is_some_and(|reason| GRACEFUL.contains(&reason));
            let over = matches!(connection.state, State::Ending | State::Closing);
            if !over || !graceful || !connection.opened {
                continue;
            }
            let since_ms = now_ms - connection.stalled_since_ms;
            let silent = draining && connection.discarded == 0;
            let waited = since_ms >= limits.linger_ms || (silent && since_ms >= DRAIN_LINGER_MS);
            let enough = connection.discarded as usize >= limits.linger_bytes_max;
            let stalled = [limits.write_ms, limits.transfer_ms].into_iter().flatten();
            let stalled = stalled.min().is_some_and(|least_ms| since_ms >= least_ms);
            if connection.abortive {
                cut_short.push((core.id(slot), connection.peer, stalled));
            } else if !connection.fin_seen {
                cut_short.push((core.id(slot), connection.peer, waited || enough));
            }
        }
        let drained = self.is_past_drain();
        for (id, address, mut justified) in cut_short {
            justified |= self.peer(address).standing != Standing::Connected || drained;
            let mut book = self.book.borrow_mut();
            let record = book.record(id).expect("who was opened has a record");
            justified |= record.cut || record.part.role == Role::Files;
            assert!(justified, "cut short: {record:?}");
            record.excused = true;
        }
    }

    fn is_past_drain(&mut self) -> bool {
        let now_us = self.now_us();
        self.drain_deadline_us.is_some_and(|at_us| now_us + 1000 >= at_us)
    }

    /// In quiet times, with peers that read and answer: what is still under way, if anything.
    pub fn unsettled(&mut self) -> Option<String> {
        let permits = self.admission.free();
        let draining = self.drain_deadline_us.is_some();
        let (ring, core) = self.shard.parts();
        for (slot, connection) in core.slots.iter() {
            let peers = &ring.peers;
            let found = peers.iter().rev().find(|peer| peer.address == connection.peer);
            let Some(peer) = found else { continue };
            if peer.standing != Standing::Connected || !connection.opened {
                continue;
            }
            let state = connection.state;
            let reads = state.receives() && !connection.paused && !connection.output_full;
            if reads && (!peer.socket.inbound.is_empty() || !peer.to_send.is_empty()) {
                return Some(format!("slot {slot} has not read what its peer sends"));
            }
            if state.sends() && connection.output_bytes > 0 {
                return Some(format!("slot {slot} has not sent what it has to"));
            }
            if connection.paused || connection.output_full || !peer.socket.outbound.is_empty() {
                return Some(format!("slot {slot} has not gone on"));
            }
            let book = self.book.borrow();
            let record = book.records.iter().rev().find(|it| it.id == core.id(slot));
            let said = record.map_or(0, |it| it.said_of_its_own());
            if let Some(Role::Greeter(total) | Role::Lecturer(total)) =
                record.map(|it| it.part.role)
                && said < total
                && state.accepts_output()
            {
                return Some(format!("slot {slot} has said {said} of {total} bytes"));
            }
            if matches!(state, State::Draining | State::Ending | State::Closing) {
                return Some(format!("slot {slot} is still {state}"));
            }
        }
        let waits = ring.peers.iter().position(|peer| {
            let refused = matches!(peer.standing, Standing::Refused | Standing::SentReset);
            !peer.outgoing && !peer.established && !refused && !peer.plan.stillborn
        });
        match waits {
            Some(peer) if permits > 0 && !draining => {
                Some(format!("peer {peer} has not been let in, {permits} permits are free"))
            }
            _ => None,
        }
    }

    /// After the end: everything is back, everybody has what is owed to them.
    pub fn verdict(&mut self) {
        assert!(self.shard.is_finished(), "the shard has not finished");
        self.shard.finish();
        let view = self.ring().view();
        let others = view.tokens.iter().filter(|token| token.kind() != Some(Kind::Wake));
        assert_eq!(others.count(), 0, "operations in flight: {:?}", view.tokens);
        assert_eq!(self.ring().open_counts(), OpenCounts::default(), "descriptors left open");
        assert_eq!(self.admission.free(), self.admission.total(), "permits");
        let ledger = self.ledger();
        assert!(ledger.balanced() && ledger.open() == 0, "the ledger: {ledger:?}");
        assert_eq!(ledger.sum.descriptors, 0, "descriptors in the ledger");
        assert_eq!(ledger.sum.cut_off, 0, "bytes that were there before our FIN");
        assert_eq!(ledger.sum.operations_in_flight, 0, "operations in the ledger");
        assert_eq!(ledger.sum.handler_panics, self.book.borrow().panics, "panics, but for ours");
        let book = self.book.clone();
        let book = book.borrow();
        assert!(book.connects.values().all(|answered| *answered), "connects not answered");
        for record in &book.records {
            self.judge(record);
            let peer = self.peer(record.address);
            let graceful = record.closed.is_some_and(|reason| GRACEFUL.contains(&reason));
            let there = matches!(peer.standing, Standing::Connected | Standing::GotReset);
            let whole = graceful && there && !record.excused && !record.cut;
            let owed = whole && (!peer.got_fin || record.files_owed > 0);
            if owed || record.files_owed < 0 || !book.agrees(record, &peer.received, whole) {
                let got = (peer.received.len(), peer.got_fin, peer.lost_by_reset);
                panic!("whole: {whole}; the peer has {got:?} of {record:?}");
            }
            // A reset may take unread bytes with it and leave the FIN.
            let sent = (peer.standing != Standing::SentReset).then_some(peer.sent);
            let fewer = sent.is_some_and(|sent| record.shown != sent);
            if record.fin_shown && fewer && !self.hears_in_part(record) {
                panic!("{} of {sent:?} bytes were shown to {record:?}", record.shown);
            }
        }
    }

    /// Whether bytes may remain unshown at the peer's FIN: fewer than the handler needs.
    fn hears_in_part(&self, record: &Record) -> bool {
        matches!(record.part.role, Role::Whole(_))
    }

    /// Whether there is such a reason.
    fn judge(&mut self, record: &Record) {
        let Some(reason) = record.closed else {
            let in_opened = record.part.role == Role::PanicsAtEnds && record.panicked;
            assert!(in_opened, "never closed: {record:?}");
            return;
        };
        let peer = self.peer(record.address);
        let (standing, sent_fin) = (peer.standing, peer.sent_fin);
        let gone = matches!(standing, Standing::SentReset | Standing::Vanished);
        let config = &self.config;
        let part = record.part;
        let true_reason = match reason {
            // A send may have taken the reset's error: then a receive answers 0.
            Reason::PeerFin => sent_fin || gone,
            Reason::PeerReset | Reason::BrokenPipe => gone,
            Reason::NetworkError => standing == Standing::Vanished,
            Reason::LocalClose => {
                let role = matches!(part.role, Role::Lecturer(_) | Role::ShutdownAfter(_));
                let farewell = record.fin_shown && part.farewell == Farewell::ReplyAndShutdown;
                record.closing || role || farewell
            }
            Reason::Aborted => matches!(part.role, Role::AbortAfter(_)) && record.cut,
            Reason::IdleTimeout => config.idle_timeout.is_some(),
            Reason::ReceiveTimeout => config.receive_timeout.is_some(),
            Reason::WriteTimeout => config.write_timeout.is_some(),
            Reason::TransferTimeout => {
                config.transfer_timeout.is_some() && part.role == Role::Files
            }
            Reason::MessageTooLong => record.shown > 0 || matches!(part.role, Role::Whole(_)),
            Reason::OutputTooLong => config.output_bytes_max < 1 << 20,
            Reason::FileTruncated | Reason::FileFailed => part.role == Role::Files,
            Reason::Kicked => record.cut,
            Reason::Drained => self.drain_deadline_us.is_some(),
            Reason::Stopped => self.is_past_drain(),
            Reason::HandlerPanicked => record.panicked,
            Reason::ProtocolError | Reason::ShardFailed => false,
        };
        assert!(true_reason, "no reason: {record:?}, peer {standing:?}, FIN {sent_fin}");
    }
}
