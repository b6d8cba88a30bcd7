//! Connections that are kept up: who asks for them and gives them up, and a second opinion on when
//! an attempt may come.

use super::actor::Actor;
use super::book::{Book, Role};
use super::world::World;
use crate::connect::Connect;
use crate::ring::simulated::{Rng, present_us};
use crate::{ConnectionId, KeepConnectedError, Local, Reason, Reconnect};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Who is told from outside to stop does so within so long: a wait takes a second at most.
const STOP_US_MAX: u64 = 2_000_000;
/// In quiet times nobody goes on who could try more often than every so often.
const QUIET_WAIT: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// An attempt is under way.
    Tries,
    Open {
        id: ConnectionId,
        since_ms: u64,
    },
    /// No attempt begins earlier.
    Waits {
        until_ms: u64,
    },
    /// None begins any more; the last may not be answered.
    Over {
        owed: bool,
    },
}

/// What was asked for, and what has become of it as far as the handler was told.
struct Kept {
    shard: usize,
    address: SocketAddr,
    reconnect: Reconnect,
    phase: Phase,
    failures: u32,
    wait_ms: u64,
    /// Since when its shard may know that it shall stop, in simulated µs.
    stopped_us: Option<u64>,
}

impl Kept {
    /// An attempt is answered. True: this was not wanted any more, but under way.
    fn is_answered(&mut self, now_ms: u64) -> Result<bool, String> {
        match self.phase {
            Phase::Tries => Ok(false),
            Phase::Waits { until_ms } if now_ms >= until_ms => Ok(false),
            Phase::Over { owed: true } => {
                self.phase = Phase::Over { owed: false };
                Ok(true)
            }
            phase => Err(format!("an attempt is answered at {now_ms} ms in {phase:?}")),
        }
    }

    /// An attempt or a life is over: the next one must be as far off as it should.
    fn waits(
        &mut self,
        lasted: bool,
        now_ms: u64,
        next: Option<Duration>,
        ending: bool,
    ) -> Result<(), String> {
        self.failures = if lasted { 0 } else { self.failures + 1 };
        if self.reconnect.attempts.is_some_and(|most| self.failures >= most) {
            self.phase = Phase::Over { owed: false };
            return if next.is_none() { Ok(()) } else { Err(format!("one too many: {next:?}")) };
        }
        let Some(next) = next else {
            self.phase = Phase::Over { owed: false };
            let given_up = ending || self.stopped_us.is_some();
            return if given_up { Ok(()) } else { Err("is not tried again".to_owned()) };
        };
        let mut whole = self.reconnect.first;
        for _ in 1..self.failures {
            whole = (2 * whole).min(self.reconnect.most);
        }
        self.wait_ms = whole.as_millis() as u64;
        let next_ms = next.as_millis() as u64;
        self.phase = Phase::Waits { until_ms: now_ms + next_ms };
        if next_ms < self.wait_ms.div_ceil(2) || next_ms > self.wait_ms {
            return Err(format!("{} failures, and again in {next:?}", self.failures));
        }
        Ok(())
    }
}

/// All of them.
#[derive(Default)]
pub struct Promises {
    by_tag: BTreeMap<u64, Kept>,
    /// Times are quiet: nobody tries often any more.
    quiet: bool,
}

impl Promises {
    fn pick(&self, rng: &mut Rng, wanted: impl Fn(&Kept) -> bool) -> Option<u64> {
        let tags: Vec<u64> =
            self.by_tag.iter().filter(|(_, kept)| wanted(kept)).map(|(tag, _)| *tag).collect();
        if tags.is_empty() { None } else { Some(rng.pick(&tags)) }
    }

    /// Those of a shard that may go on.
    fn active(&self, shard: usize) -> usize {
        let goes_on =
            |kept: &&Kept| kept.shard == shard && !matches!(kept.phase, Phase::Over { .. });
        self.by_tag.values().filter(goes_on).count()
    }
}

