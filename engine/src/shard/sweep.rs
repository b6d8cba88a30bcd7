//! What is done to every connection, some at a time: kicking everybody at once would overflow the
//! completion queue and hold up the rest.

mod lists;

pub use lists::Sweeps;

use super::Shard;
use super::core::Core;
use super::turn::Calling;
use crate::Reason;
use crate::handler::Handler;
use crate::info::Origin;
use crate::ring::Ring;

impl Core {
    /// Ends every connection there is now with RST; the first reason counts.
    pub fn end_all(&mut self, reason: Reason) {
        let everybody = self.everybody().into_iter();
        self.sweeps.ending = everybody.map(|(slot, life)| (slot, life, reason)).collect();
        self.upkeep = true;
    }

    /// Ends the connections of a listener that there are now with RST.
    pub fn end_clients_of(&mut self, listener: u16, reason: Reason) {
        let clients = self.clients_of(listener).into_iter();
        self.sweeps.ending.extend(clients.map(|(slot, life)| (slot, life, reason)));
        self.upkeep = true;
    }

    /// Asks the connections of a listener that there are now to end gracefully.
    pub fn drain_clients_of(&mut self, listener: u16) {
        let clients = self.clients_of(listener);
        self.sweeps.draining.extend(clients);
        self.upkeep = true;
    }

    /// Asks every connection there is now to end gracefully.
    pub fn drain_all(&mut self) {
        self.sweeps.draining = self.everybody();
        self.upkeep = true;
    }

    fn everybody(&self) -> Vec<(u32, u64)> {
        self.slots.iter().map(|(slot, _)| (slot, self.slots.generation(slot))).collect()
    }

    fn clients_of(&self, listener: u16) -> Vec<(u32, u64)> {
        let mut everybody = self.everybody();
        everybody.retain(|(slot, _)| self.slots.origin(*slot) == Origin::Listener(listener));
        everybody
    }

    /// The next of those, if it is still there.
    fn still_there(&self, (slot, generation): (u32, u64)) -> Option<u32> {
        self.slots.of_life(slot, generation).map(|_| slot)
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Goes on with what turns have left and with what is done to every connection, and balances
    /// the budget.
    #[inline]
    pub(super) fn keep_up(&mut self, call: Calling) {
        if self.core.upkeep {
            self.carry_out(call);
            self.serve_due(call);
            self.sweep(call);
            self.core.balance(Self::SWEPT);
            let calm = self.core.sweeps.is_empty() && self.core.is_budget_calm();
            self.core.upkeep = !calm || self.has_rest();
        }
    }

    #[cold]
    #[inline(never)]
    fn sweep(&mut self, call: Calling) {
        for _ in 0..Self::SWEPT {
            let Some((slot, life, reason)) = self.core.sweeps.ending.pop() else { break };
            if let Some(slot) = self.core.still_there((slot, life)) {
                self.core.end(slot, reason, true);
            }
        }
        for _ in 0..Self::SWEPT {
            let Some(next) = self.core.sweeps.draining.pop() else { break };
            let Some(slot) = self.core.still_there(next) else {
                mark!("gone before it was told of the drain");
                continue;
            };
            if self.core.slots[slot].opened() {
                self.tell_of_drain(call, slot);
            } else if self.core.draining {
                mark!("a drain ends a connect");
                self.core.end(slot, Reason::Drained, true);
            }
        }
    }

    /// Calls `draining`, once.
    pub(super) fn tell_of_drain(&mut self, call: Calling, slot: u32) {
        let identity = self.core.slots.identity_mut(slot);
        let told = std::mem::replace(&mut identity.told_of_drain, true);
        if !told && !self.core.slots[slot].state().is_over() {
            self.application.draining(call, &mut self.core, slot);
        }
        // Who lingers already does so for less time from now on.
        self.core.touch(slot);
    }
}
