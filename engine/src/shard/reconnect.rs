//! Connections that are kept up, as links of the shard by their tag.
//!
//! A link waits, is among the requested connects, or has a slot whose id it remembers. A connection
//! that merely has the same tag does not belong to it. A waiting link holds no permit, no
//! descriptor and no slot. An attempt is an ordinary connect: without a permit or a descriptor it
//! fails.
//!
//! Failed attempts in a row double the wait, and half of the wait is random. Success is a
//! connection that lasted for as long as the wait before it.
//!
//! A link ends when its connection ends with `LocalClose` or `Aborted`. The next attempt is set
//! before `connect_failed` or `closed` is called, so that the application can ask for it
//! (`reconnects_in`) or give it up (`stop_reconnecting`). Giving up leaves an attempt in progress
//! and an open connection alone. A drain ends all links.

mod links;

pub use links::Links;

use super::connect::Attempt;
use super::core::Core;
use crate::config::milliseconds;
use crate::connect::Connect;
use crate::info::Origin;
use crate::{KeepConnectedError, Reason, Reconnect};
use links::{Link, Stage};
use std::time::Duration;

impl Core {
    /// Begins to keep a connection up.
    pub fn keep_connected(
        &mut self,
        connect: Connect,
        tag: u64,
        reconnect: Reconnect,
    ) -> Result<(), KeepConnectedError> {
        if self.draining {
            return Err(KeepConnectedError::Draining);
        }
        let Links { links, most, .. } = &mut self.links;
        if links.contains_key(&tag) {
            mark!("a link's tag is taken");
            return Err(KeepConnectedError::TagTaken { tag });
        }
        if links.len() >= *most {
            mark!("too many links");
            return Err(KeepConnectedError::TooMany { most: *most });
        }
        let first_ms = milliseconds(reconnect.first);
        let most_ms = milliseconds(reconnect.most).max(first_ms);
        links.insert(
            tag,
            Link {
                connect: connect.clone(),
                first_ms,
                most_ms,
                attempts_max: reconnect.attempts,
                stage: Stage::Asked,
                failures: 0,
                wait_ms: first_ms,
            },
        );
        self.connects.ask(Attempt::new(connect, tag, true));
        Ok(())
    }

    /// No further attempts; one that is under way takes its course. False: there is no such link.
    pub fn stop_reconnecting(&mut self, tag: u64) -> bool {
        let Some(link) = self.links.links.remove(&tag) else { return false };
        match link.stage {
            Stage::Waits { at_ms } => {
                mark!("a link that waits is given up");
                self.links.waiting.remove(&(at_ms, tag));
            }
            Stage::Asked => {
                mark!("a link that was asked for is given up");
                // The next link of this tag has nothing to do with it.
                let mut attempts = self.connects.iter_mut();
                let asked = attempts.find(|attempt| attempt.kept && attempt.tag == tag);
                asked.expect("it was asked for").kept = false;
            }
            Stage::Lives(_) => {
                mark!("a link that lives is given up");
                if bug!("reconnect-given-up") {
                    self.links.links.insert(tag, link);
                }
            }
        }
        true
    }

    /// How long until the next attempt, if one is waited for.
    pub fn reconnects_in(&self, tag: u64) -> Option<Duration> {
        match self.links.links.get(&tag)?.stage {
            Stage::Waits { at_ms } => {
                Some(Duration::from_millis(at_ms.saturating_sub(self.now_ms)))
            }
            Stage::Asked | Stage::Lives(_) => None,
        }
    }

    /// An attempt has failed before it had a slot.
    pub fn attempt_failed(&mut self, attempt: &Attempt) {
        if attempt.kept && self.links.links.contains_key(&attempt.tag) {
            self.wait_to_reconnect(attempt.tag, false);
        }
    }

    /// The connect of a slot has failed.
    pub fn connect_of_slot_failed(&mut self, slot: u32) {
        if let Some(tag) = self.link_of(slot) {
            self.wait_to_reconnect(tag, false);
        }
    }