impl Book {
    /// Somebody to keep a connection to, from a shard.
    fn promise(&mut self, shard: usize, rng: &mut Rng) -> Option<(Connect, u64, Reconnect)> {
        let ms = Duration::from_millis;
        let (address, tag) = self.endpoints.pop()?;
        let part = self.parts.get_mut(&address).expect("every endpoint has a part");
        if part.role == Role::PanicsAtEnds {
            // Who panics when it is opened is not told of its end.
            part.role = Role::PanicAfter(1);
        }
        let first = if self.kept.quiet { QUIET_WAIT } else { ms(rng.pick(&[1, 5, 50, 400])) };
        let most = rng.pick(&[first, 4 * first, 7 * first, ms(60_000)]);
        let attempts = rng.pick(&[None, None, None, Some(1), Some(2), Some(5)]);
        let reconnect = Reconnect { first, most, attempts };
        let kept = Kept {
            shard,
            address,
            reconnect,
            phase: Phase::Tries,
            failures: 0,
            wait_ms: first.as_millis() as u64,
            stopped_us: None,
        };
        self.kept.by_tag.insert(tag, kept);
        Some((self.way(address, rng), tag, reconnect))
    }

    /// What we have connected to is open.
    pub fn connected(&mut self, tag: u64, id: ConnectionId, now: Duration) {
        let Some(kept) = self.kept.by_tag.get_mut(&tag) else {
            if self.cancelled.contains(&tag) {
                self.failures.push(format!("{tag} is opened though it was cancelled"));
            }
            return self.answered(tag);
        };
        let now_ms = now.as_millis() as u64;
        match kept.is_answered(now_ms) {
            Ok(true) => {}
            Ok(false) => kept.phase = Phase::Open { id, since_ms: now_ms },
            Err(what) => self.failures.push(format!("{tag} is opened: {what}")),
        }
    }
}

impl Actor {
    /// Keeps a connection up, or does so no longer.
    pub(super) fn keep_or_stop(&mut self, local: &mut Local<'_>) {
        let shard = local.shard();
        let mut book = self.book.borrow_mut();
        let mine = |kept: &Kept| kept.shard == shard && kept.stopped_us.is_none();
        match self.rng.below(5) {
            4 => {
                // What is open, or waits for its next attempt, has none to end.
                let Some(tag) = book.kept.pick(&mut self.rng, mine) else { return };
                let phase = book.kept.by_tag[&tag].phase;
                let now_ms = local.now().as_millis() as u64;
                let has_one = match phase {
                    Phase::Tries | Phase::Over { owed: true } => true,
                    // It may have begun.
                    Phase::Waits { until_ms } => now_ms >= until_ms,
                    Phase::Open { .. } | Phase::Over { owed: false } => false,
                };
                if local.cancel_connect(tag) && !has_one {
                    book.failures.push(format!("{tag} is cancelled though it is {phase:?}"));
                }
            }
            0 => {
                let Some(tag) = book.kept.pick(&mut self.rng, mine) else { return };
                let waits = local.reconnects_in(tag).is_some();
                let stopped = local.stop_reconnecting(tag);
                let ending = local.engine().is_draining() || book.failing == Some(shard);
                let kept = book.kept.by_tag.get_mut(&tag).expect("just found");
                let goes_on = !matches!(kept.phase, Phase::Over { .. });
                // The shard may have yet to hear of it.
                let unknown = ending || kept.phase == Phase::Tries;
                if stopped {
                    let owed = !waits && !matches!(kept.phase, Phase::Open { .. });
                    kept.phase = Phase::Over { owed };
                }
                if stopped != goes_on && !(unknown && goes_on) {
                    book.failures.push(format!("{tag} goes on: {goes_on}, stopped: {stopped}"));
                }
            }
            1 => {
                // What goes on has its tag.
                let goes_on = |it: &Kept| mine(it) && !matches!(it.phase, Phase::Over { .. });
                let Some(tag) = book.kept.pick(&mut self.rng, goes_on) else { return };
                let kept = &book.kept.by_tag[&tag];
                // The shard may have yet to hear of it.
                if kept.phase != Phase::Tries {
                    let (to, reconnect) = (kept.address, kept.reconnect);
                    let taken = local.keep_connected(to, tag, reconnect);
                    let drains = local.engine().is_draining() || book.failing == Some(shard);
                    if taken != Err(KeepConnectedError::TagTaken { tag }) && !drains {
                        book.failures.push(format!("{tag} is kept up twice: {taken:?}"));
                    }
                }
            }
            _ => {
                let Some((to, tag, reconnect)) = book.promise(shard, &mut self.rng) else { return };
                let Err(refused) = local.keep_connected(to, tag, reconnect) else { return };
                book.kept.by_tag.remove(&tag);
                let true_reason = match refused {
                    KeepConnectedError::Draining => {
                        local.engine().is_draining() || book.failing == Some(shard)
                    }
                    KeepConnectedError::TooMany { most } => book.kept.active(shard) >= most,
                    KeepConnectedError::TagTaken { .. } => false,
                };
                if !true_reason {
                    book.failures.push(format!("{tag} is not kept up: {refused}"));
                }
            }
        }
    }

