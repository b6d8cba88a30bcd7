//! The judgement at the end of a world: everything is back, and everybody has what is owed to
//! them.

use super::book::{Begins, Book, Extent, Farewell, Record, Role, Then};
use super::callbacks::Callback;
use super::check::{GRACEFUL, find_peer};
use super::lane::Life;
use super::streams::judge_streams;
use super::world::World;
use crate::ring::simulated::{OpenCounts, Peer, Standing};
use crate::shard::settings::ClientLimits;
use crate::{ListenerState, Origin, Reason, Traffic};
use std::collections::BTreeMap;

impl World {
    /// After the end: everything is back, everybody has what is owed to them.
    pub fn verdict(&mut self) {
        for at in 0..self.lanes.len() {
            self.judge_lane(at);
        }
        self.judge_jobs();
        self.judge_holds();
        self.judge_kept();
        self.judge_messages();
        self.judge_streams();
        assert_eq!(self.admission.free(), self.admission.total(), "permits");
        let share = self.config.max_connections - self.config.outgoing_reserved;
        assert_eq!(self.admission.free_for_accepted(), share, "permits for clients");
        let ledger = self.ledger();
        assert!(ledger.balanced() && ledger.open() == 0, "the ledger: {ledger:?}");
        assert_eq!(ledger.sum.descriptors, 0, "descriptors in the ledger");
        assert_eq!(ledger.sum.cut_off, 0, "bytes that were there before our FIN");
        assert_eq!(ledger.sum.handler_panics, self.book.borrow().panics, "panics, but for ours");
        let book = self.book.clone();
        let book = book.borrow();
        // A shard whose operations hang leaks what they may use.
        let leaks = self.lanes.iter().any(|lane| !lane.at_rest);
        assert!(leaks || book.owners.left() == 0, "owners of payloads that were not dropped");
        for (tag, (shard, answered)) in &book.connects {
            assert!(*answered, "connect {tag} of shard {shard} is not answered");
        }
        self.judge_listeners(&book);
        self.judge_order(&book);
        self.judge_files();
        for record in &book.records {
            self.judge(record);
            let failures = self.lanes[record.id.shard()].ring().file_failures;
            let peer = find_peer(&mut self.lanes, record);
            let graceful = record.closed.is_some_and(|reason| GRACEFUL.contains(&reason));
            let there = matches!(peer.standing, Standing::Connected | Standing::GotReset);
            let whole = graceful && there && !record.excused && !record.cut;
            let extent = match record.closed {
                _ if !whole => Extent::Part,
                Some(Reason::FileTruncated | Reason::FileFailed) => Extent::ToFile,
                // Without a fault, all files must have left.
                _ if record.files_owed > 0 && failures > 0 => Extent::ToFile,
                _ => Extent::Whole,
            };
            let files_owed = match extent {
                Extent::Whole => 0..=0,
                Extent::ToFile => 1..=i32::MAX,
                Extent::Part => 0..=i32::MAX,
            };
            let owed = (whole && !peer.got_fin) || !files_owed.contains(&record.files_owed);
            judge_traffic(record, peer, whole);
            assert!(record.markers.iter().all(|it| it.told), "markers of {record:?}");
            let unsent_bytes = record.unsent_bytes;
            let left = !matches!(extent, Extent::Whole) || unsent_bytes == 0;
            assert!(left, "{unsent_bytes} bytes unsent: {record:?}");
            if owed || !book.agrees(record, &peer.received, extent) {
                let got = (peer.received.len(), peer.got_fin, peer.lost_by_reset);
                panic!("extent: {extent:?}; the peer has {got:?} of {record:?}");
            }
            assert!(record.is_in_order(&peer.received), "a result precedes a command: {record:?}");
            judge_streams(&self.streams, record, &peer.received);
            // A reset may take unread bytes with it and leave the FIN.
            let sent = (peer.standing != Standing::SentReset).then_some(peer.sent);
            let fewer = sent.is_some_and(|sent| record.shown != sent);
            if record.fin_shown && fewer && !self.hears_in_part(record) {
                panic!("{} of {sent:?} bytes were shown to {record:?}", record.shown);
            }
        }
    }

    /// Each accepted peer came to the listener whose number it was told, and nobody is left.
    fn judge_listeners(&mut self, book: &Book) {
        for record in book.records.iter().filter(|record| record.accepted) {
            let listener = find_peer(&mut self.lanes, record).listener;
            let number = Origin::Listener(self.lanes[record.peer.0].numbers[listener]);
            assert_eq!(record.origin, number, "the listener of {record:?}");
        }
        let left = self.handle.listeners().into_iter().map(|it| (it.state, it.connections));
        let removed = |(state, count)| state == ListenerState::Removed || count > 0;
        assert!(
            !left.into_iter().any(removed),
            "listeners are left: {:?}",
            self.handle.listeners()
        );
    }

    /// First come, first served: of each listener, on each shard that gets its clients.
    fn judge_order(&mut self, book: &Book) {
        let mut last = BTreeMap::new();
        for record in book.records.iter().filter(|record| record.accepted) {
            let peer = find_peer(&mut self.lanes, record);
            let at = (record.id.shard(), peer.birth.0, peer.listener);
            let before = last.insert(at, peer.accepted_as);
            assert!(before < Some(peer.accepted_as), "out of turn: {record:?}");
        }
    }