    /// The connection of a slot has ended after so long.
    pub fn connection_has_ended(&mut self, slot: u32, reason: Reason, lifetime_ms: u64) {
        let Some(tag) = self.link_of(slot) else { return };
        // What the application has ended itself it does not want back.
        if matches!(reason, Reason::LocalClose | Reason::Aborted) {
            mark!("a link ends with its connection");
            self.links.links.remove(&tag);
            return;
        }
        let lasted = lifetime_ms >= self.links.links[&tag].wait_ms;
        if lasted {
            mark!("a link begins to wait anew");
        }
        self.wait_to_reconnect(tag, lasted);
    }

    /// One more attempt has failed, unless the connection has lasted.
    fn wait_to_reconnect(&mut self, tag: u64, lasted: bool) {
        self.links.wait(tag, lasted, self.now_ms);
        report!(reconnect_waits(self.shard, tag, self.reconnects_in(tag)));
    }

    /// The attempt of a slot returns to the queue. Returns whether it is one of a link.
    pub fn link_asks_again(&mut self, slot: u32) -> bool {
        let Some(tag) = self.link_of(slot) else { return false };
        self.links.links.get_mut(&tag).expect("just found").stage = Stage::Asked;
        true
    }

    /// The link whose connection is in this slot.
    fn link_of(&self, slot: u32) -> Option<u64> {
        let Origin::Connected(tag) = self.slots.origin(slot) else { return None };
        let link = self.links.links.get(&tag)?;
        (link.stage == Stage::Lives(self.id(slot))).then_some(tag)
    }

    /// Asks for the attempts whose time has come.
    #[inline]
    pub fn reconnect_due(&mut self) {
        if !self.links.waiting.is_empty() {
            self.ask_for_links();
        }
    }

    fn ask_for_links(&mut self) {
        while self.links.next_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
            let Some((_, tag)) = self.links.waiting.pop_first() else { break };
            let link = self.links.links.get_mut(&tag).expect("who waits is known");
            link.stage = Stage::Asked;
            self.connects.ask(Attempt::new(link.connect.clone(), tag, true));
            self.counters.reconnects += 1;
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Links {
    pub fn has(&self, tag: u64) -> bool {
        self.links.contains_key(&tag)
    }
}

#[cfg(any(test, feature = "testing"))]
impl Core {
    /// Every link will be heard of: by an attempt that is due when the shard wakes at the latest,
    /// by a connect asked for, or by the connection that is its own.
    pub fn check_links(&self, until_due: Duration) {
        let Links { links, waiting, most, .. } = &self.links;
        assert!(links.len() <= *most, "{} links, {most} allowed", links.len());
        assert!(!self.draining || links.is_empty(), "links in a drain");
        let waits = |link: &&Link| matches!(link.stage, Stage::Waits { .. });
        assert_eq!(links.values().filter(waits).count(), waiting.len(), "links that wait");
        for (tag, link) in links {
            let asked = self.connects.iter().filter(|it| it.kept && it.tag == *tag).count();
            assert_eq!(asked, usize::from(link.stage == Stage::Asked), "link {tag} in the queue");
            match link.stage {
                Stage::Waits { at_ms } => {
                    assert!(waiting.contains(&(at_ms, *tag)), "link {tag} was forgotten");
                    let (now_ms, due_ms) = (self.now_ms, until_due.as_millis() as u64);
                    assert!(at_ms > now_ms, "link {tag} was due at {at_ms}, it is {now_ms}");
                    assert!(due_ms <= at_ms - now_ms, "link {tag} in {due_ms} ms, due {at_ms}");
                }
                Stage::Asked => {}
                Stage::Lives(id) => {
                    let lives = self.slots.of_life(id.slot(), id.generation()).is_some();
                    assert!(lives, "link {tag} of {id:?}, which has gone");
                }
            }
        }
    }
}