    /// A connect has failed.
    pub(super) fn hear_of_failure(&self, local: &Local<'_>, tag: u64, error: &io::Error) {
        let mut book = self.book.borrow_mut();
        let (now_ms, next) = (local.now().as_millis() as u64, local.reconnects_in(tag));
        let ending = local.engine().is_draining() || book.failing == Some(local.shard());
        let Some(kept) = book.kept.by_tag.get_mut(&tag) else {
            book.check_error(tag, error, ending);
            return book.answered(tag);
        };
        let refused = error.get_ref().is_some_and(|inside| inside.is::<KeepConnectedError>());
        let result = match kept.is_answered(now_ms) {
            _ if refused => {
                let first = kept.phase == Phase::Tries && kept.failures == 0;
                kept.phase = Phase::Over { owed: false };
                if first && next.is_none() { Ok(()) } else { Err(error.to_string()) }
            }
            Ok(true) if next.is_some() => Err("is tried again".to_owned()),
            Ok(true) => Ok(()),
            Ok(false) => kept.waits(false, now_ms, next, ending),
            Err(what) => Err(what),
        };
        if let Err(what) = result {
            book.failures.push(format!("{tag} has failed: {what}"));
        }
    }

    /// A connection has ended.
    pub(super) fn hear_of_end(&self, local: &Local<'_>, id: ConnectionId, reason: Reason) {
        let mut book = self.book.borrow_mut();
        let ending = local.engine().is_draining() || book.failing == Some(local.shard());
        let mine = |kept: &Kept| matches!(kept.phase, Phase::Open { id: open, .. } if open == id);
        let Some((tag, kept)) = book.kept.by_tag.iter_mut().find(|(_, kept)| mine(kept)) else {
            return;
        };
        let Phase::Open { since_ms, .. } = kept.phase else { return };
        let (tag, now_ms, next) = (*tag, local.now().as_millis() as u64, local.reconnects_in(*tag));
        let result = if matches!(reason, Reason::LocalClose | Reason::Aborted) {
            kept.phase = Phase::Over { owed: false };
            if next.is_none() { Ok(()) } else { Err(format!("ended by us, again in {next:?}")) }
        } else {
            kept.waits(now_ms - since_ms >= kept.wait_ms, now_ms, next, ending)
        };
        if let Err(what) = result {
            book.failures.push(format!("{tag} has ended by {reason:?}: {what}"));
        }
    }
}

impl World {
    /// Has a shard keep a connection up.
    pub(super) fn keep_connected(&mut self, shard: usize) {
        self.add_endpoint();
        let mut book = self.book.borrow_mut();
        let (to, tag, reconnect) = book.promise(shard, &mut self.rng).expect("just added");
        if self.handle.keep_connected(shard, to, tag, reconnect).is_err() {
            book.kept.by_tag.remove(&tag);
        }
    }

    /// Who is connected to again and again goes away, or comes back.
    pub(super) fn come_and_go(&mut self) {
        let plan = self.swarm.draw_plan(&mut self.rng);
        let book = self.book.borrow();
        let Some(tag) = book.kept.pick(&mut self.rng, |_| true) else { return };
        let address = book.kept.by_tag[&tag].address;
        for lane in &mut self.lanes {
            let found = lane.ring().endpoints.iter_mut().find(|it| it.address == address);
            let endpoint = found.expect("every shard finds it");
            endpoint.plan = if endpoint.plan.is_some() { None } else { Some(plan) };
        }
    }