    fn judge_lane(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        assert_ne!(lane.life, Life::Runs, "shard {at} has not ended");
        let ring = lane.ring();
        let view = ring.view();
        let others = view.tokens.iter().filter(|token| !token.is_wake());
        assert_eq!(others.count(), 0, "shard {at}: in flight are {:?}", view.tokens);
        let open = lane.ring().open_counts();
        let left = if lane.at_rest { OpenCounts::default() } else { open };
        assert_eq!(open, left, "shard {at}: descriptors left open");
    }

    /// Whether bytes may remain unshown at the peer's FIN: fewer than the handler needs.
    fn hears_in_part(&self, record: &Record) -> bool {
        matches!(record.part.role, Role::Whole(_))
    }

    /// Whether there is such a reason.
    fn judge(&mut self, record: &Record) {
        let Some(reason) = record.closed else {
            panic!("never closed: {record:?}");
        };
        let peer = find_peer(&mut self.lanes, record);
        let (standing, sent_fin) = (peer.standing, peer.sent_fin);
        let left = matches!(standing, Standing::SentReset | Standing::Left);
        let gone = left || standing == Standing::Vanished;
        let config = self.config.clone();
        let part = record.part;
        // Of a connection that ended in the turn in which it was opened, they are not known.
        let has = |what: fn(&ClientLimits) -> bool| record.limits.as_ref().is_none_or(what);
        let true_reason = match reason {
            // A send may have taken the reset's error: then a receive answers 0.
            Reason::PeerFin => sent_fin || gone,
            Reason::PeerReset | Reason::BrokenPipe => gone,
            Reason::NetworkError => standing == Standing::Vanished,
            Reason::LocalClose => {
                let role = matches!(
                    part.role,
                    Role::Lecturer(_)
                        | Role::ShutdownAfter(_)
                        | Role::FinishAfter(_)
                        | Role::Ends(_, Then::Shutdown | Then::Finish)
                );
                let farewell = record.fin_shown && part.farewell == Farewell::ReplyAndShutdown;
                let told = record.called.has(Callback::Draining);
                let asked = told && self.book.borrow().drains_some;
                record.closing || role || farewell || asked
            }
            Reason::Aborted => {
                let role = matches!(part.role, Role::AbortAfter(_) | Role::Ends(_, Then::Abort));
                role && record.cut
            }
            Reason::IdleTimeout => has(|limits| limits.idle_ms.is_some()),
            Reason::Evicted => config.evict_idle && has(|limits| limits.evicts),
            Reason::TooSlow => {
                let has_floor = has(|limits| limits.window_bytes_min > 0);
                config.evict_idle && has_floor && record.accepted
            }
            Reason::ReceiveTimeout => has(|limits| limits.receive_ms.is_some()),
            Reason::WriteTimeout => has(|limits| limits.write_ms.is_some()),
            Reason::TransferTimeout => {
                has(|limits| limits.transfer_ms.is_some())
                    && matches!(
                        part.role,
                        Role::Files | Role::Uploads | Role::Forwarder | Role::Ends(..)
                    )
            }
            Reason::MessageTooLong => record.shown > 0 || matches!(part.role, Role::Whole(_)),
            Reason::OutputTooLong => {
                let is_small = record.output_bytes_max.is_none_or(|most| most < 1 << 20);
                is_small || self.book.borrow().disconnects
            }
            Reason::FileTruncated | Reason::FileFailed => {
                matches!(part.role, Role::Files | Role::Ends(Begins::Download(..), _))
            }
            Reason::Kicked => record.cut || self.book.borrow().kicks_all,
            Reason::Drained => {
                let drains = self.lanes[record.id.shard()].drain_deadline_us.is_some();
                drains || record.leaves_us.is_some()
            }
            Reason::Stopped => {
                let (id, ended_us) = (record.id, record.ended_us);
                let left = record.leaves_us.is_some_and(|at_us| ended_us + 1000 >= at_us);
                left || self.is_past_drain(id.shard())
            }
            Reason::HandlerPanicked => record.panicked,
            Reason::ProtocolError => {
                let role = part.role;
                let role = matches!(role, Role::ProtocolAfter(_) | Role::Ends(_, Then::Violation));
                role && record.closing
            }
            Reason::ShardFailed => self.lanes[record.id.shard()].life == Life::Failed,
        };
        assert!(true_reason, "no reason: {record:?}, peer {standing:?}, FIN {sent_fin}");
    }
}

/// The bytes of both directions, as `closed` was told of them.
fn judge_traffic(record: &Record, peer: &Peer, whole: bool) {
    let counts = record.limits.as_ref().map(|limits| limits.count_traffic);
    let Some(Traffic { received_bytes, sent_bytes }) = record.traffic else {
        let is_counted = record.shown_peer != crate::Peer::Unix && counts == Some(true);
        assert!(!whole || !is_counted, "the bytes of {record:?} are unknown");
        return;
    };
    assert!(counts != Some(false), "the bytes of {record:?} were not asked for");
    let got = peer.received.len() as u64;
    let sent = got <= sent_bytes && (!whole || got == sent_bytes);
    let received = (record.shown..=peer.sent).contains(&received_bytes);
    assert!(sent && received, "{:?} of {record:?}, whose peer got {got}", record.traffic);
}