    /// Somebody outside no longer wants a connection kept up.
    pub(super) fn stop_reconnecting(&mut self) {
        let mut book = self.book.borrow_mut();
        let Some(tag) = book.kept.pick(&mut self.rng, |_| true) else { return };
        let kept = book.kept.by_tag.get_mut(&tag).expect("just found");
        if self.handle.stop_reconnecting(kept.shard, tag).is_ok() {
            // The clock of a shard that waited may be ahead of the one whose turn it is.
            let told_us = self.lanes[kept.shard].now_us().max(present_us());
            kept.stopped_us.get_or_insert(told_us);
        }
    }

    /// Somebody outside ends an attempt of a kept connection, if there is one.
    pub(super) fn cancel_kept(&mut self) {
        let book = self.book.borrow();
        let Some(tag) = book.kept.pick(&mut self.rng, |_| true) else { return };
        let _ = self.handle.cancel_connect(book.kept.by_tag[&tag].shard, tag);
    }

    /// From now on only those are kept up that try seldom; and they are answered.
    pub(super) fn calm_kept(&mut self) {
        self.book.borrow_mut().kept.quiet = true;
        self.stop_kept(|kept| kept.reconnect.first < QUIET_WAIT);
        let book = self.book.borrow();
        for kept in book.kept.by_tag.values() {
            for lane in &mut self.lanes {
                let endpoints = lane.ring().endpoints.iter_mut();
                for endpoint in endpoints.filter(|it| it.address == kept.address) {
                    endpoint.plan = Some(crate::ring::simulated::Plan::plain());
                }
            }
        }
    }

    /// Mostly, nothing is kept up any more.
    pub(super) fn release_kept(&mut self) {
        if self.rng.below(4) > 0 {
            self.stop_kept(|_| true);
        }
    }

    fn stop_kept(&mut self, which: impl Fn(&Kept) -> bool) {
        let book = self.book.clone();
        let all: Vec<(u64, usize)> = {
            let book = book.borrow();
            let kept = book.kept.by_tag.iter().filter(|(_, kept)| which(kept));
            kept.map(|(tag, kept)| (*tag, kept.shard)).collect()
        };
        for (tag, shard) in all {
            self.insist(|world| world.handle.stop_reconnecting(shard, tag).is_ok());
            // The clock of a shard that waited may be ahead of the one whose turn it is.
            let told_us = self.lanes[shard].now_us().max(present_us());
            let mut book = book.borrow_mut();
            let kept = book.kept.by_tag.get_mut(&tag).expect("none is forgotten");
            kept.stopped_us.get_or_insert(told_us);
        }
    }

    /// Who was told to stop has.
    pub(super) fn check_kept(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let now_us = lane.now_us();
        let Some(shard) = lane.shard() else { return };
        let links = &shard.parts().1.links;
        for (tag, kept) in self.book.borrow().kept.by_tag.iter().filter(|(_, it)| it.shard == at) {
            let told = kept.stopped_us.is_some_and(|at_us| at_us + STOP_US_MAX < now_us);
            let over = told || matches!(kept.phase, Phase::Over { .. });
            assert!(!over || !links.has(*tag), "{tag} goes on, {:?}", kept.phase);
        }
    }

    /// Every shard has ended: every attempt was answered, and there were no others.
    pub(super) fn judge_kept(&mut self) {
        let book = self.book.borrow();
        for (tag, kept) in &book.kept.by_tag {
            let phase = kept.phase;
            let told = matches!(phase, Phase::Waits { .. } | Phase::Over { owed: false });
            assert!(told, "{tag} of shard {} was not answered: {phase:?}", kept.shard);
        }
        let sum = self.ledger().sum;
        let asked = (book.connects.len() + book.kept.by_tag.len()) as u64;
        let answered = sum.connected + sum.connect_failed;
        assert_eq!(answered, asked + sum.reconnects, "connects answered, left, and asked for");
    }
}
